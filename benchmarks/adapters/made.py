"""Studies are made once: whole or not at all, and anew when what they were made from has changed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.study import Fold, Study
from benchmarks.study_files import study_facts, study_from
from priorlens.errors import InputError, OutputError
from priorlens.outputs import write_json

FORMAT = 1
"""Raised when an adapter would make another study of the same files."""

SEED = 20240
"""Of every draw of patients: the same study wherever it is made."""

TEST_SHARE = 0.3
"""Of the patients that are judged, where the data set has no split of its own."""

FEW = 10
"""Fewer patients than this are judged in two folds, half by a model of the other half."""

FACTS = "study.json"


def made(out: Path, name: str, fingerprint: str, make: Callable[[Path], Study]) -> Study:
    """The study `out/studies/<name>`, made by `make` unless it is there with this fingerprint.

    `make` fills an empty folder and returns the study, its folds in that folder; the folder takes its name when all of
    it is written. Raises what `make` raises, and OutputError where nothing can be written.
    """
    folder = out / "studies" / name
    if (known := _known(folder, fingerprint)) is not None:
        return known
    partial = folder.with_name(f".{name}.{os.getpid()}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        study = make(partial)
        study = replace(study, folds=tuple(_moved(fold, partial, folder) for fold in study.folds))
        facts = study_facts(study)
        for fold, stored in zip(study.folds, facts["folds"], strict=True):
            stored["folder"] = fold.folder.relative_to(folder).as_posix()
        write_json(partial / FACTS, {"format": FORMAT, "fingerprint": fingerprint, "study": facts})
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OutputError(f"{folder}: cannot be written ({reason}); choose another output folder") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return study


def _known(folder: Path, fingerprint: str) -> Study | None:
    """The study that lies there complete; None for any other."""
    try:
        stored: dict[str, Any] = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        if (stored["format"], stored["fingerprint"]) != (FORMAT, fingerprint):
            return None
        for fold in stored["study"]["folds"]:
            fold["folder"] = str(folder / fold["folder"])
        study = study_from(stored["study"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return study if all(fold.folder.is_dir() for fold in study.folds) else None


def _moved(fold: Fold, old: Path, new: Path) -> Fold:
    return replace(fold, folder=new / fold.folder.relative_to(old))


def fingerprint_of(root: Path, files: Iterable[Path], *settings: object) -> str:
    """Of files by name, size and time of change, for their contents may be hundreds of gigabytes; and of settings."""
    lines = [repr(settings)]
    for path in sorted(files):
        status = path.stat()
        lines.append(f"{path.relative_to(root).as_posix()} {status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def placed(source: Path, target: Path) -> None:
    """Link a file of the user's into a study, or copy it where links cannot be made."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.symlink_to(source.resolve())
    except FileExistsError as error:
        raise InputError(f"{source}: another image of its kind has the name {target.name}; rename one") from error
    except OSError:
        shutil.copyfile(source, target)


def study_name(layout: str, folder: Path) -> str:
    """Such as `mvtec_bottle`: fit for a folder and an option."""
    words = re.sub(r"[^a-z0-9]+", "_", folder.resolve().name.lower()).strip("_")
    return f"{layout}_{words}" if words else layout


def drawn(names: Iterable[str], most: int) -> list[str]:
    """So many of the names at random, in order; the same ones every time."""
    known = sorted(set(names))
    chosen = np.random.default_rng(SEED).permutation(len(known))[:most]
    return [known[i] for i in sorted(chosen)]


def folds_of(patients: Sequence[str], where: Path, count: int | None = None) -> list[tuple[list[str], list[str]]]:
    """Patients to learn from and to judge, fold by fold, no patient in both.

    count: of folds, in which every patient is judged once; as many as there are patients at most. Without it two where
    there are fewer than `FEW`, else a single one, in which `TEST_SHARE` of them are judged.

    Raises InputError for a single patient.
    """
    names = sorted(set(patients))
    if len(names) < 2:
        raise InputError(f"{where}: holds {len(names)} patients to be told apart; at least two are needed")
    order = [names[i] for i in np.random.default_rng(SEED).permutation(len(names))]
    if count is None and len(names) >= FEW:
        judged = round(TEST_SHARE * len(names))
        return [(sorted(order[judged:]), sorted(order[:judged]))]
    return in_turn(order, min(count or 2, len(names)))


def in_turn(patients: Sequence[str], count: int) -> list[tuple[list[str], list[str]]]:
    """Patients to learn from and to judge in `count` folds, of which each in its turn judges the next patient."""
    judged = [patients[i::count] for i in range(count)]
    return [(sorted(set(patients) - set(some)), sorted(some)) for some in judged]


def existing_folder(folder: Path, wanted: str) -> Path:
    """Raises InputError where it is none; wanted: what should be in it."""
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder; name one with {wanted}")
    return folder
