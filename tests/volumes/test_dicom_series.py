"""Voxels of DICOM series: their values through every transfer syntax, and where they lie, against SimpleITK."""

import io
import os
import warnings
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from made_dicom import AXIAL, CORONAL, SAGITTAL, affine_of, made_slice, normal, ramp, save, write_enhanced, write_series
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import (
    MPEG4HP41,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from priorlens.errors import InputError
from priorlens.volumes import dicom_decoder, dicom_series
from priorlens.volumes.dicom_files import find_series
from priorlens.volumes.dicom_series import read_series

CT = Path(os.environ.get("PRIORLENS_SHARED", Path(__file__).parents[3] / "shared" / "data")) / "ct_dicom"


def read(folder):
    series, left_out = find_series([folder])
    assert len(series) == 1 and not left_out, [one.reason for one in left_out]
    return read_series(series[0])


def failing(folder):
    with pytest.raises(InputError) as failure:
        read(folder)
    text = str(failure.value)
    assert "\n" not in text and ";" in text and text.startswith(str(folder))
    return text


def turned(*degrees):
    """Orientation cosines turned about x, then y, then z."""
    turn = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(degrees)):
        one = np.eye(3)
        others = [other for other in range(3) if other != axis]
        one[np.ix_(others, others)] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        turn = one @ turn
    return tuple(np.concatenate([turn[:, 0], turn[:, 1]]))


ORIENTATIONS = {
    "axial": AXIAL,
    "coronal": CORONAL,
    "sagittal": SAGITTAL,
    "feet first": (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    "rows and columns exchanged": (0.0, 1.0, 0.0, 1.0, 0.0, 0.0),
    "oblique": turned(20, -35, 50),
    "oblique, mirrored": (*turned(20, -35, 50)[3:], *turned(20, -35, 50)[:3]),
}


def corners(shape):
    """Index vectors (i, j, k, 1) of the eight corner voxels."""
    return np.array([[i, j, k, 1] for i in (0, shape[0] - 1) for j in (0, shape[1] - 1) for k in (0, shape[2] - 1)]).T


def by_simpleitk(folder, series):
    """Voxels [i, j, k] and affine (RAS+) as SimpleITK has them, slices in the order of this series."""
    itk = pytest.importorskip("SimpleITK")
    reader = itk.ImageSeriesReader()
    reader.SetFileNames([str(one.path) for one in series.instances])
    image = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return itk.GetArrayFromImage(image).transpose(2, 1, 0), np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


# --- where voxels lie


@pytest.mark.parametrize("name", ORIENTATIONS)
@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_voxels_lie_where_simpleitk_and_the_standard_have_them(tmp_path, name, modality):
    orientation, spacing, origin = ORIENTATIONS[name], (0.6, 0.9, 3.3), (-120.5, 77.25, 1040.125)
    stored = ramp(20, 16, 12)
    write_series(tmp_path, stored, orientation=orientation, spacing=spacing, origin=origin, modality=modality)
    volume = read(tmp_path)
    series = find_series([tmp_path])[0][0]
    here = corners(volume.shape)
    expected = affine_of(orientation, spacing, origin)
    assert np.abs((volume.affine - expected) @ here).max() < 1e-3
    values, affine = by_simpleitk(tmp_path, series)
    assert np.abs((volume.affine - affine) @ here).max() < 1e-3
    np.testing.assert_array_equal(volume.voxels[0], values)
    np.testing.assert_array_equal(volume.voxels[0], stored - (1024 if modality == "CT" else 0))
    # nibabel's definition: a row's cosines go with the step from column to column.
    np.testing.assert_allclose(volume.affine[:3, 0] * [-1, -1, 1], np.array(orientation[:3]) * 0.6, atol=1e-6)
    np.testing.assert_allclose(volume.affine[:3, 2] * [-1, -1, 1], normal(orientation) * 3.3, atol=1e-6)


@pytest.mark.parametrize("name", ["axial", "oblique"])
def test_frames_lie_where_files_do(tmp_path, name):
    options = {"orientation": ORIENTATIONS[name], "spacing": (0.6, 0.9, 3.3), "origin": (5, 6, 7)}
    write_series(tmp_path / "files", ramp(6, 7, 5), **options)
    write_enhanced(tmp_path / "frames.dcm", ramp(6, 7, 5), order=[4, 0, 3, 1, 2], **options)
    one, other = read(tmp_path / "files"), read(tmp_path / "frames.dcm")
    np.testing.assert_array_equal(one.voxels, other.voxels)
    np.testing.assert_allclose(one.affine, other.affine, atol=1e-5)
    assert one.units == other.units == "HU" and other.path == tmp_path / "frames.dcm"


@pytest.mark.shared
@pytest.mark.skipif(not CT.is_dir(), reason=f"no {CT}")
def test_a_real_ct_is_as_simpleitk_has_it():
    series, left_out = find_series([CT])
    assert len(series) == 1 and not left_out and len(series[0].instances) == 20
    volume = read_series(series[0])
    values, affine = by_simpleitk(CT, series[0])
    np.testing.assert_array_equal(volume.voxels[0], values)
    assert np.abs((volume.affine - affine) @ corners(volume.shape)).max() < 0.01
    assert volume.units == "HU" and volume.shape == (512, 512, 20) and volume.voxels.min() == -1024


# --- transfer syntaxes


def jpeg_lossless(path):
    """Compressed in place by GDCM: pydicom has no encoder for it."""
    gdcm = pytest.importorskip("gdcm")
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()


NATIVE = [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
COMPRESSED = [RLELossless, JPEGLSLossless, JPEG2000Lossless]


def compressed(syntax):
    needs = {JPEGLSLossless: "jpeg_ls", JPEG2000Lossless: "openjpeg"}.get(syntax)
    if needs:
        pytest.importorskip(needs)

    def change(dataset, k):
        dataset.compress(syntax, generate_instance_uid=False)

    return change


def resaved(paths, syntax):
    for path in paths:
        dataset = dcmread(path)
        if syntax == ExplicitVRBigEndian:
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<i2").astype(">i2").tobytes()
        dataset.file_meta.TransferSyntaxUID = syntax
        implicit, little = syntax.is_implicit_VR, syntax.is_little_endian
        dataset._pixel_array = None
        dataset = dataset.__class__(None, dataset, b"\0" * 128, dataset.file_meta, implicit, little)
        dataset.save_as(path, enforce_file_format=True)


@pytest.mark.parametrize("dtype", [np.int16, np.uint16])
@pytest.mark.parametrize("syntax", COMPRESSED, ids=lambda s: s.name)
def test_lossless_compression(tmp_path, syntax, dtype):
    stored = (ramp(34, 36, 4).astype(np.int64) * 13 - (20000 if dtype == np.int16 else 0)).astype(dtype)
    write_series(tmp_path, stored, change=compressed(syntax))
    np.testing.assert_array_equal(read(tmp_path).voxels[0], stored.astype(np.float32) - 1024)


def test_lossless_jpeg(tmp_path):
    stored = ramp(34, 36, 4).astype(np.uint16) * 13
    for path in write_series(tmp_path, stored):
        jpeg_lossless(path)
        assert dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID == JPEGLosslessSV1
    np.testing.assert_array_equal(read(tmp_path).voxels[0], stored.astype(np.float32) - 1024)


def test_lossy_jpeg_of_8_bits(tmp_path):
    stored = np.broadcast_to(np.linspace(20, 220, 16).astype(np.uint8)[:, None, None], (16, 18, 4)).copy()

    def change(dataset, k):
        content = io.BytesIO()
        PIL.Image.fromarray(np.ascontiguousarray(stored[:, :, k].T)).save(content, "JPEG", quality=95)
        dataset.PixelData = encapsulate([content.getvalue()])
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit

    write_series(tmp_path, stored, modality="MR", change=change)
    assert np.abs(read(tmp_path).voxels[0] - stored).max() <= 3


@pytest.mark.parametrize("syntax", NATIVE, ids=lambda s: s.name)
def test_uncompressed(tmp_path, syntax):
    paths = write_series(tmp_path, ramp(6, 7, 4) - 50)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        resaved(paths, syntax)
    assert dcmread(paths[0]).file_meta.TransferSyntaxUID == syntax
    np.testing.assert_array_equal(read(tmp_path).voxels[0], ramp(6, 7, 4) - 1074.0)


@pytest.mark.parametrize("syntax", COMPRESSED, ids=lambda s: s.name)
def test_compressed_frames(tmp_path, syntax):
    change = compressed(syntax)
    write_enhanced(
        tmp_path / "x.dcm", ramp(34, 36, 5), order=[2, 0, 1, 4, 3], change=lambda dataset: change(dataset, 0)
    )
    np.testing.assert_array_equal(read(tmp_path).voxels[0], ramp(34, 36, 5) - 1024.0)


def test_a_video_has_no_decoder(tmp_path):
    def change(dataset, k):
        dataset.PixelData = encapsulate([b"\0" * 400])
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = MPEG4HP41

    write_series(tmp_path, ramp(6, 7, 4), change=change)
    assert "is compressed by MPEG-4 AVC/H.264" in failing(tmp_path) and "no decoder" in failing(tmp_path)


def test_a_syntax_that_nobody_knows_is_named(tmp_path):
    for path in write_series(tmp_path, ramp(6, 7, 4)):
        path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.3.4567890123456\0", 1))
    assert "is compressed by 1.2.3.4567890123456, for which there is no decoder" in failing(tmp_path)


def test_a_decoder_that_is_not_installed_is_named(tmp_path, monkeypatch):
    from pydicom.pixels.decoders import base

    write_series(tmp_path, ramp(34, 36, 4), change=compressed(JPEGLSLossless))
    monkeypatch.setattr(base.Decoder, "is_available", property(lambda self: False))
    assert "JPEG-LS Lossless Image Compression, for which there is no decoder" in failing(tmp_path)


def test_compressed_pixels_that_claim_another_size(tmp_path):
    """Before a decoder takes memory for it."""

    def change(dataset, k):
        compressed(JPEG2000Lossless)(dataset, k)
        at = dataset.PixelData.index(b"\xff\x4f\xff\x51")
        content = bytearray(dataset.PixelData)
        content[at + 8 : at + 16] = (60000).to_bytes(4, "big") * 2
        dataset.PixelData = bytes(content)

    write_series(tmp_path, ramp(34, 36, 4), change=change)
    assert "compressed pixels claim 60000x60000 of 16 bits, its header 34x36" in failing(tmp_path)


@pytest.mark.parametrize("syntax", COMPRESSED, ids=lambda s: s.name)
def test_damaged_compressed_pixels(tmp_path, syntax):
    """Zeroed half-way: refused or decoded, never a traceback."""
    for path in write_series(tmp_path, ramp(32, 32, 3), change=compressed(syntax)):
        content = bytearray(path.read_bytes())
        content[-200:-60] = bytes(140)
        path.write_bytes(content)
    series, _ = find_series([tmp_path])
    try:
        volume = read_series(series[0])
        assert np.isfinite(volume.voxels).all()
    except InputError as error:
        assert "\n" not in str(error)


def test_a_decoder_that_dies_ends_no_more_than_its_file(tmp_path, monkeypatch):
    """GDCM ends its process on some damaged files."""
    for path in write_series(tmp_path, ramp(34, 36, 3)):
        jpeg_lossless(path)
    [series], _ = find_series([tmp_path])
    expected = read_series(series).voxels
    monkeypatch.setattr(dicom_decoder, "TIMEOUT", 0.0)
    with pytest.raises(InputError, match=r"cannot be decoded \(the decoder stopped, the pixels are damaged"):
        read_series(series)
    monkeypatch.undo()
    np.testing.assert_array_equal(read_series(series).voxels, expected)


def test_a_series_that_went_away(tmp_path):
    paths = write_series(tmp_path, ramp(6, 7, 4))
    [series], _ = find_series([tmp_path])
    paths[2].unlink()
    with pytest.raises(InputError, match="is not there any more"):
        read_series(series)
    save(made_slice(np.zeros((9, 9), np.int16)), paths[2])
    with pytest.raises(InputError, match="is 9x9 pixels where 6x7 were found"):
        read_series(series)


# --- values


def test_slope_and_intercept_of_each_slice(tmp_path):
    stored = ramp(6, 7, 4)

    def change(dataset, k):
        dataset.RescaleSlope, dataset.RescaleIntercept = 0.5 + k, 10 * k

    write_series(tmp_path, stored, change=change)
    expected = stored * (0.5 + np.arange(4)) + 10 * np.arange(4)
    np.testing.assert_allclose(read(tmp_path).voxels[0], expected)


def test_slope_and_intercept_of_each_frame(tmp_path):
    def change(dataset):
        for k, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
            frame.PixelValueTransformationSequence[0].RescaleSlope = 1 + k

    write_enhanced(tmp_path / "x.dcm", ramp(6, 7, 4), change=change)
    np.testing.assert_array_equal(read(tmp_path).voxels[0], ramp(6, 7, 4) * np.arange(1.0, 5) - 1024)


@pytest.mark.parametrize("slope", [0, "nan", 1e300])
def test_a_slope_that_gives_no_values(tmp_path, slope):
    def change(dataset, k):
        if slope == "nan":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                from pydicom.valuerep import DSfloat

                dataset["RescaleSlope"]._value = DSfloat("nan", validation_mode=0)
        else:
            dataset.RescaleSlope = slope

    write_series(tmp_path, ramp(6, 7, 4) + 1, change=change)
    failing(tmp_path)


@pytest.mark.parametrize(
    ("options", "units"),
    [
        ({}, "HU"),
        ({"RescaleType": None}, "HU"),
        ({"RescaleType": "US"}, "arbitrary"),
        ({"rescale": None}, "arbitrary"),
        ({"modality": "MR"}, "arbitrary"),
    ],
)
def test_units(tmp_path, options, units):
    write_series(tmp_path, ramp(6, 7, 4), **options)
    assert read(tmp_path).units == units


def test_slices_in_different_units_are_refused(tmp_path):
    write_series(tmp_path, ramp(6, 7, 4), change=lambda d, k: setattr(d, "RescaleType", "HU" if k else "US"))
    assert "differ in units" in failing(tmp_path)


def test_where_the_smallest_is_white_values_are_mirrored_within_their_range(tmp_path):
    write_series(tmp_path, ramp(6, 7, 4) + 10, modality="MR", PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(read(tmp_path).voxels[0], 10 + ramp(6, 7, 4).max() - ramp(6, 7, 4).astype(float))


def test_hounsfield_units_stay_whatever_they_are_displayed_as(tmp_path):
    write_series(tmp_path, ramp(6, 7, 4), PhotometricInterpretation="MONOCHROME1")
    volume = read(tmp_path)
    assert volume.units == "HU"
    np.testing.assert_array_equal(volume.voxels[0], ramp(6, 7, 4) - 1024.0)


def with_padding(value, vr, limit=None):
    def change(dataset, k):
        dataset.add_new(0x00280120, vr, value)
        if limit is not None:
            dataset.add_new(0x00280121, vr, limit)

    return change


@pytest.mark.parametrize(("value", "vr"), [(-2000, "SS"), (63536, "US")])
def test_padded_voxels_of_a_ct_are_air(tmp_path, value, vr):
    """A header may write -2000 as the unsigned number with the same bits."""
    stored = ramp(6, 7, 4)
    stored[0, :, :] = -2000
    write_series(tmp_path, stored, rescale=(1, 0), change=with_padding(value, vr))
    expected = np.where(stored == -2000, -1024, stored)
    np.testing.assert_array_equal(read(tmp_path).voxels[0], expected)


def test_padded_voxels_of_an_mr_are_its_smallest(tmp_path):
    stored = ramp(6, 7, 4).astype(np.uint16) + 100
    stored[0, :, :] = 0
    stored[1, :, :] = 5
    write_series(tmp_path, stored, modality="MR", change=with_padding(0, "US", 5))
    voxels = read(tmp_path).voxels[0]
    assert (voxels[:2] == stored[2:].min()).all()
    np.testing.assert_array_equal(voxels[2:], stored[2:])


def test_nothing_but_padding_is_refused(tmp_path):
    write_series(tmp_path, np.zeros((6, 7, 4), np.int16), change=with_padding(0, "SS"))
    assert "nothing but padding" in failing(tmp_path)


def test_12_bits_in_16_with_something_else_above_them(tmp_path):
    """Old files keep overlays in the bits above; sign is that of the 12."""
    stored = (ramp(6, 7, 4) % 4000 - 2000).astype(np.int16)
    content = ((stored.astype(np.int32) & 0x0FFF) | 0x5000).astype(np.uint16).view(np.int16)
    write_series(tmp_path, content, rescale=(1, 0), BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(read(tmp_path).voxels[0], stored)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_in_floating_point_pixels_is_refused(tmp_path, bad):
    values = np.ones((7, 6), np.float32)

    def change(dataset, k):
        del dataset.PixelData
        wrong = values.copy()
        wrong[3, 3] = bad if k == 2 else 1.5
        dataset.FloatPixelData = wrong.tobytes()
        dataset.BitsAllocated = 32
        for keyword in ("BitsStored", "HighBit", "PixelRepresentation"):
            del dataset[keyword]

    write_series(tmp_path, ramp(6, 7, 4), change=change)
    assert "nan or infinite pixels" in failing(tmp_path)


def test_more_voxels_than_are_read(tmp_path, monkeypatch):
    write_series(tmp_path, ramp(6, 7, 4))
    monkeypatch.setattr(dicom_series, "MAX_VOXELS", 100)
    assert "more than 100 voxels" in failing(tmp_path)


def test_high_throughput_jpeg_2000_is_decoded_or_named(tmp_path):
    def change(dataset, k):
        dataset.PixelData = encapsulate([b"\xff\x4f\xff\x51" + bytes(60)])
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = HTJ2KLossless

    write_series(tmp_path, ramp(6, 7, 4), change=change)
    failing(tmp_path)
