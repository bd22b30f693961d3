"""Resamples against the same figures computed the slow way, and what the intervals promise."""

import numpy as np
import pytest

from priorlens import bootstrap, metrics, roc

FIGURES = {"auroc": roc.auroc, "ap": roc.average_precision, "aupro": roc.aupro, "dice": roc.best_dice}


def pixel_cases(rng, count, size):
    masks = [rng.random((size, size)) < 0.2 for _ in range(count)]
    return [metrics.pixel_scores(mask, (rng.standard_normal(mask.shape) + mask).astype(np.float32)) for mask in masks]


def test_a_resample_is_the_figure_of_the_repeated_images():
    cases = pixel_cases(np.random.default_rng(0), 6, 9)
    groups = ["b", "a", "a", "c", "d", "b"]
    [points] = bootstrap.resampled_points(cases, groups, 20, np.random.default_rng(7))
    weights = bootstrap.multiplicities(np.zeros(4, int), 20, np.random.default_rng(7))
    for row, times in enumerate(weights):
        drawn = [int(times["abcd".index(group)]) for group in groups]
        repeated = [case for case, count in zip(cases, drawn, strict=True) for _ in range(count)]
        slow = roc.operating_points(roc.pool(repeated))
        for figure in FIGURES.values():
            assert figure(points)[row] == pytest.approx(float(figure(slow)), abs=1e-12)


def test_quantile_thresholds_are_close_enough_with_many_pixels():
    cases = pixel_cases(np.random.default_rng(1), 5, 60)
    thresholds = bootstrap.quantile_thresholds(roc.pool(cases))
    assert 1500 < thresholds.size < 2100
    exact = roc.operating_points(roc.pool(cases))
    coarse = roc.OperatingPoints(*sum(roc.points_at(case, thresholds) for case in cases))
    for figure in FIGURES.values():
        assert float(figure(coarse)) == pytest.approx(float(figure(exact)), abs=1e-3)


def test_few_lesion_pixels_among_many_keep_their_resolution():
    rng = np.random.default_rng(2)
    items = roc.scored(rng.normal(3, 1, 50), rng.normal(0, 1, 200_000))
    coarse = roc.OperatingPoints(*roc.points_at(items, bootstrap.quantile_thresholds(items)))
    exact = roc.operating_points(items)
    assert float(roc.average_precision(coarse)) == pytest.approx(float(roc.average_precision(exact)), rel=0.1)
    assert float(roc.best_dice(coarse)) == pytest.approx(float(roc.best_dice(exact)), rel=0.02)


def test_perfect_separation_has_no_width():
    rng = np.random.default_rng(3)
    cases = [roc.scored(rng.uniform(2, 3, 3000), rng.uniform(0, 1, 3000)) for _ in range(4)]
    found = bootstrap.estimates(FIGURES, cases, list("abcd"), 50, rng)
    for name in ("auroc", "ap", "aupro", "dice"):
        assert [found[name].value, found[name].low, found[name].high] == pytest.approx([1.0, 1.0, 1.0], abs=1e-12)


def test_intervals_cover_as_they_should():
    """AUROC of two normals one standard deviation apart is .7602; 95 % intervals should hold it 95 times in 100."""
    rng = np.random.default_rng(4)
    truth, held = 0.760250, 0
    for _ in range(100):
        cases = [roc.scored(rng.normal(1, 1, 1), np.zeros(0)) for _ in range(40)]
        cases += [roc.scored(np.zeros(0), rng.normal(0, 1, 1)) for _ in range(40)]
        found = bootstrap.estimates({"auroc": roc.auroc}, cases, [str(i) for i in range(80)], 200, rng)["auroc"]
        held += found.low <= truth <= found.high
    assert 87 <= held <= 100


def test_repeated_slices_of_a_patient_do_not_narrow_the_interval():
    rng = np.random.default_rng(5)
    scores = rng.normal(0, 1, 20) + np.repeat([1.0, 0.0], 10)
    once = [roc.scored(scores[i : i + 1], np.zeros(0)) for i in range(10)]
    once += [roc.scored(np.zeros(0), scores[i : i + 1]) for i in range(10, 20)]
    names = [str(i) for i in range(20)]
    single = bootstrap.estimates({"auroc": roc.auroc}, once, names, 300, np.random.default_rng(0))["auroc"]
    fivefold = bootstrap.estimates({"auroc": roc.auroc}, once * 5, names * 5, 300, np.random.default_rng(0))["auroc"]
    assert fivefold == single


def test_draws_keep_to_their_strata():
    strata = np.array([1, 2, 1, 3, 2, 2])
    weights = bootstrap.multiplicities(strata, 50, np.random.default_rng(0))
    for stratum, size in ((1, 2), (2, 3), (3, 1)):
        assert (weights[:, strata == stratum].sum(axis=1) == size).all()


@pytest.mark.parametrize("groups", [["a", "a", "c", "d"], ["a", "b", "c", "c"]])
def test_one_group_of_a_sort_gives_no_interval(groups):
    one, none = np.ones(1), np.zeros(0)
    cases = [roc.scored(one, none), roc.scored(one, none), roc.scored(none, one), roc.scored(none, one)]
    found = bootstrap.estimates({"auroc": roc.auroc}, cases, groups, 20, np.random.default_rng(0))["auroc"]
    assert found.value == 0.5
    assert np.isnan([found.low, found.high]).all()


def test_mean_leaves_unknown_images_out():
    found = bootstrap.mean_estimate(np.array([1.0, np.nan, 0.0]), ["a", "b", "c"], 500, np.random.default_rng(0))
    assert (found.value, found.low, found.high) == (0.5, 0.0, 1.0)
    alone = bootstrap.mean_estimate(np.array([1.0, np.nan]), ["a", "b"], 50, np.random.default_rng(0))
    assert alone.value == 1.0 and np.isnan(alone.low)
    nothing = bootstrap.mean_estimate(np.zeros(0), [], 50, np.random.default_rng(0))
    assert np.isnan(nothing.value)
