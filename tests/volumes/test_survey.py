"""What scans of known size tell, and the preparation that suits them."""

from pathlib import Path

import numpy as np
import pytest

from priorlens.errors import InputError
from priorlens.preparation import Sizes
from priorlens.volumes.survey import CUBE, CUBES_ALONG, NEIGHBOURS, Survey, choose_preparation, survey
from priorlens.volumes.volume import Volume
from priorlens.volumes.voxel_intensity import PERCENTILES, VoxelIntensity

PATH = Path("scan.nii.gz")
SIZES = Sizes(192, 256, 32)


def box_scan(steps, sides, units="HU", channels=1):
    """A box of so many voxels in the middle of a scan twice as large, its intensities spread."""
    shape = tuple(2 * side for side in sides)
    affine = np.eye(4)
    affine[:3, :3] = steps
    body = tuple(slice(side // 2, side // 2 + side) for side in sides)
    voxels = np.full((channels, *shape), -1000 if units == "HU" else 0, np.float32)
    for channel in range(channels):
        drawn = np.random.default_rng(channel).uniform(-50, 150, sides)
        voxels[(channel, *body)] = drawn if units == "HU" else drawn + 200 * (channel + 1)
    return Volume(voxels, affine, units, PATH, tuple(f"c{channel}" for channel in range(channels)))


@pytest.mark.parametrize(
    ("plane", "order"),
    [("axial", [2, 1, 0]), ("coronal", [1, 2, 0]), ("sagittal", [0, 2, 1]), ("acquired", [2, 1, 0])],
)
def test_extent_and_spacing_in_the_order_of_the_stack(plane, order):
    """Of slices, rows and columns; the box is 24 x 20 x 10 voxels of 5, 6 and 9 mm."""
    found = survey(box_scan(np.diag([5.0, -6.0, 9.0]), (24, 20, 10)), plane)
    np.testing.assert_allclose(found.spacing, np.array([5.0, 6.0, 9.0])[order])
    np.testing.assert_allclose(found.extent, np.array([120.0, 120.0, 90.0])[order])
    assert (found.units, found.channels) == ("HU", ("c0",))


def test_permuted_axes_give_the_same():
    upright = survey(box_scan(np.diag([5.0, 6.0, 9.0]), (24, 20, 10)), "axial")
    permuted = survey(box_scan(np.eye(3)[:, [2, 0, 1]] * [9.0, -5.0, 6.0], (10, 24, 20)), "axial")
    np.testing.assert_allclose(permuted.spacing, upright.spacing)
    np.testing.assert_allclose(permuted.extent, upright.extent)


def test_voxels_of_every_channel_s_body():
    volume = box_scan(np.diag([2.0, 2.0, 2.0]), (20, 20, 10), "arbitrary", channels=2)
    found = survey(volume, "axial")
    assert len(found.bodies) == 2
    for channel, voxels in enumerate(found.bodies):
        assert voxels.size == 200, "a twentieth"
        low = 200 * (channel + 1)
        assert voxels.min() >= low - 50 and voxels.max() <= low + 150


def test_a_body_all_alike_is_refused():
    volume = box_scan(np.eye(3) * 4, (12, 12, 12), "arbitrary")
    alike = Volume((volume.voxels > 0).astype(np.float32), volume.affine, "arbitrary", PATH)
    with pytest.raises(InputError, match=r"^scan\.nii\.gz: its body has one intensity throughout; leave it out$"):
        survey(alike, "axial")
    air = Volume(np.full((1, 9, 9, 9), -1000, np.float32), np.eye(4), "HU", PATH)
    with pytest.raises(InputError, match=r"^scan\.nii\.gz: holds no body"):
        survey(air, "axial")


# --- what is chosen


def of(extent, spacing, units="HU", channels=("",), seed=0):
    bodies = tuple(
        np.random.default_rng([seed, n]).normal(100, 10, 3000).astype(np.float32) for n in range(len(channels))
    )
    return Survey(units, channels, np.array(spacing), np.array(extent), bodies)


def choose(surveys, **options):
    return choose_preparation(surveys, **{"plane": "axial", "dimensions": "2d", "sizes": SIZES, **options})


@pytest.mark.parametrize(
    ("extent", "own", "size", "spacing"),
    [
        ((150.0, 180.0, 140.0), 1.0, 192, 1.0),  # 187 pixels with the margin: the next multiple, at its own spacing
        ((150.0, 200.0, 140.0), 1.0, 224, 1.0),  # 208 pixels
        ((150.0, 230.0, 360.0), 0.7, 256, 360 * 1.04 / 256),  # would be 535: the largest, and coarser
        ((150.0, 60.0, 70.0), 1.0, 192, 1.0),  # the smallest, and no finer than the scans
    ],
)
def test_size_and_spacing_for_known_extents(extent, own, size, spacing):
    """Bodies fit in, at a spacing not finer than the scans' own."""
    found = choose([of(extent, (3.0, own, own))])
    assert (found.size, found.spacing) == (size, pytest.approx(spacing, abs=1e-4))
    assert found.size * found.spacing >= max(extent[1:])
    assert (found.plane, found.dimensions, found.units, found.channels) == ("axial", "2d", "HU", ("",))


def test_the_coarser_of_rows_and_columns_counts():
    assert choose([of((100.0, 150.0, 150.0), (1.0, 3.0, 0.8))]).spacing == 3.0


def test_one_giant_among_many_does_not_decide():
    """Bodies up to the 95th percentile fit; larger ones get several tiles."""
    scans = [of((150.0, 180.0, 180.0), (1.0, 1.0, 1.0)) for _ in range(40)]
    assert choose([*scans, of((150.0, 400.0, 400.0), (1.0, 1.0, 1.0))]) == choose(scans)


def test_what_is_given_is_kept():
    scans = [of((150.0, 180.0, 180.0), (1.0, 1.0, 1.0))]
    assert choose(scans, size=64).spacing == pytest.approx(180 * 1.04 / 64, abs=1e-4)
    found = choose(scans, spacing=0.8)
    assert (found.spacing, found.size) == (0.8, 256)
    found = choose(scans, size=96, spacing=1.25)
    assert (found.spacing, found.size) == (1.25, 96)


def test_cubes():
    """Two side by side hold the longest side of the body; none is finer than the scans' own voxels."""
    long = of((320.0, 180.0, 180.0), (3.0, 1.0, 1.0))
    found = choose([long], dimensions="3d")
    assert (found.size, found.spacing) == (CUBE, pytest.approx(320 / (CUBES_ALONG * CUBE)))
    assert choose([of((40.0, 40.0, 40.0), (3.0, 1.5, 1.5))], dimensions="3d").spacing == 1.5
    found = choose([long], dimensions="3d", size=16)
    assert (found.size, found.spacing) == (16, pytest.approx(320 / (CUBES_ALONG * 16)))


@pytest.mark.parametrize(("apart", "expected"), [(1.0, NEIGHBOURS), (3.0, 3.0), (5.0, 5.0)])
def test_neighbours(apart, expected):
    """Three millimetres away, or the next slices where these lie farther apart."""
    scans = [of((150.0, 180.0, 180.0), (apart, 1.0, 1.0))]
    assert choose(scans, dimensions="2.5d").neighbours == expected
    assert choose(scans, dimensions="2.5d", neighbours=2.0).neighbours == 2.0


# --- intensities


def test_ct_is_seen_through_a_window():
    scans = [of((150.0, 180.0, 180.0), (1.0, 1.0, 1.0))]
    assert choose(scans).intensities == (VoxelIntensity("window", -160.0, 240.0),)
    assert choose(scans, window=(0.0, 80.0)).intensities == (VoxelIntensity("window", 0.0, 80.0),)
    assert choose(scans, intensity="robust").intensities == (VoxelIntensity("robust"),)


def test_mri_is_seen_by_its_own_statistics():
    """Each channel by its own, and never through a window."""
    scans = [of((150.0, 180.0, 180.0), (1.0, 1.0, 1.0), "arbitrary", ("t1", "t2"), seed) for seed in range(3)]
    found = choose(scans)
    assert (found.units, found.channels) == ("arbitrary", ("t1", "t2"))
    assert found.intensities == (VoxelIntensity("robust"),) * 2
    learned = choose(scans, intensity="landmarks").intensities
    assert [one.mode for one in learned] == ["landmarks"] * 2 and learned[0] != learned[1]
    for channel, one in enumerate(learned):
        assert one == VoxelIntensity.learned([scan.bodies[channel] for scan in scans])
        assert len(one.standard) == len(PERCENTILES)
    with pytest.raises(InputError, match=r"a window in Hounsfield units is for CT.*; choose robust or landmarks$"):
        choose(scans, intensity="window")


def test_what_is_chosen_prepares_the_scans_it_was_chosen_for():
    volumes = [box_scan(np.diag([2.0, 2.0, 4.0]), (40 + 2 * more, 44, 16)) for more in range(3)]
    chosen = choose([survey(volume, "axial") for volume in volumes], sizes=Sizes(32, 64, 32))
    assert (chosen.size, chosen.spacing) == (64, 2.0)
    for volume in volumes:
        prepared = chosen.prepare(volume)
        images = prepared.images(prepared.looked_at())
        assert len(images) == len(prepared.looked_at()) and len(images) >= 16, "one tile each"
        assert (images[8].pixels > -0.5).mean() == pytest.approx(prepared.body[8].mean() * 4 * 40 * 44 / 64**2, rel=1)


def test_a_window_is_for_the_mode_that_uses_it():
    scans = [of((150.0, 180.0, 180.0), (1.0, 1.0, 1.0))]
    with pytest.raises(InputError, match=r"which --intensity robust does not use; leave one out$"):
        choose(scans, intensity="robust", window=(0.0, 80.0))
