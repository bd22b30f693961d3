"""All studies, by name: those of `--data`, and those made from data that packages bring along."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from benchmarks.brats_slices import brats_study
from benchmarks.study import Fold, Study
from priorlens.errors import InputError

Make = Callable[[Path | None, Path, bool], Study | None]
"""From the folder of `--data`, the output folder and `--quick`; None where the data are not there."""

EMBEDDED = ("mni152", "fashion_mnist", "digits")
"""For anyone without `--data`."""

IN_BRIEF = ("head_ct", "brats")
"""What `--quick` takes of `--data` unless told otherwise: planted and real, images and volumes."""

EMBEDDED_IN_BRIEF = ("mni152", "digits")
"""The same without `--data`: with masks and without."""

FOLDS = 2
"""Of BraTS, unless `--folds` says otherwise."""


def _as_it_is(
    name: str,
    intensity: Literal["range", "percentile"],
    planted: bool,
    about: str,
    group: str | None = None,
    doubled: bool = False,
) -> Make:
    """A folder of `--data` in the layout of a study. doubled: images are known to be in training and test."""

    def make(data: Path | None, out: Path, quick: bool) -> Study | None:
        if data is None or not (data / name / "train").is_dir():
            return None
        from benchmarks.twins import twins

        left_out = twins(data / name) if doubled else ()
        told = f"{about}; {len(left_out)} training images that are test images too are left out" if left_out else about
        return Study(name, (Fold(data / name, left_out=left_out),), intensity, planted, told, group)

    return make


def _embedded(function: str) -> Make:
    def make(data: Path | None, out: Path, quick: bool) -> Study | None:
        found: Study | None = getattr(importlib.import_module("benchmarks.adapters.embedded"), function)(out, quick)
        return found

    return make


def _brats(folds: int) -> Make:
    def make(data: Path | None, out: Path, quick: bool) -> Study | None:
        return brats_study(data / "brats", out, folds) if data and (data / "brats").is_dir() else None

    return make


def registry(folds: int = FOLDS) -> dict[str, Make]:
    """In the order of the tables."""
    return {
        "brain_mri": _as_it_is(
            "brain_mri",
            "percentile",
            False,
            "brain MRI of mixed contrast and plane; tumours are real, but come from another collection than the "
            "healthy images, which inflates the image figures of every method",
            doubled=True,
        ),
        "head_ct": _as_it_is("head_ct", "range", True, "CT of the head, 64x64; bleeds are planted"),
        "liver_ct": _as_it_is(
            "liver_ct",
            "range",
            True,
            "contrast CT of the abdomen; lesions in the liver and star artefacts are planted",
            r"^(\d+)_",
        ),
        "brats": _brats(folds),
        **{name: _embedded(name) for name in EMBEDDED},
    }


def studies(
    data: Path | None,
    out: Path,
    quick: bool,
    names: Sequence[str] = (),
    layout: str | None = None,
    folds: int | None = None,
) -> list[Study]:
    """Those named; else those that `data` holds, or without it the embedded ones, as far as their data are there.

    With `quick`, those of `IN_BRIEF` or `EMBEDDED_IN_BRIEF`, unless others are named or none of these are there. With a
    `layout`, the one that `data` holds in it. folds: of BraTS.

    Raises:
        InputError: an unknown name or layout, no such folder, a named study without its data, names beside a layout, or
            folds of anything but BraTS.
    """
    if data is not None and not data.is_dir():
        raise InputError(f"{data}: there is no such folder; --data names one that holds studies, or is in a --layout")
    if layout is not None:
        if names:
            raise InputError(
                f"--studies beside --layout {layout}: the only study is that in --data; leave one of them out"
            )
        return [_in_layout(layout, data, out, folds)]
    known = registry(folds or FOLDS)
    if unknown := [name for name in names if name not in known]:
        raise InputError(f"{unknown[0]}: is no study; there are {', '.join(known)}")
    in_data = [name for name in known if name not in EMBEDDED]
    of_all = EMBEDDED if data is None else in_data
    in_brief = EMBEDDED_IN_BRIEF if data is None else IN_BRIEF
    found = {name: known[name](data, out, quick) for name in names or (in_brief if quick else of_all)}
    if quick and not names and not any(found.values()):  # what is wanted in brief is not there
        found = {name: known[name](data, out, quick) for name in of_all}
    if missing := [name for name in names if found[name] is None]:
        where = f"not under {data}" if data else "found with --data DIR"
        raise InputError(f"{missing[0]}: its images are {where}; leave it out or name the folder that holds it")
    if absent := [name for name, study in found.items() if study is None]:
        where = f"not under {data}" if data else "no --data"
        print(f"left out, for their images are not here ({where}): {', '.join(absent)}", file=sys.stderr)
    if folds is not None and found.get("brats") is None:
        raise InputError("--folds: is of brats alone, which is not among the studies; leave it out")
    return [study for study in found.values() if study is not None]


def _in_layout(layout: str, data: Path | None, out: Path, folds: int | None) -> Study:
    from benchmarks.adapters import LAYOUTS
    from benchmarks.adapters.brats import brats

    if layout not in LAYOUTS:
        raise InputError(f"{layout}: is no layout; there are {', '.join(LAYOUTS)}")
    if data is None:
        raise InputError(f"--layout {layout} needs the folder: --data DIR")
    if folds is None:
        return LAYOUTS[layout](data, out)
    if layout != "brats":
        raise InputError(f"--folds beside --layout {layout}: is of brats alone; leave it out")
    return brats(data, out, folds)
