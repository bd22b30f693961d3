"""The simulations of benchmarks/validity.py in small, on made-up scores: what must hold does, and nothing else."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from priorlens.images import Image

PATH = Path(__file__).parent.parent / "benchmarks" / "validity.py"


@pytest.fixture(scope="module")
def validity() -> ModuleType:
    spec = importlib.util.spec_from_file_location("validity", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules["validity"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def features(count: int, shift: float = 0.0, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: shift + rng.standard_normal(count) for name in ("anomaly", "bits@sigma=0.5", "noise")}


def maps(count: int, seed: int) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).standard_normal((count, 32, 32)).astype(np.float32))


def test_p_values_of_random_splits_are_within_the_binomial_band(validity):
    calibrating, shares = validity.p_value_shares(np.random.default_rng(0).standard_normal(330), splits=200)
    assert calibrating == 299
    for one in shares:
        assert one.low <= one.share <= one.high
        assert one.share_of_all == pytest.approx(one.level, abs=0.02)


def test_images_of_another_kind_than_the_calibration_leave_the_band(validity):
    rng = np.random.default_rng(0)
    calibration, alike, others = rng.standard_normal(199), rng.standard_normal(200), 1 + rng.standard_normal(200)
    assert all(one.low <= one.share <= one.high for one in validity.false_alarms(alike, calibration))
    assert all(one.share > one.high for one in validity.false_alarms(others, calibration))


def test_false_discoveries_stay_below_their_rate(validity):
    truth = np.zeros((32, 32), bool)
    truth[8:16, 8:16] = True
    abnormal = [one + 3.0 * truth for one in maps(30, seed=1)]
    found = validity.discoveries(maps(80, seed=0), [one.astype(np.float32) for one in abnormal], [truth] * 30, splits=3)
    for one in found:
        assert one.false <= one.alpha + 3 * one.error
        assert one.healthy <= one.alpha + 0.08  # of 120 images, not all different
        assert one.found > 0.9 or one.procedure == "by"  # which 40 healthy images do not suffice for
        assert one.far <= one.false


def test_a_healthy_stream_is_left_alone_and_a_changed_one_is_not(validity):
    options = {"calibrating": 100, "length": 300, "change": 150}
    healthy = validity.alarms(features(400), None, streams=20, **options)
    changed = validity.alarms(features(400), features(400, shift=2.0, seed=1), streams=10, **options)
    assert healthy.before <= 0.15
    assert changed.soon >= 0.9 and changed.delay < 50


def test_gain_and_noise_are_what_they_are_called(validity):
    rng = np.random.default_rng(0)
    rows, columns = np.indices((96, 96)) - 48
    body = rows**2 + columns**2 < 32**2
    pixels = np.where(body, 100 + 4 * rng.standard_normal((96, 96)), 0).astype(np.float32)
    image = Image(pixels[None], Path("x.png"), 255.0)
    inside = body & (rows**2 + columns**2 < 28**2)
    assert validity.gained(image).pixels[0][inside].mean() == pytest.approx(110, abs=0.5)
    assert validity.noisier(image, rng).pixels[0][inside].std() == pytest.approx(8, rel=0.1)
