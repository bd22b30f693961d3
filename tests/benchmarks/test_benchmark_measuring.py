"""The figures, against scikit-learn, torchmetrics and anomalib; and differences between methods."""

import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from benchmarks.folds import by_fold, matched_within, mean_over_folds, pairs_within, within_folds
from benchmarks.measuring import (
    POOLED,
    figures,
    matched_height,
    paired_difference,
    paired_difference_matched,
)
from benchmarks.study import Fold, Study
from priorlens.errors import InputError
from priorlens.evaluation import METRICS, Outcome

CLOSE = 1e-6


def outcome(kind, number, anomaly, anomaly_map=None, mask=None):
    body = None if mask is None else np.ones(mask.shape, bool)
    return Outcome(f"{kind}/{number}", kind, f"{number}", float(anomaly), anomaly_map, mask, body)


def study(seed, case):
    """Twelve healthy and twelve abnormal images of 24 x 20, with what each case is about."""
    rng = np.random.default_rng(seed)
    found = [outcome("good", i, rng.normal()) for i in range(12)]
    for i in range(12):
        mask = ndimage.binary_dilation(rng.random((24, 20)) < 0.008, iterations=2)
        mask[5, 5] = True
        if case == "one pixel":
            mask = np.zeros_like(mask)
            mask[3, 4] = True
        anomaly_map = (rng.normal(size=mask.shape) + mask).astype(np.float32)
        anomaly = rng.normal() + 1
        if case == "ties":
            anomaly_map, anomaly = np.round(anomaly_map), round(anomaly)
        if case == "constant":
            anomaly_map, anomaly = np.full_like(anomaly_map, 2), 2
        if case == "all lesion" and i < 11:
            mask = np.ones_like(mask)
        if case == "perfect":
            anomaly_map, anomaly = mask.astype(np.float32), 100
        found.append(outcome("bleed", i, anomaly, anomaly_map, mask))
    if case == "constant":
        found = [outcome(one.kind, i, 2, one.anomaly_map, one.mask) for i, one in enumerate(found)]
    return found


CASES = ["random", "ties", "constant", "one pixel", "all lesion", "perfect"]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seed", range(3))
def test_figures_are_those_of_scikit_learn(case, seed):
    outcomes = study(seed, case)
    found = {key: one["value"] for key, one in figures(outcomes, resamples=0)[POOLED].items()}
    assert set(found) == set(METRICS)
    labels = np.array([one.kind != "good" for one in outcomes])
    scores = np.array([one.anomaly for one in outcomes])
    pixels = np.concatenate([one.mask.ravel() for one in outcomes if one.mask is not None])
    values = np.concatenate([one.anomaly_map.ravel() for one in outcomes if one.mask is not None])
    assert found["image_auroc"] == pytest.approx(roc_auc_score(labels, scores), abs=CLOSE)
    assert found["image_ap"] == pytest.approx(average_precision_score(labels, scores), abs=CLOSE)
    assert found["pixel_auroc"] == pytest.approx(roc_auc_score(pixels, values), abs=CLOSE)
    assert found["pixel_ap"] == pytest.approx(average_precision_score(pixels, values), abs=CLOSE)
    assert found["fpr95"] == pytest.approx(fpr_of(labels, scores), abs=CLOSE)
    assert found["dice_best"] == pytest.approx(dice_of(pixels, values), abs=CLOSE)
    inside = [
        roc_auc_score(one.mask.ravel(), one.anomaly_map.ravel())
        for one in outcomes
        if one.mask is not None and 0 < one.mask.sum() < one.mask.size
    ]
    assert found["pixel_auroc_per_image"] == pytest.approx(np.mean(inside), abs=CLOSE)
    assert found["aupro"] == pytest.approx(aupro_of(outcomes), abs=CLOSE)


def fpr_of(labels, scores):
    rates = roc_curve(labels, scores, drop_intermediate=False)
    return min(false for false, true, _ in zip(*rates, strict=True) if true >= 0.95)


def dice_of(labels, values):
    precision, recall, _ = precision_recall_curve(labels, values)
    total = precision + recall
    return np.max(np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0))


def aupro_of(outcomes, limit=0.3):
    """Threshold by threshold, as the definition has it."""
    chosen = [one for one in outcomes if one.mask is not None]
    regions = [
        one.anomaly_map[labelled == number]
        for one in chosen
        for labelled, count in [ndimage.label(one.mask, np.ones((3, 3)))]
        for number in range(1, count + 1)
    ]
    healthy = np.concatenate([one.anomaly_map[~one.mask] for one in chosen])
    thresholds = np.unique(np.concatenate([healthy, *regions]))[::-1]
    rates = np.array([0.0, *((healthy >= t).mean() for t in thresholds)])
    overlap = np.array([0.0, *(np.mean([(region >= t).mean() for region in regions]) for t in thresholds)])
    ends = np.searchsorted(rates, limit, side="right")
    x = np.append(rates[:ends], limit)
    y = np.append(overlap[:ends], np.interp(limit, rates[ends - 1 : ends + 1], overlap[ends - 1 : ends + 1]))
    return np.trapezoid(y, x) / limit


@pytest.mark.parametrize("case", CASES)
def test_figures_are_those_of_torchmetrics(case):
    torch, torchmetrics = pytest.importorskip("torch"), pytest.importorskip("torchmetrics.functional.classification")
    outcomes = study(7, case)
    found = {key: one["value"] for key, one in figures(outcomes, resamples=0)[POOLED].items()}
    masks = torch.from_numpy(np.stack([one.mask for one in outcomes if one.mask is not None])).long().flatten()
    maps = torch.from_numpy(np.stack([one.anomaly_map for one in outcomes if one.mask is not None])).double().flatten()
    values = torch.sigmoid(maps)  # else scores outside [0, 1] are taken for logits
    assert found["pixel_auroc"] == pytest.approx(float(torchmetrics.binary_auroc(values, masks)), abs=CLOSE)
    assert found["pixel_ap"] == pytest.approx(float(torchmetrics.binary_average_precision(values, masks)), abs=CLOSE)


BY_ANOMALIB = {
    "random": 0.46433570981025696,
    "ties": 0.4143008589744568,
    "constant": 0.15000000596046448,
    "one pixel": 0.49964237213134766,
    "perfect": 1.0,
}
"""AUPRO as anomalib 2.7.0 has it, which is no dependency. It takes an image that is lesion all over for background, so
that "all lesion" is left to `aupro_of`."""


@pytest.mark.parametrize("case", BY_ANOMALIB)
def test_aupro_is_that_of_anomalib(case):
    found = figures(study(5, case), resamples=0)[POOLED]["aupro"]["value"]
    assert found == pytest.approx(BY_ANOMALIB[case], abs=CLOSE)


@pytest.mark.parametrize("case", BY_ANOMALIB)
def test_aupro_is_that_of_an_installed_anomalib(case):
    torch = pytest.importorskip("torch")
    aupro = pytest.importorskip("anomalib.metrics.aupro")
    outcomes = [one for one in study(5, case) if one.mask is not None]
    metric = aupro._AUPRO(fpr_limit=0.3)
    masks = torch.from_numpy(np.stack([one.mask for one in outcomes])).long()
    maps = torch.from_numpy(np.stack([one.anomaly_map for one in outcomes]))
    metric.update(maps, masks)
    assert figures(outcomes, resamples=0)[POOLED]["aupro"]["value"] == pytest.approx(float(metric.compute()), abs=CLOSE)


def test_a_constant_score_has_auroc_one_half_and_ap_the_prevalence():
    outcomes = study(0, "constant")[:17]
    found = figures(outcomes, resamples=0)[POOLED]
    assert found["image_auroc"]["value"] == found["pixel_auroc"]["value"] == 0.5
    assert found["image_ap"]["value"] == pytest.approx(5 / 17, abs=CLOSE)
    masks = np.stack([one.mask for one in outcomes if one.mask is not None])
    assert found["pixel_ap"]["value"] == pytest.approx(masks.mean(), abs=CLOSE)


def test_all_kinds_are_pooled_and_each_is_by_itself():
    first, second = study(0, "random"), study(1, "perfect")
    outcomes = first + [
        Outcome(f"star/{i}", "star", one.group, one.anomaly, one.anomaly_map, one.mask, one.body)
        for i, one in enumerate(second)
        if one.kind != "good"
    ]
    found = figures(outcomes, resamples=50)
    assert set(found) == {POOLED, "bleed", "star"}
    assert found["bleed"]["pixel_ap"]["value"] < found[POOLED]["pixel_ap"]["value"]
    assert found["star"]["image_auroc"]["value"] == 1.0


@pytest.mark.parametrize("figure", METRICS)
def test_a_difference_of_a_method_to_itself_is_none(figure):
    outcomes = study(3, "random")
    found = paired_difference(outcomes, outcomes[::-1], figure, resamples=100)
    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_resamples_are_the_same_for_both():
    """Two methods that differ by little, image by image, differ for sure, though the figure itself varies more."""
    a = study(3, "random")
    b = [outcome(one.kind, one.group, one.anomaly - 0.2 * (one.kind != "good"), one.anomaly_map, one.mask) for one in a]
    found = paired_difference(a, b, "image_auroc")
    alone = figures(a)[POOLED]["image_auroc"]
    assert found.value > 0
    assert found.low >= 0
    assert found.high - found.low < alone["high"] - alone["low"]
    back = paired_difference(b, a, "image_auroc")
    assert (back.value, back.low, back.high) == pytest.approx((-found.value, -found.high, -found.low))


def test_a_difference_is_taken_on_the_images_that_both_have_judged():
    a = study(3, "random")
    assert paired_difference(a, a[::3], "pixel_ap", resamples=50).value == 0
    of_star = paired_difference(a, a, "pixel_ap", kind="bleed", resamples=50)
    assert of_star.value == 0


def test_a_method_without_maps_has_no_difference_of_pixels():
    a = study(3, "random")
    b = [outcome(one.kind, one.group, one.anomaly) for one in a]
    assert np.isnan(paired_difference(a, b, "pixel_ap").value)
    with pytest.raises(ValueError, match="none of"):
        paired_difference(a, b, "beauty")


def slices(rng, gain):
    """Four patients' slices: the higher the brighter, with a lesion in the upper half of most."""
    found = []
    for patient in range(4):
        for height in range(12):
            lesion = height > 5 and (patient + height) % 3 > 0
            kind, anomaly = "lesion" if lesion else "good", height + rng.normal() / 4 + gain * lesion
            name = f"{kind}/p{patient}_z{height:03d}"
            found.append(Outcome(name, kind, f"p{patient}", anomaly))
    return found


def test_slices_of_one_height_are_compared():
    rng = np.random.default_rng(0)
    blind = slices(rng, 0.0)
    assert figures(blind, 0)[POOLED]["image_auroc"]["value"] > 0.8
    found = matched_height(blind, r"_z(\d+)")
    assert found["image_auroc"]["value"] == pytest.approx(0.5, abs=0.25)
    assert found["matched_lesion_slices"] == found["lesion_slices"] == 16
    seeing = slices(rng, 2.0)
    assert matched_height(seeing, r"_z(\d+)")["image_auroc"]["value"] > 0.95
    difference = paired_difference_matched(seeing, blind, r"_z(\d+)")
    expected = matched_height(seeing, r"_z(\d+)")["image_auroc"]["value"] - found["image_auroc"]["value"]
    assert difference.value == pytest.approx(expected)
    assert difference.low > 0


def in_two(outcomes, shift):
    """The first two patients and the others, whom a model on another scale has judged."""
    first, second = ([one for one in outcomes if (one.group in ("p0", "p1")) == side] for side in (True, False))
    return first, [Outcome(one.name, one.kind, one.group, one.anomaly + shift) for one in second]


def test_within_folds_the_scale_of_a_model_does_not_matter():
    found = slices(np.random.default_rng(0), 2.0)
    parts, shifted = in_two(found, 0.0), in_two(found, 40.0)
    for figure in ("image_auroc", "image_ap", "fpr95"):
        each = [figures(part, 0)[POOLED][figure]["value"] for part in parts]
        assert mean_over_folds(shifted, figure, 50).value == pytest.approx(np.mean(each))
    pooled = figures([*shifted[0], *shifted[1]], 0)[POOLED]["image_auroc"]["value"]
    assert mean_over_folds(shifted, "image_auroc", 0).value > pooled + 0.1
    assert matched_within(shifted, r"_z(\d+)", 50) == matched_within(parts, r"_z(\d+)", 50)


def test_folds_count_as_their_patients_do():
    found = slices(np.random.default_rng(1), 0.5)
    parts = [[one for one in found if (one.group == "p0") == side] for side in (True, False)]
    each = [figures(part, 0)[POOLED]["image_auroc"]["value"] for part in parts]
    estimate = mean_over_folds(parts, "image_auroc", 50)
    assert estimate.value == pytest.approx((each[0] + 3 * each[1]) / 4)
    assert np.isnan(estimate.low)  # one patient alone says nothing of others
    healthy = [one for one in parts[0] if one.kind == "good"]
    assert mean_over_folds([healthy, parts[1]], "image_auroc", 50).value == pytest.approx(each[1])


def test_pairs_of_slices_are_of_one_fold():
    found = slices(np.random.default_rng(2), 0.5)
    parts = in_two(found, 0.0)
    each = [matched_height(part, r"_z(\d+)", 0) for part in parts]
    whole = matched_within(parts, r"_z(\d+)", 200)
    assert whole["matched_pairs"] == sum(one["matched_pairs"] for one in each)
    assert whole["matched_pairs"] < matched_height(found, r"_z(\d+)", 0)["matched_pairs"]
    pairs = pairs_within(parts, r"_z(\d+)").pairs
    assert not pairs[:2, 2:].any() and not pairs[2:, :2].any()
    weights = [one["matched_pairs"] for one in each]
    values = [one["image_auroc"]["value"] for one in each]
    assert whole["image_auroc"]["value"] == pytest.approx(np.average(values, weights=weights))


def test_images_are_attributed_to_their_folds(tmp_path):
    found = slices(np.random.default_rng(3), 1.0)
    for number, part in enumerate(in_two(found, 0.0)):
        for one in part:
            path = tmp_path / str(number) / "test" / f"{one.name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    folds = tuple(Fold(tmp_path / str(number)) for number in range(2))
    study = Study("two", folds, "range", False, "", r"(p\d)_", r"_z(\d+)")
    within = within_folds(study, found, 20)
    assert within["patients"] == [2, 2]
    assert set(within["figures"]) == {POOLED, "lesion"}
    assert within["figures"][POOLED]["image_auroc"] == within["figures"]["lesion"]["image_auroc"]
    assert within["matched_height"] == matched_within(in_two(found, 0.0), study.height, 20)
    assert within_folds(Study("one", folds[:1], "range", False, ""), found, 20) is None
    with pytest.raises(InputError, match="is in no fold"):
        by_fold(found, {"another": 0})
