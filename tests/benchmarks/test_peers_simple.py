"""The simple baselines on images whose answer is known."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.method import Task
from benchmarks.methods import METHODS
from benchmarks.methods.simple import PCAResidual
from benchmarks.study import Fold
from priorlens.images import Image

NAMES = ("brightness", "mean_deviation", "blurred_residual", "pca", "png_size", "constant", "random")
WITH_MAPS = tuple(name for name in NAMES if name != "png_size")


def picture(seed: int, lesion: float = 0.0, side: tuple[int, int] = (80, 64), channels: int = 1) -> Image:
    """A grey disc, shaded from left to right by a share that varies, with a small square lesion in it."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: side[0], : side[1]]
    disc = (rows - side[0] / 2) ** 2 + (columns - side[1] / 2) ** 2 < 26**2
    pixels = 100 * disc * (1 + 0.3 * rng.random() * (columns / side[1] - 0.5)) + 2 * rng.standard_normal(side)
    pixels[30:38, 28:36] += lesion
    return Image(np.repeat(pixels[None], channels, 0).clip(0, 255).astype(np.float32), Path(f"{seed}.png"), 255.0)


def task_of(images: list[Image], folder: Path, intensity: str = "range", size: int = 64) -> Task:
    return Task(images, [str(i) for i in range(len(images))], intensity, size, 3, 1.0, Fold(folder), folder)


def made(name: str, task: Task, folder: Path):
    """Fitted, saved and read again by another."""
    method = METHODS[name].make()
    method.fit(task, print)
    method.save(folder)
    again = METHODS[name].make()
    again.load(folder, task)
    return method, again


@pytest.mark.parametrize("intensity", ["range", "percentile"])
@pytest.mark.parametrize("name", NAMES)
def test_a_baseline_says_the_same_after_it_was_saved(name, intensity, tmp_path):
    task = task_of([picture(seed) for seed in range(20)], tmp_path, intensity)
    method, again = made(name, task, tmp_path / "model")
    images = [picture(40), picture(41, 80.0, (96, 100)), picture(42)]
    one, two = method.judge(images), again.judge(images)
    np.testing.assert_array_equal(one.anomaly, two.anomaly)
    assert one.anomaly.shape == (3,) and np.isfinite(one.anomaly).all() and one.calls == 0
    if name == "png_size":
        assert one.maps is None
        return
    assert one.maps is not None and two.maps is not None
    for a, b, image in zip(one.maps, two.maps, images, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.shape == image.pixels.shape[1:] and a.dtype == np.float32
    alone = method.judge(images[1:2])
    np.testing.assert_allclose(alone.anomaly, one.anomaly[1:2], rtol=1e-5)


@pytest.mark.parametrize("name", ["brightness", "mean_deviation", "blurred_residual", "pca"])
def test_an_obvious_lesion_is_found(name, tmp_path):
    task = task_of([picture(seed) for seed in range(30)], tmp_path)
    _, method = made(name, task, tmp_path / "model")
    healthy, ill = [picture(seed) for seed in range(100, 108)], [picture(seed, 100.0) for seed in range(100, 108)]
    assert method.judge(ill).anomaly.min() > method.judge(healthy).anomaly.max()
    for one in method.judge(ill).maps:
        row, column = np.unravel_index(one.argmax(), one.shape)
        assert 29 <= row <= 38 and 27 <= column <= 36


@pytest.mark.parametrize("name", ["mean_deviation", "blurred_residual", "pca"])
def test_a_dark_lesion_is_found_too(name, tmp_path):
    task = task_of([picture(seed) for seed in range(30)], tmp_path)
    _, method = made(name, task, tmp_path / "model")
    (one,) = method.judge([picture(100, -80.0)]).maps
    assert one[30:38, 28:36].mean() > 3 * one[20:60, 40:60].mean()


@pytest.mark.parametrize("name", WITH_MAPS)
def test_colour_is_taken(name, tmp_path):
    task = task_of([picture(seed, channels=3) for seed in range(12)], tmp_path)
    _, method = made(name, task, tmp_path / "model")
    assert method.judge([picture(30, channels=3)]).maps[0].shape == (80, 64)


def test_the_constant_is_constant_and_the_random_map_is_the_images_own(tmp_path):
    task = task_of([picture(seed) for seed in range(10)], tmp_path)
    images = [picture(20), picture(21)]
    _, constant = made("constant", task, tmp_path / "constant")
    found = constant.judge(images)
    assert not found.anomaly.any() and not any(one.any() for one in found.maps)
    _, random = made("random", task, tmp_path / "random")
    found, turned = random.judge(images), random.judge(images[::-1])
    np.testing.assert_array_equal(found.anomaly, turned.anomaly[::-1])
    np.testing.assert_array_equal(found.maps[0], turned.maps[1])
    assert (found.maps[0] != found.maps[1]).any()


def test_png_size_is_larger_of_what_is_busier(tmp_path):
    task = task_of([picture(seed) for seed in range(10)], tmp_path)
    _, method = made("png_size", task, tmp_path / "model")
    rng = np.random.default_rng(0)
    noise = Image(rng.integers(0, 256, (1, 64, 64)).astype(np.float32), Path("noise.png"), 255.0)
    stripes = Image(np.tile(np.arange(64) % 8 * 30.0, (1, 64, 1)).astype(np.float32), Path("stripes.png"), 255.0)
    busy, plain = method.judge([noise, stripes]).anomaly
    assert 8 <= busy < 8.6 and plain < 1
    colour = Image(np.repeat(stripes.pixels, 3, 0), Path("colour.png"), 255.0)
    assert method.judge([colour]).anomaly[0] < 3


def test_pca_takes_no_more_components_than_there_are_images_and_keeps_the_residual_small(tmp_path):
    images = [picture(seed) for seed in range(9)]
    method = PCAResidual()
    method.fit(task_of(images, tmp_path, size=256), print)
    assert method.tensors["components"].shape == (9, 128 * 128)
    seen, new = method.judge(images).anomaly.max(), method.judge([picture(50)]).anomaly[0]
    assert seen < 0.1 * new
