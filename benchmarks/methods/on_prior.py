"""What the diffusion peers share: the prior that KLIP has learned, as each of them sees it, and its noise levels.

A peer says in `remark` what was reduced against its paper. What holds for all: the prior is ours, a small U-Net in
EDM's form (Karras et al. 2022, arXiv 2206.00364) in place of the larger networks of the papers, and no path starts
above `HIGHEST`, beyond which it has hardly been trained.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.method import Judged, Learned, Task
from benchmarks.methods.ours import kept_and_aside
from priorlens.held_out import hold_out
from priorlens.images import Image
from priorlens.klip_model import KLIPModel
from priorlens.prior.denoiser import Denoiser

HIGHEST = 3.0
"""Noise level, of images in [0, 1], up to which the prior's is trusted: 2.5 deviations above the mean of the log-normal
levels it was trained at (`priorlens.image_prior`)."""

_AT_ONCE, _PIXELS_AT_ONCE = 16, 2**18

Noise = Callable[[Tensor], Tensor]
"""Fresh noise of unit variance, shaped like what it is given."""


def linear_betas(first: float = 1e-4, last: float = 0.02, steps: int = 1000) -> Float[Tensor, " step"]:
    """The schedule of DDPM (Ho et al. 2020, arXiv 2006.11239)."""
    return torch.linspace(first, last, steps, dtype=torch.float64)


def scaled_linear_betas(first: float, last: float, steps: int = 1000) -> Float[Tensor, " step"]:
    """Linear in the square root of beta, as latent diffusion has it (Rombach et al. 2022, arXiv 2112.10752)."""
    return torch.linspace(first**0.5, last**0.5, steps, dtype=torch.float64) ** 2


def noise_levels(betas: Float[Tensor, " step"]) -> Float[Tensor, " step"]:
    """The schedule's sqrt((1 - alpha_bar) / alpha_bar), halved: networks there see [-1, 1], our denoiser [0, 1]."""
    alpha_bar = (1 - betas).cumprod(0)
    return ((1 - alpha_bar) / alpha_bar).sqrt() / 2


def predicted_noise(denoiser: Denoiser, x_t: Tensor, sigma: float) -> Tensor:
    """What a DDPM's network says: eps = (x_t - E[x | x_t]) / sigma."""
    return (x_t - denoised(denoiser, x_t, sigma)) / sigma


def denoised(denoiser: Denoiser, x_t: Tensor, sigma: float) -> Tensor:
    """E[x | x_t], all images at one noise level."""
    return denoiser(x_t, x_t.new_full((len(x_t),), sigma))


def one_for_all(seed: int) -> Noise:
    """White noise, the same for all images of a batch: what is said of an image depends on none beside it."""
    generator = torch.Generator().manual_seed(seed)

    def noise(x: Tensor) -> Tensor:
        return torch.randn(1, *x.shape[1:], generator=generator).to(x).expand_as(x)

    return noise


class CountedDenoiser:
    """A denoiser that counts the images it has denoised."""

    def __init__(self, inner: Denoiser) -> None:
        self.inner = inner
        self.count = 0

    def __call__(self, x_t: Tensor, sigma: Tensor) -> Tensor:
        self.count += len(x_t)
        return self.inner(x_t, sigma)


@dataclass(frozen=True)
class Measured:
    """Of a batch, on the prior's grid: one number an image, and maps, if any."""

    anomaly: Float[np.ndarray, " image"]
    maps: Float[np.ndarray, "image side side"] | None = None


class PeerOnPrior:
    """A peer that reads KLIP's prior and trains nothing. A subclass says what it measures of prepared images."""

    remark = ""

    def fit(self, task: Task, report: Callable[[str], None]) -> Learned:
        """Nothing to train: `load` reads what KLIP has learned."""
        return Learned(remark=self.remark)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)

    def load(self, folder: Path, task: Task) -> None:
        """From a folder of `KLIPModel`, or one that has it in `model`."""
        model = KLIPModel.load(folder / "model" if (folder / "model").is_dir() else folder)
        self.preparation, self.device = model.preparation_, model.device
        self.denoiser = CountedDenoiser(model.prior_.denoiser)
        self.seed = task.seed
        self.learn_usual(task)

    def learn_usual(self, task: Task) -> None:
        """What a peer has to know of healthy images before it judges; nothing, by default."""

    def measure(self, x: Float[Tensor, "image channel side side"]) -> Measured:
        """Of prepared images, in [0, 1]."""
        raise NotImplementedError

    def judge(self, images: Sequence[Image]) -> Judged:
        before = self.denoiser.count
        parts = list(self.measured(images))
        calls = (self.denoiser.count - before) / max(1, len(images))
        anomaly = np.concatenate([part.anomaly for part in parts]).astype(np.float64)
        if parts[0].maps is None:
            return Judged(anomaly, None, calls)
        maps = [one for part in parts if part.maps is not None for one in part.maps.astype(np.float32)]
        on_own_grid = [self.preparation.from_model(one, image) for one, image in zip(maps, images, strict=True)]
        return Judged(anomaly, on_own_grid, calls)

    @torch.inference_mode()
    def measured(self, images: Sequence[Image]) -> list[Measured]:
        return [self.measure(x) for x in self.prepared(images)]

    def prepared(self, images: Sequence[Image]) -> list[Float[Tensor, "image channel side side"]]:
        """In batches that memory allows."""
        at_once = max(1, min(_AT_ONCE, _PIXELS_AT_ONCE // self.preparation.size**2))
        starts = range(0, len(images), at_once)
        return [self.preparation.to_model(images[i : i + at_once]).to(self.device) for i in starts]


def unseen(task: Task) -> list[int]:
    """Indices of the healthy images that the prior did not learn from, as `benchmarks.methods.ours_klip` fits it."""
    kept, aside = kept_and_aside(task.groups, task.seed)
    _, held = hold_out([task.groups[i] for i in kept], task.seed)
    return sorted([*aside, *(kept[i] for i in held)])
