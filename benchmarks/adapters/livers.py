"""CT of the liver: LiTS and the Medical Segmentation Decathlon with tumours, CHAOS without."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.adapters.made import existing_folder
from benchmarks.adapters.scan_studies import Cut, Kind, Source, scan_study
from benchmarks.adapters.slices import window
from benchmarks.study import Study
from priorlens.datasets import natural_order, visible_files
from priorlens.errors import InputError
from priorlens.images import read_mask
from priorlens.volumes.dicom_decoder import Decoder
from priorlens.volumes.dicom_headers import is_dicom, read_slices
from priorlens.volumes.dicom_pixels import read_planes
from priorlens.volumes.dicom_series import PADDED_HU
from priorlens.volumes.nifti import read_nifti
from priorlens.volumes.volume import Volume, lesions_on
from priorlens.volumes.voxel_intensity import WINDOWS

LIVER, TUMOUR = 1, 2
"""Labels of LiTS and of the Decathlon's Task03."""

LEAST_LIVER = 0.01
"""Slices of which the liver fills a smaller share are not cut."""

_SOFT = window(*WINDOWS["soft"])
_SEQUENCES = ("T1DUAL", "T2SPIR")  # folders of CHAOS that hold MRI
_ABOUT = "contrast CT of the abdomen, slices that show the liver"


def msd(folder: Path, out: Path) -> Study:
    """Task03_Liver: `imagesTr/X.nii.gz` with `labelsTr/X.nii.gz`. Raises InputError."""
    existing_folder(folder, "imagesTr/ and labelsTr/")
    images, labels = folder / "imagesTr", folder / "labelsTr"
    pairs = [(path.name.split(".")[0], path, labels / path.name) for path in _files(images, r".+\.nii(\.gz)?")]
    pairs = [pair for pair in pairs if pair[2].is_file()]
    if not pairs:
        raise InputError(f"{folder}: holds no imagesTr/X.nii.gz with labelsTr/X.nii.gz; name the folder of the task")
    return _with_tumours(
        "msd", f"{_ABOUT}, without and with tumours (Medical Segmentation Decathlon)", pairs, folder, out
    )


def lits(folder: Path, out: Path) -> Study:
    """`volume-N.nii` with `segmentation-N.nii`, in whatever folders under this one. Raises InputError."""
    existing_folder(folder, "volume-N.nii and segmentation-N.nii")
    labels = {_number(path): path for path in _files(folder, r"segmentation-\d+\.nii(\.gz)?")}
    images = {_number(path): path for path in _files(folder, r"volume-\d+\.nii(\.gz)?")}
    pairs = [(f"lits{number}", images[number], labels[number]) for number in sorted(images.keys() & labels.keys())]
    if not pairs:
        raise InputError(f"{folder}: holds no volume-N.nii with segmentation-N.nii; name the folder that does")
    return _with_tumours("lits", f"{_ABOUT}, without and with tumours (LiTS)", pairs, folder, out)


def chaos(folder: Path, out: Path) -> Study:
    """Patients of `CT/N` with `DICOM_anon` and `Ground`: healthy livers, to learn from and as healthy test images.

    There is no abnormal kind, so a run refuses the study; it is for scans of which the user adds some abnormal ones
    to `test/<kind>`. Raises InputError.
    """
    existing_folder(folder, "CT/N/DICOM_anon/ and CT/N/Ground/")
    patients = sorted(
        ground.parent
        for ground in folder.rglob("Ground")
        if (ground.parent / "DICOM_anon").is_dir() and ground.parent.name not in _SEQUENCES
    )
    sources = [
        Source(
            f"chaos{patient.name}",
            tuple(sorted(path for part in ("DICOM_anon", "Ground") for path in visible_files(patient / part))),
            partial(_healthy_liver, patient),
        )
        for patient in patients
    ]
    if not sources:
        raise InputError(f"{folder}: holds no CT/N/DICOM_anon/ with CT/N/Ground/ beside it; name the folder that does")
    kind = Kind("chaos", f"{_ABOUT}, of healthy donors only (CHAOS); nothing abnormal is in it")
    return scan_study(kind, sources, folder, out)


def _with_tumours(layout: str, about: str, pairs: Sequence[tuple[str, Path, Path]], root: Path, out: Path) -> Study:
    def reader(image: Path, label: Path) -> Callable[[], Cut]:
        return lambda: _liver_with_tumour(image, label)

    sources = [Source(patient, (image, label), reader(image, label)) for patient, image, label in pairs]
    return scan_study(Kind(layout, about, abnormal="tumour"), sources, root, out)


def _liver_with_tumour(image: Path, label: Path) -> Cut:
    volume, truth = read_nifti(image), read_nifti(label)
    labels = np.rint(truth.voxels[0])
    liver = lesions_on(np.isin(labels, (LIVER, TUMOUR)).astype(np.float32), truth.affine, label, volume)
    return Cut(volume, labels == TUMOUR, liver, _SOFT, LEAST_LIVER)


def _healthy_liver(patient: Path) -> Cut:
    """Slices and outlines are paired by the order of their names, as CHAOS pairs them."""
    slices = [path for path in _files(patient / "DICOM_anon", ".+") if is_dicom(path)]
    outlines = _files(patient / "Ground", r".+\.png")
    if not slices or len(slices) != len(outlines):
        raise InputError(f"{patient}: has {len(slices)} DICOM slices but {len(outlines)} outlines; copy it again")
    planes = []
    with Decoder() as decoder:
        for path in slices:
            header = read_slices(path)[0]
            (plane,) = read_planes(path, [0], (header.rows, header.columns), decoder)
            planes.append(np.nan_to_num(plane.values, nan=PADDED_HU))
    if len({plane.shape for plane in planes}) > 1:
        raise InputError(f"{patient}: its slices differ in size; copy it again")
    voxels = np.stack(planes).transpose(2, 1, 0)
    liver = np.stack([read_mask(path, planes[0].shape) for path in outlines]).transpose(2, 1, 0)
    # Only the directions matter: columns run to the patient's left, rows to the back.
    volume = Volume(voxels[None], np.diag([-1.0, -1.0, 1.0, 1.0]), "HU", patient)
    return Cut(volume, None, liver, _SOFT, LEAST_LIVER)


def _files(folder: Path, pattern: str) -> list[Path]:
    """Files under a folder whose whole name fits, by name; none where there is no folder."""
    found = visible_files(folder) if folder.is_dir() else ()
    return sorted((path for path in found if re.fullmatch(pattern, path.name)), key=lambda p: natural_order(p.name))


def _number(path: Path) -> int:
    found = re.search(r"\d+", path.name)
    assert found
    return int(found[0])
