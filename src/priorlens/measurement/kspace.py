"""Real k-space: sampled places, coil maps, phase, noise and grid, so that what is unknown is a real magnitude image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Complex64, Float32
from torch import Tensor

from priorlens.errors import InputError
from priorlens.measurement.arrays import Arrays
from priorlens.measurement.mri import (
    calibration_width,
    estimate_coils,
    magnetic_resonance,
    smooth_phase,
    to_image,
    to_kspace,
)
from priorlens.measurement.operator import Normalised

_LEAST_SIDE = 8
_OUTER = 0.1  # the share of samples, those of the highest frequencies, that are taken to be noise
_LEAST_SAMPLES = 16


@dataclass(frozen=True)
class KSpace:
    """y over the operator's norm, and what is known of it; intensities are still those of the scan."""

    y: Float32[Tensor, "1 *measurement"]
    operator: Normalised
    noise: float
    note: dict[str, Any]


@np.errstate(over="ignore", divide="ignore", invalid="ignore")  # what comes of it is asked to be finite
def read_kspace(path: Path, contents: Arrays, size: tuple[int, int] | None) -> KSpace:
    """From complex `y` [coil, kx, ky] or [kx, ky], zero frequency at index side // 2, and any `mask`, `coil_maps`.

    Without a mask, the places where any coil is not exactly zero were sampled; without coil maps, ESPIRiT estimates
    them. The phase of the low-resolution image goes into the maps, so that the image itself is real, its magnitude.

    The scan's whole field of view is kept, with its own shape of pixels, in the middle of the model's grid: if the scan
    has more pixels than the model, only the centre of k-space is used, which is a coarser image of the same field; if
    it has fewer, the image is not interpolated, and what surrounds the field of view is not measured.

    Raises:
        InputError: arrays that do not belong together, nothing sampled, or a grid too coarse.
        WeightsError: coil maps have to be estimated and sigpy is not installed.
    """
    kspace, sampled = _samples(path, contents)
    maps = _maps(path, contents, kspace)
    field = tuple(kspace.shape[1:])
    shrink = min(1.0, *(model / scan for model, scan in zip(size, field, strict=True))) if size else 1.0
    grid = (round(field[0] * shrink), round(field[1] * shrink))
    if min(grid) < _LEAST_SIDE:
        raise InputError(
            f"{path}: would be an image of {grid[1]}x{grid[0]} pixels in the model's; choose a larger model"
        )
    # Orthonormal transforms of fewer points: the same level of the image has less energy in each.
    kspace = _centre(kspace, grid) * (math.prod(grid) / math.prod(field)) ** 0.5
    sampled = _centre(sampled, grid)
    if int(sampled.sum()) < _LEAST_SAMPLES:
        raise InputError(f"{path}: has {int(sampled.sum())} samples in the centre of k-space, too few; check 'mask'")
    coils = estimate_coils(kspace, sampled, str(path)) if maps is None else _resized(maps, grid)
    width = max(_LEAST_SIDE, calibration_width(sampled))
    operator = magnetic_resonance(coils * smooth_phase(kspace, coils, width), sampled, size)
    y = torch.view_as_real(kspace[:, sampled])[None] / operator.norm
    note = {
        "physics": "mri",
        "coils": len(kspace),
        "sampled": round(float(sampled.float().mean()), 4),
        "scan": list(field),
        "grid": list(grid),
        "coil_maps_from": "ESPIRiT" if maps is None else "file" if "coil_maps" in contents else "one coil",
    }
    return KSpace(y, operator, _noise(kspace, sampled) / operator.norm, note)


def _samples(
    path: Path, contents: Arrays
) -> tuple[Complex64[Tensor, "coil height width"], Bool[Tensor, "height width"]]:
    y = contents["y"]
    if y.dtype.kind != "c":
        raise InputError(f"{path}: 'y' is real, k-space is complex; save complex numbers")
    if y.ndim == 2:
        y = y[None]
    if y.ndim != 3 or min(y.shape[1:]) < _LEAST_SIDE:
        raise InputError(f"{path}: 'y' has shape {y.shape}; save one slice of k-space, [coil, kx, ky] or [kx, ky]")
    mask = contents.get("mask")
    if mask is None:
        mask = (y != 0).any(0)
    elif mask.shape != y.shape[1:]:
        raise InputError(f"{path}: 'mask' of shape {mask.shape} does not fit 'y' of {y.shape}; check both")
    sampled = torch.from_numpy(np.ascontiguousarray(mask != 0))
    return torch.from_numpy(np.ascontiguousarray(y, dtype=np.complex64)) * sampled, sampled


def _maps(
    path: Path, contents: Arrays, kspace: Complex64[Tensor, "coil height width"]
) -> Complex64[Tensor, "coil height width"] | None:
    """As stored, of sum of squares at most 1; of one coil, 1 everywhere; None where they are to be estimated."""
    if "coil_maps" not in contents:
        return torch.ones_like(kspace) if len(kspace) == 1 else None
    stored = contents["coil_maps"]
    maps = torch.from_numpy(np.ascontiguousarray(stored, dtype=np.complex64))
    if maps.shape != kspace.shape:
        raise InputError(
            f"{path}: 'coil_maps' of shape {stored.shape} do not fit 'y' of {tuple(kspace.shape)}; check both"
        )
    if not (maps != 0).any():
        raise InputError(f"{path}: 'coil_maps' are zero everywhere; leave them out and they are estimated")
    return maps / maps.abs().square().sum(0).sqrt().max()


def _centre(array: Tensor, grid: tuple[int, int]) -> Tensor:
    """The middle of the last two dimensions; index side // 2 stays the middle."""
    rows, columns = (whole // 2 - part // 2 for whole, part in zip(array.shape[-2:], grid, strict=True))
    return array[..., rows : rows + grid[0], columns : columns + grid[1]]


def _resized(
    maps: Complex64[Tensor, "coil height width"], grid: tuple[int, int]
) -> Complex64[Tensor, "coil rows columns"]:
    """The same maps on a coarser grid of the same field of view, by the centre of their spectrum."""
    whole = maps.shape[1] * maps.shape[2]
    return to_image(_centre(to_kspace(maps), grid)) * (grid[0] * grid[1] / whole) ** 0.5


def _noise(kspace: Complex64[Tensor, "coil height width"], sampled: Bool[Tensor, "height width"]) -> float:
    """Standard deviation of the real and imaginary parts, from the median of the samples of highest frequency.

    The image has little there; what it has makes the estimate too large rather than too small.
    """
    axes = [(torch.arange(side) - side // 2) / side for side in sampled.shape]
    radius = (axes[0][:, None].square() + axes[1].square()).sqrt()[sampled]
    outer = radius >= torch.quantile(radius, 1 - _OUTER)
    parts = torch.view_as_real(kspace[:, sampled][:, outer])
    return float(parts.abs().median()) / 0.6745
