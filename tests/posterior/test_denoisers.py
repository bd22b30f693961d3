"""Posterior denoisers against the linear-Gaussian posterior in float64: exact where they claim it, else their bias."""

from __future__ import annotations

import math

import pytest
import torch
from known import OPERATORS, SHAPE, SIZE, Problem, normal
from torch import Tensor, nn

from priorlens.measurement.operator import Operator
from priorlens.posterior.denoisers import (
    POSTERIORS,
    DiffusionPosteriorSampling,
    PosteriorDenoiser,
    ProximalStep,
    RangeNullSpace,
    posterior,
)
from priorlens.posterior.divergence import divergence
from priorlens.prior.denoiser import Denoiser

SIGMA_DATA = 0.3
WHITE = SIGMA_DATA**2 * torch.eye(SIZE, dtype=torch.float64)
SIGMAS = torch.tensor([0.02, 0.3, 2.0], dtype=torch.float64)


def named(name: str, problem: Problem, sigma_data: float = SIGMA_DATA) -> PosteriorDenoiser:
    return posterior(name, problem.prior, problem.operator, problem.y, sigma_y=problem.sigma_y, sigma_data=sigma_data)


def at_levels(problem: Problem, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A state of each of the problem's images at each of SIGMAS, and their noise levels."""
    sigma = SIGMAS.repeat_interleave(len(problem.y))
    return problem.mean + (0.3 + sigma[:, None, None, None]) * normal(len(sigma), *SHAPE, seed=seed), sigma


@pytest.mark.parametrize("operator", OPERATORS)
def test_the_oracle_is_the_posterior_of_x_given_both(operator):
    """By another way: the prior N(m, S) of x given y, seen through x_t = x + sigma eps."""
    problem = Problem.of(operator, 0.1)
    x_t, sigma = at_levels(problem)
    m, eye = problem.m.repeat(len(SIGMAS), 1), torch.eye(SIZE, dtype=torch.float64)
    after = problem.S @ torch.linalg.inv(problem.S + sigma[:, None, None] ** 2 * eye)
    expected = m + (after @ (x_t.flatten(1) - m)[:, :, None])[:, :, 0]
    torch.testing.assert_close(problem.oracle()(x_t, sigma).flatten(1), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["pigdm", "diffpir"])
@pytest.mark.parametrize("operator", OPERATORS)
def test_exact_for_white_data(name, operator):
    problem = Problem.of(operator, 0.1, WHITE)
    x_t, sigma = at_levels(problem)
    torch.testing.assert_close(named(name, problem)(x_t, sigma), problem.oracle()(x_t, sigma), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["dps", "dps-plain"])
@pytest.mark.parametrize("operator", ["identity", "average"])
def test_dps_is_exact_for_white_data_where_rows_are_orthonormal(name, operator):
    problem = Problem.of(operator, 0.1, WHITE)
    gram = problem.A @ problem.A.T
    torch.testing.assert_close(gram, torch.eye(len(gram)).to(gram))
    x_t, sigma = at_levels(problem)
    torch.testing.assert_close(named(name, problem)(x_t, sigma), problem.oracle()(x_t, sigma), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("operator", OPERATORS)
def test_ddnm_is_exact_for_flat_priors_and_without_noise_for_white_data(operator):
    flat = Problem.of(operator, 0.1, 1e10 * torch.eye(SIZE, dtype=torch.float64))
    x_t, sigma = at_levels(flat)
    torch.testing.assert_close(named("ddnm", flat)(x_t, sigma), flat.oracle()(x_t, sigma), rtol=1e-6, atol=1e-6)
    white = Problem.of(operator, 1e-6, WHITE)
    x_t, sigma = at_levels(white)
    noiseless = RangeNullSpace(white.prior, white.operator, white.y, 0.0)(x_t, sigma)
    torch.testing.assert_close(noiseless, white.oracle()(x_t, sigma), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(noiseless.flatten(1) @ white.A.T, white.y.repeat(len(SIGMAS), 1))


BIAS = {
    ("identity", "ddnm"): 0.41,
    ("identity", "pigdm"): 0.82,
    ("identity", "diffpir"): 0.23,
    ("identity", "dps"): 0.82,
    ("identity", "dps-plain"): 0.23,
    ("blur", "ddnm"): 0.90,
    ("blur", "pigdm"): 1.31,
    ("blur", "diffpir"): 0.14,
    ("blur", "dps"): 0.78,
    ("blur", "dps-plain"): -0.31,
    ("rows", "ddnm"): 0.13,
    ("rows", "pigdm"): 0.17,
    ("rows", "diffpir"): -0.12,
    ("rows", "dps"): -0.33,
    ("rows", "dps-plain"): -0.45,
}
"""Measured: how much more than the true divergence each finds, on data whose neighbours tell of each other."""


@pytest.mark.parametrize(("operator", "name"), BIAS)
def test_bias_on_correlated_data(operator, name):
    """Exact states, sigma_y = 0.1, noise from 0.01 to 10: only the posterior denoiser differs from the truth."""
    problem = Problem.of(operator, 0.1)
    prior, sigmas = problem.prior, torch.logspace(-2, 1, 13, dtype=torch.float64).tolist()

    def total(made: PosteriorDenoiser) -> float:
        return float(divergence(prior, made, problem.states, sigmas, draws=problem.DRAWS).total.sum())

    found = posterior(name, prior, problem.operator, problem.y, sigma_y=0.1, sigma_data=SIGMA_DATA)
    bias = total(found) / total(problem.oracle(prior)) - 1
    assert bias == pytest.approx(BIAS[operator, name], abs=0.01)


# --- the contract of all of them


def every(problem: Problem, denoiser: Denoiser | None = None) -> dict[str, PosteriorDenoiser]:
    arguments = denoiser or problem.prior, problem.operator, problem.y
    found = {name: posterior(name, *arguments, sigma_y=0.1, sigma_data=SIGMA_DATA) for name in POSTERIORS}
    return found if denoiser else {"gaussian": problem.oracle(), **found}


@pytest.mark.parametrize("name", ["gaussian", *POSTERIORS])
def test_denoisers_that_wrap_a_denoiser(name):
    problem = Problem.of("rows", 0.1)
    found = every(problem)[name]
    assert isinstance(problem.operator, Operator) and isinstance(found, Denoiser)
    x_t, sigma = at_levels(problem)
    means = found.means(x_t, sigma)
    torch.testing.assert_close(means.prior, problem.prior(x_t, sigma), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(means.posterior, found(x_t, sigma), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(means.drift, means.posterior - means.prior)
    for i, (state, level) in enumerate(zip(x_t, sigma, strict=True)):  # alone, and at its own noise level
        alone = every(Problem(problem.A, 0.1, problem.C, problem.mean, problem.y[i % 2 :][:1]))[name]
        torch.testing.assert_close(alone(state[None], level[None])[0], means.posterior[i], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["gaussian", *POSTERIORS])
def test_y_is_repeated_for_draws_and_shared_by_all_if_one(name):
    problem = Problem.of("rows", 0.1)
    one = Problem(problem.A, 0.1, problem.C, problem.mean, problem.y[:1])
    many = Problem(problem.A, 0.1, problem.C, problem.mean, problem.y[:1].repeat(4, 1))
    x_t, sigma = normal(4, *SHAPE, seed=8), torch.full((4,), 0.5, dtype=torch.float64)
    torch.testing.assert_close(every(one)[name](x_t, sigma), every(many)[name](x_t, sigma))
    with pytest.raises(ValueError, match="3 states are not a number of draws for each of 2"):
        every(problem)[name](x_t[:3], sigma[:3])


@pytest.mark.parametrize("name", POSTERIORS)
def test_calls_are_what_it_costs(name):
    """Forward passes, and one more where a gradient goes back."""
    problem, forward, backward = Problem.of("blur", 0.1), [], []

    class Watched(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            return x.clone()

        @staticmethod
        def backward(context, gradient):
            backward.append(1)
            return gradient

    def counted(x_t: Tensor, sigma: Tensor) -> Tensor:
        forward.append(1)
        return problem.prior(Watched.apply(x_t), sigma)

    found = every(problem, counted)[name]
    found(*at_levels(problem))
    assert len(forward) == 1 and found.calls == 1 + len(backward)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(SHAPE[0], SHAPE[0], 3, padding=1)

    def forward(self, x_t: Tensor, sigma: Tensor) -> Tensor:
        return torch.tanh(self.conv(x_t)) / (1 + sigma[:, None, None, None])


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", ["pigdm", "dps"])
def test_gradients_are_not_needed_outside_and_weights_gather_none(name, mode):
    problem, network = Problem.of("blur", 0.1), Network().double()
    x_t, sigma = at_levels(problem)
    expected = every(problem, network)[name](x_t, sigma)
    with mode():
        found = every(problem, network)[name](x_t.clone(), sigma.clone())
    torch.testing.assert_close(found, expected)
    assert not found.requires_grad
    assert all(weight.grad is None for weight in network.parameters())


def test_float32_stays_float32():
    problem, network = Problem.of("blur", 0.1), Network()
    narrow = Problem(problem.A.float(), 0.1, problem.C, problem.mean, problem.y.float())
    x_t, sigma = at_levels(problem)
    for found in every(narrow, network).values():
        assert found(x_t.float(), sigma.float()).dtype == torch.float32


def test_a_smaller_step_of_dps_is_a_smaller_drift():
    problem = Problem.of("blur", 0.1)
    full, half = (
        DiffusionPosteriorSampling(problem.prior, problem.operator, problem.y, 0.1, SIGMA_DATA, zeta=zeta)
        for zeta in (1.0, 0.5)
    )
    x_t, sigma = at_levels(problem)
    torch.testing.assert_close(half.means(x_t, sigma).drift, full.means(x_t, sigma).drift / 2)


def test_no_spread_is_no_drift_and_no_noise_is_agreement():
    problem = Problem.of("average", 0.1)
    x_t, sigma = at_levels(problem)
    certain = ProximalStep(problem.prior, problem.operator, problem.y, 0.1, 1e-9)
    assert certain.means(x_t, sigma).drift.abs().max() < 1e-9
    noiseless = ProximalStep(problem.prior, problem.operator, problem.y, 0.0, math.inf)(x_t, sigma)
    torch.testing.assert_close(problem.operator.A(noiseless), problem.y.repeat(3, 1))


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="unknown posterior 'magic': choose ddnm, pigdm"):
        named("magic", Problem.of("identity", 0.1))
