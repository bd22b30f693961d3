"""The published recipe against two steps computed by hand, in plain numbers."""

from __future__ import annotations

import math

import pytest
import torch
from known import MatrixOperator, Problem, seeded
from torch import Tensor

from priorlens.posterior.reference import reference, respaced

SHAPE = (1, 1, 2)


def shrinking(x_t: Tensor, sigma: Tensor) -> Tensor:
    """The denoiser of white data of standard deviation 1/2 about 1/2."""
    return 0.5 + (x_t - 0.5) / (1 + 4 * sigma[:, None, None, None] ** 2)


def by_hand(y: float, noise: list[list[float]]) -> tuple[list[float], list[float], list[float]]:
    """One sample of a two-pixel image seen by A = (0.6, 0.8), in floats: each pixel's u_0 and change^2 / beta."""
    abar = [1.0, 1 - 1e-4]
    for t in range(1, 1000):
        abar.append(abar[-1] * (1 - (1e-4 + (0.02 - 1e-4) * t / 999)))
    a_clean, a_noisy = abar[1], abar[1000]
    u, terms = noise[0], []
    for a, before in ((a_noisy, a_clean), (a_clean, 1.0)):
        beta = 1 - a / before
        sigma = 0.5 * math.sqrt((1 - a) / a)  # of the image in [0, 1], half of that in [-1, 1]
        x_t = [(value / math.sqrt(a) + 1) / 2 for value in u]
        d = [0.5 + (value - 0.5) / (1 + 4 * sigma**2) for value in x_t]
        residual = y - 0.6 * d[0] - 0.8 * d[1]
        change = [2.0 * 0.6 * residual / abs(residual), 2.0 * 0.8 * residual / abs(residual)]
        mean = [
            math.sqrt(before) * beta / (1 - a) * (2 * d[i] - 1) + math.sqrt(1 - beta) * (1 - before) / (1 - a) * u[i]
            for i in range(2)
        ]
        std = math.sqrt(beta * (1 - before) / (1 - a))  # 0 at the last step
        u = [mean[i] + std * noise[1][i] + change[i] for i in range(2)]
        terms.append([change[i] ** 2 / beta for i in range(2)])
    return u, terms[0], terms[1]


def test_two_steps_by_hand():
    y = torch.tensor([[1.7], [-0.4]], dtype=torch.float64)
    operator = MatrixOperator(torch.tensor([[0.6, 0.8]], dtype=torch.float64), SHAPE)
    noise = [torch.randn(3, 1, *SHAPE, generator=g) for g in [seeded(0)] for _ in range(2)]
    kwargs = {"steps": 2, "samples": 3, "zeta": 2.0, "block": 2}
    found = reference(shrinking, operator, y, **kwargs, generator=seeded(0))
    noisy = reference(shrinking, operator, y, **kwargs, window=(1, 2), generator=seeded(0))
    clean = reference(shrinking, operator, y, **kwargs, window=(0, 1), generator=seeded(0))
    for image in range(2):
        hands = [by_hand(float(y[image]), [n[sample].flatten().tolist() for n in noise]) for sample in range(3)]
        u, first, last = (torch.tensor(part).double().mean(0) for part in zip(*hands, strict=True))
        torch.testing.assert_close(found.reconstruction[image].flatten(), (u + 1) / 2)
        torch.testing.assert_close(noisy.kl_map[image].flatten(), first)
        torch.testing.assert_close(clean.kl_map[image].flatten(), last)
        torch.testing.assert_close(found.kl_map[image].flatten(), (first + last) / 2)
    torch.testing.assert_close(found.anomaly, found.kl_map.flatten(1).sum(1))
    assert found.nfe == 6


def test_the_schedule_is_ddpms():
    whole = respaced(1000)
    torch.testing.assert_close(whole.beta, torch.linspace(1e-4, 0.02, 1000).double(), rtol=1e-6, atol=0)
    few = respaced(100)
    torch.testing.assert_close(few.abar[[0, -1]], whole.abar[[0, -1]])
    torch.testing.assert_close((1 - few.beta).cumprod(0), few.abar)
    for steps in (0, 1001):
        with pytest.raises(ValueError, match=f"no {steps} of them"):
            respaced(steps)


def test_it_reconstructs_and_scores_the_largest_block():
    """100 steps of 8 samples on a correlated Gaussian: the measurement is met far better than by the mean."""
    problem = Problem.of("average", 0.05)
    arguments = problem.prior, problem.operator, problem.y
    found = reference(*arguments, zeta=0.1, block=2, generator=seeded(0))
    off = (problem.y - problem.operator.A(found.reconstruction)).norm()
    assert off < 0.3 * (problem.y - problem.operator.A(problem.mean[None])).norm()
    assert found.nfe == 800 and found.reconstruction.shape == (2, 2, 3, 3)
    assert found.kl_map.shape == (2, 3, 3) and (found.kl_map > 0).all()
    assert (found.anomaly < found.kl_map.flatten(1).sum(1)).all()
    assert (found.anomaly >= found.kl_map[:, :2, :2].flatten(1).sum(1)).all()
    again = reference(*arguments, zeta=0.1, block=2, generator=seeded(0))
    assert torch.equal(found.kl_map, again.kl_map)


def test_no_image_depends_on_those_beside_it():
    problem = Problem.of("rows", 0.1)
    both = reference(problem.prior, problem.operator, problem.y, steps=5, samples=2, generator=seeded(0))
    one = reference(problem.prior, problem.operator, problem.y[1:], steps=5, samples=2, generator=seeded(0))
    torch.testing.assert_close(both.kl_map[1:], one.kl_map)


def test_a_measurement_that_is_met_pulls_nowhere():
    operator = MatrixOperator(torch.zeros(1, 2).double(), SHAPE)
    found = reference(shrinking, operator, torch.zeros(1, 1).double(), steps=3, samples=1, generator=seeded(0))
    assert found.kl_map.tolist() == [[[0.0, 0.0]]]


def test_refuses_a_window_without_steps():
    problem = Problem.of("rows", 0.1)
    for window in ((3, 3), (-1, 2), (4, 6)):
        with pytest.raises(ValueError, match="no window from step"):
            reference(problem.prior, problem.operator, problem.y, steps=5, window=window, generator=seeded(0))
