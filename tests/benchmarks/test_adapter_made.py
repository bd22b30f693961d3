"""Studies are made once, whole or not at all; patients are split, none of them into both parts."""

import json

import pytest

from benchmarks.adapters.made import drawn, fingerprint_of, folds_of, made, placed, study_name
from benchmarks.study import Fold, Study
from priorlens.errors import InputError


def maker(calls, fails=False):
    def make(place):
        calls.append(place)
        (place / "fold0" / "train" / "good").mkdir(parents=True)
        if fails:
            raise InputError("broken")
        return Study("toy", (Fold(place / "fold0", (place.parent / "scan",)),), "range", False, "about", r"^(.+)_")

    return make


def test_a_study_is_made_once_and_found_again_equal(tmp_path):
    calls = []
    first = made(tmp_path, "toy", "a", maker(calls))
    assert made(tmp_path, "toy", "a", maker(calls)) == first and len(calls) == 1
    assert first.folds[0].folder == tmp_path / "studies/toy/fold0" and first.folds[0].folder.is_dir()


def test_other_sources_make_it_anew(tmp_path):
    calls = []
    folder = made(tmp_path, "toy", "a", maker(calls)).folds[0].folder
    (folder / "old").touch()
    made(tmp_path, "toy", "b", maker(calls))
    assert len(calls) == 2 and not (folder / "old").exists()


def test_what_failed_leaves_no_folder_and_keeps_an_older_study(tmp_path):
    calls = []
    with pytest.raises(InputError):
        made(tmp_path, "toy", "a", maker(calls, fails=True))
    assert not list((tmp_path / "studies").iterdir())
    kept = made(tmp_path, "toy", "a", maker(calls))
    with pytest.raises(InputError):
        made(tmp_path, "toy", "b", maker(calls, fails=True))
    assert made(tmp_path, "toy", "a", maker(calls, fails=True)) == kept


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1, "fingerprint": "a"}', '{"format": 0}'])
def test_a_folder_without_its_last_file_is_not_taken_for_whole(tmp_path, text):
    calls = []
    made(tmp_path, "toy", "a", maker(calls))
    (tmp_path / "studies/toy/study.json").write_text(text)
    made(tmp_path, "toy", "a", maker(calls))
    assert len(calls) == 2 and json.loads((tmp_path / "studies/toy/study.json").read_text())["fingerprint"] == "a"


def test_an_output_folder_may_be_moved(tmp_path):
    calls = []
    made(tmp_path / "a", "toy", "a", maker(calls))
    (tmp_path / "a").rename(tmp_path / "b")
    assert made(tmp_path / "b", "toy", "a", maker(calls)).folds[0].folder.is_dir() and len(calls) == 1


@pytest.mark.parametrize("count", [2, 3, 9, 10, 11, 100])
def test_no_patient_is_learned_from_and_judged(tmp_path, count):
    patients = [f"p{i}" for i in range(count)]
    folds = folds_of(patients * 2, tmp_path)
    for learned, judged in folds:
        assert learned and judged and not set(learned) & set(judged) and sorted(learned + judged) == sorted(patients)
    if count < 10:
        assert sorted(name for _, judged in folds for name in judged) == sorted(patients)
    assert folds == folds_of(patients[::-1], tmp_path)


@pytest.mark.parametrize(("patients", "count", "made"), [(4, 3, 3), (20, 5, 5), (3, 7, 3)])
def test_as_many_folds_as_are_asked_for_judge_everyone_once(tmp_path, patients, count, made):
    names = [f"p{i}" for i in range(patients)]
    folds = folds_of(names, tmp_path, count)
    assert len(folds) == made and sorted(name for _, judged in folds for name in judged) == sorted(names)
    for learned, judged in folds:
        assert judged and sorted(learned + judged) == sorted(names) and not set(learned) & set(judged)


def test_one_patient_is_too_few(tmp_path):
    with pytest.raises(InputError, match="holds 1 patients"):
        folds_of(["one", "one"], tmp_path)


def test_a_draw_is_the_same_every_time():
    names = [f"{i:03d}" for i in range(50)]
    assert drawn(names, 7) == drawn(names[::-1], 7) == sorted(drawn(names, 7)) and len(drawn(names, 7)) == 7
    assert drawn(names, 100) == names


def test_a_fingerprint_tells_names_sizes_and_settings(tmp_path):
    file = tmp_path / "a"
    file.write_text("x")
    first = fingerprint_of(tmp_path, [file], 1)
    assert fingerprint_of(tmp_path, [file], 1) == first != fingerprint_of(tmp_path, [file], 2)
    file.write_text("xy")
    assert fingerprint_of(tmp_path, [file], 1) != first


def test_an_image_is_linked_once(tmp_path):
    (tmp_path / "a").write_text("x")
    placed(tmp_path / "a", tmp_path / "made" / "b")
    assert (tmp_path / "made" / "b").read_text() == "x"
    with pytest.raises(InputError, match="another image"):
        placed(tmp_path / "a", tmp_path / "made" / "b")


def test_names_are_fit_for_folders(tmp_path):
    assert study_name("mvtec", tmp_path / "Metal Nut") == "mvtec_metal_nut"
