"""Figures of scans against scikit-learn, against the slow way, and against cases worked out by hand."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from sklearn.metrics import average_precision_score, roc_auc_score

from priorlens import froc, roc
from priorlens import volume_figures as vf
from priorlens.bootstrap import multiplicities
from priorlens.errors import InputError
from priorlens.volume_figures import ScanOutcome, evaluate_scans, outcome_of

NOTHING = {"value": None, "low": None, "high": None}


def exact_dice(labels, scores):
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)
    found, called = np.cumsum(labels[order])[last], np.arange(1, labels.size + 1)[last]
    return float((2 * found / (called + labels.sum())).max())


def figures_of(points):
    return [float(figure(points)) for figure in (roc.auroc, roc.average_precision, roc.best_dice)]


def expected_of(labels, scores):
    return [roc_auc_score(labels, scores), average_precision_score(labels, scores), exact_dice(labels, scores)]


# --- counts of voxels


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([2, 5, 1000, 10**6]), st.integers(1, 5))
def test_few_voxels_are_counted_exactly_whatever_the_ties(seed, distinct, scans):
    rng = np.random.default_rng(seed)
    labels = [rng.random(rng.integers(3, 300)) < 0.3 for _ in range(scans)]
    labels[0][:2] = [True, False]
    scores = [(rng.integers(0, distinct, one.size) + one).astype(np.float32) for one in labels]
    counts = [vf.count_voxels(*pair) for pair in zip(scores, labels, strict=True)]
    expected = expected_of(np.concatenate(labels), np.concatenate(scores))
    assert figures_of(vf.voxel_points(counts)) == pytest.approx(expected, abs=1e-12)


MAPS = {
    "normal": lambda x: x,
    "narrow, far from zero": lambda x: 1e4 + x,
    "over many orders of magnitude": lambda x: np.exp(4 * x),
    "half of it zero": lambda x: np.maximum(x, 0),
    "nearly all of it zero": lambda x: np.maximum(x, 2.5),
    "integers": lambda x: np.round(3 * x),
    "saturated": lambda x: np.minimum(x, 2.5),
}


@pytest.mark.parametrize("change", MAPS.values(), ids=MAPS.keys())
def test_many_voxels_are_off_by_less_than_a_thousandth_in_little_memory(change):
    """Five scans, the lesions of which differ in size and in height."""
    rng = np.random.default_rng(0)
    scores, labels, counts = [], [], []
    for scan in range(5):
        lesion = np.arange(60_000) < 30 * 4**scan
        scores.append(change(rng.standard_normal(60_000) + (1 + scan / 2) * lesion).astype(np.float32))
        labels.append(lesion)
        counts.append(vf.count_voxels(scores[-1], lesion))
        assert figures_of(vf.voxel_points(counts[-1:])) == pytest.approx(expected_of(lesion, scores[-1]), abs=2e-4)
    expected = expected_of(np.concatenate(labels), np.concatenate(scores))
    assert figures_of(vf.voxel_points(counts)) == pytest.approx(expected, abs=1e-4)
    assert [int(one.lesion.sum()) for one in counts] == [30 * 4**scan for scan in range(5)]
    assert all(int(one.lesion.sum() + one.other.sum()) == 60_000 for one in counts)


@pytest.mark.parametrize("frequent", [0.0, 0.6])
def test_counts_at_every_threshold_are_low_by_no_more_than_their_share(frequent):
    """What the bounds on AUROC and Dice rest on; also where most voxels have one of three values."""
    rng = np.random.default_rng(1)
    scores, lesion = rng.standard_normal(300_000).astype(np.float32), rng.random(300_000) < 0.2
    often = rng.random(300_000) < frequent
    scores[often] = rng.choice([-0.5, 0.1, 1.2], np.count_nonzero(often))
    counts = vf.count_voxels(scores, lesion)
    thresholds = np.sort(rng.choice(scores, 2000))
    for values, counted in ((scores[lesion], counts.lesion), (scores[~lesion], counts.other)):
        exact = values.size - np.searchsorted(np.sort(values), thresholds)
        kept = np.append(np.cumsum(counted[::-1])[::-1], 0)[np.searchsorted(counts.values, thresholds)]
        assert (kept <= exact).all() and (exact - kept <= exact * np.expm1(1 / vf.FINENESS)).all()
        assert (exact != kept).any()


def test_a_scan_of_two_million_voxels_keeps_less_than_a_megabyte():
    rng = np.random.default_rng(2)
    counts = vf.count_voxels(rng.standard_normal(2_000_000).astype(np.float32), rng.random(2_000_000) < 0.02)
    assert counts.values.nbytes + counts.lesion.nbytes + counts.other.nbytes < 2**20
    assert (np.diff(counts.values) > 0).all()


def test_no_voxels_and_one_sort_of_voxels_define_nothing():
    assert np.isnan(figures_of(vf.voxel_points([]))).all()
    alone = vf.count_voxels(np.ones(5, np.float32), np.zeros(5, bool))
    assert np.isnan(figures_of(vf.voxel_points([alone]))).all()
    assert vf.count_voxels(np.zeros(0, np.float32), np.zeros(0, bool)).values.size == 0


def test_voxel_replicates_are_those_of_repeated_scans(monkeypatch):
    rng = np.random.default_rng(3)
    groups = ["b", "a", "c", "a", "d"]
    lesions = rng.random((5, 200)) < 0.2
    lesions[4] = False  # of a patient without lesions, who is drawn apart
    data = [((rng.standard_normal(200) + one).astype(np.float32), one) for one in lesions]
    replicates = []
    monkeypatch.setattr(vf, "interval", lambda column: (replicates.append(column), (0.0, 1.0))[1])
    counts = [vf.count_voxels(*one) for one in data]
    found = vf._voxel_estimates(counts, groups, 70, np.random.default_rng(5))
    assert [one.value for one in found.values()] == pytest.approx(figures_of(vf.voxel_points(counts)))
    weights = multiplicities(np.array([3, 3, 3, 2]), 70, np.random.default_rng(5))
    for row, times in enumerate(weights):
        drawn = [one for one, g in zip(data, groups, strict=True) for _ in range(int(times["abcd".index(g)]))]
        slow = expected_of(np.concatenate([one[1] for one in drawn]), np.concatenate([one[0] for one in drawn]))
        assert [column[row] for column in replicates] == pytest.approx(slow, abs=1e-12)


# --- what is kept of a scan


def kept(anomaly_map, mask=None, body=None, affine=None, kind="tumour", **further):
    facts = {"name": "a/b", "group": "a", "anomaly": 1.0, "affine": np.eye(4) if affine is None else affine}
    facts["slice_anomaly"] = np.arange(anomaly_map.shape[2], dtype=float)
    facts |= {"kind": kind, "anomaly_map": anomaly_map, "mask": mask, "body": body} | further
    return outcome_of(**facts)


def small():
    """2 x 3 x 4 voxels, the map their number; lesions have 2 voxels in slice 1, 1 in slice 2; no body in slice 3."""
    anomaly_map = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    mask, body = np.zeros((2, 3, 4), bool), np.ones((2, 3, 4), bool)
    mask[0, 0, 1] = mask[1, 2, 1] = mask[1, 2, 2] = True
    body[..., 3] = False
    return anomaly_map, mask, body


def test_what_is_kept_of_a_small_scan():
    outcome = kept(*small())
    assert outcome.lesion_voxels.tolist() == [0, 2, 1, 0]
    assert outcome.slice_lesion.tolist() == [False, True, True, False]
    assert outcome.slice_anomaly[:3].tolist() == [0, 1, 2] and np.isnan(outcome.slice_anomaly[3])
    assert outcome.voxels.values.size == 18 and outcome.voxels.values.max() == 22
    assert outcome.voxels.values[outcome.voxels.lesion > 0].tolist() == [1, 21, 22]
    assert outcome.candidates == froc.ScanCandidates(2, outcome.candidates.found, outcome.candidates.false_positives)
    assert outcome.candidates.found.tolist() == [22] and outcome.candidates.false_positives.size == 0
    assert outcome.heights_mm.tolist() == [0, 1, 2, 3]


def test_slices_go_up_however_the_scan_is_stored():
    """Slices along the second axis, from head to feet, 5 mm apart; the scan tilted by 10 degrees about x."""
    anomaly_map, mask, body = (np.flip(one.transpose(0, 2, 1), 1).copy() for one in small())
    flat = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -5, 0, 100], [0, 0, 0, 1]])
    cosine, sine = np.cos(np.deg2rad(10)), np.sin(np.deg2rad(10))
    tilt = np.array([[1, 0, 0, 0], [0, cosine, -sine, 0], [0, sine, cosine, 0], [0, 0, 0, 1.0]])
    for affine in (flat, tilt @ flat):
        outcome = kept(anomaly_map, mask, body, affine, slice_anomaly=np.arange(4.0))
        assert outcome.lesion_voxels.tolist() == [0, 2, 1, 0]
        assert np.isnan(outcome.slice_anomaly).tolist() == [False, False, False, True]
        assert outcome.heights_mm == pytest.approx([85, 90, 95, 100])
    sagittal = kept(anomaly_map, mask, body, flat, slice_anomaly=np.arange(2.0), plane="sagittal")
    assert sagittal.lesion_voxels.tolist() == [1, 2] and sagittal.heights_mm == pytest.approx([0, 1])


def test_a_lesion_outside_the_body_is_missed_not_forgotten():
    anomaly_map, mask, body = small()
    mask[0, 0, 3] = True
    anomaly_map[0, 0, 3] = 0
    outcome = kept(anomaly_map, mask, body)
    assert outcome.lesion_voxels.tolist() == [0, 2, 1, 1] and outcome.slice_anomaly[3] == 3
    assert outcome.voxels.lesion.sum() == 4 and outcome.voxels.lesion[0] == 1
    assert outcome.voxels.other.sum() == 15


def test_truth_of_healthy_scans_is_known_and_that_of_others_without_mask_is_not():
    anomaly_map, mask, body = small()
    healthy = kept(anomaly_map, None, body, kind="good")
    assert healthy.lesion_voxels.tolist() == [0] * 4 and healthy.voxels is None
    assert healthy.candidates.lesions == 0 and healthy.candidates.false_positives.tolist() == [22]
    unknown = kept(anomaly_map, None, None)
    assert unknown.lesion_voxels is unknown.slice_lesion is unknown.voxels is unknown.candidates is None
    assert kept(anomaly_map, mask, min_size=2.0, tolerance_mm=0.0).candidates.lesions == 1


def test_what_cannot_be_used_is_refused_by_name():
    anomaly_map, mask, body = small()
    with pytest.raises(InputError, match=r"a/b: map, mask and body differ in size \(2x3x3, 2x3x4\)"):
        kept(anomaly_map, mask[..., :3])
    with pytest.raises(InputError, match=r"a/b: .*good.*lesion"):
        kept(anomaly_map, mask, kind="good")
    anomaly_map[0, 0, 3] = np.nan
    kept(anomaly_map, mask, body)
    anomaly_map[0, 0, 0] = np.nan
    with pytest.raises(InputError, match=r"a/b: .*no numbers"):
        kept(anomaly_map, mask, body)
    with pytest.raises(ValueError, match="3 scores for 4 axial slices"):
        kept(*small(), slice_anomaly=np.zeros(3))


# --- slices of the same height


def slices(group, heights, scores, voxels, kind="tumour"):
    return ScanOutcome(
        f"{group}/1", group, kind, 0.0, np.array(scores, float), np.array(heights, float), np.array(voxels)
    )


def test_matched_slices_by_hand():
    outcomes = [
        slices("a", [0, 10, 20], [5, 9, 1], [0, 3, 0]),
        slices("b", [8, 12.5, 30], [9, 4, 7], [0, 0, 8]),
        slices("c", [9, 31, 60], [10, 7, 0], [0, 0, 2], "good"),
    ]
    # a's lesion, 9 at 10: b's 9 at 8 (tie), b's 4 at 12.5 (won), c's 10 at 9 (lost). b's, 7 at 30: c's 7 at 31 (tie).
    # c's, at 60, has no partner; a's own slices, and b's, do not count.
    found = vf.pair_slices(outcomes)
    assert found.won.tolist() == [[0, 1.5, 0], [0, 0, 0.5], [0, 0, 0]]
    assert found.pairs.tolist() == [[0, 2, 1], [0, 0, 1], [0, 0, 0]]
    assert found.partnered == 2
    assert vf._matched(found, 0, np.random.default_rng(0)).value == 2 / 4
    few = vf.pair_slices(outcomes, match_mm=1.0)
    assert few.pairs.sum() == 2 and few.won.sum() == 0.5
    large = vf.pair_slices(outcomes, least_pixels=4)  # a's three voxels are no lesion, nor are they none
    assert large.pairs.sum() == 1 and large.partnered == 1
    none = vf.pair_slices(outcomes[:1])
    assert none.pairs.sum() == 0 and np.isnan(vf._matched(none, 10, np.random.default_rng(0)).value)
    assert vf.pair_slices([]).pairs.size == 0


def test_slices_without_score_are_left_out_unless_they_hold_a_lesion():
    outcomes = [slices("a", [0, 1], [2, np.nan], [4, 0]), slices("b", [0, 1], [np.nan, 1], [0, 0])]
    found = vf.pair_slices(outcomes)
    assert found.pairs.sum() == 1 and found.won.sum() == 1
    outcomes[0] = slices("a", [0, 1], [np.nan, 0], [4, 0])
    assert np.isnan(vf._matched(vf.pair_slices(outcomes), 0, np.random.default_rng(0)).value)


def random_slices(rng, count=6):
    return [
        slices(
            f"p{rng.integers(0, count)}",
            np.sort(rng.integers(0, 12, 9) * 1.25),
            rng.integers(0, 6, 9),
            rng.integers(0, 4, 9) * (rng.random(9) < 0.5),
            "good" if rng.random() < 0.2 else "tumour",
        )
        for _ in range(count)
    ]


def slow_pairs(outcomes, match_mm, least_pixels, times=None):
    """Every slice against every slice; patients as often as drawn."""
    won = pairs = 0.0
    for one in outcomes:
        for other in outcomes:
            often = 1 if times is None else times[one.group] * times[other.group]
            for s, h, n in zip(one.slice_anomaly, one.heights_mm, one.lesion_voxels, strict=True):
                for t, g, m in zip(other.slice_anomaly, other.heights_mm, other.lesion_voxels, strict=True):
                    if one.group != other.group and n >= least_pixels and m == 0 and abs(h - g) <= match_mm:
                        pairs += often
                        won += often * (1.0 if s > t else 0.5 if s == t else 0.0)
    return won, pairs


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 1.25, 2.5]), st.sampled_from([1, 2]))
def test_matched_slices_are_those_of_the_slow_way(seed, match_mm, least_pixels):
    outcomes = random_slices(np.random.default_rng(seed))
    found = vf.pair_slices(outcomes, match_mm, least_pixels)
    assert (found.won.sum(), found.pairs.sum()) == slow_pairs(outcomes, match_mm, least_pixels)


def test_matched_replicates_are_those_of_repeated_patients(monkeypatch):
    outcomes = random_slices(np.random.default_rng(8), 8)
    replicates = []
    monkeypatch.setattr(vf, "interval", lambda column: (replicates.append(column), (0.0, 1.0))[1])
    pairs = vf.pair_slices(outcomes)
    vf._matched(pairs, 20, np.random.default_rng(5))
    strata = pairs.pairs.any(axis=1) + 2 * pairs.pairs.any(axis=0)
    weights = multiplicities(strata, 20, np.random.default_rng(5))
    names = sorted({one.group for one in outcomes})
    for row, drawn in enumerate(weights):
        won, total = slow_pairs(outcomes, 2.5, 1, dict(zip(names, drawn, strict=True)))
        assert replicates[0][row] == pytest.approx(won / total if total else np.nan, nan_ok=True)
    assert np.isfinite(replicates[0]).sum() > 15


def test_height_alone_looks_good_without_matching_and_is_chance_with_it():
    """The score is a function of height, and lesions are more likely low down."""
    rng, heights = np.random.default_rng(9), np.arange(40.0)
    outcomes = [
        slices(f"p{i}", heights, -heights, (rng.random(40) < np.linspace(0.9, 0.1, 40)).astype(int)) for i in range(20)
    ]
    found = evaluate_scans(outcomes, 100, match_mm=0.0)["kinds"]["tumour"]
    assert found["slice_auroc"]["value"] > 0.7
    assert found["slice_auroc_matched"] == {"value": 0.5, "low": 0.5, "high": 0.5}


def test_two_patients_have_a_value_and_no_interval():
    outcomes = [slices(g, [0, 1], [1, 2], v) for g, v in (("a", [3, 0]), ("b", [0, 3]))]
    found = evaluate_scans(outcomes, 50)["kinds"]["tumour"]["slice_auroc_matched"]
    assert found == {"value": 0.5, "low": None, "high": None}


# --- all figures


def cohort(seed=0, kinds=("bleed", "tumour"), count=6, healthy=8):
    """Scans of 6 x 7 x 8 voxels; two of each patient."""
    rng = np.random.default_rng(seed)
    outcomes = []
    for kind, number in [("good", healthy), *((kind, count) for kind in kinds)]:
        for i in range(number):
            shape = (6, 7, 8)
            mask = np.zeros(shape, bool) if kind == "good" else rng.random(shape) < 0.02
            anomaly_map = (rng.standard_normal(shape) + 2 * mask).astype(np.float32)
            outcome = outcome_of(
                name=f"{kind}/{i}",
                group=f"{kind}{i // 2}",
                kind=kind,
                anomaly=float(anomaly_map.mean() + rng.normal()),
                slice_anomaly=anomaly_map.max(axis=(0, 1)),
                anomaly_map=anomaly_map,
                mask=mask,
                body=rng.random(shape) < 0.9,
                affine=np.eye(4) * [2.0, 2.0, 2.0, 1.0],
            )
            outcomes.append(outcome)
    return outcomes


def test_values_are_those_of_scikit_learn_and_lie_in_their_intervals():
    outcomes = cohort()
    result = evaluate_scans(outcomes, bootstrap=200)
    assert list(result["kinds"]) == ["bleed", "tumour"] and result["schema"] == 1
    found = result["kinds"]["tumour"]
    assert list(found) == list(vf.SCAN_METRICS)
    both = [one for one in outcomes if one.kind != "bleed"]
    sick = [one for one in both if one.kind == "tumour"]
    labels, scores = [one.kind == "tumour" for one in both], [one.anomaly for one in both]
    lesion = np.concatenate([one.slice_lesion for one in both])
    anomaly = np.concatenate([one.slice_anomaly for one in both])
    voxel_labels = np.concatenate([np.repeat([True, False], [c.lesion.sum(), c.other.sum()]) for c in voxels(sick)])
    voxel_scores = np.concatenate([np.repeat(c.values, n) for c in voxels(sick) for n in (c.lesion, c.other)])
    won, pairs = slow_pairs(both, 2.5, 1)
    curve = froc.froc([one.candidates for one in both])
    auroc, precision, dice = expected_of(voxel_labels, voxel_scores)
    expected = {
        "scan_auroc": roc_auc_score(labels, scores),
        "scan_ap": average_precision_score(labels, scores),
        "slice_auroc": roc_auc_score(lesion, anomaly),
        "slice_auroc_matched": won / pairs,
        "voxel_auroc": auroc,
        "voxel_ap": precision,
        "dice_best": dice,
        "dice_best_per_scan": np.mean([float(roc.best_dice(vf.voxel_points([c]))) for c in voxels(sick)]),
        "cpm": froc.mean_sensitivity(curve),
        "froc_at_0.5": froc.sensitivity_at(curve, 0.5),
        "froc_at_8": froc.sensitivity_at(curve, 8.0),
    }
    for key, value in expected.items():
        assert found[key]["value"] == pytest.approx(value, abs=1e-9), key
        assert 0 <= found[key]["low"] <= found[key]["value"] <= found[key]["high"] <= 1, key
    lesions = int(sum(one.candidates.lesions for one in sick))
    assert result["counts"]["good"] == {"scans": 8, "groups": 4}
    assert result["counts"]["tumour"] == {
        "scans": 6,
        "groups": 3,
        "with_mask": 6,
        "lesions": lesions,
        "lesion_slices": int(lesion.sum()),
        "free_slices": int((~lesion).sum()),
        "matched_lesion_slices": int(lesion.sum()),
        "matched_pairs": int(pairs),
    }
    json.dumps(result, allow_nan=False)


def voxels(outcomes):
    return [one.voxels for one in outcomes]


def test_order_and_other_kinds_change_nothing_and_the_seed_does():
    outcomes = cohort()
    result = evaluate_scans(outcomes, bootstrap=50)
    turned = evaluate_scans(outcomes[::-1], bootstrap=50)
    for kind, found in result["kinds"].items():
        assert turned["kinds"][kind] == {key: pytest.approx(numbers) for key, numbers in found.items()}
    alone = evaluate_scans([one for one in outcomes if one.kind != "bleed"], bootstrap=50)
    assert alone["kinds"]["tumour"] == result["kinds"]["tumour"]
    other = evaluate_scans(outcomes, bootstrap=50, seed=1)["kinds"]["tumour"]
    assert any(other[key]["low"] != found["low"] for key, found in result["kinds"]["tumour"].items())


def test_without_healthy_scans_only_the_scans_figures_are_null():
    result = evaluate_scans(cohort(kinds=("tumour",), healthy=0), bootstrap=30)
    found = result["kinds"]["tumour"]
    assert [key for key, numbers in found.items() if numbers == NOTHING] == ["scan_auroc", "scan_ap"]
    assert result["counts"]["good"] == {"scans": 0, "groups": 0}


def test_healthy_scans_count_for_false_positives():
    sick = ScanOutcome("s", "s", "tumour", 1.0, np.zeros(1), np.zeros(1), np.array([1]), None, candidates(1, [2], [3]))
    healthy = ScanOutcome("h", "h", "good", 0.0, np.zeros(1), np.zeros(1), np.array([0]), None, candidates(0, [], [1]))
    found = evaluate_scans([sick, healthy], 0)["kinds"]["tumour"]
    assert [found[f"froc_at_{rate}"]["value"] for rate in ("0.25", "0.5", "1")] == [0, 1, 1]
    alone = evaluate_scans([sick], 0)["kinds"]["tumour"]
    assert [alone[f"froc_at_{rate}"]["value"] for rate in ("0.25", "0.5", "1")] == [0, 0, 1]


def candidates(lesions, found, false):
    return froc.ScanCandidates(lesions, np.array(found, np.float32), np.array(false, np.float32))


def test_scans_of_unknown_truth_count_as_scans_only():
    outcomes = cohort(kinds=("tumour",))
    blind = {"lesion_voxels": None, "voxels": None, "candidates": None}
    result = evaluate_scans([*outcomes, replace(outcomes[-1], name="x", **blind)], bootstrap=0)
    without = evaluate_scans(outcomes, bootstrap=0)
    differ = {key for key, found in result["kinds"]["tumour"].items() if found != without["kinds"]["tumour"][key]}
    assert differ == {"scan_auroc", "scan_ap"}
    assert result["counts"]["tumour"] == without["counts"]["tumour"] | {"scans": 7}
    nothing = evaluate_scans([replace(one, **blind) for one in outcomes], bootstrap=20)["kinds"]["tumour"]
    assert {key for key, numbers in nothing.items() if numbers != NOTHING} == {"scan_auroc", "scan_ap"}


def test_nothing_and_healthy_scans_alone():
    assert evaluate_scans([])["kinds"] == {}
    assert evaluate_scans(cohort(kinds=()))["kinds"] == {}
    with pytest.raises(ValueError, match="0 voxels"):
        evaluate_scans([], least_pixels=0)


def test_slices_with_few_voxels_of_a_lesion_are_neither():
    outcomes = cohort(kinds=("tumour",))
    few = evaluate_scans(outcomes, 0, least_pixels=2)
    sizes = np.concatenate([one.lesion_voxels for one in outcomes])
    assert few["slices"] == {"match_mm": 2.5, "least_pixels": 2}
    assert few["counts"]["tumour"]["lesion_slices"] == (sizes >= 2).sum()
    assert few["counts"]["tumour"]["free_slices"] == (sizes == 0).sum()
    assert (sizes == 1).sum() > 0


def test_the_table_shows_every_figure_and_a_dash_for_none():
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(vf.scan_table(evaluate_scans(cohort(healthy=0), bootstrap=20)))
    text = console.export_text()
    assert all(words in text for words in (*vf.SCAN_METRICS.values(), *vf.COUNTS.values()))
    assert "tumour (6 scans)" in text and "–" in text and "[0." in text
