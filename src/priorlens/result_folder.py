"""A folder that `priorlens score` wrote with a calibrated model: a table of images, and what they are held against."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from priorlens.errors import InputError
from priorlens.tables import Table, read_table

ANOMALY = "anomaly"
SCORES, SPECTRUM, CALIBRATION, VERDICTS = "scores.csv", "spectrum.csv", "calibration.csv", "verdicts.json"
SCHEMA = 1


@dataclass(frozen=True)
class ResultFolder:
    """What one model, in one setup, said of images.

    model, setup: hash of the model's tensors and how it scored; scores compare only where both are the same.
    scores: a line an image: file, anomaly, error, and mostly patient and p_value.
    calibration: a line a healthy image: image and patient (fingerprints), anomaly, and further figures.
    """

    path: Path
    model: str
    setup: str
    scores: Table
    calibration: Table


def read_result_folder(path: Path) -> ResultFolder:
    """Raises InputError: it is no such folder, was scored without calibration, or is damaged or newer."""
    if not (path / SCORES).is_file():
        raise InputError(f"{path}: holds no {SCORES}; give folders that priorlens score wrote")
    if not (path / CALIBRATION).is_file() or not (path / VERDICTS).is_file():
        raise InputError(
            f"{path}: was scored without calibration; run priorlens calibrate MODEL HEALTHY, then score again"
        )
    model, setup, healthy = _origin(path / VERDICTS)
    calibration = read_table(path / CALIBRATION, ("image", "patient", ANOMALY))
    images = {line.cells["image"] for line in calibration.lines}
    if healthy is not None and not len(images) == len(calibration.lines) == healthy:
        raise InputError(f"{path / CALIBRATION}: does not hold the {healthy} healthy images of {VERDICTS}; score again")
    scores = read_table(path / SCORES, ("file", ANOMALY, "error"), file_names=True)
    return ResultFolder(path, model, setup, scores, calibration)


def _origin(path: Path) -> tuple[str, str, int | None]:
    """The model's hash, the setup, and the number of healthy images, if it is told."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        schema, model, setup = int(facts["schema"]), str(facts["model"]), str(facts["setup"])
        healthy = int(facts["calibration"]["images"]) if "calibration" in facts else None
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise InputError(f"{path}: is damaged; score again") from error
    if schema > SCHEMA:
        raise InputError(f"{path}: has schema {schema}, this version reads {SCHEMA}; upgrade priorlens")
    return model, setup, healthy
