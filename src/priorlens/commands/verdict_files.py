"""What stands beside a table of scores once a model is calibrated: regions, patients, and the calibration itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from priorlens.calibration import Calibration
from priorlens.commands.terminal import warn
from priorlens.conformal import verdict_of
from priorlens.datasets import Case
from priorlens.outputs import write_json, write_rows
from priorlens.result_folder import CALIBRATION, SCHEMA, VERDICTS
from priorlens.verdicts import Judge, Judgement

REGIONS, PATIENTS = "regions.csv", "patients.csv"
VERDICT_FILES = (VERDICTS, REGIONS, PATIENTS, CALIBRATION)


@dataclass(frozen=True)
class Judged:
    """An image, its anomaly, and what is said of it."""

    case: Case
    anomaly: float
    judgement: Judgement


def write_verdicts(out: Path, judge: Judge, judged: Sequence[Judged], patients: Sequence[str]) -> None:
    """`VERDICT_FILES`: regions where the judge has an alpha, `patients` where they are known. Raises OutputError."""
    write_basis(out, judge)
    if judge.alpha is not None:
        centre = ("row", "column") if judge.affine is None else "xyz"[: len(judge.affine) - 1]
        _write_regions(out / REGIONS, judged, [f"centre_{axis}" for axis in centre])
    if patients:
        _write_patients(out / PATIENTS, judge, judged, patients)


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


def _write_regions(path: Path, judged: Sequence[Judged], names: Sequence[str]) -> None:
    rows: list[Sequence[object]] = []
    for one in judged:
        for number, region in enumerate(one.judgement.regions, 1):
            centre = [f"{value:.2f}" for value in region.centre]
            figures = [f"{value:.6g}" for value in (region.size, region.peak, region.mean, region.q_value)]
            rows.append([one.case.path.as_posix(), number, region.unit, *centre, *figures])
    write_rows(path, ["file", "region", "unit", *names, "size", "peak", "mean", "q_value"], rows)


def _write_patients(path: Path, judge: Judge, judged: Sequence[Judged], patients: Sequence[str]) -> None:
    """The highest anomaly of each patient, in the order of their first images.

    A patient with more images than any of the calibration has no p-value: so many reach higher by chance alone.
    """
    found: dict[str, list[float]] = {patient: [] for patient in patients}
    for one in judged:
        found[one.case.group].append(one.anomaly)
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
