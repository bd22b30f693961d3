"""KLIP of whole scans; a slice's figure and map are those of its place in the scan."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from benchmarks.method import Judged, Learned, Task
from priorlens.__main__ import app
from priorlens.images import Image
from priorlens.klip_model import STEPS
from priorlens.scan_model import ScanModel
from priorlens.volumes.reading import read_scan
from priorlens.volumes.scans import labelled_scans

SIZE = 96
CHANNEL = "flair"

KEPT = 16
"""Scans whose maps are in memory at a time."""

_SLICE = re.compile(r"^(?P<patient>.+)_z(?P<height>\d+)$")


class OfScans:
    """Learns as `priorlens fit SCANS --method klip` does, from the scans that the training slices were cut from.

    times: milliseconds a slice of every scan that was judged, all of whose slices are judged together.
    """

    def fit(self, task: Task, report: Callable[[str], None]) -> Learned:
        scans = task.folder / "scans"
        scans.mkdir()
        for patient in task.fold.scans:
            (scans / patient.name).symlink_to(patient.resolve())
        options = ["--channels", CHANNEL, "--method", "klip", "--size", min(SIZE, task.size), "--seed", task.seed]
        steps = ["--steps", max(1, round(STEPS * task.steps))]
        report("fits the scans")
        self.folder = task.folder / "model"
        app([str(part) for part in ("fit", scans, "--out", self.folder, *options, *steps)], standalone_mode=False)
        return Learned(curve=_curve(self.folder / "training.csv"))

    def save(self, folder: Path) -> None:
        ScanModel.load(self.folder).save(folder)

    def load(self, folder: Path, task: Task) -> None:
        self.model = ScanModel.load(folder)
        self.judged = {patient.name: patient for patient in task.fold.judged}
        self.of_patient = lru_cache(KEPT)(self._of_patient)
        self.times: list[float] = []

    def forget(self) -> None:
        """The next slice is looked at with its whole scan, whether that was before or not."""
        self.of_patient.cache_clear()

    def judge(self, images: Sequence[Image]) -> Judged:
        anomaly, maps = [], []
        for image in images:
            patient, height = _place(image.path)
            by_slice, stack = self.of_patient(patient)
            anomaly.append(by_slice[height])
            maps.append(stack[height])
        return Judged(np.array(anomaly, np.float64), maps, self.calls)

    def _of_patient(self, patient: str) -> tuple[np.ndarray, np.ndarray]:
        """Anomaly of each axial slice, the least of a slice that was not looked at, and the map, slice by slice."""
        scans, _ = labelled_scans(self.judged[patient], channels=[CHANNEL])
        began = time.perf_counter()
        scores = self.model.score(read_scan(scans[0]))
        self.times.append(1000 * (time.perf_counter() - began) / len(scores.slices))
        self.calls = scores.nfe / len(scores.slices)
        by_slice = scores.of_all_slices(None)
        by_slice = np.where(np.isnan(by_slice), np.nanmin(by_slice), by_slice)
        return by_slice, scores.prepared.layout.to_stack(scores.anomaly_map)


def _place(path: Path | None) -> tuple[str, int]:
    found = _SLICE.match(path.stem) if path else None
    if not found:
        raise ValueError(f"{path}: is not named as the slice of a patient")
    return found["patient"], int(found["height"])


def _curve(path: Path) -> list[tuple[str, int, float]]:
    lines = [line.split(",") for line in path.read_text().splitlines()[1:]]
    return [(stage, int(step), float(loss)) for stage, step, loss, _ in lines if loss]
