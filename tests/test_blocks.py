"""Blocks by hand and against SciPy; what is promised of healthy images, by taking each in turn as the new one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from scipy.stats import false_discovery_control

from priorlens.blocks import (
    ALONG,
    PROCEDURES,
    HealthyBlocks,
    block_means,
    block_p_values,
    block_side,
    enlarged,
    fewest_for_by,
    flag,
)
from priorlens.errors import InputError


def healthy_blocks(images, patients=None):
    numbers = np.arange(len(images)) if patients is None else np.array(patients)
    return HealthyBlocks(tuple(np.array(one, np.float32) for one in images), numbers)


def by_definition(images, index):
    """p-values of an image's blocks: for each image of the pool its share at or above; all images count the same."""
    return np.array([np.mean([np.mean(np.asarray(one) >= value) for one in images]) for value in images[index]])


# --- blocks of a map


@pytest.mark.parametrize(("shape", "side"), [((256, 256), 16), ((100, 256), 16), ((16, 3), 1), ((17, 5), 2), ((1,), 1)])
def test_the_side_makes_no_more_blocks_than_there_may_be(shape, side):
    assert block_side(shape) == side
    assert -(-max(shape) // side) <= ALONG


def test_means_of_whole_blocks_and_of_those_at_the_border():
    anomaly_map = np.zeros((5, 44), np.float32)  # blocks of 3
    anomaly_map[:3, :3] = np.arange(9).reshape(3, 3)
    anomaly_map[3:, 42:] = [[1, 2], [3, 6]]
    means = block_means(anomaly_map)
    assert means.shape == (2, 15) and means.dtype == np.float32
    assert means[0, 0] == 4 and means[1, 14] == 3
    assert np.count_nonzero(means) == 2


def test_blocks_of_a_volume():
    volume = np.random.default_rng(0).random((5, 24, 7))
    means = block_means(volume)
    assert means.shape == (3, 12, 4)
    assert means[1, 2, 0] == pytest.approx(volume[2:4, 4:6, :2].mean(), rel=1e-6)
    assert means[2, 11, 3] == pytest.approx(volume[4, 22:, 6].mean(), rel=1e-6)


def test_the_layout_of_a_map_in_memory_breaks_no_tie():
    anomaly_map = np.random.default_rng(0).random((50, 40)).astype(np.float32)
    np.testing.assert_array_equal(block_means(anomaly_map), block_means(np.asfortranarray(anomaly_map)))


@pytest.mark.parametrize("shape", [(5, 26), (24, 24), (5, 24, 7)])
def test_enlarged_blocks_lie_where_they_were_taken(shape):
    blocks = np.random.default_rng(0).random(block_means(np.zeros(shape)).shape).astype(np.float32)
    grid = enlarged(blocks, shape)
    assert grid.shape == shape
    np.testing.assert_allclose(block_means(grid), blocks, rtol=1e-6)


def test_blocks_of_another_map_are_not_enlarged():
    with pytest.raises(ValueError, match=r"\(12, 12\) are not those of a map of shape \(24, 6\)"):
        enlarged(np.zeros((12, 12)), (24, 6))


# --- p-values of blocks


def test_block_p_values_by_hand():
    """Three images of four blocks: twelve in the pool, ties counted against the new ones."""
    healthy = healthy_blocks([[1, 2, 3, 4], [0, 0, 5, 3]])
    blocks = np.array([[6, 5], [3, -1]], np.float32)
    np.testing.assert_allclose(block_p_values(blocks, healthy), np.array([[1, 3], [7, 12]]) / 12, rtol=1e-15)


def test_a_patient_counts_once_however_many_images_it_has():
    """At or above 2 are half of the blocks of patient 7, who has two images, a quarter of patient 9's, and the new."""
    healthy = healthy_blocks([[0, 0, 0, 0], [2, 3, 3, 2], [0, 0, 0, 2]], [7, 7, 9])
    np.testing.assert_allclose(block_p_values(np.full(4, 2, np.float32), healthy), (1 / 2 + 1 / 4 + 1) / 3, rtol=1e-12)


def test_repeated_images_of_each_patient_change_nothing():
    rng = np.random.default_rng(0)
    images, new = rng.random((6, 9)), rng.random(9)
    for procedure in PROCEDURES:
        once = flag(new, HealthyBlocks(tuple(images), np.arange(6)), 0.2, procedure)
        thrice = flag(new, HealthyBlocks(tuple(np.repeat(images, 3, 0)), np.repeat(np.arange(6), 3)), 0.2, procedure)
        np.testing.assert_allclose(thrice.q_values, once.q_values, rtol=1e-12)
        assert thrice.p_value == pytest.approx(once.p_value, rel=1e-12)


# --- flagged blocks


def test_max_by_hand():
    """Highest blocks 4, 5, 3 and 9: a block of 5 ties with one of them and is below another, (1 + 2) / 5."""
    healthy = healthy_blocks([[1, 4], [5, 5], [3, 0], [0, 9]])
    found = flag(np.array([5, 10, 0], np.float32), healthy, 0.2, "max")
    np.testing.assert_allclose(found.q_values, [3 / 5, 1 / 5, 1], rtol=1e-15)
    assert found.flagged.tolist() == [False, True, False] and found.p_value == 1 / 5


def test_one_block_above_all_others_is_flagged_at_the_least_alpha_there_is():
    """1 / 20 is 0.05, with nothing lost by rounding: 19 images, 144 blocks."""
    rng = np.random.default_rng(0)
    healthy = HealthyBlocks(tuple(rng.random((19, 144)).astype(np.float32)), np.arange(19))
    blocks = rng.random((12, 12)).astype(np.float32)
    blocks[3, 4] = 2
    found = flag(blocks, healthy, 0.05)
    assert np.argwhere(found.flagged).tolist() == [[3, 4]]
    assert found.q_values[3, 4] == found.p_value == 0.05
    assert not flag(blocks, healthy, 0.0499).flagged.any()


@pytest.mark.parametrize("procedure", ["bh", "by"])
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([3, 10, 1000]), st.booleans())
def test_adjusted_p_values_are_scipys_and_the_images_is_their_smallest_ones_rank(procedure, seed, distinct, unequal):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, 9, 8) if unequal else np.full(8, 6)
    images = [rng.integers(0, distinct, size).astype(np.float32) for size in sizes]
    found = flag(images[0], healthy_blocks(images[1:]), 0.3, procedure)
    p_values = [by_definition(images, index) for index in range(8)]
    np.testing.assert_allclose(block_p_values(images[0], healthy_blocks(images[1:])), p_values[0], rtol=1e-12)
    adjusted = false_discovery_control(p_values[0], method=procedure)
    np.testing.assert_allclose(found.q_values, np.maximum(adjusted, found.p_value), rtol=1e-12)
    cost = [np.sum(1 / np.arange(1, size + 1)) if procedure == "by" else 1 for size in sizes]
    smallest = np.array([one * false_discovery_control(p).min() for one, p in zip(cost, p_values, strict=True)])
    assert found.p_value == pytest.approx(np.mean(smallest <= smallest[0] * (1 + 1e-9)), rel=1e-12)
    np.testing.assert_array_equal(found.flagged, found.q_values <= 0.3)


def test_images_whose_blocks_are_spread_alike_tie_whatever_their_number():
    """Equal shares at every threshold, of 3, 21, 33, ... blocks: the sums differ by rounding, the p-value must be 1."""
    images = [np.repeat(np.array([0.1, 0.2, 0.7], np.float32), times) for times in (1, 7, 11, 13, 17, 29)]
    for index, new in enumerate(images):
        others = healthy_blocks(images[:index] + images[index + 1 :])
        assert flag(new, others, 0.5, "bh").p_value == 1


@st.composite
def exchangeable_images(draw):
    """Any images at all, with ties and, often, outliers, of equal or unequal numbers of blocks."""
    blocks = st.integers(0, draw(st.sampled_from([1, 4, 30])))
    size = draw(st.sampled_from([(3, 3), (1, 6)]))
    images = draw(st.lists(st.lists(blocks, min_size=size[0], max_size=size[1]), min_size=2, max_size=12))
    return [np.array(one, np.float32) * draw(st.sampled_from([1, 1, 1, 7])) for one in images]


@pytest.mark.parametrize("procedure", PROCEDURES)
@settings(max_examples=40, deadline=None)
@given(exchangeable_images())
def test_of_any_images_taken_in_turn_as_the_new_one_at_most_a_share_alpha_has_anything_flagged(procedure, images):
    """However blocks depend on each other: the images here are fixed, only which one is new is random."""
    others = [healthy_blocks(images[:index] + images[index + 1 :]) for index in range(len(images))]
    for alpha in (0.1, 0.25, 0.5, 0.75):
        found = [flag(new, rest, alpha, procedure) for new, rest in zip(images, others, strict=True)]
        assert np.mean([one.p_value <= alpha for one in found]) <= alpha
        assert np.mean([one.flagged.any() for one in found]) <= alpha


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=3), min_size=1, max_size=3), min_size=2))
def test_max_keeps_its_promise_for_patients_with_several_images(cohort):
    """Each patient in turn is the new one, with each of its images."""
    for alpha in (0.1, 0.3, 0.5):
        shares = []
        for new in range(len(cohort)):
            rest = [(image, index) for index, images in enumerate(cohort) for image in images if index != new]
            healthy = healthy_blocks(*map(list, zip(*rest, strict=True)))
            found = [flag(np.array(image, np.float32), healthy, alpha, "max") for image in cohort[new]]
            shares.append(np.mean([one.flagged.any() for one in found]))
        assert np.mean(shares) <= alpha + 1e-12


@pytest.mark.parametrize("procedure", PROCEDURES)
def test_the_order_of_images_and_blocks_does_not_matter(procedure):
    rng = np.random.default_rng(3)
    images, new = [rng.integers(0, 40, 10).astype(np.float32) for _ in range(30)], rng.integers(10, 45, 10)
    patients = rng.integers(0, 12, 30)
    order, places = rng.permutation(30), rng.permutation(10)
    one = flag(new.astype(np.float32), healthy_blocks(images, patients), 0.3, procedure)
    shuffled = healthy_blocks([rng.permutation(images[index]) for index in order], patients[order])
    other = flag(new[places].astype(np.float32), shuffled, 0.3, procedure)
    np.testing.assert_allclose(other.q_values, one.q_values[places], rtol=1e-12)
    assert other.p_value == pytest.approx(one.p_value, rel=1e-12)


def test_false_discoveries_beside_a_planted_abnormality_are_rare_where_neighbours_are_alike():
    """Smooth fields with a level of each image's own; 16 of 144 blocks raised by four standard deviations."""
    rng, alpha, planted = np.random.default_rng(0), 0.1, np.zeros((12, 12), bool)
    planted[4:8, 4:8] = True
    wrong: dict[str, list[float]] = {procedure: [] for procedure in PROCEDURES}
    found: dict[str, list[float]] = {procedure: [] for procedure in PROCEDURES}
    for _ in range(120):
        fields = 3.5 * gaussian_filter(rng.standard_normal((101, 12, 12)), (0, 1, 1), mode="wrap")
        fields = (fields + 0.5 * rng.standard_normal((101, 1, 1))).astype(np.float32)
        healthy = HealthyBlocks(tuple(fields[1:].reshape(100, -1)), np.arange(100))
        for procedure in PROCEDURES:
            flagged = flag(fields[0] + 4 * planted.astype(np.float32), healthy, alpha, procedure).flagged
            wrong[procedure].append((flagged & ~planted).sum() / max(flagged.sum(), 1))
            found[procedure].append(flagged[planted].mean())
    assert all(np.mean(share) <= alpha + 0.02 for share in wrong.values())
    assert all(np.mean(share) > 0.5 for share in found.values())
    assert np.mean(found["bh"]) > np.mean(found["by"])
    assert np.mean(wrong["by"]) < 0.05


# --- what cannot be used


def test_bad_input_is_refused():
    healthy, blocks = healthy_blocks([[1, 2], [3, 4]]), np.array([1, 2], np.float32)
    for alpha in (0.0, 1.0, 5.0, float("nan")):
        with pytest.raises(InputError, match="is no error rate"):
            flag(blocks, healthy, alpha)
    with pytest.raises(InputError, match="hold NaN; leave this image out"):
        flag(np.array([1, np.nan]), healthy, 0.05)
    with pytest.raises(InputError, match="holds no healthy image"):
        HealthyBlocks((), np.array([], int))
    with pytest.raises(InputError, match="maps of 1 images hold NaN"):
        healthy_blocks([[1, 2], [np.nan, 3]])
    with pytest.raises(ValueError, match="needs a patient"):
        healthy_blocks([[1, 2], [3, 4]], [1])


def test_healthy_blocks_of_whole_maps():
    maps = [np.random.default_rng(seed).random((24, 13)) for seed in range(3)]
    healthy = HealthyBlocks.of(maps)
    np.testing.assert_array_equal(healthy.values[2], block_means(maps[2]).ravel())
    assert healthy.patients.tolist() == [0, 1, 2]
    assert HealthyBlocks.of(maps, np.array([4, 4, 8])).patients.tolist() == [4, 4, 8]


def test_by_needs_more_healthy_patients():
    """A single block above all others is flagged with so many of them, and not with one fewer."""
    needed = fewest_for_by(0.2)
    for patients, expected in ((needed, True), (needed - 1, False)):
        healthy = HealthyBlocks.of(list(np.random.default_rng(0).random((patients, 16, 16))))
        blocks = np.zeros((16, 16), np.float32)
        blocks[3, 5] = 2
        assert flag(blocks, healthy, 0.2, "by").flagged.any() == expected
