"""Which DICOM series there are among files and folders, what of them is left out, and why."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from priorlens.datasets import visible_files
from priorlens.errors import InputError
from priorlens.volumes.dicom_headers import Slice, is_dicom, read_slices
from priorlens.volumes.dicom_stacks import Stack, find_stacks, folder_of
from priorlens.volumes.left_out import LeftOut
from priorlens.volumes.volume import MAX_VOXELS


@dataclass(frozen=True)
class Instance:
    """One slice: a file, or one frame (from 0) of a multi-frame file; `position` is in mm along the normal."""

    path: Path
    frame: int
    sop_instance_uid: str
    position: float


@dataclass(frozen=True)
class Series:
    """One series whose slices lie evenly one above the other; `instances[k]` is plane k of its voxels.

    uid: SeriesInstanceUID, which several share where one was split; then `part` tells them apart ("EchoTime 4.6").
    patient: PatientID, empty if there is none. path: the deepest folder that holds its files, or the one file.
    orientation: ImageOrientationPatient. number: SeriesNumber, 0 if there is none. shape: voxels along i, j, k.
    pixel_spacing: mm between rows, between columns. origin: ImagePositionPatient of plane 0. step: mm from a plane to
    the next, as that. warnings: one line each, of what may matter although the series can be used.
    """

    uid: str
    patient: str
    modality: str
    description: str
    path: Path
    instances: tuple[Instance, ...]
    orientation: tuple[float, ...]
    number: int
    part: str
    study_uid: str
    shape: tuple[int, int, int]
    pixel_spacing: tuple[float, ...]
    origin: tuple[float, ...]
    step: tuple[float, ...]
    warnings: tuple[str, ...] = ()

    @property
    def affine(self) -> Float64[np.ndarray, "4 4"]:
        """Takes (i, j, k, 1) to millimetres, RAS+: PS3.3 C.7.6.2.1.1, where x runs to the left and y to the back."""
        between_rows, between_columns = self.pixel_spacing
        affine = np.eye(4)
        affine[:3, 0] = np.array(self.orientation[:3]) * between_columns
        affine[:3, 1] = np.array(self.orientation[3:]) * between_rows
        affine[:3, 2] = self.step
        affine[:3, 3] = self.origin
        return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def find_series(paths: Sequence[Path]) -> tuple[list[Series], list[LeftOut]]:
    """Every series among `paths`, files or folders (searched in depth, hidden files left out), by path and number.

    Files that are not DICOM are passed over in folders; DICOM that is not used is told, with why. What is wrong with a
    whole series (slices missing, a tilted gantry, ...) is told once, under the folder of its files.

    Raises:
        InputError: a path is missing, or a folder cannot be read.
    """
    slices: list[Slice] = []
    left_out: list[LeftOut] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, of values that are odd but clear
        for path, named in _files(paths):
            try:
                slices += _slices_of(path, named)
            except InputError as error:
                left_out.append(LeftOut(path, str(error)))
    series: list[Series] = []
    for of_one in _by_series(slices):
        stacks, strays = find_stacks(of_one)
        left_out += strays
        for stack in stacks:
            found = _series(stack)
            if np.prod(found.shape, dtype=float) > MAX_VOXELS:
                reason = f"{found.path}: series {found.description!r} has more than {MAX_VOXELS} voxels; crop it"
                left_out.append(LeftOut(found.path, reason))
            else:
                series.append(found)
    series.sort(key=lambda one: (str(one.path), one.number, one.uid, one.part))
    left_out.sort(key=lambda one: str(one.path))
    return series, left_out


def _files(paths: Sequence[Path]) -> Iterator[tuple[Path, bool]]:
    """Each file once, in order, and whether it was named itself."""
    seen: set[str] = set()
    for root in paths:
        if not root.exists():
            raise InputError(f"{root}: there is no such file or folder; check the path")
        found = sorted(visible_files(root), key=str) if root.is_dir() else [root]
        for path in found:
            if (absolute := os.path.abspath(path)) not in seen:
                seen.add(absolute)
                yield path, path == root


def _slices_of(path: Path, named: bool) -> list[Slice]:
    """None of a file that is not DICOM, which is an error only if the user named it. Raises InputError."""
    try:
        if not path.is_file():  # reading a pipe or a device might never end
            if named:
                raise InputError(f"{path}: is not a regular file; name DICOM files or the folder that holds them")
            return []
        if not is_dicom(path):
            if named:
                raise InputError(f"{path}: is not DICOM; name DICOM files or the folder that holds them")
            return []
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"{path}: cannot be read ({reason}); check its permissions or leave it out") from error
    slices = read_slices(path)
    if named and not slices:
        raise InputError(f"{path}: is a DICOMDIR, which only lists files; name the folder it lies in")
    return slices


def _by_series(slices: Sequence[Slice]) -> list[list[Slice]]:
    """By patient, study and series; slices that do not tell their series go by their folder."""
    groups: dict[tuple[str, ...], list[Slice]] = {}
    for piece in slices:
        folder = "" if piece.series_uid else str(piece.path.parent)
        groups.setdefault((piece.patient, piece.study_uid, piece.series_uid, folder), []).append(piece)
    return list(groups.values())


def _series(stack: Stack) -> Series:
    first = stack.slices[0]
    path = folder_of(stack.slices)
    pairs = zip(stack.slices, stack.positions, strict=True)
    return Series(
        uid=first.series_uid,
        patient=first.patient,
        modality=first.modality,
        description=first.description,
        path=path,
        instances=tuple(Instance(s.path, s.frame, s.sop_instance_uid, position) for s, position in pairs),
        orientation=first.orientation,
        number=first.series_number,
        part=stack.part,
        study_uid=first.study_uid,
        shape=(first.columns, first.rows, len(stack.slices)),
        pixel_spacing=first.spacing,
        origin=first.position,
        step=stack.step,
        warnings=_warnings(stack, path),
    )


def _warnings(stack: Stack, path: Path) -> tuple[str, ...]:
    found = []
    burnt_in = sum(piece.burnt_in for piece in stack.slices)
    if burnt_in:
        found.append(f"{path}: {burnt_in} slices say that text is burnt into them; look at what is flagged there")
    names = {(piece.sop_instance_uid, piece.frame) for piece in stack.slices}
    if len(names) < len(stack.slices):
        found.append(f"{path}: different slices share a SOPInstanceUID; anonymise it again, with one for each")
    return tuple(found)
