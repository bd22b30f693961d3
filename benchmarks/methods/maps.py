"""What peers and baselines have in common that make a map of differences: its smoothing, and the score read off it."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32
from scipy.ndimage import gaussian_filter

WIDTH, AT_SIDE = 2.0, 192
"""Standard deviation in pixels of the Gaussian that smooths a map, on images of this side; it scales with the side."""

TOP = 0.005
"""Share of an image's pixels, the highest of its map, whose mean is its score."""


def smoothed(
    maps: Float[np.ndarray, "image height width"], width: float = WIDTH
) -> Float32[np.ndarray, "image height width"]:
    """width: at the side of `AT_SIDE`."""
    width *= max(maps.shape[1:]) / AT_SIDE
    return gaussian_filter(maps, (0, width, width), output=np.float32)


def top_mean(maps: Float[np.ndarray, "image height width"]) -> Float[np.ndarray, " image"]:
    """The mean of the highest `TOP` of each map's pixels, of one pixel at least."""
    flat = maps.reshape(len(maps), -1).astype(np.float64)
    count = max(1, round(TOP * flat.shape[1]))
    return np.partition(flat, -count, axis=1)[:, -count:].mean(1)
