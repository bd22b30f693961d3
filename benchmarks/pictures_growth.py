"""Time and memory over the side of images, and over their number; both axes logarithmic."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from benchmarks.pictures import PREFIX, Label, Picture, name_ends, new_figure, save
from benchmarks.table_growth import TIMES, Growth
from benchmarks.table_results import FAMILIES

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#B8860B", "#56B4E9", "#8B0000", "#666666")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
LINES = ("-", "--", "-.", ":")

WORDS = {"size": ("side in pixels", "ms an image"), "images": ("images", "seconds in all")}


def growth_pictures(growths: Sequence[Growth], folder: Path) -> list[Picture]:
    """One over the side, one over the number of images, as far as anything was measured."""
    found = []
    for what, (horizontal, time) in WORDS.items():
        measured = [one for one in growths if len(one.series(what, "peak_mb")) > 1]
        if measured:
            picture = Picture(f"{PREFIX}growth_{what}.png", _alt(measured, what), _caption(what))
            _draw(measured, what, horizontal, time, folder / picture.name)
            found.append(picture)
    return found


def _caption(what: str) -> str:
    over = "the side of square images" if what == "size" else "the number of images of one size"
    return f"*Time, left, and peak memory of the process that scores, right, over {over}; a row a family of methods.*"


def _draw(growths: Sequence[Growth], what: str, horizontal: str, time: str, path: Path) -> None:
    families = [family for family in FAMILIES if any(one.entry.family == family for one in growths)]
    figure = new_figure(12.5, 3.7 * len(families))
    panels = figure.subplots(len(families), 2, squeeze=False)
    grouped = [[one for one in growths if one.entry.family == family] for family in families]
    for row, family, members in zip(panels, families, grouped, strict=True):
        row[0].set_title(FAMILIES[family], loc="left", fontweight="bold", fontsize=11)
        for panel, key, words in zip(row, (TIMES[what], "peak_mb"), (time, "peak MB"), strict=True):
            _lines(panel, members, what, key)
            panel.set_xlabel(horizontal)
            panel.set_ylabel(words)
            name_ends(panel, _ends(members, what, key), apart=0.055)
    save(figure, path)


def _lines(panel: Axes, members: Sequence[Growth], what: str, key: str) -> None:
    values = sorted({value for one in members for value, _ in one.series(what, key)})
    for index, one in enumerate(members):
        series = one.series(what, key)
        if series:
            drawn = panel.plot(*zip(*series, strict=True), color=COLOURS[index % len(COLOURS)], markersize=5)[0]
            drawn.set(marker=MARKERS[index % len(MARKERS)], linestyle=LINES[index % len(LINES)])
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.xaxis.set_major_locator(FixedLocator(values))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.yaxis.set_minor_formatter(NullFormatter())
    panel.grid(alpha=0.25)
    panel.margins(x=0.04, y=0.1)


def _ends(members: Sequence[Growth], what: str, key: str) -> list[Label]:
    """Each name at the end of its line."""
    found = []
    for index, one in enumerate(members):
        series = one.series(what, key)
        if series:
            found.append(Label(*series[-1], one.entry.title, COLOURS[index % len(COLOURS)]))
    return found


def _alt(growths: Sequence[Growth], what: str) -> str:
    told = [(one.entry.title, one.exponent(what, TIMES[what])) for one in growths]
    words = [f"{title} {fitted:.2f}" for title, fitted in told if fitted is not None]
    over = "side" if what == "size" else "number of images"
    return f"Time and peak memory over the {over}, log-log. Exponents of time: {', '.join(words) or 'too few points'}."
