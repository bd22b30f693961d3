"""One image file as the intensities it stores, and every file that is not one."""

import io
import math
import os
import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from priorlens import images
from priorlens.errors import InputError
from priorlens.images import read_image, read_mask

RAMP = np.arange(12 * 10, dtype=np.uint8).reshape(12, 10)
RAMP16 = (RAMP.astype(np.uint16) * 500 + 7).astype(np.uint16)
COLOUR = np.stack([RAMP, RAMP[::-1], 200 - RAMP], axis=2)


def save(folder: Path, array: np.ndarray, name: str, **options: object) -> Path:
    path = folder / name
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        PIL.Image.fromarray(array).save(path, **options)
    return path


def refusal(path: Path, reason: str, **mask: tuple[int, int]) -> None:
    with pytest.raises(InputError) as error:
        read_mask(path, **mask) if mask else read_image(path)
    text = str(error.value)
    assert "\n" not in text and str(path) in text, text
    assert reason in text, text


@pytest.mark.parametrize("suffix", [".png", ".tif", ".TIFF", ".bmp", ".npy", ".PNG"])
@pytest.mark.parametrize("array", [RAMP, COLOUR], ids=["grey", "colour"])
def test_eight_bit_is_read_exactly(tmp_path: Path, array: np.ndarray, suffix: str) -> None:
    image = read_image(save(tmp_path, array, f"x{suffix}"))
    assert image.full_scale == 255 and image.pixels.dtype == np.float32 and image.pixels.flags.c_contiguous
    np.testing.assert_array_equal(image.pixels, array[None] if array.ndim == 2 else np.moveaxis(array, 2, 0))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy"])
def test_sixteen_bit_is_read_exactly(tmp_path: Path, suffix: str) -> None:
    image = read_image(save(tmp_path, RAMP16, f"x{suffix}"))
    assert image.full_scale == 65535
    np.testing.assert_array_equal(image.pixels[0], RAMP16)


def test_big_endian_sixteen_bit_tiff(tmp_path: Path) -> None:
    image = read_image(save(tmp_path, RAMP16.astype(">u2"), "x.tif"))
    assert image.full_scale == 65535
    np.testing.assert_array_equal(image.pixels[0], RAMP16)


@pytest.mark.parametrize("suffix", [".tif", ".npy"])
@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_other_types_have_no_full_scale(tmp_path: Path, dtype: type, suffix: str) -> None:
    array = RAMP.astype(dtype) * 3 - 50
    image = read_image(save(tmp_path, array, f"x{suffix}"))
    assert math.isnan(image.full_scale)
    np.testing.assert_array_equal(image.pixels[0], array)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8, np.int64, bool, ">f4", ">u2"])
def test_every_real_npy_type(tmp_path: Path, dtype: object) -> None:
    array = (RAMP % 2).astype(dtype)
    np.testing.assert_array_equal(read_image(save(tmp_path, array, "x.npy")).pixels[0], array)


@pytest.mark.parametrize("shape", [(1, 12, 10), (12, 10, 1)])
def test_npy_channel_axis(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.testing.assert_array_equal(read_image(save(tmp_path, RAMP.reshape(shape), "x.npy")).pixels[0], RAMP)
    first = np.moveaxis(COLOUR, 2, 0)
    np.testing.assert_array_equal(read_image(save(tmp_path, first, "first.npy")).pixels, first)


def test_jpeg_grey_stored_as_colour_is_one_channel(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noisy = np.clip(np.kron(RAMP * 2.0, np.ones((4, 4))) + rng.normal(0, 4, (48, 40)), 0, 255).astype(np.uint8)
    tinted = np.stack([noisy, noisy, np.clip(noisy, 2, None) - 2], axis=2)
    path = save(tmp_path, tinted, "x.jpg", quality=95)
    stored = np.asarray(PIL.Image.open(path)).astype(int)
    assert np.ptp(stored, axis=2).any(), "the channels differ a little in the file"
    image = read_image(path)
    assert image.pixels.shape == (1, 48, 40) and abs(image.pixels[0] - noisy).mean() < 5


def test_equal_channels_are_one_exactly(tmp_path: Path) -> None:
    image = read_image(save(tmp_path, np.stack([RAMP] * 3, axis=2), "x.png"))
    np.testing.assert_array_equal(image.pixels[0], RAMP)


@pytest.mark.parametrize(("marked", "channels"), [(1, 1), (4, 3)])
def test_a_coloured_mark_counts_from_one_pixel_in_a_thousand(tmp_path: Path, marked: int, channels: int) -> None:
    array = np.stack([np.tile(RAMP, (4, 5))[:40, :50]] * 3, axis=2)  # 2000 pixels
    array[0, :marked, 0] = 255
    assert len(read_image(save(tmp_path, array, "x.png")).pixels) == channels


def test_grey_tolerance_of_floats_is_relative_to_their_range(tmp_path: Path) -> None:
    colour = COLOUR / np.float32(1e4)
    assert len(read_image(save(tmp_path, colour, "colour.npy")).pixels) == 3
    grey = np.stack([RAMP / np.float32(1e4)] * 3)
    assert len(read_image(save(tmp_path, grey, "grey.npy")).pixels) == 1


def test_alpha_is_dropped(tmp_path: Path) -> None:
    alpha = np.where(RAMP % 3, 0, 255).astype(np.uint8)[..., None]
    grey, colour = np.concatenate([RAMP[..., None], alpha], 2), np.concatenate([COLOUR, alpha], 2)
    np.testing.assert_array_equal(read_image(save(tmp_path, grey, "grey.png")).pixels[0], RAMP)
    np.testing.assert_array_equal(read_image(save(tmp_path, colour, "colour.png")).pixels, np.moveaxis(COLOUR, 2, 0))


def test_palette(tmp_path: Path) -> None:
    picture = PIL.Image.fromarray(RAMP % 4).convert("P")
    picture.putdata((RAMP % 4).ravel().tolist())
    picture.putpalette([10, 10, 10, 90, 90, 90, 200, 200, 200, 250, 250, 250])
    picture.save(tmp_path / "grey.png", transparency=1)
    expected = np.array([10, 90, 200, 250])[RAMP % 4]
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png").pixels[0], expected)
    picture.putpalette([10, 10, 10, 255, 0, 0, 0, 255, 0, 250, 250, 250])
    picture.save(tmp_path / "colour.png", transparency=b"\x00\x80\xff\xff")
    assert read_image(tmp_path / "colour.png").pixels.shape == (3, 12, 10)
    assert read_image(tmp_path / "colour.png").pixels[:, RAMP % 4 == 1][:, 0].tolist() == [255, 0, 0]


def test_one_bit_and_cmyk(tmp_path: Path) -> None:
    PIL.Image.fromarray(RAMP % 2 > 0).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(read_image(tmp_path / "bits.png").pixels[0], RAMP % 2 * 255.0)
    PIL.Image.fromarray(COLOUR).convert("CMYK").save(tmp_path / "print.tif")
    assert read_image(tmp_path / "print.tif").pixels.shape == (3, 12, 10)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_exif_rotation_is_applied(tmp_path: Path, suffix: str) -> None:
    bright_top = np.zeros((32, 16), np.uint8)
    bright_top[:8] = 250
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # to be shown turned clockwise by a quarter
    image = read_image(save(tmp_path, bright_top, f"x{suffix}", exif=exif))
    assert image.pixels.shape == (1, 16, 32)
    assert image.pixels[0, :, 24:].mean() > 240 and image.pixels[0, :, :24].mean() < 10


def test_sixteen_bit_rotation_keeps_the_depth(tmp_path: Path) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 3
    image = read_image(save(tmp_path, RAMP16, "x.png", exif=exif))
    np.testing.assert_array_equal(image.pixels[0], RAMP16[::-1, ::-1])


def encoded(suffix: str) -> bytes:
    rng = np.random.default_rng(1)
    array = rng.integers(0, 256, (24, 20), dtype=np.uint8)
    buffer = io.BytesIO()
    if suffix == ".npy":
        np.save(buffer, array)
    else:
        options = {"compression": "tiff_lzw"} if suffix == ".lzw.tif" else {}
        kind = {".png": "PNG", ".jpg": "JPEG", ".bmp": "BMP"}.get(suffix, "TIFF")
        PIL.Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp", ".npy"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated_file(tmp_path: Path, suffix: str, share: float) -> None:
    content = encoded(suffix)
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content[: int(share * len(content))])
    refusal(path, "export it again or leave it out")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(suffix=st.sampled_from([".png", ".jpg", ".tif", ".lzw.tif", ".bmp", ".npy"]), data=st.data())
def test_a_damaged_file_is_read_or_refused_in_one_line(tmp_path: Path, suffix: str, data: st.DataObject) -> None:
    content = bytearray(encoded(suffix))
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        image = read_image(path)
    except InputError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    else:
        assert np.isfinite(image.pixels).all()


def test_files_that_are_no_images(tmp_path: Path) -> None:
    refusal(tmp_path / "missing.png", "there is no such file")
    (tmp_path / "folder.png").mkdir()
    refusal(tmp_path / "folder.png", "is a folder")
    (tmp_path / "empty.png").touch()
    refusal(tmp_path / "empty.png", "is empty")
    (tmp_path / "text.png").write_text("not a picture")
    refusal(tmp_path / "text.png", "is not an image")
    (tmp_path / "slice.dcm").write_text("DICM")
    refusal(tmp_path / "slice.dcm", "convert it")
    os.mkfifo(tmp_path / "pipe.png")
    refusal(tmp_path / "pipe.png", "not a regular file")


def test_a_png_by_another_name_is_read_by_its_content(tmp_path: Path) -> None:
    save(tmp_path, RAMP, "x.png").rename(tmp_path / "x.jpg")
    np.testing.assert_array_equal(read_image(tmp_path / "x.jpg").pixels[0], RAMP)


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path, RAMP, "x.png")
    monkeypatch.setattr(os, "access", lambda *_: False)
    refusal(path, "may not be read")


def test_several_pages(tmp_path: Path) -> None:
    page = PIL.Image.fromarray(RAMP)
    page.save(tmp_path / "x.tif", save_all=True, append_images=[page, page])
    refusal(tmp_path / "x.tif", "several pages")


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e300])
def test_pixels_that_are_not_finite(tmp_path: Path, value: float) -> None:
    array = RAMP.astype(np.float64)
    array[3, 4] = value
    refusal(save(tmp_path, array, "x.npy"), "nan or infinite")


@pytest.mark.parametrize("array", [np.full((9, 9), 7, np.uint8), np.full((9, 9, 3), [9, 200, 9], np.uint8)])
def test_constant(tmp_path: Path, array: np.ndarray) -> None:
    refusal(save(tmp_path, array, "x.png"), "is constant")


def test_too_small(tmp_path: Path) -> None:
    refusal(save(tmp_path, RAMP[:7], "x.png"), "10x7 pixels")
    assert read_image(save(tmp_path, RAMP[:8, :8], "y.png")).pixels.shape == (1, 8, 8)


@pytest.mark.parametrize("suffix", [".png", ".npy"])
def test_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 119)
    refusal(save(tmp_path, RAMP, f"x{suffix}"), "megapixels")


def test_decompression_bomb_is_not_decoded(tmp_path: Path) -> None:
    content = bytearray(encoded(".png"))
    content[16:24] = struct.pack(">II", 20_000, 20_000)  # the size in the header, with the checksum that goes with it
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (tmp_path / "x.png").write_bytes(content)
    refusal(tmp_path / "x.png", "more than 178 megapixels")


def npy_claiming(shape: tuple[int, ...], content: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return buffer.getvalue() + content


@pytest.mark.parametrize("shape", [(10**6, 10**6), (2**62, 2**62), (100, 100), (-5, 8)])
def test_npy_header_that_claims_more_than_the_file_holds(tmp_path: Path, shape: tuple[int, ...]) -> None:
    (tmp_path / "x.npy").write_bytes(npy_claiming(shape, b"\0" * 64))
    refusal(tmp_path / "x.npy", "truncated or damaged")


def test_npy_that_is_huge_but_sparse_on_disk(tmp_path: Path) -> None:
    with open(tmp_path / "x.npy", "wb") as file:
        file.write(npy_claiming((15_000, 15_000)))
        file.truncate(file.tell() + 4 * 15_000**2)
    refusal(tmp_path / "x.npy", "megapixels")


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("sprung",)


def test_pickles_are_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save(tmp_path / "objects.npy", np.array([[Trap()] * 9] * 9), allow_pickle=True)
    refusal(tmp_path / "objects.npy", "pickled Python objects")
    (tmp_path / "pickle.npy").write_bytes(pickle.dumps(Trap()))
    refusal(tmp_path / "pickle.npy", "truncated or damaged")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "array", [np.zeros(20), np.zeros((9, 9, 9)), np.zeros((3, 9, 9, 1)), np.zeros((0, 9)), np.zeros((9, 9), complex)]
)
def test_npy_that_is_no_image(tmp_path: Path, array: np.ndarray) -> None:
    with pytest.raises(InputError) as error:
        read_image(save(tmp_path, array, "x.npy"))
    assert str(tmp_path / "x.npy") in str(error.value) and "\n" not in str(error.value)


def test_npz_by_the_name_of_an_npy(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", RAMP)
    (tmp_path / "x.npz").rename(tmp_path / "x.npy")
    refusal(tmp_path / "x.npy", "truncated or damaged")


LESION = np.zeros((12, 10), np.uint8)
LESION[2:5, 3:7] = 1


@pytest.mark.parametrize("high", [1, 255])
@pytest.mark.parametrize("suffix", [".png", ".npy", ".tif"])
def test_mask(tmp_path: Path, high: int, suffix: str) -> None:
    mask = read_mask(save(tmp_path, LESION * np.uint8(high), f"x{suffix}"), (12, 10))
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, LESION > 0)


def test_coloured_mask(tmp_path: Path) -> None:
    red = np.stack([LESION * 255, 0 * LESION, 0 * LESION], axis=2).astype(np.uint8)
    np.testing.assert_array_equal(read_mask(save(tmp_path, red, "x.png"), (12, 10)), LESION > 0)


def test_soft_mask_is_cut_at_half(tmp_path: Path) -> None:
    soft = np.tile(np.array([0, 99, 100, 101, 200], np.uint8), (8, 2))
    assert read_mask(save(tmp_path, soft, "x.png"), (8, 10))[0, :5].tolist() == [False, False, False, True, True]


def test_constant_masks_are_none_or_all_of_it(tmp_path: Path) -> None:
    assert not read_mask(save(tmp_path, LESION * 0, "none.png"), (12, 10)).any()
    assert read_mask(save(tmp_path, LESION * 0 + 255, "all.png"), (12, 10)).all()


def test_mask_of_another_size(tmp_path: Path) -> None:
    refusal(save(tmp_path, LESION, "x.png"), "10x12 pixels but its image is 12x10", size=(10, 12))
    refusal(tmp_path / "missing.png", "there is no such file", size=(10, 12))
