"""States of the reverse diffusion against the linear-Gaussian posterior in float64."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from known import SHAPE, SIZE, Problem, normal, seeded
from torch import Tensor

from priorlens.posterior.divergence import divergence_along
from priorlens.posterior.sampling import Visited, early_start, noised, posterior_path
from priorlens.prior.solvers import sigma_grid


def falling(steps: int, low: float = 0.01, high: float = 30.0) -> list[float]:
    return sigma_grid(high, low, steps, rho=7.0).tolist()


def path(problem: Problem, sigmas: list[float], step: str, draws: int = 1, seed: int = 0) -> list[Visited]:
    start = problem.mean.expand(len(problem.y), *SHAPE)
    return list(posterior_path(problem.oracle(), start, sigmas, seeded(seed), draws=draws, step=step))


@pytest.mark.parametrize(("step", "order"), [("euler", 1), ("heun", 2)])
def test_the_ode_is_solved_at_its_order(step, order):
    """(S + sigma^2 I)^(-1/2) (x_sigma - m) does not change along the exact path; x(sigma) of it is known."""
    problem = Problem.of("blur", 0.1)
    variances, axes = torch.linalg.eigh(problem.S)
    low, high = 0.05, 5.0
    grown = (axes * ((variances + low**2) / (variances + high**2)).sqrt()) @ axes.T
    errors = []
    for steps in (20, 40, 80):
        visited = path(problem, sigma_grid(high, low, steps, rho=7.0).tolist(), step)
        first, last = visited[0].x_t.flatten(1), visited[-1].x_t.flatten(1)
        errors.append(float((last - problem.m - (first - problem.m) @ grown.T).abs().max()))
    for coarse, fine in pairwise(errors):
        assert coarse / fine == pytest.approx(2**order, rel=0.2)


def test_ancestral_states_are_distributed_as_the_posterior():
    """5,000 draws down 100 levels, halfway, near the end and at it: the mean within 5 % of the widest deviation and the
    covariance within 10 % of the widest variance. Measured with 20,000 draws: 3 and 4 %."""
    problem = Problem.of("average", 0.1)
    problem = Problem(problem.A, 0.1, problem.C, problem.mean, problem.y[:1])
    visited = path(problem, falling(100), "ancestral", draws=5_000)
    for state in (visited[50], visited[80], visited[-1]):
        x = state.x_t.flatten(1)
        expected = problem.S + state.sigma**2 * torch.eye(SIZE).double()
        widest = torch.linalg.eigvalsh(expected)[-1]
        assert (x.mean(0) - problem.m[0]).abs().max() < 0.05 * widest.sqrt()
        assert (x.T.cov() - expected).abs().max() < 0.1 * widest


@pytest.mark.parametrize(("step", "steps"), [("ancestral", 150), ("heun", 60)])
def test_the_path_gives_divergence_and_reconstruction(step, steps):
    """500 draws: total within 4 %, and the mean of the last posterior means near the posterior's. Ancestral steps find
    too little, in proportion to their length: 3.5 % with 60 of them from 30 down, 1 % with 240."""
    problem = Problem.of("blur", 0.1)
    visited = path(problem, falling(steps, 0.003, 100.0), step, draws=500)
    measured = divergence_along(visited, draws=500)
    torch.testing.assert_close(measured.total, problem.kl_bits(), rtol=0.04, atol=0)
    assert measured.sigmas == tuple(sorted(measured.sigmas))
    reconstruction = visited[-1].means.posterior.unflatten(0, (500, -1)).mean(0)
    assert (reconstruction.flatten(1) - problem.m).abs().max() < 0.05
    assert measured.nfe == visited[-1].nfe == 500 * (151 if step == "ancestral" else 121)


@pytest.mark.parametrize("step", ["ancestral", "euler", "heun"])
def test_every_evaluation_is_counted(step):
    problem = Problem.of("rows", 0.1)
    prior, calls = problem.prior, []

    class Counted(type(prior)):
        def __call__(self, x_t: Tensor, sigma: Tensor) -> Tensor:
            calls.append(len(x_t))
            return super().__call__(x_t, sigma)

    counted = problem.oracle(Counted(problem.mean, problem.C))
    start = problem.mean.expand(2, *SHAPE)
    for visited in posterior_path(counted, start, falling(5), seeded(0), draws=3, step=step):
        assert visited.nfe == sum(calls) / 2
        assert visited.x_t.shape == (6, *SHAPE)
    assert len(calls) == (11 if step == "heun" else 6)


def test_no_image_depends_on_those_beside_it():
    problem = Problem.of("rows", 0.1)
    alone = Problem(problem.A, 0.1, problem.C, problem.mean, problem.y[1:])
    both, one = (path(p, falling(6), "ancestral", draws=3)[-1] for p in (problem, alone))
    torch.testing.assert_close(both.x_t.unflatten(0, (3, 2))[:, 1], one.x_t)
    assert torch.equal(one.x_t, path(alone, falling(6), "ancestral", draws=3)[-1].x_t)
    assert not torch.allclose(one.x_t, path(alone, falling(6), "ancestral", draws=3, seed=1)[-1].x_t)


def test_an_early_start_of_everything_measured_is_the_measurement():
    problem = Problem.of("identity", 0.1)
    start = early_start(problem.prior, problem.operator, problem.y, sigmas=(1.0, 0.3), ridge=0.0, generator=seeded(0))
    torch.testing.assert_close(start.image.flatten(1), problem.y)
    assert start.nfe == 2


def test_an_early_start_is_the_rule_step_by_step():
    problem, generator = Problem.of("rows", 0.1), seeded(4)
    start = early_start(problem.prior, problem.operator, problem.y, sigmas=(0.5,), ridge=0.02, generator=seeded(4))
    gain = torch.linalg.solve(problem.A @ problem.A.T + 0.02 * torch.eye(len(problem.A)).double(), problem.A).T
    image = problem.y @ gain.T
    x_t = image.unflatten(1, SHAPE) + 0.5 * torch.randn(1, 1, *SHAPE, generator=generator)[0].double()
    d = problem.prior(x_t, torch.full((2,), 0.5).double()).flatten(1)
    torch.testing.assert_close(start.image.flatten(1), d + (problem.y - d @ problem.A.T) @ gain.T)


def test_an_early_start_is_nearer_than_the_pseudo_inverse():
    """Distance to the posterior mean, root mean square over 20 images: less than half after three calls."""
    problem = Problem.of("rows", 0.02, images=20)
    ridge = 1e-3
    base = problem.operator.pull(problem.y, ridge).flatten(1)
    start = early_start(
        problem.prior, problem.operator, problem.y, sigmas=(0.5, 0.2, 0.1), ridge=ridge, generator=seeded(0)
    )
    before, after = ((image.flatten(1) - problem.m).square().mean().sqrt() for image in (base, start.image))
    assert after < before / 2


def test_noised_states_are_draws_first_with_new_noise_at_each_call():
    image = normal(2, *SHAPE, seed=0)
    states = noised(image, 3, seeded(1))
    eps = (states(0.5).unflatten(0, (3, 2)) - image) / 0.5
    torch.testing.assert_close(eps[:, 0], eps[:, 1])
    assert eps[:, 0].std() == pytest.approx(1, abs=0.3)
    assert not torch.allclose((states(0.5).unflatten(0, (3, 2)) - image) / 0.5, eps)
    assert states(0.5).dtype == torch.float64


@pytest.mark.parametrize("sigmas", [[], [1.0, 1.0], [0.1, 1.0], [1.0, 0.0]])
def test_refuses_levels_that_do_not_fall(sigmas):
    with pytest.raises(ValueError, match="falling, positive"):
        path(Problem.of("rows", 0.1), sigmas, "heun")


def test_refuses_an_unknown_step():
    with pytest.raises((TypeError, ValueError), match="leap"):  # a TypeError where types are checked, as in tests
        path(Problem.of("rows", 0.1), [1.0], "leap")
