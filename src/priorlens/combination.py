"""How the surprise of several scales, noise levels and widths becomes one map and one figure: this decides everything.

`Readings` lays them all on one grid as log2 of an energy, so that each is a number of bits above or below what is
usual. A `Combination` learns from held-out healthy images what is usual, and from the same images with artefacts
planted in them what the readings of a place, together, are worth in the map. No image of disease is needed or used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from sklearn.covariance import LedoitWolf
from torch import Tensor

from priorlens.checkpoint import under
from priorlens.surprise import SIGMAS, WIDTHS, Surprise
from priorlens.weighing import CONTEXT_NAMES, Weighing, best_share, by_others, context, fit_members, together

FLOOR = 1e-3
"""Of the energy of whitened features, relative to what is expected."""

_TENSORS = ("usual", "spread", "figures")
_HIDDEN = 12  # units of each network that weighs the readings; more learn the held-out images by heart
_IMAGE_WIDTH = 1.0  # of the coherent surprise that the image's figure is read from


@dataclass(frozen=True)
class Readings:
    """Log2 surprise of images, for every scale, kind, noise level and width: `names` along the axis `reading`.

    maps: on one grid for all scales. means: over the positions of the scale's own grid. With `with_context`,
    `CONTEXT_NAMES` come after the surprise.
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


def with_context(found: Readings, x: Float[Tensor, "image channel rows columns"]) -> Readings:
    """The same, and what is around each place of the images `x`, brought to the readings' grid."""
    around = context(x)
    if around.shape[2:] != found.maps.shape[2:]:
        around = F.interpolate(around, size=found.maps.shape[2:], mode="area")
    maps, means = torch.cat([found.maps, around], 1), torch.cat([found.means, around.flatten(2).mean(2)], 1)
    return Readings((*found.names, *CONTEXT_NAMES), maps, means)


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
    """What the readings of an image are worth, learned from healthy images alone.

    usual, spread: mean and standard deviation, over held-out healthy images, of each reading's mean over the image.
    figures: for each of `FIGURES`, the weights that make an image's figure of these means; they sum to 1.
    weighing: of the map, learned from artefacts that were planted in these images.
    share: of the map, whose highest pixels say how abnormal a single place is.
    """

    names: tuple[str, ...]
    usual: Float[Tensor, " reading"]
    spread: Float[Tensor, " reading"]
    figures: Float[Tensor, "kind reading"]
    weighing: Weighing
    share: float

    def tensors(self) -> dict[str, Tensor]:
        """All that is numbers, by name, but for the share. What is usual is the same for all, and there once."""
        own = {name: getattr(self, name) for name in _TENSORS}
        return own | {f"weighing.{name}": value for name, value in self.weighing.tensors().items() if name != "usual"}

    @classmethod
    def restored(cls, scales: Sequence[str], tensors: dict[str, Tensor], share: float) -> Combination:
        """From `tensors`. Raises KeyError, TypeError or ValueError where they do not fit."""
        names = (*reading_names(scales), *CONTEXT_NAMES)
        usual, spread, figures = (tensors[name] for name in _TENSORS)
        if len(usual) != len(names):
            raise ValueError("other readings")
        return cls(names, usual, spread, figures, Weighing(usual, **under("weighing", tensors)), share)

    def anomaly_map(self, found: Readings) -> Float[Tensor, "image side side"]:
        """Log2 of the odds of planted against untouched, by all readings and their context (`priorlens.weighing`)."""
        return self.weighing.anomaly_map(found.maps)

    def anomaly(self, found: Readings, kind: str = "coherent") -> Float[Tensor, " image"]:
        """Bits above what healthy images show: a weighted mean of all readings of one of `FIGURES`.

        The mean over positions of the *logarithm* is what is read: it asks whether the image as a whole is unusual, and
        a few extreme pixels do not decide it.
        """
        return (found.means - self.usual) @ self.figures[FIGURES.index(kind)]


def fit_combination(
    healthy: Readings,
    planted: Readings,
    masks: Bool[Tensor, "artefact side side"],
    folds: tuple[Int[Tensor, " image"], Int[Tensor, " artefact"]],
    seed: int,
) -> tuple[Combination, Float[Tensor, "image side side"]]:
    """Learn from held-out healthy images, and from the same with artefacts at `masks`.

    folds: of the healthy images, and of those with artefacts, such that an image and its artefacts are in one: for each
    fold a network learns from all others, and the map is the mean of theirs.

    Returns what was learned, and the map of each healthy image by the network that did not learn from it.
    """
    usual = healthy.means.mean(0)
    spread = healthy.means.std(0, correction=0).clamp(min=1e-3) if len(healthy.means) > 1 else torch.ones_like(usual)
    relative = (healthy.means - usual) / spread
    figures = torch.stack([_figure(relative, spread, healthy.names, kind) for kind in FIGURES])
    count = 1 + max(int(own.max()) for own in folds)
    members = fit_members(usual, planted.maps, masks, folds[1], seed, count=count, hidden=_HIDDEN)
    maps = [by_others(members, found.maps, own) for found, own in zip((healthy, planted), folds, strict=True)]
    share, _ = best_share(*maps)
    return Combination(healthy.names, usual, spread, figures, together(members), share), maps[0]


def _figure(
    relative: Float[Tensor, "image reading"], spread: Float[Tensor, " reading"], names: Sequence[str], kind: str
) -> Float[Tensor, " reading"]:
    """Weights, of sum 1, of the readings of one kind.

    Within a scale each reading counts by how little it varies among healthy images. The scales vary together: they are
    weighed as the best estimate of one common shift weighs correlated measurements (generalised least squares), by the
    inverse of their covariance among healthy images, shrunk (Ledoit & Wolf 2004), and never below zero.
    """
    scales = list(dict.fromkeys(name.split()[0] for name in names if f" {kind} " in name))
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
