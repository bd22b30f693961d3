"""`priorlens fit`: what a model folder holds, who may write to it, and a killed fit that goes on to the same model."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest
from command_line import SMALL, Command, Draw

import priorlens
from priorlens import held_out, scoring
from priorlens.anodode import AnoDODE
from priorlens.calibration import Calibration, calibrated_setups, read_calibration
from priorlens.commands.model_folder import begin, claim
from priorlens.commands.training_log import training_log
from priorlens.datasets import find_cases, fingerprint
from priorlens.errors import WeightsError
from priorlens.images import Image, read_image
from priorlens.provenance import Provenance, image_fingerprint, patient_fingerprint

SOURCE = Path(priorlens.__file__).parents[1]


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_model_is_three_files(model: Path) -> None:
    assert files(model) == ["config.json", "model.safetensors", "training.csv"]


def test_the_model_says_what_it_was_made_of(model: Path, healthy: Path) -> None:
    run = json.loads((model / "config.json").read_text())["run"]
    assert run["folder"] == "healthy" and run["images"] == 12 and run["left_out"] == 0
    assert run["seed"] == 0 and run["size"] == 64 and run["steps"] == 3
    assert run["fingerprint"] == fingerprint(find_cases([healthy]))
    assert str(healthy.parent) not in (model / "config.json").read_text(), "where images lie is nobody's business"


def test_the_log_has_a_line_a_step(model: Path) -> None:
    with open(model / "training.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["stage", "step", "loss", "seconds"]
    assert {"s8 denoiser", "s8 variance", "s32 denoiser"} <= {row["stage"] for row in rows}
    assert len({(row["stage"], row["step"]) for row in rows}) == len(rows)
    assert all(float(row["loss"]) < 1e6 for row in rows if row["stage"].endswith(("denoiser", "variance")))
    seconds = [float(row["seconds"]) for row in rows]
    assert seconds == sorted(seconds)


def test_sizes_may_be_mixed_in_train_good_of_a_dataset(tmp_path: Path, fit: Command, draw: Draw) -> None:
    for i in range(10):
        draw(tmp_path / f"data/train/good/{i // 2}_{i}.png", seed=i, size=(40 + 5 * i, 60))
    draw(tmp_path / "data/test/good/1.png", colour=True)
    ran = fit(tmp_path / "data", "--out", tmp_path / "model", "--group", r"^(\d)_")
    assert ran.code == 0 and "10 healthy images of 5 patients" in ran.stdout, ran


@pytest.mark.usefixtures("learned")
def test_a_finished_model_is_not_written_over(model: Path, fit: Command, healthy: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(model, tmp_path / "model")
    fit(healthy, "--out", copy).refused(5, copy, "holds a finished model", "--overwrite")
    ran = fit(healthy, "--out", copy, "--resume")
    assert ran.code == 0 and "finished already" in ran.stdout
    fit(healthy, "--out", copy, "--resume", "--seed", 1).refused(5, copy, "other seed", "--overwrite")
    ran = fit(healthy, "--out", copy, "--overwrite", "--seed", 1)
    assert ran.code == 0, ran
    assert json.loads((copy / "config.json").read_text())["run"]["seed"] == 1
    assert files(copy) == files(model)


DYING = """
import os, signal
from priorlens import held_out
from priorlens.__main__ import main
from priorlens.prior import training

held_out.PLANTED = 1
save, saves = training._save, 0

def save_and_die(*arguments):
    global saves
    save(*arguments)
    saves += 1
    if saves == 2:
        os.kill(os.getpid(), signal.SIGKILL)

training._save = save_and_die
training.train.__kwdefaults__["save_every"] = 0.0
main()
"""


def test_killed_and_resumed_is_the_same_as_never_killed(
    tmp_path: Path, run: Command, fit: Command, healthy: Path, model: Path
) -> None:
    killed = tmp_path / "model"
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    arguments = ["fit", str(healthy), "--out", str(killed), *SMALL]
    ran = subprocess.run([sys.executable, "-c", DYING, *arguments], capture_output=True, text=True, env=environment)
    assert ran.returncode == -signal.SIGKILL, ran.stderr

    assert files(killed) == ["training", "training.csv", "training/run.json", "training/s8_denoiser.safetensors"]
    run("inspect", killed).refused(4, killed, "unfinished", "--resume")
    fit(healthy, "--out", killed).refused(5, killed, "--resume", "--overwrite")
    fit(healthy, "--out", killed, "--seed", 1, "--resume").refused(5, killed, "other seed", "--overwrite")

    assert fit(healthy, "--out", killed, "--resume").code == 0
    assert files(killed) == files(model)
    assert (killed / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
    assert steps_and_losses(killed) == steps_and_losses(model)


def steps_and_losses(folder: Path) -> list[tuple[str, str, str]]:
    with open(folder / "training.csv", newline="") as file:
        return [(row["stage"], row["step"], row["loss"]) for row in csv.DictReader(file)]


@pytest.mark.usefixtures("learned")
def test_resume_without_anything_to_resume_begins(tmp_path: Path, fit: Command, healthy: Path) -> None:
    ran = fit(healthy, "--out", tmp_path / "model", "--resume")
    assert ran.code == 0, ran


@pytest.mark.usefixtures("learned")
def test_an_unfinished_training_can_be_dropped(tmp_path: Path, fit: Command, healthy: Path) -> None:
    begin(tmp_path / "model", {"seed": 5})
    ran = fit(healthy, "--out", tmp_path / "model", "--overwrite")
    assert ran.code == 0, ran
    assert not (tmp_path / "model/training").exists()


def test_what_is_left_of_a_training_without_its_description_is_dropped(tmp_path: Path) -> None:
    state = begin(tmp_path / "model", {"seed": 5})
    (state / "s16_denoiser.safetensors").write_text("of other images")
    (state / "run.json").unlink()
    claim(tmp_path / "model", resume=False, overwrite=True)
    assert files(tmp_path / "model") == []


def test_a_resume_that_cannot_begin_keeps_what_was_learned(
    tmp_path: Path, fit: Command, healthy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise WeightsError("resnet18: cannot be had")

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "model"
    monkeypatch.setattr(AnoDODE, "fit", killed)
    assert fit(healthy, "--out", out).code == 130
    (out / "training/s8_denoiser.safetensors").write_text("learned")
    monkeypatch.setattr(AnoDODE, "fit", offline)
    assert fit(healthy, "--out", out, "--resume").code == 6
    assert (out / "training/s8_denoiser.safetensors").read_text() == "learned"


def test_the_log_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "training.csv"
    with pytest.raises(KeyboardInterrupt), training_log(path, resume=False) as log:
        log("s4 denoiser", 1, 0.5)
        log("s4 denoiser", 2, 0.4)
        log("s4 denoiser", 3, 0.3)
        raise KeyboardInterrupt
    path.write_text(path.read_text() + "s4 denois")
    with training_log(path, resume=True) as log:
        log("s4 denoiser", 3, 0.25)
        log("healthy", 1, float("nan"))
    with open(path, newline="") as file:
        rows = [(row["stage"], row["step"], row["loss"]) for row in csv.DictReader(file)]
    first, second, third = (("s4 denoiser", str(i + 1), loss) for i, loss in enumerate(("0.5", "0.4", "0.25")))
    assert rows == [first, second, third, ("healthy", "1", "")]


# --- images kept aside for calibration


ASIDE = ("--group", r"^(a\d+)_", "--aside", 0.5)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory, draw: Draw) -> Path:
    """24 healthy images of 20 patients: four have two. Not to be written to."""
    folder = tmp_path_factory.mktemp("data") / "cohort"
    for i in range(24):
        draw(folder / f"a{i % 20:02d}_{i}.png", seed=500 + i)
    return folder


@pytest.fixture(scope="module")
def kept_aside(tmp_path_factory: pytest.TempPathFactory, fit: Command, cohort: Path) -> Path:
    """A model of one half of the cohort's patients, calibrated on the other. Not to be written to."""
    folder = tmp_path_factory.mktemp("fitted") / "aside"
    ran = fit(cohort, "--out", folder, *ASIDE)
    assert ran.code == 0 and not ran.told, ran
    learned, *calibrated = ran.stdout.splitlines()
    fitted, aside = whose(folder)
    assert f"images of {fitted} patients" in learned and fitted + aside == 20
    for line, rule in zip(calibrated, ("local", "combined"), strict=True):
        assert f"{folder}: calibrated (rule={rule}) on" in line and f"images of {aside} patients" in line
    return folder


def whose(model: Path) -> tuple[int, int]:
    """How many patients it was fitted to, and how many it is calibrated on."""
    return len(AnoDODE.load(model).provenance_.patients), of(model).patient_count


def of(model: Path, setup: str = "rule=combined") -> Calibration:
    found = read_calibration(model, setup)
    assert found is not None
    return found


def calibrations(model: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (model / "calibration").iterdir()}


def test_a_model_is_calibrated_on_the_patients_it_did_not_learn_from(kept_aside: Path, cohort: Path) -> None:
    fitted, known = AnoDODE.load(kept_aside).provenance_, of(kept_aside)
    images = {image_fingerprint(read_image(path)): path for path in cohort.iterdir()}
    assert fitted.images | set(known.images) == set(images) and not fitted.images & set(known.images)
    assert not fitted.patients & set(known.patients) and len(fitted.patients | set(known.patients)) == 20
    for image, patient in zip(known.images, known.patients, strict=True):
        assert patient == patient_fingerprint(images[image].name[:3])
    assert calibrated_setups(kept_aside) == ["rule=combined", "rule=local"]
    assert of(kept_aside, "rule=local").images == known.images
    config = json.loads((kept_aside / "config.json").read_text())
    assert config["run"]["images"] == 24 and config["run"]["aside"] == 0.5
    assert config["trained_on"]["images"] + config["trained_on"]["held_out"] == len(fitted.images)


def test_what_was_kept_aside_gives_p_values_at_once(tmp_path: Path, run: Command, kept_aside: Path, draw: Draw) -> None:
    draw(tmp_path / "new/1.png", seed=600)
    for rule in ("combined", "local"):
        out = tmp_path / rule
        ran = run("score", kept_aside, tmp_path / "new", "--out", out, "--alpha", 0.1, "--rule", rule)
        assert ran.code == 0 and not ran.told, ran
        with open(out / "scores.csv", newline="") as file:
            (row,) = csv.DictReader(file)
        assert 0 < float(row["p_value"]) <= 1 and row["verdict"] in ("abnormal", "usual")


def test_calibrating_by_hand_on_the_same_images_is_the_same(
    tmp_path: Path, run: Command, kept_aside: Path, cohort: Path
) -> None:
    copy, aside = shutil.copytree(kept_aside, tmp_path / "model"), set(of(kept_aside).images)
    for path in cohort.iterdir():
        if image_fingerprint(read_image(path)) in aside:
            (tmp_path / "aside").mkdir(exist_ok=True)
            shutil.copy(path, tmp_path / "aside")
    shutil.rmtree(copy / "calibration")
    for rule in ("combined", "local"):
        assert run("calibrate", copy, tmp_path / "aside", "--group", r"^(a\d+)_", "--rule", rule).code == 0
    assert calibrations(copy) == calibrations(kept_aside)
    other = next(path for path in cohort.iterdir() if not (tmp_path / "aside" / path.name).exists())
    shutil.copy(other, tmp_path / "aside/moved.png")
    ran = run("calibrate", copy, tmp_path / "aside")
    assert ran.code == 3 and len(ran.told) == 2, ran
    assert "was fitted with patients named" in ran.told[0] and "not recognised" in ran.told[0]
    assert "moved.png: the model was fitted to this image" in ran.told[1]


def test_other_images_of_a_fitted_patient_are_no_calibration(
    tmp_path: Path, run: Command, kept_aside: Path, draw: Draw
) -> None:
    """Patients as fit was told them, by --group on both sides."""
    fitted = AnoDODE.load(kept_aside).provenance_.patients
    name = next(f"a{i:02d}" for i in range(20) if patient_fingerprint(f"a{i:02d}") in fitted)
    copy = shutil.copytree(kept_aside, tmp_path / "model")
    for i in range(12):
        draw(tmp_path / f"more/{name if i == 7 else f'b{i:02d}'}_x.png", seed=700 + i)
    ran = run("calibrate", copy, tmp_path / "more", "--group", r"^(\w\d+)_")
    ran.refused(3, tmp_path / f"more/{name}_x.png", "the model was fitted to other images of this patient")
    assert calibrations(copy) == calibrations(kept_aside)
    assert run("calibrate", copy, tmp_path / "more").code == 0, "where nobody is named, nobody is known"


DYING_LATER = """
import os, signal
from priorlens import calibration, held_out, preparation, weighing
from priorlens.__main__ import main

held_out.PLANTED, preparation.SMALLEST, weighing._FEWEST_STEPS = 1, 64, 20
write = calibration.write_calibration

def write_and_die(*arguments):
    write(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)

calibration.write_calibration = write_and_die
main()
"""


def test_killed_while_it_calibrates_it_goes_on_to_the_same_bytes(
    tmp_path: Path, fit: Command, run: Command, cohort: Path, kept_aside: Path
) -> None:
    killed = tmp_path / "model"
    arguments = list(map(str, ["fit", cohort, "--out", killed, *ASIDE, *SMALL]))
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    ran = subprocess.run(
        [sys.executable, "-c", DYING_LATER, *arguments], capture_output=True, text=True, env=environment
    )
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    assert len(calibrations(killed)) == 1, "killed after the first of two"
    fit(cohort, "--out", killed, *ASIDE).refused(5, killed, "holds a finished model")

    ran = fit(cohort, "--out", killed, *ASIDE, "--resume")
    assert ran.code == 0 and "learned from" not in ran.stdout and "calibrated (rule=combined)" in ran.stdout, ran
    assert files(killed) == files(kept_aside)
    assert calibrations(killed) == calibrations(kept_aside)
    assert (killed / "model.safetensors").read_bytes() == (kept_aside / "model.safetensors").read_bytes()

    ran = fit(cohort, "--out", killed, *ASIDE, "--resume")
    assert ran.code == 0 and "finished already" in ran.stdout and "calibrated" not in ran.stdout, ran


def test_stopped_while_it_calibrates_it_says_how_to_go_on(
    tmp_path: Path, fit: Command, cohort: Path, kept_aside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> NoReturn:
        raise KeyboardInterrupt

    copy = shutil.copytree(kept_aside, tmp_path / "model")
    shutil.rmtree(copy / "calibration")
    with monkeypatch.context() as patch:
        patch.setattr(scoring, "_score", interrupt)
        ran = fit(cohort, "--out", copy, *ASIDE, "--resume")
        ran.refused(130, copy, "is fitted, but not calibrated", "--resume")
    assert files(copy) == [name for name in files(kept_aside) if "calibration" not in name]
    assert fit(cohort, "--out", copy, *ASIDE, "--resume").code == 0
    assert calibrations(copy) == calibrations(kept_aside)


@pytest.fixture
def relearned(monkeypatch: pytest.MonkeyPatch, kept_aside: Path) -> None:
    """A fit learns nothing and ends at once with what `kept_aside` knows, but for which images it was given."""

    def fit(detector: AnoDODE, images: list[Image], *, groups: list[str], **_: object) -> AnoDODE:
        known = vars(AnoDODE.load(kept_aside))
        vars(detector).update({name: value for name, value in known.items() if name.endswith("_")})
        detector.provenance_ = Provenance.of(images, groups)
        return detector

    monkeypatch.setattr(AnoDODE, "fit", fit)


@pytest.mark.usefixtures("relearned")
def test_calibrations_of_the_model_before_are_not_left_beside_a_new_one(
    tmp_path: Path, run: Command, fit: Command, cohort: Path, kept_aside: Path, draw: Draw
) -> None:
    copy = shutil.copytree(kept_aside, tmp_path / "model")
    ran = fit(cohort, "--out", copy, "--overwrite", "--aside", 0)
    assert ran.code == 0 and "learned from 24 healthy images" in ran.stdout, ran
    assert calibrated_setups(copy) == [] and calibrations(copy) == {}
    new = draw(tmp_path / "new.png", seed=600)
    assert run("score", copy, new, "--out", tmp_path / "out", "--no-overlays").code == 0, "not refused for the old one"
    before = kept_aside / "calibration"
    shutil.copytree(before, copy / "calibration", dirs_exist_ok=True)
    run("score", copy, new, "--out", tmp_path / "no").refused(4, copy / "calibration", "an earlier version")


@pytest.mark.usefixtures("relearned")
@pytest.mark.parametrize("options", [(), ("--aside", 0), ("--group", "a")])
def test_none_are_kept_aside_of_few_patients_or_where_none_are_asked_for(
    tmp_path: Path, fit: Command, cohort: Path, options: tuple[object, ...]
) -> None:
    out = tmp_path / "model"
    ran = fit(cohort, "--out", out, *options)
    assert ran.code == 0 and "learned from 24 healthy images" in ran.stdout, ran
    assert f"no images were kept aside for p-values; priorlens calibrate {out} HEALTHY" in ran.stderr
    assert not (out / "calibration").exists()


@pytest.mark.usefixtures("relearned")
def test_images_enough_are_kept_aside_unasked(
    tmp_path: Path, fit: Command, cohort: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_out, "FEWEST", 20)
    monkeypatch.setattr(held_out, "MOST_ASIDE", 0.5)
    ran = fit(cohort, "--out", tmp_path / "model")
    assert ran.code == 0 and not ran.told and "learned from 12 healthy images of 12 patients" in ran.stdout, ran
    assert of(tmp_path / "model").patient_count == 12
    assert json.loads((tmp_path / "model/config.json").read_text())["run"]["aside"] is None


@pytest.mark.usefixtures("relearned")
def test_too_few_to_keep_aside_are_told_before_anything_is_learned(tmp_path: Path, fit: Command, cohort: Path) -> None:
    out = tmp_path / "model"
    fit(cohort, "--out", out, "--aside", 0.1).refused(3, "--aside 0.1: keeps 2 patients aside", "0.33", "--aside 0")
    assert not (out / "config.json").exists() and not (out / "training").exists()


@pytest.mark.usefixtures("relearned")
def test_copies_of_what_is_learned_from_do_not_calibrate(tmp_path: Path, fit: Command, cohort: Path) -> None:
    """Public collections hold the same image under several names: those that fall on both sides are left out."""
    images = shutil.copytree(cohort, tmp_path / "images")
    for i, path in enumerate(sorted(cohort.iterdir())[:12]):
        shutil.copy(path, images / f"b{i:02d}_copy.png")
    out = tmp_path / "model"
    ran = fit(images, "--out", out, "--aside", 0.5)
    assert ran.code == 0 and "images kept aside are copies of others that are learned from" in ran.stderr, ran
    detector, known = AnoDODE.load(out), of(out)
    assert known.patient_count >= 9 and not detector.provenance_.images & set(known.images)
    assert len(set(known.images)) == len(known.images)


@pytest.mark.parametrize("aside", [-0.1, 0.51, "half"])
def test_a_share_that_is_none(tmp_path: Path, fit: Command, healthy: Path, aside: object) -> None:
    ran = fit(healthy, "--out", tmp_path / "model", "--aside", aside)
    assert ran.code == 2 and "--aside" in ran.stderr and not (tmp_path / "model").exists(), ran
