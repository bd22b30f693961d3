"""A prior in other units is the prior of the moved data."""

import pytest
import torch

from priorlens.prior.oracles import GaussianDenoiser
from priorlens.prior.scaled import Scaled

SHAPE = (2, 3, 2)


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0), (-1000.0, 3000.0), (-3.0, 1.0)])
def test_is_the_denoiser_of_the_moved_data(low, high):
    factor = normal(12, 12, seed=0)
    mean, covariance, half = normal(*SHAPE, seed=1), factor @ factor.T, (high - low) / 2
    moved = GaussianDenoiser(low + half * (mean + 1), half**2 * covariance)
    x_t = low + half * (normal(4, *SHAPE, seed=2) + 1)
    sigma = half * torch.tensor([0.01, 0.3, 2.0, 50.0]).double()
    scaled = Scaled(GaussianDenoiser(mean, covariance), low, high)
    torch.testing.assert_close(scaled(x_t, sigma), moved(x_t, sigma), rtol=1e-9, atol=1e-9 * half)


def test_keeps_the_images_precision():
    scaled = Scaled(GaussianDenoiser(torch.zeros(SHAPE).double(), torch.eye(12).double()))
    assert scaled(torch.ones(1, *SHAPE), torch.ones(1)).dtype == torch.float32


@pytest.mark.parametrize("high", [0.0, -1.0, float("nan")])
def test_refuses_a_range_that_is_none(high):
    with pytest.raises(ValueError, match="above low"):
        Scaled(GaussianDenoiser(torch.zeros(SHAPE), torch.eye(12)), 0.0, high)
