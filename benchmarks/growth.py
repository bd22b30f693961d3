"""How scoring time and memory grow with the side of images and with their number, each point in its own process."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.environments import EnvironmentMissing, Environments
from benchmarks.fingerprints import code_of
from benchmarks.method import Entry
from benchmarks.methods import METHODS
from benchmarks.results import machine
from benchmarks.runner import alone, end, started
from benchmarks.stages import BATCH, bases
from priorlens.errors import InputError
from priorlens.outputs import write_json

SIZES, COUNTS = (64, 128, 256, 512), (100, 300, 1000, 10000)
QUICK_SIZES, QUICK_COUNTS = (64, 128), (20, 40)

SIDE = 64
"""Of the images that are counted."""

TRAIN_IMAGES = 16
STEPS = 0.01
PASSES, IMAGES = 3, 16
"""Over the side: repeats, and images in each at most."""

MOST_SECONDS = 180.0
"""A point that would take longer, by the one before it, is left out."""

PATIENCE = 900.0
"""Seconds after which a point is stopped, its fitting included."""

STEEPEST = 3.0
"""Exponent by which an image's time is expected to grow with its side, at most about that of attention."""

NOT_TRIED = "a smaller one did not come about either"
TOO_LONG = "stopped after"

Point = dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """what: "size", time of an image of side `value`, or "images", time of `value` images of side `SIDE`."""

    what: str
    value: int

    @property
    def side(self) -> int:
        return self.value if self.what == "size" else SIDE

    def is_of(self, point: Mapping[str, Any]) -> bool:
        return (point["what"], point["value"]) == (self.what, self.value)


def wanted_points(quick: bool) -> list[Wanted]:
    """Cheap ones first."""
    sizes, counts = (QUICK_SIZES, QUICK_COUNTS) if quick else (SIZES, COUNTS)
    return [*(Wanted("size", one) for one in sizes), *(Wanted("images", one) for one in counts)]


def run(
    entries: Sequence[Entry],
    out: Path,
    environments: Environments,
    cores: int,
    budget: float | None = None,
    quick: bool = False,
    methods: Mapping[str, Entry] = METHODS,
) -> int:
    """Measure what is missing; every point is written as soon as it is known. Returns how many the budget left undone.

    budget: in minutes. methods: where the bases of `entries` are found. Raises InputError where --quick would
    replace what was measured without.
    """
    out.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + 60 * budget if budget is not None else float("inf")
    left = 0
    with alone(out):
        shutil.rmtree(out / "work" / "growth", ignore_errors=True)  # models of an earlier call may be others
        for entry in entries:
            left += _measure(entry, out, environments, cores, until, quick, methods)
        shutil.rmtree(out / "work" / "growth", ignore_errors=True)
    if left:
        print(f"budget spent: {left} points left; call again to go on", file=sys.stderr)
    return left


def _measure(
    entry: Entry,
    out: Path,
    environments: Environments,
    cores: int,
    until: float,
    quick: bool,
    methods: Mapping[str, Entry],
) -> int:
    """The points of one method; returns how many are left undone."""
    path = out / "growth" / f"{entry.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        python, used = environments.python(entry.environment), environments.versions(entry.environment)
        failed = "it takes the scans of a study, not images" if entry.of_scans else None
    except EnvironmentMissing as error:
        python, used, failed = Path(), {}, str(error)
    chain = [*(methods[name] for name in bases(entry)), entry]
    code = [code_of(made_by) for made_by in (*(one.made_by for one in chain), "benchmarks.growth_worker:score")]
    key = {"versions": used, "code": code, "quick": quick, "threads": cores}
    if failed:
        if not path.exists():  # or what was measured before would be lost
            write_json(path, {**_blank(entry, key, cores), "failed": failed})
        return 0
    facts = _stored(path, key) or _blank(entry, key, cores)
    todo = [one for one in wanted_points(quick) if not any(one.is_of(point) for point in facts["points"])]
    for number, one in enumerate(todo):
        if time.monotonic() >= until:
            return len(todo) - number
        point = _point(chain, one, facts["points"], out, python, cores, until)
        if point is None:
            return len(todo) - number
        facts["points"].append(point)
        write_json(path, {**facts, "failed": None})
        print(f"{entry.name}, {one.what} {one.value}: {_told(point)}", file=sys.stderr, flush=True)
    return 0


def _blank(entry: Entry, key: Mapping[str, Any], cores: int) -> dict[str, Any]:
    return {
        "method": entry.name,
        "points": [],
        "failed": None,
        "key": dict(key),
        "machine": machine(cores),
        "train_images": TRAIN_IMAGES,
        "steps": STEPS,
        "passes": PASSES,
        "images": IMAGES,
        "side": SIDE,
        "batch": BATCH,
        "most_seconds": MOST_SECONDS,
    }


def _stored(path: Path, key: Mapping[str, Any]) -> dict[str, Any] | None:
    """What there is already, if nothing has changed since. What failed, but for want of time, is tried again, and what
    was not tried for it.

    Raises:
        InputError: it would be replaced by points in brief.
    """
    with suppress(OSError, ValueError, KeyError, TypeError):
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if key["quick"] and found["points"] and not found["key"]["quick"]:
            raise InputError(f"{path}: --quick would replace what was measured in full; give it an --out of its own")
        if found["key"] == key:
            kept = [point for point in found["points"] if not _again(point, found["points"])]
            return {**found, "points": kept}
    return None


def _again(point: Mapping[str, Any], points: Sequence[Mapping[str, Any]]) -> bool:
    """Whether it is worth another try: it failed, and not by taking too long; or it waited for one that did."""
    if "failed" in point:
        return not point["failed"].startswith(TOO_LONG)
    return point.get("left_out") == NOT_TRIED and any(
        one["what"] == point["what"] and one["value"] < point["value"] and _again(one, points) for one in points
    )


def expected_seconds(one: Wanted, points: Sequence[Mapping[str, Any]]) -> float:
    """Of scoring, by the largest smaller point of its sort, or one of `SIDE`; 0 where nothing is known yet."""
    known = [point for point in points if "ms_per_image" in point]
    smaller = [point for point in known if point["what"] == one.what and point["value"] < one.value]
    if one.what == "images":
        of_side = [point for point in known if point["what"] == "size" and point["value"] == SIDE]
        each = max(smaller, key=lambda point: point["value"])["ms_per_image"] if smaller else None
        each = each if each is not None else of_side[0]["ms_per_image"] if of_side else 0.0
        return float(each * one.value / 1000)
    if not smaller:
        return 0.0
    last = max(smaller, key=lambda point: point["value"])
    once = last["ms_per_image"] / 1000 * (one.value / last["value"]) ** STEEPEST
    return float(once * (PASSES + 1))


def _point(
    chain: Sequence[Entry],
    one: Wanted,
    points: Sequence[Mapping[str, Any]],
    out: Path,
    python: Path,
    cores: int,
    until: float,
) -> Point | None:
    """What came of it: figures, `failed` or `left_out`; None where the budget ended it."""
    point: Point = {"what": one.what, "value": one.value}
    smaller = [each for each in points if each["what"] == one.what and each["value"] < one.value]
    if any("failed" in each or "left_out" in each for each in smaller):
        return {**point, "left_out": NOT_TRIED}
    expected = expected_seconds(one, points)
    if expected > MOST_SECONDS:
        return {**point, "left_out": f"would take about {expected:.0f} s, more than {MOST_SECONDS:.0f} s"}
    answer = _work(chain, one, out, python, cores, until)
    return None if answer is None else {**point, **answer}


def _work(
    chain: Sequence[Entry], one: Wanted, out: Path, python: Path, cores: int, until: float
) -> dict[str, Any] | None:
    """What the worker answers; a `failed` line where it does not, None where the budget ended it."""
    scratch = out / "work" / "growth" / "now"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    (out / "logs").mkdir(exist_ok=True)
    spec = {
        "chain": [asdict(entry) for entry in chain],
        "what": one.what,
        "value": one.value,
        "side": one.side,
        "train_images": TRAIN_IMAGES,
        "steps": STEPS,
        "passes": PASSES,
        "images": IMAGES,
        "most_seconds": MOST_SECONDS,
        "models": str(out / "work" / "growth" / "models" / str(one.side)),
    }
    write_json(scratch / "spec.json", spec)
    allowed = min(PATIENCE, until - time.monotonic())
    with open(out / "logs" / "growth.log", "a", encoding="utf-8") as log:
        worker = started(python, "benchmarks.growth_worker", scratch / "spec.json", cores, log)
        try:
            worker.wait(allowed)
        except subprocess.TimeoutExpired:
            return None if allowed < PATIENCE else {"failed": f"{TOO_LONG} {PATIENCE:.0f} s"}
        finally:
            end(worker)
    try:
        found: dict[str, Any] = json.loads((scratch / "answer.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {"failed": f"the process ended with status {worker.returncode} and no answer"}
    return found


def _told(point: Point) -> str:
    if "peak_mb" in point:
        return f"{point['ms_per_image']:.3g} ms an image, {point['peak_mb']:.0f} MB"
    return str(point.get("failed") or point["left_out"])
