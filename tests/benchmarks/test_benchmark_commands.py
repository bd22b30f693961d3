"""The whole way in small, by the command line: made images, a baseline and a detector of our own."""

import shutil
from dataclasses import replace

import pytest
from made_studies import made_study
from typer.testing import CliRunner

from benchmarks import plan
from benchmarks.__main__ import app
from benchmarks.results import QUICK, Options, read_results
from priorlens.errors import InputError


def invoke(*arguments):
    return CliRunner().invoke(app, [str(one) for one in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    made_study(folder / "head_ct", train=32)
    return folder


def test_miniature(data, tmp_path):
    command = ["run", "--data", data, "--studies", "head_ct", "--methods", "brightness,anodode"]
    command += ["--quick", "--threads", 1, "--out", tmp_path]
    first = invoke(*command)
    assert first.exit_code == 0, first.stderr
    assert first.stderr.startswith("2 of 2 runs to do")
    found = {one["method"]: one for one in read_results(tmp_path)}
    assert [one["failed"] for one in found.values()] == [None] * 2
    figures = {name: {key: one["value"] for key, one in run["figures"]["all"].items()} for name, run in found.items()}
    assert figures["anodode"]["image_auroc"] > 0.9
    assert figures["anodode"]["pixel_auroc"] > 0.9
    assert figures["brightness"]["image_auroc"] > 0.9
    assert all(one["planted"] and one["score"]["ms_per_image"]["repeats"] >= 3 for one in found.values())
    again = invoke(*command)
    assert again.stderr.startswith("0 of 2 runs to do")
    renewed = invoke(*command, "--again", "brightness", "--again", "anodode", "--budget", 0)
    assert renewed.stderr.startswith("2 of 2 runs to do")


def test_several_names_come_by_commas_or_by_the_option_given_again(data, tmp_path):
    command = ["run", "--data", data, "--quick", "--budget", 0, "--out", tmp_path, "--methods", "constant,png_size"]
    told = invoke(*command, "--methods", "brightness", "--studies", "head_ct", "--studies", "digits,head_ct").stderr
    assert told.startswith("6 of 6 runs to do")
    told = invoke(*command, "--studies", "digits", "--seeds", 0, "--seeds", "2,1", "--seeds", 2).stderr
    assert told.startswith("6 of 6 runs to do")


def test_a_study_with_nothing_abnormal_is_refused_before_any_is_trained_on(data, tmp_path):
    folder = tmp_path / "data"
    made_study(folder / "liver_ct")
    shutil.rmtree(folder / "liver_ct/test/spot")
    shutil.rmtree(folder / "liver_ct/ground_truth")
    shutil.copytree(data / "head_ct", folder / "head_ct")
    with pytest.raises(InputError) as told:
        invoke("run", "--data", folder, "--methods", "constant", "--out", tmp_path / "out")
    test = folder / "liver_ct/test"
    assert str(told.value).startswith(f"liver_ct cannot be judged: {test}: has no abnormal kind beside good/; put the")
    assert read_results(tmp_path / "out") == [] and not (tmp_path / "out/models").exists()


def test_a_budget_that_is_spent_leaves_the_rest_for_another_time(data, tmp_path):
    spent = invoke(
        "run", "--data", data, "--studies", "head_ct", "--methods", "constant", "--budget", 0, "--out", tmp_path
    )
    assert spent.exit_code == 7
    assert "1 runs left" in spent.stderr
    assert read_results(tmp_path) == []


def test_list_names_methods_and_studies():
    told = invoke("list").stdout
    assert "method anodode: " in told
    assert "study brats" in told


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--studies", "no_such"], "no_such: is no study"),
        (["--studies", "head_ct"], "found with --data DIR"),
        (["--methods", "no_such", "--studies", "digits"], "no_such: is no method"),
        (["--layout", "no_such"], "no_such: is no layout"),
        (
            ["--layout", "bmad", "--studies", "digits"],
            "--studies beside --layout bmad: the only study is that in --data",
        ),
        (["--layout", "msd", "--data", ".", "--folds", 3], "--folds beside --layout msd: is of brats alone"),
        (["--studies", "digits", "--folds", 3], "--folds: is of brats alone"),
    ],
)
def test_errors_are_one_line(arguments, line, tmp_path):
    with pytest.raises(InputError, match=line):
        invoke("run", *arguments, "--quick", "--out", tmp_path)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--seeds", "0,a"], "--seeds 0,a: are no seeds"),
        (["--seeds", ""], "are no seeds"),
        (["--again", "no_such"], "no_such: is no method"),
        (["--again", "constant,brightness"], "--again brightness: is not among these --methods"),
        (["--methods", "scan", "--again", "scan"], "--again scan: is not among these --methods, or not meant for"),
        (["--data", "no-such-folder"], "no-such-folder: there is no such folder"),
    ],
)
def test_a_slip_is_told_before_anything_runs(arguments, line, tmp_path):
    with pytest.raises(InputError, match=line):
        invoke("run", "--studies", "digits", "--methods", "constant", *arguments, "--out", tmp_path)
    assert read_results(tmp_path) == []


def test_what_is_given_beside_quick_goes_before_what_it_would_have(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(plan, "planned", lambda entries, found, seeds, options, *more: seen.append(options) or [])
    command = ["run", "--studies", "digits", "--budget", 0, "--out", tmp_path]
    for more in ([], ["--size", 64], ["--quick"], ["--quick", "--size", 64, "--train-images", 0, "--peer-minutes", 1]):
        assert invoke(*command, *more).exit_code == 0
    in_brief = replace(QUICK, size=64, train_images=0, peer_minutes=1)
    assert seen == [Options(), Options(size=64), QUICK, in_brief]


def test_studies_without_images_are_told(data, tmp_path):
    told = invoke("run", "--data", data, "--quick", "--methods", "constant", "--budget", 0, "--out", tmp_path).stderr
    assert f"left out, for their images are not here (not under {data}): brats" in told


def test_a_run_in_brief_never_replaces_a_whole_one(data, tmp_path):
    command = ["run", "--data", data, "--studies", "head_ct", "--methods", "constant", "--threads", 1]
    command += ["--out", tmp_path]
    assert invoke(*command).exit_code == 0
    before = read_results(tmp_path)
    with pytest.raises(InputError, match="--quick would replace what constant has of head_ct there; give it an --out"):
        invoke(*command, "--quick")
    assert read_results(tmp_path) == before
    (tmp_path / "results/head_ct/constant-0.json").unlink()  # stopped while it judged: the model is there
    with pytest.raises(InputError, match="--quick would replace"):
        invoke(*command, "--quick")
