"""Operating points against scikit-learn, and against cases worked out by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from priorlens import roc


def split(labels, scores):
    return roc.operating_points(roc.scored(scores[labels], scores[~labels]))


def sklearn_fpr_at(labels, scores, tpr):
    rates, found, _ = roc_curve(labels, scores, drop_intermediate=False)
    return rates[np.argmax(found >= tpr)]


def dice_over_all_thresholds(labels, scores):
    return max(2 * (labels & called).sum() / (labels.sum() + called.sum()) for called in (scores >= t for t in scores))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([2, 5, 1000]), st.integers(2, 80), st.sampled_from([np.float32, float]))
def test_figures_are_those_of_scikit_learn_whatever_the_ties(seed, distinct, count, dtype):
    rng = np.random.default_rng(seed)
    labels = rng.random(count) < 0.4
    labels[:2] = [True, False]
    scores = rng.integers(0, distinct, count).astype(dtype) + 0.5 * labels.astype(dtype)
    points = split(labels, scores)
    assert roc.auroc(points) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert roc.average_precision(points) == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    assert roc.best_dice(points) == pytest.approx(dice_over_all_thresholds(labels, scores), abs=1e-12)
    for tpr in (0.5, 0.95, 1.0):
        assert roc.fpr_at_tpr(points, tpr) == pytest.approx(sklearn_fpr_at(labels, scores, tpr), abs=1e-12)


def test_many_pixels_agree_with_scikit_learn():
    rng = np.random.default_rng(3)
    labels = rng.random(60_000) < 0.03
    scores = (rng.standard_normal(60_000) + labels).astype(np.float32)
    scores[rng.random(60_000) < 0.5] = 0.0
    points = split(labels, scores)
    assert roc.auroc(points) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert roc.average_precision(points) == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    assert roc.fpr_at_tpr(points) == pytest.approx(sklearn_fpr_at(labels, scores, 0.95), abs=1e-12)


@pytest.mark.parametrize(
    ("positives", "negatives", "expected"),
    [
        # 20 abnormal: 95 % are 19, the 19th scores 2; three of four healthy ones are there or above
        ([*range(20, 1, -1), 0.0], [2.0, 5.5, 30.0, 1.0], 0.75),
        # the 19th and 20th are tied with half of the healthy
        ([9.0] * 18 + [1.0] * 2, [1.0, 1.0, 0.0, 0.0], 0.5),
        ([9.0] * 20, [1.0, 2.0], 0.0),
        ([1.0] * 20, [1.0, 1.0], 1.0),
        ([0.0] * 20, [1.0, 2.0], 1.0),
    ],
)
def test_fpr95_worked_by_hand(positives, negatives, expected):
    points = roc.operating_points(roc.scored(np.array(positives, float), np.array(negatives)))
    assert float(roc.fpr_at_tpr(points)) == expected


def test_fpr95_counts_19_of_20_as_95_percent():
    for count in (20, 40, 60, 100, 140, 380):
        positives = np.r_[np.full(round(0.95 * count), 2.0), np.zeros(count - round(0.95 * count))]
        assert float(roc.fpr_at_tpr(roc.operating_points(roc.scored(positives, np.ones(3))))) == 0.0


def test_all_tied_is_chance():
    points = roc.operating_points(roc.scored(np.full(3, 7.0), np.full(9, 7.0)))
    assert float(roc.auroc(points)) == 0.5
    assert float(roc.average_precision(points)) == 0.25
    assert float(roc.best_dice(points)) == pytest.approx(2 * 3 / (3 + 12))


def test_best_dice_worked_by_hand():
    # called at >= 5: 2 of 3 lesion pixels and 1 other -> 4/6; at >= 1: 3 and 5 others -> 6/11; at >= 8: 1 -> 2/4
    points = roc.operating_points(roc.scored(np.array([8.0, 5.0, 1.0]), np.array([6.0, 4.0, 3.0, 2.0, 1.0, 0.0])))
    assert float(roc.best_dice(points)) == pytest.approx(4 / 6)


def test_infinite_scores_are_ranked():
    points = roc.operating_points(roc.scored(np.array([np.inf, np.inf, 0.0]), np.array([-np.inf, np.inf])))
    assert float(roc.auroc(points)) == pytest.approx((0.5 + 1 + 0.5 + 1 + 0 + 1) / 6)


@pytest.mark.parametrize(
    ("positives", "negatives"),
    [([], []), ([], [1.0, 2.0]), ([1.0, 2.0], []), ([np.nan, 1.0], [0.0, 2.0]), ([1.0], [np.nan])],
)
@pytest.mark.parametrize(
    "figure", [roc.auroc, roc.average_precision, roc.fpr_at_tpr, roc.best_dice, roc.aupro], ids=lambda f: f.__name__
)
def test_undefined_is_nan(figure, positives, negatives):
    points = roc.operating_points(roc.scored(np.array(positives, np.float32), np.array(negatives, np.float32)))
    assert np.isnan(figure(points))


def test_a_case_without_regions_has_the_partial_area_of_its_roc_curve():
    rng = np.random.default_rng(0)
    positives, negatives = rng.normal(1, 1, 40), rng.normal(0, 1, 70)
    points = roc.operating_points(roc.scored(positives, negatives))
    assert float(roc.aupro(points, 1.0)) == pytest.approx(float(roc.auroc(points)), abs=1e-12)


def test_counts_at_thresholds_add_up():
    rng = np.random.default_rng(1)
    cases = [
        roc.scored(rng.integers(0, 9, n).astype(np.float32), rng.integers(0, 9, 8).astype(np.float32), rng.random(n))
        for n in (3, 0, 5)
    ]
    thresholds = np.arange(9, dtype=np.float32)[::-1].copy()
    together = roc.points_at(roc.pool(cases), thresholds)
    np.testing.assert_allclose(sum(roc.points_at(case, thresholds) for case in cases), together, atol=1e-12)
    points = roc.OperatingPoints(*together)
    exact = roc.operating_points(roc.pool(cases))
    for figure in (roc.auroc, roc.average_precision, roc.fpr_at_tpr, roc.best_dice, roc.aupro):
        assert figure(points) == pytest.approx(float(figure(exact)), abs=1e-12)
