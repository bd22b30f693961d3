"""What a run has done, input by input: kept in a small database, so that whatever stops the run loses no result.

An input's lines of all tables are written in one transaction. A run that is started again does only what is missing.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from priorlens.errors import OutputError

SCHEMA = 1
Row = Sequence[str]

TOGETHER = 64
"""Entries that are made durable at once, unless `SECONDS` pass before."""

SECONDS = 2.0

PATIENCE = 2.0
"""Seconds to wait for a ledger that another process has open: one that only looks into it closes it soon."""

_TABLES = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS inputs (
    name TEXT PRIMARY KEY, position INTEGER, file TEXT NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL,
    passing INTEGER NOT NULL, size INTEGER NOT NULL, modified INTEGER NOT NULL, content TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_position ON inputs (position);
CREATE TABLE IF NOT EXISTS rows (
    name TEXT, table_name TEXT, cells TEXT NOT NULL, PRIMARY KEY (name, table_name)
) WITHOUT ROWID;
"""
_NAMES = ("facts", "inputs", "rows")
_OF_THE_DISK = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)


class InUse(OutputError):
    """Another process has the ledger open."""


class Damaged(OutputError):
    """It is no ledger, or none that can be read."""


@dataclass(frozen=True)
class Stamp:
    """By what a file is known again: its size in bytes and when it was last modified, in nanoseconds.

    Of several files the sum, and the latest. A file that is not there has the stamp of nothing. Where a file system
    gives each version of a file a name, `modified` is a number made of that.
    """

    size: int = 0
    modified: int = 0

    @classmethod
    def of(cls, paths: Iterable[Path]) -> Stamp:
        size = modified = 0
        for path in paths:
            with suppress(OSError, ValueError):
                found = path.stat()
                size, modified = size + found.st_size, max(modified, found.st_mtime_ns)
        return cls(size, modified)


@dataclass(frozen=True)
class Input:
    """One input of a run. name: what results call it, unique. position: its place among all, in the tables too."""

    name: str
    file: str
    position: int
    stamp: Stamp


@runtime_checkable
class Listed(Protocol):
    """Whatever can be an input: what results call it, what tables call its file, and by what that is known again."""

    @property
    def name(self) -> str: ...

    @property
    def file(self) -> str: ...

    def stamp(self) -> Stamp: ...


@dataclass(frozen=True)
class Entry:
    """What came of an input: its lines, by table. reason: why it could not be used; empty where it could.

    passing: whether the reason may have passed the next time, such as a file that could not be read. content: hash of
    what was read.
    """

    name: str
    rows: Mapping[str, Sequence[Row]]
    stamp: Stamp
    reason: str = ""
    passing: bool = False
    content: str = ""


@dataclass
class Counts:
    """done, failed: of the inputs of this run; before: how many of both there were when it began."""

    done: int = 0
    failed: int = 0
    before: int = 0


@dataclass
class Ledger:
    """The entries of one run, or of one part of it.

    While it is open, no other process can open it: a second run into the same folder is refused, and a lock left by a
    killed one is none. anew: positions of the inputs that are to be done once more, since they changed or failed.
    """

    path: Path | None
    connection: sqlite3.Connection
    counts: Counts = field(default_factory=Counts)
    anew: list[int] = field(default_factory=list)
    _waiting: list[Entry] = field(default_factory=list)
    _written: float = field(default_factory=time.monotonic)

    @classmethod
    def in_memory(cls) -> Ledger:
        """For a run that is not to be gone on with."""
        connection = sqlite3.connect(":memory:", isolation_level=None)
        connection.executescript(_TABLES)
        return cls(None, connection)

    @classmethod
    def open(cls, path: Path, identity: Mapping[str, Any], *, fresh: bool, called: object = None) -> Ledger:
        """Begin a run, or go on with one of the same identity: of the same model, options and whatever else changes
        results. fresh: forget what was done before. called: of what place the results are, if not of its folder.

        Raises:
            OutputError: another run writes it; or it is of another identity, or damaged, and not `fresh`.
        """
        try:
            return cls._begin(path, identity, fresh=fresh, called=called)
        except Damaged:
            if not fresh:
                raise
            _remove(path)
            return cls._begin(path, identity, fresh=True, called=called)

    @classmethod
    def require_idle(cls, path: Path) -> None:
        """Raises InUse where another process has it open, Damaged."""
        cls._connect(path, fresh=False).connection.close()

    @classmethod
    def _begin(cls, path: Path, identity: Mapping[str, Any], *, fresh: bool, called: object) -> Ledger:
        ledger = cls._connect(path, fresh=fresh)
        wanted = {"schema": SCHEMA, **identity}
        try:
            found = ledger.fact("identity")
            if found is None:
                ledger.note("identity", json.dumps(wanted, sort_keys=True))
            elif found != json.dumps(wanted, sort_keys=True):
                changed = _difference(json.loads(found), wanted)
                raise OutputError(
                    f"{called or path.parent}: holds results of another {changed}; choose another --out, or add "
                    "--overwrite to begin anew"
                )
        except OutputError:
            ledger.connection.close()
            raise
        return ledger

    @classmethod
    def _connect(cls, path: Path, *, fresh: bool) -> Ledger:
        """With the lock on it, for as long as it is open."""
        with _told(path):
            connection = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)
            try:
                connection.execute("PRAGMA locking_mode = EXCLUSIVE")  # from the first change on until it is closed
                connection.execute("BEGIN EXCLUSIVE")
                for name in _NAMES if fresh else ():
                    connection.execute(f"DROP TABLE IF EXISTS {name}")
                for statement in _TABLES.split(";"):
                    connection.execute(statement)
                connection.execute("COMMIT")
            except sqlite3.Error:
                connection.close()
                raise
        return cls(path, connection)

    def fact(self, name: str) -> str | None:
        """What was noted under a name, if anything. Raises OutputError."""
        with _told(self.path):
            found = self.connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return None if found is None else str(found[0])

    def note(self, name: str, value: str) -> None:
        """Raises OutputError."""
        with _told(self.path):
            self.connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def pending(self, inputs: Iterable[Input], elsewhere: Mapping[str, str] | None = None) -> list[int]:
        """The positions of the inputs that are still to be done.

        Not those that are `settled` here, or `elsewhere`: of their names, `done` or `failed`. All others that the
        ledger knows are no more part of the run. Raises OutputError.
        """
        todo = []
        execute = self.connection.execute
        with self._transaction():
            execute("UPDATE inputs SET position = NULL")
            for one in inputs:
                key = _key(one.name)
                known = elsewhere.get(one.name, "") if elsewhere else ""
                if state := known or self.settled(one):
                    if not known:
                        execute("UPDATE inputs SET position = ? WHERE name = ?", (one.position, key))
                    self.counts.before += 1
                    self.counts.failed += state == "failed"
                    self.counts.done += state != "failed"
                    continue
                if execute("SELECT 1 FROM inputs WHERE name = ? AND state != 'pending'", (key,)).fetchone():
                    self.anew.append(one.position)
                execute("DELETE FROM rows WHERE name = ?", (key,))
                execute(
                    "INSERT OR REPLACE INTO inputs VALUES (?, ?, ?, 'pending', '', 0, ?, ?, '')",
                    (key, one.position, _key(one.file), one.stamp.size, one.stamp.modified),
                )
                todo.append(one.position)
        return todo

    def place(self, inputs: Iterable[Input]) -> dict[str, str]:
        """Give those of the inputs that are `settled` here their places, and all else none: whether each is `done` or
        `failed`, by name. So that of several parts of a run only one has the lines of an input. Raises OutputError.
        """
        found = {}
        with self._transaction():
            self.connection.execute("UPDATE inputs SET position = NULL")
            for one in inputs:
                if state := self.settled(one):
                    found[one.name] = state
                    change = "UPDATE inputs SET position = ? WHERE name = ?"
                    self.connection.execute(change, (one.position, _key(one.name)))
        return found

    def settled(self, one: Input) -> str:
        """`done`; or `failed`, for a reason that will not pass; for as long as the file is the same. Else empty."""
        query = "SELECT state, passing, size, modified, file FROM inputs WHERE name = ?"
        known = self.connection.execute(query, (_key(one.name),)).fetchone()
        if known is None or Stamp(known[2], known[3]) != one.stamp or known[4] != _key(one.file):
            return ""
        return known[0] if known[0] == "done" or (known[0] == "failed" and not known[1]) else ""

    def record(self, entry: Entry) -> None:
        """Durable at the latest when `TOGETHER` entries or `SECONDS` have passed. Raises OutputError."""
        self._waiting.append(entry)
        if entry.reason:
            self.counts.failed += 1
        else:
            self.counts.done += 1
        if len(self._waiting) >= TOGETHER or time.monotonic() - self._written > SECONDS:
            self.flush()

    def flush(self) -> None:
        """Make everything durable that was recorded. Raises OutputError."""
        with self._transaction():
            for entry in self._waiting:
                self._write(entry)
        self._waiting, self._written = [], time.monotonic()

    def lines(self, table: str) -> Iterator[list[str]]:
        """The lines of a table, in the order of the inputs. Raises OutputError."""
        for _, cells in self._placed(table):
            yield cells

    def snapshot(self, path: Path) -> None:
        """A copy of it as it is now, with all that was recorded. Raises OutputError."""
        self.flush()
        with _told(path), closing(sqlite3.connect(path)) as copy:
            self.connection.backup(copy)

    def close(self) -> None:
        """What was recorded is durable, and others may open it. Raises OutputError."""
        try:
            self.flush()
        finally:
            self.connection.close()

    def number_of(self, state: str) -> int:
        """Of the inputs of the run, how many are `pending`, `done` or `failed`. Raises OutputError."""
        query = "SELECT count(*) FROM inputs WHERE state = ? AND position IS NOT NULL"
        with _told(self.path):
            return int(self.connection.execute(query, (state,)).fetchone()[0])

    def _placed(self, table: str) -> Iterator[tuple[int, list[str]]]:
        query = (
            "SELECT position, cells FROM inputs JOIN rows USING (name) "
            "WHERE table_name = ? AND position IS NOT NULL ORDER BY position"
        )
        with _told(self.path):
            for position, lines in self.connection.execute(query, (table,)):
                for cells in json.loads(lines):
                    yield position, cells

    def _write(self, entry: Entry) -> None:
        key, state = _key(entry.name), "failed" if entry.reason else "done"
        execute = self.connection.execute
        execute("DELETE FROM rows WHERE name = ?", (key,))
        execute(
            "UPDATE inputs SET state = ?, reason = ?, passing = ?, size = ?, modified = ?, content = ? WHERE name = ?",
            (state, _key(entry.reason), entry.passing, entry.stamp.size, entry.stamp.modified, entry.content, key),
        )
        for table, rows in entry.rows.items():
            lines = json.dumps([list(map(str, row)) for row in rows])
            execute("INSERT INTO rows VALUES (?, ?, ?)", (key, table, lines))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All of it or nothing."""
        with _told(self.path):
            self.connection.execute("BEGIN")
            try:
                yield
            except BaseException:
                with suppress(sqlite3.Error):  # a full disk has rolled it back already
                    self.connection.execute("ROLLBACK")
                raise
            self.connection.execute("COMMIT")


def merged(ledgers: Sequence[Ledger], table: str) -> Iterator[list[str]]:
    """The lines of a table over the parts of a run, in the order of the inputs. Raises OutputError."""
    for _, cells in heapq.merge(*(one._placed(table) for one in ledgers), key=lambda found: found[0]):
        yield cells


def content_of(path: Path) -> str:
    """SHA-256 of a file, empty where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):
        return ""


def _key(text: str) -> str:
    """Names of files may hold bytes that are no text; a database of text takes them escaped."""
    return json.dumps(text)


def _difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    names = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
    return " and ".join(names) or "run"


def _remove(path: Path) -> None:
    for suffix in ("", "-journal", "-wal", "-shm"):
        with suppress(OSError):
            path.with_name(path.name + suffix).unlink(missing_ok=True)


@contextmanager
def _told(path: Path | None) -> Iterator[None]:
    """Whatever the database says becomes OutputError."""
    try:
        yield
    except sqlite3.Error as error:
        where, code = path or Path("results"), getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise InUse(
                f"{where.parent}: another run writes into this folder; wait for it, or choose another --out"
            ) from error
        if code == sqlite3.SQLITE_FULL:
            line = "cannot be written (no space left); free some space, then the same command goes on"
            raise OutputError(f"{where}: {line}") from error
        if code in _OF_THE_DISK:
            line = f"cannot be written ({error}); free some space or mend the disk, then the same command goes on"
            raise OutputError(f"{where}: {line}") from error
        raise Damaged(f"{where}: cannot be used ({error}); remove it, or add --overwrite to begin anew") from error
