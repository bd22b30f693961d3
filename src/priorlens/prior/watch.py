"""How several processes that work together are: who has failed, and who is gone, so that none waits for it forever.

While a process waits for the others it looks, every second, whether one of them has said that it failed, and whether
all still give signs of life. There is therefore no limit to how long healthy processes may keep each other waiting.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable

from torch.distributed import Store

from priorlens.errors import PriorlensError, ProcessError

LOOK, BEAT = 1.0, 5.0
"""Seconds between two looks at the others, and between two signs of life."""

MISSED = 120
"""Looks without a new sign of life after which a process is taken for gone."""

_FAILED, _ALIVE, _DONE, _KNOWN = "failed", "alive", "done", "known"  # keys of the store
_GONE = "another process of this training has ended or cannot be reached; the same command with --resume goes on"


class Watch:
    """One process's view of all, by way of the store through which they found each other."""

    def __init__(self, store: Store, rank: int, count: int) -> None:
        self.store = store
        self.rank = rank
        self.others = [other for other in range(count) if other != rank]
        self._heard: dict[int, tuple[bytes, int]] = {}
        self._over = threading.Event()
        self._sign(0)
        for other in range(count):
            self.store.wait([f"{_ALIVE}/{other}"])
        threading.Thread(target=self._beat, daemon=True).start()

    def until(self, done: Callable[[], bool], longest: float = 1e-3) -> None:
        """Wait until `done`. Raises what another process has failed with, ProcessError where one is gone."""
        look, pause = time.monotonic() + LOOK, 5e-5
        while not done():
            time.sleep(pause)
            pause = min(2 * pause, longest)
            if time.monotonic() > look:
                self.look()
                look = time.monotonic() + LOOK

    def look(self) -> None:
        """Raises what another process has failed with, ProcessError where one is gone."""
        try:
            if self.store.check([_FAILED]):
                self._raise_failure()
            signs = {other: self.store.get(f"{_ALIVE}/{other}") for other in self.others}
        except RuntimeError as error:
            raise ProcessError(_GONE) from error
        for other, sign in signs.items():
            heard, looks = self._heard.get(other, (b"", 0))
            self._heard[other] = (sign, looks + 1 if sign == heard else 0)
            if looks > MISSED:
                raise ProcessError(f"process {other} of this training gives no sign of life: {_GONE}")

    def missed(self) -> ProcessError:
        """What to raise where the connection to another process has broken: why it failed, if it had time to say."""
        for _ in range(30):
            try:
                self.look()
            except ProcessError as error:
                return error
            time.sleep(0.1)
        return ProcessError(_GONE)

    def fail(self, error: BaseException) -> bool:
        """Say to all that this process has failed, unless another has said so before. Whether the first one knows.

        Waits for that some seconds; the first process for all, where the store goes with it.
        """
        told = str(error) if isinstance(error, PriorlensError) else f"{type(error).__name__}: {error}"
        code = 130 if isinstance(error, KeyboardInterrupt) else getattr(error, "exit_code", 1)
        own = json.dumps({"rank": self.rank, "code": code, "text": told})
        of_agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"  # torchrun keeps the store then
        awaited = [f"{_KNOWN}/{other}" for other in ([0] if self.rank else [] if of_agent else self.others)]
        try:
            if not self.store.check([_FAILED]):
                self.store.set(_FAILED, own)
            self.store.set(f"{_KNOWN}/{self.rank}", "")
            for _ in range(50):
                if not awaited or self.store.check(awaited):
                    return True
                time.sleep(0.1)
        except RuntimeError:  # the store is gone
            pass
        finally:
            self._over.set()
        return False

    def finish(self) -> None:
        """Wait until all are done; the first leaves last. Raises as `until`."""
        self.store.set(f"{_DONE}/{self.rank}", "")
        self.until(lambda: self._all_have(_DONE), 0.05)
        self._over.set()
        self.store.set(f"{_KNOWN}/{self.rank}", "")
        if self.rank == 0:
            self.until(lambda: self._all_have(_KNOWN), 0.05)

    def _all_have(self, key: str) -> bool:
        try:
            return self.store.check([f"{key}/{rank}" for rank in (self.rank, *self.others)])
        except RuntimeError as error:
            raise ProcessError(_GONE) from error

    def _raise_failure(self) -> None:
        failed = json.loads(self.store.get(_FAILED))
        if failed["code"] == 130:
            raise KeyboardInterrupt
        error = ProcessError(f"process {failed['rank']} of this training: {failed['text']}")
        error.exit_code = failed["code"]
        raise error

    def _beat(self) -> None:
        beats = 0
        while not self._over.wait(BEAT):
            beats += 1
            try:
                self._sign(beats)
            except RuntimeError:  # the store is gone: whoever waits finds out
                return

    def _sign(self, beats: int) -> None:
        self.store.set(f"{_ALIVE}/{self.rank}", str(beats))
