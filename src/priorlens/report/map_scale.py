"""What the colours of maps stand for, the same in all pictures of a model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from priorlens.pictures import TOP_SHARE
from priorlens.report.facts import number, part
from priorlens.report.findings import Findings

_UNITS = {"bit": "bits", "1": "relative to what is usual"}


@dataclass(frozen=True)
class MapScale:
    """Ends of the colours; what is outlined where no regions were looked for, NaN where that is not known.

    healthy: the ends come from healthy images, not from the maps that are shown. unit: empty where it is not known.
    """

    low: float
    high: float
    threshold: float
    healthy: bool
    unit: str

    @property
    def words(self) -> str:
        """What is measured, and its unit."""
        return f"surprise ({self.unit})" if self.unit else "surprise"

    def level(self, anomaly_map: np.ndarray) -> float:
        """What is outlined in a map: the threshold, else what the highest 2 % of its own pixels exceed."""
        return self.threshold if math.isfinite(self.threshold) else float(np.quantile(anomaly_map, 1 - TOP_SHARE))


def healthy_scale(model: Mapping[str, Any]) -> MapScale | None:
    """From the healthy statistics in `model.json`; None where these are not known."""
    own = part(model, "map_scale")
    low, high, threshold = (number(own.get(name)) for name in ("low", "high", "threshold"))
    known = math.isfinite(low) and math.isfinite(high) and low < high
    return MapScale(low, high, threshold, True, _unit(model)) if known else None


def map_scale(findings: Findings, maps: Iterable[np.ndarray]) -> MapScale:
    """From the healthy statistics of the model; where these are not known, from the extremes of all `maps`."""
    if known := healthy_scale(findings.model):
        return known
    ends = [(float(one.min()), float(one.max())) for one in maps]
    low, high = min(end[0] for end in ends), max(end[1] for end in ends)
    return MapScale(low, high if high > low else low + 1, math.nan, False, _unit(findings.model))


def _unit(model: Mapping[str, Any]) -> str:
    return _UNITS.get(str(model.get("map_unit")), "")
