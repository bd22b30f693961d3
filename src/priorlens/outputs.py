"""Files are written whole or not at all: into a hidden neighbour first, then renamed over the final name."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np

from priorlens.errors import OutputError

_REMEDIES = {
    errno.ENOSPC: "free some space, or choose an output folder on another disk",
    errno.EDQUOT: "free some of your quota, or choose an output folder on another disk",
    errno.EACCES: "choose an output folder you may write to",
    errno.EPERM: "choose an output folder you may write to",
    errno.EROFS: "choose an output folder that is not read-only",
    errno.ENOTDIR: "choose an output folder whose path does not pass through a file",
    errno.EISDIR: "a folder has this name; remove it or choose another output folder",
    errno.EEXIST: "a file has this name; remove it or choose another output folder",
    errno.ENOENT: "its folder is missing; create it first",
    errno.ENAMETOOLONG: "shorten the name of the input or of the output folder",
}


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path` for writing bytes; it takes the name `path` only once it is complete.

    On any failure inside the block, Ctrl-C included, the temporary file is removed and what was at `path` before
    stays as it was. Whatever the block reads should be read before it is entered: every OSError in it is taken for
    a failure to write.

    Raises:
        OutputError: the file cannot be written (no permission, disk full, read-only, ...).
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # else a crash just after the rename could leave an empty file under the final name
        os.replace(partial, path)
    except BaseException as error:
        _remove(partial)
        if isinstance(error, OSError):
            raise _output_error(path, error) from error
        raise


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8; file names that are not valid UTF-8 keep their own bytes. Raises OutputError."""
    content = text.encode("utf-8", errors="surrogateescape")
    with atomic_write(path) as file:
        file.write(content)


def write_json(path: Path, data: object) -> None:
    """Write `data` as indented JSON. Raises OutputError, and ValueError on nan or inf, which JSON does not have."""
    write_text(path, json.dumps(data, indent=2, allow_nan=False) + "\n")


def write_rows(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV table with one header line and `\\n` line ends. Raises OutputError.

    Cells may hold anything but a carriage return, which Python before 3.13 does not quote.
    """
    with atomic_write(path) as file:
        table = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
        table.flush()
        table.detach()


def write_array(path: Path, array: np.ndarray) -> None:
    """Write `array` as NPY, never pickled. Raises OutputError, and ValueError on an array of Python objects."""
    content = io.BytesIO()  # written to a real file, NumPy would hide the reason of a failure (ENOSPC among them)
    np.lib.format.write_array(content, array, allow_pickle=False)
    with atomic_write(path) as file:
        file.write(content.getbuffer())


def prepare_folder(path: Path, overwrite: bool = False) -> Path:
    """Create the output folder `path` with its parents, make sure that it can be written to, and return it.

    A folder that already holds something is refused unless `overwrite`; nothing in it is ever deleted here.

    Raises:
        OutputError: it is a file, not empty, or cannot be created or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not overwrite and any(path.iterdir()):
            raise OutputError(f"{path}: is not empty; choose another --out or add --overwrite")
        with tempfile.TemporaryFile(dir=path):  # permission bits do not tell: root, read-only mounts
            pass
    except OSError as error:
        raise _output_error(path, error) from error
    return path


def remove_unfinished(path: Path) -> None:
    """What processes that are gone have left half-written in a folder that no other writes to, in depth.

    A process of this machine that lives keeps its own; of another machine's nothing is known here.
    """
    for partial in list(path.rglob(".*.partial")):
        number = partial.name.split(".")[-2]
        if number.isdecimal() and not (int(number) != os.getpid() and _lives(int(number))):
            _remove(partial)
            shutil.rmtree(partial, ignore_errors=True)  # a data set of several files


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass
    return True


def _remove(partial: Path) -> None:
    with suppress(OSError):  # the failure being reported is the one that matters, and a `.partial` is never read
        partial.unlink(missing_ok=True)


def _output_error(path: Path, error: OSError) -> OutputError:
    reason = (error.strerror or str(error) or type(error).__name__).lower()
    remedy = _REMEDIES.get(error.errno or 0, "choose another output folder")
    return OutputError(f"{path}: cannot be written ({reason}); {remedy}")
