"""What happens while a run goes on, as lines of JSON for programs that watch it."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import TextIO

from priorlens.errors import OutputError
from priorlens.ledger import Entry


class EventLog:
    """Appends to a file, line by line; says nothing where there is none. Raises OutputError."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._file: TextIO | None = None
        if path is not None:
            try:
                self._file = open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
                raise OutputError(f"{path}: cannot be written ({reason}); choose another --log") from error

    def tell(self, event: str, **facts: object) -> None:
        if self._file is None:
            return
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        try:
            self._file.write(json.dumps({"time": now, "event": event, **facts}) + "\n")
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written ({error.strerror}); free some space") from error

    def tell_of(self, entry: Entry) -> None:
        """Of one input."""
        facts = {"input": entry.name, "content": entry.content}
        if entry.reason:
            self.tell("failed", **facts, reason=entry.reason, passing=entry.passing)
        else:
            self.tell("done", **facts)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
