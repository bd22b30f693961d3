"""Studies for anyone: made from data that Python packages or the system's packages bring along."""

from __future__ import annotations

import gzip
import hashlib
import math
import sys
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from benchmarks.adapters.made import SEED, fingerprint_of, made
from benchmarks.study import Fold, Study
from priorlens.cohort import write_cohort
from priorlens.datasets import HEALTHY
from priorlens.errors import InputError

FASHION = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package puts it."""

GET_FASHION = "Fashion-MNIST is not here; on Debian and its kin get it with: apt install dataset-fashion-mnist"

HEALTHY_CLASS = 0
"""The first class, of Fashion-MNIST and of the digits, so that no result can have chosen it."""

OTHER = "other"
"""The kind of all other classes."""

_CLASSES = ("top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
_FILES = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
_QUICK = "_quick"  # ends the folder of a smaller study, which is kept beside the whole one


def mni152(out: Path, quick: bool) -> Study:
    """The cohort of `priorlens demo`, larger: T1 slices made from the MNI152 template, with lesions drawn into some.

    Raises InputError if the template is not installed.
    """
    size, train, test = (64, 60, 20) if quick else (192, 500, 150)

    def make(place: Path) -> Study:
        write_cohort(place, train=train, test_good=test, test_lesion=test, size=size, overwrite=True)
        about = "T1 slices made from the MNI152 template, a subject each; lesions are drawn into them"
        return Study("mni152", (Fold(place),), "range", True, about)

    return made(out, "mni152" + _QUICK * quick, _digest("cohort", size, train, test), make)


def fashion_mnist(out: Path, quick: bool, folder: Path = FASHION) -> Study | None:
    """Tops against all other clothes, 28x28, without masks; None, and a line on standard error, where it is missing.

    Learned from its training images, judged on its test images, as they come: the first of every class.
    Raises InputError for files that are damaged.
    """
    paths = [folder / f"{name}-ubyte.gz" for name in _FILES]
    if not all(path.is_file() for path in paths):
        print(GET_FASHION, file=sys.stderr)
        return None
    train, good, of_each = (60, 20, 3) if quick else (2000, 500, 56)

    def make(place: Path) -> Study:
        images, labels = _read_idx(paths[0], 3), _read_idx(paths[1], 1)
        for index in np.flatnonzero(labels == HEALTHY_CLASS)[:train]:
            _write(place / "train" / HEALTHY / f"{_CLASSES[HEALTHY_CLASS]}_train{index:05d}.png", images[index])
        images, labels = _read_idx(paths[2], 3), _read_idx(paths[3], 1)
        for label, name in enumerate(_CLASSES):
            kind, most = (HEALTHY, good) if label == HEALTHY_CLASS else (OTHER, of_each)
            for index in np.flatnonzero(labels == label)[:most]:
                _write(place / "test" / kind / f"{name}_{index:05d}.png", images[index])
        about = "Fashion-MNIST, 28x28: T-shirts and tops against the nine other classes; no masks"
        return Study("fashion_mnist", (Fold(place),), "range", False, about)

    fingerprint = fingerprint_of(folder, paths, train, good, of_each)
    return made(out, "fashion_mnist" + _QUICK * quick, fingerprint, make)


def digits(out: Path, quick: bool) -> Study:
    """Zeros against all other digits, 8x8 as scikit-learn brings them, without masks."""
    good, of_each = (20, 3) if quick else (58, 20)

    def make(place: Path) -> Study:
        from sklearn.datasets import load_digits

        found = load_digits()
        grey = np.rint(found.images * (255 / 16)).astype(np.uint8)  # stored in 17 steps
        rng = np.random.default_rng(SEED)
        for digit in range(10):
            chosen = rng.permutation(np.flatnonzero(found.target == digit))
            if digit == HEALTHY_CLASS:
                for index in np.sort(chosen[good:]):
                    _write(place / "train" / HEALTHY / f"{digit}_{index:04d}.png", grey[index])
            kind, most = (HEALTHY, good) if digit == HEALTHY_CLASS else (OTHER, of_each)
            for index in np.sort(chosen[:most]):
                _write(place / "test" / kind / f"{digit}_{index:04d}.png", grey[index])
        about = "scikit-learn's handwritten digits, 8x8: zeros against the nine others; writers not told, no masks"
        return Study("digits", (Fold(place),), "range", False, about)

    return made(out, "digits" + _QUICK * quick, _digest("digits", good, of_each), make)


def _read_idx(path: Path, axes: int) -> UInt8[np.ndarray, "*shape"]:
    """MNIST's format: two zero bytes, the type (8: bytes), the number of axes, their lengths, the numbers.

    Raises InputError.
    """
    try:
        with gzip.open(path) as file:
            content = file.read()
    except (OSError, EOFError, ValueError) as error:
        raise InputError(f"{path}: cannot be unpacked ({error}); install the package again") from error
    start = 4 + 4 * axes
    shape = tuple(np.frombuffer(content[4:start], ">u4").tolist())
    if content[:4] != bytes([0, 0, 8, axes]) or len(content) != start + math.prod(shape):
        raise InputError(f"{path}: is no IDX file of {axes} axes of bytes; install the package again")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _digest(*settings: object) -> str:
    """Stands for the files that other studies are made from."""
    return hashlib.sha256(repr(settings).encode()).hexdigest()


def _write(path: Path, pixels: UInt8[np.ndarray, "row column"]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
