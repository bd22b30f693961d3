"""What is scored goes into the run's ledger, and from there into the tables of a results folder."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from priorlens.commands.event_log import EventLog
from priorlens.commands.terminal import scoring_bar, warn
from priorlens.errors import OutputError
from priorlens.ledger import Entry, Input, Ledger, Stamp, merged
from priorlens.outputs import prepare_folder, write_rows
from priorlens.result_folder import SCORES
from priorlens.verdicts import Judge

RUN, _RUNS = "run.sqlite", "run*.sqlite"
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

    log: is told of every input.
    """

    own: Ledger
    others: Sequence[Ledger] = ()
    shard: Shard = WHOLE
    log: EventLog = field(default_factory=EventLog)

    @property
    def ledgers(self) -> Sequence[Ledger]:
        return (self.own, *self.others)

    def todo(self, files: Iterable[tuple[str, Path, Sequence[Path]]]) -> tuple[list[Input], list[Input]]:
        """The inputs of this part of the run, and which of them are still to be done.

        files: of all inputs the name, what the tables call its file, and the files that it is read from.
        """
        inputs = [
            Input(name, path.as_posix(), position, Stamp.of(sources))
            for position, (name, path, sources) in enumerate(files)
            if self.shard.has(position)
        ]
        todo = self.own.pending(inputs, lambda one: any(other.settled(one) for other in self.others))
        return inputs, [inputs[index] for index in todo]

    def close(self) -> None:
        self.log.close()
        for ledger in self.ledgers:
            ledger.close()

    @classmethod
    def in_memory(cls) -> Run:
        """One that is not to be gone on with."""
        return cls(Ledger.in_memory())


def begin(
    out: Path, identity: Mapping[str, Any], *, overwrite: bool, shard: Shard = WHOLE, log: Path | None = None
) -> Run:
    """A new run into a folder that is empty, or the earlier one in it of the same identity.

    identity: the model, and whatever else changes results, by names that an error can use. shard: a part of a run, the
    rest of which other processes do; to do the whole is to do what the parts in the folder have left.

    Raises:
        OutputError: the folder holds something else, or results of another identity, and not `overwrite`; or another
            run writes into it.
    """
    earlier = out.is_dir() and any(out.glob(_RUNS))
    prepare_folder(out, overwrite=overwrite or earlier)
    own = Ledger.open(out / shard.file, identity, fresh=overwrite)
    if shard != WHOLE:
        return Run(own, (), shard, EventLog(log))
    parts = sorted(path for path in out.glob(_RUNS) if path.name != RUN)
    return Run(own, [Ledger.open(path, identity, fresh=overwrite) for path in parts], log=EventLog(log))


def all_parts(out: Path, identity: Mapping[str, Any], shard: Shard) -> Run | None:
    """Every part of a run, where all are finished; else None. For whichever part ends last."""
    found: list[Ledger] = []
    try:
        for index in range(shard.of):
            path = out / Shard(index, shard.of).file
            found += [Ledger.open(path, identity, fresh=False)] if path.exists() else []
    except OutputError:  # at work, or of another run
        pass
    if len(found) == shard.of and not any(one.number_of("pending") for one in found):
        return Run(found[0], found[1:])
    for one in found:
        one.close()
    return None


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
    run nothing of this is written. Inputs that cannot be used are named on stderr. Raises OutputError.
    """
    ledger = run.own
    counts = ledger.counts
    if counts.before:
        warn(f"{out}: {counts.before} of {total} {what} were done before")
    run.log.tell("started", inputs=total, before=counts.before)
    try:
        with scoring_bar(f"scoring {what}", total, counts.before) as advance:
            for entry in entries:
                if entry.reason:
                    warn(entry.reason)
                ledger.record(entry)
                run.log.tell_of(entry)
                advance(counts.failed)
    except KeyboardInterrupt:
        done = f"{out / SCORES}: stopped after {counts.done + counts.failed} of {total} {what}"
        goes_on = "the same command goes on" if ledger.path else "add --overwrite to score them all"
        raise KeyboardInterrupt(f"{done}; {goes_on}") from None
    finally:
        ledger.flush()
        run.log.tell("ended", done=counts.done, failed=counts.failed, of=total)
        if run.shard == WHOLE:
            write_tables(out, run, tables)
            at_end()


def complete(
    out: Path, identity: Mapping[str, Any], shard: Shard, tables: Tables, at_end: Callable[[Run], None]
) -> int | None:
    """After a part of a run has ended: where it was the last of all, the tables of the whole are written.

    How many inputs of the whole could not be used; None where other parts are still to end. Raises OutputError.
    """
    found = all_parts(out, identity, shard)
    if found is None:
        typer.echo(f"{out}: part {shard.index + 1} of {shard.of} is done; the last to end writes the tables")
        return None
    with closing(found):
        write_tables(out, found, tables)
        at_end(found)
        return sum(ledger.number_of("failed") for ledger in found.ledgers)


def write_tables(out: Path, run: Run, tables: Tables) -> None:
    """Raises OutputError."""
    for name, header in tables.items():
        write_rows(out / name, header, merged(run.ledgers, name))


def verdicts_identity(judge: Judge | None) -> dict[str, Any]:
    """What verdicts depend on, as part of a run's identity."""
    if judge is None:
        return {"calibration": None}
    calibration = judge.calibration
    images = hashlib.sha256("".join(calibration.images).encode()).hexdigest()
    affine = None if judge.affine is None else judge.affine.tolist()
    return {"calibration": images, "alpha": judge.alpha, "--fdr": judge.procedure, "--pixel-size": affine}
