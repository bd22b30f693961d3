"""The pixels of one DICOM file, decoded and rescaled: any transfer syntax for which there is a decoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32

from priorlens.errors import InputError
from priorlens.volumes.dicom_decoder import Decoder
from priorlens.volumes.dicom_headers import GREY, BoundedFile
from priorlens.volumes.volume import MAX_VOXELS

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


_AT_ONCE = 2**20
"""Pixels that are rescaled at once."""

_SAFE_DECODERS = ("pylibjpeg", "pyjpegls", "pillow")
"""Asked before GDCM, in which damaged JPEG and JPEG 2000 ends the whole process: see `dicom_decoder`."""


@dataclass(frozen=True)
class PlaneOfPixels:
    """One slice's values after its rescale slope and intercept, nan where the scanner only padded the picture.

    hounsfield: whether they are HU. white_is_low: whether the smallest is displayed white (MONOCHROME1).
    """

    values: Float32[np.ndarray, "row column"]
    hounsfield: bool
    white_is_low: bool


def read_planes(path: Path, frames: Sequence[int], size: tuple[int, int], decoder: Decoder) -> Iterator[PlaneOfPixels]:
    """The frames of a file, from 0, in the order asked for; `size` is the (rows, columns) that are expected.

    Raises:
        InputError: the file is missing, damaged or changed; its transfer syntax has no decoder here; or a value is not
            a number.
    """
    dataset = _read(path)
    found = (int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0))
    if found != size or size[0] * size[1] > MAX_VOXELS:
        raise InputError(f"{path}: is {found[1]}x{found[0]} pixels where {size[1]}x{size[0]} were found; start again")
    if dataset.get("PhotometricInterpretation") not in GREY or dataset.get("SamplesPerPixel", 1) != 1:
        raise InputError(f"{path}: is in colour ({dataset.get('PhotometricInterpretation')}), no scan; leave it out")
    for frame, stored in zip(frames, _decoded(path, dataset, frames, decoder), strict=True):
        yield _plane(path, dataset, frame, stored)


def _read(path: Path) -> Dataset:
    from pydicom import dcmread
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    try:
        if not path.is_file():
            raise InputError(f"{path}: is not there any more; start again")
        with BoundedFile(path) as file:
            dataset = dcmread(file, force=True)
        if "TransferSyntaxUID" not in dataset.file_meta:  # of a file without its first part: as pydicom could read it
            implicit, little = dataset.original_encoding
            explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
            dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
        return dataset
    except InputError:
        raise
    except Exception as error:
        raise _damaged(path, error) from error


def _decoded(path: Path, dataset: Dataset, frames: Sequence[int], decoder: Decoder) -> Iterator[np.ndarray]:
    """Stored values, in whatever type they are stored."""
    from pydicom.pixels import get_decoder, iter_pixels

    syntax = dataset.file_meta.TransferSyntaxUID
    remedy = "save it uncompressed (Explicit VR Little Endian)"
    try:
        known = get_decoder(syntax)
        if not known.is_available:
            raise NotImplementedError
        plugins = known.available_plugins if syntax.is_encapsulated else ()
        plugin = next((name for name in _SAFE_DECODERS if name in plugins), "")
        if syntax.is_encapsulated:
            _require_claimed_size(path, dataset, frames)
    except NotImplementedError:
        raise InputError(f"{path}: is compressed by {syntax.name}, for which there is no decoder; {remedy}") from None
    except InputError:
        raise
    except Exception as error:
        raise _damaged(path, error) from error
    try:
        if plugins == ("gdcm",):
            yield from decoder.decode(path, frames)
        else:
            yield from iter_pixels(dataset, indices=frames, raw=True, decoding_plugin=plugin)
    except MemoryError as error:
        raise InputError(f"{path}: its pixels do not fit into memory; crop it or use a larger machine") from error
    except Exception as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        what = f"pixels in {syntax.name} cannot be decoded ({reason})"
        raise InputError(f"{path}: its {what}; send it again or {remedy}") from error


def _require_claimed_size(path: Path, dataset: Dataset, frames: Sequence[int]) -> None:
    """Raises InputError where compressed pixels claim another form than the header, before a decoder takes memory."""
    from pydicom.encaps import get_frame

    count = int(dataset.get("NumberOfFrames") or 1)
    for frame in frames:
        claimed = _claimed(get_frame(dataset.PixelData, frame, number_of_frames=count))
        if claimed is None:
            continue
        rows, columns, bits = claimed
        if (rows, columns) != (dataset.Rows, dataset.Columns) or not 1 <= bits <= dataset.BitsAllocated:
            own = f"{dataset.Columns}x{dataset.Rows} of {dataset.BitsAllocated} bits"
            what = f"compressed pixels claim {columns}x{rows} of {bits} bits, its header {own}"
            raise InputError(f"{path}: its {what}; send it again or leave it out")


def _claimed(content: bytes) -> tuple[int, int, int] | None:
    """(rows, columns, bits) by the first frame header of JPEG, JPEG-LS or JPEG 2000; None of anything else."""
    if content[:4] == b"\xff\x4f\xff\x51":  # JPEG 2000: the size of the grid less its offset
        right, bottom, left, top = (int.from_bytes(content[at : at + 4], "big") for at in (8, 12, 16, 20))
        return bottom - top, right - left, (content[42] & 0x7F) + 1
    at = 2
    while content[:2] == b"\xff\xd8" and at + 9 <= len(content) and content[at] == 0xFF:
        marker = content[at + 1]
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            rows, columns = content[at + 5 : at + 7], content[at + 7 : at + 9]
            return int.from_bytes(rows, "big"), int.from_bytes(columns, "big"), content[at + 4]
        at += 1 if marker == 0xFF else 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    return None


def _plane(path: Path, dataset: Dataset, frame: int, stored: np.ndarray) -> PlaneOfPixels:
    try:
        slope, intercept, hounsfield = _rescale(dataset, frame)
        padded = _padded(dataset, stored)
    except Exception as error:
        raise _damaged(path, error) from error
    if not np.isfinite([slope, intercept]).all() or slope == 0:
        raise InputError(f"{path}: its rescale slope {slope:g} and intercept {intercept:g} give no values; correct it")
    values = np.empty(stored.shape, np.float32)
    step = max(1, _AT_ONCE // max(stored.shape[-1], 1))
    with np.errstate(over="ignore", invalid="ignore"):  # what float32 cannot hold is refused just below
        for start in range(0, len(stored), step):  # float64 of a slice as large as it may be would take gigabytes
            rows = slice(start, start + step)
            values[rows] = stored[rows].astype(np.float64) * slope + intercept
    if not np.isfinite(values).all():
        raise InputError(f"{path}: has nan or infinite pixels; replace them by numbers or leave it out")
    if padded is not None:
        values[padded] = np.nan
    return PlaneOfPixels(values, hounsfield, dataset.PhotometricInterpretation == "MONOCHROME1")


def _rescale(dataset: Dataset, frame: int) -> tuple[float, float, bool]:
    """Slope, intercept, and whether they give HU: of a CT that has them and does not call their result otherwise."""
    values = dataset
    if "PerFrameFunctionalGroupsSequence" in dataset:
        name = "PixelValueTransformationSequence"
        shared = (dataset.get("SharedFunctionalGroupsSequence") or [{}])[0]
        own = dataset.PerFrameFunctionalGroupsSequence[frame]
        values = (own.get(name) or shared.get(name) or [dataset])[0]
    slope, intercept = values.get("RescaleSlope"), values.get("RescaleIntercept")
    told = slope is not None or intercept is not None
    hounsfield = dataset.get("Modality") == "CT" and told and (values.get("RescaleType") or "HU") == "HU"
    return 1.0 if slope is None else float(slope), float(intercept or 0), hounsfield


def _padded(dataset: Dataset, stored: np.ndarray) -> np.ndarray | None:
    """Where the picture was only filled up, by PixelPaddingValue and its range; None where the header names none."""
    value = dataset.get("PixelPaddingValue")
    if value is None or stored.dtype.kind not in "iu":
        return None
    limit = dataset.get("PixelPaddingRangeLimit")
    # As the bits of a stored value: files call 63536 what, signed, is -2000.
    ends = np.array([int(end) % 2**64 for end in (value, value if limit is None else limit)], np.uint64)
    low, high = np.sort(ends.astype(stored.dtype))
    return (stored >= low) & (stored <= high)


def _damaged(path: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:120] or type(error).__name__
    return InputError(f"{path}: is truncated or damaged ({reason}); send it again or leave it out")
