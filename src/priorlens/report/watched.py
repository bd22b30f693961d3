"""A folder that `monitor` wrote, as a page: the streams, their alarms, and what moved."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import UndefinedError
from markupsafe import Markup

from priorlens.errors import InputError
from priorlens.report.facts import MONITOR, number, read_facts
from priorlens.report.findings import below_shared_folder, printable
from priorlens.report.page import monitor_page
from priorlens.report.svg import Axis, drawing, line, marker, path, shown, text
from priorlens.tables import read_table

_COLUMNS = ("stream", "scan", "file", "p_value", "capital", "alarm")
_WIDTH, _HIGH, _LEFT, _LOW, _BOTTOM = 760, 200, 56, 90, 34
_FARTHEST = 4
"""How far the axis of the capital goes, in powers of 1 / alpha: of interest is where the alarm is crossed."""


@dataclass(frozen=True)
class Watched:
    """A stream: its name on the page, what `monitor.json` says of it, and its chart."""

    name: str
    facts: Mapping[str, Any]
    words: str
    chart: Markup


def is_watched(folder: Path) -> bool:
    """Whether `monitor` wrote this folder."""
    return (folder / MONITOR).is_file()


def watched_page(folder: Path, *, hide: bool = False) -> str:
    """The page. hide: leaves out names of files and streams, and times. Raises InputError."""
    facts = read_facts(folder / MONITOR)
    if facts is None:
        raise InputError(f"{folder}: holds no {MONITOR}; give a folder that priorlens monitor wrote")
    table = read_table(folder / "monitor.csv", _COLUMNS, file_names=True)
    files = [row.cells["file"] for row in table.lines]
    names = dict(zip(files, below_shared_folder(files), strict=True))
    scans: dict[str, list[tuple[float, float]]] = {}
    for row in table.lines:
        scans.setdefault(row.cells["stream"], []).append((row.number("capital"), row.number("p_value")))
    try:
        alpha = float(facts["alpha"])
        streams = [
            _stream(one, scans.get(one["stream"], []), alpha, f"stream {index}" if hide else "")
            for index, one in enumerate(facts["streams"], 1)
        ]
        facts = {name: facts[name] for name in ("alpha", "setup", "unit", "calibration", "failed", "features", "model")}
        title = "monitor" if hide else printable(folder.resolve().name)
        return monitor_page(title=title, facts=facts, streams=streams, hide=hide, names=names, printable=printable)
    except (AttributeError, LookupError, OverflowError, TypeError, ValueError, UndefinedError) as error:
        raise InputError(f"{folder / MONITOR}: is damaged; run priorlens monitor again") from error


def _stream(facts: Mapping[str, Any], scans: list[tuple[float, float]], alpha: float, name: str) -> Watched:
    name = name or printable(str(facts["stream"]))
    alarm, change = facts["alarm"], facts["change"]
    if alarm and change:
        words = (
            f"Alarm at scan {alarm['scan']} of {facts['scans']}: what comes is no longer like the calibration. It "
            f"probably changed at scan {change['scan']}, {facts['delay']} scans before."
        )
    else:
        words = (
            f"No alarm in {facts['scans']} scans: the largest capital is {shown(number(facts['largest_capital']))}, "
            f"the alarm is at {1 / alpha:g}."
        )
    return Watched(
        name, facts, words, _chart(name, words, scans, alpha, alarm and alarm["scan"], change and change["scan"])
    )


def _chart(
    name: str, words: str, scans: list[tuple[float, float]], alpha: float, alarm: int | None, change: int | None
) -> Markup:
    """Above the capital on a scale of powers of ten, with the line of the alarm; below the p-value of each scan."""
    level = -math.log10(alpha)
    heights = [math.log10(capital) if capital > 0 else math.nan for capital, _ in scans]
    known = [height for height in heights if math.isfinite(height)] or [0.0]
    top = min(max(*known, level), _FARTHEST * level) + 0.3
    across = Axis(1, max(len(scans), 2), _LEFT + 8, _WIDTH - 10)
    up = Axis(max(min(*known, 0.0), -_FARTHEST * level) - 0.3, top, _HIGH, 14)
    floor = _HIGH + 30 + _LOW
    share = Axis(0, 1, floor, _HIGH + 30)
    parts = [line(_LEFT, up.start, _LEFT, up.stop, "axis"), line(_LEFT, share.start, _LEFT, share.stop, "axis")]
    for value in (t for t in up.ticks(6) if t == round(t)):
        parts += [
            line(_LEFT, up(value), _WIDTH - 10, up(value), "grid"),
            text(_LEFT - 6, up(value) + 4, f"1e{value:g}", "end"),
        ]
    parts += [text(_LEFT - 6, share(value) + 4, f"{value:g}", "end") for value in (0, 0.5, 1)]
    parts.append(line(_LEFT, up(level), _WIDTH - 10, up(level), "alarm-line"))
    parts.append(text(_WIDTH - 12, up(level) - 5, f"alarm at {1 / alpha:g}", "end"))
    if change is not None:
        parts.append(line(across(change), 14, across(change), floor, "change-line"))
        parts.append(text(across(change) + 5, 24, f"changed from scan {change}"))
    parts.append(path(((across(i), up(h)) for i, h in enumerate(heights, 1) if math.isfinite(h)), "own"))
    if alarm is not None and alarm <= len(heights) and math.isfinite(heights[alarm - 1]):
        parts.append(marker(across(alarm), up(heights[alarm - 1]), "own"))
    for i, (_, p_value) in enumerate(scans, 1):
        if math.isfinite(p_value):
            parts.append(f'<circle class="dot" cx="{across(i):g}" cy="{share(p_value):g}" r="1.8"/>')
    parts += [line(_LEFT, floor, _WIDTH - 10, floor, "axis")]
    parts += [text(across(t), floor + 15, f"{t:g}", "middle") for t in across.ticks(8) if t == round(t)]
    parts.append(text(_LEFT, 10, "capital"))
    parts.append(text(_LEFT, _HIGH + 24, "p-value of each scan's anomaly"))
    parts.append(text(_WIDTH / 2, floor + _BOTTOM - 4, "scan", "middle"))
    return drawing(_WIDTH, floor + _BOTTOM, f"Capital of {name}", words, *parts, name="capital")
