"""BraTS folders, of 2020 (`..._flair`), 2021 and 2023 (`...-t2f`): axial FLAIR slices without and with tumour."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from benchmarks.adapters.made import existing_folder
from benchmarks.adapters.scan_studies import Cut, Kind, Source, scan_study
from benchmarks.adapters.slices import by_median
from benchmarks.study import Study
from priorlens.errors import InputError
from priorlens.volumes.left_out import LeftOut
from priorlens.volumes.reading import read_lesions, read_scan
from priorlens.volumes.scan_body import scan_body
from priorlens.volumes.scans import Scan, labelled_scans
from priorlens.volumes.volume import Volume

CHANNELS = ("flair", "t2f")
"""Names that BraTS has given to FLAIR."""

LEAST_BRAIN = 0.06
"""Slices of which the brain fills less are not cut: its top and its base."""

KIND = Kind(
    "brats",
    "axial FLAIR slices of patients with glioma (BraTS); learned from slices without tumour of other patients",
    aligned=True,
)


CutOf = Callable[[Volume, Bool[np.ndarray, "i j k"]], Cut]
"""From a scan and where its tumour is."""


def brats(folder: Path, out: Path, folds: int | None = None) -> Study:
    """Patients without `seg` are not used, for nobody says which of their slices are healthy. folds: see `folds_of`.

    Raises InputError.
    """
    existing_folder(folder, "a folder for each patient, such as X/X_flair.nii.gz with X/X_seg.nii.gz")
    return scan_study(KIND, flair_sources(folder, _cut), folder, out, folds)


def flair_sources(folder: Path, cut_of: CutOf) -> list[Source]:
    """Every FLAIR scan with its segmentation, in whatever folders under this one, such as HGG and LGG.

    Others are told on standard error. Raises InputError where there are none.
    """
    scans, left_out = _scans(folder)
    for one in left_out:
        print(f"left out: {one.reason}", file=sys.stderr)
    if unlabelled := [scan.name for scan in scans if scan.mask is None]:
        print(f"left out, for no segmentation (*seg.nii.gz) is beside them: {', '.join(unlabelled)}", file=sys.stderr)
    return [_source(scan, scan.mask, cut_of) for scan in scans if scan.mask]


def _scans(folder: Path) -> tuple[list[Scan], list[LeftOut]]:
    errors = []
    for channel in CHANNELS:
        try:
            return labelled_scans(folder, channels=[channel])
        except InputError as error:
            errors.append(error)
    endings = " nor ".join(f"*{channel}.nii.gz" for channel in CHANNELS)
    raise InputError(f"{folder}: holds neither {endings} with *seg.nii.gz beside it ({errors[0]})") from errors[0]


def _source(scan: Scan, mask: Path, cut_of: CutOf) -> Source:
    """Methods for whole scans look for the first of `CHANNELS`."""

    def read() -> Cut:
        volume = read_scan(scan)
        return cut_of(volume, read_lesions(scan, volume))

    folder = scan.path.parent.resolve() if scan.channels == CHANNELS[:1] else None
    return Source(scan.group.rsplit("/", 1)[-1], (*scan.files, mask), read, folder=folder)


def _cut(volume: Volume, tumour: Bool[np.ndarray, "i j k"]) -> Cut:
    body = scan_body(volume)
    return Cut(volume, tumour, body, by_median(volume, body), LEAST_BRAIN)
