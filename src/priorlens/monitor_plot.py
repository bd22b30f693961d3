"""How each stream fared: its capital against the alarm, and the ranks of its scans below."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from priorlens.drift import Watched
from priorlens.outputs import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_STREAMS = 20
"""Of more, those with the largest capital are drawn."""

_CAPITAL, _ALARM, _CHANGE, _SCANS = "#0072B2", "#D55E00", "#000000", "0.35"  # Okabe & Ito 2008
_MARGIN, _HIGHEST = 0.3, 4
"""How far the axis of the capital goes: beyond what it shows, in powers of ten, and at most, in powers of 1 / alpha:
what is of interest is where the alarm is crossed, not how far the capital grows after it."""


def monitor_plot(watched: Mapping[str, Watched], alpha: float, path: Path) -> None:
    """Write a PNG with two panels a stream: the capital (log10), the alarm it is held against, and the change; below,
    the p-value of each scan's anomaly: they lie evenly as long as nothing changes. Raises OutputError."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    largest = sorted(watched, key=lambda name: watched[name].capital.max(), reverse=True)[:MOST_STREAMS]
    shown = [name for name in watched if name in largest]
    figure = Figure(figsize=(11, 4.8 * len(shown)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2 * len(shown), 1, squeeze=False, height_ratios=[2, 1] * len(shown))[:, 0]
    for name, capital, ranks in zip(shown, panels[::2], panels[1::2], strict=True):
        _draw_capital(capital, name, watched[name], alpha)
        _draw_p_values(ranks, watched[name])
        ranks.sharex(capital)
    if len(shown) < len(watched):
        figure.suptitle(f"{len(shown)} of {len(watched)} streams, those with the largest capital")
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=110)


def _draw_capital(axes: Axes, name: str, watched: Watched, alpha: float) -> None:
    heights, level = np.log10(watched.capital), float(-np.log10(alpha))
    axes.plot(_scans(watched), heights, color=_CAPITAL, linewidth=1.6, label="capital")
    axes.axhline(level, color=_ALARM, linewidth=1.2, linestyle="--", label=f"alarm at {1 / alpha:g}")
    if watched.alarm is not None and watched.change is not None:
        axes.axvline(watched.change + 1, color=_CHANGE, linestyle=":", label=f"changed from scan {watched.change + 1}")
        label = f"alarm at scan {watched.alarm + 1}"
        axes.plot(watched.alarm + 1, heights[watched.alarm], "v", color=_ALARM, markersize=9, label=label)
    axes.set_title(name, loc="left", parse_math=False)
    axes.set_ylabel("log10 of the capital")
    axes.set_ylim(min(heights.min(), 0) - _MARGIN, min(max(heights.max(), level), _HIGHEST * level) + _MARGIN)
    axes.tick_params(labelbottom=False)
    axes.grid(alpha=0.25)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=4, frameon=False)


def _draw_p_values(axes: Axes, watched: Watched) -> None:
    axes.plot(_scans(watched), watched.p_values, ".", color=_SCANS, markersize=3)
    if watched.change is not None:
        axes.axvline(watched.change + 1, color=_CHANGE, linestyle=":")
    axes.set_ylim(-0.05, 1.05)
    axes.set_ylabel("p of anomaly")
    axes.set_xlabel("scan")
    axes.grid(alpha=0.25)


def _scans(watched: Watched) -> np.ndarray:
    return np.arange(1, watched.capital.size + 1)
