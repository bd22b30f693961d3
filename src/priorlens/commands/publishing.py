"""Results at an address (`--out s3://bucket/results`): a folder on this machine is sent there while it grows.

Files of an input are sent before its lines are in the ledger. The ledger's snapshot and the tables follow from time to
time, so that any machine can go on from what is there.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from priorlens.addresses import (
    Address,
    Found,
    content_at,
    fetch,
    listing,
    names_in,
    remove,
    require_file_system,
    send,
)
from priorlens.commands.terminal import warn
from priorlens.errors import InputError, OutputError
from priorlens.ledger import Damaged, InUse, Ledger, Stamp
from priorlens.outputs import prepare_folder, write_text

RUN, PUBLISHED = "run.sqlite", "published.json"
SCHEMA = 1

SECONDS = 300.0
"""Between two publications at least; longer where they take more than a tenth of the time."""

_OF_INPUTS = dict.fromkeys(("maps", "blocks", "reconstructions"), ".npy")
_OF_INPUTS |= dict.fromkeys(("overlays", "images", "segmentations", "truth"), ".png")
"""Folders of what is written for each input, and how its files end."""

_TABLES, _PAGES = "tables", "report"
_OWN = re.compile(r"[\w-]+\.(csv|json|html|sqlite)")
"""Names of files beside these folders."""


@dataclass(frozen=True)
class RemoteFolder:
    """A results folder at an address, and its copy on this machine, as plain facts for any process.

    keep: whether what was sent stays here too, for the page. host: the machine whose copy it is.
    """

    address: Address
    local: Path
    keep: bool
    host: str = field(default_factory=socket.gethostname)

    @classmethod
    def of(cls, address: Address, scratch: Path | None, *, keep: bool) -> RemoteFolder:
        """scratch: where copies lie; by default the user's cache. An address has always the same one.

        Raises InputError, WeightsError: nothing reaches such addresses.
        """
        require_file_system(address)
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "priorlens")
        tail = re.sub(r"[^\w.-]", "_", address.name)[-40:].lstrip(".")
        digest = hashlib.sha256(address.text.encode(errors="surrogateescape")).hexdigest()[:16]
        return cls(address, (scratch or cache).absolute() / f"{tail or 'results'}-{digest}", keep)

    def send(self, paths: Iterable[Path]) -> None:
        """Files of one input. Raises OutputError."""
        there = [path for path in paths if path.exists()]
        send((path, self.at(path)) for path in there)
        if not (self.keep and socket.gethostname() == self.host):
            for path in there:
                path.unlink(missing_ok=True)

    def at(self, path: Path) -> Address:
        return self.address / path.relative_to(self.local).as_posix()

    def fetch_pictures(self) -> None:
        """What the page shows of inputs that were scored elsewhere, or before. Raises InputError, OutputError."""
        for one in (found for name in _OF_INPUTS for found in _below(self.address, name)):
            path = self.local / one.relative
            if not path.exists():
                prepare_folder(path.parent, overwrite=True)
                partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
                fetch(one.address, partial)
                os.replace(partial, path)

    def send_page(self, page: Path, pages: Path) -> None:
        """The report, of one file or several. Raises OutputError."""
        send((path, self.at(path)) for path in (*sorted(pages.glob("*.html")), page) if path.is_file())


class Publisher:
    """What one run tells an address of itself. Only the run that has claimed it last may do so: others stop."""

    def __init__(self, folder: RemoteFolder) -> None:
        self.folder = folder
        self._claim = uuid.uuid4().hex
        self._number = 0
        self._sent: dict[Path, Stamp] = {}
        self._next = time.monotonic() + SECONDS
        self._lost = False

    def prepare(self, *, overwrite: bool) -> None:
        """The folder on this machine becomes what the address has, unless it is that or its continuation.

        overwrite: forget both, and remove what an earlier run has sent.

        Raises OutputError: another run is at work here; the address holds something else, and not `overwrite`; or it
        cannot be reached.
        """
        address, local = self.folder.address, self.folder.local
        _require_idle(local / RUN, address)
        try:
            theirs = content_at(address / PUBLISHED)
            if theirs is None and not overwrite and names_in(address):
                raise OutputError(f"{address}: is not empty; choose another --out or add --overwrite")
            self._number = 0 if theirs is None or overwrite else int(_facts(theirs, address).get("publications", 0))
            own = local / PUBLISHED
            if theirs is not None and not overwrite and own.is_file() and own.read_bytes() == theirs:
                return
            shutil.rmtree(local, ignore_errors=True)
            prepare_folder(local)
            if theirs is not None and overwrite:
                remove(_everything(address))
            elif self._number:
                fetch(address / RUN, local / RUN)
        except InputError as error:
            raise OutputError(str(error)) from None

    def claim(self) -> None:
        """From now on the address is this run's. Raises OutputError."""
        self._tell()

    def keep_up(self, ledger: Ledger, write_tables: Callable[[], None]) -> None:
        """Publish, if it is time to. Where the address cannot be reached, the next time will do.

        Raises OutputError: another run has claimed the address; the tables cannot be written.
        """
        if time.monotonic() < self._next:
            return
        write_tables()
        try:
            self.publish(ledger)
        except OutputError as error:
            if self._lost:
                raise
            warn(f"{error} (the run goes on)")
            self._next = time.monotonic() + SECONDS

    def publish(self, ledger: Ledger) -> None:
        """Tables, and a snapshot of the ledger. Nothing, where another run has claimed the address and this was told.

        Raises OutputError: another run has claimed it, or it cannot be reached.
        """
        if self._lost:
            return
        start = time.monotonic()
        self._require_own()
        self._send_tables()
        snapshot = self.folder.local / f".{RUN}.{os.getpid()}.partial"
        try:
            ledger.snapshot(snapshot)
            send([(snapshot, self.folder.address / RUN)])
        finally:
            snapshot.unlink(missing_ok=True)
        self._number += 1
        self._tell()
        now = time.monotonic()
        self._next = now + max(SECONDS, 10 * (now - start))

    def discard(self, names: Sequence[str], ledger: Ledger) -> None:
        """What was sent of inputs that are done anew, lest it be taken for a new result. Raises OutputError."""
        if names:
            self.publish(ledger)  # no snapshot is left that calls them done
        remove(
            self.folder.address / f"{folder}/{name}{suffix}" for name in names for folder, suffix in _OF_INPUTS.items()
        )

    def _require_own(self) -> None:
        address = self.folder.address
        try:
            theirs = content_at(address / PUBLISHED)
        except InputError as error:
            raise OutputError(str(error)) from None
        if theirs is not None and _facts(theirs, address).get("by") != self._claim:
            self._lost = True
            raise OutputError(f"{address}: another run has gone on from here; wait for it, or choose another --out")

    def _send_tables(self) -> None:
        """Those that have changed since; and those that are no more are removed."""
        files = {path: Stamp.of([path]) for path in _beside_inputs(self.folder.local)}
        changed = [path for path, stamp in files.items() if self._sent.get(path) != stamp]
        send((path, self.folder.at(path)) for path in changed)
        gone = list(self._sent) if self._sent else self._sent_earlier()
        remove(self.folder.at(path) for path in gone if path not in files)
        self._sent = files

    def _sent_earlier(self) -> list[Path]:
        """By other runs, as the address alone knows."""
        address, local = self.folder.address, self.folder.local
        names = [name for name in names_in(address) if _OWN.fullmatch(name) and name not in (RUN, PUBLISHED)]
        below = (one.relative for folder in (_TABLES, _PAGES) for one in _below(address, folder))
        return [local / name for name in (*names, *below)]

    def _tell(self) -> None:
        told = json.dumps({"schema": SCHEMA, "by": self._claim, "publications": self._number})
        partial = self.folder.local / f".{PUBLISHED}.{os.getpid()}.partial"
        write_text(partial, told)
        try:
            send([(partial, self.folder.address / PUBLISHED)])
            os.replace(partial, self.folder.local / PUBLISHED)
        finally:
            partial.unlink(missing_ok=True)


def _require_idle(ledger: Path, address: Address) -> None:
    """Raises OutputError: another run of this machine has it."""
    try:
        if ledger.exists():
            Ledger.require_idle(ledger)
    except Damaged:
        pass
    except InUse:
        raise InUse(f"{address}: another run writes there; wait for it, or choose another --out") from None


def _beside_inputs(local: Path) -> Iterator[Path]:
    """Files of a results folder that are of the run as a whole, but for its ledger."""
    for path in (*local.glob("*"), *local.glob(f"{_TABLES}/*/*")):
        if path.is_file() and not path.name.startswith((".", "run")) and path.name != PUBLISHED:
            yield path


def _below(address: Address, folder: str) -> list[Found]:
    """Files in a folder of an address, in depth, by their paths from the address; none where it is not there."""
    if folder not in names_in(address):
        return []
    return [Found(one.address, f"{folder}/{one.relative}", one.stamp) for one in listing(address / folder)]


def _everything(address: Address) -> Iterator[Address]:
    """What runs have sent to an address; the mark that they have comes last."""
    for folder in (*_OF_INPUTS, _TABLES, _PAGES):
        yield from (one.address for one in _below(address, folder))
    yield from (address / name for name in names_in(address) if _OWN.fullmatch(name) and name != PUBLISHED)
    yield address / PUBLISHED


def _facts(published: bytes, address: Address) -> dict[str, Any]:
    """Raises OutputError."""
    try:
        facts = json.loads(published)
    except ValueError:
        facts = None
    if not isinstance(facts, dict) or facts.get("schema") != SCHEMA:
        line = "is damaged, or of a newer version; upgrade priorlens, or add --overwrite to begin anew"
        raise OutputError(f"{address / PUBLISHED}: {line}")
    return facts
