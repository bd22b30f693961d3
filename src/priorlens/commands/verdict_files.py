"""What stands beside a table of scores once a model is calibrated: regions, patients, and the calibration itself."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from priorlens.calibration import Calibration
from priorlens.commands.terminal import warn
from priorlens.conformal import verdict_of
from priorlens.outputs import write_json, write_rows
from priorlens.regions import Region
from priorlens.result_folder import CALIBRATION, SCHEMA, VERDICTS
from priorlens.verdicts import Judge

REGIONS, PATIENTS = "regions.csv", "patients.csv"
VERDICT_FILES = (VERDICTS, REGIONS, PATIENTS, CALIBRATION)


def write_basis(out: Path, judge: Judge) -> None:
    """What verdicts rest on: the calibration, in words and image by image. Raises OutputError."""
    calibration = judge.calibration
    write_json(
        out / VERDICTS,
        {
            "schema": SCHEMA,
            "model": calibration.model,
            "setup": calibration.setup,
            "alpha": judge.alpha,
            "procedure": judge.procedure,
            "pixel_size": None if judge.affine is None else float(np.linalg.norm(judge.affine[:-1, 0])),
            "calibration": calibration.worth,
        },
    )
    _write_calibration(out / CALIBRATION, calibration)


def _write_calibration(path: Path, calibration: Calibration) -> None:
    """The healthy images by fingerprint, each with its patient's number and all its figures."""
    columns = {"anomaly": calibration.anomaly, **calibration.features}
    rows = zip(calibration.images, calibration.patient_of, *columns.values(), strict=True)
    write_rows(path, ["image", "patient", *columns], rows)


def region_columns(judge: Judge) -> list[str]:
    """Of the table of regions."""
    centre = ("row", "column") if judge.affine is None else "xyz"[: len(judge.affine) - 1]
    return ["file", "region", "unit", *(f"centre_{axis}" for axis in centre), "size", "peak", "mean", "q_value"]


def region_rows(file: str, regions: Sequence[Region]) -> list[list[object]]:
    """A line a region of one image."""
    rows: list[list[object]] = []
    for number, region in enumerate(regions, 1):
        centre = [f"{value:.2f}" for value in region.centre]
        figures = [f"{value:.6g}" for value in (region.size, region.peak, region.mean, region.q_value)]
        rows.append([file, number, region.unit, *centre, *figures])
    return rows


def write_patients(path: Path, judge: Judge, images: Iterable[tuple[str, float]]) -> None:
    """The highest anomaly of each patient, in the order of their first images. Raises OutputError.

    images: the patient and the anomaly of each, NaN where it could not be used. A patient with more images than any of
    the calibration has no p-value: so many reach higher by chance alone.
    """
    found: dict[str, list[float]] = {}
    for patient, anomaly in images:
        found.setdefault(patient, []).extend([] if math.isnan(anomaly) else [anomaly])
    most, rows, without = judge.calibration.most_images, [], 0
    for patient, anomalies in found.items():
        highest, p_value, verdict = "", "", ""
        if anomalies:
            highest = str(np.float32(max(anomalies)))
        if 0 < len(anomalies) <= most:
            known = judge.calibration.patient_p_value(np.array(anomalies, np.float32))
            p_value, verdict = f"{known:.6g}", verdict_of(known, judge.alpha) if judge.alpha is not None else ""
        without += len(anomalies) > most
        rows.append([patient, len(anomalies), highest, p_value, *([] if judge.alpha is None else [verdict])])
    header = ["patient", "images", "anomaly", "p_value", *([] if judge.alpha is None else ["verdict"])]
    write_rows(path, header, rows)
    if without:
        warn(
            f"{path}: {without} of {len(found)} patients have more images than any patient of the calibration "
            f"({most}), and no p-value; calibrate with --group, on patients with as many images"
        )
