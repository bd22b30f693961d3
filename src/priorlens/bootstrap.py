"""Bootstrap intervals over patients, fast enough to be always on.

A resample of whole groups (a patient, or an image where the patient is unknown) only changes how often each group
counts. Counts at a falling threshold are additive, so they are taken once per group, at no more than about two thousand
thresholds, and one matrix product gives all resamples. The thresholds are quantiles of the abnormal and of the healthy
scores together with both ends: true- and false-positive rates of a replicate are exact there, and at most 0.1 % apart
from one threshold to the next. With up to a thousand distinct scores of each sort (image level) replicates are exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64

from priorlens import roc

Figure = Callable[[roc.OperatingPoints], Float64[np.ndarray, "*resample"]]

LEVEL = 0.95
_QUANTILES = 1024
_RESAMPLES_AT_ONCE = 64


@dataclass(frozen=True)
class Estimate:
    """A figure with its percentile interval (`LEVEL`), as the resamples give it: not shifted, not corrected for bias.

    `low` and `high` are NaN if fewer than two groups hold abnormal items, or healthy ones: nothing is known then
    about how the figure varies.
    """

    value: float
    low: float
    high: float


def estimates(
    figures: Mapping[str, Figure],
    cases: list[roc.Scored],
    groups: Sequence[str],
    resamples: int,
    rng: np.random.Generator,
) -> dict[str, Estimate]:
    """Each figure of the pooled cases, exact, with its interval from `resamples` draws of whole groups."""
    exact = roc.operating_points(roc.pool(cases))
    values = {name: float(figure(exact)) for name, figure in figures.items()}
    if not enough_groups(cases, groups) or resamples < 1 or np.isnan(exact.true_positives).any():
        return {name: Estimate(value, float("nan"), float("nan")) for name, value in values.items()}
    replicates: dict[str, list[np.ndarray]] = {name: [] for name in figures}
    for points in resampled_points(cases, groups, resamples, rng):
        for name, figure in figures.items():
            replicates[name].append(figure(points))
    return {name: Estimate(values[name], *interval(np.concatenate(replicates[name]))) for name in figures}


def mean_estimate(
    values: Float64[np.ndarray, " case"], groups: Sequence[str], resamples: int, rng: np.random.Generator
) -> Estimate:
    """Mean of the values that are known (not NaN), with its interval over groups."""
    known = ~np.isnan(values)
    values, names = values[known], np.asarray(groups, dtype=object)[known]
    mean = float(values.mean()) if values.size else float("nan")
    _, group_of = np.unique(names.astype(str), return_inverse=True)
    if not values.size or group_of.max() < 1 or resamples < 1:
        return Estimate(mean, float("nan"), float("nan"))
    weights = multiplicities(np.zeros(group_of.max() + 1, int), resamples, rng)[:, group_of]
    return Estimate(mean, *interval(weights @ values / weights.sum(axis=1)))


def resampled_points(
    cases: list[roc.Scored], groups: Sequence[str], resamples: int, rng: np.random.Generator
) -> Iterator[roc.OperatingPoints]:
    """Operating points of every resample, in blocks of resamples."""
    names, group_of = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    thresholds = quantile_thresholds(roc.pool(cases))
    counts = np.zeros((3, names.size, thresholds.size + 2))
    for case, group in zip(cases, group_of, strict=True):
        counts[:, group] += roc.points_at(case, thresholds)
    weights = multiplicities(composition(cases, group_of, names.size), resamples, rng)
    for start in range(0, resamples, _RESAMPLES_AT_ONCE):
        block = weights[start : start + _RESAMPLES_AT_ONCE]
        yield roc.OperatingPoints(*(block @ one for one in counts))


def quantile_thresholds(items: roc.Scored) -> Float[np.ndarray, " threshold"]:
    """Falling thresholds: quantiles of the abnormal and of the healthy scores; all of them where they are few."""
    chosen = []
    for values in (items.positives, items.negatives):
        distinct = np.unique(values) if values.size <= 2 * _QUANTILES else values
        rank = np.linspace(0, distinct.size - 1, _QUANTILES).round().astype(int)
        chosen.append(distinct if distinct.size <= _QUANTILES else distinct[np.unique(rank)])
    return np.unique(np.concatenate(chosen))[::-1]


def multiplicities(
    strata: np.ndarray, resamples: int, rng: np.random.Generator
) -> Float64[np.ndarray, "resample group"]:
    """How often each group is drawn: with replacement, within its stratum, as many as the stratum has."""
    weights = np.zeros((resamples, strata.size))
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        weights[:, members] = rng.multinomial(members.size, np.full(members.size, 1 / members.size), size=resamples)
    return weights


def composition(cases: list[roc.Scored], group_of: np.ndarray, group_count: int) -> np.ndarray:
    """What each group holds: abnormal items (1), healthy ones (2), or both (3).

    Groups are drawn within these strata, so that a resample has both sorts, in about the numbers of the study.
    """
    holds = np.zeros(group_count, int)
    for case, group in zip(cases, group_of, strict=True):
        holds[group] |= (case.positives.size > 0) + 2 * (case.negatives.size > 0)
    return holds


def enough_groups(cases: list[roc.Scored], groups: Sequence[str]) -> bool:
    """At least two groups with abnormal items and two with healthy ones."""
    abnormal = {group for case, group in zip(cases, groups, strict=True) if case.positives.size}
    healthy = {group for case, group in zip(cases, groups, strict=True) if case.negatives.size}
    return min(len(abnormal), len(healthy)) >= 2


def interval(replicates: Float64[np.ndarray, " resample"]) -> tuple[float, float]:
    """The percentile interval of the replicates that are defined; NaN if there is none."""
    known = replicates[~np.isnan(replicates)]
    if not known.size:
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
