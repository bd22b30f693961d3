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


@pytest.mark.parametrize("count", [100, 300, 1000, 10_000])
@pytest.mark.parametrize("power", [0.25, 0.5, 1.0])
def test_a_power_of_the_steps_never_settles_however_long_it_is(count, power):
    steps = np.arange(1, count + 1)
    curve = steps**-power
    head = curve[count // 10 : count // 5].mean()
    for seed in range(5):
        noisy = curve + 0.005 * head * np.random.default_rng(seed).normal(size=count)
        assert not settled(curve + 0.3)
        assert not settled(noisy)


@pytest.mark.parametrize("count", [100, 1000, 10_000])
def test_an_exponential_settles_at_any_length(count):
    curve = np.exp(-10 * np.arange(count) / count)
    assert settled(curve)
    assert sum(settled(curve + 0.01 * np.random.default_rng(seed).normal(size=count)) for seed in range(10)) >= 9


def test_a_second_fall_after_a_plateau_has_to_end_too():
    curve = np.exp(-STEPS / 60) + 1 / (1 + np.exp((STEPS - 1000) / 40)) + noise(0.01)
    assert settled(curve[:700])  # nobody can know yet
    assert not settled(curve[:700], done=0.1)
    assert not settled(curve[:1000])
    assert settled(curve)


def test_few_points_or_none_that_are_numbers_tell_nothing():
    assert not settled([1.0] * 9)
    assert not settled([1.0] * 50 + [float("nan")])
    assert not settled([])
