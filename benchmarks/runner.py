"""Starts a worker for every run that is to be done, watches its time, and writes down what came of it."""

from __future__ import annotations

import datetime
import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any, TextIO

from benchmarks import measuring
from benchmarks.environments import Environments, variables
from benchmarks.fingerprints import figures_code
from benchmarks.folds import within_folds
from benchmarks.method import PEER_MINUTES
from benchmarks.plan import Planned
from benchmarks.results import ROOT, empty_result, machine, read_result, write_result
from benchmarks.stages import Run, read_fitted
from benchmarks.unfinished import is_unfinished
from benchmarks.worker import NO_MEMORY, spec_of
from priorlens.errors import InputError, OutputError
from priorlens.outputs import write_json

TOO_LONG = "(--limit)"
"""How the failure of a run ends that was given no more time."""

BY_OTHERS = (TOO_LONG, NO_MEMORY)
"""Ends of failures that runs beside it may be the cause of."""

LOOK = 0.1
"""Seconds between two looks at whether a worker has ended."""

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
    """minutes: of one run. until: when all has to end, by `time.monotonic`; inf where nothing says so.

    threads: of each worker, of which there are `jobs` at a time. stop: ends them all.
    """

    minutes: float
    until: float
    threads: int
    jobs: int = 1
    stop: Event = field(default_factory=Event)


class OutOfBudget(Exception):
    """The run was stopped with all of them, by their budget or by hand: it will be done another time."""


class Disturbed(Exception):
    """The run failed in a way that others beside it may be the cause of."""


def given_before(planned: Planned, threads: int) -> float:
    """Seconds that the budget last gave to this very run, on as many threads, in vain; 0 if it got any further."""
    try:
        found = json.loads(planned.run.place.cut.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0.0
    same = found["key"] == planned.run.key and found.get("threads") == threads
    same &= found["lacking"] <= _lacking(planned.run) and not is_unfinished(planned.run.place)
    return float(found["seconds"]) if same and planned.state != "unmeasured" else 0.0


def _lacking(run: Run) -> int:
    """Folds without a model."""
    return sum(bool(run.lacks(fold)) for fold in range(len(run.study.folds)))


def one_run(planned: Planned, environments: Environments, limits: Limits) -> dict[str, Any]:
    """The result of a run, whatever becomes of it. Raises OutOfBudget and Disturbed, leaving nothing but models."""
    run = planned.run
    place = run.place
    if planned.state == "unmeasured" and (measured := measured_again(run)):
        return measured
    began = time.monotonic()
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
    if failed and limits.jobs > 1 and failed.endswith(BY_OTHERS):
        raise Disturbed(failed)
    if failed:
        result["failed"] = failed
        shutil.rmtree(place.predictions, ignore_errors=True)
    result["machine"]["load"].append(round(os.getloadavg()[0], 2))
    result["seconds"] = round(time.monotonic() - began, 1)
    write_result(place, result)
    place.cut.unlink(missing_ok=True)
    return result


def measured_again(run: Run) -> dict[str, Any] | None:
    """The result with new figures of its predictions, which are left as they are; None where they cannot be read."""
    result = read_result(run.place.result)
    if result is None or measure(result, run):
        return None
    write_result(run.place, result)
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
    lacking = _lacking(run)
    allowed = min(60 * limits.minutes, limits.until - time.monotonic())
    try:
        with open(log, "w", encoding="utf-8") as file:
            further = {PEER_MINUTES: f"{run.options.peer_minutes:g}"}
            worker = started(python, "benchmarks.worker", spec, limits.threads, file, **further)
            try:
                code = _status(worker, allowed, limits.stop)
            except TimeoutError:
                if allowed < 60 * limits.minutes:
                    place.cut.parent.mkdir(parents=True, exist_ok=True)
                    cut = {"lacking": lacking, "seconds": round(allowed, 1), "threads": limits.threads}
                    write_json(place.cut, {"key": run.key, **cut})
                    raise OutOfBudget from None
                return {"failed": f"stopped after {limits.minutes:g} minutes {TOO_LONG}"}
            finally:
                end(worker)
        return _answer(scratch / "answer.json", code, log)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def started(
    python: Path, module: str, spec: Path, threads: int, log: TextIO, **further: str
) -> subprocess.Popen[bytes]:
    """A module at work on a spec, in a session of its own; further: of its environment. Its scratch is the spec's."""
    return subprocess.Popen(
        [str(python), "-m", module, str(spec)],
        cwd=ROOT,
        env={**variables(threads, spec.parent), **further},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )


def _status(worker: subprocess.Popen[Any], seconds: float, stop: Event) -> int:
    """With which it ended. Raises TimeoutError, and OutOfBudget where it was stopped."""
    until = time.monotonic() + seconds
    while (code := worker.poll()) is None:
        if stop.wait(LOOK):
            raise OutOfBudget
        if time.monotonic() > until:
            raise TimeoutError
    return code


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
    if failed := measure(result, run):
        return failed
    memory, result["remark"] = judged.pop("memory_mb"), judged.pop("remark")
    result["score"] = judged
    result["memory"] = {"fit_mb": None, "score_mb": memory}
    return ""


def measure(result: dict[str, Any], run: Run) -> str:
    """Figures of a run from its predictions; returns why there are none, or nothing."""
    try:
        outcomes = measuring.read_outcomes(run.study, run.place.predictions)
        result["figures"] = measuring.figures(outcomes)
        if run.study.height:
            result["matched_height"] = measuring.matched_height(outcomes, run.study.height)
        result["within_folds"] = within_folds(run.study, outcomes)
    except (InputError, OSError, ValueError, zipfile.BadZipFile) as error:
        return f"its predictions cannot be measured: {' '.join(str(error).split())}"
    result["figures_code"] = figures_code()
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
