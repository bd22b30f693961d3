"""The results of an output folder as the page needs them: studies and methods in their order, seeds together."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.measuring import POOLED
from benchmarks.method import Entry, Family
from benchmarks.results import Place, read_results
from benchmarks.studies import registry
from benchmarks.study import Study
from benchmarks.study_files import remembered

FAMILIES: dict[Family, str] = {
    "ours": "Ours",
    "anomalib": "Peers, by anomalib's code",
    "diffusion": "Diffusion peers, on the prior that KLIP learned",
    "simple": "Simple baselines",
}


@dataclass(frozen=True)
class Runs:
    """A method on a study with every seed: the results that are done, and those that failed."""

    entry: Entry
    study: str
    done: tuple[Mapping[str, Any], ...]
    failed: tuple[Mapping[str, Any], ...]

    @property
    def ours(self) -> bool:
        return self.entry.family == "ours"

    @property
    def whole(self) -> bool:
        """Whether it has judged every test image, so that its figures stand beside those of the others."""
        return bool(self.done) and all(one["score"]["every"] == 1 for one in self.done)

    @property
    def kinds(self) -> list[str]:
        return sorted({kind for one in self.done for kind in one["figures"]} - {POOLED})

    def values(self, figure: str, kind: str = POOLED) -> list[float]:
        """Of all seeds, as far as they are defined."""
        return _known(one["figures"].get(kind, {}).get(figure) for one in self.done)

    def value(self, figure: str, kind: str = POOLED) -> float | None:
        """The mean over seeds; None where the figure is not defined."""
        found = self.values(figure, kind)
        return statistics.fmean(found) if found else None

    def interval(self, figure: str, kind: str = POOLED) -> tuple[float | None, float | None]:
        """Its ends are the means of those of the seeds."""
        return _ends([one["figures"].get(kind, {}).get(figure) for one in self.done])

    def matched(self) -> tuple[float | None, float | None, float | None]:
        """Image AUROC among slices of the same height, with its interval; as the other figures."""
        found = [(one["matched_height"] or {}).get("image_auroc") for one in self.done]
        values = _known(found)
        return statistics.fmean(values) if values else None, *_ends(found)

    def place(self, out: Path, result: Mapping[str, Any]) -> Place:
        return Place(out, self.study, self.entry.name, result["seed"])


def _known(figures: Iterable[Mapping[str, Any] | None]) -> list[float]:
    return [one["value"] for one in figures if one and one["value"] is not None]


def _ends(figures: Sequence[Mapping[str, Any] | None]) -> tuple[float | None, float | None]:
    known = [one for one in figures if one and one["low"] is not None and one["high"] is not None]
    if not known:
        return None, None
    low, high = (statistics.fmean(one[end] for one in known) for end in ("low", "high"))
    return low, high


@dataclass(frozen=True)
class Gathered:
    """All results in `out` of the methods that there are. studies: those whose images are still there."""

    out: Path
    methods: Mapping[str, Entry]
    results: tuple[Mapping[str, Any], ...]
    studies: Mapping[str, Study]

    @classmethod
    def read(cls, out: Path, methods: Mapping[str, Entry]) -> Gathered:
        results = tuple(one for one in read_results(out) if one["method"] in methods)
        return cls(out, methods, results, remembered(out))

    @cached_property
    def names(self) -> list[str]:
        """The studies that have results, in the order of `registry`; others come last."""
        found = {one["study"] for one in self.results}
        known = [name for name in registry() if name in found]
        return known + sorted(found - set(known))

    @cached_property
    def seeds(self) -> list[int]:
        return sorted({one["seed"] for one in self.results})

    def runs(self, study: str) -> list[Runs]:
        """Of all methods that have been run on a study, in their order."""
        found = []
        for entry in self.methods.values():
            own = [one for one in self.results if (one["study"], one["method"]) == (study, entry.name)]
            if own:
                done = tuple(one for one in own if one["failed"] is None)
                found.append(Runs(entry, study, done, tuple(one for one in own if one["failed"] is not None)))
        return found

    def planted(self, study: str) -> bool:
        return any(one["planted"] for one in self.results if one["study"] == study)

    def title(self, study: str) -> str:
        """With what has to be known wherever its figures stand."""
        return f"{study} (planted lesions)" if self.planted(study) else study

    def missing(self) -> dict[str, list[str]]:
        """Where a method has no result, such as `head_ct` or `head_ct (seed 2)`, by method."""
        there = {(one["method"], one["study"], one["seed"]) for one in self.results}
        found: dict[str, list[str]] = {}
        for entry in self.methods.values():
            for study in self.names:
                lacking = [seed for seed in self.seeds if (entry.name, study, seed) not in there]
                if lacking and (not entry.only or study in entry.only):
                    some = f" (seed {', '.join(map(str, lacking))})" if len(lacking) < len(self.seeds) else ""
                    found.setdefault(entry.title, []).append(study + some)
        return found
