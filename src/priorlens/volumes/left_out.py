"""What was found but is not used, and why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class LeftOut:
    """A file that is not used; `reason` is one line that names it and the remedy."""

    path: Path
    reason: str
