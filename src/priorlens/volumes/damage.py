"""Reading a file that may be damaged: whatever that raises becomes one line that names the file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from priorlens.errors import InputError


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raises InputError where `path` is no file that may be read, and in place of all that its content makes fail."""
    _require_file(path)
    try:
        yield
    except InputError:
        raise
    except PermissionError as error:  # which `os.access` may not have known, as on a network drive
        raise InputError(f"{path}: may not be read; change its permissions or leave it out") from error
    except Exception as error:  # a damaged file makes decoders fail in every way there is
        reason = " ".join(str(error).split()) or type(error).__name__
        reason = reason if len(reason) <= 200 else f"{reason[:200]}..."
        raise InputError(f"{path}: is truncated or damaged ({reason}); export it again or leave it out") from error


def _require_file(path: Path) -> None:
    try:
        if path.is_dir():
            raise InputError(f"{path}: is a folder, not a file; name the scan in it")
        if not path.exists():
            raise InputError(f"{path}: there is no such file; check the path")
        if not path.is_file():  # reading a pipe or a device might never end
            raise InputError(f"{path}: is not a regular file; copy the scan to one")
        if path.stat().st_size == 0:
            raise InputError(f"{path}: is empty; export it again or leave it out")
        if not os.access(path, os.R_OK):
            raise InputError(f"{path}: may not be read; change its permissions or leave it out")
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path}: cannot be read ({reason}); check the path and its permissions") from error
