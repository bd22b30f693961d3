"""FROC against maps small enough to read, and against the slow way."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from priorlens import froc
from priorlens.bootstrap import multiplicities
from priorlens.froc import Candidates, ScanCandidates

MILLIMETRE = np.eye(4)


def spaced(*steps):
    return np.diag([*steps, 1.0])


def turned(affine, degrees=30.0):
    """The same grid, turned about its third axis and shifted."""
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    turn = np.array([[cosine, -sine, 0, 40], [sine, cosine, 0, -7], [0, 0, 1, 3], [0, 0, 0, 1.0]])
    return turn @ affine


def peaks_at(shape, values):
    anomaly_map = np.zeros(shape, np.float32)
    for place, value in values.items():
        anomaly_map[place] = value
    return anomaly_map


def places(found):
    return [tuple(position) for position in found.positions.tolist()]


def scan(lesions=0, found=(), false=()):
    return ScanCandidates(lesions, np.array(found, np.float32), np.array(false, np.float32))


# --- candidates


def test_candidates_come_by_falling_peak_and_a_suppressed_one_suppresses_none():
    """6 mm from one to the next: 9 hides 8, and 8, hidden, does not hide 7."""
    anomaly_map = peaks_at((20, 5, 5), {(2, 2, 2): 9, (8, 2, 2): 8, (14, 2, 2): 7})
    found = froc.candidates(anomaly_map, MILLIMETRE, separation_mm=10.0)
    assert places(found) == [(2, 2, 2), (14, 2, 2)]
    assert found.scores.tolist() == [9, 7]
    assert places(froc.candidates(anomaly_map, MILLIMETRE, separation_mm=5.9)) == [(2, 2, 2), (8, 2, 2), (14, 2, 2)]


@pytest.mark.parametrize("affine", [spaced(0.7, 1, 3), turned(spaced(0.7, 1, 3)), spaced(-0.7, 1, 3)])
def test_separation_is_in_millimetres_and_holds_at_its_end(affine):
    """(10, 0, 0) is 7 mm from (0, 0, 0), (0, 0, 3) is 9 mm from it."""
    anomaly_map = peaks_at((11, 2, 4), {(0, 0, 0): 3, (10, 0, 0): 2, (0, 0, 3): 1})
    assert places(froc.candidates(anomaly_map, affine, separation_mm=7.0)) == [(0, 0, 0), (0, 0, 3)]
    assert places(froc.candidates(anomaly_map, affine, separation_mm=6.9)) == [(0, 0, 0), (10, 0, 0), (0, 0, 3)]
    assert places(froc.candidates(anomaly_map, affine, separation_mm=9.0)) == [(0, 0, 0)]


def test_a_plateau_is_one_candidate_in_its_middle():
    anomaly_map = np.zeros((40, 9, 9), np.float32)
    anomaly_map[5:10, 2:7, 3:6] = 1
    anomaly_map[20:22, 4:6, 4:6] = 2
    anomaly_map[38, 0, 0] = anomaly_map[39, 1, 1] = 0.5
    assert places(froc.candidates(anomaly_map, MILLIMETRE, separation_mm=1.0)) == [(20, 4, 4), (7, 4, 4), (38, 0, 0)]


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 5, 5), (1, 3, 7)])
def test_a_constant_map_has_one_candidate_in_its_middle(shape):
    found = froc.candidates(np.full(shape, -3, np.float32), MILLIMETRE)
    assert places(found) == [tuple((side - 1) // 2 for side in shape)]
    assert found.scores.tolist() == [-3]


def test_a_plateau_beside_something_higher_is_none():
    anomaly_map = peaks_at((5, 5, 30), {(2, 2, 29): 1})
    assert places(froc.candidates(anomaly_map, MILLIMETRE)) == [(2, 2, 29)]


def test_only_what_is_inside_counts_and_its_border_may_peak():
    rising = np.broadcast_to(np.arange(12.0, dtype=np.float32), (3, 3, 12)).copy()
    inside = np.zeros(rising.shape, bool)
    inside[1, 1, 2:6] = True
    found = froc.candidates(rising, MILLIMETRE, inside)
    assert places(found) == [(1, 1, 5)] and found.scores.tolist() == [5]
    rising[0, 0, 0] = np.nan
    assert places(froc.candidates(rising, MILLIMETRE, inside)) == [(1, 1, 5)]
    with pytest.raises(ValueError, match="NaN"):
        froc.candidates(rising, MILLIMETRE)


def test_nothing_inside_is_no_candidate():
    found = froc.candidates(np.ones((3, 3, 3), np.float32), MILLIMETRE, np.zeros((3, 3, 3), bool))
    assert found.positions.shape == (0, 3) and found.scores.size == 0
    matched = froc.match(found, np.ones((3, 3, 3), bool), MILLIMETRE, tolerance_mm=5.0)
    assert (matched.lesions, matched.found.size, matched.false_positives.size) == (1, 0, 0)


def test_the_limit_keeps_the_highest():
    anomaly_map = np.random.default_rng(0).random((30, 30, 30), np.float32)
    every = froc.candidates(anomaly_map, MILLIMETRE, separation_mm=5.0, limit=10**6)
    few = froc.candidates(anomaly_map, MILLIMETRE, separation_mm=5.0, limit=20)
    assert len(every.scores) > 20
    np.testing.assert_array_equal(few.positions, every.positions[:20])
    assert len(froc.candidates(anomaly_map, MILLIMETRE, separation_mm=0.0).scores) == froc.LIMIT


def slow_candidates(anomaly_map, affine, inside, separation_mm):
    """Plateaus by flood, one by one; then everything against everything."""
    voxels, seen, tops = {tuple(v) for v in np.argwhere(inside).tolist()}, set(), []
    steps = [step for step in itertools.product((-1, 0, 1), repeat=3) if any(step)]
    for start in sorted(voxels):
        if start in seen:
            continue
        plateau, waiting, top = {start}, [start], True
        while waiting:
            here = waiting.pop()
            for step in steps:
                there = tuple(np.add(here, step).tolist())
                if there in voxels and anomaly_map[there] == anomaly_map[start] and there not in plateau:
                    plateau.add(there)
                    waiting.append(there)
                top &= there not in voxels or anomaly_map[there] <= anomaly_map[start]
        seen |= plateau
        if top:
            tops.append(middle(plateau))
    taken = []
    for top in sorted(sorted(tops), key=lambda place: -anomaly_map[place]):
        if all(np.linalg.norm(affine[:3, :3] @ np.subtract(top, other)) > separation_mm + 1e-5 for other in taken):
            taken.append(top)
    return taken


def middle(plateau):
    left = sorted(plateau)
    for axis in range(3):
        at = left[(len(left) - 1) // 2][axis]
        left = [place for place in left if place[axis] == at]
    return left[0]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([2, 4, 1000]), st.sampled_from([0.0, 1.5, 3.0]))
def test_candidates_are_those_of_the_slow_way_whatever_the_ties(seed, distinct, separation_mm):
    rng = np.random.default_rng(seed)
    anomaly_map = rng.integers(0, distinct, rng.integers(1, 7, 3)).astype(np.float32)
    inside = rng.random(anomaly_map.shape) < 0.8
    affine = turned(spaced(*rng.choice([0.5, 1.0, 1.5], 3)), rng.uniform(0, 360))
    found = froc.candidates(anomaly_map, affine, inside, separation_mm)
    assert places(found) == slow_candidates(anomaly_map, affine, inside, separation_mm)
    assert found.scores.tolist() == [anomaly_map[place] for place in places(found)]


# --- lesions, and what finds them


def test_lesions_touch_across_corners_and_have_a_size_in_cubic_millimetres():
    mask = np.zeros((6, 6, 6), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[5, 5, 5] = True  # 2 and 1 voxels of 0.5 * 2 * 3 = 3 mm^3
    affine = turned(spaced(0.5, -2, 3))
    labels, count = froc.find_lesions(mask, affine)
    assert count == 2 and labels[0, 0, 0] == labels[1, 1, 1] == 1 and labels[5, 5, 5] == 2
    assert froc.find_lesions(mask, affine, 3.0)[1] == 2
    labels, count = froc.find_lesions(mask, affine, 3.1)
    assert count == 1 and labels[1, 1, 1] == 1 and labels[5, 5, 5] == -1 and labels[3, 3, 3] == 0
    assert froc.find_lesions(mask, affine, 7.0)[1] == 0
    assert froc.find_lesions(np.zeros_like(mask), affine)[1] == 0


def made(*positions):
    return Candidates(np.array(positions), np.arange(len(positions), 0, -1).astype(np.float32))


def lesion_mask():
    """A lesion of 8 voxels, one of 4 and one of 1, in a row."""
    mask = np.zeros((30, 4, 4), bool)
    mask[2:4, 1:3, 1:3] = mask[10:12, 1, 1:3] = mask[20, 1, 1] = True
    return mask


def test_the_highest_in_a_lesion_finds_it_and_further_ones_count_neither_way():
    found = made((10, 1, 1), (2, 1, 1), (15, 0, 0), (11, 1, 2), (4, 1, 1))  # scores 5, 4, 3, 2, 1
    matched = froc.match(found, lesion_mask(), MILLIMETRE)
    assert matched.lesions == 3
    assert sorted(matched.found.tolist()) == [4, 5]
    assert matched.false_positives.tolist() == [3, 1]


def test_within_the_tolerance_the_nearest_lesion_is_found():
    # 2 mm after the first lesion; 4 mm after it and 3 before the second; 8 mm after the second
    found = made((5, 1, 1), (7, 1, 1), (19, 1, 1))
    affine = turned(MILLIMETRE)
    assert froc.match(found, lesion_mask(), affine, tolerance_mm=0.9).found.size == 0
    assert froc.match(found, lesion_mask(), affine, tolerance_mm=1.0).found.tolist() == [1]
    assert froc.match(found, lesion_mask(), affine, tolerance_mm=2.0).found.tolist() == [3, 1]
    every = froc.match(found, lesion_mask(), affine, tolerance_mm=3.0)
    assert every.found.tolist() == [3, 2, 1] and every.false_positives.size == 0


def test_a_small_lesion_need_not_be_found_and_finding_it_is_no_mistake():
    found = made((20, 1, 1), (2, 1, 1), (29, 3, 3))
    matched = froc.match(found, lesion_mask(), MILLIMETRE, min_size=2.0)
    assert (matched.lesions, matched.found.tolist(), matched.false_positives.tolist()) == (2, [2], [1])
    near = froc.match(made((19, 1, 1), (13, 1, 1)), lesion_mask(), MILLIMETRE, min_size=2.0, tolerance_mm=7.0)
    assert near.found.tolist() == [1] and near.false_positives.size == 0


def test_without_lesions_every_candidate_is_false():
    matched = froc.match(made((1, 1, 1), (2, 2, 2)), np.zeros((4, 4, 4), bool), MILLIMETRE)
    assert (matched.lesions, matched.found.size, matched.false_positives.tolist()) == (0, 0, [2, 1])


# --- the curve


def test_a_curve_by_hand():
    """Two scans with three lesions, one of them never found, and two healthy scans."""
    curve = froc.froc([scan(2, [9, 5], [7, 2]), scan(1, [], [5]), scan(0, (), [8, 1]), scan()])
    assert curve.thresholds.tolist() == [np.inf, 9, 8, 7, 5, 2, 1]
    assert curve.sensitivity == pytest.approx(np.array([0, 1, 1, 1, 2, 2, 2]) / 3)
    assert curve.false_positives_per_scan.tolist() == [0, 0, 0.25, 0.5, 0.75, 1.0, 1.25]
    read = [froc.sensitivity_at(curve, rate) for rate in (0.0, 0.25, 0.7, 0.75, 8.0)]
    assert read == pytest.approx([1 / 3, 1 / 3, 1 / 3, 2 / 3, 2 / 3])
    # 1/8, 1/4 and 1/2 find one lesion; 1, 2, 4 and 8 find two
    assert froc.mean_sensitivity(curve) == pytest.approx((3 * 1 + 4 * 2) / 3 / 7)


def test_tied_candidates_are_looked_at_together():
    """Not one of 10 false positives can be had without the lesion, nor the lesion without them."""
    curve = froc.froc([scan(1, [3], [3] * 10)])
    assert curve.sensitivity.tolist() == [0, 1] and curve.false_positives_per_scan.tolist() == [0, 10]
    assert froc.sensitivity_at(curve, 9.9) == 0 and froc.sensitivity_at(curve, 10.0) == 1
    assert froc.mean_sensitivity(curve) == 0


def test_ten_false_positives_in_ten_scans_are_one_a_scan():
    """Rounding of x.1 must not cost a lesion."""
    for count in (3, 7, 10, 33, 49):
        curve = froc.froc([scan(1, [1], [2]) for _ in range(count)])
        assert froc.sensitivity_at(curve, 1.0) == 1 and froc.sensitivity_at(curve, 0.99) == 0


@pytest.mark.parametrize("scans", [[], [scan(0, (), [1, 2])], [scan()]])
def test_without_lesions_nothing_is_known(scans):
    curve = froc.froc(scans)
    assert np.isnan(froc.sensitivity_at(curve, 1.0)) and np.isnan(froc.mean_sensitivity(curve))
    found = froc.estimates(scans, ["a"] * len(scans), 10, np.random.default_rng(0))
    assert all(np.isnan([one.value, one.low, one.high]).all() for one in found.values())


def test_no_candidates_find_nothing():
    assert froc.mean_sensitivity(froc.froc([scan(2)])) == 0
    assert froc.estimates([scan(2)], ["a"], 10, np.random.default_rng(0))["cpm"].value == 0


def random_scans(rng, count=6, distinct=1000):
    scans = []
    for _ in range(count):
        lesions = int(rng.integers(0, 4))
        found = rng.integers(0, distinct, rng.integers(0, lesions + 1))
        scans.append(scan(lesions, found, rng.integers(0, distinct, rng.integers(0, 12))))
    return scans


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([3, 10, 1000]))
def test_the_curve_counts_what_is_at_or_above_each_threshold(seed, distinct):
    scans = [*random_scans(np.random.default_rng(seed), 6, distinct), scan(1, [2], [1])]
    curve = froc.froc(scans)
    scores = {float(s) for one in scans for s in (*one.found, *one.false_positives)}
    assert curve.thresholds.tolist() == [np.inf, *sorted(scores, reverse=True)]
    for t, rate, sensitivity in zip(curve.thresholds, curve.false_positives_per_scan, curve.sensitivity, strict=True):
        assert rate == sum(int((one.false_positives >= t).sum()) for one in scans) / len(scans)
        assert sensitivity == sum(int((one.found >= t).sum()) for one in scans) / sum(one.lesions for one in scans)
    for rate in (*froc.RATES, 0.0, 1.3):
        best = max(s for f, s in zip(curve.false_positives_per_scan, curve.sensitivity, strict=True) if f <= rate)
        assert froc.sensitivity_at(curve, rate) == best
        # no more than a straight line from point to point, as LUNA16 draws it, would give
        assert best <= np.interp(rate, curve.false_positives_per_scan, curve.sensitivity) + 1e-12


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_from_map_to_curve_only_the_order_of_values_matters(seed):
    rng = np.random.default_rng(seed)
    curves = []
    originals = [rng.integers(-40, 40, (12, 9, 8)).astype(np.float64) for _ in range(3)]
    masks = [rng.random((12, 9, 8)) < 0.05 for _ in range(3)]
    for change in (lambda x: x, lambda x: 3 * x - 200, lambda x: np.exp(x / 10), lambda x: x**3):
        scans = [
            froc.match(froc.candidates(change(one), MILLIMETRE, separation_mm=3.0), mask, MILLIMETRE)
            for one, mask in zip(originals, masks, strict=True)
        ]
        curves.append(froc.froc(scans))
    for other in curves[1:]:
        np.testing.assert_array_equal(other.sensitivity, curves[0].sensitivity)
        np.testing.assert_array_equal(other.false_positives_per_scan, curves[0].false_positives_per_scan)


def test_a_map_that_shows_its_lesions_finds_all_at_no_cost():
    mask = np.zeros((60, 40, 30), bool)
    mask[5:12, 5:12, 5:12] = mask[40:44, 30:33, 20:25] = True
    anomaly_map = mask + np.random.default_rng(0).random(mask.shape).astype(np.float32) / 2
    anomaly_map = anomaly_map.astype(np.float32)
    matched = froc.match(froc.candidates(anomaly_map, MILLIMETRE), mask, MILLIMETRE)
    assert froc.sensitivity_at(froc.froc([matched]), 0.0) == 1
    assert len(matched.false_positives) > 10


# --- intervals


def test_estimates_are_those_of_the_curve_and_replicates_those_of_repeated_scans(monkeypatch):
    rng = np.random.default_rng(1)
    scans, groups = [*random_scans(rng, 11), scan(0, (), [900, 20])], list("aabbccddeefg"[:12])
    replicates = []
    monkeypatch.setattr(froc, "interval", lambda column: (replicates.append(column), (0.0, 1.0))[1])
    found = froc.estimates(scans, groups, 100, np.random.default_rng(7))
    curve = froc.froc(scans)
    assert list(found) == ["cpm", *(f"froc_at_{rate}" for rate in ("0.125", "0.25", "0.5", "1", "2", "4", "8"))]
    assert found["cpm"].value == pytest.approx(froc.mean_sensitivity(curve))
    for rate in froc.RATES:
        assert found[froc.name_of(rate)].value == pytest.approx(froc.sensitivity_at(curve, rate))
    names = sorted(set(groups))
    has = {name: any(one.lesions for one, group in zip(scans, groups, strict=True) if group == name) for name in names}
    weights = multiplicities(np.array([int(has[name]) for name in names]), 100, np.random.default_rng(7))
    for row, times in enumerate(weights):
        drawn = [one for one, group in zip(scans, groups, strict=True) for _ in range(int(times[names.index(group)]))]
        slow = froc.froc(drawn)
        expected = [froc.mean_sensitivity(slow), *(froc.sensitivity_at(slow, rate) for rate in froc.RATES)]
        assert [column[row] for column in replicates] == pytest.approx(expected, abs=1e-12)


def test_intervals_hold_the_value_and_need_two_patients_with_lesions():
    scans = random_scans(np.random.default_rng(3), 30)
    found = froc.estimates(scans, [str(i) for i in range(30)], 200, np.random.default_rng(0))
    assert all(0 <= one.low <= one.value <= one.high <= 1 for one in found.values())
    assert found["cpm"].low < found["cpm"].high
    one_patient = froc.estimates(scans, ["a"] * 30, 50, np.random.default_rng(0))["cpm"]
    assert one_patient.value == found["cpm"].value and np.isnan([one_patient.low, one_patient.high]).all()
    none = froc.estimates(scans, [str(i) for i in range(30)], 0, np.random.default_rng(0))["cpm"]
    assert np.isnan([none.low, none.high]).all()


def test_perfect_detection_has_no_width():
    scans = [scan(1, [5], [1, 2]) for _ in range(5)] + [scan(0, (), [3])] * 3
    found = froc.estimates(scans, list("abcdefgh"), 50, np.random.default_rng(0))
    assert all((one.value, one.low, one.high) == (1, 1, 1) for one in found.values())
