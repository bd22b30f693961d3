"""What a rule says of healthy images, in a few numbers."""

from __future__ import annotations

import numpy as np
import pytest

from priorlens.scores import HealthyStatistics, Scores


def test_statistics_are_those_of_the_figures_and_of_all_pixels():
    anomaly = np.array([1.0, 2.0, 6.0], np.float32)
    maps = np.random.default_rng(0).permutation(np.arange(30_000, dtype=np.float32)).reshape(3, 100, 100)
    found = HealthyStatistics.of(anomaly, maps)
    assert found.anomaly_mean == pytest.approx(3.0)
    assert found.anomaly_std == pytest.approx(np.sqrt((4 + 1 + 9) / 3))
    assert found.map_low == pytest.approx(29_999 * 0.5)
    assert found.threshold == pytest.approx(29_999 * 0.995)


def test_the_upper_end_is_an_extreme_of_the_pixels_or_twice_as_far_as_the_threshold():
    """Far tails: the 99.99th percentile. Short ones: a map's colours do not end right above the threshold."""
    even = np.arange(30_000, dtype=np.float32).reshape(3, 100, 100)
    one = np.ones(3, np.float32)
    short = HealthyStatistics.of(one, even)
    assert short.map_high == pytest.approx(short.threshold + (short.threshold - short.map_low))
    tailed = HealthyStatistics.of(one, np.where(even > 29_990, 1e6, even).astype(np.float32))
    assert tailed.map_high == pytest.approx(1e6)
    assert tailed.threshold == pytest.approx(short.threshold)


def test_statistics_are_plain_numbers():
    found = HealthyStatistics.of(np.ones(1, np.float32), np.ones((1, 8, 8), np.float32))
    assert {type(value) for value in vars(found).values()} == {float}
    assert (found.anomaly_std, found.map_low, found.threshold, found.map_high) == (0.0, 1.0, 1.0, 1.0)


def test_scores_have_no_figures_and_arrays_unless_given():
    scores = Scores(np.zeros(0, np.float32), (), 0)
    assert dict(scores.figures) == dict(scores.arrays) == {}
