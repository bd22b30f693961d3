"""The baseline that knows what artefacts look like, and nothing of what is healthy."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.method import Task
from benchmarks.methods.context import PlantedContext
from benchmarks.study import Fold
from priorlens.images import Image

SIDE = 64


def picture(seed: int, lesion: float = 0.0) -> Image:
    """A grey disc with noise, and a dark spot in it."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    pixels = 100.0 * ((rows - 32) ** 2 + (columns - 32) ** 2 < 28**2) + 3 * rng.standard_normal((SIDE, SIDE))
    pixels -= lesion * np.exp(-((rows - 24) ** 2 + (columns - 36) ** 2) / 32)
    return Image(pixels[None].clip(0, 255).astype(np.float32), Path(f"{seed}.png"), 255.0)


@pytest.fixture(scope="module")
def folder_and_task(tmp_path_factory):
    folder = tmp_path_factory.mktemp("context")
    images = [picture(seed) for seed in range(4)]
    task = Task(images, ["a", "a", "b", "b"], "range", 192, 3, 1.0, Fold(folder), folder)
    method = PlantedContext()
    method.fit(task, print)
    method.save(folder / "model")
    return folder / "model", task, method


def test_images_are_seen_at_their_own_size_where_it_is_small(folder_and_task):
    assert folder_and_task[2].preparation.size == SIDE


def test_it_says_the_same_after_it_was_saved(folder_and_task):
    folder, task, method = folder_and_task
    again = PlantedContext()
    again.load(folder, task)
    images = [picture(50), picture(51, 60.0)]
    one, two = method.judge(images), again.judge(images)
    np.testing.assert_array_equal(one.anomaly, two.anomaly)
    np.testing.assert_array_equal(one.maps, two.maps)
    assert one.maps[0].shape == (SIDE, SIDE) and one.maps[0].dtype == np.float32


def test_an_obvious_lesion_is_found(folder_and_task):
    method = folder_and_task[2]
    healthy = method.judge([picture(seed) for seed in range(50, 56)])
    ill = method.judge([picture(seed, 60.0) for seed in range(50, 56)])
    assert ill.anomaly.min() > healthy.anomaly.max()
    rows, columns = np.mgrid[:SIDE, :SIDE]
    inside = (rows - 32) ** 2 + (columns - 32) ** 2 < 22**2
    spot = (rows - 24) ** 2 + (columns - 36) ** 2 < 8**2
    for one in ill.maps:
        assert one[spot].mean() > one[inside & ~spot].mean() + 0.8
