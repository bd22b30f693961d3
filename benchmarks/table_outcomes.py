"""What runs said of every image, beside the truth, which is read once for all methods of a study."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from benchmarks import measuring
from benchmarks.folds import by_fold, fold_of, matched_difference_within, replicates_within
from benchmarks.results import MAPS, Place, read_scores
from benchmarks.study import Study
from benchmarks.table_results import Runs, read_judged
from priorlens.bootstrap import Estimate, interval
from priorlens.datasets import HEALTHY, Case
from priorlens.evaluation import IMAGE_FIGURES, Outcome
from priorlens.outputs import atomic_write

MATCHED = "image_auroc_matched"
"""Image AUROC among slices of the same height; not among `METRICS`, for it needs the study's `height`."""

REPLICATES = "replicates"
"""Folder of a run's predictions."""


class MapsNotKept(Exception):
    """What is asked of a run's maps now was not asked while they were there."""


@dataclass(frozen=True)
class Outcomes:
    """Of the runs on one study. within: whether image figures are taken within folds."""

    out: Path
    study: Study
    within: bool = False

    @cached_property
    def cases(self) -> dict[str, Case]:
        return {case.name: case for case in measuring.test_cases(self.study)}

    @cached_property
    def folds(self) -> dict[str, int]:
        return fold_of(self.study)

    @cached_property
    def truths(self) -> dict[str, Outcome]:
        """Mask and body of the abnormal images."""
        blank = {name: Outcome(name, case.kind, case.group, 0.0) for name, case in self.cases.items()}
        return {
            name: measuring.with_truth(one, self.cases[name], None)
            for name, one in blank.items()
            if one.kind != HEALTHY
        }

    def read(self, place: Place, maps: bool) -> list[Outcome]:
        """As `measuring.read_outcomes`; without maps, without the truth as well. Raises MapsNotKept."""
        if not maps:
            return read_judged(place)
        if not place.has_maps:
            raise MapsNotKept(place.predictions)
        rows = read_scores(place.predictions)
        found = []
        with np.load(place.predictions / MAPS, allow_pickle=False) as stored:
            for row in rows:
                blank = Outcome(row["name"], row["kind"], row["group"], 0.0)
                known = self.truths.get(row["name"], blank)
                found.append(replace(known, anomaly=float(row["anomaly"]), anomaly_map=stored.get(row["name"])))
        return found

    def names(self, runs: Runs) -> frozenset[str]:
        """The images that all its seeds have judged."""
        judged = [{row["name"] for row in read_scores(runs.place(self.out, one).predictions)} for one in runs.done]
        return frozenset(set.intersection(*judged))

    def difference(self, a: Runs, b: Runs, figure: str) -> Estimate:
        """As `measuring.paired_difference`, of the means over seeds; `MATCHED` is of the first seed of each.

        NaN where it asks for maps that were not kept.
        """
        if figure == MATCHED:
            assert self.study.height is not None
            found = [self.read(runs.place(self.out, runs.done[0]), maps=False) for runs in (a, b)]
            if self.within:
                parts = [by_fold(one, self.folds) for one in measuring.in_common(found[0], found[1])]
                return matched_difference_within(parts[0], parts[1], self.study.height)
            return measuring.paired_difference_matched(found[0], found[1], self.study.height)
        names = self.names(a) & self.names(b)
        try:
            (value_a, replicates_a), (value_b, replicates_b) = (self.mean(one, figure, names) for one in (a, b))
        except MapsNotKept:
            return Estimate(*[float("nan")] * 3)
        if replicates_a.size != replicates_b.size:
            return Estimate(value_a - value_b, float("nan"), float("nan"))
        return Estimate(value_a - value_b, *interval(replicates_a - replicates_b))

    def mean(self, runs: Runs, figure: str, names: frozenset[str]) -> tuple[float, Float64[np.ndarray, " resample"]]:
        """A figure of these images, exact and of resamples of patients, both over seeds. Raises MapsNotKept."""
        found = [self._replicates(runs.place(self.out, one), one, figure, names) for one in runs.done]
        size = min(replicates.size for _, replicates in found)
        return float(np.mean([value for value, _ in found])), np.mean([one[:size] for _, one in found], axis=0)

    def _replicates(
        self, place: Place, result: Mapping[str, Any], figure: str, names: frozenset[str]
    ) -> tuple[float, Float64[np.ndarray, " resample"]]:
        """As `measuring.replicates`; those of pixels, which take maps and seconds, stay beside the predictions."""
        if figure in IMAGE_FIGURES:
            chosen = self._of(names, self.read(place, maps=False))
            if self.within:
                return replicates_within(by_fold(chosen, self.folds), figure)
            return measuring.replicates(chosen, figure)
        path = place.predictions / REPLICATES / f"{figure}-{self._digest(place, result, figure, names)}.npy"
        with suppress(OSError, ValueError, EOFError, zipfile.BadZipFile):
            stored = np.load(path, allow_pickle=False)
            return float(stored[0]), stored[1:]
        value, found = measuring.replicates(self._of(names, self.read(place, maps=True)), figure)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            np.save(file, np.append(value, found))
        return value, found

    @staticmethod
    def _of(names: frozenset[str], outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Those of these images, in one order."""
        return sorted((one for one in outcomes if one.name in names), key=lambda one: one.name)

    def _digest(self, place: Place, result: Mapping[str, Any], figure: str, names: frozenset[str]) -> str:
        content = (place.predictions / "scores.csv").read_bytes()
        facts = [place.method, figure, measuring.RESAMPLES, result["key"], result["figures_code"], sorted(names)]
        return hashlib.sha256(content + json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def inside(outcome: Outcome) -> float:
    """How well a map finds the lesion within the body: AUROC of its pixels; NaN where it is not defined."""
    from priorlens.metrics import auroc_inside

    if outcome.mask is None or outcome.anomaly_map is None or outcome.body is None:
        return float("nan")
    return auroc_inside(outcome.mask, outcome.anomaly_map, outcome.body)


def readable(outcomes: Sequence[Runs], out: Path) -> list[Runs]:
    """Those whose scores are there with every seed that is done."""
    return [
        one
        for one in outcomes
        if one.done and all((one.place(out, result).predictions / "scores.csv").is_file() for result in one.done)
    ]
