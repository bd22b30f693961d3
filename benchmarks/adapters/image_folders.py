"""Folders of images that come with a split: MVTec AD, and the medical data sets of BMAD.

MVTec AD: Bergmann et al. 2019, doi:10.1109/CVPR.2019.00982. BMAD: Bao et al. 2024, arXiv:2306.11876.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from benchmarks.adapters.made import existing_folder, fingerprint_of, made, placed, study_name
from benchmarks.study import Fold, Study
from priorlens.datasets import HEALTHY, visible_files
from priorlens.errors import InputError
from priorlens.images import IMAGE_SUFFIXES

ABNORMAL = "abnormal"
"""The kind of what BMAD calls Ungood."""

PATIENT = r"^(.+)[-_]\d+\.[^.]+$"
"""In names such as `00003_60.png`, whose last number is the slice."""

_IMAGES = "img"
_MASKS = ("label", "anomaly_mask", "mask", "masks", "ground_truth")  # as copies of BMAD call their folders of masks
_DEEP = 3  # folders below the one named in which a data set of BMAD is looked for


def mvtec(folder: Path, out: Path) -> Study:
    """One category: `train/good`, `test/<kind>`, `ground_truth/<kind>/X_mask.png`. Raises InputError."""
    existing_folder(folder, "train/good/, test/ and ground_truth/")
    for part in (f"train/{HEALTHY}", f"test/{HEALTHY}"):
        if not _images(folder / part):
            raise InputError(f"{folder}: holds no images in {part}/; name the folder of one category of MVTec AD")
    found = [path for part in ("train", "test", "ground_truth") for path in _images(folder / part)]

    def make(place: Path) -> Study:
        for path in found:
            part, kind, *below = path.relative_to(folder).parts
            # Numbers begin anew in every kind, but the object is another.
            placed(path, place / part / kind / f"{kind}_{'_'.join(below)}")
        about = f"photographs of objects, {folder.resolve().name} of MVTec AD"
        return Study(study_name("mvtec", folder), (Fold(place),), "range", False, about)

    return made(out, study_name("mvtec", folder), fingerprint_of(folder, found), make)


@dataclass(frozen=True)
class _Bmad:
    """One data set of BMAD: images of `train/good`, `test/good` and `test/Ungood`, and the masks of the last.

    strange: folders beside the images which may be masks, but have no name of such.
    """

    folder: Path
    train: list[Path]
    good: list[Path]
    abnormal: list[Path]
    masks: list[Path]
    strange: list[Path]


def bmad(folder: Path, out: Path) -> Study:
    """Brain, liver and retina, with masks, and those without: train and test of BMAD's split; `valid` is not used.

    Folders are `test/Ungood/img` and `test/Ungood/label`, as in BMAD's brain, or `test/img/Ungood` and
    `test/label/Ungood`, as in its liver, or `test/Ungood`; in upper or lower case, and up to three folders down, where
    the study has its name from. Folders beside `img` that are none of these are told on standard error.

    Raises:
        InputError: something of this is missing, or is there several times, or every patient to learn from is in the
            test set too.
    """
    existing_folder(folder, "train/good/, test/good/ and test/Ungood/")
    found = _find_bmad(folder)
    folder = found.folder
    if found.strange:
        names = ", ".join(map(str, found.strange))
        print(f"left out, for masks are looked for in {', '.join(_MASKS)}: {names}", file=sys.stderr)
    group = _patients(found)
    train = found.train
    if group:
        judged = {_patient(group, path) for path in found.good + found.abnormal}
        train = [path for path in found.train if _patient(group, path) not in judged]
    if not train:
        raise InputError(f"{folder}: all patients of train/good are in test too; nothing is left to learn from")
    used = [*train, *found.good, *found.abnormal, *found.masks]

    def make(place: Path) -> Study:
        _place(replace(found, train=train), place, group)
        about = _about(folder, found, len(found.train) - len(train), group)
        return Study(study_name("bmad", folder), (Fold(place),), _intensity(folder), False, about, group)

    return made(out, study_name("bmad", folder), fingerprint_of(folder, used, group), make)


def _place(found: _Bmad, place: Path, group: str | None) -> None:
    """Where no patient is told, names say the kind too: equal ones in two kinds would be taken for one patient."""
    masks = {path.stem.removesuffix("_mask"): path for path in found.masks}
    kinds = ((f"train/{HEALTHY}", found.train), (f"test/{HEALTHY}", found.good), (f"test/{ABNORMAL}", found.abnormal))
    for part, paths in kinds:
        start = "" if group else part.rpartition("/")[2] + "_"
        for path in paths:
            placed(path, place / part / f"{start}{path.name}")
            if part.endswith(ABNORMAL) and path.stem in masks:
                mask = masks[path.stem]
                placed(mask, place / "ground_truth" / ABNORMAL / f"{start}{path.stem}{mask.suffix}")


def _find_bmad(folder: Path) -> _Bmad:
    """The one in the folder, or below it. Raises InputError where there is none, or several."""
    found, below = list[_Bmad](), [folder]
    for _ in range(_DEEP + 1):
        read = {place: _read_bmad(place) for place in below}
        found += [one for one in read.values() if one]
        below = [sub for place, one in read.items() if not one for sub in _folders(place)]
    if not found:
        raise InputError(
            f"{folder}: holds no images in train/good/, test/good/ and test/Ungood/; name a data set of BMAD"
        )
    if len(found) > 1:
        names = ", ".join(one.folder.relative_to(folder).as_posix() for one in found)
        raise InputError(f"{folder}: holds several data sets of BMAD ({names}); name one of them")
    return found[0]


def _read_bmad(place: Path) -> _Bmad | None:
    train, good = _of(place, "train", HEALTHY), _of(place, "test", HEALTHY)
    masks = _of(place, "test", "ungood", _MASKS)
    apart = set(masks)  # in some copies they lie among the images
    abnormal = [path for path in _of(place, "test", "ungood") if path not in apart]
    return _Bmad(place, train, good, abnormal, masks, _strange(place)) if train and good and abnormal else None


def _strange(place: Path) -> list[Path]:
    """Folders beside those of abnormal images, in either way to nest them, of which nothing is known."""
    known = {HEALTHY, "ungood", _IMAGES, *_MASKS}
    around = [part for parts in (("test",), ("test", "ungood")) if (part := _below(place, parts))]
    beside = [sub for part in around if _below(part, (_IMAGES,)) for sub in _folders(part)]
    return [sub for sub in beside if sub.name.lower() not in known]


def _folders(place: Path) -> list[Path]:
    return sorted(sub for sub in place.iterdir() if sub.is_dir() and not sub.name.startswith("."))


def _of(place: Path, split: str, kind: str, inner: Sequence[str] = ()) -> list[Path]:
    """The images of a kind of a split, or with `inner` its masks, in whichever of the layouts."""
    names = inner or (_IMAGES,)
    layouts: list[tuple[str, ...]] = [(split, kind, name) for name in names]
    layouts += [(split, name, kind) for name in names]
    if not inner:
        layouts.append((split, kind))
    for parts in layouts:
        if (found := _below(place, parts)) and (images := _images(found)):
            return images
    return []


def _below(place: Path, parts: Sequence[str]) -> Path | None:
    """A folder by the names of its parts, whatever their case."""
    for part in parts:
        found = [sub for sub in place.iterdir() if sub.is_dir() and sub.name.lower() == part]
        if not found:
            return None
        place = found[0]
    return place


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in visible_files(folder) if path.suffix.lower() in IMAGE_SUFFIXES)


def _patients(found: _Bmad) -> str | None:
    """The expression that finds patients, if it fits all names and tells some apart in training and test."""
    both = (found.train, found.good + found.abnormal)
    if not all(re.search(PATIENT, path.name) for paths in both for path in paths):
        return None
    return PATIENT if all(len({_patient(PATIENT, path) for path in paths}) > 1 for paths in both) else None


def _patient(group: str, path: Path) -> str:
    named = re.search(group, path.name)
    assert named  # `_patients` has asked
    return named[1]


def _intensity(folder: Path) -> Literal["range", "percentile"]:
    """CT of BMAD is windowed; its other images have whatever scale their scanners gave them."""
    names = [part.lower() for part in folder.resolve().parts[-2:]]
    return "range" if any(name.startswith(("liver", "hist_diy")) for name in names) else "percentile"


def _about(folder: Path, found: _Bmad, left_out: int, group: str | None) -> str:
    about = f"{folder.resolve().name} of BMAD, its own split"
    if not found.masks:
        about += ", without masks"
    if not group:
        about += ", patients not told"
    if left_out:
        about += f"; {left_out} training images of patients in the test set left out"
    return about
