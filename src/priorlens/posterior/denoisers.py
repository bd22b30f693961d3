"""Posterior denoisers: E[x | x_t, y] for a measurement y = A x + sigma_y n, each a denoiser that wraps a denoiser.

All have one form, the prior's answer D = E[x | x_t] moved by what the measurement says of it:

    E[x | x_t, y] = D + gain (y - A D)

They differ in the gain, that is in what they take the spread of x given x_t to be. Where that spread is white with
variance r^2 the gain is A_adjoint (A A_adjoint + sigma_y^2 / r^2 I)^-1, the operator's `pull`. White data of standard
deviation `sigma_data` have exactly this spread, with r^2 = sigma^2 sigma_data^2 / (sigma^2 + sigma_data^2).

`y` has the batch of x_t, or one that divides it: where several draws are stacked, draws first, y is repeated.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from priorlens.measurement.operator import Operator
from priorlens.prior.denoiser import Denoiser, over_space
from priorlens.prior.oracles import GaussianDenoiser

POSTERIORS = ("ddnm", "pigdm", "diffpir", "dps", "dps-plain")
"""What `posterior` can be asked for."""


@dataclass(frozen=True)
class Means:
    """What is expected of x before and after the measurement: E[x | x_t] and E[x | x_t, y]."""

    prior: Float[Tensor, "batch channel *space"]
    posterior: Float[Tensor, "batch channel *space"]

    @property
    def drift(self) -> Float[Tensor, "batch channel *space"]:
        """Where the measurement pulls: sigma^2 times the gradient of log p(y | x_t). Signed."""
        return self.posterior - self.prior


class PosteriorDenoiser(ABC):
    """A denoiser that knows a measurement. Both means come from one evaluation of the prior.

    denoiser: the prior's.
    """

    denoiser: Denoiser

    @property
    def calls(self) -> int:
        """What an evaluation costs, in network evaluations; a vector-Jacobian product counts as one more."""
        return 1

    @abstractmethod
    def means(self, x_t: Float[Tensor, "batch channel *space"], sigma: Float[Tensor, " batch"]) -> Means: ...

    def __call__(
        self, x_t: Float[Tensor, "batch channel *space"], sigma: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch channel *space"]:
        return self.means(x_t, sigma).posterior


def posterior(
    name: str,
    denoiser: Denoiser,
    operator: Operator,
    y: Float[Tensor, "measured *measurement"],
    *,
    sigma_y: float,
    sigma_data: float,
) -> PosteriorDenoiser:
    """The posterior denoiser of this name.

    sigma_y: standard deviation of y's noise. At 0 the pulls have no ridge, which an ill-conditioned operator, such as
        tomography, does not bear: give its own accuracy instead.
    sigma_data: standard deviation of clean images about their mean; infinite where nothing is known.

    Raises:
        ValueError: an unknown name.
    """
    match name:
        case "ddnm":
            return RangeNullSpace(denoiser, operator, y, sigma_y)
        case "pigdm":
            return PseudoInverseGuidance(denoiser, operator, y, sigma_y, sigma_data)
        case "diffpir":
            return ProximalStep(denoiser, operator, y, sigma_y, sigma_data)
        case "dps" | "dps-plain":
            backpropagate = name == "dps"
            return DiffusionPosteriorSampling(denoiser, operator, y, sigma_y, sigma_data, backpropagate=backpropagate)
    raise ValueError(f"unknown posterior {name!r}: choose {', '.join(POSTERIORS)}")


@dataclass(frozen=True, eq=False)
class GaussianPosterior(PosteriorDenoiser):
    """Exact for x ~ N(mean, C) and any matrix A, the oracle: D + S A^T (A S A^T + sigma_y^2 I)^-1 (y - A D).

    S = C sigma^2 (C + sigma^2 I)^-1 is the covariance of x given x_t. `matrix` maps an image's elements, channel first,
    to the measurement's. Computes in the precision of the prior's parameters.
    """

    denoiser: GaussianDenoiser
    matrix: Float[Tensor, "measurement size"]
    y: Float[Tensor, "measured measurement"]
    sigma_y: float

    def means(self, x_t: Float[Tensor, "batch channel *space"], sigma: Float[Tensor, " batch"]) -> Means:
        prior = self.denoiser(x_t, sigma)
        residual = _repeated(self.y, len(x_t)) - prior.flatten(1) @ self.matrix.T
        drift = _by_level(residual, sigma, lambda rows, level: rows @ self._gain(level).T)
        return Means(prior, prior + drift.reshape(prior.shape))

    def _gain(self, sigma: float) -> Float[Tensor, "size measurement"]:
        variances, axes = self.denoiser.variances, self.denoiser.axes
        spread = (axes * (variances * sigma**2 / (variances + sigma**2))) @ axes.T
        cross = spread @ self.matrix.T
        noise = self.sigma_y**2 * torch.eye(len(self.matrix), dtype=cross.dtype, device=cross.device)
        return torch.linalg.solve(self.matrix @ cross + noise, cross, left=False)


@dataclass(frozen=True, eq=False)
class RangeNullSpace(PosteriorDenoiser):
    """DDNM: D keeps what A cannot see, y gives the rest. D + A_dagger (y - A D).

    Source: Wang et al. 2023, "Zero-shot image restoration using denoising diffusion null-space model".
    Where y is noisy, each singular value s of A_dagger's part is weighed by 1 / (1 + sigma_y^2 / (s sigma)^2), the pull
    with ridge sigma_y^2 / sigma^2. It is a smooth form of the weights of DDNM+ (there min(1, s sigma / sigma_y), up to
    the sampler's coefficients): y is believed where the diffusion's noise hides more than its own. The same as
    `ProximalStep` with sigma_data infinite; exact for flat priors and, without noise, for white Gaussian data.
    """

    denoiser: Denoiser
    operator: Operator
    y: Float[Tensor, "measured *measurement"]
    sigma_y: float

    def means(self, x_t: Float[Tensor, "batch channel *space"], sigma: Float[Tensor, " batch"]) -> Means:
        prior = self.denoiser(x_t, sigma)
        return Means(prior, prior + _pulled(self.operator, self.y, prior, sigma, self.sigma_y, math.inf))


@dataclass(frozen=True, eq=False)
class ProximalStep(PosteriorDenoiser):
    """DiffPIR: argmin over x of |x - D|^2 / (2 r^2) + |A x - y|^2 / (2 sigma_y^2) = D + pull(y - A D, sigma_y^2 / r^2).

    Source: Zhu et al. 2023, "Denoising diffusion models for plug-and-play image restoration". There r = sigma, up to a
    factor lambda; here it is the spread of white data (see above), which makes it exact for them. No backpropagation.
    """

    denoiser: Denoiser
    operator: Operator
    y: Float[Tensor, "measured *measurement"]
    sigma_y: float
    sigma_data: float

    def means(self, x_t: Float[Tensor, "batch channel *space"], sigma: Float[Tensor, " batch"]) -> Means:
        prior = self.denoiser(x_t, sigma)
        return Means(prior, prior + _pulled(self.operator, self.y, prior, sigma, self.sigma_y, self.sigma_data))


@dataclass(frozen=True, eq=False)
class PseudoInverseGuidance(PosteriorDenoiser):
    """PiGDM: D + sigma^2 J^T A^T (r^2 A A^T + sigma_y^2 I)^-1 (y - A D), J the denoiser's Jacobian, by autograd.

    Source: Song et al. 2023, "Pseudoinverse-guided diffusion models for inverse problems". For white Gaussian data J is
    r^2 / sigma^2, and this is exact and the same as `ProximalStep`. Where data vary more than that, as the smooth parts
    of images do, it goes too far: at high noise by up to variance / sigma_data^2 along each axis.
    """

    denoiser: Denoiser
    operator: Operator
    y: Float[Tensor, "measured *measurement"]
    sigma_y: float
    sigma_data: float

    @property
    def calls(self) -> int:
        return 2

    def means(self, x_t: Float[Tensor, "batch channel *space"], sigma: Float[Tensor, " batch"]) -> Means:
        prior, transposed = _linearised(self.denoiser, x_t, sigma)
        level = over_space(sigma, x_t)
        pulled = transposed(_pulled(self.operator, self.y, prior, sigma, self.sigma_y, self.sigma_data))
        return Means(prior, prior + level**2 / _spread(level, self.sigma_data) * pulled)


@dataclass(frozen=True, eq=False)
class DiffusionPosteriorSampling(PosteriorDenoiser):
    """DPS: a step down the gradient of |y - A D|^2 / 2, D + zeta sigma^2 / (r^2 + sigma_y^2) J^T A_adjoint (y - A D).

    Source: Chung et al. 2023, "Diffusion posterior sampling for general noisy inverse problems". Its step size,
    zeta' / |y - A D| at each step of the sampler, depends on how many steps there are and makes the change as long for
    a healthy image as for any other; that rule is kept in `reference`. Here zeta = 1 is the longest step that never
    overshoots for white data: r^2 + sigma_y^2 is the largest eigenvalue of r^2 A A_adjoint + sigma_y^2 I where A's
    spectral norm is 1. It is exact for white Gaussian data if A A_adjoint = I.

    backpropagate: through the network, for J; else J is taken to be what it is for white data, r^2 / sigma^2.
    """

    denoiser: Denoiser
    operator: Operator
    y: Float[Tensor, "measured *measurement"]
    sigma_y: float
    sigma_data: float
    zeta: float = 1.0
    backpropagate: bool = True

    @property
    def calls(self) -> int:
        return 2 if self.backpropagate else 1

    def means(self, x_t: Float[Tensor, "batch channel *space"], sigma: Float[Tensor, " batch"]) -> Means:
        level = over_space(sigma, x_t)
        spread = _spread(level, self.sigma_data)
        if self.backpropagate:
            prior, transposed = _linearised(self.denoiser, x_t, sigma)
            gradient = level**2 * transposed(self._towards(prior))
        else:
            prior = self.denoiser(x_t, sigma)
            gradient = spread * self._towards(prior)
        return Means(prior, prior + self.zeta * gradient / (spread + self.sigma_y**2))

    def _towards(self, prior: Float[Tensor, "batch channel *space"]) -> Float[Tensor, "batch channel *space"]:
        residual = _repeated(self.y, len(prior)) - self.operator.A(prior)
        return self.operator.A_adjoint(residual).to(prior.dtype)


Level = TypeVar("Level", float, Tensor)


def _spread(sigma: Level, sigma_data: float) -> Level:
    """Variance r^2 of white data given x_t; sigma^2 where sigma_data is infinite."""
    return sigma**2 / (1 + (sigma / sigma_data) ** 2)


def _pulled(
    operator: Operator,
    y: Float[Tensor, "measured *measurement"],
    prior: Float[Tensor, "batch channel *space"],
    sigma: Float[Tensor, " batch"],
    sigma_y: float,
    sigma_data: float,
) -> Float[Tensor, "batch channel *space"]:
    """What y says about the prior's answer, if x spreads around it as white data do."""
    residual = _repeated(y, len(prior)) - operator.A(prior)

    def pull(rows: Tensor, level: float) -> Tensor:
        return operator.pull(rows, sigma_y**2 / _spread(level, sigma_data))

    return _by_level(residual, sigma, pull).to(prior.dtype)


def _repeated(y: Float[Tensor, "measured *measurement"], batch: int) -> Float[Tensor, "batch *measurement"]:
    draws, left = divmod(batch, len(y))
    if left:
        raise ValueError(f"{batch} states are not a number of draws for each of {len(y)} measurements")
    return y if draws == 1 else y.repeat(draws, *(1,) * (y.ndim - 1))


def _by_level(
    residual: Tensor, sigma: Float[Tensor, " batch"], gain: Callable[[Tensor, float], Tensor]
) -> Float[Tensor, "batch ..."]:
    """The gain of each row's own noise level; rows of one level, as a rule all, go through it together."""
    levels = sigma.unique().tolist()
    if len(levels) == 1:
        return gain(residual, levels[0])
    parts = {level: gain(residual[sigma == level], level) for level in levels}
    first = parts[levels[0]]
    moved = first.new_empty(len(residual), *first.shape[1:])
    for level, part in parts.items():
        moved[sigma == level] = part
    return moved


def _linearised(
    denoiser: Denoiser, x_t: Float[Tensor, "batch channel *space"], sigma: Float[Tensor, " batch"]
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The denoiser's answer and its Jacobian's transpose, which can be applied once; also where gradients are off."""
    with torch.inference_mode(False), torch.enable_grad():
        x = x_t.detach().clone().requires_grad_()  # a clone: autograd refuses tensors made in inference mode
        denoised = denoiser(x, sigma.clone())

    def transposed(vector: Tensor) -> Tensor:
        with torch.inference_mode(False):
            (product,) = torch.autograd.grad(denoised, x, vector.clone())
        return product

    return denoised.detach(), transposed
