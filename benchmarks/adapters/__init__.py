"""Layouts that people have, each turned into a `Study` of the folders that methods see."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.adapters.brats import brats
from benchmarks.adapters.fastmri import fastmri
from benchmarks.adapters.image_folders import bmad, mvtec
from benchmarks.adapters.livers import chaos, lits, msd
from benchmarks.study import Study

LAYOUTS: dict[str, Callable[[Path, Path], Study]] = {
    "bmad": bmad,
    "mvtec": mvtec,
    "brats": brats,
    "msd": msd,
    "lits": lits,
    "chaos": chaos,
    "fastmri": fastmri,
}
"""From a folder in that layout and the output folder. All raise InputError where it is another layout."""
