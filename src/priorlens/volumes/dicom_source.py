"""What a DICOM result takes over from the series it was made from: whose it is, where it lies, what it refers to."""

from __future__ import annotations

import math
import uuid
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from priorlens.errors import InputError, PriorlensError
from priorlens.volumes.damage import reading
from priorlens.volumes.dicom_files import Series

if TYPE_CHECKING:
    from pydicom import Dataset

_IDENTIFIERS = ("PatientID", "IssuerOfPatientID", "PatientName", "StudyInstanceUID", "StudyID", "AccessionNumber")
"""Carried over as they stand, whatever is wrong with them: a result must never become somebody else's."""

_REQUIRED = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
)
"""What every DICOM object must have, if empty (type 2)."""

_CARRIED = (
    *_REQUIRED,
    *("PatientAge", "PatientSize", "PatientWeight", "StudyDescription", "PositionReferenceIndicator", "Laterality"),
    *("PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence"),
    *("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"),
    *("Modality", "Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions", "InstitutionName"),
)
"""Carried over where valid: a date that is none would make the result invalid as well."""

_PLAIN_CHARACTER_SETS = tuple(f"ISO_IR {number}" for number in (13, 100, 101, 109, 110, 126, 127, 138, 144, 148, 166))
_UTF_8 = "ISO_IR 192"


@dataclass(frozen=True)
class Reference:
    """An image that a result was made from. frame: counted from 1; None where its file is a single image."""

    sop_class_uid: str
    sop_instance_uid: str
    frame: int | None


@dataclass(frozen=True)
class Source:
    """A series as what is made from it needs it.

    header: patient, study, frame of reference and equipment; what every object must have is there, if empty.
    planes: of each k, the header of a plain CT slice in its place, so that highdicom meets one kind of source only.
        Their SOPInstanceUIDs stand in for `references`, the images they really are.
    """

    series: Series
    header: Dataset
    planes: tuple[Dataset, ...]
    references: tuple[Reference, ...]

    def files(self) -> dict[str, list[Reference]]:
        """References by SOPInstanceUID: one of a single image, several of a file with frames."""
        found: dict[str, list[Reference]] = {}
        for reference in self.references:
            found.setdefault(reference.sop_instance_uid, []).append(reference)
        return found

    def require_shape(self, shape: tuple[int, ...]) -> None:
        """Raises InputError where the files do not hold the (i, j, k) voxels that the result was made of."""
        own = (self.planes[0].Columns, self.planes[0].Rows, len(self.planes))
        if tuple(shape) != own:
            held, made = "x".join(map(str, own)), "x".join(map(str, shape))
            raise InputError(f"{self.series.path}: holds {held} voxels, its result {made}; score the series again")


@contextmanager
def carrying_over(series: Series) -> Iterator[None]:
    """Whatever a header may raise on its way into a result becomes one line. OSError, of writing, passes."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's and highdicom's, of values that are odd but clear
            yield
    except (PriorlensError, OSError, MemoryError):
        raise
    except Exception as error:  # odd headers make pydicom and highdicom fail in every way there is
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{series.path}: its headers cannot be carried over ({reason}); correct them, or write NIfTI"
        ) from error


def read_source(series: Series) -> Source:
    """Reads the headers of a series once more, without its pixels. Raises InputError."""
    with carrying_over(series):
        files = {path: _read(path) for path in {instance.path: None for instance in series.instances}}
        header = _header(series, files[series.instances[0].path])
        planes, references = [], []
        for k, instance in enumerate(series.instances):
            file = files[instance.path]
            if str(_essential(file, "SOPInstanceUID")) != instance.sop_instance_uid:
                raise InputError(f"{instance.path}: has changed since it was scored; score the series again")
            frame = instance.frame + 1 if "NumberOfFrames" in file else None
            references.append(Reference(str(_essential(file, "SOPClassUID")), instance.sop_instance_uid, frame))
            planes.append(_plane(series, k, file, header))
        if len({(plane.Rows, plane.Columns) for plane in planes}) > 1:
            raise InputError(f"{series.path}: its slices differ in size; leave out those that do not belong")
        return Source(series, header, tuple(planes), tuple(references))


def _read(path: Path) -> Dataset:
    from pydicom import dcmread

    with reading(path):
        dataset = dcmread(path, stop_before_pixels=True, force=True)
    dataset.filename = str(path)
    return dataset


def _header(series: Series, file: Dataset) -> Dataset:
    """Of the whole series, from its first file."""
    from pydicom import Dataset

    header = Dataset()
    for keyword in _CARRIED:
        if keyword in file and keyword not in _IDENTIFIERS and _is_valid(file, keyword):
            header[keyword] = file[keyword]
    for keyword in _IDENTIFIERS:
        if file.get(keyword) is not None:
            setattr(header, keyword, str(file.get(keyword)))
    for keyword in _REQUIRED:
        if keyword not in header:
            setattr(header, keyword, "")
    if header.PatientSex not in ("M", "F", "O"):
        header.PatientSex = ""
    header.StudyInstanceUID = _essential(file, "StudyInstanceUID")
    header.SeriesInstanceUID = _essential(file, "SeriesInstanceUID")
    header.FrameOfReferenceUID = file.get("FrameOfReferenceUID") or _own_frame_of_reference(series)
    character_set = file.get("SpecificCharacterSet")
    if character_set:
        # Sets with escape sequences are not copied: what was read by them is text now, which UTF-8 can say as well.
        header.SpecificCharacterSet = character_set if character_set in _PLAIN_CHARACTER_SETS else _UTF_8
    return header


def _own_frame_of_reference(series: Series) -> str:
    """Where the scanner named none: the same for all results of a series, and for those of no other."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, series.uid).int}"


def _is_valid(file: Dataset, keyword: str) -> bool:
    """Whether its value is one that DICOM allows."""
    from pydicom.config import RAISE
    from pydicom.valuerep import validate_value

    try:
        element = file[keyword]
        if element.VR != "SQ" and not element.is_empty:
            for value in element.value if element.VM > 1 else [element.value]:
                validate_value(element.VR, str(value), RAISE)
    except Exception:  # of a value that cannot even be decoded
        return False
    return True


def _plane(series: Series, k: int, file: Dataset, header: Dataset) -> Dataset:
    """Of voxel plane k."""
    from pydicom import Dataset
    from pydicom.uid import CTImageStorage, generate_uid

    frame = series.instances[k].frame
    plane = Dataset()
    plane.update(header)
    plane.SOPClassUID, plane.SOPInstanceUID = CTImageStorage, generate_uid(prefix=None)
    plane.Rows, plane.Columns = int(_essential(file, "Rows")), int(_essential(file, "Columns"))
    plane.ImageOrientationPatient = _decimals(file, "ImageOrientationPatient", 6, series.orientation)
    position = _of_frame(file, frame, "PlanePositionSequence", "ImagePositionPatient")
    plane.ImagePositionPatient = _decimals(file, "ImagePositionPatient", 3, position)
    spacing = _of_frame(file, frame, "PixelMeasuresSequence", "PixelSpacing")
    plane.PixelSpacing = _decimals(file, "PixelSpacing", 2, spacing)
    thickness = _of_frame(file, frame, "PixelMeasuresSequence", "SliceThickness")
    step = math.hypot(*series.step)
    plane.SliceThickness = _decimals(file, "SliceThickness", 1, [thickness or step])[0]
    if len(series.instances) > 1:
        plane.SpacingBetweenSlices = _decimals(file, "SpacingBetweenSlices", 1, [step])[0]
    return plane


def _of_frame(file: Dataset, frame: int, macro: str, keyword: str) -> Any:
    """From the frame's own functional group, else from that of all frames, else from the file itself."""
    own = file.get("PerFrameFunctionalGroupsSequence") or []
    for groups in (*own[frame : frame + 1], *(file.get("SharedFunctionalGroupsSequence") or [])):
        for item in groups.get(macro) or []:
            if item.get(keyword) is not None:
                return item.get(keyword)
    return file.get(keyword)


def _decimals(file: Dataset, keyword: str, count: int, values: Sequence[float] | None) -> list[Any]:
    """As decimal strings of DICOM, which have 16 characters at most."""
    from pydicom.valuerep import DSfloat

    numbers = [float(value) for value in values] if values is not None else []
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise _lacks(file, keyword)
    return [DSfloat(number, auto_format=True) for number in numbers]


def _essential(file: Dataset, keyword: str) -> Any:
    value = file.get(keyword)
    if value is None or value == "":
        raise _lacks(file, keyword)
    return value


def _lacks(file: Dataset, keyword: str) -> InputError:
    return InputError(f"{file.filename}: has no {keyword} that can be used, so nothing can refer to it; write NIfTI")
