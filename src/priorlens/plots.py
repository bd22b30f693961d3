"""ROC and precision-recall plots of an evaluation, kinds told apart by line style and marker as well as by colour."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from priorlens.curves import GRID, Curve
from priorlens.outputs import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")  # Okabe & Ito 2008
_STYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def roc_pr_plot(curves: Sequence[Curve], path: Path) -> None:
    """Write a PNG with a row per level (image, pixel): ROC left, precision against recall right; shaded, the 95 %
    interval at each point. Raises OutputError."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    levels = [level for level in ("image", "pixel") if any(curve.level == level for curve in curves)]
    kinds = sorted({curve.kind for curve in curves})
    figure = Figure(figsize=(11, 5 * max(len(levels), 1)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(max(len(levels), 1), 2, squeeze=False)
    for row, level in enumerate(levels):
        _frame(panels[row, 0], f"{level} level: ROC", "false-positive rate", "true-positive rate")
        _frame(panels[row, 1], f"{level} level: precision and recall", "recall", "precision")
        panels[row, 0].plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle=":", label="chance")
        for curve in curves:
            if curve.level == level:
                _draw(panels[row, 0], panels[row, 1], curve, kinds.index(curve.kind))
        panels[row, 0].legend(loc="lower right", handlelength=3.5)
        panels[row, 1].legend(loc="upper right", handlelength=3.5)
    if not levels:
        figure.text(0.5, 0.5, "no curve is defined for these data", ha="center", va="center")
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=110)


def _draw(roc_axes: Axes, pr_axes: Axes, curve: Curve, index: int) -> None:
    colour = _COLOURS[index % len(_COLOURS)]
    style: dict[str, Any] = {
        "color": colour,
        "linestyle": _STYLES[index % len(_STYLES)],
        "marker": _MARKERS[index % len(_MARKERS)],
        "markevery": (20 + 15 * index, 100),
        "markersize": 6,
        "linewidth": 1.8,
    }
    roc_axes.plot(GRID, curve.tpr, label=f"{curve.kind}: AUROC {curve.auroc:.3f}", **style)
    label = f"{curve.kind}: AP {curve.average_precision:.3f} (guess {curve.prevalence:.3f})"
    pr_axes.plot(GRID, curve.precision, label=label, **style)
    pr_axes.axhline(curve.prevalence, color=colour, linewidth=0.8, linestyle=":")
    for axes, low, high in (
        (roc_axes, curve.tpr_low, curve.tpr_high),
        (pr_axes, curve.precision_low, curve.precision_high),
    ):
        if not np.isnan(low).any():
            axes.fill_between(GRID, low, high, color=colour, alpha=0.18, linewidth=0)


def _frame(axes: Axes, title: str, horizontal: str, vertical: str) -> None:
    axes.set_title(title, loc="left")
    axes.set_xlabel(horizontal)
    axes.set_ylabel(vertical)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.01)
    axes.set_aspect("equal")
    axes.grid(alpha=0.25)
