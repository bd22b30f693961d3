"""One DICOM file's header: the slices it holds and where each lies, or why it holds none that can be used."""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from priorlens.errors import InputError
from priorlens.volumes.volume import MAX_VOXELS, ORTHOGONAL

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.tag import BaseTag

SUFFIXES = (".dcm", ".ima")
"""Of files that are taken for DICOM without its magic bytes."""

MARKS = (  # by sequence and element of one frame of an enhanced file, and by element of a file of one slice
    ("StackID", "FrameContentSequence", "StackID", "StackID"),
    ("EchoTime", "MREchoSequence", "EffectiveEchoTime", "EchoTime"),
    ("InversionTime", "MRTimingAndRelatedParametersSequence", "InversionTimes", "InversionTime"),
    ("DiffusionBValue", "MRDiffusionSequence", "DiffusionBValue", "DiffusionBValue"),
    ("DiffusionGradient", "MRDiffusionSequence", "DiffusionGradientDirectionSequence", "DiffusionGradientOrientation"),
    ("TemporalPosition", "FrameContentSequence", "TemporalPositionIndex", "TemporalPositionIdentifier"),
    ("AcquisitionNumber", "FrameContentSequence", "FrameAcquisitionNumber", "AcquisitionNumber"),
    ("TriggerTime", "CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime", "TriggerTime"),
    ("ImageType", "MRImageFrameTypeSequence", "FrameType", "ImageType"),
    ("ImageType", "CTImageFrameTypeSequence", "FrameType", "ImageType"),
    ("ComplexImageComponent", "MRImageFrameTypeSequence", "ComplexImageComponent", "ComplexImageComponent"),
    ("ConvolutionKernel", "CTReconstructionSequence", "ConvolutionKernel", "ConvolutionKernel"),
    ("AcquisitionTime", "FrameContentSequence", "FrameAcquisitionDateTime", "AcquisitionTime"),
)
"""What may tell one acquisition from another of the same places, in the order in which it is asked."""

_TAGS = (
    *("ImageType", "SOPClassUID", "SOPInstanceUID", "Modality", "SeriesDescription", "SeriesInstanceUID"),
    *("StudyInstanceUID", "PatientID", "SeriesNumber", "NumberOfFrames", "ImagePositionPatient"),
    *("ImageOrientationPatient", "PixelSpacing", "Rows", "Columns", "SamplesPerPixel", "BitsAllocated"),
    *("PhotometricInterpretation", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "BurnedInAnnotation"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *(plain for *_, plain in MARKS),
)

GREY = ("MONOCHROME1", "MONOCHROME2")
"""Photometric interpretations that are read: the smallest value is white, or black."""

_CLASS = "1.2.840.10008.5.1.4.1.1."
_DICOMDIR = "1.2.840.10008.1.3.10"
_SLICES = ("2", "2.1", "2.2", "4", "4.1", "4.4", "128", "128.1", "130", "13.1.1", "13.1.2", "13.1.3")
"""SOP classes, after `_CLASS`, whose images have a place in the patient: CT, MR, PET and tomograms of X-rays."""

_PICTURES = ("1", "1.", "3", "3.1", "6", "6.1", "12.", "77.")
"""Those of radiographs, ultrasound, angiography, endoscopy; one that ends in a dot stands for all that begin so."""

_PIXELS = frozenset((0x7FE00008, 0x7FE00009, 0x7FE00010))
_UNDEFINED = 0xFFFFFFFF
_MAX_INFLATED = 2**30
_FARTHEST = 1e6
"""Millimetres, beyond which nothing lies."""


@dataclass(frozen=True)
class Slice:
    """One slice as its header tells.

    position: of its first pixel's centre, in mm, x to the left, y to the back. orientation: cosines along which columns
    and rows count up. spacing: mm between rows, between columns. marks: what of `MARKS` its header tells. pixels: first
    byte and number of bytes in the file, None where only decoding could tell.
    """

    path: Path
    frame: int
    of_frames: int
    sop_instance_uid: str
    series_uid: str
    study_uid: str
    series_number: int
    patient: str
    modality: str
    description: str
    rows: int
    columns: int
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]
    rescale: tuple[str, str]
    marks: dict[str, str]
    burnt_in: bool
    pixels: tuple[int, int] | None

    def __str__(self) -> str:
        return f"{self.path}: frame {self.frame + 1}" if self.of_frames > 1 else f"{self.path}:"


def is_dicom(path: Path) -> bool:
    """Whether a regular file says that it is DICOM, by its first bytes or by its suffix; raises OSError."""
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM" or path.suffix.lower() in SUFFIXES


def read_slices(path: Path) -> list[Slice]:
    """The slices of one file, in the order of its frames; none of a DICOMDIR, which only lists other files.

    Raises:
        InputError: the file is damaged or truncated, or holds anything but slices that have a place in the patient.
    """
    try:
        header, pixels = _read_header(path)
        if header.file_meta.get("MediaStorageSOPClassUID") == _DICOMDIR or header.get("SOPClassUID") == _DICOMDIR:
            return []
        _require_slices(path, header)
        _require_pixels(path, header, pixels)
        return list(_slices(path, header, pixels))
    except InputError:
        raise
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"{path}: cannot be read ({reason}); check its permissions or copy it again") from error
    except Exception as error:  # a damaged header makes pydicom fail in every way there is
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(f"{path}: is truncated or damaged ({reason}); send it again or leave it out") from error


class BoundedFile(io.BufferedReader):
    """A DICOM file that pydicom may read: it inflates a deflated one as a whole, once it has read all that is left.

    That alone is asked for without a number of bytes; it raises InputError where it would swell beyond any scan.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self.path = path

    def read(self, size: int | None = -1, /) -> bytes:
        content = super().read(size)
        if size is None or size < 0:
            _require_bounded(self.path, content)
        return content


def _require_bounded(path: Path, packed: bytes) -> None:
    inflate, total = zlib.decompressobj(-zlib.MAX_WBITS), 0
    while packed and not inflate.eof:
        total += len(inflate.decompress(packed, 2**24))
        packed = inflate.unconsumed_tail
        if total > _MAX_INFLATED:
            raise InputError(f"{path}: inflates to more than 1 GiB; save it with another transfer syntax")


@dataclass
class _Pixels:
    """Where the pixel data stands, as its element tells: first byte and number of bytes; none seen if `length` is 0."""

    start: int = 0
    length: int = 0


@cache
def _wanted_tags() -> list[BaseTag | int]:
    from pydicom.datadict import tag_for_keyword

    return [tag for tag in map(tag_for_keyword, _TAGS) if tag is not None]


def _read_header(path: Path) -> tuple[Dataset, _Pixels]:
    """All that comes before the pixels and is asked for, and where these are."""
    from pydicom.filereader import read_partial
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    pixels = _Pixels()
    with BoundedFile(path) as file:

        def at_pixels(tag: int, vr: str | None, length: int) -> bool:
            seen = int(tag) in _PIXELS  # as a plain number, which compares many times faster
            if seen:
                pixels.start, pixels.length = file.tell(), length
            return seen

        header = read_partial(file, at_pixels, force=True, specific_tags=_wanted_tags())
        size = os.fstat(file.fileno()).st_size
        if (
            header.file_meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian
        ):  # inflated as a whole, so neither cut off nor at a place in the file
            pixels.start = -1
        elif pixels.length == _UNDEFINED:
            _require_all_fragments(file, pixels.start, size, path)
        elif pixels.start + pixels.length > size:
            raise InputError(f"{path}: is truncated, its pixels are cut off; send it again or leave it out")
        if pixels.length == _UNDEFINED:
            pixels.length = size - pixels.start
    return header, pixels


def _require_all_fragments(file: BinaryIO, start: int, size: int, path: Path) -> None:
    """Compressed pixels are fragments, each with its length, up to a delimiter; walks over them without reading."""
    while start + 8 <= size:
        file.seek(start)
        tag, length = file.read(4), int.from_bytes(file.read(4), "little")
        if tag == b"\xfe\xff\xdd\xe0":
            return
        if tag != b"\xfe\xff\x00\xe0":
            break
        start += 8 + length
    raise InputError(f"{path}: is truncated, its compressed pixels are cut off; send it again or leave it out")


def _require_slices(path: Path, header: Dataset) -> None:
    """Raises InputError for all that is DICOM but no slice of a scan."""
    sop_class = header.get("SOPClassUID")
    own = str(sop_class or "").removeprefix(_CLASS)
    what = f"is {getattr(sop_class, 'name', sop_class)}"
    if own == "7" or own.startswith("7."):
        raise InputError(f"{path}: is a secondary capture, a picture of a screen and no scan; leave it out")
    if any(own == picture or (picture.endswith(".") and own.startswith(picture)) for picture in _PICTURES):
        cine = int(header.get("NumberOfFrames") or 1) > 1
        kind = "a cine" if cine else "a single image"
        raise InputError(f"{path}: is {kind} ({getattr(sop_class, 'name', '')}), no scan; export it as PNG")
    if str(sop_class or "").startswith("1.2.840.10008.") and own not in _SLICES:
        raise InputError(f"{path}: {what}, which holds no slices; leave it out")
    if not header.get("Rows") or not header.get("Columns"):
        raise InputError(f"{path}: is truncated or holds no image; send it again or leave it out")
    photometric = _text(header, "PhotometricInterpretation")
    if int(header.get("SamplesPerPixel") or 1) != 1 or photometric not in GREY:
        raise InputError(f"{path}: is in colour ({photometric or 'does not say which'}), no scan; leave it out")
    image_type = _text(header, "ImageType").upper()
    if "SCREEN SAVE" in image_type:
        raise InputError(f"{path}: is a picture of a screen (ImageType SCREEN SAVE), no scan; leave it out")
    if any(word in image_type for word in ("LOCALIZER", "SCOUT", "TOPOGRAM")):
        raise InputError(f"{path}: is a localizer, which scans are planned on; leave it out")
    if header.get("ModalityLUTSequence"):
        raise InputError(f"{path}: maps its values by a table (Modality LUT); export it with a rescale slope")


def _require_pixels(path: Path, header: Dataset, pixels: _Pixels) -> None:
    """Raises InputError where there are fewer pixels than the header tells, or more than are read."""
    frames = int(header.get("NumberOfFrames") or 1)
    voxels = int(header.Rows) * int(header.Columns) * frames
    if not pixels.length:
        raise InputError(f"{path}: is truncated or holds no pixels; send it again or leave it out")
    if voxels > MAX_VOXELS:
        raise InputError(f"{path}: claims {voxels} pixels, more than {MAX_VOXELS}; crop it or correct its header")
    if frames > 1 and "PerFrameFunctionalGroupsSequence" not in header:
        raise InputError(f"{path}: is a cine of {frames} frames that have no place; export the frames as PNG")
    wanted = voxels * int(header.get("BitsAllocated") or 16) // 8
    if not _compressed(header) and pixels.length < wanted:
        raise InputError(f"{path}: has {pixels.length} bytes of pixels where {wanted} are due; send it again")


def _slices(path: Path, header: Dataset, pixels: _Pixels) -> Iterator[Slice]:
    """One of a plain file; of an enhanced one, one a frame."""
    groups: list[Callable[[str], Dataset]] = [lambda sequence: header]
    enhanced = "PerFrameFunctionalGroupsSequence" in header
    if enhanced:
        groups = _frame_groups(header)
        if len(groups) != int(header.get("NumberOfFrames") or 1):
            raise InputError(f"{path}: tells of {len(groups)} frames but has {header.NumberOfFrames}; export it again")
    native = not _compressed(header)
    same: dict[str, Any] = {
        "path": path,
        "of_frames": len(groups),
        "sop_instance_uid": _text(header, "SOPInstanceUID"),
        "series_uid": _text(header, "SeriesInstanceUID"),
        "study_uid": _text(header, "StudyInstanceUID"),
        "series_number": int(header.get("SeriesNumber") or 0),
        "patient": _text(header, "PatientID"),
        "modality": _text(header, "Modality"),
        "description": _text(header, "SeriesDescription"),
        "rows": int(header.Rows),
        "columns": int(header.Columns),
        "burnt_in": _text(header, "BurnedInAnnotation").upper() == "YES",
    }
    for frame, group in enumerate(groups):
        size = pixels.length // len(groups)
        known = pixels.start >= 0 and (native or len(groups) == 1)
        rescale = group("PixelValueTransformationSequence")
        yield Slice(
            frame=frame,
            rescale=(_text(rescale, "RescaleSlope"), _text(rescale, "RescaleIntercept")),
            marks=_marks(group, enhanced),
            pixels=(pixels.start + frame * size, size) if known else None,
            **_place(path, group),
            **same,
        )


def _frame_groups(header: Dataset) -> list[Callable[[str], Dataset]]:
    """For each frame what gives its functional group of a name: its own, or the one it shares with all, or none."""
    from pydicom.dataset import Dataset

    shared = (header.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]

    def groups_of(frame: Dataset) -> Callable[[str], Dataset]:
        return lambda sequence: (frame.get(sequence) or shared.get(sequence) or [Dataset()])[0]

    return [groups_of(frame) for frame in header.PerFrameFunctionalGroupsSequence]


def _place(path: Path, group: Callable[[str], Dataset]) -> dict[str, Any]:
    """Position, orientation and pixel spacing, by the names that `Slice` gives them."""
    position = _numbers(path, group("PlanePositionSequence"), "ImagePositionPatient", 3)
    orientation = _numbers(path, group("PlaneOrientationSequence"), "ImageOrientationPatient", 6)
    spacing = _numbers(path, group("PixelMeasuresSequence"), "PixelSpacing", 2)
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    lengths = np.array([np.linalg.norm(row), np.linalg.norm(column)])
    if (abs(lengths - 1) > ORTHOGONAL).any() or abs(row @ column) > ORTHOGONAL:
        raise InputError(f"{path}: its ImageOrientationPatient is none (unit vectors at right angles); export it again")
    if min(spacing) <= 0:
        raise InputError(f"{path}: its PixelSpacing is not above 0; export it again or leave it out")
    return {"position": position, "orientation": orientation, "spacing": spacing}


def _numbers(path: Path, values: Dataset, keyword: str, count: int) -> tuple[float, ...]:
    found = values.get(keyword)
    numbers = tuple(float(value) for value in found) if found is not None and found != "" else ()
    if len(numbers) != count or not (abs(np.array(numbers)) < _FARTHEST).all():
        raise InputError(f"{path}: does not tell where it lies ({keyword}); export it again with its whole header")
    return numbers


def _marks(group: Callable[[str], Dataset], enhanced: bool) -> dict[str, str]:
    marks: dict[str, str] = {}
    for name, sequence, of_frame, plain in MARKS:
        value = _text(group(sequence), of_frame if enhanced else plain)
        if value:
            marks.setdefault(name, value)
    return marks


def _compressed(header: Dataset) -> bool:
    syntax = header.file_meta.get("TransferSyntaxUID")
    known = syntax is not None and syntax.is_transfer_syntax
    return known and syntax.is_encapsulated


def _text(values: Dataset, keyword: str) -> str:
    """An element's value on one line, "" where there is none."""
    return " ".join(str(values.get(keyword) or "").split())
