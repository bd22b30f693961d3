"""What measures an image: A, its adjoint, and what a residual of the measurement says about the image."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class Operator(Protocol):
    """A linear measurement y = A x + noise of real images, of spectral norm 1. `shape` is that of one image."""

    shape: tuple[int, ...]

    def A(self, x: Float[Tensor, "batch channel *space"]) -> Float[Tensor, "batch *measurement"]: ...

    def A_adjoint(self, y: Float[Tensor, "batch *measurement"]) -> Float[Tensor, "batch channel *space"]: ...

    def pull(
        self, residual: Float[Tensor, "batch *measurement"], ridge: float
    ) -> Float[Tensor, "batch channel *space"]:
        """A_adjoint (A A_adjoint + ridge I)^-1 residual: what a residual says about the image.

        It is the posterior mean's step for white data of variance v and noise sigma_y, with ridge = sigma_y^2 / v; the
        limit of a small ridge is the pseudo-inverse.
        """
        ...


@runtime_checkable
class Normalised(Operator, Protocol):
    """An operator that knows the spectral norm its physics had: what was measured in the physics' units is y * norm."""

    norm: float

    def to(self, device: torch.device) -> Any: ...


@runtime_checkable
class Linear(Protocol):
    """A and its adjoint alone: what `Factored` and `Iterative` make an operator of."""

    shape: tuple[int, ...]
    norm: float

    def A(self, x: Float[Tensor, "batch channel *space"]) -> Float[Tensor, "batch *measurement"]: ...

    def A_adjoint(self, y: Float[Tensor, "batch *measurement"]) -> Float[Tensor, "batch channel *space"]: ...
