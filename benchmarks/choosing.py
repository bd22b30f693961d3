"""What our defaults are chosen by: artefacts planted in healthy images that none of ours learned from. No test image.

Each of ours that has learned a study judges the images that it kept aside, as they are and with artefacts in them; and
so does what knows artefacts and nothing else, which ours have to be ahead of.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring import POOLED, figures
from benchmarks.method import Entry, Task
from benchmarks.methods import METHODS
from benchmarks.methods.ours import kept_and_aside
from benchmarks.results import Options, Place, read_results
from benchmarks.stages import BATCH, Run, _task, bases, loaded, read_fitted
from benchmarks.study import Study
from benchmarks.study_files import remembered
from priorlens.body import body_mask
from priorlens.datasets import HEALTHY
from priorlens.errors import InputError
from priorlens.evaluation import Outcome
from priorlens.images import Image
from priorlens.outputs import write_json
from priorlens.planted import plant

COPIES = 4
"""Of each image that was kept aside, with an artefact each."""

PLANTED = "planted"

WITHOUT_PRIOR = "context"
"""The baseline that has learned from such artefacts."""

SHOWN: Mapping[str, str] = {"image_auroc": "image AUROC", "pixel_ap": "pixel AP", "dice_best": "best Dice"}


def takes_part(entry: Entry) -> bool:
    """Ours that keep images aside, and the one baseline that does; those of whole scans keep none."""
    return (entry.family == "ours" and not entry.of_scans and entry.slow == 1) or entry.name == WITHOUT_PRIOR


def choose(out: Path) -> None:
    """Judge with all models that there are, and keep what was found; what was before is not done again."""
    studies = remembered(out)
    for result in read_results(out):
        entry, study = METHODS.get(result["method"]), studies.get(result["study"])
        if result["failed"] is not None or entry is None or study is None or not takes_part(entry):
            continue
        run = _run_of(result, entry, study, out)
        path = out / "choosing" / study.name / f"{entry.name}-{result['seed']}.json"
        told = _stored(path, run.key)
        if not told and not run.lacks(0) and (told := _judged(run)):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, told)
        if told:
            print(_line(told), file=sys.stderr, flush=True)


def _run_of(result: Mapping[str, Any], entry: Entry, study: Study, out: Path) -> Run:
    """The run that had this result, with the models that there are of it now."""
    place = Place(out, study.name, entry.name, result["seed"])
    fitted = {name: read_fitted(replace(place, method=name), 0) for name in bases(entry)}
    base_keys = {name: found["key"] for name, found in fitted.items() if found}
    return Run(entry, study, place, Options(**result["key"]["options"]), result["key"], base_keys)


def read_choosing(out: Path) -> list[dict[str, Any]]:
    """All that was ever found, by study and method."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted((out / "choosing").glob("*/*.json"))]


def _stored(path: Path, key: Mapping[str, Any]) -> dict[str, Any] | None:
    try:
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return told if told["key"] == key else None


def _judged(run: Run) -> dict[str, Any] | None:
    """Figures of the first fold; None of too few patients to keep any aside."""
    with _task(run, run.study.folds[0]) as task:
        _, aside = kept_and_aside(task.groups, task.seed)
        if not aside:
            return None
        outcomes = _outcomes(run, task, aside)
    found = figures(outcomes)[POOLED]
    return {
        "study": run.place.study,
        "method": run.place.method,
        "seed": run.place.seed,
        "key": run.key,
        "healthy": len(aside),
        "planted": len(outcomes) - len(aside),
        "figures": {name: found[name] for name in SHOWN},
    }


def _outcomes(run: Run, task: Task, aside: Sequence[int]) -> list[Outcome]:
    method = loaded(run, 0, task)
    rng = np.random.default_rng(task.seed + 1)  # another than learned from
    outcomes = []
    for start in range(0, len(aside), BATCH):
        some = aside[start : start + BATCH]
        images = [task.images[i] for i in some]
        truth = [Outcome(f"{i}", HEALTHY, task.groups[i], 0.0) for i in some]
        for index, image in zip(some, list(images), strict=True):
            for copy, (changed, mask, body) in enumerate(_copies(image, rng)):
                images.append(changed)
                truth.append(Outcome(f"{index}-{copy}", PLANTED, task.groups[index], 0.0, mask=mask, body=body))
        judged = method.judge(images)
        maps = judged.maps or [None] * len(images)
        outcomes += [
            replace(one, anomaly=float(anomaly), anomaly_map=None if one.kind == HEALTHY else found)
            for one, anomaly, found in zip(truth, judged.anomaly, maps, strict=True)
        ]
    return outcomes


def _copies(image: Image, rng: np.random.Generator) -> Iterator[tuple[Image, np.ndarray, np.ndarray]]:
    """`COPIES` of an image, less those in which nothing could be planted."""
    for _ in range(COPIES):
        with suppress(InputError):
            yield with_artefact(image, rng)


def with_artefact(image: Image, rng: np.random.Generator) -> tuple[Image, np.ndarray, np.ndarray]:
    """A copy with one artefact, alike in all channels; where that is, and where the body. Raises InputError."""
    grey = image.pixels.mean(0)
    body = body_mask(grey)
    planted = plant(grey, body, rng)
    return replace(image, pixels=image.pixels + (planted.pixels - grey)), planted.mask, body


def _line(told: Mapping[str, Any]) -> str:
    cells = [f"{words} {told['figures'][name]['value']:.3f}" for name, words in SHOWN.items()]
    counts = f"{told['healthy']} healthy images, {told['planted']} planted artefacts"
    return f"{told['study']} {told['method']} {told['seed']}: {', '.join(cells)} ({counts})"
