"""What an image's pixels say of how it was acquired, whatever it shows: for noticing that a scanner has changed."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32
from scipy.ndimage import convolve

from priorlens.body import body_region
from priorlens.images import Image

ACQUISITION = ("brightness", "saturated", "noise")
"""Names of what `acquisition` tells."""

_SECOND_DIFFERENCES = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
_DEVIATION_OF_MEDIAN = 0.6745  # median of |n| for standard normal n


def acquisition(image: Image) -> dict[str, float]:
    """Figures by the names of `ACQUISITION`, in the image's own intensities; of colours their mean.

    brightness: median inside the body.
    saturated: share of pixels at the largest intensity that the file can hold, or else at the image's own largest.
    noise: standard deviation inside the body, by second differences both ways, which edges hardly answer (Immerkaer
        1996, "Fast noise variance estimation"), and their median instead of their mean.
    """
    grey = image.pixels.mean(0)
    body = body_region(grey)
    top = image.full_scale if np.isfinite(image.full_scale) else float(grey.max())
    return {
        "brightness": float(np.median(grey[body])),
        "saturated": float((grey >= top).mean()),
        "noise": float(np.median(_answers(grey)[body])) / _DEVIATION_OF_MEDIAN,
    }


def _answers(grey: Float32[np.ndarray, "height width"]) -> Float32[np.ndarray, "height width"]:
    """Sizes of the second differences, scaled so that white noise keeps its deviation."""
    return np.abs(convolve(grey, _SECOND_DIFFERENCES)) / float(np.linalg.norm(_SECOND_DIFFERENCES))
