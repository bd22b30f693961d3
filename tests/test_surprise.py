"""Surprise against closed forms in float64: its bits are the negative log density, its variance Tweedie's."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from priorlens.prior.denoiser import Denoiser, over_space
from priorlens.prior.ode import bits_per_dim
from priorlens.prior.oracles import GaussianDenoiser, MixtureDenoiser
from priorlens.prior.variance import Variance
from priorlens.surprise import SIGMAS, WIDTHS, Surprise, smooth, surprise

CHANNELS = 2
FINE = torch.logspace(-2.5, 2.5, 25, dtype=torch.float64).tolist()
"""So fine that what is left is the noise of the draws."""


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class White:
    """The variance head of white data: right for nothing else, and enough where only bits are read."""

    def __call__(self, x_t: Tensor, denoised: Tensor, sigma: Tensor) -> Tensor:
        square = over_space(sigma, x_t) ** 2
        return (square / (1 + square)).log().expand_as(x_t)


@dataclass(frozen=True)
class Rows:
    """A prior, and its variance head, of images whose rows know nothing of each other: each is one of the oracle's.

    All images meet the same noise, but no two rows do: many equal rows are many draws, at the price of one.
    """

    oracle: GaussianDenoiser | MixtureDenoiser

    def __call__(self, x_t: Tensor, sigma: Tensor) -> Tensor:
        denoised = self.oracle(self.apart(x_t), sigma.repeat_interleave(x_t.shape[2]))
        return denoised.unflatten(0, (len(x_t), -1)).movedim(1, 2)

    def log_variance(self, x_t: Tensor, denoised: Tensor, sigma: Tensor) -> Tensor:
        assert isinstance(self.oracle, GaussianDenoiser)
        return self.oracle.posterior_variance(sigma).log()[:, :, None].expand_as(x_t)

    def bits_per_dim(self, x: Tensor) -> Tensor:
        """Of each row of the one image in closed form."""
        return bits_per_dim(self.oracle.log_prob(self.apart(x)), x.shape[1] * x.shape[3])

    def sample(self, rows: int, seed: int) -> Tensor:
        """One image."""
        return self.oracle.sample(rows, torch.Generator().manual_seed(seed)).movedim(0, 1)[None]

    @staticmethod
    def apart(x: Tensor) -> Tensor:
        """Every row as an image of its own."""
        return x.movedim(2, 1).flatten(0, 1)


def gaussian() -> GaussianDenoiser:
    """One position of two channels: a wide and a narrow direction, correlated, off centre."""
    covariance = torch.tensor([[2.0, 0.5], [0.5, 0.2]], dtype=torch.float64)
    return GaussianDenoiser(torch.tensor([[0.5], [-0.3]], dtype=torch.float64), covariance)


def mixture() -> MixtureDenoiser:
    """One position; two separate modes of unlike weight and width."""
    means = torch.tensor([[[-1.5], [0.0]], [[1.0], [0.5]]], dtype=torch.float64)
    variances = torch.tensor([0.15, 0.4], dtype=torch.float64)[:, None, None]
    return MixtureDenoiser(torch.tensor([0.3, 0.7]).double(), means, variances * torch.eye(2, dtype=torch.float64))


def correlated() -> GaussianDenoiser:
    """Six positions that tell of each other, and so do their channels."""
    place = torch.linspace(-1, 1, 6, dtype=torch.float64)
    along = torch.exp(-0.5 * ((place[:, None] - place) / 0.5) ** 2) + 0.1 * torch.eye(6, dtype=torch.float64)
    across = torch.tensor([[1.0, 0.4], [0.4, 0.5]], dtype=torch.float64)
    return GaussianDenoiser(0.3 * normal(CHANNELS, 6, seed=1), torch.kron(across, along))


def bits(denoiser: Denoiser, x: Tensor, sigmas: list[float], draws: int = 4) -> Surprise:
    return surprise(denoiser, White(), x, sigmas=sigmas, widths=(0.0,), draws=draws)


# --- bits


def agree(found: Tensor, expected: Tensor, *, error_below: float) -> None:
    """Their means do, within four standard errors of the noise drawn, which are themselves below so many bits."""
    off = found - expected
    error = float(off.std()) / math.sqrt(len(off))
    assert error < error_below
    assert abs(float(off.mean())) < 4 * error


@pytest.mark.parametrize("oracle", [gaussian, mixture, correlated])
def test_bits_are_the_negative_log_density(oracle):
    """Mean over 10,000 images of the oracle's own, bits per dimension between 1.3 and 1.7."""
    prior = Rows(oracle())
    x = prior.sample(10_000, seed=3)
    agree(bits(prior, x, FINE).bits_map[0].mean(1), prior.bits_per_dim(x), error_below=0.005)


@pytest.mark.parametrize("oracle", [gaussian, mixture, correlated])
def test_bits_of_one_image_are_its_own(oracle):
    """Six images from usual to far out, each met by 8000 draws of noise."""
    prior = Rows(oracle())
    x = prior.sample(6, seed=4) * torch.tensor([0.2, 0.5, 1, 1.5, 2, 3]).double()[:, None]
    expected = prior.bits_per_dim(x)
    assert expected.max() - expected.min() > 4
    found = bits(prior, x.repeat_interleave(2000, 2), FINE).bits_map[0].unflatten(0, (6, -1)).mean(2)
    for of_draws, own in zip(found, expected, strict=True):
        agree(of_draws, own, error_below=0.04)


def test_bits_per_dim_are_the_mean_of_their_map():
    prior = Rows(correlated())
    found = bits(prior, normal(3, CHANNELS, 5, 6, seed=5), list(SIGMAS))
    assert found.bits_map.shape == (3, 5, 6)
    torch.testing.assert_close(found.bits_per_dim, found.bits_map.mean((1, 2)), rtol=1e-12, atol=1e-12)


def test_bits_converge_as_the_grid_is_refined():
    """The same span in 3, 5, 9 and 17 levels. The integrand is smooth and fades at both ends, where the trapezoidal
    rule converges faster than any power; measured: off by .74, .0097, .0014 and .0015, the last two by the draws."""
    prior = Rows(gaussian())
    x = prior.sample(20_000, seed=6)
    expected = float(prior.bits_per_dim(x).mean())
    levels = [torch.logspace(-2.5, 2.5, count, dtype=torch.float64).tolist() for count in (3, 5, 9, 17)]
    errors = [abs(float(bits(prior, x, sigmas).bits_per_dim) - expected) for sigmas in levels]
    assert errors[0] > 0.3
    assert errors[1] < errors[0] / 10
    assert max(errors[2:]) < 0.01


def test_white_data_needs_no_integral():
    """Against white data the integrand is zero at every level, for any draw: bits are exact whatever the grid."""
    shape = (CHANNELS, 4, 3)
    white = GaussianDenoiser(torch.zeros(shape, dtype=torch.float64), torch.eye(24, dtype=torch.float64))
    x = 3 * normal(5, *shape, seed=7)
    for sigmas in ([1.0], [0.1, 7.0], list(SIGMAS)):
        found = bits(white, x, sigmas, draws=1)
        expected = 0.5 * (x.square().mean(1) + math.log(2 * math.pi)) / math.log(2)
        torch.testing.assert_close(found.bits_map, expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(found.bits_per_dim, bits_per_dim(white.log_prob(x), 24), rtol=1e-12, atol=1e-12)


# --- the other readings


def test_healthy_images_have_standardised_surprise_of_one_and_the_expected_variance():
    """20,000 images of the oracle's own: mean within 4 % (measured: 1.4) at every place and noise level."""
    prior, oracle = Rows(correlated()), correlated()
    found = surprise(prior, prior.log_variance, prior.sample(20_000, seed=8), widths=(0.0,))
    assert (found.standardised.mean((0, 2)) - 1).abs().max() < 0.04
    for i, sigma in enumerate(SIGMAS):
        variance = oracle.posterior_variance(torch.tensor([sigma]))[0]
        torch.testing.assert_close(found.expected[0, i, 0], variance.log().mean(0))
        torch.testing.assert_close(found.energy[0, i].mean(0), variance.mean(0), rtol=0.04, atol=0)


def test_coherent_surprise_averages_before_it_squares():
    """A shift common to draws and neighbours stays whole; errors that differ from draw to draw fade as 1 / draws."""

    @dataclass(frozen=True)
    class Off:
        """Wrong by `by` everywhere, and by the noise itself."""

        by: float

        def __call__(self, x_t: Tensor, sigma: Tensor) -> Tensor:
            return x_t - self.by

    class One:
        def __call__(self, x_t: Tensor, denoised: Tensor, sigma: Tensor) -> Tensor:
            return torch.zeros_like(x_t)

    x = torch.zeros(1, 64, 16, 16, dtype=torch.float64)
    draws, sigma, by = 8, 0.5, 2.0
    found = surprise(Off(by), One(), x, sigmas=[sigma], widths=(0.0, 2.0), draws=draws)
    plain, wide = found.coherent[0, 0].mean((1, 2))
    assert float(found.standardised.mean()) == pytest.approx(by**2 + sigma**2, rel=0.01)
    assert float(plain) == pytest.approx(by**2 + sigma**2 / draws, rel=0.01)
    neighbours = 4 * math.pi * 2.0**2  # as many as a Gaussian of deviation 2 averages over
    assert float(wide) == pytest.approx(by**2 + sigma**2 / draws / neighbours, rel=0.01)


def test_shapes_and_cost():
    x = normal(2, 2, 3, 4, seed=9)
    shape = (2, 3, 4)
    oracle = GaussianDenoiser(torch.zeros(shape, dtype=torch.float64), torch.eye(24, dtype=torch.float64))
    assert isinstance(White(), Variance)
    found = surprise(oracle, White(), x, draws=3)
    assert found.bits_map.shape == (2, 3, 4) and found.bits_per_dim.shape == (2,)
    assert found.energy.shape == found.expected.shape == found.standardised.shape == (2, len(SIGMAS), 3, 4)
    assert found.coherent.shape == (2, len(SIGMAS), len(WIDTHS), 3, 4)
    assert found.nfe == 2 * 3 * len(SIGMAS)


def test_no_image_depends_on_those_beside_it():
    prior, x = Rows(correlated()), normal(5, CHANNELS, 4, 6, seed=10)
    together = surprise(prior, prior.log_variance, x, seed=3)
    for i in (0, 3):
        alone = surprise(prior, prior.log_variance, x[i : i + 1], seed=3)
        for name in ("bits_map", "bits_per_dim", "energy", "expected", "standardised", "coherent"):
            torch.testing.assert_close(getattr(alone, name), getattr(together, name)[i : i + 1], rtol=1e-10, atol=1e-12)


def test_the_seed_decides_the_noise():
    oracle, x = correlated(), normal(2, CHANNELS, 6, seed=11)
    one, again, other = (surprise(oracle, White(), x, seed=seed).energy for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.allclose(one, other)


# --- smoothing


@pytest.mark.parametrize("width", [0.5, 1.0, 2.0])
def test_smoothing_is_scipys(width):
    x = normal(2, 3, 9, 7, seed=12)
    expected = x.numpy()
    for axis in (2, 3):
        expected = gaussian_filter1d(expected, width, axis=axis, mode="nearest", radius=math.ceil(3 * width))
    torch.testing.assert_close(smooth(x, width), torch.from_numpy(expected), rtol=1e-10, atol=1e-12)


def test_smoothing_keeps_what_is_flat_in_any_number_of_dimensions():
    for space in ((9,), (5, 1), (4, 3, 2), (1, 1)):
        torch.testing.assert_close(smooth(torch.full((2, 3, *space), 1.5), 2.0), torch.full((2, 3, *space), 1.5))
    x = normal(1, 1, 4, seed=13)
    assert smooth(x, 0.0) is x
