"""Priors known in closed form, against which everything that claims a density or a denoiser is tested.

Both are denoisers like any other, differentiable, and compute in the precision of their parameters (use float64).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


class GaussianDenoiser:
    """Posterior mean under x ~ N(mean, C): E[x | x_t] = mean + C (C + sigma^2 I)^-1 (x_t - mean).

    `covariance` is over the flattened channels and positions, channel first, as `mean.flatten()` orders them. Its
    eigenvectors are found once, so that any noise level costs two products.

    Raises:
        ValueError: the covariance is of another size, not symmetric or not positive semi-definite.
    """

    def __init__(self, mean: Float[Tensor, " channel *space"], covariance: Float[Tensor, "size size"]) -> None:
        if len(covariance) != mean.numel():
            raise ValueError(f"covariance is {len(covariance)} wide for a mean of {mean.numel()} elements")
        if not torch.allclose(covariance, covariance.T):
            raise ValueError("covariance is not symmetric")
        variances, axes = torch.linalg.eigh(covariance)
        if variances[0] < -1e-6 * variances[-1].abs():
            raise ValueError("covariance is not positive semi-definite")
        self.mean = mean
        self.variances = variances.clamp(min=0)
        self.axes = axes

    def __call__(
        self, x_t: Float[Tensor, "batch channel *space"], sigma: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch channel *space"]:
        shrunk = self._coordinates(x_t) * self._shrinkage(sigma)
        return (self.mean + (shrunk @ self.axes.T).unflatten(1, self.mean.shape)).to(x_t.dtype)

    def log_prob(
        self, x_t: Float[Tensor, "batch channel *space"], sigma: Float[Tensor, " batch"] | float = 0.0
    ) -> Float[Tensor, " batch"]:
        """Log density of images noised by sigma, N(x_t; mean, C + sigma^2 I), in nats."""
        variances = (
            self.variances
            + torch.as_tensor(sigma, dtype=self.variances.dtype, device=self.variances.device).reshape(-1, 1) ** 2
        )
        squares = self._coordinates(x_t) ** 2 / variances
        return -0.5 * (squares + variances.log() + math.log(2 * math.pi)).sum(1)

    def posterior_variance(self, sigma: Float[Tensor, " batch"]) -> Float[Tensor, "batch channel *space"]:
        """Variance of each element of x given x_t: sigma^2 times the diagonal of the denoiser's Jacobian.

        It does not depend on x_t. Source: second-order Tweedie, Cov[x | x_t] = sigma^2 dE[x | x_t]/dx_t.
        """
        spread = sigma.to(self.variances)[:, None] ** 2 * self._shrinkage(sigma)
        return (spread @ self.axes.T**2).unflatten(1, self.mean.shape)

    def sample(self, count: int, generator: torch.Generator) -> Float[Tensor, "batch channel *space"]:
        """Clean images drawn from N(mean, C)."""
        eps = torch.randn(count, len(self.variances), dtype=self.variances.dtype, generator=generator)
        return self.mean + ((eps * self.variances.sqrt()) @ self.axes.T).unflatten(1, self.mean.shape)

    def _coordinates(self, x_t: Float[Tensor, "batch channel *space"]) -> Float[Tensor, "batch size"]:
        return (x_t.to(self.mean.dtype) - self.mean).flatten(1) @ self.axes

    def _shrinkage(self, sigma: Float[Tensor, " batch"]) -> Float[Tensor, "batch size"]:
        return self.variances / (self.variances + sigma.to(self.variances)[:, None] ** 2)


class MixtureDenoiser:
    """Posterior mean under a mixture of Gaussians: the components' posterior means, by responsibility for x_t.

    p(x_t) = sum_k w_k N(x_t; mean_k, C_k + sigma^2 I) and E[x | x_t] = sum_k r_k(x_t) E_k[x | x_t], where r_k is the
    probability that x_t came from component k. Weights are normalised to sum to one.

    Raises:
        ValueError: a negative weight, or a covariance that `GaussianDenoiser` refuses.
    """

    def __init__(
        self,
        weights: Float[Tensor, " component"],
        means: Float[Tensor, "component channel *space"],
        covariances: Float[Tensor, "component size size"],
    ) -> None:
        if (weights < 0).any():
            raise ValueError("a mixture's weights cannot be negative")
        self.weights = weights / weights.sum()
        self.components = [GaussianDenoiser(*component) for component in zip(means, covariances, strict=True)]

    def __call__(
        self, x_t: Float[Tensor, "batch channel *space"], sigma: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch channel *space"]:
        means = [component(x_t, sigma) for component in self.components]
        return self._mixed(means, x_t, sigma).to(x_t.dtype)

    def log_prob(
        self, x_t: Float[Tensor, "batch channel *space"], sigma: Float[Tensor, " batch"] | float = 0.0
    ) -> Float[Tensor, " batch"]:
        """Log density of images noised by sigma, in nats."""
        return self._joint(x_t, sigma).logsumexp(1)

    def posterior_variance(
        self, x_t: Float[Tensor, "batch channel *space"], sigma: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch channel *space"]:
        """Variance of each element of x given x_t: within the components plus between their means."""
        mean = self(x_t, sigma)
        spreads = [
            component.posterior_variance(sigma) + (component(x_t, sigma) - mean) ** 2 for component in self.components
        ]
        return self._mixed(spreads, x_t, sigma)

    def sample(self, count: int, generator: torch.Generator) -> Float[Tensor, "batch channel *space"]:
        """Clean images drawn from the mixture."""
        chosen = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        draws = torch.stack([component.sample(count, generator) for component in self.components])
        return draws[chosen, torch.arange(count)]

    def _joint(
        self, x_t: Float[Tensor, "batch channel *space"], sigma: Float[Tensor, " batch"] | float
    ) -> Float[Tensor, "batch component"]:
        """log w_k + log p_k(x_t): of its components, the density that k is true and x_t is seen."""
        return self.weights.log() + torch.stack([c.log_prob(x_t, sigma) for c in self.components], 1)

    def _mixed(
        self, values: Sequence[Tensor], x_t: Float[Tensor, "batch channel *space"], sigma: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch channel *space"]:
        responsibility = self._joint(x_t, sigma).softmax(1)
        return torch.einsum("bk,kb...->b...", responsibility, torch.stack(list(values)).to(responsibility))
