"""The body: above Otsu's threshold, largest component, holes filled."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from priorlens.body import body_mask

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
