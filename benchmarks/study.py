"""A data set as every method sees it: folders of images in one layout, whatever it was made from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Fold:
    """What is learned from, and what is judged: `train/good`, `test/<kind>` and `ground_truth/<kind>` in `folder`.

    scans: the volumes that the training slices were cut from, and `judged` those of the test slices, where the study
    has volumes: a method for scans takes these and says the same of the same slices. left_out: names of training images
    that no method learns from, since they are test images too.
    """

    folder: Path
    scans: tuple[Path, ...] = ()
    judged: tuple[Path, ...] = ()
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Study:
    """One data set, ready to be measured on.

    folds: the images; figures are of the test images of all folds together.
    group: a regular expression that finds the patient in an image's path (its first capture group); None where every
        image counts as a patient of its own.
    height: a regular expression that finds the number of the slice; where it is given, images are compared with healthy
        ones of the same number.
    intensity: "range" where grey values mean the same in all images, "percentile" where they do not.
    planted: whether lesions were put into healthy images; every table says so.
    about: one line for the table: what the images are, and where they come from.
    """

    name: str
    folds: tuple[Fold, ...]
    intensity: Literal["range", "percentile"]
    planted: bool
    about: str
    group: str | None = None
    height: str | None = None
