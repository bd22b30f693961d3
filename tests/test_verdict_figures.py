"""What verdicts are worth where the truth is known: counted by hand, with the intervals of textbooks."""

from __future__ import annotations

import io
import json
import math

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import beta

from priorlens.verdict_figures import (
    ABNORMAL_FIGURES,
    HEALTHY_FIGURES,
    verdict_figures,
    verdict_table,
)
from priorlens.verdict_figures import Tested as Verdict
from priorlens.verdict_figures import tested as verdict_of


def drawn(*places: tuple[slice, slice]) -> np.ndarray:
    """Regions numbered from 1, on 20 x 20 pixels."""
    labels = np.zeros((20, 20), np.int32)
    for number, place in enumerate(places, 1):
        labels[place] = number
    return labels


UPPER, LOWER, BESIDE = np.s_[2:5, 2:5], np.s_[12:16, 10:14], np.s_[2:5, 15:18]


# --- one image


def test_regions_in_a_healthy_image_are_all_false():
    found = verdict_of("good", "ann", True, drawn(UPPER, LOWER), None)
    assert (found.regions, found.false_regions, found.abnormal) == (2, 2, True)
    assert math.isnan(found.lesions_found)
    assert verdict_of("good", "ann", False, drawn(), None).false_regions == 0
    assert verdict_of("good", "ann", False, drawn(UPPER), drawn(UPPER) > 0).false_regions == 1, "whatever a mask says"


@pytest.mark.parametrize(
    ("regions", "lesions", "false", "share"),
    [
        ([UPPER, LOWER], [UPPER, LOWER], 0, 1.0),
        ([UPPER, LOWER], [UPPER], 1, 1.0),
        ([UPPER], [UPPER, LOWER], 0, 0.5),
        ([BESIDE], [UPPER, LOWER], 1, 0.0),
        ([], [UPPER, LOWER], 0, 0.0),
        ([np.s_[0:20, 0:20]], [UPPER, LOWER], 0, 1.0),
        ([np.s_[2:3, 2:5], np.s_[4:5, 2:5]], [UPPER], 0, 1.0),
        ([np.s_[4:8, 4:8], BESIDE], [UPPER, LOWER], 1, 0.5),
        ([UPPER], [np.s_[5:7, 5:7]], 1, 0.0),
    ],
    ids=[
        "all",
        "one beside",
        "one missed",
        "all beside",
        "none",
        "one holds both",
        "two in one",
        "by a corner",
        "next",
    ],
)
def test_regions_and_lesions_meet_where_they_share_a_pixel(regions, lesions, false, share):
    found = verdict_of("lesion", "ann", False, drawn(*regions), drawn(*lesions) > 0)
    assert (found.regions, found.false_regions, found.lesions_found) == (len(regions), false, share)


def test_parts_of_a_lesion_that_touch_at_a_corner_are_one():
    truth = drawn(np.s_[2:4, 2:4], np.s_[4:6, 4:6]) > 0
    assert verdict_of("lesion", "ann", True, drawn(np.s_[2:4, 2:4]), truth).lesions_found == 1


def test_volumes_are_counted_alike():
    labels, truth = np.zeros((6, 6, 6), np.int32), np.zeros((6, 6, 6), bool)
    labels[0:2, 0:2, 0:2], labels[4:, 4:, 4:] = 1, 2
    truth[1, 1, 1:4] = truth[5, 0, 0] = True
    found = verdict_of("lesion", "ann", True, labels, truth)
    assert (found.false_regions, found.lesions_found) == (1, 0.5)


@pytest.mark.parametrize("truth", [None, np.zeros((20, 20), bool)])
def test_where_lesions_are_not_known_nothing_is_false_and_nothing_missed(truth):
    found = verdict_of("lesion", "ann", True, drawn(UPPER), truth)
    assert found.regions == 1 and math.isnan(found.false_regions) and math.isnan(found.lesions_found)


# --- all of them


def image(
    kind: str, group: str, abnormal: bool, regions: int, false: float, share: float = math.nan, blocks: float = math.nan
) -> Verdict:
    return Verdict(kind, group, abnormal, regions, false, share, blocks)


STUDY = [
    image("good", "a", False, 0, 0.0),
    image("good", "b", True, 3, 3.0),
    image("good", "c", False, 0, 0.0),
    image("good", "d", False, 1, 1.0),
    image("tumour", "e", True, 2, 1.0, 1.0, 0.25),
    image("tumour", "f", True, 0, 0.0, 0.0, 0.0),
    image("tumour", "g", False, 4, 2.0, 0.5, 0.5),
    image("tumour", "h", True, 1, math.nan),
    image("blood", "i", True, 1, math.nan),
]


def clopper_pearson(hits: int, count: int) -> tuple[float, float]:
    low = 0.0 if hits == 0 else float(beta.ppf(0.025, hits, count - hits + 1))
    return low, 1.0 if hits == count else float(beta.ppf(0.975, hits + 1, count - hits))


def test_figures_by_hand():
    found = verdict_figures({0.05: STUDY}, bootstrap=200)
    assert list(found) == ["0.05"] and list(found["0.05"]) == ["good", "blood", "tumour"], "the healthy ones first"
    values = {kind: {name: one["value"] for name, one in names.items()} for kind, names in found["0.05"].items()}
    assert values["good"] == {"false_alarm_rate": 0.25, "any_region": 0.5, "false_regions": 1.0}
    assert values["tumour"] == {
        "sensitivity": 0.75,
        "lesions_found": 0.5,
        "false_regions": 1.0,
        "false_region_share": pytest.approx((1 / 2 + 0 + 2 / 4) / 3),
        "false_discovery_rate": 0.25,
    }
    assert values["blood"]["sensitivity"] == 1 and values["blood"]["lesions_found"] is None
    assert set(values["good"]) == set(HEALTHY_FIGURES) and set(values["blood"]) == set(ABNORMAL_FIGURES)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_rates_of_single_images_have_the_exact_binomial_interval():
    found = verdict_figures({0.05: STUDY}, bootstrap=0)["0.05"]
    for kind, name, hits, count in (
        ("good", "false_alarm_rate", 1, 4),
        ("good", "any_region", 2, 4),
        ("tumour", "sensitivity", 3, 4),
        ("blood", "sensitivity", 1, 1),
    ):
        low, high = clopper_pearson(hits, count)
        assert found[kind][name] == {"value": hits / count, "low": pytest.approx(low), "high": pytest.approx(high)}
    assert found["good"]["false_regions"] == {"value": 1.0, "low": None, "high": None}, "without resamples none"


def test_no_false_alarm_in_sixty_is_up_to_six_percent():
    """The rule of three, nearly: 3 / n for a one-sided interval, 3.7 / n for this one."""
    found = verdict_figures({0.05: [image("good", str(i), False, 0, 0.0) for i in range(60)]}, bootstrap=0)
    rate = found["0.05"]["good"]["false_alarm_rate"]
    assert (rate["value"], rate["low"]) == (0, 0) and rate["high"] == pytest.approx(1 - 0.025 ** (1 / 60))


def test_images_of_one_patient_widen_the_interval():
    """Forty patients whose four images agree: the interval is that of forty, by resampling, not of 160."""
    alarms = [i % 4 == 0 for i in range(40)]
    several = [
        image("good", f"p{i}", alarm, int(alarm), float(alarm)) for i, alarm in enumerate(alarms) for _ in range(4)
    ]
    apart = [image("good", f"p{i}", alarm, int(alarm), float(alarm)) for i, alarm in enumerate(alarms)]
    wide, single = (
        verdict_figures({0.05: some}, 2000)["0.05"]["good"]["false_alarm_rate"] for some in (several, apart)
    )
    assert wide["value"] == single["value"] == 0.25
    assert wide["high"] - wide["low"] == pytest.approx(4 * math.sqrt(0.25 * 0.75 / 40), rel=0.15)
    low, high = clopper_pearson(40, 160)
    assert wide["high"] - wide["low"] > 1.5 * (high - low)
    assert verdict_figures({0.05: several}, 2000) == verdict_figures({0.05: several}, 2000), "the same in every run"


def test_one_patient_alone_has_no_interval():
    found = verdict_figures({0.05: [image("good", "a", True, 1, 1.0), image("good", "a", False, 0, 0.0)]})
    assert found["0.05"]["good"]["false_alarm_rate"] == {"value": 0.5, "low": None, "high": None}


def test_the_table_has_a_row_a_figure_and_a_column_an_alpha():
    found = verdict_figures({0.01: STUDY, 0.05: STUDY}, bootstrap=50)
    console = Console(width=200, file=io.StringIO())
    console.print(verdict_table(found))
    lines = console.file.getvalue().splitlines()
    assert any("alpha 0.01" in line and "alpha 0.05" in line for line in lines)
    for kind, words in (("good", HEALTHY_FIGURES), ("blood", ABNORMAL_FIGURES), ("tumour", ABNORMAL_FIGURES)):
        for said in words.values():
            assert any(kind in line and said in line for line in lines), (kind, said)
    rate = found["0.05"]["good"]["false_alarm_rate"]
    assert any(line.count(f"0.250 [{rate['low']:.3f}, {rate['high']:.3f}]") == 2 for line in lines)
    assert any("blood" in line and "–" in line for line in lines), "what is not known is said so"


def test_the_false_discovery_rate_is_of_blocks():
    """A region of four blocks, of 2 x 2 pixels, with the lesion in one of them."""
    labels, truth = np.zeros((32, 32), np.int32), np.zeros((32, 32), bool)
    labels[4:8, 4:8] = 1
    truth[5, 5] = True
    found = verdict_of("lesion", "ann", True, labels, truth)
    assert (found.false_regions, found.lesions_found, found.false_blocks) == (0, 1, 0.75)


def test_images_that_are_all_alike_have_no_interval_of_resamples():
    study = [image("good", group, False, 0, 0.0) for group in "aabb"]
    found = verdict_figures({0.05: study}, bootstrap=100)["0.05"]["good"]
    assert found["false_alarm_rate"] == {"value": 0.0, "low": None, "high": None}
