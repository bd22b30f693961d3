"""Quality against speed: a panel a study, a point a method."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter

from benchmarks.pictures import COLOURS, MARKERS, PREFIX, Label, Picture, new_figure, place_labels, save
from benchmarks.table_results import FAMILIES, Gathered, Runs

WORDS = {"pixel_ap": "pixel AP", "image_auroc": "image AUROC"}
CAPTION = (
    "*Where the processor has instructions for bfloat16, our networks run in it and those of anomalib's peers in "
    "float32: there a part of the difference in time may be the arithmetic, not the method.*"
)
HOLLOW = "hollow: timed while judging test images"
HOLLOW_CAPTION = (
    "*Filled: times taken in turns with other methods, no run beside them. Hollow: taken while the test images "
    "were judged (an asterisk in the tables), with a run's share of the threads and other runs beside it, which can "
    "make a method look slower than it is: compare hollow with filled by quality alone.*"
)
LEAST_MS = 0.01
"""What takes no time has no place on a logarithmic axis."""


def speed_picture(gathered: Gathered, folder: Path) -> Picture | None:
    """None where no method is done."""
    panels = {name: points for name in gathered.names if (points := points_of(gathered.runs(name)))}
    if not panels:
        return None
    rows = math.ceil(len(panels) / 2)
    figure = new_figure(13, 5.2 * rows + 0.5)
    axes = figure.subplots(rows, 2, squeeze=False).ravel()
    hollow = [one for points in panels.values() for one, *_ in points if not one.in_turns]
    figure.legend(handles=_handles(bool(hollow)), loc="outside upper center", ncols=5, frameon=False, fontsize=9)
    for panel in axes[len(panels) :]:
        panel.axis("off")
    labels = [
        _draw(panel, gathered.title(name), points) for panel, (name, points) in zip(axes, panels.items(), strict=False)
    ]
    place_labels(figure, list(zip(axes, labels, strict=False)))
    caption = f"{HOLLOW_CAPTION}\n\n{CAPTION}" if hollow else CAPTION
    picture = Picture(PREFIX + "speed.png", _alt(gathered, panels), caption)
    save(figure, folder / picture.name)
    return picture


Point = tuple[Runs, float, float, str]
"""A method, its milliseconds an image, its figure and which figure it is."""


def points_of(runs: Sequence[Runs]) -> list[Point]:
    whole = [one for one in runs if one.whole]
    key = "pixel_ap" if any(one.values("pixel_ap") for one in whole) else "image_auroc"
    found = []
    for one in whole:
        value = one.value(key)
        if value is not None:
            ms = statistics.median(times["median"] for times in one.times)
            found.append((one, max(ms, LEAST_MS), value, key))
    return found


def _draw(axes: Axes, title: str, points: Sequence[Point]) -> list[Label]:
    """The points; returns their labels, ours first, so that they get the nearest places."""
    for one, ms, value, _ in points:
        family = one.entry.family
        size = 170 if one.ours else 42
        face, edge = (COLOURS[family], "white") if one.in_turns else ("white", COLOURS[family])
        axes.scatter(ms, value, s=size, marker=MARKERS[family], facecolor=face, edgecolor=edge, zorder=3)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
    axes.set_xlabel("ms an image")
    axes.set_ylabel(WORDS[points[0][3]])
    axes.grid(alpha=0.25, which="major")
    axes.margins(x=0.16, y=0.08)
    if points[0][3] == "pixel_ap":
        axes.set_ylim(bottom=0)
    ordered = sorted(points, key=lambda point: (not point[0].ours, -point[2]))
    return [Label(ms, value, one.entry.title, COLOURS[one.entry.family], one.ours) for one, ms, value, _ in ordered]


def _handles(hollow: bool) -> list[Line2D]:
    """hollow: whether any marker is."""
    found = [
        Line2D([], [], linestyle="", marker=MARKERS[family], color=COLOURS[family], label=title, markersize=9)
        for family, title in FAMILIES.items()
    ]
    if hollow:
        empty = Line2D([], [], linestyle="", marker="D", color="#555555", markerfacecolor="white", markersize=7)
        empty.set_label(HOLLOW)
        found.append(empty)
    return found


def _alt(gathered: Gathered, panels: dict[str, list[Point]]) -> str:
    best = []
    for name, points in panels.items():
        one, ms, value, key = max(points, key=lambda point: point[2])
        best.append(f"{gathered.title(name)}: {one.entry.title} is highest in {WORDS[key]}, {value:.3f} at {ms:.3g} ms")
    every = [one for points in panels.values() for one, *_ in points]
    hollow = sum(not one.in_turns for one in every)
    told = f" {hollow} of {len(every)} markers are hollow: timed while the test images were judged." if hollow else ""
    return f"Quality against milliseconds an image, a panel a study. {'; '.join(best)}.{told}"
