"""KLIP as published, step for step, to compare with: `--recipe reference`.

A DDPM ancestral sampler in the variance-preserving form, u_t = sqrt(abar_t) u + sqrt(1 - abar_t) eps, takes at each
step t the usual reverse step and then the data-consistency step of DPS,

    change = zeta A_adjoint (y - A D) / |y - A D|,        u_(t-1) = reverse step + change,

with D the denoised image and the gradient not taken through the network. The divergence is change^2 / beta_t, summed
over channels, averaged over the window's steps and over samples; an image's score is its largest block's sum.

Source: Kheirandish, Hong & Fridovich-Keil, CVPR 2026, "KLIP", arXiv 2605.31596; Chung et al. 2023 for DPS; Ho et al.
2020 for DDPM. Left open there, and chosen here:

- the reverse step's variance is the smaller of DDPM's two, beta_t (1 - abar_(t-1)) / (1 - abar_t);
- the gradient is that of |y - A D| with respect to D itself, D is not clipped, the norm is each sample's own;
- samples are averaged after squaring, and blocks share out the image;
- the figure is neither halved nor multiplied by the step. It ranks images, but is not in bits.

The change is about as long for every image, however much is left to explain: it tells where y pulls, not how hard.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from priorlens.measurement.operator import Operator
from priorlens.posterior.divergence import block_sums
from priorlens.prior.denoiser import Denoiser


@dataclass(frozen=True)
class Schedule:
    """Variances of a respaced DDPM, cleanest step first: abar_t, abar_(t-1) and beta_t = 1 - abar_t / abar_(t-1)."""

    abar: Float[Tensor, " step"]
    abar_before: Float[Tensor, " step"]
    beta: Float[Tensor, " step"]


def respaced(steps: int) -> Schedule:
    """`steps` of DDPM's 1000, evenly spaced with both ends; beta rises linearly from 1e-4 to 0.02. Float64.

    Raises:
        ValueError: less than one step or more than 1000.
    """
    if not 1 <= steps <= 1000:
        raise ValueError(f"a DDPM of 1000 steps has no {steps} of them")
    abar = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)
    abar = abar[torch.linspace(0, 999, steps, dtype=torch.float64).round().long()]
    before = torch.cat([abar.new_ones(1), abar[:-1]])
    return Schedule(abar, before, 1 - abar / before)


@dataclass(frozen=True)
class Reference:
    """What the published recipe says of images.

    kl_map: change^2 / beta_t, mean over the window's steps and over samples. Not in bits.
    anomaly: the largest block's sum.
    reconstruction: mean of the samples, in the denoiser's units.
    nfe: network evaluations for one image, all samples together.
    """

    kl_map: Float[Tensor, "batch *space"]
    anomaly: Float[Tensor, " batch"]
    reconstruction: Float[Tensor, "batch channel *space"]
    nfe: int


@torch.no_grad()
def reference(
    denoiser: Denoiser,
    operator: Operator,
    y: Float[Tensor, "batch *measurement"],
    *,
    steps: int = 100,
    samples: int = 8,
    zeta: float = 1.0,
    window: tuple[int, int] | None = None,
    block: int = 8,
    low: float = 0.0,
    high: float = 1.0,
    generator: torch.Generator,
) -> Reference:
    """The recipe above for each measurement, all samples as one batch.

    window: steps first <= t < last that count, of 0 (cleanest) to steps - 1; all of them if None.
    block: side of a block in pixels.
    low, high: the denoiser's intensities for which u is -1 and 1; DDPM's noise levels are in u's units.

    Raises:
        ValueError: a window without steps, or more steps than DDPM has.
    """
    first, last = window or (0, steps)
    if not 0 <= first < last <= steps:
        raise ValueError(f"no window from step {first} to {last} among {steps} steps")
    schedule, half = respaced(steps), (high - low) / 2
    measured = y.repeat(samples, *(1,) * (y.ndim - 1))
    u = _noise(y, samples, operator.shape, generator)
    kl_map = u.new_zeros(len(u), *u.shape[2:])
    for t in reversed(range(steps)):
        abar, before, beta = float(schedule.abar[t]), float(schedule.abar_before[t]), float(schedule.beta[t])
        sigma = u.new_full((len(u),), half * ((1 - abar) / abar) ** 0.5)
        denoised = denoiser(low + half * (u / abar**0.5 + 1), sigma)
        change = zeta * _pull_of_unit_length(operator, measured - operator.A(denoised)).to(u)
        kept = (1 - beta) ** 0.5 * (1 - before) / (1 - abar)
        u = before**0.5 * beta / (1 - abar) * ((denoised - low) / half - 1) + kept * u + change
        if t > 0:
            u = u + (beta * (1 - before) / (1 - abar)) ** 0.5 * _noise(y, samples, operator.shape, generator)
        if first <= t < last:
            kl_map += change.square().sum(1) / (beta * (last - first))
    kl_map = kl_map.unflatten(0, (samples, -1)).mean(0)
    return Reference(
        kl_map=kl_map,
        anomaly=block_sums(kl_map, block).flatten(1).amax(1),
        reconstruction=(low + half * (u + 1)).unflatten(0, (samples, -1)).mean(0),
        nfe=steps * samples,
    )


def _pull_of_unit_length(
    operator: Operator, residual: Float[Tensor, "batch *measurement"]
) -> Float[Tensor, "batch channel *space"]:
    """Minus the gradient of |y - A D| with respect to D; zero where nothing is left to explain."""
    norm = residual.flatten(1).norm(dim=1).clamp(min=torch.finfo(residual.dtype).tiny)
    return operator.A_adjoint(residual / norm.reshape(-1, *(1,) * (residual.ndim - 1)))


def _noise(
    y: Float[Tensor, "batch *measurement"], samples: int, shape: tuple[int, ...], generator: torch.Generator
) -> Float[Tensor, "states channel *space"]:
    """One noise for each sample, the same for all images of the batch."""
    noise = torch.randn(samples, 1, *shape, generator=generator, device=generator.device)
    return noise.to(y).expand(samples, len(y), *shape).flatten(0, 1)
