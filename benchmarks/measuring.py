"""Figures of a run from its predictions, and of one run against another, over the same resamples of patients."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from benchmarks.study import Study
from priorlens import metrics, roc
from priorlens.body import body_mask
from priorlens.bootstrap import (
    Estimate,
    enough_groups,
    interval,
    multiplicities,
    resampled_points,
)
from priorlens.datasets import HEALTHY, Case, labelled_cases
from priorlens.errors import InputError
from priorlens.evaluation import IMAGE_FIGURES, METRICS, PIXEL_FIGURES, Outcome, evaluate
from priorlens.images import read_image, read_mask
from priorlens.volume_figures import ScanOutcome, SlicePairs, evaluate_scans, pair_slices

POOLED = "all"
"""Among the figures: all kinds of abnormality taken as one."""

RESAMPLES = 1000
"""Of patients, behind every interval."""


def test_cases(study: Study) -> list[Case]:
    """The test images of all folds; names are `KIND/NAME` and unique. Raises InputError."""
    cases = [case for fold in study.folds for case in labelled_cases(fold.folder, group=study.group)]
    if len({case.name for case in cases}) < len(cases):
        raise InputError(f"{study.name}: two folds judge an image of one name; rename one")
    return cases


def height_of(name: str, pattern: str) -> int:
    """The number of a slice. Raises InputError where its name has none."""
    found = re.search(pattern, name)
    if not found:
        raise InputError(f"{name}: {pattern!r} finds no number of a slice in it; correct the study's `height`")
    return int(found[min(1, found.re.groups)])


def read_outcomes(study: Study, predictions: Path) -> list[Outcome]:
    """What a run said of every image that it judged, with the truth. Raises InputError where the two do not fit."""
    cases = {case.name: case for case in test_cases(study)}
    with open(predictions / "scores.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    outcomes = []
    with np.load(predictions / "maps.npz", allow_pickle=False) as maps:
        for row in rows:
            if row["name"] not in cases:
                raise InputError(f"{predictions}: {row['name']} is no image of {study.name}; run the method again")
            case = cases[row["name"]]
            outcome = Outcome(case.name, case.kind, case.group, float(row["anomaly"]))
            if case.kind != HEALTHY:
                outcome = with_truth(outcome, case, maps.get(case.name))
            outcomes.append(outcome)
    return outcomes


def with_truth(outcome: Outcome, case: Case, anomaly_map: np.ndarray | None) -> Outcome:
    """The outcome of an abnormal image with its map, its mask and where the body is, as `priorlens evaluate` has it."""
    pixels = read_image(case.path).pixels
    mask = read_mask(case.mask, pixels.shape[1:]) if case.mask else None
    return replace(outcome, anomaly_map=anomaly_map, mask=mask, body=body_mask(pixels.mean(axis=0)))


def figures(outcomes: Sequence[Outcome], resamples: int = RESAMPLES) -> dict[str, Any]:
    """`evaluate`'s figures of each kind, and of all kinds as one under `POOLED`."""
    by_kind = evaluate(outcomes, resamples)["kinds"]
    if len(by_kind) == 1:
        return {POOLED: next(iter(by_kind.values())), **by_kind}
    return {POOLED: evaluate(pooled(outcomes), resamples)["kinds"][POOLED], **by_kind}


def pooled(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """All kinds of abnormality called one."""
    return [one if one.kind == HEALTHY else replace(one, kind=POOLED) for one in outcomes]


def matched_height(outcomes: Sequence[Outcome], pattern: str, resamples: int = RESAMPLES) -> dict[str, Any]:
    """Image AUROC of slices with a lesion against those without of the same number, of other patients."""
    found = evaluate_scans(_as_scans(outcomes, pattern), bootstrap=resamples, match_mm=0.0)
    counts = found["counts"][POOLED]
    return {
        "image_auroc": found["kinds"][POOLED]["slice_auroc_matched"],
        "lesion_slices": counts["lesion_slices"],
        "matched_lesion_slices": counts["matched_lesion_slices"],
        "matched_pairs": counts["matched_pairs"],
    }


def _as_scans(outcomes: Sequence[Outcome], pattern: str) -> list[ScanOutcome]:
    """The slices of each patient as those of one scan, in the order of the patients' names."""
    by_patient: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_patient.setdefault(outcome.group, []).append(outcome)
    return [_as_scan(group, by_patient[group], pattern) for group in sorted(by_patient)]


def _as_scan(group: str, slices: Sequence[Outcome], pattern: str) -> ScanOutcome:
    """A patient's slices as those of one scan."""
    anomaly = np.array([one.anomaly for one in slices], np.float64)
    heights = np.array([height_of(one.name, pattern) for one in slices], np.float64)
    lesion = np.array([one.kind != HEALTHY for one in slices], int)
    return ScanOutcome(group, group, POOLED, float(anomaly.max()), anomaly, heights, lesion)


def paired_difference(
    a: Sequence[Outcome], b: Sequence[Outcome], figure: str, kind: str = POOLED, resamples: int = RESAMPLES
) -> Estimate:
    """How much larger `figure`, a key of `METRICS`, is for `a` than for `b`: value and 95 % interval.

    Taken on the images that both have judged; each resample of patients is the same for both. The interval is NaN where
    too few patients are known, the value too where the figure is not defined for one of them (a method without maps).
    """
    if kind != POOLED:
        a, b = ([one for one in outcomes if one.kind in (HEALTHY, kind)] for outcomes in (a, b))
    (value_a, replicates_a), (value_b, replicates_b) = (replicates(one, figure, resamples) for one in in_common(a, b))
    if replicates_a.size != replicates_b.size:
        return Estimate(value_a - value_b, float("nan"), float("nan"))
    return Estimate(value_a - value_b, *interval(replicates_a - replicates_b))


def paired_difference_matched(
    a: Sequence[Outcome], b: Sequence[Outcome], pattern: str, resamples: int = RESAMPLES
) -> Estimate:
    """As `paired_difference`, of the image AUROC of `matched_height`. NaN bounds with fewer than three patients."""
    of_a, of_b = (pairs_of_height(one, pattern) for one in in_common(a, b))
    return share_won(of_a.won - of_b.won, of_a.pairs, resamples)


def pairs_of_height(outcomes: Sequence[Outcome], pattern: str) -> SlicePairs:
    """Slices with a lesion and those without of the same number, of other patients."""
    return pair_slices(_as_scans(outcomes, pattern), 0.0)


def share_won(
    won: Float64[np.ndarray, "patient patient"], pairs: Float64[np.ndarray, "patient patient"], resamples: int
) -> Estimate:
    """Of pairs of slices, by their patients (see `SlicePairs`). NaN bounds with fewer than three patients."""
    if not pairs.any():
        return Estimate(*[float("nan")] * 3)
    value = float(won.sum() / pairs.sum())
    lesion, free = pairs.any(axis=1), pairs.any(axis=0)
    if resamples < 1 or min(lesion.sum(), free.sum()) < 2 or (lesion | free).sum() < 3:
        return Estimate(value, float("nan"), float("nan"))
    weights = multiplicities(np.array(lesion + 2 * free), resamples, np.random.default_rng(0))
    drawn, total = (np.sum((weights @ each) * weights, axis=1) for each in (won, pairs))
    return Estimate(value, *interval(np.divide(drawn, total, out=np.full_like(drawn, np.nan), where=total > 0)))


def in_common(a: Sequence[Outcome], b: Sequence[Outcome]) -> tuple[list[Outcome], list[Outcome]]:
    """The outcomes of the images that are in both, in one order."""
    of_a, of_b = ({one.name: one for one in outcomes} for outcomes in (a, b))
    names = sorted(of_a.keys() & of_b.keys())
    return [of_a[name] for name in names], [of_b[name] for name in names]


def replicates(
    outcomes: Sequence[Outcome], figure: str, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, Float64[np.ndarray, " resample"]]:
    """A figure of all abnormal images against the healthy ones, exact, and of resamples of patients.

    Which patients a resample has depends on whose images there are and on the seed alone. No replicates where fewer
    than two patients are abnormal, or healthy.
    """
    if figure not in METRICS:
        raise ValueError(f"{figure} is none of {', '.join(METRICS)}")
    rng = np.random.default_rng(seed)
    if figure == "pixel_auroc_per_image":
        return _mean_inside(outcomes, resamples, rng)
    formula = IMAGE_FIGURES.get(figure) or PIXEL_FIGURES[figure]
    cases, groups = _image_cases(outcomes) if figure in IMAGE_FIGURES else _pixel_cases(outcomes)
    value = float(formula(roc.operating_points(roc.pool(cases))))
    if resamples < 1 or np.isnan(value) or not enough_groups(cases, groups):
        return value, np.zeros(0)
    blocks = [formula(points) for points in resampled_points(cases, groups, resamples, rng)]
    return value, np.concatenate(blocks)


def _image_cases(outcomes: Sequence[Outcome]) -> tuple[list[roc.Scored], list[str]]:
    cases = [metrics.image_scores(np.array([one.kind != HEALTHY]), np.array([one.anomaly])) for one in outcomes]
    return cases, [one.group for one in outcomes]


def _pixel_cases(outcomes: Sequence[Outcome]) -> tuple[list[roc.Scored], list[str]]:
    cases, groups = [], []
    for one in outcomes:
        if one.kind != HEALTHY and one.anomaly_map is not None and one.mask is not None:
            cases.append(metrics.pixel_scores(one.mask, one.anomaly_map))
            groups.append(one.group)
    return cases, groups


def _mean_inside(outcomes: Sequence[Outcome], resamples: int, rng: np.random.Generator) -> tuple[float, np.ndarray]:
    """Of the AUROC inside the body, over the images where it is defined."""
    values, groups = [], []
    for one in outcomes:
        if one.kind != HEALTHY and one.anomaly_map is not None and one.mask is not None and one.body is not None:
            values.append(metrics.auroc_inside(one.mask, one.anomaly_map, one.body))
            groups.append(one.group)
    found = np.array(values, np.float64)
    known = ~np.isnan(found)
    names, group_of = np.unique(np.array(groups, str)[known], return_inverse=True)
    if names.size < 2:
        return metrics.mean_of_known(found), np.zeros(0)
    weights = multiplicities(np.zeros(names.size, int), resamples, rng)[:, group_of]
    return metrics.mean_of_known(found), weights @ found[known] / weights.sum(axis=1)
