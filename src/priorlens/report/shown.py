"""What there is to see of a case: image, map, regions, truth and reconstruction, read back from a results folder."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Bool, Float32, Float64, Integer

from priorlens.errors import InputError
from priorlens.layers import IMAGES, SEGMENTATIONS, TRUTH
from priorlens.report.facts import part
from priorlens.report.findings import Case, Findings
from priorlens.report.layer import Layer, read_layer
from priorlens.tables import read_table
from priorlens.volumes.volume import GRID_TOLERANCE, Layout, corner_shift, spacing_of

MAPS, RECONSTRUCTIONS, SLICES = "maps", "reconstructions", "slices.csv"
_SUFFIXES = {2: (".png", ".npy"), 3: (".nii.gz", ".nii.gz")}
"""By the number of dimensions: of images, truth and segmentations; of maps."""

_PLANES = ("axial", "coronal", "sagittal", "acquired")


@dataclass(frozen=True)
class LayerFiles:
    """Where the layers of a case lie; None where there is no such layer. dimensions: 2 of images, 3 of scans."""

    dimensions: int
    image: Path
    anomaly_map: Path
    segmentation: Path | None
    truth: Path | None
    reconstruction: Path | None


@dataclass(frozen=True)
class Shown:
    """All layers of a case, on one grid; None where there is no such layer.

    image: of images from 0 to 255, as it is shown; of scans in own units. segmentation: the number of the region at
    each place, 0 elsewhere. reconstruction: in own units; that of a measurement from a file may be of another size.
    affine, placed: as of `Layer`.
    """

    image: Float32[np.ndarray, "channel *space"]
    anomaly_map: Float32[np.ndarray, "*space"]
    segmentation: Integer[np.ndarray, "*space"] | None = None
    truth: Bool[np.ndarray, "*space"] | None = None
    reconstruction: Float32[np.ndarray, "colour row column"] | None = None
    affine: Float64[np.ndarray, "4 4"] | None = None
    placed: bool = False

    @cached_property
    def spacing(self) -> Float64[np.ndarray, "3"] | None:
        """Millimetres from a voxel to the next along i, j, k; None of images, whose pixels are of unknown size."""
        return None if self.affine is None else spacing_of(self.affine)


@dataclass(frozen=True)
class Slices:
    """The slices of a scan that were looked at, as their table has them: index along the scan's own axis, height in mm,
    anomaly."""

    index: tuple[int, ...]
    height_mm: tuple[float, ...]
    anomaly: tuple[float, ...]

    @property
    def highest(self) -> int:
        """The index of the one that scores highest."""
        return self.index[int(np.argmax(self.anomaly))]


def layer_files(results: Path, case: Case) -> LayerFiles:
    """What is there of a case. Raises InputError: it was not scored, or without pictures, or regions are missing."""
    if case.error:
        raise InputError(f"{results}: case {case.number} could not be scored, scores.csv says why; choose another")
    _require_inside(results, case)

    def there(folder: str, suffix: str) -> Path | None:
        path = results / folder / f"{case.stem}{suffix}"
        if not os.path.isfile(path):  # which, unlike that of a path, takes no offence at overlong names
            return None
        if not path.resolve().is_relative_to(results.resolve()):
            raise InputError(f"{path}: is a link that leads out of {results}; copy the file there")
        return path

    for dimensions, (suffix, map_suffix) in _SUFFIXES.items():
        image, anomaly_map = there(IMAGES, suffix), there(MAPS, map_suffix)
        if image is None or anomaly_map is None:
            continue
        segmentation = there(SEGMENTATIONS, suffix)
        if case.regions and segmentation is None:
            path = results / SEGMENTATIONS / f"{case.stem}{suffix}"
            raise InputError(f"{path}: is missing, though regions.csv has regions of it; score again")
        reconstruction = there(RECONSTRUCTIONS, ".npy")
        return LayerFiles(dimensions, image, anomaly_map, segmentation, there(TRUTH, suffix), reconstruction)
    raise _no_image(results, case)


def read_shown(results: Path, case: Case) -> Shown:
    """Read all layers of a case. Raises InputError as `layer_files` and `read_layer`, or: they are of several sizes or
    lie at several places."""
    files = layer_files(results, case)
    image = read_layer(files.image)

    def read(path: Path) -> np.ndarray:
        """A layer of one channel on the image's grid."""
        layer = read_layer(path)
        _require_same(path, layer, files.image, image)
        return layer.values[0]

    return Shown(
        image=image.values,
        anomaly_map=read(files.anomaly_map),
        segmentation=None if files.segmentation is None else read(files.segmentation).astype(np.int32),
        truth=None if files.truth is None else read(files.truth) > 0,
        reconstruction=None if files.reconstruction is None else read_layer(files.reconstruction).values,
        affine=image.affine,
        placed=image.placed,
    )


def read_slices(results: Path) -> dict[str, Slices]:
    """Of every scan by its `Case.stem`; empty where images were scored. Raises InputError."""
    path = results / SLICES
    if not path.is_file():
        return {}
    rows: dict[str, list[tuple[int, float, float]]] = {}
    for line in read_table(path, ("name", "slice", "height_mm", "anomaly"), file_names=True).lines:
        index, height, anomaly = (line.number(column) for column in ("slice", "height_mm", "anomaly"))
        if not (index >= 0 and index.is_integer() and math.isfinite(anomaly)):
            raise InputError(f"{line.where}: is no slice with its anomaly; score again")
        rows.setdefault(line.cells["name"], []).append((int(index), height, anomaly))
    return {name: Slices(*zip(*found, strict=True)) for name, found in rows.items()}


def layout_of(findings: Findings, affine: Float64[np.ndarray, "4 4"]) -> Layout:
    """A scan as slices of the plane that its model looks at, each as key pictures show it; axial if it is not told.

    `Layout.axes[0]` is the axis that `Slices.index` runs along.
    """
    plane = part(findings.model, "scans").get("plane")
    return Layout.of(affine, plane if plane in _PLANES else "axial")


def _require_inside(results: Path, case: Case) -> None:
    """A table may have been tampered with."""
    parts = PurePosixPath(case.stem).parts
    if PurePosixPath(case.stem).is_absolute() or ".." in parts or "\0" in case.stem:
        raise InputError(f"{results}: the name of case {case.number} leads out of this folder; score again")


def _no_image(results: Path, case: Case) -> InputError:
    without = f"{results / IMAGES}: holds no image of case {case.number}"
    return InputError(f"{without}, or {MAPS} no map; score again without --no-overlays")


def _require_same(path: Path, layer: Layer, image_path: Path, image: Layer) -> None:
    """One channel, on the grid of the image."""
    shape, own = image.values.shape[1:], layer.values.shape
    if own != (1, *shape):
        found, wanted = ("x".join(map(str, one)) for one in (own[1:] if own[0] == 1 else own, shape))
        raise InputError(f"{path}: has the size {found} but {image_path} has {wanted}; score again")
    if image.affine is None or layer.affine is None:
        return
    shift = corner_shift(layer.affine, image.affine, shape)
    if not shift <= GRID_TOLERANCE:
        raise InputError(f"{path}: lies {shift:.3g} mm away from {image_path}; score again")
