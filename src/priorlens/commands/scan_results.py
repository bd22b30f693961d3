"""What is written of scored scans: tables, maps in the scan's own format and grid, key pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int

from priorlens.commands.image_results import MAPS, OVERLAYS
from priorlens.conformal import verdict_of
from priorlens.layers import IMAGES, SEGMENTATIONS, TRUTH
from priorlens.ledger import Entry, Stamp
from priorlens.outputs import prepare_folder
from priorlens.pictures import Called, overlay
from priorlens.regions import Region
from priorlens.result_folder import SCORES
from priorlens.scan_model import ScanScores
from priorlens.scores import HealthyStatistics
from priorlens.verdicts import Judge, Judgement
from priorlens.volumes.nifti import write_nifti, write_shown
from priorlens.volumes.scans import Scan
from priorlens.volumes.volume import Volume, spacing_of

SLICES, REGIONS = "slices.csv", "regions.csv"
DICOM = "dicom"

SMALLEST = 100.0
"""Volume in mm^3 of a region that is told where nothing is calibrated."""


@dataclass(frozen=True)
class ScoredScan:
    """A scored scan, what is said of it, and the places that stand out in it.

    regions, labels: by calibration where there is an alpha; else of more than 100 mm^3 above what 99.99 % of healthy
    pixels stay below. seconds: to score it, without reading and writing. met: why it is no new one to the model, which
    has then no p-value for it; else empty.
    """

    scan: Scan
    volume: Volume
    scores: ScanScores
    judgement: Judgement | None
    regions: Sequence[Region]
    labels: Int[np.ndarray, "i j k"]
    seconds: float
    met: str = ""


@dataclass(frozen=True)
class FailedScan:
    """A scan that could not be used; `reason` is one line that names the file and the remedy."""

    scan: Scan
    reason: str
    passing: bool = False


def scan_tables(judge: Judge | None) -> dict[str, Sequence[str]]:
    """The columns of each table, by the name of its file."""
    header = ["file", "name", "patient", "anomaly", *_said(judge), "regions", "slices", "highest_slice", "highest_mm"]
    region = ["file", "name", "region", "unit", "centre_x", "centre_y", "centre_z", "size", "peak", "mean", "q_value"]
    return {
        SCORES: [*header, "nfe", "seconds", "error"],
        SLICES: ["file", "name", "slice", "height_mm", "anomaly"],
        REGIONS: region,
    }


def scan_entry(one: ScoredScan | FailedScan, judge: Judge | None, stamp: Stamp) -> Entry:
    """The lines of a scan: one of scores, one a slice, one a region."""
    rows: dict[str, list[list[str]]] = {SCORES: [_row(one, judge)]}
    if isinstance(one, FailedScan):
        return Entry(one.scan.name, rows, stamp, one.reason, one.passing)
    for table, lines in {SLICES: _slices(one), REGIONS: _regions(one)}.items():
        rows[table] = [[str(cell) for cell in line] for line in lines]
    return Entry(one.scan.name, rows, stamp, content=one.volume.fingerprint)


def _said(judge: Judge | None) -> list[str]:
    """Columns that a calibration adds."""
    return ["p_value", *(["verdict"] if judge.alpha is not None else [])] if judge else []


def _row(one: ScoredScan | FailedScan, judge: Judge | None) -> list[str]:
    case, said = [one.scan.path.as_posix(), one.scan.name, one.scan.group], _said(judge)
    alpha = judge.alpha if judge else None
    if isinstance(one, FailedScan):
        return [*case, "", *[""] * len(said), *[""] * 6, one.reason]
    scores, judgement = one.scores, one.judgement
    verdict = []
    if judgement:
        verdict = [f"{judgement.p_value:.6g}"]
        verdict += [verdict_of(judgement.p_value, alpha)] if alpha is not None else []
    elif said:
        verdict = [""] * len(said)
    highest = int(np.argmax(scores.slice_anomaly))
    place = [str(scores.slices[highest]), f"{scores.heights[highest]:.2f}"]
    counts = [str(len(one.regions)), str(len(scores.slices))]
    effort = [str(scores.nfe), f"{one.seconds:.3f}"]
    return [*case, str(np.float32(scores.anomaly)), *verdict, *counts, *place, *effort, ""]


def _slices(one: ScoredScan) -> list[Sequence[object]]:
    scores = one.scores
    rows = zip(scores.slices, scores.heights, scores.slice_anomaly, strict=True)
    return [(one.scan.path.as_posix(), one.scan.name, index, f"{height:.3f}", value) for index, height, value in rows]


def _regions(one: ScoredScan) -> list[Sequence[object]]:
    rows: list[Sequence[object]] = []
    for number, region in enumerate(one.regions, 1):
        centre = [f"{value:.2f}" for value in region.centre]
        figures = [f"{value:.6g}" for value in (region.size, region.peak, region.mean)]
        q_value = "" if math.isnan(region.q_value) else f"{region.q_value:.6g}"
        rows.append([one.scan.path.as_posix(), one.scan.name, number, region.unit, *centre, *figures, q_value])
    return rows


def write_images(
    out: Path,
    one: ScoredScan,
    healthy: HealthyStatistics,
    judge: Judge | None,
    truth: Bool[np.ndarray, "i j k"] | None,
    *,
    overlays: bool,
) -> None:
    """The map, regions if there are some, both on the scan's own grid; with `overlays` the key picture, and what a
    viewer lays the map over: the scan, and the truth. Raises OutputError."""
    path = out / MAPS / f"{one.scan.name}.nii.gz"
    prepare_folder(path.parent, overwrite=True)
    write_nifti(path, one.scores.anomaly_map, one.volume)
    labels = out / SEGMENTATIONS / f"{one.scan.name}.nii.gz"
    if one.regions:
        prepare_folder(labels.parent, overwrite=True)
        write_nifti(labels, one.labels, one.volume)
    if overlays:
        _write_overlay(out / OVERLAYS / f"{one.scan.name}.png", one, healthy, judge, truth)
        _write_below(out, one, truth)


def _write_below(out: Path, one: ScoredScan, truth: Bool[np.ndarray, "i j k"] | None) -> None:
    """What a viewer lays the map over."""
    image = out / IMAGES / f"{one.scan.name}.nii.gz"
    prepare_folder(image.parent, overwrite=True)
    write_shown(image, one.volume)
    if truth is not None:
        known = out / TRUTH / image.name
        prepare_folder(known.parent, overwrite=True)
        write_nifti(known, truth.astype(np.int16), one.volume)


def _write_overlay(
    path: Path,
    one: ScoredScan,
    healthy: HealthyStatistics,
    judge: Judge | None,
    truth: Bool[np.ndarray, "i j k"] | None,
) -> None:
    """Of the slice that scores highest, with square pixels."""
    prepare_folder(path.parent, overwrite=True)
    scores, prepared = one.scores, one.scores.prepared
    highest = int(np.argmax(scores.slice_anomaly))
    own = scores.slices[highest]
    index = prepared.own_index(own)  # its own inverse
    _, rows, columns = spacing_of(prepared.affine)

    def plane(values: np.ndarray, order: int) -> np.ndarray:
        return _square(prepared.layout.to_stack(values)[index], rows, columns, order)

    pixels = np.stack([_square(channel, rows, columns, 1) for channel in prepared.stack[:, index]])
    called = None
    if judge and one.judgement:
        regions = None if judge.alpha is None else plane(one.labels, 0) > 0
        called = Called(one.judgement.p_value, regions, judge.alpha)
    overlay(
        pixels[:1].astype(np.float32),
        plane(scores.anomaly_map, 1).astype(np.float32),
        path,
        name=f"{one.scan.name}, slice {own}",
        anomaly=scores.anomaly,
        low=healthy.map_low,
        high=healthy.scan_high,
        threshold=healthy.map_high,  # as the regions: that of single images is too low for scans of new patients
        truth=None if truth is None else plane(truth, 0) > 0,
        called=called,
    )


def _square(plane: np.ndarray, rows: float, columns: float, order: int) -> np.ndarray:
    """A slice with pixels as wide as high, as small as the smaller side was."""
    from scipy.ndimage import zoom

    finest = min(rows, columns)
    if max(rows, columns) / finest < 1.01:
        return np.ascontiguousarray(plane)
    return zoom(plane.astype(np.float32), (rows / finest, columns / finest), order=order)
