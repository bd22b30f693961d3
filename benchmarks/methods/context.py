"""What our detectors learn beside their prior, without the prior: a place's context, weighed by planted artefacts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.method import Judged, Learned, Task
from benchmarks.methods.ours import kept_and_aside
from priorlens.body import body_region
from priorlens.checkpoint import read_checkpoint, write_checkpoint
from priorlens.held_out import LARGEST, PLANTED_MANY, evenly, folds, plant_each
from priorlens.images import Image
from priorlens.preparation import Preparation
from priorlens.weighing import Weighing, best_share, by_others, context, fit_members, highest, together

LARGEST_SIDE = 128
"""In pixels: larger images are seen at this side, smaller ones as they are, as by KLIP."""

HIDDEN = 12
"""Units of each network, as in AnoDODE."""

_AT_ONCE = 64


class PlantedContext:
    """How bright, steep and noisy a place is, weighed by networks that tell planted artefacts from healthy places.

    AnoDODE and KLIP weigh the surprise of their priors together with just this context, in this way: by how much they
    are ahead of it, their priors have told them. Nothing else is learned, so artefacts may lie in any healthy image but
    those that ours keep aside: what defaults are chosen by may be asked of it too.
    """

    def fit(self, task: Task, report: Callable[[str], None]) -> Learned:
        longest = max(max(image.pixels.shape[1:]) for image in task.images)
        self.preparation = Preparation.fit(task.images, min(longest, task.size, LARGEST_SIDE), task.intensity)
        chosen = evenly(kept_and_aside(task.groups, task.seed)[0], LARGEST)
        healthy = self.preparation.to_model([task.images[i] for i in chosen])
        rng = np.random.default_rng(task.seed)
        images, masks, sources = plant_each(healthy.numpy(), rng, body_region, many=PLANTED_MANY)
        report(f"learns from {len(images)} planted artefacts")
        own = torch.tensor(folds([task.groups[i] for i in chosen]))
        untouched, planted = context(healthy), context(torch.from_numpy(np.stack(images)))
        usual, where, of_planted = untouched.mean((0, 2, 3)), torch.from_numpy(np.stack(masks)), own[sources]
        count = 1 + int(own.max())
        members = fit_members(usual, planted, where, of_planted, task.seed, count=count, hidden=HIDDEN)
        self.weighing = together(members)
        self.share, _ = best_share(by_others(members, untouched, own), by_others(members, planted, of_planted))
        return Learned()

    def save(self, folder: Path) -> None:
        prepared = dataclasses.asdict(self.preparation)
        write_checkpoint(
            folder, self.weighing.tensors(), {"method": "context", "preparation": prepared, "share": self.share}
        )

    def load(self, folder: Path, task: Task) -> None:
        tensors, settings = read_checkpoint(folder)
        self.weighing, self.share = Weighing(**tensors), settings["share"]
        self.preparation = Preparation.restored(settings["preparation"])

    def judge(self, images: Sequence[Image]) -> Judged:
        maps = torch.cat([self._maps(images[at : at + _AT_ONCE]) for at in range(0, len(images), _AT_ONCE)])
        own = [self.preparation.from_model(one, image) for one, image in zip(maps.numpy(), images, strict=True)]
        return Judged(highest(maps, self.share).double().numpy(), own)

    def _maps(self, images: Sequence[Image]) -> Float[Tensor, "image side side"]:
        return self.weighing.anomaly_map(context(self.preparation.to_model(images)))
