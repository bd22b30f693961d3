"""The solvers on an ODE with a known answer."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from priorlens.prior.solvers import Solver, sigma_grid


def tilted(sigma, state):
    """dy/dt = -y sin(t), t = log(sigma): y = y_0 exp(cos t - cos t_0)."""
    return (-state[0] * math.sin(math.log(sigma)),)


def error(solver: Solver, sigma_from: float, sigma_to: float) -> float:
    (y,) = solver.integrate(tilted, (torch.ones(1, dtype=torch.float64),), sigma_from, sigma_to)
    return abs(y.item() - math.exp(math.cos(math.log(sigma_to)) - math.cos(math.log(sigma_from))))


@pytest.mark.parametrize("ends", [(0.05, 8.0), (8.0, 0.05)], ids=["up", "down"])
@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("heun", 2), ("rk4", 4)])
def test_convergence_order(method, order, ends):
    coarse, fine = (error(Solver(method, steps), *ends) for steps in (200, 400))
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize("ends", [(0.05, 8.0), (8.0, 0.05)], ids=["up", "down"])
def test_dopri5_keeps_its_tolerance(ends):
    assert error(Solver("dopri5", rtol=1e-9, atol=1e-9), *ends) < 1e-7


def test_every_part_of_the_state_moves():
    def slope(sigma, state):
        return torch.ones_like(state[0]), state[0]

    for method in ("heun", "rk4", "dopri5"):
        start = (torch.zeros(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64))
        t, half_square = Solver(method, 3).integrate(slope, start, 1.0, math.e)
        torch.testing.assert_close(t, torch.ones(2, dtype=torch.float64), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(half_square, torch.full((2,), 0.5, dtype=torch.float64), rtol=1e-9, atol=1e-9)


def test_sigma_grid_with_rho_7_is_edms():
    steps = torch.arange(19, dtype=torch.float64)
    edm = (80 ** (1 / 7) + steps / 18 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    torch.testing.assert_close(sigma_grid(80.0, 0.002, 18, rho=7.0), edm)


@given(st.floats(1e-4, 1e3), st.floats(1e-4, 1e3), st.integers(1, 50))
def test_sigma_grid_is_geometric_and_keeps_its_ends(sigma_from, sigma_to, steps):
    grid = sigma_grid(sigma_from, sigma_to, steps)
    assert len(grid) == steps + 1
    assert (grid[0], grid[-1]) == (sigma_from, sigma_to)
    lengths = grid.log().diff()
    torch.testing.assert_close(
        lengths, torch.full_like(lengths, math.log(sigma_to / sigma_from) / steps), atol=1e-9, rtol=1e-9
    )


def test_refuses_what_it_cannot_solve():
    with pytest.raises(Exception, match="midpoint"):  # by beartype here, by a ValueError where shapes go unchecked
        Solver("midpoint")
    with pytest.raises(ValueError, match="one step"):
        Solver("heun", 0)
    with pytest.raises(ValueError, match="positive"):
        sigma_grid(0.0, 1.0, 4)
