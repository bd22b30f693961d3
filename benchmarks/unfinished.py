"""Where a training stands that was stopped: the same run goes on from there."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.results import Place
from priorlens.outputs import write_json

STATE = "state"
"""Folder within a task's own that outlives it until the model is there."""

_BEGUN = "begun.json"


@contextmanager
def continued(place: Place, fold: int, key: dict[str, Any], folder: Path) -> Iterator[float]:
    """Puts `STATE` into the folder of a task; yields the seconds that were learned for before, 0 for a new training.

    key: that of the run; a training of another one is begun anew.
    """
    kept = place.models / f"{fold}.unfinished"
    before = _seconds(kept, key)
    if not before:
        shutil.rmtree(kept, ignore_errors=True)
        (kept / STATE).mkdir(parents=True)
    write_json(kept / _BEGUN, {"key": key, "seconds": before, "at": time.time()})
    (folder / STATE).symlink_to(kept / STATE, target_is_directory=True)
    yield before
    shutil.rmtree(kept, ignore_errors=True)


def is_unfinished(place: Place) -> bool:
    """Whether a training of any fold would go on where it was."""
    return any(any((folder / STATE).iterdir()) for folder in place.models.glob("*.unfinished"))


def _seconds(kept: Path, key: dict[str, Any]) -> float:
    """Until the last state was written, all times that it was gone on with together."""
    try:
        begun = json.loads((kept / _BEGUN).read_text(encoding="utf-8"))
        last = max(path.stat().st_mtime for path in (kept / STATE).rglob("*") if path.is_file())
        return max(0.0, float(begun["seconds"]) + last - float(begun["at"])) if begun["key"] == key else 0.0
    except (OSError, ValueError, KeyError):
        return 0.0
