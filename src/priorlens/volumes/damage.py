"""Reading a file that may be damaged: whatever that raises becomes one line that names the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from priorlens.errors import InputError
from priorlens.images import require_content


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raises InputError where `path` is no file that may be read, and in place of all that its content makes fail."""
    require_content(path, "not a file; name the scan in it", "the scan")
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
