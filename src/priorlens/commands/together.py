"""One command in several processes, as torchrun and accelerate launch start it: it speaks, and fails, as one."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout

import typer

from priorlens.errors import EXIT_INTERRUPTED, PriorlensError

_SPEAKING = 0.5  # seconds for the first process to tell why all end, before torchrun ends it because another has


@contextmanager
def as_one() -> Iterator[None]:
    """Join the other processes where the environment says that there are some, and wait for them in the end.

    Only the first one speaks. Where one fails all end with its exit code, and its error is told once. Without others
    nothing is changed or imported.
    """
    if os.environ.get("WORLD_SIZE", "1") in ("", "0", "1"):
        yield
        return
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # else a broken connection fills the screen
    from priorlens.prior import processes

    watch = processes.join()
    first = processes.first()
    with ExitStack() as silent:
        if not first:
            silent.enter_context(redirect_stdout(io.StringIO()))
            silent.enter_context(redirect_stderr(io.StringIO()))
        try:
            yield
            watch.finish()
        except (PriorlensError, KeyboardInterrupt, typer.BadParameter) as error:
            told = watch.fail(error)
            if first or not told:
                raise
            time.sleep(_SPEAKING)
            raise typer.Exit(getattr(error, "exit_code", EXIT_INTERRUPTED)) from None
        except BaseException as error:
            watch.fail(error)
            raise
    processes.leave()
