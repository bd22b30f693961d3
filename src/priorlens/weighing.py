"""What a pixel's readings are worth together: a small network that learned it from artefacts in healthy images.

A drift that is much in flat tissue is nothing at an edge, or where the image is noisy. Beside the readings of the
surprise the network therefore knows their context (`context`): how bright, how steep and how noisy the place is. It
sees one pixel at a time, so that it cannot learn what an artefact looks like, only what stands out where.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from priorlens.surprise import smooth

CONTEXT = ("edge", "edge width=2", "edge width=4", "noise width=3", "level", "level squared", "level width=4")
"""Names of what `context` gives."""

_FLOOR = 1e-5  # of energies, before their logarithm
_HIDDEN = 32
_UNTOUCHED, _PLANTED = 150_000, 60_000  # pixels to learn from, at most
_BALANCE = 0.2  # weight of all planted pixels together, relative to all untouched ones
_EPOCHS, _BATCH, _LEARNING_RATE, _DECAY = 12, 2048, 3e-3, 1e-3
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
        return torch.cat([self._odds(batch.movedim(1, -1)) for batch in maps.split(16)]) / math.log(2)

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
    pixels, labels = _drawn(planted, masks, np.random.default_rng(seed))
    mean, deviation = pixels.mean(0), pixels.std(0).clamp(min=_STEADY)
    if not labels.any() or labels.all():
        readings = len(usual)
        even = torch.full((1, readings), 1 / readings)
        return Weighing(usual, mean, deviation, even, torch.zeros(1), torch.ones(1, 1), torch.zeros(1))
    importance = torch.where(labels, _BALANCE * (~labels).sum() / labels.sum(), 1.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Linear(len(usual), _HIDDEN), nn.SiLU(), nn.Linear(_HIDDEN, 1))
        _train(network, (pixels - mean) / deviation, labels.float(), importance / importance.mean())
    learned = [parameter.detach() for parameter in network.parameters()]
    return Weighing(usual, mean, deviation, *learned)


def _drawn(
    maps: Float[Tensor, "image reading side side"], masks: Bool[Tensor, "image side side"], rng: np.random.Generator
) -> tuple[Float[Tensor, "pixel reading"], Bool[Tensor, " pixel"]]:
    """Some of the planted and of the untouched pixels; of large sets not all, and none is copied needlessly."""
    inside = masks.flatten().numpy()
    chosen = []
    for all_places, most in ((np.flatnonzero(inside), _PLANTED), (np.flatnonzero(~inside), _UNTOUCHED)):
        chosen.append(np.sort(rng.choice(all_places, min(len(all_places), most), replace=False)))
    places = torch.from_numpy(np.concatenate(chosen))
    image, position = places // masks[0].numel(), places % masks[0].numel()
    return maps.flatten(2)[image, :, position], masks.flatten()[places]


def _train(
    network: nn.Module,
    pixels: Float[Tensor, "pixel reading"],
    labels: Float[Tensor, " pixel"],
    importance: Float[Tensor, " pixel"],
) -> None:
    optimiser = torch.optim.AdamW(network.parameters(), _LEARNING_RATE, weight_decay=_DECAY)
    steps = _EPOCHS * math.ceil(len(pixels) / _BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(_EPOCHS):
        for batch in torch.randperm(len(pixels)).split(_BATCH):
            odds = network(pixels[batch])[:, 0]
            loss = F.binary_cross_entropy_with_logits(odds, labels[batch], importance[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
