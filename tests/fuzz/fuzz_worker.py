"""A process that gives case after case to a reader, and says what came of each: a line of JSON in, a line out.

Ended by an alarm where a case takes too long, whatever it does; memory beyond the bound is refused by the kernel.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import BinaryIO

from contracts import BOUNDS, SECONDS, read, require_line

ROOM = 8 * 2**30
"""Address space beside the bound: libraries reserve far more than they use."""


def peak() -> int:
    """Bytes that this process held at most since `forget_peak`."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def forget_peak() -> int:
    """Begin anew; the bytes that are held now."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # not allowed here: the peak is then that of all cases so far
        return peak()
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def limit_memory(bound: int) -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + bound + ROOM, hard))


def outcome(reader: str, folder: Path, target: str) -> tuple[str, str]:
    """accepted, refused or broken, and the line or the traceback that belongs to it."""
    from priorlens.errors import PriorlensError

    try:
        read(reader, folder, target)
        return "accepted", ""
    except PriorlensError as error:
        try:
            require_line(str(error), folder)
        except AssertionError as wrong:
            return "broken", f"the line {wrong}"
        return "refused", str(error)
    except BaseException:
        return "broken", traceback.format_exc()


def serve(requests: BinaryIO, answers: BinaryIO, printed: BinaryIO) -> None:
    for line in requests:
        request = json.loads(line)
        reader, folder = request["reader"], Path(request["folder"])
        limit_memory(BOUNDS[reader])
        before, start = forget_peak(), time.perf_counter()
        signal.alarm(SECONDS)  # which ends the process, even inside a library
        what, words = outcome(reader, folder, request["target"])
        signal.alarm(0)
        seconds, used = time.perf_counter() - start, max(0, peak() - before)
        sys.stderr.flush(), sys.stdout.flush()
        printed.seek(0)
        told = printed.read()
        printed.seek(0), printed.truncate()
        if told:
            what, words = "broken", f"printed: {told.decode(errors='replace')[:4_000]}\n{words}"
        if used > BOUNDS[reader]:
            what, words = "broken", f"took {used} bytes, the bound is {BOUNDS[reader]}; {words}"
        answer = {"what": what, "words": words, "seconds": seconds, "bytes": used}
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()


def main() -> None:
    own = os.dup(1)
    with open("printed", "w+b", buffering=0) as printed, open(own, "wb") as answers:
        os.dup2(printed.fileno(), 1)
        os.dup2(printed.fileno(), 2)
        serve(sys.stdin.buffer, answers, printed)


if __name__ == "__main__":
    main()
