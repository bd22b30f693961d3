"""Folders of volumes become studies of slices: patients are drawn and split, each volume is read once and cut."""

from __future__ import annotations

import math
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from benchmarks.adapters.made import drawn, fingerprint_of, folds_of, made, study_name
from benchmarks.adapters.slices import GROUP, HEIGHT, ToGrey, write_slices
from benchmarks.study import Fold, Study
from priorlens.datasets import HEALTHY
from priorlens.errors import InputError
from priorlens.volumes.scans import LESION
from priorlens.volumes.volume import Volume

MOST_PATIENTS = 120
"""Drawn from a larger data set: more slices than a benchmark looks at."""

SLICES = 1200
"""About so many healthy slices and so many abnormal ones are cut in all, but at least `LEAST_SLICES` of each scan."""

LEAST_SLICES = 16

SCANS_IN_FULL = 30
"""Where volumes are aligned, every slice of so many is cut, every second of twice as many, and so on: at equal heights.
"""


@dataclass(frozen=True)
class Cut:
    """A volume that was read, and what becomes of it; see `write_slices`."""

    volume: Volume
    lesion: Bool[np.ndarray, "i j k"] | None
    inside: Bool[np.ndarray, "i j k"]
    to_grey: ToGrey
    least: float
    clear: bool = True


@dataclass(frozen=True)
class Source:
    """One volume before it is read.

    files: what it is read from. only_judged: nothing is learned from this patient. folder: in which methods for whole
    scans find it; None where they do not.
    """

    patient: str
    files: tuple[Path, ...]
    read: Callable[[], Cut]
    only_judged: bool = False
    folder: Path | None = None


@dataclass(frozen=True)
class Taken:
    """Which slices of a scan are cut: at most so many, and every so manieth to learn from and to judge.

    See `write_slices`.
    """

    most: int = 0
    every_learned: int = 1
    every_judged: int = 1


@dataclass(frozen=True)
class Kind:
    """What all volumes of a layout share. about: without numbers. aligned: whether equal numbers are equal heights."""

    layout: str
    about: str
    aligned: bool = False
    abnormal: str = LESION


def scan_study(kind: Kind, sources: Sequence[Source], root: Path, out: Path, count: int | None = None) -> Study:
    """Cut the volumes under `root`; those that cannot be read are left out and told on standard error.

    count: of folds, see `folds_of`.

    Raises:
        InputError: fewer than two patients to learn from, or none of the volumes can be read.
    """
    chosen = set(drawn((s.patient for s in sources if not s.only_judged), MOST_PATIENTS))
    chosen |= set(drawn((s.patient for s in sources if s.only_judged), MOST_PATIENTS))
    kept = [source for source in sources if source.patient in chosen]
    folds = _folds(kept, root, count)
    name = study_name(kind.layout, root)
    files = {path for source in kept for path in source.files}
    folders = [str(source.folder) for source in kept if source.folder]
    fingerprint = fingerprint_of(root, files, kind, SLICES, LEAST_SLICES, SCANS_IN_FULL, folds, *folders)

    def make(place: Path) -> Study:
        read = write_folds(kept, folds, place, _taken(kind, len(kept)), root, kind.abnormal)
        about = f"{kind.about}; {len({source.patient for source in kept})} patients"
        if len(folds) > 1:
            about += f", {len(folds)} folds"
        if len(read) < len(kept):
            about += f"; {len(kept) - len(read)} scans could not be read"
        height = HEIGHT if kind.aligned else None
        parts = tuple(
            Fold(place / f"fold{i}", scan_folders(read, learned), scan_folders(read, judged))
            for i, (learned, judged) in enumerate(folds)
        )
        return Study(name, parts, "range", False, about, GROUP, height)

    return made(out, name, fingerprint, make)


def _folds(sources: Sequence[Source], root: Path, count: int | None) -> list[tuple[list[str], list[str]]]:
    """Patients who are only judged come to the folds in turn."""
    only_judged = sorted({source.patient for source in sources if source.only_judged})
    learned = sorted({source.patient for source in sources} - set(only_judged))
    folds = folds_of(learned, root, count)
    return [(learn, judge + only_judged[i :: len(folds)]) for i, (learn, judge) in enumerate(folds)]


def _taken(kind: Kind, scans: int) -> Taken:
    every = math.ceil(scans / SCANS_IN_FULL)
    return Taken(0, every, every) if kind.aligned else Taken(max(LEAST_SLICES, SLICES // scans))


def scan_folders(sources: Sequence[Source], patients: Sequence[str]) -> tuple[Path, ...]:
    """Folders of the patients' scans; none at all unless each has one that is named as its slices are."""
    of_these = [source for source in sources if source.patient in patients]
    found = {in_names(one.patient): one.folder for one in of_these if one.folder}
    named = tuple(folder for name, folder in found.items() if folder.name == name)
    return named if len(named) == len(of_these) else ()


def write_folds(
    sources: Sequence[Source],
    folds: Sequence[tuple[Sequence[str], Sequence[str]]],
    place: Path,
    taken: Taken,
    root: Path,
    abnormal: str,
) -> list[Source]:
    """Cut all slices of all folds, patients to learn from and to judge, into `place/fold0`, `fold1`, ...

    Returns the volumes that could be read; the others are told on standard error. Raises InputError where none could,
    or too few for each fold.
    """
    scans: Counter[str] = Counter()
    errors: list[InputError] = []
    read: list[Source] = []
    for source in sources:
        try:
            cut = source.read()
        except InputError as error:
            errors.append(error)
            print(f"left out: {error}", file=sys.stderr)
            continue
        read.append(source)
        scans[source.patient] += 1
        count = scans[source.patient]
        name = in_names(source.patient) + (f"_t{count}" if count > 1 else "")
        for i, (learned, judged) in enumerate(folds):
            if source.patient in learned or source.patient in judged:
                _cut(cut, place / f"fold{i}", name, taken, source.patient in judged, abnormal)
    if not read:
        raise errors[0]
    for i in range(len(folds)):
        for split in ("train", "test"):
            if not (place / f"fold{i}" / split / HEALTHY).is_dir():
                raise InputError(f"{root}: has too few patients with healthy slices, none is left to {split}")
    return read


def in_names(patient: str) -> str:
    """Without what would end the patient's name in that of a slice."""
    return re.sub(r"_(?=[zt]\d)|[^\w.-]+", "-", patient)


def _cut(cut: Cut, fold: Path, name: str, taken: Taken, judged: bool, abnormal: str) -> None:
    write_slices(
        cut.volume,
        cut.lesion,
        fold,
        name,
        to_grey=cut.to_grey,
        inside=cut.inside,
        least=cut.least,
        most=taken.most,
        every=taken.every_judged if judged else taken.every_learned,
        judged=judged,
        clear=cut.clear,
        kind=abnormal,
    )
