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

import pytest
from command_line import SMALL, Command, Draw

import priorlens
from priorlens.anodode import AnoDODE
from priorlens.commands.model_folder import begin, claim
from priorlens.commands.training_log import training_log
from priorlens.datasets import find_cases, fingerprint
from priorlens.errors import WeightsError

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
