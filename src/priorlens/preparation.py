"""How images become the model's input, and maps the images' own again: colour, intensity and grid in one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mode as mode_of
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from priorlens.datasets import MIN_HEALTHY
from priorlens.errors import InputError
from priorlens.images import MIN_SIDE, Image
from priorlens.normalise import Grid, Intensity

SMALLEST, LARGEST, MULTIPLE = 192, 256, 32
"""For features: ends of the size chosen from the data, and what every size is a multiple of, the deepest stride."""


@dataclass(frozen=True)
class Sizes:
    """Sizes that a model can have: ends of those chosen from the data, and what each is a multiple of."""

    smallest: int
    largest: int
    multiple: int

    def choose(self, longest: float) -> int:
        """For images of this median longer side."""
        return int(np.clip(round(longest / self.multiple) * self.multiple, self.smallest, self.largest))


FOR_FEATURES = Sizes(SMALLEST, LARGEST, MULTIPLE)

_COLOUR = {1: "grey", 3: "colour"}


@dataclass(frozen=True)
class Preparation:
    """Images of `channels` channels, their intensities to about [0, 1], on a square of `size` x `size`."""

    channels: int
    size: int
    intensity: Intensity

    @classmethod
    def fit(
        cls,
        images: Sequence[Image],
        size: int | None,
        mode: Literal["range", "percentile"] = "range",
        sizes: Sizes | None = None,
    ) -> Preparation:
        """Learn it from healthy images; `size` None is chosen from theirs, among `sizes` (None: those for features).

        Raises:
            InputError: colour among grey images or the reverse, or several bit depths.
        """
        channels = mode_of(len(image.pixels) for image in images)
        for image in images:
            _require_channels(image, channels, "most other images are")
        longest = float(np.median([max(image.pixels.shape[1:]) for image in images]))
        sizes = sizes or FOR_FEATURES
        chosen = max(2, round((size or sizes.choose(longest)) / sizes.multiple)) * sizes.multiple
        return cls(channels, chosen, Intensity.fit(images, mode))

    @classmethod
    def restored(cls, config: Mapping[str, Any]) -> Preparation:
        """From its `dataclasses.asdict`. Raises KeyError, TypeError or ValueError for anything else."""
        made = cls(**{**config, "intensity": Intensity(**config["intensity"])})
        whole = isinstance(made.channels, int) and isinstance(made.size, int)
        if not whole or not 0 < made.channels < 2**8 or not 0 < made.size < 2**16:
            raise ValueError("no image is prepared so")
        if made.intensity.mode not in ("range", "percentile") or not made.intensity.low < made.intensity.high:
            raise ValueError("no image is prepared so")
        return made

    def to_model(self, images: Sequence[Image]) -> Float[Tensor, "image channel size size"]:
        """What the model sees. Raises InputError for an image of other colour or bit depth than it was fitted on."""
        prepared = []
        for image in images:
            _require_channels(image, self.channels, "this model was trained on images that are")
            self.intensity.require_depth(image)
            prepared.append(self._grid(image).to_model(self.intensity.apply(image.pixels)))
        return torch.from_numpy(np.stack(prepared))

    def from_model(
        self, anomaly_map: Float32[np.ndarray, "{self.size} {self.size}"], image: Image
    ) -> Float32[np.ndarray, "height width"]:
        """A map on the model's grid, on the image's own."""
        return self._grid(image).from_model(anomaly_map)

    def image_from_model(
        self, x: Float32[np.ndarray, "channel {self.size} {self.size}"], image: Image
    ) -> Float32[np.ndarray, "channel height width"]:
        """What the model makes of an image, in that image's own intensities and on its own grid."""
        grid, applied = self._grid(image), self.intensity.of(image.pixels)
        return np.stack([applied.inverse(grid.from_model(channel)) for channel in x])

    def _grid(self, image: Image) -> Grid:
        _, height, width = image.pixels.shape
        return Grid(height, width, self.size)


def as_image(image: Image | np.ndarray, index: int) -> Image:
    """An array of height x width, or with 1 or 3 channels first, as an image of unknown full scale."""
    if isinstance(image, Image):
        return image
    pixels = np.asarray(image, dtype=np.float32)
    pixels = pixels[None] if pixels.ndim == 2 else pixels
    name = Path(f"image {index}")
    if pixels.ndim != 3 or len(pixels) not in _COLOUR:
        raise InputError(f"{name}: has shape {np.shape(image)}; give height x width, or 1 or 3 channels first")
    if min(pixels.shape[1:]) < MIN_SIDE:
        raise InputError(f"{name}: has shape {np.shape(image)}; give at least {MIN_SIDE} pixels a side")
    if not np.isfinite(pixels).all() or np.ptp(pixels) == 0:
        raise InputError(f"{name}: is constant or holds nan or infinite pixels; leave it out")
    return Image(pixels, name, float("nan"))


def healthy_images(images: Sequence[Image | np.ndarray], groups: Sequence[str] | None) -> list[Image]:
    """Images to learn from. Raises InputError if they are too few, or not as many as `groups`."""
    named = [as_image(image, index) for index, image in enumerate(images)]
    if len(named) < MIN_HEALTHY:
        raise InputError(f"there are {len(named)} healthy images; at least {MIN_HEALTHY} are needed to learn from")
    if groups is not None and len(groups) != len(named):
        raise InputError(f"there are {len(groups)} groups for {len(named)} images; name the patient of each image")
    return named


def _require_channels(image: Image, channels: int, others: str) -> None:
    if len(image.pixels) != channels:
        found, wanted = (_COLOUR.get(count, f"of {count} channels") for count in (len(image.pixels), channels))
        raise InputError(f"{image.path}: is {found}, {others} {wanted}; convert it to {wanted} or leave it out")
