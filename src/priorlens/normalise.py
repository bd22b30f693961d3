"""An image's own intensities and pixel grid to the model's, and back."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, Float64
from scipy import sparse

from priorlens.errors import InputError
from priorlens.images import Image

CLIP = (-0.5, 1.5)
"""Normalised intensities are about [0, 1]; only what lies beyond these is cut off."""

_PIXELS_PER_IMAGE = 4096  # of each image, drawn for the percentiles over all images


@dataclass(frozen=True)
class AppliedIntensity:
    """The affine map of one image: `low` becomes 0, `high` becomes 1."""

    low: float
    high: float

    def apply(self, pixels: Float32[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape"]:
        """Raw intensities to about [0, 1], cut off at `CLIP`."""
        scaled = (pixels.astype(np.float64) - self.low) / (self.high - self.low)
        return scaled.clip(*CLIP).astype(np.float32)

    def inverse(self, scaled: Float32[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape"]:
        """Back to raw intensities; what `apply` cut off stays at the cut."""
        return (scaled.astype(np.float64) * (self.high - self.low) + self.low).astype(np.float32)


@dataclass(frozen=True)
class Intensity:
    """How raw intensities become about [0, 1].

    "range": one affine map for every image, `low` and `high` in raw intensities; right where these mean the same in
    all images, as in CT. "percentile": a map of each image's own, from its `low`-th and `high`-th percentile; right
    where the scale is arbitrary, as in MRI.
    """

    mode: Literal["range", "percentile"]
    low: float
    high: float

    @classmethod
    def fit(cls, images: Iterable[Image], mode: Literal["range", "percentile"] = "range") -> Intensity:
        """Learn the map from healthy images.

        "range" takes 0 to full scale where all images know theirs, else the 0.1th and 99.9th percentile over all
        images (an equal share of pixels drawn from each). "percentile" is always 0.5 and 99.5.

        Raises:
            InputError: no images, images of different bit depth in mode "range", or all of one same constant.
        """
        if mode == "percentile":
            return cls(mode, 0.5, 99.5)
        rng = np.random.default_rng(0)
        reference: Image | None = None
        all_known = True
        samples: list[np.ndarray] = []
        for image in images:
            if math.isfinite(image.full_scale):
                reference = reference or image
                _require_same_depth(reference, image)
            else:
                all_known = False
            flat = image.pixels.reshape(-1)
            samples.append(flat if flat.size <= _PIXELS_PER_IMAGE else rng.choice(flat, _PIXELS_PER_IMAGE))
        if not samples:
            raise InputError("there are no healthy images to learn intensities from; name a folder that holds some")
        if reference is not None and all_known:
            return cls(mode, 0.0, reference.full_scale)
        return cls(mode, *_percentiles(np.concatenate(samples), 0.1, 99.9))

    def of(self, pixels: Float32[np.ndarray, "channel height width"]) -> AppliedIntensity:
        """The map of the image with these raw `pixels`; keep it for the way back."""
        if self.mode == "range":
            return AppliedIntensity(self.low, self.high)
        return AppliedIntensity(*_percentiles(pixels, self.low, self.high))

    def apply(self, pixels: Float32[np.ndarray, "channel height width"]) -> Float32[np.ndarray, "channel height width"]:
        """Raw intensities to about [0, 1], cut off at `CLIP`."""
        return self.of(pixels).apply(pixels)

    def require_depth(self, image: Image) -> None:
        """Refuse, by InputError, an image of another bit depth than a "range" that was learned from integer images."""
        if self.mode == "range" and self.low == 0 and self.high in (255, 65535):
            _require_same_depth(Image(image.pixels, image.path, self.high), image)


def _percentiles(pixels: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """Two percentiles; smallest and largest where they coincide, as in an image that is mostly background."""
    below, above = (float(value) for value in np.percentile(pixels, (low, high)))
    if above <= below:
        below, above = float(pixels.min()), float(pixels.max())
    if above <= below:
        raise InputError(f"every pixel has the intensity {below:g}; leave constant images out")
    return below, above


def _require_same_depth(reference: Image, image: Image) -> None:
    if math.isfinite(image.full_scale) and image.full_scale != reference.full_scale:
        raise InputError(
            f"{image.path}: holds intensities up to {image.full_scale:.0f} where the other images hold up to "
            f'{reference.full_scale:.0f}; convert all to one bit depth, or use intensity mode "percentile"'
        )


@dataclass(frozen=True)
class Grid:
    """An image's own pixels, `height` x `width`, laid onto the model's square of `size` x `size`.

    The image fills the square along its longer side, keeps its aspect, and sits exactly in the centre. Pixel i covers
    [i, i + 1) and has its centre at i + 1/2 on both grids, so a place keeps its place within a fraction of a pixel.
    """

    height: int
    width: int
    size: int

    def to_model(
        self, pixels: Float32[np.ndarray, "channel {self.height} {self.width}"]
    ) -> Float32[np.ndarray, "channel {self.size} {self.size}"]:
        """Resample linearly, anti-aliased when shrinking; around the image, the median of its border."""
        rows = _resampling(self.height, self.size, self._scale)
        columns = _resampling(self.width, self.size, self._scale)
        inside = self.content()
        square = np.empty((len(pixels), self.size, self.size), dtype=np.float32)
        for channel, resampled in zip(pixels, square, strict=True):
            border = np.concatenate((channel[0], channel[-1], channel[1:-1, 0], channel[1:-1, -1]))
            resampled[...] = np.where(inside, (columns @ (rows @ channel).T).T, np.median(border))
        return square

    def from_model(
        self, map: Float32[np.ndarray, "{self.size} {self.size}"]
    ) -> Float32[np.ndarray, "{self.height} {self.width}"]:
        """Resample a map of the model's linearly onto the image's own pixels; the padding leaves no trace in it."""
        top, left = self._padding(self.height), self._padding(self.width)
        content = map[top : self.size - top, left : self.size - left]
        rows = _resampling(content.shape[0], self.height, 1 / self._scale)
        columns = _resampling(content.shape[1], self.width, 1 / self._scale)
        return np.ascontiguousarray((columns @ (rows @ content).T).T, dtype=np.float32)

    def content(self) -> Bool[np.ndarray, "{self.size} {self.size}"]:
        """True where a pixel of the model's square has its centre in the image, False in the padding."""
        inside = np.zeros((self.size, self.size), dtype=bool)
        top, left = self._padding(self.height), self._padding(self.width)
        inside[top : self.size - top, left : self.size - left] = True
        return inside

    @property
    def _scale(self) -> float:
        return self.size / max(self.height, self.width)

    def _padding(self, side: int) -> int:
        """Model pixels before the image along one side, as many as after it; at least one or two remain for it."""
        margin = (self.size - side * self._scale) / 2
        return min(math.ceil(margin - 0.5 - 1e-6), (self.size - 1) // 2)


@lru_cache(maxsize=64)
def _resampling(source: int, target: int, scale: float) -> sparse.csr_array:
    """Weights that take `source` pixels to `target` about the same centre, `scale` target pixels to one of source."""
    centres = (np.arange(target) + 0.5 - target / 2) / scale + source / 2 - 0.5
    return linear_weights(source, centres, scale)


def linear_weights(source: int, centres: Float64[np.ndarray, " target"], scale: float) -> sparse.csr_array:
    """Weights that take `source` pixels to those whose centres lie at these indices, `scale` of them to one source.

    Linear interpolation; when shrinking, its triangle is widened by 1/scale, which is the anti-aliasing. Only pixels of
    the source count, and a triangle sampled at a few of them leans to one side: the weights are tilted back, so that a
    linear ramp is reproduced exactly, at the edges too. Beyond the edges their pixels are repeated.
    """
    support = max(1.0, 1 / scale)
    centre = centres.clip(0, source - 1)
    taps = np.floor(centre - support)[:, None].astype(int) + np.arange(2 * math.ceil(support) + 2)
    distance = taps - centre[:, None]
    weights = (1 - np.abs(distance) / support).clip(min=0) * ((taps >= 0) & (taps < source))
    first, second = (np.sum(weights * distance**power, axis=1, keepdims=True) for power in (1, 2))
    weights *= 1 - distance * first / np.maximum(second, 1e-9)  # now the taps' mean place is `centre`
    weights /= weights.sum(axis=1, keepdims=True)
    rows = np.repeat(np.arange(len(centre)), taps.shape[1])
    entries = (weights.ravel().astype(np.float32), (rows, taps.clip(0, source - 1).ravel()))
    return sparse.csr_array(entries, shape=(len(centre), source))
