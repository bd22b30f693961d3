"""Pictures of a results folder, small enough that hundreds of them go into one page."""

from __future__ import annotations

import base64
import io
import warnings
from pathlib import Path

from PIL import Image

from priorlens.errors import InputError
from priorlens.pictures import displayable, without_words
from priorlens.report.layer import read_layer

WIDTH = 900
"""Of an overlay with its three panels."""

_QUALITY, _LARGEST_SIDE = 72, 256


def overlay_thumbnail(path: Path) -> str | None:
    """An overlay as a `data:` address, without the words below its panels, which name the image; None where it cannot
    be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of damage and of pictures half as large as it would refuse
            with Image.open(path) as opened:
                picture = without_words(opened.convert("RGB"))
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    picture.thumbnail((WIDTH, WIDTH), Image.Resampling.BILINEAR)
    return _address(picture)


def reconstruction_thumbnail(path: Path) -> str | None:
    """A reconstruction, between its own 0.5th and 99.5th percentile; None where it cannot be read."""
    try:
        values = read_layer(path).values
    except InputError:
        return None
    if values.ndim != 3 or not values.size:
        return None
    picture = Image.fromarray(displayable(values))
    larger = max(1, _LARGEST_SIDE // max(picture.size))
    picture = picture.resize((picture.width * larger, picture.height * larger), Image.Resampling.NEAREST)
    picture.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE))
    return _address(picture)


def _address(picture: Image.Image) -> str:
    content = io.BytesIO()
    picture.save(content, format="WEBP", quality=_QUALITY, method=2)
    return "data:image/webp;base64," + base64.b64encode(content.getvalue()).decode("ascii")
