"""One row of a figure: the planes of a case that are shown side by side, and the words beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from priorlens.datasets import HEALTHY
from priorlens.errors import InputError
from priorlens.pictures import displayable
from priorlens.report.facts import number, part
from priorlens.report.findings import Case, Findings
from priorlens.report.shown import Shown, Slices, layout_of, read_shown
from priorlens.report.svg import shown as in_words
from priorlens.volumes.volume import closest_axes, spacing_of

_SIDES = {0: ("R", "L"), 1: ("A", "P")}
"""What lies left and right in a slice whose columns run along the scanner's axis: `Layout` draws them so."""


@dataclass(frozen=True)
class Row:
    """What is drawn of a case.

    label, notes: the words beside the row. regions: what stands out; None where none were looked for and a level of
    the map is outlined. step: height and width of a pixel, in mm where `in_mm`. sides: what lies at the left and the
    right edge, such as R and L of the patient; None where that is not known.
    """

    label: str
    notes: tuple[str, ...]
    image: UInt8[np.ndarray, "height width 3"]
    anomaly_map: Float32[np.ndarray, "height width"]
    regions: Bool[np.ndarray, "height width"] | None
    truth: Bool[np.ndarray, "height width"] | None
    reconstruction: UInt8[np.ndarray, "row column 3"] | None
    step: tuple[float, float]
    in_mm: bool
    sides: tuple[str, str] | None

    @property
    def size(self) -> tuple[float, float]:
        """Height and width, in mm or pixels."""
        height, width = self.anomaly_map.shape
        return height * self.step[0], width * self.step[1]


@dataclass(frozen=True)
class Wanted:
    """What is asked of a row. label: empty for the case's name. slice: of a scan, along its own axis; None for the one
    that scores highest. pixel_size: of images, in mm; None where it is not known."""

    case: Case
    label: str = ""
    slice: int | None = None
    pixel_size: float | None = None
    scores: bool = True


def read_row(results: Path, findings: Findings, wanted: Wanted, slices: Slices | None) -> Row:
    """Read a case and take out what is shown; `slices` are those of a scan.

    Raises:
        InputError: its files cannot be used, or what was asked for does not suit them.
    """
    case = wanted.case
    shown = read_shown(results, case)
    notes = _scores(case) if wanted.scores else []
    if shown.affine is None:
        if wanted.slice is not None:
            raise InputError(f"{results}: case {case.number} is an image and has no slices; leave --slice out")
        step = (wanted.pixel_size or 1.0,) * 2
        planes, in_mm, sides = shown, wanted.pixel_size is not None, None
        image = _grey_or_colour(shown.image)
    else:
        if wanted.pixel_size is not None:
            raise InputError(f"{results}: scans say how large their voxels are; leave --pixel-size out")
        index = _slice(results, wanted, slices)
        planes, step, sides = _sliced(results, findings, case, shown, index)
        in_mm = True
        image = _windowed(planes.image[:1], findings)
        notes.append(f"slice {index}")
    if findings.planted:
        notes += _planted(case, planes.truth)
    regions = None
    if case.regions is not None:
        regions = np.zeros(planes.anomaly_map.shape, bool) if planes.segmentation is None else planes.segmentation > 0
    reconstruction = None if shown.reconstruction is None else displayable(shown.reconstruction)
    return Row(
        wanted.label or case.name,
        tuple(notes),
        image,
        planes.anomaly_map,
        regions,
        planes.truth,
        reconstruction,
        step,
        in_mm,
        sides,
    )


def _scores(case: Case) -> list[str]:
    p_value = number(case.p_value)
    return [f"anomaly {in_words(case.anomaly)}" if np.isnan(p_value) else f"p = {in_words(p_value)}"]


def _planted(case: Case, truth: np.ndarray | None) -> Sequence[str]:
    """Said of everything but what is known to be healthy."""
    healthy = not truth.any() if truth is not None else case.kind == HEALTHY
    return [] if healthy else ["planted"]


def _slice(results: Path, wanted: Wanted, slices: Slices | None) -> int:
    if wanted.slice is not None:
        return wanted.slice
    if slices is None:
        raise InputError(f"{results}: slices.csv has no line of case {wanted.case.number}; choose its --slice")
    return slices.highest


def _sliced(
    results: Path, findings: Findings, case: Case, shown: Shown, index: int
) -> tuple[Shown, tuple[float, float], tuple[str, str] | None]:
    """One slice of all layers as a key picture lays it out, the size of its pixels, and what lies at its sides."""
    assert shown.affine is not None
    shape = shown.anomaly_map.shape
    layout = layout_of(findings, shown.affine)
    count = shape[layout.axes[0]]
    if not 0 <= index < count:
        raise InputError(
            f"{results}: case {case.number} has slices 0 to {count - 1}, not {index}; choose another --slice"
        )
    place = count - 1 - index if layout.flipped[0] else index

    def plane(values: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(layout.to_stack(values)[..., place, :, :])

    _, height, width = spacing_of(layout.affine(shown.affine, shape))
    across = closest_axes(shown.affine).index(layout.axes[2])
    planes = Shown(
        plane(shown.image),
        plane(shown.anomaly_map),
        None if shown.segmentation is None else plane(shown.segmentation),
        None if shown.truth is None else plane(shown.truth),
    )
    return planes, (float(height), float(width)), _SIDES.get(across) if shown.placed else None


def _windowed(plane: Float32[np.ndarray, "1 height width"], findings: Findings) -> UInt8[np.ndarray, "height width 3"]:
    """Through the window that the model looks through, if it has one; else between the slice's own percentiles."""
    intensities = part(findings.model, "scans").get("intensities")
    first = intensities[0] if isinstance(intensities, list) and intensities else None
    low, high = (number(part(first).get(end)) for end in ("low", "high"))
    if part(first).get("mode") == "window" and low < high:
        grey = (np.clip((plane[0] - low) / (high - low), 0, 1) * 255).round().astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=-1)
    return displayable(plane)


def _grey_or_colour(image: Float32[np.ndarray, "channel height width"]) -> UInt8[np.ndarray, "height width 3"]:
    channels = image if len(image) == 3 else np.repeat(image[:1], 3, axis=0)
    return np.moveaxis(np.clip(channels, 0, 255).astype(np.uint8), 0, -1)
