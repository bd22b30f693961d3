"""KLIP's rules on findings simple enough to work out what they say, and what they choose by brute force."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from priorlens.combination import join, reading_names
from priorlens.errors import InputError
from priorlens.klip import Findings
from priorlens.klip_rules import (
    BLOCKS,
    FLOOR,
    KLIP_RULES,
    LEARNED,
    KLIPVerdict,
    Learned,
    Seen,
    Window,
    judge,
    learn,
)
from priorlens.posterior.divergence import Divergence, quadrature
from priorlens.scores import HealthyStatistics
from priorlens.surprise import Surprise, smooth
from priorlens.weighing import CONTEXT, SHARES, Weighing, context

SIGMAS, WIDTHS, SIDE = (0.1, 0.2, 0.4), (0.0, 1.0), 16
NAMES = (*reading_names(["image"], sigmas=SIGMAS, widths=WIDTHS), *(f"context {name}" for name in CONTEXT))
OWN = ("combined", "coherent", "squares")


def uniform(*shape: int, seed: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def findings(images: int, seed: int) -> Findings:
    """Energies of about 1, each place, level and kind by itself; they vary from image to image as well."""
    at = (images, len(SIGMAS), SIDE, SIDE)
    standardised, expected = 0.5 + uniform(*at, seed=seed), 0.2 * uniform(*at, seed=seed + 1)
    coherent = 0.5 + uniform(*at[:2], len(WIDTHS), SIDE, SIDE, seed=seed + 2)
    coherent = coherent * (0.8 + 0.4 * uniform(images, 1, 1, 1, 1, seed=seed + 3))
    energy = 0.1 * (0.5 + uniform(*at, seed=seed + 4)) * (0.8 + 0.4 * uniform(images, 1, 1, 1, seed=seed + 5))
    found = Surprise(torch.zeros(images, SIDE, SIDE), energy, expected, standardised, coherent, nfe=1)
    weighed = Divergence(SIGMAS, quadrature(SIGMAS), energy, 1, 1)
    return Findings(weighed, found, uniform(images, 1, SIDE, SIDE, seed=seed + 7), WIDTHS, 1)


def planted(seed: int, level: int = 1, width: int = 1, images: int = 24) -> tuple[Findings, Tensor]:
    """Squares that show at one noise level alone, of the coherent drift at one width alone, some more and some less."""
    found, masks = findings(images, seed), torch.zeros(images, SIDE, SIDE, dtype=torch.bool)
    strength = 0.5 + 2.5 * uniform(images, seed=seed + 6)
    for i in range(images):
        masks[i, 4 : 7 + i % 3, i % 8 : i % 8 + 4] = True
        found.surprise.coherent[i, level, width] *= 1 + strength[i] * masks[i]
        found.divergence.energy[i, level] *= 1 + strength[i] * masks[i]
    return found, masks


@pytest.fixture(scope="module")
def untouched() -> Seen:
    return Seen.of(findings(24, seed=0))


@pytest.fixture(scope="module")
def changed() -> Seen:
    return Seen.of(planted(seed=100)[0])


@pytest.fixture(scope="module")
def learned(untouched, changed) -> Learned:
    return learn(untouched, changed, planted(seed=100)[1], seed=0)


def windows(widths: tuple[float, ...]) -> list[Window]:
    runs = [(low, high) for low, high in itertools.product(SIGMAS, SIGMAS) if low <= high]
    return [Window(*run, width, SIDE // n) for run in runs for width in widths for n in BLOCKS if SIDE // n]


def block_means(pixels: np.ndarray, side: int) -> np.ndarray:
    """Of square blocks from the upper left corner on, by slices; of images whose side they divide."""
    rows = range(0, SIDE, side)
    return np.stack([[pixels[:, i : i + side, j : j + side].mean((1, 2)) for j in rows] for i in rows]).reshape(
        -1, len(pixels)
    )


def coherent_by_hand(seen: Seen, window: Window, usual: Tensor) -> np.ndarray:
    """Mean over the window's levels of log2 of the coherent energy, above what is usual."""
    layers = []
    for sigma in SIGMAS:
        if window.low <= sigma <= window.high:
            index = NAMES.index(f"image coherent sigma={sigma:g} width={window.width:g}")
            layers.append(seen.readings.maps[:, index].numpy() - float(usual[index]))
    return np.mean(layers, axis=0)


def squares_by_hand(seen: Seen, window: Window) -> np.ndarray:
    return sum(seen.bits[:, i].numpy() for i, sigma in enumerate(SIGMAS) if window.low <= sigma <= window.high)  # type: ignore[return-value]


def told_apart(untouched: np.ndarray, changed: np.ndarray) -> float:
    return float(roc_auc_score(np.repeat([0, 1], [len(untouched), len(changed)]), np.concatenate([untouched, changed])))


# --- what rules read


def test_bits_are_the_divergences_by_noise_level(untouched):
    divergence = findings(24, seed=0).divergence
    torch.testing.assert_close(untouched.bits.sum(1), divergence.kl_map)
    torch.testing.assert_close(untouched.bits.flatten(2).sum(2), divergence.spectrum)


def test_readings_are_log2_of_the_surprise(untouched):
    found = findings(24, seed=0).surprise
    assert untouched.readings.names == NAMES
    coherent = untouched.readings.maps[:, NAMES.index("image coherent sigma=0.4 width=1")]
    torch.testing.assert_close(coherent, (found.coherent[:, 2, 1] + FLOOR).log2())
    standardised = untouched.readings.maps[:, NAMES.index("image standardised sigma=0.2")]
    torch.testing.assert_close(standardised, (found.standardised[:, 1] + FLOOR).log2())


def test_readings_are_followed_by_the_context_of_the_image(untouched):
    around = context(findings(24, seed=0).reconstruction)
    assert around.shape[1] == len(CONTEXT) and around.std() > 0
    torch.testing.assert_close(untouched.readings.maps[:, -len(CONTEXT) :], around)
    torch.testing.assert_close(untouched.readings.means, untouched.readings.maps.mean((2, 3)), rtol=1e-4, atol=1e-5)


def test_batches_are_joined_in_order(untouched):
    both = Seen.joined([untouched, Seen.of(findings(3, seed=50))])
    assert both.bits.shape[0] == both.readings.maps.shape[0] == 27
    torch.testing.assert_close(both.bits[24:], Seen.of(findings(3, seed=50)).bits)
    parts = [untouched.readings, Seen.of(findings(3, seed=50)).readings]
    torch.testing.assert_close(both.readings.means, join(parts).means)


# --- what rules say


def test_combined_is_the_weighed_readings_and_their_highest_share(learned, changed):
    """Map: what the network makes of each pixel's readings. Figure: mean of the share of pixels that is highest."""
    verdict = judge("combined", learned, changed)
    known = {name: value.double().numpy() for name, value in learned.tensors().items()}
    pixels = np.moveaxis(changed.readings.maps.double().numpy(), 1, -1)
    hidden = (pixels - known["mean"]) / known["deviation"] @ known["inner"].T + known["inner_bias"]
    odds = hidden / (1 + np.exp(-hidden)) @ known["outer"][0] + known["outer_bias"]
    by_hand = odds / math.log(2)
    np.testing.assert_allclose(verdict.anomaly_map, by_hand, rtol=1e-4, atol=1e-4)
    for share in SHARES:
        count = max(1, round(share * SIDE**2))
        figure = judge("combined", replace(learned, share=share), changed).anomaly
        highest = np.sort(by_hand.reshape(24, -1), 1)[:, -count:].mean(1)
        np.testing.assert_allclose(figure, highest, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("window", [Window(0.1, 0.4, 0.0, 4), Window(0.2, 0.2, 0.0, 8), Window(0.15, 9.0, 0.0, 16)])
def test_squares_is_the_largest_blocks_sum_of_bits(learned, changed, window):
    chosen = replace(learned, windows={"squares": window})
    verdict = judge("squares", chosen, changed)
    bits = squares_by_hand(changed, window)
    largest = block_means(bits, window.block).max(0) * window.block**2
    np.testing.assert_allclose(verdict.anomaly, largest, rtol=1e-5)
    shown = smooth(torch.from_numpy(bits)[:, None], window.block / 4)[:, 0]
    torch.testing.assert_close(verdict.anomaly_map, shown)


def test_squares_over_all_levels_and_one_block_is_the_whole_divergence(learned, changed):
    chosen = replace(learned, windows={"squares": Window(0.1, 0.4, 0.0, SIDE)})
    total = planted(seed=100)[0].divergence.total
    torch.testing.assert_close(judge("squares", chosen, changed).anomaly, total)


@pytest.mark.parametrize("window", [Window(0.1, 0.4, 1.0, 4), Window(0.2, 0.2, 0.0, 8)])
def test_coherent_is_the_largest_blocks_mean_of_bits_above_usual(learned, changed, window):
    verdict = judge("coherent", replace(learned, windows={"coherent": window}), changed)
    by_hand = coherent_by_hand(changed, window, learned.weighing.usual)
    np.testing.assert_allclose(verdict.anomaly_map, by_hand, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(verdict.anomaly, block_means(by_hand, window.block).max(0), rtol=1e-4, atol=1e-5)


def test_standardised_is_the_largest_blocks_mean_of_standardised_energy(learned, changed):
    """Over all noise levels, whatever the window; blocks are those of squares. Learned weights do not matter."""
    chosen = replace(learned, windows={"squares": Window(0.2, 0.2, 0.0, 8)})
    verdict = judge("standardised", chosen, changed)
    energy = planted(seed=100)[0].surprise.standardised.mean(1)
    np.testing.assert_allclose(verdict.anomaly, block_means(energy.numpy(), 8).max(0), rtol=1e-4)
    torch.testing.assert_close(verdict.anomaly_map, smooth(energy[:, None], 2.0)[:, 0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rule", ["squares", "coherent"])
def test_a_block_at_the_border_has_fewer_pixels(learned, changed, rule):
    """Blocks of 7 in 16 pixels: two of them, and a strip of 2. A mean is over the pixels there are."""
    window = Window(0.2, 0.2, 0.0, 7)
    verdict = judge(rule, replace(learned, windows={rule: window}), changed)
    if rule == "squares":
        pixels = squares_by_hand(changed, window)
    else:
        pixels = coherent_by_hand(changed, window, learned.weighing.usual)
    parts = [pixels[:, i : i + 7, j : j + 7].reshape(24, -1) for i in (0, 7, 14) for j in (0, 7, 14)]
    figures = [part.sum(1) if rule == "squares" else part.mean(1) for part in parts]
    np.testing.assert_allclose(verdict.anomaly, np.max(figures, axis=0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rule", OWN)
def test_every_rule_points_at_what_was_planted(learned, changed, rule):
    verdict, masks = judge(rule, learned, changed), planted(seed=100)[1]
    assert isinstance(verdict, KLIPVerdict)
    inside, outside = verdict.anomaly_map[masks], verdict.anomaly_map[~masks]
    assert told_apart(outside.numpy(), inside.numpy()) > 0.7


@pytest.mark.parametrize("rule", OWN)
def test_no_image_depends_on_those_beside_it(learned, rule):
    found = planted(seed=100)[0]
    last = replace(
        found,
        reconstruction=found.reconstruction[5:6],
        divergence=replace(found.divergence, energy=found.divergence.energy[5:6]),
        surprise=replace(
            found.surprise, **{k: v[5:6] for k, v in vars(found.surprise).items() if isinstance(v, Tensor)}
        ),
    )
    alone, together = judge(rule, learned, Seen.of(last)), judge(rule, learned, Seen.of(found))
    torch.testing.assert_close(alone.anomaly[0], together.anomaly[5])
    torch.testing.assert_close(alone.anomaly_map[0], together.anomaly_map[5])


# --- what is chosen


def test_the_share_is_the_one_of_highest_planted_auroc(learned, untouched, changed):
    told = {}
    for share in SHARES:
        figures = [
            judge("combined", replace(learned, share=share), seen).anomaly.numpy() for seen in (untouched, changed)
        ]
        told[share] = told_apart(*figures)
    assert learned.planted_auroc["combined"] == max(told.values()) == told[learned.share]
    assert min(told.values()) < max(told.values())


def test_the_coherent_window_is_the_one_of_highest_planted_auroc(learned, untouched, changed):
    told = {}
    for window in windows(WIDTHS):
        pixels = [coherent_by_hand(seen, window, learned.weighing.usual) for seen in (untouched, changed)]
        told[window] = told_apart(*(block_means(one, window.block).max(0) for one in pixels))
    chosen = learned.windows["coherent"]
    assert told[chosen] == pytest.approx(max(told.values()), abs=2e-3), "float32 may break a tie otherwise"
    assert learned.planted_auroc["coherent"] == pytest.approx(told[chosen], abs=2e-3)
    assert (chosen.low, chosen.high, chosen.width) == (0.2, 0.2, 1.0), "where the squares were planted"
    assert min(told.values()) < 0.7 < max(told.values())


def test_the_squares_window_is_the_one_of_highest_planted_auroc(learned, untouched, changed):
    told = {}
    for window in windows((0.0,)):
        pixels = [squares_by_hand(seen, window) for seen in (untouched, changed)]
        told[window] = told_apart(*(block_means(one, window.block).max(0) for one in pixels))
    chosen = learned.windows["squares"]
    assert told[chosen] == pytest.approx(max(told.values()), abs=2e-3)
    assert learned.planted_auroc["squares"] == pytest.approx(told[chosen], abs=2e-3)
    assert (chosen.low, chosen.high) == (0.2, 0.2), "where the squares were planted"


@pytest.mark.parametrize(("level", "width"), [(0, 0), (2, 1), (2, 0)])
def test_the_window_follows_what_was_planted(untouched, level, width):
    found, masks = planted(200, level, width)
    chosen = learn(untouched, Seen.of(found), masks, seed=0).windows
    assert chosen["coherent"].width == WIDTHS[width]
    for window in chosen.values():
        assert window.low <= SIGMAS[level] <= window.high and window.low == window.high


def test_statistics_are_those_of_the_untouched_images(learned, untouched):
    assert learned.statistics.keys() == set(OWN) == set(LEARNED) < set(KLIP_RULES)
    for rule in OWN:
        verdict = judge(rule, learned, untouched)
        assert learned.statistics[rule] == HealthyStatistics.of(verdict.anomaly.numpy(), verdict.anomaly_map.numpy())


# --- what is kept, and what may be overridden


def test_nothing_is_lost_on_the_way_to_a_file(learned, changed):
    config = json.loads(json.dumps(learned.config(), allow_nan=False))
    tensors = {name: value.clone() for name, value in learned.tensors().items()}
    assert all(isinstance(value, Tensor) for value in tensors.values())
    again = Learned.restored(tensors, config)
    assert again.config() == learned.config()
    assert (again.share, again.windows, again.statistics) == (learned.share, learned.windows, learned.statistics)
    for rule in OWN:
        one, other = judge(rule, learned, changed), judge(rule, again, changed)
        assert torch.equal(one.anomaly, other.anomaly) and torch.equal(one.anomaly_map, other.anomaly_map)


@pytest.mark.parametrize(
    "missing", [*(one.name for one in fields(Weighing)), "share", "windows", "planted_auroc", "statistics"]
)
def test_what_is_incomplete_cannot_be_restored(learned, missing):
    tensors = {name: value for name, value in learned.tensors().items() if name != missing}
    config = {name: value for name, value in learned.config().items() if name != missing}
    with pytest.raises(KeyError if missing in learned.config() else TypeError):
        Learned.restored(tensors, config)
    with pytest.raises(TypeError):
        Learned.restored(learned.tensors(), learned.config() | {"windows": {"squares": {"low": 1.0}}})


def test_a_window_or_a_block_of_the_users_own_takes_the_place_of_the_learned_one(learned):
    assert learned.within(None, None) == learned
    own = learned.within((0.15, 0.5), 5)
    for rule, window in own.windows.items():
        assert window == Window(0.15, 0.5, learned.windows[rule].width, 5)
    for rule, window in learned.within(None, 3).windows.items():
        assert window == replace(learned.windows[rule], block=3)
    for rule, window in learned.within((0.1, 0.1), None).windows.items():
        assert window == replace(learned.windows[rule], low=0.1, high=0.1)
    assert own.weighing is learned.weighing and own.statistics == learned.statistics
    assert learned.within((0.0, math.inf), None).windows["squares"].low == 0.0


@pytest.mark.parametrize("rule", ["coherent", "squares"])
def test_a_window_without_a_noise_level_is_refused(learned, changed, rule):
    for window in ((0.41, 5.0), (0.4, 0.1)):
        with pytest.raises(InputError) as error:
            judge(rule, learned.within(window, None), changed)
        text = str(error.value)
        assert text.startswith(f"window {window[0]:g} to {window[1]:g}: ") and "0.1, 0.2, 0.4" in text
