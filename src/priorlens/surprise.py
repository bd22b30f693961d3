"""How many bits an image costs under a prior: for each place, noise level and size of structure, from a few calls.

One quantity, read in several ways (`Surprise`). Let error = x - E[x | x_t], with x_t = x + sigma eps.

- The integral of its energy over noise levels is the negative log-likelihood, by the pointwise I-MMSE identity (Kong
  et al. 2023, "Information-theoretic diffusion", equation 9):
  log p(x) = log N(x; 0, I) + integral of (|x - x_t / (1 + sigma^2)|^2 - |error|^2) / sigma^2 d log(sigma),
  means over eps. Measured against white data, with the same eps, both ends of the integral vanish and a handful of
  levels is enough.
- Divided by the variance the prior expects there, its energy is 1 on healthy tissue everywhere: standardised.
- Averaged over draws and a neighbourhood *before* squaring, only what errs the same way remains: coherent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from priorlens.prior.denoiser import Denoiser
from priorlens.prior.variance import VarianceHead

SIGMAS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Noise levels in units of the whitened features' standard deviation."""

WIDTHS = (0.0, 1.0, 2.0)
"""Widths, in positions, of the Gaussian over which errors are averaged before squaring."""


@dataclass(frozen=True)
class Surprise:
    """The surprise of one scale's feature maps.

    bits_map: minus log2 density per dimension, at each position; its mean over positions is `bits_per_dim`.
    energy: error^2, mean over channels and draws, for each noise level. Not standardised.
    expected: log variance that the variance head expects, mean over channels and draws.
    standardised: error^2 / expected variance, mean over channels and draws: 1 on average where all is healthy.
    coherent: (error / expected deviation) averaged over draws and a neighbourhood, then squared and averaged over
        channels, for each noise level and width.
    nfe: network evaluations: of the denoiser, and as many of the variance head.
    """

    bits_map: Float[Tensor, "batch *space"]
    energy: Float[Tensor, "batch sigma *space"]
    expected: Float[Tensor, "batch sigma *space"]
    standardised: Float[Tensor, "batch sigma *space"]
    coherent: Float[Tensor, "batch sigma width *space"]
    nfe: int

    @property
    def bits_per_dim(self) -> Float[Tensor, " batch"]:
        """Minus log2 density, per dimension; features are continuous, so it may be negative."""
        return self.bits_map.flatten(1).mean(1)


@torch.no_grad()
def surprise(
    denoiser: Denoiser,
    variance: VarianceHead,
    x: Float[Tensor, "batch channel *space"],
    *,
    sigmas: Sequence[float] = SIGMAS,
    widths: Sequence[float] = WIDTHS,
    draws: int = 2,
    seed: int = 0,
) -> Surprise:
    """Every reading of the surprise of `x`, from len(sigmas) * draws evaluations of the denoiser and of its head.

    All images meet the same noise, which depends on `seed` alone: no image's figures depend on those beside it.
    """
    generator = torch.Generator().manual_seed(seed)
    energy, expected, standardised, coherent, gain = [], [], [], [], []
    for sigma in sigmas:
        level = torch.full((len(x),), float(sigma), device=x.device)
        sums = [torch.zeros_like(x) for _ in range(5)]
        for _ in range(draws):
            x_t = x + sigma * torch.randn(x.shape[1:], generator=generator).to(x.device)
            denoised = denoiser(x_t, level)
            log_variance = variance(x_t, denoised, level)
            error = x - denoised
            scaled = error * (-0.5 * log_variance).exp()
            white = x - x_t / (1 + sigma**2)
            terms = (error**2, log_variance, scaled**2, scaled, white**2 - error**2)
            for total, term in zip(sums, terms, strict=True):
                total += term / draws
        energy.append(sums[0].mean(1))
        expected.append(sums[1].mean(1))
        standardised.append(sums[2].mean(1))
        coherent.append(torch.stack([smooth(sums[3], width).square().mean(1) for width in widths], 1))
        gain.append(sums[4].mean(1) / sigma**2)
    nats = 0.5 * (x.square().mean(1) + math.log(2 * math.pi)) - _integral(torch.stack(gain, 1), sigmas)
    return Surprise(
        bits_map=nats / math.log(2),
        energy=torch.stack(energy, 1),
        expected=torch.stack(expected, 1),
        standardised=torch.stack(standardised, 1),
        coherent=torch.stack(coherent, 1),
        nfe=2 * len(sigmas) * draws,
    )


def _integral(values: Float[Tensor, "batch sigma *space"], sigmas: Sequence[float]) -> Float[Tensor, "batch *space"]:
    """Trapezoidal rule over log(sigma). What lies beyond the first and last level is taken to be zero."""
    if len(sigmas) == 1:
        return values[:, 0]
    return torch.trapezoid(values, torch.tensor(sigmas, dtype=torch.float64).log().to(values), dim=1)


def smooth(x: Float[Tensor, "batch channel *space"], width: float) -> Float[Tensor, "batch channel *space"]:
    """Gaussian mean over a neighbourhood, `width` positions wide (standard deviation); the border is repeated."""
    if width <= 0:
        return x
    radius = math.ceil(3 * width)
    offsets = torch.arange(-radius, radius + 1, dtype=x.dtype, device=x.device)
    kernel = torch.exp(-0.5 * (offsets / width) ** 2)
    kernel = (kernel / kernel.sum()).reshape(1, 1, -1)
    for axis in range(2, x.ndim):
        lines = x.movedim(axis, -1)
        flat = F.pad(lines.reshape(-1, 1, lines.shape[-1]), (radius, radius), mode="replicate")
        x = F.conv1d(flat, kernel).reshape(lines.shape).movedim(-1, axis)
    return x
