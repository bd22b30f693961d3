"""What was measured in a scan as a DICOM structured report (TID 1500) that names the scan and its segmentation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import priorlens
from priorlens.errors import InputError
from priorlens.regions import Region
from priorlens.volumes.dicom_files import Series
from priorlens.volumes.dicom_result import (
    DISCLAIMER,
    MANUFACTURER,
    REPORT_SERIES,
    MadeBy,
    abnormality,
    coded_unit,
    identification,
    long_string,
    own_concept,
    require_no_input,
    write_dicom,
)
from priorlens.volumes.dicom_source import Source, carrying_over, read_source

if TYPE_CHECKING:
    from highdicom.sr import (
        AlgorithmIdentification,
        ContainerContentItem,
        Measurement,
        MeasurementReport,
        MeasurementsAndQualitativeEvaluations,
        ObservationContext,
        VolumetricROIMeasurementsAndQualitativeEvaluations,
    )
    from pydicom import Dataset


@dataclass(frozen=True)
class ScanFigures:
    """Of a whole scan. anomaly: in the unit of `MadeBy`. p_value: of it; None where nothing was calibrated."""

    anomaly: float
    p_value: float | None = None


def write_measurements(
    path: Path,
    series: Series,
    segmentation: Path | None,
    regions: Sequence[Region],
    figures: ScanFigures,
    made_by: MadeBy,
) -> None:
    """Write what was measured of a scan and its regions as a new series of its study.

    segmentation: what `write_segmentation` wrote of the same regions; None where there are none. Of regions that it
    has no segment for, only their number is told.

    Raises:
        InputError: the series has changed or lacks what a result must refer to, or the segmentation cannot be read.
        OutputError: the file cannot be written, or is one of the scan's own.
    """
    if bool(regions) != (segmentation is not None) or any(region.unit != "mm" for region in regions):
        raise ValueError("regions, and only regions, need a segmentation; they must be in millimetres")
    require_no_input(path, series)
    source = read_source(series)
    with carrying_over(series):
        segmented = _read_segmentation(segmentation, source) if segmentation else None
        result = _document(source, segmented, regions, figures, made_by)
    write_dicom(path, result, source)


def _read_segmentation(path: Path, source: Source) -> Dataset:
    from pydicom import dcmread
    from pydicom.uid import SegmentationStorage

    try:
        dataset = dcmread(path, stop_before_pixels=True)
        known = dataset.SOPClassUID == SegmentationStorage and dataset.SegmentSequence[0].TrackingUID
        own = known and dataset.ReferencedSeriesSequence[0].SeriesInstanceUID == source.series.uid
    except Exception as error:  # a damaged file makes the reader fail in every way there is
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: is no segmentation that can be read ({reason}); write it again") from error
    if not own:
        raise InputError(f"{path}: is not a segmentation of {source.series.path} by priorlens; write it again")
    return dataset


def _document(
    source: Source, segmented: Dataset | None, regions: Sequence[Region], figures: ScanFigures, made_by: MadeBy
) -> Dataset:
    from highdicom.sr import Comprehensive3DSR

    segments = segmented.SegmentSequence if segmented is not None else []
    told = list(zip(regions, segments, strict=False))
    of_regions = [_region_group(source, segmented, segment, region, made_by) for region, segment in told]
    content = _content([_scan_group(source, figures, made_by), *of_regions], made_by)
    content[0].ContentSequence.append(_statements(_comments(regions, len(told), figures)))
    return Comprehensive3DSR(
        [*_evidence(source), *([segmented] if segmented is not None else [])],
        content,
        is_complete=True,
        **identification(made_by, source, REPORT_SERIES, "measurements"),
    )


def _content(
    groups: Sequence[MeasurementsAndQualitativeEvaluations | VolumetricROIMeasurementsAndQualitativeEvaluations],
    made_by: MadeBy,
) -> MeasurementReport:
    from highdicom.sr import MeasurementReport
    from pydicom.sr.codedict import codes

    return MeasurementReport(
        observation_context=_observer(made_by),
        procedure_reported=codes.cid100.ImagingProcedure,
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
    )


def _observer(made_by: MadeBy) -> ObservationContext:
    from highdicom.sr import DeviceObserverIdentifyingAttributes, ObservationContext, ObserverContext
    from pydicom.sr.codedict import codes

    attributes = DeviceObserverIdentifyingAttributes(
        uid=made_by.device,
        name=f"{MANUFACTURER} {priorlens.__version__}",
        manufacturer_name=MANUFACTURER,
        model_name=long_string(f"{made_by.method} {made_by.model}"),
        serial_number=long_string(made_by.fingerprint) or None,
    )
    return ObservationContext(observer_device_context=ObserverContext(codes.DCM.Device, attributes))


def _algorithm(made_by: MadeBy) -> AlgorithmIdentification:
    from highdicom.sr import AlgorithmIdentification

    return AlgorithmIdentification(long_string(f"priorlens {made_by.method}"), priorlens.__version__)


def _scan_group(source: Source, figures: ScanFigures, made_by: MadeBy) -> MeasurementsAndQualitativeEvaluations:
    """The figures of the whole scan, which name each image that they are of."""
    from highdicom.sr import (
        Measurement,
        MeasurementsAndQualitativeEvaluations,
        SourceImageForMeasurementGroup,
        TrackingIdentifier,
    )
    from pydicom.sr.codedict import codes

    measured = [Measurement(own_concept("ANOMALY"), float(figures.anomaly), coded_unit(made_by))]
    if figures.p_value is not None:
        measured.append(Measurement(own_concept("PVALUE"), float(figures.p_value), codes.UCUM.NoUnits))
    images = []
    for uid, references in source.files().items():
        frames = [reference.frame for reference in references if reference.frame is not None]
        images.append(SourceImageForMeasurementGroup(references[0].sop_class_uid, uid, sorted(frames) or None))
    return MeasurementsAndQualitativeEvaluations(
        TrackingIdentifier(identifier="scan", uid=_new_uid()),
        algorithm_id=_algorithm(made_by),
        measurements=measured,
        source_images=images,
    )


def _region_group(
    source: Source, segmented: Dataset | None, segment: Dataset, region: Region, made_by: MadeBy
) -> VolumetricROIMeasurementsAndQualitativeEvaluations:
    from highdicom.sr import (
        ReferencedSegment,
        SourceSeriesForSegmentation,
        TrackingIdentifier,
        VolumetricROIMeasurementsAndQualitativeEvaluations,
    )

    assert segmented is not None
    category, kind = abnormality()
    return VolumetricROIMeasurementsAndQualitativeEvaluations(
        TrackingIdentifier(identifier=segment.TrackingID, uid=segment.TrackingUID),
        referenced_segment=ReferencedSegment(
            segmented.SOPClassUID,
            segmented.SOPInstanceUID,
            int(segment.SegmentNumber),
            source_series=SourceSeriesForSegmentation(source.series.uid),
        ),
        finding_category=category,
        finding_type=kind,
        algorithm_id=_algorithm(made_by),
        measurements=list(_measured(region, made_by)),
    )


def _measured(region: Region, made_by: MadeBy) -> Iterator[Measurement]:
    """Volume, peak and mean; a q-value where there is one."""
    from highdicom.sr import Measurement
    from pydicom.sr.codedict import codes

    yield Measurement(codes.SCT.Volume, float(region.size), codes.UCUM.CubicMillimeter)
    for value, derivation in ((region.peak, codes.SCT.Maximum), (region.mean, codes.SCT.Mean)):
        yield Measurement(own_concept("ANOMALY"), float(value), coded_unit(made_by), derivation=derivation)
    if not math.isnan(region.q_value):
        yield Measurement(own_concept("QVALUE"), float(region.q_value), codes.UCUM.NoUnits)


def _comments(regions: Sequence[Region], told: int, figures: ScanFigures) -> Iterator[str]:
    yield f"Made by priorlens {priorlens.__version__}: {DISCLAIMER}. Not for diagnosis."
    yield (
        "Anomaly tells how unlike the healthy images a model was trained on the scan is, or a region of it; "
        "it does not tell what a region is, and a scan without regions is not thereby healthy."
    )
    if figures.p_value is None:
        yield "No p-value is given: this result is uncalibrated, its rate of false alarms is not known."
    if any(math.isnan(region.q_value) for region in regions):
        yield "Regions without a q-value are uncalibrated: their rate of false alarms is not known."
    if not regions:
        yield "No region was told."
    if told < len(regions):
        yield f"Of {len(regions)} regions the {told} with the highest peaks are listed."


def _statements(comments: Iterator[str]) -> ContainerContentItem:
    """Rows 12 and 14 of TID 1500, the place it has for free text."""
    from highdicom.sr import CodedConcept, ContainerContentItem, ContentSequence, TextContentItem
    from pydicom.sr.codedict import codes

    evaluations = CodedConcept("C0034375", "UMLS", "Qualitative Evaluations")
    container = ContainerContentItem(evaluations, relationship_type="CONTAINS")
    container.ContentSequence = ContentSequence(
        [TextContentItem(codes.DCM.Comment, text, relationship_type="CONTAINS") for text in comments]
    )
    return container


def _evidence(source: Source) -> list[Dataset]:
    """The files of the scan, each with whose it is."""
    from pydicom import Dataset

    found = []
    for uid, references in source.files().items():
        image = Dataset()
        image.update(source.header)
        image.SOPClassUID, image.SOPInstanceUID = references[0].sop_class_uid, uid
        found.append(image)
    return found


def _new_uid() -> str:
    from pydicom.uid import generate_uid

    return str(generate_uid(prefix=None))
