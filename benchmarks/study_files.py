"""Studies as JSON: for the workers, and for the table, which is made later and without `--data`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.study import Fold, Study
from priorlens.outputs import write_json

_PLAIN = ("name", "intensity", "planted", "about", "group", "height")


def study_facts(study: Study) -> dict[str, Any]:
    """All of a study as plain data, paths being absolute."""
    folds = [
        {
            "folder": str(fold.folder.resolve()),
            "scans": [str(path.resolve()) for path in fold.scans],
            "judged": [str(path.resolve()) for path in fold.judged],
            "left_out": list(fold.left_out),
        }
        for fold in study.folds
    ]
    return {**{name: getattr(study, name) for name in _PLAIN}, "folds": folds}


def study_from(facts: Mapping[str, Any]) -> Study:
    """The inverse of `study_facts`. Raises KeyError or TypeError for anything else."""
    folds = tuple(
        Fold(
            Path(one["folder"]),
            scans=tuple(map(Path, one["scans"])),
            judged=tuple(map(Path, one["judged"])),
            left_out=tuple(one.get("left_out", ())),
        )
        for one in facts["folds"]
    )
    return Study(folds=folds, **{name: facts[name] for name in _PLAIN})


def remember(study: Study, out: Path) -> None:
    """Note under the output folder where the study's images lie."""
    folder = out / "studies"
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{study.name}.json", study_facts(study))


def remembered(out: Path) -> dict[str, Study]:
    """All studies that were ever run into this folder, by name, if their images are still there."""
    found = {}
    for path in sorted((out / "studies").glob("*.json")):
        study = study_from(json.loads(path.read_text(encoding="utf-8")))
        if all(fold.folder.is_dir() for fold in study.folds):
            found[study.name] = study
    return found


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """The folder, filled by `make` unless it has been before; one that was left half-made is made anew."""
    if not folder.is_dir():
        partial = folder.with_name(f".{folder.name}.making")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        make(partial)
        partial.rename(folder)
    return folder
