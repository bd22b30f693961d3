"""How time and memory grow: points, exponents fitted to them, and what was left out."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.growth import NOT_TRIED
from benchmarks.method import Entry
from benchmarks.methods.simple import LARGEST_FOR_MEDIAN, LARGEST_FOR_PCA
from benchmarks.table_markdown import NOTHING, amount, duration, grid, listed, plain
from benchmarks.table_results import FAMILIES

TIMES = {"size": "ms_per_image", "images": "seconds"}
"""What time is, by what grows: an image's for their side, of all for their number."""

LEAST_POINTS = 3
"""Fewer give no exponent."""

CAPPED = {"blurred_residual": LARGEST_FOR_MEDIAN, "pca": LARGEST_FOR_PCA}
"""Sides beyond which baselines see no larger images."""


@dataclass(frozen=True)
class Growth:
    """Of one method. points: what was measured; absent: what was not, a line each; facts: all of the file."""

    entry: Entry
    points: tuple[Mapping[str, Any], ...]
    absent: tuple[str, ...]
    facts: Mapping[str, Any]

    def series(self, what: str, key: str) -> list[tuple[float, float]]:
        """Ascending, as far as it was measured."""
        return sorted((one["value"], one[key]) for one in self.points if one["what"] == what and one.get(key))

    def exponent(self, what: str, key: str) -> float | None:
        """Over the sides at which the method sees images as they are, or over their number."""
        largest = CAPPED.get(self.entry.name, math.inf) if what == "size" else math.inf
        return exponent([point for point in self.series(what, key) if point[0] <= largest])


def read_growth(out: Path, methods: Mapping[str, Entry]) -> list[Growth]:
    """Of every method that has been measured, in their order."""
    found = []
    for entry in methods.values():
        try:
            facts = json.loads((out / "growth" / f"{entry.name}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        points = [one for one in facts["points"] if "peak_mb" in one]
        absent = _absent([one for one in facts["points"] if "peak_mb" not in one])
        if facts["failed"]:
            absent.append(plain(facts["failed"]))
        found.append(Growth(entry, tuple(points), tuple(absent), facts))
    return found


def _absent(points: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each reason; those points that were not tried for want of a smaller one stand with it."""
    told: dict[str, list[str]] = {}
    for what in TIMES:
        reason = ""
        for one in points:
            if one["what"] == what:
                if one.get("left_out") != NOT_TRIED or not reason:
                    reason = plain(one.get("failed") or one["left_out"])
                told.setdefault(reason, []).append(_place(one))
    return [f"{listed(places)}: {reason}" for reason, places in told.items()]


def _place(point: Mapping[str, Any]) -> str:
    return f"side {point['value']}" if point["what"] == "size" else f"{point['value']} images"


def exponent(points: Sequence[tuple[float, float]]) -> float | None:
    """k of y = c x^k, by least squares through the logarithms; None of fewer than `LEAST_POINTS`."""
    if len(points) < LEAST_POINTS:
        return None
    x, y = np.log(np.array(points, float)).T
    return float(np.polyfit(x, y, 1)[0])


def growth_table(growths: Sequence[Growth]) -> str:
    """Ends of each series, and the exponents between."""
    header = ["method", *(head for what in ("side", "images") for head in _heads(what))]
    rows = []
    for family, title in FAMILIES.items():
        members = [one for one in growths if one.entry.family == family]
        rows += [[f"*{title}*", *[""] * (len(header) - 1)]] if members else []
        rows += [[one.entry.title, *_cells(one, "size"), *_cells(one, "images")] for one in members]
    absent = [f"- {one.entry.title}: {line}" for one in growths for line in one.absent]
    return "\n\n".join([grid(header, rows), *(["Not measured:\n\n" + "\n".join(absent)] if absent else [])])


def _heads(what: str) -> list[str]:
    time = "ms an image" if what == "side" else "seconds"
    return [f"{time} over {what}", "exponent", f"peak MB over {what}", "exponent"]


def _cells(one: Growth, what: str) -> list[str]:
    cells = []
    for key in (TIMES[what], "peak_mb"):
        series = one.series(what, key)
        fitted = one.exponent(what, key)
        cells += [_ends(series), NOTHING if fitted is None else f"{round(fitted, 2) + 0.0:.2f}".replace("-", "−")]
    return cells


def _ends(series: Sequence[tuple[float, float]]) -> str:
    """Such as `2.1 at 64 to 130 at 512`."""
    if not series:
        return NOTHING
    ends = series if len(series) == 1 else (series[0], series[-1])
    return " to ".join(f"{amount(value)} at {place:g}" for place, value in ends)


def growth_facts(growths: Sequence[Growth]) -> str:
    """How it was measured, as the files tell."""
    if not growths:
        return "Not measured yet: `python -m benchmarks growth` does it."
    facts = growths[0].facts
    brief = any(one.facts["key"].get("quick") for one in growths)
    return (
        f"{'**Some of this was made with `--quick`: its figures mean nothing.** ' if brief else ''}"
        "Measured on made images, smooth noise in a disc, in a process of its own for every point. Models learned from "
        f"{facts['train_images']} such images with {amount(100 * facts['steps'])} % of their steps: how long scoring "
        "takes does not depend on how well a network was trained. It does depend on the number of images learned from "
        "where these are kept, as by PatchCore and DFKDE, which are slower and larger after a real training. Over the "
        f"side: the median of {facts['passes']} passes over up to {facts['images']} images. Over their number: images "
        f"of {facts['side']} pixels a side, made as they are needed, scored in batches of {facts['batch']}; the time "
        "is that of scoring alone. A point that by the one before it would take more than "
        f"{duration(facts['most_seconds'])} is left out, and the list below says so. KLIP, and what reads its prior, "
        "sees images as large as they are here, in the tables above smaller ones; the median filter sees them at "
        f"{LARGEST_FOR_MEDIAN} pixels at most, PCA at {LARGEST_FOR_PCA}: no exponent beyond that is told of them."
    )
