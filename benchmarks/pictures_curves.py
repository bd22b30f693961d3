"""The losses of everything that was trained: whether training had come to its end is there to be seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from scipy.ndimage import median_filter

from benchmarks.pictures import PREFIX, Picture, in_lines, new_figure, save
from benchmarks.table_markdown import listed
from benchmarks.table_results import Gathered, Runs

STAGES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
"""Colours of the stages of a training, in their order."""

DECADES = 1.0
"""A loss that falls over more powers of ten than this is drawn on a logarithmic axis."""

SMOOTH = 0.04
"""Of the points, over which the line in front takes the median."""


def curves_picture(gathered: Gathered, folder: Path) -> Picture | None:
    """A row a study, a column a method; None where nothing was trained."""
    curves = {name: found for name in gathered.names if (found := _trained(gathered.runs(name)))}
    if not curves:
        return None
    titles = {one.entry.name: one.entry.title for found in curves.values() for one, _ in found}
    methods = [name for name in gathered.methods if name in titles]
    figure = new_figure(max(2.1 * len(methods), 5), 1.75 * len(curves) + 0.3)
    panels = figure.subplots(len(curves), len(methods), squeeze=False)
    for row, (name, found) in zip(panels, curves.items(), strict=True):
        fits = {one.entry.name: fit for one, fit in found}
        for panel, method in zip(row, methods, strict=True):
            _draw(panel, fits.get(method))
        row[0].set_ylabel(name, fontsize=10, fontweight="bold")
    for panel, method in zip(panels[0], methods, strict=True):
        words = panel.get_title()
        panel.set_title(f"{in_lines(titles[method])}\n{words}", fontsize=9)
    picture = Picture(PREFIX + "curves.png", _alt(curves), "")
    save(figure, folder / picture.name)
    return picture


def _trained(runs: Sequence[Runs]) -> list[tuple[Runs, Mapping[str, Any]]]:
    """Methods that were trained themselves, with how; those that read another's model show nothing of their own."""
    found = []
    for one in runs:
        fit = one.done[0]["fit"] if one.done else None
        if fit and fit["curve"] and not fit.get("shared_with"):
            found.append((one, fit))
    return found


def _draw(panel: Axes, fit: Mapping[str, Any] | None) -> None:
    if fit is None:
        panel.axis("off")
        return
    start, drawn = 0.0, []
    for index, stage in enumerate(dict.fromkeys(point[0] for point in fit["curve"])):
        points = [(step, loss) for name, step, loss in fit["curve"] if name == stage and loss is not None]
        if points:
            steps, losses = (np.array(one, float) for one in zip(*points, strict=True))
            colour = STAGES[index % len(STAGES)]
            panel.plot(start + steps, losses, color=colour, alpha=0.35, linewidth=0.7)
            panel.plot(start + steps, _smoothed(losses), color=colour, linewidth=1.6)
            start += float(steps.max())
            drawn.append(losses)
    values = np.concatenate(drawn) if drawn else np.ones(1)
    if values.min() > 0 and np.log10(values.max() / values.min()) > DECADES:
        panel.set_yscale("log")
    panel.set_title(_settled(fit), fontsize=9)
    panel.tick_params(which="both", labelsize=7)
    panel.grid(alpha=0.2)


def _settled(fit: Mapping[str, Any]) -> str:
    return {True: "settled", False: "NOT SETTLED", None: "no verdict"}[fit["converged"]]


def _smoothed(losses: np.ndarray) -> np.ndarray:
    window = max(1, 2 * round(SMOOTH * losses.size / 2) + 1)
    smoothed: np.ndarray = median_filter(losses, window, mode="nearest")
    return smoothed


def _alt(curves: Mapping[str, Sequence[tuple[Runs, Mapping[str, Any]]]]) -> str:
    open_ = [
        f"{one.entry.title} on {name}"
        for name, found in curves.items()
        for one, fit in found
        if fit["converged"] is False
    ]
    count = sum(len(found) for found in curves.values())
    return f"Loss curves of {count} trainings. Not settled: {listed(open_) if open_ else 'none'}."
