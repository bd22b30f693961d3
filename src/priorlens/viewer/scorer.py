"""A process of its own that scores what the page was given: whatever a file does to it, the page stays."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from priorlens.errors import InputError, PriorlensError

Tell = Callable[[int, int], None]
"""Called with pieces of work done and pieces in all."""

ScoreFolder = Callable[[Path, Path, Tell], None]
"""Scores the files of the first folder into the second, a results folder. Has a name in a module, to be sent over."""


class Scorer:
    """Starts the process when something is first scored, and again where it has died or was stopped.

    The process writes nothing to the terminal, where names of files would be seen.
    """

    def __init__(self, score: ScoreFolder) -> None:
        self.score = score
        self._process: Any = None
        self._connection: Connection | None = None
        self._lock = threading.RLock()

    def run(self, files: Path, out: Path, tell: Tell) -> None:
        """Raises InputError: nothing could be scored, or the process was stopped or died."""
        connection = self._connected()
        try:
            connection.send((files, out))
            while True:
                match connection.recv():
                    case ("progress", done, total):
                        tell(done, total)
                    case ("done",):
                        return
                    case ("failed", line):
                        raise InputError(line)
        except (EOFError, OSError) as error:
            self.stop()
            raise InputError("scoring was stopped from outside, for want of memory perhaps; give fewer") from error

    def stop(self) -> None:
        """Now, whatever it does."""
        with self._lock:
            process, connection = self._process, self._connection
            self._process = self._connection = None
            if process is not None:
                process.kill()
                process.join()
            if connection is not None:
                connection.close()

    def _connected(self) -> Connection:
        with self._lock:  # one that is being started cannot be stopped
            if self._connection is not None and self._process.is_alive():
                return self._connection
            self.stop()
            context = multiprocessing.get_context("spawn")
            self._connection, other = context.Pipe()
            self._process = context.Process(target=_work, args=(other, self.score), daemon=True)
            self._process.start()
            other.close()
            return self._connection


def _work(connection: Connection, score: ScoreFolder) -> None:
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    while True:
        try:
            files, out = connection.recv()
        except EOFError:
            return
        try:
            score(files, out, lambda done, total: connection.send(("progress", done, total)))
            connection.send(("done",))
        except PriorlensError as error:
            connection.send(("failed", str(error)))
        except Exception as error:  # told to the page; the next files may do better
            connection.send(("failed", f"could not be scored ({type(error).__name__}); export it again"))
