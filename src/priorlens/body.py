"""Where the body is in a medical image: all that is not background."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32
from scipy import ndimage
from skimage.filters import threshold_otsu


def body_mask(pixels: Float32[np.ndarray, "height width"]) -> Bool[np.ndarray, "height width"]:
    """Above Otsu's threshold, of that the largest 4-connected component, and its holes filled.

    The scale of the intensities does not matter. A constant image is all body. Where organs, bone or contrast agent
    outshine soft tissue, as in windowed abdominal CT, the threshold falls inside the body and the mask holds only a
    part of it. Otsu 1979, "A threshold selection method from gray-level histograms", over 256 bins.
    """
    if (pixels == pixels[0, 0]).all():
        return np.ones_like(pixels, dtype=bool)
    exact = pixels.astype(np.float64)  # in float32 the bins of a narrow histogram may coincide
    components, _ = ndimage.label(exact > threshold_otsu(exact))
    sizes = np.bincount(components.ravel())[1:]  # 0 is the background
    return ndimage.binary_fill_holes(components == 1 + int(np.argmax(sizes)))
