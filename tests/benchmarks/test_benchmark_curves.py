"""Whether a loss had stopped falling, on made curves."""

import numpy as np
import pytest

from benchmarks.curves import settled

STEPS = np.arange(2000)


def noise(scale, seed=0):
    return scale * np.random.default_rng(seed).normal(size=STEPS.size)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "curve",
    [
        np.exp(-STEPS / 150),
        1 + np.exp(-STEPS / 300) + noise(0.05),
        np.maximum(1 - STEPS / 800, 0) + noise(0.2),
        3 - np.exp(-STEPS / 100),
        0 * STEPS + 1.0,
        noise(1.0),
    ],
    ids=["exponential", "noisy", "very noisy", "rising", "flat", "noise"],
)
def test_curves_that_have_come_to_their_end(curve, seed):
    assert settled(curve + 1e-4 * noise(1.0, seed))


@pytest.mark.parametrize("scale", [0.0, 0.01, 0.03])
@pytest.mark.parametrize(
    "curve",
    [1 - STEPS / 2000, np.exp(-STEPS / 1500), 1 / (1 + STEPS / 200), np.where(STEPS > 1700, 0.5, 1)],
    ids=["line", "slow", "hyperbola", "late drop"],
)
def test_curves_that_still_fall(curve, scale):
    assert not settled(curve + noise(scale))


def test_few_points_or_none_that_are_numbers_tell_nothing():
    assert not settled([1.0] * 9)
    assert not settled([1.0] * 50 + [float("nan")])
    assert not settled([])
