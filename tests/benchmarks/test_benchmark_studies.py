"""Studies: which there are, volumes cut to slices, what is learned from and judged."""

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from fake_methods import entry
from made_studies import made_study
from PIL import Image

from benchmarks.brats_slices import brats_study
from benchmarks.measuring import test_cases as cases_of
from benchmarks.methods import METHODS
from benchmarks.results import QUICK, Options, Place, study_fingerprint
from benchmarks.selection import judged, pictured, seen_at, training
from benchmarks.stages import Run, _task
from benchmarks.studies import EMBEDDED, studies
from benchmarks.study_files import made_once, remember, remembered, study_facts, study_from
from priorlens.datasets import Case, healthy_cases, labelled_cases
from priorlens.errors import InputError
from priorlens.images import read_image, read_mask


def patient(folder, name, scale, rng, endings=("_flair", "_seg")):
    """A brain of 40 x 36 x 24 voxels, with a bright lesion in slices 10 to 13."""
    i, j, k = np.mgrid[:40, :36, :24]
    brain = ((i - 20) / 17) ** 2 + ((j - 18) / 15) ** 2 + ((k - 12) / 11) ** 2 < 1
    lesion = (np.hypot(i - 24, j - 18) < 4) & (k >= 10) & (k <= 13)
    voxels = scale * brain * (100 + rng.normal(0, 5, brain.shape) + 100 * lesion)
    (folder / name).mkdir(parents=True)
    for ending, values in zip(endings, (voxels, lesion.astype(np.uint8)), strict=True):
        image = nibabel.Nifti1Image(values.astype(np.float32), np.eye(4))
        nibabel.save(image, folder / name / f"{name}{ending}.nii.gz")


@pytest.fixture(scope="module")
def brats(tmp_path_factory):
    folder, out = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("out")
    rng = np.random.default_rng(0)
    for number in range(4):
        patient(folder / "brats", f"BraTS2021_{number:05d}", 1 + 9 * number, rng)
    return brats_study(folder / "brats", out, folds=2, every=3)


def test_brats_is_judged_by_models_of_other_patients(brats):
    assert len(brats.folds) == 2 and METHODS["scan"].suits(brats)
    for fold in brats.folds:
        learned = {case.group for case in healthy_cases(fold.folder, group=brats.group)}
        assert learned == {path.name for path in fold.scans}
        assert len(fold.judged) == len(fold.scans) == 2
        assert not learned & {path.name for path in fold.judged}
    assert {case.group for case in cases_of(brats)} == {f"BraTS2021_{number:05d}" for number in range(4)}


def test_slices_with_a_lesion_are_judged_and_never_learned_from(brats):
    cases = cases_of(brats)
    heights = {kind: {int(case.name[-3:]) for case in cases if case.kind == kind} for kind in ("good", "lesion")}
    assert heights["lesion"] == {12}
    assert heights["good"] <= {3, 6, 9, 15, 18, 21}
    for fold in brats.folds:
        numbers = {int(case.name[-3:]) for case in healthy_cases(fold.folder)}
        assert not numbers & {10, 11, 12, 13}


def test_volumes_of_any_scale_become_alike(brats):
    found = [(read_image(case.path).pixels[0], case) for case in cases_of(brats) if case.kind == "lesion"]
    assert len(found) == 4
    for pixels, case in found:
        mask = read_mask(case.mask, pixels.shape)
        assert np.median(pixels[(pixels > 0) & ~mask]) == pytest.approx(85, abs=3)
        assert pixels[mask].mean() == pytest.approx(170, abs=5)


def test_one_patient_cannot_be_judged_by_others(tmp_path):
    (tmp_path / "brats/none").mkdir(parents=True)
    with pytest.raises(InputError, match="holds neither"):
        brats_study(tmp_path / "brats", tmp_path, folds=2)
    patient(tmp_path / "brats", "only", 1, np.random.default_rng(0))
    with pytest.raises(InputError, match="has 1 patients and 1 folds; at least two"):
        brats_study(tmp_path / "brats", tmp_path, folds=2)


def test_patients_are_told_in_folders_of_hgg_and_lgg_and_those_that_cannot_be_read_are_left_out(tmp_path, capsys):
    folder, rng = tmp_path / "brats", np.random.default_rng(0)
    for grade, numbers in (("HGG", (0, 2, 4)), ("LGG", (1, 3))):
        for number in numbers:
            patient(folder / grade, f"Brats18_{number}_1", 1, rng)
    patient(folder / "LGG", "Brats18_5_1", 1, rng, ("_flair", "_Segm"))
    damaged = folder / "HGG/Brats18_4_1/Brats18_4_1_flair.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:2000])
    study = brats_study(folder, tmp_path / "out", folds=2)
    told = capsys.readouterr().err
    assert "left out, for no segmentation (*seg.nii.gz) is beside them: LGG/Brats18_5_1/Brats18_5_1_flair" in told
    assert f"left out: {damaged}" in told
    read = {f"Brats18_{number}_1" for number in range(4)}
    assert {case.group for case in cases_of(study)} == read
    assert {path.name for fold in study.folds for path in fold.judged} == read
    assert "4 patients with glioma" in study.about and "1 patients could not be read" in study.about
    assert brats_study(folder, tmp_path / "out", folds=2) == study


def test_brats_of_2023_is_known_and_visits_of_a_patient_stay_in_one_fold(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("BraTS-GLI-00001-000", "BraTS-GLI-00001-001", "BraTS-GLI-00002-000", "BraTS-GLI-00003-000"):
        patient(tmp_path / "brats", name, 1, rng, ("-t2f", "-seg"))
    study = brats_study(tmp_path / "brats", tmp_path / "out", folds=2)
    assert {case.group for case in cases_of(study)} == {f"BraTS-GLI-0000{number}" for number in (1, 2, 3)}
    for fold in study.folds:
        learned = {case.group for case in healthy_cases(fold.folder, group=study.group)}
        assert not learned & {case.group for case in labelled_cases(fold.folder, group=study.group)}
        assert fold.scans == fold.judged == ()  # methods for whole scans would look for the name flair
    assert not METHODS["scan"].suits(study) and METHODS["brightness"].suits(study)


def test_too_few_patients_that_can_be_read_are_told(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(2):
        patient(tmp_path / "brats", f"p{number}", 1, rng)
    damaged = tmp_path / "brats/p1/p1_flair.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:2000])
    with pytest.raises(InputError, match="has too few patients with healthy slices, none is left to train"):
        brats_study(tmp_path / "brats", tmp_path / "out", folds=2)


def test_folds_reach_brats_in_its_layout_too(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(3):
        patient(tmp_path / "data/brats", f"p{number}", 1, rng)
    for data, layout in ((tmp_path / "data", None), (tmp_path / "data/brats", "brats")):
        (study,) = studies(data, tmp_path / "out", False, layout=layout, folds=3)
        assert [len({case.group for case in healthy_cases(one.folder, group=study.group)}) for one in study.folds] == [
            2
        ] * 3
        assert len({case.group for case in cases_of(study)}) == 3


def test_other_volumes_are_cut_anew(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(2):
        patient(tmp_path / "brats", f"p{number}", 1, rng)
    first = brats_study(tmp_path / "brats", tmp_path / "out", folds=2)
    assert brats_study(tmp_path / "brats", tmp_path / "out", folds=2) == first
    patient(tmp_path / "brats", "p2", 1, rng)
    then = brats_study(tmp_path / "brats", tmp_path / "out", folds=2)
    assert {case.group for case in cases_of(first)} == {"p0", "p1"}
    assert {case.group for case in cases_of(then)} == {"p0", "p1", "p2"}


def test_a_study_that_was_left_half_made_is_made_anew(tmp_path):
    def broken(place):
        (place / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made_once(tmp_path / "made", broken)
    assert not (tmp_path / "made").exists()
    made = made_once(tmp_path / "made", lambda place: (place / "all").touch())
    assert [path.name for path in made.iterdir()] == ["all"]
    assert made_once(made, broken) == made


def test_a_study_is_the_same_as_json(tmp_path, brats):
    assert study_from(study_facts(brats)) == brats
    remember(brats, tmp_path)
    assert remembered(tmp_path) == {"brats": brats}


def test_images_make_the_fingerprint(tmp_path):
    first = study_fingerprint(made_study(tmp_path / "a"))
    assert study_fingerprint(made_study(tmp_path / "b")) == first
    assert study_fingerprint(made_study(tmp_path / "c", seed=1)) != first


def test_studies_without_data_are_left_out(tmp_path):
    made_study(tmp_path / "head_ct")
    assert [one.name for one in studies(tmp_path, tmp_path, True, ["head_ct"])] == ["head_ct"]
    with pytest.raises(InputError, match="liver_ct: its images are not under"):
        studies(tmp_path, tmp_path, True, ["liver_ct"])


def test_unnamed_are_those_in_data_or_without_it_the_embedded_ones(tmp_path, monkeypatch):
    made_study(tmp_path / "head_ct")
    monkeypatch.setattr("benchmarks.studies._embedded", lambda function: lambda *given: made_study(tmp_path / function))
    assert [one.folds[0].folder.name for one in studies(tmp_path, tmp_path, False)] == ["head_ct"]
    assert [one.folds[0].folder.name for one in studies(None, tmp_path, False)] == list(EMBEDDED)


def test_in_brief_some_are_taken_and_where_none_of_them_is_there_all(tmp_path):
    made_study(tmp_path / "liver_ct")
    assert [one.name for one in studies(tmp_path, tmp_path, True)] == ["liver_ct"]
    made_study(tmp_path / "head_ct")
    assert [one.name for one in studies(tmp_path, tmp_path, True)] == ["head_ct"]
    assert [one.name for one in studies(tmp_path, tmp_path, False)] == ["head_ct", "liver_ct"]


def cases(kind, count, patients=5, height=False):
    return [
        Case(
            Path(kind),
            f"{kind}/p{i % patients}_z{i // patients:03d}" if height else f"{kind}/{i:03d}",
            f"p{i % patients}",
            kind,
        )
        for i in range(count)
    ]


def test_all_methods_learn_from_the_same_images(tmp_path):
    healthy = [Case(tmp_path / str(i), str(i), f"p{i % 7}") for i in range(70)]
    chosen = training(healthy, 25, "name")
    assert len(chosen) == 25
    assert training(healthy[::-1], 25, "name")[::-1] != []
    assert len({case.group for case in chosen}) == 3
    assert chosen == training(healthy, 25, "name") != training(healthy, 25, "other name")
    assert training(healthy, 0, "name") == healthy


def test_slow_methods_judge_every_so_manieth_of_a_kind():
    both = cases("good", 50) + cases("bleed", 20)
    chosen = judged(both, 0, 10, None)
    assert [case.name for case in chosen] == [
        *(f"bleed/{i:03d}" for i in (0, 10)),
        *(f"good/{i:03d}" for i in range(0, 50, 10)),
    ]
    assert len(judged(both, 16, 1, None)) == 13 + 5
    assert len(judged(both, 100, 1, None)) == 70
    assert len(pictured(both)) == 3


def test_slices_keep_their_partners_of_the_same_height():
    chosen = judged(cases("good", 60, height=True) + cases("lesion", 60, height=True), 0, 3, r"_z(\d+)")
    assert {case.name[-3:] for case in chosen} == {"000", "003", "006", "009"}
    assert len(chosen) == 2 * 5 * 4


@pytest.mark.parametrize(("own", "seen"), [(8, 64), (28, 96), (64, 192), (240, 192)])
def test_small_images_are_not_enlarged_more_than_three_times(tmp_path: Path, own: int, seen: int) -> None:
    Image.fromarray(np.arange(8 * own, dtype=np.uint8).reshape(own, 8)).save(tmp_path / "a.png")
    assert seen_at([tmp_path / "a.png"], 192) == seen


def test_training_images_that_are_test_images_too_are_not_learned_from(tmp_path):
    study = made_study(tmp_path / "brain_mri")
    rng = np.random.default_rng(5)
    for i in range(12):  # no two of these are alike
        pixels = np.kron(rng.integers(0, 255, (8, 8)), np.ones((6, 6))).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"brain_mri/train/good/r{i}_{i}.png")
        if i < 2:
            Image.fromarray(pixels).save(tmp_path / f"brain_mri/test/good/s{i}_{i}.jpg", quality=60)
    for path in (tmp_path / "brain_mri/train/good").glob("p*"):
        path.unlink()
    (found,) = studies(tmp_path, tmp_path / "out", False, ["brain_mri"])
    (fold,) = found.folds
    assert [Path(name).stem for name in fold.left_out] == ["r0_0", "r1_1"]
    assert "2 training images that are test images too are left out" in found.about
    assert study_from(study_facts(found)) == found
    assert study_fingerprint(found) != study_fingerprint(replace(found, folds=study.folds))
    place = Place(tmp_path / "out", "brain_mri", "bright", 0)
    run = Run(entry("bright", "Bright"), found, place, Options(), {}, {})
    with _task(run, fold) as task:
        assert len(task.images) == 10
        assert not {image.path.stem for image in task.images} & {"r0_0", "r1_1"}


def test_in_brief_there_are_patients_enough_to_hold_one_out():
    cases = [Case(Path(f"{patient}_{z}"), f"{patient}_{z}", patient) for patient in "abcd" for z in range(36)]
    assert len({case.group for case in training(cases, QUICK.train_images, "brats")}) >= 2
