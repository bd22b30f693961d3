"""GDCM in a process of its own: it ends the process that runs it on some damaged files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np

TIMEOUT = 120.0
"""Seconds after which the frames of one file count as undecodable."""


class Decoder:
    """A child process that decodes file after file; started when first needed, ended with the `with` block.

    One that dies of a file is replaced for the next.
    """

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()

    def decode(self, path: Path, frames: Sequence[int]) -> list[np.ndarray]:
        """Stored values of the frames, each (row, column). Raises RuntimeError where they cannot be decoded."""
        if self._child is None:
            # -P: the folder of this file holds modules whose names others may have too.
            command = [sys.executable, "-P", __file__]
            pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
            self._child = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=nowhere)
        timer = threading.Timer(TIMEOUT, self._child.kill)
        timer.start()
        try:
            return self._ask(self._child, path, frames)
        except (OSError, ValueError) as error:  # a pipe that broke, an answer that was cut off
            self._end()
            raise RuntimeError("the decoder stopped, the pixels are damaged") from error
        finally:
            timer.cancel()

    def _ask(self, child: subprocess.Popen[bytes], path: Path, frames: Sequence[int]) -> list[np.ndarray]:
        assert child.stdin and child.stdout
        child.stdin.write(json.dumps([os.path.abspath(path), list(frames)]).encode() + b"\n")
        child.stdin.flush()
        found = []
        for _ in frames:
            answer = json.loads(child.stdout.readline())
            if "error" in answer:
                raise RuntimeError(answer["error"])
            dtype, shape = np.dtype(answer["dtype"]), tuple(answer["shape"])
            content = child.stdout.read(dtype.itemsize * int(np.prod(shape)))
            found.append(np.frombuffer(content, dtype).reshape(shape))
        return found

    def _end(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None


def _answers(path: str, frames: Sequence[int]) -> Iterator[bytes]:
    from pydicom import dcmread
    from pydicom.pixels import iter_pixels

    try:
        for stored in iter_pixels(dcmread(path), indices=frames, raw=True):
            header = {"dtype": stored.dtype.str, "shape": stored.shape}
            yield json.dumps(header).encode() + b"\n" + stored.tobytes()
    except Exception as error:
        yield json.dumps({"error": str(error)}).encode() + b"\n"


def _serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answers every line of `requests`, [path, frames], until there are no more."""
    for request in requests:
        for answer in _answers(*json.loads(request)):
            answers.write(answer)
        answers.flush()


if __name__ == "__main__":
    own = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what GDCM prints must not get between the answers
    with open(own, "wb") as stdout:
        _serve(sys.stdin.buffer, stdout)
