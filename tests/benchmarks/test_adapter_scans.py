"""BraTS, LiTS, the Decathlon, CHAOS and fastMRI on made-up scans."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import plan
from benchmarks.adapters import LAYOUTS, scan_studies
from benchmarks.methods import METHODS
from priorlens.datasets import healthy_cases, labelled_cases
from priorlens.errors import InputError
from priorlens.images import read_image, read_mask
from priorlens.volumes.scans import labelled_scans
from volumes.made_scans import head, lesion_mask, trunk, write_nifti, write_trunk

DATA = Path(os.environ.get("PRIORLENS_SHARED", Path(__file__).parents[3] / "shared" / "data"))


def checked(study):
    """All test cases; patients are told, and nobody is learned from and judged in one fold."""
    cases = []
    for fold in study.folds:
        learned = {case.group for case in healthy_cases(fold.folder, group=study.group)}
        judged = labelled_cases(fold.folder, group=study.group)
        assert not learned & {case.group for case in judged}
        for case in judged:
            assert (case.mask is None) == (case.kind == "good")
            assert case.mask is None or read_mask(case.mask, read_image(case.path).pixels.shape[1:]).any()
        cases += judged
    return cases


def brats_tree(folder, names, channel="_flair", suffix="_seg"):
    for seed, name in enumerate(names):
        mask = lesion_mask()
        write_nifti(folder / name / f"{name}{channel}.nii.gz", head(seed, lesion=mask))
        write_nifti(folder / name / f"{name}{suffix}.nii.gz", 4 * mask)
    return folder


def test_brats_judges_every_one_of_few_patients_once(tmp_path):
    folder = brats_tree(tmp_path / "brats", [f"BraTS20_Training_{i:03d}" for i in range(4)])
    write_nifti(folder / "unlabelled" / "unlabelled_flair.nii.gz", head(9))
    study = LAYOUTS["brats"](folder, tmp_path / "out")
    cases = checked(study)
    assert len(study.folds) == 2 and {case.group for case in cases} == {f"BraTS20_Training_{i:03d}" for i in range(4)}
    assert {case.kind for case in cases} == {"good", "lesion"} and study.height
    for case in cases:
        if case.mask:
            image = read_image(case.path).pixels[0]
            inside = read_mask(case.mask, image.shape)
            assert image[inside].mean() > 1.2 * image[(image > 0) & ~inside].mean()


def test_methods_for_scans_are_given_those_of_brats_where_they_find_them(tmp_path):
    folder = brats_tree(tmp_path / "brats", [f"p{i}" for i in range(4)])
    study = LAYOUTS["brats"](folder, tmp_path / "out")
    for fold in study.folds:
        learned = {case.group for case in healthy_cases(fold.folder, group=study.group)}
        judged = {case.group for case in labelled_cases(fold.folder, group=study.group)}
        assert {path.name for path in fold.scans} == learned and {path.name for path in fold.judged} == judged
        assert all(labelled_scans(path, channels=["flair"])[0] for path in (*fold.scans, *fold.judged))
    assert METHODS["scan"].suits(study) and LAYOUTS["brats"](folder, tmp_path / "out") == study
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in folder.glob("*/*"):
        path.rename(flat / path.name)
    study = LAYOUTS["brats"](flat, tmp_path / "out")
    assert not any(fold.scans or fold.judged for fold in study.folds) and not METHODS["scan"].suits(study)


def test_brats_of_2023_keeps_visits_of_a_patient_together(tmp_path):
    names = ["BraTS-GLI-00001-000", "BraTS-GLI-00001-001", "BraTS-GLI-00002-000", "BraTS-GLI-00003-000"]
    study = LAYOUTS["brats"](brats_tree(tmp_path / "b", names, "-t2f", "-seg"), tmp_path / "out")
    cases = checked(study)
    assert not METHODS["scan"].suits(study)
    assert {case.group for case in cases} == {"BraTS-GLI-00001", "BraTS-GLI-00002", "BraTS-GLI-00003"}
    assert {re.search(r"_t\d+", case.name)[0] for case in cases if "_t" in case.name} == {"_t2"}


def test_of_many_brats_scans_fewer_slices_are_cut_at_equal_heights(tmp_path, monkeypatch):
    monkeypatch.setattr(scan_studies, "SCANS_IN_FULL", 2)
    folder = brats_tree(tmp_path / "b", [f"p{i}" for i in range(4)])
    study = LAYOUTS["brats"](folder, tmp_path / "out")
    assert {int(re.search(study.height, case.name)[1]) % 2 for case in checked(study)} == {0}


def test_a_scan_that_cannot_be_read_is_left_out_and_told(tmp_path, capsys):
    folder = brats_tree(tmp_path / "b", [f"p{i}" for i in range(5)])
    path = folder / "p2" / "p2_flair.nii.gz"
    path.write_bytes(path.read_bytes()[:2000])
    study = LAYOUTS["brats"](folder, tmp_path / "out")
    assert "1 scans could not be read" in study.about and "p2_flair" in capsys.readouterr().err
    assert {case.group for case in checked(study)} == {"p0", "p1", "p3", "p4"}
    assert {path.name for fold in study.folds for path in fold.scans} == {"p0", "p1", "p3", "p4"}


def liver_labels(shape=(40, 48, 32), tumour=True):
    """A liver in most slices, and a tumour in some of these."""
    labels = np.zeros(shape, np.uint8)
    labels[8:20, 10:30, 4:28] = 1
    if tumour:
        labels[10:14, 14:20, 12:16] = 2
    return labels


@pytest.mark.parametrize("layout", ["msd", "lits"])
def test_livers_are_healthy_where_no_tumour_is_labelled(tmp_path, layout):
    folder = tmp_path / "data"
    for i in range(4):
        labels = liver_labels(tumour=i != 1)
        names = {
            "msd": (f"imagesTr/liver_{i}.nii.gz", f"labelsTr/liver_{i}.nii.gz"),
            "lits": (f"Batch 1/volume-{i}.nii", f"segmentations/segmentation-{i}.nii"),
        }[layout]
        write_nifti(folder / names[0], trunk(i, lesion=labels == 2))
        write_nifti(folder / names[1], labels)
        (folder / names[0]).with_name("._" + Path(names[0]).name).write_bytes(b"of a Mac")
    study = LAYOUTS[layout](folder, tmp_path / "out")
    cases = checked(study)
    by_patient = {g: {case.kind for case in cases if case.group == g} for g in {case.group for case in cases}}
    assert sorted(map(len, by_patient.values())) == [1, 2, 2, 2] and study.intensity == "range"
    # Of 24 slices of liver, four have a tumour.
    assert sum(case.kind == "tumour" for case in cases) == 3 * 4 and sum(case.kind == "good" for case in cases) == 84
    for case in cases:
        if case.mask:
            image = read_image(case.path).pixels[0]
            inside = read_mask(case.mask, image.shape)
            patient, height = int(re.search(r"\d+$", case.group)[0]), int(re.search(r"_z(\d+)", case.name)[1])
            labels = liver_labels()
            stored = trunk(patient, lesion=labels == 2)[:, :, height][labels[:, :, height] == 2]
            wanted = np.clip((stored + 160.0) * 255 / 400, 0, 255).round()
            np.testing.assert_array_equal(np.sort(image[inside]), np.sort(wanted))


def test_a_decathlon_label_on_another_grid_is_left_out(tmp_path):
    for i in range(3):
        write_nifti(tmp_path / f"d/imagesTr/liver_{i}.nii.gz", trunk(i))
        labels = liver_labels()
        write_nifti(tmp_path / f"d/labelsTr/liver_{i}.nii.gz", labels[:, :, :-1] if i == 0 else labels)
    assert "1 scans could not be read" in LAYOUTS["msd"](tmp_path / "d", tmp_path / "out").about


@pytest.fixture
def chaos_tree(tmp_path):
    """Two patients; files are named from head to feet, as CHAOS names them."""
    for i in range(2):
        patient = tmp_path / "Train_Sets" / "CT" / str(i + 1)
        # Every file is a series of its own, as anonymising has left them.
        write_trunk(
            patient / "DICOM_anon",
            i,
            name=lambda k: f"i{31 - k:04d},0000b.dcm",
            change=lambda dataset, k: setattr(dataset, "SeriesInstanceUID", f"1.2.{k}"),
        )
        (patient / "Ground").mkdir()
        for k in range(32):
            plane = liver_labels(tumour=False)[:, :, k].T * np.uint8(255)
            Image.fromarray(plane).save(patient / "Ground" / f"liver_GT_{31 - k:03d}.png")
    sequence = tmp_path / "Train_Sets/MR/1/T2SPIR"
    (sequence / "DICOM_anon").mkdir(parents=True)
    (sequence / "Ground").mkdir()
    return tmp_path / "Train_Sets"


def test_chaos_is_healthy_only_and_a_run_refuses_it(tmp_path, chaos_tree):
    study = LAYOUTS["chaos"](chaos_tree, tmp_path / "out")
    assert len(study.folds) == 2 and "nothing abnormal" in study.about
    for fold in study.folds:
        assert len(healthy_cases(fold.folder, group=study.group)) == 24
        assert len(list((fold.folder / "test/good").iterdir())) == 24
        with pytest.raises(InputError, match="no abnormal kind"):
            labelled_cases(fold.folder, group=study.group)
    with pytest.raises(InputError, match=r"chaos_train_sets cannot be judged: .*/fold0/test: has no abnormal kind"):
        plan.require_judgeable([study])


def test_chaos_slices_stand_as_they_were_stored(tmp_path, chaos_tree):
    study = LAYOUTS["chaos"](chaos_tree, tmp_path / "out")
    found = sorted(path for fold in study.folds for path in fold.folder.glob("test/good/chaos1_z*.png"))
    image = read_image(found[0]).pixels[0]
    slice_of_name = int(re.search(r"_z(\d+)", found[0].name)[1])
    wanted = trunk(0)[:, :, 31 - slice_of_name].T
    expected = np.clip((wanted + 160.0) * 255 / 400, 0, 255).round()
    np.testing.assert_array_equal(image, expected)


def test_chaos_without_an_outline_of_each_slice_is_told(tmp_path, chaos_tree):
    for path in chaos_tree.rglob("liver_GT_031.png"):
        path.unlink()
    with pytest.raises(InputError, match="32 DICOM slices but 31 outlines"):
        LAYOUTS["chaos"](chaos_tree, tmp_path / "out")


def fastmri_file(folder, name, seed):
    """Seven slices, a bright spot in the upper left of what radiologists see: at the stored rows' end."""
    h5py = pytest.importorskip("h5py")
    images = np.stack([head(seed)[:, :, 10 + k].T for k in range(7)]).astype(np.float32) * 1e-7
    images[3, -16:-12, 10:14] = 1e-3
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / f"{name}.h5", "w") as file:
        file["reconstruction_rss"] = images
        file["kspace"] = np.zeros((7, 2, 4, 4), np.complex64)


@pytest.fixture
def fastmri_tree(tmp_path):
    for i in range(6):
        fastmri_file(tmp_path / "mri" / "multicoil_val", f"file{i}", i)
    return tmp_path / "mri"


def test_fastmri_boxes_lie_where_radiologists_drew_them(tmp_path, fastmri_tree):
    (fastmri_tree / "brain.csv").write_text(
        "file,slice,study_level,x,y,width,height,label\n"
        "file1,3,No,10,12,4,4,Mass\nfile1,3,No,30,30,2,2,Edema\nfile2,0,Yes,,,,,Normal for age\n"
        "file3,0,Yes,,,,,Motion artifact\nfile9,1,No,1,1,2,2,Mass\n"
    )
    (fastmri_tree / "brain_file_list.csv").write_text("file0\nfile1\nfile2\nfile3\nfile4\n")
    study = LAYOUTS["fastmri"](fastmri_tree, tmp_path / "out")
    cases = []
    for fold in study.folds:
        cases += labelled_cases(fold.folder, group=study.group) if (fold.folder / "ground_truth").is_dir() else []
    used = {re.match(r"[a-z0-9]+", p.name)[0] for fold in study.folds for p in fold.folder.rglob("*.png")}
    # file3 has a finding without place, and file5 was not reviewed.
    assert used == {"file0", "file1", "file2", "file4"}
    assert [case.name for case in cases if case.group == "file1"] == ["finding/file1_z003"]
    case = next(case for case in cases if case.kind == "finding")
    image = read_image(case.path).pixels[0]
    mask = read_mask(case.mask, image.shape)
    assert mask[12:16, 10:14].all() and mask[30:32, 30:32].all() and mask.sum() == 20
    assert (image[12:16, 10:14] == 255).all()


def test_fastmri_without_tables_has_nothing_abnormal(tmp_path, fastmri_tree):
    study = LAYOUTS["fastmri"](fastmri_tree, tmp_path / "out")
    assert "without annotations" in study.about
    with pytest.raises(InputError, match="no abnormal kind"):
        labelled_cases(study.folds[0].folder, group=study.group)


@pytest.mark.parametrize("what", ["truncated", "no images", "linked"])
def test_fastmri_files_that_cannot_be_used_are_left_out(tmp_path, fastmri_tree, what, capsys):
    import h5py

    path = fastmri_tree / "multicoil_val" / "file2.h5"
    if what == "truncated":
        path.write_bytes(path.read_bytes()[:900])
    else:
        with h5py.File(path, "w") as file:
            if what == "linked":
                file["reconstruction_rss"] = h5py.ExternalLink("file1.h5", "/reconstruction_rss")
    study = LAYOUTS["fastmri"](fastmri_tree, tmp_path / "out")
    assert "1 scans could not be read" in study.about and "file2.h5" in capsys.readouterr().err


def test_a_box_that_is_none_is_told_with_its_line(tmp_path, fastmri_tree):
    (fastmri_tree / "knee.csv").write_text("file,slice,study_level,x,y,width,height,label\nfile1,3,No,a,1,2,3,Tear\n")
    with pytest.raises(InputError, match=r"knee\.csv: line 2"):
        LAYOUTS["fastmri"](fastmri_tree, tmp_path / "out")


@pytest.mark.shared
def test_brats_as_it_is(tmp_path):
    if not (DATA / "brats").is_dir():
        pytest.skip("the shared images are not there")
    folder = tmp_path / "brats"
    for patient in ("BraTS2021_00006", "BraTS2021_01646"):
        (folder / patient).mkdir(parents=True)
        for path in (DATA / "brats" / patient).iterdir():
            (folder / patient / path.name).symlink_to(path)
    cases = checked(LAYOUTS["brats"](folder, tmp_path / "out"))
    assert {case.group for case in cases} == {"BraTS2021_00006", "BraTS2021_01646"}
