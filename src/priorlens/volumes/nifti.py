"""NIfTI in and out: a scan, its lesion mask, and maps and labels that overlay it exactly."""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Float64, Integer

from priorlens.errors import InputError
from priorlens.outputs import atomic_write
from priorlens.volumes.damage import reading
from priorlens.volumes.nifti_header import (
    Header,
    affine_of,
    read_header,
    scaling_of,
    shape_of,
    stored_type,
    voxel_offset,
)
from priorlens.volumes.volume import (
    Volume,
    corner_shift,
    lesions_on,
    looks_like_hounsfield,
    require_finite,
    require_voxels,
)

NIFTI_SUFFIXES = (".nii", ".nii.gz")
"""What is read; upper case does as well."""

SAME_PLACE = 0.01
"""Millimetres within which a written map lies on its scan."""

_CHUNK = 2**22
"""Voxels that are unpacked at once."""

_MAX_SURPLUS = 2**20
"""Bytes after the last voxel that are still taken for padding."""

_MAX_DEFLATION = 1032
"""Bytes that one compressed byte can stand for in gzip at most."""

_FAST = 1
"""gzip's level: at 6 a map of noise takes ten times as long and is hardly smaller."""


def read_nifti(path: Path) -> Volume:
    """Read one scan; intensities are rescaled as the header says, lengths are in millimetres.

    Units are Hounsfield where `looks_like_hounsfield`, for NIfTI does not tell. Which of sform and qform counts, and
    what a file without either means, see `affine_of`.

    Raises:
        InputError: missing, empty, truncated, not NIfTI, a .hdr/.img pair, RGB or complex, not of three axes, of none
            or more than `MAX_VOXELS` voxels, with nan or infinite voxels, constant, on a slanted grid, or with sform
            and qform that disagree.
    """
    voxels, affine, stored = _read(path)
    require_voxels(voxels, path)
    units = "HU" if looks_like_hounsfield(voxels, stored) else "arbitrary"
    return Volume(voxels[None], affine, units, path)  # type: ignore[arg-type]


def read_mask(path: Path, like: Volume) -> Bool[np.ndarray, "i j k"]:
    """Read the lesion mask of a scan: True where it is above 0, whatever the label. All 0 is no lesion.

    Raises:
        InputError: as `read_nifti` (but a mask may be constant), or its shape or place is not the scan's.
    """
    labels, affine, _ = _read(path)
    require_finite(labels, path)
    return lesions_on(labels, affine, path, like)


def write_nifti(path: Path, values: Float32[np.ndarray, "i j k"] | Integer[np.ndarray, "i j k"], like: Volume) -> None:
    """Write a map (float32) or labels (int16) of a scan as .nii.gz, whole or not at all; equal content, equal bytes.

    Where the scan was a NIfTI file, and still is there, sform, qform, their codes and voxel sizes are that file's, bit
    for bit, so that every viewer puts both in one place, whichever it goes by. Else sform is the scan's affine, and
    qform too where a rotation can express it.

    Raises:
        OutputError: the file cannot be written.
        ValueError: another suffix, another shape than the scan's, or labels beyond 16 bits.
    """
    if not path.name.endswith(".nii.gz") or values.shape != like.shape:
        raise ValueError(f"{path}: {values.shape} values for a scan of {like.shape} as .nii.gz")
    if values.dtype.kind in "iu":
        if values.size and not -(2**15) <= int(values.min()) <= int(values.max()) < 2**15:
            raise ValueError(f"{path}: labels of {values.min()} to {values.max()} do not fit 16 bits")
        values = values.astype("<i2")
    else:
        values = values.astype("<f4")
    planes = (values[:, :, k] for k in range(values.shape[2]))
    _write(path, planes, _header_like(like, values.shape, values.dtype, (1.0, 0.0)))


def write_shown(path: Path, volume: Volume) -> None:
    """Write a scan as .nii.gz of 16 bits, for a viewer: channels as a fourth axis, whole or not at all.

    Whole numbers that fit are kept as they are (Hounsfield units); others are within a 65,000th of their range.

    Raises:
        OutputError: the file cannot be written.
    """
    slope, intercept = _in_16_bits(volume.voxels)
    planes = (
        np.rint((channel[:, :, k] - intercept) / slope).astype("<i2")
        for channel in volume.voxels
        for k in range(volume.shape[2])
    )
    channels = len(volume.channels)
    shape = volume.shape if channels == 1 else (*volume.shape, channels)
    _write(path, planes, _header_like(volume, shape, np.dtype("<i2"), (slope, intercept)))


def _in_16_bits(voxels: Float32[np.ndarray, "channel i j k"]) -> tuple[float, float]:
    """Slope and intercept by which integers of 16 bits become the intensities."""
    low, high = float(voxels.min()), float(voxels.max())
    if low >= -(2**15) and high < 2**15 and all((np.rint(plane) == plane).all() for plane in voxels):
        return 1.0, 0.0
    return (high - low) / (2**16 - 2) or 1.0, (low + high) / 2


def _header_like(volume: Volume, shape: tuple[int, ...], stored: np.dtype, scaling: tuple[float, float]) -> Header:
    """Of numbers that lie where the scan does."""
    source = _header_of_source(volume)
    header = _placed_by_affine(volume) if source is None else _placed_as(source)
    header.set_data_shape(shape)
    header.set_data_dtype(stored)
    header["magic"] = header.single_magic
    header["vox_offset"] = header.single_vox_offset
    header["scl_slope"], header["scl_inter"] = scaling
    header["descrip"] = b"priorlens"
    return header


def _write(path: Path, planes: Iterable[np.ndarray], header: Header) -> None:
    with (
        atomic_write(path) as file,
        # No name and no time, which would make the bytes of equal maps differ.
        gzip.GzipFile("", "wb", compresslevel=_FAST, fileobj=file, mtime=0) as packed,
    ):
        packed.write(header.binaryblock + bytes(4))  # four bytes: no extensions
        for plane in planes:
            packed.write(plane.tobytes(order="F"))


def _read(path: Path) -> tuple[Float32[np.ndarray, "i j k"], Float64[np.ndarray, "4 4"], np.dtype]:
    """Intensities, affine, and the type of the stored numbers."""
    with _opened(path) as file:
        header = read_header(file, path)
        shape, stored = shape_of(header, path), stored_type(header, path)
        affine = affine_of(header, shape, path)
        return _read_voxels(file, header, shape, stored, path), affine, stored


@contextmanager
def _opened(path: Path) -> Iterator[BufferedIOBase]:
    """The file's content, unpacked as it is read. What it makes fail becomes InputError."""
    name = path.name.lower()
    if name.endswith((".hdr", ".img", ".hdr.gz", ".img.gz")):
        raise InputError(f"{path}: is half of a .hdr/.img pair; convert the pair to one .nii.gz")
    if not name.endswith(NIFTI_SUFFIXES):
        raise InputError(f"{path}: is not one of {' '.join(NIFTI_SUFFIXES)}; convert it to one of these")
    with reading(path), open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if packed and name.endswith(".nii"):
            raise InputError(f"{path}: is compressed with gzip; rename it to {path.name}.gz")
        if not packed and name.endswith(".gz"):
            raise InputError(f"{path}: is not compressed with gzip; export it again, or rename it to {path.name[:-3]}")
        yield gzip.GzipFile(fileobj=file, mode="rb") if packed else file


def _read_voxels(
    file: BufferedIOBase, header: Header, shape: tuple[int, int, int], stored: np.dtype, path: Path
) -> Float32[np.ndarray, "i j k"]:
    """Rescaled, of `shape`. No memory is taken for more than the file can hold, nor more unpacked than it claims, nor
    held twice: the numbers of a small file of zeros may be twice as wide as voxels."""
    count = math.prod(shape)
    size = path.stat().st_size
    held = size * _MAX_DEFLATION if path.name.lower().endswith(".gz") else size - voxel_offset(header, path)
    if held < count * stored.itemsize:
        raise _cut_off(path)
    file.seek(voxel_offset(header, path))
    scaling = scaling_of(header)
    slope, intercept = scaling or (1.0, 0.0)
    voxels = np.empty(count, np.float32)
    for start in range(0, count, _CHUNK):
        part = voxels[start : start + _CHUNK]
        content = file.read(part.size * stored.itemsize)
        if len(content) < part.size * stored.itemsize:
            raise _cut_off(path)
        numbers = np.frombuffer(content, stored)
        with np.errstate(over="ignore", invalid="ignore"):  # what float32 cannot hold becomes infinite, and is refused
            part[:] = numbers if scaling is None else numbers.astype(np.float64) * slope + intercept
    # To the end, for there gzip compares its checksum.
    if len(file.read(_MAX_SURPLUS + 1)) > _MAX_SURPLUS:
        raise InputError(
            f"{path}: holds far more than the {count * stored.itemsize} bytes its header claims; export it again"
        )
    return voxels.reshape(shape, order="F")


def _cut_off(path: Path) -> InputError:
    return InputError(f"{path}: is truncated, it ends before its last voxel; export it again or leave it out")


def _header_of_source(like: Volume) -> Header | None:
    """Of the NIfTI file that the scan was read from; None where it was no such file or has changed since."""
    if not like.path.name.lower().endswith(NIFTI_SUFFIXES):
        return None
    try:
        with _opened(like.path) as file:
            header = read_header(file, like.path)
            shape = shape_of(header, like.path)
            affine = affine_of(header, shape, like.path)
    except InputError:
        return None
    return header if shape == like.shape and corner_shift(affine, like.affine, shape) < SAME_PLACE else None


def _placed_as(source: Header) -> Header:
    """A new header that puts voxels where `source` does, by the same numbers."""
    header = type(source)()
    fields = ["sform_code", "qform_code", "quatern_b", "quatern_c", "quatern_d"]
    fields += ["qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"]
    for field in fields:
        header[field] = source[field]
    header["pixdim"][:4] = source["pixdim"][:4]
    header["xyzt_units"] = int(source["xyzt_units"]) & 7  # of length; a map has no time
    return header


def _placed_by_affine(like: Volume) -> Header:
    """A new header in scanner coordinates; the qform is left out where no rotation expresses the affine."""
    from nibabel import Nifti1Header, Nifti2Header

    header = (Nifti1Header if max(like.shape) < 2**15 else Nifti2Header)()
    header.set_data_shape(like.shape)
    header.set_xyzt_units("mm")
    header.set_sform(like.affine, code=1)
    header.set_qform(like.affine, code=1, strip_shears=True)
    if corner_shift(header.get_qform(), like.affine, like.shape) >= SAME_PLACE:
        header["qform_code"] = 0
    return header
