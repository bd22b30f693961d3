"""The results of an output folder as the page needs them: studies and methods in their order, seeds together."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.folds import within_folds
from benchmarks.measuring import POOLED
from benchmarks.method import Entry, Family
from benchmarks.results import Place, place_of, read_results, read_scores, study_fingerprint
from benchmarks.studies import registry
from benchmarks.study import Study
from benchmarks.study_files import remembered
from priorlens.datasets import HEALTHY
from priorlens.errors import InputError
from priorlens.evaluation import Outcome

FAMILIES: dict[Family, str] = {
    "ours": "Ours",
    "anomalib": "Peers, by anomalib's code",
    "diffusion": "Diffusion peers, on the prior that KLIP learned",
    "simple": "Simple baselines",
}


@dataclass(frozen=True)
class Runs:
    """A method on a study with every seed: the results that are done, and those that failed.

    within: whether image figures are those within folds.
    """

    entry: Entry
    study: str
    done: tuple[Mapping[str, Any], ...]
    failed: tuple[Mapping[str, Any], ...]
    within: bool = False

    @property
    def ours(self) -> bool:
        return self.entry.family == "ours"

    @property
    def whole(self) -> bool:
        """Whether it has judged every test image, so that its figures stand beside those of the others."""
        return bool(self.done) and all(one["score"]["every"] == 1 for one in self.done)

    @property
    def unsettled(self) -> bool:
        """Whether the loss was still falling when any of its trainings ended."""
        return any((one["fit"] or {}).get("converged") is False for one in self.done)

    @property
    def times(self) -> list[Mapping[str, Any]]:
        """Of scoring: those taken in turns with other methods, and only where there are none, all."""
        every = [one["score"]["ms_per_image"] for one in self.done]
        return [one for one in every if one.get("interleaved")] or every

    @property
    def in_turns(self) -> bool:
        """Whether its `times` were taken in turns with other methods; else while the test images were judged."""
        return any(one.get("interleaved") for one in self.times)

    @property
    def processors(self) -> list[str]:
        """As its results tell them: earlier ones without family and model."""
        return sorted({one["machine"]["cpu"] for one in self.done if one["machine"]})

    @property
    def kinds(self) -> list[str]:
        return sorted({kind for one in self.done for kind in one["figures"]} - {POOLED})

    def values(self, figure: str, kind: str = POOLED) -> list[float]:
        """Of all seeds, as far as they are defined."""
        return _known(found.get(figure) for found in self._figures(kind))

    def value(self, figure: str, kind: str = POOLED) -> float | None:
        """The mean over seeds; None where the figure is not defined."""
        found = self.values(figure, kind)
        return statistics.fmean(found) if found else None

    def interval(self, figure: str, kind: str = POOLED) -> tuple[float | None, float | None]:
        """Its ends are the means of those of the seeds."""
        return _ends([found.get(figure) for found in self._figures(kind)])

    def matched(self) -> tuple[float | None, float | None, float | None]:
        """Image AUROC among slices of the same height, with its interval; as the other figures."""
        held = [one["within_folds"] if self.within else one for one in self.done]
        found = [(one["matched_height"] or {}).get("image_auroc") for one in held]
        values = _known(found)
        return statistics.fmean(values) if values else None, *_ends(found)

    def place(self, out: Path, result: Mapping[str, Any]) -> Place:
        return Place(out, self.study, self.entry.name, result["seed"])

    def _figures(self, kind: str) -> list[Mapping[str, Any]]:
        """Of every seed; those within folds take the place of the pooled ones."""
        within = [one["within_folds"]["figures"].get(kind, {}) if self.within else {} for one in self.done]
        return [{**one["figures"].get(kind, {}), **more} for one, more in zip(self.done, within, strict=True)]


def _known(figures: Iterable[Mapping[str, Any] | None]) -> list[float]:
    return [one["value"] for one in figures if one and one["value"] is not None]


def _ends(figures: Sequence[Mapping[str, Any] | None]) -> tuple[float | None, float | None]:
    known = [one for one in figures if one and one["low"] is not None and one["high"] is not None]
    if not known:
        return None, None
    low, high = (statistics.fmean(one[end] for one in known) for end in ("low", "high"))
    return low, high


def read_judged(place: Place) -> list[Outcome]:
    """What a run said of every image, without maps and truth. Raises OSError."""
    rows = read_scores(place.predictions)
    return [Outcome(row["name"], row["kind"], row["group"], float(row["anomaly"])) for row in rows]


def _with_folds(result: Mapping[str, Any], out: Path, studies: Mapping[str, Study]) -> Mapping[str, Any]:
    """A result that was written without its figures within folds gets them, if its images are still there."""
    study = studies.get(result["study"])
    if result["failed"] is not None or result.get("within_folds") or study is None or len(study.folds) < 2:
        return result
    with suppress(OSError, InputError):
        judged = read_judged(place_of(out, result))
        return {**result, "within_folds": within_folds(study, judged)}
    return result


def _suits(entry: Entry, study: str, studies: Mapping[str, Study]) -> bool:
    """Whether the method is meant for the study; of one whose images are gone, as far as its name tells."""
    return entry.suits(studies[study]) if study in studies else not entry.only or study in entry.only


@dataclass(frozen=True)
class Gathered:
    """All results in `out` of the methods that there are. studies: those whose images are there, as they were measured
    on by any of them."""

    out: Path
    methods: Mapping[str, Entry]
    results: tuple[Mapping[str, Any], ...]
    studies: Mapping[str, Study]

    @classmethod
    def read(cls, out: Path, methods: Mapping[str, Entry]) -> Gathered:
        everything = read_results(out)
        measured = {(one["study"], one["key"]["study"]) for one in everything}
        studies = {
            name: study for name, study in remembered(out).items() if (name, study_fingerprint(study)) in measured
        }
        read = [one for one in everything if one["method"] in methods]
        suited = [one for one in read if _suits(methods[one["method"]], one["study"], studies)]
        return cls(out, methods, tuple(_with_folds(one, out, studies) for one in suited), studies)

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
                failed = tuple(one for one in own if one["failed"] is not None)
                found.append(Runs(entry, study, done, failed, self.within(study)))
        return found

    def within(self, study: str) -> bool:
        """Whether image figures of a study are those within folds: where every result that is done has them."""
        done = [one for one in self.results if one["study"] == study and one["failed"] is None]
        return bool(done) and all(one.get("within_folds") for one in done)

    def patients(self, study: str, kind: str = POOLED, pixels: bool = False) -> int | None:
        """Behind an interval: of the abnormal images or of the healthy ones, whichever are fewer; None if not known.

        pixels: behind one of a figure of pixels, which has the abnormal images alone.
        """
        known = (self.patients_of(one, kind, pixels) for one in self.runs(study) if one.whole)
        return next((count for count in known if count is not None), None)

    def patients_of(self, runs: Runs, kind: str = POOLED, pixels: bool = False) -> int | None:
        """The same of the images that a method has judged."""
        for result in runs.done:
            with suppress(OSError):
                judged = read_judged(runs.place(self.out, result))
                healthy = {each.group for each in judged if each.kind == HEALTHY}
                ill = {each.group for each in judged if each.kind != HEALTHY and kind in (POOLED, each.kind)}
                return len(ill) if pixels else min(len(ill), len(healthy))
        return None

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
                if lacking and _suits(entry, study, self.studies):
                    some = f" (seed {', '.join(map(str, lacking))})" if len(lacking) < len(self.seeds) else ""
                    found.setdefault(entry.title, []).append(study + some)
        return found
