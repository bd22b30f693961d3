"""Small valid CT and MR series, made from scratch with pydicom: known voxels at known places."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    generate_uid,
)

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)

CLASSES = {"CT": CTImageStorage, "MR": MRImageStorage}
ENHANCED = {"CT": EnhancedCTImageStorage, "MR": EnhancedMRImageStorage}


def uid(*parts: object) -> UID:
    """Always the same one for the same words."""
    return generate_uid(entropy_srcs=["priorlens tests", *map(str, parts)])


def ramp(i: int, j: int, k: int) -> np.ndarray:
    """Stored values [i, j, k] that are all different."""
    return np.arange(i * j * k, dtype=np.int16).reshape(i, j, k)


def normal(orientation: Sequence[float]) -> np.ndarray:
    """Unit vector along which slices rise, in DICOM's patient coordinates (x to the left, y to the back)."""
    return np.cross(orientation[:3], orientation[3:])


def affine_of(
    orientation: Sequence[float], spacing: Sequence[float], origin: Sequence[float] = (0.0, 0.0, 0.0)
) -> np.ndarray:
    """What takes (i, j, k, 1) of `write_series` to RAS millimetres, by PS3.3 C.7.6.2.1.1."""
    affine = np.eye(4)
    affine[:3, 0] = np.array(orientation[:3]) * spacing[0]
    affine[:3, 1] = np.array(orientation[3:]) * spacing[1]
    affine[:3, 2] = normal(orientation) * spacing[2]
    affine[:3, 3] = origin
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def _file(sop_class: UID, instance: UID) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = instance
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = uid("implementation")
    dataset = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, instance
    return dataset


def _fill_study(dataset: Dataset, patient: str, series: str, modality: str, description: str) -> None:
    """Patient, study, series, frame of reference and equipment."""
    dataset.PatientName, dataset.PatientID = f"Made^{patient}", patient
    dataset.PatientBirthDate, dataset.PatientSex = "19700101", "O"
    dataset.StudyInstanceUID, dataset.StudyID = uid("study", patient), "1"
    dataset.StudyDate, dataset.StudyTime, dataset.AccessionNumber = "20240102", "101112", "A1"
    dataset.ReferringPhysicianName, dataset.StudyDescription = "", "made for a test"
    dataset.SeriesInstanceUID, dataset.SeriesNumber = uid("series", patient, series), 1
    dataset.Modality, dataset.SeriesDescription = modality, description
    dataset.SeriesDate, dataset.SeriesTime = "20240102", "101112"
    dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = uid("frame", patient), ""
    dataset.Manufacturer, dataset.ManufacturerModelName = "priorlens", "made"
    dataset.DeviceSerialNumber, dataset.SoftwareVersions = "1", "1"
    dataset.PatientPosition = "HFS"


def _fill_pixels(dataset: Dataset, pixels: np.ndarray) -> None:
    """Stored values, (row, column) or (frame, row, column), in their own integer type."""
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    bits = 8 * pixels.dtype.itemsize
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    content = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    dataset.add_new("PixelData", "OB" if bits == 8 else "OW", content + b"\0" * (len(content) % 2))


def made_slice(
    pixels: np.ndarray,
    position: Sequence[float] = (0.0, 0.0, 0.0),
    *,
    orientation: Sequence[float] = AXIAL,
    spacing: Sequence[float] = (0.7, 0.8, 2.5),
    modality: str = "CT",
    patient: str = "P1",
    series: str = "1",
    description: str = "made",
    number: int = 1,
    rescale: tuple[float, float] | None = (1, -1024),
    **tags: Any,
) -> FileDataset:
    """One slice of stored values [row, column]; `tags` are set at the end, by keyword, and one of None is removed."""
    dataset = _file(CLASSES[modality], uid("instance", patient, series, number))
    _fill_study(dataset, patient, series, modality, description)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL" if modality == "CT" else "OTHER"]
    dataset.InstanceNumber, dataset.AcquisitionNumber = number, 1
    dataset.ContentDate, dataset.ContentTime = "20240102", "101112"
    dataset.AcquisitionDate, dataset.AcquisitionTime = "20240102", "101112"
    dataset.ImagePositionPatient = [round(float(value), 6) for value in position]
    dataset.ImageOrientationPatient = [round(float(value), 8) for value in orientation]
    dataset.PixelSpacing = [spacing[1], spacing[0]]
    dataset.SliceThickness = spacing[2]
    if modality == "CT":
        dataset.KVP, dataset.WindowCenter, dataset.WindowWidth = 120, 40, 400
    else:
        dataset.ScanningSequence, dataset.SequenceVariant, dataset.ScanOptions = "SE", "NONE", ""
        dataset.MRAcquisitionType, dataset.EchoTime, dataset.EchoTrainLength = "2D", 10, 1
        dataset.RepetitionTime = 500
    if rescale and modality == "CT":
        dataset.RescaleSlope, dataset.RescaleIntercept = rescale
        dataset.RescaleType = "HU"
    _fill_pixels(dataset, pixels)
    for keyword, value in tags.items():
        if value is None:
            del dataset[keyword]
        else:
            setattr(dataset, keyword, value)
    return dataset


def save(dataset: FileDataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_series(
    folder: Path,
    stored: np.ndarray,
    *,
    origin: Sequence[float] = (0.0, 0.0, 0.0),
    orientation: Sequence[float] = AXIAL,
    spacing: Sequence[float] = (0.7, 0.8, 2.5),
    name: Callable[[int], str] = "{:04}.dcm".format,
    change: Callable[[FileDataset, int], None] | None = None,
    **slice_options: Any,
) -> list[Path]:
    """One file a slice of `stored` [i, j, k], an integer type of 8 or 16 bits; returned in the order of k.

    The affine of what is written is `affine_of(orientation, spacing, origin)`, its CT values `stored` - 1024 HU
    (`rescale`), its MR values `stored`. `change` may alter the dataset of slice k before it is saved.
    """
    paths = []
    step = normal(orientation) * spacing[2]
    for k in range(stored.shape[2]):
        position = np.array(origin) + k * step
        options = {"orientation": orientation, "spacing": spacing, "number": k + 1, **slice_options}
        dataset = made_slice(np.ascontiguousarray(stored[:, :, k].T), position, **options)
        if change:
            change(dataset, k)
        paths.append(save(dataset, folder / name(k)))
    return paths


def _item(**values: Any) -> list[Dataset]:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return [item]


def write_enhanced(
    path: Path,
    stored: np.ndarray,
    *,
    origin: Sequence[float] = (0.0, 0.0, 0.0),
    orientation: Sequence[float] = AXIAL,
    spacing: Sequence[float] = (0.7, 0.8, 2.5),
    modality: str = "CT",
    patient: str = "P1",
    series: str = "enhanced",
    rescale: tuple[float, float] = (1, -1024),
    order: Sequence[int] | None = None,
    change: Callable[[FileDataset], None] | None = None,
) -> Path:
    """The slices of `stored` [i, j, k] as frames of one file, frame by frame those named by `order`."""
    order = list(range(stored.shape[2])) if order is None else list(order)
    dataset = _file(ENHANCED[modality], uid("instance", patient, series))
    _fill_study(dataset, patient, series, modality, "made enhanced")
    dataset.ImageType, dataset.InstanceNumber = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"], 1
    dataset.ContentDate, dataset.ContentTime = "20240102", "101112"
    dataset.AcquisitionDateTime, dataset.BurnedInAnnotation = "20240102101112", "NO"
    dataset.NumberOfFrames = len(order)
    shared = Dataset()
    shared.PlaneOrientationSequence = _item(ImageOrientationPatient=[round(float(c), 8) for c in orientation])
    shared.PixelMeasuresSequence = _item(PixelSpacing=[spacing[1], spacing[0]], SliceThickness=spacing[2])
    dataset.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for k in order:
        position = np.array(origin) + k * normal(orientation) * spacing[2]
        frame = Dataset()
        frame.PlanePositionSequence = _item(ImagePositionPatient=[round(float(c), 6) for c in position])
        frame.FrameContentSequence = _item(StackID="1", InStackPositionNumber=k + 1, TemporalPositionIndex=1)
        if modality == "CT":
            frame.PixelValueTransformationSequence = _item(
                RescaleSlope=rescale[0], RescaleIntercept=rescale[1], RescaleType="HU"
            )
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = frames
    _fill_pixels(dataset, np.ascontiguousarray(np.moveaxis(stored[:, :, order], 2, 0).swapaxes(1, 2)))
    if change:
        change(dataset)
    return save(dataset, path)
