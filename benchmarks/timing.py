"""Time of scoring an image, the methods in turns, on a fixed set of test images."""

from __future__ import annotations

import json
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.environments import Environments, variables
from benchmarks.plan import Planned
from benchmarks.results import ROOT, read_result, write_result
from benchmarks.runner import end
from benchmarks.stages import Run, time_facts
from benchmarks.worker import spec_of
from priorlens.outputs import write_json

SHARE = 0.1
"""Of a budget that is kept for timing."""

REPEATS = 3

TOGETHER = 4
"""Methods whose models are in memory at a time, to be timed in turns."""

PASS_SECONDS, QUICK_SECONDS = 6.0, 0.5
"""A pass over the images that would take longer is made over fewer; the second is of `--quick`."""

PATIENCE = 300.0
"""Seconds that a model has to load, or a pass to end."""


@dataclass
class Clock:
    """A worker that holds one method's model at a time, and is timed with it whenever asked."""

    process: subprocess.Popen[bytes]

    @classmethod
    def start(cls, python: Path, threads: int, log: Path, scratch: Path) -> Clock:
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "ab") as file:
            return cls(
                subprocess.Popen(
                    [str(python), "-m", "benchmarks.worker", "--time"],
                    cwd=ROOT,
                    env=variables(threads, scratch),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=file,
                    start_new_session=True,
                )
            )

    def ask(self, line: str, patience: float = PATIENCE) -> dict[str, Any] | None:
        """What it answers; None where it cannot, or does not in time, and then it is ended."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(f"{line}\n".encode())
            self.process.stdin.flush()
        except OSError:
            return None
        answered = select.select([self.process.stdout], [], [], patience)[0]
        text = self.process.stdout.readline() if answered else b""
        if not text:
            end(self.process)
            return None
        found: dict[str, Any] = json.loads(text)
        return None if "failed" in found else found

    def close(self) -> None:
        end(self.process)
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(OSError):
                assert pipe is not None
                pipe.close()


def time_all(plan: Sequence[Planned], environments: Environments, threads: int, until: float) -> None:
    """Time every run of the first seed that is done and has not been timed. Those of a few methods at a time, in turns.

    Which methods take turns is drawn, so that a slow minute of the machine does not hit one family. A method that is
    not timed to the end keeps the times that its own run had.
    """
    first = min((one.run.place.seed for one in plan), default=0)
    runs: dict[str, list[Run]] = {}
    for one in plan:
        if one.run.place.seed == first and _untimed(one.run):
            runs.setdefault(one.run.entry.name, []).append(one.run)
    names = [list(runs)[i] for i in np.random.default_rng(first).permutation(len(runs))]
    for start in range(0, len(names), TOGETHER):
        group = {name: runs[name] for name in names[start : start + TOGETHER]}
        if time.monotonic() < until:
            _time_group(group, environments, threads, until)
            print(f"timed {', '.join(group)}", file=sys.stderr, flush=True)


def _untimed(run: Run) -> bool:
    found = read_result(run.place.result)
    if not found or found["failed"] or found["key"] != run.key:
        return False
    return not found["score"]["ms_per_image"]["interleaved"]


def _time_group(group: Mapping[str, Sequence[Run]], environments: Environments, threads: int, until: float) -> None:
    """These methods on all their studies, one study after the other."""
    some = next(iter(group.values()))[0]
    folder = some.place.out / "work" / "timing"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    log = some.place.out / "logs" / "timing.log"
    clocks: dict[str, Clock] = {}
    try:
        for name, runs in group.items():
            clocks[name] = Clock.start(environments.python(runs[0].entry.environment), threads, log, folder)
        for study in dict.fromkeys(run.study.name for runs in group.values() for run in runs):
            of_study = {name: run for name, runs in group.items() for run in runs if run.study.name == study}
            _time_study(of_study, clocks, folder, threads, until)
    finally:
        for clock in clocks.values():
            clock.close()
        shutil.rmtree(folder, ignore_errors=True)


def _time_study(runs: Mapping[str, Run], clocks: Mapping[str, Clock], folder: Path, threads: int, until: float) -> None:
    """Load all models, then go round."""
    images: dict[str, int] = {}
    for name, run in runs.items():
        spec = folder / f"{name}.json"
        write_json(spec, spec_of(run))
        if loaded := clocks[name].ask(f"load {QUICK_SECONDS if run.options.quick else PASS_SECONDS} {spec}"):
            images[name] = loaded["loaded"]
    passes: dict[str, list[float]] = {name: [] for name in images}
    for _ in range(REPEATS):
        for name, took in passes.items():
            if time.monotonic() < until and (timed := clocks[name].ask("go")):
                took.append(timed["ms"])
    for name, took in passes.items():
        if len(took) == REPEATS:
            _note(runs[name], took, {"images": images[name], "together": len(passes), "threads": threads})


def _note(run: Run, milliseconds: Sequence[float], how: Mapping[str, int]) -> None:
    """In the run's result, instead of the time that was taken while it judged."""
    found = read_result(run.place.result)
    if found is not None:
        times = time_facts(milliseconds, repeats=len(milliseconds), interleaved=True)
        found["score"]["ms_per_image"] = {**times, **how}
        write_result(run.place, found)
