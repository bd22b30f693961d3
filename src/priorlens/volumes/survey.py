"""What healthy scans tell of how scans like them should be prepared: size of the body, spacing, units, intensities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64

from priorlens.errors import InputError
from priorlens.preparation import Sizes
from priorlens.volumes.scan_body import box_of, scan_body
from priorlens.volumes.scan_preparation import Dimensions, ScanPreparation
from priorlens.volumes.volume import Layout, Plane, Units, Volume, spacing_of
from priorlens.volumes.voxel_intensity import WINDOWS, Mode, VoxelIntensity, inside

NEIGHBOURS = 3.0
"""Millimetres to the slices shown beside one, where slices do not lie farther apart themselves."""

CUBE, CUBES_ALONG = 32, 2.0
"""Side of the cubes of models in three dimensions, and how many of them side by side the body's longest side takes."""

_MARGIN = 1.04  # of the field of view over the body


@dataclass(frozen=True)
class Survey:
    """Of one scan. spacing, extent: in mm, of its slices, rows and columns, and of its body along them. bodies: voxels
    of the body, one array a channel."""

    units: Units
    channels: tuple[str, ...]
    spacing: Float64[np.ndarray, "3"]
    extent: Float64[np.ndarray, "3"]
    bodies: tuple[Float32[np.ndarray, " voxel"], ...]


def survey(volume: Volume, plane: Plane) -> Survey:
    """Raises InputError for a scan without a body, or one whose body is all alike."""
    body = scan_body(volume)
    layout = Layout.of(volume.affine, plane)
    spacing = spacing_of(layout.affine(volume.affine, volume.shape))
    stack = layout.to_stack(body)
    extent = np.array([last - first + 1 for first, last in box_of(stack)]) * spacing
    bodies = tuple(inside(voxels, body)[::20].copy() for voxels in volume.voxels)
    if any(np.ptp(voxels) == 0 for voxels in bodies):
        raise InputError(f"{volume.path}: its body has one intensity throughout; leave it out")
    return Survey(volume.units, volume.channels, spacing, extent, bodies)


def choose_preparation(
    surveys: Sequence[Survey],
    *,
    plane: Plane,
    dimensions: Dimensions,
    sizes: Sizes,
    size: int | None = None,
    spacing: float | None = None,
    neighbours: float | None = None,
    intensity: Mode | None = None,
    window: tuple[float, float] | None = None,
) -> ScanPreparation:
    """What suits these scans, all of the same units and channels.

    size: of the model's squares or cubes, in pixels. spacing: of these, in mm. Where they are not given, bodies up to
    the 95th percentile fit in, at a spacing not much finer than the scans' own. intensity: None is "window" for HU,
    else "robust".

    Raises:
        InputError: an intensity that does not suit the units.
    """
    first = surveys[0]
    wide = float(np.percentile([one.extent[1:].max() for one in surveys], 95)) * _MARGIN
    own = float(np.median([one.spacing[1:].max() for one in surveys]))
    if dimensions == "3d":
        size = size or CUBE
        longest = float(np.percentile([one.extent.max() for one in surveys], 95))
        spacing = spacing or max(own, longest / (CUBES_ALONG * size))
    else:
        size = size or sizes.choose(wide / (spacing or own) + sizes.multiple / 2)
        spacing = spacing or max(own, wide / size)
    apart = float(np.median([one.spacing[0] for one in surveys]))
    return ScanPreparation(
        channels=first.channels,
        units=first.units,
        intensities=tuple(_intensity(surveys, channel, intensity, window) for channel in range(len(first.channels))),
        plane=plane,
        dimensions=dimensions,
        spacing=round(spacing, 4),
        size=size,
        neighbours=round(neighbours or max(NEIGHBOURS, apart), 4),
    )


def _intensity(
    surveys: Sequence[Survey], channel: int, mode: Mode | None, window: tuple[float, float] | None
) -> VoxelIntensity:
    hounsfield = surveys[0].units == "HU"
    mode = mode or ("window" if hounsfield else "robust")
    if mode == "window" and not hounsfield:
        raise InputError("a window in Hounsfield units is for CT, these scans have none; choose robust or landmarks")
    if window and mode != "window":
        raise InputError(f"--window is of Hounsfield units (CT), which --intensity {mode} does not use; leave one out")
    if mode == "window":
        low, high = window or WINDOWS["soft"]
        return VoxelIntensity("window", low, high)
    if mode == "robust":
        return VoxelIntensity("robust")
    return VoxelIntensity.learned([one.bodies[channel] for one in surveys])
