"""Errors of whole scans: against closed forms in float64, and what the own null and three dimensions are for."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from priorlens.errors import InputError
from priorlens.prior.oracles import GaussianDenoiser
from priorlens.scan_surprise import SIGMAS, WIDTHS, ErrorStack, coherent, judged, own_null, peaks, readings, usual_of
from priorlens.surprise import signed_errors

SIDE, SLICES = 24, 20


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def stack(errors: Tensor, *, apart: float = 1.0, pixel: float = 1.0, body: Tensor | None = None) -> ErrorStack:
    """All of it body, slices `apart` mm from each other, unless told otherwise."""
    there = torch.ones(len(errors), *errors.shape[-2:], dtype=torch.bool) if body is None else body
    return ErrorStack(Path("scan.nii"), errors, there, apart * np.arange(len(errors)), pixel)


def white(seed: int = 0, *, slices: int = SLICES, channels: int = 1, levels: int = 1) -> Tensor:
    return normal(slices, levels, channels, SIDE, SIDE, seed=seed)


# --- signed errors of a Gaussian prior


class Apart:
    """A prior, and its variance, of images whose pixels know nothing of each other: each is one of the oracle's."""

    def __init__(self, oracle: GaussianDenoiser) -> None:
        self.oracle = oracle

    def __call__(self, x_t: Tensor, sigma: Tensor) -> Tensor:
        pixels = x_t.movedim(1, -1).reshape(-1, x_t.shape[1], 1)
        found = self.oracle(pixels, sigma.repeat_interleave(len(pixels) // len(x_t)))
        return found.reshape(len(x_t), *x_t.shape[2:], -1).movedim(-1, 1)

    def variance(self, x_t: Tensor, denoised: Tensor, sigma: Tensor) -> Tensor:
        known = self.oracle.posterior_variance(sigma).log()
        return known.reshape(*known.shape[:2], *[1] * (x_t.ndim - 2)).expand_as(x_t)


def oracle() -> GaussianDenoiser:
    """Two channels that tell of each other, off centre."""
    covariance = torch.tensor([[0.09, 0.03], [0.03, 0.04]], dtype=torch.float64)
    return GaussianDenoiser(torch.tensor([[0.5], [0.3]], dtype=torch.float64), covariance)


def errors_of_gaussian(draws: int, sigmas: tuple[float, ...] = SIGMAS) -> Tensor:
    """Of some 25,000 pixels of the prior's own."""
    known = oracle()
    pixels = known.sample(6 * 64 * 64, torch.Generator().manual_seed(1))[..., 0]
    x = pixels.reshape(6, 64, 64, 2).movedim(-1, 1)
    prior = Apart(known)
    return signed_errors(prior, prior.variance, x, sigmas=sigmas, draws=draws, seeds=range(6))


def test_signed_errors_of_what_the_prior_knows_have_a_standard_deviation_of_one():
    """Mean 0 and deviation 1 in every channel at every level, each within four standard errors."""
    found = errors_of_gaussian(1).movedim(0, -1).flatten(2)
    count = found.shape[-1]
    assert found.mean(-1).abs().max() < 4 / math.sqrt(count)
    assert (found.std(-1) - 1).abs().max() < 4 / math.sqrt(2 * count)


@pytest.mark.parametrize("draws", [2, 4])
def test_several_draws_leave_what_all_of_them_agree_on(draws):
    """One channel of variance c: (sigma^2 + c / draws) / (sigma^2 + c), within four standard errors."""
    c = 0.0625
    known = GaussianDenoiser(torch.full((1, 1), 0.4).double(), torch.full((1, 1), c).double())
    x = known.sample(4 * 80 * 80, torch.Generator().manual_seed(2)).reshape(4, 1, 80, 80)
    prior = Apart(known)
    found = signed_errors(prior, prior.variance, x, sigmas=SIGMAS, draws=draws, seeds=range(4))
    squares = torch.tensor(SIGMAS, dtype=torch.float64) ** 2
    expected = (squares + c / draws) / (squares + c)
    ratio = found.square().mean((0, 2, 3, 4)) / expected
    assert (ratio - 1).abs().max() < 4 * math.sqrt(2 / x.numel())


def test_readings_of_what_the_prior_knows_have_a_mean_of_one():
    """The null of each reading is 1 without a width, and its square's mean 1, within some errors of the MAD."""
    errors = errors_of_gaussian(1)
    given = stack(errors)
    error_of_null = 4 * 1.17 / math.sqrt(errors[:, 0, 0].numel())  # of the MAD of Gaussians: sqrt(1.36 / n)
    for level in range(len(SIGMAS)):
        for channel in range(2):
            assert own_null(errors[:, level, channel], given.body) == pytest.approx(1, abs=error_of_null)
    for reading in readings(given, [0.0]):
        assert float(reading.mean()) == pytest.approx(1, abs=3 * error_of_null)


def test_what_an_image_meets_is_decided_by_its_seed_alone():
    """To the last bit, whatever stands beside it; other seeds give other noise."""
    known = oracle()
    prior = Apart(known)
    x = normal(3, 2, 5, 6, seed=3)
    both = signed_errors(prior, prior.variance, x, sigmas=SIGMAS, draws=2, seeds=[4, 5, 4])
    alone = signed_errors(prior, prior.variance, x[1:2], sigmas=SIGMAS, draws=2, seeds=[5])
    torch.testing.assert_close(both[1:2], alone, rtol=1e-12, atol=1e-12)
    again = signed_errors(prior, prior.variance, x[:1].repeat(2, 1, 1, 1), sigmas=SIGMAS, draws=2, seeds=[4, 6])
    torch.testing.assert_close(again[:1], both[:1], rtol=1e-12, atol=1e-12)
    assert (again[0] - again[1]).abs().max() > 0.1


def test_signed_errors_in_three_dimensions():
    known = oracle()
    prior = Apart(known)
    found = signed_errors(prior, prior.variance, normal(2, 2, 4, 5, 6, seed=3), sigmas=SIGMAS, draws=2, seeds=[0, 1])
    assert found.shape == (2, len(SIGMAS), 2, 4, 5, 6)


# --- coherent


@pytest.mark.parametrize("width", [1.0, 2.5])
def test_white_errors_shrink_as_their_weights_say(width):
    """White noise averaged with weights a along each axis has the deviation (sum a^2)^(3/2); inside, within 4 %."""
    errors = normal(48, 1, 64, 64, seed=4)
    found = coherent(errors, np.arange(48.0), 1.0, width)
    offsets = torch.arange(-math.ceil(3 * width), math.ceil(3 * width) + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (offsets / width) ** 2)
    expected = float((kernel / kernel.sum()).square().sum()) ** 1.5
    edge = len(offsets) // 2
    inner = found[edge:-edge, 0, edge:-edge, edge:-edge]
    assert float(inner.std()) == pytest.approx(expected, rel=0.04)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_constant_is_left_as_it_is_whatever_lies_between_slices(width):
    errors = torch.full((7, 2, 9, 8), 1.7, dtype=torch.float64)
    places = np.array([0.0, 1, 2, 9, 30, 31, 47])
    torch.testing.assert_close(coherent(errors, places, 1.5, width), errors, rtol=1e-12, atol=1e-12)


def test_slices_weigh_by_their_distance_in_millimetres():
    """One slice of ones among zeros: its neighbours get what the Gaussian says; beyond a gap, nothing."""
    places = np.array([0.0, 2, 3, 7, 60])
    errors = torch.zeros(5, 1, 6, 6, dtype=torch.float64)
    errors[1] = 1
    found = coherent(errors, places, 2.0, 2.0)[:, 0, 3, 3]
    for index, place in enumerate(places):
        weights = np.exp(-0.5 * ((places - place) / 4) ** 2) * (np.abs(places - place) <= 12)
        assert float(found[index]) == pytest.approx(weights[1] / weights.sum(), rel=1e-12)
    assert found[4] == 0


def test_slices_of_one_and_of_three_millimetres_agree():
    """The same smooth blob of errors seen at both: where both have a slice, within a hundredth of its height."""
    row = torch.arange(SIDE, dtype=torch.float64) - SIDE / 2
    height = torch.arange(61, dtype=torch.float64) - 30
    square = row[:, None] ** 2 + row**2 + height[:, None, None] ** 2
    thin = torch.exp(-0.5 * square / 6**2)[:, None]
    thick = thin[::3]
    for width in (2.5, 4.0):
        one = coherent(thin, np.arange(61.0), 1.0, width)[::3]
        three = coherent(thick, 3 * np.arange(21.0), 1.0, width)
        assert (one - three)[3:-3].abs().max() < 0.01
        assert one.max() > 0.3


# --- the own null


def usual(*seeds: int, channels: int = 1) -> tuple[Tensor, Tensor]:
    """What is usual of white errors."""
    return usual_of([stack(white(seed, channels=channels)) for seed in seeds])


def test_a_gain_of_all_errors_changes_nothing():
    """Float64: to nine digits."""
    given, (mean, spread) = white(1, channels=2), usual(2, 3, channels=2)
    gain = torch.tensor([7.0, 0.02], dtype=torch.float64)[:, None, None]
    one, other = (judged(stack(errors), mean, spread) for errors in (given, gain * given))
    np.testing.assert_allclose(one.mean, other.mean, rtol=1e-5, atol=1e-5)  # maps are float32
    np.testing.assert_allclose(one.highest, other.highest, rtol=1e-5, atol=1e-5)
    for first, second in zip(readings(stack(given)), readings(stack(gain * given)), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-9, atol=1e-9)


def test_a_lesion_of_a_fifth_of_the_body_hardly_moves_the_null():
    errors = white(5, slices=40)[:, 0, 0]
    body = torch.ones_like(errors, dtype=torch.bool)
    before = own_null(errors, body)
    errors[:8] += 6
    assert own_null(errors, body) < 1.4 * before
    assert float(errors.std()) > 2.4, "where the standard deviation is moved a lot"


def test_only_the_body_counts():
    errors = white(6)[:, 0, 0]
    body = torch.zeros_like(errors, dtype=torch.bool)
    body[:, 6:18, 6:18] = True
    loud = torch.where(body, errors, 100 * errors)
    assert own_null(loud, body) == own_null(errors, body)


def test_scans_that_show_nothing_are_refused():
    for errors, body in ((torch.zeros(3, 1, 1, 5, 5), None), (white(), torch.zeros(SLICES, SIDE, SIDE).bool())):
        with pytest.raises(InputError, match=r"^scan\.nii: ") as error:
            list(readings(stack(errors, body=body)))
        assert "\n" not in str(error.value) and "; " in str(error.value)


# --- usual, and judged


def test_what_is_usual_is_standardised():
    """Over the very scans that it was read off, each reading has mean 0 and deviation 1; so their mean's mean is 0."""
    given = [stack(white(seed)) for seed in (1, 2)]
    mean, spread = usual_of(given)
    assert mean.shape == spread.shape == (len(WIDTHS),)
    relative = [
        torch.stack([(reading - m) / s for reading, m, s in zip(readings(one), mean, spread, strict=True)])
        for one in given
    ]
    pooled = torch.stack(relative, 1).flatten(1)
    torch.testing.assert_close(pooled.mean(1), torch.zeros(len(WIDTHS)).double(), rtol=0, atol=1e-9)
    torch.testing.assert_close(pooled.std(1, unbiased=False), torch.ones(len(WIDTHS)).double(), rtol=1e-9, atol=0)
    found = [judged(one, mean, spread) for one in given]
    assert float(np.mean([one.mean for one in found])) == pytest.approx(0, abs=1e-5)
    for one, all_readings in zip(found, relative, strict=True):
        np.testing.assert_allclose(one.highest, all_readings.amax(0).numpy(), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(one.mean, all_readings.mean(0).numpy(), rtol=1e-4, atol=1e-5)


def test_one_scan_is_enough_and_others_weigh_by_their_bodies():
    mean, spread = usual(7)
    assert (spread > 0).all()
    assert float(mean[0]) == pytest.approx(1, abs=4 * 2.4 / math.sqrt(white().numel())), "its null is its own MAD"
    body = torch.zeros(SLICES, SIDE, SIDE, dtype=torch.bool)
    body[:, 4:9, 4:9] = True
    small = stack(white(8), body=body)
    both, _ = usual_of([stack(white(7)), small])
    alone, _ = usual_of([small])
    share = float(body.double().mean())
    torch.testing.assert_close(both, (mean + share * alone) / (1 + share), rtol=1e-9, atol=0)


def test_a_lesion_that_goes_on_over_slices_stands_out_more_than_in_one():
    """A faint one, half a deviation: the same in eight slices, and in one of them only."""
    mean, spread = usual(1, 2, 3)
    healthy = white(9)
    planted = []
    for slices in (slice(10, 11), slice(6, 14)):
        errors = healthy.clone()
        errors[slices, :, :, 8:16, 8:16] += 0.5
        planted.append(judged(stack(errors), mean, spread))
    place = (10, slice(10, 14), slice(10, 14))
    before = judged(stack(healthy), mean, spread)
    one, eight = (found.mean[place].mean() - before.mean[place].mean() for found in planted)
    assert eight > 3 * max(one, 0) and eight > 1
    assert planted[1].highest[place].mean() > planted[0].highest[place].mean() + 2


def test_peaks_are_the_mean_of_the_highest_fiftieth_of_a_slice_s_body():
    values = np.arange(200, dtype=np.float32).reshape(2, 10, 10)
    body = np.ones((2, 10, 10), bool)
    np.testing.assert_allclose(peaks(values, body), [98.5, 198.5])
    body[0], body[1] = False, np.arange(100).reshape(10, 10) < 20
    found = peaks(values, body)
    assert np.isnan(found[0]) and found[1] == 119, "of a few pixels one"


def test_an_error_stack_of_single_precision_stays_so():
    given = dataclasses.replace(stack(white(1).float()))
    assert all(reading.dtype == torch.float32 for reading in readings(given))
