"""Operating points of a score, and the figures read off them: AUROC, AP, FPR at a TPR, best Dice, AUPRO.

Everything here works on *counts as the threshold falls*, which add up over images and can be reweighted: the same
five formulas serve the exact figure and, with a leading axis of resamples, its bootstrap distribution.

A figure that is not defined (no abnormal item, no healthy item, a NaN among the scores) is NaN, never a made-up 0.5.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64


@dataclass(frozen=True)
class Scored:
    """Scores of abnormal (`positives`) and of healthy items (`negatives`), ascending; higher means more abnormal.

    An item is an image or a pixel. `region_shares[i]` is 1 / (size of the connected region that positive `i` lies in),
    so that their sum over a set of pixels is the per-region overlap, summed over regions (Bergmann et al. 2021).
    Where items have no regions, each is a region of its own.
    """

    positives: Float[np.ndarray, " positive"]
    negatives: Float[np.ndarray, " negative"]
    region_shares: Float64[np.ndarray, " positive"]


@dataclass(frozen=True)
class OperatingPoints:
    """Items at or above a falling threshold: the first point is 0, the last the total. Leading axes are resamples.

    `region_overlap` is the sum over lesion regions of the share of the region that is covered; it ends at the number of
    regions. Between two points the curve is a straight line, as ties make it.
    """

    true_positives: Float64[np.ndarray, "*resample threshold"]
    false_positives: Float64[np.ndarray, "*resample threshold"]
    region_overlap: Float64[np.ndarray, "*resample threshold"]


def scored(
    positives: Float[np.ndarray, " positive"],
    negatives: Float[np.ndarray, " negative"],
    region_shares: Float64[np.ndarray, " positive"] | None = None,
) -> Scored:
    """The same items in ascending order."""
    order = np.argsort(positives, kind="stable")
    shares = np.ones(positives.size) if region_shares is None else region_shares[order]
    return Scored(positives[order], np.sort(negatives), shares)


def pool(cases: list[Scored]) -> Scored:
    """All items of all cases as one set; an empty list gives an empty set."""
    empty = np.zeros(0, np.float32)
    return scored(
        np.concatenate([case.positives for case in cases] or [empty]),
        np.concatenate([case.negatives for case in cases] or [empty]),
        np.concatenate([case.region_shares for case in cases] or [empty.astype(np.float64)]),
    )


def operating_points(items: Scored) -> OperatingPoints:
    """The exact curve, over all thresholds, ties included.

    True positives change at the positives' values only, so two points for each of these (healthy items above it, and
    healthy items at it) hold the whole curve: 7 million pixels with 300 thousand abnormal ones need no more memory
    than the latter.
    """
    if np.isnan(items.positives).any() or np.isnan(items.negatives).any():
        unknown = np.full(2, np.nan)
        return OperatingPoints(unknown, unknown, unknown)
    values = items.positives[::-1]
    last_of_tie = np.flatnonzero(np.append(values[1:] != values[:-1], True)) if values.size else np.zeros(0, int)
    thresholds = values[last_of_tie]
    overlap = np.cumsum(items.region_shares[::-1])[last_of_tie]
    above = items.negatives.size - np.searchsorted(items.negatives, thresholds, side="right")
    at_or_above = items.negatives.size - np.searchsorted(items.negatives, thresholds, side="left")
    return OperatingPoints(
        true_positives=_stairs(last_of_tie + 1.0),
        false_positives=_interleave(above, at_or_above, float(items.negatives.size)),
        region_overlap=_stairs(overlap),
    )


def points_at(items: Scored, thresholds: Float[np.ndarray, " threshold"]) -> Float64[np.ndarray, "3 threshold_and_two"]:
    """True positives, false positives and region overlap at the given falling thresholds, with the two end points.

    These are additive: the rows of several cases, weighted and summed, are the operating points of the weighted set.
    """
    positives_below = np.searchsorted(items.positives, thresholds, side="left")
    negatives_below = np.searchsorted(items.negatives, thresholds, side="left")
    overlap = np.append(np.cumsum(items.region_shares[::-1])[::-1], 0.0)
    counts = np.zeros((3, thresholds.size + 2))
    counts[0, 1:-1] = items.positives.size - positives_below
    counts[1, 1:-1] = items.negatives.size - negatives_below
    counts[2, 1:-1] = overlap[positives_below]
    counts[:, -1] = items.positives.size, items.negatives.size, overlap[0]
    return counts


def auroc(points: OperatingPoints) -> Float64[np.ndarray, "*resample"]:
    """Area under the ROC curve: the chance that an abnormal item scores above a healthy one, ties counting one half."""
    rise = points.true_positives[..., 1:] + points.true_positives[..., :-1]
    area = np.sum(np.diff(points.false_positives) * rise, axis=-1) / 2
    return _where_defined(points, area, points.true_positives[..., -1] * points.false_positives[..., -1])


def average_precision(points: OperatingPoints) -> Float64[np.ndarray, "*resample"]:
    """Sum over thresholds of (gain in recall) x precision, without interpolation, as scikit-learn defines it."""
    area = np.sum(np.diff(points.true_positives) * precision(points)[..., 1:], axis=-1)
    return _where_defined(points, area, points.true_positives[..., -1])


def precision(points: OperatingPoints) -> Float64[np.ndarray, "*resample threshold"]:
    """Share of abnormal items among those at or above the threshold; 0 where there are none."""
    called = points.true_positives + points.false_positives
    return np.divide(points.true_positives, called, out=np.zeros_like(called), where=called > 0)


def fpr_at_tpr(points: OperatingPoints, tpr: float = 0.95) -> Float64[np.ndarray, "*resample"]:
    """False-positive rate at the highest threshold that finds at least `tpr` of the abnormal; lower is better.

    No interpolation: the rate is one that a user of the detector can have.
    """
    reached = points.true_positives >= tpr * points.true_positives[..., -1:] - 1e-9
    first = np.argmax(reached, axis=-1, keepdims=True)
    false_positives = np.take_along_axis(points.false_positives, first, axis=-1)[..., 0]
    return _where_defined(points, false_positives, points.false_positives[..., -1])


def best_dice(points: OperatingPoints) -> Float64[np.ndarray, "*resample"]:
    """Largest Dice, 2 TP / (2 TP + FP + FN), over all thresholds: an upper bound, since the threshold is chosen on the
    truth."""
    dice = 2 * points.true_positives
    sizes = points.true_positives + points.false_positives + points.true_positives[..., -1:]
    best = np.max(np.divide(dice, sizes, out=np.zeros_like(sizes), where=sizes > 0), axis=-1)
    return _where_defined(points, best, np.ones_like(best))


def aupro(points: OperatingPoints, limit: float = 0.3) -> Float64[np.ndarray, "*resample"]:
    """Area under the per-region overlap against the false-positive rate, up to the rate `limit`, divided by `limit`.

    Every region counts the same, whatever its size (Bergmann et al. 2021, "The MVTec Anomaly Detection Dataset",
    section 4.3). The curve is cut at `limit` by linear interpolation.
    """
    fpr, overlap = shares(points.false_positives), shares(points.region_overlap)
    start, stop, low, high = fpr[..., :-1], fpr[..., 1:], overlap[..., :-1], overlap[..., 1:]
    run = np.clip(stop, None, limit) - np.clip(start, None, limit)
    length = stop - start
    part = np.divide(run, length, out=np.zeros_like(run), where=length > 0)
    area = np.sum(run * (low + part * (high - low) / 2), axis=-1)
    area = np.minimum(area, limit)  # rounding must not lift a perfect map above 1
    return _where_defined(points, area, np.full_like(area, limit))


def shares(counts: Float64[np.ndarray, "*resample threshold"]) -> Float64[np.ndarray, "*resample threshold"]:
    """Counts as shares of their total; NaN where the total is 0."""
    total = counts[..., -1:]
    return np.divide(counts, total, out=np.full_like(counts, np.nan), where=total > 0)


def _where_defined(
    points: OperatingPoints, numerator: np.ndarray | np.floating, denominator: np.ndarray | np.floating
) -> Float64[np.ndarray, "*resample"]:
    """The quotient where there are abnormal and healthy items, NaN elsewhere."""
    numerator = np.asarray(numerator, np.float64)
    defined = (points.true_positives[..., -1] > 0) & (points.false_positives[..., -1] > 0)
    return np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=defined)


def _stairs(counts: np.ndarray) -> np.ndarray:
    """0, then each count preceded by the one before it, then the last once more."""
    before = np.concatenate([[0.0], counts])
    return _interleave(before[:-1], counts, float(before[-1]))


def _interleave(before: np.ndarray, after: np.ndarray, total: float) -> np.ndarray:
    return np.concatenate([[0.0], np.stack([before, after], axis=-1).ravel(), [total]])
