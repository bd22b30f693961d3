"""The divergence against closed forms in float64: of linear-Gaussian posteriors, and of the likelihood it becomes."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from known import OPERATORS, SHAPE, SIZE, MatrixOperator, Problem, normal, seeded
from torch import Tensor

from priorlens.posterior.denoisers import RangeNullSpace
from priorlens.posterior.divergence import Divergence, block_sums, divergence, quadrature
from priorlens.prior.oracles import GaussianDenoiser, MixtureDenoiser


def levels(low: float, high: float, count: int) -> list[float]:
    return torch.logspace(math.log10(low), math.log10(high), count, dtype=torch.float64).tolist()


ALL = levels(1e-3, 1e2, 16)
"""From far below the measurement's noise to far above the data's spread."""
FINE = torch.tensor(levels(1e-5, 1e4, 1200), dtype=torch.float64)


def found(problem: Problem, sigmas: list[float]) -> Divergence:
    prior = problem.prior
    return divergence(prior, problem.oracle(prior), problem.states, sigmas, draws=problem.DRAWS)


def off(measured: Tensor, truth: Tensor) -> float:
    return float((measured / truth - 1).abs().max())


# --- against the linear-Gaussian closed form


@pytest.mark.parametrize("sigma_y", [0.03, 0.3])
@pytest.mark.parametrize("operator", OPERATORS)
def test_total_and_blocks_are_the_closed_form(operator, sigma_y):
    """16 levels over five decades, within 0.1 % (measured: 0.04 %). States carry no Monte Carlo noise."""
    problem = Problem.of(operator, sigma_y)
    measured = found(problem, ALL)
    truth = problem.bits_map(FINE).sum(1)
    assert off(truth.flatten(1).sum(1), problem.kl_bits()) < 1e-6
    assert off(measured.total, problem.kl_bits()) < 1e-3
    assert off(measured.kl_map, truth) < 1e-3
    assert off(measured.blocks(2), block_sums(truth, 2)) < 1e-3


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_window_converges_at_order_two(operator):
    """Twice as many levels, a quarter of the error: for the whole and for each block. Measured: 3.9 to 4.1."""
    problem = Problem.of(operator, 0.1)
    truth = block_sums(problem.bits_map(torch.tensor(levels(0.1, 1.0, 1001), dtype=torch.float64)).sum(1), 2)
    errors = [(found(problem, levels(0.1, 1.0, count)).blocks(2) - truth).abs() for count in (9, 17, 33)]
    for coarse, fine in pairwise(errors):
        assert 3.7 < float(coarse.sum() / fine.sum()) < 4.3
    assert float((errors[-1] / truth).max()) < 2e-3


def test_over_all_levels_it_converges_faster_than_any_power():
    """The integrand is smooth and fades at both ends. Measured with 6, 8, 12 and 16 levels: 9, 2.1, .01 and .009 %."""
    problem = Problem.of("identity", 0.3)
    errors = [off(found(problem, levels(1e-3, 1e2, count)).total, problem.kl_bits()) for count in (6, 8, 12, 16)]
    assert errors[0] > 3 * errors[1]
    assert errors[1] > 50 * errors[2]
    assert errors[3] < 2e-4


def test_draws_of_the_posterior_are_within_two_per_cent():
    """As it is used, with Monte Carlo draws instead of exact points: 4096 of them at 13 levels. Measured: 0.1 %, blocks
    1.2 %."""
    problem = Problem.of("average", 0.1)
    prior, root, generator = problem.prior, torch.linalg.cholesky(problem.S), seeded(9)

    def states(sigma: float) -> Tensor:
        x, eps = torch.randn(2, 4096, 1, SIZE, dtype=torch.float64, generator=generator)
        return (problem.m + x @ root.T + sigma * eps).flatten(0, 1).unflatten(1, SHAPE)

    measured = divergence(prior, problem.oracle(prior), states, levels(0.1, 1.0, 13), draws=4096)
    truth = problem.bits_map(torch.tensor(levels(0.1, 1.0, 2001), dtype=torch.float64)).sum(1)
    assert off(measured.total, truth.flatten(1).sum(1)) < 0.02
    assert off(measured.blocks(2), block_sums(truth, 2)) < 0.02


def test_healthy_images_cost_less_than_others():
    healthy, other = (found(Problem.of("blur", 0.1, images=8, out=out), ALL).total for out in (1.0, 2.0))
    assert (other > healthy).all()


# --- the likelihood it becomes


def eps_points(size: int) -> Tensor:
    """2 size points of zero mean and unit covariance: exact for quadratics."""
    axes = torch.eye(size, dtype=torch.float64) * math.sqrt(size)
    return torch.cat([axes, -axes])


def likelihood_reading(
    prior: GaussianDenoiser | MixtureDenoiser, x: Tensor, eps: Tensor, sigmas: list[float]
) -> Tensor:
    """Bits of two images in excess of the first's, from their own clean selves as measurements."""
    operator = MatrixOperator(torch.eye(x[0].numel(), dtype=torch.float64), tuple(x.shape[1:]))
    known = RangeNullSpace(prior, operator, x.flatten(1), 0.0)

    def states(sigma: float) -> Tensor:
        return (x + sigma * eps.unflatten(1, x.shape[1:])[:, None]).flatten(0, 1)

    bits = divergence(prior, known, states, sigmas, draws=len(eps)).total
    return bits - bits[0]


def test_identity_is_the_likelihood_difference_under_a_gaussian():
    """y = x: the posterior denoiser is x itself, and two images' totals differ as their log densities do."""
    problem = Problem.of("identity", 0.1)
    x = problem.mean + torch.tensor([1.0, 3.0]).double()[:, None, None, None] * 0.2 * normal(2, *SHAPE, seed=5)
    surprise = -problem.prior.log_prob(x) / math.log(2)
    measured = likelihood_reading(problem.prior, x, eps_points(SIZE), levels(1e-3, 1e2, 24))
    assert float(surprise[1] - surprise[0]) > 50
    torch.testing.assert_close(measured, surprise - surprise[0], rtol=5e-4, atol=0)


def test_identity_is_the_likelihood_difference_under_a_mixture():
    """Two modes in one dimension, where 4000 equally likely eps leave next to no noise: within 0.5 % or .01 bits."""
    means = torch.tensor([0.2, 0.9], dtype=torch.float64).reshape(2, 1, 1)
    variances = torch.tensor([0.01, 0.003], dtype=torch.float64).reshape(2, 1, 1)
    prior = MixtureDenoiser(torch.tensor([0.7, 0.3]).double(), means, variances)
    x = torch.tensor([0.2, 0.55, 0.9, 1.3, -0.4], dtype=torch.float64).reshape(-1, 1, 1)
    eps = math.sqrt(2) * torch.erfinv(2 * (torch.arange(4000, dtype=torch.float64)[:, None] + 0.5) / 4000 - 1)
    surprise = -prior.log_prob(x) / math.log(2)
    measured = likelihood_reading(prior, x, eps, levels(1e-3, 1e2, 80))
    torch.testing.assert_close(measured, surprise - surprise[0], rtol=5e-3, atol=1e-2)


# --- parts and the whole


@pytest.fixture(scope="module")
def measured() -> Divergence:
    return found(Problem.of("blur", 0.1), ALL)


def test_total_is_the_sum_of_pixels_levels_blocks_and_windows(measured):
    for part in (measured.kl_map, measured.spectrum, measured.blocks(1), measured.blocks(2), measured.blocks(7)):
        torch.testing.assert_close(part.flatten(1).sum(1), measured.total, rtol=1e-12, atol=0)
    edges = (0.0, 0.05, 0.3, math.inf)
    windows = [measured.window(low, high) for low, high in pairwise(edges)]
    assert sum(len(window.sigmas) for window in windows) == len(ALL)
    torch.testing.assert_close(sum(window.total for window in windows), measured.total, rtol=1e-12, atol=0)
    torch.testing.assert_close(sum(window.blocks(2) for window in windows), measured.blocks(2), rtol=1e-12, atol=0)
    assert torch.equal(torch.cat([window.spectrum for window in windows], 1), measured.spectrum)


def test_blocks_share_out_the_map():
    values = torch.arange(15.0).reshape(1, 3, 5)
    assert block_sums(values, 2).tolist() == [[[0 + 1 + 5 + 6, 2 + 3 + 7 + 8, 4 + 9], [10 + 11, 12 + 13, 14]]]
    assert block_sums(torch.ones(2, 5), 2).tolist() == [[2, 2, 1]] * 2
    assert block_sums(torch.ones(1, 3, 2, 4), 2).tolist() == [[[[8, 8]], [[4, 4]]]]


def test_the_largest_block_is_the_score(measured):
    assert torch.equal(measured.largest_block(2), measured.blocks(2).flatten(1).max(1).values)
    torch.testing.assert_close(measured.largest_block(9), measured.total)


def test_weights_are_the_trapezoidal_rules():
    sigmas = [0.1, 0.2, 0.9, 1.0]
    values = torch.tensor(sigmas).double().log() ** 2
    expected = torch.trapezoid(values, torch.tensor(sigmas).double().log())
    torch.testing.assert_close((quadrature(sigmas) * values).sum(), expected)
    assert quadrature([0.5]).tolist() == [1.0]


def test_cost_is_shared_where_the_posterior_wraps_this_prior():
    problem = Problem.of("identity", 0.1)
    prior, calls = problem.prior, []

    def counted(x_t: Tensor, sigma: Tensor) -> Tensor:
        calls.append(len(x_t))
        return prior(x_t, sigma)

    wrapped = RangeNullSpace(counted, problem.operator, problem.y, 0.1)
    sigmas = [0.1, 0.5, 1.0]
    one = divergence(counted, wrapped, problem.states, sigmas, draws=problem.DRAWS)
    assert one.nfe == 3 * problem.DRAWS == sum(calls) / 2
    calls.clear()
    two = divergence(counted, lambda x_t, sigma: wrapped(x_t, sigma), problem.states, sigmas, draws=problem.DRAWS)
    assert two.nfe == 2 * one.nfe == sum(calls) / 2
    torch.testing.assert_close(two.energy, one.energy)


def test_refuses_what_has_no_meaning(measured):
    problem = Problem.of("identity", 0.1)
    for sigmas in ([], [0.0, 1.0], [0.2, 0.1], [0.1, 0.1]):
        with pytest.raises(ValueError, match="rising, positive"):
            quadrature(sigmas)
    with pytest.raises(ValueError, match="no noise level between 200"):
        measured.window(200.0, 300.0)
    with pytest.raises(ValueError, match="one position"):
        measured.blocks(0)
    with pytest.raises(ValueError, match="not 5 draws"):
        divergence(problem.prior, problem.oracle(), problem.states, [0.1], draws=5)
    with pytest.raises(ValueError, match="rising, positive"):
        divergence(problem.prior, problem.oracle(), problem.states, [0.2, 0.1], draws=problem.DRAWS)
