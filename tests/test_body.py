"""The body: above Otsu's threshold, largest component, holes filled."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from priorlens.body import body_mask, body_region

ROWS, COLUMNS = np.mgrid[:40, :50].astype(np.float32)


def disc(row: float, column: float, radius: float) -> np.ndarray:
    return (ROWS - row) ** 2 + (COLUMNS - column) ** 2 <= radius**2


def test_largest_component_with_its_holes() -> None:
    body, hole, table = disc(18, 20, 14), disc(18, 20, 5), disc(36, 46, 3)
    pixels = np.where(body & ~hole | table, 180 + 20 * np.sin(ROWS * 7 + COLUMNS), 10).astype(np.float32)
    np.testing.assert_array_equal(body_mask(pixels), body)


def test_components_that_touch_by_a_corner_are_two() -> None:
    pixels = np.zeros((9, 9), np.float32)
    pixels[1:5, 1:5], pixels[5:7, 5:7] = 1, 1
    assert body_mask(pixels).sum() == 16


def test_constant_image_is_all_body() -> None:
    assert body_mask(np.full((8, 9), 3, np.float32)).all()


images = arrays.arrays(np.float32, (9, 11), elements=st.floats(-1e6, 1e6, width=32))


@given(pixels=images)
@settings(deadline=None)
def test_any_image_has_one_body_without_holes(pixels: np.ndarray) -> None:
    mask = body_mask(pixels)
    assert mask.any()
    assert ndimage.label(mask)[1] == 1
    np.testing.assert_array_equal(ndimage.binary_fill_holes(mask), mask)


@given(pixels=arrays.arrays(np.uint8, (9, 11)), power=st.integers(-20, 20))
@settings(deadline=None)
def test_the_scale_of_intensities_does_not_matter(pixels: np.ndarray, power: int) -> None:
    raw = pixels.astype(np.float32)
    np.testing.assert_array_equal(body_mask(raw), body_mask(raw * np.float32(2.0**power)))


def test_a_narrow_range_far_from_zero() -> None:
    body = disc(20, 25, 10)
    pixels = np.where(body, np.float32(1e7 + 1), np.float32(1e7)).astype(np.float32)
    np.testing.assert_array_equal(body_mask(pixels), body)


def abdomen(table: bool = True) -> np.ndarray:
    """Bone and an organ brighter than the tissue around them, air in the bowel, and a table beneath."""
    down, across = np.mgrid[:96, :96]
    pixels = np.zeros((96, 96), np.float32)
    pixels[np.hypot(down - 45, (across - 48) / 1.3) < 28] = 40
    pixels[np.hypot(down - 40, across - 35) < 9] = 90
    pixels[np.hypot(down - 30, across - 55) < 5] = 0
    pixels[np.hypot(down - 62, across - 48) < 6] = 250
    pixels[82:84, 10:86] = 120 if table else 0
    return pixels + np.random.default_rng(0).normal(0, 1, pixels.shape).astype(np.float32)


def test_the_region_holds_dark_tissue_and_leaves_the_table_out():
    pixels = abdomen()
    truth = np.hypot(*(np.mgrid[:96, :96] - np.array([45, 48])[:, None, None]) / np.array([1, 1.3])[:, None, None]) < 28
    found = body_region(pixels)
    overlap = 2 * (found & truth).sum() / (found.sum() + truth.sum())
    assert overlap > 0.97, overlap
    assert not found[80:].any()
    assert not body_mask(pixels)[truth].all(), "Otsu's threshold does not: why there are two"


def test_the_region_does_not_ask_for_a_scale():
    pixels = abdomen()
    assert np.array_equal(body_region(pixels), body_region((3 * pixels - 500).astype(np.float32)))


def test_where_the_frame_is_as_bright_as_the_rest_the_region_is_the_mask():
    rng = np.random.default_rng(0)
    pixels = np.ones((32, 32), np.float32) + rng.normal(0, 0.1, (32, 32)).astype(np.float32)
    pixels[10:20, 10:20] = 0
    assert np.array_equal(body_region(pixels), body_mask(pixels))
