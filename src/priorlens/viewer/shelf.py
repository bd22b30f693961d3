"""The results folders that a viewer looks at, side by side, with the cases of all numbered through."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from priorlens.layers import IMAGES, SEGMENTATIONS, TRUTH
from priorlens.report.findings import Case, Findings, read_findings
from priorlens.report.naming import without_names

LAYERS = {
    "image": IMAGES,
    "map": "maps",
    "reconstruction": "reconstructions",
    "segmentation": SEGMENTATIONS,
    "truth": TRUTH,
}
"""What may lie over one another, from below to above, and the folder of each in a results folder."""

TABLES = ("scores.csv", "regions.csv", "slices.csv", "patients.csv", "spectrum.csv", "left_out.csv", "calibration.csv")

_SUFFIXES = (".nii.gz", ".png", ".npy")


@dataclass(frozen=True)
class Book:
    """One results folder as it was read. dropped: it holds what was given to the page, not what it was opened with.
    hidden: names are left out."""

    folder: Path
    findings: Findings
    dropped: bool
    hidden: bool
    before: int
    """Cases of the books before it."""

    def file(self, *parts: str) -> Path | None:
        """A file of the folder; None where there is none, and for what lies outside, by whatever names or links."""
        path = self.folder.joinpath(*parts)
        try:
            inside = path.resolve().is_relative_to(self.folder.resolve())
            return path if inside and path.is_file() else None
        except (OSError, ValueError, RuntimeError):  # overlong names, such as no file can have, links in a circle
            return None


@dataclass(frozen=True)
class Shelved:
    """A case with the book it is in; `number` names it among those of all books."""

    book: Book
    case: Case

    @property
    def number(self) -> int:
        return self.book.before + self.case.number

    def layer(self, name: str) -> Path | None:
        """The file of one of `LAYERS`, if there is one."""
        if not self.case.stem:
            return None
        found = (self.book.file(LAYERS[name], self.case.stem + suffix) for suffix in _SUFFIXES)
        return next((path for path in found if path), None)

    @property
    def overlay(self) -> Path | None:
        """Its picture, whose caption has its name."""
        if self.book.hidden or not self.case.stem:
            return None
        return self.book.file("overlays", f"{self.case.stem}.png")


class Shelf:
    """Books are added and never taken away, so that a number means the same case for as long as the page is open.

    hide: files, folders and patients are called by numbers, as `priorlens.report.naming` has it.
    """

    def __init__(self, *, hide: bool = False) -> None:
        self.hide = hide
        self._books: list[Book] = []

    def add(self, folder: Path, *, dropped: bool = False) -> Sequence[int]:
        """The numbers of the folder's cases. Raises InputError: it is no results folder, damaged or newer."""
        findings = read_findings(folder)
        before = sum(len(book.findings.cases) for book in self._books)
        shown = without_names(findings) if self.hide else findings
        self._books.append(Book(folder, shown, dropped, self.hide, before))
        return range(before + 1, before + 1 + len(findings.cases))

    @property
    def first(self) -> Book:
        """What the page was opened with."""
        return self._books[0]

    def __iter__(self) -> Iterator[Shelved]:
        return (Shelved(book, case) for book in tuple(self._books) for case in book.findings.cases)

    def get(self, number: int) -> Shelved | None:
        return next(
            (
                Shelved(book, book.findings.cases[number - book.before - 1])
                for book in tuple(self._books)
                if 0 < number - book.before <= len(book.findings.cases)
            ),
            None,
        )
