"""Scored images whose p-values do not hold: those that the model has met, and those unlike what it was fitted to."""

from __future__ import annotations

from pathlib import Path

from priorlens.calibrating import require_size
from priorlens.commands.terminal import warn
from priorlens.errors import InputError
from priorlens.provenance import Provenance, image_fingerprint
from priorlens.scoring import Scored
from priorlens.verdicts import Judge, Judgement, met_before


class Doubts:
    """Told of every image that is judged; warns of all together in the end."""

    def __init__(self, judge: Judge | None, fitted: Provenance) -> None:
        self._fitted = fitted
        self._known = met_before(judge, fitted)
        self._met: list[Path] = []
        self._sizes: list[Path] = []

    def add(self, scored: Scored, judgement: Judgement | None) -> None:
        """Look at one image."""
        if judgement is None:
            return
        if image_fingerprint(scored.image) in self._known:
            self._met.append(scored.case.path)
        try:
            require_size(scored.image, self._fitted.sides)
        except InputError:
            self._sizes.append(scored.case.path)

    def tell(self) -> None:
        """A line for each kind of doubt that there is."""
        for paths, why in (
            (self._met, "the model was fitted to or calibrated on it"),
            (self._sizes, "is more than twice as large or small as the images that the model was fitted to"),
        ):
            if paths:
                others = f" and {len(paths) - 1} others" if len(paths) > 1 else ""
                warn(f"{paths[0]}{others}: {why}; its p-value means nothing")
