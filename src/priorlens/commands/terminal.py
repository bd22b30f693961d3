"""What commands say while they work: one-line warnings and progress bars, all on stderr; stdout is for results."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

_MINUTE = 60.0

STDERR = Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)


def warn(line: str) -> None:
    """One line about something that went wrong, above the progress bar if there is one."""
    STDERR.print(f"priorlens: {line}")


def print_table(table: Table) -> None:
    """A table on stdout, as wide as it needs to be where stdout is a file."""
    Console(highlight=False, width=None if sys.stdout.isatty() else 200).print(table)


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar with counts and the time that remains; call what it gives after each of `total` pieces of work.

    Nothing is shown where stderr is not a terminal.
    """
    with _bar(MofNCompleteColumn(), what=what) as bar:
        task = bar.add_task("", total=total)
        yield lambda: bar.advance(task)


@contextmanager
def scoring_bar(what: str, total: int, before: int) -> Iterator[Callable[[int], None]]:
    """A bar with counts, rate and the time that remains; call what it gives after each input, with how many failed.

    before: inputs that were done by an earlier run. Without a terminal there is a line a minute.
    """
    start = told = time.monotonic()
    done = before
    columns = (MofNCompleteColumn(), TextColumn("{task.fields[failed]} failed"), TextColumn("{task.fields[rate]}"))
    with _bar(*columns, what=what) as bar:
        task = bar.add_task("", total=total, completed=before, failed=0, rate="")

        def advance(failed: int) -> None:
            nonlocal done, told
            done += 1
            now = time.monotonic()
            rate = (done - before) / max(now - start, 1e-9)
            bar.update(task, completed=done, failed=failed, rate=f"{rate:.3g} a second")
            if not STDERR.is_terminal and now - told > _MINUTE:
                left = (total - done) / rate / _MINUTE
                STDERR.print(
                    f"{what}: {done} of {total}, {failed} failed, {rate:.3g} a second, {left:.0f} minutes left"
                )
                told = now

        yield advance


@contextmanager
def training_bar() -> Iterator[Callable[[str, float, int, int], None]]:
    """A bar to be told (stage, loss, steps done, steps in all). Without a terminal each stage's beginning is a line."""
    seen: set[str] = set()
    with _bar(TextColumn("{task.fields[stage]}"), TextColumn("{task.fields[loss]}"), what="training") as bar:
        task = bar.add_task("", total=None, stage="", loss="")

        def show(stage: str, loss: float, done: int, total: int) -> None:
            shown = "" if math.isnan(loss) else f"loss {loss:.4f}"
            bar.update(task, completed=done, total=total, stage=stage, loss=shown)
            if not STDERR.is_terminal and stage not in seen:
                STDERR.print(f"{stage} ({done} of {total} steps done)")
            seen.add(stage)

        yield show


def _bar(*columns: ProgressColumn, what: str) -> Progress:
    return Progress(
        TextColumn(what),
        BarColumn(),
        *columns,
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=STDERR,
        speed_estimate_period=60,
        disable=not STDERR.is_terminal,
    )
