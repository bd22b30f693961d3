"""Varied slices: still what they were, but for what may differ between patients."""

import numpy as np
import pytest
from scipy import ndimage

from priorlens.variations import BIAS, ENOUGH, GAIN, SHIFT, STRETCH, TURN, copies, varied

SIDE = 48


def rng(seed=0):
    return np.random.default_rng(seed)


def disc(radius=12.0, centre=(SIDE - 1) / 2, value=0.4):
    rows, columns = np.indices((SIDE, SIDE))
    distance = np.hypot(rows - centre, columns - centre)
    return (value * np.clip(radius - distance + 0.5, 0, 1)).astype(np.float32)


@pytest.mark.parametrize(("images", "each"), [(1, 899), (100, 8), (900, 0), (5000, 0), (599, 1), (601, 0), (0, 899)])
def test_how_many(images, each):
    assert copies(images) == each
    assert images < 1 or images + images * each <= 1.5 * max(ENOUGH, images)


@pytest.mark.parametrize("intensities", [False, True])
def test_zero_stays_zero(intensities):
    """An empty image wholly; and around what there is, so that background stays what it is everywhere else."""
    assert (varied(np.zeros((3, SIDE, SIDE), np.float32), rng(), intensities=intensities) == 0).all()
    for seed in range(10):
        found = varied(disc()[None], rng(seed), intensities=intensities)[0]
        rows, columns = np.indices((SIDE, SIDE)) - (SIDE - 1) / 2
        reach = 13 * (1 + STRETCH) / (1 - STRETCH) + 2 * SHIFT * SIDE
        assert (found[np.hypot(rows, columns) > reach] == 0).all()


@pytest.mark.parametrize("intensities", [False, True])
def test_the_generator_decides(intensities):
    pixels = rng(9).random((2, SIDE, SIDE), np.float32)
    one, again = (varied(pixels, rng(3), intensities=intensities) for _ in range(2))
    np.testing.assert_array_equal(one, again)
    assert one.dtype == np.float32 and one.shape == pixels.shape
    assert not np.array_equal(one, varied(pixels, rng(4), intensities=intensities))
    state = np.random.get_state()[1].copy()
    varied(pixels, rng(3), intensities=intensities)
    np.testing.assert_array_equal(np.random.get_state()[1], state)


def test_ct_keeps_its_intensities():
    """Where the image is flat it has just the values it had, and none but them and what lies between."""
    pixels = np.stack([disc(15, value=0.7) - 0.2, disc(15, value=-0.4)])
    for seed in range(20):
        found = varied(pixels, rng(seed), intensities=False)
        middle = (slice(None), slice(18, 30), slice(18, 30))
        np.testing.assert_allclose(found[middle], pixels[middle], atol=1e-6)
        assert found[0].max() <= 0.5 + 1e-6 and found[0].min() >= -0.2 - 1e-6


def test_what_is_at_the_border_goes_on_beyond_it():
    """Air of a CT is no zero: a turned image has no wedges in its corners."""
    for seed in range(20):
        found = varied(np.full((1, SIDE, SIDE), -0.5, np.float32), rng(seed), intensities=False)
        np.testing.assert_allclose(found, -0.5, atol=1e-6)


def test_mri_varies_a_little_each_channel_by_itself():
    pixels = np.stack([disc(18), disc(18)])
    ratios = []
    for seed in range(20):
        found = varied(pixels, rng(seed), intensities=True)
        inner = found[:, 12:36, 12:36]
        assert not np.allclose(inner[0], inner[1])
        ratios.append(inner.mean((1, 2)) / 0.4)
        assert inner.std() / inner.mean() < 4 * BIAS
    ratios = np.array(ratios)
    assert abs(ratios.mean() - 1) < 0.05 and 0.01 < ratios.std() < 3 * (GAIN + BIAS)


def test_darker_than_zero_stays_darker():
    """Robust intensities go below zero where tissue is far darker than the median."""
    pixels = np.stack([disc(18, value=-0.3)])
    for seed in range(10):
        inner = varied(pixels, rng(seed), intensities=True)[0, 14:34, 14:34]
        assert inner.max() < -0.15 and inner.min() > -0.5


def test_turned_stretched_and_shifted_no_farther_than_said():
    """By the positions of two spots; both channels alike."""
    pixels = np.zeros((2, SIDE, SIDE), np.float32)
    pixels[:, 23:25, 10:12] = 1
    pixels[:, 23:25, 34:36] = 1
    pixels[1] *= 2
    turns, stretches, shifts = [], [], []
    for seed in range(60):
        found = varied(pixels, rng(seed), intensities=False)
        np.testing.assert_allclose(found[1], 2 * found[0], atol=1e-6)
        left, right = (
            np.add(ndimage.center_of_mass(half), (0, start))
            for half, start in ((found[0][:, :23], 0), (found[0][:, 23:], 23))
        )
        assert left[1] < right[1], "never mirrored"
        across = right - left
        turns.append(np.degrees(np.arctan2(across[0], across[1])))
        stretches.append(np.hypot(*across) / 24)
        shifts.append((left + right) / 2 - (23.5, 22.5))
    assert 0.6 * TURN < np.abs(turns).max() <= TURN + 0.5
    assert 1 / (1 + STRETCH) - 0.01 <= min(stretches) < 0.96 and 1.04 < max(stretches) <= 1 / (1 - STRETCH) + 0.01
    assert 0.5 < np.abs(shifts).max() <= SHIFT * SIDE * (1 + 2 * STRETCH) + 0.3
    assert abs(np.mean(turns)) < 2 and abs(np.mean(stretches) - 1) < 0.02
