"""Whatever is wrong with what a user gives: one line that names the file and the remedy, and a documented exit code."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import timm
from command_line import SMALL, Command, Draw
from PIL import Image

from priorlens import anodode, checkpoint, outputs
from priorlens.commands import score_scans

Break = Callable[[Path], object]


def errors(out: Path) -> dict[str, str]:
    """Column error of `scores.csv` by file name, empty where all is well."""
    with open(out / "scores.csv", newline="") as file:
        return {Path(row["file"]).name: row["error"] for row in csv.DictReader(file)}


def nothing_is_half_written(folder: Path) -> None:
    assert not [path for path in folder.rglob("*") if path.name.endswith(".partial")]


@pytest.fixture
def images(tmp_path: Path, healthy: Path) -> Path:
    """A copy of the healthy images that a test may spoil."""
    return shutil.copytree(healthy, tmp_path / "images")


# --- an empty folder


def test_empty_folder(tmp_path: Path, fit: Command, run: Command, model: Path, dataset: Path) -> None:
    empty, out = tmp_path / "empty", tmp_path / "out"
    empty.mkdir()
    fit(empty, "--out", out).refused(3, empty, "holds no images", "name a folder")
    run("score", model, empty, "--out", out).refused(3, empty, "holds no images", "name a folder")
    run("evaluate", model, empty, "--out", out).refused(3, empty, "has no test/ folder", "test/good/")
    shutil.rmtree(dataset / "test/lesion")
    (dataset / "test/lesion").mkdir()
    run("evaluate", model, dataset, "--out", out).refused(3, dataset / "test/lesion", "holds no images")
    assert not out.exists()


def test_no_such_folder(tmp_path: Path, fit: Command, run: Command, model: Path) -> None:
    missing, out = tmp_path / "missing", tmp_path / "out"
    fit(missing, "--out", out).refused(3, missing, "no such file or folder", "check the path")
    run("score", model, missing, "--out", out).refused(3, missing, "no such file or folder", "check the path")
    run("score", model, "--out", out).refused(3, "no images were named")


# --- one image only


def test_one_image_only(tmp_path: Path, fit: Command, run: Command, model: Path, draw: Draw) -> None:
    draw(tmp_path / "one/1.png")
    fit(tmp_path / "one", "--out", tmp_path / "m").refused(3, tmp_path / "one", "only one healthy image", "at least 8")
    ran = run("score", model, tmp_path / "one", "--out", tmp_path / "out")
    assert ran.code == 0, "one image is enough to be scored"


# --- unreadable, truncated, constant and NaN images among good ones


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-300])


def save_as_npy(pixels: np.ndarray) -> Break:
    def replace(path: Path) -> None:
        path.unlink()
        np.save(path.with_suffix(".npy"), pixels)

    return replace


BROKEN: dict[str, tuple[Break, str]] = {
    "empty file": (lambda path: path.write_bytes(b""), "is empty; export it again or leave it out"),
    "not an image": (lambda path: path.write_text("hello"), "is not an image that can be read; export it again"),
    "truncated": (truncate, "is truncated or damaged"),
    "dangling link": (lambda path: (path.unlink(), path.symlink_to("nowhere")), "there is no such file; check"),
    "constant": (lambda path: Image.new("L", (48, 48), 7).save(path), "is constant, every pixel is the same; leave it"),
    "nan": (save_as_npy(np.full((48, 48), np.nan, np.float32)), "has nan or infinite pixels; replace them"),
    "inf": (save_as_npy(np.full((48, 48), np.inf)), "has nan or infinite pixels; replace them"),
    "tiny": (lambda path: Image.new("L", (4, 4)).save(path), "is 4x4 pixels; at least 8x8 are needed"),
    "pickled": (save_as_npy(np.array([{}], dtype=object)), "holds pickled Python objects, which are never loaded"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_image_among_good_ones_to_score(
    tmp_path: Path, run: Command, model: Path, draw: Draw, name: str
) -> None:
    spoil, says = BROKEN[name]
    for i in range(3):
        draw(tmp_path / f"new/{i}.png", seed=i)
    spoil(tmp_path / "new/1.png")
    ran = run("score", model, tmp_path / "new", "--out", tmp_path / "out", "--no-overlays")
    assert ran.code == 7 and "2 of 3 images scored" in ran.stdout
    first, summary = ran.told
    assert first.startswith(f"priorlens: {tmp_path}/new/1.") and says in first
    assert "1 of 3 images could not be scored" in summary
    reasons = errors(tmp_path / "out")
    (broken,) = (file for file in reasons if file.startswith("1."))
    assert f"priorlens: {reasons.pop(broken)}" == first and set(reasons.values()) == {""}
    assert sorted(path.name for path in (tmp_path / "out/maps").iterdir()) == ["0.npy", "2.npy"]


@pytest.mark.usefixtures("learned")
def test_broken_images_among_good_ones_to_learn_from(tmp_path: Path, fit: Command, images: Path) -> None:
    for spoil, path in zip((BROKEN["truncated"][0], BROKEN["nan"][0]), sorted(images.iterdir()), strict=False):
        spoil(path)
    ran = fit(images, "--out", tmp_path / "model")
    assert ran.code == 0 and "10 healthy images" in ran.stdout, ran
    assert len(ran.told) == 3
    assert "p0_0.npy: has nan" in ran.stderr or "p0_1.npy: has nan" in ran.stderr
    assert "2 of 12 images cannot be used and are left out" in ran.told[-1]
    assert json.loads((tmp_path / "model/config.json").read_text())["run"]["left_out"] == 2


def test_too_few_good_ones_to_learn_from(tmp_path: Path, fit: Command, images: Path) -> None:
    for path in sorted(images.iterdir())[:5]:
        path.write_bytes(b"")
    ran = fit(images, "--out", tmp_path / "model")
    assert ran.code == 3 and len(ran.stderr.splitlines()) == 6
    assert "only 7 of 12 images can be used; at least 8 are needed, add or repair some" in ran.stderr.splitlines()[-1]


def test_names_that_are_no_text_and_look_like_markup(tmp_path: Path, run: Command, model: Path, draw: Draw) -> None:
    folder = tmp_path / "[red]"
    odd = Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9 :bug:.png"))
    draw(folder / "good [bold].png")
    odd.write_bytes(b"")
    ran = run("score", model, folder, "--out", tmp_path / "out")
    assert ran.code == 7 and "[red]" in ran.stderr and ":bug:.png: is empty" in ran.stderr
    assert (tmp_path / "out/overlays/good [bold].png").is_file()
    assert b"caf\xe9 :bug:.png" in (tmp_path / "out/scores.csv").read_bytes()


# --- mixed sizes, bit depths and colours (mixed sizes are no fault: see test_fit and test_score)


def test_mixed_bit_depths(tmp_path: Path, fit: Command, run: Command, model: Path, images: Path, draw: Draw) -> None:
    deep = draw(images / "p9_deep.png", bits=16)
    fit(images, "--out", tmp_path / "m").refused(3, deep, "up to 65535", "convert all to one bit depth")
    assert os.listdir(tmp_path / "m") == [], "nothing stands in the way of another try"
    ran = run("score", model, images, "--out", tmp_path / "out", "--no-overlays")
    assert ran.code == 7 and "12 of 13 images scored" in ran.stdout
    assert "convert all to one bit depth" in errors(tmp_path / "out")["p9_deep.png"]


def test_colour_where_grey_was_trained(
    tmp_path: Path, fit: Command, run: Command, model: Path, images: Path, draw: Draw
) -> None:
    coloured = draw(images / "p9_coloured.png", colour=True)
    ran = run("score", model, images, "--out", tmp_path / "out", "--no-overlays")
    assert ran.code == 7 and "12 of 13 images scored" in ran.stdout
    reason = errors(tmp_path / "out")["p9_coloured.png"]
    assert reason.startswith(f"{coloured}: ") and "grey" in reason and ";" in reason
    fit(images, "--out", tmp_path / "m").refused(3, coloured, "grey", ";")


# --- masks


def test_mask_with_no_image(tmp_path: Path, run: Command, model: Path, dataset: Path) -> None:
    (dataset / "test/lesion/1.png").unlink()
    mask = dataset / "ground_truth/lesion/1.png"
    ran = run("evaluate", model, dataset, "--out", tmp_path / "out")
    ran.refused(3, mask, "this mask has no image", "remove the mask")
    assert not (tmp_path / "out").exists(), "told before anything is scored"


def test_mask_of_another_size(tmp_path: Path, run: Command, model: Path, dataset: Path, draw: Draw) -> None:
    mask = draw(dataset / "ground_truth/lesion/1.png", size=(30, 31))
    ran = run("evaluate", model, dataset, "--out", tmp_path / "out")
    ran.refused(3, mask, "the mask is 31x30 pixels but its image is 56x40", "export both at the same size")
    assert not (tmp_path / "out").exists(), "told before anything is scored"


# --- the output folder


@pytest.fixture(params=["fit", "score", "evaluate", "demo"])
def command(request: pytest.FixtureRequest, model: Path, healthy: Path, dataset: Path) -> list[object]:
    """Every command that writes, but for its --out."""
    return {
        "fit": ["fit", healthy, *SMALL],
        "score": ["score", model, healthy],
        "evaluate": ["evaluate", model, dataset],
        "demo": ["demo", "--steps", 1],
    }[request.param]


def test_output_folder_in_use(tmp_path: Path, run: Command, command: list[object]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/letter.txt").write_text("dear")
    ran = run(*command, "--out", tmp_path / "out")
    ran.refused(5, tmp_path / "out", "is not empty", "choose another --out or add --overwrite")
    assert os.listdir(tmp_path / "out") == ["letter.txt"]


def test_output_folder_is_a_file(tmp_path: Path, run: Command, command: list[object]) -> None:
    (tmp_path / "out").write_text("a file")
    run(*command, "--out", tmp_path / "out").refused(5, tmp_path / "out", "choose another output folder")
    run(*command, "--out", tmp_path / "out/deeper").refused(5, tmp_path / "out/deeper", "choose an output folder")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_output_folder_unwritable(
    tmp_path: Path, run: Command, command: list[object], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """As a test may run as root, whom no permission stops, the refusal is the file system's reply, not its cause."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(outputs.tempfile, "TemporaryFile", refuse)
    ran = run(*command, "--out", tmp_path / "out")
    ran.refused(5, tmp_path / "out", os.strerror(number).lower(), "choose an output folder")


# --- a full disk


def fill_disk_at(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """From now on the disk is full whenever a file whose path holds `name` is completed."""
    replace = os.replace

    def full(source: Path, target: Path) -> None:
        if name in str(target):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)


@pytest.mark.parametrize("at", ["p2_4.npy", "p1_2.png", "scores.csv"])
def test_disk_full_while_scoring(
    tmp_path: Path, run: Command, model: Path, healthy: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    out = tmp_path / "out"
    fill_disk_at(monkeypatch, at)
    run("score", model, healthy, "--out", out).refused(5, out, at, "no space left", "free some space")
    nothing_is_half_written(out)
    assert not list(out.rglob(at))
    if at == "p2_4.npy":
        assert list(errors(out)) == ["p0_0.png", "p0_1.png", "p1_2.png", "p1_3.png"], "what was done is kept"


@pytest.mark.parametrize("at", ["metrics.json", "roc_pr.png"])
def test_disk_full_while_evaluating(
    tmp_path: Path, run: Command, model: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    fill_disk_at(monkeypatch, at)
    ran = run("evaluate", model, dataset, "--out", tmp_path / "out", "--bootstrap", 0, "--no-overlays")
    ran.refused(5, tmp_path / "out" / at, "no space left", "free some space")
    nothing_is_half_written(tmp_path / "out")


@pytest.mark.usefixtures("learned")
@pytest.mark.parametrize("at", ["run.json", "s8_denoiser.safetensors", "model.safetensors", "config.json"])
def test_disk_full_while_fitting(
    tmp_path: Path, run: Command, fit: Command, healthy: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    out = tmp_path / "model"
    with monkeypatch.context() as patch:
        fill_disk_at(patch, at)
        fit(healthy, "--out", out).refused(5, out, "no space left", "free some space")
    nothing_is_half_written(out)
    assert not (out / "config.json").exists()
    ran = fit(healthy, "--out", out, "--resume")
    assert ran.code == 0, "with space again, it goes on"


# --- Ctrl-C


def test_ctrl_c_while_scoring(
    tmp_path: Path, run: Command, model: Path, draw: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(40):
        draw(tmp_path / f"new/{i}.png", seed=i)
    score, out = anodode.AnoDODE.score, tmp_path / "out"
    turns = iter(range(10))

    def score_once(*arguments: object) -> anodode.Scores:
        if next(turns) == 1:
            raise KeyboardInterrupt
        return score(*arguments)

    monkeypatch.setattr(anodode.AnoDODE, "score", score_once)
    ran = run("score", model, tmp_path / "new", "--out", out, "--no-overlays")
    ran.refused(130, out / "scores.csv", "stopped after 16 of 40 images", "the same command goes on")
    assert len(errors(out)) == 16 == len(list((out / "maps").iterdir()))
    nothing_is_half_written(out)


@pytest.mark.usefixtures("learned")
def test_ctrl_c_while_fitting(
    tmp_path: Path, fit: Command, run: Command, healthy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> NoReturn:
        raise KeyboardInterrupt

    out = tmp_path / "model"
    with monkeypatch.context() as patch:
        patch.setattr(anodode.AnoDODE, "save", interrupt)
        fit(healthy, "--out", out).refused(130, out, "unfinished", "--resume")
    assert not (out / "config.json").exists()
    run("score", out, healthy, "--out", tmp_path / "out").refused(4, out, "unfinished", "--resume")
    assert fit(healthy, "--out", out, "--resume").code == 0


def test_ctrl_c_before_there_is_anything_to_keep(
    tmp_path: Path, run: Command, healthy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(score_scans, "of_scans", interrupt)
    run("score", "model", healthy, "--out", tmp_path / "out").refused(130, "nothing is half-written")
    assert not (tmp_path / "out").exists()


# --- backbones


def test_unknown_backbone(tmp_path: Path, fit: Command, healthy: Path) -> None:
    ran = fit(healthy, "--out", tmp_path / "model", "--backbone", "resnet1800")
    ran.refused(6, "resnet1800", "timm knows no such backbone", "try one of")
    assert os.listdir(tmp_path / "model") == [], "nothing stands in the way of another try"


def test_no_network_for_weights(tmp_path: Path, fit: Command, healthy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model

    def offline(name: str, pretrained: bool = False, **options: object) -> object:
        if pretrained:
            raise OSError("Name or service not known\nwhile asking the hub")
        return create(name, pretrained=pretrained, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    ran = fit(healthy, "--out", tmp_path / "model", "--backbone", "resnet10t")
    ran.refused(6, "resnet10t", "cannot be had", "--weights FILE.safetensors", "tf_efficientnet_lite0")


def test_weights_that_are_no_weights(tmp_path: Path, fit: Command, healthy: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    fit(healthy, "--out", tmp_path / "model", "--weights", weights).refused(6, weights, "no such file", "check")
    weights.write_bytes(b"nothing of the kind")
    fit(healthy, "--out", tmp_path / "model", "--weights", weights).refused(6, weights, "does not hold", "check")


# --- models


def spoil_model(model: Path, how: str) -> None:
    config = json.loads((model / "config.json").read_text())
    match how:
        case "missing":
            shutil.rmtree(model)
        case "foreign":
            (model / "config.json").write_text('{"architectures": ["BertModel"]}')
        case "newer":
            (model / "config.json").write_text(json.dumps(config | {"schema": checkpoint.SCHEMA + 1}))
        case "truncated":
            tensors = model / "model.safetensors"
            tensors.write_bytes(tensors.read_bytes()[:-1000])
        case "half copied":
            (model / "model.safetensors").unlink()


@pytest.mark.parametrize("how", ["missing", "foreign", "newer", "truncated", "half copied"])
def test_models_that_cannot_be_used(tmp_path: Path, run: Command, model: Path, dataset: Path, how: str) -> None:
    copy = shutil.copytree(model, tmp_path / "model")
    spoil_model(copy, how)
    for command in (["score", copy, dataset / "test/good"], ["evaluate", copy, dataset]):
        run(*command, "--out", tmp_path / "out").refused(4, copy, ";")
    run("inspect", copy).refused(4, copy, ";")
    assert not (tmp_path / "out").exists()
