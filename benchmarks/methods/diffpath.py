"""DiffPath: how an image moves along the probability-flow ODE to noise, in six numbers, and how rare these are.

Source: Heng, Thiery & Soh, "Out-of-distribution detection with a single unconditional diffusion model", NeurIPS 2024,
arXiv 2405.11881. An image is taken up to noise by DDIM in 10 steps; the six numbers of DiffPath-6D are the sums, over
steps and pixels, of the predicted noise eps to the powers 1, 2 and 3, and of its rate of change d eps / dt to the same.
A Gaussian mixture of those of the training images, standardised, whose size is chosen by its likelihood in
cross-validation, gives the density; an image's score is minus its logarithm. The method says nothing about places.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import KFold, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from benchmarks.method import Task
from benchmarks.methods.on_prior import HIGHEST, Measured, PeerOnPrior, linear_betas, noise_levels, predicted_noise
from priorlens.held_out import evenly
from priorlens.prior.denoiser import Denoiser

STEPS = 10
"""Denoiser calls, as published."""

POWERS = (1, 2, 3)

COMPONENTS, FOLDS = (1, 2, 5, 10), 10
"""Sizes of the mixture to choose from; the authors' 50 and 100 need tens of thousands of training images."""

HEALTHY = 256
"""Training images that are looked at, at most."""


def path() -> tuple[list[float], list[float]]:
    """Evenly spaced times of DDPM's schedule, in units of it all, and their noise levels, up to `HIGHEST`."""
    schedule = noise_levels(linear_betas())
    last = int((schedule <= HIGHEST).sum())
    indices = [round(i * last / STEPS) for i in range(STEPS)]
    return [index / len(schedule) for index in indices], [float(schedule[index]) for index in indices]


def path_statistics(
    denoiser: Denoiser, x: Float[Tensor, "image channel *space"], sigmas: list[float], times: list[float]
) -> Float[Tensor, "image statistic"]:
    """The six numbers, as means over steps and pixels, along DDIM's path upward: in sigma, Euler's steps.

    `x` is taken to be at the first noise level. The rate of change is that between neighbouring steps.
    """
    x_t, predicted = x, []
    for step, sigma in enumerate(sigmas):
        predicted.append(predicted_noise(denoiser, x_t, sigma))
        if step + 1 < len(sigmas):
            x_t = x_t + (sigmas[step + 1] - sigma) * predicted[-1]
    rates = [(b - a) / (u - t) for (a, b), (t, u) in zip(pairwise(predicted), pairwise(times), strict=True)]
    stacked = [torch.stack(values, 1).double().flatten(1) for values in (predicted, rates)]
    return torch.stack([(values**p).mean(1) for values in stacked for p in POWERS], 1)


def density(statistics: Float[np.ndarray, "image statistic"], seed: int) -> Pipeline:
    """The mixture of the size that predicts folds of the images best, fitted to all of them."""
    folds = KFold(min(FOLDS, len(statistics)), shuffle=True, random_state=seed)
    fits = [count for count in COMPONENTS if count <= len(statistics) // 10] or [1]
    likelihoods = [cross_val_score(_mixture(count, seed), statistics, cv=folds).mean() for count in fits]
    return _mixture(fits[int(np.argmax(likelihoods))], seed).fit(statistics)


def _mixture(components: int, seed: int) -> Pipeline:
    """Covariances get 1e-3 of the standardised statistics' variance added: some of these all but coincide."""
    return make_pipeline(StandardScaler(), GaussianMixture(components, reg_covar=1e-3, random_state=seed))


class DiffPath(PeerOnPrior):
    remark = (
        f"mixtures of {', '.join(map(str, COMPONENTS))} components for the authors' 50 or 100; the path ends at noise "
        f"{HIGHEST:g}, where the prior is no longer trained; no maps"
    )

    @torch.inference_mode()
    def learn_usual(self, task: Task) -> None:
        healthy = [task.images[i] for i in evenly(range(len(task.images)), HEALTHY)]
        self.density = density(np.concatenate([self._statistics(x) for x in self.prepared(healthy)]), self.seed)

    def measure(self, x: Float[Tensor, "image channel side side"]) -> Measured:
        return Measured(-self.density.score_samples(self._statistics(x)))

    def _statistics(self, x: Float[Tensor, "image channel side side"]) -> Float[np.ndarray, "image statistic"]:
        times, sigmas = path()
        return path_statistics(self.denoiser, x, sigmas, times).cpu().numpy()
