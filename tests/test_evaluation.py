"""What `metrics.json` holds for data sets made by hand."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from priorlens.errors import InputError
from priorlens.evaluation import METRICS, Outcome, curves, evaluate, table
from priorlens.metrics import image_metrics, pixel_metrics


def cohort(seed=0, kinds=("star", "tumour"), count=8):
    rng = np.random.default_rng(seed)
    outcomes = [Outcome(f"good/{i}", "good", f"g{i // 2}", float(rng.normal())) for i in range(count)]
    for kind in kinds:
        for i in range(count):
            mask = rng.random((12, 10 + i)) < 0.2
            one = (rng.standard_normal(mask.shape) + mask).astype(np.float32)
            body = rng.random(mask.shape) < 0.8
            outcomes.append(Outcome(f"{kind}/{i}", kind, f"p{i // 2}", float(rng.normal(1)), one, mask, body))
    return outcomes


def test_values_are_those_of_metrics_and_lie_in_their_intervals():
    outcomes = cohort()
    result = evaluate(outcomes, bootstrap=200)
    assert list(result)[:2] == ["schema", "kinds"] and result["schema"] == 1
    assert list(result["kinds"]) == ["star", "tumour"]
    found = result["kinds"]["tumour"]
    assert list(found) == list(METRICS)
    sick = [one for one in outcomes if one.kind == "tumour"]
    scores = np.array([one.anomaly for one in outcomes if one.kind == "good"] + [one.anomaly for one in sick])
    images = image_metrics(np.arange(16) >= 8, scores)
    pixels = pixel_metrics([o.mask for o in sick], [o.anomaly_map for o in sick], [o.body for o in sick])
    expected = {"image_auroc": images.auroc, "image_ap": images.average_precision, "fpr95": images.fpr95}
    expected |= vars(pixels)
    for key, value in expected.items():
        assert found[key]["value"] == pytest.approx(value, abs=1e-12), key
        assert 0 <= found[key]["low"] <= found[key]["value"] <= found[key]["high"] <= 1, key
        assert found[key]["low"] < found[key]["high"], key
    assert result["counts"]["tumour"] == {"images": 8, "groups": 4, "with_mask": 8}


def test_order_other_kinds_and_repetition_change_nothing_and_the_seed_does():
    outcomes = cohort()
    result = evaluate(outcomes, bootstrap=50)
    assert evaluate(outcomes[::-1], bootstrap=50)["kinds"] == approximately(result["kinds"])
    alone = evaluate([one for one in outcomes if one.kind != "star"], bootstrap=50)
    assert alone["kinds"]["tumour"] == result["kinds"]["tumour"]
    other = evaluate(outcomes, bootstrap=50, seed=1)["kinds"]["tumour"]["pixel_auroc"]
    assert other["low"] != result["kinds"]["tumour"]["pixel_auroc"]["low"]


def approximately(kinds):
    return {kind: {key: pytest.approx(numbers) for key, numbers in found.items()} for kind, found in kinds.items()}


def test_a_healthy_and_an_abnormal_slice_of_one_patient_are_drawn_together():
    outcomes = [replace(one, group=f"p{index % 8}") for index, one in enumerate(cohort(kinds=("tumour",)))]
    found = evaluate(outcomes, bootstrap=100)["kinds"]["tumour"]["image_auroc"]
    assert found["low"] < found["value"] < found["high"]


def test_missing_truth_is_null_not_a_guess():
    outcomes = [replace(one, mask=None) for one in cohort(kinds=("tumour",))]
    found = evaluate(outcomes, bootstrap=20)
    assert found["kinds"]["tumour"]["image_auroc"]["value"] is not None
    for key in ("pixel_auroc", "pixel_ap", "pixel_auroc_per_image", "aupro", "dice_best"):
        assert found["kinds"]["tumour"][key] == {"value": None, "low": None, "high": None}
    assert found["counts"]["tumour"]["with_mask"] == 0
    json.dumps(found, allow_nan=False)


def test_masks_without_lesion_pixels_no_healthy_images_and_no_abnormal_ones():
    empty = [replace(one, mask=np.zeros_like(one.mask)) for one in cohort(kinds=("tumour",)) if one.mask is not None]
    found = evaluate(empty, bootstrap=20)["kinds"]["tumour"]
    assert all(numbers == {"value": None, "low": None, "high": None} for numbers in found.values())
    assert evaluate([one for one in cohort() if one.kind == "good"])["kinds"] == {}
    assert evaluate([])["kinds"] == {}
    assert curves(empty, 10) == []


def test_images_without_mask_are_left_out_of_the_pixel_figures_only():
    outcomes = cohort(kinds=("tumour",))
    unknown = replace(outcomes[-1], name="x", mask=None)
    with_unknown = evaluate([*outcomes, unknown], bootstrap=0)["kinds"]["tumour"]
    without = evaluate(outcomes, bootstrap=0)["kinds"]["tumour"]
    assert with_unknown["pixel_auroc"] == without["pixel_auroc"]
    assert with_unknown["image_auroc"] != without["image_auroc"]
    assert without["image_auroc"]["low"] is None


def test_a_score_that_is_not_a_number_is_null():
    outcomes = cohort(kinds=("tumour",))
    outcomes[0] = replace(outcomes[0], anomaly=float("nan"))
    found = evaluate(outcomes, bootstrap=10)["kinds"]["tumour"]
    assert found["image_auroc"] == found["fpr95"] == {"value": None, "low": None, "high": None}
    assert found["pixel_auroc"]["value"] is not None


def test_mask_of_another_size_is_refused_by_name():
    with pytest.raises(InputError, match=r"tumour/1: .*3x4, 3x5"):
        Outcome("tumour/1", "tumour", "1", 0.0, np.zeros((3, 4), np.float32), np.zeros((3, 5), bool))


def test_table_shows_every_figure_and_a_dash_for_none():
    outcomes = [replace(one, mask=None) if one.kind == "star" else one for one in cohort()]
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table(evaluate(outcomes, bootstrap=20)))
    text = console.export_text()
    assert all(words in text for words in METRICS.values())
    assert "tumour (8 images)" in text and "–" in text and "[0." in text


def test_curves_come_per_level_and_kind():
    found = curves(cohort(), bootstrap=20)
    assert [(one.level, one.kind) for one in found] == [
        ("image", "star"), ("image", "tumour"), ("pixel", "star"), ("pixel", "tumour"),
    ]  # fmt: skip
