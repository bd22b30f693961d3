"""What `priorlens score` wrote becomes streams: scans in the order of time, and the calibration they are held against.

The unit of both is the patient where patients are known, else the image: a patient's figures are the means over all
images of the patient in the stream, at the time of the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from priorlens.errors import InputError
from priorlens.result_folder import ANOMALY, SCORES, SPECTRUM, ResultFolder, read_result_folder
from priorlens.scores import KEYS
from priorlens.tables import Line, read_table
from priorlens.timetable import ONE_STREAM, Moment, read_times


@dataclass(frozen=True)
class Stream:
    """Scans of one scanner or site in the order of time.

    files: of each scan; of a patient, the first. times: as the table of times has them; empty without one.
    features: of each scan by name, the anomaly first.
    """

    name: str
    files: tuple[str, ...]
    times: tuple[str, ...]
    features: Mapping[str, Float64[np.ndarray, " time"]]


@dataclass(frozen=True)
class Streams:
    """All that there is to watch.

    calibration: features of the healthy scans, by the names that all streams have. model, setup: what scored them.
    by_patient: whether a scan is a patient, not an image. failed: images that could not be scored and are left out.
    notes: what a user should know of the features and the patients, a line each.
    """

    streams: tuple[Stream, ...]
    calibration: Mapping[str, Float64[np.ndarray, " healthy"]]
    model: str
    setup: str
    by_patient: bool
    failed: int
    notes: tuple[str, ...]


@dataclass
class _Image:
    """A scored image. patient: empty where it is not known."""

    file: str
    patient: str
    features: dict[str, float] = field(default_factory=dict)


def read_streams(folders: Sequence[Path], times: Path | None = None) -> Streams:
    """Streams of all scored images in `folders`, which `priorlens score` wrote with one calibrated model.

    Without `times` they are one stream, in the order of `folders` and of the lines of each.

    Raises:
        InputError: a folder was not scored, or not with a calibration, or with another than the first; an image is
            there twice or nowhere; scans of one stream were taken at the same time; what `read_times` says.
    """
    results = [read_result_folder(folder) for folder in folders]
    first = _of_one_model(results)
    healthy = first.calibration
    names = watched([ANOMALY, *(name for name in healthy.columns if name not in ("image", "patient", ANOMALY))])
    images, failed = _scored_images(results, names)
    moments = read_times(times, [image.file for image in images]) if times else {}
    by_patient = any(image.patient for image in images)
    known = [_Image(line.cells["image"], line.cells["patient"], _numbers(line, names)) for line in healthy.lines]
    if by_patient and len(_units(known)) == len(known) and len(_units(images)) < len(images):
        raise InputError(
            f"{healthy.path}: does not know which healthy images are one patient's, {SCORES} does; calibrate with "
            "--group, or score without it"
        )
    kept = _defined_everywhere(names, known + images)
    if ANOMALY not in kept:
        raise InputError(f"{healthy.path}: a healthy image has no anomaly; run priorlens calibrate, then score again")
    in_streams: dict[str, list[_Image]] = {}
    for image in images:
        in_streams.setdefault(moments[image.file].stream if moments else ONE_STREAM, []).append(image)
    return Streams(
        tuple(_stream(name, images, moments, kept) for name, images in in_streams.items()),
        _features(_units(known) if by_patient else [[image] for image in known], kept),
        first.model,
        first.setup,
        by_patient,
        failed,
        tuple(_notes(healthy.path, known, by_patient, [name for name in names if name not in kept])),
    )


def watched(names: Sequence[str]) -> list[str]:
    """Of a calibration's features those to watch: of a spectrum, at each place, the first value and the last alone.

    They are the plain surprise and that of the widest neighbourhood. What lies between moves with them, and every
    feature more makes the stakes of the others smaller.
    """
    places: dict[str, list[str]] = {}
    for name in names:
        _, _, place = name.partition("@")
        places.setdefault(place, []).append(name)
    ends = {name for place, there in places.items() if place for name in (there[0], there[-1])}
    return [name for name in names if "@" not in name or name in ends]


def _of_one_model(folders: Sequence[ResultFolder]) -> ResultFolder:
    """The first, whose model, setup and calibration are those of all. Raises InputError."""
    first = folders[0]
    for folder in folders:
        if (folder.model, folder.setup) != (first.model, first.setup):
            raise InputError(
                f"{folder.path}: was scored by another model or another setup than {first.path}; "
                "score them again with one"
            )
        if [line.cells for line in folder.calibration.lines] != [line.cells for line in first.calibration.lines]:
            raise InputError(f"{folder.path}: was scored with another calibration than {first.path}; score them again")
    if not first.calibration.lines:
        raise InputError(f"{first.calibration.path}: lists no healthy image; calibrate, then score again")
    return first


def _scored_images(folders: Sequence[ResultFolder], names: Sequence[str]) -> tuple[list[_Image], int]:
    """The images of all folders in their order, and how many more could not be scored. Raises InputError."""
    images: dict[str, _Image] = {}
    failed = 0
    for folder in folders:
        own = {}
        for line in folder.scores.lines:
            file = line.cells["file"]
            if line.cells["error"] or np.isnan(line.number(ANOMALY)):
                failed += 1
            elif file in images or file in own:
                raise InputError(f"{line.where}: {file} was scored already; leave one of the two out")
            else:
                own[file] = _Image(file, line.cells.get("patient", ""), _numbers(line, names))
        _add_spectrum(folder.path / SPECTRUM, own, names)
        images |= own
    if not images:
        raise InputError(
            f"{', '.join(str(folder.path) for folder in folders)}: no scan was scored; there is nothing to watch"
        )
    return list(images.values()), failed


def _add_spectrum(path: Path, images: Mapping[str, _Image], names: Sequence[str]) -> None:
    """Each value of the table becomes a feature of its image, named as `priorlens.calibrating.feature_values` does."""
    if not path.is_file():
        return
    table, wanted = read_table(path, ("file",), file_names=True), set(names)
    keys = [column for column in table.columns if column in KEYS]
    values = [column for column in table.columns if column not in ("file", *keys)]
    for line in table.lines:
        if (image := images.get(line.cells["file"])) is None:
            continue
        place = ",".join(f"{key}={line.number(key):g}" for key in keys)
        image.features |= {f"{c}@{place}": line.number(c) for c in values if f"{c}@{place}" in wanted}
    places = {name for name in wanted if "@" in name}
    for image in images.values():
        if not places <= image.features.keys():
            raise InputError(f"{path}: lines of {image.file} are missing; score it again")


def _numbers(line: Line, names: Sequence[str]) -> dict[str, float]:
    return {name: line.number(name) for name in names if name in line.cells}


def _defined_everywhere(names: Sequence[str], images: Sequence[_Image]) -> list[str]:
    return [name for name in names if not any(np.isnan(image.features.get(name, np.nan)) for image in images)]


def _notes(path: Path, known: Sequence[_Image], by_patient: bool, left_out: Sequence[str]) -> list[str]:
    notes = []
    if left_out:
        shown = ", ".join(left_out[:3]) + (", ..." if len(left_out) > 3 else "")
        notes.append(f"{len(left_out)} features are not watched, as some scans do not have them: {shown}")
    patients = len(_units(known))
    if not by_patient and patients < len(known):
        notes.append(
            f"{path}: {len(known)} images of {patients} patients, but no patient is named in {SCORES}: scans of one "
            "patient are taken for independent, and false alarms may exceed alpha; score again with --group"
        )
    return notes


def _stream(name: str, images: Sequence[_Image], moments: Mapping[str, Moment], names: Sequence[str]) -> Stream:
    """Raises InputError where two scans have the same time."""
    if not moments:
        units = _units(images)
        return Stream(name, tuple(unit[0].file for unit in units), (), _features(units, names))
    in_time = sorted(images, key=lambda image: moments[image.file].value)
    units = _units(in_time)
    first = [moments[unit[0].file] for unit in units]
    for i in range(1, len(first)):
        if first[i].value == first[i - 1].value:
            one, other = units[i - 1][0].file, units[i][0].file
            raise InputError(
                f"{first[i].where}: {one} and {other} have the same time {first[i].text}; give times that differ"
            )
    files, texts = tuple(unit[0].file for unit in units), tuple(moment.text for moment in first)
    return Stream(name, files, texts, _features(units, names))


def _units(images: Sequence[_Image]) -> list[list[_Image]]:
    """Images of one patient together, in the order of each patient's first; one whose patient is not known alone."""
    units: dict[tuple[str, str], list[_Image]] = {}
    for image in images:
        units.setdefault(("patient", image.patient) if image.patient else ("file", image.file), []).append(image)
    return list(units.values())


def _features(units: Sequence[Sequence[_Image]], names: Sequence[str]) -> dict[str, Float64[np.ndarray, " unit"]]:
    """Means over the images of each unit."""
    return {name: np.array([np.mean([image.features[name] for image in unit]) for unit in units]) for name in names}
