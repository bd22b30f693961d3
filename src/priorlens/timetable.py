"""A CSV that says when, and in which stream, each scan was taken: `file,time[,stream]`."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from priorlens.errors import InputError
from priorlens.tables import Line, read_table

ONE_STREAM = "all"
"""The name of the stream where streams are not told apart."""


@dataclass(frozen=True)
class Moment:
    """When a scan was taken. text: as the table has it. value: for comparing, seconds or the table's own numbers."""

    text: str
    value: float
    stream: str
    where: str


def read_times(path: Path, files: Sequence[str]) -> dict[str, Moment]:
    """When each of `files` was taken; lines of other files are checked and left out.

    A line's file is one of `files` if it reads the same, or leads to it from the table's own folder, or if they have
    their names alone in common and nothing else has that name. Times are numbers, or dates and times of ISO 8601.

    Raises:
        InputError: it cannot be read, a line is incomplete, not a time, earlier than the line before of its stream,
            or names a file for the second time; or one of `files` has no line.
    """
    table = read_table(path, ("file", "time"))
    moments: dict[str, Moment] = {}
    kinds: set[str] = set()
    latest: dict[str, Moment] = {}
    for line in table.lines:
        file = line.cells["file"]
        kind, moment = _moment(line)
        if file in moments:
            raise InputError(f"{line.where}: {file} is listed a second time; keep one line")
        kinds.add(kind)
        if len(kinds) > 1:
            raise InputError(f"{line.where}: its time is {kind}, unlike those before; write all times the same way")
        if moment.stream in latest and moment.value < latest[moment.stream].value:
            raise InputError(f"{line.where}: is earlier than the line before; sort the table by time")
        moments[file] = latest[moment.stream] = moment
    return {file: moments[line] for file, line in _matched(path, list(moments), files).items()}


def _moment(line: Line) -> tuple[str, Moment]:
    """Of a line, and how its time is written."""
    text, stream = line.cells["time"].strip(), line.cells.get("stream", ONE_STREAM).strip()
    if not text or not stream or not line.cells["file"]:
        raise InputError(f"{line.where}: has no file, no time or no stream; correct the line")
    try:
        kind, value = "a number", float(text)
    except ValueError:
        try:
            stamp = datetime.fromisoformat(text)
        except ValueError as error:
            raise InputError(
                f"{line.where}: {text} is neither a number nor a time such as 2025-03-31T14:05; correct the line"
            ) from error
        kind = "a time with its zone" if stamp.tzinfo else "a time without a zone"
        value = (stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)).timestamp()
    if not math.isfinite(value):
        raise InputError(f"{line.where}: {text} is no time; correct the line")
    return kind, Moment(text, value, stream, line.where)


def _matched(path: Path, listed: Sequence[str], files: Sequence[str]) -> dict[str, str]:
    """The name by which the table lists each of `files`. Raises InputError."""
    places = {os.path.abspath(path.parent / file): file for file in listed}
    names = {os.path.basename(file): file for file in listed}
    alone = Counter(os.path.basename(file) for file in listed)
    scored = Counter(os.path.basename(file) for file in files)
    known, found = set(listed), {}
    for file in files:
        name = os.path.basename(file)
        if file in known:
            found[file] = file
        elif (place := os.path.abspath(file)) in places:
            found[file] = places[place]
        elif alone[name] == scored[name] == 1:
            found[file] = names[name]
        elif alone[name]:
            raise InputError(f"{path}: several files are named {name}; write them as scores.csv does, such as {file}")
        else:
            raise InputError(f"{path}: has no line for {file}; add one")
    return found
