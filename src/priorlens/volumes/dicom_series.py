"""A DICOM series becomes a volume: its planes decoded one file at a time, in their place in the patient."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from priorlens.errors import InputError
from priorlens.volumes.dicom_decoder import Decoder
from priorlens.volumes.dicom_files import Series
from priorlens.volumes.dicom_pixels import read_planes
from priorlens.volumes.volume import MAX_VOXELS, Volume

PADDED_HU = -1024.0
"""What voxels become that a CT scanner only padded its picture with: air, as outside the field of view."""


def read_series(series: Series) -> Volume:
    """The voxels of a series, larger being brighter, with their place.

    Padded voxels (PixelPaddingValue) become `PADDED_HU` in CT, else the smallest of the others. Where the smallest
    value is meant to be white (MONOCHROME1), values are mirrored within their own range; but HU mean the same whatever
    they are displayed as, and stay. A CT without rescale slope and intercept is in arbitrary units.

    Raises:
        InputError: as `read_planes`; the series has more than `MAX_VOXELS` voxels, or nothing but padding; or its
            grid is none that a volume can have.
    """
    columns, rows, count = series.shape
    if float(columns) * rows * count > MAX_VOXELS:
        raise InputError(f"{series.path}: has more than {MAX_VOXELS} voxels; crop it")
    try:
        planes = np.empty((count, rows, columns), np.float32)
    except MemoryError as error:
        raise InputError(f"{series.path}: does not fit into memory; crop it or use a larger machine") from error
    hounsfield, white_is_low = [], []
    with Decoder() as decoder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, of values that are odd but clear
        for path, wanted in _by_file(series).items():
            found = read_planes(path, [frame for _, frame in wanted], (rows, columns), decoder)
            for (k, _), plane in zip(wanted, found, strict=True):
                planes[k] = plane.values
                hounsfield.append(plane.hounsfield)
                white_is_low.append(plane.white_is_low)
    if len(set(hounsfield)) > 1 or len(set(white_is_low)) > 1:
        raise InputError(f"{series.path}: its slices differ in units (RescaleType, Photometric...); export them alike")
    low, high = _range(planes, series.path)
    if white_is_low[0] and not hounsfield[0]:
        np.subtract(np.float32(low + high), planes, out=planes)
    for values in planes:  # one at a time, for the sake of memory
        values[np.isnan(values)] = PADDED_HU if hounsfield[0] else low
    voxels = planes.transpose(2, 1, 0)[None]
    return Volume(voxels, series.affine, "HU" if hounsfield[0] else "arbitrary", series.path)


def _by_file(series: Series) -> dict[Path, list[tuple[int, int]]]:
    """For each file its planes, as (k, frame)."""
    by_file: dict[Path, list[tuple[int, int]]] = {}
    for k, instance in enumerate(series.instances):
        by_file.setdefault(instance.path, []).append((k, instance.frame))
    return by_file


def _range(planes: Float32[np.ndarray, "k row column"], path: Path) -> tuple[float, float]:
    """Smallest and largest value that is not padding."""
    lows, highs = [], []
    for plane in planes:
        real = plane[~np.isnan(plane)]
        if real.size:
            lows.append(float(real.min()))
            highs.append(float(real.max()))
    if not lows:
        raise InputError(f"{path}: has nothing but padding (PixelPaddingValue); leave it out")
    return min(lows), max(highs)
