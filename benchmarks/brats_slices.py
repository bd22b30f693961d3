"""BraTS folders as axial FLAIR slices, in folds that judge each patient by a model of others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.adapters.made import fingerprint_of
from benchmarks.study import Fold, Study
from benchmarks.study_files import made_once
from priorlens.datasets import HEALTHY, visible_files
from priorlens.errors import InputError
from priorlens.volumes.reading import read_lesions, read_scan
from priorlens.volumes.scans import LESION, labelled_scans
from priorlens.volumes.volume import Layout

CHANNEL = "flair"

EVERY = 3
"""Of the slices of a judged patient, one in so many; neighbours are much alike."""

LEAST_BRAIN = 0.25
"""A slice counts from this share of the brain's largest cross-section on."""

GREY_OF_MEDIAN = 85
"""Grey value of a volume's median brain voxel; 0 stays 0, and what exceeds three medians is white."""


@dataclass(frozen=True)
class Slices:
    """A patient's slices with enough brain: their numbers, 8-bit pixels and lesions."""

    patient: str
    numbers: list[int]
    pixels: list[np.ndarray]
    lesions: list[np.ndarray]


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
        height=r"_z(\d+)",
    )


def _write_folds(patients: Sequence[Path], place: Path, folds: int, every: int) -> None:
    for patient in patients:
        slices = slices_of(patient)
        for i in range(folds):
            if patient in patients[i::folds]:
                write_judged(slices, place / f"fold{i}", every)
            else:
                write_learned(slices, place / f"fold{i}")


def slices_of(patient: Path) -> Slices:
    """Read one patient. Raises InputError."""
    scans, _ = labelled_scans(patient, channels=[CHANNEL])
    volume = read_scan(scans[0])
    layout = Layout.of(volume.affine, "axial")
    stack = layout.to_stack(volume.voxels[0])
    truth = layout.to_stack(read_lesions(scans[0], volume))
    brain = (stack > 0).sum(axis=(1, 2))
    numbers = [int(z) for z in np.flatnonzero(brain >= LEAST_BRAIN * brain.max())]
    grey = np.clip(stack * (GREY_OF_MEDIAN / np.median(stack[stack > 0])), 0, 255).round().astype(np.uint8)
    return Slices(patient.name, numbers, [grey[z] for z in numbers], [truth[z] for z in numbers])


def write_learned(slices: Slices, fold: Path) -> None:
    """The slices without lesion, all of them, to learn from."""
    for number, pixels, lesion in zip(slices.numbers, slices.pixels, slices.lesions, strict=True):
        if not lesion.any():
            _write(fold / "train" / HEALTHY, slices.patient, number, pixels)


def write_judged(slices: Slices, fold: Path, every: int) -> None:
    """The slices whose number `every` divides, with their lesions."""
    for number, pixels, lesion in zip(slices.numbers, slices.pixels, slices.lesions, strict=True):
        if number % every == 0:
            _write(fold / "test" / (LESION if lesion.any() else HEALTHY), slices.patient, number, pixels)
            if lesion.any():
                _write(fold / "ground_truth" / LESION, slices.patient, number, lesion.astype(np.uint8) * 255)


def _write(folder: Path, patient: str, number: int, pixels: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / f"{patient}_z{number:03d}.png")
