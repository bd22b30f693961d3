"""Patches against the whole: equal where the prior does not depend on position, blended without seams where it does."""

from itertools import pairwise

import pytest
import torch

from priorlens.prior.denoiser import Preconditioned, over_space
from priorlens.prior.network import UNet, coordinates
from priorlens.prior.patches import Patched, blended, starts
from priorlens.prior.variance import VarianceHead


def white(x_t, sigma, where=None):
    """The denoiser of white data of variance 1/4: the same everywhere, so that patches and whole must agree."""
    return x_t * 0.25 / (0.25 + over_space(sigma, x_t) ** 2)


class Oracle(torch.nn.Module):
    def forward(self, x_t, sigma, where=None):
        return white(x_t, sigma)


@pytest.mark.parametrize("space", [(50,), (40, 33), (16, 40), (20, 18, 25)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.6])
def test_a_prior_that_does_not_know_position_is_the_same_in_patches(space, overlap):
    """Float64, to 1e-12: averaging equal answers changes nothing."""
    x_t = torch.randn(3, 2, *space, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.1, 0.5, 2.0], dtype=torch.float64)
    torch.testing.assert_close(Patched(Oracle(), 16, overlap)(x_t, sigma), white(x_t, sigma), rtol=1e-12, atol=1e-12)


def test_patches_are_told_where_they_lie():
    x = torch.zeros(2, 2, 40, 24)
    found = blended(lambda x, sigma, where: where, [x], torch.ones(2), 16)
    torch.testing.assert_close(found, coordinates(x))


def test_an_image_no_larger_than_a_patch_is_asked_about_whole():
    asked = []

    class Inner(torch.nn.Module):
        def forward(self, x, sigma, where=None):
            asked.append((x.shape, where))
            return x

    Patched(Inner(), 16)(torch.zeros(1, 1, 16, 10), torch.ones(1))
    assert asked == [((1, 1, 16, 10), None)]


@pytest.mark.parametrize(
    ("positions", "side", "overlap"), [(16, 16, 0.25), (512, 64, 0.25), (65, 64, 0.5), (100, 8, 0.0)]
)
def test_patches_cover_an_axis_with_their_overlap(positions, side, overlap):
    begins = starts(positions, side, overlap)
    assert begins[0] == 0 and begins[-1] == positions - side
    assert all(b - a <= side * (1 - overlap) + 1 for a, b in pairwise(begins))


def test_networks_and_their_heads_work_in_patches():
    """A 512-pixel slice through networks of 64-pixel patches; the head takes the denoised image as well."""
    torch.manual_seed(0)
    x_t, sigma = torch.randn(1, 1, 512, 130), torch.tensor([0.5])
    denoised = Patched(Preconditioned(UNet(1, (8, 8)), 0.5), 64)(x_t, sigma)
    assert denoised.shape == x_t.shape and denoised.isfinite().all()
    log_variance = Patched(VarianceHead(1, (8, 8), sigma_data=0.5), 64)(x_t, denoised, sigma)
    assert log_variance.shape == x_t.shape and log_variance.isfinite().all()
