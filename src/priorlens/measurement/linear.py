"""A and its adjoint, of norm 1: of a matrix, and of whatever deepinv simulates."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from priorlens.measurement.operator import Linear

_TOLERANCE = 1e-4
_SMALL = 32  # pixels, up to which all singular values are found


def spectral_norm(linear: Linear, like: Tensor) -> float:
    """Largest singular value, by Lanczos iterations, to about a ten-thousandth; `like` tells type and device.

    It is 0 or nan for an A of zeros or of numbers that are not finite.
    """
    from scipy.sparse.linalg import LinearOperator, eigsh

    size = math.prod(linear.shape)

    def squared(vector: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(vector).to(like.device, like.dtype).reshape(1, *linear.shape)
        with torch.no_grad():
            return linear.A_adjoint(linear.A(x)).flatten().double().cpu().numpy()

    start = np.random.default_rng(0).standard_normal(size)
    first = float(np.linalg.norm(squared(start)))
    if first == 0 or not math.isfinite(first):
        return first
    if size <= _SMALL:
        largest = float(np.linalg.norm(np.stack([squared(unit) for unit in np.eye(size)]), 2))
    else:
        gram = LinearOperator((size, size), matvec=squared, dtype=np.float64)
        largest = float(eigsh(gram, k=1, which="LA", v0=start, tol=_TOLERANCE, return_eigenvectors=False)[0])
    return math.sqrt(largest)


class Matrix(nn.Module):
    """y = M x / norm for a matrix M, dense or sparse (CSR), over flattened images; the norm is found once.

    It computes in the matrix's precision and answers in the input's.
    """

    matrix: Tensor
    transposed: Tensor

    def __init__(
        self, matrix: Float[Tensor, "numbers pixels"], shape: tuple[int, ...], measured: tuple[int, ...] | None = None
    ) -> None:
        super().__init__()
        if matrix.shape[1] != math.prod(shape):
            raise ValueError(
                f"a matrix of {matrix.shape[1]} columns cannot measure images of {math.prod(shape)} numbers"
            )
        self.shape, self.measured, self.norm = shape, measured or (len(matrix),), 1.0
        self.register_buffer("matrix", matrix)
        self.register_buffer("transposed", matrix.t().to_sparse_csr() if matrix.is_sparse_csr else matrix.t())
        self.norm = spectral_norm(self, torch.empty(0, dtype=matrix.dtype, device=matrix.device))
        if not math.isfinite(self.norm) or self.norm == 0:
            raise ValueError("a matrix of zeros, or with nan or infinite numbers, measures nothing")

    def A(self, x: Float[Tensor, "batch channel *space"]) -> Float[Tensor, "batch *measurement"]:
        return self._product(self.matrix, x).reshape(-1, *self.measured)

    def A_adjoint(self, y: Float[Tensor, "batch *measurement"]) -> Float[Tensor, "batch channel *space"]:
        return self._product(self.transposed, y).reshape(-1, *self.shape)

    def gram(self, of_pixels: bool) -> Float[Tensor, "size size"]:
        """A_adjoint A, or A A_adjoint, in float64."""
        import scipy.sparse

        left, right = (self.transposed, self.matrix) if of_pixels else (self.matrix, self.transposed)
        if not self.matrix.is_sparse_csr:
            return (left.double() @ right.double()) / self.norm**2
        as_scipy = [
            scipy.sparse.csr_matrix(
                (m.values().double().cpu().numpy(), m.col_indices().cpu().numpy(), m.crow_indices().cpu().numpy()),
                shape=m.shape,
            )
            for m in (left, right)
        ]
        return torch.from_numpy((as_scipy[0] @ as_scipy[1]).toarray()).to(self.matrix.device) / self.norm**2

    def _product(self, matrix: Tensor, vectors: Tensor) -> Tensor:
        columns = vectors.flatten(1).to(matrix.dtype).t()
        return (matrix @ columns).t().to(vectors.dtype) / self.norm


class Physical(nn.Module):
    """A `deepinv.physics.LinearPhysics`, divided by its spectral norm."""

    physics: Any

    def __init__(self, physics: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.physics = physics
        self.shape, self.norm = shape, 1.0
        self.norm = spectral_norm(self, torch.empty(0))

    def A(self, x: Float[Tensor, "batch channel *space"]) -> Float[Tensor, "batch *measurement"]:
        return self.physics.A(x) / self.norm

    def A_adjoint(self, y: Float[Tensor, "batch *measurement"]) -> Float[Tensor, "batch channel *space"]:
        return self.physics.A_adjoint(y) / self.norm
