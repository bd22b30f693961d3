"""BraTS folders as axial FLAIR slices, in folds that judge each patient by a model of others."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from benchmarks.adapters.brats import flair_sources
from benchmarks.adapters.made import fingerprint_of, in_turn
from benchmarks.adapters.scan_studies import Cut, Taken, in_names, scan_folders, write_folds
from benchmarks.adapters.slices import GROUP, HEIGHT, by_median
from benchmarks.study import Fold, Study
from benchmarks.study_files import made_once
from priorlens.errors import InputError
from priorlens.volumes.scans import LESION
from priorlens.volumes.volume import Layout, Volume

EVERY = 3
"""Of the slices of a judged patient, one in so many; neighbours are much alike."""

LEAST_BRAIN = 0.25
"""A slice counts from this share of the brain's largest cross-section on."""

ONE_SCAN = r"^(.+)_z\d+"
"""Finds the patient where each has one scan. `GROUP` does too, but the expression is in the fingerprint of a study, by
which results that were kept are known."""


def brats_study(folder: Path, out: Path, folds: int, every: int = EVERY) -> Study:
    """Cut the volumes of all patients under `folder` once, into `folds` folds of about as many judged patients each.

    Patients without segmentation, or whose scans cannot be read, are left out and told on standard error. Other scans,
    or newer ones, are another study, which is cut anew.

    Raises:
        InputError: fewer than two patients, or too few whose scans can be read.
    """
    sources = flair_sources(folder, _cut)
    patients = sorted({source.patient for source in sources})
    folds = min(folds, len(patients))
    if folds < 2:
        raise InputError(f"{folder}: has {len(patients)} patients and {folds} folds; at least two are needed")
    parts = in_turn(patients, folds)
    files = {path for source in sources for path in source.files}
    name = f"brats-{folds}-folds-every-{every}-{fingerprint_of(folder, files, patients)[:8]}"

    def make(place: Path) -> None:
        write_folds(sources, parts, place, Taken(every_judged=every), folder, LESION)

    made = made_once(out / "studies" / name, make)
    cut = {found[1] for path in made.rglob("*.png") if (found := re.search(GROUP, path.name))}
    read = [source for source in sources if in_names(source.patient) in cut]
    about = f"axial FLAIR slices of {len(cut)} patients with glioma, {folds} folds by patient; "
    about += "learned from lesion-free slices of the other patients"
    if len(cut) < len(patients):
        about += f"; {len(patients) - len(cut)} patients could not be read"
    return Study(
        name="brats",
        folds=tuple(
            Fold(made / f"fold{i}", scan_folders(read, learned), scan_folders(read, judged))
            for i, (learned, judged) in enumerate(parts)
        ),
        intensity="range",
        planted=False,
        about=about,
        group=ONE_SCAN if len(sources) == len(patients) else GROUP,
        height=HEIGHT,
    )


def _cut(volume: Volume, tumour: Bool[np.ndarray, "i j k"]) -> Cut:
    brain = volume.voxels[0] > 0
    least = LEAST_BRAIN * Layout.of(volume.affine, "axial").to_stack(brain).mean(axis=(1, 2)).max()
    return Cut(volume, tumour, brain, by_median(volume, brain), least)
