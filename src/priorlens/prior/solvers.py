"""Integrating an ODE over noise levels, with equal steps in log(sigma); knows nothing of denoisers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Method = Literal["euler", "heun", "rk4", "dopri5"]
State = tuple[Tensor, ...]
Slope = Callable[[float, State], State]

# Where in a step each stage is evaluated, along the slope of the stage before it, and what its own slope weighs.
_STAGES: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "euler": ((0,), (1,)),
    "heun": ((0, 1), (1 / 2, 1 / 2)),
    "rk4": ((0, 1 / 2, 1 / 2, 1), (1 / 6, 1 / 3, 1 / 3, 1 / 6)),
}


@dataclass(frozen=True)
class Solver:
    """How an ODE is integrated.

    `euler`, `heun` and `rk4` (orders 1, 2 and 4) take `steps` steps of 1, 2 and 4 evaluations. `dopri5` is
    torchdiffeq's adaptive solver, the reference: it minds `rtol` and `atol` instead of `steps`, and chooses one step
    size for the whole batch, so that its result for an image depends, within those tolerances, on the images beside it.

    Raises:
        ValueError: an unknown method, or less than one step.
    """

    method: Method = "heun"
    steps: int = 16
    rtol: float = 1e-5
    atol: float = 1e-5

    def __post_init__(self) -> None:
        if self.method not in (*_STAGES, "dopri5"):
            raise ValueError(f"unknown solver {self.method!r}: choose euler, heun, rk4 or dopri5")
        if self.steps < 1:
            raise ValueError(f"a solver needs at least one step, not {self.steps}")

    def integrate(self, slope: Slope, state: State, sigma_from: float, sigma_to: float) -> State:
        """The state at sigma_to, up or down from sigma_from, where d state / d log(sigma) = slope(sigma, state)."""
        if self.method == "dopri5":
            return self._adaptive(slope, state, sigma_from, sigma_to)
        fractions, weights = _STAGES[self.method]
        for sigma, sigma_next in pairwise(sigma_grid(sigma_from, sigma_to, self.steps).tolist()):
            h = math.log(sigma_next / sigma)
            k = following = state  # the first stage's fraction is 0: whatever k is, it takes none of it
            for fraction, weight in zip(fractions, weights, strict=True):
                k = slope(sigma * math.exp(fraction * h), _moved(state, fraction * h, k))
                following = _moved(following, weight * h, k)
            state = following
        return state

    def _adaptive(self, slope: Slope, state: State, sigma_from: float, sigma_to: float) -> State:
        from torchdiffeq import odeint  # loads scipy's integrators, which the other methods do without

        def in_log_sigma(t: Tensor, state: State) -> State:
            return slope(math.exp(float(t)), state)

        ends = torch.tensor([math.log(sigma_from), math.log(sigma_to)], dtype=torch.float64, device=state[0].device)
        paths = odeint(in_log_sigma, state, ends, rtol=self.rtol, atol=self.atol, method="dopri5")
        return tuple(path[-1] for path in paths)


def sigma_grid(sigma_from: float, sigma_to: float, steps: int, rho: float = math.inf) -> Float[Tensor, " level"]:
    """The steps + 1 noise levels that bound equal steps in log(sigma), or in sigma^(1/rho) where rho is finite.

    EDM samples with rho = 7 (Karras et al. 2022, equation 5). Float64.

    Raises:
        ValueError: a noise level that is not positive.
    """
    if min(sigma_from, sigma_to) <= 0:
        raise ValueError(f"noise levels must be positive, not {sigma_from} and {sigma_to}")
    share = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    if math.isinf(rho):
        grid = sigma_from * (sigma_to / sigma_from) ** share
    else:
        grid = (sigma_from ** (1 / rho) * (1 - share) + sigma_to ** (1 / rho) * share) ** rho
    grid[0], grid[-1] = sigma_from, sigma_to
    return grid


def _moved(state: State, length: float, slope: State) -> State:
    return tuple(y + length * k for y, k in zip(state, slope, strict=True))
