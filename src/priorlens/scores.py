"""What every detector says of images, and what it knows of healthy ones to show it by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32

_BEYOND = 3.0

KEYS = ("stride", "sigma")
"""Columns of a detector's tables that say where a row is; the others are values."""


@dataclass(frozen=True)
class Scores:
    """What a detector says of images; higher is more abnormal.

    anomaly: the figure that ranks images; its rule says in which units.
    anomaly_map: the same by place, each of its image's own height and width.
    nfe: network evaluations an image took.
    figures: further figures of each image, by name: bits/dim of each scale, bits of the largest block, ...
    arrays: further arrays of each image, by name: its reconstruction, bits of each block, ...
    """

    anomaly: Float32[np.ndarray, " image"]
    anomaly_map: tuple[Float32[np.ndarray, "_ _"], ...]
    nfe: int
    figures: Mapping[str, Float32[np.ndarray, " image"]] = field(default_factory=dict)
    arrays: Mapping[str, tuple[np.ndarray, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class HealthyStatistics:
    """What a rule says of held-out healthy images: its figure, and ends and threshold for showing its map.

    `threshold` is the 99.5th percentile of their pixels: something to draw a line at, no calibrated verdict.
    """

    anomaly_mean: float
    anomaly_std: float
    map_low: float
    map_high: float
    threshold: float

    @property
    def scan_high(self) -> float:
        """Upper end of colours for scans of new patients, of which `map_high` is where something stands out."""
        return self.map_low + _BEYOND * (self.map_high - self.map_low)

    @classmethod
    def of(
        cls, anomaly: Float32[np.ndarray, " image"], anomaly_map: Float32[np.ndarray, "*pixel"]
    ) -> HealthyStatistics:
        """From what a rule says of images that are known to be healthy: their figures, and the pixels of their maps."""
        low, threshold, high = (float(value) for value in np.quantile(anomaly_map, (0.5, 0.995, 0.9999)))
        return cls(
            anomaly_mean=float(anomaly.mean()),
            anomaly_std=float(anomaly.std()),
            map_low=low,
            map_high=max(high, threshold + (threshold - low)),
            threshold=threshold,
        )
