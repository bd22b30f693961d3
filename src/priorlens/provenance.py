"""Which images a model was made from, and whose: by fingerprints that recognise them.

A verdict is only as good as the healthy images it is calibrated on, and those must be new to the model. An image is
known again by its pixels, whatever its file's name and format; a patient by name, where patients are named at all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from priorlens.images import Image

DIGITS = 32
"""Hexadecimal digits of a fingerprint: 128 bits of a SHA-256."""

_PREFIX = "provenance"


def image_fingerprint(image: Image) -> str:
    """Of an image's intensities and shape, not of its file."""
    pixels = np.ascontiguousarray(image.pixels, dtype="<f4")
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()[:DIGITS]


def patient_fingerprint(patient: str) -> str:
    """Of a patient's name: who knows the name can find it again. A short number can be found by trying them all."""
    return hashlib.sha256(f"patient {patient}".encode("utf-8", "surrogateescape")).hexdigest()[:DIGITS]


@dataclass(frozen=True)
class Provenance:
    """What `fit` was given, images held out included.

    images, patients: their fingerprints. sides: the shortest and the longest of the images' longer sides, in pixels.
    """

    images: frozenset[str]
    patients: frozenset[str]
    sides: tuple[int, int]

    @classmethod
    def of(cls, images: Sequence[Image], patients: Iterable[str] | None) -> Provenance:
        """patients: of the images, where they are known."""
        sides = [max(image.pixels.shape[1:]) for image in images]
        return cls(
            frozenset(map(image_fingerprint, images)),
            frozenset(map(patient_fingerprint, patients or ())),
            (min(sides), max(sides)),
        )

    def tensors(self) -> dict[str, Tensor]:
        """For a model's tensors."""
        return {
            f"{_PREFIX}.images": _packed(self.images),
            f"{_PREFIX}.patients": _packed(self.patients),
            f"{_PREFIX}.sides": torch.tensor(self.sides),
        }

    @classmethod
    def restored(cls, tensors: Mapping[str, Tensor]) -> Provenance:
        """The inverse of `tensors`. Raises KeyError where they do not hold it."""
        images, patients, sides = (tensors[f"{_PREFIX}.{name}"] for name in ("images", "patients", "sides"))
        shortest, longest = sides.tolist()
        return cls(_unpacked(images), _unpacked(patients), (shortest, longest))


def _packed(fingerprints: Iterable[str]) -> Tensor:
    rows = [list(bytes.fromhex(one)) for one in sorted(fingerprints)]
    return torch.tensor(rows, dtype=torch.uint8).reshape(-1, DIGITS // 2)


def _unpacked(rows: Tensor) -> frozenset[str]:
    return frozenset(bytes(row).hex() for row in rows.tolist())
