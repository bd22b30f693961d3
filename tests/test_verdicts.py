"""What is said of one image: its p-value, its verdict and the places in it, at the rate that was promised."""

from __future__ import annotations

import numpy as np
import pytest

from priorlens.blocks import PROCEDURES, block_means, enlarged, flag
from priorlens.calibration import Calibration
from priorlens.errors import InputError
from priorlens.regions import find_regions
from priorlens.verdicts import Judge

SIDE = 24


def maps(count: int, seed: int = 0, side: int = SIDE) -> np.ndarray:
    """Of healthy images: smooth over two pixels, so that blocks depend on each other."""
    noise = np.random.default_rng(seed).normal(size=(count, side, side))
    return ((noise + np.roll(noise, 1, 1) + np.roll(noise, 1, 2)) / 3).astype(np.float32)


def calibration_of(some: np.ndarray, patients: list[int] | None = None) -> Calibration:
    """An image's anomaly is the mean of its map."""
    numbers = list(range(len(some))) if patients is None else patients
    return Calibration(
        "ab",
        "rule=combined",
        tuple(f"{i:032x}" for i in range(len(some))),
        tuple(f"{one:032x}" for one in numbers),
        some.mean((1, 2)).astype(np.float32),
        tuple(block_means(one).ravel() for one in some),
        {},
    )


@pytest.fixture(scope="module")
def known() -> Calibration:
    return calibration_of(maps(39))


@pytest.fixture
def lesions() -> np.ndarray:
    """A healthy map with two places that stand out, the upper one less."""
    found = maps(1, seed=7)[0]
    found[3:7, 2:9] += 3
    found[14:20, 15:21] += 6
    return found


def test_by_default_there_is_a_p_value_and_nothing_else(known, lesions):
    found = Judge(known).judge(0.5, lesions)
    assert found.p_value == known.image_p_values(np.array([0.5]))[0] == Judge(known).p_value(0.5)
    assert found.abnormal is None and found.regions == ()
    assert found.labels.shape == lesions.shape and not found.labels.any()


def test_a_verdict_is_whether_the_p_value_is_at_most_alpha(known, lesions):
    scores = np.sort(known.anomaly)[::-1]
    for rank, alpha in ((0, 0.05), (1, 0.05), (2, 0.05), (2, 0.075), (38, 0.5)):
        p_value = (rank + 2) / 40
        found = Judge(known, alpha).judge(float(scores[rank]), lesions)
        assert found.p_value == pytest.approx(p_value) and found.abnormal == (p_value <= alpha + 1e-12)
    assert Judge(known, 0.05).judge(99.0, lesions).p_value == 1 / 40


@pytest.mark.parametrize("procedure", PROCEDURES)
def test_regions_are_those_of_the_flagged_blocks(known, lesions, procedure):
    alpha = 0.15 if procedure == "by" else 0.05  # which needs 110 patients for .05
    found = Judge(known, alpha, procedure).judge(0.0, lesions)
    flagged = flag(block_means(lesions), known.healthy_blocks, alpha, procedure)
    regions, labels = find_regions(lesions, flagged)
    assert found.regions == tuple(regions) and len(regions) == 2
    np.testing.assert_array_equal(found.labels, labels)
    np.testing.assert_array_equal(found.labels > 0, enlarged(flagged.flagged, lesions.shape))
    assert found.labels[17, 18] == 1 and found.labels[5, 5] == 2, "the highest peak first"
    for number, region in enumerate(found.regions, 1):
        inside = found.labels == number
        assert region.unit == "px" and region.size == inside.sum() and region.q_value <= alpha
        assert region.peak == lesions[inside].max() and region.mean == pytest.approx(lesions[inside].mean(), rel=1e-5)
        np.testing.assert_allclose(region.centre, np.argwhere(inside).mean(0))


def test_regions_are_told_in_millimetres_where_a_pixel_has_a_size(known, lesions):
    affine = np.array([[0, 0.5, 0], [0.5, 0, 0], [0, 0, 1.0]])
    (first, _), (same, _) = (Judge(known, 0.05, affine=one).judge(0.0, lesions).regions for one in (None, affine))
    assert same.unit == "mm" and same.size == first.size / 4
    np.testing.assert_allclose(same.centre, np.array(first.centre)[::-1] / 2, err_msg="x is across, y down")


def test_another_level_can_be_asked_for(known, lesions):
    judge = Judge(known)
    counts = [(judge.regions(lesions, alpha)[1] > 0).sum() for alpha in (0.026, 0.1, 0.5)]
    assert counts == sorted(counts) and counts[0] > 0
    own = Judge(known, 0.1).judge(0.0, lesions)
    np.testing.assert_array_equal(own.labels, judge.regions(lesions, 0.1)[1])


def test_an_alpha_that_no_p_value_reaches_is_refused_at_once(known):
    with pytest.raises(InputError, match=r"alpha 0.02: 39 healthy patients .* at least 49") as error:
        Judge(known, 0.02)
    assert "\n" not in str(error.value)
    Judge(known, 0.025)


def test_a_map_of_another_size_and_shape_can_be_judged(known):
    for shape in ((48, 48), (9, 40), (300, 8)):
        found = Judge(known, 0.05).judge(0.0, np.zeros(shape, np.float32))
        assert found.labels.shape == shape


@pytest.mark.parametrize("procedure", PROCEDURES)
@pytest.mark.parametrize("images", [1, 2])
def test_healthy_images_are_called_abnormal_no_more_often_than_promised(procedure, images):
    """Each of twenty patients in turn is the new one: verdicts and images with any region, as shares."""
    some, patients = maps(20 * images, seed=3), np.repeat(np.arange(20), images)
    for alpha in (0.1, 0.25, 0.5):
        called, flagged = [], []
        for i in range(0, len(some), images):
            others = patients != patients[i]
            judge = Judge(calibration_of(some[others], list(patients[others])), alpha, procedure)
            found = judge.judge(float(some[i].mean(dtype=np.float64)), some[i])
            called.append(found.abnormal)
            flagged.append(bool(found.regions))
        assert np.mean(called) <= alpha + (images > 1) / 20
        assert np.mean(flagged) <= alpha + (images > 1) / 20
