"""What AnoDODE and KLIP of images have in common. As `priorlens fit` does, they keep patients aside for p-values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from benchmarks.method import Judged, Learned, Task
from priorlens.images import Image
from priorlens.progress import Progress

ASIDE = 0.1
"""Share of the healthy images, by patient, that is kept for p-values and not learned from."""

_MODEL, _USUAL = "model", "usual.safetensors"


def kept_and_aside(groups: Sequence[str], seed: int) -> tuple[list[int], list[int]]:
    """Indices of the images to learn from, and of those of `ASIDE` of the patients."""
    patients = np.unique(np.asarray(groups, dtype=str))
    count = round(ASIDE * len(patients))
    chosen = set(np.random.default_rng(seed).permutation(patients)[:count].tolist())
    aside = [i for i, group in enumerate(groups) if group in chosen]
    return [i for i, group in enumerate(groups) if group not in chosen], aside


class OfImages:
    """`usual` is the anomaly of the images kept aside, in their order. kind: the detector's class."""

    kind: type
    detector: Any
    usual: np.ndarray

    def measured(self, task: Task) -> Mapping[str, Any]:
        """What fitting takes beside images."""
        return {}

    def new_detector(self, task: Task) -> Any:
        raise NotImplementedError

    def fit(self, task: Task, report: Callable[[str], None]) -> Learned:
        kept, aside = kept_and_aside(task.groups, task.seed)
        self.detector = self.new_detector(task)
        learned = Learned()
        self.detector.fit(
            [task.images[i] for i in kept],
            groups=[task.groups[i] for i in kept],
            state=task.folder / "state",
            on_progress=_into(learned, report),
            **self.measured(task),
        )
        self._look_at([task.images[i] for i in aside])
        return learned

    def judge(self, images: Sequence[Image]) -> Judged:
        scores = self.detector.score(images)
        return Judged(scores.anomaly.astype(np.float64), list(scores.anomaly_map), scores.nfe)

    def save(self, folder: Path) -> None:
        self.detector.save(folder / _MODEL)
        save_file({"usual": self.usual}, folder / _USUAL)

    def load(self, folder: Path, task: Task) -> None:
        self.detector = self.kind.load(folder / _MODEL)
        self.usual = load_file(folder / _USUAL)["usual"]

    def _look_at(self, aside: Sequence[Image]) -> None:
        self.usual = self.detector.score(aside).anomaly.astype(np.float64) if aside else np.empty(0)


def share(steps: int, task: Task) -> int:
    return max(1, round(steps * task.steps))


def _into(learned: Learned, report: Callable[[str], None]) -> Callable[[Progress], None]:
    """Keeps the losses, and tells of them now and then."""

    def on_progress(progress: Progress) -> None:
        if not math.isnan(progress.loss):
            learned.curve.append((progress.stage, progress.step, float(progress.loss)))
        report(f"{progress.stage} {progress.step}")

    return on_progress
