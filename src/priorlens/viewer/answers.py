"""What the viewer's page is told, as types: of all results, and of one case."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal, cast, get_args

from pydantic import BaseModel, BeforeValidator, Field

from priorlens.report import card, sentences
from priorlens.report.facts import PAGE
from priorlens.report.findings import Region
from priorlens.report.layer import read_layer
from priorlens.report.map_scale import map_scale
from priorlens.report.shown import read_slices
from priorlens.viewer.nifti_layers import Grid, channels_of, grid_of, slice_axis, top_of
from priorlens.viewer.shelf import LAYERS, TABLES, Shelf, Shelved

Words = Annotated[str, BeforeValidator(lambda text: re.sub("[\ud800-\udfff]", "\ufffd", text))]
"""Text that can be sent: what was not UTF-8 in a file has a mark in its place."""

Facts = list[tuple[Words, Words]]
Position = tuple[float, float, float]
LayerName = Literal["image", "map", "reconstruction", "segmentation", "truth"]
Status = Literal["abnormal", "usual", "scored", "failed"]


class Line(BaseModel):
    """A case in the list. number: names it in every address. p_value, anomaly, regions: null where there is none."""

    number: int
    name: Words
    status: Status
    kind: Words
    patient: Words
    anomaly: float | None
    p_value: float | None
    regions: int | None
    error: Words
    dropped: bool = Field(description="Whether it was given to the page, and is not of the results it was opened with.")


class Scoring(BaseModel):
    """Whether files can be given to the page to be scored, and which."""

    possible: bool
    why_not: str
    most_bytes: int
    suffixes: list[str]


class Results(BaseModel):
    """All that is known but for single cases; these by rising p-value, else falling anomaly, failed ones last."""

    title: Words
    calibrated: bool
    alpha: float | None
    planted: bool
    hidden: bool = Field(description="Whether names of files, folders and patients are left out.")
    summary: list[Words]
    asked: Facts
    learned: Facts
    calibration: Facts
    report: bool = Field(description="Whether /report gives a page to hand over.")
    tables: list[str]
    scoring: Scoring
    cases: list[Line]


class Layer(BaseModel):
    """A layer of a case, as NIfTI; layers of a case lie on one grid."""

    layer: LayerName
    address: str
    channels: list[Words]


class MapScale(BaseModel):
    """How the map is shown. own: nothing is known of healthy images, and the ends are the map's own."""

    low: float
    high: float
    threshold: float
    unit: str
    own: bool


class Found(BaseModel):
    """A region that stands out. position: its centre in the millimetres of the layers' affine, where that is known."""

    number: Words
    centre: Words
    size: Words
    peak: float | None
    q_value: float | None
    position: Position | None


class Slices(BaseModel):
    """Anomaly of each slice that was looked at. axis: of the layers' own grid, along which slices are counted."""

    axis: int
    index: list[int]
    height_mm: list[float | None]
    anomaly: list[float]


class Told(Line):
    """A case, with all that is said of it."""

    dimensions: Literal[2, 3]
    verdict_words: Words
    place_words: Words
    region_words: Words
    spectrum_words: Words
    figures: list[tuple[Words, float]]
    layers: list[Layer]
    map_scale: MapScale | None
    regions_found: list[Found]
    slices: Slices | None
    overlay: str | None


def results(shelf: Shelf, scoring: Scoring) -> Results:
    """All that is known; where names are hidden, neither tables nor the report that was written with them."""
    first = shelf.first
    findings = first.findings
    return Results(
        title=findings.title,
        calibrated=bool(findings.verdicts),
        alpha=findings.alpha,
        planted=findings.planted,
        hidden=shelf.hide,
        summary=sentences.summary_words(findings),
        asked=card.asked(findings),
        learned=card.learned(findings),
        calibration=card.calibration(findings),
        report=first.file(PAGE) is not None and not shelf.hide,
        tables=[] if shelf.hide else [name for name in TABLES if first.file(name)],
        scoring=scoring,
        cases=[Line(**_line(one)) for one in sorted(shelf, key=lambda one: one.case.rank)],
    )


def told(one: Shelved) -> Told:
    """Raises InputError for layers that are damaged."""
    case, findings = one.case, one.book.findings
    spectra = findings.spectra
    own = spectra.of.get(case.file) if spectra and not case.error else None
    scored = math.isfinite(case.anomaly)
    grid = grid_of(one)
    return Told(
        **_line(one),
        dimensions=grid.dimensions if grid else 2,
        verdict_words=sentences.verdict_words(case, findings),
        place_words=sentences.place_words(case, findings.healthy) if scored and findings.healthy.size else "",
        region_words=sentences.region_words(case, findings),
        spectrum_words=sentences.spectrum_words(spectra, own) if spectra and own else "",
        figures=list(case.figures.items()),
        layers=[
            Layer(
                layer=cast(LayerName, name),
                address=f"/api/cases/{one.number}/layers/{name}.nii.gz",
                channels=channels_of(one, name),
            )
            for name in LAYERS
            if one.layer(name)
        ],
        map_scale=_scale(one),
        regions_found=[_found(region, grid) for region in case.regions or ()],
        slices=_slices(one, grid),
        overlay=f"/api/cases/{one.number}/overlay.png" if one.overlay else None,
    )


def _line(one: Shelved) -> dict[str, Any]:
    case = one.case
    return {
        "number": one.number,
        "name": case.name,
        "status": case.status if case.status in get_args(Status) else "scored",
        "kind": case.kind,
        "patient": case.patient,
        "anomaly": _known(case.anomaly),
        "p_value": _known(case.p_value),
        "regions": None if case.regions is None else len(case.regions),
        "error": case.error,
        "dropped": one.book.dropped,
    }


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _scale(one: Shelved) -> MapScale | None:
    """The same for all cases of a model, by its healthy images; without them the map's own."""
    path = one.layer("map")
    if path is None:
        return None
    found = map_scale(one.book.findings, (read_layer(file).values for file in [path]))
    threshold = found.threshold if math.isfinite(found.threshold) else top_of(path)
    return MapScale(low=found.low, high=found.high, threshold=threshold, unit=found.unit, own=not found.healthy)


def _found(region: Region, grid: Grid | None) -> Found:
    return Found(
        number=region.number,
        centre=region.centre,
        size=region.size,
        peak=_known(region.peak),
        q_value=_known(region.q_value),
        position=grid.position(region.position) if grid else None,
    )


def _slices(one: Shelved, grid: Grid | None) -> Slices | None:
    if grid is None or grid.dimensions != 3 or one.book.file("slices.csv") is None:
        return None
    own = read_slices(one.book.folder).get(one.case.stem)
    if own is None:
        return None
    return Slices(
        axis=slice_axis(one, grid),
        index=list(own.index),
        height_mm=[_known(height) for height in own.height_mm],
        anomaly=list(own.anomaly),
    )
