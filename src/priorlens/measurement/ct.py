"""Computed tomography: the Radon transform of `deepinv.physics.Tomography` as a sparse matrix."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from priorlens.measurement.inverses import solved
from priorlens.measurement.linear import Matrix
from priorlens.measurement.operator import Normalised

_FIELD = 25.0  # centimetres across the image of a fan-beam scan: a head; the source is 57.5 cm from its centre


def detectors(side: int) -> int:
    """Detector elements, as wide as a pixel, that see the whole of a square image from every angle."""
    return math.ceil(math.sqrt(2 * torch.ones(1)) * side)


def parallel_beam(
    side: int, angles: Float[Tensor, " view"], circle: bool = False, dtype: torch.dtype = torch.float32
) -> Normalised:
    """Line integrals along parallel rays at `angles` in degrees; y is [batch, detector, view].

    With `circle` only the inscribed disc is measured, by as many detector elements as the image has columns.
    """
    from deepinv.physics import Tomography

    return tomography(Tomography(angles=angles, img_width=side, circle=circle, normalize=False), dtype)


def fan_beam(side: int, angles: Float[Tensor, " view"], dtype: torch.dtype = torch.float32) -> Normalised:
    """Line integrals along the rays of a fan that covers the image's corners; y is [batch, detector, view]."""
    from deepinv.physics import Tomography

    source = 57.5
    count = detectors(side)
    shadow = 2 * 2 * source * math.tan(math.asin(_FIELD / math.sqrt(2) / source))
    geometry = {
        "pixel_spacing": _FIELD / side,
        "source_radius": source,
        "detector_radius": source,
        "n_detector_pixels": count,
        "detector_spacing": shadow / (count - 1),
    }
    physics = Tomography(angles=angles, img_width=side, normalize=False, fan_beam=True, fan_parameters=geometry)
    return tomography(physics, dtype)


def tomography(physics: nn.Module, dtype: torch.dtype = torch.float32) -> Normalised:
    """The operator of a `deepinv.physics.Tomography`, of norm 1, by the sparse matrix that it stands for.

    Rotating an image for every view takes fifty times as long as this matrix, and its adjoint is exact.
    """
    matrix, measured = radon_matrix(physics)
    side = math.isqrt(matrix.shape[1])
    linear = Matrix(matrix.to(dtype), (1, side, side), measured)
    return solved(linear, torch.empty(0, dtype=dtype))


def radon_matrix(physics: nn.Module) -> tuple[Float[Tensor, "numbers pixels"], tuple[int, int]]:
    """Bilinear weights of every sample along every ray, summed over the ray, as CSR; and (detectors, views).

    The samples are those of deepinv's own grid: what it computes by rotating the image, without a pass per pixel.
    """
    radon: Any = physics.radon
    side, views = int(physics.img_width), len(radon.theta)  # type: ignore[arg-type]
    grid = radon.all_grids if radon.parallel_computation else torch.cat(list(radon.all_grids), 2)
    width = side if radon.circle else detectors(side)
    before = width // 2 - side // 2  # the image's place in the square that holds its diagonal
    count = grid.shape[2] // views
    place = (grid[0].double() + 1) / 2 * (width - 1)  # [ray sample, view * detector, (column, row)]
    order = torch.arange(views * count).reshape(count, views).t().reshape(-1)  # the grid's rays go view by view

    corner = place.floor()
    weights, rows, pixels = [], [], []
    for right in (0, 1):
        for below in (0, 1):
            column, row = corner[..., 0] + right, corner[..., 1] + below
            weight = (1 - (place[..., 0] - column).abs()) * (1 - (place[..., 1] - row).abs())
            column, row = column - before, row - before
            inside = (column >= 0) & (column < side) & (row >= 0) & (row < side) & (weight > 0)
            if radon.circle:
                centre = (side - 1) / 2
                inside &= (column - centre) ** 2 + (row - centre) ** 2 <= centre**2
            weights.append(weight[inside])
            rows.append(order.expand(len(place), -1)[inside])
            pixels.append((row * side + column).long()[inside])
    size = (views * count, side * side)
    entries = torch.sparse_coo_tensor(
        torch.stack([torch.cat(rows), torch.cat(pixels)]), torch.cat(weights), size, check_invariants=True
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return entries.coalesce().to_sparse_csr(), (count, views)
