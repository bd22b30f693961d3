"""A scan of the list becomes voxels: every channel by the reader of its format, all on one grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Bool

from priorlens.errors import InputError
from priorlens.volumes.arrays import ARRAY_SUFFIXES, read_array_mask, read_array_volume
from priorlens.volumes.dicom_files import Series
from priorlens.volumes.nifti import NIFTI_SUFFIXES, read_mask, read_nifti
from priorlens.volumes.scans import Scan
from priorlens.volumes.volume import GRID_TOLERANCE, Volume, corner_shift


def read_scan(scan: Scan) -> Volume:
    """Read all channels, each file once. Path and affine are those of the first, units are Hounsfield if all are.

    Raises:
        InputError: as the readers of each format; or channels differ in shape or in where they lie.
    """
    volumes: dict[Path | str, Volume] = {}
    channels = []
    for source, name in zip(scan.sources, scan.channels, strict=True):
        key = source if isinstance(source, Path) else f"{source.uid} {source.part}"
        if key not in volumes:
            volumes[key] = read_source(source)
        volume = volumes[key]
        channels.append(volume.voxels[_index(volume, name)])
    first, *others = volumes.values()
    for other in others:
        _require_one_grid(first, other)
    if len(channels) == 1:
        return Volume(channels[0][None], first.affine, first.units, first.path, scan.channels)
    units = "HU" if all(volume.units == "HU" for volume in volumes.values()) else "arbitrary"
    return Volume(np.stack(channels), first.affine, units, first.path, scan.channels)  # type: ignore[arg-type]


def read_source(source: Path | Series) -> Volume:
    """Read one file, whose suffix tells its format, or one DICOM series. Raises InputError."""
    if isinstance(source, Series):
        from priorlens.volumes.dicom_series import read_series

        return read_series(source)
    if source.name.lower().endswith(ARRAY_SUFFIXES):
        return read_array_volume(source)
    return read_nifti(source)  # which says what is wrong with a file of any other suffix


def read_lesions(scan: Scan, volume: Volume) -> Bool[np.ndarray, "i j k"]:
    """Read the mask of a scan, which was read as `volume`: True where a lesion is; nowhere, where it has no mask.

    Raises:
        InputError: as the readers of each format; or the mask is not on the scan's grid.
    """
    if scan.mask is None:
        return np.zeros(volume.shape, bool)
    name = scan.mask.name.lower()
    if name.endswith(ARRAY_SUFFIXES):
        return read_array_mask(scan.mask, volume)
    if not name.endswith(NIFTI_SUFFIXES):
        known = " ".join((*NIFTI_SUFFIXES, *ARRAY_SUFFIXES))
        raise InputError(f"{scan.mask}: a mask is one of {known}; convert it to one of these")
    return read_mask(scan.mask, volume)


def _index(volume: Volume, name: str) -> int:
    """Which of a file's channels has this name; the only one has whatever name its file's name gave it."""
    if len(volume.channels) == 1:
        return 0
    names = [channel.lower() for channel in volume.channels]
    if name.lower() not in names:
        raise InputError(f"{volume.path}: has no channel {name}, only {', '.join(names)}; name another")
    return names.index(name.lower())


def _require_one_grid(first: Volume, other: Volume) -> None:
    if first.shape != other.shape:
        sizes = " and ".join("x".join(str(length) for length in volume.shape) for volume in (first, other))
        raise InputError(
            f"{other.path}: is not on the grid of {first.path} ({sizes} voxels); resample one to the other"
        )
    shift = corner_shift(first.affine, other.affine, first.shape)
    if not shift <= GRID_TOLERANCE:
        raise InputError(
            f"{other.path}: lies {shift:.3g} mm away from {first.path}, their affines differ; resample one to the other"
        )
