"""Healthy images become a calibration: their numbers by name, and why some cannot serve."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from priorlens.blocks import block_means
from priorlens.calibrating import (
    FARTHEST,
    Entry,
    entry,
    feature_values,
    fitted_to,
    gathered,
    require_kind,
    require_patients,
    require_size,
)
from priorlens.errors import InputError
from priorlens.images import Image
from priorlens.provenance import Provenance
from priorlens.scores import KEYS, HealthyStatistics


def one_line(error: pytest.ExceptionInfo[Exception], *parts: object) -> None:
    text = str(error.value)
    assert "\n" not in text
    for part in parts:
        assert str(part) in text, text


def entries(patients: list[int]) -> list[Entry]:
    """The anomaly of each is its index."""
    rng = np.random.default_rng(0)
    return [
        entry(
            f"{i:032x}",
            f"{patient:032x}",
            rng.normal(size=(24, 24)).astype(np.float32),
            {"anomaly": np.float32(i), "kl_total": np.float32(10 * i)},
        )
        for i, patient in enumerate(patients)
    ]


def test_entries_are_gathered_in_their_order():
    rows = entries([5, 5, *range(10, 19)])
    found = gathered("ab", "rule=x", iter(rows))
    assert (found.model, found.setup, found.patient_count) == ("ab", "rule=x", 10)
    assert found.images == tuple(row.image for row in rows) and found.patients == tuple(row.patient for row in rows)
    np.testing.assert_array_equal(found.anomaly, np.arange(11))
    assert list(found.features) == ["kl_total"] and found.features["kl_total"][3] == 30
    assert all(np.array_equal(*pair) for pair in zip(found.blocks, (row.blocks for row in rows), strict=True))


def test_an_entry_keeps_the_means_over_blocks():
    anomaly_map = np.random.default_rng(0).normal(size=(40, 56)).astype(np.float32)
    found = entry("00", "01", anomaly_map, {"anomaly": np.float32(1)})
    np.testing.assert_array_equal(found.blocks, block_means(anomaly_map).ravel())


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0 healthy patients:"),
        (1, "1 healthy patient gives no p-value below 0.5:"),
        (3, "3 healthy patients give no p-value below 0.25:"),
        (8, "8 healthy patients give no p-value below 0.11:"),
    ],
)
def test_too_few_patients(count, said):
    rows = entries([i % count for i in range(30)]) if count else []
    for ask in (lambda: require_patients(count), lambda: gathered("ab", "rule=x", rows)):
        with pytest.raises(InputError) as error:
            ask()
        one_line(error, said, "calibrate with at least 9")
    require_patients(9)


def test_what_the_model_was_fitted_to():
    fitted = Provenance(frozenset({"aa"}), frozenset({"11"}), (48, 48))
    assert "this image" in fitted_to(fitted, "aa", None) and "this image" in fitted_to(fitted, "aa", "11")
    assert "other images of this patient" in fitted_to(fitted, "bb", "11")
    assert fitted_to(fitted, "bb", None) == fitted_to(fitted, "bb", "22") == fitted_to(fitted, "11", "aa") == ""


@pytest.mark.parametrize(
    ("shape", "refused"),
    [((48, 48), False), ((24, 20), False), ((9, 96), False), ((128, 50), False), ((23, 20), True), ((50, 129), True)],
)
def test_the_longer_side_is_at_most_twice_as_large_or_half(shape, refused):
    image = Image(np.zeros((1, *shape), np.float32), Path("x.png"), 255.0)
    if not refused:
        require_size(image, (48, 64))
        return
    with pytest.raises(InputError) as error:
        require_size(image, (48, 64))
    one_line(error, "x.png", f"{shape[1]}x{shape[0]} pixels", "48 to 64")
    with pytest.raises(InputError, match="own images has 300;"):
        require_size(image, (300, 300))


def test_images_of_another_kind_score_far_off():
    found = gathered("ab", "rule=x", entries(list(range(20))))
    usual = HealthyStatistics(anomaly_mean=0.0, anomaly_std=1.0, map_low=0.0, map_high=1.0, threshold=0.5)
    for shift in (0, 9.4, -9.4):
        require_kind(replace(found, anomaly=np.full(20, shift, np.float32)), usual)
    few = np.where(np.arange(20) < 9, 1e6, 0).astype(np.float32)
    require_kind(replace(found, anomaly=few), usual)
    for shift in (FARTHEST + 1, -FARTHEST - 1):
        with pytest.raises(InputError) as error:
            require_kind(replace(found, anomaly=np.full(20, shift, np.float32)), usual)
        one_line(error, "11 standard deviations", "modality")
    require_kind(replace(found, anomaly=np.full(20, 99, np.float32)), None)
    require_kind(replace(found, anomaly=np.full(20, 99, np.float32)), replace(usual, anomaly_std=0.0))


# --- features by name


def test_features_have_the_names_of_their_place():
    columns = {"spectrum": ("stride", "sigma", "bits", "width_1"), "other": ("sigma", "bits")}
    tables = {
        "spectrum": np.array([[8, 0.5, 1.5, -2.0], [16, 0.25, 3.0, 4.0]], np.float32),
        "other": np.array([[0.1, 7.0]], np.float32),
    }
    found = feature_values(1.25, {"kl_total": 9.0}, tables, columns)
    assert found == {
        "anomaly": 1.25,
        "kl_total": 9.0,
        "bits@stride=8,sigma=0.5": 1.5,
        "width_1@stride=8,sigma=0.5": -2.0,
        "bits@stride=16,sigma=0.25": 3.0,
        "width_1@stride=16,sigma=0.25": 4.0,
        "bits@sigma=0.1": 7.0,
    }
    assert all(isinstance(value, np.float32) for value in found.values()) and KEYS == ("stride", "sigma")


def test_without_tables_there_are_the_figures_and_an_empty_table_adds_nothing():
    assert feature_values(1.0, {}, {}, {}) == {"anomaly": 1.0}
    empty = np.zeros((0, 2), np.float32)
    assert feature_values(1.0, {}, {"spectrum": empty}, {"spectrum": ("sigma", "bits")}) == {"anomaly": 1.0}
