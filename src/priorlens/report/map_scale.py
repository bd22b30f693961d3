"""What the colours of maps stand for, the same in all pictures of a model."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from priorlens.pictures import TOP_SHARE
from priorlens.report.facts import number, part
from priorlens.report.findings import Findings

_UNITS = {"bit": "surprise (bits)", "1": "surprise (relative to what is usual)"}


@dataclass(frozen=True)
class MapScale:
    """Ends of the colours; what is outlined where no regions were looked for, NaN where that is not known.

    healthy: the ends come from healthy images, not from the maps that are shown. words: what is measured, and its unit.
    """

    low: float
    high: float
    threshold: float
    healthy: bool
    words: str

    def level(self, anomaly_map: np.ndarray) -> float:
        """What is outlined in a map: the threshold, else what the highest 2 % of its own pixels exceed."""
        return self.threshold if math.isfinite(self.threshold) else float(np.quantile(anomaly_map, 1 - TOP_SHARE))


def map_scale(findings: Findings, maps: Iterable[np.ndarray]) -> MapScale:
    """From the healthy statistics of the model; where these are not known, from the extremes of all `maps`."""
    statistics = part(findings.model, "healthy")
    own = part(statistics, str(findings.model.get("rule", ""))) or statistics
    low, high, threshold = (number(own.get(name)) for name in ("map_low", "map_high", "threshold"))
    if "scans" in findings.model:  # the threshold of single images is too low for scans of new patients
        threshold = high
    words = _UNITS.get(str(findings.model.get("map_unit")), "surprise")
    if math.isfinite(low) and math.isfinite(high) and low < high:
        return MapScale(low, high, threshold, True, words)
    ends = [(float(one.min()), float(one.max())) for one in maps]
    low, high = min(end[0] for end in ends), max(end[1] for end in ends)
    return MapScale(low, high if high > low else low + 1, threshold, False, words)
