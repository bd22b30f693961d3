"""The KL divergence between posterior and prior, for each place and noise level, in bits: what the measurement adds.

    KL(p(x | y) || p(x)) = E integral |E[x | x_sigma, y] - E[x | x_sigma]|^2 / sigma^2 d log(sigma),

the mean over x_sigma ~ p(x_sigma | y). By Girsanov's theorem the energy of the drift that a measurement adds to the
reverse diffusion is the divergence of the two paths; as both start from the same noise, over all noise levels it is
that of their ends. Restricted to a block of pixels and a window of noise levels it says where, and in structures of
what size, the measurement contradicts the prior.

Source: Kheirandish, Hong & Fridovich-Keil, CVPR 2026, "KLIP", arXiv 2605.31596; the quadrature is ours. If y is the
whole clean image it is the negative log-likelihood, up to a constant (I-MMSE, see `surprise`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from priorlens.posterior.denoisers import Means, PosteriorDenoiser
from priorlens.posterior.sampling import States, Visited
from priorlens.prior.denoiser import Denoiser


def quadrature(sigmas: Sequence[float]) -> Float[Tensor, " sigma"]:
    """Weights of the trapezoidal rule over log(sigma), in float64; one level alone weighs 1.

    What lies beyond the first and last level is taken to be zero.

    Raises:
        ValueError: noise levels that do not rise, or are not positive.
    """
    if not sigmas or min(sigmas) <= 0 or any(lower >= upper for lower, upper in pairwise(sigmas)):
        raise ValueError(f"the quadrature needs rising, positive noise levels, not {list(sigmas)}")
    if len(sigmas) == 1:
        return torch.ones(1, dtype=torch.float64)
    gaps = torch.tensor(sigmas, dtype=torch.float64).log().diff() / 2
    return torch.cat([gaps, gaps.new_zeros(1)]) + torch.cat([gaps.new_zeros(1), gaps])


@dataclass(frozen=True)
class Divergence:
    """The divergence of posterior from prior, by place and noise level.

    sigmas: rising noise levels, and `weights` of each in the integral over log(sigma).
    energy: E |E[x | x_t, y] - E[x | x_t]|^2 / sigma^2 summed over channels: nats per unit of log(sigma).
    draws: states at each level, over which the mean is taken.
    nfe: network evaluations for one image, all draws and levels together; a window keeps those of the whole.
    """

    sigmas: tuple[float, ...]
    weights: Float[Tensor, " sigma"]
    energy: Float[Tensor, "batch sigma *space"]
    draws: int
    nfe: int

    @property
    def kl_map(self) -> Float[Tensor, "batch *space"]:
        """Bits of each pixel; they sum to `total`."""
        return torch.einsum("bs...,s->b...", self.energy, self.weights.to(self.energy)) / math.log(2)

    @property
    def total(self) -> Float[Tensor, " batch"]:
        """Bits of the whole image."""
        return self.spectrum.sum(1)

    @property
    def spectrum(self) -> Float[Tensor, "batch sigma"]:
        """Bits of each noise level; they sum to `total`."""
        nats = self.energy.reshape(*self.energy.shape[:2], -1).sum(2)
        return nats * self.weights.to(self.energy) / math.log(2)

    def window(self, low: float, high: float) -> Divergence:
        """That of the levels with low <= sigma < high, each with its weight: windows that share out the levels sum up.

        Raises:
            ValueError: a window without a level.
        """
        inside = [low <= sigma < high for sigma in self.sigmas]
        if not any(inside):
            raise ValueError(f"no noise level between {low} and {high}: there are {list(self.sigmas)}")
        sigmas = tuple(sigma for sigma, kept in zip(self.sigmas, inside, strict=True) if kept)
        kept = torch.tensor(inside, device=self.energy.device)
        return replace(self, sigmas=sigmas, weights=self.weights[kept.cpu()], energy=self.energy[:, kept])

    def blocks(self, size: int) -> Float[Tensor, "batch *blocks"]:
        """Bits of each block; they sum to `total`."""
        return block_sums(self.kl_map, size)

    def largest_block(self, size: int) -> Float[Tensor, " batch"]:
        """Bits of the block that has most of them, the image's score as published."""
        return self.blocks(size).flatten(1).amax(1)


def block_sums(values: Float[Tensor, "batch *space"], size: int) -> Float[Tensor, "batch *blocks"]:
    """Sums over blocks that share out the map, `size` positions a side; those at its far border may be smaller.

    Raises:
        ValueError: a block without positions.
    """
    if size < 1:
        raise ValueError(f"a block needs at least one position a side, not {size}")
    padding = [(0, -length % size) for length in reversed(values.shape[1:])]
    values = torch.nn.functional.pad(values, [edge for axis in padding for edge in axis])
    for axis in range(1, values.ndim):
        values = values.unflatten(axis, (-1, size)).sum(axis + 1)
    return values


@torch.no_grad()
def divergence(
    denoiser: Denoiser, posterior: Denoiser, states: States, sigmas: Sequence[float], *, draws: int = 1
) -> Divergence:
    """By quadrature over rising noise levels, at states that are given for each.

    posterior: any denoiser. One that wraps this prior (`PosteriorDenoiser`) gives both means from one evaluation.
    states: draws of x_sigma, ideally from p(x_sigma | y), stacked draws first.

    Raises:
        ValueError: noise levels that `quadrature` refuses; states that are not so many draws.
    """
    quadrature(sigmas)  # refuses levels out of order, before anything is computed
    shared = isinstance(posterior, PosteriorDenoiser) and posterior.denoiser is denoiser
    calls = getattr(posterior, "calls", 1) + (0 if shared else 1)

    def visits() -> Iterator[Visited]:
        for count, level in enumerate(map(float, sigmas), start=1):
            x_t = states(level)
            sigma = x_t.new_full((len(x_t),), level)
            if isinstance(posterior, PosteriorDenoiser) and shared:
                means = posterior.means(x_t, sigma)
            else:
                means = Means(denoiser(x_t, sigma), posterior(x_t, sigma))
            yield Visited(level, x_t, means, count * calls * draws)

    return divergence_along(visits(), draws=draws)


@torch.no_grad()
def divergence_along(path: Iterable[Visited], *, draws: int = 1) -> Divergence:
    """The same at states that were visited anyway, as those of `posterior_path`: it costs no evaluation more."""
    energies, nfe = {}, 0
    for visited in path:
        energies[visited.sigma] = _energy(visited, draws)
        nfe = visited.nfe
    sigmas = tuple(sorted(energies))
    weights = quadrature(sigmas)
    return Divergence(sigmas, weights, torch.stack([energies[sigma] for sigma in sigmas], 1), draws, nfe)


def _energy(visited: Visited, draws: int) -> Float[Tensor, "batch *space"]:
    if len(visited.x_t) % draws:
        raise ValueError(f"{len(visited.x_t)} states are not {draws} draws of a number of images")
    energy = visited.means.drift.square().sum(1) / visited.sigma**2
    return energy.unflatten(0, (draws, -1)).mean(0)
