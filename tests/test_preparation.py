"""Images to the model's form and maps back to the images' own."""

from pathlib import Path

import numpy as np
import pytest
import torch

from priorlens.errors import InputError
from priorlens.images import Image
from priorlens.preparation import LARGEST, MULTIPLE, SMALLEST, Preparation, as_image


def image(height: int = 40, width: int = 40, channels: int = 1, *, full_scale: float = 255.0, name: str = "a.png"):
    rng = np.random.default_rng([height, width])
    return Image(
        (rng.uniform(0, 1, (channels, height, width)) * np.nan_to_num(full_scale, nan=1.0)).astype(np.float32),
        Path(name),
        full_scale,
    )


def refused(call, *parts: str) -> None:
    with pytest.raises(InputError) as error:
        call()
    text = str(error.value)
    assert "\n" not in text
    for part in parts:
        assert part in text, text


@pytest.mark.parametrize(
    ("sides", "size"),
    [([20], SMALLEST), ([200], 192), ([210], 224), ([4000], LARGEST), ([192, 192, 1000], 192), ([250, 90], SMALLEST)],
)
def test_size_is_chosen_from_the_images(sides, size):
    """By the median of their longer sides, between 192 and 256, a multiple of 32."""
    images = [image(side, max(9, side // 2)) for side in sides]
    assert Preparation.fit(images, None).size == size
    assert size % MULTIPLE == 0


@pytest.mark.parametrize(("asked", "size"), [(64, 64), (96, 96), (100, 96), (1, 64), (300, 288)])
def test_size_may_be_asked_for(asked, size):
    assert Preparation.fit([image()], asked).size == size


@pytest.mark.parametrize("mode", ["range", "percentile"])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_any_size_become_one_batch_in_about_zero_to_one(mode, channels):
    images = [image(40, 60, channels), image(90, 30, channels), image(64, 64, channels)]
    preparation = Preparation.fit(images, 64, mode)
    prepared = preparation.to_model(images)
    assert prepared.shape == (3, channels, 64, 64) and prepared.dtype == torch.float32
    assert -0.5 <= prepared.min() < 0.2 and 0.8 < prepared.max() <= 1.5
    if mode == "range":
        np.testing.assert_allclose(prepared[2].numpy(), images[2].pixels / 255, atol=1e-6)


@pytest.mark.parametrize("shape", [(40, 60), (90, 30), (64, 64), (200, 150)])
def test_a_map_comes_back_at_the_images_own_size_and_place(shape):
    """A blob's centre goes to the model's grid and returns to within a tenth of the coarser grid's pixel."""
    down, across = np.mgrid[: shape[0], : shape[1]]
    centre = (0.4 * shape[0], 0.6 * shape[1])
    spread = min(shape) / 10
    blob = np.exp(-0.5 * ((down - centre[0]) ** 2 + (across - centre[1]) ** 2) / spread**2).astype(np.float32)
    own = Image(blob[None], Path("blob.npy"), 1.0)
    preparation = Preparation.fit([own], 64)
    back = preparation.from_model(preparation.to_model([own])[0, 0].numpy(), own)
    assert back.shape == shape and back.dtype == np.float32
    for axis, wanted in zip((down, across), centre, strict=True):
        assert (axis * back).sum() / back.sum() == pytest.approx(wanted, abs=0.1 * max(1, max(shape) / 64))


def test_colour_and_grey_do_not_mix():
    colour, grey = image(channels=3, name="c.png"), image(name="g.png")
    refused(lambda: Preparation.fit([grey, grey, colour], 64), "c.png", "is colour", "most other images are grey")
    refused(lambda: Preparation.fit([colour, grey, grey], 64), "c.png", "is colour", "most other images are grey")
    refused(lambda: Preparation.fit([colour, grey, colour], 64), "g.png", "is grey", "convert it to colour")
    refused(lambda: Preparation.fit([grey], 64).to_model([grey, colour]), "c.png", "trained on images that are grey")


def test_bit_depths_do_not_mix():
    shallow, deep = image(), image(full_scale=65535.0, name="deep.png")
    refused(lambda: Preparation.fit([shallow, deep], 64), "deep.png")
    refused(lambda: Preparation.fit([shallow], 64).to_model([deep]), "deep.png")


# --- arrays as images


@pytest.mark.parametrize(
    ("shape", "channels"), [((20, 30), 1), ((1, 20, 30), 1), ((3, 20, 30), 3)], ids=["plain", "grey", "colour"]
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float64])
def test_arrays_become_images_of_unknown_scale(shape, channels, dtype):
    pixels = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    found = as_image(pixels, 4)
    assert found.pixels.shape == (channels, 20, 30) and found.pixels.dtype == np.float32
    assert np.isnan(found.full_scale) and str(found.path) == "image 4"
    np.testing.assert_array_equal(found.pixels.reshape(shape), pixels)


def test_an_image_stays_itself():
    one = image()
    assert as_image(one, 0) is one


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        (np.zeros((20, 20)), "constant"),
        (np.full((20, 20), np.nan), "nan"),
        (np.where(np.eye(20) > 0, np.inf, 0.0), "infinite"),
        (np.zeros((20, 30, 3)), "channels first"),
        (np.zeros((2, 20, 30)), "channels first"),
        (np.zeros(20), "has shape (20,)"),
        (np.zeros((0, 20)), "has shape (0, 20)"),
        (np.eye(5), "has shape (5, 5)"),
    ],
    ids=["constant", "nan", "inf", "channels last", "two channels", "a line", "empty", "tiny"],
)
def test_arrays_that_are_no_images(pixels, reason):
    refused(lambda: as_image(pixels, 7), "image 7", reason)
