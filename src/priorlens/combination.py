"""How the surprise of several scales, noise levels and widths becomes one map and one figure: this decides everything.

`Readings` lays them all on one grid as log2 of an energy, so that each is a number of bits above or below what is
usual. A `Combination` learns from held-out healthy images what is usual, and from the same images with artefacts
planted in them how much weight each reading deserves in the map. No image of disease is needed or used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from priorlens.surprise import SIGMAS, WIDTHS, Surprise

FLOOR = 1e-3
"""Of the energy of whitened features, relative to what is expected."""

_BALANCE = 0.2  # weight of all planted pixels together, relative to all healthy ones
_STEADY = 0.01  # bits: a reading that varies less over pixels tells nothing, and must not be blown up to a large weight
_IMAGE_WIDTH = 1.0  # of the coherent surprise that the image's figure is read from


@dataclass(frozen=True)
class Readings:
    """Log2 surprise of images, for every scale, kind, noise level and width: `names` along the axis `reading`.

    maps: on one grid for all scales. means: over the positions of the scale's own grid.
    """

    names: tuple[str, ...]
    maps: Float[Tensor, "image reading side side"]
    means: Float[Tensor, "image reading"]


def readings(
    surprises: dict[str, Surprise],
    side: int,
    *,
    sigmas: Sequence[float] = SIGMAS,
    widths: Sequence[float] = WIDTHS,
    floor: float = FLOOR,
) -> Readings:
    """What `surprise` found at each scale, by the scale's name, on a grid of `side` x `side`.

    floor: added to an energy before its logarithm: where an image is empty, how empty does not matter.
    """
    names: list[str] = []
    maps, means = [], []
    for scale, found in surprises.items():
        layers = torch.cat(
            [
                (found.standardised + floor).log2(),
                found.expected / math.log(2),
                (found.coherent + floor).log2().flatten(1, 2),
            ],
            dim=1,
        )
        names += reading_names([scale], sigmas=sigmas, widths=widths)
        means.append(layers.flatten(2).mean(2))
        if layers.shape[2:] != (side, side):
            layers = F.interpolate(layers, size=(side, side), mode="bilinear", align_corners=False)
        maps.append(layers)
    return Readings(tuple(names), torch.cat(maps, 1), torch.cat(means, 1))


def reading_names(
    scales: Sequence[str], *, sigmas: Sequence[float] = SIGMAS, widths: Sequence[float] = WIDTHS
) -> tuple[str, ...]:
    """The names of `readings`, in order: scale, kind, noise level and, for coherent surprise, width."""
    kinds = [f"standardised sigma={sigma:g}" for sigma in sigmas] + [f"expected sigma={sigma:g}" for sigma in sigmas]
    kinds += [f"coherent sigma={sigma:g} width={width:g}" for sigma in sigmas for width in widths]
    return tuple(f"{scale} {kind}" for scale in scales for kind in kinds)


def join(parts: Sequence[Readings]) -> Readings:
    """The readings of several batches of images as one."""
    return Readings(parts[0].names, torch.cat([p.maps for p in parts]), torch.cat([p.means for p in parts]))


FIGURES = ("coherent", "standardised")
"""The kinds of reading that an image's figure can be made of."""


@dataclass(frozen=True)
class Combination:
    """Weights of the readings, learned from healthy images alone.

    usual, spread: mean and standard deviation, over held-out healthy images, of each reading's mean over the image.
    figures: for each of `FIGURES`, the weights that make an image's figure of these means; they sum to 1.
    weights, bias: of the map, by logistic regression of planted against untouched pixels; in bits.
    """

    names: tuple[str, ...]
    usual: Float[Tensor, " reading"]
    spread: Float[Tensor, " reading"]
    figures: Float[Tensor, "kind reading"]
    weights: Float[Tensor, " reading"]
    bias: float

    def anomaly_map(self, found: Readings) -> Float[Tensor, "image side side"]:
        """Weighted sum of the readings: log2 of the odds of planted against untouched. It ranks places; it is no
        probability of disease, and its zero has no meaning beyond the share of planted pixels it was learned with."""
        return torch.einsum("nrij,r->nij", found.maps, self.weights) + self.bias

    def anomaly(self, found: Readings, kind: str = "coherent") -> Float[Tensor, " image"]:
        """Bits above what healthy images show: a weighted mean of all readings of one of `FIGURES`.

        The mean over positions of the *logarithm* is what is read: it asks whether the image as a whole is unusual, and
        a few extreme pixels do not decide it.
        """
        return (found.means - self.usual) @ self.figures[FIGURES.index(kind)]


def fit_combination(
    healthy: Readings, planted: Readings, masks: Bool[Tensor, "image side side"], seed: int
) -> Combination:
    """Learn from held-out healthy images, and from the same with artefacts at `masks`.

    A hundred thousand untouched pixels at most are drawn; the planted ones together count for a fifth of them, so that
    the large artefacts of a few images do not outvote the rest. Without any planted pixel all readings weigh the same.
    """
    usual = healthy.means.mean(0)
    spread = healthy.means.std(0, correction=0).clamp(min=1e-3) if len(healthy.means) > 1 else torch.ones_like(usual)
    relative = (healthy.means - usual) / spread
    figures = torch.stack([_figure(relative, spread, healthy.names, kind) for kind in FIGURES])
    weights, bias = _logistic(planted.maps, masks, seed)
    return Combination(healthy.names, usual, spread, figures, weights, bias)


def _figure(
    relative: Float[Tensor, "image reading"], spread: Float[Tensor, " reading"], names: Sequence[str], kind: str
) -> Float[Tensor, " reading"]:
    """Weights, of sum 1, of the readings of one kind.

    Within a scale each reading counts by how little it varies among healthy images. The scales vary together: they are
    weighed as the best estimate of one common shift weighs correlated measurements (generalised least squares), by the
    inverse of their covariance among healthy images, shrunk (Ledoit & Wolf 2004), and never below zero.
    """
    scales = list(dict.fromkeys(name.split()[0] for name in names))
    members = torch.zeros(len(scales), len(names))
    for index, name in enumerate(names):
        if f" {kind} " in name and (kind != "coherent" or name.endswith(f"width={_IMAGE_WIDTH:g}")):
            members[scales.index(name.split()[0]), index] = 1
    members = members / members.sum(1, keepdim=True)
    by_scale = (relative @ members.T).double().numpy()
    covariance = 1e-6 * np.eye(len(scales))
    if len(by_scale) > 1:
        covariance += LedoitWolf().fit(by_scale).covariance_
    importance = np.linalg.solve(covariance, np.ones(len(scales))).clip(min=0)
    weights = torch.from_numpy(importance).float() @ members / spread
    return weights / weights.sum()


def _logistic(
    maps: Float[Tensor, "image reading side side"], masks: Bool[Tensor, "image side side"], seed: int
) -> tuple[Float[Tensor, " reading"], float]:
    pixels = maps.movedim(1, -1).reshape(-1, maps.shape[1]).numpy()
    inside = masks.reshape(-1).numpy()
    if not inside.any() or inside.all():
        return torch.full((maps.shape[1],), 1 / maps.shape[1]), 0.0
    rng = np.random.default_rng(seed)
    untouched = np.flatnonzero(~inside)
    chosen = np.sort(rng.choice(untouched, min(len(untouched), 100_000), replace=False))
    pixels = np.concatenate([pixels[inside], pixels[chosen]]).astype(np.float64)
    labels = np.repeat([True, False], [inside.sum(), len(chosen)])
    importance = np.repeat([_BALANCE * len(chosen) / inside.sum(), 1.0], [inside.sum(), len(chosen)])
    mean, deviation = pixels.mean(0), pixels.std(0).clip(_STEADY)
    fitted = LogisticRegression(C=1.0, max_iter=1000).fit((pixels - mean) / deviation, labels, sample_weight=importance)
    slope = fitted.coef_[0] / deviation / math.log(2)
    bias = fitted.intercept_[0] / math.log(2) - slope @ mean
    return torch.from_numpy(slope).float(), float(bias)
