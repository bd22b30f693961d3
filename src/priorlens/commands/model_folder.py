"""The folder that a fit writes to: who may use it, and what an unfinished training in it is of."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from priorlens.checkpoint import CONFIG, UNFINISHED, read_config
from priorlens.errors import ModelError, OutputError
from priorlens.outputs import prepare_folder, write_json

RUN = "run.json"
RUN_FACTS = "run"
"""Where `config.json` repeats what `RUN` said."""


def claim(out: Path, *, resume: bool, overwrite: bool) -> None:
    """Make `out` ready for a fit. What it holds is refused, by OutputError, unless an option says what to do with it.

    `overwrite` drops an unfinished training; a finished model stays until the new one replaces it.
    """
    unfinished, finished = (out / UNFINISHED / RUN).is_file(), (out / CONFIG).is_file()
    if not (resume or overwrite):
        if unfinished:
            raise OutputError(
                f"{out}: holds an unfinished training; add --resume to go on with it, or --overwrite to start again"
            )
        if finished:
            raise OutputError(
                f"{out}: holds a finished model; choose another --out or add --overwrite (--resume calibrates it)"
            )
    prepare_folder(out, overwrite=overwrite or unfinished or finished)
    if overwrite and (out / UNFINISHED).is_dir():  # even without its RUN: what is left of it must not be gone on with
        discard_training(out)


def is_finished(out: Path, run: Mapping[str, Any]) -> bool:
    """Whether `out` holds the model that `run` describes, with nothing left to do.

    Raises OutputError if it holds the model, or the unfinished training, of another run.
    """
    unfinished = out / UNFINISHED / RUN
    if unfinished.is_file():
        _require_same(out, "unfinished training", _read(unfinished), run)
        return False
    if (out / CONFIG).is_file():
        _require_same(out, "model", read_config(out).get(RUN_FACTS, {}), run)
        return True
    return False


def begin(out: Path, run: Mapping[str, Any]) -> Path:
    """Note what the training is of, and return the folder that holds it until it is finished. Raises OutputError."""
    folder = prepare_folder(out / UNFINISHED, overwrite=True)
    try:
        write_json(folder / RUN, dict(run))
    except OutputError:
        with suppress(OSError):
            folder.rmdir()  # else nobody could tell what this empty folder is for
        raise
    return folder


def discard_training(out: Path) -> None:
    """Remove the folder that `begin` made, and nothing else. Raises OutputError."""
    try:
        shutil.rmtree(out / UNFINISHED)
    except OSError as error:
        raise OutputError(f"{out / UNFINISHED}: cannot be removed ({error.strerror}); remove it by hand") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"{path}: cannot be read; start again with --overwrite") from error


def _require_same(out: Path, what: str, known: Mapping[str, Any], run: Mapping[str, Any]) -> None:
    differing = sorted(name for name in {*known, *run} if known.get(name) != run.get(name))
    if differing:
        raise OutputError(
            f"{out}: its {what} was made with other {', '.join(differing)}; repeat that command with --resume, "
            "choose another --out, or start again with --overwrite"
        )
