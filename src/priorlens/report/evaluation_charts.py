"""The charts of an evaluation: curves with their bands, and how the scores of each kind are spread."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from priorlens.datasets import HEALTHY
from priorlens.report.charts import Scale
from priorlens.report.facts import number
from priorlens.report.findings import Case
from priorlens.report.svg import Axis, band, drawing, histogram, line, path, rectangle, shown, text

_SIDE, _LEFT, _BOTTOM, _EDGE = 320, 46, 40, 10
_STYLES = 4
"""How many kinds of lines there are in the style sheet, told apart by dashes as well as by colour."""

_ROW, _WIDTH, _BINS = 92, 640, 40


def curve_charts(curves: Mapping[str, Any]) -> list[tuple[str, Markup, list[tuple[int, str]]]]:
    """ROC and precision-recall of each level: heading, chart, and the key as (style, words)."""
    found = [one for one in curves.get("curves") or [] if isinstance(one, Mapping)]
    grid = [number(x) for x in curves.get("grid") or []]
    kinds = sorted({str(one.get("kind")) for one in found})
    charts = []
    for level, of in (("image", "whole images"), ("pixel", "pixels")):
        own = [(kinds.index(str(one.get("kind"))) % _STYLES, one) for one in found if one.get("level") == level]
        if not own or not grid:
            continue
        keys = [(style, f"{one.get('kind')}: AUROC {_figure(one, 'auroc')}") for style, one in own]
        drawn = [_curve(grid, one, "tpr", style) for style, one in own]
        roc = _square("false-positive rate", "true-positive rate", _words(keys), f"ROC, {of}", _chance(), *drawn)
        charts.append((f"ROC, {of}", roc, keys))
        words = "{}: AP {} (a guess has {})"
        keys = [
            (style, words.format(one.get("kind"), _figure(one, "average_precision"), _figure(one, "prevalence")))
            for style, one in own
        ]
        drawn = [_curve(grid, one, "precision", style) for style, one in own]
        recall = _square("recall", "precision", _words(keys), f"Precision and recall, {of}", *drawn)
        charts.append((f"Precision and recall, {of}", recall, keys))
    return charts


def _figure(one: Mapping[str, Any], name: str) -> str:
    return shown(number(one.get(name)))


def score_histograms(cases: Sequence[Case], scale: Scale) -> Markup:
    """The anomaly of each kind, one below the other on one axis."""
    kinds = sorted({case.kind for case in cases}, key=lambda kind: (kind != HEALTHY, kind))
    axis = scale.axis(10, _WIDTH - 10)
    parts, told = [], []
    for row, kind in enumerate(kinds):
        own = np.array([case.anomaly for case in cases if case.kind == kind and math.isfinite(case.anomaly)])
        if not own.size:
            continue
        floor = (row + 1) * _ROW - 8
        tall = 60 * histogram(own, scale.low, scale.high, _BINS) / max(histogram(own, scale.low, scale.high, _BINS))
        width = (axis.stop - axis.start) / _BINS
        style = "bar" if kind == HEALTHY else "bar-abnormal"
        for i, high in enumerate(tall):
            if high:
                x, y = round(axis.start + i * width + 0.5, 1), round(floor - high, 1)
                parts.append(rectangle(x, y, round(width - 1, 1), round(high, 1), style))
        middle = float(np.median(own))
        parts += [
            line(axis(middle), floor - 64, axis(middle), floor, "mean"),
            line(10, floor, _WIDTH - 10, floor, "axis"),
        ]
        parts.append(text(12, floor - 66, f"{kind}: {own.size} images, median {shown(middle)}"))
        told.append(f"{kind}: {own.size} images, median {shown(middle)}, from {shown(own.min())} to {shown(own.max())}")
    bottom = len(kinds) * _ROW
    parts += [text(axis(t), bottom + 8, shown(t), "middle") for t in axis.ticks(8)]
    parts.append(text(_WIDTH / 2, bottom + 24, "anomaly; dashed: median", "middle"))
    return drawing(_WIDTH, bottom + 30, "Anomaly of each kind", "; ".join(told), *parts, name="histograms")


def _words(keys: Sequence[tuple[int, str]]) -> str:
    return "; ".join(words for _, words in keys)


def _plane() -> tuple[Axis, Axis]:
    return Axis(0, 1, _LEFT, _SIDE - _EDGE), Axis(0, 1, _SIDE - _BOTTOM, _EDGE)


def _chance() -> str:
    across, up = _plane()
    return line(across(0), up(0), across(1), up(1), "chance")


def _curve(grid: Sequence[float], one: Mapping[str, Any], name: str, style: int) -> str:
    across, up = _plane()
    low, high, middle = ([number(v) for v in one.get(key) or []] for key in (f"{name}_low", f"{name}_high", name))
    xs = [across(x) for x in grid]
    drawn = ""
    if len(low) == len(high) == len(grid) and all(map(math.isfinite, [*low, *high])):
        drawn = band(xs, [up(v) for v in low], [up(v) for v in high], f"band-{style}")
    return drawn + path(((x, up(v)) for x, v in zip(xs, middle, strict=False) if math.isfinite(v)), f"curve-{style}")


def _square(across_words: str, up_words: str, description: str, title: str, *parts: str) -> Markup:
    across, up = _plane()
    frame = [line(across(0), up(0), across(1), up(0), "axis"), line(across(0), up(0), across(0), up(1), "axis")]
    for share in (0, 0.25, 0.5, 0.75, 1):
        frame.append(text(across(share), up(0) + 16, f"{share:g}", "middle"))
        frame.append(text(across(0) - 6, up(share) + 4, f"{share:g}", "end"))
        frame.append(line(across(share), up(0), across(share), up(1), "grid"))
        frame.append(line(across(0), up(share), across(1), up(share), "grid"))
    frame.append(text(across(0.5), _SIDE - 4, across_words, "middle"))
    middle = up(0.5)
    frame.append(
        f'<text x="12" y="{middle}" transform="rotate(-90 12 {middle})" text-anchor="middle">{up_words}</text>'
    )
    return drawing(_SIDE, _SIDE, title, description, *frame, *parts, name="square")
