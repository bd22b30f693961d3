"""Small pieces of SVG: axes that numbers are put on, and the texts that a screen reader says of a chart."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

Real = int | float


@dataclass(frozen=True)
class Axis:
    """Numbers from `low` to `high` on a line from `start` to `stop`; what lies beyond is drawn at its end."""

    low: Real
    high: Real
    start: Real
    stop: Real
    logarithmic: bool = False

    def __call__(self, value: Real) -> float:
        low, high, value = (math.log(x) if self.logarithmic else x for x in (self.low, self.high, value))
        share = min(max((value - low) / ((high - low) or 1.0), 0.0), 1.0)
        return round(self.start + share * (self.stop - self.start), 1)

    def ticks(self, wanted: int = 4) -> list[Real]:
        """Round numbers inside."""
        span = (self.high - self.low) or 1.0
        step = 10 ** math.floor(math.log10(span / wanted))
        step *= next(factor for factor in (1, 2, 5, 10) if span / (factor * step) <= wanted)
        first = math.ceil(self.low / step - 1e-9)
        return [index * step for index in range(first, math.floor(self.high / step + 1e-9) + 1)]


def drawing(width: Real, height: Real, title: str, description: str, *parts: str, name: str = "chart") -> Markup:
    """A chart with the words for who cannot see it."""
    return Markup('<svg class="{}" viewBox="0 0 {:g} {:g}" role="img"><title>{}</title><desc>{}</desc>{}</svg>').format(
        name, width, height, title, description, Markup("".join(parts))
    )


def line(x1: Real, y1: Real, x2: Real, y2: Real, name: str) -> str:
    return f'<line class="{name}" x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}"/>'


def text(x: Real, y: Real, words: str, anchor: str = "start") -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(words)}</text>'


def path(points: Iterable[tuple[Real, Real]], name: str, closed: bool = False) -> str:
    """A line through points; those that are not numbers are left out."""
    known = [f"{x:g} {y:g}" for x, y in points if math.isfinite(x) and math.isfinite(y)]
    return f'<path class="{name}" d="M{"L".join(known)}{"Z" if closed else ""}"/>' if known else ""


def band(xs: Sequence[Real], low: Sequence[Real], high: Sequence[Real], name: str) -> str:
    """The area between two lines."""
    return path([*zip(xs, low, strict=True), *zip(reversed(xs), reversed(high), strict=True)], name, closed=True)


def rectangle(x: Real, y: Real, width: Real, height: Real, name: str) -> str:
    return f'<rect class="{name}" x="{x:g}" y="{y:g}" width="{max(width, 0):g}" height="{max(height, 0):g}"/>'


def marker(x: Real, y: Real, name: str, beyond: int = 0) -> str:
    """A dot; a triangle that points up (+1), down (-1), right (2) or left (-2) where the value lies beyond the axis."""
    if not beyond:
        return f'<circle class="{name}" cx="{x:g}" cy="{y:g}" r="4"/>'
    away, aside = {1: ((0, -6), (5, 4)), -1: ((0, 6), (5, -4)), 2: ((6, 0), (-4, 5)), -2: ((-6, 0), (4, 5))}[beyond]
    across = (-aside[0], aside[1]) if abs(beyond) == 1 else (aside[0], -aside[1])
    points = " ".join(f"{x + dx:g},{y + dy:g}" for dx, dy in (away, aside, across))
    return f'<polygon class="{name}" points="{points}"/>'


def shown(value: Real, digits: int = 3) -> str:
    """A number for a reader: few digits, a decimal point, no separators; a dash where there is none."""
    if not math.isfinite(value):
        return "–"
    return f"{value:.{digits}g}" if 1e-4 <= abs(value) < 1e6 or value == 0 else f"{value:.{digits - 1}e}"


def histogram(values: np.ndarray, low: Real, high: Real, bins: int = 24) -> np.ndarray:
    """Counts between two ends; what lies beyond counts at the end."""
    edges = np.linspace(low, high if high > low else low + 1, bins + 1)
    return np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0]
