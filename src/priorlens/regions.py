"""From flagged blocks to places: where each is, how large, and how much it stands out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Float64, Int
from scipy import ndimage

from priorlens.blocks import Flagged, enlarged
from priorlens.errors import InputError


@dataclass(frozen=True)
class Region:
    """Flagged blocks that touch one another.

    centre: plain mean of its pixels' positions, each at its own centre; may lie beside a bent region. In scanner
        coordinates where `unit` is "mm", else row, column[, slice], counted from 0.
    size: mm^2 of a plane, mm^3 of a volume; else the number of pixels.
    peak, mean: of the map inside.
    q_value: the smallest of its blocks'. A rate of errors among blocks, not a probability that this region is one; nan
        where nothing was calibrated.
    """

    centre: tuple[float, ...]
    size: float
    unit: Literal["mm", "px"]
    peak: float
    mean: float
    q_value: float


def find_regions(
    anomaly_map: Float[np.ndarray, "*space"],
    flagged: Flagged,
    affine: Float[np.ndarray, "n n"] | None = None,
    spacing: Sequence[float] | None = None,
) -> tuple[list[Region], Int[np.ndarray, "*space"]]:
    """Regions of a map by falling peak, and for each of its pixels the number of its region, from 1; 0 is none.

    Blocks that share a corner touch. `affine` maps (row, column[, slice], 1) to scanner mm: 3x3 for a plane, 4x4 for a
    volume, or for a plane that lies in space as slice 0. `spacing` is that of the blocks (`priorlens.blocks`). Raises
    InputError on an affine that cannot be used.
    """
    if affine is not None:
        _check(affine, anomaly_map.ndim)
    touching, count = ndimage.label(flagged.flagged, np.ones((3,) * flagged.flagged.ndim))
    labels = enlarged(touching, anomaly_map.shape, spacing)
    q_values = [float(flagged.q_values[touching == number].min()) for number in range(1, count + 1)]
    found = []
    for number, (box, q_value) in enumerate(zip(ndimage.find_objects(labels), q_values, strict=True), start=1):
        inside = labels[box] == number
        corner = [side.start for side in box]
        found.append(_region(np.argwhere(inside) + corner, anomaly_map[box][inside], q_value, affine))
    by_peak = sorted(range(count), key=lambda index: -found[index].peak)
    renumbered = np.zeros(count + 1, np.int32)
    renumbered[np.array(by_peak, int) + 1] = np.arange(1, count + 1)
    return [found[index] for index in by_peak], renumbered[labels]


def regions_above(
    anomaly_map: Float[np.ndarray, "*space"],
    threshold: float,
    affine: Float[np.ndarray, "n n"] | None = None,
    smallest: float = 0.0,
) -> tuple[list[Region], Int[np.ndarray, "*space"]]:
    """The same of what exceeds a threshold, where nothing is calibrated: q-values are nan.

    smallest: size that a region must have, in its unit. Raises InputError on an affine that cannot be used.
    """
    if affine is not None:
        _check(affine, anomaly_map.ndim)
    labels, count = ndimage.label(anomaly_map > threshold, np.ones((3,) * anomaly_map.ndim))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:] * (
        1.0 if affine is None else _pixel_size(affine, anomaly_map.ndim)
    )
    large = np.flatnonzero(sizes >= smallest) + 1
    found, boxes = [], ndimage.find_objects(labels)
    for number in large:
        box = boxes[number - 1]
        inside = labels[box] == number
        corner = [side.start for side in box]
        found.append((_region(np.argwhere(inside) + corner, anomaly_map[box][inside], math.nan, affine), number))
    found.sort(key=lambda pair: -pair[0].peak)
    renumbered = np.zeros(count + 1, np.int32)
    renumbered[[number for _, number in found]] = np.arange(1, len(found) + 1)
    return [region for region, _ in found], renumbered[labels]


def _region(
    positions: Int[np.ndarray, "pixel axis"],
    values: Float[np.ndarray, " pixel"],
    q_value: float,
    affine: Float[np.ndarray, "n n"] | None,
) -> Region:
    """Of the pixels at these positions, with these values of the map."""
    centre, size = positions.mean(axis=0), float(values.size)
    return Region(
        centre=tuple((centre if affine is None else _scanner(centre, affine)).tolist()),
        size=size if affine is None else size * _pixel_size(affine, centre.size),
        unit="px" if affine is None else "mm",
        peak=float(values.max()),
        mean=float(values.mean(dtype=np.float64)),
        q_value=q_value,
    )


def _scanner(position: Float64[np.ndarray, " axis"], affine: Float[np.ndarray, "n n"]) -> Float64[np.ndarray, " mm"]:
    """Where a position lies in the scanner; axes that it does not name are at 0."""
    return affine[:-1, : position.size] @ position + affine[:-1, -1].astype(np.float64)


def _pixel_size(affine: Float[np.ndarray, "n n"], axes: int) -> float:
    """Volume that the steps to the next pixels along each axis span; in a plane, also in space, their area."""
    steps = affine[:-1, :axes].astype(np.float64)
    return float(np.sqrt(max(np.linalg.det(steps.T @ steps), 0.0)))


def _check(affine: Float[np.ndarray, "n n"], axes: int) -> None:
    sizes = (3, 4) if axes == 2 else (axes + 1,)
    if len(affine) not in sizes:
        wanted = " or ".join(f"{size}x{size}" for size in sizes)
        raise InputError(f"affine: is {len(affine)}x{len(affine)}; a map of {axes} axes needs {wanted}")
    if not np.isfinite(affine).all() or (affine[-1] != np.eye(len(affine))[-1]).any():
        raise InputError(
            "affine: is none (a value is not finite, or the last row is not 0 ... 0 1); correct its header"
        )
    if not _pixel_size(affine, axes) > 0:
        raise InputError("affine: gives pixels no extent; correct the voxel sizes in the image's header")
