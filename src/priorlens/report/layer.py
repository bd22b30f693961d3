"""One layer of a results folder, such as a map, as values by place: PNG, NPY and NIfTI, none of which is trusted."""

from __future__ import annotations

import gzip
import math
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
from jaxtyping import Float32, Float64

from priorlens.errors import InputError
from priorlens.images import MAX_PIXELS
from priorlens.volumes.damage import reading
from priorlens.volumes.nifti_header import Header, affine_of, read_header, scaling_of, shape_of, stored_type
from priorlens.volumes.volume import require_affine, require_finite, require_size

_MAX_CHANNELS = 64
_MAX_DEFLATION = 1032
"""Bytes that one compressed byte can stand for in gzip at most."""


@dataclass(frozen=True)
class Layer:
    """Values by place, as read from one file.

    values: of images red, green and blue or one grey, rows and columns; of scans its channels on its own grid.
    affine: of scans, from voxel to RAS+ millimetres; None of images. placed: whether the file says where left and right
        are; a NIfTI file with neither sform nor qform does not, its affine is a guess.
    """

    values: Float32[np.ndarray, "channel *space"]
    affine: Float64[np.ndarray, "4 4"] | None = None
    placed: bool = False


def read_layer(path: Path) -> Layer:
    """Read one layer by its suffix: PNG, NPY or NIfTI.

    Raises:
        InputError: missing, damaged, pickled, too large, with nan or infinite values, or not of the axes of a layer.
    """
    name = path.name
    layer = (
        _read_png(path) if name.endswith(".png") else _read_npy(path) if name.endswith(".npy") else _read_nifti(path)
    )
    require_finite(layer.values, path)
    return layer


def _read_png(path: Path) -> Layer:
    with reading(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of pictures half as large as it would refuse
        with open(path, "rb") as file, PIL.Image.open(file, formats=("PNG",)) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise InputError(f"{path}: has more than {MAX_PIXELS // 10**6} megapixels; score again")
            if picture.mode not in ("L", "RGB", "I", "I;16"):
                raise InputError(
                    f"{path}: is a picture of mode {picture.mode}, not one that priorlens wrote; score again"
                )
            stored = np.asarray(picture)
    channels = stored[None] if stored.ndim == 2 else np.moveaxis(stored, 2, 0)
    return Layer(np.ascontiguousarray(channels, np.float32))


def _read_npy(path: Path) -> Layer:
    with reading(path), np.errstate(over="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of headers of old, and of the size that one claims
        # Mapped, not read: whatever size the header claims, nothing is allocated; pickled objects are refused.
        stored = np.lib.format.open_memmap(path, mode="r")
        if stored.dtype.kind not in "buif" or stored.ndim not in (2, 3) or stored.size > 3 * MAX_PIXELS:
            raise InputError(f"{path}: holds {stored.dtype} of shape {stored.shape}, no map; score again")
        channels = stored[None] if stored.ndim == 2 else stored
        # What float32 cannot hold becomes infinite, and is refused as such.
        return Layer(np.array(channels, np.float32, order="C"))


def _read_nifti(path: Path) -> Layer:
    with reading(path), gzip.open(path, "rb") as file:
        header = read_header(file, path)
        grid = header.copy()
        grid["dim"][0] = min(int(header["dim"][0]), 3)
        shape = shape_of(grid, path)
        channels = _channels_of(header, shape, path)
        affine = affine_of(header, shape, path)
        require_affine(affine, path)
        values = _voxels(path, header, (*shape, channels))
    placed = int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0
    return Layer(values, affine, placed)


def _channels_of(header: Header, shape: tuple[int, int, int], path: Path) -> int:
    """Along the fourth axis; 1 where there is none."""
    further = [int(length) for length in header["dim"][4 : int(header["dim"][0]) + 1]]
    channels = further[0] if further else 1
    if not 1 <= channels <= _MAX_CHANNELS or any(length != 1 for length in further[1:]):
        raise InputError(f"{path}: has {len(further) + 3} axes, not those of a scan with its channels; score again")
    require_size((*shape, channels), path)
    return channels


def _voxels(path: Path, header: Header, shape: tuple[int, int, int, int]) -> Float32[np.ndarray, "channel i j k"]:
    """Rescaled as the header says. No memory is taken for more than the file can hold."""
    from nibabel.arrayproxy import ArrayProxy

    stored = stored_type(header, path)
    if math.prod(shape) * stored.itemsize > path.stat().st_size * _MAX_DEFLATION:
        raise InputError(f"{path}: is truncated, it ends before its last voxel; score again")
    raw = np.asarray(ArrayProxy(str(path), header, mmap=False).get_unscaled()).reshape(shape, order="F")
    slope, intercept = scaling_of(header) or (1.0, 0.0)
    values = np.empty((shape[3], *shape[:3]), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # what float32 cannot hold becomes infinite, and is refused
        for channel in range(shape[3]):
            for k in range(shape[2]):  # slice by slice: float64 of a whole scan would take three times its memory
                values[channel, :, :, k] = raw[:, :, k, channel].astype(np.float64) * slope + intercept
    return values
