"""Slices of few patients, varied: patients differ by more than a handful of them show."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32
from scipy import ndimage

ENOUGH = 900
"""Images, varied ones among them, that slices of few patients are brought to."""

TURN, STRETCH, SHIFT = 8.0, 0.07, 0.025
"""Largest turn in degrees, change of scale, and shift as a share of the side."""

GAIN, GAMMA, BIAS = 0.06, 0.11, 0.06
"""Largest change of brightness and of its exponent, and deviation of a smooth field over the image: of scans whose
intensities have no fixed meaning."""

_PIVOT = 0.4  # the intensity that a change of exponent leaves alone: the body's median


def copies(images: int) -> int:
    """How many varied ones to make of each of so many images."""
    return max(0, round(ENOUGH / max(1, images)) - 1)


def varied(
    pixels: Float32[np.ndarray, "channel size size"], rng: np.random.Generator, *, intensities: bool
) -> Float32[np.ndarray, "channel size size"]:
    """Turned, stretched and shifted a little, all channels alike; never mirrored, for organs have their side.

    intensities: whether brightness varies too, each channel by itself; not in CT, where it is measured.
    """
    size = np.array(pixels.shape[1:])
    angle, scale = np.radians(rng.uniform(-TURN, TURN)), 1 + rng.uniform(-STRETCH, STRETCH)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = (size - 1) / 2
    offset = centre - turn @ (centre + rng.uniform(-SHIFT, SHIFT, 2) * size)
    # What is at the border goes on beyond it: air of a CT is no zero, and tiles may end inside the body.
    moved = np.stack([ndimage.affine_transform(channel, turn, offset, order=1, mode="nearest") for channel in pixels])
    if intensities:
        moved = np.stack([_brightened(channel, rng) for channel in moved])
    return moved.astype(np.float32)


def _brightened(
    channel: Float32[np.ndarray, "rows columns"], rng: np.random.Generator
) -> Float32[np.ndarray, "rows columns"]:
    """A gain, an exponent and a smooth field; zero stays zero, and what is darker than that stays darker."""
    field = ndimage.zoom(rng.standard_normal((3, 3)), np.array(channel.shape) / 3, order=3)
    field = 1 + BIAS * field / max(float(field.std()), 1e-6)
    exponent = 1 + rng.uniform(-GAMMA, GAMMA)
    relative = channel * field.clip(min=0) * (1 + rng.uniform(-GAIN, GAIN)) / _PIVOT
    return (_PIVOT * np.sign(relative) * np.abs(relative) ** exponent).astype(np.float32)
