"""Phantoms of CT and MRI: the body is found, all of it and nothing else."""

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from priorlens.errors import InputError
from priorlens.volumes.scan_body import scan_body
from priorlens.volumes.volume import Volume

PATH = Path("scan.nii.gz")


def volume(voxels, units, spacing=(4.0, 4.0, 4.0)):
    voxels = np.asarray(voxels, np.float32)
    voxels = voxels[None] if voxels.ndim == 3 else voxels
    return Volume(voxels, np.diag([*spacing, 1.0]), units, PATH, ("",) * len(voxels))


def ellipsoid(shape, centre, radii):
    places = np.indices(shape).astype(np.float64)
    scaled = [(place - c) / r for place, c, r in zip(places, centre, radii, strict=True)]
    return sum(part**2 for part in scaled) <= 1


def chest(shape=(44, 40, 24), seed=0):
    """A trunk that runs through all slices, lungs that end at neither of them, a table beneath, noise of 20 HU.

    Gives voxels, the body, and the lungs.
    """
    x, y, _ = np.indices(shape)
    i, j = (shape[0] - 1) / 2, (shape[1] - 1) / 2 + 3
    body = ((x - i) / 17) ** 2 + ((y - j) / 12) ** 2 <= 1
    lungs = (((x - i + 8) / 5) ** 2 + ((y - j) / 7) ** 2 <= 1) | (((x - i - 8) / 5) ** 2 + ((y - j) / 7) ** 2 <= 1)
    table = (y >= 2) & (y <= 3) & (abs(x - i) < 18)
    voxels = np.full(shape, -1000.0)
    voxels[body], voxels[lungs], voxels[table] = 40, -850, 100
    return voxels + 20 * np.random.default_rng(seed).standard_normal(shape), body, lungs


def agreement(one, other):
    """Dice."""
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def test_ct_with_table_and_lungs():
    """Lungs open at both ends of the scan are inside; the table, beside the body, is not."""
    voxels, body, lungs = chest()
    found = scan_body(volume(voxels, "HU"))
    np.testing.assert_array_equal(found, body)
    assert found[lungs].all()


@pytest.mark.parametrize("length", [24, 60], ids=["fewer slices than columns", "more slices than columns"])
@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_lungs_open_at_the_end_of_a_scan_are_inside_however_it_is_stored(order, length):
    voxels, body, _ = chest((44, 40, length))
    steps = 4.0 * np.eye(3)[:, order]
    affine = np.eye(4)
    affine[:3, :3] = steps
    stored = Volume(np.ascontiguousarray(voxels.transpose(order), np.float32)[None], affine, "HU", PATH)
    np.testing.assert_array_equal(scan_body(stored), body.transpose(order))


def test_noise_of_a_fine_ct_makes_no_holes_and_no_crumbs():
    """Voxels of a millimetre, noise of 150 HU: what is told at four millimetres is one smooth piece."""
    shape = (40, 44, 12)
    body = ellipsoid(shape, (20, 22, 5.5), (13, 15, 40))
    voxels = np.where(body, 30.0, -1000.0) + 150 * np.random.default_rng(0).standard_normal(shape)
    found = scan_body(volume(voxels, "HU", (1.0, 1.0, 1.0)))
    assert agreement(found, body) > 0.95


def test_a_brain_that_was_cut_out():
    """All that is not background, however dark; a crumb beside it is left out."""
    shape = (30, 34, 28)
    brain, ventricle = ellipsoid(shape, (14, 16, 13), (10, 12, 9)), ellipsoid(shape, (14, 16, 13), (3, 3, 3))
    voxels = np.where(brain, np.random.default_rng(0).uniform(80, 120, shape), 0.0)
    voxels[ventricle] = 2
    voxels[1:3, 1:3, 1:3] = 100
    np.testing.assert_array_equal(scan_body(volume(voxels, "arbitrary")), brain)
    lower = np.where(brain, voxels - 500, -500.0)
    np.testing.assert_array_equal(scan_body(volume(lower, "arbitrary")), brain, "the lowest value, not zero")


def test_a_hole_in_what_was_cut_out_is_inside():
    shape = (30, 34, 28)
    brain, hole = ellipsoid(shape, (14, 16, 13), (10, 12, 9)), ellipsoid(shape, (14, 16, 13), (3, 3, 3))
    np.testing.assert_array_equal(scan_body(volume(100.0 * (brain & ~hole), "arbitrary")), brain)


def head(seed=0, noise=6.0):
    """In front of the noise of a magnitude image."""
    shape = (40, 44, 36)
    inside = ellipsoid(shape, (20, 22, 17), (13, 15, 12))
    rng = np.random.default_rng(seed)
    real, imaginary = noise * rng.standard_normal((2, *shape))
    signal = np.where(inside, rng.uniform(70, 140, shape), 0.0)
    return np.hypot(signal + real, imaginary), inside


@pytest.mark.parametrize("spacing", [4.0, 2.0, 1.0])
def test_mri_before_a_noisy_background(spacing):
    voxels, inside = head()
    found = scan_body(volume(voxels, "arbitrary", (spacing,) * 3))
    assert agreement(found, inside) > (0.99 if spacing == 4.0 else 0.93)


def test_noise_that_is_often_zero_is_no_background_cut_away():
    """Stored as integers, faint noise has the very lowest value in many voxels; the others are no body for that."""
    voxels, inside = head(noise=1.0)
    stored = np.floor(voxels)
    assert (stored == 0).mean() > 0.25
    assert agreement(scan_body(volume(stored, "arbitrary")), inside) > 0.99


def test_the_first_of_several_channels_decides():
    voxels, inside = head()
    both = np.stack([voxels, 300 - voxels])
    np.testing.assert_array_equal(scan_body(volume(both, "arbitrary")), scan_body(volume(voxels, "arbitrary")))
    assert agreement(scan_body(volume(both[::-1], "arbitrary")), inside) < 0.5


@pytest.mark.parametrize(
    ("voxels", "units"),
    [
        (np.full((12, 12, 12), -1000.0), "HU"),
        (np.full((12, 12, 12), 5.0), "arbitrary"),
        (np.random.default_rng(0).uniform(-1024, -900, (12, 12, 12)), "HU"),
    ],
)
def test_nothing_there(voxels, units):
    with pytest.raises(InputError) as error:
        scan_body(volume(voxels, units))
    assert str(error.value).startswith("scan.nii.gz: holds no body") and "\n" not in str(error.value)


def test_what_a_slab_cuts_open_is_inside():
    """A few sagittal slices, both outer ones through a cavity."""
    shape = (5, 40, 44)
    body, cavity = ellipsoid(shape, (2, 20, 22), (40, 13, 15)), ellipsoid(shape, (2, 20, 22), (40, 4, 5))
    np.testing.assert_array_equal(scan_body(volume(100.0 * (body & ~cavity), "arbitrary")), body)


def test_one_slice():
    shape = (40, 44, 1)
    disc = ellipsoid(shape, (20, 22, 0), (13, 15, 1))
    hole = ellipsoid(shape, (20, 22, 0), (4, 5, 1))
    voxels = np.where(disc & ~hole, 40.0, -1000.0)
    np.testing.assert_array_equal(scan_body(volume(voxels, "HU")), disc)
