"""The score against autograd of a known density, and EDM's preconditioning against its defining properties."""

import math

import pytest
import torch
from torch import nn

from priorlens.prior.denoiser import Denoiser, Preconditioned, over_space, score
from priorlens.prior.oracles import GaussianDenoiser, MixtureDenoiser

SHAPE = (2, 3)


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def covariance(seed: int) -> torch.Tensor:
    size = math.prod(SHAPE)
    factor = normal(size, size, seed=seed)
    return factor @ factor.T / size + 0.05 * torch.eye(size, dtype=torch.float64)


def gaussian() -> GaussianDenoiser:
    return GaussianDenoiser(normal(*SHAPE, seed=1), covariance(2))


def mixture() -> MixtureDenoiser:
    weights = torch.tensor([0.3, 0.7], dtype=torch.float64)
    return MixtureDenoiser(weights, 2 * normal(2, *SHAPE, seed=3), torch.stack([covariance(4), covariance(5)]))


class Recorder(nn.Module):
    """A network that keeps what it was shown and answers with one value everywhere."""

    def __init__(self, answer: float) -> None:
        super().__init__()
        self.answer = answer
        self.seen = torch.empty(0)
        self.noise = torch.empty(0)

    def forward(self, x: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        self.seen, self.noise = x, noise
        return torch.full_like(x, self.answer)


@pytest.mark.parametrize("oracle", [gaussian, mixture])
@pytest.mark.parametrize("sigma", [0.05, 0.7, 4.0])
def test_score_is_the_gradient_of_the_noised_log_density(oracle, sigma):
    denoiser = oracle()
    x_t = (3 * normal(4, *SHAPE, seed=6)).requires_grad_()
    (expected,) = torch.autograd.grad(denoiser.log_prob(x_t, sigma).sum(), x_t)
    found = score(denoiser, x_t.detach(), torch.full((4,), sigma, dtype=torch.float64))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_each_image_has_its_own_noise_level():
    denoiser, x_t = gaussian(), normal(3, *SHAPE, seed=7)
    sigma = torch.tensor([0.1, 1.0, 9.0], dtype=torch.float64)
    together = score(denoiser, x_t, sigma)
    for i in range(3):
        torch.testing.assert_close(together[i : i + 1], score(denoiser, x_t[i : i + 1], sigma[i : i + 1]))


def test_over_space_broadcasts_over_channels_and_any_space():
    sigma = torch.tensor([1.0, 2.0])
    for space in ((), (4,), (4, 5), (4, 5, 6)):
        assert over_space(sigma, torch.zeros(2, 3, *space)).shape == (2, 1, *(1 for _ in space))
    assert over_space(sigma, torch.zeros(2, 3, dtype=torch.float64)).dtype == torch.float64


def test_preconditioning_is_a_denoiser_and_follows_table_1():
    sigma, sigma_data, x_t = torch.tensor([0.2, 3.0]), 0.5, normal(2, 1, 6, seed=8)
    module = Preconditioned(Recorder(answer=1.0), sigma_data, bf16=False)
    assert isinstance(module, Denoiser)
    denoised = module(x_t, sigma)
    s = sigma.double()[:, None, None]
    total = (s**2 + sigma_data**2).sqrt()
    torch.testing.assert_close(denoised, sigma_data**2 / total**2 * x_t + s * sigma_data / total)
    torch.testing.assert_close(module.network.seen, (x_t / total).float())
    torch.testing.assert_close(module.network.noise, sigma.log() / 4)


def test_a_silent_network_is_the_denoiser_of_white_data():
    """Before it has learned anything the network answers zero, which is right for x ~ N(0, sigma_data^2 I)."""
    sigma_data = 2.0
    white = GaussianDenoiser(torch.zeros(SHAPE, dtype=torch.float64), sigma_data**2 * torch.eye(6, dtype=torch.float64))
    x_t, sigma = normal(3, *SHAPE, seed=9), torch.tensor([0.01, 1.0, 50.0], dtype=torch.float64)
    denoised = Preconditioned(Recorder(answer=0.0), sigma_data)(x_t, sigma)
    torch.testing.assert_close(denoised, white(x_t, sigma), rtol=1e-12, atol=1e-12)


def test_bfloat16_stays_inside_the_network():
    x_t, sigma = normal(2, 1, 4, 4, seed=10), torch.tensor([0.3, 2.0], dtype=torch.float64)
    network = nn.Conv2d(1, 1, 3, padding=1)

    class Told(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
            out = self.network(x)
            self.dtype = out.dtype
            return out

    told = Told()
    coarse, fine = Preconditioned(told, bf16=True), Preconditioned(told, bf16=False)
    assert coarse(x_t, sigma).dtype == torch.float64
    assert told.dtype == torch.bfloat16
    # bfloat16 keeps 8 bits: 2^-8 relative to outputs of about 1, and c_out is at most 1
    torch.testing.assert_close(coarse(x_t, sigma), fine(x_t, sigma), rtol=0, atol=0.02)
    assert told.dtype == torch.float32
