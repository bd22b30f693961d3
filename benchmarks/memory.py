"""Memory of this process, and what becomes of it when memory runs out or the benchmark goes away."""

from __future__ import annotations

import ctypes
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def peak_mb() -> float:
    """Largest resident memory that this process has had so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)


def be_first_to_go() -> None:
    """Where memory runs out, let this process be the one that is killed; and let it end with the one that started it.

    Linux only; elsewhere nothing is done.
    """
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
