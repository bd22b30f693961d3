"""What several models say of a place becomes one map an image, and a picture of it: the other half of `combine`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from priorlens.commands.image_results import MAPS, OVERLAYS
from priorlens.commands.results import remove_results
from priorlens.errors import InputError
from priorlens.layers import IMAGES
from priorlens.outputs import prepare_folder, write_array
from priorlens.pictures import Called, overlay
from priorlens.report.facts import MODEL, read_facts
from priorlens.report.findings import stems_of
from priorlens.report.layer import read_layer
from priorlens.report.map_scale import MapScale, healthy_scale
from priorlens.result_folder import ResultFolder

LOW, THRESHOLD = 0.0, 1.0
"""Of a joined map: what is usual in healthy images, and where each of the models alone would draw a line."""


@dataclass(frozen=True)
class MapFolder:
    """Results with maps of images. stems: what the files of an image are called, without suffix, by the image."""

    path: Path
    scale: MapScale
    stems: Mapping[str, str]

    def map_of(self, file: str) -> Float32[np.ndarray, "height width"]:
        """In multiples of how far the threshold is above what is usual: so the maps of all models mean the same.

        Raises InputError: there is none, or it is damaged.
        """
        if not (stem := self.stems.get(file, "")):
            raise InputError(f"{file}: is not joined with others, for it has no map in {self.path}; score it again")
        values = read_layer(self.path / MAPS / f"{stem}.npy").values[0]
        return (values - np.float32(self.scale.low)) / np.float32(self._unit)

    @property
    def relative_high(self) -> float:
        """Where colours end."""
        return (self.scale.high - self.scale.low) / self._unit

    @property
    def _unit(self) -> float:
        return self.scale.threshold - self.scale.low

    def pixels_of(self, file: str) -> Float32[np.ndarray, "channel height width"] | None:
        """The image as it is shown; None where it was not kept. Raises InputError: it is damaged."""
        path = self.path / IMAGES / f"{self.stems[file]}.png"
        return read_layer(path).values if path.is_file() else None


def read_map_folder(results: ResultFolder) -> MapFolder | None:
    """None where there are no maps of images, or it is not told what they show of healthy ones.

    Raises InputError: `model.json` is damaged.
    """
    scale = healthy_scale(read_facts(results.path / MODEL) or {})
    if scale is None or "name" in results.scores.columns:  # which scans have, whose maps are volumes
        return None
    if not scale.low < scale.threshold <= scale.high or not math.isfinite(scale.high - scale.low):
        return None
    lines = results.scores.lines
    stems = {line.cells["file"]: stem for line, stem in zip(lines, stems_of(results.path, lines), strict=True) if stem}
    return MapFolder(results.path, scale, stems) if stems else None


def discard_maps(out: Path) -> None:
    """Those of an earlier call. Raises OutputError."""
    remove_results(chain((out / MAPS).rglob("*.npy"), (out / OVERLAYS).rglob("*.png")))


def write_maps(
    folders: Sequence[MapFolder],
    p_values: Mapping[str, float],
    out: Path,
    *,
    overlays: bool,
    warn: Callable[[str], None],
    advance: Callable[[], None],
) -> int:
    """For each image of `p_values` its joined map below `out`, called as in the first folder; how many there are.

    overlays: whether pictures are made, of those images that the first folder keeps. warn: is told of images whose maps
    cannot be joined. advance: called after each. Raises OutputError.
    """
    high = float(np.mean([one.relative_high for one in folders]))
    count = 0
    for file, p_value in p_values.items():
        try:
            joined = joined_map([one.map_of(file) for one in folders], file)
            pixels = folders[0].pixels_of(file) if overlays else None
        except InputError as error:
            warn(str(error))
        else:
            stem = folders[0].stems[file]
            write_array(_ready(out / MAPS / f"{stem}.npy"), joined)
            if pixels is not None:
                picture = _ready(out / OVERLAYS / f"{stem}.png")
                called = Called(p_value)
                overlay(pixels, joined, picture, name=stem, low=LOW, high=high, threshold=THRESHOLD, called=called)
            count += 1
        advance()
    return count


def joined_map(maps: Sequence[Float32[np.ndarray, "_ _"]], file: str) -> Float32[np.ndarray, "height width"]:
    """The mean. Raises InputError where they are not of one size."""
    if len({one.shape for one in maps}) > 1:
        sizes = " and ".join(f"{one.shape[0]}x{one.shape[1]}" for one in maps)
        raise InputError(
            f"{file}: has maps of {sizes} pixels, which are not joined; score the same image by each model"
        )
    return np.asarray(np.mean(maps, axis=0, dtype=np.float64), np.float32)


def _ready(path: Path) -> Path:
    prepare_folder(path.parent, overwrite=True)
    return path
