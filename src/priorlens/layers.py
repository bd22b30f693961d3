"""What a viewer lays over one another: an image as it is shown, the truth, and the regions that stand out, as PNG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int
from PIL import Image

from priorlens.outputs import atomic_write, prepare_folder
from priorlens.pictures import displayable

IMAGES, TRUTH, SEGMENTATIONS = "images", "truth", "segmentations"
LAYERS = (IMAGES, TRUTH, SEGMENTATIONS)
"""Folders of a results folder; a file in them is called as the map it belongs to."""

MOST_REGIONS = 2**16 - 1


def write_image(path: Path, pixels: Float[np.ndarray, "channel height width"]) -> None:
    """As it is shown, with 8 bits: grey, or red, green and blue. Raises OutputError."""
    shown = displayable(pixels)
    _write(path, shown if len(pixels) == 3 else shown[..., 0])


def write_truth(path: Path, mask: Bool[np.ndarray, "height width"]) -> None:
    """White where the lesion is. Raises OutputError."""
    _write(path, mask.astype(np.uint8) * 255)


def write_labels(path: Path, labels: Int[np.ndarray, "height width"]) -> None:
    """The number of the region at each pixel, with 16 bits; beyond 65,535 the last. Raises OutputError."""
    _write(path, np.minimum(labels.astype(np.int64), MOST_REGIONS).astype(np.uint16))


def _write(path: Path, values: np.ndarray) -> None:
    prepare_folder(path.parent, overwrite=True)
    with atomic_write(path) as file:
        Image.fromarray(values).save(file, format="PNG", compress_level=1)
