"""A scored data set in, the content of `metrics.json`, its table and its curves out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from rich.table import Table

from priorlens import metrics, roc
from priorlens.bootstrap import LEVEL, Estimate, Figure, estimates, mean_estimate
from priorlens.curves import Curve, curve
from priorlens.datasets import HEALTHY
from priorlens.errors import InputError

SCHEMA = 1

METRICS = {
    "image_auroc": "image AUROC",
    "image_ap": "image AP",
    "fpr95": "FPR at 95 % TPR ↓",
    "pixel_auroc": "pixel AUROC",
    "pixel_ap": "pixel AP",
    "pixel_auroc_per_image": "pixel AUROC in body, mean per image",
    "aupro": "AUPRO (FPR ≤ 0.3)",
    "dice_best": "best Dice",
}
"""Keys of `metrics.json` in their order, with the words of the table; lower is better where an arrow says so."""

IMAGE_FIGURES: dict[str, Figure] = {
    "image_auroc": roc.auroc,
    "image_ap": roc.average_precision,
    "fpr95": lambda points: roc.fpr_at_tpr(points, metrics.TPR),
}
PIXEL_FIGURES: dict[str, Figure] = {
    "pixel_auroc": roc.auroc,
    "pixel_ap": roc.average_precision,
    "aupro": lambda points: roc.aupro(points, metrics.AUPRO_LIMIT),
    "dice_best": roc.best_dice,
}


@dataclass(frozen=True)
class Outcome:
    """One scored test image: its kind (`good` is healthy), its patient, its score and map, and the truth.

    `anomaly_map`, `mask` and `body` have the image's own height and width. Only abnormal images need them; without a
    map or a mask an image is left out of the pixel figures, without a body out of the mean per image.
    """

    name: str
    kind: str
    group: str
    anomaly: float
    anomaly_map: Float[np.ndarray, "_height _width"] | None = None
    mask: Bool[np.ndarray, "_height _width"] | None = None
    body: Bool[np.ndarray, "_height _width"] | None = None

    def __post_init__(self) -> None:
        shapes = {array.shape for array in (self.anomaly_map, self.mask, self.body) if array is not None}
        if len(shapes) > 1 or any(len(shape) != 2 for shape in shapes):
            sizes = ", ".join("x".join(map(str, shape)) for shape in sorted(shapes))
            raise InputError(
                f"{self.name}: map, mask and body differ in size ({sizes}); redraw the mask at the image's"
            )


def evaluate(outcomes: Sequence[Outcome], bootstrap: int = 1000, seed: int = 0) -> dict[str, Any]:
    """The content of `metrics.json`: every kind of abnormality against the healthy images, figure by figure.

    Values lie in [0, 1]; `null` (None) is a figure that the data do not define. `low` and `high` bound 95 % of
    `bootstrap` resamples of whole groups (see `priorlens.bootstrap`); 0 resamples leave them null. The result depends
    on neither the order of the outcomes nor the other kinds.
    """
    kinds = _abnormal_kinds(outcomes)
    return {
        "schema": SCHEMA,
        "kinds": {kind: _figures(outcomes, kind, bootstrap, seed) for kind in kinds},
        "counts": {HEALTHY: _counts(outcomes, HEALTHY), **{kind: _counts(outcomes, kind) for kind in kinds}},
        "bootstrap": {"resamples": bootstrap, "seed": seed, "level": LEVEL, "unit": "group"},
    }


def curves(outcomes: Sequence[Outcome], bootstrap: int = 300, seed: int = 0) -> list[Curve]:
    """ROC and precision-recall curves of every kind, image level first; those that the data do not define are left
    out. 300 resamples are enough for a band to look at."""
    found = []
    for kind in _abnormal_kinds(outcomes):
        images, image_groups = _image_cases(outcomes, kind)
        found.append(curve(kind, "image", images, image_groups, bootstrap, _generator(seed, kind, "image")))
        pixels, pixel_groups = _pixel_cases(outcomes, kind)
        found.append(curve(kind, "pixel", pixels, pixel_groups, bootstrap, _generator(seed, kind, "pixel")))
    return sorted((one for one in found if one is not None), key=lambda one: one.level)


def table(evaluated: dict[str, Any]) -> Table:
    """`evaluate`'s result for a terminal: a row per figure, a column per kind, with the interval in brackets."""
    counts = evaluated.get("counts", {})
    grid = Table(title="Healthy against each kind (95 % intervals)", title_justify="left")
    grid.add_column("figure")
    for kind in evaluated["kinds"]:
        images = counts.get(kind, {}).get("images")
        grid.add_column(f"{kind} ({images} images)" if images else kind, justify="right")
    for key, words in METRICS.items():
        grid.add_row(words, *(interval_cell(figures[key]) for figures in evaluated["kinds"].values()))
    return grid


def _figures(outcomes: Sequence[Outcome], kind: str, resamples: int, seed: int) -> dict[str, dict[str, float | None]]:
    images, image_groups = _image_cases(outcomes, kind)
    pixels, pixel_groups = _pixel_cases(outcomes, kind)
    found = estimates(IMAGE_FIGURES, images, image_groups, resamples, _generator(seed, kind, "image"))
    found |= estimates(PIXEL_FIGURES, pixels, pixel_groups, resamples, _generator(seed, kind, "pixel"))
    inside, inside_groups = _inside_body(outcomes, kind)
    found["pixel_auroc_per_image"] = mean_estimate(inside, inside_groups, resamples, _generator(seed, kind, "inside"))
    return {key: estimate_facts(found[key]) for key in METRICS}


def _abnormal_kinds(outcomes: Sequence[Outcome]) -> list[str]:
    return sorted({outcome.kind for outcome in outcomes} - {HEALTHY})


def _image_cases(outcomes: Sequence[Outcome], kind: str) -> tuple[list[roc.Scored], list[str]]:
    chosen = [outcome for outcome in outcomes if outcome.kind in (HEALTHY, kind)]
    cases = [
        metrics.image_scores(np.array([outcome.kind == kind]), np.array([outcome.anomaly], np.float64))
        for outcome in chosen
    ]
    return cases, [outcome.group for outcome in chosen]


def _pixel_cases(outcomes: Sequence[Outcome], kind: str) -> tuple[list[roc.Scored], list[str]]:
    cases, groups = [], []
    for outcome in outcomes:
        if outcome.kind == kind and outcome.anomaly_map is not None and outcome.mask is not None:
            cases.append(metrics.pixel_scores(outcome.mask, outcome.anomaly_map))
            groups.append(outcome.group)
    return cases, groups


def _inside_body(outcomes: Sequence[Outcome], kind: str) -> tuple[np.ndarray, list[str]]:
    values, groups = [], []
    for outcome in outcomes:
        mask, anomaly_map, body = outcome.mask, outcome.anomaly_map, outcome.body
        if outcome.kind == kind and mask is not None and anomaly_map is not None and body is not None:
            values.append(metrics.auroc_inside(mask, anomaly_map, body))
            groups.append(outcome.group)
    return np.array(values, np.float64), groups


def _counts(outcomes: Sequence[Outcome], kind: str) -> dict[str, int]:
    chosen = [outcome for outcome in outcomes if outcome.kind == kind]
    return {
        "images": len(chosen),
        "groups": len({outcome.group for outcome in chosen}),
        "with_mask": sum(outcome.mask is not None for outcome in chosen),
    }


def _generator(seed: int, *names: str) -> np.random.Generator:
    """A stream of its own for each kind and level, whatever else is evaluated."""
    return np.random.default_rng([seed, *"/".join(names).encode()])


def estimate_facts(estimate: Estimate) -> dict[str, float | None]:
    """Plain data for JSON, with `None` for what is not known."""
    numbers = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
    return {name: None if math.isnan(number) else number for name, number in numbers.items()}


def interval_cell(figure: Mapping[str, float | None]) -> str:
    """A figure as `estimate_facts` has it, for a table: its value, and its interval in brackets."""
    if figure["value"] is None:
        return "–"
    if figure["low"] is None or figure["high"] is None:
        return f"{figure['value']:.3f}"
    return f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"
