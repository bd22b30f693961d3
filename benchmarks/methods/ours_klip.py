"""KLIP of images, by its measurements and as published."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.method import Task
from benchmarks.methods.ours import OfImages, share
from priorlens.klip_model import SIZES, STEPS, KLIPModel

CT, MRI = "ct:views=24", "mri:acceleration=4"

LARGEST = SIZES.largest
"""Side at which KLIP sees images that are larger, as `priorlens fit` has it; smaller ones it sees as they are."""


class Whole(OfImages):
    """KLIP of images as they are. It learns another measurement too: of CT sparse views, of MRI fewer lines."""

    kind = KLIPModel
    physics = "identity"

    def measured(self, task: Task) -> Mapping[str, Any]:
        return {"physics": [CT if task.intensity == "range" else MRI]}

    def new_detector(self, task: Task) -> KLIPModel:
        longest = max(max(image.pixels.shape[1:]) for image in task.images)
        size = min(longest, task.size, LARGEST)
        return KLIPModel(size=size, steps=share(STEPS, task), intensity=task.intensity, seed=task.seed)

    def load(self, folder: Path, task: Task) -> None:
        super().load(folder, task)
        self.detector.measure(self.physics)


class SparseCT(Whole):
    physics = CT


class FastMRI(Whole):
    physics = MRI


class Reference(SparseCT):
    """The recipe of the paper, step for step."""

    def load(self, folder: Path, task: Task) -> None:
        super().load(folder, task)
        self.detector.rule = "reference"
