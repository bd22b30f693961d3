"""AnoDDPM: an image is noised in part and denoised; what does not come back is abnormal.

Source: Wyatt, Leach, Schmon & Willcocks, "AnoDDPM: Anomaly detection with denoising diffusion probabilistic models
using simplex noise", CVPR workshops 2022. There T = 1000 steps of a linear schedule, of which an image goes up
lambda = 250 and down again, and a pixel's anomaly is its squared residual.

The paper finds simplex noise of several octaves better than Gaussian noise, and trains its network with it. Our prior
has learned from Gaussian noise alone: with that it is `AnoDDPM`, with octaves, which it never saw, `AnoDDPMOctaves`.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from benchmarks.methods.maps import smoothed, top_mean
from benchmarks.methods.on_prior import Measured, Noise, PeerOnPrior, denoised, linear_betas, noise_levels, one_for_all
from priorlens.prior.denoiser import Denoiser

LAMBDA = 250
"""Of 1000 steps, as published: noise of deviation 0.48 on images in [0, 1]."""

STEPS = 25
"""In which the 250 are taken."""

OCTAVES, PERSISTENCE, COARSEST = 6, 0.8, 64
"""Of the simplex noise, as published: each octave has half the period of the one before, and 0.8 of its amplitude; the
coarsest a period of 64 pixels."""


def levels(steps: int = STEPS) -> list[float]:
    """Noise levels from that of step `LAMBDA` down, the last 0."""
    schedule = noise_levels(linear_betas())
    return [*(float(schedule[round(LAMBDA * k / steps) - 1]) for k in range(steps, 0, -1)), 0.0]


def noised_and_denoised(
    denoiser: Denoiser, x: Float[Tensor, "image channel *space"], sigmas: list[float], noise: Noise
) -> Float[Tensor, "image channel *space"]:
    """Up to the first noise level at once, and down by ancestral sampling: DDPM's q(x_s | x_t, x) at x = E[x | x_t].

    With sigma for time, s < t: x_s = D + (s / t)^2 (x_t - D) + s sqrt(1 - (s / t)^2) eps.
    """
    x_t = x + sigmas[0] * noise(x)
    for sigma, following in pairwise(sigmas):
        clean = denoised(denoiser, x_t, sigma)
        share = (following / sigma) ** 2
        x_t = clean + share * (x_t - clean)
        if following > 0:
            x_t = x_t + following * (1 - share) ** 0.5 * noise(x)
    return x_t


def octave_noise(shape: tuple[int, int, int], generator: torch.Generator) -> Float[Tensor, "channel height width"]:
    """Noise of several scales and unit variance: random lattices, interpolated smoothly, coarse ones the strongest.

    It stands in for simplex noise, whose octaves have these periods and amplitudes on another lattice.
    """
    channels, height, width = shape
    total = torch.zeros(shape)
    for octave in range(OCTAVES):
        period = max(1, COARSEST // 2**octave)
        nodes = (channels, height // period + 2, width // period + 2)
        lattice = torch.randn(nodes, generator=generator)
        fine = interpolate(lattice[None], scale_factor=period, mode="bicubic", align_corners=False)[0]
        top, left = (int(torch.randint(period, (), generator=generator)) for _ in range(2))
        total += PERSISTENCE**octave * fine[:, top : top + height, left : left + width]
    return (total - total.mean()) / total.std()


class AnoDDPM(PeerOnPrior):
    remark = (
        f"{STEPS} ancestral steps for {LAMBDA}; the map is smoothed, and an image's score is the mean of its highest "
        "0.5 %: the paper has neither"
    )

    def noise(self) -> Noise:
        return one_for_all(self.seed)

    def measure(self, x: Float[Tensor, "image channel side side"]) -> Measured:
        back = noised_and_denoised(self.denoiser, x, levels(), self.noise())
        maps = smoothed(((x - back) ** 2).mean(1).cpu().numpy())
        return Measured(top_mean(maps), maps)


class AnoDDPMOctaves(AnoDDPM):
    remark = f"{AnoDDPM.remark}; a prior trained with Gaussian noise, lattice noise in place of simplex noise"

    def noise(self) -> Noise:
        generator = torch.Generator().manual_seed(self.seed)

        def noise(x: Tensor) -> Tensor:
            channels, height, width = x.shape[1:]
            return octave_noise((channels, height, width), generator).to(x).expand_as(x)

        return noise
