"""Overlays: where lines lie, what the caption says, and that any image can be shown."""

import numpy as np
import pytest
from PIL import Image

from priorlens import pictures
from priorlens.errors import OutputError


def blob(height, width, top, left, size):
    one = np.zeros((height, width), np.float32)
    one[top : top + size, left : left + size] = 1.0
    return one


def coloured(picture, colour):
    """Rows and columns of the pixels that have about this colour."""
    return np.argwhere(np.abs(np.asarray(picture).astype(int) - colour).max(axis=-1) < 30)


def third_panel(picture, side):
    """The outlined panel: the last `side` columns before the right margin, below the line of words."""
    return picture.crop((picture.width - 12 - side, 32, picture.width - 12, 32 + side))


@pytest.mark.parametrize(("height", "width"), [(64, 64), (8, 300), (300, 8), (1, 9), (700, 520), (256, 256)])
def test_any_size_gives_three_panels_of_readable_size(height, width):
    rng = np.random.default_rng(0)
    pixels = rng.random((1, height, width)).astype(np.float32)
    one = rng.random((height, width)).astype(np.float32)
    picture = pictures.draw_overlay(pixels, one, truth=one > 0.9, anomaly=1.0, name="a/b")
    assert picture.mode == "RGB" and picture.width >= 3 * min(256, width)
    assert max(picture.size) < 3 * 512 + 400


def test_outlines_lie_around_what_they_outline():
    called, truth = blob(64, 64, 10, 20, 12), blob(64, 64, 40, 36, 16)
    pixels = np.zeros((1, 64, 64), np.float32)
    panel = third_panel(pictures.draw_overlay(pixels, called, threshold=0.5, truth=truth > 0), 256)
    for colour, (top, left, size) in ((pictures.CALLED, (10, 20, 12)), (pictures.TRUTH, (40, 36, 16))):
        found = coloured(panel, colour)
        np.testing.assert_allclose(found.min(axis=0), [4 * top, 4 * left], atol=3)
        np.testing.assert_allclose(found.max(axis=0), [4 * (top + size), 4 * (left + size)], atol=3)


def test_truth_is_dashed_and_what_is_called_is_not():
    square = blob(64, 64, 16, 16, 32)
    pixels = np.zeros((1, 64, 64), np.float32)
    solid = third_panel(pictures.draw_overlay(pixels, square, threshold=0.5), 256)
    dashed = third_panel(pictures.draw_overlay(pixels, np.zeros_like(square), threshold=0.5, truth=square > 0), 256)
    share = len(coloured(dashed, pictures.TRUTH)) / len(coloured(solid, pictures.CALLED))
    assert 0.3 < share < 0.75


def test_outline_at_the_border_is_closed_and_none_is_drawn_without_reason():
    corner = blob(64, 64, 0, 0, 10)
    pixels = np.zeros((1, 64, 64), np.float32)
    assert len(coloured(third_panel(pictures.draw_overlay(pixels, corner, threshold=0.5), 256), pictures.CALLED)) > 100
    assert len(coloured(third_panel(pictures.draw_overlay(pixels, corner, threshold=2.0), 256), pictures.CALLED)) == 0


def test_regions_of_a_verdict_are_outlined_in_place_of_a_threshold():
    surprise, region, truth = (blob(64, 64, *place) for place in ((30, 30, 9), (10, 20, 12), (40, 36, 16)))
    pixels = np.zeros((1, 64, 64), np.float32)
    called = pictures.Called(0.012, region > 0, 0.05)
    panel = third_panel(pictures.draw_overlay(pixels, surprise, threshold=0.5, truth=truth > 0, called=called), 256)
    for colour, (top, left, size) in ((pictures.CALLED, (10, 20, 12)), (pictures.TRUTH, (40, 36, 16))):
        found = coloured(panel, colour)
        np.testing.assert_allclose(found.min(axis=0), [4 * top, 4 * left], atol=3)
        np.testing.assert_allclose(found.max(axis=0), [4 * (top + size), 4 * (left + size)], atol=3)


def test_several_regions_are_outlined_also_where_the_picture_is_shrunk():
    regions = blob(1000, 1000, 100, 100, 200) + blob(1000, 1000, 600, 500, 100) > 0
    pixels = np.zeros((1, 1000, 1000), np.float32)
    called = pictures.Called(0.5, regions, 0.05)
    panel = third_panel(pictures.draw_overlay(pixels, np.zeros((1000, 1000), np.float32), called=called), 512)
    found = coloured(panel, pictures.CALLED)
    first, second = found[found[:, 0] < 230], found[found[:, 0] >= 230]
    np.testing.assert_allclose([first.min(axis=0), first.max(axis=0)], [[51, 51], [154, 154]], atol=3)
    np.testing.assert_allclose([second.min(axis=0), second.max(axis=0)], [[307, 256], [358, 307]], atol=3)


def test_a_verdict_without_regions_outlines_nothing_and_marks_no_level():
    surprise = blob(64, 64, 30, 30, 9)
    pixels = np.zeros((1, 64, 64), np.float32)

    def drawn(called: pictures.Called | None, threshold: float = 0.5):
        picture = pictures.draw_overlay(pixels, surprise, threshold=threshold, called=called)
        beside = 2 * 12 + 2 * 256
        return third_panel(picture, 256), np.asarray(picture.crop((beside, 32, beside + 24, 32 + 256)))

    (plain, marked), (p_only, also_marked) = drawn(None), drawn(pictures.Called(0.4))
    none, unmarked = drawn(pictures.Called(0.4, surprise > 2, 0.05))
    assert len(coloured(none, pictures.CALLED)) == 0 < 100 < len(coloured(plain, pictures.CALLED))
    assert p_only == plain, "without alpha the threshold is outlined"
    assert np.array_equal(marked, also_marked) and not np.array_equal(marked, unmarked)
    assert np.array_equal(unmarked, drawn(None, threshold=2.0)[1]), "as where the level is off the scale"


def test_the_caption_tells_the_p_value_and_the_key_the_rate(monkeypatch):
    told, page = [], pictures._page

    def listen(panels, caption, scale, called, has_truth):
        told.append((caption, called))
        return page(panels, caption, scale, called, has_truth)

    monkeypatch.setattr(pictures, "_page", listen)
    one = blob(64, 64, 30, 30, 9)
    options = {"name": "a/b", "anomaly": 1.5, "threshold": 0.5}
    for called in (None, pictures.Called(0.01234), pictures.Called(0.01234, one > 0, 0.05)):
        pictures.draw_overlay(one[None], one, called=called, **options)
    captions = [caption for caption, _ in told]
    assert all(name == "a/b" and scores.startswith("anomaly score 1.5   ") for name, scores in captions)
    assert ["p = 0.0123" in scores for _, scores in captions] == [False, True, True]
    assert [words for _, words in told] == ["surprise ≥ 0.5", "surprise ≥ 0.5", "regions at alpha 0.05"]


def test_the_colour_scale_is_shared_by_its_ends():
    pixels = np.zeros((1, 256, 256), np.float32)
    half = np.full((256, 256), 0.5, np.float32)
    picture = np.asarray(pictures.draw_overlay(pixels, half, low=0.0, high=1.0, threshold=2.0))
    middle = picture[32 + 128, 2 * 12 + 256 + 128]
    np.testing.assert_array_equal(middle, pictures._inferno()[128])
    brighter = np.asarray(pictures.draw_overlay(pixels, half, low=0.0, high=0.5, threshold=2.0))
    np.testing.assert_array_equal(brighter[32 + 128, 2 * 12 + 256 + 128], pictures._inferno()[255])


def test_grey_pixels_stay_grey_and_colour_stays_colour():
    ramp = np.tile(np.linspace(0, 4000, 256, dtype=np.float32), (256, 1))
    one = np.zeros((256, 256), np.float32)
    grey = np.asarray(pictures.draw_overlay(ramp[None], one, threshold=1.0))[32:288, 12:268]
    assert (grey[..., 0] == grey[..., 2]).all() and grey[0, 0, 0] == 0 and grey[0, -1, 0] == 255
    red = np.stack([ramp, 0 * ramp, 0 * ramp])
    shown = np.asarray(pictures.draw_overlay(red, one, threshold=1.0))[32:288, 12:268]
    assert shown[0, -1].tolist() == [255, 0, 0]


def test_constant_images_and_maps_can_be_shown():
    flat = np.full((32, 32), 7.0, np.float32)
    assert pictures.draw_overlay(flat[None], flat).size[0] > 3 * 256


@pytest.mark.parametrize(
    ("value", "span", "words"),
    [(1.0, None, "1"), (0.0, None, "0"), (1234.5, None, "1230"), (-2.3456, None, "-2.35"), (3e-5, 2.0, "0"),
     (0.00012345, None, "0.000123"), (2.5e-9, None, "2.5e-09"), (float("nan"), None, "nan")],
)  # fmt: skip
def test_numbers_in_words(value, span, words):
    assert pictures._number(value, span) == words


def test_long_names_keep_their_end():
    short = pictures._shortened("folder/" * 40 + "slice_044", 300)
    assert short.startswith("…") and short.endswith("slice_044")


def test_written_pictures_and_their_sheet_can_be_read_back(tmp_path):
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path in paths:
        one = rng.random((32, 32)).astype(np.float32)
        pictures.overlay(one[None], one, path, anomaly=1.5, low=0.0, high=1.0, threshold=0.9, truth=one > 0.9)
    pictures.contact_sheet(paths, tmp_path / "sheet.png", columns=2, width=400)
    assert Image.open(tmp_path / "sheet.png").width == 800
    assert sorted(found.name for found in tmp_path.iterdir()) == ["0.png", "1.png", "2.png", "sheet.png"]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    one = np.zeros((8, 8), np.float32)
    with pytest.raises(OutputError, match="missing"):
        pictures.overlay(one[None], one, tmp_path / "missing" / "a.png")
