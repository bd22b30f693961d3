"""BraTS folders, of 2020 (`..._flair`), 2021 and 2023 (`...-t2f`): axial FLAIR slices without and with tumour."""

from __future__ import annotations

from pathlib import Path

from benchmarks.adapters.made import existing_folder
from benchmarks.adapters.scan_studies import Cut, Kind, Source, scan_study
from benchmarks.adapters.slices import by_median
from benchmarks.study import Study
from priorlens.errors import InputError
from priorlens.volumes.reading import read_lesions, read_scan
from priorlens.volumes.scan_body import scan_body
from priorlens.volumes.scans import Scan, labelled_scans

CHANNELS = ("flair", "t2f")
"""Names that BraTS has given to FLAIR."""

LEAST_BRAIN = 0.06
"""Slices of which the brain fills less are not cut: its top and its base."""

KIND = Kind(
    "brats",
    "axial FLAIR slices of patients with glioma (BraTS); learned from slices without tumour of other patients",
    aligned=True,
)


def brats(folder: Path, out: Path, folds: int | None = None) -> Study:
    """Patients without `seg` are not used, for nobody says which of their slices are healthy. folds: see `folds_of`.

    Raises InputError.
    """
    existing_folder(folder, "a folder for each patient, such as X/X_flair.nii.gz with X/X_seg.nii.gz")
    scans = [scan for scan in _scans(folder) if scan.mask is not None]
    return scan_study(KIND, [_source(scan) for scan in scans], folder, out, folds)


def _scans(folder: Path) -> list[Scan]:
    errors = []
    for channel in CHANNELS:
        try:
            return labelled_scans(folder, channels=[channel])[0]
        except InputError as error:
            errors.append(error)
    endings = " nor ".join(f"*{channel}.nii.gz" for channel in CHANNELS)
    raise InputError(f"{folder}: holds neither {endings} with *seg.nii.gz beside it ({errors[0]})") from errors[0]


def _source(scan: Scan) -> Source:
    """Methods for whole scans look for the first of `CHANNELS`."""

    def read() -> Cut:
        volume = read_scan(scan)
        body = scan_body(volume)
        return Cut(volume, read_lesions(scan, volume), body, by_median(volume, body), LEAST_BRAIN)

    files = scan.files + ([scan.mask] if scan.mask else [])
    folder = scan.path.parent.resolve() if scan.channels == CHANNELS[:1] else None
    return Source(scan.group.rsplit("/", 1)[-1], tuple(files), read, folder=folder)
