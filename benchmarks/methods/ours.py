"""AnoDODE and KLIP of images. As `priorlens fit` does, they keep a share of the patients aside for p-values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from benchmarks.method import Judged, Learned, Task
from priorlens.anodode import STEPS, AnoDODE
from priorlens.images import Image
from priorlens.klip_model import STEPS as KLIP_STEPS
from priorlens.klip_model import KLIPModel
from priorlens.progress import Progress

CT, MRI = "ct:views=24", "mri:acceleration=4"
ASIDE = 0.1
"""Share of the healthy images, by patient, that is kept for p-values and not learned from."""

LARGEST = 96
"""Side at which KLIP sees images that are larger; smaller ones it sees as they are."""

_MODEL, _USUAL = "model", "usual.safetensors"


def kept_and_aside(groups: Sequence[str], seed: int) -> tuple[list[int], list[int]]:
    """Indices of the images to learn from, and of those of `ASIDE` of the patients."""
    patients = np.unique(np.asarray(groups, dtype=str))
    count = round(ASIDE * len(patients))
    chosen = set(np.random.default_rng(seed).permutation(patients)[:count].tolist())
    aside = [i for i, group in enumerate(groups) if group in chosen]
    return [i for i, group in enumerate(groups) if group not in chosen], aside


class OfImages:
    """What both have in common. `usual` is the anomaly of the images kept aside, in their order."""

    detector: AnoDODE | KLIPModel
    usual: np.ndarray
    measured: Mapping[str, Any] = {}
    """What fitting takes beside images."""

    def new_detector(self, task: Task) -> AnoDODE | KLIPModel:
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
            **self.measured,
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
        kind = AnoDODE if isinstance(self, Combined) else KLIPModel
        self.detector = kind.load(folder / _MODEL)
        self.usual = load_file(folder / _USUAL)["usual"]

    def _look_at(self, aside: Sequence[Image]) -> None:
        self.usual = self.detector.score(aside).anomaly.astype(np.float64) if aside else np.empty(0)


class Combined(OfImages):
    """AnoDODE; fits for all its rules."""

    rule = "combined"

    def new_detector(self, task: Task) -> AnoDODE | KLIPModel:
        return AnoDODE(size=task.size, steps=_share(STEPS, task), intensity=task.intensity, seed=task.seed)

    def load(self, folder: Path, task: Task) -> None:
        super().load(folder, task)
        self.detector.rule = self.rule


class Local(Combined):
    rule = "local"


class Published(Combined):
    rule = "published"


class Whole(OfImages):
    """KLIP of images as they are; fits for the other measurements too."""

    measured: Mapping[str, Any] = {"physics": [CT, MRI]}
    physics = "identity"

    def new_detector(self, task: Task) -> AnoDODE | KLIPModel:
        longest = max(max(image.pixels.shape[1:]) for image in task.images)
        size = min(longest, task.size, LARGEST)
        return KLIPModel(size=size, steps=_share(KLIP_STEPS, task), intensity=task.intensity, seed=task.seed)

    def load(self, folder: Path, task: Task) -> None:
        super().load(folder, task)
        assert isinstance(self.detector, KLIPModel)
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


def _share(steps: int, task: Task) -> int:
    return max(1, round(steps * task.steps))


def _into(learned: Learned, report: Callable[[str], None]) -> Callable[[Progress], None]:
    """Keeps the losses, and tells of them now and then."""

    def on_progress(progress: Progress) -> None:
        if not math.isnan(progress.loss):
            learned.curve.append((progress.stage, progress.step, float(progress.loss)))
        report(f"{progress.stage} {progress.step}")

    return on_progress
