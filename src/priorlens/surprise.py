"""How many bits an image costs under a prior: for each place, noise level and size of structure, from a few calls.

One quantity, read in several ways (`Surprise`). Let drift = E[x | x_t, y] - E[x | x_t], with x_t = x + sigma eps: what
the measurement y adds to the prior. Where y is the whole image it is the prior's error, x - E[x | x_t].

- The integral of its energy over noise levels, |drift|^2 / sigma^2 d log(sigma), is the divergence of posterior from
  prior in nats (KLIP: Kheirandish et al. 2026; `priorlens.posterior.divergence`).

- For the whole image it is, up to a constant, the negative log-likelihood, by the pointwise I-MMSE identity (Kong
  et al. 2023, "Information-theoretic diffusion", equation 9):
  log p(x) = log N(x; 0, I) + integral of (|x - x_t / (1 + sigma^2)|^2 - |error|^2) / sigma^2 d log(sigma),
  means over eps. Measured against white data, with the same eps, both ends of the integral vanish and a handful of
  levels is enough.
- Divided by the variance the prior expects there, its energy is 1 on healthy tissue everywhere: standardised.
- Averaged over draws and a neighbourhood *before* squaring, only what drifts the same way remains: coherent.
- Where more is to be averaged than one image holds, the errors keep their sign: `signed_errors`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from priorlens.posterior.denoisers import Means, PosteriorDenoiser
from priorlens.prior.denoiser import Denoiser
from priorlens.prior.variance import Variance

SIGMAS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Noise levels in units of the whitened features' standard deviation."""

WIDTHS = (0.0, 1.0, 2.0)
"""Widths, in positions, of the Gaussian over which errors are averaged before squaring."""


@dataclass(frozen=True)
class Surprise:
    """The surprise of one scale's feature maps, or of images.

    bits_map: minus log2 density per dimension, at each position; its mean over positions is `bits_per_dim`. It is one
        only where the whole image was measured.
    energy: drift^2, mean over channels and draws, for each noise level. Not standardised.
    expected: log variance that the variance head expects of the prior's error, mean over channels and draws.
    standardised: drift^2 / expected variance, mean over channels and draws: 1 on average where all is healthy and
        measured.
    coherent: (drift / expected deviation) averaged over draws and a neighbourhood, then squared and averaged over
        channels, for each noise level and width.
    nfe: network evaluations: of the denoiser, and as many of the variance head.
    """

    bits_map: Float[Tensor, "batch *space"]
    energy: Float[Tensor, "batch sigma *space"]
    expected: Float[Tensor, "batch sigma *space"]
    standardised: Float[Tensor, "batch sigma *space"]
    coherent: Float[Tensor, "batch sigma width *space"]
    nfe: int

    def cpu(self) -> Surprise:
        """The same, in main memory."""
        tensors: dict[str, Any] = {k: value.cpu() for k, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **tensors)

    @property
    def bits_per_dim(self) -> Float[Tensor, " batch"]:
        """Minus log2 density, per dimension; features are continuous, so it may be negative."""
        return self.bits_map.flatten(1).mean(1)


@torch.no_grad()
def surprise(
    denoiser: Denoiser,
    variance: Variance,
    x: Float[Tensor, "batch channel *space"],
    *,
    posterior: PosteriorDenoiser | None = None,
    sigmas: Sequence[float] = SIGMAS,
    widths: Sequence[float] = WIDTHS,
    draws: int = 2,
    seed: int = 0,
) -> Surprise:
    """Every reading of the surprise of `x`, from len(sigmas) * draws evaluations of the denoiser and of its head.

    posterior: knows a measurement of which `x` is a reconstruction. None: `x` itself was measured.

    All images meet the same noise, which depends on `seed` alone: no image's figures depend on those beside it.
    """
    generator = torch.Generator().manual_seed(seed)
    levels = [_at_level(denoiser, variance, x, posterior, float(sigma), widths, draws, generator) for sigma in sigmas]
    energy, expected, standardised, coherent, gain = (torch.stack(parts, 1) for parts in zip(*levels, strict=True))
    nats = 0.5 * (x.square().mean(1) + math.log(2 * math.pi)) - _integral(gain, sigmas)
    return Surprise(
        bits_map=nats / math.log(2),
        energy=energy,
        expected=expected,
        standardised=standardised,
        coherent=coherent,
        nfe=(getattr(variance, "calls", 1) + (posterior.calls if posterior else 1)) * len(sigmas) * draws,
    )


def _at_level(
    denoiser: Denoiser,
    variance: Variance,
    x: Float[Tensor, "batch channel *space"],
    posterior: PosteriorDenoiser | None,
    sigma: float,
    widths: Sequence[float],
    draws: int,
    generator: torch.Generator,
) -> tuple[Tensor, ...]:
    """At one noise level: energy, expected, standardised, coherent, and the gain over white data per sigma^2.

    All draws go through the networks as one batch.
    """
    noise = torch.stack([torch.randn(x.shape[1:], generator=generator) for _ in range(draws)]).to(x)
    clean = x.expand(draws, *x.shape).flatten(0, 1)
    x_t = (x + sigma * noise[:, None]).flatten(0, 1)
    level = x.new_full((len(x_t),), sigma)
    means = posterior.means(x_t, level) if posterior else Means(denoiser(x_t, level), clean)
    denoised, drift = means.prior, means.drift
    log_variance = variance(x_t, denoised, level)
    scaled = drift * (-0.5 * log_variance).exp()
    white = clean - x_t / (1 + sigma**2)

    def over_draws(values: Tensor) -> Tensor:
        return values.reshape(draws, len(x), *values.shape[1:]).mean(0)

    signed = over_draws(scaled)
    energy = drift.square().mean(1)
    return (
        over_draws(energy),
        over_draws(log_variance.mean(1)),
        over_draws(scaled.square().mean(1)),
        torch.stack([smooth(signed, width).square().mean(1) for width in widths], 1),
        over_draws(white.square().mean(1) - energy) / sigma**2,
    )


@torch.no_grad()
def signed_errors(
    denoiser: Denoiser,
    variance: Variance,
    x: Float[Tensor, "batch channel *space"],
    *,
    sigmas: Sequence[float],
    draws: int,
    seeds: Sequence[int],
) -> Float[Tensor, "batch sigma channel *space"]:
    """x - E[x | x_t] in deviations that the head expects of it, mean over draws; squares are left to the caller.

    For what the prior has learned their variance is (sigma^2 + c / draws) / (sigma^2 + c), where c is what x varies by:
    1 with a single draw. seeds: one an image, and all that decides its noise. Images that are to be averaged with
    each other get different ones, and so more draws.
    """
    noise = torch.stack(
        [
            torch.randn(len(sigmas), draws, *x.shape[1:], generator=torch.Generator().manual_seed(seed))
            for seed in seeds
        ],
        dim=2,
    ).to(x)
    clean = x.expand(draws, *x.shape).flatten(0, 1)
    found = []
    for sigma, drawn in zip(sigmas, noise, strict=True):
        x_t = clean + float(sigma) * drawn.flatten(0, 1)
        level = x.new_full((len(x_t),), float(sigma))
        denoised = denoiser(x_t, level)
        scaled = (clean - denoised) * (-0.5 * variance(x_t, denoised, level)).exp()
        found.append(scaled.unflatten(0, (draws, len(x))).mean(0))
    return torch.stack(found, 1)


def _integral(values: Float[Tensor, "batch sigma *space"], sigmas: Sequence[float]) -> Float[Tensor, "batch *space"]:
    """Trapezoidal rule over log(sigma). What lies beyond the first and last level is taken to be zero."""
    if len(sigmas) == 1:
        return values[:, 0]
    return torch.trapezoid(values, torch.tensor(sigmas, dtype=torch.float64).log().to(values), dim=1)


def smooth(x: Float[Tensor, "batch channel *space"], width: float) -> Float[Tensor, "batch channel *space"]:
    """Gaussian mean over a neighbourhood, `width` positions wide (standard deviation); the border is repeated.

    One small matrix product an axis: for maps of a few dozen positions far quicker than a convolution.
    """
    if width <= 0:
        return x
    for axis in range(2, x.ndim):
        weights = _gaussian_rows(x.shape[axis], width).to(x)
        x = (x.movedim(axis, -1) @ weights.T).movedim(-1, axis)
    return x


@lru_cache(maxsize=64)
def _gaussian_rows(positions: int, width: float) -> Float[Tensor, "position position"]:
    """Row i: the weights of all positions in the mean around position i."""
    radius = math.ceil(3 * width)
    offsets = torch.arange(-radius, radius + 1)
    kernel = torch.exp(-0.5 * (offsets.double() / width) ** 2)
    rows = torch.arange(positions)[:, None].expand(-1, len(kernel))
    neighbours = (rows + offsets).clamp(0, positions - 1)
    weights = torch.zeros(positions, positions, dtype=torch.float64)
    return weights.index_put_((rows, neighbours), (kernel / kernel.sum()).expand_as(rows), accumulate=True)
