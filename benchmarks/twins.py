"""Training images that are in the test set too, exported or compressed once more: no method may learn from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32

from priorlens.datasets import healthy_cases, labelled_cases
from priorlens.images import read_image

SIDE = 32
"""At which images are compared: compression and noise are gone there, and another patient is not alike."""

LEAST = 4 / 255
"""Root of the mean squared difference, as a share of the widest range of any image, below which two are one image."""

_AT_ONCE = 256


def twins(folder: Path) -> tuple[str, ...]:
    """Names of the images in `train/good` that look the same as one in `test`. Raises InputError."""
    cases = healthy_cases(folder)
    learned, judged = (_small([case.path for case in some]) for some in (cases, labelled_cases(folder)))
    least = LEAST * float(np.ptp(np.concatenate([learned, judged]), axis=1).max())
    found = np.concatenate([_nearest(part, judged) < least for part in np.split(learned, _cuts(len(learned)))])
    return tuple(case.name for case, one in zip(cases, found, strict=True) if one)


def _small(paths: Sequence[Path]) -> Float32[np.ndarray, "image pixel"]:
    grey = (torch.from_numpy(read_image(path).pixels.mean(axis=0, dtype=np.float32)) for path in paths)
    small = [F.interpolate(one[None, None], (SIDE, SIDE), mode="bilinear", antialias=True).flatten() for one in grey]
    return torch.stack(small).numpy()


def _cuts(count: int) -> list[int]:
    return list(range(_AT_ONCE, count, _AT_ONCE))


def _nearest(some: Float32[np.ndarray, "image pixel"], others: Float32[np.ndarray, "other pixel"]) -> np.ndarray:
    """Root of the mean squared difference to whichever of the others is most alike."""
    products = some.astype(np.float64) @ others.T.astype(np.float64)
    squares = [np.square(each, dtype=np.float64).sum(axis=1) for each in (some, others)]
    apart = squares[0][:, None] + squares[1] - 2 * products
    return np.sqrt(apart.min(axis=1).clip(min=0) / some.shape[1])
