"""Scores of healthy images become a calibration; images that cannot serve for one are refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

from priorlens.acquisition import acquisition
from priorlens.blocks import block_means
from priorlens.calibration import Calibration
from priorlens.conformal import FEWEST_PATIENTS, smallest_p_value
from priorlens.detectors import AnoDODE, KLIPModel, setup_of
from priorlens.errors import InputError
from priorlens.images import Image
from priorlens.preparation import as_image
from priorlens.provenance import Provenance, image_fingerprint, patient_fingerprint
from priorlens.scores import KEYS, HealthyStatistics

FARTHEST = 10.0
"""Standard deviations of the images held out by `fit`: where half of the images lie farther off, they are refused."""

LARGER = 2.0
"""How many times larger or smaller than those of the fit images may be."""

_AT_ONCE = 16


@dataclass(frozen=True)
class Entry:
    """One healthy image: fingerprints of it and of its patient, means of its map over blocks, its numbers by name."""

    image: str
    patient: str
    blocks: Float32[np.ndarray, " block"]
    values: Mapping[str, np.float32]


def entry(
    image: str,
    patient: str,
    anomaly_map: Float[np.ndarray, "*space"],
    values: Mapping[str, np.float32],
    spacing: Sequence[float] | None = None,
) -> Entry:
    """From an image's map, and its `feature_values`. spacing: of a scan, as of `blocks.block_sides`."""
    return Entry(image, patient, block_means(anomaly_map, spacing).ravel(), values)


def gathered(model: str, setup: str, entries: Iterable[Entry]) -> Calibration:
    """All of them together. Raises InputError for too few patients."""
    rows = list(entries)
    require_patients(len({row.patient for row in rows}))
    columns = {name: np.array([row.values[name] for row in rows], np.float32) for name in rows[0].values}
    return Calibration(
        model,
        setup,
        tuple(row.image for row in rows),
        tuple(row.patient for row in rows),
        columns.pop("anomaly"),
        tuple(row.blocks for row in rows),
        columns,
    )


def calibrate(
    detector: AnoDODE | KLIPModel, images: Sequence[Image | np.ndarray], patients: Sequence[str] | None = None
) -> Calibration:
    """Calibrate a fitted detector, as it is set up, on healthy images that it was not fitted to.

    patients: whose each image is; None, or where the detector was fitted without groups, each is a patient of its own.

    Raises:
        InputError: too few patients; an image or a patient that the detector was fitted to, an image that is there
            twice, or images of another form, size or kind than those of the fit.
    """
    named = [as_image(image, index) for index, image in enumerate(images)]
    prints = [image_fingerprint(image) for image in named]
    whose = [patient_fingerprint(patient) for patient in patients] if patients else prints
    if len(set(prints)) < len(prints):
        raise InputError("some of the healthy images are the same; leave repetitions out")
    for image, own, patient in zip(named, prints, whose, strict=True):
        if met := fitted_to(detector.provenance_, own, patient):
            raise InputError(f"{image.path}: {met}; calibrate with images that the model has never met")
        require_size(image, detector.provenance_.sides)
    entries = []
    for start in range(0, len(named), _AT_ONCE):
        scores = detector.score(named[start : start + _AT_ONCE])
        for i, anomaly_map in enumerate(scores.anomaly_map):
            figures = {name: float(column[i]) for name, column in scores.figures.items()}
            arrays = {name: arrays[i] for name, arrays in scores.arrays.items()}
            values = image_values(named[start + i], float(scores.anomaly[i]), figures, arrays, detector.tables_)
            entries.append(entry(prints[start + i], whose[start + i], anomaly_map, values))
    found = gathered("", setup_of(detector), entries)
    require_kind(found, detector.healthy_)
    return found


def image_values(
    image: Image,
    anomaly: float,
    figures: Mapping[str, float],
    arrays: Mapping[str, np.ndarray],
    columns: Mapping[str, tuple[str, ...]],
) -> dict[str, np.float32]:
    """`feature_values` of a scored image, with how it was acquired; of its arrays those that are tables."""
    tables = {name: arrays[name] for name in columns}
    return feature_values(anomaly, {**figures, **acquisition(image)}, tables, columns)


def feature_values(
    anomaly: float,
    figures: Mapping[str, float],
    tables: Mapping[str, Float[np.ndarray, "row column"]],
    columns: Mapping[str, tuple[str, ...]],
) -> dict[str, np.float32]:
    """All numbers of an image by name: its anomaly, its figures, and its spectrum as "bits@sigma=0.5"."""
    found = {"anomaly": anomaly, **figures}
    for name, rows in tables.items():
        keys = [column in KEYS for column in columns[name]]
        for row in rows:
            where = ",".join(f"{c}={v:g}" for c, v, key in zip(columns[name], row, keys, strict=True) if key)
            found |= {f"{c}@{where}": v for c, v, key in zip(columns[name], row, keys, strict=True) if not key}
    return {name: np.float32(value) for name, value in found.items()}


def fitted_to(fitted: Provenance, image: str, patient: str | None) -> str:
    """Why an image cannot serve, by its fingerprint and its patient's; empty where the model has not met it."""
    if image in fitted.images:
        return "the model was fitted to this image"
    return "the model was fitted to other images of this patient" if patient in fitted.patients else ""


def require_patients(count: int) -> None:
    """Raises InputError for fewer than `FEWEST_PATIENTS`."""
    if count < FEWEST_PATIENTS:
        worth = f" give{'s' * (count == 1)} no p-value below {smallest_p_value(count):.2g}" if count else ""
        raise InputError(
            f"{count} healthy patient{'s' * (count != 1)}{worth}: calibrate with at least {FEWEST_PATIENTS}, better 99"
        )


def require_size(image: Image, sides: tuple[int, int]) -> None:
    """Raises InputError for an image much larger or smaller than those of the fit."""
    (shortest, longest), (_, height, width) = sides, image.pixels.shape
    if not shortest / LARGER <= max(height, width) <= longest * LARGER:
        of_fit = f"{shortest}" if shortest == longest else f"{shortest} to {longest}"
        raise InputError(
            f"{image.path}: is {width}x{height} pixels, the longer side of the model's own images has {of_fit}; "
            "calibrate with images like those it was fitted to"
        )


def require_kind(found: Calibration, usual: HealthyStatistics | None) -> None:
    """Raises InputError where most images score as no image like those held out by `fit` would."""
    if usual is None or usual.anomaly_std <= 0:
        return
    distance = float(np.median(np.abs(found.anomaly - usual.anomaly_mean)) / usual.anomaly_std)
    if distance > FARTHEST:
        raise InputError(
            f"half of these images score {distance:.0f} standard deviations or more off the healthy images of the fit; "
            "give images of the same modality, body part and intensity scale"
        )
