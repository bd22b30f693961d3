"""What is told of an acquisition, on images made to have it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from priorlens.acquisition import ACQUISITION, acquisition
from priorlens.images import Image


def image(pixels: np.ndarray, full_scale: float = 255.0) -> Image:
    return Image(np.asarray(pixels, np.float32)[None] if pixels.ndim == 2 else pixels, Path("x.png"), full_scale)


def disc(side: int = 96) -> np.ndarray:
    """A bright body on dark background."""
    rows, columns = np.indices((side, side)) - side / 2
    return np.where(rows**2 + columns**2 < (side / 3) ** 2, 120.0, 0.0)


def test_its_figures_have_names():
    assert tuple(acquisition(image(disc()))) == ACQUISITION


@pytest.mark.parametrize("deviation", [2.0, 10.0])
def test_white_noise_in_the_body_is_measured_whatever_the_background(deviation):
    noise = deviation * np.random.default_rng(0).standard_normal((96, 96))
    found = acquisition(image(np.where(disc() > 0, disc() + noise, 0.0)))
    assert found["noise"] == pytest.approx(deviation, rel=0.1)


def test_without_noise_there_is_none_and_edges_do_not_count():
    assert acquisition(image(disc()))["noise"] == 0


def test_brightness_is_that_of_the_body():
    assert acquisition(image(disc()))["brightness"] == 120
    assert acquisition(image(1.1 * disc()))["brightness"] == pytest.approx(132)


def test_saturation_is_at_the_end_of_the_files_scale_or_at_the_images_own():
    pixels = disc()
    pixels[:12] = 255.0
    assert acquisition(image(pixels))["saturated"] == 12 / 96
    assert acquisition(image(disc()))["saturated"] == 0
    assert acquisition(image(disc(), float("nan")))["saturated"] == (disc() > 0).mean()


def test_colours_count_by_their_mean():
    colour = np.stack([disc(), disc(), 0 * disc()]).astype(np.float32)
    assert acquisition(image(colour))["brightness"] == pytest.approx(80)
