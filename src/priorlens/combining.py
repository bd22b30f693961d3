"""What several models say of the same images becomes one calibrated p-value an image.

Each model alone has a p-value for an image; the smallest of several would be small too often, and their product is no
p-value, as models that look at the same image agree. So the joined figure is itself ranked among healthy images, those
that all models were calibrated on: none of them was fitted to any of these.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from priorlens.conformal import FEWEST_PATIENTS, CombinationRule, combined_p_values, require_alpha, smallest_p_value
from priorlens.errors import InputError
from priorlens.result_folder import ANOMALY, ResultFolder
from priorlens.tables import Line, Table


@dataclass(frozen=True)
class CombinedImage:
    """One image.

    patient: empty where it is not known. own: p-value in each of the results, nan where it has none there.
    p_value: of all together, nan where one of them lacks it; `error` says which one and why, and is empty else.
    """

    file: str
    patient: str
    p_value: float
    own: tuple[float, ...]
    error: str


@dataclass(frozen=True)
class Combined:
    """All images of the results, in the order of the first, and how many healthy images they were held against."""

    images: tuple[CombinedImage, ...]
    healthy_images: int
    healthy_patients: int

    @property
    def smallest_p_value(self) -> float:
        """No image can get a smaller one, however abnormal it is."""
        return smallest_p_value(self.healthy_patients)

    def require(self, alpha: float) -> None:
        """Raises InputError where the healthy patients that all share cannot give a p-value as low as `alpha`."""
        require_alpha(alpha, self.healthy_patients)


def combine(results: Sequence[ResultFolder], rule: CombinationRule) -> Combined:
    """The p-values of all results together, whatever their dependence (`priorlens.conformal.combined_p_values`).

    Images are the same where results call them the same file, healthy images where their fingerprints are the same.

    Raises:
        InputError: two results are of one model and setup; they have too few healthy patients in common, or do not
            agree on whose those are; they have no scored image in common, or name different patients for one.
    """
    _require_different(results)
    healthy = [_by(one.calibration, "image") for one in results]
    shared = [image for image in healthy[0] if all(image in own for own in healthy)]
    patients = _patients_of(results, healthy, shared)
    calibration = np.array([[_anomaly(own[image]) for image in shared] for own in healthy])
    scored = [_by(one.scores, "file") for one in results]
    errors = {file: _reason(file, results, scored) for own in scored for file in own}
    usable = [file for file, reason in errors.items() if not reason]
    if not usable:
        raise InputError(
            f"{_names(results)}: have no scored image in common; score the same images, under the same paths, with each"
        )
    scores = np.array([[_anomaly(own[file]) for file in usable] for own in scored])
    found = dict(zip(usable, combined_p_values(scores, calibration, rule, patients).tolist(), strict=True))
    images = [
        CombinedImage(file, _patient(file, results, scored), found.get(file, math.nan), _own(file, scored), reason)
        for file, reason in errors.items()
    ]
    return Combined(tuple(images), len(shared), int(patients.max()) + 1)


def _require_different(results: Sequence[ResultFolder]) -> None:
    """Raises InputError where two are of the same model and setup: one detector would count twice."""
    seen: dict[tuple[str, str], ResultFolder] = {}
    for one in results:
        if other := seen.get((one.model, one.setup)):
            raise InputError(
                f"{one.path}: was scored by the same model in the same setup as {other.path}; leave one of the two out"
            )
        seen[one.model, one.setup] = one


def _by(table: Table, column: str) -> dict[str, Line]:
    """Its lines by a column that tells them apart. Raises InputError where it does not."""
    found: dict[str, Line] = {}
    for line in table.lines:
        name = line.cells[column]
        if name in found:
            raise InputError(f"{line.where}: {name} is listed a second time; score again")
        found[name] = line
    return found


def _patients_of(
    results: Sequence[ResultFolder], healthy: Sequence[Mapping[str, Line]], shared: Sequence[str]
) -> np.ndarray:
    """The number of each shared image's patient, from 0.

    Where no patients were named, each image is one, by a name that depends on the folder it lay in. So patients are the
    same where they are the same images, whatever their names.

    Raises InputError where results do not agree which images are one patient's, or share too few patients.
    """
    first, *others = [[own[image].cells["patient"] for image in shared] for own in healthy]
    for other, result in zip(others, results[1:], strict=True):
        if not len(set(first)) == len(set(other)) == len(set(zip(first, other, strict=True))):
            raise InputError(
                f"{result.path}: does not have the same healthy images for one patient's as {results[0].path}; "
                "calibrate both models with the same --group or --manifest, then score again"
            )
    if (count := len(set(first))) < FEWEST_PATIENTS:
        raise InputError(
            f"{_names(results)}: {count} healthy patients are in the calibration of all, at least {FEWEST_PATIENTS} "
            "are needed; fit to the same images with the same --seed and --aside, which keeps the same ones aside, or "
            "calibrate all with the same images"
        )
    return np.unique(np.array(first), return_inverse=True)[1]


def _reason(file: str, results: Sequence[ResultFolder], scored: Sequence[Mapping[str, Line]]) -> str:
    """Why an image cannot be used, by the first of the results that lacks it; empty where it can."""
    for result, own in zip(results, scored, strict=True):
        if file not in own:
            return f"{file}: is not in {result.path}; score it there too"
        if reason := own[file].cells["error"]:
            return reason
        if math.isnan(own[file].number(ANOMALY)):
            return f"{own[file].where}: {file} has no anomaly; score it again"
    return ""


def _anomaly(line: Line) -> float:
    """Raises InputError where it is missing."""
    if math.isnan(value := line.number(ANOMALY)):
        raise InputError(f"{line.where}: has no anomaly; run priorlens calibrate, then score again")
    return value


def _own(file: str, scored: Sequence[Mapping[str, Line]]) -> tuple[float, ...]:
    lines = [own.get(file) for own in scored]
    return tuple(line.number("p_value") if line and "p_value" in line.cells else math.nan for line in lines)


def _patient(file: str, results: Sequence[ResultFolder], scored: Sequence[Mapping[str, Line]]) -> str:
    """As any of the results names it. Raises InputError where two name different ones."""
    named: dict[str, ResultFolder] = {}
    for result, own in zip(results, scored, strict=True):
        if file in own and (patient := own[file].cells.get("patient", "")):
            named.setdefault(patient, result)
    if len(named) > 1:
        (one, at), (other, elsewhere), *_ = named.items()
        raise InputError(
            f"{file}: is of patient {one!r} in {at.path}, of {other!r} in {elsewhere.path}; score both with the same "
            "--group or --manifest"
        )
    return next(iter(named), "")


def _names(results: Sequence[ResultFolder]) -> str:
    return ", ".join(str(one.path) for one in results)
