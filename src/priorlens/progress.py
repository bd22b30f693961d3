"""Where a fit stands, over all its stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """Where a fit stands: its stage, the step in it and its loss (nan where none), and steps over all stages."""

    stage: str
    step: int
    steps: int
    loss: float
    done: int
    total: int


class Reporter:
    """Counts what a fit has done over all its stages, training steps and images alike.

    images: how many images each of the stages that go through images will see. steps: of training, over all stages.
    """

    def __init__(self, on_progress: Callable[[Progress], None] | None, images: Mapping[str, int], steps: int) -> None:
        self.on_progress = on_progress
        self.counts = dict(images)
        self.total = steps + sum(images.values())
        self.finished: dict[str, int] = {}

    def __call__(self, stage: str, step: int, steps: int, loss: float) -> None:
        self.finished[stage] = step
        if self.on_progress:
            self.on_progress(Progress(stage, step, steps, loss, sum(self.finished.values()), self.total))

    def images(self, stage: str, count: int) -> None:
        """So many more images of a stage are done."""
        self(stage, self.finished.get(stage, 0) + count, self.counts[stage], float("nan"))
