"""Scans as arrays with an affine: NPZ and NPY made here, MHA and NRRD as SimpleITK writes them."""

import io
import json
import sys
import zipfile

import numpy as np
import pytest

from priorlens.errors import InputError
from priorlens.volumes import volume as volume_module
from priorlens.volumes.arrays import is_volume_npz, npz_channels, read_array_mask, read_array_volume

RAMP = np.arange(60, dtype=np.int16).reshape(5, 4, 3)
AFFINE = np.array([[0.0, -2.0, 0.0, 5.0], [0.5, 0.0, 0.0, -7.0], [0.0, 0.0, 3.0, 11.0], [0.0, 0.0, 0.0, 1.0]])


def npz(path, **arrays):
    np.savez_compressed(path, **({"voxels": RAMP, "affine": AFFINE} | arrays))
    return path


def refused(path, *says, read=read_array_volume):
    with pytest.raises(InputError) as error:
        read(path)
    text = str(error.value)
    assert text.startswith(str(path)) and "\n" not in text and "; " in text, text
    for part in says:
        assert part in text, text


# --- NPZ


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float16, np.float32, np.float64, ">i4"])
def test_npz(tmp_path, dtype):
    volume = read_array_volume(npz(tmp_path / "a.npz", voxels=RAMP.astype(dtype)))
    np.testing.assert_array_equal(volume.voxels[0], RAMP)
    np.testing.assert_array_equal(volume.affine, AFFINE)
    assert (volume.units, volume.channels, volume.path) == ("arbitrary", ("",), tmp_path / "a.npz")


def test_order_in_memory_does_not_matter(tmp_path):
    path = npz(tmp_path / "a.npz", voxels=np.asfortranarray(RAMP))
    np.testing.assert_array_equal(read_array_volume(path).voxels[0], RAMP)


def test_npz_with_channels_and_units(tmp_path):
    two = np.stack([RAMP, -RAMP])
    path = npz(tmp_path / "a.npz", voxels=two, channels=np.array(["flair", "T1"]), units=np.array("HU"))
    volume = read_array_volume(path)
    assert volume.channels == ("flair", "T1") and volume.units == "HU" and npz_channels(path) == ("flair", "T1")
    np.testing.assert_array_equal(volume.voxels, two)
    assert npz_channels(npz(tmp_path / "b.npz", voxels=two)) == ("0", "1")
    assert npz_channels(npz(tmp_path / "c.npz", voxels=two[:1])) == ("",)
    assert npz_channels(npz(tmp_path / "d.npz", channels=np.array(["ct"]))) == ("ct",)


def test_units_are_told_by_values_only_where_the_file_is_silent(tmp_path):
    ct = np.linspace(-1000, 900, 60).reshape(5, 4, 3).astype(np.int16)
    assert read_array_volume(npz(tmp_path / "a.npz", voxels=ct)).units == "HU"
    assert read_array_volume(npz(tmp_path / "b.npz", voxels=ct, units="arbitrary")).units == "arbitrary"
    assert read_array_volume(npz(tmp_path / "c.npz", voxels=ct.astype(np.float32))).units == "arbitrary"


def test_what_is_a_scan_and_what_a_measurement(tmp_path):
    assert is_volume_npz(npz(tmp_path / "a.npz"))
    np.savez(tmp_path / "m.npz", y=RAMP, affine=AFFINE)
    (tmp_path / "t.npz").write_bytes(b"PK no archive")
    assert not is_volume_npz(tmp_path / "m.npz")
    assert not is_volume_npz(tmp_path / "t.npz")
    assert not is_volume_npz(tmp_path / "missing.npz")
    refused(tmp_path / "m.npz", "holds no voxels; save voxels and affine")
    refused(tmp_path / "t.npz", "damaged")
    refused(tmp_path / "missing.npz", "no such file")


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"voxels": RAMP[..., 0]}, "has shape (5, 4)"),
        ({"voxels": np.zeros((2, 1, 3, 4, 5))}, "has shape (2, 1, 3, 4, 5)"),
        ({"voxels": np.zeros((5, 0, 3))}, "has no voxels (shape 5x0x3)"),
        ({"voxels": RAMP * 1j}, "complex128 voxels"),
        ({"voxels": np.array(["a", "b"])}, "<U1 voxels"),
        ({"voxels": np.full((5, 4, 3), 7.0)}, "is constant"),
        ({"voxels": np.stack([RAMP, RAMP * 0]), "channels": np.array(["flair", "t1"])}, "a.npz/t1: is constant"),
        ({"voxels": np.where(RAMP == 9, np.nan, RAMP)}, "1 voxels that are nan or infinite"),
        ({"voxels": RAMP * 1e200}, "59 voxels that are nan or infinite"),
        ({"affine": np.eye(3)}, "its affine is none"),
        ({"affine": np.eye(4) * 1j}, "its affine is none"),
        ({"affine": np.eye(4) * np.nan}, "affine is none"),
        ({"affine": np.diag([1.0, 0, 1, 1])}, "no extent"),
        ({"affine": np.zeros((300, 300))}, "'affine' is too large"),
        ({"channels": np.array(["a", "b"])}, "'channels' do not name its 1 channels"),
        ({"channels": np.array([1])}, "'channels' do not name"),
        ({"voxels": np.stack([RAMP, RAMP]), "channels": np.array(["t1", "T1"])}, "'channels' do not name its 2"),
        ({"units": np.array("mm")}, "has units 'mm'"),
        ({"voxels": np.array([{}] * 60).reshape(5, 4, 3)}, "pickled Python objects"),
        ({"affine": np.array([[{}] * 4] * 4)}, "pickled Python objects"),
    ],
)
def test_npz_that_cannot_be_used(tmp_path, arrays, says):
    refused(npz(tmp_path / "a.npz", **arrays), says)


def claiming(path, shape, dtype="<i2", content=b"", version=(1, 0)):
    """An NPZ whose voxels claim this shape, whatever they hold."""
    header = io.BytesIO()
    write = np.lib.format.write_array_header_1_0 if version == (1, 0) else np.lib.format.write_array_header_2_0
    write(header, {"shape": shape, "fortran_order": False, "descr": dtype})
    affine = io.BytesIO()
    np.save(affine, AFFINE)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("affine.npy", affine.getvalue())
        archive.writestr("voxels.npy", header.getvalue() + content)
    return path


def test_headers_of_npz_are_not_trusted(tmp_path):
    refused(claiming(tmp_path / "a.npz", (2**20, 2**20, 2**20)), "more than 512 million voxels")
    refused(claiming(tmp_path / "b.npz", (2**31, 1, 1, 1)), "more than 512 million voxels")
    refused(claiming(tmp_path / "c.npz", (500, 500, 500)), "damaged")
    refused(claiming(tmp_path / "d.npz", (-1, 4, 3)), "")
    refused(claiming(tmp_path / "e.npz", (5, 4, 3), "|O"), "pickled")


def test_a_bomb_is_not_unpacked(tmp_path):
    """A thousand times the voxels its header claims: those claimed are read, and no more."""
    path = claiming(tmp_path / "a.npz", (5, 4, 3), content=RAMP.tobytes() + bytes(2**26), version=(2, 0))
    try:
        np.testing.assert_array_equal(read_array_volume(path).voxels[0], RAMP)
    except InputError as error:
        assert "damaged" in str(error)


@pytest.mark.parametrize("kept", [3, 100, -30])
def test_npz_cut_off(tmp_path, kept):
    path = npz(tmp_path / "a.npz")
    path.write_bytes(path.read_bytes()[:kept])
    refused(path, "")
    refused(path, "", read=npz_channels)


def test_the_bound_is_asked_before_anything_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(volume_module, "MAX_VOXELS", 59)
    refused(npz(tmp_path / "a.npz"), "more than")


# --- NPY


def test_npy_with_its_affine_beside_it(tmp_path):
    np.save(tmp_path / "a.npy", RAMP)
    refused(tmp_path / "a.npy", "does not tell where its voxels lie", "save an NPZ", "a.affine.json")
    (tmp_path / "a.affine.json").write_text(json.dumps(AFFINE.tolist()))
    volume = read_array_volume(tmp_path / "a.npy")
    np.testing.assert_array_equal(volume.voxels[0], RAMP)
    np.testing.assert_array_equal(volume.affine, AFFINE)


@pytest.mark.parametrize(
    "content", ["", "{}", "[1, 2", "[[1]]", '[["a"]]', "null", "[[1, 2], [3]]", "[" * 9000, "9" * 70000, "\xff"]
)
def test_an_affine_that_is_none(tmp_path, content):
    np.save(tmp_path / "a.npy", RAMP)
    (tmp_path / "a.affine.json").write_bytes(content.encode("latin1"))
    with pytest.raises(InputError, match=r"a\.affine\.json: "):
        read_array_volume(tmp_path / "a.npy")


def test_npy_that_cannot_be_used(tmp_path):
    (tmp_path / "a.affine.json").write_text(json.dumps(AFFINE.tolist()))
    path = tmp_path / "a.npy"
    np.save(path, RAMP[..., 0])
    refused(path, "has shape (5, 4)")
    np.save(path, np.array([[[{}]]]))
    refused(path, "pickled")
    np.save(path, RAMP)
    path.write_bytes(path.read_bytes()[:-1])
    refused(path, "damaged")
    refused(tmp_path / "a.txt", "is not one of .npz .npy .mha")


# --- MHA, MHD, NRRD


@pytest.fixture
def sitk():
    return pytest.importorskip("SimpleITK")


def itk_image(sitk, data=RAMP, affine=AFFINE):
    """The same voxels at the same place, in ITK's way: axes reversed, x to the left, y to the back."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(data.T))
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    to_lps = np.diag([-1.0, -1.0, 1.0])
    image.SetSpacing(spacing.tolist())
    image.SetOrigin((to_lps @ affine[:3, 3]).tolist())
    image.SetDirection((to_lps @ affine[:3, :3] / spacing).ravel().tolist())
    return image


@pytest.mark.parametrize("suffix", [".mha", ".mhd", ".nrrd", ".nhdr"])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.uint8])
def test_itk_formats(sitk, tmp_path, suffix, packed, dtype):
    path = tmp_path / f"a{suffix}"
    sitk.WriteImage(itk_image(sitk, RAMP.astype(dtype)), str(path), packed)
    volume = read_array_volume(path)
    np.testing.assert_array_equal(volume.voxels[0], RAMP)
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-12)
    assert volume.voxels.flags.c_contiguous and volume.units == "arbitrary"


def test_itk_and_nifti_put_a_scan_in_one_place(sitk, tmp_path):
    from priorlens.volumes.nifti import read_nifti

    sitk.WriteImage(itk_image(sitk), str(tmp_path / "a.nii.gz"))
    sitk.WriteImage(itk_image(sitk), str(tmp_path / "a.nrrd"))
    nifti, nrrd = read_nifti(tmp_path / "a.nii.gz"), read_array_volume(tmp_path / "a.nrrd")
    np.testing.assert_array_equal(nifti.voxels, nrrd.voxels)
    np.testing.assert_allclose(nifti.affine, nrrd.affine, atol=1e-5)


def test_what_itk_formats_cannot_be(sitk, tmp_path, monkeypatch):
    path = tmp_path / "a.mha"
    sitk.WriteImage(sitk.GetImageFromArray(RAMP[..., 0]), str(path))
    refused(path, "is no volume, it has 2 axes", "PNG")
    sitk.WriteImage(sitk.JoinSeries([itk_image(sitk)] * 2), str(path))
    refused(path, "has 4 axes")
    sitk.WriteImage(sitk.Compose([itk_image(sitk)] * 3), str(path))
    refused(path, "holds 3 numbers a voxel")
    sitk.WriteImage(itk_image(sitk, RAMP * 0), str(path))
    refused(path, "is constant")
    sitk.WriteImage(itk_image(sitk, np.where(RAMP == 3, np.nan, RAMP)), str(path))
    refused(path, "1 voxels that are nan")
    sitk.WriteImage(itk_image(sitk), str(path))
    content = path.read_bytes()
    path.write_bytes(content[:-40])
    refused(path, "")
    path.write_bytes(content.replace(b"DimSize = 5 4 3", b"DimSize = 99999 99999 99999"))
    refused(path, "more than 512 million voxels")
    path.write_bytes(b"no header")
    refused(path, "damaged")


def test_simpleitk_that_is_missing_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.mha").write_bytes(b"...")
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    refused(tmp_path / "a.mha", 'pip install "priorlens[itk]"')


# --- masks


def test_masks(tmp_path):
    like = read_array_volume(npz(tmp_path / "a.npz"))
    mask = read_array_mask(npz(tmp_path / "m.npz", voxels=RAMP > 57), like)
    assert mask.dtype == bool and mask.sum() == 2 and mask[4, 3, 1]
    assert not read_array_mask(npz(tmp_path / "n.npz", voxels=RAMP * 0), like).any()
    moved = AFFINE.copy()
    moved[2, 3] += 0.5
    refused(
        npz(tmp_path / "p.npz", affine=moved),
        "lies 0.5 mm away",
        read=lambda path: read_array_mask(path, like),
    )
    refused(
        npz(tmp_path / "c.npz", voxels=np.stack([RAMP, RAMP])),
        "the mask has 2 channels",
        read=lambda path: read_array_mask(path, like),
    )


def test_a_wrong_checksum_is_found(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, voxels=RAMP, affine=AFFINE)
    content = bytearray(path.read_bytes())
    content[content.index(RAMP.tobytes()) + 5] ^= 1
    path.write_bytes(bytes(content))
    refused(path, "damaged", "CRC")
