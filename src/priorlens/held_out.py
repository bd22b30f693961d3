"""What is set aside from the healthy images: whose they are, and the artefacts planted in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32

from priorlens.body import body_mask
from priorlens.datasets import MIN_HEALTHY, Case, split_groups
from priorlens.errors import InputError
from priorlens.planted import plant

HELD_OUT, LEAST_HELD_OUT = 0.1, 24
"""Share of the healthy images, by patient, that no prior learns from: what is usual is read off them. At least so many
images, where that is not more than 30 % of all."""

PLANTED, PLANTED_EACH = 240, 8
"""Images with planted artefacts, made from those held out; at most so many from each."""

PLANTED_MANY = 2
"""Times as many of both, where an image is quickly looked at."""

FOLDS = 5
"""Of the held-out images: what is learned from artefacts in some is asked about the others."""

ASIDE, LEAST_ASIDE, MOST_ASIDE = 0.1, 100, 0.2
"""Share of the healthy images, by patient, that is set aside for calibration, where the user does not say. At least so
many patients, where that is not more than a fifth of all: a hundred give p-values down to 1 %."""

FEWEST = 45
"""Patients: of fewer, a fifth gives p-values that are of no use, and all are better learned from."""

LARGEST = 400
"""Held-out images that are looked at, at most: what is usual is known well from so many, and memory stays bounded."""


def plant_each(
    prepared: Float32[np.ndarray, "image channel size size"],
    rng: np.random.Generator,
    body: Callable[[Float32[np.ndarray, "size size"]], Bool[np.ndarray, "size size"]] = body_mask,
    *,
    many: int = 1,
) -> tuple[list[Float32[np.ndarray, "channel size size"]], list[Bool[np.ndarray, "size size"]], list[int]]:
    """Copies of images with one artefact each, the same in all channels, where it lies, and of which image each is.

    body: finds where in an image they may lie. many: times as many as `PLANTED` and `PLANTED_EACH` say.

    Each image gives as many copies as it takes to make about so many; where nothing can be planted, none.
    """
    images, masks, sources = [], [], []
    for _ in range(planted_count(len(prepared), many) // max(1, len(prepared))):
        for index, image in enumerate(prepared):
            grey = image.mean(0)
            try:
                planted = plant(grey, body(grey), rng)
            except InputError:
                continue
            images.append((image + (planted.pixels - grey)).astype(np.float32))
            masks.append(planted.mask)
            sources.append(index)
    return images, masks, sources


def planted_count(held: int, many: int = 1) -> int:
    return held * min(many * PLANTED_EACH, max(1, many * PLANTED // max(1, held)))


def folds(groups: Sequence[str]) -> list[int]:
    """The fold of each image, from 0, at most `FOLDS`: whole patients, or of a single patient images that lie side by
    side, as slices of a scan do, which are much alike."""
    known = {group: index for index, group in enumerate(dict.fromkeys(groups))}
    if len(known) < 2:
        return [index * FOLDS // len(groups) for index in range(len(groups))]
    return [known[group] % FOLDS for group in groups]


def hold_out(groups: Sequence[str], seed: int) -> tuple[list[int], list[int]]:
    """Indices of the images to learn from, and of those held out, by whole patients; of many of these, some."""
    share = min(max(HELD_OUT, LEAST_HELD_OUT / len(groups)), 0.3)
    cases = [Case(Path(str(index)), str(index), group) for index, group in enumerate(groups)]
    kept, held = split_groups(cases, share, seed)
    return [int(case.name) for case in kept], evenly([int(case.name) for case in held], LARGEST)


def set_aside(groups: Sequence[str], seed: int, share: float | None = None) -> tuple[list[int], list[int]]:
    """Indices of the images to fit to, and of those kept for calibration, by whole patients.

    share: of the images; None chooses it, and keeps none where there are fewer than `FEWEST` patients; 0 keeps none.
    None are kept either where fewer than `MIN_HEALTHY` images, or only one patient's, would remain.
    """
    count, patients = len(groups), len(set(groups))
    if share is None:
        share = min(max(ASIDE, LEAST_ASIDE / patients), MOST_ASIDE) if patients >= FEWEST else 0.0
    if share == 0 or patients < 2:
        return list(range(count)), []
    cases = [Case(Path(str(index)), str(index), group) for index, group in enumerate(groups)]
    # Not the seed of `hold_out`: else the same patients would come first among those left, and be held out together.
    kept, aside = split_groups(cases, share, seed + 1)
    if len(kept) < MIN_HEALTHY or len({case.group for case in kept}) < 2:
        return list(range(count)), []
    return [int(case.name) for case in kept], [int(case.name) for case in aside]


def evenly(indices: Sequence[int], count: int) -> list[int]:
    """At most `count` of them, spread evenly: files that lie side by side are often one patient's."""
    chosen = np.linspace(0, len(indices) - 1, min(count, len(indices))).round().astype(int)
    return [indices[i] for i in chosen]
