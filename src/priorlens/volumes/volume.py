"""A scan: voxels that never travel without where they are, and its slices as a viewer lays them out."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Shaped

from priorlens.errors import InputError

Plane = Literal["axial", "coronal", "sagittal", "acquired"]
Units = Literal["HU", "arbitrary"]

_AXES = {"axial": (2, 1, 0), "coronal": (1, 2, 0), "sagittal": (0, 2, 1)}
"""Scanner axes (0: left to right, 1: back to front, 2: feet to head) of slices, rows and columns."""

MAX_VOXELS = 2**29
"""Of one channel, that are still read: 2 GiB in memory."""

ORTHOGONAL = 1e-3
"""Cosine between two voxel axes up to which a grid is taken for a right-angled one."""


@dataclass(frozen=True)
class Volume:
    """A scan on the grid on which it was stored.

    voxels: intensities after any rescaling, in `units`; several channels are scans of one patient on one grid.
    affine: takes the index (i, j, k, 1) of a voxel's centre to millimetres: x to the patient's right, y to the front, z
        to the head (RAS+, as in NIfTI).
    path: the file, or the folder of a DICOM series.
    channels: what they are called, such as "flair"; of a single one the name may be empty.
    """

    voxels: Float32[np.ndarray, "channel i j k"]
    affine: Float64[np.ndarray, "4 4"]
    units: Units
    path: Path
    channels: tuple[str, ...] = ("",)

    def __post_init__(self) -> None:
        require_affine(self.affine, self.path)
        if self.voxels.ndim != 4 or len(self.voxels) != len(self.channels):
            raise ValueError(f"{self.voxels.shape} voxels for the channels {self.channels}")

    @property
    def shape(self) -> tuple[int, int, int]:
        i, j, k = self.voxels.shape[1:]
        return i, j, k

    @property
    def fingerprint(self) -> str:
        """Of the voxels, whatever the file's name and format; 32 hexadecimal digits, as of images."""
        voxels = np.ascontiguousarray(self.voxels, dtype="<f4")
        digest = hashlib.sha256(repr(voxels.shape).encode())
        digest.update(voxels.data)
        return digest.hexdigest()[:32]

    @property
    def spacing(self) -> Float64[np.ndarray, "3"]:
        """Millimetres from a voxel to the next along i, j, k."""
        return spacing_of(self.affine)


@np.errstate(over="ignore", invalid="ignore")  # of what is refused by `require_affine`
def spacing_of(affine: Float[np.ndarray, "4 4"]) -> Float64[np.ndarray, "3"]:
    """Lengths of its steps, in millimetres."""
    return np.linalg.norm(affine[:3, :3].astype(np.float64), axis=0)


@np.errstate(over="ignore", invalid="ignore")
def require_affine(affine: Float[np.ndarray, "4 4"], path: Path) -> None:
    """Raises InputError for one that gives voxels no place, no extent, or a slanted grid (as gantry tilt does)."""
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or (affine[3] != (0, 0, 0, 1)).any():
        raise InputError(f"{path}: its affine is none (4x4, finite, last row 0 0 0 1); correct its header")
    spacing = spacing_of(affine)
    if not (spacing > 0).all() or abs(np.linalg.det(affine[:3, :3] / spacing)) < 1e-6:
        raise InputError(f"{path}: its affine gives voxels no extent; correct the voxel sizes in its header")
    unit = affine[:3, :3] / spacing
    cosine = float(np.abs(unit.T @ unit - np.eye(3)).max())
    if cosine > ORTHOGONAL:
        angle = float(np.degrees(np.arcsin(min(cosine, 1.0))))
        raise InputError(f"{path}: its grid is slanted by {angle:.1f} degrees (gantry tilt?); resample it upright")


@dataclass(frozen=True)
class Layout:
    """A scan's voxels as a stack of slices, each as a radiologist looks at it. Nothing is resampled.

    axes: the scan's axes that become slices, rows and columns. flipped: which of these run against the scan's own.
    """

    axes: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]

    @classmethod
    def of(cls, affine: Float[np.ndarray, "4 4"], plane: Plane) -> Layout:
        """For a scan of any orientation: the axes of its own that lie closest to the plane's.

        axial: slices from feet to head, rows from front to back, columns from the patient's right to left. coronal:
        from back to front, from head to feet, from right to left. sagittal: from left to right, from head to feet, from
        front to back. acquired: of these three the one whose slices lie farthest apart; axial where they are equal.
        """
        along = closest_axes(affine)
        spacing = spacing_of(affine)
        if plane == "acquired":
            farthest = max(spacing) * (1 - 1e-3)
            plane = next(p for p in ("axial", "coronal", "sagittal") if spacing[along[_AXES[p][0]]] >= farthest)
        axes = _AXES[plane]
        chosen = tuple(along[axis] for axis in axes)
        rising = [bool(affine[axis, own] > 0) for axis, own in zip(axes, chosen, strict=True)]
        # Slices go up the scanner axis; rows and columns go down it.
        return cls(chosen, (not rising[0], rising[1], rising[2]))  # type: ignore[arg-type]

    @property
    def _against(self) -> tuple[int, ...]:
        return tuple(axis - 3 for axis in range(3) if self.flipped[axis])

    def to_stack(self, voxels: Shaped[np.ndarray, "*channel i j k"]) -> Shaped[np.ndarray, "*channel slice row column"]:
        """A view of the voxels, slice by slice."""
        stack = np.moveaxis(voxels, [axis - 3 for axis in self.axes], [-3, -2, -1])
        return np.flip(stack, self._against)

    def from_stack(
        self, stack: Shaped[np.ndarray, "*channel slice row column"]
    ) -> Shaped[np.ndarray, "*channel i j k"]:
        """The inverse, in memory of its own."""
        voxels = np.flip(stack, self._against)
        return np.ascontiguousarray(np.moveaxis(voxels, [-3, -2, -1], [axis - 3 for axis in self.axes]))

    def affine(self, affine: Float[np.ndarray, "4 4"], shape: tuple[int, int, int]) -> Float64[np.ndarray, "4 4"]:
        """Of the stack: takes (slice, row, column, 1) to the millimetres where the scan of this `shape` has it."""
        to_index = np.zeros((4, 4))
        to_index[3, 3] = 1
        for position, (axis, flip) in enumerate(zip(self.axes, self.flipped, strict=True)):
            to_index[axis, position] = -1 if flip else 1
            to_index[axis, 3] = shape[axis] - 1 if flip else 0
        return affine.astype(np.float64) @ to_index


def closest_axes(affine: Float[np.ndarray, "4 4"]) -> tuple[int, int, int]:
    """For each scanner axis, the scan's own that lies closest to it; each of its own is taken once."""
    from scipy.optimize import linear_sum_assignment

    unit = affine[:3, :3] / spacing_of(affine)
    _, along = linear_sum_assignment(-(unit**2))
    return tuple(int(axis) for axis in along)  # type: ignore[return-value]


GRID_TOLERANCE = 0.1
"""Millimetres by which the corners of two grids may lie apart that are taken for one."""


@np.errstate(over="ignore", invalid="ignore")  # a shift that is not finite is above any tolerance
def corner_shift(one: Float[np.ndarray, "4 4"], other: Float[np.ndarray, "4 4"], shape: tuple[int, ...]) -> float:
    """How far apart, in millimetres, two affines put the corner of a grid of this shape that they agree on least.

    Corners are those of the outermost voxels, half a step beyond their centres, so that a grid of one slice has some.
    """
    sides = [(-0.5, length - 0.5) for length in shape[:3]]
    corners = np.array([(i, j, k, 1.0) for i in sides[0] for j in sides[1] for k in sides[2]])
    apart = (one.astype(np.float64) - other.astype(np.float64)) @ corners.T
    return float(np.linalg.norm(apart[:3], axis=0).max())


def require_size(shape: tuple[int, ...], path: Path) -> None:
    """Raises InputError for a header whose voxels are none or more than `MAX_VOXELS`; asked before they are read."""
    if any(length < 1 for length in shape):
        raise InputError(f"{path}: has no voxels (shape {_times(shape)}); export it again or leave it out")
    if math.prod(shape) > MAX_VOXELS:
        raise InputError(f"{path}: has more than {MAX_VOXELS // 2**20} million voxels; crop it or resample it coarser")


def require_voxels(voxels: Float32[np.ndarray, "*axes"], path: Path) -> None:
    """Raises InputError for voxels that tell nothing: none at all, nan or infinite ones, or all the same."""
    require_finite(voxels, path)
    if voxels.min() == voxels.max():
        raise InputError(f"{path}: is constant, every voxel is the same; leave it out")


def require_finite(voxels: Float32[np.ndarray, "*axes"], path: Path) -> None:
    """Raises InputError where there are no voxels, or some are nan or infinite."""
    if voxels.size == 0:
        raise InputError(f"{path}: has no voxels (shape {_times(voxels.shape)}); export it again or leave it out")
    # The extremes are found without memory of their own, and are not finite where any voxel is not.
    if not (np.isfinite(voxels.min()) and np.isfinite(voxels.max())):
        count = voxels.size - int(np.count_nonzero(np.isfinite(voxels)))
        raise InputError(f"{path}: has {count} voxels that are nan or infinite; replace them, such as by 0")


def looks_like_hounsfield(voxels: Float32[np.ndarray, "*axes"], stored: np.dtype) -> bool:
    """Whether intensities in a format that does not tell their units are taken for Hounsfield units.

    They are where the file stores integers and they reach from air (at most -900) to bone or contrast agent (above
    200). A CT cut to a window, or stored as floats, is not recognised; its intensities are called arbitrary.
    """
    return stored.kind in "iu" and bool(voxels.min() <= -900) and bool(voxels.max() > 200)


def lesions_on(
    labels: Float32[np.ndarray, "i j k"], affine: Float[np.ndarray, "4 4"], path: Path, scan: Volume
) -> Bool[np.ndarray, "i j k"]:
    """True where a mask read from `path` is above 0. Raises InputError where its grid is not the scan's."""
    if labels.shape != scan.shape:
        raise InputError(
            f"{path}: the mask has {_times(labels.shape)} voxels but its scan {scan.path} has {_times(scan.shape)}; "
            "resample it to the scan's grid"
        )
    shift = corner_shift(affine, scan.affine, scan.shape)
    if not shift <= GRID_TOLERANCE:
        raise InputError(
            f"{path}: the mask lies {shift:.3g} mm away from its scan {scan.path}, their affines differ; resample it "
            "to the scan's grid"
        )
    return labels > 0


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(str(length) for length in shape)
