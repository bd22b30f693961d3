"""What several models say of a place becomes one map an image, and a picture of it: the other half of `combine`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from priorlens.errors import InputError
from priorlens.layers import IMAGES
from priorlens.outputs import prepare_folder, write_array
from priorlens.pictures import Called, overlay
from priorlens.report.facts import number, part
from priorlens.report.findings import Findings, read_findings
from priorlens.report.layer import read_layer

MAPS, OVERLAYS = "maps", "overlays"
LOW, THRESHOLD = 0.0, 1.0
"""Of a joined map: what is usual in healthy images, and about what 0.5 % of their pixels exceed."""


@dataclass(frozen=True)
class Scale:
    """What a model's maps show of healthy images: their median, 99.5th and 99.99th percentile."""

    low: float
    threshold: float
    high: float

    def relative(self, values: Float32[np.ndarray, "*place"]) -> Float32[np.ndarray, "*place"]:
        """In multiples of how far the threshold is above the median: so the maps of all models mean the same."""
        return (values - np.float32(self.low)) / np.float32(self.threshold - self.low)

    @property
    def top(self) -> float:
        """The highest percentile, relative."""
        return (self.high - self.low) / (self.threshold - self.low)


@dataclass(frozen=True)
class Mapped:
    """One results folder with maps of images. stems: what the files of an image are called, by the image."""

    path: Path
    scale: Scale
    stems: Mapping[str, str]

    def map_of(self, file: str) -> Float32[np.ndarray, "height width"]:
        """Relative. Raises InputError: there is none, or it is damaged."""
        if not (stem := self.stems.get(file, "")):
            raise InputError(f"{file}: has no map in {self.path}; score it again")
        return self.scale.relative(read_layer(self.path / MAPS / f"{stem}.npy").values[0])

    def image_of(self, file: str) -> Path:
        """As it was shown; the file may be missing."""
        return self.path / IMAGES / f"{self.stems[file]}.png"


def mapped(path: Path) -> Mapped | None:
    """None where it holds no maps of images, or does not tell what they show of healthy ones. Raises InputError."""
    found = read_findings(path)
    scale = _scale(found)
    stems = {case.file: case.stem for case in found.cases if case.stem}
    npy = any((path / MAPS / f"{stem}.npy").is_file() for stem in stems.values())
    return Mapped(path, scale, stems) if scale and npy else None


def _scale(found: Findings) -> Scale | None:
    own = part(found.model, "map_scale")
    low, threshold, high = (number(own.get(name)) for name in ("low", "threshold", "high"))
    return Scale(low, threshold, high) if low < threshold <= high and math.isfinite(high - low) else None


def write_maps(results: Sequence[Mapped], p_values: Mapping[str, float], out: Path, warn: Callable[[str], None]) -> int:
    """For each image of `p_values` its joined map below `out`, and an overlay where its picture was kept; how many.

    Raises OutputError. An image whose maps cannot be joined is told to `warn`.
    """
    high = float(np.mean([one.scale.top for one in results]))
    count = 0
    for file, p_value in p_values.items():
        try:
            joined = joined_map([one.map_of(file) for one in results], file)
            _write(joined, results[0], file, high, Called(p_value), out)
        except InputError as error:
            warn(f"{error}; its maps are not joined")
            continue
        count += 1
    return count


def joined_map(relative: Sequence[Float32[np.ndarray, "_ _"]], file: str) -> Float32[np.ndarray, "height width"]:
    """The mean. Raises InputError where they are not of one size."""
    if len({one.shape for one in relative}) > 1:
        sizes = " and ".join(f"{one.shape[0]}x{one.shape[1]}" for one in relative)
        raise InputError(f"{file}: has maps of {sizes} pixels; score the same image with each model")
    return np.asarray(np.mean(relative, axis=0, dtype=np.float64), np.float32)


def _write(joined: np.ndarray, first: Mapped, file: str, high: float, called: Called, out: Path) -> None:
    stem = first.stems[file]
    path = out / MAPS / f"{stem}.npy"
    prepare_folder(path.parent, overwrite=True)
    write_array(path, joined)
    if (image := first.image_of(file)).is_file():
        picture = out / OVERLAYS / f"{stem}.png"
        prepare_folder(picture.parent, overwrite=True)
        pixels = read_layer(image).values
        overlay(pixels, joined, picture, name=stem, low=LOW, high=high, threshold=THRESHOLD, called=called)
