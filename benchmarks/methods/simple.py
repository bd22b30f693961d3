"""Baselines that learn nearly nothing: a method that does not beat them has shown little.

All see images as the other methods do, prepared at the task's size and scale; maps come back on each image's own grid.
"""

from __future__ import annotations

import dataclasses
import io
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from jaxtyping import Float32
from scipy.ndimage import median_filter
from sklearn.decomposition import PCA
from torch import Tensor

from benchmarks.method import Judged, Learned, Task
from benchmarks.methods.maps import AT_SIDE, smoothed, top_mean
from priorlens.checkpoint import read_checkpoint, write_checkpoint
from priorlens.images import Image
from priorlens.preparation import Preparation

MEDIAN_WINDOW, LARGEST_FOR_MEDIAN = 33, 96
"""Side in pixels of the median filter's window, at the side of 192, with which it scales; images are seen at 96 at
most, for it is slow. Twice the window was a little better on artefacts planted in training images, and slower still."""

LEAST_DEVIATION = 0.02
"""Added to the training images' standard deviation: in the background, where that is nearly 0, noise is no finding."""

COMPONENTS, LARGEST_FOR_PCA = 64, 128

PCA_WIDTH = 6.0
"""Of the Gaussian that smooths what the components leave, at the side of 192. On artefacts planted in healthy training
images of head_ct and brain_mri 6 to 10 were about equally good, with the sign kept, and better than less; on liver_ct
no width mattered, and without the sign it was better."""

_AT_ONCE = 64


class Baseline:
    """A baseline with what it has learned in `tensors`; a subclass says what its map is."""

    name = ""
    largest: int | None = None

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}

    def fit(self, task: Task, report: Callable[[str], None]) -> Learned:
        size = min(task.size, self.largest) if self.largest else task.size
        self.preparation = Preparation.fit(task.images, size, task.intensity)
        self.seed = task.seed
        self.learn(task.images)
        return Learned()

    def save(self, folder: Path) -> None:
        settings = {"method": self.name, "preparation": dataclasses.asdict(self.preparation), "seed": self.seed}
        write_checkpoint(folder, self.tensors, settings)

    def load(self, folder: Path, task: Task) -> None:
        self.tensors, settings = read_checkpoint(folder)
        self.preparation, self.seed = Preparation.restored(settings["preparation"]), settings["seed"]

    def judge(self, images: Sequence[Image]) -> Judged:
        maps = np.concatenate([self.maps(x) for x in self.prepared(images)])
        own = [self.preparation.from_model(one, image) for one, image in zip(maps, images, strict=True)]
        return Judged(top_mean(maps), own)

    def learn(self, images: Sequence[Image]) -> None:
        """Nothing, by default."""

    def maps(self, x: Float32[np.ndarray, "image channel side side"]) -> Float32[np.ndarray, "image side side"]:
        """Of prepared images; higher is more abnormal."""
        raise NotImplementedError

    def prepared(self, images: Sequence[Image]) -> Iterator[Float32[np.ndarray, "image channel side side"]]:
        """In batches that memory allows."""
        for start in range(0, len(images), _AT_ONCE):
            yield self.preparation.to_model(images[start : start + _AT_ONCE]).numpy()


class Brightness(Baseline):
    """The brightest blob: what is bright is abnormal."""

    name = "brightness"

    def maps(self, x: Float32[np.ndarray, "image channel side side"]) -> Float32[np.ndarray, "image side side"]:
        return smoothed(x.mean(1))


class MeanDeviation(Baseline):
    """Absolute deviation from the mean of the training images, in units of their standard deviation at the place."""

    name = "mean_deviation"

    def learn(self, images: Sequence[Image]) -> None:
        sums = squares = np.zeros(())
        for x in self.prepared(images):
            sums = sums + x.sum(0, dtype=np.float64)
            squares = squares + (x.astype(np.float64) ** 2).sum(0)
        mean = sums / len(images)
        std = np.sqrt((squares / len(images) - mean**2).clip(min=0))
        self.tensors = {"mean": torch.from_numpy(mean).float(), "std": torch.from_numpy(std).float()}

    def maps(self, x: Float32[np.ndarray, "image channel side side"]) -> Float32[np.ndarray, "image side side"]:
        mean, std = self.tensors["mean"].numpy(), self.tensors["std"].numpy()
        return smoothed((np.abs(x - mean) / (std + LEAST_DEVIATION)).mean(1))


class BlurredResidual(Baseline):
    """The image less its median filter, smoothed: small things brighter or darker than what is around them."""

    name = "blurred_residual"
    largest = LARGEST_FOR_MEDIAN

    def maps(self, x: Float32[np.ndarray, "image channel side side"]) -> Float32[np.ndarray, "image side side"]:
        window = max(3, 2 * round((MEDIAN_WINDOW - 1) / 2 * x.shape[-1] / AT_SIDE) + 1)
        return smoothed(np.abs(x - median_filter(x, (1, 1, window, window))).mean(1))


class PCAResidual(Baseline):
    """What principal components of the training images leave of an image, smoothed before its sign is dropped: noise
    cancels before it is counted."""

    name = "pca"
    largest = LARGEST_FOR_PCA

    def learn(self, images: Sequence[Image]) -> None:
        flat = np.concatenate([x.reshape(len(x), -1) for x in self.prepared(images)])
        components = min(COMPONENTS, *flat.shape)
        pca = PCA(components, svd_solver="randomized", random_state=self.seed).fit(flat)
        self.tensors = {
            "mean": torch.from_numpy(pca.mean_).float(),
            "components": torch.from_numpy(np.ascontiguousarray(pca.components_)).float(),
        }

    def maps(self, x: Float32[np.ndarray, "image channel side side"]) -> Float32[np.ndarray, "image side side"]:
        components = self.tensors["components"].numpy()
        centred = x.reshape(len(x), -1) - self.tensors["mean"].numpy()
        left = (centred - centred @ components.T @ components).reshape(x.shape).mean(1)
        return np.abs(smoothed(left, PCA_WIDTH))


class PNGSize(Baseline):
    """Bits a pixel of the image as an 8-bit PNG, at its own size; no map. What takes more is more abnormal.

    Under a likelihood that mostly measures how busy an image is (Serrà et al. 2020, "Input complexity and
    out-of-distribution detection with likelihood-based generative models", arXiv 1909.11480) this is a strong rival.
    """

    name = "png_size"

    def judge(self, images: Sequence[Image]) -> Judged:
        return Judged(np.array([self._bits(image) for image in images], np.float64), None)

    def _bits(self, image: Image) -> float:
        scaled = self.preparation.intensity.apply(image.pixels).clip(0, 1)
        channels_last = np.moveaxis((255 * scaled).round().astype(np.uint8), 0, -1)
        file = io.BytesIO()
        PIL.Image.fromarray(channels_last.squeeze()).save(file, "PNG", optimize=True)
        return 8 * file.tell() / scaled[0].size


class Constant(Baseline):
    """Says the same of everything: AUROC must be .5, and AP the prevalence."""

    name = "constant"

    def maps(self, x: Float32[np.ndarray, "image channel side side"]) -> Float32[np.ndarray, "image side side"]:
        return np.zeros_like(x[:, 0])


class Random(Baseline):
    """White noise at each image's own size, the same whenever the same image is asked about."""

    name = "random"

    def judge(self, images: Sequence[Image]) -> Judged:
        generators = [np.random.default_rng([self.seed, zlib.crc32(image.pixels.tobytes())]) for image in images]
        anomaly = np.array([generator.random() for generator in generators])
        sides = [image.pixels.shape[1:] for image in images]
        maps = [one.random(side, dtype=np.float32) for one, side in zip(generators, sides, strict=True)]
        return Judged(anomaly, maps)
