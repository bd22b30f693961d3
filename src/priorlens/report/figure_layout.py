"""Where everything in a figure stands, in inches from its left upper corner."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from unicodedata import category

import matplotlib
from matplotlib.font_manager import get_font
from PIL import ImageFont

from priorlens.errors import InputError
from priorlens.report.figure_words import Words
from priorlens.report.rows import Row

FONT, SMALL = 8.0, 7.0
"""Sizes of letters, in points."""

HIGHEST = 24 / 2.54
"""Of a figure: what a page holds."""

_MARGIN, _GAP, _ROW_GAP = 0.04, 0.06, 0.1
_SPACE_ABOVE = 0.03
_SPACE_BELOW, _BAR, _TICKS = 0.1, 0.09, 0.2
_TALLEST = 1.8
"""Of a panel, in widths of its column."""

_SMALLEST = 0.7
"""Inches of a column in which colour bar and key can still be read."""

_LINE, _KEY = 1.25 * FONT / 72, 0.32
_NARROWEST_LABEL, _WIDEST_LABEL = 0.35, 1.15
_MEASURED = 100
_FONT_FILE = str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")


@dataclass(frozen=True)
class Layout:
    """width, height: of the figure. panel: width of a column. sizes: of each row's panels, width and height. tops: of
    the rows. line: from a line of words to the next. key: of a line's sample in the key, with the space after it."""

    width: float
    height: float
    label_width: float
    panel: float
    sizes: tuple[tuple[float, float], ...]
    tops: tuple[float, ...]
    line: float = _LINE
    key: float = _KEY

    def at(self, x: float, y: float) -> tuple[float, float]:
        """As matplotlib counts: shares of the figure, from its left lower corner."""
        return x / self.width, 1 - y / self.height

    def _left(self, column: int) -> float:
        return _MARGIN + self.label_width + _GAP + column * (self.panel + _GAP)

    def title(self, column: int, number: int) -> tuple[float, float]:
        """The left upper corner of a line, counted from the last, which stands above the panels."""
        return self._left(column), self.tops[0] - _SPACE_ABOVE - (number + 1) * self.line

    def label(self, row: int) -> tuple[float, float]:
        return _MARGIN, self.tops[row]

    def label_lines(self, row: int, notes: int) -> int:
        """How many lines there are for a name above so many notes."""
        return max(1, int(self.sizes[row][1] / self.line) - notes)

    def panel_at(self, row: int, column: int) -> tuple[float, float, float, float]:
        """In the middle of its column: left, bottom, width and height in shares of the figure."""
        width, height = self.sizes[row]
        x, y = self.at(self._left(column) + (self.panel - width) / 2, self.tops[row] + height)
        return x, y, width / self.width, height / self.height

    @property
    def _bottom(self) -> float:
        return self.tops[-1] + self.sizes[-1][1] + _SPACE_BELOW

    def colour_bar_at(self, column: int) -> tuple[float, float, float, float]:
        """Room at either end for what lies beyond the scale."""
        x, y = self.at(self._left(column) + 0.05 * self.panel, self._bottom + _BAR)
        return x, y, 0.9 * self.panel / self.width, _BAR / self.height

    def below_colour_bar(self, column: int, number: int) -> tuple[float, float]:
        """The middle of a line's upper edge."""
        return self._left(column) + self.panel / 2, self._bottom + _BAR + _TICKS + number * self.line

    def key_at(self, column: int, number: int) -> tuple[float, float]:
        """The left end of a line's middle."""
        return self._left(column), self._bottom + _BAR / 2 + number * self.line * 1.1


def laid_out(rows: Sequence[Row], width: float, words: Words, unit: str) -> Layout:
    """A figure of `width` inches, narrower where its rows would not fit on a page; `unit` stands below the maps.

    Raises InputError: no panel could be read, the width being too small or the rows too many.
    """
    label, columns = _label_width(rows), len(words.columns)
    panel = (width - 2 * _MARGIN - label - columns * _GAP) / columns
    if panel < _SMALLEST:
        raise InputError(f"--width {width * 2.54:g}: is too narrow for {columns} columns; give a larger one")
    sizes, rest = _sizes(rows, panel), 0.0
    for _ in range(4):  # smaller panels may need more lines above and below
        rest = 2 * _MARGIN + _above(words, panel) + (len(rows) - 1) * _ROW_GAP + _below(words, unit, panel)
        high = sum(height for _, height in sizes)
        if rest + high <= HIGHEST:
            break
        panel *= (HIGHEST - rest) / high * 0.999
        sizes = _sizes(rows, panel)
    if panel < _SMALLEST:
        raise InputError(f"{len(rows)} cases do not fit on one page; choose fewer")
    tops, top = [], _MARGIN + _above(words, panel)
    for _, height in sizes:
        tops.append(top)
        top += height + _ROW_GAP
    high = rest + sum(height for _, height in sizes)
    panel = max(_SMALLEST, *(across for across, _ in sizes))
    return Layout(2 * _MARGIN + label + columns * (panel + _GAP), high, label, panel, sizes, tuple(tops))


def wrapped(words: str, width: float, *, size: float = FONT, most: int | None = None) -> list[str]:
    """In lines of at most `width` inches, broken behind a space or slash, else another separator, else anywhere; of
    `most` lines the last ones, which name the file. What no font can show becomes a mark."""
    lines: list[str] = []
    for given in words.splitlines():
        lines += _broken("".join(map(_visible, given)), width, size, (r"[\s/]", r"[\s/_.,-]", "."))
    if most is None or len(lines) <= most:
        return lines or [""]
    return [f"…{lines[-most]}", *lines[len(lines) - most + 1 :]]


def _broken(line: str, width: float, size: float, separators: Sequence[str]) -> list[str]:
    """Behind the first of the `separators`, regular expressions of a character; the others are for pieces too long."""
    lines = [""]
    for piece in re.split(f"(?<={separators[0]})", line):
        if length((lines[-1] + piece).rstrip(), size) <= width:
            lines[-1] += piece
        elif length(piece.rstrip(), size) <= width or len(separators) == 1:
            lines.append(piece)
        else:
            lines[-1:] = _broken(lines[-1] + piece, width, size, separators[1:])
    return [one.rstrip() for one in lines[not lines[0] and len(lines) > 1 :]]


def _label_width(rows: Sequence[Row]) -> float:
    said = [(row.label, FONT) for row in rows] + [(note, SMALL) for row in rows for note in row.notes]
    lines = [(line, size) for words, size in said for line in wrapped(words, _WIDEST_LABEL, size=size)]
    return max(_NARROWEST_LABEL, *(length(line, size) + 0.01 for line, size in lines))


def _sizes(rows: Sequence[Row], panel: float) -> tuple[tuple[float, float], ...]:
    """Width and height of each row's panels: as wide as the column, but for tall ones."""
    sizes = []
    for row in rows:
        height, width = row.size
        scale = min(panel / width, _TALLEST * panel / height)
        sizes.append((width * scale, height * scale))
    return tuple(sizes)


def _above(words: Words, panel: float) -> float:
    return max(len(wrapped(title, panel)) for title in words.columns) * _LINE + _SPACE_ABOVE


def _below(words: Words, unit: str, panel: float) -> float:
    of_bar = _BAR + _TICKS + len(wrapped(unit, panel)) * _LINE
    of_key = sum(len(wrapped(one, panel - _KEY)) for one in words.key) * _LINE * 1.1
    return _SPACE_BELOW + max(of_bar, of_key)


def _visible(character: str) -> str:
    """Itself, but for control characters and halves of characters, which no file of ours may hold."""
    if character == "\t":
        return " "
    odd = category(character) in ("Cc", "Cs") or ord(character) & 0xFFFE == 0xFFFE
    return "\N{REPLACEMENT CHARACTER}" if odd else character


def length(words: str, size: float) -> float:
    """Inches that words take; a letter that the font lacks is drawn as a square."""
    known = "".join(letter for letter in words if ord(letter) in _letters())
    return (_font().getlength(known) / _MEASURED + len(words) - len(known)) * size / 72


@lru_cache
def _letters() -> frozenset[int]:
    return frozenset(get_font(_FONT_FILE).get_charmap())


@lru_cache
def _font() -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(_FONT_FILE, _MEASURED)
