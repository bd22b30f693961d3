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


def body_region(pixels: Float32[np.ndarray, "height width"]) -> Bool[np.ndarray, "height width"]:
    """All of the body, dark tissue too: what is brighter than the image's border, closed, without table and wires.

    The border is taken to show background: brighter is what exceeds the 90th percentile of a frame around the image by
    a twentieth of the image's range. Where the frame is as bright as the rest, as in images cropped to the body, or
    where hardly anything is brighter, it is `body_mask`.
    """
    height, width = pixels.shape
    margin = max(1, round(0.03 * min(height, width)))
    frame = np.ones(pixels.shape, dtype=bool)
    frame[margin:-margin, margin:-margin] = False
    low, high = np.percentile(pixels, (1.0, 99.0))
    brighter = pixels > np.percentile(pixels[frame], 90) + 0.05 * (high - low)
    radius = max(1, round(0.02 * min(height, width)))
    whole = ndimage.binary_opening(brighter, iterations=max(1, radius // 2))
    whole = ndimage.binary_fill_holes(ndimage.binary_closing(np.pad(whole, 2 * radius), iterations=radius))
    components, count = ndimage.label(whole[2 * radius : -2 * radius, 2 * radius : -2 * radius])
    if count == 0:
        return body_mask(pixels)
    sizes = np.bincount(components.ravel())[1:]
    largest = components == 1 + int(np.argmax(sizes))
    return largest if largest.mean() >= 0.05 else body_mask(pixels)
