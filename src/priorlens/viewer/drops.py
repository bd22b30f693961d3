"""Files that the page is given, from their arrival until they are cases on the shelf."""

from __future__ import annotations

import queue
import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from priorlens.errors import InputError
from priorlens.outputs import prepare_folder
from priorlens.viewer.scorer import Scorer
from priorlens.viewer.shelf import Shelf
from priorlens.viewer.uploads import place_for

State = Literal["receiving", "waiting", "scoring", "done", "failed", "cancelled"]

MOST_FILES = 5000
"""Of one drop: a long DICOM series has some thousands."""

_OVER: tuple[State, ...] = ("done", "failed", "cancelled")
_WORDS: dict[State, str] = {
    "receiving": "receiving files",
    "waiting": "waiting for its turn",
    "scoring": "the model is being read",
    "cancelled": "cancelled",
}


@dataclass(frozen=True)
class Drop:
    """Where some files stand. done, total: parts or images, once they are scored. cases: their numbers, once done."""

    number: int
    state: State = "receiving"
    done: int = 0
    total: int = 0
    words: str = _WORDS["receiving"]
    cases: tuple[int, ...] = ()
    files: int = 0
    bytes_held: int = 0


class Drops:
    """Scores drops one after the other in the order in which they are started, in a thread that waits for a process.

    folder: where files and results are kept. of_scans: what the model takes. most_bytes: of all files of one drop.
    """

    def __init__(self, folder: Path, shelf: Shelf, scorer: Scorer, *, of_scans: bool, most_bytes: int) -> None:
        self.folder, self.shelf, self.scorer = folder, shelf, scorer
        self.of_scans, self.most_bytes = of_scans, most_bytes
        self._drops: dict[int, Drop] = {}
        self._lock = threading.Lock()
        self._started: queue.Queue[int] = queue.Queue()
        threading.Thread(target=self._work, daemon=True).start()

    def new(self) -> Drop:
        with self._lock:
            drop = Drop(len(self._drops) + 1)
            self._drops[drop.number] = drop
        prepare_folder(self._files(drop.number), overwrite=True)
        return drop

    def get(self, number: int) -> Drop | None:
        return self._drops.get(number)

    def place(self, number: int, name: PurePosixPath) -> Path:
        """Where a file of a drop is to be written. Raises InputError for a drop that takes no more."""
        drop = self._drops[number]
        if drop.state != "receiving" or drop.files >= MOST_FILES:
            raise InputError(f"no more files can be added (at most {MOST_FILES}); drop them again")
        path = place_for(self._files(number), name)
        prepare_folder(path.parent, overwrite=True)
        return path

    def room(self, number: int) -> int:
        """Bytes that may still be added."""
        return self.most_bytes - self._drops[number].bytes_held

    def take(self, number: int, size: int) -> None:
        """Bytes of a file that arrives; fewer than none where it is not kept."""
        self._tell(number, bytes_held=self._drops[number].bytes_held + size)

    def added(self, number: int) -> None:
        """A file has arrived whole."""
        self._tell(number, files=self._drops[number].files + 1)

    def start(self, number: int) -> None:
        """Raises InputError for a drop that has no file, or was started before."""
        drop = self._drops[number]
        if drop.state != "receiving" or not drop.files:
            raise InputError("there is nothing to score: files come first, and are scored once; drop them again")
        self._tell(number, state="waiting", words=_WORDS["waiting"])
        self._started.put(number)

    def cancel(self, number: int) -> None:
        """A drop that is over stays as it is."""
        with self._lock:
            drop = self._drops[number]
            if drop.state in _OVER:
                return
            self._drops[number] = replace(drop, state="cancelled", words=_WORDS["cancelled"])
        if drop.state == "scoring":
            self.scorer.stop()
        if drop.state == "receiving":
            shutil.rmtree(self._files(number), ignore_errors=True)

    def close(self) -> None:
        """Stops everything, and begins nothing more."""
        for number in tuple(self._drops):
            self.cancel(number)
        self.scorer.stop()

    def _files(self, number: int) -> Path:
        return self.folder / f"drop-{number}" / "files"

    def _tell(self, number: int, **facts: object) -> None:
        """What is new of a drop, unless it was cancelled."""
        with self._lock:
            drop = self._drops[number]
            if drop.state not in _OVER:
                self._drops[number] = replace(drop, **facts)  # type: ignore[arg-type]

    def _work(self) -> None:
        while True:
            number = self._started.get()
            try:
                if self._drops[number].state == "waiting":
                    self._score(number)
            except Exception as error:  # the next drop may do better
                self._tell(number, state="failed", words=f"could not be scored ({type(error).__name__}); drop it again")
            shutil.rmtree(self._files(number), ignore_errors=True)

    def _score(self, number: int) -> None:
        self._tell(number, state="scoring", words=_WORDS["scoring"])
        out = self.folder / f"drop-{number}" / "results"
        what = "part" if self.of_scans else "image"

        def tell(done: int, total: int) -> None:
            if self._drops[number].state == "cancelled":  # before there was anything to stop
                self.scorer.stop()
            self._tell(number, done=done, total=total, words=f"{done} of {total} {what}{'s' * (total != 1)} scored")

        try:
            self.scorer.run(self._files(number), out, tell)
            if self._drops[number].state == "cancelled":
                return
            cases = self.shelf.add(out, dropped=True)
        except InputError as error:
            self._tell(number, state="failed", words=self._reason(str(error), number))
        else:
            self._tell(number, state="done", words=_told(cases), cases=tuple(cases))

    def _reason(self, line: str, number: int) -> str:
        """An error names files by their paths here, which are nobody's business; nor are names that are hidden."""
        if self.shelf.hide:
            return "could not be scored; without --hide-identifiers the reason is told"
        return line.replace(f"{self._files(number)}/", "").replace(f"{self.folder}/", "")


def _told(cases: Sequence[int]) -> str:
    return f"{len(cases)} case{'s' * (len(cases) != 1)} added"
