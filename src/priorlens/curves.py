"""ROC and precision-recall curves on a fixed grid, with pointwise bootstrap bands, ready to be drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64

from priorlens import bootstrap, roc

SCHEMA = 1

GRID = np.linspace(0, 1, 501)
"""False-positive rates, and recalls, at which curves are read."""


@dataclass(frozen=True)
class Curve:
    """One kind of abnormality at one level. `tpr` is read at the false-positive rates `GRID`, `precision` at the
    recalls `GRID`; `*_low`, `*_high` bound 95 % of the resamples point by point and are NaN where there are none.
    `prevalence` is the share of abnormal items, the precision of a guess."""

    kind: str
    level: Literal["image", "pixel"]
    tpr: Float64[np.ndarray, " grid"]
    tpr_low: Float64[np.ndarray, " grid"]
    tpr_high: Float64[np.ndarray, " grid"]
    precision: Float64[np.ndarray, " grid"]
    precision_low: Float64[np.ndarray, " grid"]
    precision_high: Float64[np.ndarray, " grid"]
    auroc: float
    average_precision: float
    prevalence: float


def curve(
    kind: str,
    level: Literal["image", "pixel"],
    cases: list[roc.Scored],
    groups: Sequence[str],
    resamples: int,
    rng: np.random.Generator,
) -> Curve | None:
    """The curves of the pooled cases; None where they are not defined (no abnormal or no healthy item, a NaN)."""
    exact = roc.operating_points(roc.pool(cases))
    area = float(roc.auroc(exact))
    if np.isnan(area):
        return None
    tpr_bands, precision_bands = _bands(cases, groups, resamples, rng)
    positives, negatives = exact.true_positives[-1], exact.false_positives[-1]
    return Curve(
        kind,
        level,
        tpr_at(exact),
        *tpr_bands,
        precision_at(exact),
        *precision_bands,
        auroc=area,
        average_precision=float(roc.average_precision(exact)),
        prevalence=float(positives / (positives + negatives)),
    )


def curves_facts(curves: Sequence[Curve]) -> dict[str, Any]:
    """The content of `curves.json`: all points of all curves, with `null` where there is no band."""
    return {"schema": SCHEMA, "grid": GRID.round(6).tolist(), "curves": [_facts(one) for one in curves]}


def _facts(one: Curve) -> dict[str, Any]:
    return {
        name: [None if np.isnan(number) else round(float(number), 6) for number in value]
        if isinstance(value, np.ndarray)
        else value
        for name, value in vars(one).items()
    }


def tpr_at(points: roc.OperatingPoints) -> Float64[np.ndarray, " grid"]:
    """True-positive rate at the false-positive rates `GRID`: the upper end where the curve is upright."""
    fpr, tpr = roc.shares(points.false_positives), roc.shares(points.true_positives)
    start = np.searchsorted(fpr, GRID, side="right") - 1
    stop = np.minimum(start + 1, fpr.size - 1)
    length = fpr[stop] - fpr[start]
    part = np.divide(GRID - fpr[start], length, out=np.zeros_like(GRID), where=length > 0)
    return tpr[start] + part * (tpr[stop] - tpr[start])


def precision_at(points: roc.OperatingPoints) -> Float64[np.ndarray, " grid"]:
    """Precision at the highest threshold that reaches each recall of `GRID`; at 0, at the first abnormal item."""
    positives = points.true_positives
    wanted = np.maximum(GRID * positives[-1], np.min(positives[positives > 0]))
    first = np.searchsorted(positives, wanted - 1e-9, side="left")
    return roc.precision(points)[first]


def _bands(
    cases: list[roc.Scored], groups: Sequence[str], resamples: int, rng: np.random.Generator
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Low and high of the true-positive rates, and of the precisions."""
    unknown = np.full_like(GRID, np.nan)
    if resamples < 1 or not bootstrap.enough_groups(cases, groups):
        return (unknown, unknown), (unknown, unknown)
    rates, precisions = [], []
    for block in bootstrap.resampled_points(cases, groups, resamples, rng):
        for true, false, overlap in zip(block.true_positives, block.false_positives, block.region_overlap, strict=True):
            if true[-1] and false[-1]:
                points = roc.OperatingPoints(true, false, overlap)
                rates.append(tpr_at(points))
                precisions.append(precision_at(points))
    tail = (1 - bootstrap.LEVEL) / 2
    tpr_low, tpr_high = np.quantile(np.stack(rates), [tail, 1 - tail], axis=0)
    precision_low, precision_high = np.quantile(np.stack(precisions), [tail, 1 - tail], axis=0)
    return (tpr_low, tpr_high), (precision_low, precision_high)
