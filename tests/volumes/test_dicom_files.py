"""Series found among files as scanners, archives and people leave them: what is used, what is not, and why."""

import os
import re
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
from made_dicom import (
    AXIAL,
    CORONAL,
    SAGITTAL,
    affine_of,
    made_slice,
    normal,
    ramp,
    save,
    uid,
    write_enhanced,
    write_series,
)
from pydicom.uid import DeflatedExplicitVRLittleEndian

from priorlens.errors import InputError
from priorlens.volumes.dicom_files import find_series
from priorlens.volumes.volume import MAX_VOXELS


def reasons(left_out):
    for one in left_out:
        assert one.reason.startswith(str(one.path)) and "\n" not in one.reason and ";" in one.reason, one.reason
    return [one.reason for one in left_out]


def only(folder):
    """The single series of a folder in which nothing is left out."""
    series, left_out = find_series([folder])
    assert not left_out and len(series) == 1, (reasons(left_out), [one.uid for one in series])
    return series[0]


def refused(folder):
    """The single reason of a folder in which nothing can be used."""
    series, left_out = find_series([folder])
    assert not series
    [reason] = reasons(left_out)
    return reason


def moved(k, shift):
    """A `change` that shifts slice k by millimetres in x, y, z."""

    def change(dataset, index):
        if index == k:
            dataset.ImagePositionPatient = [
                float(a) + b for a, b in zip(dataset.ImagePositionPatient, shift, strict=True)
            ]

    return change


# --- a series as it should be


def test_a_series_in_the_order_of_its_places(tmp_path):
    """Names, instance numbers and files run against the slices."""
    write_series(
        tmp_path / "a",
        ramp(4, 5, 6),
        name=lambda k: f"IM{9 - k}",
        change=lambda d, k: setattr(d, "InstanceNumber", 9 - k),
    )
    series = only(tmp_path)
    assert series.uid == uid("series", "P1", "1") and (series.patient, series.modality) == ("P1", "CT")
    assert series.path == tmp_path / "a" and series.description == "made"
    assert series.shape == (4, 5, 6) and series.orientation == AXIAL
    assert [one.path.name for one in series.instances] == [f"IM{9 - k}" for k in range(6)]
    assert [one.position for one in series.instances] == [0, 2.5, 5, 7.5, 10, 12.5]
    assert series.instances[2].sop_instance_uid == uid("instance", "P1", "1", 3)
    np.testing.assert_allclose(series.affine, affine_of(AXIAL, (0.7, 0.8, 2.5)))
    assert series.warnings == () and series.part == ""


@pytest.mark.parametrize("orientation", [AXIAL, CORONAL, SAGITTAL, (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0)])
def test_slices_rise_along_the_normal(tmp_path, orientation):
    write_series(tmp_path, ramp(4, 5, 6), orientation=orientation, origin=(3, -7, 11))
    series = only(tmp_path)
    along = np.dot(normal(orientation), (3, -7, 11))
    np.testing.assert_allclose([one.position for one in series.instances], along + 2.5 * np.arange(6))
    np.testing.assert_allclose(series.affine, affine_of(orientation, (0.7, 0.8, 2.5), (3, -7, 11)), atol=1e-6)


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_frames_of_an_enhanced_file_are_slices(tmp_path, modality):
    write_enhanced(tmp_path / "one.dcm", ramp(4, 5, 6), modality=modality, order=[3, 1, 0, 2, 5, 4])
    series = only(tmp_path)
    assert series.path == tmp_path / "one.dcm" and series.modality == modality
    assert [one.frame for one in series.instances] == [2, 1, 3, 0, 5, 4]
    np.testing.assert_allclose(series.affine, affine_of(AXIAL, (0.7, 0.8, 2.5)))


def test_a_series_in_several_folders_has_the_deepest_that_holds_all(tmp_path):
    write_series(tmp_path / "p" / "s", ramp(4, 5, 6), name=lambda k: f"{k % 2}/{k}")
    assert only(tmp_path).path == tmp_path / "p" / "s"


def test_a_file_without_magic_is_known_by_its_suffix(tmp_path):
    for path in write_series(tmp_path, ramp(4, 5, 4), name="{}.IMA".format):
        path.write_bytes(path.read_bytes()[132:])
    assert only(tmp_path).shape == (4, 5, 4)


def test_text_burnt_in_is_a_warning(tmp_path):
    write_series(tmp_path, ramp(4, 5, 4), BurnedInAnnotation="YES")
    [warning] = only(tmp_path).warnings
    assert warning.startswith(f"{tmp_path}: 4 slices say that text is burnt into them;")


def test_a_poor_anonymiser_gave_all_slices_one_name(tmp_path):
    write_series(tmp_path, ramp(4, 5, 4), SOPInstanceUID=uid("same"))
    assert "share a SOPInstanceUID" in only(tmp_path).warnings[0]


# --- where files are looked for


def test_what_is_no_dicom_is_passed_over_in_folders(tmp_path):
    write_series(tmp_path / "s", ramp(4, 5, 4))
    (tmp_path / "readme.txt").write_text("hello")
    (tmp_path / "s" / "preview.png").write_bytes(b"\x89PNG")
    (tmp_path / ".hidden").write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / ".old").mkdir()
    shutil.copy(tmp_path / "s" / "0000.dcm", tmp_path / ".old")
    (tmp_path / "loop").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe.dcm")
    assert only(tmp_path).path == tmp_path / "s"


@pytest.mark.parametrize(("name", "says"), [("readme.txt", "is not DICOM"), ("pipe", "is not a regular file")])
def test_what_is_no_dicom_is_told_if_it_was_named(tmp_path, name, says):
    (tmp_path / "readme.txt").write_text("hello")
    os.mkfifo(tmp_path / "pipe")
    assert says in refused(tmp_path / name)


def test_a_dicomdir_is_passed_over_silently(tmp_path):
    paths = write_series(tmp_path, ramp(4, 5, 4))
    index = made_slice(np.zeros((4, 4), np.int16))
    index.SOPClassUID = "1.2.840.10008.1.3.10"
    save(index, tmp_path / "DICOMDIR")
    assert len(only(tmp_path).instances) == len(paths)
    assert "DICOMDIR" in refused(tmp_path / "DICOMDIR")


def test_a_path_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="there is no such file or folder"):
        find_series([tmp_path / "nowhere"])


def test_files_named_twice_count_once(tmp_path):
    paths = write_series(tmp_path, ramp(4, 5, 4))
    series, left_out = find_series([*paths, tmp_path, paths[0]])
    assert len(series) == 1 and not left_out


# --- files that hold no slice


CLASS = "1.2.840.10008.5.1.4.1.1."
NO_SLICES = {
    "structured report": ({"SOPClassUID": CLASS + "88.33"}, "Comprehensive SR Storage, which holds no slices"),
    "segmentation": ({"SOPClassUID": CLASS + "66.4"}, "Segmentation Storage, which holds no slices"),
    "structures": ({"SOPClassUID": CLASS + "481.3"}, "RT Structure Set Storage, which holds no slices"),
    "presentation": ({"SOPClassUID": CLASS + "11.1"}, "Presentation State"),
    "parametric map": ({"SOPClassUID": CLASS + "30"}, "Parametric Map Storage, which holds no slices"),
    "key objects": ({"SOPClassUID": CLASS + "88.59"}, "Key Object"),
    "pdf": ({"SOPClassUID": CLASS + "104.1"}, "PDF"),
    "radiograph": ({"SOPClassUID": CLASS + "1.1"}, "is a single image .*export it as PNG"),
    "computed radiograph": ({"SOPClassUID": CLASS + "1"}, "is a single image .*export it as PNG"),
    "ultrasound cine": ({"SOPClassUID": CLASS + "3.1", "NumberOfFrames": 8}, "is a cine .*export it as PNG"),
    "plain cine": ({"NumberOfFrames": 2, "Rows": 2}, "is a cine of 2 frames"),
    "screen": ({"SOPClassUID": CLASS + "7"}, "secondary capture"),
    "screen save": ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "SCREEN SAVE"),
    "colour": ({"PhotometricInterpretation": "RGB"}, r"in colour \(RGB\)"),
    "localizer": ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "is a localizer"),
    "topogram": ({"ImageType": ["ORIGINAL", "PRIMARY", "TOPOGRAM"]}, "is a localizer"),
    "no rows": ({"Rows": None}, "holds no image"),
    "no pixels": ({"PixelData": None}, "holds no pixels"),
    "no position": ({"ImagePositionPatient": None}, "where it lies .ImagePositionPatient"),
    "no spacing": ({"PixelSpacing": None}, "where it lies .PixelSpacing"),
    "zero spacing": ({"PixelSpacing": [0, 1]}, "not above 0"),
    "orientation": ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "ImageOrientationPatient is none"),
    "far too large": ({"Rows": 65535, "Columns": 65535}, f"more than {MAX_VOXELS}"),
    "fewer pixels": ({"Rows": 400}, "where 3200 are due"),
}


@pytest.mark.parametrize("kind", NO_SLICES)
def test_no_slice(tmp_path, kind):
    tags, says = NO_SLICES[kind]
    save(made_slice(np.zeros((4, 4), np.int16), **tags), tmp_path / "x.dcm")
    assert re.search(says, refused(tmp_path)), refused(tmp_path)


@pytest.mark.parametrize("kept", [0, 1, 100, 131, 132, 140, 200, 400, 700, 1000, -1, -20])
@pytest.mark.parametrize("name", ["x", "x.dcm"])
def test_a_truncated_file_is_told(tmp_path, kept, name):
    path = save(made_slice(np.zeros((16, 16), np.int16)), tmp_path / name)
    path.write_bytes(path.read_bytes()[:kept])
    if name == "x" and 0 <= kept < 132:  # nothing left by which to know that it was DICOM
        assert find_series([tmp_path]) == ([], [])
    else:
        assert "truncated" in refused(tmp_path)


def test_a_compressed_file_cut_off_is_told(tmp_path):
    made = made_slice(np.arange(1024, dtype=np.int16).reshape(32, 32))
    made.compress("1.2.840.10008.1.2.5")
    path = save(made, tmp_path / "x.dcm")
    path.write_bytes(path.read_bytes()[:-40])
    assert "compressed pixels are cut off" in refused(tmp_path)


def test_noise_is_told(tmp_path):
    (tmp_path / "noise.dcm").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "noise").write_bytes(b"\0" * 128 + b"DICM" + np.random.default_rng(1).bytes(5000))
    series, left_out = find_series([tmp_path])
    assert not series and len(reasons(left_out)) == 2


def test_a_deflated_bomb_is_not_inflated(tmp_path, monkeypatch):
    from priorlens.volumes import dicom_headers

    monkeypatch.setattr(dicom_headers, "_MAX_INFLATED", 2**20)
    made = made_slice(np.zeros((4, 4), np.int16))
    made.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = save(made, tmp_path / "x.dcm")
    content = path.read_bytes()
    start = 144 + int.from_bytes(content[140:144], "little")
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    path.write_bytes(content[:start] + deflate.compress(bytes(2**22)) + deflate.flush())
    assert "inflates to more than 1 GiB" in refused(tmp_path)


# --- series that mix


def test_two_series_interleaved_by_name(tmp_path):
    for series in "ab":
        write_series(tmp_path, ramp(4, 5, 6), series=series, name=lambda k, s=series: f"{k:03}{s}")
    found, left_out = find_series([tmp_path])
    assert not left_out and {one.uid for one in found} == {uid("series", "P1", "a"), uid("series", "P1", "b")}
    assert all(len({path.path.name[-1] for path in one.instances}) == 1 for one in found)


@pytest.mark.parametrize(
    ("modality", "keyword", "values", "parts"),
    [
        ("MR", "EchoTime", (4.6, 9.2), {"EchoTime 4.6", "EchoTime 9.2"}),
        ("MR", "DiffusionBValue", (0.0, 1000.0), {"DiffusionBValue", "DiffusionBValue 1000.0"}),
        ("CT", "AcquisitionNumber", (1, 2), {"AcquisitionNumber 1", "AcquisitionNumber 2"}),
        ("MR", "TemporalPositionIdentifier", (1, 2), {"TemporalPosition 1", "TemporalPosition 2"}),
        ("MR", "ImageType", (["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"]), None),
        ("CT", "ConvolutionKernel", ("B30f", "B70f"), {"ConvolutionKernel B30f", "ConvolutionKernel B70f"}),
    ],
)
def test_two_acquisitions_under_one_series(tmp_path, modality, keyword, values, parts):
    """Their empty slices are alike, yet no copies."""
    for index, value in enumerate(values):
        write_series(
            tmp_path,
            np.zeros((4, 5, 6), np.int16),
            name=lambda k, i=index: f"{k}{i}",
            change=lambda d, k, i=index: setattr(d, "SOPInstanceUID", uid(i, k)),
            modality=modality,
            **{keyword: value},
        )
    found, left_out = find_series([tmp_path])
    assert not left_out and [one.shape for one in found] == [(4, 5, 6)] * 2
    assert len({one.uid for one in found}) == 1 and len({one.part for one in found}) == 2
    assert parts is None or {one.part for one in found} == parts
    for one in found:
        assert len({piece.path.name[-1] for piece in one.instances}) == 1


def test_echoes_and_times_at_once(tmp_path):
    for echo in (1, 2):
        for time in (1, 2, 3):
            write_series(
                tmp_path,
                ramp(4, 5, 5),
                modality="MR",
                EchoTime=echo,
                TemporalPositionIdentifier=time,
                name=lambda k, e=echo, t=time: f"{e}{t}{k}",
                change=lambda d, k, e=echo, t=time: setattr(d, "SOPInstanceUID", uid(e, t, k)),
            )
    found, left_out = find_series([tmp_path])
    assert not left_out and len(found) == 6
    assert {one.part for one in found} == {f"EchoTime {e}.0 TemporalPosition {t}" for e in (1, 2) for t in (1, 2, 3)}


def test_two_acquisitions_that_lie_between_each_other(tmp_path):
    for number, origin in ((1, (0, 0, 0)), (2, (0, 0, 1.0))):
        write_series(
            tmp_path,
            ramp(4, 5, 8),
            origin=origin,
            AcquisitionNumber=number,
            name=lambda k, n=number: f"{n}{k}",
            change=lambda d, k, n=number: setattr(d, "SOPInstanceUID", uid(n, k)),
        )
    found, left_out = find_series([tmp_path])
    assert not left_out and [one.origin[2] for one in found] == [0, 1]


def test_one_helix_in_two_acquisitions_stays_one(tmp_path):
    write_series(tmp_path, ramp(4, 5, 8), change=lambda d, k: setattr(d, "AcquisitionNumber", 1 + k // 4))
    assert len(only(tmp_path).instances) == 8


def test_frames_of_two_echoes_in_one_file(tmp_path):
    from pydicom.dataset import Dataset

    def two_echoes(dataset):
        for index, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
            frame.MREchoSequence = [Dataset()]
            frame.MREchoSequence[0].EffectiveEchoTime = float(10 * (1 + index % 2))

    order = [k for k in range(5) for _ in range(2)]
    write_enhanced(tmp_path / "x.dcm", ramp(4, 5, 5), modality="MR", order=order, change=two_echoes)
    found, left_out = find_series([tmp_path])
    assert not left_out and [[one.frame for one in s.instances] for s in found] == [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]


@pytest.mark.parametrize("count", [2, 5])
def test_slices_that_lie_across_the_others(tmp_path, count):
    write_series(tmp_path, ramp(4, 5, 8))
    write_series(tmp_path, ramp(4, 5, count), orientation=CORONAL, name="across{}".format, change=renamed("c"))
    found, left_out = find_series([tmp_path])
    if count >= 4:
        assert not left_out and {one.part for one in found} == {"axial 4x5", "coronal 4x5"}
    else:
        assert len(found) == 1 and len(found[0].instances) == 8 and found[0].part == ""
        assert all("across the others of its series" in reason for reason in reasons(left_out))
        assert [one.path.name for one in left_out] == ["across0", "across1"]


def renamed(prefix):
    return lambda dataset, k: setattr(dataset, "SOPInstanceUID", uid(prefix, k))


@pytest.mark.parametrize("count", [2, 5])
def test_slices_of_another_size(tmp_path, count):
    write_series(tmp_path, ramp(4, 5, 8))
    write_series(tmp_path, ramp(6, 5, count), name="wide{}".format, change=renamed("w"))
    found, left_out = find_series([tmp_path])
    assert len(found) == (2 if count >= 4 else 1)
    assert [r.partition(": ")[2] for r in reasons(left_out)] == (
        [] if count >= 4 else ["is 6x5 pixels, the others of its series 4x5; leave it out"] * 2
    )


# --- copies


def test_a_file_sent_twice(tmp_path):
    paths = write_series(tmp_path, ramp(4, 5, 5))
    shutil.copy(paths[2], tmp_path / "again.dcm")
    found, left_out = find_series([tmp_path])
    assert len(found[0].instances) == 5
    assert reasons(left_out) == [f"{tmp_path}/again.dcm: is a copy of {paths[2]}; nothing is lost, remove one of them"]


def test_the_same_pixels_at_the_same_place(tmp_path):
    """Sent again under other names."""
    paths = write_series(tmp_path, ramp(4, 5, 5))
    write_series(tmp_path, ramp(4, 5, 5), name="z{}".format, change=renamed("again"))
    found, left_out = find_series([tmp_path])
    assert [one.path for one in found[0].instances] == paths
    assert [f"is a copy of {path};" in reason for path, reason in zip(paths, reasons(left_out), strict=True)] == [
        True
    ] * 5


def test_other_pixels_at_the_same_place_that_nothing_tells_apart(tmp_path):
    write_series(tmp_path, ramp(4, 5, 5))
    write_series(tmp_path, ramp(4, 5, 5) + 7, name="z{}".format, change=renamed("other"))
    reason = refused(tmp_path)
    assert reason.startswith(f"{tmp_path}: series 'made', 10 slices: 5 lie where another does (first at 0.0 mm)")


# --- where slices lie


def without(paths, *missing):
    for k in missing:
        paths[k].unlink()


@pytest.mark.parametrize(
    ("missing", "says"),
    [((4,), "1 is missing around 10.0 mm"), ((4, 5, 8), "3 are missing around 11.2, 20.0 mm"), ((3, 4, 5, 6), "4 are")],
)
def test_missing_slices(tmp_path, missing, says):
    without(write_series(tmp_path, ramp(4, 5, 12)), *missing)
    reason = refused(tmp_path)
    assert says in reason and "send the whole series again" in reason


def test_a_gap_among_four(tmp_path):
    without(write_series(tmp_path, ramp(4, 5, 4)), 1)
    assert "1 is missing around 2.5 mm" in refused(tmp_path)


@pytest.mark.parametrize(("shift", "fine"), [(0.04, True), (0.06, False), (1.0, False)])
def test_uneven_steps(tmp_path, shift, fine):
    write_series(tmp_path, ramp(4, 5, 8), change=moved(3, (0, 0, shift)))
    if fine:
        only(tmp_path)
    else:
        assert "its steps are uneven" in refused(tmp_path)


def test_thick_slices_may_differ_by_a_hundredth(tmp_path):
    write_series(tmp_path, ramp(4, 5, 8), spacing=(1, 1, 10), change=moved(3, (0, 0, 0.09)))
    only(tmp_path)


def test_steps_that_grow_too_little_to_be_seen_one_by_one(tmp_path):
    """Each within a hundredth of the median, yet slices end up far from where an even grid has them."""

    def change(dataset, k):
        dataset.ImagePositionPatient = [0, 0, 10.0 * k + (0.09 * min(k, 70))]

    write_series(tmp_path, ramp(2, 2, 140), spacing=(1, 1, 10), change=change)
    assert "its steps are uneven" in refused(tmp_path)


def test_other_pixel_spacing(tmp_path):
    write_series(tmp_path, ramp(4, 5, 8), change=lambda d, k: setattr(d, "PixelSpacing", [0.8, 0.7 + (k == 3) * 0.1]))
    assert "its PixelSpacing differs" in refused(tmp_path)


@pytest.mark.parametrize("degrees", [0.2, 5.0, -20.0])
def test_gantry_tilt(tmp_path, degrees):
    slope = np.tan(np.deg2rad(degrees)) * 2.5

    def change(dataset, k):
        dataset.ImagePositionPatient = [0, round(float(k * slope), 6), 2.5 * k]

    write_series(tmp_path, ramp(4, 5, 8), change=change)
    assert f"slanted by {abs(degrees):.2f} degrees" in refused(tmp_path)


def test_a_slice_shifted_in_its_plane(tmp_path):
    write_series(tmp_path, ramp(4, 5, 8), change=moved(3, (2.0, 0, 0)))
    assert "shifted against each other by up to 2.00 mm" in refused(tmp_path)


@pytest.mark.parametrize(("count", "says"), [(1, "only 1 slice,"), (2, "only 2 slices,")])
def test_too_few_slices(tmp_path, count, says):
    write_series(tmp_path, ramp(4, 5, count))
    assert says in refused(tmp_path)


def test_a_series_larger_than_is_read(tmp_path, monkeypatch):
    from priorlens.volumes import dicom_files

    monkeypatch.setattr(dicom_files, "MAX_VOXELS", 100)
    write_series(tmp_path, ramp(4, 5, 6))
    assert "more than 100 voxels" in refused(tmp_path)


def test_a_broken_slice_in_the_middle_is_told_with_the_gap_it_leaves(tmp_path):
    paths = write_series(tmp_path, ramp(4, 5, 8))
    paths[4].write_bytes(paths[4].read_bytes()[:-10])
    series, left_out = find_series([tmp_path])
    first, second = reasons(left_out)
    assert not series
    assert first.startswith(f"{tmp_path}: series 'made', 7 slices: 1 is missing around 10.0 mm")
    assert second.startswith(f"{paths[4]}: is truncated")


# --- a folder of a thousand


@pytest.fixture(scope="module")
def thousand(tmp_path_factory) -> Path:
    """Two series of 500, interleaved by name."""
    folder = tmp_path_factory.mktemp("thousand")
    stored = (np.arange(16 * 16 * 500) % 30000).astype(np.int16).reshape(16, 16, 500)
    for series in "ab":
        write_series(folder, stored, series=series, name=lambda k, s=series: f"IM{k:04}{s}")
    return folder


def add_what_cannot_be_used(folder: Path, broken_inside: bool) -> dict[Path, str]:
    """Ten broken files, inside a third series or by themselves, five localizers and a copy; what is said of each."""
    told: dict[Path, str] = {}
    third = write_series(folder, ramp(16, 16, 40 if broken_inside else 10), series="c", name="broken{:02}".format)
    for path in third[5:25:2] if broken_inside else third:
        path.write_bytes(path.read_bytes()[:-100])
        told[path] = "truncated"
    for k in range(5):
        made = made_slice(np.zeros((16, 16), np.int16), (0, 0, k), series="l", number=k)
        made.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        told[save(made, folder / f"scout{k}")] = "localizer"
    told[Path(shutil.copy(folder / "IM0007a", folder / "zcopy"))] = f"copy of {folder / 'IM0007a'};"
    return told


@pytest.mark.parametrize(("broken_inside", "count"), [(False, 500), (True, 100)])
def test_a_folder_of_a_thousand(thousand, tmp_path, broken_inside, count):
    for path in sorted(thousand.iterdir())[: 2 * count]:
        os.link(path, tmp_path / path.name)
    told = add_what_cannot_be_used(tmp_path, broken_inside)
    series, left_out = find_series([tmp_path])
    assert [one.shape for one in series] == [(16, 16, count)] * 2
    assert {one.instances[3].path.name for one in series} == {"IM0003a", "IM0003b"}
    if broken_inside:
        [of_series] = [one for one in left_out if one.path == tmp_path]
        assert "30 slices: 10 are missing around" in of_series.reason
        left_out = [one for one in left_out if one.path != tmp_path]
    assert {one.path for one in left_out} == set(told) and len(left_out) == 16
    for one, reason in zip(left_out, reasons(left_out), strict=True):
        assert told[one.path] in reason
