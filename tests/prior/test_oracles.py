"""The oracles against definitions that share no code with them."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from priorlens.prior.denoiser import score
from priorlens.prior.oracles import GaussianDenoiser, MixtureDenoiser

SHAPE = (2, 3, 2)
SIZE = math.prod(SHAPE)


def covariance(seed: int, size: int = SIZE) -> torch.Tensor:
    factor = torch.randn(size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return factor @ factor.T / size + 0.05 * torch.eye(size, dtype=torch.float64)


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def gaussian() -> GaussianDenoiser:
    return GaussianDenoiser(normal(*SHAPE, seed=1), covariance(2))


def mixture() -> MixtureDenoiser:
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    return MixtureDenoiser(
        weights, 2 * normal(3, *SHAPE, seed=3), torch.stack([covariance(seed) for seed in (4, 5, 6)])
    )


ORACLES = [pytest.param(gaussian, id="gaussian"), pytest.param(mixture, id="mixture")]
X_T = 1.5 * normal(5, *SHAPE, seed=7)
SIGMA = torch.tensor([0.01, 0.3, 1.0, 3.0, 50.0], dtype=torch.float64)


def jacobian_diagonal(denoiser, x_t: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    jacobian = torch.autograd.functional.jacobian(lambda x: denoiser(x, sigma).sum(0), x_t)
    return torch.stack([torch.diagonal(jacobian[..., i, :, :, :].reshape(SIZE, SIZE)) for i in range(len(x_t))])


def test_gaussian_denoiser_is_the_linear_posterior_mean():
    mean, cov = normal(*SHAPE, seed=1), covariance(2)
    for x, sigma, denoised in zip(X_T, SIGMA, gaussian()(X_T, SIGMA), strict=True):
        gain = torch.linalg.solve(cov + sigma**2 * torch.eye(SIZE, dtype=torch.float64), (x - mean).flatten())
        torch.testing.assert_close(denoised, mean + (cov @ gain).reshape(SHAPE), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("sigma", [0.0, 0.4, 5.0])
def test_gaussian_log_prob_is_torchs(sigma):
    cov = covariance(2) + sigma**2 * torch.eye(SIZE, dtype=torch.float64)
    expected = MultivariateNormal(normal(*SHAPE, seed=1).flatten(), cov).log_prob(X_T.flatten(1))
    torch.testing.assert_close(gaussian().log_prob(X_T, sigma), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("oracle", ORACLES)
def test_score_is_the_gradient_of_the_log_density(oracle):
    x_t = X_T.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(oracle().log_prob(x_t, SIGMA).sum(), x_t)
    torch.testing.assert_close(score(oracle(), X_T, SIGMA), gradient, rtol=1e-8, atol=1e-8)


def test_gaussian_posterior_variance_is_tweedies():
    expected = SIGMA[:, None] ** 2 * jacobian_diagonal(gaussian(), X_T, SIGMA)
    torch.testing.assert_close(gaussian().posterior_variance(SIGMA).flatten(1), expected, rtol=1e-9, atol=1e-12)


def test_mixture_posterior_variance_is_tweedies():
    expected = SIGMA[:, None] ** 2 * jacobian_diagonal(mixture(), X_T, SIGMA)
    torch.testing.assert_close(mixture().posterior_variance(X_T, SIGMA).flatten(1), expected, rtol=1e-7, atol=1e-10)


def test_mixture_of_one_is_the_gaussian():
    alone = MixtureDenoiser(torch.ones(1).double(), normal(1, *SHAPE, seed=1), covariance(2)[None])
    torch.testing.assert_close(alone(X_T, SIGMA), gaussian()(X_T, SIGMA))
    torch.testing.assert_close(alone.log_prob(X_T, SIGMA), gaussian().log_prob(X_T, SIGMA))


def test_mixture_moments_agree_with_quadrature():
    """In one dimension Bayes' rule can be summed on a grid: posterior mean and variance, evidence."""
    weights, means = torch.tensor([1.0, 3.0]).double(), torch.tensor([-1.0, 2.0]).double()
    variances = torch.tensor([0.25, 1.0]).double()
    oracle = MixtureDenoiser(weights, means[:, None], variances[:, None, None])
    x_t, sigma = torch.tensor([[-2.0], [0.3], [1.0]]).double(), torch.tensor([0.5, 1.0, 2.0]).double()

    x = torch.linspace(-15, 15, 60001, dtype=torch.float64)
    prior = sum(
        w / 4 * (-0.5 * (x - m) ** 2 / v).exp() / (2 * math.pi * v).sqrt()
        for w, m, v in zip(weights, means, variances, strict=True)
    )
    noise = (-0.5 * ((x_t - x) / sigma[:, None]) ** 2).exp() / (math.sqrt(2 * math.pi) * sigma[:, None])
    joint = prior * noise * (x[1] - x[0])
    evidence = joint.sum(1)
    mean = (joint * x).sum(1) / evidence
    variance = (joint * (x - mean[:, None]) ** 2).sum(1) / evidence

    torch.testing.assert_close(oracle.log_prob(x_t, sigma), evidence.log(), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(oracle(x_t, sigma)[:, 0], mean, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(oracle.posterior_variance(x_t, sigma)[:, 0], variance, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("oracle", ORACLES)
def test_denoising_is_the_best_estimate_of_its_own_samples(oracle):
    """Over draws of x and x_t the error is uncorrelated with the estimate, E[(x - D) D] = 0, to 4 standard errors."""
    generator = torch.Generator().manual_seed(0)
    x = oracle().sample(4000, generator)
    sigma = torch.full((4000,), 0.8, dtype=torch.float64)
    denoised = oracle()(x + 0.8 * torch.randn(x.shape, dtype=x.dtype, generator=generator), sigma)
    product = ((x - denoised) * denoised).flatten(1)
    assert (product.mean(0).abs() < 4 * product.std(0) / math.sqrt(4000)).all()


@pytest.mark.parametrize("oracle", ORACLES)
def test_answers_in_the_images_precision(oracle):
    denoised = oracle()(X_T.float(), SIGMA.float())
    assert denoised.dtype == torch.float32
    torch.testing.assert_close(denoised.double(), oracle()(X_T, SIGMA), rtol=1e-4, atol=1e-4)


def test_refuses_what_is_no_covariance():
    mean = torch.zeros(2, 2)
    with pytest.raises(ValueError, match="4 elements"):
        GaussianDenoiser(mean, torch.eye(3))
    with pytest.raises(ValueError, match="symmetric"):
        GaussianDenoiser(mean, torch.eye(4) + torch.ones(4, 4).triu(1))
    with pytest.raises(ValueError, match="semi-definite"):
        GaussianDenoiser(mean, torch.diag(torch.tensor([1.0, 1.0, 1.0, -0.5])))
    with pytest.raises(ValueError, match="negative"):
        MixtureDenoiser(torch.tensor([1.0, -0.1]), torch.zeros(2, 1), torch.ones(2, 1, 1))


def test_a_covariance_may_be_singular():
    flat = GaussianDenoiser(torch.zeros(2).double(), torch.ones(2, 2).double())
    denoised = flat(torch.tensor([[1.0, -1.0]]).double(), torch.ones(1).double())
    torch.testing.assert_close(denoised, torch.zeros(1, 2).double(), rtol=0, atol=1e-12)
