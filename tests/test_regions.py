"""Regions of maps small enough to know where they are, and where that is in the scanner."""

import numpy as np
import pytest

from priorlens.blocks import Flagged, block_means
from priorlens.errors import InputError
from priorlens.regions import find_regions, regions_above


def flagged(shape, *blocks, q_values=None):
    """These blocks of a map of this shape, flagged."""
    chosen = np.zeros(block_means(np.zeros(shape)).shape, bool)
    for block in blocks:
        chosen[block] = True
    return Flagged(chosen, np.where(chosen, 0.01, 0.5) if q_values is None else q_values, 0.01)


def test_regions_by_hand():
    """Blocks of two pixels. Two that share a corner are one region; the other, higher, comes first."""
    anomaly_map = np.zeros((24, 20), np.float32)
    anomaly_map[2:4, 2:4], anomaly_map[4:6, 4:6] = 1, 2
    anomaly_map[10:12, 16:18] = [[3, 3], [3, 9]]
    chosen = flagged(anomaly_map.shape, (1, 1), (2, 2), (5, 8))
    chosen.q_values[2, 2] = 0.004
    (first, second), labels = find_regions(anomaly_map, chosen)
    assert (first.centre, first.size, first.unit) == ((10.5, 16.5), 4.0, "px")
    assert (first.peak, first.mean, first.q_value) == (9.0, 4.5, 0.01)
    assert (second.centre, second.size, second.peak, second.mean) == ((3.5, 3.5), 8.0, 2.0, 1.5)
    assert second.q_value == 0.004
    assert labels.shape == anomaly_map.shape
    np.testing.assert_array_equal(labels == 1, anomaly_map >= 3)
    np.testing.assert_array_equal(labels == 2, (anomaly_map > 0) & (anomaly_map < 3))


def test_a_block_at_the_border_has_only_the_pixels_there_are():
    anomaly_map = np.ones((43, 44), np.float32)  # blocks of 3: the last row of pixels, and the last two columns
    [region], labels = find_regions(anomaly_map, flagged((43, 44), (14, 14)))
    assert (region.centre, region.size) == ((42.0, 42.5), 2.0)
    assert labels.sum() == 2


def test_nothing_flagged_is_no_region():
    found, labels = find_regions(np.ones((24, 24), np.float32), flagged((24, 24)))
    assert found == [] and not labels.any() and labels.shape == (24, 24)


def test_everything_flagged_is_one_region():
    chosen = Flagged(np.ones((12, 12), bool), np.full((12, 12), 0.02), 0.02)
    [region], labels = find_regions(np.eye(24), chosen)
    assert (region.centre, region.size, region.peak) == ((11.5, 11.5), 576.0, 1.0)
    assert (labels == 1).all()


def test_regions_of_a_volume_touch_across_a_corner():
    volume = np.zeros((12, 9, 6))
    volume[1, 1, 1], volume[2, 2, 2], volume[10, 0, 5] = 1, 2, 5
    (first, second), labels = find_regions(volume, flagged(volume.shape, (1, 1, 1), (2, 2, 2), (10, 0, 5)))
    assert first.centre == (10.0, 0.0, 5.0) and second.centre == (1.5, 1.5, 1.5)
    assert (first.size, second.size) == (1.0, 2.0)
    assert labels[2, 2, 2] == labels[1, 1, 1] == 2


# --- where it is in the scanner


def rotation(degrees):
    angle = np.deg2rad(degrees)
    return np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])


def test_rotated_left_handed_and_anisotropic_voxels():
    """Voxels of 2 x 0.5 x 3 mm, the second axis reversed, turned by 30 degrees, the scan shifted."""
    steps = rotation(30) @ np.diag([2.0, -0.5, 3.0])
    affine = np.block([[steps, np.array([[10.0], [-20.0], [5.0]])], [np.zeros((1, 3)), np.ones((1, 1))]])
    volume = np.zeros((12, 12, 4))
    [region], _ = find_regions(volume, flagged(volume.shape, (4, 6, 1), (4, 7, 1)), affine)
    x, y = 2.0 * 4, -0.5 * 6.5
    cosine, sine = np.cos(np.pi / 6), np.sin(np.pi / 6)
    expected = (10 + cosine * x - sine * y, -20 + sine * x + cosine * y, 5 + 3.0)
    np.testing.assert_allclose(region.centre, expected, rtol=1e-12)
    assert region.size == pytest.approx(2 * 2.0 * 0.5 * 3.0) and region.unit == "mm"


def test_a_plane_in_its_own_coordinates():
    affine = np.array([[0.0, 0.5, -3.0], [2.0, 0.0, 7.0], [0.0, 0.0, 1.0]])  # rows run along y, columns along x
    [region], _ = find_regions(np.ones((12, 12)), flagged((12, 12), (4, 6)), affine)
    assert region.centre == (0.0, 15.0)
    assert region.size == pytest.approx(1.0)


def test_a_plane_that_lies_askew_in_space():
    """Slice 0 of a volume with sheared axes: the steps along rows and columns span a parallelogram."""
    affine = np.array([[1.0, 2.0, 9.0, 1.0], [0.0, 3.0, 9.0, 2.0], [2.0, 0.0, 9.0, 3.0], [0.0, 0.0, 0.0, 1.0]])
    [region], _ = find_regions(np.ones((12, 12)), flagged((12, 12), (1, 2)), affine)
    assert region.centre == (1 + 1 + 4, 2 + 6, 3 + 2)
    assert region.size == pytest.approx(np.linalg.norm(np.cross([1, 0, 2], [2, 3, 0])))


def test_an_affine_in_float32_will_do():
    affine = np.diag([0.5, 0.5, 2.0, 1.0]).astype(np.float32)
    [region], _ = find_regions(np.ones((12, 12), np.float32), flagged((12, 12), (1, 2)), affine)
    assert region.centre == (0.5, 1.0, 0.0) and region.size == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("affine", "says"),
    [
        (np.eye(2), "is 2x2; a map of 2 axes needs 3x3 or 4x4"),
        (np.diag([1.0, np.nan, 1.0]), "not finite"),
        (np.ones((3, 3)), "last row is not"),
        (np.diag([1.0, 0.0, 1.0]), "no extent"),
    ],
)
def test_an_affine_that_cannot_be_used(affine, says):
    with pytest.raises(InputError, match=f"^affine: .*{says}"):
        find_regions(np.ones((12, 12)), flagged((12, 12)), affine)


def test_a_volume_needs_an_affine_of_its_own_size():
    with pytest.raises(InputError, match="is 3x3; a map of 3 axes needs 4x4"):
        find_regions(np.ones((12, 12, 12)), flagged((12, 12, 12)), np.eye(3))


def test_blocks_of_another_map_are_refused():
    with pytest.raises(ValueError, match="are not those of a map"):
        find_regions(np.ones((24, 6)), flagged((24, 24)))


# --- above a threshold


def test_above_a_threshold_by_hand():
    """Pixels that share a corner are one region; the threshold itself is not above it."""
    anomaly_map = np.zeros((12, 10), np.float32)
    anomaly_map[1, 1], anomaly_map[2, 2], anomaly_map[8:10, 7] = 2, 3, (5, 4)
    anomaly_map[5, 5] = 1
    (first, second), labels = regions_above(anomaly_map, 1.0)
    assert (first.centre, first.size, first.unit, first.peak, first.mean) == ((8.5, 7.0), 2.0, "px", 5.0, 4.5)
    assert (second.centre, second.size, second.peak, second.mean) == ((1.5, 1.5), 2.0, 3.0, 2.5)
    assert np.isnan([first.q_value, second.q_value]).all(), "nothing is calibrated"
    np.testing.assert_array_equal(labels == 1, anomaly_map > 3)
    np.testing.assert_array_equal(labels == 2, (anomaly_map > 1) & (anomaly_map <= 3))


def test_nothing_and_everything_above_a_threshold():
    anomaly_map = np.random.default_rng(0).random((9, 8, 7))
    found, labels = regions_above(anomaly_map, 1.0)
    assert found == [] and not labels.any() and labels.shape == (9, 8, 7)
    [region], labels = regions_above(anomaly_map, -1.0)
    assert (region.centre, region.size, region.unit) == ((4.0, 3.5, 3.0), 504.0, "px")
    assert (labels == 1).all()
    found, labels = regions_above(anomaly_map, -1.0, smallest=505.0)
    assert found == [] and not labels.any()


def test_regions_of_a_scan_that_are_too_small_are_left_out():
    """In millimetres where an affine is given; numbers go by the peaks of those that are left."""
    volume = np.zeros((20, 20, 10), np.float32)
    volume[1, 1, 1] = 9
    volume[4:6, 4:6, 4] = 3
    volume[10:13, 10:13, 5:8] = 5
    affine = np.diag([0.7, 0.7, 2.5, 1.0])
    found, labels = regions_above(volume, 1.0, affine)
    assert [region.peak for region in found] == [9, 5, 3]
    assert [region.size for region in found] == pytest.approx([1.225, 27 * 1.225, 4 * 1.225])
    found, labels = regions_above(volume, 1.0, affine, smallest=4.0)
    assert [region.peak for region in found] == [5, 3] and found[0].unit == "mm"
    np.testing.assert_array_equal(labels, np.where(volume == 5, 1, np.where(volume == 3, 2, 0)))
    np.testing.assert_allclose(found[0].centre, (7.7, 7.7, 15.0))


@pytest.mark.parametrize("count", [1, 3, 7, 14, 28])
def test_a_region_of_just_the_smallest_size_is_kept(count):
    """Whatever the last digit of a voxel's volume is."""
    steps = rotation(31) @ np.diag([0.7, -0.3, 1.1])
    affine = np.block([[steps, np.zeros((3, 1))], [np.zeros((1, 3)), np.ones((1, 1))]])
    volume = np.zeros((40, 3, 3))
    volume[:count, 1, 1] = 1
    [region], _ = regions_above(volume, 0.5, affine)
    assert len(regions_above(volume, 0.5, affine, smallest=region.size)[0]) == 1
    assert regions_above(volume, 0.5, affine, smallest=1.01 * region.size)[0] == []


def test_above_a_threshold_agrees_with_flagged_pixels():
    rng = np.random.default_rng(3)
    volume = rng.random((14, 13, 12))
    affine = np.block(
        [[rotation(30) @ np.diag([2.0, -0.5, 3.0]), np.ones((3, 1))], [np.zeros((1, 3)), np.ones((1, 1))]]
    )
    above, labels = regions_above(volume, 0.93, affine)
    same, others = find_regions(volume, Flagged(volume > 0.93, np.full(volume.shape, 0.01), 0.01), affine)
    assert len(above) > 10
    np.testing.assert_array_equal(labels, others)
    for one, other in zip(above, same, strict=True):
        np.testing.assert_allclose(one.centre, other.centre)
        assert (one.size, one.peak, one.mean) == (other.size, other.peak, other.mean)


def test_above_a_threshold_needs_an_affine_that_can_be_used():
    with pytest.raises(InputError, match="is 3x3; a map of 3 axes needs 4x4"):
        regions_above(np.ones((4, 4, 4)), 0.5, np.eye(3))
    with pytest.raises(InputError, match="no extent"):
        regions_above(np.ones((4, 4)), 0.5, np.diag([1.0, 0.0, 1.0]))
