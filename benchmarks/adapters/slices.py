"""A volume becomes files of axial slices in the layout of a study, its patient and height in every file's name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from PIL import Image

from priorlens.datasets import HEALTHY
from priorlens.volumes.scans import LESION
from priorlens.volumes.volume import Layout, Volume

GROUP = r"^(.+?)(?:_t\d+)?_z\d+"
"""Finds the patient in the name of a slice, `PATIENT_z042.png`, or `PATIENT_t2_z042.png` of a second scan."""

HEIGHT = r"_z(\d+)"
"""Finds the number of the slice."""

GREY_OF_MEDIAN = 85.0
"""Grey value of the body's median in a scan without units: what exceeds three medians is white."""

ToGrey = Callable[[Float32[np.ndarray, "*shape"]], UInt8[np.ndarray, "*shape"]]


@dataclass(frozen=True)
class Written:
    """How many slices of a volume were written, without and with a lesion."""

    healthy: int
    abnormal: int


def window(low: float, high: float) -> ToGrey:
    """From `low` (black) to `high` (white), as of Hounsfield units."""
    return lambda values: np.clip((values - low) * (255 / (high - low)), 0, 255).round().astype(np.uint8)


def by_median(volume: Volume, body: Bool[np.ndarray, "i j k"]) -> ToGrey:
    """From 0 to three times the median of the body, which no lesion moves by much; one scale for the whole scan."""
    return window(0.0, 255 / GREY_OF_MEDIAN * float(np.median(volume.voxels[0][body])))


def write_slices(
    volume: Volume,
    lesion: Bool[np.ndarray, "i j k"] | None,
    folder: Path,
    patient: str,
    *,
    to_grey: ToGrey,
    inside: Bool[np.ndarray, "i j k"],
    least: float,
    most: int = 0,
    every: int = 1,
    judged: bool,
    clear: bool = True,
    kind: str = LESION,
) -> Written:
    """Write the first channel's slices of which `inside` fills the share `least` or more.

    To learn from: those without lesion, into `train/good`. `judged`: these into `test/good`, the others into
    `test/<kind>` with their outlines in `ground_truth/<kind>`. Files are 8-bit PNG; slices are counted from the feet.

    most: of those without and of those with a lesion, evenly spread; 0 for all. every: only slices whose number it
    divides, so that those of several patients lie at equal heights where volumes are aligned. clear: whether a slice
    without outline is known to be healthy; else it is not written.
    """
    layout = Layout.of(volume.affine, "axial")
    stack = layout.to_stack(volume.voxels[0])
    shown = layout.to_stack(inside).mean(axis=(1, 2)) >= least
    shown &= np.arange(len(shown)) % every == 0
    truth = np.zeros(stack.shape, bool) if lesion is None else layout.to_stack(lesion)
    ill = truth.any(axis=(1, 2))
    healthy = _spread(np.flatnonzero(shown & ~ill), most) if clear else []
    abnormal = _spread(np.flatnonzero(shown & ill), most) if judged else []
    for number in healthy:
        of_healthy = folder / ("test" if judged else "train") / HEALTHY
        _write(of_healthy / f"{patient}_z{number:03d}.png", to_grey(stack[number]))
    for number in abnormal:
        name = f"{patient}_z{number:03d}.png"
        _write(folder / "test" / kind / name, to_grey(stack[number]))
        _write(folder / "ground_truth" / kind / name, truth[number].astype(np.uint8) * np.uint8(255))
    return Written(len(healthy), len(abnormal))


def _spread(numbers: Sequence[int] | np.ndarray, most: int) -> list[int]:
    """So many of them (0: all) at equal distances, none of them at an end unless all are taken."""
    if not most or len(numbers) <= most:
        return [int(number) for number in numbers]
    places = ((np.arange(most) + 0.5) * len(numbers) / most).astype(int)
    return [int(numbers[place]) for place in places]


def _write(path: Path, pixels: UInt8[np.ndarray, "row column"]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(pixels)).save(path)
