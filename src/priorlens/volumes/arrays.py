"""Scans as arrays that bring their affine: NPZ and NPY, and MHA, MHD and NRRD by way of SimpleITK."""

from __future__ import annotations

import io
import json
import math
import os
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Shaped

from priorlens.errors import InputError
from priorlens.volumes.damage import reading
from priorlens.volumes.itk_decoder import decode
from priorlens.volumes.volume import (
    Units,
    Volume,
    lesions_on,
    looks_like_hounsfield,
    require_affine,
    require_finite,
    require_size,
    require_voxels,
)

ITK_SUFFIXES = (".mha", ".mhd", ".nrrd", ".nhdr")
"""What is read by way of SimpleITK."""

ARRAY_SUFFIXES = (".npz", ".npy", *ITK_SUFFIXES)
"""What this module reads; upper case does as well."""

_SMALL = 2**16
"""Numbers or characters of any array but the voxels, at most."""

_CHUNK = 2**22
"""Voxels that are unpacked at once."""

_DATA_FILE = re.compile(rb"^\s*(?:ElementDataFile\s*[=:]|data ?file:)([^\r\n]*)", re.MULTILINE | re.IGNORECASE)
"""Where MHD and NHDR say which file holds their voxels."""

_UNITS: tuple[Units, ...] = ("HU", "arbitrary")


@dataclass(frozen=True)
class _Stored:
    """What a file holds; `kind` is the type of its numbers, units are None where it does not tell them."""

    voxels: Float32[np.ndarray, "channel i j k"]
    affine: Float64[np.ndarray, "4 4"]
    kind: np.dtype
    channels: tuple[str, ...] = ("",)
    units: Units | None = None


def read_array_volume(path: Path) -> Volume:
    """Read one scan from any file of `ARRAY_SUFFIXES`.

    NPZ holds `voxels` (i j k, or channel i j k) and `affine` (index to RAS+ millimetres), and may hold `units` ("HU" or
    "arbitrary") and the names of its `channels`. NPY needs its affine as 4x4 JSON in `NAME.affine.json` beside it.
    Units that are not told are Hounsfield where `looks_like_hounsfield`.

    Raises:
        InputError: missing, damaged, pickled, without a usable affine, not of three axes, of none or more than
            `MAX_VOXELS` voxels, with nan or infinite voxels, constant in a channel; or SimpleITK is needed and missing.
    """
    stored = _read(path)
    for name, voxels in zip(stored.channels, stored.voxels, strict=True):
        require_voxels(voxels, path / name if len(stored.channels) > 1 else path)
    units = stored.units or ("HU" if looks_like_hounsfield(stored.voxels, stored.kind) else "arbitrary")
    return Volume(stored.voxels, stored.affine, units, path, stored.channels)


def read_array_mask(path: Path, like: Volume) -> Bool[np.ndarray, "i j k"]:
    """Read the lesion mask of a scan: True where it is above 0, whatever the label. All 0 is no lesion.

    Raises:
        InputError: as `read_array_volume` (but a mask may be constant), it has several channels, or its shape or place
            is not the scan's.
    """
    stored = _read(path)
    if len(stored.voxels) != 1:
        raise InputError(f"{path}: the mask has {len(stored.voxels)} channels; save one, above 0 where a lesion is")
    require_finite(stored.voxels, path)
    return lesions_on(stored.voxels[0], stored.affine, path, like)


def is_volume_npz(path: Path) -> bool:
    """Whether an .npz holds `voxels` and `affine`, told by its table of contents; others are measurements."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {"voxels.npy", "affine.npy"} <= set(archive.namelist())
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return False


def npz_channels(path: Path) -> tuple[str, ...]:
    """Names of an NPZ's channels, without reading its voxels: as it has them, else ("",) or numbers from "0".

    Raises InputError where it is damaged or cannot be a scan.
    """
    with reading(path), zipfile.ZipFile(path) as archive:
        shape, _ = _npy_header(archive, "voxels", path)
        return _channel_names(_small_arrays(archive, path), shape, path)


def _read(path: Path) -> _Stored:
    suffix = path.suffix.lower()
    if suffix not in ARRAY_SUFFIXES:
        raise InputError(f"{path}: is not one of {' '.join(ARRAY_SUFFIXES)}; convert it to one of these")
    if suffix in ITK_SUFFIXES:
        return _read_itk(path)
    return _read_npz(path) if suffix == ".npz" else _read_npy(path)


def _read_npz(path: Path) -> _Stored:
    with reading(path), zipfile.ZipFile(path) as archive:
        if missing := {"voxels", "affine"} - {name.removesuffix(".npy") for name in archive.namelist()}:
            raise InputError(f"{path}: holds no {' and no '.join(sorted(missing))}; save voxels and affine in it")
        shape, kind = _npy_header(archive, "voxels", path)
        small = _small_arrays(archive, path)
        channels = _channel_names(small, shape, path)
        affine = _affine(small["affine"], path)
        voxels = _npy_voxels(archive)
        units = str(small["units"]) if "units" in small else None
        if units not in (None, *_UNITS):
            raise InputError(f"{path}: has units {units!r}; save one of {' '.join(_UNITS)}")
        return _Stored(voxels.reshape(-1, *shape[-3:]), affine, kind, channels, units)


def _small_arrays(archive: zipfile.ZipFile, path: Path) -> dict[str, Shaped[np.ndarray, "..."]]:
    """What there is beside the voxels, each looked at before it is read."""
    found = {}
    for name in ("affine", "units", "channels"):
        if f"{name}.npy" in archive.namelist():
            shape, kind = _npy_header(archive, name, path)
            if math.prod(shape) * max(kind.itemsize, 1) > _SMALL:
                raise InputError(f"{path}: its {name!r} is too large; save what belongs there")
            found[name] = _npy(archive, name)
    return found


def _npy_header(archive: zipfile.ZipFile, name: str, path: Path) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type as the member's own header claims; for voxels, refused where they are too many or no scan's."""
    with archive.open(f"{name}.npy") as member:
        shape, _, kind = npy_header(member)
    if kind.hasobject:
        raise InputError(f"{path}: holds pickled Python objects, which are never loaded; save plain numbers")
    if name == "voxels":
        _require_scan(shape, kind, path)
    return shape, kind


def npy_header(member: IO[bytes] | zipfile.ZipExtFile) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Of an array in an NPZ: shape, whether the first axis runs fastest, and type. `member` is left at its numbers."""
    version = np.lib.format.read_magic(member)
    size = 2 if version == (1, 0) else 4
    length = member.read(size)
    # NumPy reads a header of any length that is claimed before it refuses a long one.
    if (claimed := int.from_bytes(length, "little")) > _SMALL:
        raise ValueError(f"a header of {claimed} bytes")
    header = io.BytesIO(length + member.read(claimed))
    read = np.lib.format.read_array_header_1_0 if size == 2 else np.lib.format.read_array_header_2_0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of headers that Python 2 wrote
        shape, columns_first, kind = read(header)
    return shape, columns_first, kind


def _require_scan(shape: tuple[int, ...], kind: np.dtype, path: Path) -> None:
    if kind.kind not in "buif":
        raise InputError(f"{path}: holds {kind} voxels; save real numbers")
    if len(shape) not in (3, 4):
        raise InputError(f"{path}: has shape {shape}; save one volume, (i, j, k) or (channel, i, j, k)")
    require_size(shape, path)


def _npy(archive: zipfile.ZipFile, name: str) -> Shaped[np.ndarray, "..."]:
    with archive.open(f"{name}.npy") as member, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of headers that Python 2 wrote
        return np.lib.format.read_array(member, allow_pickle=False)  # reads what the header claims and no more


def _npy_voxels(archive: zipfile.ZipFile) -> Float32[np.ndarray, "..."]:
    """As `_float32`, without ever holding them as they are stored, which may be four times as wide."""
    with archive.open("voxels.npy") as member:
        shape, columns_first, kind = npy_header(member)
        voxels = np.empty(math.prod(shape), np.float32)
        for start in range(0, voxels.size, _CHUNK):
            part = voxels[start : start + _CHUNK]
            content = member.read(part.size * kind.itemsize)
            if len(content) < part.size * kind.itemsize:
                raise ValueError("it ends before its last voxel")
            part[:] = _float32(np.frombuffer(content, kind))
    return np.ascontiguousarray(voxels.reshape(shape, order="F" if columns_first else "C"))


def _channel_names(small: Mapping[str, Any], shape: tuple[int, ...], path: Path) -> tuple[str, ...]:
    count = shape[0] if len(shape) == 4 else 1
    if "channels" not in small:
        return ("",) if count == 1 else tuple(str(number) for number in range(count))
    names = tuple(str(name) for name in np.atleast_1d(small["channels"]).ravel())
    if small["channels"].dtype.kind != "U" or len(names) != count or len({name.lower() for name in names}) != count:
        raise InputError(f"{path}: its 'channels' do not name its {count} channels, one each; correct them")
    return names


def _read_npy(path: Path) -> _Stored:
    with reading(path):
        # Mapped, not read: whatever size the header claims, nothing is allocated, and a file too short is refused.
        try:
            with np.errstate(over="ignore"), warnings.catch_warnings():  # of the claimed size
                warnings.simplefilter("ignore")  # of headers that Python 2 wrote
                stored = np.lib.format.open_memmap(path, mode="r")
        except ValueError as error:
            if "Python objects" not in str(error):
                raise
            raise InputError(f"{path}: holds pickled Python objects, which are never loaded; save numbers") from error
        _require_scan(stored.shape, stored.dtype, path)
        beside = affine_beside(path)
        if not beside.is_file():
            raise InputError(
                f"{path}: does not tell where its voxels lie; save an NPZ with voxels and affine, or {beside.name} "
                "beside it"
            )
        channels = _channel_names({}, stored.shape, path)
        voxels = _float32(stored).reshape(-1, *stored.shape[-3:])
        return _Stored(voxels, _read_affine(beside), stored.dtype, channels)


def affine_beside(path: Path) -> Path:
    """Where the affine of an NPY is looked for: `NAME.affine.json`."""
    return path.with_name(f"{path.stem}.affine.json")


def _read_affine(path: Path) -> Float64[np.ndarray, "4 4"]:
    with reading(path):
        if path.stat().st_size > _SMALL:
            raise InputError(f"{path}: is no affine; save it as a list of four lists of four numbers")
        content = json.loads(path.read_bytes())
        try:
            return _affine(np.array(content, np.float64), path)
        except (ValueError, TypeError) as error:
            raise InputError(f"{path}: is no affine; save it as a list of four lists of four numbers") from error


def _affine(stored: Shaped[np.ndarray, "..."], path: Path) -> Float64[np.ndarray, "4 4"]:
    if stored.shape != (4, 4) or stored.dtype.kind not in "uif":
        raise InputError(f"{path}: its affine is none (4x4, finite, last row 0 0 0 1); correct it")
    affine = stored.astype(np.float64)
    require_affine(affine, path)
    return affine


def _float32(stored: Shaped[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
    with np.errstate(over="ignore", invalid="ignore"):  # what float32 cannot hold becomes infinite, and is refused
        return np.array(stored, np.float32, order="C")


def _read_itk(path: Path) -> _Stored:
    if find_spec("SimpleITK") is None:
        raise InputError(f'{path}: needs SimpleITK; pip install "priorlens[itk]", or convert it to .nii.gz')

    def require(shape: tuple[int, ...], components: int) -> None:
        if len(shape) != 3:
            remedy = "save it as a PNG, or stack slices to one" if len(shape) < 3 else "give one of its volumes"
            raise InputError(f"{path}: is no volume, it has {len(shape)} axes; {remedy}")
        require_size(shape, path)
        if components != 1:
            raise InputError(f"{path}: holds {components} numbers a voxel; save one grey channel a file")

    with reading(path):
        _require_own_data(path)
        found = decode(path, require)
        affine = found.affine
        affine[:2] *= -1  # ITK's x runs to the left and y to the back
        return _Stored(found.voxels[None], affine, found.kind)


def _require_own_data(path: Path) -> None:
    """Raises InputError for a header that leads to anything but one file beside it: it may name any place there is."""
    with open(path, "rb") as file:
        header = file.read(_SMALL)
    for name in _DATA_FILE.findall(header):
        beside = os.fsdecode(name.strip())
        if beside == "LOCAL":
            continue
        if Path(beside).name != beside or not path.with_name(beside).is_file():
            raise InputError(f"{path}: its voxels are not in one file beside it; save both as one .mha or .nrrd")
