"""Scored images whose p-values do not hold: those that the model has met, and those unlike what it was fitted to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from priorlens.calibrating import require_size
from priorlens.commands.terminal import warn
from priorlens.errors import InputError
from priorlens.provenance import Provenance, image_fingerprint
from priorlens.scoring import Scored
from priorlens.verdicts import Judge, met_before

DOUBTS = "doubts"
"""A table of the ledger that is not written: which doubt, and of which file."""

_WHY = {
    "met": "the model was fitted to or calibrated on it",
    "size": "is more than twice as large or small as the images that the model was fitted to",
}


class Doubts:
    """Looks at every image that is judged."""

    def __init__(self, judge: Judge | None, fitted: Provenance) -> None:
        self._fitted = fitted
        self._known = met_before(judge, fitted)

    def of(self, scored: Scored) -> list[tuple[str, str]]:
        """Lines of `DOUBTS` about one image."""
        file, found = scored.case.file, []
        if image_fingerprint(scored.image) in self._known:
            found.append(("met", file))
        try:
            require_size(scored.image, self._fitted.sides)
        except InputError:
            found.append(("size", file))
        return found


def tell(lines: Iterable[Sequence[str]]) -> None:
    """A warning for each kind of doubt that there is."""
    files: dict[str, list[str]] = {kind: [] for kind in _WHY}
    for kind, file in lines:
        files[kind].append(file)
    for kind, found in files.items():
        if found:
            others = f" and {len(found) - 1} others" if len(found) > 1 else ""
            warn(f"{found[0]}{others}: {_WHY[kind]}; its p-value means nothing")
