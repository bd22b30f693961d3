"""A picture for a paper: cases in rows, each as image, map, and image with what stands out; PDF, SVG or PNG."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import matplotlib.style
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from PIL import Image
from skimage.measure import find_contours

from priorlens.pictures import CALLED, TRUTH
from priorlens.report.figure_layout import FONT, SMALL, Layout, laid_out, length, wrapped
from priorlens.report.figure_words import Words
from priorlens.report.map_scale import MapScale
from priorlens.report.rows import Row

FORMATS = (".pdf", ".svg", ".png")
"""Of the picture, by its suffix."""

_STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # which comes with matplotlib: the same letters on every machine
    "font.size": FONT,
    "text.parse_math": False,  # a name with $ in it is a name
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "priorlens",
    "axes.linewidth": 0.6,
    "path.simplify": False,
}
_METADATA: dict[str, dict[str, Any]] = {
    ".pdf": {"Creator": "priorlens", "CreationDate": None},
    ".svg": {"Creator": "priorlens", "Date": None},
    ".png": {"Software": None},
}
_DARK, _GREY = "#141414", "#444444"
_CALLED, _TRUTH = ("#{:02x}{:02x}{:02x}".format(*colour) for colour in (CALLED, TRUTH))
_LINE, _RIM, _THINNEST, _FULL = 1.1, 2.0, 0.6, 1.6
"""Of outlines: widths in points, and the share of them in small panels; in those of so many inches they are as wide."""

_DASHES = (0, (3.0, 2.2))
_SCALE_BAR = 0.3
"""Largest share of a panel's width that it takes."""

_TICK_SPACE = 0.42
"""Inches that a number below the colour bar takes."""

_COARSEST = 150
"""Pixels an inch; below it they are repeated, lest a viewer smooths them."""


@dataclass(frozen=True)
class Drawn:
    """A figure as a file's content, and how large it is, in inches."""

    content: bytes
    width: float
    height: float


def draw_figure(
    rows: Sequence[Row], scale: MapScale, words: Words, *, width: float, suffix: str = ".pdf", dpi: int = 300
) -> Drawn:
    """A row each; equal rows, equal bytes.

    width: in inches; the figure is narrower where its rows would not fit on a page. suffix: one of `FORMATS`. dpi: of
    PNG; in the others images that are finer become so coarse.

    Raises InputError: so many rows or columns do not fit.
    """
    layout = laid_out(rows, width, words, scale.words)
    with matplotlib.style.context(["default", _STYLE]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # that the font lacks: shown as a box
        figure = Figure(figsize=(layout.width, layout.height), dpi=dpi)
        FigureCanvasAgg(figure)
        for column, name in enumerate(words.columns):
            for number, line in enumerate(reversed(wrapped(name, layout.panel))):
                figure.text(*layout.at(*layout.title(column, number)), line, va="top")
        for index, row in enumerate(rows):
            _write_label(figure, row, layout, index)
            _draw_row(figure, row, scale, layout, index, len(words.columns), dpi)
        _colour_bar(figure, rows, scale, layout, len(words.columns) - 2)
        _key(figure, words, layout, len(words.columns) - 1)
        content = io.BytesIO()
        figure.savefig(content, format=suffix[1:], dpi=dpi, metadata=_METADATA[suffix])
    return Drawn(content.getvalue(), layout.width, layout.height)


def _draw_row(figure: Figure, row: Row, scale: MapScale, layout: Layout, index: int, columns: int, dpi: int) -> None:
    panels = [_panel(figure, layout, index, column, row) for column in range(columns)]
    image, surprise, where = panels[0], panels[-2], panels[-1]
    _show(image, row.image, row, dpi)
    _mark(image, row)
    if columns > 3 and row.reconstruction is not None:
        _show(panels[1], row.reconstruction, row, dpi)
    _show(surprise, _coloured(_shrunk(row.anomaly_map, surprise, dpi), scale), row, dpi)
    _show(where, row.image, row, dpi)
    _outline(where, row, scale, dpi)


def _write_label(figure: Figure, row: Row, layout: Layout, index: int) -> None:
    """The case's name, and below it in small letters what is said of it."""
    left, top = layout.label(index)
    notes = [line for note in row.notes for line in wrapped(note, layout.label_width, size=SMALL)]
    for line in wrapped(row.label, layout.label_width, most=layout.label_lines(index, len(notes))):
        figure.text(*layout.at(left, top), line, va="top")
        top += layout.line
    for line in notes:
        figure.text(*layout.at(left, top), line, va="top", fontsize=SMALL, color=_GREY)
        top += layout.line


def _panel(figure: Figure, layout: Layout, index: int, column: int, row: Row) -> Axes:
    """Empty axes in which a length along either side is one in mm, or in pixels."""
    axes = figure.add_axes(layout.panel_at(index, column))
    height, width = row.size
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.set_axis_off()
    return axes


def _show(axes: Axes, picture: UInt8[np.ndarray, "height width 3"], row: Row, dpi: int) -> None:
    height, width = row.size
    target = _pixels(axes, dpi)
    if picture.shape[1] > target:
        size = target, max(1, round(target * height / width))
        picture = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))
    repeat = -(-_COARSEST * target // (dpi * picture.shape[1]))
    picture = picture.repeat(repeat, axis=0).repeat(repeat, axis=1)
    axes.imshow(picture, extent=(0, width, height, 0), interpolation="none", aspect="auto")


def _pixels(axes: Axes, dpi: int) -> int:
    """How many the panel is wide."""
    return max(1, round(_inches(axes) * dpi))


def _inches(axes: Axes) -> float:
    """How wide the panel is."""
    return axes.get_position().width * axes.figure.get_figwidth()  # type: ignore[union-attr]


def _shrunk(values: Float[np.ndarray, "height width"], axes: Axes, dpi: int) -> Float[np.ndarray, "row column"]:
    """Averaged down to what is printed, where that is coarser."""
    target = _pixels(axes, dpi)
    if values.shape[1] <= target:
        return values
    size = target, max(1, round(target * values.shape[0] / values.shape[1]))
    return np.asarray(Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BOX))


def _coloured(values: Float[np.ndarray, "height width"], scale: MapScale) -> UInt8[np.ndarray, "height width 3"]:
    """Inferno between the ends of the scale, saturated beyond them."""
    shares = np.clip((values - scale.low) / (scale.high - scale.low), 0, 1)
    return (matplotlib.colormaps["inferno"](shares)[..., :3] * 255).round().astype(np.uint8)


def _outline(axes: Axes, row: Row, scale: MapScale, dpi: int) -> None:
    """What stands out, and over it the truth: where the two coincide, the other shows between the dashes."""
    if row.regions is not None:
        _contour(axes, _shrunk(row.regions.astype(np.float32), axes, dpi), 0.5, row)
    else:
        _contour(axes, _shrunk(row.anomaly_map, axes, dpi), scale.level(row.anomaly_map), row)
    if row.truth is not None:
        _contour(axes, _shrunk(row.truth.astype(np.float32), axes, dpi), 0.5, row, dashed=True)


def _contour(
    axes: Axes, values: Float[np.ndarray, "height width"], level: float, row: Row, *, dashed: bool = False
) -> None:
    """Each closed contour of `values` at `level`."""
    framed = np.pad(values.astype(np.float64), 1, mode="edge")
    inside = np.pad(np.ones(values.shape, bool), 1)
    framed = np.where(inside, framed, np.minimum(framed, 2 * level - framed))  # so that lines close along the edges
    step = np.array(row.size) / values.shape
    thin = min(max(_inches(axes) / _FULL, _THINNEST), 1.0)
    for contour in find_contours(framed, level):
        points = np.clip((contour - 0.5) * step, 0, row.size)  # back from the frame; from centres of pixels to corners
        axes.plot(points[:, 1], points[:, 0], **_pen(dashed, thin))


def _pen(dashed: bool = False, share: float = 1.0) -> dict[str, Any]:
    """Orange and solid, or blue and dashed; on a dark rim that shows on bright tissue. share: of the usual width."""
    look = {"color": _TRUTH, "linestyle": _DASHES} if dashed else {"color": _CALLED}
    shape = {"linewidth": share * _LINE, "dash_capstyle": "butt", "solid_joinstyle": "round"}
    return {**look, **shape, "path_effects": [withStroke(linewidth=share * _RIM, foreground=_DARK)]}


def _mark(axes: Axes, row: Row) -> None:
    """A scale bar, and what lies left and right, where these are known; white on black."""
    height, width = row.size
    box = {"boxstyle": "square,pad=0.15", "facecolor": "black", "edgecolor": "none"}
    said: dict[str, Any] = {"color": "white", "fontsize": SMALL, "bbox": box}
    millimetre = width / (25.4 * _inches(axes))  # of paper, in the panel's own lengths
    if row.in_mm:
        bar = scale_bar(width)
        right, low = width - 1.2 * millimetre, height - 1.2 * millimetre
        rim = withStroke(linewidth=2.6, foreground="black")
        ends = [right - bar, right]
        axes.plot(ends, [low, low], color="white", linewidth=1.6, solid_capstyle="butt", path_effects=[rim])
        name = f"{bar:g} mm"
        middle = right - max(bar, length(name, SMALL) * 25.4 * millimetre) / 2
        axes.text(middle, low - 0.9 * millimetre, name, ha="center", va="bottom", **said)
    for x, align, side in zip(
        (0.7 * millimetre, width - 0.7 * millimetre), ("left", "right"), row.sides or (), strict=False
    ):
        axes.text(x, height / 2, side, ha=align, va="center", **said)


def scale_bar(width: float) -> float:
    """The largest length of 1, 2 or 5 times a power of ten that is at most 0.3 of `width`."""
    power = 10.0 ** np.floor(np.log10(width * _SCALE_BAR))
    return float(max(power * digit for digit in (1, 2, 5) if power * digit <= width * _SCALE_BAR * (1 + 1e-9)))


def _colour_bar(figure: Figure, rows: Sequence[Row], scale: MapScale, layout: Layout, column: int) -> None:
    """Below the maps, with a triangle at an end that some map goes beyond, and a marker at a level that is outlined."""
    axes = figure.add_axes(layout.colour_bar_at(column))
    ramp = _coloured(np.linspace(scale.low, scale.high, 256)[None], scale)
    axes.imshow(ramp, extent=(scale.low, scale.high, 0, 1), aspect="auto", interpolation="none")
    axes.set_xlim(scale.low, scale.high)
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    axes.tick_params(labelsize=SMALL, length=2.5, width=0.6, pad=1.5)
    axes.locator_params(axis="x", nbins=max(1, int(layout.panel / _TICK_SPACE)))
    reach = 0.05 * (scale.high - scale.low)
    for end, away, values in (
        (scale.low, -reach, [row.anomaly_map.min() < scale.low for row in rows]),
        (scale.high, reach, [row.anomaly_map.max() > scale.high for row in rows]),
    ):
        if any(values):
            colour = _coloured(np.array([[end]]), scale)[0, 0] / 255
            corners = [end, end + away, end], [0, 0.5, 1]
            axes.fill(*corners, facecolor=colour, edgecolor="black", linewidth=0.6, clip_on=False, zorder=0)
    if scale.low < scale.threshold < scale.high and any(row.regions is None for row in rows):
        axes.plot([scale.threshold] * 2, [0, 1], **_pen())
    for number, line in enumerate(wrapped(scale.words, layout.panel)):
        figure.text(*layout.at(*layout.below_colour_bar(column, number)), line, ha="center", va="top")


def _key(figure: Figure, words: Words, layout: Layout, column: int) -> None:
    """Below the outlines: what each line is."""
    number = 0
    for name, dashed in ((words.solid, False), (words.dashed, True)):
        for first, line in enumerate(wrapped(name, layout.panel - layout.key) if name else []):
            left, top = layout.key_at(column, number)
            figure.text(*layout.at(left + layout.key, top), line, va="center_baseline")
            if not first:
                across, up = zip(layout.at(left, top), layout.at(left + layout.key * 0.8, top), strict=True)
                figure.add_artist(Line2D(across, up, **_pen(dashed)))
            number += 1
