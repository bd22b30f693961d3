"""`priorlens calibrate`: healthy images become a yardstick; those that cannot be one are refused with the reason."""

from __future__ import annotations

import csv
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from command_line import Command, Draw
from PIL import Image

from priorlens import calibration, scoring
from priorlens.acquisition import ACQUISITION
from priorlens.anodode import AnoDODE
from priorlens.blocks import block_means
from priorlens.calibrating import calibrate
from priorlens.calibration import Calibration, calibrated_setups, read_calibration, write_calibration
from priorlens.errors import InputError
from priorlens.images import read_image
from priorlens.provenance import Provenance, image_fingerprint, patient_fingerprint

PATIENT = r"^(q\d+)_"
SETUP = "rule=combined"


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def of(model: Path, setup: str = SETUP) -> Calibration:
    found = read_calibration(model, setup)
    assert found is not None
    return found


def calibrations(model: Path) -> dict[str, bytes]:
    """Every calibration of a model, by its file's name."""
    return {path.name: path.read_bytes() for path in (model / "calibration").rglob("*")}


@pytest.fixture
def copy(tmp_path: Path, model: Path) -> Path:
    """A copy of the model without calibration, that a test may write to."""
    return shutil.copytree(model, tmp_path / "model")


@pytest.fixture
def own(tmp_path: Path, calibrated: Path) -> Path:
    """A copy of the calibrated model that a test may spoil."""
    return shutil.copytree(calibrated, tmp_path / "calibrated")


@pytest.fixture
def images(tmp_path: Path, more: Path) -> Path:
    """A copy of the images to calibrate with that a test may spoil."""
    return shutil.copytree(more, tmp_path / "images")


@pytest.fixture
def new(tmp_path: Path, draw: Draw) -> Path:
    """Two images that are neither learned from nor calibrated on."""
    for i in range(2):
        draw(tmp_path / f"new/{i}.png", seed=300 + i)
    return tmp_path / "new"


# --- what it writes


def test_it_keeps_what_the_model_says_of_each_image(
    tmp_path: Path, run: Command, model: Path, calibrated: Path, more: Path
) -> None:
    found, paths = of(calibrated), sorted(more.iterdir(), key=lambda path: path.name)
    names = {image_fingerprint(read_image(path)): path for path in paths}
    assert set(found.images) == set(names) and len(found.images) == 24 and found.patient_count == 21
    patients = [patient_fingerprint(names[image].name[:3]) for image in found.images]
    assert list(found.patients) == patients
    assert run("score", model, more, "--out", tmp_path / "out", "--no-overlays").code == 0
    rows = {row["file"]: row for row in rows_of(tmp_path / "out/scores.csv")}
    bits = {
        (row["file"], float(row["stride"]), float(row["sigma"])): row for row in rows_of(tmp_path / "out/spectrum.csv")
    }
    figures = ["s8", "s16", "s32", *ACQUISITION]
    assert list(found.features)[:6] == figures and len(found.features) == 6 + 3 * 5 * 4
    for i, image in enumerate(found.images):
        path = names[image]
        own = rows[str(path)]
        assert found.anomaly[i] == pytest.approx(float(own["anomaly"]), abs=1e-4)
        anomaly_map = np.load(tmp_path / f"out/maps/{path.stem}.npy")
        np.testing.assert_allclose(found.blocks[i], block_means(anomaly_map).ravel(), atol=1e-3)
        for name in figures:
            assert found.features[name][i] == pytest.approx(float(own[name]), rel=1e-4, abs=1e-4), name
        for name in ("standardised", "width_1"):
            value = float(bits[str(path), 16.0, 0.5][name])
            assert found.features[f"{name}@stride=16,sigma=0.5"][i] == pytest.approx(value, abs=1e-3)


def test_it_says_what_it_is_worth(run: Command, copy: Path, more: Path) -> None:
    ran = run("calibrate", copy, more, "--group", PATIENT)
    assert ran.code == 0 and not ran.stderr, ran
    line = f"{copy}: calibrated (rule=combined) on 24 healthy images of 21 patients: p-values down to 0.045\n"
    assert ran.stdout == line
    assert calibrated_setups(copy) == [SETUP]
    again = run("calibrate", copy, more).stdout
    assert "of 24 patients: p-values down to 0.04, in place of 21 patients\n" in again, "each its own patient"


def test_from_python_it_is_the_same(calibrated: Path, more: Path) -> None:
    paths = sorted(more.iterdir(), key=lambda path: int(path.stem.partition("_")[2]))
    images = [read_image(path) for path in paths]
    found = calibrate(AnoDODE.load(calibrated), images, [path.name[:3] for path in paths])
    known = of(calibrated)
    assert (found.setup, sorted(found.images), found.patient_count) == (SETUP, sorted(known.images), 21)
    place = [known.images.index(image) for image in found.images]
    assert found.patients == tuple(known.patients[i] for i in place)
    np.testing.assert_allclose(found.anomaly, known.anomaly[place], atol=1e-4)
    assert list(found.features) == list(known.features)
    for name, values in found.features.items():
        np.testing.assert_allclose(values, known.features[name][place], atol=1e-3, err_msg=name)
    for i, blocks in zip(place, found.blocks, strict=True):
        np.testing.assert_allclose(blocks, known.blocks[i], atol=1e-3)


def test_from_python_the_same_images_are_refused(
    model: Path, healthy: Path, more: Path, draw: Draw, tmp_path: Path
) -> None:
    detector, images = AnoDODE.load(model), [read_image(path) for path in sorted(more.iterdir())]
    large = read_image(draw(tmp_path / "large.png", size=(160, 160)))
    for some, patients, said in (
        ([*images, read_image(healthy / "p0_0.png")], None, "fitted to this image"),
        ([*images, large], None, "160x160 pixels"),
        ([*images, images[3]], None, "some of the healthy images are the same"),
        (images[:3], None, "3 healthy patients give no p-value below 0.25"),
        (images, ["ann"] * 12 + ["bob"] * 12, "2 healthy patients"),
        ([255 - image.pixels for image in images], None, "of the same modality"),
    ):
        with pytest.raises(InputError, match=said):
            calibrate(detector, some, patients)
    assert calibrate(detector, images).patient_count == 24


def test_nothing_that_names_a_file_or_a_patient_is_kept(calibrated: Path, more: Path) -> None:
    (content,) = calibrations(calibrated).values()
    assert b"q00" not in content and str(more.parent).encode() not in content


def test_again_is_the_same_and_another_rule_stands_beside_it(
    run: Command, own: Path, calibrated: Path, more: Path
) -> None:
    before = calibrations(calibrated)
    assert run("calibrate", own, more, "--group", PATIENT).code == 0
    assert calibrations(own) == before
    assert run("calibrate", own, more, "--group", PATIENT, "--rule", "standardised").code == 0
    assert calibrations(own).items() > before.items()
    assert calibrated_setups(own) == [SETUP, "rule=standardised"]
    assert not np.array_equal(of(own).anomaly, of(own, "rule=standardised").anomaly)
    assert run("calibrate", own, more).code == 0
    assert of(own).patient_count == 24 and len(calibrations(own)) == 2, "the later one takes its place"
    assert of(own, "rule=standardised").patient_count == 21


def test_a_manifest_names_patients_and_what_is_healthy(run: Command, copy: Path, images: Path) -> None:
    rows = [(path.name, f"patient {path.name[1:3]}", "good") for path in sorted(images.iterdir())]
    rows[0] = (rows[0][0], "ill", "tumour")
    table = images / "list.csv"
    table.write_text("file,group,kind\n" + "".join(",".join(row) + "\n" for row in rows))
    assert run("calibrate", copy, images, "--manifest", table).code == 0
    found = of(copy)
    assert len(found.images) == 23 and set(found.patients) == {patient_fingerprint(row[1]) for row in rows[1:]}
    table.write_text("file,group,kind\n" + "".join(f"{name},{patient},tumour\n" for name, patient, _ in rows))
    run("calibrate", copy, images, "--manifest", table).refused(3, table, "good", ";")


# --- images that are no yardstick


@pytest.mark.parametrize(
    ("count", "said"),
    [(3, "3 healthy patients give no p-value below 0.25"), (1, "1 healthy patient gives no p-value below 0.5")],
)
def test_too_few(tmp_path: Path, run: Command, copy: Path, draw: Draw, count: int, said: str) -> None:
    for i in range(count):
        draw(tmp_path / f"few/{i}.png", seed=i + 200)
    run("calibrate", copy, tmp_path / "few").refused(3, tmp_path / "few", said, "calibrate with at least 9")
    assert not (copy / "calibration").exists()


def test_many_images_of_few_patients_are_too_few(run: Command, copy: Path, more: Path) -> None:
    ran = run("calibrate", copy, more, "--group", r"^q(\d)")
    ran.refused(3, more, "3 healthy patients give no p-value below 0.25", "calibrate with at least 9")


def test_images_the_model_was_fitted_to(run: Command, copy: Path, healthy: Path) -> None:
    first = sorted(healthy.iterdir())[0]
    ran = run("calibrate", copy, healthy)
    ran.refused(3, first, "the model was fitted to this image, and to 11 more of the 12", "never met")
    assert not (copy / "calibration").exists()


@pytest.mark.parametrize("name", ["other_name.png", "other.npy", "other.tif", "colour.png"])
def test_an_image_the_model_was_fitted_to_under_another_name(
    run: Command, own: Path, images: Path, healthy: Path, name: str
) -> None:
    before, pixels = calibrations(own), np.asarray(Image.open(healthy / "p1_3.png"))
    if name.endswith(".npy"):
        np.save(images / name, pixels.astype(np.float32))
    else:
        Image.fromarray(np.stack([pixels] * 3, -1) if "colour" in name else pixels).save(images / name)
    ran = run("calibrate", own, images)
    ran.refused(3, images / name, "the model was fitted to this image;", own)
    assert calibrations(own) == before, "what was there is kept"


@pytest.fixture
def by_patient(copy: Path, healthy: Path) -> Path:
    """As if fitted with --group '^(q?p?\\d+)_' to images of the patients q03 and p1."""
    detector, config = AnoDODE.load(copy), json.loads((copy / "config.json").read_text())
    fitted = [read_image(path) for path in sorted(healthy.iterdir())]
    detector.provenance_ = Provenance.of(fitted, ["q03", *["p1"] * 11])
    detector.save(copy, facts={"run": config["run"] | {"group": r"^(\w\d+)_"}})
    return copy


def test_other_images_of_patients_the_model_was_fitted_to(run: Command, by_patient: Path, more: Path) -> None:
    ran = run("calibrate", by_patient, more, "--group", PATIENT)
    ran.refused(3, more / "q03_3.png", "the model was fitted to other images of this patient;", "never met")
    assert not (by_patient / "calibration").exists()


def test_names_of_patients_are_compared_only_where_both_were_told_them(
    run: Command, by_patient: Path, more: Path, tmp_path: Path, model: Path
) -> None:
    """Names of files are no patients: two hospitals may both have an image 0001."""
    assert run("calibrate", by_patient, more).code == 0
    other = shutil.copytree(model, tmp_path / "other")
    named_alike = tmp_path / "alike"
    named_alike.mkdir()
    for i, path in enumerate(sorted(more.iterdir())):
        shutil.copy(path, named_alike / f"p{i // 2}_{i}.png")
    assert run("calibrate", other, named_alike, "--group", r"^(p\d+_\d+)").code == 0


def test_another_size(tmp_path: Path, run: Command, copy: Path, draw: Draw) -> None:
    for i in range(12):
        draw(tmp_path / f"large/{i}.png", seed=200 + i, size=(80, 160))
        draw(tmp_path / f"twice/{i}.png", seed=200 + i, size=(40, 96))
    ran = run("calibrate", copy, tmp_path / "large")
    ran.refused(3, tmp_path / "large/0.png", "is 160x80 pixels", "model's own images has 48", "like those")
    assert not (copy / "calibration").exists()
    assert run("calibrate", copy, tmp_path / "twice").code in (0, 3), "up to twice as large may be tried"


@pytest.mark.parametrize(("how", "said"), [({"colour": True}, "colour"), ({"bits": 16}, "bit depth")])
def test_another_colour_or_bit_depth(
    tmp_path: Path, run: Command, copy: Path, draw: Draw, how: dict[str, object], said: str
) -> None:
    for i in range(10):
        draw(tmp_path / f"other/{i}.png", seed=200 + i, **how)
    ran = run("calibrate", copy, tmp_path / "other")
    assert ran.code == 3 and len(ran.told) == 11, ran
    assert all(said in line and f"{tmp_path}/other/{i}.png" in line for i, line in enumerate(ran.told[:-1]))
    assert "0 healthy patients: calibrate with" in ran.told[-1] and str(tmp_path / "other") in ran.told[-1]
    assert not (copy / "calibration").exists()


def test_another_modality(tmp_path: Path, run: Command, own: Path) -> None:
    before = calibrations(own)
    for i in range(10):
        pixels = np.random.default_rng(i).integers(0, 256, (48, 48), dtype=np.uint8)
        path = tmp_path / f"other/{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
    ran = run("calibrate", own, tmp_path / "other")
    ran.refused(3, "standard deviations or more off", "of the same modality")
    assert calibrations(own) == before


def test_a_few_abnormal_ones_among_them_do_not_make_another_modality(run: Command, copy: Path, images: Path) -> None:
    for name in ("q00_0.png", "q01_1.png"):
        pixels = np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)
        pixels[0, 0] = name.encode()[2]
        Image.fromarray(pixels).save(images / name)
    assert run("calibrate", copy, images).code == 0
    assert len(of(copy).images) == 24


def test_copies_and_broken_images_are_named_and_left_out(run: Command, copy: Path, images: Path) -> None:
    shutil.copy(images / "q04_4.png", images / "q77_copy.png")
    np.save(images / "q78_copy.npy", np.asarray(Image.open(images / "q04_4.png")))
    (images / "q05_5.png").write_bytes(b"")
    (images / "q06_6.png").write_bytes((images / "q06_6.png").read_bytes()[:-300])
    Image.new("L", (48, 48), 7).save(images / "q07_7.png")
    ran = run("calibrate", copy, images, "--group", PATIENT)
    assert ran.code == 0 and len(ran.told) == 5 and "on 21 healthy images of 18 patients" in ran.stdout, ran
    for name in ("q77_copy.png", "q78_copy.npy"):
        assert any(f"{images / name}: is the same image as {images / 'q04_4.png'}" in line for line in ran.told)
    for name, said in {"q05_5": "is empty", "q06_6": "truncated", "q07_7": "constant"}.items():
        assert any(f"{images / name}.png" in line and said in line for line in ran.told)
    assert len(set(of(copy).images)) == 21


def test_too_few_that_can_be_used(run: Command, copy: Path, images: Path) -> None:
    for i, path in enumerate(sorted(images.iterdir())):
        if i >= 8:
            path.write_bytes(b"")
    ran = run("calibrate", copy, images)
    assert ran.code == 3 and len(ran.told) == 17, ran
    assert f"{images}: 8 healthy patients give no p-value below 0.11" in ran.told[-1]
    for path in images.iterdir():
        path.write_bytes(b"")
    ran = run("calibrate", copy, images)
    assert ran.code == 3 and "0 healthy patients: calibrate with" in ran.told[-1], ran


def test_folders_that_hold_no_healthy_images(tmp_path: Path, run: Command, copy: Path, dataset: Path) -> None:
    (tmp_path / "empty").mkdir()
    run("calibrate", copy, tmp_path / "empty").refused(3, tmp_path / "empty", "holds no images")
    run("calibrate", copy, tmp_path / "none").refused(3, tmp_path / "none", "no such file or folder")
    run("calibrate", copy, dataset).refused(3, dataset, "is a data set", "folder of healthy images itself")


def test_models_and_options_that_cannot_be_used(tmp_path: Path, run: Command, copy: Path, more: Path) -> None:
    run("calibrate", tmp_path / "none", more).refused(4, tmp_path / "none", "is not a model folder")
    ran = run("calibrate", copy, more, "--physics", "ct:views=8")
    assert ran.code == 2 and "--physics is for models of method klip" in ran.stderr, ran
    run("calibrate", copy, more, "--rule", "squares").refused(3, "squares", "choose one of")
    run("calibrate", copy, more, "--group", "(").refused(3, "is not a regular expression")


# --- a full disk, Ctrl-C


def test_a_full_disk_leaves_what_was_there(
    run: Command, own: Path, more: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> NoReturn:
        raise OSError(28, os.strerror(28))

    before = calibrations(own)
    monkeypatch.setattr(os, "replace", full)
    run("calibrate", own, more).refused(5, own / "calibration", "no space left", "free some space")
    assert calibrations(own) == before, "nothing is half-written"


def test_ctrl_c_leaves_what_was_there(run: Command, own: Path, more: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    before = calibrations(own)
    monkeypatch.setattr(scoring, "_score", interrupt)
    run("calibrate", own, more).refused(130, "nothing is half-written")
    assert calibrations(own) == before


def test_a_folder_that_cannot_be_written(run: Command, copy: Path, more: Path) -> None:
    (copy / "calibration").write_text("a file")
    run("calibrate", copy, more).refused(5, copy / "calibration", "another")


# --- calibrations that no longer are


def refit(folder: Path) -> None:
    """Another model in its place, as `fit --overwrite` would put one there, with the calibration put back."""
    detector, config = AnoDODE.load(folder), json.loads((folder / "config.json").read_text())
    detector.provenance_ = replace(detector.provenance_, sides=(40, 60))
    detector.save(folder, facts={"run": config["run"]})


def test_a_calibration_of_an_earlier_version_of_the_model(
    tmp_path: Path, run: Command, own: Path, more: Path, new: Path, dataset: Path
) -> None:
    refit(own)
    (name,) = calibrations(own)
    for options in ((), ("--alpha", 0.1)):
        ran = run("score", own, new, "--out", tmp_path / "out", *options)
        ran.refused(4, own / "calibration" / name, "of an earlier version of this model", "priorlens calibrate again")
        ran = run("evaluate", own, dataset, "--out", tmp_path / "out", *options)
        ran.refused(4, own / "calibration" / name, "of an earlier version of this model", "priorlens calibrate again")
    assert not (tmp_path / "out").exists()
    assert run("calibrate", own, more).code == 0
    assert run("score", own, new, "--out", tmp_path / "out", "--alpha", 0.1, "--no-overlays").code == 0
    assert len(calibrations(own)) == 1


SPOILED = {
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-100]), "is damaged; run priorlens calibrate again"),
    "empty": (lambda path: path.write_bytes(b""), "is damaged; run priorlens calibrate again"),
    "foreign": (lambda path: path.write_bytes(b"hello" * 99), "is damaged; run priorlens calibrate again"),
    "another's tensors": (
        lambda path: shutil.copy(path.parents[1] / "model.safetensors", path),
        "is damaged; run priorlens calibrate again",
    ),
}


@pytest.mark.parametrize("how", SPOILED)
def test_a_damaged_or_foreign_calibration(tmp_path: Path, run: Command, own: Path, new: Path, how: str) -> None:
    (path,) = (own / "calibration").iterdir()
    spoil, says = SPOILED[how]
    spoil(path)
    run("score", own, new, "--out", tmp_path / "out").refused(4, path, says)
    assert not (tmp_path / "out").exists()


def test_a_calibration_of_a_later_version(
    tmp_path: Path, run: Command, own: Path, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(calibration, "SCHEMA", 2)
        path = write_calibration(own, of(own))
    run("score", own, new, "--out", tmp_path / "out").refused(4, path, "schema 2", "upgrade priorlens")


# --- asking for more than there is


@pytest.mark.parametrize("command", ["score", "evaluate"])
def test_verdicts_without_a_calibration_are_refused(
    tmp_path: Path, run: Command, model: Path, calibrated: Path, new: Path, dataset: Path, command: str
) -> None:
    given, out = (dataset if command == "evaluate" else new), ("--out", tmp_path / "out")
    ran = run(command, model, given, *out, "--alpha", 0.05)
    ran.refused(
        3, model, "is not calibrated for rule=combined;", "run priorlens calibrate MODEL HEALTHY", "--alpha out"
    )
    ran = run(command, calibrated, given, *out, "--alpha", 0.05, "--rule", "coherent")
    ran.refused(3, calibrated, "not calibrated for rule=coherent (only for rule=combined);", "with the same options")
    assert not (tmp_path / "out").exists()
    ran = run(command, calibrated, given, *out, "--rule", "coherent", "--no-overlays")
    assert ran.code == 0 and "is not calibrated for rule=coherent (only for rule=combined)" in ran.stderr, ran


@pytest.mark.parametrize("command", ["score", "evaluate"])
def test_an_alpha_below_the_smallest_p_value(
    tmp_path: Path, run: Command, calibrated: Path, new: Path, dataset: Path, command: str
) -> None:
    given = dataset if command == "evaluate" else new
    ran = run(command, calibrated, given, "--out", tmp_path / "out", "--alpha", 0.01)
    ran.refused(3, "alpha 0.01: 21 healthy patients give no p-value below 0.0455", "at least 99", "a larger alpha")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--alpha", 2), "--alpha 2 is no rate"),
        (("--alpha", 0), "--alpha 0 is no rate"),
        (("--alpha", 1), "--alpha 1 is no rate"),
        (("--alpha", -0.05), "--alpha -0.05 is no rate"),
        (("--alpha", "nan"), "--alpha nan is no rate"),
        (("--alpha", "5%"), "--alpha"),
        (("--fdr", "by"), "--fdr is of verdicts; give --alpha too"),
        (("--fdr", "fwer", "--alpha", 0.05), "fwer"),
        (("--pixel-size", 0.5), "--pixel-size is of verdicts; give --alpha too"),
        (("--pixel-size", 0, "--alpha", 0.05), "--pixel-size 0 is no length"),
        (("--pixel-size", -1, "--alpha", 0.05), "--pixel-size -1 is no length"),
        (("--pixel-size", "inf", "--alpha", 0.05), "--pixel-size inf is no length"),
    ],
)
def test_options_of_verdicts_that_make_no_sense(
    tmp_path: Path, run: Command, calibrated: Path, new: Path, options: tuple[object, ...], said: str
) -> None:
    ran = run("score", calibrated, new, "--out", tmp_path / "out", *options)
    assert ran.code == 2 and said in ran.stderr and "Traceback" not in ran.stderr, ran
    assert not (tmp_path / "out").exists()
