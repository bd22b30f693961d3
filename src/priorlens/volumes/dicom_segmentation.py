"""Regions that stand out as a DICOM Segmentation: a binary segment each, on the voxels of the scan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int, UInt8

import priorlens
from priorlens.regions import Region
from priorlens.volumes.dicom_files import Series
from priorlens.volumes.dicom_result import (
    DISCLAIMER,
    MANUFACTURER,
    SEGMENTATION_SERIES,
    MadeBy,
    abnormality,
    identification,
    long_string,
    refer_to_source,
    require_no_input,
    write_dicom,
)
from priorlens.volumes.dicom_source import Source, carrying_over, read_source

if TYPE_CHECKING:
    from highdicom.seg import SegmentDescription
    from pydicom import Dataset

MAX_SEGMENTS = 255
"""Regions that are written; those with the highest peaks come first."""


@dataclass(frozen=True)
class SegmentationFile:
    """What was written. path: None where there is no region, since a segmentation cannot be empty. segments: how many
    regions are in it. warning: one line where that is not all of them, else empty."""

    path: Path | None
    segments: int
    warning: str = ""


def write_segmentation(
    path: Path, series: Series, labels: Int[np.ndarray, "i j k"], regions: Sequence[Region], made_by: MadeBy
) -> SegmentationFile:
    """Write the regions of a scan as a new series of its study; without regions nothing is written.

    labels: at each voxel the number of its region, from 1; 0 is none (`priorlens.regions.find_regions`).

    Raises:
        InputError: the series has changed or lacks what a result must refer to.
        OutputError: the file cannot be written, or is one of the scan's own.
    """
    require_no_input(path, series)
    if not regions:
        return SegmentationFile(None, 0)
    segments = min(len(regions), MAX_SEGMENTS)
    kept = np.where(labels <= segments, labels, 0).astype(np.uint8)
    numbers = np.unique(kept[kept > 0]).tolist()
    if labels.min() < 0 or labels.max() > len(regions) or numbers != list(range(1, segments + 1)):
        raise ValueError(f"labels that are not those of {len(regions)} regions")
    source = read_source(series)
    source.require_shape(labels.shape)
    with carrying_over(series):
        result = _segmentation(source, kept, segments, made_by)
        refer_to_source(result, source)
    write_dicom(path, result, source)
    warning = f"{path}: holds the first {segments} of {len(regions)} regions; a DICOM segmentation takes no more"
    return SegmentationFile(path, segments, warning if segments < len(regions) else "")


def _segmentation(source: Source, labels: UInt8[np.ndarray, "i j k"], segments: int, made_by: MadeBy) -> Dataset:
    from highdicom.seg import Segmentation

    return Segmentation(
        source.planes,
        np.ascontiguousarray(labels.transpose(2, 1, 0)),
        segmentation_type="BINARY",
        segment_descriptions=[_segment(number, made_by) for number in range(1, segments + 1)],
        content_label="REGIONS",
        content_description=DISCLAIMER,
        **identification(made_by, source, SEGMENTATION_SERIES, "regions", own_concepts=False),
    )


def _segment(number: int, made_by: MadeBy) -> SegmentDescription:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.seg import SegmentDescription
    from pydicom.sr.codedict import codes
    from pydicom.uid import generate_uid

    category, kind = abnormality()
    return SegmentDescription(
        segment_number=number,
        segment_label=f"region {number}: unlike healthy training images",
        segmented_property_category=category,
        segmented_property_type=kind,
        algorithm_type="AUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            name=long_string(f"priorlens {made_by.method}"),
            family=codes.cid7162.ArtificialIntelligence,
            version=priorlens.__version__,
            source=MANUFACTURER,
        ),
        tracking_id=f"region {number}",
        tracking_uid=generate_uid(prefix=None),
    )
