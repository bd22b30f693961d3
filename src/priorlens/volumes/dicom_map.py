"""An anomaly map as a DICOM Parametric Map: float32 on the voxels of the scan, each frame naming the slice it is of."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32

from priorlens.volumes.dicom_files import Series
from priorlens.volumes.dicom_result import (
    DISCLAIMER,
    MAP_SERIES,
    MadeBy,
    coded_unit,
    identification,
    own_concept,
    refer_to_source,
    require_no_input,
    write_dicom,
)
from priorlens.volumes.dicom_source import Source, carrying_over, read_source

if TYPE_CHECKING:
    from pydicom import Dataset


def write_parametric_map(
    path: Path,
    series: Series,
    anomaly_map: Float32[np.ndarray, "i j k"],
    made_by: MadeBy,
    ends: tuple[float, float] | None = None,
) -> None:
    """Write the map of a scan as a new series of its study.

    ends: of the window that viewers open with; from the map's own median to its highest values where not given.

    Raises:
        InputError: the series has changed or lacks what a result must refer to.
        OutputError: the file cannot be written, or is one of the scan's own.
    """
    if not np.isfinite(anomaly_map).all():
        raise ValueError("a map with nan or infinite values")
    require_no_input(path, series)
    source = read_source(series)
    source.require_shape(anomaly_map.shape)
    with carrying_over(series):
        result = _map(source, anomaly_map, made_by, ends or _ends(anomaly_map))
        refer_to_source(result, source)
    write_dicom(path, result, source)


def _ends(anomaly_map: Float32[np.ndarray, "i j k"]) -> tuple[float, float]:
    low, high = (float(end) for end in np.quantile(anomaly_map, (0.5, 0.9999)))
    return low, high


def _map(
    source: Source, anomaly_map: Float32[np.ndarray, "i j k"], made_by: MadeBy, ends: tuple[float, float]
) -> Dataset:
    from highdicom import VOILUTTransformation
    from highdicom.pm import ParametricMap, RealWorldValueMapping

    low, high = ends
    identity = RealWorldValueMapping(
        lut_label="ANOMALY",
        lut_explanation="Anomaly: how unlike healthy training images",
        unit=coded_unit(made_by),
        value_range=(float(anomaly_map.min()), float(anomaly_map.max())),
        quantity_definition=own_concept("ANOMALY"),
    )
    window = VOILUTTransformation(
        window_center=(low + high) / 2, window_width=max(high - low, 1e-3), voi_lut_function="LINEAR_EXACT"
    )
    result = ParametricMap(
        source.planes,
        np.ascontiguousarray(anomaly_map.transpose(2, 1, 0)),
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[identity],
        voi_lut_transformations=[window],
        content_label="ANOMALY_MAP",
        content_description=DISCLAIMER,
        **identification(made_by, source, MAP_SERIES, "anomaly map"),
    )
    result.Laterality = source.header.get("Laterality", "")
    return result
