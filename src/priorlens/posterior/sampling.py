"""Where the states x_sigma come from, at which prior and posterior are compared.

`posterior_path` goes the whole way: reverse diffusion with a posterior denoiser, from pure noise. `early_start` goes a
few steps only, to an image from which the levels of a window can be reached by adding noise (`noised`). All images of
a batch meet the same noise, so that none's figures depend on those beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from priorlens.measurement.operator import Operator
from priorlens.posterior.denoisers import Means, PosteriorDenoiser
from priorlens.prior.denoiser import Denoiser

Step = Literal["ancestral", "euler", "heun"]
States = Callable[[float], Tensor]
"""Draws of x_sigma for a noise level, stacked draws first: [draws * batch, channel, *space]."""


@dataclass(frozen=True)
class Visited:
    """A state at one noise level, and what prior and posterior expect there.

    nfe: network evaluations for one image, all its draws together, up to and with this state.
    """

    sigma: float
    x_t: Float[Tensor, "states channel *space"]
    means: Means
    nfe: int


@torch.no_grad()
def posterior_path(
    posterior: PosteriorDenoiser,
    start: Float[Tensor, "batch channel *space"],
    sigmas: Sequence[float],
    generator: torch.Generator,
    *,
    draws: int = 1,
    step: Step = "ancestral",
) -> Iterator[Visited]:
    """States x_sigma ~ p(x_sigma | y) at falling noise levels; the last one's posterior mean is the reconstruction.

    start: what the noise of the first level is added to. Where that level is far above the data's own spread, a flat
        grey will do; the result of `early_start` allows to start lower. The ODE never forgets how many standard
        deviations the start is off the posterior's mean; ancestral steps do.
    step: from sigma to the next level s, with D the posterior mean,
        ancestral: x_s = D + s^2 / sigma^2 (x - D) + s sqrt(1 - s^2 / sigma^2) eps  (Ho et al. 2020, equation 7);
        euler, heun: the ODE dx/dsigma = (x - D) / sigma, with order 1 or 2  (Karras et al. 2022, algorithm 1).
        Heun's evaluates twice on the way to each level but the first.

    Raises:
        ValueError: noise levels that do not fall, or are not positive; an unknown step.
    """
    if not sigmas or min(sigmas) <= 0 or any(lower >= upper for upper, lower in pairwise(sigmas)):
        raise ValueError(f"a path needs falling, positive noise levels, not {list(sigmas)}")
    if step not in ("ancestral", "euler", "heun"):
        raise ValueError(f"unknown step {step!r}: choose ancestral, euler or heun")
    nfe = 0

    def expected(x_t: Tensor, sigma: float) -> Means:
        nonlocal nfe
        nfe += draws * posterior.calls
        return posterior.means(x_t, x_t.new_full((len(x_t),), sigma))

    x_t = noised(start, draws, generator)(float(sigmas[0]))
    for sigma, following in pairwise([*map(float, sigmas), 0.0]):
        means = expected(x_t, sigma)
        yield Visited(sigma, x_t, means, nfe)
        ratio = following / sigma
        if not following:
            return
        if step == "ancestral":
            kept = means.posterior + ratio**2 * (x_t - means.posterior)
            x_t = kept + following * (1 - ratio**2) ** 0.5 * _shared_noise(start, draws, generator)
        else:
            slope = (x_t - means.posterior) / sigma
            ahead = x_t + (following - sigma) * slope
            if step == "heun":
                slope = (slope + (ahead - expected(ahead, following).posterior) / following) / 2
            x_t = x_t + (following - sigma) * slope


@dataclass(frozen=True)
class EarlyStart:
    """An image that agrees with both prior and measurement, and what it cost."""

    image: Float[Tensor, "batch channel *space"]
    nfe: int


@torch.no_grad()
def early_start(
    denoiser: Denoiser,
    operator: Operator,
    y: Float[Tensor, "batch *measurement"],
    *,
    sigmas: Sequence[float],
    ridge: float,
    generator: torch.Generator,
) -> EarlyStart:
    """From the pseudo-inverse of y, by one denoiser call at each of a few falling noise levels.

    base = pull(y, ridge), then for each sigma: d = denoiser(base + sigma eps), base = d + pull(y - A d, ridge).

    The noise hides the pseudo-inverse's artefacts, the denoiser puts in their place what healthy images have there, and
    the pull takes back what contradicts y. Our own shortening of the way from pure noise: levels of a window below the
    last sigma are then reached by adding noise, and only they are computed.
    """
    image = operator.pull(y, ridge)
    for sigma in sigmas:
        x_t = image + sigma * _shared_noise(image, 1, generator)
        denoised = denoiser(x_t, x_t.new_full((len(x_t),), float(sigma)))
        image = denoised + operator.pull(y - operator.A(denoised), ridge)
    return EarlyStart(image, len(sigmas))


def noised(image: Float[Tensor, "batch channel *space"], draws: int, generator: torch.Generator) -> States:
    """States about an image that is taken to be clean: image + sigma eps, new noise at every call."""

    def states(sigma: float) -> Tensor:
        return image.repeat(draws, *(1,) * (image.ndim - 1)) + sigma * _shared_noise(image, draws, generator)

    return states


def _shared_noise(
    image: Float[Tensor, "batch channel *space"], draws: int, generator: torch.Generator
) -> Float[Tensor, "states channel *space"]:
    """One noise for each draw, the same for all images of the batch, in their precision and place."""
    noise = torch.randn(draws, 1, *image.shape[1:], generator=generator, device=generator.device)
    return noise.to(image).expand(draws, *image.shape).flatten(0, 1)
