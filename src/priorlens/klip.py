"""KLIP: what a measurement says about an image that the prior does not (Kheirandish et al. 2026, arXiv 2605.31596)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from priorlens.errors import InputError
from priorlens.image_prior import SIGMA_DATA, ImagePrior
from priorlens.measurement.operator import Operator
from priorlens.measurement.physics import as_measured
from priorlens.measurement.physics import operator as operator_of
from priorlens.posterior.denoisers import PosteriorDenoiser, posterior
from priorlens.posterior.divergence import Divergence, quadrature
from priorlens.posterior.sampling import early_start
from priorlens.prior.denoiser import Denoiser
from priorlens.prior.variance import Variance, WhiteVariance
from priorlens.surprise import Surprise, surprise

SIGMAS = (0.05, 0.1, 0.175, 0.25, 0.4)
"""Noise levels of the window, in units of intensities about [0, 1]."""

WIDTHS = (0.0, 1.0, 1.5, 2.5, 4.0)
"""Widths, in pixels, of the Gaussian over which drifts are averaged before squaring."""

START = (1.0, 0.5, 0.3, 0.175, 0.1, 0.05)
"""Noise levels, one call each, that lead from the pseudo-inverse to an image the window can start from."""

DRAWS = 4

OWN_NOISE = 0.001
"""Standard deviation of the noise that even a noiseless measurement is taken to have: its operator is not exact."""


@dataclass(frozen=True)
class Findings:
    """What prior and measurement make of images.

    divergence: of the posterior from the prior in bits, by place and noise level.
    surprise: the same drifts standardised and coherent (`priorlens.surprise`).
    reconstruction: an image that agrees with both; the image itself, if that was measured.
    widths: of the coherent surprise.
    nfe: network evaluations for one image, those of the variance head among them.
    """

    divergence: Divergence
    surprise: Surprise
    reconstruction: Float[Tensor, "batch channel *space"]
    widths: tuple[float, ...]
    nfe: int


class KLIP:
    """Prior and measurement operator; `score` takes what was measured.

    prior: of images about [0, 1]: an `ImagePrior`, or any denoiser.
    operator: of the measurement, or a `deepinv.physics.LinearPhysics`, in whose units noise and measurements then are;
        None: the image itself is measured, without noise.
    shape: of one image, channel first, which a physics of deepinv's does not tell.
    noise: standard deviation of the measurement's noise.
    variance: what drifts are divided by before they are averaged; None: that of white data, the same everywhere.
    posterior: name of the posterior denoiser (`priorlens.posterior.denoisers.POSTERIORS`).
    sigmas, draws: noise levels of the window, rising, and draws of noise at each.
    start: falling noise levels on the way to an image that the window can start from.

    Raises:
        InputError: a physics without `shape`, or one that is not linear.
    """

    def __init__(
        self,
        prior: ImagePrior | Denoiser,
        operator: Operator | nn.Module | None = None,
        *,
        shape: tuple[int, ...] | None = None,
        noise: float = 0.0,
        variance: Variance | None = None,
        posterior: str = "diffpir",
        sigmas: Sequence[float] = SIGMAS,
        widths: Sequence[float] = WIDTHS,
        draws: int = DRAWS,
        start: Sequence[float] = START,
        seed: int = 0,
    ) -> None:
        self.denoiser: Denoiser = prior.denoiser if isinstance(prior, ImagePrior) else prior
        self.variance: Variance = variance or WhiteVariance(SIGMA_DATA / 2)
        self.physics: nn.Module | None = None
        self.operator: Operator | None
        if operator is None or isinstance(operator, Operator):
            self.operator, self.noise = operator, noise
        elif shape is None:
            raise InputError(f"physics {type(operator).__name__}: does not say which images it measures; give `shape`")
        else:
            normalised = operator_of(operator, shape)
            self.physics, self.operator, self.noise = operator, normalised, noise / normalised.norm
        self.posterior = posterior
        self.sigmas = tuple(map(float, sigmas))
        self.widths = tuple(map(float, widths))
        self.draws = draws
        self.start = tuple(map(float, start))
        self.seed = seed

    @torch.no_grad()
    def score(self, y: Float[Tensor, "batch *measurement"]) -> Findings:
        """What the measurements say, image by image; no image's figures depend on those beside it."""
        if self.operator is None:
            return self._findings(y, 0, None)
        if self.physics is not None:
            y = as_measured(self.operator, y)
        sigma_y = max(self.noise, OWN_NOISE)
        generator = torch.Generator().manual_seed(self.seed)
        started = early_start(
            self.denoiser,
            self.operator,
            y,
            sigmas=self.start,
            ridge=(sigma_y / min(self.sigmas)) ** 2,
            generator=generator,
        )
        known = posterior(self.posterior, self.denoiser, self.operator, y, sigma_y=sigma_y, sigma_data=SIGMA_DATA / 2)
        return self._findings(started.image, started.nfe, known)

    def _findings(
        self, x: Float[Tensor, "batch channel *space"], nfe: int, known: PosteriorDenoiser | None
    ) -> Findings:
        found = surprise(
            self.denoiser,
            self.variance,
            x,
            posterior=known,
            sigmas=self.sigmas,
            widths=self.widths,
            draws=self.draws,
            seed=self.seed,
        )
        per_level = x.new_tensor(self.sigmas).reshape(-1, *(1,) * (x.ndim - 2)) ** 2
        divergence = Divergence(
            self.sigmas, quadrature(self.sigmas), found.energy * x.shape[1] / per_level, self.draws, found.nfe
        )
        return Findings(divergence, found, x, self.widths, nfe + found.nfe)
