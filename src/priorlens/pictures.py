"""Pictures a person can read: an image beside its map and its contours, and the curves of an evaluation.

What is called abnormal is drawn as a solid orange line, the truth as a dashed sky-blue one: two colours that every
common form of colour blindness tells apart (Okabe & Ito 2008), and never colour alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from skimage.measure import find_contours

from priorlens.outputs import atomic_write

CALLED = (230, 159, 0)
TRUTH = (86, 180, 233)
TOP_SHARE = 0.02
"""Share of an image's pixels that is outlined where no threshold is given."""

_SMALLEST_PANEL, _LARGEST_PANEL = 256, 512
_GAP, _LINE, _FONT_SIZE = 12, 20, 14
_BAR_WIDTH, _BAR_SPACE, _KEY_LINE = 14, 64, 28
_TEXT, _PAPER = (20, 20, 20), (255, 255, 255)
_SUPERSAMPLING = 2
_DASH = 7.0


@dataclass(frozen=True)
class Called:
    """How a calibrated model judges an image: its p-value, and the regions flagged at false-discovery rate `alpha`."""

    p_value: float
    regions: Bool[np.ndarray, "height width"] | None = None
    alpha: float | None = None


def overlay(
    pixels: Float[np.ndarray, "channel height width"],
    anomaly_map: Float[np.ndarray, "height width"],
    path: Path,
    *,
    name: str = "",
    anomaly: float | None = None,
    low: float | None = None,
    high: float | None = None,
    threshold: float | None = None,
    truth: Bool[np.ndarray, "height width"] | None = None,
    called: Called | None = None,
) -> None:
    """Write `draw_overlay` of the same arguments as a PNG. Raises OutputError."""
    picture = draw_overlay(
        pixels,
        anomaly_map,
        name=name,
        anomaly=anomaly,
        low=low,
        high=high,
        threshold=threshold,
        truth=truth,
        called=called,
    )
    with atomic_write(path) as file:
        picture.save(file, format="PNG", compress_level=1)


def draw_overlay(
    pixels: Float[np.ndarray, "channel height width"],
    anomaly_map: Float[np.ndarray, "height width"],
    *,
    name: str = "",
    anomaly: float | None = None,
    low: float | None = None,
    high: float | None = None,
    threshold: float | None = None,
    truth: Bool[np.ndarray, "height width"] | None = None,
    called: Called | None = None,
) -> Image.Image:
    """Three panels: the image; its surprise; the image with what lies at or above `threshold` outlined, and the truth.

    `called`, of a calibrated model, says how the image is judged; its regions are outlined in place of a threshold.

    `low` and `high` are the ends of the colour scale: give the same to all images (from healthy statistics), so that
    two pictures can be compared; without them the map's own ends are taken. Without a threshold the outline holds the
    top 2 % of this image's pixels, and says so. `anomaly` and `name` stand in the caption. The image is shown between
    its own 0.5 and 99.5 percentile.
    """
    low = float(anomaly_map.min()) if low is None else low
    high = float(anomaly_map.max()) if high is None else high
    level = float(np.quantile(anomaly_map, 1 - TOP_SHARE)) if threshold is None else threshold
    words = f"surprise ≥ {_number(level)}" if threshold is not None else f"top {TOP_SHARE:.0%} of surprise"
    scores = [] if anomaly is None else [f"anomaly score {_number(anomaly)}"]
    scores += [f"p = {_number(called.p_value)}"] if called else []
    scores.append(f"largest surprise {_number(float(anomaly_map.max()))}")

    size = _panel_size(*anomaly_map.shape)
    pixels = np.stack([_shrunk(channel, size) for channel in pixels])
    shown = _shrunk(anomaly_map, size)
    image = Image.fromarray(displayable(pixels)).resize(size, Image.Resampling.NEAREST)
    coloured = Image.fromarray(_colours(shown, low, high)).resize(size, Image.Resampling.NEAREST)
    regions = None
    if called and called.regions is not None:
        regions, words = _shrunk(called.regions.astype(np.float32), size), f"regions at alpha {called.alpha:g}"
    true = None if truth is None else _shrunk(truth.astype(np.float32), size)
    outlined = _outlined(image, (shown, level) if regions is None else (regions, 0.5), true)
    marked = level if regions is None else math.nan
    return _page([image, coloured, outlined], (name, "   ".join(scores)), (low, high, marked), words, truth is not None)


def without_words(picture: Image.Image) -> Image.Image:
    """An overlay without the lines below its panels: the image's name, scores, and the key."""
    return picture.crop((0, 0, picture.width, max(1, picture.height - 2 * _LINE - _GAP)))


def contact_sheet(pictures: Sequence[Path], path: Path, columns: int = 2, width: int = 900) -> None:
    """Write many overlays as one PNG, each at most `width` pixels wide, row by row in the given order.

    Raises OutputError.
    """
    thumbnails = []
    for picture in pictures:
        with Image.open(picture) as opened:
            one = opened.convert("RGB")
        one.thumbnail((width, one.height))
        thumbnails.append(one)
    rows = [thumbnails[i : i + columns] for i in range(0, len(thumbnails), columns)]
    heights = [max(one.height for one in row) for row in rows]
    sheet = Image.new("RGB", (width * min(columns, max(len(thumbnails), 1)), max(sum(heights), 1)), _PAPER)
    top = 0
    for row, height in zip(rows, heights, strict=True):
        for column, one in enumerate(row):
            sheet.paste(one, (column * width, top))
        top += height
    with atomic_write(path) as file:
        sheet.save(file, format="PNG")


def _panel_size(height: int, width: int) -> tuple[int, int]:
    """Width and height of a panel: small images by a whole factor, so that pixels stay square; large ones shrunk."""
    longest = max(height, width)
    factor = float(math.ceil(_SMALLEST_PANEL / longest)) if longest < _LARGEST_PANEL else _LARGEST_PANEL / longest
    return max(1, round(width * factor)), max(1, round(height * factor))


def displayable(pixels: Float[np.ndarray, "channel height width"]) -> UInt8[np.ndarray, "height width 3"]:
    """Pixels as they are shown: between their own 0.5 and 99.5 percentile."""
    low, high = np.quantile(pixels, [0.005, 0.995])
    if high <= low:
        low, high = float(pixels.min()), float(pixels.max())
    shown = np.clip((pixels - low) / ((high - low) or 1.0), 0, 1) * 255
    channels = shown if shown.shape[0] == 3 else np.repeat(shown[:1], 3, axis=0)
    return np.moveaxis(channels.round().astype(np.uint8), 0, -1)


def _colours(values: Float[np.ndarray, "height width"], low: float, high: float) -> UInt8[np.ndarray, "height width 3"]:
    """Inferno between `low` and `high`, saturated beyond them."""
    shares = np.clip((values - low) / ((high - low) or 1.0), 0, 1)
    return _inferno()[(np.nan_to_num(shares) * 255).round().astype(np.uint8)]


@lru_cache
def _inferno() -> np.ndarray:
    return (matplotlib.colormaps["inferno"](np.arange(256))[:, :3] * 255).round().astype(np.uint8)


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings along: the same letters on every machine."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def _shrunk(values: Float[np.ndarray, "height width"], size: tuple[int, int]) -> Float[np.ndarray, "rows columns"]:
    """Averaged down to `size` (width, height) where that is smaller: quicker to outline, and no finer line is seen."""
    if values.shape[1] <= size[0]:
        return values
    return np.asarray(Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BOX))


def _outlined(
    picture: Image.Image,
    area: tuple[Float[np.ndarray, "height width"], float],
    truth: Float[np.ndarray, "height width"] | None,
) -> Image.Image:
    """The picture with the outlines, drawn larger and reduced again so that lines are smooth.

    area: what is called abnormal, as values and the level that they reach there.
    """
    values, level = area
    large = picture.resize((picture.width * _SUPERSAMPLING, picture.height * _SUPERSAMPLING), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(large)
    scale = large.width / values.shape[1], large.height / values.shape[0]
    _outline(draw, values, level, scale, CALLED, dashed=False)
    if truth is not None:  # last: where the two coincide, the other shows between the dashes
        _outline(draw, truth, 0.5, scale, TRUTH, dashed=True)
    return large.reduce(_SUPERSAMPLING)


def _outline(
    draw: ImageDraw.ImageDraw,
    values: np.ndarray,
    level: float,
    scale: tuple[float, float],
    colour: tuple[int, int, int],
    dashed: bool,
) -> None:
    """Each closed contour of `values` at `level`, on a dark rim that shows on bright tissue."""
    framed = np.pad(values, 1, constant_values=min(float(values.min()), level) - 1.0)
    for contour in find_contours(framed, level):
        points = (contour[:, ::-1] - 0.5) * scale  # back from the frame, and from pixel centres to corners
        lines = _dashes(points) if dashed else [points]
        for width, ink in ((7, _TEXT), (4, colour)):
            for line in lines:
                draw.line(line.ravel().tolist(), fill=ink, width=width)


def _dashes(points: Float[np.ndarray, "point 2"]) -> list[np.ndarray]:
    """The parts of a line that a dashed pen draws."""
    length = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    step = _DASH * _SUPERSAMPLING
    parts = []
    for start in np.arange(0.0, length[-1], 2 * step):
        along = np.linspace(start, min(start + step, length[-1]), 4)
        parts.append(np.stack([np.interp(along, length, points[:, axis]) for axis in (0, 1)], axis=-1))
    return parts


def _number(value: float, span: float | None = None) -> str:
    """Three significant digits, of the value or of the span of a scale that it lies on."""
    reach = abs(value) if span is None else abs(span)
    if not math.isfinite(value) or not math.isfinite(reach) or reach == 0:
        return f"{value:g}"
    digits = 2 - math.floor(math.log10(reach))
    return f"{round(value, digits) + 0.0:g}" if digits <= 6 else f"{value:.3g}"


def _page(
    panels: list[Image.Image], caption: tuple[str, str], scale: tuple[float, float, float], called: str, has_truth: bool
) -> Image.Image:
    """Panels in a row, words above them, below them the caption in two lines and the key."""
    font, (width, height) = _font(_FONT_SIZE), panels[0].size
    third = 3 * _GAP + max(2 * width + _BAR_SPACE, math.ceil(font.getlength(caption[1])))
    lefts, top = [_GAP, 2 * _GAP + width, third], _GAP + _LINE
    page_width = third + max(width, _KEY_LINE + 8 + math.ceil(font.getlength(called))) + _GAP
    page = Image.new("RGB", (page_width, top + height + 2 * _LINE + _GAP), _PAPER)
    draw = ImageDraw.Draw(page)
    for panel, left, words in zip(panels, lefts, ("image", "surprise", "where"), strict=True):
        page.paste(panel, (left, top))
        draw.text((left, _GAP - 4), words, fill=_TEXT, font=font)
    _colour_bar(page, draw, (lefts[1] + width + 8, top), height, *scale)
    _key(draw, (third, top + height + 4), called, has_truth)
    for row, words in enumerate((_shortened(caption[0], third - 2 * _GAP), caption[1])):
        draw.text((_GAP, top + height + row * _LINE + 12), words, fill=_TEXT, font=font, anchor="lm")
    return page


def _shortened(words: str, width: int) -> str:
    """The end of the words, which names the file, if they are wider than `width`."""
    font, words = _font(_FONT_SIZE), " ".join(words.splitlines())  # a file's name may hold a line end
    if font.getlength(words) <= width:
        return words
    while words and font.getlength("…" + words) > width:
        words = words[1:]
    return "…" + words


def _colour_bar(
    page: Image.Image,
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    height: int,
    low: float,
    high: float,
    level: float,
) -> None:
    """The scale beside the map, with its ends, its middle and, as a marker, the outlined level."""
    left, top = corner
    ramp = np.repeat(_inferno()[::-1][:, None], _BAR_WIDTH, axis=1)
    page.paste(Image.fromarray(ramp).resize((_BAR_WIDTH, height)), corner)
    font = _font(_FONT_SIZE - 2)
    right = left + _BAR_WIDTH
    for share in (0.0, 0.5, 1.0):
        y = top + round((1 - share) * (height - 1))
        draw.line([(right, y), (right + 4, y)], fill=_TEXT)
        anchor = {0.0: "ls", 0.5: "lm", 1.0: "la"}[share]
        draw.text((right + 7, y), _number(low + share * (high - low), high - low), fill=_TEXT, font=font, anchor=anchor)
    if low < level < high:
        y = top + round((high - level) / (high - low) * (height - 1))
        draw.line([(left - 2, y), (right + 1, y)], fill=_TEXT, width=5)
        draw.line([(left - 2, y), (right + 1, y)], fill=CALLED, width=3)


def _key(draw: ImageDraw.ImageDraw, corner: tuple[int, int], called: str, has_truth: bool) -> None:
    left, top = corner
    font = _font(_FONT_SIZE)
    rows = [(called, CALLED, [(0, _KEY_LINE)])]
    if has_truth:
        rows.append(("truth", TRUTH, [(0, 6), (11, 17), (22, _KEY_LINE)]))
    for row, (words, colour, pieces) in enumerate(rows):
        y = top + row * _LINE + 8
        for start, stop in pieces:
            draw.line([(left + start - 1, y), (left + stop + 1, y)], fill=_TEXT, width=5)
            draw.line([(left + start, y), (left + stop, y)], fill=colour, width=3)
        draw.text((left + _KEY_LINE + 8, y), words, fill=_TEXT, font=font, anchor="lm")
