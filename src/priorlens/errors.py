"""Errors a user may see: one line each, naming the file and the remedy, and an exit code each."""

from __future__ import annotations

import re

EXIT_SOME_FAILED = 7
"""The run finished, but some inputs could not be used; each is named in the output."""

EXIT_ALARM = 8
"""The run finished, and a stream of scans has changed: the outputs say which and when."""

EXIT_INTERRUPTED = 130
"""Stopped by Ctrl-C: finished outputs are kept, nothing is half-written."""


_LONGEST = 8192
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


class PriorlensError(Exception):
    """Anything a user can put right. Its text is one line: what was wrong, with which file, what to do.

    Line ends and other control characters, which names and texts in files may hold, become marks: a terminal would
    obey them. What would fill the screen is cut off.
    """

    exit_code = 1

    def __str__(self) -> str:
        text = _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", super().__str__())
        return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


class InputError(PriorlensError):
    """An image, mask, folder or manifest that cannot be used.

    passing: whether it may be usable another time as it is: not there just now, or not to be read by this user.
    """

    exit_code = 3

    def __init__(self, line: str, *, passing: bool = False) -> None:
        super().__init__(line)
        self.passing = passing


class ModelError(PriorlensError):
    """A model folder that is missing, truncated, foreign or newer than this version."""

    exit_code = 4


class OutputError(PriorlensError):
    """A place that cannot be written: no permission, already in use, disk full."""

    exit_code = 5


class WeightsError(PriorlensError):
    """A backbone that is unknown, or whose weights cannot be had here."""

    exit_code = 6


class ProcessError(PriorlensError):
    """Several processes train one model together, and another of them has ended or cannot be reached."""

    exit_code = 9
