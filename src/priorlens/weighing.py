"""What a pixel's readings are worth together: a small network that learned it from artefacts in healthy images.

A drift that is much in flat tissue is nothing at an edge, or where the image is noisy. Beside the readings of the
surprise the network therefore knows their context (`context`): how bright, how steep and how noisy the place is. It
sees one pixel at a time, so that it cannot learn what an artefact looks like, only what stands out where.

What is usual must not be read off images that the network has learned from: it knows them too well. Several networks
that each leave out some patients (`fit_members`) tell it of these (`by_others`), and are one network `together`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from scipy.stats import rankdata
from torch import Tensor, nn

from priorlens.surprise import smooth

CONTEXT = ("edge", "edge width=2", "edge width=4", "noise width=3", "level", "level squared", "level width=4")
"""Names of what `context` gives."""

CONTEXT_NAMES = tuple(f"context {name}" for name in CONTEXT)
"""The same among the names of readings."""

SHARES = (0.002, 0.005, 0.01, 0.02, 0.04, 0.1)
"""Shares of an image, of which a figure is read from one: the highest so many of its pixels."""

_FLOOR = 1e-5  # of energies, before their logarithm
_HIDDEN = 32
_UNTOUCHED, _PLANTED = 150_000, 60_000  # pixels to learn from, at most
_BALANCE = 0.2  # weight of all planted pixels together, relative to all untouched ones
_EPOCHS, _FEWEST_STEPS = 12, 400  # of few pixels more epochs
_BATCH, _LEARNING_RATE, _DECAY = 2048, 3e-3, 1e-3
_STEADY = 0.01  # a reading that varies less over pixels tells nothing, and must not be blown up


def context(x: Float[Tensor, "image channel rows columns"]) -> Float[Tensor, "image context rows columns"]:
    """Of each pixel, mean over channels: log2 energy of the gradient and of what smoothing removes, and brightness."""
    grey = x.mean(1, keepdim=True)
    level = smooth(grey, 1.0)
    framed = F.pad(level, (1, 1, 1, 1), mode="replicate")
    down, across = framed[:, :, 2:, 1:-1] - framed[:, :, :-2, 1:-1], framed[:, :, 1:-1, 2:] - framed[:, :, 1:-1, :-2]
    edge, noise = 0.25 * (down.square() + across.square()), (grey - level).square()
    energies = [edge, smooth(edge, 2.0), smooth(edge, 4.0), smooth(noise, 3.0)]
    return torch.cat([*((e + _FLOOR).log2() for e in energies), level, level.square(), smooth(grey, 4.0)], 1)


@dataclass(frozen=True)
class Weighing:
    """A network of one hidden layer over standardised readings.

    usual: mean, over healthy images that were set aside, of each reading's mean over the image.
    """

    usual: Float[Tensor, " reading"]
    mean: Float[Tensor, " reading"]
    deviation: Float[Tensor, " reading"]
    inner: Float[Tensor, "hidden reading"]
    inner_bias: Float[Tensor, " hidden"]
    outer: Float[Tensor, "1 hidden"]
    outer_bias: Float[Tensor, " 1"]

    def anomaly_map(self, maps: Float[Tensor, "image reading side side"]) -> Float[Tensor, "image side side"]:
        """Log2 of the odds of planted against untouched. It ranks places; it is no probability of disease."""
        return torch.cat([self._odds(batch.float().movedim(1, -1)) for batch in maps.split(16)]) / math.log(2)

    def tensors(self) -> dict[str, Tensor]:
        """All of it, by name."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    def _odds(self, pixels: Float[Tensor, "*pixel reading"]) -> Float[Tensor, "*pixel"]:
        hidden = F.silu(F.linear((pixels - self.mean) / self.deviation, self.inner, self.inner_bias))
        return F.linear(hidden, self.outer, self.outer_bias)[..., 0]


def fit_weighing(
    usual: Float[Tensor, " reading"],
    planted: Float[Tensor, "image reading side side"],
    masks: Bool[Tensor, "image side side"],
    seed: int,
) -> Weighing:
    """Learn, by logistic loss, to tell planted pixels from untouched ones of the same images.

    The planted ones together count for a fifth of the others. Without any planted pixel all readings weigh the same.
    """
    one_fold = torch.zeros(len(planted), dtype=torch.int64)
    return fit_members(usual, planted, masks, one_fold, seed, count=1, hidden=_HIDDEN)[0]


def fit_members(
    usual: Float[Tensor, " reading"],
    planted: Float[Tensor, "image reading side side"],
    masks: Bool[Tensor, "image side side"],
    folds: Int[Tensor, " image"],
    seed: int,
    *,
    count: int,
    hidden: int,
) -> list[Weighing]:
    """As `fit_weighing`, but a network of `hidden` units for each of `count` folds, from the images of all the others.

    folds: the number of each image's fold, from 0. A network for which the others have no artefact, or which has no
    others, learns from all.
    """
    pixels, labels, images = _drawn(planted, masks, np.random.default_rng(seed))
    mean, deviation = pixels.mean(0), pixels.std(0).clamp(min=_STEADY)
    pixels, fold_of = (pixels - mean) / deviation, folds[images]
    members = []
    for fold in range(count):
        others = fold_of != fold
        known = others if labels[others].any() else torch.ones_like(others)
        network = _learned(pixels[known], labels[known], hidden, seed + fold)
        members.append(Weighing(usual, mean, deviation, *network))
    return members


def together(members: Sequence[Weighing]) -> Weighing:
    """One network whose map is the mean of theirs: all their hidden units side by side."""
    first, count = members[0], len(members)
    return Weighing(
        first.usual,
        first.mean,
        first.deviation,
        torch.cat([one.inner for one in members]),
        torch.cat([one.inner_bias for one in members]),
        torch.cat([one.outer for one in members], 1) / count,
        torch.stack([one.outer_bias for one in members]).mean(0),
    )


def by_others(
    members: Sequence[Weighing], maps: Float[Tensor, "image reading side side"], folds: Int[Tensor, " image"]
) -> Float[Tensor, "image side side"]:
    """The map of each image by the network that has left out its fold."""
    found = torch.empty(len(maps), *maps.shape[2:])
    for fold, member in enumerate(members):
        found[folds == fold] = member.anomaly_map(maps[folds == fold])
    return found


def highest(anomaly_map: Float[Tensor, "image side side"], share: float) -> Float[Tensor, " image"]:
    """Mean over the share of each image that is highest."""
    pixels = anomaly_map.flatten(1)
    return pixels.topk(max(1, round(share * pixels.shape[1])), dim=1).values.mean(1)


def best_share(
    untouched: Float[Tensor, "image side side"], planted: Float[Tensor, "artefact side side"]
) -> tuple[float, float]:
    """The one of `SHARES` by whose figures images with artefacts are best told from untouched ones; their AUROC."""
    return best_told({share: [highest(maps, share) for maps in (untouched, planted)] for share in SHARES})


Option = TypeVar("Option")


def best_told(figures: Mapping[Option, Sequence[Tensor]]) -> tuple[Option, float]:
    """The option by whose figures the second of two sets of images is best told from the first, and their AUROC."""
    told = {option: _auroc(*pair) for option, pair in figures.items()}
    best = max(told, key=lambda option: told[option])
    return best, told[best]


def _auroc(usual: Float[Tensor, " usual"], unusual: Float[Tensor, " unusual"]) -> float:
    """From ranks (Mann & Whitney 1947): there are hundreds to compute."""
    ranks = rankdata(torch.cat([usual, unusual]).numpy())[len(usual) :]
    return float((ranks.sum() - len(unusual) * (len(unusual) + 1) / 2) / (len(usual) * len(unusual)))


def _drawn(
    maps: Float[Tensor, "image reading side side"], masks: Bool[Tensor, "image side side"], rng: np.random.Generator
) -> tuple[Float[Tensor, "pixel reading"], Bool[Tensor, " pixel"], Int[Tensor, " pixel"]]:
    """Some of the planted and of the untouched pixels, and the image of each; of large sets not all, and none is copied
    needlessly."""
    inside = masks.flatten().numpy()
    chosen = []
    for all_places, most in ((np.flatnonzero(inside), _PLANTED), (np.flatnonzero(~inside), _UNTOUCHED)):
        chosen.append(np.sort(rng.choice(all_places, min(len(all_places), most), replace=False)))
    places = torch.from_numpy(np.concatenate(chosen))
    image, position = places // masks[0].numel(), places % masks[0].numel()
    return maps.flatten(2)[image, :, position].float(), masks.flatten()[places], image


def _learned(
    pixels: Float[Tensor, "pixel reading"], labels: Bool[Tensor, " pixel"], hidden: int, seed: int
) -> list[Tensor]:
    """Weights and biases of both layers, of standardised pixels."""
    readings = pixels.shape[1]
    if not labels.any() or labels.all():
        return [torch.full((1, readings), 1 / readings), torch.zeros(1), torch.ones(1, 1), torch.zeros(1)]
    importance = torch.where(labels, _BALANCE * (~labels).sum() / labels.sum(), 1.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Linear(readings, hidden), nn.SiLU(), nn.Linear(hidden, 1))
        _train(network, pixels, labels.float(), importance / importance.mean())
    return [parameter.detach() for parameter in network.parameters()]


def _train(
    network: nn.Module,
    pixels: Float[Tensor, "pixel reading"],
    labels: Float[Tensor, " pixel"],
    importance: Float[Tensor, " pixel"],
) -> None:
    optimiser = torch.optim.AdamW(network.parameters(), _LEARNING_RATE, weight_decay=_DECAY)
    batches = math.ceil(len(pixels) / _BATCH)
    epochs = max(_EPOCHS, math.ceil(_FEWEST_STEPS / batches))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * batches)
    for _ in range(epochs):
        for batch in torch.randperm(len(pixels)).split(_BATCH):
            odds = network(pixels[batch])[:, 0]
            loss = F.binary_cross_entropy_with_logits(odds, labels[batch], importance[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
