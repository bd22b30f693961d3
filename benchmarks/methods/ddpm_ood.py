"""DDPM-OOD: reconstructions from several noise levels, each compared with what healthy images show at that level.

Source: Graham, Pinaya, Tudosiu, Nachev, Ourselin & Cardoso, "Denoising diffusion models for out-of-distribution
detection", CVPR workshops 2023, arXiv 2211.07740. There a scaled linear schedule of T = 1000 steps, PLMS with 100 of
them, and a reconstruction from each of these or from a part of them; mean squared error and LPIPS of each are z-scored
by those of a validation set, and an image's score is the mean of all z-scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from skimage.metrics import structural_similarity
from torch import Tensor

from benchmarks.method import Task
from benchmarks.methods.maps import smoothed
from benchmarks.methods.on_prior import (
    HIGHEST,
    Measured,
    PeerOnPrior,
    noise_levels,
    one_for_all,
    predicted_noise,
    scaled_linear_betas,
    unseen,
)
from priorlens.held_out import evenly
from priorlens.prior.denoiser import Denoiser

FIRST_BETA, LAST_BETA = 0.0015, 0.0195
"""As published."""

STRIDE, STARTS_EVERY = 50, 100
"""Of the 1000 steps: from one denoiser call to the next, and from one start to the next."""

HEALTHY = 32
"""Images that were not learned from, at most, by which similarities are z-scored."""

_LEAST = 1e-6  # of a deviation that is divided by

# Adams-Bashforth, newest slope first: PLMS takes four, fewer while it has no more.
_WEIGHTS = ((1.0,), (1.5, -0.5), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))


def paths() -> list[list[float]]:
    """For each start the noise levels from it down to 0; no start lies above `HIGHEST`."""
    schedule = noise_levels(scaled_linear_betas(FIRST_BETA, LAST_BETA)).tolist()
    starts = [t for t in range(STARTS_EVERY, len(schedule) + 1, STARTS_EVERY) if schedule[t - 1] <= HIGHEST]
    return [[*(schedule[t - 1] for t in range(start, 0, -STRIDE)), 0.0] for start in starts]


def reconstructed(
    denoiser: Denoiser, x_t: Float[Tensor, "image channel *space"], sigmas: list[float]
) -> Float[Tensor, "image channel *space"]:
    """Down to the last noise level by PLMS (Liu et al. 2022, arXiv 2202.09778): DDIM's step, which in sigma is Euler's,
    along a slope drawn from the last four predicted noises."""
    slopes: list[Tensor] = []
    for sigma, following in pairwise(sigmas):
        slopes = [predicted_noise(denoiser, x_t, sigma), *slopes[:3]]
        weights = _WEIGHTS[len(slopes) - 1]
        slope = sum((w * s for w, s in zip(weights, slopes, strict=True)), torch.zeros_like(x_t))
        x_t = x_t + (following - sigma) * slope
    return x_t


@dataclass(frozen=True)
class Differences:
    """Of a batch, start by start: squared residuals by place, and the two dissimilarities of whole images."""

    squares: Float[np.ndarray, "start image side side"]
    mse: Float[np.ndarray, "start image"]
    dssim: Float[np.ndarray, "start image"]


def differences(denoiser: Denoiser, x: Float[Tensor, "image channel side side"], seed: int) -> Differences:
    """Between images in [0, 1] and what comes back of them from each start."""
    noise, squares, dssim = one_for_all(seed), [], []
    for sigmas in paths():
        back = reconstructed(denoiser, x + sigmas[0] * noise(x), sigmas)
        squares.append(((x - back) ** 2).mean(1).cpu().numpy())
        pairs = zip(x.cpu().numpy(), back.cpu().numpy(), strict=True)
        dssim.append([1 - float(structural_similarity(a, b, data_range=1.0, channel_axis=0)) for a, b in pairs])
    stacked = np.stack(squares).astype(np.float64)
    return Differences(stacked, stacked.mean((2, 3)), np.array(dssim))


class DDPMOOD(PeerOnPrior):
    """A map is the mean over the starts of squared residuals, scaled as their image's mean is: the mean of a map is the
    mean z-score of the squared errors."""

    remark = (
        f"{len(paths())} starts of 100, {sum(len(path) - 1 for path in paths())} calls, none from noise above "
        f"{HIGHEST:g} where the prior is not trained; SSIM in place of LPIPS, which needs one more trained network; "
        "the map, which the paper has not, is smoothed"
    )

    @torch.inference_mode()
    def learn_usual(self, task: Task) -> None:
        healthy = [task.images[i] for i in evenly(unseen(task), HEALTHY)]
        found = [differences(self.denoiser, x, self.seed) for x in self.prepared(healthy)]
        self.usual_mse = Usual.of(np.concatenate([one.mse for one in found], 1))
        self.usual_dssim = Usual.of(np.concatenate([one.dssim for one in found], 1))

    def measure(self, x: Float[Tensor, "image channel side side"]) -> Measured:
        found = differences(self.denoiser, x, self.seed)
        scores = np.concatenate([self.usual_mse.z(found.mse), self.usual_dssim.z(found.dssim)])
        return Measured(scores.mean(0), smoothed(self.usual_mse.z(found.squares).mean(0)))


@dataclass(frozen=True)
class Usual:
    """Mean and deviation over healthy images, start by start."""

    mean: Float[np.ndarray, " start"]
    std: Float[np.ndarray, " start"]

    @classmethod
    def of(cls, healthy: Float[np.ndarray, "start image"]) -> Usual:
        return cls(healthy.mean(1), healthy.std(1).clip(min=_LEAST))

    def z(self, values: Float[np.ndarray, "start *of_image"]) -> Float[np.ndarray, "start *of_image"]:
        over = (-1, *(1,) * (values.ndim - 1))
        return (values - self.mean.reshape(over)) / self.std.reshape(over)
