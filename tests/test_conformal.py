"""P-values by hand, and that they are exact: found by taking every healthy patient in turn as the new one."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from priorlens.conformal import (
    COMBINATION_RULES,
    combined_p_values,
    online_p_values,
    p_values,
    smallest_p_value,
)
from priorlens.errors import InputError

CALIBRATION = np.array([1.0, 2.0, 3.0, 3.0, 5.0])


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def excess(found: np.ndarray, weights: np.ndarray) -> float:
    """By how much the share with p <= alpha exceeds alpha, at the worst alpha; weights sum to 1."""
    return max(float(weights[found <= alpha + 1e-12].sum()) - alpha for alpha in found)


# --- one detector


def test_by_hand():
    scores = np.array([0.0, 1.0, 2.5, 3.0, 5.0, 6.0, -np.inf, np.inf])
    expected = np.array([6, 6, 4, 4, 2, 1, 6, 1]) / 6
    np.testing.assert_allclose(p_values(scores, CALIBRATION), expected, rtol=1e-15)


def test_patients_count_alike_however_many_images_they_have():
    """Patients 7, 4 and 9 have one, two and three images; above 2.5 are none, both, and two of three."""
    calibration = np.array([3.0, 1.0, 4.0, 2.0, 6.0, 3.0])
    patients = np.array([4, 7, 9, 9, 9, 4])
    found = p_values(np.array([2.5, 3.5, 9.0, 0.0]), calibration, patients)
    np.testing.assert_allclose(found, np.array([1 + 1 + 2 / 3, 1 + 2 / 3, 1, 4]) / 4, rtol=1e-15)


def test_patients_of_one_image_each_are_no_patients():
    calibration, scores = generator().normal(size=50), generator(1).normal(size=20)
    patients = generator(2).permutation(50)
    assert (p_values(scores, calibration, patients) == p_values(scores, calibration)).all()


def test_copies_of_an_image_change_nothing():
    calibration, scores = generator().normal(size=20), generator(1).normal(size=9)
    patients = np.repeat(np.arange(20), 3)
    np.testing.assert_allclose(
        p_values(scores, np.repeat(calibration, 3), patients), p_values(scores, calibration), rtol=1e-15
    )


@given(st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=4), min_size=2, max_size=6))
def test_exact_over_patients_and_their_images(images):
    """Each patient in turn is new, with one of its images; ties and unequal numbers of images allowed."""
    found, weights = [], []
    for new, own in enumerate(images):
        others = [(value, patient) for patient, some in enumerate(images) if patient != new for value in some]
        values, patients = (np.array(column) for column in zip(*others, strict=True))
        found.append(p_values(np.array(own, float), values.astype(float), patients))
        weights.append(np.full(len(own), 1 / len(own) / len(images)))
    assert excess(np.concatenate(found), np.concatenate(weights)) < 1e-9


@given(st.lists(st.floats(allow_nan=False), min_size=2, max_size=12, unique=True))
def test_without_ties_every_share_is_reached(values):
    """Exact is not only never too often: one of n + 1 images has p = 1 / (n + 1), one twice that, and so on."""
    scores = np.array(values)
    found = [p_values(scores[i : i + 1], np.delete(scores, i))[0] for i in range(scores.size)]
    np.testing.assert_allclose(sorted(found), np.arange(1, scores.size + 1) / scores.size, rtol=1e-15)


def test_smallest_p_value_is_that_of_the_highest_score():
    for patients in (1, 19, 400):
        calibration = generator().normal(size=patients)
        assert p_values(np.array([99.0]), calibration)[0] == smallest_p_value(patients)
    assert smallest_p_value(19) == 0.05


def test_a_hundred_thousand_calibration_values_are_no_wait():
    calibration, patients = generator().normal(size=100_000), generator().integers(0, 20_000, 100_000)
    start = time.perf_counter()
    found = p_values(calibration[:1000], calibration, patients)
    assert time.perf_counter() - start < 1
    assert kstest(found, "uniform").pvalue > 0.01


def test_no_new_image_gives_no_p_value():
    assert p_values(np.zeros(0), CALIBRATION).shape == (0,)
    assert online_p_values(np.zeros(0), CALIBRATION, generator()).shape == (0,)
    assert combined_p_values(np.zeros((2, 0)), np.stack([CALIBRATION] * 2)).shape == (0,)


def test_what_cannot_be_used_is_said():
    one, unknown = np.ones(1), np.array([1.0, np.nan, np.nan])
    for scores, calibration, message in (
        (one, np.zeros(0), "calibration: holds no healthy image"),
        (unknown, one, "scores: 2 of 3 are not a number"),
        (one, unknown, "calibration: 2 of 3 are not a number"),
    ):
        with pytest.raises(InputError, match=message):
            p_values(scores, calibration)
        with pytest.raises(InputError, match=message):
            online_p_values(scores, calibration, generator())
        with pytest.raises(InputError, match=message):
            combined_p_values(scores[None], calibration[None])
    with pytest.raises(InputError, match="0 healthy patients"):
        smallest_p_value(0)


# --- several detectors


@pytest.mark.parametrize("rule", COMBINATION_RULES)
def test_one_detector_is_itself(rule):
    scores = np.array([0.0, 1.0, 2.5, 3.0, 5.0, 6.0])
    patients = np.array([0, 1, 1, 2, 2])
    for whose in (None, patients):
        found = combined_p_values(scores[None], CALIBRATION[None], rule, whose)
        np.testing.assert_allclose(found, p_values(scores, CALIBRATION, whose), rtol=1e-15)


def slow(scores, calibration, rule):
    """As the definition reads, one new image at a time: n + 1 images, ranked twice."""
    found = []
    for new in scores.T:
        together = np.column_stack([calibration, new])
        p = (together[:, None, :] >= together[:, :, None]).mean(2)
        joined = {
            "fisher": lambda p: p.prod(0),
            "harmonic": lambda p: 1 / (1 / p).mean(0),
            "cauchy": lambda p: -(1 / np.tan(np.pi / 2 * p)).sum(0),
            "smallest": lambda p: p.min(0),
        }[rule](p)
        found.append((joined <= joined[-1] + 1e-12).mean())
    return np.array(found)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("rule", COMBINATION_RULES)
def test_as_the_definition_reads(rule, tied):
    calibration, scores = generator().normal(size=(3, 30)), generator(1).normal(1, 1, size=(3, 100))
    if tied:
        calibration, scores = calibration.round(), scores.round()
    np.testing.assert_allclose(combined_p_values(scores, calibration, rule), slow(scores, calibration, rule))


@pytest.mark.parametrize("rule", COMBINATION_RULES)
def test_rules_by_hand(rule):
    """Two detectors rank five images, from above, (1, 5), (5, 1), (3, 3), (4, 4) and the new one (2, 2): the
    product is smallest for the new one; harmonic mean and smallest are smaller for two others."""
    calibration = np.array([[5.0, 1.0, 3.0, 2.0], [1.0, 5.0, 3.0, 2.0]])
    expected = 1 / 5 if rule == "fisher" else 3 / 5
    assert combined_p_values(np.array([[4.0], [4.0]]), calibration, rule)[0] == expected


@pytest.mark.parametrize("rule", COMBINATION_RULES)
def test_rounding_parts_no_equals(rule):
    """The same four ranks in every order of the detectors: no image is more abnormal than another."""
    images = np.array(list(itertools.permutations(range(4))), float).T
    for new in range(24):
        assert combined_p_values(images[:, [new]], np.delete(images, new, axis=1), rule)[0] == 1


detected = st.integers(1, 3).flatmap(
    lambda detectors: st.lists(
        st.lists(st.tuples(*[st.integers(0, 3)] * detectors), min_size=1, max_size=4), min_size=2, max_size=5
    )
)


@settings(deadline=None)
@given(detected, st.sampled_from(COMBINATION_RULES))
def test_combined_is_exact_over_patients_and_their_images(images, rule):
    """Any dependence of the detectors: each patient in turn is new, with one of its images."""
    found, weights = [], []
    for new, own in enumerate(images):
        others = [(values, patient) for patient, some in enumerate(images) if patient != new for values in some]
        calibration = np.array([values for values, _ in others], float).T
        patients = np.array([patient for _, patient in others])
        found.append(combined_p_values(np.array(own, float).T, calibration, rule, patients))
        weights.append(np.full(len(own), 1 / len(own) / len(images)))
    assert excess(np.concatenate(found), np.concatenate(weights)) < 1e-9


@pytest.mark.parametrize("rule", COMBINATION_RULES)
def test_many_unequal_patients_hold_the_level(rule):
    """Images of a patient alike, detectors too: what the enumeration shows of few patients, for many."""
    rng = generator(3)
    found = []
    for _ in range(400):
        sizes = rng.integers(1, 30, 40)
        patients = np.repeat(np.arange(40), sizes)
        own = (
            rng.normal(size=(2, 40))[:, patients] + rng.normal(size=(2, patients.size)) + rng.normal(size=40)[patients]
        )
        new = rng.normal(size=2) + rng.normal(size=2) + rng.normal()
        found.append(combined_p_values(new[:, None], own, rule, patients)[0])
    shares = np.array([np.mean(np.array(found) <= alpha) for alpha in (0.05, 0.2, 0.5)])
    assert (shares <= np.array([0.05, 0.2, 0.5]) + 3 * np.sqrt(0.25 / 400)).all()
    assert shares[1] > 0.1


@pytest.mark.parametrize("rule", COMBINATION_RULES)
def test_order_and_scale_do_not_count(rule):
    """Order of calibration, of new images and of detectors; and any rising function of a detector's scores."""
    rng = generator(4)
    calibration, scores, patients = rng.normal(size=(3, 60)), rng.normal(size=(3, 20)), rng.integers(0, 25, 60)
    found = combined_p_values(scores, calibration, rule, patients)
    order, other = rng.permutation(60), rng.permutation(20)
    shuffled = combined_p_values(scores[::-1][:, other], calibration[::-1][:, order], rule, patients[order])
    np.testing.assert_allclose(shuffled, found[other], rtol=1e-12)
    np.testing.assert_allclose(combined_p_values(np.exp(scores), np.exp(calibration), rule, patients), found)
    one = p_values(scores[0], calibration[0], patients)
    np.testing.assert_allclose(p_values(scores[0, other], calibration[0, order], patients[order]), one[other])


def test_two_detectors_see_more_than_one():
    rng = generator(5)
    healthy, abnormal = rng.normal(size=(2, 300)), rng.normal(2, 1, size=(2, 300))
    power = [(p_values(abnormal[i], healthy[i]) <= 0.05).mean() for i in (0, 1)]
    for rule in COMBINATION_RULES:
        assert (combined_p_values(abnormal, healthy, rule) <= 0.05).mean() > max(power) + 0.05


def test_many_images_are_no_wait_and_are_cut_unnoticed():
    rng = generator(6)
    healthy, new = rng.normal(size=(2, 400)), rng.normal(size=(2, 400))
    start = time.perf_counter()
    combined_p_values(new, healthy)
    assert time.perf_counter() - start < 1
    healthy, new = rng.normal(size=(2, 400_000)), rng.normal(size=(2, 12))
    at_once = combined_p_values(new, healthy)
    for i in (0, 11):
        assert combined_p_values(new[:, i : i + 1], healthy)[0] == at_once[i]


# --- scans in time order


def test_online_by_hand():
    """Ranked among calibration and scans before; the only draw is over those equal, itself included."""
    shares = 1 - generator(7).random(4)
    found = online_p_values(np.array([4.0, 3.0, 9.0, 0.0]), CALIBRATION, generator(7))
    expected = np.array([(1 + shares[0]) / 6, (2 + 3 * shares[1]) / 7, shares[2] / 8, (8 + shares[3]) / 9])
    np.testing.assert_allclose(found, expected, rtol=1e-15)


@pytest.mark.parametrize("values", ["continuous", "tied"])
def test_online_p_values_are_uniform_and_independent(values):
    """Of each scan over many streams, and of each scan with the one before."""
    rng = generator(8)
    found = []
    for _ in range(1500):
        scores = rng.normal(size=11) if values == "continuous" else rng.integers(0, 3, 11).astype(float)
        found.append(online_p_values(scores[3:], scores[:3], rng))
    found = np.array(found)
    assert all(kstest(column, "uniform").pvalue > 1e-3 for column in found.T)
    assert np.abs(np.corrcoef(found.T) - np.eye(8)).max() < 0.1
    assert kstest(found[:, :-1].ravel() * found[:, 1:].ravel(), lambda x: x - x * np.log(x)).pvalue > 1e-3


def test_online_order_of_the_calibration_does_not_count():
    stream = generator().normal(size=30)
    one, other = (online_p_values(stream, some, generator(1)) for some in (CALIBRATION, CALIBRATION[::-1].copy()))
    assert (one == other).all()


def test_online_without_ties_tells_the_order_of_any_stream():
    """Over all orders of the same scores each sequence of ranks comes once: independent and uniform, exactly."""
    ranks = set()
    for order in itertools.permutations([0.1, 0.5, 0.7, 0.9]):
        found = online_p_values(np.array(order[1:]), np.array(order[:1]), generator())
        ranks.add(tuple(np.ceil(found * np.arange(2, 5) - 1e-9).astype(int)))
    assert ranks == set(itertools.product(range(1, 3), range(1, 4), range(1, 5)))


def test_online_p_values_fall_where_scores_rise_and_are_never_zero():
    healthy = generator().normal(size=200)
    found = online_p_values(np.concatenate([healthy[100:], healthy[:50] + 5]), healthy[:100], generator(1))
    assert found[100:120].max() < 0.2 and found[:100].mean() > 0.4
    assert found.min() > 0 and found.max() <= 1
    assert not (online_p_values(np.full(10_000, 9.0), np.zeros(1), generator()) == 0).any()
