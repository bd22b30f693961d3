"""Image figures within folds: each fold has a model of its own, and scores of two models are not on one scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64
from scipy.linalg import block_diag

from benchmarks.measuring import POOLED, RESAMPLES, pairs_of_height, replicates, share_won
from benchmarks.study import Study
from priorlens.bootstrap import Estimate, interval
from priorlens.datasets import HEALTHY, labelled_cases
from priorlens.errors import InputError
from priorlens.evaluation import IMAGE_FIGURES, Outcome, estimate_facts
from priorlens.volume_figures import SlicePairs

Parts = Sequence[Sequence[Outcome]]
"""Of each fold, what its model said."""


def fold_of(study: Study) -> dict[str, int]:
    """The fold whose model judges an image, by the image's name. Raises InputError."""
    return {case.name: number for number, fold in enumerate(study.folds) for case in labelled_cases(fold.folder)}


def by_fold(outcomes: Sequence[Outcome], folds: Mapping[str, int]) -> list[list[Outcome]]:
    """Raises InputError for an image that is in no fold."""
    parts: list[list[Outcome]] = [[] for _ in range(1 + max(folds.values(), default=0))]
    for one in outcomes:
        if one.name not in folds:
            raise InputError(f"{one.name}: is in no fold of the study; run the method again")
        parts[folds[one.name]].append(one)
    return parts


def within_folds(study: Study, outcomes: Sequence[Outcome], resamples: int = RESAMPLES) -> dict[str, Any] | None:
    """Image figures of each kind, and those of `matched_height`, of images that one model judged; None with one fold.

    patients: of each fold, the weights of the mean over folds. Raises InputError.
    """
    if len(study.folds) < 2:
        return None
    parts = by_fold(outcomes, fold_of(study))
    kinds = sorted({one.kind for one in outcomes} - {HEALTHY})
    chosen: dict[str, Parts] = {POOLED: parts}
    chosen |= {kind: [[one for one in part if one.kind in (HEALTHY, kind)] for part in parts] for kind in kinds}
    return {
        "figures": {
            kind: {key: estimate_facts(mean_over_folds(some, key, resamples)) for key in IMAGE_FIGURES}
            for kind, some in chosen.items()
        },
        "matched_height": matched_within(parts, study.height, resamples) if study.height else None,
        "patients": [_patients(part) for part in parts],
    }


def mean_over_folds(parts: Parts, figure: str, resamples: int = RESAMPLES) -> Estimate:
    """An image figure's mean over folds, weighted by their patients."""
    value, found = replicates_within(parts, figure, resamples)
    return Estimate(value, *interval(found))


def replicates_within(
    parts: Parts, figure: str, resamples: int = RESAMPLES
) -> tuple[float, Float64[np.ndarray, " resample"]]:
    """As `measuring.replicates`, of that mean; patients are drawn within their folds.

    A fold that does not define the figure is left out; no replicates where one of the others has none.
    """
    every = [(_patients(part), *replicates(part, figure, resamples, seed)) for seed, part in enumerate(parts) if part]
    known = [one for one in every if not np.isnan(one[1])]
    if not known:
        return float("nan"), np.zeros(0)
    weights = np.array([patients for patients, _, _ in known], np.float64)
    weights /= weights.sum()
    value = float(weights @ np.array([value for _, value, _ in known]))
    size = min(found.size for _, _, found in known)
    return value, weights @ np.stack([found[:size] for _, _, found in known])


def matched_within(parts: Parts, pattern: str, resamples: int = RESAMPLES) -> dict[str, Any]:
    """As `measuring.matched_height`, of pairs of patients whom the same model has judged."""
    found = pairs_within(parts, pattern)
    return {
        "image_auroc": estimate_facts(share_won(found.won, found.pairs, resamples)),
        "lesion_slices": sum(one.kind != HEALTHY for part in parts for one in part),
        "matched_lesion_slices": found.partnered,
        "matched_pairs": int(found.pairs.sum()),
    }


def matched_difference_within(a: Parts, b: Parts, pattern: str, resamples: int = RESAMPLES) -> Estimate:
    """How much larger that figure is for `a` than for `b`, which hold the same images."""
    of_a, of_b = (pairs_within(parts, pattern) for parts in (a, b))
    return share_won(of_a.won - of_b.won, of_a.pairs, resamples)


def pairs_within(parts: Parts, pattern: str) -> SlicePairs:
    """Slices of one height, fold by fold; the patients of one fold come after those of the other."""
    found = [pairs_of_height(part, pattern) for part in parts if part]
    won, pairs = (block_diag(*(getattr(one, name) for one in found)) for name in ("won", "pairs"))
    return SlicePairs(won, pairs, sum(one.partnered for one in found))


def _patients(outcomes: Sequence[Outcome]) -> int:
    return len({one.group for one in outcomes})
