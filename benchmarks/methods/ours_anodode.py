"""AnoDODE, by its rules."""

from __future__ import annotations

from pathlib import Path

from benchmarks.method import Task
from benchmarks.methods.ours import OfImages, share
from priorlens.anodode import STEPS, AnoDODE


class Combined(OfImages):
    """AnoDODE; fits for all its rules."""

    kind = AnoDODE
    rule = "combined"

    def new_detector(self, task: Task) -> AnoDODE:
        return AnoDODE(size=task.size, steps=share(STEPS, task), intensity=task.intensity, seed=task.seed)

    def load(self, folder: Path, task: Task) -> None:
        super().load(folder, task)
        self.detector.rule = self.rule


class Local(Combined):
    rule = "local"


class Coherent(Combined):
    rule = "coherent"


class Published(Combined):
    rule = "published"
