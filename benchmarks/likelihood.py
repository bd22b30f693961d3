"""How close the two likelihoods come to the closed form on Gaussian data with an image-like spectrum, in bits/dim.

    python benchmarks/likelihood.py

Variances of 64 dimensions fall over two decades around a mean of 1, as those of whitened features do over space.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from priorlens.feature_prior import SIGMA_MAX, SIGMA_MIN
from priorlens.prior.ode import bits_per_dim, log_likelihood
from priorlens.prior.oracles import GaussianDenoiser
from priorlens.surprise import SIGMAS, surprise

SIDE, IMAGES = 8, 200


class NoVariance(nn.Module):
    """Stands in for a variance head: bits/dim does not ask it."""

    def forward(self, x_t: Tensor, denoised: Tensor, sigma: Tensor) -> Tensor:
        return torch.zeros_like(x_t)


def oracle(generator: torch.Generator) -> GaussianDenoiser:
    dims = SIDE * SIDE
    variances = torch.logspace(0.7, -1.3, dims, dtype=torch.float64)
    directions, _ = torch.linalg.qr(torch.randn(dims, dims, dtype=torch.float64, generator=generator))
    covariance = directions @ torch.diag(variances / variances.mean()) @ directions.T
    return GaussianDenoiser(torch.zeros(1, SIDE, SIDE, dtype=torch.float64), covariance)


def row(what: str, nfe: int, found: Tensor, truth: Tensor) -> str:
    correlation = torch.corrcoef(torch.stack([found, truth]))[0, 1]
    error = found - truth
    return f"| {what} | {nfe} | {error.mean():+.3f} | {error.std():.3f} | {correlation:.3f} |"


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    denoiser = oracle(generator)
    x = denoiser.sample(IMAGES, generator)
    dims = SIDE * SIDE
    clean = bits_per_dim(denoiser.log_prob(x, 0.0), dims)
    smoothed = bits_per_dim(denoiser.log_prob(x, SIGMA_MIN), dims)
    print(f"bits/dim of {IMAGES} images spread by {clean.std():.3f} (standard deviation)\n")
    print("| estimate | nfe | mean error | spread of error | correlation |\n| --- | --- | --- | --- | --- |")
    for steps in (4, 8, 16, 64):
        probe = torch.Generator().manual_seed(1)
        found = log_likelihood(
            denoiser, x, sigma_min=SIGMA_MIN, sigma_max=SIGMA_MAX, steps=steps, probes=1, generator=probe
        )
        bits = bits_per_dim(found.log_prob, dims)
        print(row(f"ODE, Heun, {steps} steps, 1 probe", found.nfe + found.vjps, bits, smoothed))
    fine = [0.02 * 2 ** (k / 4) for k in range(45)]
    for name, sigmas, draws in (("default levels", SIGMAS, 2), ("default levels", SIGMAS, 16), ("45 levels", fine, 64)):
        found_bits = surprise(denoiser, NoVariance(), x, sigmas=sigmas, draws=draws).bits_per_dim
        print(row(f"integral, {name}, {draws} draws", len(sigmas) * draws, found_bits, clean))


if __name__ == "__main__":
    main()
