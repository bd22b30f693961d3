"""A CSV that names the patient of every image, and where known its kind and mask: `file,group[,kind][,mask]`."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path

from priorlens.errors import InputError


@dataclass(frozen=True)
class Row:
    """What a manifest says of one image; `kind` is empty and `mask` None where it says nothing."""

    group: str
    kind: str
    mask: Path | None


@dataclass(frozen=True)
class Line:
    """As it stands. where: the manifest and the number of the line. kind, mask: empty where it says nothing."""

    where: str
    file: str
    group: str
    kind: str
    mask: str


def read_manifest(manifest: Path) -> dict[Path, Row]:
    """The rows by absolute path of their image. Paths in the file are relative to its own folder.

    Raises:
        InputError: it cannot be read, its columns are not these, a line is incomplete or names a file that is not
            there, or an image is listed twice.
    """
    rows: dict[Path, Row] = {}
    for line in read_lines(manifest):
        image = _existing(manifest, line.file, line.where)
        if image in rows:
            raise listed_twice(line)
        mask = _existing(manifest, line.mask, line.where) if line.mask else None
        rows[image] = Row(line.group, line.kind, mask)
    return rows


def read_lines(manifest: Path) -> list[Line]:
    """At least one. Raises InputError: it cannot be read, its columns are not these, or a line is incomplete."""
    try:
        with open(manifest, newline="", encoding="utf-8-sig") as file:  # spreadsheets put a byte order mark in front
            reader = csv.DictReader(file, skipinitialspace=True)
            columns = set(reader.fieldnames or ())
            lines = [(f"{manifest}, line {reader.line_num}", line) for line in reader]
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"{manifest}: the manifest cannot be read ({reason}); check the path") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{manifest}: is not a CSV table in UTF-8 ({error}); save it as one") from error
    if not {"file", "group"} <= columns <= {"file", "group", "kind", "mask"}:
        raise InputError(f"{manifest}: its first line must name the columns file,group[,kind][,mask]; correct it")
    found = []
    for where, line in lines:
        if None in line or None in line.values() or not line["file"] or not line["group"]:
            raise InputError(f"{where}: has no file, no group, or too many or too few columns; correct the line")
        found.append(Line(where, line["file"], line["group"], line.get("kind", ""), line.get("mask", "")))
    if not found:
        raise InputError(f"{manifest}: lists no images; add a line for each")
    return found


def listed_twice(line: Line) -> InputError:
    return InputError(f"{line.where}: {line.file} is listed a second time; keep one line")


def _existing(manifest: Path, name: str, where: str) -> Path:
    path = Path(os.path.abspath(manifest.parent / name))
    if not os.path.isfile(path):  # which takes a name for none that the disk could not hold; `Path.is_file` raises
        raise InputError(f"{where}: there is no file {path}; correct the line (paths start at the CSV's own folder)")
    return path
