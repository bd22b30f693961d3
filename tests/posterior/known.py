"""A linear-Gaussian problem in which everything is known, and its exact states without Monte Carlo noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from priorlens.posterior.denoisers import GaussianPosterior
from priorlens.prior.oracles import GaussianDenoiser

SHAPE = (2, 3, 3)
SIZE = math.prod(SHAPE)
OPERATORS = ("identity", "blur", "rows", "average")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=seeded(seed))


def matrix(name: str, size: int = SIZE) -> Tensor:
    """A of spectral norm 1: everything, a circular blur, a few random mixtures, or means of three neighbours."""
    eye = torch.eye(size, dtype=torch.float64)
    made = {
        "identity": eye,
        "blur": sum(weight * eye.roll(shift, 0) for weight, shift in ((0.5, 0), (0.3, 1), (0.15, -1), (0.05, 2))),
        "rows": normal(size // 3, size, seed=3),
        "average": eye.reshape(size // 3, 3, size).sum(1),
    }[name]
    return made / torch.linalg.matrix_norm(made, 2)


class MatrixOperator:
    """An operator that is a dense matrix; without a ridge its pull is the pseudo-inverse."""

    def __init__(self, matrix: Tensor, shape: tuple[int, ...] = SHAPE) -> None:
        self.matrix = matrix
        self.shape = shape

    def A(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.matrix.T

    def A_adjoint(self, y: Tensor) -> Tensor:
        return (y @ self.matrix).unflatten(1, self.shape)

    def pull(self, residual: Tensor, ridge: float) -> Tensor:
        gram = self.matrix @ self.matrix.T
        inverse = torch.linalg.pinv(gram + ridge * torch.eye(len(gram)).to(gram), rtol=1e-10, hermitian=True)
        return self.A_adjoint(residual @ inverse)


def covariance(size: int = SIZE, spread: float = 0.3) -> Tensor:
    """Neighbours that tell of each other, of standard deviations about `spread`."""
    place = torch.arange(size, dtype=torch.float64)
    near = torch.exp(-(((place[:, None] - place) / 2.0) ** 2)) + 0.1 * torch.eye(size, dtype=torch.float64)
    scale = spread * (1 + 0.5 * torch.sin(place))
    return scale[:, None] * near * scale


@dataclass(frozen=True)
class Problem:
    """y = A x + sigma_y n for x ~ N(mean, C). Posterior and divergences by other formulas than the code's."""

    A: Tensor
    sigma_y: float
    C: Tensor
    mean: Tensor
    y: Tensor

    @classmethod
    def of(cls, operator: str, sigma_y: float, C: Tensor | None = None, images: int = 2, out: float = 1.0) -> Problem:
        """`out`: how much farther from the mean than usual the images are."""
        C = covariance() if C is None else C
        A, mean = matrix(operator), 0.5 + 0.1 * normal(*SHAPE, seed=1)
        x = mean.flatten() + out * normal(images, SIZE, seed=2) @ torch.linalg.cholesky(C).T
        return cls(A, sigma_y, C, mean, x @ A.T + sigma_y * normal(images, len(A), seed=4))

    @property
    def prior(self) -> GaussianDenoiser:
        return GaussianDenoiser(self.mean, self.C)

    @property
    def operator(self) -> MatrixOperator:
        return MatrixOperator(self.A)

    def oracle(self, prior: GaussianDenoiser | None = None) -> GaussianPosterior:
        return GaussianPosterior(prior or self.prior, self.A, self.y, self.sigma_y)

    @property
    def S(self) -> Tensor:
        """The posterior's covariance, by precisions."""
        return torch.linalg.inv(torch.linalg.inv(self.C) + self.A.T @ self.A / self.sigma_y**2)

    @property
    def m(self) -> Tensor:
        """The posterior's mean of each image."""
        pulled = torch.linalg.solve(self.C, self.mean.flatten()) + self.y @ self.A / self.sigma_y**2
        return pulled @ self.S

    def kl_bits(self) -> Tensor:
        """KL(N(m, S) || N(mean, C)) of each image."""
        off = self.m - self.mean.flatten()
        squares = (off * torch.linalg.solve(self.C, off.T).T).sum(1)
        nats = torch.linalg.solve(self.C, self.S).trace() + squares - SIZE + self.C.logdet() - self.S.logdet()
        return nats / 2 / math.log(2)

    def bits_map(self, sigmas: Tensor) -> Tensor:
        """The energy's integral over log(sigma) at every element, by a fine trapezoidal rule over its closed form.

        E[x | x_t, y] - E[x | x_t] is affine in x_t ~ N(m, S + sigma^2 I); so the mean of its square is known.
        """
        eye = torch.eye(SIZE, dtype=torch.float64)
        nats = []
        for sigma in sigmas.tolist():
            before = self.C @ torch.linalg.inv(self.C + sigma**2 * eye)
            after = self.S @ torch.linalg.inv(self.S + sigma**2 * eye)
            level = (self.m - self.mean.flatten()) @ (eye - before).T
            slope = after - before
            energy = level**2 + (slope @ (self.S + sigma**2 * eye) * slope).sum(1)
            nats.append(energy / sigma**2)
        return torch.trapezoid(torch.stack(nats), sigmas.log(), dim=0).unflatten(1, SHAPE) / math.log(2)

    def states(self, sigma: float) -> Tensor:
        """2 SIZE states, draws first, whose mean of any quadratic is that of p(x_sigma | y): m +- sqrt(D) L e_i."""
        L = torch.linalg.cholesky(self.S + sigma**2 * torch.eye(SIZE, dtype=torch.float64)).T * math.sqrt(SIZE)
        points = torch.cat([L, -L])
        return (self.m + points[:, None]).flatten(0, 1).unflatten(1, SHAPE)

    DRAWS = 2 * SIZE
