"""One point of growth in a process of its own: `python -m benchmarks.growth_worker SPEC.json`; only `growth` starts it.

Fitting and scoring are forked off, as in `worker`, so that the peak memory is that of scoring.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from benchmarks.memory import be_first_to_go, peak_mb
from benchmarks.method import Entry, Method, Task
from benchmarks.stages import BATCH, bases, with_models
from benchmarks.study import Fold
from benchmarks.worker import forked, line_of
from priorlens.commands.memory import keep_freed_memory
from priorlens.images import Image
from priorlens.outputs import write_json

TRAIN, TEST = 0, 1
"""Streams of random numbers of images that are learned from and scored."""


def made_image(side: int, stream: int, index: int) -> Image:
    """Smooth noise in a disc on black, 8-bit grey values; the same for the same arguments."""
    rng = np.random.default_rng([stream, side, index])
    coarse = gaussian_filter(rng.standard_normal((side, side)), side / 16, mode="wrap")
    fine = rng.standard_normal((side, side))
    row, column = np.mgrid[:side, :side] - (side - 1) / 2
    disc = np.hypot(row, column) < 0.42 * side * rng.uniform(0.9, 1.0)
    grey = disc * (120 + 35 * coarse / coarse.std() + 4 * fine) + 4 * np.abs(fine)
    return Image(np.clip(grey, 0, 255).round().astype(np.float32)[None], Path(f"made_{stream}_{index}.png"), 255.0)


def batches(side: int, count: int) -> Iterator[list[Image]]:
    """So many images to be scored, made as they are needed."""
    for start in range(0, count, BATCH):
        yield [made_image(side, TEST, index) for index in range(start, min(start + BATCH, count))]


def task_of(spec: Mapping[str, Any], folder: Path) -> Task:
    images = [made_image(spec["side"], TRAIN, index) for index in range(spec["train_images"])]
    groups = [f"made {index}" for index in range(len(images))]
    return Task(images, groups, "range", spec["side"], 0, spec["steps"], Fold(folder), folder)


def fit(entry: Entry, spec: Mapping[str, Any]) -> None:
    """Fit a model into its folder, which is there only when it is complete."""
    target = Path(spec["models"]) / entry.name
    partial = target.with_name(f".{entry.name}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="priorlens-growth-") as folder:
        method = entry.make()
        method.fit(task_of(spec, Path(folder)), _say)
        method.save(partial)
    partial.rename(target)


def score(entry: Entry, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Time and peak memory of scoring."""
    with tempfile.TemporaryDirectory(prefix="priorlens-growth-") as folder:
        method = loaded(entry, spec, Path(folder))
        seconds = _seconds(method.judge, [made_image(spec["side"], TEST, 0)])
        if spec["what"] == "size":
            return {**_by_size(method, spec, seconds), "peak_mb": peak_mb()}
        took = sum(_seconds(method.judge, batch) for batch in batches(spec["side"], spec["value"]))
        return {"seconds": took, "ms_per_image": 1000 * took / spec["value"], "peak_mb": peak_mb()}


def loaded(entry: Entry, spec: Mapping[str, Any], folder: Path) -> Method:
    """The method with its model, or with those that it needs."""
    folders = {name: Path(spec["models"]) / name for name in bases(entry) or [entry.name]}
    return with_models(entry, folders, task_of(spec, folder))


def _by_size(method: Method, spec: Mapping[str, Any], once: float) -> dict[str, Any]:
    """Median of passes over images, fewer where one takes long; one batch of them, as everywhere."""
    count = max(1, min(spec["images"], int(spec["most_seconds"] / spec["passes"] / max(once, 1e-9))))
    images = [made_image(spec["side"], TEST, index) for index in range(count)]
    passes = [1000 * _seconds(method.judge, images) / count for _ in range(spec["passes"])]
    return {"ms_per_image": statistics.median(passes), "low": min(passes), "high": max(passes), "scored": count}


def _seconds(judge: Callable[[list[Image]], Any], images: list[Image]) -> float:
    began = time.perf_counter()
    judge(images)
    return time.perf_counter() - began


def answer(spec: Mapping[str, Any], scratch: Path) -> dict[str, Any]:
    """The point, or `{"failed": one line}`."""
    *needed, entry = (Entry(**{**one, "only": tuple(one["only"])}) for one in spec["chain"])
    if "klip" in (one.name for one in (*needed, entry)):
        _show_klip_all(spec["side"])
    for one in needed or [entry]:
        importlib.import_module(one.made_by.partition(":")[0])  # once, for both children
        if not (Path(spec["models"]) / one.name).is_dir():
            found = forked(lambda one=one: fit(one, spec), scratch / "fit.json", "learning")  # type: ignore[misc]
            if "failed" in found:
                return found
    importlib.import_module(entry.made_by.partition(":")[0])
    found = forked(lambda: score(entry, spec), scratch / "score.json", "scoring")
    judged: dict[str, Any] = found.get("judged", found)
    return judged


def _show_klip_all(side: int) -> None:
    """KLIP sees images as large as they are, as with `fit --size`, where runs show it smaller ones, as `fit` does."""
    from benchmarks.methods import ours_klip

    ours_klip.LARGEST = max(ours_klip.LARGEST, side)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(path: Path) -> None:
    be_first_to_go()
    keep_freed_memory()
    try:
        found = answer(json.loads(path.read_text(encoding="utf-8")), path.parent)
    except Exception as error:
        found = {"failed": f"cannot start: {line_of(error)}"}
    write_json(path.with_name("answer.json"), found)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
