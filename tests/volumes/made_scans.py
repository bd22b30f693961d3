"""Small scans in which there is something to learn from: heads as MRI shows them, trunks as CT does, and lesions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np

from volumes.made_dicom import write_series

SHAPE = (40, 48, 32)
SPACING = (4.0, 4.0, 4.0)


def _oblique() -> np.ndarray:
    """Turned a little about two axes, with the first running to the patient's left; digits that rounding would show."""
    a, b = 0.11, 0.07
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x @ np.diag([-4.0, 4.0, 4.0])
    affine[:3, 3] = 91.25, -70.503, 12.757
    return affine


OBLIQUE = _oblique()


def _radius(shape: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """About 1 on the surface of an ellipsoid that fills most of the grid, a little other for everyone."""
    places = np.meshgrid(*(np.linspace(-1.15, 1.15, length) for length in shape), indexing="ij")
    axes, centre = rng.normal(1, 0.03, 3), rng.normal(0, 0.03, 3)
    return np.sqrt(sum(((x - c) / a) ** 2 for x, c, a in zip(places, centre, axes, strict=True)))


def lesion_mask(shape: Sequence[int] = SHAPE, low: float = 0.4, high: float = 0.6) -> np.ndarray:
    """A box beside the middle; along the last axis between these shares of the scan."""
    mask = np.zeros(shape, np.uint8)
    i, j, k = shape
    mask[i // 2 : i // 2 + i // 5, j // 3 : j // 3 + j // 5, round(low * k) : round(high * k)] = 1
    return mask


def head(seed: int = 0, shape: Sequence[int] = SHAPE, lesion: np.ndarray | None = None) -> np.ndarray:
    """MR-like: grey matter around white, noise, and a background of 0 as after skull-stripping; a lesion is bright."""
    rng = np.random.default_rng([seed, 1])
    radius = _radius(shape, rng)
    tissue = 300 + 150 / (1 + np.exp(12 * (radius - 0.65))) + rng.normal(0, 12, shape)
    if lesion is not None:
        tissue = tissue + 250 * lesion
    return np.where(radius < 1, tissue, 0).clip(0).astype(np.int16)


def trunk(seed: int = 0, shape: Sequence[int] = SHAPE, lesion: np.ndarray | None = None) -> np.ndarray:
    """CT-like, in Hounsfield units: organs, a spine, air around; a lesion is as dense as contrast agent."""
    rng = np.random.default_rng([seed, 2])
    radius = _radius(shape, rng)
    across, down, _ = np.meshgrid(*(np.linspace(-1.15, 1.15, length) for length in shape), indexing="ij")
    tissue = -90 + 150 / (1 + np.exp(20 * (radius - 0.8))) + rng.normal(0, 10, shape)
    tissue[np.hypot(across, down - 0.55) < 0.15] = 600
    if lesion is not None:
        tissue = tissue + 160 * lesion
    return np.where(radius < 1, tissue, -1000).astype(np.int16)


def write_nifti(path: Path, voxels: np.ndarray, affine: np.ndarray = OBLIQUE, qform: np.ndarray | None = None) -> Path:
    """sform and, unless another is given, qform too; the suffix tells whether it is packed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(voxels, affine)
    image.set_sform(affine, code=1)
    image.set_qform(affine if qform is None else qform, code=1)
    nibabel.save(image, path)
    return path


def write_trunk(folder: Path, seed: int = 0, **options: object) -> list[Path]:
    """A CT series of its own patient, `P<seed>` unless told otherwise."""
    lesion = options.pop("lesion", None)
    shape = options.pop("shape", SHAPE)
    voxels = trunk(seed, shape, lesion)
    options = {"spacing": SPACING, "patient": f"P{seed}", "origin": (-80.0, -90.0, 40.0), **options}
    return write_series(folder, voxels + np.int16(1024), **options)
