"""A grid at the model's spacing laid over a scan's body, cut into overlapping tiles of the model's size; and back."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64
from scipy import sparse

from priorlens.normalise import linear_weights

OVERLAP = 0.25
"""Share of a tile that it has in common with the next one, at least."""


@dataclass(frozen=True)
class Canvas:
    """Along each axis, in the order of the array's last axes: two for slices, three for whole scans.

    source: voxels of the scan. centre: of the canvas, as an index of the scan's. step: of the scan's voxels to one of
    the canvas. shape: voxels of the canvas. tile: voxels of a tile, at most as many.
    """

    source: tuple[int, ...]
    centre: tuple[float, ...]
    step: tuple[float, ...]
    shape: tuple[int, ...]
    tile: tuple[int, ...]

    @classmethod
    def over(
        cls,
        source: Sequence[int],
        box: Sequence[tuple[int, int]],
        step: Sequence[float],
        tile: Sequence[int],
    ) -> Canvas:
        """One that holds a box of the scan (first and last index along each axis), and at least one tile."""
        shape = [  # steps are right to some 16 digits only: a box of just a tile must not become two
            max(side, math.ceil((last - first + 1) / s - 1e-6))
            for (first, last), s, side in zip(box, step, tile, strict=True)
        ]
        centre = [(first + last) / 2 for first, last in box]
        return cls(tuple(source), tuple(centre), tuple(step), tuple(shape), tuple(tile))

    def to_canvas(self, voxels: Float32[np.ndarray, "*before"], beyond: float = 0.0) -> Float32[np.ndarray, "*after"]:
        """The last axes resampled linearly, anti-aliased when shrinking; `beyond` where there is no scan."""
        if beyond:
            return self.to_canvas(voxels - np.float32(beyond)) + np.float32(beyond)
        for axis, (side, centres, step) in enumerate(zip(self.source, self._centres(), self.step, strict=True)):
            weights = linear_weights(side, centres, 1 / step)
            weights = weights.multiply(((centres > -0.5 - 1e-6) & (centres < side - 0.5 + 1e-6))[:, None]).tocsr()
            voxels = _along(weights, voxels, axis - len(self.source))
        return voxels

    def from_canvas(self, canvas: Float32[np.ndarray, "*after"], outside: float) -> Float32[np.ndarray, "*before"]:
        """The last axes on the scan's own voxels again; `outside` where the canvas does not reach."""
        reached = np.ones(canvas.shape[-len(self.source) :][:0], bool)
        for axis, (side, count, centres, step) in enumerate(
            zip(self.source, self.shape, self._centres(), self.step, strict=True)
        ):
            back = (np.arange(side) - centres[0]) / step  # the scan's voxels as indices of the canvas
            canvas = _along(linear_weights(count, back, step), canvas, axis - len(self.source))
            reached = np.multiply.outer(reached, (back > -0.5 - 1e-6) & (back < count - 0.5 + 1e-6))
        return np.where(reached, canvas, np.float32(outside))

    def tiles(self, canvas: Float32[np.ndarray, "*after"]) -> list[Float32[np.ndarray, "*tile"]]:
        """All tiles of a canvas."""
        return [canvas[(..., *box)] for box in self._boxes()]

    def blended(self, tiles: Sequence[Float32[np.ndarray, "*tile"]]) -> Float32[np.ndarray, "*after"]:
        """The inverse: where tiles overlap, their mean, in which a tile counts less towards its border."""
        boxes = self._boxes()
        if len(boxes) == 1:
            return tiles[0]
        total = np.zeros((*tiles[0].shape[: tiles[0].ndim - len(self.shape)], *self.shape), np.float32)
        weight = np.zeros(self.shape, np.float32)
        ramp = np.ones((1,) * 0, np.float32)
        for side in self.tile:
            place = np.arange(side) + 0.5
            ramp = np.multiply.outer(ramp, np.minimum(place, side - place).clip(max=OVERLAP * side))
        for box, values in zip(boxes, tiles, strict=True):
            total[(..., *box)] += ramp * values
            weight[box] += ramp
        return total / weight

    def _boxes(self) -> list[tuple[Any, ...]]:
        firsts = [_firsts(count, side) for count, side in zip(self.shape, self.tile, strict=True)]
        return [
            tuple(slice(first, first + side) for first, side in zip(corner, self.tile, strict=True))
            for corner in itertools.product(*firsts)
        ]

    def _centres(self) -> list[Float64[np.ndarray, " voxel"]]:
        """Of the canvas's voxels, as indices of the scan's."""
        return [
            centre + (np.arange(count) - (count - 1) / 2) * step
            for centre, count, step in zip(self.centre, self.shape, self.step, strict=True)
        ]


def _firsts(count: int, side: int) -> list[int]:
    """Where tiles begin: evenly spread, the first at the start and the last at the end."""
    if count == side:
        return [0]
    number = 1 + math.ceil((count - side) / (side * (1 - OVERLAP)))
    return [round(first) for first in np.linspace(0, count - side, number)]


def _along(
    weights: sparse.csr_array, voxels: Float32[np.ndarray, "*before"], axis: int
) -> Float32[np.ndarray, "*after"]:
    """A sparse matrix applied along one axis."""
    moved = np.moveaxis(voxels, axis, 0)
    flat = weights @ np.ascontiguousarray(moved).reshape(len(moved), -1)
    return np.ascontiguousarray(np.moveaxis(flat.reshape(-1, *moved.shape[1:]), 0, axis), dtype=np.float32)
