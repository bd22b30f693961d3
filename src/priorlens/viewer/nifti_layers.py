"""Layers of a case as NIfTI, the one format that the page reads: scans as they lie there, images as a single slice."""

from __future__ import annotations

import gzip
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float32, Float64

from priorlens.pictures import TOP_SHARE, displayable
from priorlens.report.facts import number, part
from priorlens.report.shown import layout_of, read_layer
from priorlens.viewer.shelf import Shelved
from priorlens.volumes.damage import reading
from priorlens.volumes.nifti_header import affine_of, read_header, shape_of
from priorlens.volumes.volume import require_affine

SCAN = ".nii.gz"

_PIXELS = (1e-6, 1e6)
"""Millimetres between which the side of a pixel is; any other is that of a damaged file."""


@dataclass(frozen=True)
class Grid:
    """Where the layers of a case lie. affine: from voxel to the millimetres of the page; of images whose pixels are of
    unknown size, to pixels."""

    dimensions: Literal[2, 3]
    shape: tuple[int, int, int]
    affine: Float64[np.ndarray, "4 4"]
    pixel_size: float = 1.0

    def position(self, centre: Mapping[str, float]) -> tuple[float, float, float] | None:
        """A region's centre as its table has it, where the page has it; None where the table does not tell."""
        if self.dimensions == 3:
            x, y, z = (centre.get(axis, math.nan) for axis in "xyz")
        elif "column" in centre:
            x, y, z = (*self._of_pixel(centre["column"], centre.get("row", math.nan)), 0.0)
        else:
            x, y = (centre.get(axis, math.nan) / self.pixel_size for axis in "xy")
            x, y, z = (*self._of_pixel(x, y), 0.0)
        return (x, y, z) if math.isfinite(x + y + z) else None

    def _of_pixel(self, column: float, row: float) -> tuple[float, float]:
        (to_right, _, _, left), (_, down, _, top) = self.affine[:2].tolist()
        return left + to_right * column, top + down * row


def grid_of(one: Shelved) -> Grid | None:
    """None where there is no layer. Raises InputError."""
    path = one.layer("image") or one.layer("map")
    if path is None:
        return None
    if path.name.endswith(SCAN):
        shape, affine = _place_of(path)
        return Grid(3, shape, affine)
    _, rows, columns = read_layer(path).values.shape
    told = number(one.book.findings.verdicts.get("pixel_size"))
    size = told if _PIXELS[0] < told < _PIXELS[1] else 1.0
    return Grid(2, (columns, rows, 1), _upright(rows, size), size)


def layer_file(one: Shelved, name: str) -> bytes | None:
    """A layer as the content of a .nii.gz; None where there is none. Raises InputError."""
    path = one.layer(name)
    if path is None:
        return None
    if path.name.endswith(SCAN):
        with reading(path):
            return path.read_bytes()
    grid = grid_of(one)
    affine = grid.affine if grid else np.eye(4)
    values = read_layer(path).values
    if len(values) == 3 and name == "reconstruction":  # colours in own units
        values = np.moveaxis(displayable(values), 2, 0).astype(np.float32)
    return _as_nifti(values, affine)


def channels_of(one: Shelved, name: str) -> list[str]:
    """What the channels of a layer are called, in their order; numbers where that is not known."""
    path = one.layer(name)
    if name != "image" or path is None or not path.name.endswith(SCAN):
        return [""]
    with reading(path), gzip.open(path, "rb") as file:
        dim = [int(length) for length in read_header(file, path)["dim"]]
    count = max(1, dim[4]) if dim[0] > 3 else 1
    told = part(one.book.findings.model, "scans").get("channels") or []
    names = [str(channel) for channel in told] if isinstance(told, list) else []
    return names if len(names) == count else [str(index + 1) for index in range(count)]


def top_of(path: Path) -> float:
    """What the highest fiftieth of a map exceeds, for want of a threshold. Raises InputError."""
    return float(np.quantile(read_layer(path).values, 1 - TOP_SHARE))


def slice_axis(one: Shelved, grid: Grid) -> int:
    """Along which the model's slices follow one another."""
    return layout_of(one.book.findings, grid.affine).axes[0]


def _place_of(path: Path) -> tuple[tuple[int, int, int], Float64[np.ndarray, "4 4"]]:
    with reading(path), gzip.open(path, "rb") as file:
        header = read_header(file, path)
    header["dim"][0] = min(int(header["dim"][0]), 3)  # channels have no place
    shape = shape_of(header, path)
    affine = affine_of(header, shape, path)
    require_affine(affine, path)
    return shape, affine


def _upright(rows: int, size: float) -> Float64[np.ndarray, "4 4"]:
    """Columns go to the right, rows down, as in the file."""
    affine = np.diag([size, -size, size, 1.0])
    affine[1, 3] = (rows - 1) * size
    return affine


def _as_nifti(values: Float32[np.ndarray, "channel row column"], affine: Float64[np.ndarray, "4 4"]) -> bytes:
    """A single slice; three channels of 8 bits are red, green and blue."""
    from nibabel import Nifti1Image

    planes = np.swapaxes(values, 1, 2)
    if len(planes) == 3:
        colours = np.clip(np.rint(planes), 0, 255).astype(np.uint8)
        stored = np.zeros(planes.shape[1:], [("R", "u1"), ("G", "u1"), ("B", "u1")])
        for name, plane in zip("RGB", colours, strict=True):
            stored[name] = plane
    else:
        stored = planes[0]
    image = Nifti1Image(stored[..., None], affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    return gzip.compress(image.to_bytes(), compresslevel=1, mtime=0)
