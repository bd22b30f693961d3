"""To the model's intensities and grid, and back to the same place."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from priorlens.errors import InputError
from priorlens.images import Image
from priorlens.normalise import CLIP, AppliedIntensity, Grid, Intensity, linear_weights


def image(pixels: np.ndarray, full_scale: float, name: str = "x.png") -> Image:
    return Image(pixels.astype(np.float32), Path(name), full_scale)


RAMP = np.linspace(0, 200, 9 * 9).reshape(1, 9, 9)


def test_range_of_integer_images_is_their_full_scale() -> None:
    assert Intensity.fit([image(RAMP, 255.0), image(RAMP / 2, 255.0)]) == Intensity("range", 0.0, 255.0)


def test_range_of_floats_is_percentiles_over_all_images() -> None:
    rng = np.random.default_rng(0)
    slices = [image(rng.uniform(-1000, 1000, (1, 100, 100)), math.nan) for _ in range(20)]
    intensity = Intensity.fit(slices)
    assert intensity.low == pytest.approx(-998, abs=2) and intensity.high == pytest.approx(998, abs=2)
    assert intensity == Intensity.fit(slices), "drawn alike every time"


def test_one_unknown_scale_makes_it_percentiles() -> None:
    assert Intensity.fit([image(RAMP, 255.0), image(RAMP, math.nan)]).high == pytest.approx(200, abs=1)


def test_range_refuses_mixed_bit_depths_by_name() -> None:
    mixed = [image(RAMP, math.nan, "float.npy"), image(RAMP, 255.0), image(RAMP, 65535.0, "deep.png")]
    with pytest.raises(InputError, match=r"^deep.png: holds intensities up to 65535 .*; convert"):
        Intensity.fit(mixed)
    assert Intensity.fit(mixed, "percentile") == Intensity("percentile", 0.5, 99.5)


def test_range_refuses_another_depth_later_on() -> None:
    fitted = Intensity.fit([image(RAMP, 255.0)])
    fitted.require_depth(image(RAMP, 255.0))
    fitted.require_depth(image(RAMP, math.nan))
    with pytest.raises(InputError, match=r"^new.tif: .*65535"):
        fitted.require_depth(image(RAMP, 65535.0, "new.tif"))
    Intensity("percentile", 0.5, 99.5).require_depth(image(RAMP, 65535.0))


def test_nothing_to_learn_from() -> None:
    with pytest.raises(InputError):
        Intensity.fit([])
    with pytest.raises(InputError, match="constant"):
        Intensity.fit([image(np.full((1, 9, 9), 3), math.nan)])


@given(gain=st.floats(0.01, 100), offset=st.floats(-1000, 1000))
@settings(deadline=None)
def test_percentiles_undo_any_scanner_scale(gain: float, offset: float) -> None:
    intensity = Intensity("percentile", 0.5, 99.5)
    raw = RAMP.astype(np.float32)
    np.testing.assert_allclose(
        intensity.apply((raw * gain + offset).astype(np.float32)), intensity.apply(raw), atol=0.02
    )


def test_percentiles_of_an_image_that_is_nearly_all_background() -> None:
    pixels = np.zeros((1, 50, 50), np.float32)
    pixels[0, 20, 20] = 7
    assert Intensity("percentile", 0.5, 99.5).of(pixels) == AppliedIntensity(0.0, 7.0)


finite = st.floats(-1e4, 1e4, width=32)


@given(low=finite, width=st.floats(0.1, 1e4), places=st.lists(st.floats(-0.5, 1.5), min_size=1, max_size=9))
@settings(deadline=None)
def test_intensity_comes_back(low: float, width: float, places: list[float]) -> None:
    applied = AppliedIntensity(low, low + width)
    raw = (low + width * np.array(places)).astype(np.float32)
    scaled = applied.apply(raw)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled, places, atol=2e-3 / width + 1e-5)
    np.testing.assert_allclose(applied.inverse(scaled), raw, rtol=1e-5, atol=2e-3)


def test_intensity_is_cut_off_only_far_outside() -> None:
    scaled = Intensity("range", 0.0, 100.0).apply(np.array([[[-1000, -20, 50, 120, 1000]]], np.float32))
    np.testing.assert_allclose(scaled[0, 0], [CLIP[0], -0.2, 0.5, 1.2, CLIP[1]], rtol=1e-6)


sides = st.integers(8, 70)


@given(height=sides, width=sides, size=sides)
@settings(max_examples=60, deadline=None)
def test_a_linear_ramp_keeps_its_place(height: int, width: int, size: int) -> None:
    """Every model pixel in the image tells where it came from, exactly; half a pixel at the edge is held."""
    grid = Grid(height, width, size)
    mapped = grid.to_model(np.indices((height, width)).astype(np.float32))
    place = (np.arange(size) + 0.5 - size / 2) * max(height, width) / size
    rows = (place + height / 2 - 0.5).clip(0, height - 1)
    columns = (place + width / 2 - 0.5).clip(0, width - 1)
    expected = np.stack(np.meshgrid(rows, columns, indexing="ij"))
    np.testing.assert_allclose(mapped[:, grid.content()], expected[:, grid.content()], atol=1e-4)


@given(height=sides, width=sides, size=sides)
@settings(max_examples=60, deadline=None)
def test_a_linear_ramp_on_the_model_keeps_its_place_on_the_way_back(height: int, width: int, size: int) -> None:
    grid = Grid(height, width, size)
    ramp = np.indices((size, size)).astype(np.float32)
    back = np.stack([grid.from_model(ramp[0]), grid.from_model(ramp[1])])
    scale = size / max(height, width)
    inside = [np.flatnonzero(grid.content().any(axis=axis)) for axis in (1, 0)]
    rows = ((np.arange(height) + 0.5 - height / 2) * scale + size / 2 - 0.5).clip(inside[0][0], inside[0][-1])
    columns = ((np.arange(width) + 0.5 - width / 2) * scale + size / 2 - 0.5).clip(inside[1][0], inside[1][-1])
    np.testing.assert_allclose(back, np.stack(np.meshgrid(rows, columns, indexing="ij")), atol=1e-4)


def centroid(weights: np.ndarray) -> np.ndarray:
    places = np.indices(weights.shape)
    return (places * weights).sum(axis=(1, 2)) / weights.sum()


@pytest.mark.parametrize("shape", [(40, 40), (41, 64), (96, 57), (150, 200), (33, 32)])
@pytest.mark.parametrize("size", [32, 48, 65, 128])
def test_a_blob_comes_back_to_its_place(shape: tuple[int, int], size: int) -> None:
    rows, columns = np.indices(shape)
    row, column = 0.4 * shape[0], 0.6 * shape[1]
    width = 0.07 * max(shape)
    blob = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * width**2)).astype(np.float32)
    grid = Grid(*shape, size)
    back = grid.from_model(grid.to_model(blob[None])[0])
    assert back.shape == shape and back.dtype == np.float32
    truncated = np.where(blob > 0.05, blob, 0), np.where(back > 0.05 * back.max(), back, 0)
    assert abs(centroid(truncated[1]) - centroid(truncated[0])).max() < 0.05


def test_own_grid_is_left_alone() -> None:
    pixels = np.random.default_rng(0).random((2, 24, 24), dtype=np.float32)
    grid = Grid(24, 24, 24)
    np.testing.assert_array_equal(grid.to_model(pixels), pixels)
    np.testing.assert_array_equal(grid.from_model(pixels[0]), pixels[0])


@given(height=sides, width=sides, size=sides, value=st.floats(-5, 5, width=32))
@settings(deadline=None)
def test_a_constant_stays_constant_both_ways(height: int, width: int, size: int, value: float) -> None:
    grid = Grid(height, width, size)
    mapped = grid.to_model(np.full((1, height, width), value, np.float32))
    np.testing.assert_allclose(mapped, value, atol=1e-5)
    np.testing.assert_allclose(grid.from_model(mapped[0]), value, atol=1e-5)


def test_padding_is_centred_and_holds_the_median_of_the_border() -> None:
    pixels = np.full((1, 20, 40), 9, np.float32)
    pixels[0, 0], pixels[0, -1] = 2, 2
    grid = Grid(20, 40, 40)
    mapped = grid.to_model(pixels)[0]
    np.testing.assert_array_equal(mapped[10:30], pixels[0])
    assert (mapped[:10] == 2).all() and (mapped[30:] == 2).all()
    expected = np.zeros((40, 40), bool)
    expected[10:30] = True
    np.testing.assert_array_equal(grid.content(), expected)


@given(height=sides, width=sides, size=sides)
@settings(deadline=None)
def test_what_a_map_holds_in_the_padding_leaves_no_trace(height: int, width: int, size: int) -> None:
    grid = Grid(height, width, size)
    back = grid.from_model(np.where(grid.content(), 1, 1e6).astype(np.float32))
    np.testing.assert_allclose(back, 1, rtol=1e-5)


def test_shrinking_does_not_alias() -> None:
    stripes = np.tile(np.array([0, 1], np.float32), (64, 32))[None]
    assert np.ptp(Grid(64, 64, 16).to_model(stripes)[:, 1:-1, 1:-1]) < 0.05


@pytest.mark.parametrize("size", [8, 15, 64])
def test_a_very_long_image_keeps_a_trace(size: int) -> None:
    pixels = np.random.default_rng(0).random((1, 2000, 8), dtype=np.float32)
    grid = Grid(2000, 8, size)
    assert grid.content().any(axis=0).sum() in (1, 2)
    assert np.isfinite(grid.from_model(grid.to_model(pixels)[0])).all()


# --- weights at any places


@given(
    source=st.integers(1, 60),
    scale=st.floats(0.1, 8),
    places=st.lists(st.floats(-20, 80), min_size=1, max_size=30),
)
@settings(max_examples=150, deadline=None)
def test_weights_reproduce_ramps_at_any_place(source: int, scale: float, places: list[float]) -> None:
    """They sum to one, and their mean place is the one asked for, or the nearest edge; nothing is not finite."""
    centres = np.array(places)
    weights = linear_weights(source, centres, scale)
    assert weights.shape == (len(centres), source) and np.isfinite(weights.data).all()
    np.testing.assert_allclose(weights @ np.ones(source), 1, atol=1e-5)
    np.testing.assert_allclose(weights @ np.arange(source), centres.clip(0, source - 1), atol=1e-4 * source)


def test_weights_between_two_pixels_and_over_a_triangle() -> None:
    np.testing.assert_allclose(linear_weights(5, np.array([1.25]), 1.0).toarray(), [[0, 0.75, 0.25, 0, 0]], atol=1e-7)
    np.testing.assert_allclose(linear_weights(5, np.array([3.0]), 4.0).toarray(), [[0, 0, 0, 1, 0]], atol=1e-7)
    halved = linear_weights(9, np.array([4.0]), 0.5).toarray()
    np.testing.assert_allclose(halved, [[0, 0, 0, 0.25, 0.5, 0.25, 0, 0, 0]], atol=1e-7)
    np.testing.assert_allclose(linear_weights(5, np.array([-3.0, 9.0]), 1.0).toarray()[:, [0, 4]], np.eye(2), atol=1e-7)


@pytest.mark.parametrize("scale", [0.2, 0.7, 1.0, 3.0])
def test_equally_spaced_places_keep_what_there_is(scale: float) -> None:
    """Smooth images keep their sum, in units of the source."""
    source = np.exp(-((np.arange(200) - 90) ** 2) / (2 * 12**2))
    places = np.arange(0, 199, 1 / scale)
    assert (linear_weights(200, places, scale) @ source).sum() / scale == pytest.approx(source.sum(), rel=1e-3)
