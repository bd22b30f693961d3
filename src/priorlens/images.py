"""One image file, as the intensities it stores: PNG, JPEG, TIFF, BMP and NPY, grey or colour, 8 or 16 bit."""

from __future__ import annotations

import ctypes
import logging
import math
import os
import warnings
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps
from jaxtyping import Bool, Float32

from priorlens.errors import InputError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".npy")
"""What `read_image` reads; upper case does as well."""

MIN_SIDE = 8
"""Fewer pixels than this along a side are not an image."""

MAX_PIXELS = 2 * 1024**3 // 4 // 3
"""Height times width that is still read: 179 megapixels, where Pillow too speaks of a decompression bomb."""

_PILLOW_FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
logging.getLogger("PIL").addHandler(logging.NullHandler())  # else what it says of damage goes to stderr as well

_GREY_TOLERANCE = 6 / 255
_GREY_SHARE = 0.999


@dataclass(frozen=True)
class Image:
    """An image as stored: `pixels` are its raw intensities, not scaled, in 1 (grey) or 3 (red, green, blue) channels.

    `full_scale` is the largest intensity the file's integer type can hold (255 or 65535), nan where the type does
    not tell (floats, signed and 32-bit integers).
    """

    pixels: Float32[np.ndarray, "channel height width"]
    path: Path
    full_scale: float


def read_image(path: Path) -> Image:
    """Read one image: EXIF rotation applied, alpha dropped, colour that is really grey reduced to one channel.

    Colour with 16 bits per channel is read with 8: Pillow has no more. NPY holds height x width, or that with 1 or 3
    channels first or last.

    Raises:
        InputError: missing, empty, truncated, not an image, of several pages, too small or too large, with nan or
            infinite pixels, or constant.
    """
    pixels, full_scale = _read(path)
    _, height, width = pixels.shape
    if min(height, width) < MIN_SIDE:
        raise InputError(f"{path}: is {width}x{height} pixels; at least {MIN_SIDE}x{MIN_SIDE} are needed, leave it out")
    if len(pixels) == 3:
        pixels = _grey_if_grey(pixels, full_scale)
    if (pixels == pixels[:, :1, :1]).all():
        raise InputError(f"{path}: is constant, every pixel is the same; leave it out")
    return Image(pixels, path, full_scale)


def read_mask(path: Path, size: tuple[int, int]) -> Bool[np.ndarray, "height width"]:
    """Read a lesion mask: True where the intensity is above half of the file's largest. An all-zero mask is no lesion.

    `size` is the (height, width) of the image the mask belongs to.

    Raises:
        InputError: as `read_image` (but a mask may be constant), or the mask has another size than its image.
    """
    pixels, _ = _read(path)
    intensity = pixels.max(axis=0)
    if intensity.shape != size:
        (height, width), (image_height, image_width) = intensity.shape, size
        raise InputError(
            f"{path}: the mask is {width}x{height} pixels but its image is {image_width}x{image_height}; "
            "export both at the same size"
        )
    largest = float(intensity.max())
    return intensity > largest / 2 if largest > 0 else np.zeros(size, dtype=bool)


def _read(path: Path) -> tuple[Float32[np.ndarray, "channel height width"], float]:
    """The pixels of any readable, finite image, and its full scale."""
    suffix = path.suffix.lower()
    if suffix not in IMAGE_SUFFIXES:
        raise InputError(f"{path}: is not one of {' '.join(IMAGE_SUFFIXES)}; convert it to one of these")
    require_content(path, "not an image; name the images in it", "the image")
    try:
        pixels, full_scale = _read_npy(path) if suffix == ".npy" else _read_with_pillow(path)
    except InputError:
        raise
    except PIL.UnidentifiedImageError as error:
        raise InputError(f"{path}: is not an image that can be read; export it again or leave it out") from error
    except PIL.Image.DecompressionBombError as error:
        raise _too_large(path) from error
    except Exception as error:  # a damaged file makes decoders fail in every way there is, SyntaxError and KeyError too
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: is truncated or damaged ({reason}); export it again or leave it out") from error
    if not np.isfinite(pixels).all():
        raise InputError(f"{path}: has nan or infinite pixels; replace them by numbers or leave it out")
    return pixels, full_scale


def require_content(path: Path, of_folder: str, what: str) -> None:
    """Raises InputError where there is nothing to read. of_folder: what is said of a folder; what: is to be copied."""
    try:
        if path.is_dir():
            raise InputError(f"{path}: is a folder, {of_folder}")
        if not path.exists():
            raise InputError(f"{path}: there is no such file; check the path", passing=True)
        if not path.is_file():  # reading a pipe or a device might never end
            raise InputError(f"{path}: is not a regular file; copy {what} to one")
        if path.stat().st_size == 0:
            raise InputError(f"{path}: is empty; export it again or leave it out")
        if not os.access(path, os.R_OK):
            raise InputError(f"{path}: may not be read; change its permissions or leave it out", passing=True)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        reason = getattr(error, "strerror", None) or str(error)
        line = f"{path}: cannot be read ({reason}); check the path and its permissions"
        raise InputError(line, passing=True) from error


def _read_with_pillow(path: Path) -> tuple[Float32[np.ndarray, "channel height width"], float]:
    _silence_libtiff()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata and of images half as large as it would refuse
        # From a file object, because by path Pillow 11 to 13 maps a plain TIFF into memory and scrambles a turned one.
        with open(path, "rb") as file, PIL.Image.open(file, formats=_PILLOW_FORMATS) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise _too_large(path)
            # A JPEG may carry previews as further frames, which do not matter; a stack of slices does.
            if picture.format in ("TIFF", "PNG") and getattr(picture, "n_frames", 1) > 1:
                raise InputError(f"{path}: has several pages; save each as a file of its own")
            picture.load()  # which turns a TIFF by itself; asked before, it would be turned twice
            upright = PIL.ImageOps.exif_transpose(picture)
            return _intensities(upright, is_png=picture.format == "PNG")


@cache
def _silence_libtiff() -> None:
    """Of damage it writes to stderr by itself, past Python, beside what is raised."""
    with suppress(AttributeError, OSError):  # of a Pillow that is built otherwise
        handler = ctypes.CDLL(PIL.Image.core.__file__).TIFFSetErrorHandler
        handler.argtypes, handler.restype = [ctypes.c_void_p], ctypes.c_void_p
        handler(None)


def _intensities(picture: PIL.Image.Image, is_png: bool) -> tuple[Float32[np.ndarray, "channel height width"], float]:
    """What Pillow decoded, with its full scale, by Pillow's pixel modes."""
    match picture.mode:
        case "F":
            full_scale = math.nan
        case "I":  # 32 bits; older Pillow widens the 16 bits of a PNG to these
            full_scale = 65535.0 if is_png else math.nan
        case "I;16" | "I;16L" | "I;16B" | "I;16N":
            full_scale = 65535.0
        case "1" | "L" | "LA" | "La":
            picture, full_scale = picture.convert("L"), 255.0
        case "P" | "PA":  # by way of RGBA, so that transparent entries of the palette keep their colour
            picture, full_scale = picture.convert("RGBA").convert("RGB"), 255.0
        case _:
            picture, full_scale = picture.convert("RGB"), 255.0
    stored = np.asarray(picture)
    channels_first = stored[None] if stored.ndim == 2 else np.moveaxis(stored, 2, 0)
    return np.ascontiguousarray(channels_first, dtype=np.float32), full_scale


def _read_npy(path: Path) -> tuple[Float32[np.ndarray, "channel height width"], float]:
    # Mapped, not read: whatever size the header claims, nothing is allocated, and a file too short for it is refused.
    try:
        with np.errstate(over="ignore"), warnings.catch_warnings():  # of the claimed size
            warnings.simplefilter("ignore")  # of headers that Python 2 wrote
            stored = np.lib.format.open_memmap(path, mode="r")
    except ValueError as error:
        if "Python objects" not in str(error):
            raise
        raise InputError(f"{path}: holds pickled Python objects, which are never loaded; save plain numbers") from error
    if stored.dtype.kind not in "buif":
        raise InputError(f"{path}: holds {stored.dtype} values; save real numbers")
    if stored.ndim == 2:
        channels_first = stored[None]
    elif stored.ndim == 3 and stored.shape[0] in (1, 3):
        channels_first = stored
    elif stored.ndim == 3 and stored.shape[2] in (1, 3):
        channels_first = np.moveaxis(stored, 2, 0)
    else:
        raise InputError(f"{path}: has shape {stored.shape}; save one image, height x width or with 1 or 3 channels")
    if channels_first[0].size > MAX_PIXELS:
        raise _too_large(path)
    full_scale = {"uint8": 255.0, "uint16": 65535.0}.get(stored.dtype.name, math.nan)
    with np.errstate(over="ignore", invalid="ignore"):  # what float32 cannot hold becomes infinite, and is refused
        return np.array(channels_first, dtype=np.float32, order="C"), full_scale


def _grey_if_grey(
    pixels: Float32[np.ndarray, "3 height width"], full_scale: float
) -> Float32[np.ndarray, "channel height width"]:
    """One channel, their mean, where the three agree but for what JPEG does to greys."""
    with np.errstate(over="ignore"):  # of floats near the largest, whose sums and differences are infinite: colour
        scale = full_scale if math.isfinite(full_scale) else float(np.ptp(pixels))
        agree = np.ptp(pixels, axis=0) <= _GREY_TOLERANCE * scale
        if agree.mean() < _GREY_SHARE:
            return pixels
        grey = pixels.mean(axis=0, keepdims=True)
    return grey if np.isfinite(grey).all() else pixels


def _too_large(path: Path) -> InputError:
    return InputError(f"{path}: has more than {MAX_PIXELS // 10**6} megapixels; crop or shrink it")
