"""DICOM results of small scans: what is in them, where it lies, what it refers to, and that the standard allows it."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from made_dicom import CORONAL, SAGITTAL, affine_of, ramp, write_enhanced, write_series
from pydicom import Dataset
from pydicom.sr.codedict import codes

from priorlens import outputs
from priorlens.errors import InputError, OutputError
from priorlens.regions import Region
from priorlens.volumes import dicom_segmentation
from priorlens.volumes.dicom_files import find_series
from priorlens.volumes.dicom_map import write_parametric_map
from priorlens.volumes.dicom_report import ScanFigures, write_measurements
from priorlens.volumes.dicom_result import MadeBy
from priorlens.volumes.dicom_segmentation import write_segmentation

highdicom = pytest.importorskip("highdicom")

MADE_BY = MadeBy("AnoDODE", "liver", "0123456789abcdef" * 2)
REGIONS = (
    Region((1.0, 2.0, 3.0), 12.5, "mm", 5.25, 3.5, 0.01),
    Region((4.0, 5.0, 6.0), 2.5, "mm", 4.125, 2.0, float("nan")),
)
SHAPE = (7, 6, 5)
OBLIQUE = tuple(
    np.linalg.qr(np.array([[1.0, 0.2, 0.1], [-0.3, 1.0, 0.4], [0.1, -0.2, 1.0]]))[0].T[:2].round(8).ravel().tolist()
)
DATA = Path(os.environ.get("PRIORLENS_SHARED", Path(__file__).parents[3] / "shared" / "data")) / "ct_dicom"

GRIDS = {
    "axial": {"origin": (10.0, -20.0, 30.0)},
    "oblique": {"orientation": OBLIQUE, "spacing": (0.5, 1.25, 3.3), "origin": (-101.5, 77.25, -912.125)},
    "coronal": {"orientation": CORONAL, "spacing": (0.9, 0.4, 5.0), "origin": (1.0, 2.0, 3.0)},
    "sagittal": {"orientation": SAGITTAL, "spacing": (0.6, 0.7, 2.0), "origin": (3.0, 2.0, 1.0)},
}
KINDS = [(grid, enhanced) for grid in GRIDS for enhanced in (False, True)]


def only(path):
    """The one series under a path."""
    [series], _ = find_series([path])
    return series


def made(folder, grid="axial", enhanced=False, **options):
    """A series on this grid, its stored values `ramp(*SHAPE)`."""
    if enhanced:
        write_enhanced(folder / "in" / "e.dcm", ramp(*SHAPE), order=[3, 0, 4, 2, 1], **GRIDS[grid], **options)
    else:
        write_series(folder / "in", ramp(*SHAPE), **GRIDS[grid], **options)
    return only(folder / "in")


def random_map(shape=SHAPE):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def two_regions(shape=SHAPE):
    labels = np.zeros(shape, np.int32)
    labels[1:3, 1:4, 0:2] = 1
    labels[4, 2, 1:4] = 2
    return labels


def write_all(folder, series):
    """A map, a segmentation and a report of a series, with and without regions."""
    paths = [folder / name for name in ("map.dcm", "seg.dcm", "sr.dcm", "sr_without.dcm")]
    write_parametric_map(paths[0], series, random_map(series.shape), MADE_BY)
    write_segmentation(paths[1], series, two_regions(series.shape), REGIONS, MADE_BY)
    write_measurements(paths[2], series, paths[1], REGIONS, ScanFigures(1.5, 0.25), MADE_BY)
    write_measurements(paths[3], series, None, (), ScanFigures(1.5), MADE_BY)
    return paths


def frames_of(dataset):
    """Of each frame: its k in the scan, whose normal it is given along, and its functional groups."""
    orientation = dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient
    normal = np.cross(orientation[:3], orientation[3:])
    groups = list(dataset.PerFrameFunctionalGroupsSequence)
    positions = [normal @ np.array(group.PlanePositionSequence[0].ImagePositionPatient, float) for group in groups]
    return groups, positions


def k_of(series, position):
    nearest = int(np.argmin([abs(instance.position - position) for instance in series.instances]))
    assert abs(series.instances[nearest].position - position) < 1e-4
    return nearest


def frame_affine(dataset, group):
    """From (column, row) of a frame to RAS millimetres, by its own header alone."""
    shared = dataset.SharedFunctionalGroupsSequence[0]
    orientation = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    between_rows, between_columns = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    columns = [orientation[:3] * between_columns, orientation[3:] * between_rows]
    origin = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
    return np.diag([-1.0, -1.0, 1.0]) @ np.column_stack([*columns, origin])


# --- what the standard says of them


def errors_of(path):
    """Lines of dciodvfy that name an error."""
    if not shutil.which("dciodvfy"):
        pytest.skip("no dciodvfy (dicom3tools)")
    told = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
    lines = (told.stdout + told.stderr).splitlines()
    assert lines, "it names at least what kind of object it is"
    return [line for line in lines if line.startswith("Error")]


@pytest.mark.parametrize(("grid", "enhanced"), [("axial", False), ("oblique", True)])
def test_dciodvfy_finds_no_error(tmp_path, grid, enhanced):
    for path in write_all(tmp_path, made(tmp_path, grid, enhanced)):
        assert errors_of(path) == [], path.name


MAY_BE_MISSING = (
    *("FrameOfReferenceUID", "PatientSex", "PatientName", "PatientBirthDate", "StudyID", "StudyDate", "StudyTime"),
    *("AccessionNumber", "ReferringPhysicianName", "Manufacturer", "SliceThickness", "SeriesNumber"),
)
POOR = {
    "missing": dict.fromkeys(MAY_BE_MISSING),
    "empty": dict.fromkeys(
        ("PatientSex", "PatientName", "PatientBirthDate", "StudyID", "StudyDate", "Manufacturer"), ""
    ),
    "invalid": {"PatientSex": "U", "PatientAge": "65 years", "StudyDate": "27.5.2009", "StudyTime": "noon"},
    "lossy": {
        "LossyImageCompression": "01",
        "LossyImageCompressionRatio": 10,
        "LossyImageCompressionMethod": "ISO_10918_1",
    },
}


@pytest.mark.filterwarnings("ignore:Invalid value")
@pytest.mark.parametrize("poor", POOR)
def test_poor_headers_still_give_valid_results(tmp_path, poor):
    series = made(tmp_path, **POOR[poor])
    for path in write_all(tmp_path, series):
        assert errors_of(path) == [], path.name
        dataset = pydicom.dcmread(path)
        assert dataset.PatientID == "P1" and dataset.PatientSex in ("", "O")


# --- what is in them, and where


@pytest.mark.parametrize(("grid", "enhanced"), KINDS)
def test_the_map_comes_back_exactly_and_in_its_place(tmp_path, grid, enhanced):
    series, anomaly_map = made(tmp_path, grid, enhanced), random_map()
    write_parametric_map(tmp_path / "map.dcm", series, anomaly_map, MADE_BY)
    dataset = pydicom.dcmread(tmp_path / "map.dcm")
    stored = np.frombuffer(dataset.FloatPixelData, "<f4").reshape(SHAPE[2], SHAPE[1], SHAPE[0])
    own = {"orientation": (1, 0, 0, 0, 1, 0), "spacing": (0.7, 0.8, 2.5)} | GRIDS[grid]
    affine = affine_of(own["orientation"], own["spacing"], own["origin"])
    groups, positions = frames_of(dataset)
    seen = [k_of(series, position) for position in positions]
    assert sorted(seen) == list(range(SHAPE[2]))
    for frame, (group, k) in enumerate(zip(groups, seen, strict=True)):
        np.testing.assert_array_equal(stored[frame].T, anomaly_map[:, :, k])
        for i, j in ((0, 0), (5, 2), (6, 5)):
            np.testing.assert_allclose(
                frame_affine(dataset, group) @ (i, j, 1), (affine @ (i, j, k, 1))[:3], atol=0.005
            )
    [mapping] = dataset.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
    assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1, 0)
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "bit"


@pytest.mark.parametrize(("grid", "enhanced"), KINDS)
def test_the_regions_come_back_exactly_and_in_their_place(tmp_path, grid, enhanced):
    series, labels = made(tmp_path, grid, enhanced), two_regions()
    written = write_segmentation(tmp_path / "seg.dcm", series, labels, REGIONS, MADE_BY)
    assert (written.path, written.segments, written.warning) == (tmp_path / "seg.dcm", 2, "")
    dataset = pydicom.dcmread(tmp_path / "seg.dcm")
    found = np.zeros(SHAPE, np.int32)
    groups, positions = frames_of(dataset)
    for pixels, group, position in zip(dataset.pixel_array, groups, positions, strict=True):
        number = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        assert pixels.any(), "frames without any of the region are left out"
        found[:, :, k_of(series, position)][pixels.T > 0] = number
    np.testing.assert_array_equal(found, labels)
    for number, segment in enumerate(dataset.SegmentSequence, start=1):
        assert segment.SegmentLabel == f"region {number}: unlike healthy training images"
        assert segment.SegmentAlgorithmType == "AUTOMATIC"
        assert segment.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "49755003"


def test_a_single_region_in_a_single_slice(tmp_path):
    series, labels = made(tmp_path), np.zeros(SHAPE, np.int32)
    labels[2:4, 3, 1] = 1
    path = tmp_path / "seg.dcm"
    write_segmentation(path, series, labels, REGIONS[:1], MADE_BY)
    write_measurements(tmp_path / "sr.dcm", series, path, REGIONS[:1], ScanFigures(0.5), MADE_BY)
    np.testing.assert_array_equal(np.squeeze(pydicom.dcmread(path).pixel_array).T, labels[:, :, 1])
    for name in ("seg.dcm", "sr.dcm"):
        assert errors_of(tmp_path / name) == [], name


def test_simpleitk_reads_the_segmentation(tmp_path):
    """Of slices whose pixels fill whole bytes: in others GDCM loses its place. It cannot read float maps at all."""
    simple_itk = pytest.importorskip("SimpleITK")
    write_series(tmp_path / "in", ramp(8, 6, 5))
    series, labels = only(tmp_path / "in"), two_regions((8, 6, 5))
    write_segmentation(tmp_path / "seg.dcm", series, labels, REGIONS, MADE_BY)
    voxels = simple_itk.GetArrayFromImage(simple_itk.ReadImage(str(tmp_path / "seg.dcm")))
    groups, positions = frames_of(pydicom.dcmread(tmp_path / "seg.dcm"))
    assert len(voxels) == len(groups) == 2 + 3
    for frame, group, position in zip(voxels, groups, positions, strict=True):
        number = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        np.testing.assert_array_equal(frame.T > 0, labels[:, :, k_of(series, position)] == number)


def test_the_window_of_the_map(tmp_path):
    write_parametric_map(tmp_path / "map.dcm", made(tmp_path), random_map(), MADE_BY, ends=(0.5, 2.5))
    [window] = pydicom.dcmread(tmp_path / "map.dcm").SharedFunctionalGroupsSequence[0].FrameVOILUTSequence
    assert (window.WindowCenter, window.WindowWidth) == (1.5, 2.0)


def test_a_constant_map_has_a_window_too(tmp_path):
    write_parametric_map(tmp_path / "map.dcm", made(tmp_path), np.zeros(SHAPE, np.float32), MADE_BY)
    assert errors_of(tmp_path / "map.dcm") == []


def test_an_anomaly_that_is_not_in_bits_has_no_unit(tmp_path):
    write_parametric_map(tmp_path / "map.dcm", made(tmp_path), random_map(), replace(MADE_BY, unit="1"))
    [mapping] = pydicom.dcmread(tmp_path / "map.dcm").SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "1"


def test_without_regions_no_segmentation_is_written(tmp_path):
    written = write_segmentation(tmp_path / "seg.dcm", made(tmp_path), np.zeros(SHAPE, np.int32), (), MADE_BY)
    assert written.path is None and written.segments == 0
    assert not (tmp_path / "seg.dcm").exists()


def test_of_too_many_regions_the_first_are_written(tmp_path, monkeypatch):
    assert dicom_segmentation.MAX_SEGMENTS == 255
    monkeypatch.setattr(dicom_segmentation, "MAX_SEGMENTS", 3)
    series, labels, path = made(tmp_path), np.zeros(SHAPE, np.int32), tmp_path / "seg.dcm"
    labels.ravel()[:10] = np.arange(5).repeat(2) + 1
    regions = [replace(REGIONS[0], peak=300.0 - number) for number in range(5)]
    written = write_segmentation(path, series, labels, regions, MADE_BY)
    assert written.segments == 3 and "first 3 of 5 regions" in written.warning
    assert len(pydicom.dcmread(path).SegmentSequence) == 3 and pydicom.dcmread(path).pixel_array.sum() == 2 * 3
    write_measurements(tmp_path / "sr.dcm", series, path, regions, ScanFigures(1.0), MADE_BY)
    assert "Of 5 regions the 3 with the highest peaks are listed." in comments(tmp_path / "sr.dcm")
    assert len(groups_of(tmp_path / "sr.dcm")[1]) == 3


# --- whose they are and what they refer to


IDENTITY = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyID", "StudyDate")


@pytest.mark.parametrize("enhanced", [False, True])
def test_patient_study_and_references(tmp_path, enhanced):
    series = made(tmp_path, enhanced=enhanced)
    source = pydicom.dcmread(series.instances[0].path)
    instances = {instance.sop_instance_uid for instance in series.instances}
    results = [pydicom.dcmread(path) for path in write_all(tmp_path, series)]
    for result in results:
        for keyword in (*IDENTITY, "AccessionNumber", "StudyTime"):
            assert result[keyword].value == source[keyword].value, keyword
        assert result.Manufacturer == "priorlens" and result.DeviceSerialNumber == MADE_BY.fingerprint
    for result in results[:2]:
        assert result.FrameOfReferenceUID == source.FrameOfReferenceUID
        [referenced] = result.ReferencedSeriesSequence
        assert referenced.SeriesInstanceUID == series.uid
        named = [item.ReferencedSOPInstanceUID for item in referenced.ReferencedInstanceSequence]
        assert len(named) == len(instances) and set(named) == instances
        assert {item.ReferencedSOPClassUID for item in referenced.ReferencedInstanceSequence} == {source.SOPClassUID}
        for group, position in zip(*frames_of(result), strict=True):
            instance = series.instances[k_of(series, position)]
            [image] = group.DerivationImageSequence[0].SourceImageSequence
            assert image.ReferencedSOPInstanceUID == instance.sop_instance_uid
            assert image.get("ReferencedFrameNumber") == (instance.frame + 1 if enhanced else None)
    for keyword in ("SeriesInstanceUID", "SOPInstanceUID"):
        assert len({source[keyword].value, *(result[keyword].value for result in results)}) == 5
    [study] = results[2].CurrentRequestedProcedureEvidenceSequence
    of_scan, of_segmentation = study.ReferencedSeriesSequence
    assert of_scan.SeriesInstanceUID == series.uid
    assert {item.ReferencedSOPInstanceUID for item in of_scan.ReferencedSOPSequence} == instances
    [item] = of_segmentation.ReferencedSOPSequence
    assert item.ReferencedSOPInstanceUID == results[1].SOPInstanceUID


def test_of_two_echoes_in_one_file_each_result_names_its_own_frames(tmp_path):
    def echoes(dataset):
        for frame, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
            group.MREchoSequence = [Dataset()]
            group.MREchoSequence[0].EffectiveEchoTime = 10.0 + 70 * (frame % 2)

    order = [0, 0, 1, 1, 2, 2]
    write_enhanced(tmp_path / "in" / "e.dcm", ramp(7, 6, 3), modality="MR", order=order, change=echoes)
    first, second = find_series([tmp_path / "in"])[0]
    for series, frames in ((first, {1, 3, 5}), (second, {2, 4, 6})):
        write_parametric_map(tmp_path / "map.dcm", series, random_map((7, 6, 3)), MADE_BY)
        groups, _ = frames_of(pydicom.dcmread(tmp_path / "map.dcm"))
        sources = [group.DerivationImageSequence[0].SourceImageSequence[0] for group in groups]
        assert {source.ReferencedFrameNumber for source in sources} == frames


def test_a_missing_frame_of_reference_is_the_same_in_all_results_of_a_series(tmp_path):
    write_series(tmp_path / "in" / "a", ramp(*SHAPE), series="a", FrameOfReferenceUID=None)
    write_series(tmp_path / "in" / "b", ramp(*SHAPE), series="b", FrameOfReferenceUID=None)
    uids = []
    for series in find_series([tmp_path / "in"])[0]:
        for path in write_all(tmp_path, series)[:2]:
            uids.append(pydicom.dcmread(path).FrameOfReferenceUID)
    assert uids[0] == uids[1] != uids[2] == uids[3]


@pytest.mark.parametrize(
    ("character_set", "name"),
    [("ISO_IR 192", "Müller^Jörg"), ("ISO_IR 100", "Müller^Jörg"), (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎")],
)
def test_names_in_any_character_set_stay_as_they_are(tmp_path, character_set, name):
    series = made(tmp_path, SpecificCharacterSet=character_set, PatientName=name)
    for path in write_all(tmp_path, series):
        assert str(pydicom.dcmread(path).PatientName) == name
        assert errors_of(path) == []


def test_odd_names_of_models_and_series_fit(tmp_path):
    series = made(tmp_path, description="T1 \u00e4\u00f6 " * 8)
    odd = MadeBy("KLIP", "C:\\models\\leber-ü\n" + "x" * 80, "")
    write_parametric_map(tmp_path / "map.dcm", series, random_map(), odd)
    write_measurements(tmp_path / "sr.dcm", series, None, (), ScanFigures(0.0), odd)
    for name in ("map.dcm", "sr.dcm"):
        assert errors_of(tmp_path / name) == []


# --- the report


def items(path):
    """Every content item of a report, in order."""

    def below(item):
        for child in item.get("ContentSequence", ()):
            yield child
            yield from below(child)

    return list(below(pydicom.dcmread(path)))


def comments(path):
    return [item.TextValue for item in items(path) if item.ConceptNameCodeSequence[0].CodeValue == "121106"]


def groups_of(path):
    content = highdicom.sr.srread(path).content
    return content, content.get_volumetric_roi_measurement_groups()


def values(group):
    """(code of its concept, code of its derivation or "", value, unit) of each measurement."""
    found = []
    for measurement in group.get_measurements():
        derivation = measurement.derivation
        name = measurement.name.value
        found.append((name, derivation.value if derivation else "", measurement.value, measurement.unit.value))
    return found


def test_the_report_tells_what_was_measured(tmp_path):
    paths = write_all(tmp_path, made(tmp_path))
    report, regions = groups_of(paths[2])
    segmentation = pydicom.dcmread(paths[1])
    peak, mean = codes.SCT.Maximum.value, codes.SCT.Mean.value
    volume = codes.SCT.Volume.value
    first = [(volume, "", 12.5, "mm3"), ("ANOMALY", peak, 5.25, "bit"), ("ANOMALY", mean, 3.5, "bit")]
    second = [(volume, "", 2.5, "mm3"), ("ANOMALY", peak, 4.125, "bit"), ("ANOMALY", mean, 2.0, "bit")]
    assert values(regions[0]) == [*first, ("QVALUE", "", 0.01, "1")]
    assert values(regions[1]) == second
    for segment, region in zip(segmentation.SegmentSequence, regions, strict=True):
        assert region.tracking_uid == segment.TrackingUID
        [reference] = [i for i in region[0].ContentSequence if i.get("ValueType") == "IMAGE"]
        [sop] = reference.ReferencedSOPSequence
        assert sop.ReferencedSOPInstanceUID == segmentation.SOPInstanceUID
        assert sop.ReferencedSegmentNumber == segment.SegmentNumber
    [scan] = report.get_image_measurement_groups()
    assert values(scan) == [("ANOMALY", "", 1.5, "bit"), ("PVALUE", "", 0.25, "1")]
    assert len(scan.source_images) == SHAPE[2]


def test_the_report_says_what_it_is_not(tmp_path):
    paths = write_all(tmp_path, made(tmp_path))
    with_regions, without = comments(paths[2]), comments(paths[3])
    for told in (with_regions, without):
        assert "research software, not a medical device" in told[0]
    assert any("without a q-value are uncalibrated" in line for line in with_regions)
    assert not any("No p-value" in line for line in with_regions)
    assert any("No p-value is given: this result is uncalibrated" in line for line in without)
    assert "No region was told." in without
    report, regions = groups_of(paths[3])
    assert regions == []
    assert values(report.get_image_measurement_groups()[0]) == [("ANOMALY", "", 1.5, "bit")]


def test_frames_are_named_in_the_report(tmp_path):
    path = write_all(tmp_path, made(tmp_path, enhanced=True))[3]
    [scan] = groups_of(path)[0].get_image_measurement_groups()
    [image] = scan.source_images
    assert list(image.ReferencedSOPSequence[0].ReferencedFrameNumber) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("spoil", ["missing", "damaged", "other", "foreign"])
def test_a_segmentation_of_something_else_is_refused(tmp_path, spoil):
    series, path = made(tmp_path), tmp_path / "seg.dcm"
    if spoil == "damaged":
        path.write_bytes(b"\0" * 500)
    elif spoil == "other":
        shutil.copy(series.instances[0].path, path)
    elif spoil == "foreign":
        write_series(tmp_path / "other", ramp(*SHAPE), series="other")
        write_segmentation(path, only(tmp_path / "other"), two_regions(), REGIONS, MADE_BY)
    with pytest.raises(InputError, match=r"^.*seg\.dcm: .*segmentation.*; write it again$"):
        write_measurements(tmp_path / "sr.dcm", series, path, REGIONS, ScanFigures(1.0), MADE_BY)
    assert not (tmp_path / "sr.dcm").exists()


# --- what is refused, and that a failure leaves nothing


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SOPInstanceUID", "SeriesInstanceUID", "SOPClassUID"])
def test_what_is_essential_must_be_there(tmp_path, keyword):
    series = made(tmp_path)
    path = series.instances[2 if "SOP" in keyword else 0].path
    dataset = pydicom.dcmread(path)
    del dataset[keyword]
    dataset.save_as(path)
    with pytest.raises(InputError, match=rf"has no {keyword} that can be used") as caught:
        write_parametric_map(tmp_path / "map.dcm", series, random_map(), MADE_BY)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)
    assert not (tmp_path / "map.dcm").exists()


@pytest.mark.parametrize("keyword", ["ImagePositionPatient", "PixelSpacing", "Rows"])
def test_a_slice_that_has_lost_its_place(tmp_path, keyword):
    series = made(tmp_path)
    dataset = pydicom.dcmread(series.instances[1].path)
    del dataset[keyword]
    dataset.save_as(series.instances[1].path)
    with pytest.raises(InputError, match=rf"has no {keyword} that can be used"):
        write_segmentation(tmp_path / "seg.dcm", series, two_regions(), REGIONS, MADE_BY)


def test_a_series_that_has_changed(tmp_path):
    series = made(tmp_path)
    shutil.copy(series.instances[0].path, series.instances[1].path)
    with pytest.raises(InputError, match="has changed since it was scored"):
        write_parametric_map(tmp_path / "map.dcm", series, random_map(), MADE_BY)


@pytest.mark.parametrize("spoil", ["gone", "empty", "noise", "cut"])
def test_a_slice_that_cannot_be_read_any_more(tmp_path, spoil):
    series = made(tmp_path)
    path = series.instances[1].path
    content = path.read_bytes()
    path.unlink()
    if spoil != "gone":
        path.write_bytes({"empty": b"", "noise": os.urandom(3000), "cut": content[:400]}[spoil])
    with pytest.raises(InputError) as caught:
        write_parametric_map(tmp_path / "map.dcm", series, random_map(), MADE_BY)
    assert str(path.parent) in str(caught.value) and "\n" not in str(caught.value)


def test_a_map_of_another_size(tmp_path):
    series = made(tmp_path)
    with pytest.raises(InputError, match="holds 7x6x5 voxels, its result 6x7x5"):
        write_parametric_map(tmp_path / "map.dcm", series, random_map((6, 7, 5)), MADE_BY)


def test_what_only_a_mistake_of_ours_can_be(tmp_path):
    series, path = made(tmp_path), tmp_path / "x.dcm"
    with pytest.raises(ValueError, match="nan"):
        write_parametric_map(path, series, np.full(SHAPE, np.nan, np.float32), MADE_BY)
    for labels in (two_regions() + 1, two_regions() - 1, np.zeros(SHAPE, np.int32), two_regions() // 2):
        with pytest.raises(ValueError, match="not those of 2 regions"):
            write_segmentation(path, series, labels, REGIONS, MADE_BY)
    with pytest.raises(ValueError, match="need a segmentation"):
        write_measurements(path, series, None, REGIONS, ScanFigures(1.0), MADE_BY)
    assert not path.exists()


def test_everything_may_be_one_region(tmp_path):
    path = tmp_path / "seg.dcm"
    write_segmentation(path, made(tmp_path), np.ones(SHAPE, np.int32), REGIONS[:1], MADE_BY)
    assert pydicom.dcmread(path).pixel_array.all()


def test_inputs_are_never_written_over(tmp_path):
    series = made(tmp_path)
    target = series.instances[2].path
    before = target.read_bytes()
    link = tmp_path / "link.dcm"
    link.symlink_to(target)
    for path in (target, target.parent / ".." / "in" / target.name, link):
        with pytest.raises(OutputError, match="is a file of the scan itself"):
            write_parametric_map(path, series, random_map(), MADE_BY)
        with pytest.raises(OutputError, match="is a file of the scan itself"):
            write_segmentation(path, series, two_regions(), REGIONS, MADE_BY)
        with pytest.raises(OutputError, match="is a file of the scan itself"):
            write_measurements(path, series, None, (), ScanFigures(1.0), MADE_BY)
    assert target.read_bytes() == before


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("odd"), KeyboardInterrupt()])
def test_a_failure_in_the_middle_leaves_no_file(tmp_path, monkeypatch, error):
    series = made(tmp_path)
    fsync = os.fsync

    def fails(descriptor):
        fsync(descriptor)
        raise error

    monkeypatch.setattr(outputs.os, "fsync", fails)
    expected = {OSError: OutputError, ValueError: InputError}.get(type(error), type(error))
    (tmp_path / "out").mkdir()
    with pytest.raises(expected):
        write_parametric_map(tmp_path / "out" / "map.dcm", series, random_map(), MADE_BY)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(OutputError, match="its folder is missing"):
        write_parametric_map(tmp_path / "no" / "map.dcm", made(tmp_path), random_map(), MADE_BY)


# --- a real scan


@pytest.mark.shared
@pytest.mark.skipif(not DATA.is_dir(), reason=f"no {DATA}")
def test_results_of_a_real_scan(tmp_path):
    """Of 20 slices whose headers lack a frame of reference, a patient's ID and a study's."""
    series = only(DATA)
    paths = write_all(tmp_path, series)
    for path in paths:
        assert errors_of(path) == [], path.name
    dataset = pydicom.dcmread(paths[0])
    stored = np.frombuffer(dataset.FloatPixelData, "<f4").reshape(len(series.instances), 512, 512)
    expected = random_map(series.shape)
    for frame, (group, position) in enumerate(zip(*frames_of(dataset), strict=True)):
        k = k_of(series, position)
        np.testing.assert_array_equal(stored[frame].T, expected[:, :, k])
        np.testing.assert_allclose(
            frame_affine(dataset, group) @ (100, 50, 1), (series.affine @ (100, 50, k, 1))[:3], atol=0.01
        )
