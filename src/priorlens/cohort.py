"""A cohort for the demo: healthy brain slices made from the MNI152 template, and lesions in a part of the test slices.

The template (ICBM 2009a, symmetric: T1, grey and white matter at 1 mm; Fonov et al. 2011) comes with the nilearn
package. A subject is the template seen through a random pose and a smooth elastic deformation, with tissue contrast,
bias field and Rician noise of its own. Lesions are drawn here from level sets of random fields, and share no code with
`planted`: what a detector was chosen on must not be what the demo tests it on.
"""

from __future__ import annotations

import importlib.util
import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8
from PIL import Image
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates

from priorlens.errors import InputError, OutputError
from priorlens.outputs import atomic_write, prepare_folder

HEIGHTS_MM = (0.0, 10.0, 20.0, 30.0, 40.0)
"""MNI z of the axial slices, from the basal ganglia to above the ventricles; each subject strays a little from one."""

FIELD_OF_VIEW_MM = 210.0
CENTRE_MM = (0.0, -17.0)
"""MNI x and y of the image centre: the middle of the brain's bounding box."""

LESION_RADIUS_SHARE = (0.03, 0.09)
"""Smallest and largest lesion radius as a share of the image size."""

_GRID_STEP_MM = FIELD_OF_VIEW_MM / 64
_VOXEL_OF_ORIGIN = (98.0, 134.0, 72.0)


@dataclass(frozen=True)
class Tissue:
    """One subject's slice before it is imaged: shares in [0, 1] of brain, grey and white matter, and the template's T1.

    `template` is about 0.3 in fluid, 0.7 in grey and 0.9 in white matter.
    """

    brain: Float[np.ndarray, "height width"]
    grey: Float[np.ndarray, "height width"]
    white: Float[np.ndarray, "height width"]
    template: Float[np.ndarray, "height width"]


@dataclass(frozen=True)
class LesionSlice:
    """A slice in [0, 255] with one lesion, and where the lesion is (mass effect around it is not part of the mask)."""

    pixels: Float32[np.ndarray, "height width"]
    mask: Bool[np.ndarray, "height width"]


def healthy_slices(count: int, size: int = 96, seed: int = 0) -> list[Float32[np.ndarray, "size size"]]:
    """Slices of `count` healthy subjects, whole numbers in [0, 255], front of the head up.

    Subject i depends on `seed` and i only, not on `count`. Raises InputError if the template is not installed.
    """
    return [_healthy_slice(size, _subject_rng(seed, subject)) for subject in range(count)]


def lesion_slices(count: int, size: int = 96, seed: int = 0, first: int = 0) -> list[LesionSlice]:
    """Slices of subjects `first` to `first + count - 1`, each with one lesion: bright, dark or enhancing at its rim."""
    return [_lesion_slice(size, _subject_rng(seed, first + subject)) for subject in range(count)]


def write_cohort(
    folder: Path,
    *,
    train: int = 240,
    test_good: int = 40,
    test_lesion: int = 40,
    size: int = 96,
    seed: int = 0,
    overwrite: bool = False,
) -> Path:
    """Writes the cohort into `train/good`, `test/good`, `test/lesion` and `ground_truth/lesion`; returns `folder`.

    8-bit grey PNG files `subject####.png`, one slice a subject, no subject twice; a mask is 255 in the lesion. With
    `overwrite`, the subjects of an earlier cohort in `folder` are removed first. Raises InputError if the template is
    not installed and OutputError if `folder` cannot be written, or is not empty and not to be overwritten.
    """
    _templates()
    prepare_folder(folder, overwrite=overwrite)
    for kind in ("train/good", "test/good", "test/lesion", "ground_truth/lesion"):
        _remove_subjects(prepare_folder(folder / kind, overwrite=True))
    kinds = ["train/good"] * train + ["test/good"] * test_good + ["test/lesion"] * test_lesion
    for subject, kind in enumerate(kinds):
        name = f"subject{subject:04d}.png"
        rng = _subject_rng(seed, subject)
        if kind == "test/lesion":
            lesion = _lesion_slice(size, rng)
            _write_png(folder / kind / name, lesion.pixels.astype(np.uint8))
            _write_png(folder / "ground_truth/lesion" / name, lesion.mask.astype(np.uint8) * np.uint8(255))
        else:
            _write_png(folder / kind / name, _healthy_slice(size, rng).astype(np.uint8))
    return folder


def _remove_subjects(folder: Path) -> None:
    for path in folder.glob("subject[0-9]*.png"):
        try:
            path.unlink()
        except OSError as error:
            raise OutputError(f"{path}: cannot be removed; choose another output folder") from error


def _subject_rng(seed: int, subject: int) -> np.random.Generator:
    return np.random.default_rng((seed, subject))


def _write_png(path: Path, pixels: UInt8[np.ndarray, "height width"]) -> None:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format="PNG")
    with atomic_write(path) as file:
        file.write(content.getvalue())


@cache
def _templates() -> dict[str, UInt8[np.ndarray, "x y z"]]:
    """The template volumes `t1`, `gm` and `wm`, 8 bit, 1 mm, axes to the right, front and top."""
    import nibabel

    # nilearn itself takes seconds to import, and only its data files are wanted.
    package = importlib.util.find_spec("nilearn")
    places = list(package.submodule_search_locations or []) if package is not None else []
    volumes = {}
    for name in ("t1", "gm", "wm"):
        found = [
            path
            for place in places
            if (path := Path(place) / f"datasets/data/mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz").is_file()
        ]
        if not found:
            raise InputError(f"the MNI152 template ({name}) is missing; install it with: pip install --upgrade nilearn")
        try:
            volumes[name] = np.asarray(nibabel.Nifti1Image.from_filename(found[0]).dataobj, dtype=np.uint8)
        except (OSError, EOFError, ValueError, nibabel.filebasedimages.ImageFileError) as error:
            raise InputError(
                f"{found[0]} cannot be read; install it again with: pip install --force-reinstall nilearn"
            ) from error
    return volumes


def _healthy_slice(size: int, rng: np.random.Generator) -> Float32[np.ndarray, "size size"]:
    tissue = _sample_tissue(2 * size, rng)
    return _acquire(_signal(tissue, rng), rng)


def _lesion_slice(size: int, rng: np.random.Generator) -> LesionSlice:
    tissue = _sample_tissue(2 * size, rng)
    signal, extent = _with_lesion(_signal(tissue, rng), tissue, rng)
    return LesionSlice(_acquire(signal, rng), _halved(extent) > 0.5)


def _sample_tissue(side: int, rng: np.random.Generator) -> Tissue:
    """The template on a deformed, tilted plane of `side` by `side` points; no whole brain is warped for one slice."""
    step = FIELD_OF_VIEW_MM / side
    # Rows run from the front to the back, columns from left to right.
    front, right = np.meshgrid(
        (0.5 * (side - 1) - np.arange(side)) * step, (np.arange(side) - 0.5 * (side - 1)) * step, indexing="ij"
    )
    turn, tilt_front, tilt_right = np.deg2rad(rng.normal(0.0, (3.0, 2.5, 1.0)))
    scale_right, scale_front = rng.normal(1.0, 0.035, 2) * rng.normal(1.0, 0.03)
    mirror = rng.choice((-1.0, 1.0))
    x = mirror * scale_right * (np.cos(turn) * right - np.sin(turn) * front) + CENTRE_MM[0] + rng.normal(0.0, 2.0)
    y = scale_front * (np.sin(turn) * right + np.cos(turn) * front) + CENTRE_MM[1] + rng.normal(0.0, 2.0)
    z = rng.choice(HEIGHTS_MM) + rng.uniform(-2.0, 2.0) + np.tan(tilt_front) * front + np.tan(tilt_right) * right
    # Coarse: the shape of the head and of the ventricles. Fine: the folds, of which no two brains have the same.
    for amplitude, width in ((2.8, 25.0), (1.3, 8.0)):
        x = x + amplitude * _smooth_field(side, width, rng)
        y = y + amplitude * _smooth_field(side, width, rng)
        # Less across the slice, where a few millimetres would hide one ventricle and leave the other.
        z = z + 0.5 * amplitude * _smooth_field(side, width, rng)
    position = np.stack([axis + origin for axis, origin in zip((x, y, z), _VOXEL_OF_ORIGIN, strict=True)])
    volumes = _templates()
    t1, grey, white = (
        map_coordinates(volumes[name], position, output=np.float32, order=1) / 255.0 for name in ("t1", "gm", "wm")
    )
    # The template ends in grey matter at half of its intensity: the brain is what lies above a quarter.
    brain = np.clip((t1 - 0.2) / 0.2, 0.0, 1.0)
    # An average of 152 brains is blurred: shares are drawn towards 0 and 1 to give one brain's edges.
    grey, white = _crisp(grey), _crisp(white)
    excess = np.maximum(grey + white, 1.0)
    return Tissue(brain, grey / excess, white / excess, t1)


def _smooth_field(side: int, width_mm: float, rng: np.random.Generator) -> Float[np.ndarray, "side side"]:
    """A Gaussian random field of unit variance, correlated over `width_mm`; the same field at any `side`."""
    coarse = gaussian_filter(rng.standard_normal((64, 64)), width_mm / _GRID_STEP_MM, mode="wrap")
    coarse = (coarse - coarse.mean()) / coarse.std()
    along = (np.arange(side) + 0.5) * 64 / side - 0.5
    return map_coordinates(coarse, np.stack(np.meshgrid(along, along, indexing="ij")), order=1, mode="grid-wrap")


def _crisp(share: Float[np.ndarray, "height width"]) -> Float[np.ndarray, "height width"]:
    """A smooth step that leaves 0, 1/2 and 1 where they are."""
    return share**2 / (share**2 + (1.0 - share) ** 2)


def _signal(tissue: Tissue, rng: np.random.Generator) -> Float[np.ndarray, "height width"]:
    """T1-weighted intensity, white matter about 0.8: a contrast of the subject's own, with the template's mixed in."""
    fluid = np.clip(1.0 - tissue.grey - tissue.white, 0.0, 1.0)
    white_level = rng.uniform(0.72, 0.85)
    grey_level = white_level * rng.uniform(0.62, 0.75)
    fluid_level = white_level * rng.uniform(0.18, 0.35)
    by_tissue = white_level * tissue.white + grey_level * tissue.grey + fluid_level * fluid
    share = rng.uniform(0.2, 0.5)
    return tissue.brain * ((1.0 - share) * by_tissue + share * white_level * tissue.template)


def _with_lesion(
    signal: Float[np.ndarray, "height width"], tissue: Tissue, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "height width"], Float[np.ndarray, "height width"]]:
    """The signal with a lesion grown into it, and the lesion's extent in [0, 1]."""
    side = signal.shape[0]
    radius = side * float(np.exp(rng.uniform(*np.log(LESION_RADIUS_SHARE))))
    row, column = _lesion_centre(tissue, radius, rng)
    to_row, to_column = np.meshgrid(np.arange(side) - row, np.arange(side) - column, indexing="ij")
    distance = np.hypot(to_row, to_column)
    # Mass effect: tissue around the lesion gives way, by less and less up to three radii off.
    keep = 1.0 - rng.uniform(0.1, 0.35) * np.exp(-0.5 * (distance / (1.5 * radius)) ** 2)
    source = np.stack((row + keep * to_row, column + keep * to_column))
    pushed = map_coordinates(signal, source, order=1, mode="nearest")
    # The outline is a level set of a bowl with a random field on it; the field also makes the inside uneven.
    width_mm = 0.5 * radius * FIELD_OF_VIEW_MM / side
    field = _smooth_field(side, width_mm, rng)
    level = 1.0 - (distance / radius) ** 2 + 0.4 * (field - field[row, column])
    level = np.where(distance < 1.8 * radius, level, -1.0)
    extent = np.clip(level / rng.uniform(0.25, 0.6) + 0.5, 0.0, 1.0) * (tissue.brain > 0.5)
    uneven = 1.0 + 0.1 * _smooth_field(side, width_mm, rng)
    return pushed + extent * (_lesion_intensity(level, pushed, rng) * uneven - pushed), extent


def _lesion_centre(tissue: Tissue, radius: float, rng: np.random.Generator) -> tuple[int, int]:
    """A place in grey or white matter, deep enough for most of the lesion to lie inside the brain."""
    depth = distance_transform_edt(np.pad(tissue.brain > 0.5, 1))[1:-1, 1:-1]
    matter = tissue.grey + tissue.white > 0.7
    places = np.argwhere(matter & (depth >= min(0.8 * radius, 0.5 * float(depth.max()))))
    row, column = places[rng.integers(len(places))]
    return int(row), int(column)


def _lesion_intensity(
    level: Float[np.ndarray, "height width"], signal: Float[np.ndarray, "height width"], rng: np.random.Generator
) -> Float[np.ndarray, "height width"]:
    """What the lesion itself looks like: brighter than white matter, darker than grey, or a shell around a core."""
    kind = rng.choice(("bright", "dark", "rim"))
    bright = rng.uniform(0.88, 1.05)
    dark = rng.uniform(0.2, 0.4)
    if kind == "rim":
        shell = np.exp(-0.5 * ((level - 0.3) / rng.uniform(0.2, 0.4)) ** 2)
        return dark + (bright - dark) * shell
    # Some of the tissue underneath still shows through.
    through = rng.uniform(0.1, 0.4)
    return through * signal + (1.0 - through) * (bright if kind == "bright" else dark)


def _acquire(signal: Float[np.ndarray, "side side"], rng: np.random.Generator) -> Float32[np.ndarray, "size size"]:
    """Bias field, pixels of the final size, Rician noise, eight bits."""
    side = signal.shape[0]
    bias = np.exp(rng.uniform(0.03, 0.1) * _smooth_field(side, 50.0, rng))
    image = _halved(signal * bias)
    noise = rng.uniform(0.01, 0.03) * rng.standard_normal((2, *image.shape))
    magnitude = np.hypot(image + noise[0], noise[1])
    return np.clip(np.round(215.0 * magnitude), 0.0, 255.0).astype(np.float32)


def _halved(image: Float[np.ndarray, "side side"]) -> Float[np.ndarray, "size size"]:
    """Means of 2 by 2 points: a pixel sees all the tissue under it."""
    size = image.shape[0] // 2
    return image.reshape(size, 2, size, 2).mean(axis=(1, 3))
