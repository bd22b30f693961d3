"""The plain evidence lower bound of a diffusion model, in bits per dimension, and each pixel's share in it.

Source: Kingma, Salimans, Poole & Ho, "Variational diffusion models", NeurIPS 2021, arXiv 2107.00630; with sigma for
time:

    -log p(x) <= KL(q(x_end | x) || p(x_end)) + E integral ||x - D(x_sigma, sigma)||^2 / sigma^2 dlog(sigma)
                 - E log p(x | x_start).

p(x_end) is Gaussian about mid-grey with the variance of all images; p(x | x_start) is Gaussian about x_start with its
noise: images are taken as continuous, so that the figure is that of a density, and may be negative.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from benchmarks.methods.maps import smoothed
from benchmarks.methods.on_prior import HIGHEST, Measured, Noise, PeerOnPrior, denoised, one_for_all
from priorlens.image_prior import SIGMA_DATA
from priorlens.posterior.divergence import quadrature
from priorlens.prior.denoiser import Denoiser
from priorlens.prior.solvers import sigma_grid

LOWEST = 0.01
"""The first noise level, of images in [0, 1]: some 2 of 256 grey values."""

LEVELS = 20
"""Evenly spaced in log(sigma), one draw of noise at each."""

CENTRE, SPREAD = 0.5, SIGMA_DATA / 2
"""Mean and standard deviation of all images' pixels, as the prior takes them to be."""


def nats(
    denoiser: Denoiser,
    x: Float[Tensor, "image channel *space"],
    sigmas: Sequence[float],
    noise: Noise,
    *,
    centre: float = CENTRE,
    spread: float = SPREAD,
) -> Float[Tensor, "image channel *space"]:
    """Each element's share in the bound; the integral by the trapezoidal rule over rising noise levels."""
    total = _of_the_ends(x, sigmas[0], sigmas[-1], centre, spread)
    for sigma, weight in zip(sigmas, quadrature(sigmas).tolist(), strict=True):
        error = x - denoised(denoiser, x + sigma * noise(x), sigma)
        total = total + weight * error**2 / sigma**2
    return total


def _of_the_ends(x: Tensor, start: float, end: float, centre: float, spread: float) -> Tensor:
    """KL(N(x, end^2) || N(centre, end^2 + spread^2)), and the mean of -log N(x; x_start, start^2)."""
    ratio = end**2 / (end**2 + spread**2)
    terminal = 0.5 * (ratio - 1 - math.log(ratio) + (x - centre) ** 2 / (end**2 + spread**2))
    return terminal + 0.5 * (1 + math.log(2 * math.pi * start**2))


class ELBO(PeerOnPrior):
    """A map has the nats of each pixel, summed over channels."""

    remark = f"{LEVELS} noise levels from {LOWEST:g} to {HIGHEST:g}, one draw at each; the map is smoothed"

    def measure(self, x: Float[Tensor, "image channel side side"]) -> Measured:
        sigmas = sigma_grid(LOWEST, HIGHEST, LEVELS - 1).tolist()
        found = nats(self.denoiser, x, sigmas, one_for_all(self.seed)).cpu()
        bits_per_dim = found.double().flatten(1).mean(1) / math.log(2)
        return Measured(bits_per_dim.numpy(), smoothed(found.sum(1).numpy()))
