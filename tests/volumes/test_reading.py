"""Scans of one and several channels, whatever their format, with voxels and places that are known."""

import os
from pathlib import Path

import nibabel
import numpy as np
import pytest

from priorlens.errors import InputError
from priorlens.volumes import reading
from priorlens.volumes.reading import read_lesions, read_scan
from priorlens.volumes.scans import Scan, find_scans, labelled_scans

DATA = Path(os.environ.get("PRIORLENS_SHARED", Path(__file__).parents[3] / "shared" / "data"))
RAMP = np.arange(60, dtype=np.int16).reshape(5, 4, 3)
AFFINE = np.array([[0.0, -2.0, 0.0, 5.0], [0.5, 0.0, 0.0, -7.0], [0.0, 0.0, 3.0, 11.0], [0.0, 0.0, 0.0, 1.0]])


def moved(millimetres):
    affine = AFFINE.copy()
    affine[2, 3] += millimetres
    return affine


def nifti(path, data=RAMP, affine=AFFINE):
    nibabel.save(nibabel.Nifti1Image(data, affine), path)
    return path


def npz(path, **arrays):
    np.savez(path, **({"voxels": RAMP, "affine": AFFINE} | arrays))
    return path


def scan(*paths, channels=("",), mask=None):
    return Scan(paths, channels, "ann", "ann", mask=mask)


def says(call, *parts):
    with pytest.raises(InputError) as error:
        call()
    text = str(error.value)
    assert "\n" not in text and "; " in text, text
    for part in parts:
        assert str(part) in text, text


def test_one_channel_keeps_the_name_that_its_file_gave_it(tmp_path):
    volume = read_scan(scan(nifti(tmp_path / "flair.nii.gz"), channels=("flair",)))
    assert volume.channels == ("flair",) and volume.path == tmp_path / "flair.nii.gz"
    np.testing.assert_array_equal(volume.voxels, RAMP[None])
    np.testing.assert_allclose(volume.affine, AFFINE)


def test_channels_of_several_formats_in_their_order(tmp_path):
    first, second = npz(tmp_path / "t1.npz"), nifti(tmp_path / "flair.nii.gz", -RAMP, moved(0.05))
    volume = read_scan(scan(first, second, channels=("t1", "flair")))
    np.testing.assert_array_equal(volume.voxels, np.stack([RAMP, -RAMP]))
    np.testing.assert_array_equal(volume.affine, AFFINE)
    assert (volume.channels, volume.path, volume.units) == (("t1", "flair"), first, "arbitrary")


def test_units_are_hounsfield_if_all_are(tmp_path):
    ct = np.linspace(-1000, 900, 60).reshape(5, 4, 3).astype(np.int16)
    hounsfield, other = nifti(tmp_path / "a.nii", ct), nifti(tmp_path / "b.nii")
    assert read_scan(scan(hounsfield)).units == "HU"
    assert read_scan(scan(hounsfield, hounsfield, channels=("a", "b"))).units == "HU"
    assert read_scan(scan(hounsfield, other, channels=("a", "b"))).units == "arbitrary"


def test_channels_have_to_share_one_grid(tmp_path):
    first = nifti(tmp_path / "a.nii")
    shorter, away = nifti(tmp_path / "b.nii", RAMP[:4]), nifti(tmp_path / "c.nii", RAMP, moved(0.5))
    two = ("a", "b")
    says(lambda: read_scan(scan(first, shorter, channels=two)), shorter, first, "5x4x3 and 4x4x3 voxels")
    says(lambda: read_scan(scan(first, away, channels=two)), away, first, "lies 0.5 mm away")


def test_a_file_of_several_channels_is_read_once(tmp_path, monkeypatch):
    path = npz(tmp_path / "ann.npz", voxels=np.stack([RAMP, -RAMP]), channels=np.array(["Flair", "t1"]))
    read, own = [], reading.read_array_volume
    monkeypatch.setattr(reading, "read_array_volume", lambda path: (read.append(path), own(path))[1])
    [both], _ = find_scans([tmp_path], channels=["t1", "flair"])
    volume = read_scan(both)
    np.testing.assert_array_equal(volume.voxels, np.stack([-RAMP, RAMP]))
    assert volume.channels == ("t1", "Flair") and read == [path]
    [one], _ = find_scans([tmp_path], channels=["t1"])
    np.testing.assert_array_equal(read_scan(one).voxels, -RAMP[None])
    says(lambda: read_scan(scan(path, channels=("t2",))), "has no channel t2, only flair, t1")


def test_the_suffix_tells_the_reader(tmp_path):
    (tmp_path / "a.txt").write_text("notes")
    says(lambda: read_scan(scan(tmp_path / "a.txt")), "is not one of .nii .nii.gz")
    says(lambda: read_scan(scan(tmp_path / "a.npz")), "no such file")


def test_itk_formats(tmp_path):
    sitk = pytest.importorskip("SimpleITK")
    path = nifti(tmp_path / "a.nii.gz")
    sitk.WriteImage(sitk.ReadImage(str(path)), str(tmp_path / "b.mha"))
    volume = read_scan(scan(path, tmp_path / "b.mha", channels=("a", "b")))
    np.testing.assert_array_equal(volume.voxels, np.stack([RAMP, RAMP]))


def test_dicom(tmp_path):
    from made_dicom import AXIAL, affine_of, write_series

    write_series(tmp_path / "ct", RAMP, orientation=AXIAL, spacing=(0.7, 0.8, 2.5))
    [found], left_out = find_scans([tmp_path])
    volume = read_scan(found)
    assert left_out == [] and found.name == "ct" and volume.units == "HU"
    np.testing.assert_array_equal(volume.voxels[0], RAMP - 1024.0)
    np.testing.assert_allclose(volume.affine, affine_of(AXIAL, (0.7, 0.8, 2.5)))
    lesion = nifti(tmp_path / "m.nii.gz", (RAMP > 50).astype(np.uint8), volume.affine)
    masked = Scan(found.sources, ("",), "ct", "ct", mask=lesion)
    np.testing.assert_array_equal(read_lesions(masked, volume), RAMP > 50)


# --- lesions


@pytest.mark.parametrize("make", [nifti, npz])
def test_lesions(tmp_path, make):
    path = nifti(tmp_path / "a.nii.gz")
    volume = read_scan(scan(path))
    assert not read_lesions(scan(path), volume).any()
    labels = (RAMP > 57).astype(np.uint8) * 4
    name = "m.nii.gz" if make is nifti else "m.npz"
    mask = nifti(tmp_path / name, labels) if make is nifti else npz(tmp_path / name, voxels=labels)
    np.testing.assert_array_equal(read_lesions(scan(path, mask=mask), volume), RAMP > 57)


def test_masks_that_cannot_be_used(tmp_path):
    path = nifti(tmp_path / "a.nii.gz")
    volume = read_scan(scan(path))
    away = nifti(tmp_path / "m.nii.gz", RAMP, moved(1))
    says(lambda: read_lesions(scan(path, mask=away), volume), away, path, "lies 1 mm away")
    (tmp_path / "m.png").touch()
    says(lambda: read_lesions(scan(path, mask=tmp_path / "m.png"), volume), "a mask is one of .nii .nii.gz")


# --- real data


@pytest.mark.shared
@pytest.mark.skipif(not (DATA / "brats").is_dir(), reason=f"no brats in {DATA}")
def test_a_real_patient_with_two_channels_and_lesions():
    scans, _ = labelled_scans(DATA / "brats", channels=["flair", "t1ce"])
    volume = read_scan(scans[0])
    assert volume.voxels.shape == (2, 240, 240, 155) and volume.units == "arbitrary"
    np.testing.assert_allclose(volume.spacing, 1.0)
    lesions = read_lesions(scans[0], volume)
    flair = volume.voxels[0]
    assert 1000 < lesions.sum() < 500_000
    assert flair[lesions].mean() > 1.3 * flair[(flair > 0) & ~lesions].mean(), "lesions are bright on FLAIR"


@pytest.mark.shared
@pytest.mark.skipif(not (DATA / "ms").is_dir(), reason=f"no ms in {DATA}")
def test_a_real_patient_with_multiple_sclerosis():
    [found], _ = find_scans([DATA / "ms"], channels=["flair"])
    volume = read_scan(found)
    assert volume.shape == (182, 218, 182) and read_lesions(found, volume).any()
