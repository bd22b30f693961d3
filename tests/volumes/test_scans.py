"""Which scans there are in the layouts that people have; the files are empty but for those that are looked into."""

import os
from pathlib import Path

import numpy as np
import pytest

from priorlens.errors import InputError
from priorlens.volumes.dicom_files import Instance, Series
from priorlens.volumes.left_out import LeftOut
from priorlens.volumes.scans import Scan, find_scans, healthy_scans, is_scan_path, labelled_scans

DATA = Path(os.environ.get("PRIORLENS_SHARED", Path(__file__).parents[3] / "shared" / "data"))


def touch(folder, *names):
    """These files, empty; a name without suffix is a .nii.gz."""
    for name in names:
        path = folder / (name if "." in name.split("/")[-1] else f"{name}.nii.gz")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def names(scans):
    return [scan.name for scan in scans]


def told(scans):
    """Name, patient, channels, and the mask's file name."""
    return [(s.name, s.group, s.channels, s.mask and s.mask.name.split(".")[0]) for s in scans]


def refused(call, *says):
    with pytest.raises(InputError) as error:
        call()
    text = str(error.value)
    assert "\n" not in text and "; " in text, text
    for part in says:
        assert str(part) in text, text


# --- plain files


def test_plain_files_in_depth_in_natural_order_without_hidden_ones(tmp_path):
    touch(
        tmp_path, "s10.nii.gz", "s2.NII", "b/1.mha", "a/x.nrrd", ".h.nii", ".git/x.nii", "notes.txt", "p.png", "c.hdr"
    )
    scans, left_out = find_scans([tmp_path])
    assert names(scans) == ["a/x", "b/1", "s2", "s10"] and left_out == []
    assert [scan.group for scan in scans] == names(scans), "every scan a patient of its own"
    assert scans[2] == Scan((tmp_path / "s2.NII",), ("",), "s2", "s2")
    assert scans[2].path == tmp_path / "s2.NII"


def test_dots_in_names_stay(tmp_path):
    assert names(find_scans([touch(tmp_path, "v1.2.nii.gz", "v1.3.nii.gz")])[0]) == ["v1.2", "v1.3"]


def test_several_inputs_keep_their_order_and_no_file_comes_twice(tmp_path):
    touch(tmp_path, "a/1", "a/2", "b/3")
    scans, _ = find_scans([tmp_path / "b", tmp_path / "a" / "2.nii.gz", tmp_path / "a"])
    assert names(scans) == ["3", "2", "1"]


def test_names_are_unique(tmp_path):
    touch(tmp_path, "a/x.nii", "a/x.nii.gz", "b/x.nii.gz", "c/x.nii.gz")
    scans, _ = find_scans([tmp_path / "a", tmp_path / "b", tmp_path / "c"])
    assert names(scans) == ["x", "x.nii.gz", "x.nii.gz~2", "x.nii.gz~3"]
    assert len({scan.group for scan in scans}) == 4


def test_links_are_followed_but_not_in_circles(tmp_path):
    touch(tmp_path, "store/1", "data/2")
    (tmp_path / "data" / "linked").symlink_to(tmp_path / "store")
    (tmp_path / "data" / "round").symlink_to(tmp_path / "data")
    assert names(find_scans([tmp_path / "data"])[0]) == ["2", "linked/1"]


def test_nothing_found(tmp_path):
    touch(tmp_path, "notes.txt", "m/mask.nii.gz", "i/a.hdr", "i/a.img")
    refused(lambda: find_scans([tmp_path / "missing"]), tmp_path / "missing", "no such file or folder")
    refused(lambda: find_scans([]), "holds no scans")
    refused(lambda: find_scans([tmp_path / "m"]), "mask.nii.gz: is a mask by its name")
    refused(lambda: find_scans([tmp_path / "i"]), "a.img: is half of a .hdr/.img pair")
    refused(lambda: find_scans([tmp_path / "notes.txt"]), "notes.txt")
    empty = tmp_path / "empty"
    empty.mkdir()
    refused(lambda: find_scans([empty]), empty, "holds no scans")


def test_a_folder_that_may_not_be_read(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    refused(lambda: find_scans([tmp_path]), tmp_path, "permission denied")


def npz(path, **arrays):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)
    return path


def test_npz_and_npy_are_scans_only_with_an_affine(tmp_path):
    cube = np.zeros((2, 3, 4))
    npz(tmp_path / "scan.npz", voxels=cube, affine=np.eye(4))
    npz(tmp_path / "measurement.npz", y=cube)
    np.save(tmp_path / "image.npy", cube)
    np.save(tmp_path / "volume.npy", cube)
    (tmp_path / "volume.affine.json").write_text("[]")
    assert names(find_scans([tmp_path])[0]) == ["scan", "volume"]
    expected = {"scan.npz": True, "measurement.npz": False, "image.npy": False, "volume.npy": True}
    assert {name: is_scan_path(tmp_path / name) for name in expected} == expected


def test_channels_inside_an_npz(tmp_path):
    two = {"voxels": np.zeros((2, 2, 3, 4)), "affine": np.eye(4), "channels": np.array(["Flair", "t1"])}
    path = npz(tmp_path / "ann.npz", **two)
    refused(lambda: find_scans([tmp_path]), "several channels (Flair, t1)")
    [both], _ = find_scans([tmp_path], channels=["flair", "T1"])
    assert both == Scan((path, path), ("Flair", "t1"), "ann", "ann")
    [one], _ = find_scans([tmp_path], channels=["t1"])
    assert (one.sources, one.channels) == ((path,), ("t1",))


def test_a_damaged_npz_is_left_out(tmp_path):
    npz(tmp_path / "a.npz", voxels=np.zeros(3), affine=np.eye(4))
    scans, [left] = find_scans([touch(tmp_path, "b")])
    assert names(scans) == ["b"] and left.path == tmp_path / "a.npz" and "has shape (3,)" in left.reason


def test_what_a_path_is(tmp_path):
    touch(tmp_path, "scans/deep/1.nii", "images/1.png", "images/.h.nii", "dicom/IM1")
    (tmp_path / "dicom" / "IM1").write_bytes(bytes(128) + b"DICM")
    expected = {"scans": True, "scans/deep/1.nii": True, "images": False, "images/1.png": False, "dicom": True}
    assert {name: is_scan_path(tmp_path / name) for name in expected} == expected
    assert is_scan_path(tmp_path / "dicom" / "IM1") and not is_scan_path(tmp_path / "missing.nii")


# --- BraTS


def brats(folder, patient="BraTS2021_00001", channels=("flair", "t1", "t1ce", "t2", "seg")):
    return touch(folder, *(f"{patient}/{patient}_{channel}" for channel in channels))


def test_brats(tmp_path):
    brats(tmp_path)
    brats(tmp_path, "BraTS2021_00002", ("flair", "t1ce", "seg"))
    scans, left_out = find_scans([tmp_path], channels=["FLAIR"])
    first, second = "BraTS2021_00001", "BraTS2021_00002"
    assert told(scans) == [(f"{p}/{p}_flair", p, ("flair",), f"{p}_seg") for p in (first, second)]
    assert {scan.kind for scan in scans} == {"good"} and left_out == []
    [scan], [left] = find_scans([tmp_path], channels=["t2", "flair"])
    assert told([scan]) == [(f"{first}/{first}", first, ("t2", "flair"), f"{first}_seg")]
    assert [path.name for path in scan.sources] == [f"{first}_t2.nii.gz", f"{first}_flair.nii.gz"]
    assert left == LeftOut(
        tmp_path / second, f"{tmp_path / second}: has no t2, only flair, t1ce; add it or leave the patient out"
    )


def test_the_channels_of_brats_have_to_be_chosen(tmp_path):
    brats(tmp_path)
    refused(lambda: find_scans([tmp_path]), tmp_path, "(flair, t1, t1ce, t2)", "--channels flair")
    refused(lambda: find_scans([tmp_path], channels=["dwi"]), "no scan has the channels dwi", "flair, t1, t1ce, t2")
    refused(lambda: find_scans([tmp_path], channels=["t1", "T1"]), "one twice")
    refused(lambda: find_scans([tmp_path], channels=[]), "names none")


def test_brats_of_2023_and_its_visits(tmp_path):
    for visit in ("BraTS-GLI-00005-000", "BraTS-GLI-00005-001"):
        touch(tmp_path, *(f"{visit}/{visit}-{channel}" for channel in ("t2f", "t1c", "t1n", "t2w", "seg")))
    scans, _ = find_scans([tmp_path], channels=["t2f"])
    assert [(s.name[-23:], s.group, s.mask.name) for s in scans] == [
        (f"BraTS-GLI-00005-{visit}-t2f", "BraTS-GLI-00005", f"BraTS-GLI-00005-{visit}-seg.nii.gz")
        for visit in ("000", "001")
    ]


def test_one_patient_s_folder_as_input(tmp_path):
    brats(tmp_path, "ann")
    assert told(find_scans([tmp_path / "ann"], channels=["t1"])[0]) == [("ann_t1", "ann", ("t1",), "ann_seg")]
    assert told(find_scans([tmp_path / "ann" / "ann_t2.nii.gz"])[0]) == [("ann_t2", "ann", ("t2",), None)]


def test_masks_beside_plain_files(tmp_path):
    touch(tmp_path, "1", "1_mask", "2", "2-seg", "3")
    assert [(s.name, s.mask and s.mask.name) for s in find_scans([tmp_path])[0]] == [
        ("1", "1_mask.nii.gz"),
        ("2", "2-seg.nii.gz"),
        ("3", None),
    ]


# --- a folder for each patient


def test_a_folder_for_each_patient(tmp_path):
    touch(tmp_path, "p7/flair", "p7/t1", "p7/seg", "p10/flair", "p10/mask", "p10/brain_mask")
    scans, left_out = find_scans([tmp_path], channels=["flair"])
    assert told(scans) == [("p7/flair", "p7", ("flair",), "seg"), ("p10/flair", "p10", ("flair",), "mask")]
    assert left_out == []
    [both], [left] = find_scans([tmp_path], channels=["flair", "t1"])
    assert told([both]) == [("p7", "p7", ("flair", "t1"), "seg")] and "has no t1" in left.reason
    assert told(find_scans([tmp_path / "p7"], channels=["flair", "t1"])[0]) == [("p7", "p7", ("flair", "t1"), "seg")]


def test_any_file_beside_a_patient_s_mask_is_the_patient_s(tmp_path):
    touch(tmp_path, "p1/image", "p1/mask", "p2/image")
    assert told(find_scans([tmp_path / "p1"])[0]) == [("image", "p1", ("image",), "mask")]


def test_the_mask_that_speaks_of_lesions_is_used_and_the_other_named(tmp_path):
    touch(tmp_path, "p/flair", "p/mask", "p/lesion")
    [scan], [left] = find_scans([tmp_path])
    assert scan.mask.name == "lesion.nii.gz"
    assert left.path == tmp_path / "p" / "mask.nii.gz" and "is not the mask that is used" in left.reason


# --- BIDS


def bids(folder):
    return touch(
        folder,
        *("sub-01/anat/sub-01_T1w", "sub-01/anat/sub-01_FLAIR", "sub-01/func/sub-01_task-rest_bold"),
        *("sub-02/ses-1/anat/sub-02_ses-1_acq-3d_FLAIR", "sub-02/ses-2/anat/sub-02_ses-2_FLAIR"),
        "derivatives/manual/sub-01/anat/sub-01_space-T1w_label-lesion_mask",
        "derivatives/manual/sub-02/ses-2/anat/sub-02_ses-2_dseg",
        "derivatives/fmriprep/sub-01/anat/sub-01_desc-preproc_T1w",
        "derivatives/fmriprep/sub-01/anat/sub-01_desc-brain_mask",
    )


def test_bids(tmp_path):
    scans, left_out = find_scans([bids(tmp_path)], channels=["flair"])
    assert told(scans) == [
        ("sub-01/anat/sub-01_FLAIR", "sub-01", ("flair",), "sub-01_space-T1w_label-lesion_mask"),
        ("sub-02/ses-1/anat/sub-02_ses-1_acq-3d_FLAIR", "sub-02", ("flair",), None),
        ("sub-02/ses-2/anat/sub-02_ses-2_FLAIR", "sub-02", ("flair",), "sub-02_ses-2_dseg"),
    ]
    assert left_out == []
    [both], left_out = find_scans([tmp_path], channels=["T1w", "FLAIR"])
    assert (both.name, both.group, both.channels) == ("sub-01", "sub-01", ("t1w", "flair"))
    assert ["has no t1w" in left.reason for left in left_out] == [True, True]
    refused(lambda: find_scans([tmp_path]), "several channels (flair, t1w)")


def test_a_subject_s_folder_as_input(tmp_path):
    bids(tmp_path)
    assert told(find_scans([tmp_path / "sub-01"], channels=["t1w"])[0]) == [
        ("anat/sub-01_T1w", "sub-01", ("t1w",), None)
    ]


def test_several_runs(tmp_path):
    touch(tmp_path, *(f"sub-01/anat/sub-01_run-{run}_T1w" for run in (1, 2)), "sub-01/anat/sub-01_FLAIR")
    scans, _ = find_scans([tmp_path], channels=["t1w"])
    assert [scan.name[-10:] for scan in scans] == ["_run-1_T1w", "_run-2_T1w"]
    assert {scan.group for scan in scans} == {"sub-01"}
    refused(lambda: find_scans([tmp_path], channels=["t1w", "flair"]), "no scan has the channels t1w, flair")


# --- DICOM


def series(folder, patient="", description="", number=0, files=("1.dcm", "2.dcm")):
    instances = tuple(Instance(folder / name, 0, f"1.2.{number}", float(k)) for k, name in enumerate(files))
    rest = {"part": "", "study_uid": "1", "shape": (4, 4, 2), "pixel_spacing": (1.0, 1.0)}
    place = {"orientation": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), "origin": (0.0,) * 3, "step": (0.0, 0.0, 1.0)}
    return Series(f"1.2.{number}", patient, "CT", description, folder, instances, number=number, **rest, **place)


@pytest.fixture
def dicom(tmp_path, monkeypatch):
    """Two folders, the second of two series, as `find_series` would find them."""
    touch(tmp_path, "p1/1.dcm", "p1/2.dcm", "p2/1.dcm", "p2/2.dcm", "p2/3.dcm", "p3/x.nii.gz")
    found = [series(tmp_path / "p1", "ID7"), series(tmp_path / "p2", "", "Head/soft", 1)]
    found.append(series(tmp_path / "p2", "", "", 2, ("3.dcm",)))
    left = [LeftOut(tmp_path / "p2" / "9.dcm", "9.dcm: is odd; leave it out")]
    asked = []
    monkeypatch.setattr("priorlens.volumes.studies.find_series", lambda paths: (asked.extend(paths), (found, left))[1])
    return tmp_path, found, left, asked


def test_dicom_series_are_scans_of_their_patients(dicom):
    folder, found, left, asked = dicom
    scans, left_out = find_scans([folder])
    assert [(s.name, s.group) for s in scans] == [
        ("p3/x", "p3/x"),
        ("p1", "ID7"),
        ("p2/Head-soft", "p2/Head-soft"),
        ("p2/1.2.2", "p2/1.2.2"),
    ]
    assert scans[1].sources == (found[0],) and scans[1].path == folder / "p1" and left_out == left
    assert [path.name for path in asked] == ["1.dcm", "2.dcm", "1.dcm", "2.dcm", "3.dcm"]
    assert [s.group for s in find_scans([folder], group=r"^(p\d)")[0]] == ["p3", "p1", "p2", "p2"]


def test_a_manifest_names_a_series_by_any_of_its_files(dicom):
    folder, *_ = dicom
    path = manifest(folder, "p1/2.dcm,ann,", "p2/1.dcm,bob,bleed", "p2/3.dcm,bob,", "p3/x.nii.gz,eve,")
    scans, _ = find_scans([folder], manifest=path)
    assert [(s.group, s.kind) for s in scans] == [("eve", "good"), ("ann", "good"), ("bob", "bleed"), ("bob", "good")]


# --- patients


def manifest(folder, *lines, header="file,group,kind"):
    path = folder / "manifest.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def test_group_expression(tmp_path):
    touch(tmp_path, "p1/a_01", "p1/b_02", "p2/a_03")
    assert [scan.group for scan in find_scans([tmp_path], group=r"^(p\d)/")[0]] == ["p1", "p1", "p2"]
    refused(lambda: find_scans([tmp_path], group=r"^(q\d)/"), "names no patient")
    refused(lambda: find_scans([tmp_path], group="("), "is not a regular expression")


def test_manifest(tmp_path):
    touch(tmp_path, "img/1", "img/2", "masks/two")
    path = manifest(
        tmp_path, "img/1.nii.gz,ann,,", "img/2.nii.gz,bob,tumour,masks/two.nii.gz", header="file,group,kind,mask"
    )
    scans, _ = find_scans([tmp_path / "img"], manifest=path)
    assert [(s.name, s.group, s.kind, s.mask) for s in scans] == [
        ("1", "ann", "good", None),
        ("2", "bob", "tumour", tmp_path / "masks" / "two.nii.gz"),
    ]
    assert names(find_scans([], manifest=path)[0]) == ["img/1", "img/2"]
    assert names(healthy_scans(tmp_path / "img", manifest=path)[0]) == ["1"]
    refused(lambda: find_scans([tmp_path / "img"], group="x", manifest=path), "already names the patients")
    refused(lambda: find_scans([tmp_path / "masks"], manifest=path), "two.nii.gz: has no line in")


# --- healthy and labelled


def test_healthy_scans(tmp_path):
    touch(tmp_path, "a/train/good/1", "a/test/good/2", "b/1", "c/test/good/1")
    assert names(healthy_scans(tmp_path / "a")[0]) == ["1"]
    assert names(healthy_scans(tmp_path / "b")[0]) == ["1"]
    refused(lambda: healthy_scans(tmp_path / "c"), "has test/ but no train/good/")
    refused(lambda: healthy_scans(tmp_path / "b", manifest=manifest(tmp_path / "b", "1.nii.gz,ann,bad")), "calls good")


def test_patients_with_masks_stay_among_the_healthy(tmp_path):
    scans, _ = healthy_scans(brats(tmp_path), channels=["flair"])
    assert [(scan.kind, scan.mask.name) for scan in scans] == [("good", "BraTS2021_00001_seg.nii.gz")]


def test_labelled_by_the_masks_beside_them(tmp_path):
    brats(tmp_path)
    brats(tmp_path, "BraTS2021_00002", ("flair",))
    scans, _ = labelled_scans(tmp_path, channels=["flair"])
    assert [(s.group[-1], s.kind) for s in scans] == [("1", "lesion"), ("2", "good")]
    files = [f"BraTS2021_0000{n}/BraTS2021_0000{n}_flair.nii.gz" for n in (1, 2)]
    path = manifest(tmp_path, f"{files[0]},a,good", f"{files[1]},b,bleed")
    scans, _ = labelled_scans(tmp_path, channels=["flair"], manifest=path)
    assert [s.kind for s in scans] == ["good", "bleed"]
    refused(lambda: labelled_scans(touch(tmp_path / "x", "1", "2")), "has neither test/good/")


def test_labelled_by_folders(tmp_path):
    touch(tmp_path, "test/good/1", "test/tumour/1", "test/tumour/2", "test/tumour/3", "test/bleed/4")
    touch(tmp_path, "ground_truth/tumour/1", "ground_truth/tumour/2_mask", "ground_truth/bleed/4-seg.nii")
    scans, _ = labelled_scans(tmp_path)
    assert [(s.name, s.group, s.kind, s.mask and s.mask.name) for s in scans] == [
        ("bleed/4", "4", "bleed", "4-seg.nii"),
        ("good/1", "1", "good", None),
        ("tumour/1", "1", "tumour", "1.nii.gz"),
        ("tumour/2", "2", "tumour", "2_mask.nii.gz"),
        ("tumour/3", "3", "tumour", None),
    ]


@pytest.mark.parametrize("mask", ["p2/seg", "p2/flair", "p2"])
def test_masks_of_patients_folders_in_ground_truth(tmp_path, mask):
    touch(tmp_path, "test/good/p1/flair", "test/good/p1/t1", "test/ms/p2/flair", "test/ms/p2/t1")
    touch(tmp_path, f"ground_truth/ms/{mask}")
    scans, _ = labelled_scans(tmp_path, channels=["flair", "t1"])
    assert [(s.name, s.group, s.mask is not None) for s in scans] == [("good/p1", "p1", False), ("ms/p2", "p2", True)]
    refused(lambda: labelled_scans(tmp_path), "several channels (flair, t1)")


def test_masks_beside_the_scans_of_a_kind(tmp_path):
    touch(tmp_path, "test/good/p1/flair", "test/ms/p2/flair", "test/ms/p2/seg")
    scans, _ = labelled_scans(tmp_path)
    assert [(s.name, s.kind, s.mask is not None) for s in scans] == [
        ("good/p1/flair", "good", False),
        ("ms/p2/flair", "ms", True),
    ]


def test_labelled_folders_that_are_not_complete(tmp_path):
    touch(tmp_path, "a/test/ms/1", "b/test/good/1", "c/test/good/1", "c/test/ms/2", "c/ground_truth/ms/3")
    refused(lambda: labelled_scans(tmp_path / "a"), "has no good/ folder")
    refused(lambda: labelled_scans(tmp_path / "b"), "has no abnormal kind")
    refused(lambda: labelled_scans(tmp_path / "c"), "3.nii.gz: this mask has no scan")
    touch(tmp_path, "d/test/good/1", "d/test/ms/2", "d/ground_truth/ms/2", "d/ground_truth/ms/2_mask")
    refused(lambda: labelled_scans(tmp_path / "d"), "is a second mask")
    touch(tmp_path, "e/test/good/1", "e/test/ms/2", "e/ground_truth/other/2")
    refused(lambda: labelled_scans(tmp_path / "e"), "test/other is missing")


# --- real data


@pytest.mark.shared
@pytest.mark.skipif(not (DATA / "brats").is_dir(), reason=f"no brats in {DATA}")
def test_the_real_patients():
    scans, left_out = labelled_scans(DATA / "brats", channels=["flair"])
    assert len(scans) == 4 and {scan.kind for scan in scans} == {"lesion"} and left_out == []
    assert all(scan.name == f"{scan.group}/{scan.group}_flair" for scan in scans)
    both, left_out = find_scans([DATA / "brats"], channels=["flair", "t1"])
    assert len(both) == 3 and "BraTS2021_01646: has no t1" in left_out[0].reason
    [ms], _ = find_scans([DATA / "ms"], channels=["t1"])
    assert (ms.name, ms.group, ms.mask.name) == ("patient07/t1", "patient07", "seg.nii.gz")
    [ct], left_out = find_scans([DATA / "ct_dicom"])
    assert ct.name == "patient1" and ct.group and len(ct.sources[0].instances) == 20 and left_out == []
