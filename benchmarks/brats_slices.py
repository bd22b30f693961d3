"""BraTS folders as axial FLAIR slices, in folds that judge each patient by a model of others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.adapters.made import fingerprint_of
from benchmarks.adapters.slices import HEIGHT, by_median, write_slices
from benchmarks.study import Fold, Study
from benchmarks.study_files import made_once
from priorlens.datasets import visible_files
from priorlens.errors import InputError
from priorlens.volumes.reading import read_lesions, read_scan
from priorlens.volumes.scans import labelled_scans
from priorlens.volumes.volume import Layout

CHANNEL = "flair"

EVERY = 3
"""Of the slices of a judged patient, one in so many; neighbours are much alike."""

LEAST_BRAIN = 0.25
"""A slice counts from this share of the brain's largest cross-section on."""


def brats_study(folder: Path, out: Path, folds: int, every: int = EVERY) -> Study:
    """Cut the volumes of all patients in `folder` once, into `folds` folds of about as many judged patients each.

    Other files in the folder, or newer ones, are another study, which is cut anew.

    Raises:
        InputError: fewer than two patients, or volumes that cannot be read.
    """
    patients = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    folds = min(folds, len(patients))
    if folds < 2:
        raise InputError(
            f"{folder}: has {len(patients)} folders of patients and {folds} folds; at least two are needed"
        )
    files = [path for patient in patients for path in visible_files(patient)]
    made = made_once(
        out / "studies" / f"brats-{folds}-folds-every-{every}-{fingerprint_of(folder, files)[:8]}",
        lambda place: _write_folds(patients, place, folds, every),
    )
    return Study(
        name="brats",
        folds=tuple(
            Fold(
                made / f"fold{i}", tuple(p for p in patients if p not in patients[i::folds]), tuple(patients[i::folds])
            )
            for i in range(folds)
        ),
        intensity="range",
        planted=False,
        about=f"axial FLAIR slices of {len(patients)} patients with glioma, {folds} folds by patient; "
        "learned from lesion-free slices of the other patients",
        group=r"^(.+)_z\d+",
        height=HEIGHT,
    )


def _write_folds(patients: Sequence[Path], place: Path, folds: int, every: int) -> None:
    for patient in patients:
        scans, _ = labelled_scans(patient, channels=[CHANNEL])
        volume = read_scan(scans[0])
        lesion = read_lesions(scans[0], volume)
        brain = volume.voxels[0] > 0
        least = LEAST_BRAIN * Layout.of(volume.affine, "axial").to_stack(brain).mean(axis=(1, 2)).max()
        how: dict[str, Any] = {"to_grey": by_median(volume, brain), "inside": brain, "least": least}
        for i in range(folds):
            judged = patient in patients[i::folds]
            fold, step = place / f"fold{i}", every if judged else 1
            write_slices(volume, lesion, fold, patient.name, judged=judged, every=step, **how)
