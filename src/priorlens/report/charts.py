"""The charts of one case, and what all of these have in common: the healthy images, drawn once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from priorlens.report.findings import Case, Findings
from priorlens.report.spectra import Panel, Spectra
from priorlens.report.svg import Axis, band, drawing, histogram, line, marker, path, rectangle, shown, text

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 230, 150, 40, 12, 10, 34
_PLACE_WIDTH, _PLACE_HEIGHT = 460, 110
_BINS = 30


@dataclass(frozen=True)
class Scale:
    """The anomaly from left to right, the same for all cases."""

    low: float
    high: float

    @classmethod
    def of(cls, findings: Findings) -> Scale:
        """All healthy images, and the cases but for the farthest out."""
        own = np.array([case.anomaly for case in findings.cases if math.isfinite(case.anomaly)])
        ends = [*np.quantile(own, (0.01, 0.99))] if own.size else []
        ends += [findings.healthy.min(), findings.healthy.max()] if findings.healthy.size else []
        low, high = (float(min(ends)), float(max(ends))) if ends else (0.0, 1.0)
        margin = 0.03 * (high - low) or 0.5
        return cls(low - margin, high + margin)

    def axis(self, start: int, stop: int) -> Axis:
        return Axis(self.low, self.high, start, stop)


def common_symbols(findings: Findings, scale: Scale) -> Markup:
    """What charts of cases refer to by name: a page holds it once."""
    parts = []
    if findings.healthy.size:
        parts.append(_symbol("place", _PLACE_WIDTH, _PLACE_HEIGHT, _healthy_histogram(findings.healthy, scale)))
    for index, panel in enumerate(findings.spectra.panels if findings.spectra else ()):
        parts.append(_symbol(f"panel-{index}", _WIDTH, _HEIGHT, _frame(panel)))
    return Markup('<svg class="symbols" width="0" height="0" aria-hidden="true">{}</svg>').format(
        Markup("".join(parts))
    )


def place_chart(case: Case, healthy: int, scale: Scale, words: str) -> Markup:
    """The case among the healthy images."""
    axis = scale.axis(10, _PLACE_WIDTH - 10)
    beyond = 2 if case.anomaly > scale.high else -2 if case.anomaly < scale.low else 0
    x = axis(case.anomaly)
    parts = ['<use href="#place"/>', line(x, 12, x, 78, "here"), marker(x, 12, "here", beyond)]
    title = f"Anomaly {shown(case.anomaly)} among {healthy} healthy calibration images"
    return drawing(_PLACE_WIDTH, _PLACE_HEIGHT, title, words, *parts, name="place")


def spectrum_charts(spectra: Spectra, own: Sequence[np.ndarray]) -> list[tuple[str, list[Markup]]]:
    """By value, a chart for each scale."""
    found: dict[str, list[Markup]] = {}
    for index, (panel, values) in enumerate(zip(spectra.panels, own, strict=True)):
        found.setdefault(panel.value, []).append(_spectrum_chart(index, panel, values))
    return list(found.items())


def scale_words(panel: Panel) -> str:
    return "" if panel.stride is None else f"features every {panel.stride:g} pixels"


def _symbol(name: str, width: int, height: int, parts: str) -> str:
    return f'<symbol id="{name}" viewBox="0 0 {width} {height}">{parts}</symbol>'


def _healthy_histogram(healthy: np.ndarray, scale: Scale) -> str:
    axis = scale.axis(10, _PLACE_WIDTH - 10)
    counts = histogram(healthy, scale.low, scale.high, _BINS)
    width = (axis.stop - axis.start) / _BINS
    tall = 56 * counts / counts.max()
    bars = [
        rectangle(
            round(axis.start + i * width + 0.5, 1), round(78 - high, 1), round(width - 1, 1), round(high, 1), "bar"
        )
        for i, high in enumerate(tall)
        if high
    ]
    ticks = [line(axis(t), 78, axis(t), 82, "axis") + text(axis(t), 94, shown(t), "middle") for t in axis.ticks(6)]
    words = text(_PLACE_WIDTH / 2, 107, "anomaly, bars: healthy calibration images", "middle")
    return "".join([*bars, line(10, 78, _PLACE_WIDTH - 10, 78, "axis"), *ticks, words])


def _axes(panel: Panel) -> tuple[Axis, Axis]:
    low, high = panel.sigmas[0], panel.sigmas[-1]
    across = Axis(low, high, _LEFT + 6, _WIDTH - _RIGHT, logarithmic=low > 0)
    return across, Axis(panel.bottom, panel.top, _HEIGHT - _BOTTOM, _TOP)


def _frame(panel: Panel) -> str:
    across, up = _axes(panel)
    xs = [across(sigma) for sigma in panel.sigmas]
    floor = _HEIGHT - _BOTTOM
    parts = []
    if panel.mean is not None and panel.low is not None and panel.high is not None:
        parts.append(band(xs, [up(v) for v in panel.low], [up(v) for v in panel.high], "band"))
        parts.append(path(((x, up(v)) for x, v in zip(xs, panel.mean, strict=True)), "mean"))
    parts += [line(_LEFT, floor, _WIDTH - 4, floor, "axis"), line(_LEFT, _TOP, _LEFT, floor, "axis")]
    for value in up.ticks(5):
        parts.append(line(_LEFT - 4, up(value), _LEFT, up(value), "axis"))
        parts.append(text(_LEFT - 6, up(value) + 4, shown(value), "end"))
    for x, sigma in zip(xs, panel.sigmas, strict=True):
        parts += [line(x, floor, x, floor + 4, "axis"), text(x, floor + 16, f"{sigma:g}", "middle")]
    return "".join([*parts, text((_LEFT + _WIDTH) / 2, _HEIGHT - 3, "noise level σ", "middle")])


def _spectrum_chart(index: int, panel: Panel, values: np.ndarray) -> Markup:
    across, up = _axes(panel)
    points = [(across(s), v) for s, v in zip(panel.sigmas, values, strict=True) if math.isfinite(v)]
    parts = [f'<use href="#panel-{index}"/>', path(((x, up(v)) for x, v in points), "own")]
    parts += [marker(x, up(v), "own", 1 if v > panel.top else -1 if v < panel.bottom else 0) for x, v in points]
    told = (
        f"σ {s:g}: {shown(v)}" + (f" (healthy {shown(lo)} to {shown(hi)})" if lo is not None and hi is not None else "")
        for s, v, lo, hi in _together(panel, values)
    )
    title = ", ".join(filter(None, [f"Surprise by noise level, {panel.value}", scale_words(panel)]))
    return drawing(_WIDTH, _HEIGHT, title, "; ".join(told), *parts, name="spectrum")


def _together(panel: Panel, values: np.ndarray) -> list[tuple[float, float, float | None, float | None]]:
    low = panel.low if panel.low is not None else [None] * len(values)
    high = panel.high if panel.high is not None else [None] * len(values)
    return list(zip(panel.sigmas, values, low, high, strict=True))
