"""One run in a process of its own: `python -m benchmarks.worker SPEC.json`; only the runner starts it.

Fitting and judging are forked off, one after the other, so that the peak memory of each is its own, and what is judged
with has been loaded from disk. With `--time` it loads models and is timed on demand; with `--versions` it only says
what it would measure with.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from benchmarks.memory import be_first_to_go
from benchmarks.method import Entry
from benchmarks.results import Options, Place, versions
from benchmarks.stages import NEEDS, Run, Timed, fit, judge
from benchmarks.study import Study
from benchmarks.study_files import study_facts, study_from
from priorlens.commands.memory import keep_freed_memory
from priorlens.outputs import write_json

NO_MEMORY = "most likely because memory ran out"
"""How the failure of a run ends that was killed."""

LONGEST_LINE = 300
"""Characters of an error that are kept."""


def spec_of(run: Run) -> dict[str, Any]:
    """A run as JSON."""
    return {
        "entry": asdict(run.entry),
        "study": study_facts(run.study),
        "out": str(run.place.out),
        "seed": run.place.seed,
        "options": asdict(run.options),
        "key": run.key,
        "base_keys": run.base_keys,
    }


def run_of(spec: dict[str, Any]) -> Run:
    """The inverse of `spec_of`."""
    entry = Entry(**{**spec["entry"], "only": tuple(spec["entry"]["only"])})
    study: Study = study_from(spec["study"])
    place = Place(Path(spec["out"]), study.name, entry.name, spec["seed"])
    return Run(entry, study, place, Options(**spec["options"]), spec["key"], spec["base_keys"])


def answer(run: Run, scratch: Path) -> dict[str, Any]:
    """`{"judged": ...}`, or `{"failed": one line}`."""
    for fold in range(len(run.study.folds)):
        lacking = run.lacks(fold)
        if lacking and run.entry.needs:
            return {"failed": f"{NEEDS} {' and '.join(lacking)}, which is not there"}
        if not lacking:
            continue
        failed = forked(lambda fold=fold: fit(run, fold), scratch / "fit.json", "learning")  # type: ignore[misc]
        if "failed" in failed:
            return failed
    return forked(lambda: judge(run), scratch / "judge.json", "judging")


def forked(work: Callable[[], Any], path: Path, doing: str) -> dict[str, Any]:
    """What `work` returns, as `{"judged": ...}`, from a child process; a crash or a kill of it is one line."""
    path.unlink(missing_ok=True)
    child = multiprocessing.get_context("fork").Process(target=_in_child, args=(work, path))
    child.start()
    child.join()
    if child.exitcode == 0 and path.is_file():
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {"failed": f"{doing}: {found['failed']}"} if "failed" in found else found
    return {"failed": f"{doing}: {_ended(child.exitcode or 0)}"}


def _in_child(work: Callable[[], Any], path: Path) -> None:
    be_first_to_go()
    try:
        found = {"judged": work()}
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        traceback.print_exc()
        found = {"failed": line_of(error)}
    write_json(path, found)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # threads that a library left running must not keep the process


def line_of(error: BaseException) -> str:
    """An error as one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:LONGEST_LINE].rstrip(": ")


def _ended(code: int) -> str:
    if code == -signal.SIGKILL:
        return f"killed, {NO_MEMORY}"
    return f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code} and no answer"


def be_timed(commands: Iterable[str], answers: TextIO) -> None:
    """`load SECONDS SPEC` loads a model; `go` times one pass, and answers in milliseconds; ends with its input."""
    timed: Timed | None = None
    for line in commands:
        word, *rest = line.rstrip("\n").split(" ", 2)
        try:
            if word == "load":
                timed = None
                timed = Timed(run_of(json.loads(Path(rest[1]).read_text(encoding="utf-8"))), float(rest[0]))
                told: dict[str, Any] = {"loaded": len(timed.images)}
            elif timed is None:
                told = {"failed": "nothing is loaded"}
            else:
                told = {"ms": timed.milliseconds()}
        except Exception as error:
            traceback.print_exc()
            told = {"failed": line_of(error)}
        print(json.dumps(told), file=answers, flush=True)


def main(arguments: list[str]) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is for the log
    be_first_to_go()
    keep_freed_memory()
    if arguments == ["--versions"]:
        print(json.dumps(versions()), file=answers, flush=True)
    elif arguments == ["--time"]:
        be_timed(sys.stdin, answers)
    else:
        spec = Path(arguments[0])
        run = run_of(json.loads(spec.read_text(encoding="utf-8")))
        try:
            importlib.import_module(run.entry.made_by.partition(":")[0])  # once, for both children
            found = answer(run, spec.parent)
        except Exception as error:
            traceback.print_exc()
            found = {"failed": f"cannot start: {line_of(error)}"}
        write_json(spec.with_name("answer.json"), found)
    sys.stdout.flush()
    answers.flush()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
