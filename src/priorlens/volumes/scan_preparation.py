"""How scans become what a model sees, and maps the scans' own again: units, intensities, plane, spacing and tiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Bool, Float32, Float64

from priorlens.errors import InputError
from priorlens.images import Image
from priorlens.normalise import CLIP
from priorlens.volumes.canvas import Canvas
from priorlens.volumes.scan_body import box_of, scan_body
from priorlens.volumes.volume import Layout, Plane, Units, Volume, closest_axes, spacing_of
from priorlens.volumes.voxel_intensity import Curve, VoxelIntensity, inside

Dimensions = Literal["2d", "2.5d", "3d"]

LEAST_BODY = 0.02
"""Slices in which the body fills a smaller share of the model's square are not looked at."""

_LEAST_IN_CUBE = 0.2  # share of a cube that the body fills, to be learned from


@dataclass(frozen=True)
class ScanPreparation:
    """Of every scan that a model is fitted to or looks at.

    channels: names of the scans that make one, in their order. units: of their voxels. intensities: one a channel.
    plane: of the slices. dimensions: 2d: a slice by itself; 2.5d: with the slices `neighbours` mm before and after it
    as further channels; 3d: blocks of the whole scan. spacing: of the model's pixels, mm. size: of its squares, or of
    its cubes, in pixels.
    """

    channels: tuple[str, ...]
    units: Units
    intensities: tuple[VoxelIntensity, ...]
    plane: Plane
    dimensions: Dimensions
    spacing: float
    size: int
    neighbours: float

    @classmethod
    def restored(cls, config: Mapping[str, Any]) -> ScanPreparation:
        """From its `dataclasses.asdict`, by way of JSON. Raises KeyError, TypeError or ValueError for anything else."""
        intensities = (
            VoxelIntensity(**{**found, "standard": tuple(found["standard"])}) for found in config["intensities"]
        )
        made = cls(**{**config, "channels": tuple(config["channels"]), "intensities": tuple(intensities)})
        words = ((made.units, Units), (made.plane, Plane), (made.dimensions, Dimensions))
        lengths = (made.spacing, made.neighbours + 1, made.size)
        if any(word not in get_args(known) for word, known in words) or not all(0 < one < 2**16 for one in lengths):
            raise ValueError("no scan is prepared so")
        if not isinstance(made.size, int) or len(made.channels) != len(made.intensities):
            raise ValueError("no scan is prepared so")
        return made

    @property
    def background(self) -> float:
        """Intensity beyond the scan: that of air."""
        return CLIP[0] if self.units == "HU" else 0.0

    def prepare(self, volume: Volume) -> Prepared:
        """What the model sees of a scan.

        Raises:
            InputError: other channels or units than those of the scans it was fitted to, or nothing to see.
        """
        self.require_kind(volume)
        body = scan_body(volume)
        layout = Layout.of(volume.affine, self.plane)
        stack = np.empty(volume.voxels.shape, np.float32)
        for channel, intensity in enumerate(self.intensities):
            curve = _curve(volume, intensity, body, channel)
            for plane, scaled in zip(volume.voxels[channel], stack[channel], strict=True):  # memory stays bounded
                scaled[...] = curve.apply(plane)
        if volume.units == "arbitrary":
            stack = np.maximum(stack, 0, out=stack)  # darker than background is nothing
            stack *= body
        affine = layout.affine(volume.affine, volume.shape)
        return Prepared(self, volume, layout, affine, layout.to_stack(stack), layout.to_stack(body))

    def require_kind(self, volume: Volume) -> None:
        """Refuse, by InputError, a scan of other units or channels than the model's."""
        if volume.units != self.units:
            words = {"HU": "Hounsfield units (CT)", "arbitrary": "no Hounsfield units (MRI?)"}
            raise InputError(
                f"{volume.path}: has {words[volume.units]}, this model's scans have {words[self.units]}; "
                "give scans of the model's modality, or name it with --modality"
            )
        names = [(own.lower(), given.lower()) for own, given in zip(self.channels, volume.channels, strict=False)]
        if any(own and given and own != given for own, given in names):
            raise InputError(
                f"{volume.path}: has the channels {', '.join(volume.channels)}, this model takes "
                f"{', '.join(self.channels)} in this order; name the same with --channels"
            )
        if len(volume.channels) != len(self.channels):
            raise InputError(
                f"{volume.path}: has {len(volume.channels)} channels, this model takes {len(self.channels)} "
                f"({', '.join(name or 'unnamed' for name in self.channels)}); give the same"
            )


@dataclass(frozen=True)
class Prepared:
    """A scan as a model sees it: a stack of slices in about [0, 1], and the way back.

    affine: of the stack. body: where the patient is in it.
    """

    preparation: ScanPreparation
    volume: Volume
    layout: Layout
    affine: Float64[np.ndarray, "4 4"]
    stack: Float32[np.ndarray, "channel slice row column"]
    body: Bool[np.ndarray, "slice row column"]

    @property
    def heights(self) -> Float64[np.ndarray, " slice"]:
        """Millimetres of each slice's centre along the scanner axis that the plane is named after."""
        middle = [(side - 1) / 2 for side in self.body.shape[1:]]
        axis = closest_axes(self.volume.affine).index(self.layout.axes[0])
        return self.affine[axis, 0] * np.arange(len(self.body)) + self.affine[axis, 1:] @ [*middle, 1]

    @cached_property
    def seen(self) -> list[Image]:
        """What a model of slices sees of the scan: of all slices that are looked at."""
        return self.images(self.looked_at())

    def looked_at(self) -> list[int]:
        """Slices that hold enough of the body."""
        pixel = float(np.prod(spacing_of(self.affine)[1:]))
        least = LEAST_BODY * (self.preparation.size * self.preparation.spacing) ** 2
        return [int(index) for index in np.flatnonzero(self.body.sum((1, 2)) * pixel >= least)]

    def own_index(self, index: int) -> int:
        """Of a slice of the stack, along the scan's own axis."""
        return len(self.body) - 1 - index if self.layout.flipped[0] else index

    @cached_property
    def canvas(self) -> Canvas:
        """Of slices; or, for a model in 3d, of the whole stack."""
        first = 0 if self.preparation.dimensions == "3d" else 1
        step = [self.preparation.spacing / own for own in spacing_of(self.affine)[first:]]
        box = box_of(self.body)[first:]
        return Canvas.over(self.body.shape[first:], box, step, [self.preparation.size] * len(box))

    def images(self, slices: Sequence[int]) -> list[Image]:
        """What a model of slices sees of each of these: its tiles, one slice after the other."""
        canvas = self.canvas
        return [
            Image(np.ascontiguousarray(tile), self.volume.path / f"slice {index}", 1.0)
            for index in slices
            for tile in canvas.tiles(canvas.to_canvas(self._channels(index), self.preparation.background))
        ]

    def cubes(self) -> list[Float32[np.ndarray, "channel size size size"]]:
        """What a model of whole scans sees: overlapping cubes."""
        canvas = self.canvas
        return canvas.tiles(canvas.to_canvas(self.stack, self.preparation.background))

    def without_lesions(self, lesions: Bool[np.ndarray, "i j k"] | None) -> list[int]:
        """Slices that hold enough of the body and nothing of these lesions, if there are any."""
        if lesions is None:
            return self.looked_at()
        found = np.asarray(self.layout.to_stack(lesions).any((1, 2)))
        return [index for index in self.looked_at() if not found[index]]

    def healthy_cubes(
        self, lesions: Bool[np.ndarray, "i j k"] | None, count: int, rng: np.random.Generator
    ) -> list[Float32[np.ndarray, "channel size size size"]]:
        """Cubes from random places of the body, at most so many, that hold nothing of these lesions."""
        canvas, side = self.canvas, self.preparation.size
        whole = canvas.to_canvas(self.stack, self.preparation.background)
        body = canvas.to_canvas(self.body.astype(np.float32)) > 0.5
        hit = np.zeros(body.shape, bool)
        if lesions is not None:
            hit = canvas.to_canvas(self.layout.to_stack(lesions).astype(np.float32)) > 0
        found: list[Float32[np.ndarray, "channel size size size"]] = []
        for _ in range(20 * count):
            corner = [int(rng.integers(0, length - side + 1)) for length in body.shape]
            box = tuple(slice(start, start + side) for start in corner)
            if not hit[box].any() and body[box].mean() >= _LEAST_IN_CUBE:
                found.append(np.ascontiguousarray(whole[(slice(None), *box)]))
            if len(found) == count:
                break
        return found

    def planes(self, lesions: Bool[np.ndarray, "i j k"] | None = None) -> list[int]:
        """Of what a model of voxels sees, those with nothing of these lesions: slices that are looked at; of cubes, the
        canvas's planes."""
        if self.preparation.dimensions != "3d":
            return self.without_lesions(lesions)
        hit = np.zeros(self.canvas.shape, bool)
        if lesions is not None:
            hit = self.canvas.to_canvas(self.layout.to_stack(lesions).astype(np.float32)) > 0
        return [int(index) for index in np.flatnonzero(~hit.any((1, 2)))]

    def pieces(self, planes: Sequence[int]) -> dict[int, Float32[np.ndarray, "channel *size"]]:
        """What a model of voxels sees of these planes, numbered alike whichever they are: their tiles; or all cubes."""
        if self.preparation.dimensions == "3d":
            return dict(enumerate(self.cubes()))
        images = self.seen if list(planes) == self.looked_at() else self.images(planes)
        each = len(images) // max(1, len(planes))
        numbers = [index * each + tile for index in planes for tile in range(each)]
        return {number: image.pixels for number, image in zip(numbers, images, strict=True)}

    def stack_of(
        self, planes: Sequence[int], maps: Sequence[Float32[np.ndarray, "*any"]]
    ) -> Float32[np.ndarray, "plane *rest"]:
        """These planes of the canvas, from maps of all their pieces; axes before the pieces' own are kept."""
        canvas = self.canvas
        if self.preparation.dimensions == "3d":
            return np.moveaxis(canvas.blended(maps), -3, 0)[list(planes)]
        each = len(maps) // max(1, len(planes))
        blended = [canvas.blended(maps[place * each : (place + 1) * each]) for place in range(len(planes))]
        return np.stack(blended) if blended else np.zeros((0, *canvas.shape), np.float32)

    def body_of(self, planes: Sequence[int]) -> Bool[np.ndarray, "plane row column"]:
        """Where the patient is in these planes of the canvas."""
        body = self.body if self.preparation.dimensions == "3d" else self.body[list(planes)]
        inside = self.canvas.to_canvas(body.astype(np.float32)) > 0.5
        return inside[list(planes)] if self.preparation.dimensions == "3d" else inside

    def places(self, planes: Sequence[int]) -> Float64[np.ndarray, " plane"]:
        """Millimetres of these planes along the axis that they are stacked along, from the first of all."""
        apart = self.preparation.spacing if self.preparation.dimensions == "3d" else spacing_of(self.affine)[0]
        return np.asarray(planes, np.float64) * apart

    def map_of(
        self, planes: Sequence[int], stack: Float32[np.ndarray, "plane row column"], outside: float
    ) -> Float32[np.ndarray, "i j k"]:
        """The scan's own map, from these planes of the canvas; `outside` the body and planes that are not given."""
        canvas = self.canvas
        if self.preparation.dimensions == "3d":
            whole = np.full(canvas.shape, outside, np.float32)
            whole[list(planes)] = stack
            return self._outside(canvas.from_canvas(whole, outside), outside)
        found = np.full(self.body.shape, outside, np.float32)
        for index, plane in zip(planes, stack, strict=True):
            found[index] = canvas.from_canvas(plane, outside)
        return self._outside(found, outside)

    def _outside(self, stack: Float32[np.ndarray, "slice row column"], outside: float) -> Float32[np.ndarray, "i j k"]:
        return self.layout.from_stack(np.where(self.body, stack, np.float32(outside)))

    def _channels(self, index: int) -> Float32[np.ndarray, "channel row column"]:
        """Of one slice; with its neighbours, each channel's three side by side, the slice itself in the middle."""
        if self.preparation.dimensions != "2.5d":
            return self.stack[:, index]
        apart = self.preparation.neighbours / spacing_of(self.affine)[0]
        planes = [self._between(index + offset) for offset in (-apart, 0.0, apart)]
        return np.stack(planes, axis=1).reshape(-1, *self.body.shape[1:])

    def _between(self, index: float) -> Float32[np.ndarray, "channel row column"]:
        """The slice at a fractional index, linear between two; beyond the ends, the last one."""
        place = min(max(index, 0.0), len(self.body) - 1.0)
        lower = int(place)
        share = np.float32(place - lower)
        if share == 0:
            return self.stack[:, lower]
        return (1 - share) * self.stack[:, lower] + share * self.stack[:, lower + 1]


def _curve(volume: Volume, intensity: VoxelIntensity, body: Bool[np.ndarray, "i j k"], channel: int) -> Curve:
    """Of one channel. Raises InputError that names the scan."""
    try:
        return intensity.of(inside(volume.voxels[channel], body))
    except InputError as error:
        name = f" of {volume.channels[channel]}" if volume.channels[channel] else ""
        raise InputError(f"{volume.path}: {error}{name}; leave it out") from None
