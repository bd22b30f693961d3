"""Whether scans still look like those that a model was calibrated on: a bet against it that pays only when they do not.

Each feature of a scan is ranked among the calibration and all scans before it. While scans and calibration are
exchangeable these ranks are independent and uniform, and no way of betting on them can be expected to gain: the capital
of a feature that starts with 1 ever reaches c with a probability of at most 1 / c (Ville 1939; Vovk, Gammerman &
Shafer 2005, "Algorithmic Learning in a Random World", chapter 8 of the 2nd edition).

Features share one capital of 1 among them as stakes, and the alarm is raised when one alone has made 1 / alpha of its
stake: by the union bound no false alarm is ever raised with a probability above alpha, however the features depend on
each other. Their sum would not do: martingales that each know only their own past do not add up to one (Choe & Ramdas
2024, "Combining evidence across filtrations"), and it would be a few scans faster at best.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from crepes.martingales import EpsilonBettingFunction, SleeperStayer, StepBettingFunction
from jaxtyping import Float, Float64
from scipy.special import logsumexp

from priorlens.conformal import online_p_values
from priorlens.errors import InputError

Direction = Literal["higher", "lower", "wider", "narrower"]

_SLOPES = (-1.8, -1.0, 1.0, 1.8)
_STEPS = [0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 0.98]
BETS = (EpsilonBettingFunction(E=list(_SLOPES)), StepBettingFunction(Gs=_STEPS, A=_STEPS))
"""Densities of p-values to bet on: straight lines, quickest for small shifts of location; two steps, for large ones and
for changes of spread, of which lines see nothing."""

RATES = (1e-3, 1e-4)
"""Shares of what sleeps that are woken, and bet, at each scan: quick in the first thousands of scans, and still in the
ten-thousands."""

LARGEST = 1e300
"""Where the capital of a feature ends, lest it overflow."""


@dataclass(frozen=True)
class Moved:
    """A feature that would have raised the alarm by itself, had it been the only one.

    capital: its own at the alarm, from 1 at first.
    direction: of the scans from the change to the alarm: whether they lie higher or lower than those before and the
        calibration, or rather wider apart or closer together (narrower).
    shift: of their median from that of the calibration, in the calibration's standard deviations; NaN if it does not
        vary. An alarm is raised sooner where a shift looks large by chance, so it is rather too large than too small.
    """

    name: str
    capital: float
    direction: Direction
    shift: float


@dataclass(frozen=True)
class Watched:
    """What became of a stream.

    capital: after each scan, the largest that a feature has made of its stake; no martingale, but whether it ever
        reaches c has a probability of at most 1 / c while nothing changes. p_values: of the first feature.
    alarm: index of the first scan with a capital of 1 / alpha; None if there is none. The capital after it goes on as
        before; the watch does not start anew.
    change: index of the scan at which the change most probably began: `likeliest_start` of the feature that raised the
        alarm, up to the alarm; None without one.
    moved: the features that did, the one with the largest capital first; empty without an alarm.
    """

    capital: Float64[np.ndarray, " time"]
    p_values: Float64[np.ndarray, " time"]
    alarm: int | None
    change: int | None
    moved: tuple[Moved, ...]


def watch(
    stream: Mapping[str, Float[np.ndarray, " time"]],
    calibration: Mapping[str, Float[np.ndarray, " healthy"]],
    *,
    alpha: float = 0.05,
    seed: int = 0,
) -> Watched:
    """Watch scans, in the order of time, for being other than those of the calibration.

    Both hold the same features by name. The first, the anomaly, has half of all stakes, the others share the other half
    alike. `alpha` is the chance that a stream which stays exchangeable with the calibration ever raises an alarm. Ties
    are broken at random by `seed`. Raises InputError where a feature is NaN, or without calibration.
    """
    if not 0 < alpha < 1:
        raise InputError(f"alpha {alpha:g}: must lie between 0 and 1; choose for example 0.05")
    names = list(stream)
    p_values = {name: online_p_values(stream[name], calibration[name], _generator(seed, name)) for name in names}
    capitals = np.stack([capital_of(p_values[name]) for name in names])
    staked = _stakes(len(names))[:, None] * capitals
    capital = staked.max(axis=0)
    reached = np.flatnonzero(capital >= 1 / alpha)
    if not reached.size:
        return Watched(capital, p_values[names[0]], None, None, ())
    alarm = int(reached[0])
    raised_by = names[int(staked[:, alarm].argmax())]
    change = likeliest_start(p_values[raised_by][: alarm + 1])
    since = slice(change, alarm + 1)
    moved = [
        Moved(name, float(own), _direction(p_values[name][since]), _shift(stream[name][since], calibration[name]))
        for name, own in zip(names, capitals[:, alarm], strict=True)
        if own >= 1 / alpha
    ]
    moved.sort(key=lambda one: -one.capital)
    return Watched(capital, p_values[names[0]], alarm, change, tuple(moved))


def capital_of(p_values: Float64[np.ndarray, " time"]) -> Float64[np.ndarray, " time"]:
    """What has become of 1 after each p-value: the mean of sleepers that wake at any scan and stay with one bet.

    Of those that were compared, the mean over all `BETS` and `RATES` is among the quickest for small shifts, for large
    ones and for changes of spread; each bet alone, and the Simple Jumper, is slow or blind for one of them.
    """
    with np.errstate(over="ignore"):  # infinite is above any alarm, and ends at LARGEST
        sleepers = [SleeperStayer(R=rate, bf=bet).apply(p_values) for rate in RATES for bet in BETS]
        return np.minimum(np.mean(sleepers, axis=0), LARGEST)


def likeliest_start(p_values: Float64[np.ndarray, " time"]) -> int:
    """The index from which on the same bets, all begun there, would have gained most by the last p-value."""
    gains = []
    for bet in BETS:
        log_rewards = np.log(bet.apply(p_values))
        gains.append(logsumexp(log_rewards[::-1].cumsum(axis=0)[::-1], axis=1) - np.log(log_rewards.shape[1]))
    return int(np.logaddexp(*gains).argmax())


def _stakes(features: int) -> Float64[np.ndarray, " feature"]:
    """They add up to 1."""
    if features < 2:
        return np.ones(features)
    return np.array([0.5, *np.full(features - 1, 0.5 / (features - 1))])


def _direction(p_values: Float64[np.ndarray, " time"]) -> Direction:
    """By the mean or the mean distance from 1/2, whichever is further from that of uniform ones in standard errors."""
    location = (0.5 - p_values.mean()) * np.sqrt(12)
    spread = (np.abs(p_values - 0.5).mean() - 0.25) * np.sqrt(48)
    if abs(location) >= abs(spread):
        return "higher" if location > 0 else "lower"
    return "wider" if spread > 0 else "narrower"


def _shift(scans: Float[np.ndarray, " time"], healthy: Float[np.ndarray, " healthy"]) -> float:
    deviation = float(healthy.std())
    return float(np.median(scans) - np.median(healthy)) / deviation if deviation > 0 else float("nan")


def _generator(seed: int, name: str) -> np.random.Generator:
    """A stream of its own for each feature, whatever others are watched."""
    return np.random.default_rng([seed, *name.encode()])
