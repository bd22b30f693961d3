"""Artefacts planted in healthy images, so that a detector can be chosen without ever seeing disease.

Each kind is one generic way for a place to be wrong (too bright, too smooth, pushed aside, belonging elsewhere, ...);
none imitates a disease. What a detector finds among them says which structure sizes and noise levels it is sensitive
to, and nothing about its figures on patients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32
from scipy.ndimage import binary_closing, gaussian_filter, map_coordinates

from priorlens.errors import InputError

RADIUS_SHARE = (0.03, 0.15)
"""Smallest and largest blob radius as a share of the image's shorter side (log-uniform)."""

OFFSET_SHARE = (0.1, 0.5)
"""Faintest and strongest offset as a share of the body's intensity range (log-uniform: faint ones tell more)."""

VISIBLE = 0.02
"""A pixel counts as changed beyond this share of the body's intensity range."""

INSIDE = 0.6
"""Least share of the mask that lies inside the body."""

LEAST_PIXELS = 4
ATTEMPTS = 200


@dataclass(frozen=True)
class Planted:
    """A healthy image with one artefact in it, where it was changed, and which kind it is (one of `KINDS`)."""

    pixels: Float32[np.ndarray, "height width"]
    mask: Bool[np.ndarray, "height width"]
    kind: str


@dataclass(frozen=True)
class Blob:
    """An irregular outline around `centre` (row, column).

    `depth` is the distance from the centre in units of the outline's radius in that direction: 0 at the centre, 1 on
    the outline. `weight` falls smoothly from 1 inside to 0 outside. `offset_rows` and `offset_columns` lead from the
    centre to each pixel.
    """

    centre: tuple[int, int]
    radius: float
    offset_rows: Float[np.ndarray, "height width"]
    offset_columns: Float[np.ndarray, "height width"]
    depth: Float[np.ndarray, "height width"]
    weight: Float[np.ndarray, "height width"]


def plant(
    pixels: Float32[np.ndarray, "height width"],
    body: Bool[np.ndarray, "height width"],
    rng: np.random.Generator,
    kind: str | None = None,
) -> Planted:
    """Plants one artefact of `kind` (by default any) in a copy of `pixels`; equal `rng` states give equal artefacts.

    `pixels` may have any scale: strengths are shares of the body's robust intensity range (percentiles 5 to 95), and
    the result stays between the image's own extremes, so that no value betrays the artefact by being out of scale. The
    centre and at least `INSIDE` of the mask lie inside `body`. The mask holds what changed by more than `VISIBLE`;
    where tissue is replaced or moved, pixels that happen to keep their value amid others that do not are taken in.

    Raises InputError where nothing can be planted: an empty body, a constant image, or an image in which that kind
    changes nothing or mostly what is outside a thin body. An unknown kind is a ValueError.
    """
    if kind is not None and kind not in KINDS:
        raise ValueError(f"unknown kind of artefact {kind!r}; known: {', '.join(KINDS)}")
    rows, columns = np.nonzero(body)
    if rows.size == 0:
        raise InputError("cannot plant an artefact: the body mask is empty; use an image that shows something")
    contrast = _robust_range(pixels, body)
    if contrast == 0.0:
        raise InputError("cannot plant an artefact: the image is constant; leave it out")
    low, high = float(pixels.min()), float(pixels.max())
    for _ in range(ATTEMPTS):
        chosen = kind if kind is not None else KINDS[int(rng.integers(len(KINDS)))]
        index = int(rng.integers(rows.size))
        largest = 0.5 * float(np.sqrt(rows.size / np.pi))  # half the radius of a disc as large as the body
        blob = _irregular_blob(pixels.shape, (int(rows[index]), int(columns[index])), largest, rng)
        changed = np.clip(_ARTEFACTS[chosen](pixels, body, blob, contrast, rng), low, high).astype(np.float32)
        mask = np.abs(changed - pixels) > VISIBLE * contrast
        if chosen in ("texture", "displacement", "transplant"):
            mask |= binary_closing(mask, structure=np.ones((3, 3), dtype=bool))
        if mask.sum() >= LEAST_PIXELS and body[mask].mean() >= INSIDE:
            return Planted(changed, mask, chosen)
    raise InputError(
        f"no place for a {kind or 'visible'} artefact: the image is too uniform, or its body too thin; leave it out"
    )


def _robust_range(pixels: Float32[np.ndarray, "height width"], body: Bool[np.ndarray, "height width"]) -> float:
    """Percentile 95 less percentile 5 of the body, or of the image where the body is flat."""
    for values in (pixels[body], pixels):
        low, high = np.percentile(values, (5.0, 95.0))
        if high > low:
            return float(high - low)
    return float(np.ptp(pixels))


def _log_uniform(limits: tuple[float, float], rng: np.random.Generator) -> float:
    return float(np.exp(rng.uniform(np.log(limits[0]), np.log(limits[1]))))


def _irregular_blob(shape: tuple[int, ...], centre: tuple[int, int], largest: float, rng: np.random.Generator) -> Blob:
    """A star-shaped outline: an ellipse whose radius is modulated by low harmonics of the angle."""
    radius = max(min(_log_uniform(RADIUS_SHARE, rng) * min(shape), largest), 1.5)
    offset_rows, offset_columns = np.meshgrid(
        np.arange(shape[0]) - float(centre[0]), np.arange(shape[1]) - float(centre[1]), indexing="ij"
    )
    distance = np.hypot(offset_rows, offset_columns)
    angle = np.arctan2(offset_rows, offset_columns)
    elongation = rng.uniform(1.0, 1.8)
    turned = angle - rng.uniform(0.0, np.pi)
    outline = radius / np.hypot(np.cos(turned) / np.sqrt(elongation), np.sin(turned) * np.sqrt(elongation))
    for harmonic in range(2, 6):
        phase = rng.uniform(0.0, 2.0 * np.pi)
        outline = outline * (1.0 + rng.normal(0.0, 0.2 / harmonic) * np.cos(harmonic * angle + phase))
    outline = np.maximum(outline, 0.3 * radius)
    softness = max(rng.uniform(0.1, 0.4) * radius, 0.5)
    weight = 1.0 / (1.0 + np.exp(np.clip(4.0 * (distance - outline) / softness, -50.0, 50.0)))
    return Blob(centre, radius, offset_rows, offset_columns, distance / outline, weight)


def _bright(
    pixels: Float32[np.ndarray, "height width"],
    body: Bool[np.ndarray, "height width"],
    blob: Blob,
    contrast: float,
    rng: np.random.Generator,
) -> Float[np.ndarray, "height width"]:
    """A soft offset of 10 to 50 % of the range, a little uneven; the tissue's own texture shows through."""
    return pixels + contrast * _log_uniform(OFFSET_SHARE, rng) * blob.weight * _uneven(blob, rng) * _faded(body)


def _dark(
    pixels: Float32[np.ndarray, "height width"],
    body: Bool[np.ndarray, "height width"],
    blob: Blob,
    contrast: float,
    rng: np.random.Generator,
) -> Float[np.ndarray, "height width"]:
    """As `_bright`, downwards."""
    return pixels - contrast * _log_uniform(OFFSET_SHARE, rng) * blob.weight * _uneven(blob, rng) * _faded(body)


def _faded(body: Bool[np.ndarray, "height width"]) -> Float[np.ndarray, "height width"]:
    """1 inside the body, falling to 0 within about a pixel outside: air stays air."""
    return gaussian_filter(body.astype(float), 0.7)


def _uneven(blob: Blob, rng: np.random.Generator) -> Float[np.ndarray, "height width"]:
    """A factor around 1 that varies over half the blob's radius."""
    return 1.0 + 0.15 * _smooth_noise(blob.weight.shape, 0.5 * blob.radius, rng)


def _smooth_noise(shape: tuple[int, ...], width: float, rng: np.random.Generator) -> Float[np.ndarray, "height width"]:
    """Gaussian noise of unit variance, correlated over `width` pixels."""
    noise = gaussian_filter(rng.standard_normal(shape), width, mode="wrap")
    return noise / max(float(noise.std()), 1e-12)


def _texture(
    pixels: Float32[np.ndarray, "height width"],
    body: Bool[np.ndarray, "height width"],
    blob: Blob,
    contrast: float,
    rng: np.random.Generator,
) -> Float[np.ndarray, "height width"]:
    """The place keeps its mean and loses its structure: smoothed tissue, in half of the cases with noise of its own."""
    inside = body.astype(float)
    width = max(rng.uniform(0.4, 0.8) * blob.radius, 1.0)
    # Normalised by the smoothed body: otherwise the background would leak in and the place would simply turn dark.
    smoothed = gaussian_filter(pixels * inside, width) / np.maximum(gaussian_filter(inside, width), 1e-3)
    grain = rng.uniform(0.05, 0.15) * rng.integers(2) * contrast
    noise = _smooth_noise(pixels.shape, rng.uniform(0.5, 1.2), rng)
    return pixels + blob.weight * inside * (smoothed + grain * noise - pixels)


def _displacement(
    pixels: Float32[np.ndarray, "height width"],
    body: Bool[np.ndarray, "height width"],
    blob: Blob,
    contrast: float,
    rng: np.random.Generator,
) -> Float[np.ndarray, "height width"]:
    """Tissue pushed outwards (mass effect) or drawn in, along the radius.

    It ends at 1.6 times the blob's outline, where it fades so slowly that what can be seen of it is of the blob's size.
    """
    reach = np.minimum(blob.depth / 1.6, 1.0)
    strength = rng.uniform(0.4, 0.8) * rng.choice((-1.0, 1.0))
    # Monotonic along the radius for strengths in (-1, 1): the warp never folds.
    factor = 1.0 - strength * (1.0 - reach**2) ** 2
    source = np.stack((blob.centre[0] + factor * blob.offset_rows, blob.centre[1] + factor * blob.offset_columns))
    moved = map_coordinates(pixels.astype(float), source, order=3, mode="nearest")
    return np.where(reach < 1.0, moved, pixels)


def _transplant(
    pixels: Float32[np.ndarray, "height width"],
    body: Bool[np.ndarray, "height width"],
    blob: Blob,
    contrast: float,
    rng: np.random.Generator,
) -> Float[np.ndarray, "height width"]:
    """Tissue of another place of the same body, mirrored or not, blended in over the blob's soft edge."""
    rows, columns = np.nonzero(body)
    apart = np.hypot(rows - blob.centre[0], columns - blob.centre[1]) > 2.0 * blob.radius
    if not apart.any():
        return pixels.astype(float)
    donor = int(rng.choice(np.flatnonzero(apart)))
    mirror = rng.choice((-1.0, 1.0))
    from_rows = np.clip(rows[donor] + blob.offset_rows, 0, pixels.shape[0] - 1).astype(int)
    from_columns = np.clip(columns[donor] + mirror * blob.offset_columns, 0, pixels.shape[1] - 1).astype(int)
    # Only body tissue travels, so that a donor near the rim does not cut a hole into the body.
    weight = blob.weight * body[from_rows, from_columns] * _faded(body)
    return pixels + weight * (pixels[from_rows, from_columns] - pixels)


def _streak(
    pixels: Float32[np.ndarray, "height width"],
    body: Bool[np.ndarray, "height width"],
    blob: Blob,
    contrast: float,
    rng: np.random.Generator,
) -> Float[np.ndarray, "height width"]:
    """A line through the centre, or a star of three to eight rays from it, one to two pixels wide, bright or dark."""
    width = rng.uniform(1.0, 2.0)
    length = max(2.0 * blob.radius, 0.08 * min(pixels.shape), 4.0)
    first = rng.uniform(0.0, 2.0 * np.pi)
    if rng.random() < 0.4:
        angles = np.array((first, first + np.pi))
    else:
        rays = int(rng.integers(3, 9))
        angles = first + 2.0 * np.pi * (np.arange(rays) + rng.uniform(-0.3, 0.3, rays)) / rays
    profile = np.zeros(pixels.shape)
    for angle in angles:
        reach = length * rng.uniform(0.6, 1.0)
        along = blob.offset_rows * np.sin(angle) + blob.offset_columns * np.cos(angle)
        nearest = np.clip(along, 0.0, reach)
        distance = np.hypot(blob.offset_rows - nearest * np.sin(angle), blob.offset_columns - nearest * np.cos(angle))
        profile = np.maximum(profile, np.clip(0.5 * width + 0.5 - distance, 0.0, 1.0))
    return pixels + contrast * rng.uniform(0.2, 0.6) * rng.choice((-1.0, 1.0)) * profile * _faded(body)


def _rim(
    pixels: Float32[np.ndarray, "height width"],
    body: Bool[np.ndarray, "height width"],
    blob: Blob,
    contrast: float,
    rng: np.random.Generator,
) -> Float[np.ndarray, "height width"]:
    """A ring brighter than its inside; the inside is left as it is or made darker."""
    # Below three pixels of radius a ring has no inside left to be brighter than.
    depth = blob.depth * min(blob.radius / 3.0, 1.0)
    radius = max(blob.radius, 3.0)
    width = max(rng.uniform(0.12, 0.25), 0.7 / radius)
    ring = np.exp(-0.5 * ((depth - 1.0) / width) ** 2)
    core = 1.0 / (1.0 + np.exp(np.clip((depth - 1.0 + width) / (0.3 * width), -50.0, 50.0)))
    change = _log_uniform((0.15, 0.5), rng) * ring - rng.uniform(0.0, 0.25) * core
    return pixels + contrast * change * _faded(body)


_ARTEFACTS: dict[str, Callable[..., Float[np.ndarray, "height width"]]] = {
    "bright": _bright,
    "dark": _dark,
    "texture": _texture,
    "displacement": _displacement,
    "transplant": _transplant,
    "streak": _streak,
    "rim": _rim,
}

KINDS: tuple[str, ...] = tuple(_ARTEFACTS)
"""Every kind of artefact `plant` knows."""
