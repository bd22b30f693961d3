"""What the page needs of an output folder, some megabytes of its gigabytes, to be kept beside the code.

What is kept is an output folder too: `run` goes on from a copy of it, on another machine as well, and `table` makes the
page of it where the images are. It lacks models, and the maps of all images but those shown; in their place it has the
figures of resampled patients, which the intervals of the page come from.
"""

from __future__ import annotations

import itertools
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.fingerprints import figures_code
from benchmarks.method import Entry
from benchmarks.methods import METHODS
from benchmarks.results import MAPS, Options, Place, place_of, read_results, write_result
from benchmarks.selection import judged
from benchmarks.shown import read_maps, shown_images, write_small_maps
from benchmarks.study import Study
from benchmarks.table_contests import compared, contests, is_of_pixels
from benchmarks.table_outcomes import Outcomes, readable
from benchmarks.table_results import Gathered
from priorlens.datasets import labelled_cases
from priorlens.errors import InputError, OutputError
from priorlens.outputs import write_text

MARK = "KEPT.txt"
"""Is in every folder that `keep` has made, and says what it is: no other is ever replaced."""

MARK_WORDS = "What docs/benchmarks.md was made from, written by: python -m benchmarks keep\n"

AS_THEY_ARE = ("choosing", "growth", "shown")
"""Folders of small JSON files."""


def keep(out: Path, kept: Path, methods: Mapping[str, Entry] = METHODS) -> None:
    """Write `kept`, whole or not at all, in place of what was kept there before.

    Raises:
        InputError: there are no results, they are not fit to be kept, or some that were kept before would be lost.
        OutputError: `kept` cannot be written, or is something else.
    """
    gathered = Gathered.read(out, methods)
    partial, before = (kept.with_name(f".{kept.name}.{state}") for state in ("making", "before"))
    if before.is_dir() and not kept.exists():
        before.rename(kept)  # a call was stopped between two names
    _require_fit(gathered)
    _require_place(out, kept)
    _require_nothing_lost(gathered, kept)
    contests(gathered)  # leaves the figures of resampled patients that the page needs beside the predictions
    shown = {name: _prepare(gathered, name) for name in gathered.names if name in gathered.studies}
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        write_text(partial / MARK, MARK_WORDS)
        for one in gathered.results:
            place = place_of(out, one)
            _keep_run(one, place, replace(place, out=partial), shown.get(place.study, ()))
        for name in AS_THEY_ARE:
            if (out / name).is_dir():
                shutil.copytree(out / name, partial / name)
        shutil.rmtree(before, ignore_errors=True)
        if kept.exists():
            kept.rename(before)
        partial.rename(kept)
    except OSError as error:
        raise OutputError(f"{kept}: cannot be written ({error.strerror or error}); choose another --to") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(before, ignore_errors=True)


def _require_fit(gathered: Gathered) -> None:
    """Raises InputError where something would be lost for good, or kept that means nothing."""
    if not gathered.results:
        raise InputError(f"{gathered.out}: holds no results; make some with: python -m benchmarks run")
    figures = figures_code()
    for one in gathered.results:
        place = place_of(gathered.out, one)
        if one["key"]["options"]["quick"]:
            raise InputError(f"{place.result}: is of --quick and means nothing; keep what was run without")
        if one["failed"] is None and place.has_maps:
            if place.study not in gathered.studies:
                raise InputError(f"{place.study}: the images it was measured on are not here; run with their --data")
            if one["figures_code"] != figures:
                raise InputError(f"{place.result}: its figures are by earlier code; run again, which takes seconds")


def _require_place(out: Path, kept: Path) -> None:
    """Raises OutputError where `keep` would replace what it has not made."""
    if kept == out or kept in out.parents or out in kept.parents:
        raise OutputError(f"{kept}: is {out}, or in it, or around it; choose another --to")
    if kept.exists() and not (kept / MARK).is_file() and (not kept.is_dir() or any(kept.iterdir())):
        raise OutputError(f"{kept}: is there and was not made by keep; choose another --to, or remove it")


def _require_nothing_lost(gathered: Gathered, kept: Path) -> None:
    """Raises InputError where a run that was kept before would be there no more."""
    there = {place_of(kept, one) for one in gathered.results if one["failed"] is None}
    for one in read_results(kept):
        place = place_of(kept, one)
        if one["failed"] is None and one["method"] in gathered.methods and place not in there:
            told = " ".join(map(str, place.name))
            raise InputError(f"{kept}: has {told}, which {gathered.out} has not; begin from a copy of it, or remove it")


def _prepare(gathered: Gathered, name: str) -> Sequence[str]:
    """What may be asked of a study's maps another time; returns the images whose maps are shown.

    Whichever of ours is the best then can be compared with methods that judge a part of the images, run by then or not.
    """
    print(f"{name}: figures of resampled patients", file=sys.stderr, flush=True)
    outcomes = Outcomes(gathered.out, gathered.studies[name], gathered.within(name))
    runs = readable(gathered.runs(name), gathered.out)
    judged_by = {one.entry.name: outcomes.names(one) for one in runs}
    parts = {*judged_by.values(), *_parts(gathered, outcomes.study)}
    figures = [figure for figure in compared(outcomes.study) if is_of_pixels(figure)]
    for one in runs:
        if one.ours and one.whole and all(one.place(gathered.out, each).has_maps for each in one.done):
            some = {judged_by[one.entry.name] & part for part in parts}
            for figure, names in itertools.product(figures, some):
                if one.value(figure) is not None:
                    outcomes.mean(one, figure, names)
    shown = shown_images(outcomes, runs)
    return shown.names if shown else ()


def _parts(gathered: Gathered, study: Study) -> set[frozenset[str]]:
    """The images that methods judge, of each number that one may be `slow` by."""
    options = Options(**next(one["key"]["options"] for one in gathered.results if one["study"] == study.name))
    cases = [labelled_cases(fold.folder, group=study.group) for fold in study.folds]
    return {
        frozenset(case.name for some in cases for case in judged(some, options.test_images, slow, study.height))
        for slow in {entry.slow for entry in gathered.methods.values() if entry.suits(study)}
    }


def _keep_run(result: Mapping[str, Any], place: Place, kept: Place, shown: Sequence[str]) -> None:
    """The result; of predictions that are there scores, figures of resampled patients, and the maps of these images."""
    write_result(kept, result)
    if not (place.predictions / "scores.csv").is_file():
        return
    shutil.copytree(place.predictions, kept.predictions, ignore=shutil.ignore_patterns(MAPS))
    if place.has_maps:
        write_small_maps(kept.predictions, read_maps(place, shown))
