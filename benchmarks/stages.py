"""What a method does in its own process: learn from the healthy images of a fold, judge its test images, be timed."""

from __future__ import annotations

import json
import math
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

import numpy as np

from benchmarks import curves
from benchmarks.memory import peak_mb
from benchmarks.method import Entry, Judged, Learned, Method, Task
from benchmarks.results import Options, Place, write_predictions
from benchmarks.selection import TIMED, judged, pictured, seen_at, spread, training
from benchmarks.study import Fold, Study
from benchmarks.unfinished import continued
from priorlens.datasets import Case, healthy_cases, labelled_cases
from priorlens.evaluation import Outcome
from priorlens.images import Image, read_image
from priorlens.outputs import write_json

BATCH = 16
"""Images judged at a time, by every method."""

NEEDS = "needs the model of"
"""How the failure of a run begins for which a model of another method was not there."""

CURVE_POINTS = 300
"""Of a loss curve that are kept; the end always is."""


@dataclass(frozen=True)
class Run:
    """One method on one study with one seed. keys: of its own models, and of those that it reads, by their methods."""

    entry: Entry
    study: Study
    place: Place
    options: Options
    key: dict[str, Any]
    base_keys: dict[str, dict[str, Any]]

    @property
    def sources(self) -> dict[str, Place]:
        """Where the models lie that it is judged with, by method: its own, or those that it needs."""
        names = bases(self.entry) or [self.entry.name]
        return {name: Place(self.place.out, self.place.study, name, self.place.seed) for name in names}

    def lacks(self, fold: int) -> list[str]:
        """The methods whose model of this fold is not complete, or not made with what is wanted now."""
        return [name for name, place in self.sources.items() if not self._ready(name, place, fold)]

    def _ready(self, name: str, place: Place, fold: int) -> bool:
        found = read_fitted(place, fold)
        return found is not None and found["key"] == self.base_keys.get(name, self.key) and place.model(fold).is_dir()


def bases(entry: Entry) -> list[str]:
    """The methods whose models it reads; `needs` joins several by a plus."""
    return entry.needs.split("+") if entry.needs else []


def read_fitted(place: Place, fold: int) -> dict[str, Any] | None:
    """How the model of a fold was fitted; None where there is none."""
    try:
        found: dict[str, Any] = json.loads(place.fitted(fold).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found


def fit(run: Run, fold: int) -> None:
    """Learn one fold, from where an earlier call was stopped; its model is there once `fitted` is.

    Raises what the method raises.
    """
    place = run.place
    place.fitted(fold).unlink(missing_ok=True)
    shutil.rmtree(place.model(fold), ignore_errors=True)
    place.model(fold).mkdir(parents=True)
    with (
        _task(run, run.study.folds[fold], to_fit=True) as task,
        continued(place, fold, run.key, task.folder) as before,
    ):
        method = run.entry.make()
        began = time.perf_counter()
        learned = method.fit(task, _say)
        seconds = before + time.perf_counter() - began
        method.save(place.model(fold))
        write_json(
            place.fitted(fold),
            {
                "key": run.key,
                "seconds": round(seconds, 3),
                "converged": learned.converged if learned.converged is not None else _converged(learned),
                "curve": _thinned(learned.curve),
                "remark": learned.remark,
                "images": len(task.images),
                "memory_mb": peak_mb(),
                "model_bytes": sum(path.stat().st_size for path in place.model(fold).rglob("*") if path.is_file()),
            },
        )


def judge(run: Run) -> dict[str, Any]:
    """Judge the test images of all folds by their models, and write the predictions; returns how fast that went.

    Maps wait on disk meanwhile: they are none of the memory that the method takes.
    """
    outcomes: list[Outcome] = []
    times: list[float] = []
    whole: list[float] = []
    calls = 0.0
    with tempfile.TemporaryDirectory(prefix="priorlens-benchmark-") as folder:
        stored: dict[str, Path] = {}
        for index, fold in enumerate(run.study.folds):
            cases = judged_cases(run, fold)
            kept = pictured(cases)
            with _task(run, fold) as task:
                method = loaded(run, index, task)
                for start in range(0, len(cases), BATCH):
                    batch = cases[start : start + BATCH]
                    images = [read_image(case.path) for case in batch]
                    began = time.perf_counter()
                    found = method.judge(images)
                    times.append(1000 * (time.perf_counter() - began) / len(batch))
                    calls += found.calls * len(batch)
                    outcomes += _without_maps(_outcomes(batch, images, found, kept), Path(folder), stored)
                    _say(f"judged {len(outcomes)}")
                whole += getattr(method, "times", [])
        peak = peak_mb()
        write_predictions(run.place.predictions, outcomes, stored)
    return {
        "ms_per_image": time_facts(whole or times, repeats=1, interleaved=False),
        "calls": calls / len(outcomes),
        "judged": len(outcomes),
        "every": run.entry.slow,
        "memory_mb": peak,
        "remark": getattr(method, "remark", ""),
    }


def _without_maps(outcomes: Sequence[Outcome], folder: Path, stored: dict[str, Path]) -> list[Outcome]:
    """The outcomes, their maps being put into files of the folder, which `stored` then has by their images' names."""
    for one in outcomes:
        if one.anomaly_map is not None:
            stored[one.name] = folder / f"{len(stored)}.npy"
            np.save(stored[one.name], one.anomaly_map)
    return [replace(one, anomaly_map=None) for one in outcomes]


class Timed:
    """A loaded model and the images that it is timed on, the same for all methods; fewer, where one takes seconds.

    A method of whole scans says itself how long a slice took (`times`), and has to `forget` the scan before each pass.
    """

    def __init__(self, run: Run, most_seconds: float) -> None:
        fold = run.study.folds[0]
        with _task(run, fold) as task:
            self.method: Any = loaded(run, 0, task)
        cases = spread(labelled_cases(fold.folder, group=run.study.group), TIMED)
        self.images = [read_image(case.path) for case in cases]
        if hasattr(self.method, "times"):
            self.images = self.images[:1]
            return
        once = self._seconds(self.images[:1])  # the first call also pays for what is made once
        once = min(once, self._seconds(self.images[:1]))
        self.images = self.images[: max(1, min(len(self.images), int(most_seconds / max(once, 1e-9))))]
        self._seconds(self.images)

    def milliseconds(self) -> float:
        """An image, of one pass over them."""
        if hasattr(self.method, "times"):
            self.method.forget()
            self.method.judge(self.images)
            return float(self.method.times[-1])
        return 1000 * self._seconds(self.images) / len(self.images)

    def _seconds(self, images: Sequence[Image]) -> float:
        began = time.perf_counter()
        self.method.judge(images)
        return time.perf_counter() - began


def loaded(run: Run, fold: int, task: Task) -> Method:
    """The method with the model of a fold; of several that it needs, each is a folder in one. Raises what it raises."""
    return with_models(run.entry, {name: place.model(fold) for name, place in run.sources.items()}, task)


def with_models(entry: Entry, folders: Mapping[str, Path], task: Task) -> Method:
    """The method with the models in these folders, by their methods; of several, each is a folder in one."""
    together = next(iter(folders.values()))
    if len(folders) > 1:
        together = task.folder / "models"
        together.mkdir()
        for name, folder in folders.items():
            (together / name).symlink_to(folder.resolve(), target_is_directory=True)
    method = entry.make()
    method.load(together, task)
    return method


def judged_cases(run: Run, fold: Fold) -> list[Case]:
    cases = labelled_cases(fold.folder, group=run.study.group)
    return judged(cases, run.options.test_images, run.entry.slow, run.study.height)


def time_facts(milliseconds: Sequence[float], repeats: int, interleaved: bool) -> dict[str, Any]:
    """Median, fastest and slowest, for JSON. interleaved: whether other methods were timed in between."""
    return {
        "median": statistics.median(milliseconds),
        "low": min(milliseconds),
        "high": max(milliseconds),
        "repeats": repeats,
        "interleaved": interleaved,
    }


class Unread(Sequence[Image]):
    """Images that are read each time they are looked at: hardly any method does so after it was fitted, and their
    memory is none of the scoring."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, index: int) -> Image: ...
    @overload
    def __getitem__(self, index: slice) -> Unread: ...
    def __getitem__(self, index: int | slice) -> Image | Unread:
        return Unread(self.paths[index]) if isinstance(index, slice) else read_image(self.paths[index])


@contextmanager
def _task(run: Run, fold: Fold, to_fit: bool = False) -> Iterator[Task]:
    """What the method may know of a fold, with a folder of its own that goes when it is done."""
    left_out = set(fold.left_out)
    usable = [case for case in healthy_cases(fold.folder, group=run.study.group) if case.name not in left_out]
    cases = training(usable, run.options.train_images, run.study.name)
    paths = [case.path for case in cases]
    with tempfile.TemporaryDirectory(prefix="priorlens-benchmark-") as folder:
        yield Task(
            images=[read_image(path) for path in paths] if to_fit else Unread(paths),
            groups=[case.group for case in cases],
            intensity=run.study.intensity,
            size=seen_at(paths, run.options.size),
            seed=run.place.seed,
            steps=run.options.steps,
            fold=fold,
            folder=Path(folder),
        )


def _outcomes(cases: Sequence[Case], images: Sequence[Image], found: Judged, kept: set[str]) -> list[Outcome]:
    """Raises ValueError where a method's answer does not fit the images, or is no number."""
    anomaly = np.asarray(found.anomaly, np.float64)
    if anomaly.shape != (len(cases),) or not np.isfinite(anomaly).all():
        raise ValueError(f"gave scores of shape {anomaly.shape} for {len(cases)} images, or some that are no numbers")
    maps: Sequence[np.ndarray | None] = found.maps if found.maps is not None else [None] * len(cases)
    if len(maps) != len(cases):
        raise ValueError(f"gave {len(maps)} maps for {len(cases)} images")
    outcomes = []
    for case, image, value, one in zip(cases, images, anomaly, maps, strict=True):
        size = image.pixels.shape[1:]
        if one is not None and (one.shape != size or not np.isfinite(one).all()):
            raise ValueError(f"{case.name}: gave a map of shape {one.shape} for {size}, or with values no numbers")
        wanted = one is not None and (case.kind != "good" or case.name in kept)
        small = np.asarray(one, np.float32) if wanted else None
        outcomes.append(Outcome(case.name, case.kind, case.group, float(value), small))
    return outcomes


def _converged(learned: Learned) -> bool | None:
    """Of a method that leaves the answer to us: whether the last stage's loss had settled; None without a curve."""
    if not learned.curve:
        return None
    stages = dict.fromkeys(stage for stage, _, _ in learned.curve)
    return all(curves.settled([loss for stage, _, loss in learned.curve if stage == name]) for name in stages)


def _thinned(curve: Sequence[tuple[str, int, float]]) -> list[tuple[str, int, float | None]]:
    step = math.ceil(len(curve) / CURVE_POINTS) or 1
    points = [*curve[::step], *(curve[-1:] if (len(curve) - 1) % step else ())]
    return [(stage, int(at), float(loss) if math.isfinite(loss) else None) for stage, at, loss in points]


def _say(line: str) -> None:
    """For the run's log."""
    print(line, file=sys.stderr, flush=True)
