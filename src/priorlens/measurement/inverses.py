"""What a residual says about the image, A_adjoint (A A_adjoint + ridge I)^-1: in closed form, factored or iterative."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from priorlens.measurement.linear import Matrix
from priorlens.measurement.operator import Linear, Normalised

LARGEST_GRAM = 11_000
"""Width of the largest matrix that is factored, half a gigabyte in float32; beyond it, conjugate gradients."""

LARGEST_INVERSE = 6_000
"""Up to this width the factor is found in float64 and its inverse is kept; beyond it, a factor in float32."""

FACTOR_BYTES = 3 * 2**30
"""Factors for several ridges are kept up to this much memory, and always the last one. KLIP goes round five ridges."""


class Decomposed(nn.Module):
    """A = U S V_adjoint from a `deepinv.physics.DecomposablePhysics`: pull = V S / (S^2 + ridge) U_adjoint.

    No iterations, and a ridge of 0 is the exact pseudo-inverse. Where `kept` marks the numbers of the physics' output
    that are measured (inpainting, undersampling), y holds those alone, in one row.
    """

    physics: Any
    kept: Tensor | None  # of the measurement's numbers, True where measured

    def __init__(
        self, physics: nn.Module, shape: tuple[int, ...], kept: Bool[Tensor, " *measurement"] | None = None
    ) -> None:
        super().__init__()
        self.physics = physics
        self.shape = shape
        self.norm = float(self.physics.mask.abs().max())
        if self.norm == 0:
            raise ValueError("a physics whose singular values are all zero measures nothing")
        self.register_buffer("kept", kept)

    def A(self, x: Float[Tensor, "batch channel *space"]) -> Float[Tensor, "batch *measurement"]:
        y = self.physics.A(x) / self.norm
        return y if self.kept is None else y[:, self.kept]

    def A_adjoint(self, y: Float[Tensor, "batch *measurement"]) -> Float[Tensor, "batch channel *space"]:
        return self.physics.A_adjoint(self._whole(y)) / self.norm

    def pull(
        self, residual: Float[Tensor, "batch *measurement"], ridge: float
    ) -> Float[Tensor, "batch channel *space"]:
        singular = self.physics.mask / self.norm
        squares = singular.abs() ** 2
        seen = squares > (100 * torch.finfo(squares.dtype).eps) ** 2  # a pseudo-inverse of less is rounding error
        weight = torch.where(seen, singular.conj() / (squares + ridge).where(seen, 1), 0)
        return self.physics.V(weight * self.physics.U_adjoint(self._whole(residual)))

    def _whole(self, y: Tensor) -> Tensor:
        if self.kept is None:
            return y
        whole = y.new_zeros(len(y), *self.kept.shape)
        whole[:, self.kept] = y
        return whole


class Factored(nn.Module):
    """A of any linear measurement; pull by a Cholesky factor of the Gram matrix on the smaller side, kept per ridge.

    On the side of the measurement it is A_adjoint (A A_adjoint + ridge I)^-1, on that of the pixels
    (A_adjoint A + ridge I)^-1 A_adjoint, the same. In float32 a ridge below 1e-5 counts as 1e-5, in float64 below 1e-12
    as 1e-12: what is weaker than that is not told from rounding. One step of refinement makes the product with an
    inverse as accurate as a solution with the factor, at a quarter of its time.
    """

    _gram: Tensor | None

    def __init__(self, linear: Linear, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.linear = linear
        self.shape, self.norm = linear.shape, linear.norm
        self.dtype = dtype
        self._forget()

    def A(self, x: Float[Tensor, "batch channel *space"]) -> Float[Tensor, "batch *measurement"]:
        return self.linear.A(x)

    def A_adjoint(self, y: Float[Tensor, "batch *measurement"]) -> Float[Tensor, "batch channel *space"]:
        return self.linear.A_adjoint(y)

    def pull(
        self, residual: Float[Tensor, "batch *measurement"], ridge: float
    ) -> Float[Tensor, "batch channel *space"]:
        ridge = max(ridge, 1e-12 if self.dtype == torch.float64 else 1e-5)
        if residual[0].numel() < math.prod(self.shape):
            return self.A_adjoint(self._solved(residual, ridge, of_pixels=False))
        return self._solved(self.A_adjoint(residual), ridge, of_pixels=True)

    def _solved(self, vectors: Tensor, ridge: float, of_pixels: bool) -> Tensor:
        """(Gram matrix + ridge I)^-1 applied to every vector of the batch."""
        factor = self._factor(ridge, vectors, of_pixels)
        columns = vectors.flatten(1).to(factor.dtype)
        if len(factor) > LARGEST_INVERSE:
            return torch.cholesky_solve(columns.t(), factor).t().to(vectors.dtype).reshape(vectors.shape)
        solved = (columns @ factor).to(vectors.dtype).reshape(vectors.shape)
        remains = vectors - ridge * solved - _gram_product(self.linear, solved, of_pixels)
        return solved + (remains.flatten(1).to(factor.dtype) @ factor).to(vectors.dtype).reshape(vectors.shape)

    @torch.no_grad()
    def _factor(self, ridge: float, like: Tensor, of_pixels: bool) -> Float[Tensor, "size size"]:
        """The inverse, or beyond `LARGEST_INVERSE` the lower Cholesky factor."""
        if ridge in self._factors:
            self._factors.move_to_end(ridge)
            return self._factors[ridge]
        if self._gram is None:
            self._gram = _gram(self.linear, like[:1].to(self.dtype), of_pixels)
        wide = len(self._gram) > LARGEST_INVERSE
        matrix = self._gram.clone()
        matrix.diagonal().add_(ridge)
        factor = torch.linalg.cholesky(matrix, out=matrix)  # in float64: in float32 rounding could exceed the ridge
        self._factors[ridge] = (factor if wide else torch.cholesky_inverse(factor)).to(self.dtype)
        while len(self._factors) > 1 and sum(map(_bytes, self._factors.values())) > FACTOR_BYTES:
            self._factors.popitem(last=False)
        return self._factors[ridge]

    def _apply(self, fn: Any, recurse: bool = True) -> Factored:
        """To another device or precision: the factors are found again there."""
        self._forget()
        self.dtype = fn(torch.empty(0, dtype=self.dtype)).dtype
        super()._apply(fn, recurse)
        return self

    def _forget(self) -> None:
        self._gram = None
        self._factors: OrderedDict[float, Tensor] = OrderedDict()


class Dense(Factored):
    """y = M x / norm for a matrix M, dense or sparse (CSR), over flattened images."""

    def __init__(
        self, matrix: Float[Tensor, "numbers pixels"], shape: tuple[int, ...], measured: tuple[int, ...] | None = None
    ) -> None:
        super().__init__(Matrix(matrix, shape, measured), matrix.dtype)


class Iterative(nn.Module):
    """A of any linear measurement; pull by conjugate gradients on (A_adjoint A + ridge I) x = A_adjoint residual.

    For what is too large to factor. Each image stops for itself, at a relative residual of `tolerance`, or after
    `iterations`; a small ridge needs many. (deepinv's own solver stops for a whole batch at once, so that an image's
    result would depend on those beside it.)
    """

    def __init__(self, linear: Linear, tolerance: float = 1e-4, iterations: int = 200) -> None:
        super().__init__()
        self.linear = linear
        self.shape, self.norm = linear.shape, linear.norm
        self.tolerance, self.iterations = tolerance, iterations

    def A(self, x: Float[Tensor, "batch channel *space"]) -> Float[Tensor, "batch *measurement"]:
        return self.linear.A(x)

    def A_adjoint(self, y: Float[Tensor, "batch *measurement"]) -> Float[Tensor, "batch channel *space"]:
        return self.linear.A_adjoint(y)

    def pull(
        self, residual: Float[Tensor, "batch *measurement"], ridge: float
    ) -> Float[Tensor, "batch channel *space"]:
        remains = self.A_adjoint(residual)
        x, direction = torch.zeros_like(remains), remains
        energy = _dot(remains, remains)
        enough = self.tolerance**2 * energy
        for _ in range(self.iterations):
            going = energy > enough
            if not going.any():
                break
            product = _gram_product(self.linear, direction, of_pixels=True) + ridge * direction
            step = torch.where(going, energy / _dot(direction, product).clamp(min=torch.finfo(x.dtype).tiny), 0)
            x = x + step * direction
            remains = remains - step * product
            before, energy = energy, torch.where(going, _dot(remains, remains), energy)
            direction = remains + energy / before.clamp(min=torch.finfo(x.dtype).tiny) * direction
        return x


def solved(linear: Linear, like: Tensor, largest: int | None = None) -> Normalised:
    """`Factored` up to a Gram matrix of `largest` width, else `Iterative`; `like` is of the type and device A takes."""
    with torch.no_grad():
        numbers = linear.A(torch.zeros(1, *linear.shape, dtype=like.dtype, device=like.device)).numel()
    if min(numbers, math.prod(linear.shape)) <= (largest or LARGEST_GRAM):
        return Factored(linear, like.dtype)
    return Iterative(linear)


def _gram_product(linear: Linear, vectors: Tensor, of_pixels: bool) -> Tensor:
    return linear.A_adjoint(linear.A(vectors)) if of_pixels else linear.A(linear.A_adjoint(vectors))


def _gram(linear: Linear, like: Float[Tensor, "1 *dims"], of_pixels: bool) -> Float[Tensor, "size size"]:
    """A_adjoint A or A A_adjoint in float64: from the matrix where there is one, else from unit vectors in batches."""
    if isinstance(linear, Matrix):
        return linear.gram(of_pixels)
    size = like.numel()
    columns = []
    for start in range(0, size, 256):
        units = like.new_zeros(min(256, size - start), size)
        units.diagonal(start).fill_(1)
        columns.append(_gram_product(linear, units.reshape(-1, *like.shape[1:]), of_pixels).flatten(1).double())
    gram = torch.cat(columns)
    return (gram + gram.t()) / 2


def _dot(one: Float[Tensor, "batch *dims"], other: Float[Tensor, "batch *dims"]) -> Float[Tensor, "batch *ones"]:
    """Inner product of each image with its own."""
    return (one * other).flatten(1).sum(1).reshape(-1, *(1,) * (one.ndim - 1))


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
