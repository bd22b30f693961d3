"""What verdicts are worth on images whose truth is known: false alarms, sensitivity, lesions found, false regions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int
from rich.table import Table
from scipy import ndimage
from scipy.stats import binomtest

from priorlens.blocks import block_means
from priorlens.bootstrap import LEVEL, mean_estimate
from priorlens.datasets import HEALTHY
from priorlens.evaluation import estimate_facts, interval_cell

ALPHAS = (0.01, 0.05)
"""At which `priorlens evaluate` reports verdicts, as far as there are healthy patients enough."""

HEALTHY_FIGURES = {
    "false_alarm_rate": "healthy images called abnormal",
    "any_region": "healthy images with any region",
    "false_regions": "regions per healthy image",
}
ABNORMAL_FIGURES = {
    "sensitivity": "images called abnormal",
    "lesions_found": "lesions touched by a region, mean per image",
    "false_regions": "regions that touch no lesion, per image",
    "false_region_share": "share of regions that touch no lesion, mean per image",
    "false_discovery_rate": "share of flagged blocks without lesion, mean per image",
}


@dataclass(frozen=True)
class Tested:
    """One test image at one alpha.

    abnormal: its verdict. regions: how many were flagged; false_regions: those that touch no lesion, nan where it is
    not known where the lesions are. lesions_found: share of its lesions that a region touches, nan where it has none.
    false_blocks: share of the flagged blocks that hold no pixel of a lesion, 0 where none is flagged.
    """

    kind: str
    group: str
    abnormal: bool
    regions: int
    false_regions: float
    lesions_found: float
    false_blocks: float = np.nan


def tested(
    kind: str,
    group: str,
    abnormal: bool,
    labels: Int[np.ndarray, "*space"],
    truth: Bool[np.ndarray, "*space"] | None,
) -> Tested:
    """By its regions' `labels`, from 1, and the truth; lesions are the parts of the truth that touch, corners too."""
    regions = int(labels.max(initial=0))
    if kind == HEALTHY:
        return Tested(kind, group, abnormal, regions, float(regions), np.nan, float(regions > 0))
    if truth is None or not truth.any():
        return Tested(kind, group, abnormal, regions, np.nan, np.nan)
    lesions, count = ndimage.label(truth, np.ones((3,) * truth.ndim))
    hit = np.unique(labels[truth & (labels > 0)]).size
    found = np.unique(lesions[truth & (labels > 0)]).size
    false_blocks = _share_without(labels > 0, truth)
    return Tested(kind, group, abnormal, regions, float(regions - hit), found / count, false_blocks)


def _share_without(flagged: Bool[np.ndarray, "*space"], truth: Bool[np.ndarray, "*space"]) -> float:
    """Of the blocks that are flagged, those that hold none of the truth."""
    blocks, lesions = (block_means(mask.astype(np.float32)) > 0 for mask in (flagged, truth))
    return float((blocks & ~lesions).sum() / max(1, blocks.sum()))


def verdict_figures(
    tests: Mapping[float, Sequence[Tested]], bootstrap: int = 1000, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Figures by alpha, and by kind, each with the interval that holds it in 95 of 100 such studies.

    Rates of single images, where every image of the kind is of another patient, have the exact binomial interval
    (Clopper & Pearson 1934); all others that of resampled patients, and none where all images are alike.
    """
    return {f"{alpha:g}": _at(found, bootstrap, seed) for alpha, found in tests.items()}


def verdict_table(figures: Mapping[str, Mapping[str, Any]]) -> Table:
    """The same for a terminal."""
    grid = Table(title="Verdicts (95 % intervals)", title_justify="left")
    grid.add_column("images")
    grid.add_column("figure")
    for alpha in figures:
        grid.add_column(f"alpha {alpha}", justify="right")
    first = next(iter(figures.values()))
    for kind, names in first.items():
        words = HEALTHY_FIGURES if kind == HEALTHY else ABNORMAL_FIGURES
        for name in names:
            grid.add_row(kind, words[name], *(interval_cell(at[kind][name]) for at in figures.values()))
    return grid


def _at(found: Sequence[Tested], bootstrap: int, seed: int) -> dict[str, Any]:
    """At one alpha."""
    kinds = sorted({one.kind for one in found}, key=lambda kind: (kind != HEALTHY, kind))
    figures: dict[str, Any] = {}
    for kind in kinds:
        own = [one for one in found if one.kind == kind]
        groups = [one.group for one in own]
        single = len(set(groups)) == len(groups)
        wanted = _HEALTHY if kind == HEALTHY else _ABNORMAL
        figures[kind] = {
            name: _estimate(np.array([read(one) for one in own], np.float64), groups, share and single, bootstrap, seed)
            for name, (read, share) in wanted.items()
        }
    return figures


_Read = Callable[[Tested], float]
_HEALTHY: dict[str, tuple[_Read, bool]] = {
    "false_alarm_rate": (lambda one: float(one.abnormal), True),
    "any_region": (lambda one: float(one.regions > 0), True),
    "false_regions": (lambda one: one.false_regions, False),
}
_ABNORMAL: dict[str, tuple[_Read, bool]] = {
    "sensitivity": (lambda one: float(one.abnormal), True),
    "lesions_found": (lambda one: one.lesions_found, False),
    "false_regions": (lambda one: one.false_regions, False),
    "false_region_share": (lambda one: one.false_regions / max(1, one.regions), False),
    "false_discovery_rate": (lambda one: one.false_blocks, False),
}
"""How each figure is read off an image, and whether it is a share of images."""


def _estimate(
    values: Float64[np.ndarray, " image"], groups: Sequence[str], binomial: bool, bootstrap: int, seed: int
) -> dict[str, float | None]:
    if binomial:
        exact = binomtest(int(values.sum()), len(values)).proportion_ci(LEVEL)
        return {"value": float(values.mean()), "low": float(exact.low), "high": float(exact.high)}
    found = mean_estimate(values, groups, bootstrap, np.random.default_rng(seed))
    if found.low == found.high:  # resampling what is alike tells nothing of what was not seen
        return {"value": found.value, "low": None, "high": None}
    return estimate_facts(found)
