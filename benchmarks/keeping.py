"""What the page needs of an output folder, some megabytes of its gigabytes, to be kept beside the code.

What is kept is an output folder too: `run` goes on from a copy of it, on another machine as well, and `table` makes the
page of it. It lacks models, the maps of all images but those shown, and where images lie. In place of maps it has the
figures of resampled patients, which the intervals of the page come from.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.method import Entry
from benchmarks.methods import METHODS
from benchmarks.results import Place
from benchmarks.shown import SMALL_MAPS, read_maps, shown_images, write_small_maps
from benchmarks.table_contests import compared
from benchmarks.table_outcomes import MATCHED, REPLICATES, Outcomes, has_maps, readable
from benchmarks.table_results import Gathered
from priorlens.errors import InputError

AS_IT_IS = ("choosing", "growth", "shown")
"""Folders of small JSON files."""


def keep(out: Path, kept: Path, methods: Mapping[str, Entry] = METHODS) -> None:
    """Write `kept`, whole or not at all. Raises InputError where there are no results, or maps are lacking."""
    gathered = Gathered.read(out, methods)
    if not gathered.results:
        raise InputError(f"{out / 'results'}: holds no results; make some with: python -m benchmarks run --out {out}")
    if lacking := [name for name in gathered.names if name not in gathered.studies]:
        raise InputError(f"{lacking[0]}: where its images lie is not known; run with --data first")
    shown = {name: _reckon(gathered, name) for name in gathered.names}
    partial = kept.with_name(f".{kept.name}.making")
    shutil.rmtree(partial, ignore_errors=True)
    for one in gathered.results:
        place = Place(out, one["study"], one["method"], one["seed"])
        _keep_run(place, replace(place, out=partial), shown[place.study])
    for name in AS_IT_IS:
        if (out / name).is_dir():
            shutil.copytree(out / name, partial / name)
    shutil.rmtree(kept, ignore_errors=True)
    partial.rename(kept)


def _reckon(gathered: Gathered, name: str) -> Sequence[str]:
    """What the page needs of a study that maps are needed for; the images whose maps are shown.

    Beside what is on the page now it is that of every method of ours on the images that any other has judged: whichever
    is the best another time can be compared with those then.
    """
    outcomes = Outcomes(gathered.out, gathered.studies[name], gathered.within(name))
    runs = readable(gathered.runs(name), gathered.out)
    judged = {frozenset(outcomes.names(one)) for one in runs}
    for one in runs:
        own = frozenset(outcomes.names(one))
        sets = {own & names for names in judged} if one.ours and one.whole else {own}
        for figure in compared(outcomes.study):
            if figure != MATCHED and one.value(figure) is not None:
                for names in sets:
                    outcomes.mean(one, figure, set(names))
    shown = shown_images(outcomes, runs)
    return shown.names if shown else ()


def _keep_run(place: Place, kept: Place, shown: Sequence[str]) -> None:
    """The result; of predictions that are there scores, figures of resampled patients, and the maps of these images."""
    kept.result.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(place.result, kept.result)
    if not (place.predictions / "scores.csv").is_file():
        return
    (kept.predictions / REPLICATES).mkdir(parents=True)
    shutil.copyfile(place.predictions / "scores.csv", kept.predictions / "scores.csv")
    for path in (place.predictions / REPLICATES).glob("*.npy"):
        np.save(kept.predictions / REPLICATES / path.name, np.load(path, allow_pickle=False).astype(np.float32))
    if has_maps(place):
        write_small_maps(kept.predictions, read_maps(place, shown))
    elif (place.predictions / SMALL_MAPS).is_file():
        shutil.copyfile(place.predictions / SMALL_MAPS, kept.predictions / SMALL_MAPS)
