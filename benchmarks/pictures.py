"""How the pictures of the page look, and how they are kept small."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from PIL import Image

from benchmarks.method import Family
from priorlens.outputs import atomic_write

PREFIX = "benchmarks_"
"""Of the names of all pictures."""

NAME = 22
"""Characters to a line of a method's name."""

MOST_BYTES = 400_000
DPI = 100

MAP_COLOURS = "inferno"
"""Of maps, by matplotlib's name: bright is abnormal."""

COLOURS: dict[Family, str] = {"ours": "#0072B2", "anomalib": "#D55E00", "diffusion": "#009E73", "simple": "#555555"}
"""Of families: Okabe & Ito 2008, which the colour-blind tell apart; markers do it once more."""

MARKERS: dict[Family, str] = {"ours": "*", "anomalib": "s", "diffusion": "^", "simple": "o"}


@dataclass(frozen=True)
class Picture:
    """A file of the page's folder of images. alt: what it shows, for those who do not see it."""

    name: str
    alt: str
    caption: str

    @property
    def markdown(self) -> str:
        alt = self.alt.replace("[", "(").replace("]", ")")
        return f"![{alt}](images/{self.name})\n\n{self.caption}".rstrip()


def new_figure(width: float, height: float) -> Figure:
    """Of so many inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def in_lines(title: str) -> str:
    """A method's name in lines of at most `NAME` characters, but for longer words."""
    return fill(title, NAME, break_long_words=False, break_on_hyphens=False)


def save(figure: Figure, path: Path) -> None:
    """As PNG below `MOST_BYTES`: with as many colours, and then as many pixels, as fit. Raises OutputError."""
    for dpi in (DPI, 90, 80, 70, 60, 50):
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png", dpi=dpi)
        for image in _in_fewer_colours(Image.open(drawn).convert("RGB")):
            content = io.BytesIO()
            image.save(content, "PNG", optimize=True)
            if content.tell() < MOST_BYTES:
                path.parent.mkdir(parents=True, exist_ok=True)
                with atomic_write(path) as file:
                    file.write(content.getvalue())
                return
    raise ValueError(f"{path.name}: does not get below {MOST_BYTES} bytes")


def _in_fewer_colours(image: Image.Image) -> Iterator[Image.Image]:
    """The picture in its own 256 colours, then in fewer and fewer of what maps are drawn in: fewer colours of its own
    would tint the greys of an image among maps."""
    yield image.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    for shades in (32, 16):
        palette = Image.new("P", (1, 1))
        palette.putpalette(_colours_of_maps(shades).tobytes())
        yield image.quantize(palette=palette, dither=Image.Dither.NONE)


def _colours_of_maps(shades: int) -> np.ndarray:
    """So many greys, twice as many colours of a map, and those of families with two tints each; uint8, a row each."""
    greys = np.linspace(0, 1, shades)[:, None].repeat(3, 1)
    of_maps = colormaps[MAP_COLOURS](np.linspace(0, 1, 2 * shades))[:, :3]
    families = np.array([to_rgb(colour) for colour in COLOURS.values()])
    tints = [1 - (1 - families) * share for share in (1, 2 / 3, 1 / 3)]
    return (255 * np.concatenate([greys, of_maps, *tints])).round().astype(np.uint8)


def remove_others(folder: Path, kept: Iterable[Picture]) -> None:
    """Pictures of an earlier page that this one does not show."""
    names = {one.name for one in kept}
    for path in folder.glob(f"{PREFIX}*.png"):
        if path.name not in names:
            path.unlink()


Box = tuple[float, ...]
"""Left, lower, right and upper end, in pixels."""


@dataclass(frozen=True)
class Label:
    """Words that belong to a point of a panel."""

    x: float
    y: float
    words: str
    colour: str
    bold: bool = False


def name_ends(axes: Axes, labels: Sequence[Label], apart: float, size: float = 8) -> None:
    """Write labels in a column right of a panel, at the heights of their points as far as they are so far apart.

    apart: as a share of the panel's height.
    """
    axes.autoscale_view()
    heights = [axes.transAxes.inverted().transform(axes.transData.transform((one.x, one.y)))[1] for one in labels]
    order = np.argsort(heights)
    for place, index in zip(spread_out([heights[i] for i in order], apart), order, strict=True):
        label = labels[index]
        axes.annotate(
            label.words,
            (label.x, label.y),
            xytext=(1.03, place),
            textcoords="axes fraction",
            va="center",
            fontsize=size,
            color=label.colour,
            arrowprops={
                "arrowstyle": "-",
                "color": "0.6",
                "linestyle": ":",
                "linewidth": 0.7,
                "shrinkA": 1,
                "shrinkB": 3,
                "relpos": (0, 0.5),
            },
            annotation_clip=False,
        )


def spread_out(heights: Sequence[float], apart: float) -> list[float]:
    """Ascending heights, moved up, or down from the top of the panel, until they are so far apart."""
    places: list[float] = []
    for height in heights:
        places.append(max(height, places[-1] + apart) if places else height)
    highest = max(1.0, apart * (len(places) - 1))
    return [min(place, highest - apart * (len(places) - 1 - i)) for i, place in enumerate(places)]


def place_labels(figure: Figure, panels: Sequence[tuple[Axes, Sequence[Label]]], size: float = 7.5) -> None:
    """Write each label as near to its point as it can be without covering another label or any point.

    The figure is laid out once for that, and keeps its layout from then on.
    """
    figure.canvas.draw()
    figure.set_layout_engine("none")
    for axes, labels in panels:
        if labels:
            _place(axes, labels, size)


def _place(axes: Axes, labels: Sequence[Label], size: float) -> None:
    canvas = axes.figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    renderer = canvas.get_renderer()
    points = axes.transData.transform([(one.x, one.y) for one in labels])
    frame = tuple(axes.get_window_extent(renderer).extents)
    taken: list[Box] = [(x - 5, y - 5, x + 5, y + 5) for x, y in points]
    for label, point in zip(labels, points, strict=True):
        text = axes.annotate(
            label.words,
            (label.x, label.y),
            xytext=(0, 0),
            textcoords="offset pixels",
            fontsize=size,
            color=label.colour,
            fontweight="bold" if label.bold else "normal",
            arrowprops={
                "arrowstyle": "-",
                "color": "0.6",
                "linewidth": 0.5,
                "shrinkA": 0,
                "shrinkB": 2,
                "relpos": (0, 0.5),
            },
            annotation_clip=False,
        )
        width, height = text.get_window_extent(renderer).width, size * DPI / 72 * 1.25
        taken.append(_settle(text, point, (width, height), frame, taken))


def _settle(
    text: Annotation,
    point: np.ndarray,
    size: tuple[float, float],
    frame: Box,
    taken: Sequence[Box],
) -> Box:
    """Move a label to the nearest place where it covers nothing; returns its box in pixels."""
    width, height = size
    best, least = None, np.inf
    for distance in (7, 14, 22, 32, 44, 58, 75, 95, 120, 150):
        for angle in np.deg2rad(np.arange(0, 360, 20)):
            x = point[0] + distance * np.cos(angle) + (0 if np.cos(angle) > -0.1 else -width)
            y = point[1] + distance * np.sin(angle) - height / 2
            box = (x, y, x + width, y + height)
            outside = max(frame[0] - box[0], frame[1] - box[1], box[2] - frame[2], box[3] - frame[3], 0)
            covered = sum(_overlap(box, other) for other in taken)
            penalty = covered * 10 + outside * 50 + distance
            if penalty < least:
                best, least = box, penalty
        if least < 200:
            break
    assert best is not None
    text.xyann = (best[0] - point[0], best[1] - point[1] + height * 0.2)
    return best


def _overlap(a: Box, b: Box) -> float:
    """Area that two boxes share."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
