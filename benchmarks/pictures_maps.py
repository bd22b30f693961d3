"""What every method says of the same six images of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from benchmarks.pictures import COLOURS, MAP_COLOURS, PREFIX, Picture, in_lines, new_figure, save
from benchmarks.shown import QUANTILES, WORST, Shown, best_of_ours, limits, read_maps, shown_images
from benchmarks.table_contests import WORDS
from benchmarks.table_markdown import listed
from benchmarks.table_outcomes import Outcomes, readable
from benchmarks.table_results import Gathered, Runs
from priorlens.evaluation import Outcome
from priorlens.images import read_image

PAGES = {"ours": "our own and the diffusion peers", "peers": "the peers of anomalib and the simple baselines"}
"""A picture each: one of all methods would be too long to look at."""

CELL = 1.15
"""Inches that an image is wide."""

NAMES = 1.75
"""Inches for the names of the methods."""

HEADS = 0.42
"""Inches for the words above the columns."""

RULE = (
    "*Chosen by rule: with {best}, {the_best} of ours by {figure}, the first four are at the {quantiles} quantiles of "
    "{measure}, the last two are those where it is worst.{without}*"
)


def map_pictures(gathered: Gathered, study: str, folder: Path) -> list[Picture]:
    """None where the study's images or all maps are gone, or none of ours is done."""
    if study not in gathered.studies:
        return []
    outcomes = Outcomes(gathered.out, gathered.studies[study])
    runs = readable(gathered.runs(study), gathered.out)
    shown = shown_images(outcomes, runs)
    if shown is None:
        return []
    of_first_seed = ((one.entry.name, one.place(gathered.out, one.done[0])) for one in runs)
    maps = {name: read_maps(place, shown.names) for name, place in of_first_seed}
    drawn = [one for one in runs if _tells(maps[one.entry.name])]
    found = []
    for page, words in PAGES.items():
        rows = [one for one in drawn if (one.entry.family in ("ours", "diffusion")) == (page == "ours")]
        blank = [
            one for one in runs if one not in drawn and (one.entry.family in ("ours", "diffusion")) == (page == "ours")
        ]
        if rows:
            name = f"{PREFIX}maps_{study}_{page}.png"
            _draw(outcomes, rows, maps, shown, folder / name)
            titles = listed([one.entry.title for one in rows])
            alt = f"Maps of six images of {gathered.title(study)} by {words}: {titles}."
            found.append(Picture(name, alt, _caption(gathered, study, shown, words, blank, runs)))
    return found


def _caption(
    gathered: Gathered, study: str, shown: Shown, words: str, blank: Sequence[Runs], runs: Sequence[Runs]
) -> str:
    best = best_of_ours(runs, shown.figure)
    still = best is not None and best.entry.name == shown.best
    without = f" Without a map, or with the same value everywhere: {listed([one.entry.title for one in blank])}."
    rule = RULE.format(
        best=gathered.methods[shown.best].title if shown.best in gathered.methods else shown.best,
        the_best="the best" if still else "when these were chosen the best",
        figure=WORDS[shown.figure],
        quantiles=listed([f"{quantile:g}" for quantile in QUANTILES]),
        measure=shown.measure,
        without=without if blank else "",
    )
    return f"**{gathered.title(study)}, {words}.** {rule}"


def _tells(maps: Mapping[str, np.ndarray]) -> bool:
    """Whether any two pixels of these maps differ."""
    return any(float(np.ptp(one)) > 0 for one in maps.values())


def _draw(
    outcomes: Outcomes, runs: Sequence[Runs], maps: Mapping[str, Mapping[str, np.ndarray]], shown: Shown, path: Path
) -> None:
    columns, rows = len(shown.names), len(runs) + 1
    figure = new_figure(NAMES + columns * CELL, rows * CELL + HEADS)
    figure.set_layout_engine("none")
    left, top = NAMES / figure.get_figwidth(), 1 - HEADS / figure.get_figheight()
    panels = figure.subplots(
        rows,
        columns,
        squeeze=False,
        gridspec_kw={"left": left, "right": 0.998, "top": top, "bottom": 0.003, "wspace": 0.03, "hspace": 0.03},
    )
    for panel in panels.ravel():
        panel.set_xticks([])
        panel.set_yticks([])
    truths = [outcomes.truths[name] for name in shown.names]
    for column, (panel, truth) in enumerate(zip(panels[0], truths, strict=True)):
        pixels = read_image(outcomes.cases[truth.name].path).pixels.mean(axis=0)
        low, high = np.quantile(pixels, [0.005, 0.998])
        panel.imshow(pixels, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), interpolation="nearest")
        _outline(panel, truth)
        kind = truth.kind if len({one.kind for one in truths}) > 1 else ""
        panel.set_title("\n".join(filter(None, (_heading(column, columns), kind))), fontsize=9, pad=3)
    _name(panels[0, 0], "image", "#000000", bold=False)
    for one, own in zip(runs, panels[1:], strict=True):
        _name(own[0], one.entry.title, COLOURS[one.entry.family], bold=one.ours)
        _row(own, one, maps[one.entry.name], truths)
    save(figure, path)


def _heading(column: int, columns: int) -> str:
    if column >= columns - WORST:
        return "worst" if column == columns - 1 else "2nd worst"
    return f"quantile {QUANTILES[column]:g}" if columns == len(QUANTILES) + WORST else ""


def _row(panels: Sequence[Axes], one: Runs, maps: Mapping[str, np.ndarray], truths: Sequence[Outcome]) -> None:
    low, high = limits(maps)
    for panel, truth in zip(panels, truths, strict=True):
        if truth.name in maps:
            height, width = (maps[truth.name] if truth.mask is None else truth.mask).shape
            whole = (-0.5, width - 0.5, height - 0.5, -0.5)  # of a map that was kept small too
            panel.imshow(maps[truth.name], cmap=MAP_COLOURS, vmin=low, vmax=high, interpolation="nearest", extent=whole)
            _outline(panel, truth)
        else:
            panel.text(0.5, 0.5, "not judged", ha="center", va="center", fontsize=8, transform=panel.transAxes)


def _outline(panel: Axes, truth: Outcome) -> None:
    if truth.mask is not None and truth.mask.any():
        drawn = panel.contour(truth.mask.astype(float), levels=[0.5], colors="white", linewidths=0.9)
        drawn.set_path_effects([withStroke(linewidth=1.9, foreground="black")])


def _name(panel: Axes, words: str, colour: str, bold: bool) -> None:
    weight = "bold" if bold else "normal"
    panel.text(
        -0.06,
        0.5,
        in_lines(words),
        ha="right",
        va="center",
        fontsize=8.5,
        color=colour,
        fontweight=weight,
        transform=panel.transAxes,
    )
