"""Which readings count, learned from planted artefacts; and what is usual, from healthy images."""

from __future__ import annotations

import math

import pytest
import torch

from priorlens import weighing
from priorlens.combination import (
    FIGURES,
    Combination,
    Readings,
    fit_combination,
    join,
    reading_names,
    readings,
    with_context,
)
from priorlens.surprise import SIGMAS, WIDTHS, Surprise
from priorlens.weighing import CONTEXT_NAMES, SHARES, context, highest

NAMES = reading_names(["s8", "s16"])
SIDE, FOLDS = 12, 5


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def found(images: int, seed: int) -> Readings:
    """Noise of several sizes about several means, as readings of healthy images are."""
    count = len(NAMES)
    maps = normal(images, count, SIDE, SIDE, seed=seed) * torch.linspace(0.5, 2, count)[:, None, None]
    maps = maps + torch.linspace(-3, 3, count)[:, None, None]
    return Readings(NAMES, maps, maps.mean((2, 3)))


def planted(signals: dict[int, float], images: int = 30) -> tuple[Readings, torch.Tensor]:
    """Squares in which the readings `signals` are so many standard deviations higher."""
    healthy = found(images, seed=1)
    masks = torch.zeros(images, SIDE, SIDE, dtype=torch.bool)
    for i in range(images):
        masks[i, i % 8 : i % 8 + 4, 3:7] = True
    maps = healthy.maps.clone()
    for reading, strength in signals.items():
        maps[:, reading] += strength * torch.linspace(0.5, 2, len(NAMES))[reading] * masks
    return Readings(NAMES, maps, maps.mean((2, 3))), masks


def in_folds(images: int) -> torch.Tensor:
    return torch.arange(images) % FOLDS


def fit(healthy: Readings, artefacts: Readings, masks: torch.Tensor) -> Combination:
    return both(healthy, artefacts, masks)[0]


def both(healthy: Readings, artefacts: Readings, masks: torch.Tensor) -> tuple[Combination, torch.Tensor]:
    own = (in_folds(len(healthy.maps)), in_folds(len(artefacts.maps)))
    return fit_combination(healthy, artefacts, masks, own, seed=0)


def effect(learned: Combination, on: Readings, reading: int) -> torch.Tensor:
    """How far the map moves where a reading is a standard deviation higher."""
    maps = on.maps.clone()
    maps[:, reading] += torch.linspace(0.5, 2, len(NAMES))[reading]
    return learned.anomaly_map(Readings(on.names, maps, on.means)) - learned.anomaly_map(on)


@pytest.mark.parametrize("carrier", [0, 17, len(NAMES) - 1])
def test_the_reading_that_carries_the_signal_moves_the_map(carrier):
    """Per standard deviation, so that the readings' own sizes do not count: three times as far as any other."""
    artefacts, masks = planted({carrier: 2.0})
    learned, new = fit(found(20, seed=2), artefacts, masks), found(4, seed=11)
    moved = [float(effect(learned, new, reading).abs().mean()) for reading in range(len(NAMES))]
    assert moved[carrier] > 3 * max(moved[:carrier] + moved[carrier + 1 :])
    unseen = learned.anomaly_map(artefacts)
    assert unseen[masks].mean() > unseen[~masks].mean() + 1


def test_a_reading_that_falls_counts_against():
    artefacts, masks = planted({3: 2.0, 30: -2.0})
    learned, new = fit(found(20, seed=2), artefacts, masks), found(4, seed=11)
    assert effect(learned, new, 3).mean() > 0.3 and effect(learned, new, 30).mean() < -0.3


def test_the_map_is_log2_odds():
    """A single Gaussian reading, one deviation apart: the odds by Bayes, the planted pixels counted for a fifth."""
    images, shift, balance, carrier = 60, 1.0, 0.2, 17
    mask = torch.zeros(images, SIDE, SIDE, dtype=torch.bool)
    mask[:, :6] = True
    maps = torch.zeros(images, len(NAMES), SIDE, SIDE)
    maps[:, carrier] = normal(images, SIDE, SIDE, seed=3) + shift * mask
    artefacts = Readings(NAMES, maps, maps.mean((2, 3)))
    learned = fit(artefacts, artefacts, mask)
    two = torch.zeros(2, len(NAMES), 1, 1)
    two[1, carrier] = shift
    odds = learned.anomaly_map(Readings(NAMES, two, two.flatten(1)))
    expected = (math.log(balance) + shift * torch.tensor([-0.5, 0.5])) / math.log(2)
    torch.testing.assert_close(odds.flatten(), expected, rtol=0, atol=0.2)


def test_without_planted_pixels_all_readings_weigh_the_same():
    artefacts = found(5, seed=4)
    for masks in (torch.zeros(5, SIDE, SIDE, dtype=torch.bool), torch.ones(5, SIDE, SIDE, dtype=torch.bool)):
        learned = fit(found(20, seed=2), artefacts, masks)
        assert learned.weighing.inner.unique().tolist() == pytest.approx([1 / len(NAMES)])
        pixels = artefacts.maps.movedim(1, -1).reshape(-1, len(NAMES))
        mean = ((pixels - pixels.mean(0)) / pixels.std(0)).mean(1)
        expected = torch.nn.functional.silu(mean).reshape(learned.anomaly_map(artefacts).shape) / math.log(2)
        torch.testing.assert_close(learned.anomaly_map(artefacts), expected, rtol=1e-3, atol=1e-4)


def test_healthy_images_are_judged_by_what_did_not_learn_from_them():
    """Readings that are noise can be learned by heart, and tell nothing of an image that was left out."""
    artefacts, masks = planted({})
    untouched = Readings(NAMES, artefacts.maps, artefacts.means)
    learned, by_others = both(untouched, artefacts, masks)
    known = learned.anomaly_map(untouched)
    assert (known[masks].mean() - known[~masks].mean()) > 0.2
    assert (by_others[masks].mean() - by_others[~masks].mean()).abs() < 0.1


def test_an_artefact_raises_the_figure_of_the_share_that_was_chosen():
    artefacts, masks = planted({0: 2.0})
    learned, by_others = both(found(30, seed=2), artefacts, masks)
    assert learned.share in SHARES
    assert highest(learned.anomaly_map(artefacts), learned.share).mean() > highest(by_others, learned.share).mean() + 1


def test_what_was_learned_is_restored_from_its_numbers():
    scales = ["s8", "s16"]
    maps = normal(10, len(NAMES) + len(CONTEXT_NAMES), SIDE, SIDE, seed=12)
    read = Readings((*reading_names(scales), *CONTEXT_NAMES), maps, maps.mean((2, 3)))
    masks = torch.zeros(10, SIDE, SIDE, dtype=torch.bool)
    masks[:, 2:6, 2:6] = True
    learned = fit(read, read, masks)
    again = Combination.restored(scales, learned.tensors(), learned.share)
    assert again.names == learned.names and again.share == learned.share
    assert torch.equal(again.anomaly_map(read), learned.anomaly_map(read))
    for kind in FIGURES:
        assert torch.equal(again.anomaly(read, kind), learned.anomaly(read, kind))
    with pytest.raises((KeyError, TypeError)):
        Combination.restored(scales, {n: v for n, v in learned.tensors().items() if "inner" not in n}, 0.1)


@pytest.mark.parametrize("kind", FIGURES)
def test_healthy_images_have_an_anomaly_of_zero_on_average(kind):
    healthy, (artefacts, masks) = found(20, seed=2), planted({0: 1.0})
    learned = fit(healthy, artefacts, masks)
    anomaly = learned.anomaly(healthy, kind)
    assert float(anomaly.mean()) == pytest.approx(0, abs=1e-5)
    assert anomaly.std() > 0


def test_anomaly_is_in_bits_and_reads_one_kind():
    """All readings one bit higher give one bit; readings of another kind give nothing."""
    healthy, (artefacts, masks) = found(20, seed=2), planted({0: 1.0})
    learned = fit(healthy, artefacts, masks)
    higher = Readings(NAMES, healthy.maps + 1, healthy.means + 1)
    torch.testing.assert_close(learned.anomaly(higher), learned.anomaly(healthy) + 1)
    for kind in FIGURES:
        raised = torch.tensor([float(f" {kind} " not in name) for name in NAMES])
        other = Readings(NAMES, healthy.maps, healthy.means + raised)
        torch.testing.assert_close(learned.anomaly(other, kind), learned.anomaly(healthy, kind))


def healthy_in(scales: tuple[str, ...], means: torch.Tensor) -> Combination:
    """Learned from images of which only the means are given."""
    maps = torch.zeros(len(means), means.shape[1], 1, 1)
    found = Readings(reading_names(scales), maps, means)
    return fit(found, found, torch.zeros(len(means), 1, 1, dtype=torch.bool))


@pytest.mark.parametrize("kind", FIGURES)
def test_a_figure_is_a_weighted_mean_of_one_kind(kind):
    healthy = found(20, seed=2)
    weights = fit(healthy, *planted({0: 1.0})).figures[FIGURES.index(kind)]
    assert float(weights.sum()) == pytest.approx(1)
    assert (weights >= 0).all()
    of_kind = [f" {kind} " in name and (kind == "standardised" or name.endswith("width=1")) for name in NAMES]
    assert not weights[~torch.tensor(of_kind)].any()


def test_within_a_scale_a_steady_reading_counts_for_more_than_a_fickle_one():
    names = reading_names(["s8"])
    steady, fickle = (names.index(f"s8 standardised sigma={sigma:g}") for sigma in SIGMAS[:2])
    means = normal(50, len(names), seed=8)
    means[:, fickle] *= 10
    combination = healthy_in(("s8",), means)
    weights = combination.figures[FIGURES.index("standardised")]
    ratio = combination.spread[fickle] / combination.spread[steady]
    assert float(weights[steady] / weights[fickle]) == pytest.approx(float(ratio), rel=1e-4)


def test_scales_that_say_the_same_share_one_voice():
    """Two scales that vary together count about as much as one that varies by itself; by squares, each a third."""
    scales = ("s8", "s16", "s32")
    names = reading_names(scales)
    of_scale = normal(2000, 3, seed=9)
    of_scale[:, 1] = of_scale[:, 0]
    means = torch.stack([of_scale[:, scales.index(name.split()[0])] for name in names], 1)
    weights = healthy_in(scales, means).figures[FIGURES.index("coherent")]
    share = [float(sum(w for w, name in zip(weights, names, strict=True) if name.startswith(f"{s} "))) for s in scales]
    assert share == pytest.approx([0.25, 0.25, 0.5], abs=0.03)


def test_a_reading_that_hardly_varies_is_not_blown_up():
    """As of a variance head that has learned nothing: were a hundred-thousandth of a bit made a deviation of one, its
    weight would be a hundred thousand, and the map would be lost in rounding."""
    artefacts, masks = planted({0: 1.0})
    maps = artefacts.maps.clone()
    maps[:, 5] = 1 + 1e-5 * (maps[:, 5] + masks)
    learned = fit(found(20, seed=2), Readings(NAMES, maps, maps.mean((2, 3))), masks)
    moved = maps.clone()
    moved[:, 5] += 1e-5
    change = learned.weighing.anomaly_map(moved) - learned.weighing.anomaly_map(maps)
    assert change.abs().max() < 0.05
    assert effect(learned, artefacts, 0).mean() > 0.5


def test_one_healthy_image_is_enough_not_to_divide_by_zero():
    artefacts, masks = planted({0: 1.0})
    learned = fit(found(1, seed=2), artefacts, masks)
    assert learned.anomaly(found(3, seed=5)).isfinite().all()
    assert (learned.spread > 0).all()


def test_the_same_seed_gives_the_same_weights(monkeypatch):
    monkeypatch.setattr(weighing, "_FEWEST_STEPS", 20)
    artefacts, masks = planted({0: 1.0}, images=10)
    one, other = (fit(found(20, seed=2), artefacts, masks) for _ in range(2))
    numbers = other.tensors()
    assert all(torch.equal(value, numbers[name]) for name, value in one.tensors().items()) and one.share == other.share


# --- context


@pytest.mark.parametrize("side", [24, 12, 6])
def test_context_is_brought_to_the_readings_grid(side):
    """As means over the pixels that a position covers; after the surprise, whose readings it leaves as they are."""
    images, read = torch.rand(3, 1, 24, 24, generator=torch.Generator().manual_seed(0)), found(3, seed=2)
    maps = torch.nn.functional.interpolate(read.maps, size=(side, side))
    joined = with_context(Readings(NAMES, maps, read.means), images)
    assert joined.names == (*NAMES, *CONTEXT_NAMES)
    assert torch.equal(joined.maps[:, : len(NAMES)], maps) and torch.equal(joined.means[:, : len(NAMES)], read.means)
    step = 24 // side
    expected = context(images).unflatten(3, (side, step)).unflatten(2, (side, step)).mean((3, 5))
    torch.testing.assert_close(joined.maps[:, len(NAMES) :], expected)
    torch.testing.assert_close(joined.means[:, len(NAMES) :], expected.mean((2, 3)))


@pytest.mark.parametrize("kind", FIGURES)
def test_context_is_no_part_of_an_image_s_figure(kind, monkeypatch):
    images = torch.rand(20, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    healthy, (artefacts, masks) = found(20, seed=2), planted({0: 1.0}, images=20)
    monkeypatch.setattr(weighing, "_FEWEST_STEPS", 1)
    joined = fit(with_context(healthy, images), with_context(artefacts, images), masks)
    weights = joined.figures[FIGURES.index(kind)]
    assert not weights[len(NAMES) :].any()
    torch.testing.assert_close(weights[: len(NAMES)], fit(healthy, artefacts, masks).figures[FIGURES.index(kind)])


# --- readings


def surprised(value: float, rows: int, images: int = 2) -> Surprise:
    """The same energy everywhere, and an expected log variance of its logarithm."""
    grid = (images, len(SIGMAS), rows, rows)
    energy = torch.full(grid, value)
    coherent = torch.full((images, len(SIGMAS), len(WIDTHS), rows, rows), value)
    return Surprise(energy[:, 0], energy, energy.log(), energy, coherent, nfe=1)


def test_readings_are_log2_of_the_surprise_on_one_grid():
    laid = readings({"s8": surprised(4.0, 8), "s16": surprised(0.25, 4)}, side=16)
    assert laid.names == NAMES
    assert laid.maps.shape == (2, len(NAMES), 16, 16) and laid.means.shape == (2, len(NAMES))
    expected = torch.tensor([2.0 if name.startswith("s8 ") else -2.0 for name in NAMES])
    torch.testing.assert_close(laid.means[1], expected, rtol=0, atol=0.01)
    torch.testing.assert_close(laid.maps[1, :, 5, 5], expected, rtol=0, atol=0.01)


def test_each_reading_has_its_name():
    """A surprise in which every number tells where it stands."""
    sigmas, widths = torch.tensor(SIGMAS), torch.tensor(WIDTHS)
    by_sigma = (10 * sigmas)[None, :, None, None].expand(1, -1, 3, 3)
    coherent = (100 * sigmas[:, None] + widths + 1)[None, :, :, None, None].expand(1, -1, -1, 3, 3)
    laid = readings({"s8": Surprise(by_sigma[:, 0], by_sigma, by_sigma, by_sigma, coherent, nfe=1)}, side=3)
    for name, value in zip(laid.names, laid.means[0].tolist(), strict=True):
        _, kind, sigma, *width = [part.rpartition("=")[2] for part in name.split()]
        expected = {
            "standardised": math.log2(10 * float(sigma)),
            "expected": 10 * float(sigma) / math.log(2),
            "coherent": math.log2(100 * float(sigma) + (float(width[0]) if width else 0) + 1),
        }
        assert value == pytest.approx(expected[kind], abs=0.01), name


def test_an_empty_image_has_finite_readings():
    assert readings({"s8": surprised(1e-30, 4)}, side=8).maps[:, : len(SIGMAS)].isfinite().all()


def test_joined_readings_keep_their_order():
    parts = [found(2, seed=6), found(3, seed=7)]
    whole = join(parts)
    assert whole.names == NAMES
    assert torch.equal(whole.maps[2:], parts[1].maps) and torch.equal(whole.means[:2], parts[0].means)
