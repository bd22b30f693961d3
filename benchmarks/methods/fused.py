"""AnoDODE and KLIP as one detector: their p-values joined, and the mean of their maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.method import Judged, Learned, Task
from benchmarks.methods.ours import Combined, OfImages, Whole
from priorlens.conformal import CombinationRule, combined_p_values
from priorlens.images import Image


class Fused:
    """Anomaly is -log10 of the joined p-value; where that is the least there can be, images are ranked by how far they
    are beyond the images kept aside, so that the best of them are not all alike. A map is the mean of both, each as a
    multiple of the threshold that 0.5 % of healthy pixels exceed.
    """

    rule: CombinationRule = "harmonic"

    def fit(self, task: Task, report: Callable[[str], None]) -> Learned:
        raise NotImplementedError("reads the models of AnoDODE and KLIP")

    def save(self, folder: Path) -> None:
        raise NotImplementedError("reads the models of AnoDODE and KLIP")

    def load(self, folder: Path, task: Task) -> None:
        self.parts: tuple[OfImages, ...] = (Combined(), Whole())
        for part, name in zip(self.parts, ("anodode", "klip"), strict=True):
            part.load(folder / name, task)

    def judge(self, images: Sequence[Image]) -> Judged:
        found = [part.judge(images) for part in self.parts]
        usual = np.stack([part.usual for part in self.parts])
        anomaly = np.stack([one.anomaly for one in found])
        spread = usual.std(axis=1, keepdims=True)
        beyond = ((anomaly - usual.max(axis=1, keepdims=True)) / spread).clip(0).max(axis=0)
        joined = -np.log10(combined_p_values(anomaly, usual, self.rule)) + beyond
        relative = [
            [_relative(one, part) for one in each.maps or ()] for each, part in zip(found, self.parts, strict=True)
        ]
        maps = [np.mean(pair, axis=0, dtype=np.float32) for pair in zip(*relative, strict=True)]
        return Judged(joined, maps, sum(one.calls for one in found))


def _relative(anomaly_map: np.ndarray, part: OfImages) -> np.ndarray:
    usual = part.detector.healthy_
    assert usual is not None
    return (anomaly_map - usual.map_low) / (usual.threshold - usual.map_low)
