"""Every figure of `evaluate`, exact over all thresholds, from scores and maps.

Image level: abnormal images against healthy ones. Pixel level: pixels of the abnormal images, at the images' own size,
pooled without any mask; and, once more, as a mean over images of the AUROC inside the body. A figure without a meaning
for the data at hand (all images healthy, no lesion pixel, a NaN among the scores) is NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64
from scipy import ndimage

from priorlens import roc

AUPRO_LIMIT = 0.3
"""False-positive rate up to which the per-region overlap is integrated."""

TPR = 0.95
"""True-positive rate at which the false-positive rate is reported."""

_EIGHT_NEIGHBOURS = np.ones((3, 3), bool)


@dataclass(frozen=True)
class ImageMetrics:
    """AUROC and average precision in [0, 1], higher is better; `fpr95`, false-positive rate at 95 % TPR, lower is."""

    auroc: float
    average_precision: float
    fpr95: float


@dataclass(frozen=True)
class PixelMetrics:
    """All in [0, 1], higher is better; each as the function of the same name."""

    pixel_auroc: float
    pixel_ap: float
    pixel_auroc_per_image: float
    aupro: float
    dice_best: float


def image_scores(labels: Bool[np.ndarray, " image"], scores: Float[np.ndarray, " image"]) -> roc.Scored:
    """Scores split into those of abnormal (label True) and of healthy images."""
    return roc.scored(scores[labels], scores[~labels])


def image_metrics(labels: Bool[np.ndarray, " image"], scores: Float[np.ndarray, " image"]) -> ImageMetrics:
    """How well `scores` (higher is more abnormal) tell abnormal images (label True) from healthy ones."""
    points = roc.operating_points(image_scores(labels, scores))
    return ImageMetrics(
        auroc=float(roc.auroc(points)),
        average_precision=float(roc.average_precision(points)),
        fpr95=float(roc.fpr_at_tpr(points, TPR)),
    )


def fpr_at_tpr(labels: Bool[np.ndarray, " image"], scores: Float[np.ndarray, " image"], tpr: float = TPR) -> float:
    """Share of healthy images at or above the highest threshold that finds at least `tpr` of the abnormal ones."""
    return float(roc.fpr_at_tpr(roc.operating_points(image_scores(labels, scores)), tpr))


def pixel_scores(mask: Bool[np.ndarray, "height width"], anomaly_map: Float[np.ndarray, "height width"]) -> roc.Scored:
    """One image's pixels split into lesion and other, each lesion pixel with 1 / (size of its 8-connected region)."""
    regions, _ = ndimage.label(mask, structure=_EIGHT_NEIGHBOURS)
    inside = regions[mask]
    sizes = np.bincount(inside)
    return roc.scored(anomaly_map[mask], anomaly_map[~mask], 1.0 / sizes[inside])


def pixel_metrics(
    masks: Sequence[Bool[np.ndarray, "_height _width"]],
    maps: Sequence[Float[np.ndarray, "_height _width"]],
    bodies: Sequence[Bool[np.ndarray, "_height _width"]],
) -> PixelMetrics:
    """How well the maps of the abnormal images find their lesions; `bodies` are the masks of `priorlens.body`."""
    points = pooled_points(masks, maps)
    return PixelMetrics(
        pixel_auroc=float(roc.auroc(points)),
        pixel_ap=float(roc.average_precision(points)),
        pixel_auroc_per_image=pixel_auroc_per_image(masks, maps, bodies),
        aupro=float(roc.aupro(points, AUPRO_LIMIT)),
        dice_best=float(roc.best_dice(points)),
    )


def pooled_points(
    masks: Sequence[Bool[np.ndarray, "_height _width"]], maps: Sequence[Float[np.ndarray, "_height _width"]]
) -> roc.OperatingPoints:
    """Operating points of all pixels of all images as one set."""
    return roc.operating_points(roc.pool([pixel_scores(*pair) for pair in zip(masks, maps, strict=True)]))


def pixel_auroc(
    masks: Sequence[Bool[np.ndarray, "_height _width"]], maps: Sequence[Float[np.ndarray, "_height _width"]]
) -> float:
    """AUROC over all pixels of all images pooled."""
    return float(roc.auroc(pooled_points(masks, maps)))


def pixel_ap(
    masks: Sequence[Bool[np.ndarray, "_height _width"]], maps: Sequence[Float[np.ndarray, "_height _width"]]
) -> float:
    """Average precision over all pixels of all images pooled."""
    return float(roc.average_precision(pooled_points(masks, maps)))


def aupro(
    masks: Sequence[Bool[np.ndarray, "_height _width"]],
    maps: Sequence[Float[np.ndarray, "_height _width"]],
    limit: float = AUPRO_LIMIT,
) -> float:
    """Area under the per-region overlap (8-connected regions, equal weight) up to the false-positive rate `limit`,
    divided by `limit`; the rate is over the pooled non-lesion pixels. See `priorlens.roc.aupro`."""
    return float(roc.aupro(pooled_points(masks, maps), limit))


def dice_best(
    masks: Sequence[Bool[np.ndarray, "_height _width"]], maps: Sequence[Float[np.ndarray, "_height _width"]]
) -> float:
    """Best Dice of the pooled pixels over one threshold for all images."""
    return float(roc.best_dice(pooled_points(masks, maps)))


def pixel_auroc_per_image(
    masks: Sequence[Bool[np.ndarray, "_height _width"]],
    maps: Sequence[Float[np.ndarray, "_height _width"]],
    bodies: Sequence[Bool[np.ndarray, "_height _width"]],
) -> float:
    """Mean over images of the AUROC of the pixels inside the body; images where that is not defined are left out."""
    values = np.array([auroc_inside(*case) for case in zip(masks, maps, bodies, strict=True)], np.float64)
    return mean_of_known(values)


def auroc_inside(
    mask: Bool[np.ndarray, "height width"],
    anomaly_map: Float[np.ndarray, "height width"],
    body: Bool[np.ndarray, "height width"],
) -> float:
    """AUROC of one image's pixels inside `body`; NaN if there is no lesion pixel, or nothing else, inside."""
    inside, values = mask[body], anomaly_map[body]
    return float(roc.auroc(roc.operating_points(roc.scored(values[inside], values[~inside]))))


def mean_of_known(values: Float64[np.ndarray, " image"]) -> float:
    """Mean of the values that are not NaN; NaN if there is none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
