"""What a viewer lays over one another, as PNG: modes, sizes and values that any reader sees."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from priorlens.errors import OutputError
from priorlens.layers import MOST_REGIONS, write_image, write_labels, write_truth
from priorlens.pictures import displayable

SIZE = (5, 7)


def read(path: Path) -> tuple[str, np.ndarray]:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return picture.mode, np.asarray(picture)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_an_image_as_it_is_shown(tmp_path: Path, channels: int) -> None:
    """Grey, but for red, green and blue; between its own half percentiles, dark to bright."""
    pixels = np.random.default_rng(0).normal(100, 20, (channels, *SIZE)).astype(np.float32)
    write_image(tmp_path / "a.png", pixels)
    mode, found = read(tmp_path / "a.png")
    assert mode == ("RGB" if channels == 3 else "L") and found.shape[:2] == SIZE
    expected = displayable(pixels)
    np.testing.assert_array_equal(found, expected if channels == 3 else expected[..., 0])
    assert channels == 2 or (found.min() == 0 and found.max() == 255)


def test_an_image_of_one_intensity(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.full((1, *SIZE), 7, np.float32))
    assert len(np.unique(read(tmp_path / "a.png")[1])) == 1


def test_truth_is_black_and_white(tmp_path: Path) -> None:
    mask = np.zeros(SIZE, bool)
    mask[1:3, 2:6] = True
    write_truth(tmp_path / "a.png", mask)
    mode, found = read(tmp_path / "a.png")
    assert mode == "L"
    np.testing.assert_array_equal(found, np.where(mask, 255, 0))


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.int64])
def test_regions_have_their_numbers(tmp_path: Path, dtype: type) -> None:
    labels = np.arange(35).reshape(SIZE).astype(dtype)
    write_labels(tmp_path / "a.png", labels)
    mode, found = read(tmp_path / "a.png")
    assert mode == "I;16"
    np.testing.assert_array_equal(found, labels)


def test_beyond_16_bits_they_are_the_last(tmp_path: Path) -> None:
    labels = np.zeros(SIZE, np.int64)
    labels[0, :4] = 300, MOST_REGIONS, MOST_REGIONS + 1, 10**9
    write_labels(tmp_path / "a.png", labels)
    assert read(tmp_path / "a.png")[1][0, :4].tolist() == [300, 65535, 65535, 65535]


def test_folders_are_made_and_equal_content_is_equal_bytes(tmp_path: Path) -> None:
    for name in ("x/y/a.png", "b.png"):
        write_truth(tmp_path / name, np.eye(6, dtype=bool))
    first, second = (hashlib.sha256((tmp_path / name).read_bytes()).digest() for name in ("x/y/a.png", "b.png"))
    assert first == second
    write_truth(tmp_path / "b.png", np.zeros((2, 2), bool))
    assert read(tmp_path / "b.png")[1].tolist() == [[0, 0], [0, 0]], "an earlier one gives way"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.png", "x"], "nothing half-written stays"


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError) as error:
        write_truth(tmp_path / "file/a.png", np.zeros(SIZE, bool))
    assert "file" in str(error.value) and "\n" not in str(error.value)
