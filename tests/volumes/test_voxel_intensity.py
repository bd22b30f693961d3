"""Intensities of bodies that are known: where they go, that lesions do not move them, and the way back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from priorlens.errors import InputError
from priorlens.normalise import CLIP
from priorlens.volumes.voxel_intensity import (
    DEVIATION,
    MEDIAN_AT,
    PERCENTILES,
    WINDOWS,
    Curve,
    VoxelIntensity,
    inside,
)


def body(seed=0, count=20_000, mean=300.0, deviation=50.0):
    """Skewed a little, as tissues are."""
    rng = np.random.default_rng(seed)
    drawn = rng.standard_normal(count) + 0.15 * rng.standard_normal(count) ** 2
    return (mean + deviation * drawn).astype(np.float32)


HEALTHY = [body(seed, mean=200.0 + 40 * seed, deviation=30.0 + 5 * seed) for seed in range(6)]
LEARNED = VoxelIntensity.learned(HEALTHY)
MODES = {
    "window": VoxelIntensity("window", -160.0, 240.0),
    "robust": VoxelIntensity("robust"),
    "landmarks": LEARNED,
}


@pytest.mark.parametrize("mode", MODES)
def test_the_inverse_of_every_curve(mode):
    """Of all that was not cut off, within the body and beyond it; what was cut off stays at the cut."""
    curve = MODES[mode].of(body())
    scaled = np.linspace(*CLIP, 41, dtype=np.float32)
    raw = curve.inverse(scaled)
    assert raw.dtype == np.float32 and (np.diff(raw) > 0).all()
    np.testing.assert_allclose(curve.apply(raw), scaled, atol=1e-4)
    np.testing.assert_allclose(curve.inverse(curve.apply(raw)), raw, rtol=1e-4, atol=1e-2)
    far = np.array([[-1e6, 1e6]], np.float32)
    applied = curve.apply(far)
    assert applied.shape == (1, 2) and applied.dtype == np.float32
    np.testing.assert_array_equal(applied[0], np.float32(CLIP))
    np.testing.assert_allclose(curve.inverse(applied)[0], [raw[0], raw[-1]], rtol=1e-6)


@settings(max_examples=50, deadline=None)
@given(
    raw=st.lists(st.floats(-1000, 1000), min_size=2, max_size=9, unique=True),
    value=st.floats(-2000, 2000, width=32),
)
def test_curves_pass_through_their_points_and_go_on_straight(raw, value):
    raw = sorted(raw)
    if min(np.diff(raw)) < 1:
        return
    scaled = np.linspace(0.2, 0.6, len(raw))
    curve = Curve(tuple(raw), tuple(scaled.tolist()))
    np.testing.assert_allclose(curve.apply(np.array(raw, np.float32)), scaled, atol=1e-4)
    each = scaled[1] - scaled[0]
    if value < raw[0]:
        expected = scaled[0] + (value - raw[0]) * each / (raw[1] - raw[0])
    elif value > raw[-1]:
        expected = scaled[-1] + (value - raw[-1]) * each / (raw[-1] - raw[-2])
    else:
        expected = np.interp(value, raw, scaled)
    found = curve.apply(np.array([value], np.float32))
    np.testing.assert_allclose(found, [np.clip(expected, *CLIP)], atol=1e-3)


# --- windows


@pytest.mark.parametrize("name", WINDOWS)
def test_windows_in_hounsfield_units(name):
    """The same for every scan, whatever is in it."""
    low, high = WINDOWS[name]
    curve = VoxelIntensity("window", low, high).of(body())
    assert curve == VoxelIntensity("window", low, high).of(np.zeros(3, np.float32))
    width = high - low
    values = np.array([low, high, (low + high) / 2, low - width, high + width, low - width / 4], np.float32)
    np.testing.assert_allclose(curve.apply(values), [0, 1, 0.5, CLIP[0], CLIP[1], -0.25], atol=1e-6)


# --- robust


def test_robust_takes_the_median_and_the_deviation_to_their_places():
    voxels = np.random.default_rng(0).normal(700, 90, 50_000).astype(np.float32)
    scaled = MODES["robust"].of(voxels).apply(voxels)
    assert np.median(scaled) == pytest.approx(MEDIAN_AT, abs=1e-3)
    assert scaled.std() == pytest.approx(DEVIATION, rel=0.02)


@pytest.mark.parametrize("mode", ["robust", "landmarks"])
@settings(max_examples=30, deadline=None)
@given(gain=st.floats(0.01, 100), offset=st.floats(-1000, 1000))
def test_any_scanner_scale_is_undone(mode, gain, offset):
    voxels = body(2)
    other = (voxels * gain + offset).astype(np.float32)
    np.testing.assert_allclose(MODES[mode].of(other).apply(other), MODES[mode].of(voxels).apply(voxels), atol=0.02)


def with_lesion(voxels, share=0.15):
    """A share of the body at random, its intensities doubled."""
    lesion = np.random.default_rng(5).random(len(voxels)) < share
    return np.where(lesion, 2 * voxels, voxels).astype(np.float32), lesion


@pytest.mark.parametrize("mode", ["robust", "landmarks"])
def test_a_lesion_moves_little(mode):
    """15 % of the body at twice its intensity, six deviations up. What is healthy stays where it was within a fraction
    of a deviation, and the lesion stands out by about four."""
    voxels = body(3)
    ill, lesion = with_lesion(voxels)
    alone, beside = MODES[mode].of(voxels), MODES[mode].of(ill)
    moved = beside.apply(voxels[~lesion]) - alone.apply(voxels[~lesion])
    assert np.abs(moved).mean() < 0.3 * DEVIATION
    assert np.quantile(np.abs(moved), 0.95) < 0.7 * DEVIATION
    stands_out = np.median(beside.apply(ill[lesion])) - MEDIAN_AT
    assert stands_out > 3 * DEVIATION
    percentiles = np.percentile(ill, (0.5, 99.5)), np.percentile(voxels, (0.5, 99.5))
    assert percentiles[0][1] > 1.4 * percentiles[1][1], "which is what maps by upper percentiles would follow"


def test_where_most_voxels_are_alike_the_standard_deviation_serves():
    voxels = np.array([5.0] * 60 + [6.0] * 20 + [4.0] * 20, np.float32)
    curve = MODES["robust"].of(voxels)
    scaled = curve.apply(np.array([5, 5 + voxels.std()], np.float32))
    np.testing.assert_allclose(scaled, [MEDIAN_AT, MEDIAN_AT + DEVIATION], atol=1e-6)


@pytest.mark.parametrize("mode", ["robust", "landmarks"])
def test_a_body_that_is_all_alike_is_refused(mode):
    with pytest.raises(InputError, match="all voxels of the body are alike"):
        MODES[mode].of(np.full(50, 3, np.float32))


# --- landmarks


def test_landmarks_go_to_their_places():
    voxels = body(4)
    scaled = LEARNED.of(voxels).apply(voxels)
    np.testing.assert_allclose(np.percentile(scaled, PERCENTILES), LEARNED.standard, atol=2e-3)
    assert len(LEARNED.standard) == len(PERCENTILES) and (np.diff(LEARNED.standard) > 0).all()


def test_landmarks_of_one_scan_are_its_own():
    """Learned from one: the robust map at every decile of it, and the same for any scan bent out of its shape."""
    voxels = body(1)
    alone = VoxelIntensity.learned([voxels])
    deciles = np.percentile(voxels, PERCENTILES).astype(np.float32)
    expected = MODES["robust"].of(voxels).apply(deciles)
    np.testing.assert_allclose(alone.standard, expected, atol=1e-3)
    bent = (np.sign(voxels - 300) * np.abs(voxels - 300) ** 1.3).astype(np.float32)
    bent_deciles = np.percentile(bent, PERCENTILES).astype(np.float32)
    np.testing.assert_allclose(alone.of(bent).apply(bent_deciles), expected, atol=1e-3)


def test_few_grey_levels():
    """Deciles that coincide: the curves still rise, both ways, and end where they should."""
    voxels = np.repeat(np.array([1, 2, 3], np.float32), [400, 500, 100])
    learned = VoxelIntensity.learned([voxels, voxels])
    for intensity in (learned, LEARNED):
        curve = intensity.of(voxels)
        assert (np.diff(curve.raw) > 0).all() and (np.diff(curve.scaled) > 0).all()
        scaled = curve.apply(np.array([1, 2, 3], np.float32))
        assert np.isfinite(scaled).all() and (np.diff(scaled) > 0).all()
        assert np.isfinite(curve.inverse(scaled)).all()


# --- voxels of the body


def test_voxels_of_the_body():
    voxels = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    np.testing.assert_array_equal(inside(voxels, voxels % 7 == 0), np.arange(0, 60, 7))


def test_of_many_voxels_some_are_drawn_evenly():
    voxels = np.linspace(0, 1, 80**3, dtype=np.float32).reshape(80, 80, 80)
    drawn = inside(voxels, np.ones(voxels.shape, bool))
    assert 200_000 <= drawn.size < 400_000
    assert np.ptp(np.diff(drawn)) < 1e-6 and drawn[0] == 0 and drawn[-1] > 0.999
