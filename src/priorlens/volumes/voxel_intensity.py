"""Intensities of scans to about [0, 1], and back: windows in HU, robust statistics or landmarks inside the body."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, Float64

from priorlens.errors import InputError
from priorlens.normalise import CLIP

Mode = Literal["window", "robust", "landmarks"]

WINDOWS = {"brain": (0.0, 80.0), "soft": (-160.0, 240.0), "lung": (-1000.0, 200.0), "bone": (-500.0, 1300.0)}
"""CT windows by name, lowest and highest HU."""

MEDIAN_AT, DEVIATION = 0.4, 0.1
"""Where the body's median goes, and how much one standard deviation is: bright lesions stay below the upper clip."""

PERCENTILES = (10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0)
"""Landmarks. Those of the published method reach to the 99.8th percentile: where a large bright lesion is itself a
landmark, it is mapped to what healthy scans show. Up to the 70th, one of 15 % of the body keeps two thirds of its
height, as it does by the median and deviation; up to the 90th, a quarter (tests/volumes/test_voxel_intensity.py)."""

_SAMPLE = 200_000  # voxels of a scan from which its percentiles are read


@dataclass(frozen=True)
class Curve:
    """One scan's map of intensities: through these points, linear between them and beyond."""

    raw: tuple[float, ...]
    scaled: tuple[float, ...]

    def apply(self, voxels: Float32[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape"]:
        """To about [0, 1], cut off at `priorlens.normalise.CLIP`."""
        return _through(voxels, self.raw, self.scaled).clip(*CLIP).astype(np.float32)

    def inverse(self, scaled: Float32[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape"]:
        """Back to the scan's own; what `apply` cut off stays at the cut."""
        return _through(scaled, self.scaled, self.raw).astype(np.float32)


@dataclass(frozen=True)
class VoxelIntensity:
    """How the intensities of one channel become about [0, 1].

    window: `low` HU become 0, `high` 1. robust: the body's median becomes 0.4 and its standard deviation, from the
    median absolute deviation, 0.1; neither is moved by a lesion, as upper percentiles are. landmarks: deciles of the
    body go to `standard`, their places in healthy scans (Nyul et al. 2000, doi:10.1109/42.836373).
    """

    mode: Mode
    low: float = 0.0
    high: float = 1.0
    standard: tuple[float, ...] = ()

    @classmethod
    def learned(cls, bodies: Sequence[Float32[np.ndarray, " voxel"]]) -> VoxelIntensity:
        """Landmarks: mean over healthy scans of where their deciles lie once the robust map was applied to each."""
        places = [np.percentile(_robust(voxels).apply(voxels), PERCENTILES) for voxels in bodies]
        return cls("landmarks", standard=_rising(np.mean(places, axis=0)))

    def of(self, voxels: Float32[np.ndarray, " voxel"]) -> Curve:
        """For a scan with these voxels inside its body. Raises InputError where they are all alike."""
        if self.mode == "window":
            return Curve((self.low, self.high), (0.0, 1.0))
        if self.mode == "robust":
            return _robust(voxels)
        raw = _rising(np.percentile(voxels, PERCENTILES))
        return Curve(raw, self.standard)


def inside(voxels: Float32[np.ndarray, "i j k"], body: Bool[np.ndarray, "i j k"]) -> Float32[np.ndarray, " voxel"]:
    """Voxels of the body, evenly drawn where they are many."""
    found = voxels[body]
    return found[:: max(1, found.size // _SAMPLE)]


def _robust(voxels: Float32[np.ndarray, " voxel"]) -> Curve:
    median = float(np.median(voxels))
    deviation = 1.4826 * float(np.median(np.abs(voxels - median)))
    deviation = deviation or float(voxels.std())
    if not deviation > 0:
        raise InputError("all voxels of the body are alike")
    return Curve((median, median + deviation), (MEDIAN_AT, MEDIAN_AT + DEVIATION))


def _rising(values: Float64[np.ndarray, " landmark"]) -> tuple[float, ...]:
    """Landmarks that coincide, as in scans of few grey levels, moved apart a little."""
    span = float(np.ptp(values))
    if not span > 0:
        raise InputError("all voxels of the body are alike")
    return tuple(float(value) for value in np.maximum.accumulate(values + np.arange(len(values)) * 1e-6 * span))


def _through(
    values: Float32[np.ndarray, "*shape"], at: Sequence[float], become: Sequence[float]
) -> Float64[np.ndarray, "*shape"]:
    """Linear between the points, and beyond them as between the two at that end."""
    result = np.interp(values, at, become)
    for end, neighbour, beyond in ((0, 1, np.less), (-1, -2, np.greater)):
        outside = beyond(values, at[end])
        slope = (become[neighbour] - become[end]) / (at[neighbour] - at[end])
        result[outside] = become[end] + slope * (values[outside].astype(np.float64) - at[end])
    return result
