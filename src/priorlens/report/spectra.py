"""Surprise by noise level: of each image, and how it spreads among the healthy images of the calibration."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from jaxtyping import Float64

from priorlens.scores import KEYS
from priorlens.tables import Table

BAND = (0.05, 0.95)
"""Shares of the healthy images below the ends of the band."""

_SHOWN_OF_CASES = (0.02, 0.98)


@dataclass(frozen=True)
class Panel:
    """One value at all noise levels, of one scale where there are several.

    value: its name in the table. stride: of the features, in pixels; None where there is one scale.
    mean, low, high: of the healthy images; None where none are known. bottom, top: what a picture of it shows.
    """

    value: str
    stride: float | None
    sigmas: tuple[float, ...]
    mean: Float64[np.ndarray, " sigma"] | None
    low: Float64[np.ndarray, " sigma"] | None
    high: Float64[np.ndarray, " sigma"] | None
    bottom: float
    top: float


@dataclass(frozen=True)
class Spectra:
    """panels: the plain surprise of every scale, then that of the widest neighbourhood, which alone `wide` names.

    of: by file, a line for each panel, a number for each noise level (NaN where the table has none).
    """

    panels: tuple[Panel, ...]
    of: Mapping[str, tuple[Float64[np.ndarray, " sigma"], ...]]
    wide: str


def read_spectra(spectrum: Table, calibration: Table | None) -> Spectra | None:
    """None where the table is empty. Raises InputError for a cell that is no number."""
    keys = [name for name in spectrum.columns if name in KEYS]
    values = [name for name in spectrum.columns if name not in ("file", *keys)]
    if "sigma" not in keys or not values or not spectrum.lines:
        return None
    found: dict[str, dict[tuple[float | None, float], tuple[float, ...]]] = {}
    names = tuple(dict.fromkeys((values[0], values[-1])))
    for line in spectrum.lines:
        place = (line.number("stride") if "stride" in keys else None, line.number("sigma"))
        found.setdefault(line.cells["file"], {})[place] = tuple(line.number(name) for name in names)
    places = sorted({place for one in found.values() for place in one}, key=lambda place: (place[0] or 0, place[1]))
    healthy = _healthy(calibration)
    panels, rows = [], []
    for index, name in enumerate(names):
        for _, group in groupby(places, key=lambda place: place[0]):
            own = list(group)
            columns = [healthy.get((name, place), np.array([])) for place in own]
            cases = np.array([[one[p][index] if p in one else np.nan for p in own] for one in found.values()])
            panels.append(_panel(name, own, columns, cases))
            rows.append(cases)
    of = {file: tuple(cases[i] for cases in rows) for i, file in enumerate(found)}
    return Spectra(tuple(panels), of, names[-1])


def _healthy(calibration: Table | None) -> dict[tuple[str, tuple[float | None, float]], np.ndarray]:
    """Values of the healthy images by name and place: columns such as "bits@sigma=0.5"."""
    found = {}
    for column in calibration.columns if calibration else ():
        if match := re.fullmatch(r"(\w+)@(?:stride=([\d.e+-]+),)?sigma=([\d.e+-]+)", column):
            place = (float(match[2]) if match[2] else None, float(match[3]))
            values = np.array([line.number(column) for line in calibration.lines], np.float64)  # type: ignore[union-attr]
            found[match[1], place] = values[np.isfinite(values)]
    return found


def _panel(
    name: str, places: Sequence[tuple[float | None, float]], healthy: Sequence[np.ndarray], cases: np.ndarray
) -> Panel:
    known = all(len(values) for values in healthy)
    mean = np.array([values.mean() for values in healthy]) if known else None
    low, high = np.array([np.quantile(values, BAND) for values in healthy]).T if known else (None, None)
    seen = cases[np.isfinite(cases)]
    ends = list(np.quantile(seen, _SHOWN_OF_CASES)) if seen.size else []
    ends += [float(low.min()), float(high.max())] if low is not None and high is not None else []
    bottom, top = (min(ends), max(ends)) if ends else (0.0, 1.0)
    margin = 0.08 * (top - bottom) or 0.5
    sigmas = tuple(sigma for _, sigma in places)
    return Panel(name, places[0][0], sigmas, mean, low, high, bottom - margin, top + margin)
