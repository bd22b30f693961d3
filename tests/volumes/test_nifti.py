"""NIfTI files made field by field, read with known answers; what is written, as two other readers see it."""

import gzip
import hashlib
import struct

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from priorlens.errors import InputError, OutputError
from priorlens.volumes import volume as volume_module
from priorlens.volumes.nifti import read_mask, read_nifti, write_nifti, write_shown
from priorlens.volumes.volume import Volume, corner_shift

SHAPE = (5, 4, 3)
RAMP = np.arange(60, dtype=np.int16).reshape(SHAPE)


def turned(angles=(20, -30, 50), spacing=(0.7, 1.3, 4.0), origin=(-91.5, 12.25, 33.0), flip=False, order=(0, 1, 2)):
    """An affine: turned by these degrees, left-handed where `flip`, its axes in another order."""
    steps = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * spacing
    affine = np.eye(4)
    affine[:3, :3] = (steps * [-1 if flip else 1, 1, 1])[:, list(order)]
    affine[:3, 3] = origin
    return affine


def save(path, data=RAMP, affine=None, sform=1, qform=1, kind=nibabel.Nifti1Image, **fields):
    affine = np.eye(4) if affine is None else affine
    image = kind(data, affine)
    image.set_qform(affine, qform)
    image.set_sform(affine, sform)
    for name, value in fields.items():
        image.header[name] = value
    nibabel.save(image, path)
    return path


def patched(path, offset, content):
    """The file with these bytes of its header replaced, whatever nibabel thinks of them."""
    raw = bytearray(gzip.decompress(path.read_bytes()) if path.name.endswith(".gz") else path.read_bytes())
    raw[offset : offset + len(content)] = content
    path.write_bytes(gzip.compress(bytes(raw)) if path.name.endswith(".gz") else bytes(raw))
    return path


def refused(path, *says, read=read_nifti):
    with pytest.raises(InputError) as error:
        read(path)
    text = str(error.value)
    assert text.startswith(f"{path}: ") and "\n" not in text and "; " in text, text
    for part in says:
        assert part in text, text


# --- reading


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".NII.GZ"])
@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "f4", "f8", "i8", "u8", ">i2", ">f4"])
def test_every_real_type_in_either_byte_order(tmp_path, suffix, dtype):
    endianness = ">" if dtype.startswith(">") else "<"
    header = nibabel.Nifti1Header(endianness=endianness)
    header.set_data_dtype(np.dtype(dtype))
    image = nibabel.Nifti1Image(RAMP.astype(dtype), turned(), header, dtype=np.dtype(dtype))
    image.set_qform(turned(), 1)
    (tmp_path / f"a{suffix}").write_bytes(
        gzip.compress(image.to_bytes()) if suffix.lower().endswith("gz") else image.to_bytes()
    )
    volume = read_nifti(tmp_path / f"a{suffix}")
    assert volume.voxels.dtype == np.float32 and volume.shape == SHAPE
    np.testing.assert_array_equal(volume.voxels[0], RAMP)
    np.testing.assert_allclose(volume.affine, turned(), atol=1e-5)
    assert (volume.units, volume.channels, volume.path) == ("arbitrary", ("",), tmp_path / f"a{suffix}")


def test_nifti_2(tmp_path):
    volume = read_nifti(save(tmp_path / "a.nii.gz", affine=turned(), kind=nibabel.Nifti2Image))
    np.testing.assert_array_equal(volume.voxels[0], RAMP)
    np.testing.assert_allclose(volume.affine, turned(), atol=1e-9)


@pytest.mark.parametrize(("slope", "intercept"), [(2.5, -1000.0), (1.0, -1024.0), (-1.0, 3.0)])
def test_rescaled_as_the_header_says(tmp_path, slope, intercept):
    path = patched(save(tmp_path / "a.nii"), 112, struct.pack("<ff", slope, intercept))
    np.testing.assert_allclose(read_nifti(path).voxels[0], RAMP * slope + intercept, rtol=1e-6)


@pytest.mark.parametrize("slope", [0.0, np.nan, np.inf])
def test_a_slope_that_is_none_means_no_rescaling(tmp_path, slope):
    path = patched(save(tmp_path / "a.nii"), 112, struct.pack("<ff", slope, 7.0))
    np.testing.assert_array_equal(read_nifti(path).voxels[0], RAMP)


def test_an_intercept_that_is_not_finite_is_refused(tmp_path):
    refused(patched(save(tmp_path / "a.nii"), 112, struct.pack("<ff", 1.0, np.nan)), "60 voxels that are nan")


@pytest.mark.parametrize(
    ("dtype", "low", "high", "units"),
    [
        ("i2", -1024, 900, "HU"),
        ("i2", -900, 201, "HU"),
        ("i2", -899, 900, "arbitrary"),
        ("i2", -1000, 200, "arbitrary"),
        ("f4", -1024, 900, "arbitrary"),
    ],
)
def test_integers_from_air_to_bone_are_hounsfield_units(tmp_path, dtype, low, high, units):
    data = np.linspace(low, high, 60).reshape(SHAPE).astype(dtype)
    assert read_nifti(save(tmp_path / "a.nii.gz", data)).units == units


def test_rescaled_integers_can_be_hounsfield_units(tmp_path):
    data = np.linspace(0, 4095, 60).reshape(SHAPE).astype(np.int16)
    path = patched(save(tmp_path / "a.nii", data), 112, struct.pack("<ff", 1.0, -1024.0))
    assert read_nifti(path).units == "HU"


def test_a_last_axis_of_one_is_none(tmp_path):
    np.testing.assert_array_equal(read_nifti(save(tmp_path / "a.nii", RAMP[..., None])).voxels[0], RAMP)
    np.testing.assert_array_equal(read_nifti(save(tmp_path / "b.nii", RAMP[..., None, None])).voxels[0], RAMP)


def test_one_slice_is_a_volume(tmp_path):
    assert read_nifti(save(tmp_path / "a.nii", RAMP[..., :1])).shape == (5, 4, 1)


# --- where it lies


def test_only_the_coded_form_counts(tmp_path):
    path = save(tmp_path / "s.nii", affine=turned(), sform=2, qform=0)
    np.testing.assert_allclose(read_nifti(path).affine, turned(), atol=1e-5)
    path = save(tmp_path / "q.nii", affine=turned(flip=True), sform=0, qform=1)
    np.testing.assert_allclose(read_nifti(path).affine, turned(flip=True), atol=1e-4)
    assert nibabel.load(path).header["sform_code"] == 0


def test_forms_that_disagree_are_refused_by_how_much(tmp_path):
    image = nibabel.Nifti1Image(RAMP, turned())
    other = turned()
    other[0, 3] += 2.5
    image.set_sform(turned(), 1)
    image.set_qform(other, 1)
    nibabel.save(image, tmp_path / "a.nii.gz")
    refused(tmp_path / "a.nii.gz", "sform and qform disagree by 2.5 mm", "fslorient -copysform2qform")
    other[0, 3] -= 2.42
    image.set_qform(other, 1)
    nibabel.save(image, tmp_path / "b.nii.gz")
    np.testing.assert_allclose(read_nifti(tmp_path / "b.nii.gz").affine, turned(), atol=1e-5)


def test_without_any_form_the_place_is_guessed_as_nibabel_does(tmp_path):
    path = save(tmp_path / "a.nii", affine=np.diag([2.0, 3.0, 4.0, 1.0]), sform=0, qform=0)
    np.testing.assert_allclose(read_nifti(path).affine, nibabel.load(path).affine)
    refused(patched(path, 80, struct.pack("<f", 0.0)), "neither where voxels lie nor how large")


@pytest.mark.parametrize(("unit", "times"), [(0, 1), (1, 1000), (2, 1), (3, 0.001), (2 + 8, 1)])
def test_lengths_become_millimetres(tmp_path, unit, times):
    affine = turned()
    path = patched(save(tmp_path / "a.nii", affine=affine), 123, bytes([unit]))
    expected = np.diag([times] * 3 + [1.0]) @ affine
    np.testing.assert_allclose(read_nifti(path).affine, expected, rtol=1e-5, atol=1e-4 * times)


def test_an_unknown_unit_of_length(tmp_path):
    refused(patched(save(tmp_path / "a.nii"), 123, b"\x05"), "unknown unit of length (5)")


@pytest.mark.parametrize(
    ("affine", "says"),
    [(np.diag([1.0, 0.0, 1.0, 1.0]), "no extent"), (np.diag([1.0, np.nan, 1.0, 1.0]), "affine is none")],
)
def test_an_affine_that_cannot_be_used(tmp_path, affine, says):
    path = patched(save(tmp_path / "a.nii", qform=0), 280, affine[:3].astype("<f4").tobytes())
    refused(path, says)


def test_a_slanted_grid_is_refused(tmp_path):
    affine = np.eye(4)
    affine[1, 2] = np.tan(np.deg2rad(15))
    refused(save(tmp_path / "a.nii", affine=affine, qform=0), "slanted by 15.0 degrees")


def test_a_quaternion_that_is_no_rotation(tmp_path):
    path = save(tmp_path / "a.nii", sform=0)
    refused(patched(path, 256, struct.pack("<fff", 1.0, 1.0, 1.0)), "qform is no rotation")


# --- what is refused


@pytest.mark.parametrize(
    ("dtype", "says"),
    [(np.complex64, "complex"), (np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]), "RGB")],
)
def test_what_is_no_real_number_is_refused(tmp_path, dtype, says):
    nibabel.save(nibabel.Nifti1Image(np.zeros(SHAPE, dtype), np.eye(4)), tmp_path / "a.nii.gz")
    refused(tmp_path / "a.nii.gz", says, "not real numbers", "as float32")


def test_the_number_of_axes(tmp_path):
    refused(save(tmp_path / "t.nii.gz", np.stack([RAMP, RAMP], -1)), "has 4 axes (time?)", "fslroi")
    refused(save(tmp_path / "p.nii", RAMP[..., 0]), "is no volume, it has 2 axes", "PNG")


@pytest.mark.parametrize(
    ("voxel", "says"), [(np.nan, "1 voxels that are nan or infinite"), (np.inf, "1 voxels"), (-np.inf, "1 voxels")]
)
def test_voxels_that_are_no_numbers(tmp_path, voxel, says):
    data = RAMP.astype(np.float32)
    data[1, 2, 1] = voxel
    refused(save(tmp_path / "a.nii.gz", data), says)


def test_what_float32_cannot_hold(tmp_path):
    refused(save(tmp_path / "a.nii", RAMP * 1e300), "59 voxels that are nan or infinite")


def test_a_constant_scan(tmp_path):
    refused(save(tmp_path / "a.nii", np.full(SHAPE, 3, np.int16)), "is constant")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    ("dims", "says"),
    [
        ((3, 0, 4, 3), "has no voxels (shape 0x4x3)"),
        ((3, -5, 4, 3), "claims the shape (-5, 4, 3)"),
        ((3, 30000, 30000, 30000), "more than 512 million voxels"),
        ((3, 1000, 1000, 500), "is truncated"),
        ((9, 5, 4, 3), "claims 9 axes"),
        ((0, 5, 4, 3), "claims 0 axes"),
    ],
)
def test_headers_are_not_trusted(tmp_path, suffix, dims, says):
    refused(patched(save(tmp_path / f"a{suffix}"), 40, struct.pack("<4h", *dims)), says)


def test_other_claims_of_a_header(tmp_path):
    refused(patched(save(tmp_path / "t.nii"), 70, struct.pack("<h", 777)), "claims data type 777")
    refused(patched(save(tmp_path / "o.nii"), 108, struct.pack("<f", np.nan)), "start at byte nan")
    refused(patched(save(tmp_path / "f.nii"), 108, struct.pack("<f", 1e12)), "start at byte 1e+12")
    refused(patched(save(tmp_path / "m.nii"), 344, b"ni1\0"), "half of a .hdr/.img pair")
    refused(patched(save(tmp_path / "a.nii"), 344, bytes(4)), "ANALYZE")


def test_an_offset_of_zero_means_the_least(tmp_path):
    path = patched(save(tmp_path / "a.nii"), 108, struct.pack("<f", 0.0))
    np.testing.assert_array_equal(read_nifti(path).voxels[0], RAMP)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kept", [1, 3, 40, 200, -1, -20])
def test_cut_off(tmp_path, suffix, kept):
    path = save(tmp_path / f"a{suffix}", np.random.default_rng(0).integers(0, 999, (9, 8, 7)).astype(np.int16))
    path.write_bytes(path.read_bytes()[:kept])
    refused(path, "")


def test_a_flipped_bit_is_found_by_the_checksum(tmp_path):
    path = tmp_path / "a.nii.gz"
    raw = save(tmp_path / "a.nii").read_bytes()
    packed = bytearray(gzip.compress(raw, compresslevel=0))  # stored as it is, so that only the checksum can tell
    packed[packed.index(RAMP.tobytes(order="F")) + 7] ^= 4
    path.write_bytes(bytes(packed))
    refused(path, "damaged", "CRC")


def test_a_bomb_is_not_unpacked(tmp_path):
    path = tmp_path / "a.nii.gz"
    with gzip.open(path, "wb", compresslevel=9) as file:
        file.write(save(tmp_path / "a.nii").read_bytes())
        for _ in range(64):
            file.write(bytes(2**20))
    refused(path, "holds far more than the 120 bytes")


def test_padding_is_no_bomb(tmp_path):
    path = save(tmp_path / "a.nii")
    path.write_bytes(path.read_bytes() + bytes(500))
    np.testing.assert_array_equal(read_nifti(path).voxels[0], RAMP)


def test_suffixes(tmp_path):
    packed, plain = save(tmp_path / "a.nii.gz").read_bytes(), save(tmp_path / "a.nii").read_bytes()
    (tmp_path / "b.nii").write_bytes(packed)
    (tmp_path / "b.nii.gz").write_bytes(plain)
    refused(tmp_path / "b.nii", "rename it to b.nii.gz")
    refused(tmp_path / "b.nii.gz", "is not compressed", "rename it to b.nii")
    for name in ("c.hdr", "c.img", "c.img.gz"):
        (tmp_path / name).write_bytes(plain)
        refused(tmp_path / name, "half of a .hdr/.img pair", "convert the pair")
    (tmp_path / "c.txt").write_bytes(plain)
    refused(tmp_path / "c.txt", "is not one of .nii .nii.gz")


def test_what_is_no_nifti_at_all(tmp_path):
    (tmp_path / "e.nii").touch()
    (tmp_path / "n.nii").write_bytes(b"notes, not numbers" * 99)
    (tmp_path / "n.nii.gz").write_bytes(gzip.compress(b"notes, not numbers" * 99))
    (tmp_path / "d.nii").mkdir()
    refused(tmp_path / "e.nii", "is empty")
    refused(tmp_path / "n.nii", "is not a NIfTI file")
    refused(tmp_path / "n.nii.gz", "is not a NIfTI file")
    refused(tmp_path / "d.nii", "is a folder")
    refused(tmp_path / "missing.nii", "no such file")


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 351), st.integers(0, 255)), min_size=1, max_size=6))
def test_no_header_makes_a_traceback(tmp_path_factory, bytes_at):
    path = tmp_path_factory.mktemp("header") / "a.nii"
    raw = bytearray(nibabel.Nifti1Image(RAMP, turned()).to_bytes())
    for position, byte in bytes_at:
        raw[position] = byte
    path.write_bytes(bytes(raw))
    try:
        volume = read_nifti(path)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert np.isfinite(volume.voxels).all() and np.isfinite(volume.affine).all()


# --- masks


def scan(tmp_path, affine=None):
    return read_nifti(save(tmp_path / "scan.nii.gz", affine=turned() if affine is None else affine))


def test_a_mask_is_true_above_zero(tmp_path):
    labels = np.zeros(SHAPE, np.int16)
    labels[1, 2, 0], labels[4, 0, 2], labels[0, 0, 0] = 1, 4, -1
    mask = read_mask(save(tmp_path / "m.nii.gz", labels, turned()), scan(tmp_path))
    assert mask.dtype == bool and {tuple(p) for p in np.argwhere(mask).tolist()} == {(1, 2, 0), (4, 0, 2)}
    assert not read_mask(save(tmp_path / "none.nii", np.zeros(SHAPE, np.uint8), turned()), scan(tmp_path)).any()


def test_a_mask_on_another_grid(tmp_path):
    like = scan(tmp_path)
    refused(
        save(tmp_path / "s.nii", RAMP[:4], turned()),
        *("the mask has 4x4x3 voxels", "5x4x3", str(like.path)),
        read=lambda path: read_mask(path, like),
    )
    moved = turned(origin=(-91.5, 12.25, 34.0))
    refused(
        save(tmp_path / "a.nii", RAMP, moved),
        *("lies 1 mm away", "affines differ"),
        read=lambda path: read_mask(path, like),
    )
    near = turned(origin=(-91.5, 12.25, 33.05))
    assert read_mask(save(tmp_path / "n.nii", RAMP, near), like).sum() == 59


def test_a_mask_with_nan(tmp_path):
    path = save(tmp_path / "m.nii", np.full(SHAPE, np.nan, np.float32), turned())
    refused(path, "60 voxels that are nan", read=lambda path: read_mask(path, scan(tmp_path)))


# --- writing

ORIENTATIONS = {
    "plain": np.eye(4),
    "oblique": turned(),
    "left-handed": turned(flip=True),
    "permuted": turned(order=(2, 0, 1)),
    "permuted, left-handed": turned(order=(1, 0, 2), angles=(90, 0, 0)),
    "far away": turned(origin=(1234.5, -2000.25, 987.0)),
}


def corners(affine, shape=SHAPE):
    ends = [(0, length - 1) for length in shape]
    return np.array([(affine @ (i, j, k, 1))[:3] for i in ends[0] for j in ends[1] for k in ends[2]])


def itk_corners(path):
    """As SimpleITK sees them, in RAS."""
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.ReadImage(str(path))
    ends = [(0, length - 1) for length in image.GetSize()]
    points = [image.TransformIndexToPhysicalPoint((i, j, k)) for i in ends[0] for j in ends[1] for k in ends[2]]
    return np.array(points) * [-1, -1, 1]


def apart(one, other):
    return np.linalg.norm(one - other, axis=1).max()


@pytest.mark.parametrize("name", ORIENTATIONS)
@pytest.mark.parametrize(("sform", "qform"), [(1, 1), (0, 1), (4, 0), (2, 1), (0, 0)])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_a_map_overlays_its_nifti_source(tmp_path, name, sform, qform, kind):
    source = save(tmp_path / "scan.nii.gz", affine=ORIENTATIONS[name], sform=sform, qform=qform, kind=kind)
    written = tmp_path / "map.nii.gz"
    values = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    write_nifti(written, values, read_nifti(source))
    before, after = nibabel.load(source), nibabel.load(written)
    assert type(before) is type(after)
    fields = ("sform_code", "qform_code", "srow_x", "srow_y", "srow_z", "quatern_b", "quatern_c", "quatern_d")
    for field in (*fields, "qoffset_x", "qoffset_y", "qoffset_z"):
        assert before.header[field].tobytes() == after.header[field].tobytes(), field
    assert before.header["pixdim"][:4].tobytes() == after.header["pixdim"][:4].tobytes()
    np.testing.assert_array_equal(before.affine, after.affine)
    assert after.get_data_dtype() == np.float32
    np.testing.assert_array_equal(after.get_fdata(dtype=np.float32), values)


@pytest.mark.parametrize("name", ORIENTATIONS)
@pytest.mark.parametrize(("sform", "qform"), [(1, 1), (0, 1)])
def test_simpleitk_sees_map_and_source_in_one_place(tmp_path, name, sform, qform):
    source = save(tmp_path / "scan.nii.gz", affine=ORIENTATIONS[name], sform=sform, qform=qform)
    volume = read_nifti(source)
    write_nifti(tmp_path / "map.nii.gz", RAMP.astype(np.float32), volume)
    assert apart(itk_corners(source), itk_corners(tmp_path / "map.nii.gz")) == 0
    assert apart(itk_corners(tmp_path / "map.nii.gz"), corners(volume.affine)) < 0.01


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_a_map_of_another_source_lies_where_its_affine_says(tmp_path, name):
    like = Volume(RAMP[None].astype(np.float32), ORIENTATIONS[name], "HU", tmp_path / "series")
    written = tmp_path / "map.nii.gz"
    write_nifti(written, RAMP, like)
    image = nibabel.load(written)
    assert (image.header["sform_code"], image.header["qform_code"]) == (1, 1)
    assert image.header.get_xyzt_units()[0] == "mm" and image.get_data_dtype() == np.int16
    assert apart(corners(image.get_sform()), corners(like.affine)) < 0.01
    assert apart(corners(image.get_qform()), corners(like.affine)) < 0.01
    assert apart(itk_corners(written), corners(like.affine)) < 0.01
    np.testing.assert_array_equal(image.get_fdata(), RAMP)
    back = read_nifti(written)
    np.testing.assert_array_equal(back.voxels[0], RAMP)
    assert corner_shift(back.affine, like.affine, like.shape) < 0.01


def test_no_qform_where_no_rotation_expresses_the_affine(tmp_path):
    slanted = np.diag([1.0, 1.0, 300.0, 1.0])
    slanted[1, 2] = 0.2  # within what counts as right-angled, but 0.3 mm at the far corner
    like = Volume(RAMP[None].astype(np.float32), slanted, "HU", tmp_path / "series")
    write_nifti(tmp_path / "map.nii.gz", RAMP, like)
    image = nibabel.load(tmp_path / "map.nii.gz")
    assert (image.header["sform_code"], image.header["qform_code"]) == (1, 0)
    np.testing.assert_allclose(read_nifti(tmp_path / "map.nii.gz").affine, slanted, atol=1e-5)


def test_a_source_in_micron_keeps_its_unit(tmp_path):
    source = patched(save(tmp_path / "scan.nii", affine=np.diag([500.0, 500.0, 900.0, 1.0])), 123, b"\x03")
    volume = read_nifti(source)
    np.testing.assert_allclose(volume.spacing, [0.5, 0.5, 0.9])
    write_nifti(tmp_path / "map.nii.gz", RAMP, volume)
    assert nibabel.load(tmp_path / "map.nii.gz").header.get_xyzt_units()[0] == "micron"
    np.testing.assert_allclose(read_nifti(tmp_path / "map.nii.gz").affine, volume.affine)


@pytest.mark.parametrize("change", ["gone", "another place", "another shape", "damaged"])
def test_a_source_that_has_changed_since_is_not_gone_by(tmp_path, change):
    path = save(tmp_path / "scan.nii.gz", affine=turned())
    volume = read_nifti(path)
    if change == "gone":
        path.unlink()
    elif change == "damaged":
        path.write_bytes(b"no more")
    else:
        save(path, RAMP if change == "another place" else RAMP[:3], np.eye(4))
    write_nifti(tmp_path / "map.nii.gz", RAMP, volume)
    assert apart(corners(nibabel.load(tmp_path / "map.nii.gz").affine), corners(turned())) < 0.01


def test_equal_content_gives_equal_bytes(tmp_path, monkeypatch):
    volume = scan(tmp_path)
    write_nifti(tmp_path / "a.nii.gz", RAMP, volume)
    monkeypatch.setattr("time.time", lambda: 9e8)
    write_nifti(tmp_path / "b.nii.gz", RAMP.astype(np.int32), volume)
    digests = {hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in ("a.nii.gz", "b.nii.gz")}
    assert len(digests) == 1


def test_written_whole_or_not_at_all(tmp_path):
    with pytest.raises(OutputError, match="its folder is missing"):
        write_nifti(tmp_path / "no" / "a.nii.gz", RAMP, scan(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["scan.nii.gz"]


# --- scans as they are shown


def shown(tmp_path, voxels, channels=("",), **options):
    """Written, and seen by nibabel; with the scan."""
    voxels = np.asarray(voxels, np.float32)
    volume = Volume(voxels if voxels.ndim == 4 else voxels[None], turned(), "HU", tmp_path / "series", channels)
    write_shown(tmp_path / "shown.nii.gz", volume)
    image = nibabel.load(tmp_path / "shown.nii.gz")
    assert image.get_data_dtype() == np.int16
    return image, volume


def test_hounsfield_units_are_kept_to_the_unit(tmp_path):
    voxels = np.linspace(-1024, 3071, 60).round().reshape(SHAPE)
    image, volume = shown(tmp_path, voxels)
    np.testing.assert_array_equal(np.asarray(image.dataobj), voxels)
    assert image.dataobj.slope == 1 and image.dataobj.inter == 0 and image.shape == SHAPE
    assert apart(corners(image.affine), corners(volume.affine)) < 0.01
    back = read_nifti(tmp_path / "shown.nii.gz")
    assert back.units == "HU"
    np.testing.assert_array_equal(back.voxels, volume.voxels)


@pytest.mark.parametrize("ends", [(-(2**15), 2**15 - 1), (0, 1), (-1, 0)])
def test_the_ends_of_16_bits(tmp_path, ends):
    voxels = np.resize(ends, 60).reshape(SHAPE)
    image, _ = shown(tmp_path, voxels)
    np.testing.assert_array_equal(np.asarray(image.dataobj), voxels)
    assert image.dataobj.slope == 1


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.0), (-3.7, 1234.56), (0.0, 70000.0), (-40000.0, 3.0), (1e-7, 3e-7), (0.5, 1e8)]
)
def test_other_intensities_are_within_a_65000th_of_their_range(tmp_path, low, high):
    voxels = np.random.default_rng(0).uniform(low, high, SHAPE).astype(np.float32)
    voxels.flat[:2] = low, high
    image, volume = shown(tmp_path, voxels)
    error = np.abs(np.asarray(image.dataobj, np.float64) - volume.voxels[0])
    assert error.max() <= (volume.voxels.max() - volume.voxels.min()) / 65000
    assert np.asarray(image.dataobj.get_unscaled()).min() < -32000 and image.dataobj.get_unscaled().max() > 32000


def test_whole_numbers_beyond_16_bits_are_rescaled(tmp_path):
    image, volume = shown(tmp_path, np.linspace(0, 65535, 60).round().reshape(SHAPE))
    assert np.abs(np.asarray(image.dataobj) - volume.voxels[0]).max() <= 65535 / 65000


def test_a_constant_channel_is_no_division_by_zero(tmp_path):
    image, volume = shown(tmp_path, np.full(SHAPE, 0.25))
    np.testing.assert_array_equal(np.asarray(image.dataobj, np.float32), volume.voxels[0])


def test_channels_are_a_fourth_axis(tmp_path):
    voxels = np.stack([RAMP * 1.0, RAMP * -2.0, RAMP + 0.0])
    image, volume = shown(tmp_path, voxels, ("flair", "t1", "t2"))
    assert image.shape == (*SHAPE, 3)
    np.testing.assert_array_equal(np.moveaxis(np.asarray(image.dataobj), 3, 0), volume.voxels)
    assert apart(corners(image.affine), corners(volume.affine)) < 0.01


@pytest.mark.parametrize("name", ORIENTATIONS)
@pytest.mark.parametrize(("sform", "qform"), [(1, 1), (0, 1), (4, 0), (0, 0)])
def test_a_scan_that_is_shown_lies_where_its_source_does(tmp_path, name, sform, qform):
    source = save(tmp_path / "scan.nii.gz", affine=ORIENTATIONS[name], sform=sform, qform=qform)
    write_shown(tmp_path / "shown.nii.gz", read_nifti(source))
    before, after = nibabel.load(source), nibabel.load(tmp_path / "shown.nii.gz")
    np.testing.assert_array_equal(before.affine, after.affine)
    for field in ("sform_code", "qform_code", "srow_x", "quatern_b", "qoffset_z"):
        assert before.header[field].tobytes() == after.header[field].tobytes(), field
    np.testing.assert_array_equal(after.get_fdata(), RAMP)


def test_a_shown_scan_names_no_one(tmp_path):
    source = save(tmp_path / "ann.nii.gz", descrip=b"Ann Example", db_name=b"Ann", aux_file=b"ann.txt")
    write_shown(tmp_path / "shown.nii.gz", read_nifti(source))
    content = (tmp_path / "shown.nii.gz").read_bytes()
    assert b"ann" not in gzip.decompress(content).lower()[:352] and content[3] == 0, "nor does gzip's header"
    write_shown(tmp_path / "again.nii.gz", read_nifti(source))
    assert (tmp_path / "again.nii.gz").read_bytes() == content


@pytest.mark.parametrize(
    ("name", "values"), [("a.nii", RAMP), ("a.nii.gz", RAMP[:4]), ("a.nii.gz", RAMP.astype(np.int32) + 2**15)]
)
def test_what_cannot_be_written(tmp_path, name, values):
    with pytest.raises(ValueError):
        write_nifti(tmp_path / name, values, scan(tmp_path))
    assert not (tmp_path / name).exists()


def test_the_bound_is_asked_before_anything_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(volume_module, "MAX_VOXELS", 59)
    refused(save(tmp_path / "a.nii.gz"), "more than 0 million voxels")
