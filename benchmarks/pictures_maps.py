"""What every method says of the same six images of a study."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from benchmarks.pictures import COLOURS, PREFIX, Picture, new_figure, save
from benchmarks.table_markdown import listed
from benchmarks.table_outcomes import Outcomes, inside, readable
from benchmarks.table_results import Gathered, Runs
from priorlens.datasets import HEALTHY
from priorlens.evaluation import Outcome
from priorlens.images import read_image

QUANTILES = (0.8, 0.6, 0.4, 0.2)
"""Where the first four images stand among all, by how well our best method does on them."""

WORST = 2
"""So many more images, those on which it does worst."""

PAGES = {"ours": "our own and the diffusion peers", "peers": "the peers of anomalib and the simple baselines"}
"""A picture each: one of all methods would be too long to look at."""

CELL = 1.15
"""Inches that an image is wide."""

NAMES = 1.75
"""Inches for the names of the methods."""

HEADS = 0.42
"""Inches for the words above the columns."""

RULE = (
    "*Chosen by rule: with {best}, the best of ours by {figure}, the first four are at the {quantiles} quantiles of "
    "{measure}, the last two are those where it is worst.{without}*"
)


@dataclass(frozen=True)
class Shown:
    """The images of a study's pictures, and the words for how they were chosen."""

    names: tuple[str, ...]
    best: Runs
    figure: str
    measure: str


def map_pictures(gathered: Gathered, study: str, folder: Path) -> list[Picture]:
    """None where the study's images or all maps are gone, or none of ours is done."""
    if study not in gathered.studies:
        return []
    outcomes = Outcomes(gathered.out, gathered.studies[study])
    runs = readable(gathered.runs(study), gathered.out)
    shown = _chosen(outcomes, runs)
    if shown is None:
        return []
    maps = {one.entry.name: _maps(outcomes, one, shown.names) for one in runs}
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
            found.append(Picture(name, alt, _caption(gathered, study, shown, words, blank)))
    return found


def _caption(gathered: Gathered, study: str, shown: Shown, words: str, blank: Sequence[Runs]) -> str:
    without = f" Without a map, or with the same value everywhere: {listed([one.entry.title for one in blank])}."
    rule = RULE.format(
        best=shown.best.entry.title,
        figure=shown.figure,
        quantiles=listed([f"{quantile:g}" for quantile in QUANTILES]),
        measure=shown.measure,
        without=without if blank else "",
    )
    return f"**{gathered.title(study)}, {words}.** {rule}"


def _chosen(outcomes: Outcomes, runs: Sequence[Runs]) -> Shown | None:
    """By our best method's maps where there are masks, else by its scores; None where there is nothing to choose by."""
    for key, figure, measure in (
        ("pixel_ap", "pixel AP", "its pixel AUROC in the body"),
        ("image_auroc", "image AUROC", "its score"),
    ):
        ours = [one for one in runs if one.ours and one.whole and one.value(key) is not None]
        if ours:
            best = max(ours, key=lambda one: one.value(key) or 0.0)
            judged = outcomes.read(best.place(outcomes.out, best.done[0]), maps=True)
            ill = [one for one in judged if one.kind != HEALTHY]
            marks = {one.name: inside(one) if key == "pixel_ap" else one.anomaly for one in ill}
            names = ranked({name: mark for name, mark in marks.items() if not np.isnan(mark)})
            return Shown(names, best, figure, measure) if names else None
    return None


def ranked(marks: Mapping[str, float]) -> tuple[str, ...]:
    """The images at `QUANTILES` of the marks, then the `WORST`; none twice, and fewer where there are not so many."""
    order = sorted(marks, key=lambda name: (marks[name], name))
    worst = order[:WORST][::-1]
    rest = order[WORST:]
    places = [round(quantile * (len(order) - 1)) - WORST for quantile in QUANTILES]
    middle = [rest[min(max(place, 0), len(rest) - 1)] for place in places] if rest else []
    return tuple(dict.fromkeys([*middle, *worst]))


def _maps(outcomes: Outcomes, runs: Runs, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Of the first seed, as far as this method judged them."""
    place = runs.place(outcomes.out, runs.done[0])
    with np.load(place.predictions / "maps.npz", allow_pickle=False) as stored:
        return {name: stored[name] for name in names if name in stored}


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
    values = np.concatenate([found.ravel() for found in maps.values()])
    low, high = np.quantile(values, [0.01, 0.998])
    for panel, truth in zip(panels, truths, strict=True):
        if truth.name in maps:
            panel.imshow(
                maps[truth.name], cmap="inferno", vmin=low, vmax=max(high, low + 1e-9), interpolation="nearest"
            )
            _outline(panel, truth)
        else:
            panel.text(0.5, 0.5, "not judged", ha="center", va="center", fontsize=8, transform=panel.transAxes)


def _outline(panel: Axes, truth: Outcome) -> None:
    if truth.mask is not None and truth.mask.any():
        drawn = panel.contour(truth.mask.astype(float), levels=[0.5], colors="white", linewidths=0.9)
        drawn.set_path_effects([withStroke(linewidth=1.9, foreground="black")])


def _name(panel: Axes, words: str, colour: str, bold: bool) -> None:
    weight = "bold" if bold else "normal"
    text = "\n".join(_lines(words))
    panel.text(
        -0.06,
        0.5,
        text,
        ha="right",
        va="center",
        fontsize=8.5,
        color=colour,
        fontweight=weight,
        transform=panel.transAxes,
    )


def _lines(words: str, width: int = 22) -> Iterator[str]:
    line = ""
    for word in words.split():
        if line and len(line) + len(word) >= width:
            yield line
            line = ""
        line = f"{line} {word}".strip()
    yield line
