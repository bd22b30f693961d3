"""The watch keeps its promise on healthy streams, and tells what moved, when and which way on others."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from crepes.martingales import SimpleJumper

from priorlens import drift
from priorlens.drift import LARGEST, capital_of, likeliest_start, watch
from priorlens.errors import InputError

Scans = dict[str, np.ndarray]


def healthy_scans(rng: np.random.Generator, scans: int, features: int = 4) -> Scans:
    """Correlated features; the first is the anomaly."""
    shared = rng.standard_normal(scans)
    names = ["anomaly", *(f"bits@sigma={i}" for i in range(1, features))]
    return {name: 0.7 * shared + 0.7 * rng.standard_normal(scans) for name in names}


def changed(stream: Scans, start: int, change: Callable[[np.ndarray], np.ndarray], *names: str) -> Scans:
    """The stream with some features (by default all) changed from a scan on."""
    return {
        name: np.concatenate([scans[:start], change(scans[start:])]) if name in (names or stream) else scans
        for name, scans in stream.items()
    }


def test_a_healthy_stream_rarely_raises_an_alarm():
    """At alpha = 0.2, 60 streams raise at most 12 alarms on average, and more than 20 with a probability below 1 %."""
    alarms = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        watched = watch(healthy_scans(rng, 300), healthy_scans(rng, 100), alpha=0.2)
        alarms += watched.alarm is not None
    assert alarms <= 20


def test_no_bet_can_be_expected_to_gain():
    """The mean capital over p-values that are spread evenly stays 1, whatever the bets: here all pairs of 200."""
    grid = (np.arange(200) + 0.5) / 200
    for bet in drift.BETS:
        assert bet.apply(grid).mean(axis=0) == pytest.approx(1, abs=0.02)
    ends = [capital_of(np.array(pair))[-1] for pair in product(grid[::8], repeat=2)]
    assert np.mean(ends) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("change", "direction", "off"),
    [
        (lambda scans: scans + 2, "higher", 5),
        (lambda scans: scans - 2, "lower", 5),
        (lambda scans: 3 * scans, "wider", 15),
        (lambda scans: 0.05 * scans, "narrower", 15),
    ],
)
def test_a_clear_change_is_noticed_dated_and_named(change, direction, off):
    rng = np.random.default_rng(1)
    calibration, stream = healthy_scans(rng, 200), healthy_scans(rng, 600)
    watched = watch(changed(stream, 300, change), calibration)
    assert watched.alarm is not None and 300 < watched.alarm < 360
    assert watched.change is not None and abs(watched.change - 300) <= off
    assert {one.name for one in watched.moved} <= set(stream) and watched.moved
    assert all(one.direction == direction for one in watched.moved)
    assert watched.capital.shape == watched.p_values.shape == (600,)
    assert (watched.capital[: watched.alarm] < 20).all() and watched.capital[watched.alarm] >= 20
    capitals = [one.capital for one in watched.moved]
    assert capitals == sorted(capitals, reverse=True) and min(capitals) >= 20


def test_nine_of_ten_changes_of_two_deviations_in_the_middle_are_noticed_within_a_hundred_scans():
    noticed = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        stream = changed(healthy_scans(rng, 1000), 500, lambda scans: scans + 2)
        alarm = watch(stream, healthy_scans(rng, 200)).alarm
        noticed += alarm is not None and 500 <= alarm < 600
    assert noticed >= 9


def test_a_single_feature_that_moves_is_the_one_named():
    rng = np.random.default_rng(2)
    stream = changed(healthy_scans(rng, 400), 200, lambda scans: scans + 2, "bits@sigma=2")
    watched = watch(stream, healthy_scans(rng, 200))
    assert [one.name for one in watched.moved] == ["bits@sigma=2"]
    assert watched.moved[0].shift == pytest.approx(2, abs=0.7)


def test_a_stream_that_differs_from_the_start_is_dated_to_the_start():
    rng = np.random.default_rng(3)
    stream = changed(healthy_scans(rng, 100), 0, lambda scans: scans + 2)
    watched = watch(stream, healthy_scans(rng, 200))
    assert watched.change == 0 and watched.alarm is not None and watched.alarm < 30


def test_without_a_change_nothing_is_dated_or_named():
    rng = np.random.default_rng(4)
    watched = watch(healthy_scans(rng, 100), healthy_scans(rng, 100))
    assert (watched.alarm, watched.change, watched.moved) == (None, None, ())


def test_the_anomaly_alone_has_all_stakes_and_else_half():
    rng = np.random.default_rng(5)
    stream, calibration = healthy_scans(rng, 50), healthy_scans(rng, 50)
    alone = watch({"anomaly": stream["anomaly"]}, {"anomaly": calibration["anomaly"]})
    assert alone.capital == pytest.approx(capital_of(alone.p_values))
    together = watch(stream, calibration)
    assert (together.p_values == alone.p_values).all()
    assert (together.capital >= alone.capital / 2).all()


def test_the_seed_decides_between_ties_only():
    rng = np.random.default_rng(6)
    scans, healthy = {"anomaly": rng.integers(0, 3, 50).astype(float)}, {"anomaly": np.array([0.0, 1.0, 2.0])}
    first, again, other = (watch(scans, healthy, seed=seed).capital for seed in (0, 0, 1))
    assert (first == again).all() and (first != other).any()


def test_a_feature_that_never_varies_is_no_change():
    constant = {"anomaly": np.ones(300)}, {"anomaly": np.ones(100)}
    assert watch(*constant).alarm is None
    raised = watch({"anomaly": np.full(100, 2.0)}, {"anomaly": np.ones(100)})
    assert raised.moved[0].direction == "higher" and np.isnan(raised.moved[0].shift)


def test_the_largest_capital_ends_before_it_overflows():
    capital = capital_of(np.full(3000, 1e-4))
    assert capital[-1] == LARGEST and not np.isnan(capital).any()
    assert np.isfinite(capital_of(np.tile([1e-9, 1 - 1e-9], 3000))).all()


def test_the_mean_of_sleepers_sees_a_change_of_spread_that_a_jumper_does_not():
    rng = np.random.default_rng(7)
    p_values = np.concatenate([rng.random(300), rng.beta(0.5, 0.5, 300)])
    assert SimpleJumper().apply(p_values).max() < 20 < capital_of(p_values).max()


def test_the_likeliest_start_is_where_the_ranks_turn():
    p_values = np.concatenate(
        [np.linspace(0.01, 0.99, 50)[np.random.default_rng(8).permutation(50)], np.full(10, 0.01)]
    )
    assert abs(likeliest_start(p_values) - 50) <= 1


def test_what_cannot_be_watched_is_refused():
    healthy = {"anomaly": np.arange(10.0)}
    for alpha in (0.0, 1.0, -0.1):
        with pytest.raises(InputError, match="alpha"):
            watch(healthy, healthy, alpha=alpha)
    with pytest.raises(InputError, match="not a number"):
        watch({"anomaly": np.array([1.0, np.nan])}, healthy)
