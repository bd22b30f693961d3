"""What is scored goes into the run's ledger, and from there into the tables of a results folder."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import typer

from priorlens.commands.event_log import EventLog
from priorlens.commands.parquet import discard_parquet, write_data_sets
from priorlens.commands.publishing import RUN, Publisher, RemoteFolder
from priorlens.commands.terminal import scoring_bar, warn
from priorlens.errors import OutputError
from priorlens.ledger import Entry, Input, InUse, Ledger, Listed, merged
from priorlens.outputs import prepare_folder, remove_unfinished, write_rows
from priorlens.result_folder import SCORES
from priorlens.verdicts import Judge

_RUNS = "run*.sqlite"
_INPUTS = "inputs"
Tables = Mapping[str, Sequence[str]]
"""The columns of each table, by the name of its file."""


@dataclass(frozen=True)
class Shard:
    """One of several parts of a run: every `of`-th input from `index` on, the first part having index 0."""

    index: int = 0
    of: int = 1

    @property
    def file(self) -> str:
        return RUN if self.of == 1 else f"run-{self.index + 1}-of-{self.of}.sqlite"

    def has(self, position: int) -> bool:
        return position % self.of == self.index


WHOLE = Shard()


def parse_shard(text: str | None) -> Shard:
    """From `3/8`, the third of eight parts. Raises typer.BadParameter."""
    if text is None:
        return WHOLE
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
    index, of = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= index <= of:
        raise typer.BadParameter(f"--shard {text}: is no part such as 3/8, the third of eight; correct it")
    return Shard(index - 1, of)


@dataclass(frozen=True)
class Run:
    """What is written into one results folder. own: by this process. others: parts that other processes have done.

    log: is told of every input. parquet: whether the tables are written as Parquet data sets, too. publisher: sends all
    of it to an address.
    """

    own: Ledger
    others: Sequence[Ledger] = ()
    shard: Shard = WHOLE
    log: EventLog = field(default_factory=EventLog)
    parquet: bool = False
    publisher: Publisher | None = None

    @property
    def ledgers(self) -> Sequence[Ledger]:
        return (self.own, *self.others)

    def todo(self, inputs: Sequence[Listed]) -> tuple[int, list[int]]:
        """How many inputs this part of the run has, and the places among all of those that are still to be done."""
        names = hashlib.sha256()
        for one in inputs:
            names.update(repr(one.name).encode())
        self.own.note(_INPUTS, f"{len(inputs)} {names.hexdigest()}")
        elsewhere: dict[str, str] = {}
        for other in self.others:
            elsewhere |= other.place(one for one in self._own(inputs) if one.name not in elsewhere)
        places = self.own.pending(self._own(inputs), elsewhere)
        return len(range(self.shard.index, len(inputs), self.shard.of)), places

    def _own(self, inputs: Sequence[Listed]) -> Iterator[Input]:
        """Those of this part of the run; made as they are asked for, so that memory holds none."""
        for position, one in enumerate(inputs):
            if self.shard.has(position):
                yield Input(one.name, one.file, position, one.stamp())

    def close(self) -> None:
        """Raises OutputError."""
        with ExitStack() as stack:
            for ledger in self.ledgers:
                stack.callback(ledger.close)
            self.log.close()

    @classmethod
    def in_memory(cls) -> Run:
        """One that is not to be gone on with."""
        return cls(Ledger.in_memory())


def begin(
    out: Path,
    identity: Mapping[str, Any],
    *,
    overwrite: bool,
    shard: Shard = WHOLE,
    log: Path | None = None,
    parquet: bool = False,
    remote: RemoteFolder | None = None,
) -> Run:
    """A new run into a folder that is empty, or the earlier one in it of the same identity.

    identity: the model, and whatever else changes results, by names that an error can use. shard: a part of a run, the
    rest of which other processes do; to do the whole is to do what the parts in the folder have left. remote: of what
    address the folder is the copy.

    Raises:
        OutputError: the folder, or the address, holds something else, or results of another identity, and not
            `overwrite`; or another run writes into it.
    """
    publisher = Publisher(remote) if remote else None
    if publisher:
        publisher.prepare(overwrite=overwrite)
    try:
        prepare_folder(out, overwrite=overwrite or publisher is not None)
    except OutputError:
        if not any(out.glob(_RUNS)):  # looked for only now: another part may begin at this very moment
            raise
        prepare_folder(out, overwrite=True)
    with ExitStack() as stack:

        def opened(path: Path) -> Ledger:
            ledger = Ledger.open(path, identity, fresh=overwrite, called=remote and remote.address)
            stack.callback(ledger.close)
            return ledger

        own, parts = opened(out / shard.file), []
        for path in sorted(out.glob(_RUNS)):
            if path.name == shard.file or path.match(f"run-*-of-{shard.of}.sqlite"):
                continue  # parts beside this one may be at work
            if shard == WHOLE:
                parts.append(opened(path))
            elif overwrite:
                Ledger.require_idle(path)
            else:
                Ledger.open(path, identity, fresh=False).close()
        events = EventLog(log)
        if shard == WHOLE:
            remove_unfinished(out)
        if publisher:
            publisher.claim()
        stack.pop_all()
    return Run(own, parts, shard, events, parquet, publisher)


def all_parts(out: Path, identity: Mapping[str, Any], shard: Shard) -> Run | None:
    """Every part of a run, where all are finished; else None. For whichever part ends last.

    Raises OutputError: the parts are of different runs, or were given different inputs.
    """
    paths = [out / Shard(index, shard.of).file for index in range(shard.of)]
    if not all(path.exists() for path in paths):
        return None
    with ExitStack() as stack:
        found: list[Ledger] = []
        try:
            for path in paths:  # in this order, so that of several that end at one moment one comes to have them all
                found.append(Ledger.open(path, identity, fresh=False))
                stack.callback(found[-1].close)
        except InUse:
            return None
        if any(one.number_of("pending") for one in found):
            return None
        told = {one.fact(_INPUTS) or "0" for one in found}
        placed = sum(one.number_of(state) for one in found for state in ("done", "failed"))
        if len(told) > 1 or int(told.pop().split()[0]) != placed:
            line = "its parts do not make a whole, as they were given different inputs"
            raise OutputError(f"{out}: {line}; run the same command without --shard, it completes them")
        stack.pop_all()
    return Run(found[0], found[1:])


def record(
    out: Path,
    run: Run,
    entries: Iterable[Entry],
    tables: Tables,
    *,
    total: int,
    what: str,
    at_end: Callable[[], None] = lambda: None,
) -> None:
    """Take in what is scored; the tables of all that was done are written whatever stops it, Ctrl-C included.

    total: inputs in all, with those done before. at_end: writes what else there is beside the tables. Of a part of a
    run nothing of this is written. To the address of a run all of it is sent, from time to time as well. Inputs that
    cannot be used are named on stderr. Raises OutputError.
    """
    ledger, publisher = run.own, run.publisher
    counts, called = ledger.counts, publisher.folder.address if publisher else out
    if counts.before:
        warn(f"{called}: {counts.before} of {total} {what} were done before")
    discard_parquet(out)
    run.log.tell("started", inputs=total, before=counts.before)
    try:
        with scoring_bar(f"scoring {what}", total, counts.before) as advance:
            for entry in entries:
                if entry.reason:
                    warn(entry.reason)
                ledger.record(entry)
                run.log.tell_of(entry)
                advance(counts.failed)
                if publisher:
                    publisher.keep_up(ledger, partial(write_tables, out, run, tables))
    except KeyboardInterrupt:
        done = f"{called / SCORES}: stopped after {counts.done + counts.failed} of {total} {what}"
        goes_on = "the same command goes on" if ledger.path else "add --overwrite to score them all"
        raise KeyboardInterrupt(f"{done}; {goes_on}") from None
    finally:
        ledger.flush()
        run.log.tell("ended", done=counts.done, failed=counts.failed, of=total)
        if run.shard == WHOLE:
            write_tables(out, run, tables)
            at_end()
        if publisher:
            publisher.publish(ledger)


def complete(
    out: Path,
    identity: Mapping[str, Any],
    shard: Shard,
    tables: Tables,
    at_end: Callable[[Run], None],
    *,
    parquet: bool = False,
) -> int | None:
    """After a part of a run has ended: where it was the last of all, the tables of the whole are written.

    How many inputs of the whole could not be used; None where other parts are still to end. Raises OutputError.
    """
    found = all_parts(out, identity, shard)
    if found is None:
        typer.echo(f"{out}: part {shard.index + 1} of {shard.of} is done; the last to end writes the tables")
        return None
    with closing(found):
        remove_unfinished(out)
        write_tables(out, replace(found, parquet=parquet), tables)
        at_end(found)
        return sum(ledger.number_of("failed") for ledger in found.ledgers)


def write_tables(out: Path, run: Run, tables: Tables) -> None:
    """Raises OutputError."""
    for name, header in tables.items():
        write_rows(out / name, header, merged(run.ledgers, name))
    if run.parquet:
        write_data_sets(out, tables, partial(merged, run.ledgers))


def verdicts_identity(judge: Judge | None) -> dict[str, Any]:
    """What verdicts depend on, as part of a run's identity."""
    if judge is None:
        return {"calibration": None}
    calibration = judge.calibration
    images = hashlib.sha256("".join(calibration.images).encode()).hexdigest()
    affine = None if judge.affine is None else judge.affine.tolist()
    return {"calibration": images, "alpha": judge.alpha, "--fdr": judge.procedure, "--pixel-size": affine}
