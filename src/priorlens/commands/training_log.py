"""`training.csv`: the loss of every step of a fit, and when it was."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from priorlens.errors import OutputError
from priorlens.outputs import write_rows

NAME = "training.csv"
HEADER = ("stage", "step", "loss", "seconds")

Rows = dict[tuple[str, str], tuple[str, str]]


@contextmanager
def training_log(path: Path, resume: bool) -> Iterator[Callable[[str, int, float], None]]:
    """A log to be told (stage, step, loss); each line is in the file at once. A loss of nan becomes an empty cell.

    With `resume`, what is there is kept, and in the end a step that was done twice has the later of its lines. Seconds
    count from the beginning of the fit, pauses left out. Raises OutputError.
    """
    rows = _read(path) if resume else {}
    began = time.monotonic() - max((float(seconds) for _, seconds in rows.values()), default=0.0)
    write_rows(path, HEADER, _lines(rows))

    def add(stage: str, step: int, loss: float) -> None:
        shown = "" if math.isnan(loss) else f"{loss:.6g}"
        rows[stage, str(step)] = shown, f"{time.monotonic() - began:.3f}"
        try:
            with open(path, "a", newline="", encoding="utf-8") as file:
                csv.writer(file, lineterminator="\n").writerow((stage, step, *rows[stage, str(step)]))
        except OSError as error:
            raise OutputError(f"{path}: cannot be written ({error.strerror}); free some space and --resume") from error

    yield add
    write_rows(path, HEADER, _lines(rows))


def _lines(rows: Rows) -> Iterator[tuple[str, ...]]:
    return ((*key, *values) for key, values in rows.items())


def _read(path: Path) -> Rows:
    """Loss and seconds by stage and step, as far as lines are whole: a kill may have cut the last one short."""
    rows: Rows = {}
    try:
        with open(path, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                rows[row["stage"], row["step"]] = row["loss"], f"{float(row['seconds']):.3f}"
    except (OSError, csv.Error, KeyError, TypeError, ValueError):
        pass  # what was read so far is whole
    return rows
