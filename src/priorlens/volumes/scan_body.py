"""Where in a scan the patient is: the part that is looked at, and that intensities are measured in."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Float32
from scipy import ndimage

from priorlens.errors import InputError
from priorlens.volumes.volume import Layout, Volume

AIR = -400.0
"""HU halfway between air and soft tissue, about."""

EMPTY_SHARE = 0.2
"""So large a share of voxels with the very lowest value is background that was cut away, as by skull-stripping."""

_COARSE = 4.0  # mm: fine enough for a body, and quick


def scan_body(volume: Volume) -> Bool[np.ndarray, "i j k"]:
    """The patient's body, or brain where all else was cut away: one connected piece without holes.

    HU: what is denser than -400. Else, where a fifth of the voxels or more have the very lowest value, most of them
    side by side, all others; else what is brighter than Otsu's threshold at a resolution of 4 mm. Of several channels
    the first decides.

    Raises InputError if there is nothing.
    """
    voxels = volume.voxels[0]
    step = np.maximum(1, np.floor(_COARSE / volume.spacing)).astype(int)
    empty = voxels == voxels.min()
    if volume.units == "arbitrary" and _cut_away(empty):
        body = _largest(~empty)
    else:
        smooth = ndimage.uniform_filter(voxels, [int(s) for s in step])
        threshold = AIR if volume.units == "HU" else _otsu(smooth[:: step[0], :: step[1], :: step[2]])
        body = _largest(smooth > threshold)
    if not body.any():
        raise InputError(f"{volume.path}: holds no body that could be told from its background; leave it out")
    return _filled(body, {Layout.of(volume.affine, "axial").axes[0], int(np.argmin(body.shape))})


def box_of(body: Bool[np.ndarray, "i j k"]) -> list[tuple[int, int]]:
    """First and last index along each axis at which there is any of it."""
    along = [np.flatnonzero(body.any(tuple(other for other in range(3) if other != axis))) for axis in range(3)]
    return [(int(where[0]), int(where[-1])) for where in along]


def _cut_away(empty: Bool[np.ndarray, "i j k"]) -> bool:
    """Whether this is background without noise; in noise that is stored as integers, zeros are many but scattered."""
    count = np.count_nonzero(empty)
    if count < EMPTY_SHARE * empty.size:
        return False
    return bool(np.count_nonzero(ndimage.binary_erosion(empty, border_value=1)) >= count / 2)


def _otsu(voxels: Float32[np.ndarray, "i j k"]) -> float:
    from skimage.filters import threshold_otsu

    return float(threshold_otsu(voxels.ravel())) if np.ptp(voxels) > 0 else float(voxels.max())


def _largest(inside: Bool[np.ndarray, "i j k"]) -> Bool[np.ndarray, "i j k"]:
    pieces, count = ndimage.label(inside)
    if count <= 1:
        return inside
    sizes = np.zeros(count + 1, np.int64)
    for plane in pieces:  # all at once they would be copied
        sizes += np.bincount(plane.ravel(), minlength=count + 1)
    sizes[0] = 0
    return pieces == int(sizes.argmax())


def _filled(body: Bool[np.ndarray, "i j k"], axes: Iterable[int]) -> Bool[np.ndarray, "i j k"]:
    """Slice by slice along these axes: from feet to head lungs that open at the end of a scan are inside too, and along
    the shortest what a slab cuts open."""
    filled = body
    for axis in axes:
        slices = np.moveaxis(body, axis, 0)
        filled = filled | np.moveaxis(np.stack([ndimage.binary_fill_holes(plane) for plane in slices]), 0, axis)
    return filled
