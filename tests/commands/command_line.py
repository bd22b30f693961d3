"""What a command line came to, and the types of the fixtures that all tests of commands share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SMALL = ("--size", "64", "--steps", "3", "--threads", "1")
"""Options of a fit that is as small as it can be: a few steps of training for each scale."""

SMALL_SCANS = ("--size", "64", "--steps", "2", "--threads", "1")
"""The same of a fit to scans."""

UNCALIBRATED = (
    *("fit again with --resume for p-values", "no images were kept aside for p-values"),
    *("HEALTHY for p-values", "no scans were kept aside for p-values"),
)
"""What `score`, `evaluate` and `fit` add where a model is not calibrated: most of those in these tests are not."""

Command = Callable[..., "Ran"]
Draw = Callable[..., Path]


@dataclass(frozen=True)
class Ran:
    """What came of a command line."""

    code: int
    stdout: str
    stderr: str

    @property
    def told(self) -> list[str]:
        """What it says on stderr in its own name, but for the note that a model is not calibrated."""
        lines = [line for line in self.stderr.splitlines() if line.startswith("priorlens: ")]
        return [line for line in lines if not any(note in line for note in UNCALIBRATED)]

    def refused(self, code: int, *parts: object) -> None:
        """It ended with this exit code and one line on stderr, which has all these parts."""
        lines = self.told
        assert self.code == code, self
        assert len(lines) == 1 and "Traceback" not in self.stderr, self.stderr
        for part in parts:
            assert str(part) in lines[0], lines[0]
