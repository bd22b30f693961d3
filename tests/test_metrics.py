"""Pixel figures against a brute-force AUPRO, against scikit-learn and against cases worked out by hand."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.measure import label
from sklearn.metrics import average_precision_score, roc_auc_score

from priorlens import metrics


def brute_force_aupro(masks, maps, limit):
    """Threshold by threshold, region by region, as the definition reads."""
    regions = []
    for index, mask in enumerate(masks):
        numbered = label(mask, connectivity=2)
        regions += [(index, numbered == number) for number in range(1, numbered.max() + 1)]
    healthy = sum((~mask).sum() for mask in masks)
    curve = [(0.0, 0.0)]
    for threshold in sorted({value for one in maps for value in one.ravel()}, reverse=True):
        false = sum(((one >= threshold) & ~mask).sum() for one, mask in zip(maps, masks, strict=True))
        overlap = np.mean([(maps[index][region] >= threshold).mean() for index, region in regions])
        curve.append((false / healthy, overlap))
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(curve):
        if x0 < limit and x1 > x0:
            stop = min(x1, limit)
            area += (stop - x0) * (y0 + (y0 + (y1 - y0) * (stop - x0) / (x1 - x0))) / 2
    return area / limit


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([3, 8, 1000]), st.sampled_from([0.05, 0.3, 1.0]))
def test_aupro_is_that_of_brute_force(seed, distinct, limit):
    rng = np.random.default_rng(seed)
    sizes = [(5, 7), (6, 4), (3, 3)]
    masks = [rng.random(size) < 0.3 for size in sizes]
    masks[0][0, 0], masks[0][4, 6] = True, False
    maps = [rng.integers(0, distinct, size).astype(np.float32) for size in sizes]
    assert metrics.aupro(masks, maps, limit) == pytest.approx(brute_force_aupro(masks, maps, limit), abs=1e-12)


def hand_case():
    """Fifteen pixels: a region of one pixel in the corner, a region of four at the border, ten healthy pixels.

    Scores, falling: 10 (small region); 9; a healthy 8; 7 (large region and one healthy, tied); a healthy 6; 5; ...
    """
    mask = np.array([[1, 0, 0, 0, 0], [0, 0, 0, 1, 1], [0, 0, 0, 1, 1]], bool)
    scores = np.array([[10, 8, 7, 6, 4], [3, 2, 0, 9, 7], [0, 0, 0, 5, 1]], np.float32)
    return [mask], [scores]


def test_aupro_worked_by_hand():
    masks, maps = hand_case()
    # overlap .625 up to FPR .1, straight to .75 at .2 (the tie), .75 up to .3
    expected = (0.1 * 0.625 + 0.1 * (0.625 + 0.75) / 2 + 0.1 * 0.75) / 0.3
    assert metrics.aupro(masks, maps) == pytest.approx(expected, abs=1e-12)
    # cut in the middle of the tie's slope, at overlap .6875
    expected = (0.1 * 0.625 + 0.05 * (0.625 + 0.6875) / 2) / 0.15
    assert metrics.aupro(masks, maps, 0.15) == pytest.approx(expected, abs=1e-12)


def test_regions_count_the_same_whatever_their_size():
    mask = np.zeros((8, 8), bool)
    mask[0, 0] = True
    mask[3:7, 3:7] = True
    only_small, only_large = np.zeros((2, 8, 8), np.float32)
    only_small[0, 0] = 1
    only_large[3:7, 3:7] = 1
    # half of the regions at no false positive, the rest on the slope to (1, 1)
    expected = 0.5 + 0.5 * 0.3 / 2
    assert metrics.aupro([mask], [only_small]) == pytest.approx(expected)
    assert metrics.aupro([mask], [only_large]) == pytest.approx(expected)


def test_diagonal_neighbours_are_one_region():
    mask = np.eye(4, dtype=bool)
    shares = metrics.pixel_scores(mask, np.zeros((4, 4), np.float32)).region_shares
    np.testing.assert_allclose(shares, 0.25)


def test_a_perfect_map_at_the_border_scores_one():
    mask = np.zeros((6, 9), bool)
    mask[:, 8] = mask[5] = True
    mask[0, 0] = True
    result = metrics.pixel_metrics([mask], [mask.astype(np.float32)], [np.ones_like(mask)])
    assert list(vars(result).values()) == pytest.approx([1.0] * 5, abs=1e-12)


def test_pooled_figures_are_those_of_scikit_learn():
    rng = np.random.default_rng(5)
    sizes = [(20, 30), (16, 16), (31, 9)]
    masks = [rng.random(size) < share for size, share in zip(sizes, (0.1, 0.02, 0.3), strict=True)]
    maps = [(rng.standard_normal(mask.shape).round(1) + mask).astype(np.float32) for mask in masks]
    labels, scores = (np.concatenate([one.ravel() for one in many]) for many in (masks, maps))
    assert metrics.pixel_auroc(masks, maps) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert metrics.pixel_ap(masks, maps) == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    bodies = [rng.random(mask.shape) < 0.7 for mask in masks]
    inside = [roc_auc_score(mask[body], one[body]) for mask, one, body in zip(masks, maps, bodies, strict=True)]
    assert metrics.pixel_auroc_per_image(masks, maps, bodies) == pytest.approx(np.mean(inside), abs=1e-12)


def test_best_dice_takes_one_threshold_for_all_images():
    mask = np.zeros((2, 4), bool)
    mask[:, 0] = True
    high = np.where(mask, 10.0, 5.0).astype(np.float32)
    low = np.where(mask, 3.0, 1.0).astype(np.float32)
    assert metrics.dice_best([mask], [high]) == metrics.dice_best([mask], [low]) == 1.0
    # at 10: 2 of 4 lesion pixels, nothing else -> 4/6; at 3: all 4 and 6 others -> 8/14
    assert metrics.dice_best([mask, mask], [high, low]) == pytest.approx(4 / 6)


def test_an_image_without_lesion_pixels_gives_healthy_pixels_only():
    lesion, none = np.eye(4, dtype=bool), np.zeros((4, 4), bool)
    ones, zeros = np.ones((4, 4), np.float32), np.zeros((4, 4), np.float32)
    assert metrics.pixel_auroc([lesion, none], [lesion.astype(np.float32), zeros]) == 1.0
    # its 16 pixels are false positives, 28 in all
    assert metrics.pixel_auroc([lesion, none], [lesion.astype(np.float32), ones]) == pytest.approx(12 / 28 + 8 / 28)
    bodies = [np.ones((4, 4), bool)] * 2
    assert metrics.pixel_auroc_per_image([lesion, none], [lesion.astype(np.float32), ones], bodies) == 1.0


@pytest.mark.parametrize("fill", [False, True])
def test_pixel_figures_without_meaning_are_nan(fill):
    masks, maps = [np.full((4, 4), fill)] * 2, [np.arange(16, dtype=np.float32).reshape(4, 4)] * 2
    result = metrics.pixel_metrics(masks, maps, [np.ones((4, 4), bool)] * 2)
    assert all(np.isnan(value) for value in vars(result).values())
    nothing = metrics.pixel_metrics([], [], [])
    assert all(np.isnan(value) for value in vars(nothing).values())


def test_image_metrics_worked_by_hand():
    labels = np.array([True, False, True, False, False])
    scores = np.array([3.0, 2.0, 2.0, 1.0, 0.0])
    result = metrics.image_metrics(labels, scores)
    assert result.auroc == pytest.approx((3 + 2.5) / 6)
    assert result.average_precision == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert result.fpr95 == metrics.fpr_at_tpr(labels, scores) == pytest.approx(1 / 3)


@pytest.mark.parametrize("labels", [[False] * 3, [True] * 3, []])
def test_image_metrics_of_one_class_are_nan(labels):
    result = metrics.image_metrics(np.array(labels, bool), np.arange(len(labels), dtype=np.float32))
    assert all(np.isnan(value) for value in vars(result).values())
