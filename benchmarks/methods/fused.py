"""AnoDODE and KLIP as one detector: their p-values joined, and the mean of their maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from benchmarks.method import Judged, Learned, Task
from benchmarks.methods.ours import OfImages
from benchmarks.methods.ours_anodode import Combined
from benchmarks.methods.ours_klip import Whole
from priorlens.conformal import CombinationRule, combined_p_values
from priorlens.images import Image

_LEAST = 1e-6  # of a deviation that is divided by


class Fused:
    """Anomaly is -log10 of the joined p-value, less so much of a step between two of them as the parts are beyond the
    images kept aside, in deviations: it orders images of one p, and the most abnormal ones are not all alike. A map is
    the mean of both, each as a multiple of the threshold that 0.5 % of healthy pixels exceed. Of few patients none is
    kept aside; then anomaly is the mean of both, in deviations of the healthy images that each was calibrated with.
    """

    rule: CombinationRule = "harmonic"
    remark = ""

    def fit(self, task: Task, report: Callable[[str], None]) -> Learned:
        raise NotImplementedError("reads the models of AnoDODE and KLIP")

    def save(self, folder: Path) -> None:
        raise NotImplementedError("reads the models of AnoDODE and KLIP")

    def load(self, folder: Path, task: Task) -> None:
        self.parts: tuple[OfImages, ...] = (Combined(), Whole())
        for part, name in zip(self.parts, ("anodode", "klip"), strict=True):
            part.load(folder / name, task)
        if not self.parts[0].usual.size:
            self.remark = "too few patients to keep one aside for p-values: the mean of standardised scores"

    def judge(self, images: Sequence[Image]) -> Judged:
        found = [part.judge(images) for part in self.parts]
        anomaly = np.stack([one.anomaly for one in found])
        relative = [
            [_relative(one, part) for one in each.maps or ()] for each, part in zip(found, self.parts, strict=True)
        ]
        maps = [np.mean(pair, axis=0, dtype=np.float32) for pair in zip(*relative, strict=True)]
        return Judged(self._joined(anomaly), maps, sum(one.calls for one in found))

    def _joined(self, anomaly: Float64[np.ndarray, "part image"]) -> Float64[np.ndarray, " image"]:
        usual = np.stack([part.usual for part in self.parts])
        if not usual.size:
            return np.mean([_standardised(*pair) for pair in zip(anomaly, self.parts, strict=True)], axis=0)
        beyond = ((anomaly - usual.max(axis=1, keepdims=True)) / usual.std(axis=1, keepdims=True)).clip(0).sum(axis=0)
        step = 1 / (usual.shape[1] + 1)
        return -np.log10(combined_p_values(anomaly, usual, self.rule) - step * beyond / (1 + beyond))


class ByFisher(Fused):
    """The product of both instead: better where both see the anomaly, poorer where one alone does."""

    rule: CombinationRule = "fisher"


def _standardised(anomaly: Float64[np.ndarray, " image"], part: OfImages) -> Float64[np.ndarray, " image"]:
    usual = part.detector.healthy_
    assert usual is not None
    return (anomaly - usual.anomaly_mean) / max(usual.anomaly_std, _LEAST)


def _relative(anomaly_map: np.ndarray, part: OfImages) -> np.ndarray:
    usual = part.detector.healthy_
    assert usual is not None
    return (anomaly_map - usual.map_low) / (usual.threshold - usual.map_low)
