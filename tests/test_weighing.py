"""A pixel's readings weighed together with what is around it: the network by hand, what it learns, and from which."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch import Tensor

from priorlens import weighing
from priorlens.weighing import (
    CONTEXT,
    SHARES,
    Weighing,
    best_share,
    by_others,
    context,
    fit_members,
    fit_weighing,
    highest,
    together,
)

SIDE = 32


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def halves(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """A drift, which random half of all pixels is steep, and squares where something is planted: 98,304 pixels."""
    steep = normal(24, 64, 64, seed=seed) > 0
    masks = torch.zeros(24, 64, 64, dtype=torch.bool)
    masks[:, 16:48, 16:48] = True
    return normal(24, 64, 64, seed=seed + 1), steep, masks


def only_where_flat(seed: int) -> tuple[Tensor, Tensor]:
    """The drift tells of artefacts in flat places; in steep ones it is large without any."""
    drift, steep, masks = halves(seed)
    drift = torch.where(steep, 6 * drift, drift + 3.0 * masks)
    return torch.stack([drift, steep + 0.1 * normal(*drift.shape, seed=seed + 2)], 1), masks


def reversed_where_steep(seed: int) -> tuple[Tensor, Tensor]:
    """The drift rises at artefacts in flat places and falls at those in steep ones."""
    drift, steep, masks = halves(seed)
    drift = drift + torch.where(steep, -3.0, 3.0) * masks
    return torch.stack([drift, steep + 0.1 * normal(*drift.shape, seed=seed + 2)], 1), masks


def fit(maps: Tensor, masks: Tensor, seed: int = 0) -> Weighing:
    return fit_weighing(maps.mean((0, 2, 3)), maps, masks, seed)


def same(one: Weighing, other: Weighing) -> bool:
    return all(torch.equal(getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(Weighing))


# --- the network


@pytest.mark.parametrize("images", [1, 16, 35])
def test_a_map_is_the_network_by_hand(images):
    """Standardise, one hidden layer of x / (1 + exp(-x)), a sum, natural odds to bits; of few images or many."""
    readings, hidden = 5, 7
    known = [normal(readings, seed=i) for i in (0, 1)]
    deviation, inner = 0.5 + normal(readings, seed=2).abs(), normal(hidden, readings, seed=3)
    biases, outer = (normal(hidden, seed=4), normal(1, seed=5)), normal(1, hidden, seed=6)
    network = Weighing(*known, deviation, inner, biases[0], outer, biases[1])
    maps = normal(images, readings, 6, 6, seed=7)
    told = network.anomaly_map(maps)
    assert told.shape == (images, 6, 6)
    for image in {0, images // 2, images - 1}:
        for row, column in ((0, 0), (2, 5), (5, 1)):
            odds = float(biases[1])
            for unit in range(hidden):
                standardised = (maps[image, :, row, column] - known[1]) / deviation
                x = float(inner[unit] @ standardised + biases[0][unit])
                odds += float(outer[0, unit]) * x / (1 + math.exp(-x))
            assert float(told[image, row, column]) == pytest.approx(odds / math.log(2), rel=1e-4, abs=1e-4)


def test_what_is_usual_does_not_change_the_map():
    maps, masks = only_where_flat(seed=0)
    learned = fit(maps[:4], masks[:4])
    torch.testing.assert_close(learned.usual, maps[:4].mean((0, 2, 3)), rtol=0, atol=0)
    other = dataclasses.replace(learned, usual=learned.usual + 1)
    assert torch.equal(other.anomaly_map(maps[:2]), learned.anomaly_map(maps[:2]))


# --- what it learns


@pytest.mark.parametrize(("made", "linear", "least"), [(only_where_flat, 0.7, 0.8), (reversed_where_steep, 0.6, 0.95)])
def test_artefacts_that_no_weighted_sum_finds_are_found(made, linear, least):
    """On pixels that were not learned from; beside logistic regression on the same."""
    (maps, masks), (unseen, where) = made(seed=0), made(seed=10)
    told = fit(maps, masks).anomaly_map(unseen)
    assert roc_auc_score(where.flatten(), told.flatten()) > least
    pixels, seen = (one.movedim(1, -1).flatten(0, 2).numpy() for one in (maps, unseen))
    line = LogisticRegression().fit(pixels, masks.flatten().numpy())
    assert roc_auc_score(where.flatten(), line.decision_function(seen)) < linear


def test_a_drift_counts_only_where_the_context_says_so():
    maps, masks = only_where_flat(seed=0)
    learned = fit(maps, masks)
    drift = torch.linspace(0, 3, 8)[None, None, None].expand(1, 1, 8, 8)
    flat, steep = (learned.anomaly_map(torch.cat([drift, torch.full_like(drift, s)], 1))[0, 0] for s in (0.0, 1.0))
    assert flat[-1] - flat[0] > 4, "a drift of three deviations, in bits"
    assert (steep[-1] - steep[0]).abs() < 1


def test_the_map_is_log2_odds():
    """A Gaussian reading, one deviation apart: the odds by Bayes, planted pixels counted for a fifth of the rest."""
    masks = torch.zeros(60, SIDE, SIDE, dtype=torch.bool)
    masks[:, :4] = True  # an eighth of the pixels: how many there are does not matter
    maps = (normal(60, SIDE, SIDE, seed=0) + masks)[:, None]
    at = torch.tensor([-1.0, 0.0, 0.5, 1.0, 2.0])
    odds = fit(maps, masks).anomaly_map(at[:, None, None, None])
    expected = (math.log(0.2) + at - 0.5) / math.log(2)
    torch.testing.assert_close(odds.flatten(), expected, rtol=0, atol=0.25)


def test_a_reading_that_hardly_varies_is_not_blown_up():
    maps, masks = only_where_flat(seed=0)
    steady = 5 + 1e-6 * normal(24, 1, 64, 64, seed=3)
    learned = fit(torch.cat([maps, steady], 1), masks)
    off = torch.cat([maps, steady + 1e-4], 1)
    change = learned.anomaly_map(off) - learned.anomaly_map(torch.cat([maps, steady], 1))
    assert change.abs().max() < 0.1


@pytest.mark.parametrize("planted", [False, True])
def test_without_pixels_of_both_kinds_all_readings_weigh_the_same(planted):
    """Only the mean of the standardised readings counts, and the higher the more abnormal; also of a constant one."""
    maps = normal(4, 3, SIDE, SIDE, seed=0) * torch.tensor([0.5, 1.0, 4.0])[:, None, None] + 2
    maps = torch.cat([maps, torch.ones(4, 1, SIDE, SIDE)], 1)
    learned = fit(maps, torch.full((4, SIDE, SIDE), planted))
    assert learned.inner.shape == (1, 4) and (learned.inner == 0.25).all()
    at = learned.mean[:, None, None].repeat(9, 1, 1, 1)
    for reading in range(4):
        at[reading] += 0.4 * learned.deviation[reading] * torch.eye(4)[reading][:, None, None]
        at[4 + reading] -= 0.4 * learned.deviation[reading] * torch.eye(4)[reading][:, None, None]
    told = learned.anomaly_map(at).flatten()
    torch.testing.assert_close(told[:4], told[:1].expand(4))
    torch.testing.assert_close(told[4:8], told[4:5].expand(4))
    assert told[0] > told[8] > told[4] and told[8] == 0
    assert learned.anomaly_map(maps).isfinite().all()


# --- chance


def test_the_seed_alone_decides(monkeypatch):
    """Neither torch's own generator nor the number of calls before; of so many pixels some are drawn, by the seed."""
    monkeypatch.setattr(weighing, "_UNTOUCHED", 3000)
    monkeypatch.setattr(weighing, "_PLANTED", 1000)
    maps, masks = only_where_flat(seed=0)
    one = fit(maps, masks)
    torch.rand(5)
    assert same(fit(maps, masks), one)
    other = fit(maps, masks, seed=1)
    assert not torch.equal(other.mean, one.mean) and not torch.equal(other.inner, one.inner)


@pytest.mark.parametrize("some", [True, False])
def test_torchs_own_generator_is_left_as_it_was(some):
    maps, masks = only_where_flat(seed=0)
    before = torch.get_rng_state()
    fit(maps[:2], masks[:2] & some)
    assert torch.equal(torch.get_rng_state(), before)


# --- which pixels are learned from


@pytest.fixture
def drawn(monkeypatch):
    """Learns from images whose only reading says where a pixel is; returns which were given to the network, and how."""
    given = []
    monkeypatch.setattr(weighing, "_train", lambda network, *rest: given.append(rest))

    def draw(masks: Tensor, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        maps = torch.arange(masks.numel(), dtype=torch.float32).reshape(len(masks), 1, *masks.shape[1:])
        learned = fit(maps, masks, seed)
        pixels, labels, importance = given.pop()
        places = (pixels.double() * learned.deviation + learned.mean)[:, 0].round().long()
        return places.numpy(), labels.numpy(), importance.numpy()

    return draw


@pytest.mark.parametrize(("planted", "untouched"), [(100, 900), (100, 10**9), (10**9, 900), (10**9, 10**9)])
def test_of_many_pixels_some_are_drawn_with_their_own_labels(monkeypatch, drawn, planted, untouched):
    monkeypatch.setattr(weighing, "_PLANTED", planted)
    monkeypatch.setattr(weighing, "_UNTOUCHED", untouched)
    masks = normal(9, SIDE, SIDE, seed=0) > 1
    places, labels, _ = drawn(masks)
    assert len(set(places)) == len(places), "none twice"
    np.testing.assert_array_equal(labels, masks.flatten().numpy()[places])
    assert labels.sum() == min(planted, int(masks.sum()))
    assert (labels == 0).sum() == min(untouched, int((~masks).sum()))
    if planted + untouched < 10**9:
        assert len(set(places // SIDE**2)) == 9, "of all images"
        assert set(drawn(masks, seed=1)[0]) != set(places)


def test_never_are_more_drawn_than_memory_is_meant_for(drawn):
    masks = torch.zeros(4, 256, 256, dtype=torch.bool)
    masks[:, :, :80] = True
    _, labels, _ = drawn(masks)
    assert labels.sum() == weighing._PLANTED < masks.sum()
    assert (labels == 0).sum() == weighing._UNTOUCHED < (~masks).sum()


def test_planted_pixels_together_count_for_a_fifth_of_the_others(drawn):
    masks = normal(9, SIDE, SIDE, seed=0) > 1
    _, labels, importance = drawn(masks)
    assert importance[labels == 1].sum() == pytest.approx(0.2 * importance[labels == 0].sum(), rel=1e-4)
    assert importance.mean() == pytest.approx(1, rel=1e-4)
    assert all(len(set(importance[labels == kind])) == 1 for kind in (0, 1))


# --- the context


def around(x: Tensor) -> dict[str, Tensor]:
    """The context of one image, by name."""
    return dict(zip(CONTEXT, context(x[None])[0], strict=True))


@pytest.mark.parametrize("channels", [1, 3])
def test_context_has_as_many_channels_as_names_whatever_the_images_have(channels):
    x = normal(2, channels, SIDE, 20, seed=0)
    assert context(x).shape == (2, len(CONTEXT), SIDE, 20) and len(set(CONTEXT)) == len(CONTEXT)
    torch.testing.assert_close(context(x), context(x.mean(1, keepdim=True)))
    torch.testing.assert_close(context(x)[1:], context(x[1:]))


@pytest.mark.parametrize("value", [0.0, 0.7])
def test_a_flat_image_has_the_same_context_everywhere(value):
    found = around(torch.full((1, SIDE, SIDE), value))
    expected = {"level": value, "level squared": value**2, "level width=4": value}
    for name, values in found.items():
        torch.testing.assert_close(values, torch.full_like(values, expected.get(name, math.log2(1e-5))))


def test_the_slope_of_a_ramp_is_read_as_such():
    """Away from the border, where smoothing changes nothing: log2 of the squared slope, whichever way it points."""
    down, across = (torch.arange(SIDE).float()[:, None].expand(SIDE, SIDE) / SIDE, torch.zeros(SIDE, SIDE))
    for x, slope in ((down, 1), (down.T, 1), (0.5 - 2 * down, 2), (3 * down + 4 * down.T + across, 5)):
        found = around(x[None].contiguous())["edge"][8:-8, 8:-8]
        torch.testing.assert_close(found, torch.full_like(found, math.log2((slope / SIDE) ** 2 + 1e-5)))


def test_an_edge_raises_edge_where_it_is():
    """A bright square in the middle; farther away the wider the neighbourhood is."""
    x = torch.zeros(1, 64, 64)
    x[:, 20:44, 20:44] = 1
    found = around(x)
    side, middle, corner = (32, 20), (32, 32), (4, 4)
    for name in ("edge", "edge width=2", "edge width=4"):
        assert found[name][side] > found[name][middle] + 2
        assert found[name][side] > found[name][corner] + 2
    narrow, wide, wider = (float(found[name][32, 15]) for name in ("edge", "edge width=2", "edge width=4"))
    assert narrow + 2 < wide < wider - 0.5, "five pixels from the edge"
    assert found["level"][middle] > 0.99 > 0.01 > found["level"][corner]
    torch.testing.assert_close(found["level squared"], found["level"].square())
    assert 0.01 < found["level width=4"][32, 16] < found["level width=4"][32, 24] < 0.99


def test_an_edge_at_one_border_is_none_at_the_other():
    """An image has no more in common with its far side than with another image."""
    plain, stepped = torch.full((1, 64, 64), 0.2), torch.full((1, 64, 64), 0.2)
    stepped[:, :, 56:] = 1
    stepped[:, 56:] = 1
    for name, values in around(stepped).items():
        torch.testing.assert_close(values[:24, :24], around(plain)[name][:24, :24], msg=name)


def test_noise_raises_noise_where_it_is():
    """In the middle of one image; more noise more, by its energy."""
    x = torch.zeros(1, 64, 64)
    grain = normal(24, 24, seed=0)
    told = []
    for strength in (0.1, 0.2):
        x[0, 20:44, 20:44] = strength * grain
        found = around(x)["noise width=3"]
        assert found[26:38, 26:38].min() > found[:8].max() + 5
        told.append(found[26:38, 26:38].mean())
    assert float(told[1] - told[0]) == pytest.approx(2, abs=0.05), "twice the noise: two bits"


# --- several networks, each of which leaves out some images


def in_folds(maps: Tensor, masks: Tensor, folds: Tensor) -> list[Weighing]:
    return fit_members(maps.mean((0, 2, 3)), maps, masks, folds, 0, count=3, hidden=4)


def test_a_member_does_not_know_the_images_of_its_fold():
    """Their masks turned about, its network is the same but for rounding, and the others are not."""
    maps, masks = only_where_flat(seed=0)
    folds = torch.arange(len(maps)) % 3
    turned = torch.where((folds == 1)[:, None, None], ~masks, masks)
    one, other = in_folds(maps, masks, folds), in_folds(maps, turned, folds)
    apart = [float((a.inner - b.inner).norm() / b.inner.norm()) for a, b in zip(one, other, strict=True)]
    assert apart[1] < 0.01 and min(apart[0], apart[2]) > 0.1, apart


def test_a_fold_without_artefacts_has_a_network_of_all_others():
    maps, masks = only_where_flat(seed=0)
    folds = torch.arange(len(maps)) % 2
    members = in_folds(maps, masks, folds)
    (of_all,) = fit_members(maps.mean((0, 2, 3)), maps, masks, torch.zeros_like(folds), 2, count=1, hidden=4)
    assert len(members) == 3 and same(members[2], of_all)


def test_a_network_for_which_the_others_have_no_artefact_learns_from_all():
    maps, masks = only_where_flat(seed=0)
    folds = torch.arange(len(maps)) % 2
    masks[folds == 1] = False
    members = fit_members(maps.mean((0, 2, 3)), maps, masks, folds, 0, count=2, hidden=4)
    (of_all,) = fit_members(maps.mean((0, 2, 3)), maps, masks, torch.zeros_like(folds), 0, count=1, hidden=4)
    assert same(members[0], of_all)
    assert len(members[1].inner) == 4, "its others have all of them"


def test_members_together_are_the_mean_of_their_maps():
    maps, masks = reversed_where_steep(seed=3)
    members = in_folds(maps, masks, torch.arange(len(maps)) % 3)
    joined = together(members)
    assert joined.inner.shape == (12, 2) and joined.outer.shape == (1, 12)
    expected = torch.stack([member.anomaly_map(maps[:4]) for member in members]).mean(0)
    torch.testing.assert_close(joined.anomaly_map(maps[:4]), expected, rtol=1e-4, atol=1e-4)


def test_each_image_is_judged_by_the_member_of_its_fold():
    maps, masks = only_where_flat(seed=0)
    folds = torch.tensor([2, 0, 0, 1, 2, 1])
    members = in_folds(maps, masks, torch.arange(len(maps)) % 3)
    found = by_others(members, maps[:6], folds)
    for image, fold in enumerate(folds.tolist()):
        torch.testing.assert_close(found[image], members[fold].anomaly_map(maps[image : image + 1])[0])


@pytest.mark.parametrize(("pixels", "higher", "best"), [(1, 6.0, (0.002,)), (100, 1.0, (0.04, 0.1))])
def test_the_share_is_as_large_as_what_is_to_be_found(pixels, higher, best):
    """Artefacts of so many of a thousand pixels, higher than noise by so much: one by far, or a hundred by little."""
    noise = normal(400, 1024, seed=pixels)
    noise[200:, :pixels] += higher
    untouched, changed = noise.unflatten(1, (32, 32)).split(200)
    share, auroc = best_share(untouched, changed)
    told = {one: roc_auc_score([0] * 200 + [1] * 200, highest(torch.cat([untouched, changed]), one)) for one in SHARES}
    assert auroc == pytest.approx(max(told.values())) == pytest.approx(told[share])
    assert share in best


@pytest.mark.parametrize("share", SHARES)
def test_a_figure_is_the_mean_of_the_highest_pixels(share):
    maps = normal(3, 20, 20, seed=1)
    expected = [np.sort(one.flatten().numpy())[-max(1, round(share * 400)) :].mean() for one in maps]
    np.testing.assert_allclose(highest(maps, share), expected, rtol=1e-5)
