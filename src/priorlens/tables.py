"""CSV tables with a first line of names, as users and `priorlens.outputs.write_rows` write them."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from priorlens.errors import InputError


@dataclass(frozen=True)
class Line:
    """One line of a table: where it stands, in words for an error, and its cells by column."""

    where: str
    cells: dict[str, str]

    def number(self, column: str) -> float:
        """A cell as a number; NaN where it is empty. Raises InputError."""
        text = self.cells[column].strip()
        try:
            return float(text) if text else float("nan")
        except ValueError as error:
            raise InputError(f"{self.where}: {column} is no number ({text}); correct the line") from error


@dataclass(frozen=True)
class Table:
    """A table's columns in their order, and its lines."""

    path: Path
    columns: tuple[str, ...]
    lines: tuple[Line, ...]


def read_table(path: Path, required: Iterable[str], *, file_names: bool = False) -> Table:
    """Read a table that has at least the columns `required`.

    With `file_names`, bytes that are not UTF-8 are kept as Python keeps those of file names.

    Raises:
        InputError: it cannot be read, is no such table, lacks a column, or a line has too many or too few cells.
    """
    try:  # spreadsheets put a byte order mark in front
        with open(path, newline="", encoding="utf-8-sig", errors="surrogateescape" if file_names else "strict") as file:
            reader = csv.DictReader(file, skipinitialspace=not file_names)  # a file name may begin with a space
            columns = tuple(reader.fieldnames or ())
            lines = [(f"{path}, line {reader.line_num}", cells) for cells in reader]
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"{path}: cannot be read ({reason}); check the path") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: is not a CSV table in UTF-8 ({error}); save it as one") from error
    if missing := [column for column in required if column not in columns]:
        raise InputError(f"{path}: its first line names no column {' and no '.join(missing)}; add it")
    for where, cells in lines:
        if None in cells or None in cells.values():
            raise InputError(f"{where}: has too many or too few columns; correct the line")
    return Table(path, columns, tuple(Line(where, cells) for where, cells in lines))
