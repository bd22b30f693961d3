"""Starts a worker for every run that is to be done, watches its time, and writes down what came of it."""

from __future__ import annotations

import datetime
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import measuring
from benchmarks.environments import ROOT, Environments, variables
from benchmarks.plan import Planned
from benchmarks.results import empty_result, machine, write_result
from benchmarks.stages import Run, read_fitted
from benchmarks.worker import spec_of
from priorlens.errors import InputError, OutputError
from priorlens.outputs import write_json

GRACE = 5.0
"""Seconds that a worker has to end by itself."""


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Raises OutputError where another process measures into the same folder: it would disturb the times too."""
    with open(out / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise OutputError(
                f"{out}: another process measures into it; wait for it, or choose another --out"
            ) from error
        yield


@dataclass(frozen=True)
class Limits:
    """minutes: of one run. until: when all has to end, by `time.monotonic`; inf where nothing says so."""

    minutes: float
    until: float
    threads: int


class OutOfBudget(Exception):
    """The run was stopped by the budget of all of them: it will be done another time."""


def run_all(todo: Sequence[Planned], environments: Environments, limits: Limits) -> int:
    """Do these runs in their order; returns how many were done before the budget was spent. Says so on stderr."""
    for number, planned in enumerate(todo):
        if time.monotonic() >= limits.until:
            return number
        place = planned.run.place
        began = time.monotonic()
        try:
            result = one_run(planned, environments, limits)
        except OutOfBudget:
            return number
        told = summary(result, time.monotonic() - began)
        print(
            f"[{number + 1}/{len(todo)}] {place.study} {place.method} {place.seed}: {told}", file=sys.stderr, flush=True
        )
    return len(todo)


def one_run(planned: Planned, environments: Environments, limits: Limits) -> dict[str, Any]:
    """The result of a run, whatever becomes of it. Raises OutOfBudget and KeyboardInterrupt, leaving nothing."""
    run = planned.run
    place = run.place
    result = empty_result(place, run.key, run.study.planted)
    result["started"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    result["machine"] = machine(limits.threads)
    place.result.unlink(missing_ok=True)
    if planned.state == "done":  # it is wanted again although nothing has changed: with a new model
        shutil.rmtree(place.models, ignore_errors=True)
    shutil.rmtree(place.predictions, ignore_errors=True)
    failed = planned.impossible
    if not failed:
        answer = work(run, environments.python(run.entry.environment), limits)
        failed = answer.get("failed", "")
        if not failed:
            failed = fill(result, run, answer["judged"])
    _fill_fit(result, run)
    if failed:
        result["failed"] = failed
        shutil.rmtree(place.predictions, ignore_errors=True)
    result["machine"]["load"].append(round(os.getloadavg()[0], 2))
    write_result(place, result)
    return result


def work(run: Run, python: Path, limits: Limits) -> dict[str, Any]:
    """What the worker answers; `{"failed": line}` where it does not."""
    place = run.place
    scratch = place.out / "work" / f"{place.study}-{place.method}-{place.seed}"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    spec = scratch / "spec.json"
    write_json(spec, spec_of(run))
    log = log_of(run)
    allowed = min(60 * limits.minutes, limits.until - time.monotonic())
    try:
        with open(log, "w", encoding="utf-8") as file:
            worker = subprocess.Popen(
                [str(python), "-m", "benchmarks.worker", str(spec)],
                cwd=ROOT,
                env=variables(limits.threads, scratch),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
            try:
                code = worker.wait(allowed)
            except subprocess.TimeoutExpired:
                if allowed < 60 * limits.minutes:
                    raise OutOfBudget from None
                return {"failed": f"stopped after {limits.minutes:g} minutes (--limit)"}
            finally:
                end(worker)
        return _answer(scratch / "answer.json", code, log)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def log_of(run: Run) -> Path:
    """Where all that a worker prints goes."""
    folder = run.place.out / "logs" / run.place.study
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{run.place.method}-{run.place.seed}.log"


def end(worker: subprocess.Popen[Any]) -> None:
    """The worker and all that it has started."""
    for kind, patience in ((signal.SIGTERM, GRACE), (signal.SIGKILL, GRACE)):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(worker.pid, kind)
        with suppress(subprocess.TimeoutExpired):
            worker.wait(patience)


def _answer(path: Path, code: int, log: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found
    except (OSError, ValueError):
        lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        return {"failed": f"the process {how}: {lines[-1][:200]}" if lines else f"the process {how}"}


def fill(result: dict[str, Any], run: Run, judged: dict[str, Any]) -> str:
    """Figures, times and memory of a run that has judged; returns why there are none, or nothing."""
    try:
        outcomes = measuring.read_outcomes(run.study, run.place.predictions)
        result["figures"] = measuring.figures(outcomes)
        if run.study.height:
            result["matched_height"] = measuring.matched_height(outcomes, run.study.height)
    except (InputError, OSError, ValueError) as error:
        return f"its predictions cannot be measured: {' '.join(str(error).split())}"
    memory, result["remark"] = judged.pop("memory_mb"), judged.pop("remark")
    result["score"] = judged
    result["memory"] = {"fit_mb": None, "score_mb": memory}
    return ""


def _fill_fit(result: dict[str, Any], run: Run) -> None:
    """How the models were fitted, as far as they were: those of a method that is read are its own business."""
    fitted = [
        [found for fold in range(len(run.study.folds)) if (found := read_fitted(place, fold))]
        for place in run.sources.values()
    ]
    if not all(fitted):
        return
    every = [one for of_method in fitted for one in of_method]
    converged = [one["converged"] for one in every if one["converged"] is not None]
    result["fit"] = {
        "seconds": [
            round(sum(seconds), 3) for seconds in zip(*([f["seconds"] for f in o] for o in fitted), strict=False)
        ],
        "converged": all(converged) if converged else None,
        "curve": every[0]["curve"],
        "shared_with": run.entry.needs,
        "images": every[0]["images"],
    }
    told = [result["remark"], *(one["remark"] for one in every)]
    result["remark"] = "; ".join(dict.fromkeys(remark for remark in told if remark))
    result["model_bytes"] = round(sum(one["model_bytes"] for one in every) / max(map(len, fitted)))
    memory = result["memory"] or {"score_mb": None}
    result["memory"] = {"fit_mb": max(one["memory_mb"] for one in every), "score_mb": memory["score_mb"]}


def summary(result: dict[str, Any], seconds: float) -> str:
    """One line for whoever waits."""
    if result["failed"]:
        return f"FAILED, {result['failed']} ({seconds:.0f} s)"
    figures = result["figures"][measuring.POOLED]
    image, pixel = (figures[key]["value"] for key in ("image_auroc", "pixel_ap"))
    cells = [f"{words} {value:.3f}" for words, value in (("AUROC", image), ("pixel AP", pixel)) if value is not None]
    return f"{', '.join(cells)} ({seconds:.0f} s)"
