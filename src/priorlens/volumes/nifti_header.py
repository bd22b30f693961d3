"""What a NIfTI header says: how many voxels of which type, and where they lie. It is not trusted."""

from __future__ import annotations

import math
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from priorlens.errors import InputError
from priorlens.volumes.volume import GRID_TOLERANCE, corner_shift, require_size

Header = Any
"""Of nibabel: Nifti1Header or Nifti2Header, whose fields are had by their NIfTI names."""

_MILLIMETRES = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
"""Of a unit of length by its NIfTI code: unknown (taken for millimetres), metre, millimetre, micron."""

_MAX_OFFSET = 2**26
"""Bytes of header and extensions before the voxels; more are no header."""


def read_header(file: BufferedIOBase, path: Path) -> Header:
    """The header at the start of `file`, in either byte order. Raises InputError where there is none."""
    from nibabel import Nifti1Header, Nifti2Header

    start = file.read(540)
    for kind, size in ((Nifti1Header, 348), (Nifti2Header, 540)):
        for order, endianness in (("little", "<"), ("big", ">")):
            if int.from_bytes(start[:4], order) == size and len(start) >= size:  # type: ignore[arg-type]
                header = kind(start[:size], endianness, check=False)
                _require_magic(header, path)
                return header
    raise InputError(f"{path}: is not a NIfTI file, or cut off in its header; export it again or leave it out")


def _require_magic(header: Header, path: Path) -> None:
    magic = header["magic"].item()[:3]
    if magic in (b"ni1", b"ni2"):
        raise InputError(f"{path}: is half of a .hdr/.img pair; convert the pair to one .nii.gz")
    if magic not in (b"n+1", b"n+2"):
        raise InputError(f"{path}: is not NIfTI (ANALYZE, which does not tell left from right?); convert it to .nii.gz")


def shape_of(header: Header, path: Path) -> tuple[int, int, int]:
    """Of the one volume. Raises InputError for more or fewer axes than three, none or too many voxels."""
    axes = int(header["dim"][0])
    if not 1 <= axes <= 7:
        raise InputError(f"{path}: is damaged, its header claims {axes} axes; export it again or leave it out")
    shape = tuple(int(length) for length in header["dim"][1 : axes + 1])
    if any(length < 0 for length in shape):
        raise InputError(f"{path}: is damaged, its header claims the shape {shape}; export it again or leave it out")
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) > 3:
        raise InputError(f"{path}: has {len(shape)} axes (time?); give one volume, such as with fslroi")
    if len(shape) < 3:
        raise InputError(f"{path}: is no volume, it has {len(shape)} axes; save it as a PNG, or stack slices to one")
    require_size(shape, path)
    return shape  # type: ignore[return-value]


def stored_type(header: Header, path: Path) -> np.dtype:
    """Of one voxel in the file. Raises InputError for what is no real number."""
    from nibabel import nifti1

    codes: Any = nifti1.data_type_codes
    code = int(header["datatype"])
    if code not in codes:
        raise InputError(f"{path}: is damaged, its header claims data type {code}; export it again or leave it out")
    stored = np.dtype(codes.dtype[code]).newbyteorder(header.endianness)
    if stored.kind not in "uif":
        name = codes.label[code]
        remedy = "the magnitude" if stored.kind == "c" else "one grey channel"
        raise InputError(f"{path}: holds {name} voxels, not real numbers; save {remedy} as float32")
    return stored


def voxel_offset(header: Header, path: Path) -> int:
    """Bytes from the start of the file to its voxels."""
    claimed = float(header["vox_offset"])
    if not 0 <= claimed <= _MAX_OFFSET:
        raise InputError(f"{path}: is damaged, its voxels are said to start at byte {claimed:g}; export it again")
    return max(int(claimed), int(header.single_vox_offset))


def scaling_of(header: Header) -> tuple[float, float] | None:
    """Slope and intercept from stored numbers to intensities; None where the header has none."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if not math.isfinite(slope) or slope == 0 or (slope, intercept) == (1, 0):
        return None
    return slope, intercept  # an intercept that is not finite gives voxels that are not, which are refused as such


@np.errstate(over="ignore", invalid="ignore")  # what is no place becomes nan or infinite, and is refused as such
def affine_of(header: Header, shape: tuple[int, int, int], path: Path) -> Float64[np.ndarray, "4 4"]:
    """From voxel to RAS+ millimetres: the sform where it is coded, else the qform where that is.

    Where both are coded they have to put every corner of the grid within `GRID_TOLERANCE` of one another: which one a
    viewer goes by differs, so that a lesion would lie in two places. Where neither is coded the file does not tell
    where it lies, and the affine is nibabel's guess: from voxel sizes alone, first axis to the left, origin in the
    middle of the grid.

    Raises:
        InputError: the two disagree, voxel sizes are none, or the unit of length is not known.
    """
    unit = int(header["xyzt_units"]) & 7
    if unit not in _MILLIMETRES:
        raise InputError(f"{path}: its header has an unknown unit of length ({unit}); correct xyzt_units")
    sform, qform = _coded(header, "sform_code"), _coded(header, "qform_code")
    by_quaternion = _qform(header, path) if qform else None
    affine = np.array(header.get_sform(), np.float64) if sform else by_quaternion
    if affine is None:
        sizes = header["pixdim"][1:4].astype(np.float64)
        if not (np.isfinite(sizes).all() and (sizes > 0).all()):
            raise InputError(f"{path}: says neither where voxels lie nor how large they are; correct its header")
        affine = np.diag([-sizes[0], sizes[1], sizes[2], 1.0])
        affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    to_millimetres = np.diag([_MILLIMETRES[unit]] * 3 + [1.0])
    affine = to_millimetres @ affine
    if sform and by_quaternion is not None:
        shift = corner_shift(affine, to_millimetres @ by_quaternion, shape)
        if not shift <= GRID_TOLERANCE:
            raise InputError(
                f"{path}: its sform and qform disagree by {shift:.3g} mm about where voxels lie; keep the right one, "
                "such as with fslorient -copysform2qform"
            )
    return affine


def _coded(header: Header, field: str) -> bool:
    return int(header[field]) > 0


def _qform(header: Header, path: Path) -> Float64[np.ndarray, "4 4"]:
    """As the header's quaternion has it; a qfac of 0 means 1, as NIfTI says."""
    known = header.copy()
    if known["pixdim"][0] == 0:
        known["pixdim"][0] = 1
    try:
        return np.array(known.get_qform(), np.float64)
    except Exception as error:  # nibabel's of several kinds
        raise InputError(f"{path}: its qform is no rotation ({error}); correct its header") from error
