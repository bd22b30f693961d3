"""KLIP through the commands: an image prior learned, measurements simulated and real judged, bad input refused."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import h5py
import numpy as np
import pytest
import torch
from command_line import Command, Draw
from PIL import Image

import priorlens
from priorlens import detectors, image_prior, klip_model, klip_rules, weighing
from priorlens.acquisition import ACQUISITION
from priorlens.anodode import AnoDODE
from priorlens.calibration import calibrated_setups, read_calibration
from priorlens.commands import score_scans
from priorlens.conformal import p_values
from priorlens.errors import ModelError
from priorlens.klip import SIGMAS, WIDTHS
from priorlens.klip_model import KLIPModel
from priorlens.klip_scores import steps_within
from priorlens.measurement.mri import sampling, simulated_coils, to_kspace
from priorlens.measurement.physics import build, parse

SIDE = 32
SMALL_KLIP = ("--method", "klip", "--size", SIDE, "--width", 8, "--variance-head", "--steps", 3, "--threads", 1)
LEARNED = "ct:views=8"
REFERENCE_STEPS = 4
FIGURES = ["kl_total", "kl_block"]


@pytest.fixture(autouse=True, scope="module")
def small_networks(small: None) -> Iterator[None]:
    """Networks of a few thousand weights, one size of block to choose, one epoch, few steps of the published recipe."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_prior, "_DENOISER", (1, 1))
        patch.setattr(image_prior, "_VARIANCE", (8, 8))
        patch.setattr(klip_rules, "BLOCKS", (4,))
        patch.setattr(weighing, "_EPOCHS", 1)
        patch.setattr(weighing, "_FEWEST_STEPS", 1)
        patch.setattr(klip_model, "REFERENCE_STEPS", REFERENCE_STEPS)
        yield


@pytest.fixture(scope="module")
def klip(tmp_path_factory: pytest.TempPathFactory, run: Command, healthy: Path) -> Path:
    """A KLIP model of `healthy` that has learned `LEARNED` too. Not to be written to."""
    folder = tmp_path_factory.mktemp("fitted") / "klip"
    ran = run("fit", healthy, "--out", folder, *SMALL_KLIP, "--physics", LEARNED)
    assert ran.code == 0, ran
    return folder


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory, run: Command, healthy: Path) -> Path:
    """A KLIP model that has learned two noisy measurements. Not to be written to."""
    folder = tmp_path_factory.mktemp("fitted") / "noisy"
    asked = ("--physics", "super:factor=2", "--physics", "super:factor=4", "--noise", 0.02)
    ran = run("fit", healthy, "--out", folder, *SMALL_KLIP, *asked)
    assert ran.code == 0, ran
    return folder


@pytest.fixture
def new(tmp_path: Path, draw: Draw) -> Path:
    """An image as large as the model sees it, with a bright lesion, and one of another size."""
    path = draw(tmp_path / "new/a.png", seed=100, size=(SIDE, SIDE))
    pixels = np.asarray(Image.open(path)).copy()
    pixels[18:23, 10:15] = 255
    Image.fromarray(pixels).save(path)
    draw(tmp_path / "new/deeper/b.png", seed=101, size=(70, 33))
    return tmp_path / "new"


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def bits_of(out: Path, file: object) -> dict[float, float]:
    """Column bits of `spectrum.csv` by noise level, of one file."""
    return {
        float(row["sigma"]): float(row["bits"]) for row in rows_of(out / "spectrum.csv") if row["file"] == str(file)
    }


# --- fit


def test_a_klip_model_is_three_files_and_says_what_it_was_made_of(klip: Path) -> None:
    assert files(klip) == ["config.json", "model.safetensors", "training.csv"]
    config = json.loads((klip / "config.json").read_text())
    assert config["method"] == "klip" and config["settings"]["size"] == SIDE
    assert config["run"]["method"] == "klip" and config["run"]["physics"] == [LEARNED]
    assert config["run"]["images"] == 12 and config["run"]["steps"] == 3 and config["run"]["prior"] is None
    assert config["prior"] == {"patch": None, "external": None}
    assert config["trained_on"]["images"] + config["trained_on"]["held_out"] == 12
    assert list(config["learned"]) == ["identity", str(parse(LEARNED))], "what --physics names is learned beside images"
    stages = [(row["stage"], row["step"]) for row in rows_of(klip / "training.csv")]
    assert [stage for stage in stages if stage[0] == "denoiser"] == [("denoiser", str(i)) for i in (1, 2, 3)]
    assert ("variance", "1") in stages and {name for name, _ in stages} >= {"held-out images", "planted artefacts"}


DYING = """
import os, signal
from priorlens import held_out, image_prior
from priorlens.__main__ import main
from priorlens.prior import training

held_out.PLANTED = 1
image_prior._DENOISER, image_prior._VARIANCE = (1, 1), (8, 8)
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


def same_model(one: Path, other: Path) -> bool:
    return (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


def test_a_killed_fit_goes_on_to_the_same_bytes(tmp_path: Path, run: Command, klip: Path, healthy: Path) -> None:
    killed = tmp_path / "model"
    arguments = ["fit", healthy, "--out", killed, *SMALL_KLIP, "--physics", LEARNED]
    environment = os.environ | {"PYTHONPATH": str(Path(priorlens.__file__).parents[1])}
    command = [sys.executable, "-c", DYING, *map(str, arguments)]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    assert files(killed) == ["training", "training.csv", "training/denoiser.safetensors", "training/run.json"]
    run("inspect", killed).refused(4, killed, "unfinished", "--resume")
    run(*arguments[:-1], "ct:views=9", "--resume").refused(5, killed, "other physics", "--overwrite")

    assert run(*arguments, "--resume").code == 0
    assert files(killed) == files(klip) and same_model(killed, klip)


def test_a_fit_stopped_after_its_training_does_not_train_again(
    tmp_path: Path, run: Command, klip: Path, healthy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    out = tmp_path / "model"
    arguments = ["fit", healthy, "--out", out, *SMALL_KLIP, "--physics", LEARNED]
    with monkeypatch.context() as patch:
        patch.setattr(klip_model, "learn", stop)
        run(*arguments).refused(130, out, "unfinished", "--resume")
    assert (out / "training/denoiser.safetensors").is_file() and (out / "training/variance.safetensors").is_file()
    ran = run(*arguments, "--resume")
    assert ran.code == 0 and same_model(out, klip)
    assert "held-out images" in ran.stderr and "denoiser (" not in ran.stderr, "no stage of training begins again"


def test_another_seed_is_another_model_and_the_finished_one_is_not_written_over(
    tmp_path: Path, run: Command, klip: Path, healthy: Path
) -> None:
    copy = shutil.copytree(klip, tmp_path / "model")
    arguments = ["fit", healthy, "--out", copy, *SMALL_KLIP, "--physics", LEARNED]
    run(*arguments).refused(5, copy, "holds a finished model", "--overwrite")
    run(*arguments, "--noise", 0.1, "--resume").refused(5, copy, "other noise", "--overwrite")
    assert "finished already" in run(*arguments, "--resume").stdout and same_model(copy, klip)
    assert run(*arguments, "--overwrite", "--seed", 1).code == 0
    assert files(copy) == files(klip) and not same_model(copy, klip)


def test_several_measurements_and_their_noise_are_learned(tmp_path: Path, run: Command, noisy: Path, new: Path) -> None:
    learned = list(json.loads((noisy / "config.json").read_text())["learned"])
    assert learned == ["identity", "super:factor=2 noise=0.02", "super:factor=4 noise=0.02"]
    for noise, said in ((0.02, 0), (0.03, 1)):
        options = ("--physics", "super:factor=4", "--noise", noise, "--no-overlays")
        ran = run("score", noisy, new, "--out", tmp_path / str(noise), *options)
        assert ran.code == 0 and len(ran.told) == said, "only the noise that was learned is known"
    assert "super:factor=4 noise=0.03 was not learned" in ran.stderr
    assert "priorlens fit --physics super:factor=4 --noise 0.03 learns it" in ran.stderr


# --- options of the other method


@pytest.mark.parametrize("option", [("--backbone", "resnet18"), ("--weights", "w.safetensors")])
def test_fit_refuses_options_of_anodode_with_klip(
    tmp_path: Path, run: Command, healthy: Path, option: tuple[str, str]
) -> None:
    ran = run("fit", healthy, "--out", tmp_path / "m", "--method", "klip", *option)
    assert ran.code == 2 and f"{option[0]} is of --method anodode" in ran.stderr, ran
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    "option",
    [
        ("--prior", "p"),
        ("--physics", LEARNED),
        ("--noise", "0.1"),
        ("--patch", "16"),
        ("--width", "16"),
        ("--variance-head",),
    ],
)
def test_fit_refuses_options_of_klip_with_anodode(
    tmp_path: Path, run: Command, healthy: Path, option: tuple[str, ...]
) -> None:
    ran = run("fit", healthy, "--out", tmp_path / "m", *option)
    assert ran.code == 2 and f"{option[0]} is of --method klip" in ran.stderr, ran
    assert not (tmp_path / "m").exists()


def test_a_prior_brought_along_has_its_own_width(tmp_path: Path, run: Command, healthy: Path) -> None:
    ran = run("fit", healthy, "--out", tmp_path / "m", "--method", "klip", "--prior", "p", "--width", 16)
    assert ran.code == 2 and "--width is that of a new prior" in ran.stderr, ran


def test_a_rule_that_lacks_the_variance_head_is_refused_before_any_output(
    tmp_path: Path, run: Command, healthy: Path, new: Path
) -> None:
    plain = [option for option in SMALL_KLIP if option != "--variance-head"]
    assert run("fit", healthy, "--out", tmp_path / "model", *plain).code == 0
    out = tmp_path / "out"
    ran = run("score", tmp_path / "model", new, "--out", out, "--rule", "standardised")
    assert ran.code == ModelError.exit_code and "--variance-head" in ran.stderr, ran
    assert not out.exists()
    assert run("score", tmp_path / "model", new, "--out", out, "--no-overlays").code == 0


def test_fit_refuses_noise_of_no_measurement(tmp_path: Path, run: Command, healthy: Path) -> None:
    ran = run("fit", healthy, "--out", tmp_path / "m", *SMALL_KLIP, "--noise", 0.1)
    assert ran.code == 2 and "--physics" in ran.stderr, ran


OF_KLIP: dict[str, tuple[object, ...]] = {
    "physics": (LEARNED,),
    "noise": (0.1,),
    "posterior": ("pigdm",),
    "recipe": ("reference",),
    "window": (0.1, 0.4),
    "block": (8,),
}


@pytest.mark.parametrize("command", ["score", "evaluate"])
@pytest.mark.parametrize("name", OF_KLIP)
def test_an_anodode_model_takes_no_options_of_klip(
    tmp_path: Path,
    run: Command,
    healthy: Path,
    dataset: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    name: str,
) -> None:
    monkeypatch.setattr(score_scans, "of_scans", lambda *_: False)  # there is no folder to tell
    monkeypatch.setattr(detectors, "load_detector", lambda folder: AnoDODE(size=64))
    images = dataset if command == "evaluate" else healthy
    ran = run(command, "model", images, "--out", tmp_path / "out", f"--{name}", *OF_KLIP[name])
    assert ran.code == 2 and f"--{name} is for models of method klip" in ran.stderr, ran
    assert not (tmp_path / "out").exists()


def test_an_anodode_model_takes_no_measurements(tmp_path: Path, run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_scans, "of_scans", lambda *_: False)  # there is no folder to tell
    monkeypatch.setattr(detectors, "load_detector", lambda folder: AnoDODE(size=64))
    np.savez(tmp_path / "y.npz", y=np.ones((SIDE, SIDE)), physics="identity")
    ran = run("score", "model", tmp_path / "y.npz", "--out", tmp_path / "out")
    assert ran.code == 2 and "measurements are for models of method klip" in ran.stderr, ran


@pytest.mark.parametrize("option", [("--rule", "squares"), ("--posterior", "ddnm")])
def test_the_published_recipe_takes_no_rule_nor_posterior(
    tmp_path: Path, run: Command, klip: Path, new: Path, option: tuple[str, str]
) -> None:
    ran = run("score", klip, new, "--out", tmp_path / "out", "--recipe", "reference", *option)
    assert ran.code == 2 and f"leave {option[0]} out" in ran.stderr, ran


def test_rules_of_the_other_method_are_refused(tmp_path: Path, run: Command, klip: Path, new: Path) -> None:
    ran = run("score", klip, new, "--out", tmp_path / "out", "--rule", "typicality")
    ran.refused(3, "typicality", "choose one of combined, coherent, squares")


# --- score


@pytest.mark.parametrize(
    "physics",
    [
        "identity",
        LEARNED,
        "ct-fan:views=8",
        "mri:acceleration=2,coils=2",
        "blur:sigma=1",
        "inpaint:keep=.5",
        "super:factor=2",
        "noise:sigma=.1",
    ],
)
def test_every_measurement_gives_figures_maps_spectrum_blocks_and_reconstructions(
    tmp_path: Path, run: Command, klip: Path, new: Path, physics: str
) -> None:
    out = tmp_path / "out"
    ran = run("score", klip, new, "--out", out, "--physics", physics)
    assert ran.code == 0 and "2 of 2 images scored" in ran.stdout, ran
    learned = physics in ("identity", LEARNED)
    assert len(ran.told) == (not learned), "what was not learned is said in one line"
    if not learned:
        assert "was not learned, that for whole images is used" in ran.stderr
        assert f"priorlens fit --physics {physics} learns it" in ran.stderr

    rows, quality = rows_of(out / "scores.csv"), [] if physics == "identity" else ["psnr", "ssim"]
    assert list(rows[0]) == ["file", "anomaly", *FIGURES, *quality, *ACQUISITION, "nfe", "seconds", "error"]
    assert sorted(path.name for path in out.iterdir()) == [
        *("blocks", "images", "maps", "model.json", "overlays"),
        *("reconstructions", "report.html", "run.sqlite", "scores.csv", "spectrum.csv"),
    ]
    assert list(rows_of(out / "spectrum.csv")[0]) == [
        "file",
        "sigma",
        "bits",
        *(f"width_{width:g}" for width in WIDTHS),
    ]
    images = {"a": new / "a.png", "deeper/b": new / "deeper/b.png"}
    assert [row["file"] for row in rows] == list(map(str, images.values()))
    for row, (name, path) in zip(rows, images.items(), strict=True):
        assert all(np.isfinite(float(row[column])) for column in list(row)[1:-1]) and row["error"] == ""
        assert float(row["kl_total"]) > float(row["kl_block"]) > 0
        spectrum, blocks = bits_of(out, path), np.load(out / f"blocks/{name}.npy")
        assert list(spectrum) == pytest.approx(SIGMAS)
        assert sum(spectrum.values()) == pytest.approx(float(row["kl_total"]), rel=1e-4)
        assert blocks.sum() == pytest.approx(float(row["kl_total"]), rel=1e-4)
        assert blocks.max() == pytest.approx(float(row["kl_block"]), rel=1e-4)
        pixels = np.asarray(Image.open(path))
        anomaly_map = np.load(out / f"maps/{name}.npy")
        assert anomaly_map.shape == pixels.shape and np.ptp(anomaly_map) > 0 and np.isfinite(anomaly_map).all()
        reconstruction = np.load(out / f"reconstructions/{name}.npy")
        assert reconstruction.shape == (1, *pixels.shape) and reconstruction.dtype == np.float32
        correlation = np.corrcoef(reconstruction.ravel(), pixels.ravel())[0, 1]
        assert correlation > 0.5 and abs(reconstruction.mean() - pixels.mean()) < 40, "in the image's own intensities"
        assert (out / f"overlays/{name}.png").is_file()


def test_a_whole_image_is_the_default_and_its_own_reconstruction(
    tmp_path: Path, run: Command, klip: Path, new: Path
) -> None:
    for name, options in {"plain": (), "identity": ("--physics", "identity")}.items():
        assert run("score", klip, new, "--out", tmp_path / name, *options, "--no-overlays").code == 0
    without = [
        [row | {"seconds": ""} for row in rows_of(tmp_path / name / "scores.csv")] for name in ("plain", "identity")
    ]
    assert without[0] == without[1]
    reconstruction = np.load(tmp_path / "plain/reconstructions/a.npy")
    assert np.allclose(reconstruction[0], np.asarray(Image.open(new / "a.png")), atol=0.01)


def test_a_reconstruction_agrees_with_what_was_measured(tmp_path: Path, run: Command, klip: Path, new: Path) -> None:
    pixels = np.asarray(Image.open(new / "a.png")).astype(float)
    found = {}
    for name, physics in {"super": "super:factor=2", "box": "inpaint:box=.25"}.items():
        options = ("--physics", physics, "--no-overlays")
        assert run("score", klip, new / "a.png", "--out", tmp_path / name, *options).code == 0
        found[name] = np.load(tmp_path / f"{name}/reconstructions/a.npy")[0] - pixels
    averages = found["super"].reshape(SIDE // 2, 2, SIDE // 2, 2).mean((1, 3))
    assert np.abs(averages).max() < 1 < np.abs(found["super"]).max(), "block averages are those of the image"
    inside = np.zeros((SIDE, SIDE), bool)
    inside[12:20, 12:20] = True
    assert np.abs(found["box"][~inside]).max() < 1 < np.abs(found["box"][inside]).max()


def test_psnr_and_ssim_are_of_the_reconstruction_on_the_model_s_grid(
    tmp_path: Path, run: Command, klip: Path, new: Path
) -> None:
    out = tmp_path / "out"
    assert run("score", klip, new / "a.png", "--out", out, "--physics", LEARNED, "--no-overlays").code == 0
    (row,) = rows_of(out / "scores.csv")
    error = (np.load(out / "reconstructions/a.npy")[0] - np.asarray(Image.open(new / "a.png"))) / 255
    assert float(row["psnr"]) == pytest.approx(-10 * np.log10((error**2).mean()), abs=0.1)
    assert 0 < float(row["ssim"]) < 1


def test_noise_spoils_the_reconstruction_and_the_same_seed_gives_the_same_bytes(
    tmp_path: Path, run: Command, klip: Path, new: Path
) -> None:
    tables = []
    for turn, noise in enumerate((0.0, 0.2, 0.2)):
        options = ("--physics", "inpaint:keep=.9", "--noise", noise, "--no-overlays")
        assert run("score", klip, new, "--out", tmp_path / str(turn), *options).code == 0
        tables.append([row | {"seconds": ""} for row in rows_of(tmp_path / str(turn) / "scores.csv")])
    assert tables[1] == tables[2]
    for clean, noisy in zip(tables[0], tables[1], strict=True):
        assert float(clean["psnr"]) > float(noisy["psnr"]) + 3


def test_an_image_s_figures_do_not_depend_on_those_beside_it(
    tmp_path: Path, run: Command, klip: Path, new: Path
) -> None:
    options = ("--physics", LEARNED, "--noise", 0.05, "--no-overlays")
    for name, images in {"both": [new], "one": [new / "deeper/b.png"]}.items():
        assert run("score", klip, *images, "--out", tmp_path / name, *options).code == 0
    together, alone = rows_of(tmp_path / "both/scores.csv")[1], rows_of(tmp_path / "one/scores.csv")[0]
    for column in ("anomaly", "kl_total", "kl_block", "psnr", "ssim", "nfe"):
        assert float(alone[column]) == pytest.approx(float(together[column]), rel=1e-4), column


@pytest.mark.parametrize(("sigma", "low", "high"), [(0.1, 0.1, 0.1), (0.25, 0.2, 0.3)])
def test_one_noise_level_and_one_block_leave_the_bits_of_that_level(
    tmp_path: Path, run: Command, klip: Path, new: Path, sigma: float, low: float, high: float
) -> None:
    out = tmp_path / "out"
    options = ("--rule", "squares", "--window", low, high, "--block", SIDE, "--no-overlays")
    assert run("score", klip, new, "--out", out, *options).code == 0
    for row in rows_of(out / "scores.csv"):
        assert float(row["anomaly"]) == pytest.approx(bits_of(out, row["file"])[sigma], rel=1e-4)
        assert row["kl_block"] == row["kl_total"], "the one block is the whole image"


def test_blocks_are_as_large_as_asked_for(tmp_path: Path, run: Command, klip: Path, new: Path) -> None:
    blocks = {}
    for side in (8, 16):
        assert run("score", klip, new, "--out", tmp_path / str(side), "--block", side, "--no-overlays").code == 0
        blocks[side] = np.load(tmp_path / f"{side}/blocks/a.npy")
        row = rows_of(tmp_path / f"{side}/scores.csv")[0]
        assert float(row["kl_block"]) == pytest.approx(blocks[side].max(), rel=1e-4)
    assert blocks[8].shape == (4, 4)
    assert np.allclose(blocks[8].reshape(2, 2, 2, 2).sum((1, 3)), blocks[16], rtol=1e-3)


@pytest.mark.parametrize(("rule", "posterior"), [("combined", "ddnm"), ("coherent", "pigdm"), ("squares", "dps")])
def test_every_rule_with_other_posteriors(
    tmp_path: Path, run: Command, klip: Path, new: Path, rule: str, posterior: str
) -> None:
    out, plain = tmp_path / "out", tmp_path / "plain"
    options = ("--physics", LEARNED, "--rule", rule, "--no-overlays")
    assert run("score", klip, new, "--out", out, *options, "--posterior", posterior).code == 0
    assert run("score", klip, new, "--out", plain, *options).code == 0
    for row, other in zip(rows_of(out / "scores.csv"), rows_of(plain / "scores.csv"), strict=True):
        assert np.isfinite(float(row["anomaly"])) and row["anomaly"] != other["anomaly"]


def test_the_published_recipe_step_for_step(tmp_path: Path, run: Command, klip: Path, new: Path) -> None:
    """Its figure is a mean over the window's steps, so two windows that share all steps out give back the whole."""
    recipe = ("--physics", LEARNED, "--recipe", "reference", "--block", 8, "--no-overlays")
    found = {}
    for name, window in {"all": (), "clean": ("--window", 0, 1), "noisy": ("--window", 1, 1e9)}.items():
        out = tmp_path / name
        assert run("score", klip, new, "--out", out, *recipe, *window).code == 0
        assert rows_of(out / "spectrum.csv") == [], "the recipe knows no bits by noise level"
        found[name] = rows_of(out / "scores.csv")
    first, last = steps_within((0.0, 1.0), REFERENCE_STEPS)
    share = (last - first) / REFERENCE_STEPS
    assert 0 < share < 1
    for whole, clean, noisy in zip(*found.values(), strict=True):
        assert int(whole["nfe"]) == 8 * REFERENCE_STEPS and whole["anomaly"] == whole["kl_block"]
        parts = share * float(clean["kl_total"]) + (1 - share) * float(noisy["kl_total"])
        assert parts == pytest.approx(float(whole["kl_total"]), rel=1e-3)


def test_a_broken_image_is_a_row_and_the_others_are_scored_as_without_it(
    tmp_path: Path, run: Command, klip: Path, new: Path
) -> None:
    options = ("--physics", LEARNED, "--no-overlays")
    assert run("score", klip, new, "--out", tmp_path / "before", *options).code == 0
    (new / "b.png").write_bytes(b"hello")
    ran = run("score", klip, new, "--out", tmp_path / "out", *options)
    assert ran.code == 7 and "2 of 3 images scored" in ran.stdout, ran
    rows = {Path(row["file"]).relative_to(new).as_posix(): row for row in rows_of(tmp_path / "out/scores.csv")}
    broken = rows.pop("b.png")
    assert "is not an image that can be read" in broken["error"]
    assert not any(value for column, value in broken.items() if column not in ("file", "error"))
    before = rows_of(tmp_path / "before/scores.csv")
    assert [row["kl_total"] for row in rows.values()] == [row["kl_total"] for row in before]
    assert {row["file"] for row in rows_of(tmp_path / "out/spectrum.csv")} == {row["file"] for row in before}
    assert files(tmp_path / "out/reconstructions") == ["a.npy", "deeper", "deeper/b.npy"]


# --- evaluate and inspect


def test_evaluate_says_how_images_were_measured(tmp_path: Path, run: Command, klip: Path, dataset: Path) -> None:
    out = tmp_path / "out"
    options = ("--physics", LEARNED, "--rule", "squares", "--bootstrap", 5)
    ran = run("evaluate", klip, dataset, "--out", out, *options)
    assert ran.code == 0 and "6 of 6 images scored" in ran.stdout, ran
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["physics"] == str(parse(LEARNED)) and metrics["rule"] == "squares" and metrics["images_failed"] == 0
    figures = metrics["kinds"]["lesion"]
    assert all(0 <= figures[name]["value"] <= 1 for name in ("image_auroc", "pixel_auroc", "pixel_ap"))
    assert f"{figures['pixel_auroc']['value']:.3f}" in ran.stdout
    scored = {Path(row["file"]).parent.name: float(row["psnr"]) for row in rows_of(out / "scores.csv")}
    assert scored.keys() == {"good", "lesion"}
    assert np.load(out / "maps/lesion/2.npy").shape == (40, 56)
    assert (out / "roc_pr.png").is_file() and (out / "overlays/lesion/0.png").is_file()


def test_evaluate_names_the_published_recipe_and_the_noise(
    tmp_path: Path, run: Command, klip: Path, dataset: Path
) -> None:
    options = ("--recipe", "reference", "--physics", "blur:sigma=1", "--noise", 0.01, "--bootstrap", 0, "--no-overlays")
    assert run("evaluate", klip, dataset, "--out", tmp_path / "out", *options).code == 0
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert metrics["rule"] == "reference" and metrics["physics"] == "blur:sigma=1 noise=0.01"


def test_inspect_shows_what_was_learned_of_each_measurement(run: Command, klip: Path) -> None:
    facts = json.loads(run("inspect", klip, "--json").stdout)
    assert facts["method"] == "klip" and facts["prior"] == "trained here" and facts["size"] == SIDE
    assert facts["rule"] == "combined" and facts["patch"] is None and facts["steps"] == 3
    assert facts["parameters"]["denoiser"] > 1000 < facts["parameters"]["variance"]
    ct = str(parse(LEARNED))
    assert facts["planted_auroc"].keys() == facts["share"].keys() == {"identity", ct}
    assert facts["windows"].keys() == {
        f"{text}, {rule}" for text in ("identity", ct) for rule in ("coherent", "squares")
    }
    assert all(window["low"] in SIGMAS and window["high"] in SIGMAS for window in facts["windows"].values())

    lines = [line.strip() for line in run("inspect", klip).stdout.splitlines()]
    assert any(line.split() == ["method", "klip"] for line in lines)
    auroc = facts["planted_auroc"][ct]
    assert any(line.split() == [ct, *(f"{auroc[rule]:.4g}" for rule in auroc)] for line in lines)


# --- what does not fit


def test_physics_that_cannot_be_is_one_line_before_anything_is_scored(
    tmp_path: Path, run: Command, klip: Path, new: Path, dataset: Path, draw: Draw
) -> None:
    mask = draw(tmp_path / "mask.png", size=(30, 31))
    for physics, said in {
        "pet": ("'pet' is not known", "identity, noise, ct"),
        "ct:angles=5": ("'angles=5' is not an option of ct", "it takes views=24"),
        "ct:views=none": ("views is a whole number from 1",),
        "super:factor=5": ("the factor does not divide images of 32x32 pixels", "choose one that does"),
        "blur:sigma=9": ("more than the image's 32", "lower sigma"),
        f"inpaint:mask={mask}": (mask, "is 31x30 pixels, images here 32x32", "resize it"),
        f"inpaint:mask={tmp_path}/none.png": ("there is no such file", "check the path"),
    }.items():
        run("score", klip, new, "--out", tmp_path / "out", "--physics", physics).refused(3, *said)
        ran = run("evaluate", klip, dataset, "--out", tmp_path / "out", "--physics", physics)
        ran.refused(3, *said)
    assert not (tmp_path / "out").exists()


def test_a_physics_that_does_not_fit_is_told_before_anything_is_learned(
    tmp_path: Path, run: Command, healthy: Path
) -> None:
    for physics, said in {"super:factor=5": "does not divide", "pet": "is not known"}.items():
        run("fit", healthy, "--out", tmp_path / "m", *SMALL_KLIP, "--physics", physics).refused(3, physics, said, ";")
        assert files(tmp_path / "m") == [], "nothing stands in the way of another try"


@pytest.mark.parametrize(
    ("window", "recipe"), [((0.06, 0.07), ()), ((0.3, 0.1), ()), ((2e-4, 3e-4), ("--recipe", "reference"))]
)
def test_a_window_without_noise_levels_is_refused(
    tmp_path: Path, run: Command, klip: Path, new: Path, window: tuple[float, float], recipe: tuple[str, ...]
) -> None:
    ran = run("score", klip, new, "--out", tmp_path / "out", "--window", *window, *recipe)
    ran.refused(3, f"window {window[0]:g} to {window[1]:g}: holds none of the", ";")
    assert not (tmp_path / "out").exists()


def test_a_tensor_of_another_model_is_refused(tmp_path: Path, run: Command, klip: Path, new: Path) -> None:
    copy = shutil.copytree(klip, tmp_path / "model")
    config = json.loads((copy / "config.json").read_text())
    config["learned"]["blur:sigma=1"] = config["learned"]["identity"]
    (copy / "config.json").write_text(json.dumps(config))
    run("score", copy, new, "--out", tmp_path / "out").refused(4, copy, "do not belong together", "fit again")


# --- real measurements


def phantom() -> torch.Tensor:
    """A bright disc with a hole, of intensity 1."""
    line = torch.linspace(-1, 1, SIDE)
    radius = (line[:, None] ** 2 + line**2).sqrt()
    return ((radius < 0.8).float() - 0.5 * (radius < 0.3).float())[None, None]


def sinogram(views: int = 20) -> np.ndarray:
    """[detector, view] of the phantom, in the physics' own units, times 7."""
    operator = build(parse(f"ct:views={views}"), (1, SIDE, SIDE))
    return (7 * operator.norm * operator.A(phantom())[0]).numpy()


def write(path: Path, **arrays: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        with h5py.File(path, "w") as file:
            for name, value in arrays.items():
                file[name] = value
    return path


def write_cfl(path: Path, kspace: np.ndarray) -> Path:
    """[coil, x, y] as BART has it: a read-out of length 1, two phase directions, coil."""
    array = kspace.transpose(1, 2, 0)[None]
    path.with_suffix(".hdr").write_text("# Dimensions\n" + " ".join(map(str, array.shape)) + "\n")
    array.astype("<c8").ravel(order="F").tofile(path)
    return path


def likeness(path: Path) -> float:
    """Correlation of a reconstruction with the phantom."""
    return float(np.corrcoef(np.load(path).ravel(), phantom().numpy().ravel())[0, 1])


def test_real_measurements_of_every_format_are_reconstructed_and_scored(
    tmp_path: Path, run: Command, klip: Path
) -> None:
    maps, sampled = simulated_coils(3, (SIDE, SIDE)), sampling((SIDE, SIDE), 2, 0.3, "cartesian", 0)
    kspace = to_kspace(maps * phantom()[0])
    inputs = [
        write(tmp_path / "sinogram.npz", y=sinogram(), physics="ct:views=20", noise=0.05),
        write(tmp_path / "angles.h5", y=sinogram().T, angles=np.arange(20) * 9.0),
        write(tmp_path / "coils.npz", y=(kspace * sampled).numpy(), mask=sampled.numpy(), coil_maps=maps.numpy()),
        write_cfl(tmp_path / "ksp.cfl", to_kspace(phantom()[0].to(torch.complex64)).numpy()),
    ]
    out = tmp_path / "out"
    ran = run("score", klip, *inputs, "--out", out)
    assert ran.code == 0 and "4 of 4" in ran.stdout, ran
    rows = rows_of(out / "scores.csv")
    assert list(rows[0]) == ["file", "anomaly", *FIGURES, *ACQUISITION, "nfe", "seconds", "error"]
    assert [row["file"] for row in rows] == list(map(str, inputs))
    for row, path in zip(rows, inputs, strict=True):
        assert np.isfinite(float(row["anomaly"])) and float(row["kl_total"]) > 0 and row["error"] == ""
        assert sum(bits_of(out, path).values()) == pytest.approx(float(row["kl_total"]), rel=1e-4)
        anomaly_map = np.load(out / f"maps/{path.stem}.npy")
        assert anomaly_map.shape == (SIDE, SIDE) and np.isfinite(anomaly_map).all()
        assert np.load(out / f"reconstructions/{path.stem}.npy").shape == (1, SIDE, SIDE)
        assert likeness(out / f"reconstructions/{path.stem}.npy") > 0.9, path
        assert (out / f"overlays/{path.stem}.png").is_file() and (out / f"blocks/{path.stem}.npy").is_file()


def test_a_real_measurement_is_judged_by_what_was_learned_of_its_sort(tmp_path: Path, run: Command, klip: Path) -> None:
    path = write(tmp_path / "y.npz", y=sinogram(8), physics=LEARNED, noise=0.0)
    ignorant = shutil.copytree(klip, tmp_path / "model")
    config = json.loads((ignorant / "config.json").read_text())
    del config["learned"][str(parse(LEARNED))]
    (ignorant / "config.json").write_text(json.dumps(config))
    found = {}
    for name, model, *options in [
        ("plain", klip),
        ("named", klip, "--physics", LEARNED),
        ("ignorant", ignorant),
    ]:
        ran = run("score", model, path, "--out", tmp_path / name, *options, "--no-overlays")
        assert ran.code == 0 and len(ran.told) == 1, ran
        assert "what is usual for real measurements is not known" in ran.told[0]
        (found[name],) = rows_of(tmp_path / name / "scores.csv")
    assert found["named"]["psnr"] == found["named"]["ssim"] == "", "there is no truth to compare with"
    assert found["plain"]["anomaly"] == found["named"]["anomaly"] != found["ignorant"]["anomaly"]
    assert bits_of(tmp_path / "plain", path) == bits_of(tmp_path / "ignorant", path), "bits are bits"


def test_of_several_learned_measurements_of_a_sort_the_named_one_judges(
    tmp_path: Path, run: Command, noisy: Path
) -> None:
    y = phantom()[0, 0].reshape(8, 4, 8, 4).mean((1, 3)).numpy() * 4
    path = write(tmp_path / "y.npz", y=y, physics="super:factor=4", noise=0.01)
    anomaly = {}
    for name, options in {"first": (), "named": ("--physics", "super:factor=4")}.items():
        assert run("score", noisy, path, "--out", tmp_path / name, *options, "--no-overlays").code == 0
        anomaly[name] = rows_of(tmp_path / name / "scores.csv")[0]["anomaly"]
    assert anomaly["first"] != anomaly["named"]


def test_the_published_recipe_takes_real_measurements(tmp_path: Path, run: Command, klip: Path) -> None:
    path = write(tmp_path / "y.npz", y=sinogram(), views=20)
    assert run("score", klip, path, "--out", tmp_path / "out", "--recipe", "reference", "--no-overlays").code == 0
    (row,) = rows_of(tmp_path / "out/scores.csv")
    assert int(row["nfe"]) == 8 * REFERENCE_STEPS and row["anomaly"] == row["kl_block"]


def test_measurements_that_cannot_be_used_are_rows_and_the_others_are_scored(
    tmp_path: Path, run: Command, klip: Path
) -> None:
    y, angles = sinogram(), np.arange(20) * 9.0
    folder = tmp_path / "y"
    write(folder / "good.npz", y=y, angles=angles)
    write(folder / "nan.h5", y=np.where(y > y.mean(), np.nan, y), angles=angles)
    write(folder / "views.npz", y=y[:, :19], angles=angles)
    write(folder / "detector.npz", y=y[:30], angles=angles)
    write(folder / "size.npz", y=np.eye(16), physics="blur:sigma=1")
    write(folder / "silent.npz", y=y)
    write(folder / "matrix.npz", y=np.ones(9), matrix=np.eye(9))
    np.savez(folder / "pickled.npz", y=np.array([{}], dtype=object))
    (folder / "damaged.h5").write_bytes(b"hello")
    write_cfl(folder / "half.cfl", np.ones((1, SIDE, SIDE), np.complex64)).with_suffix(".hdr").unlink()
    said = {
        "nan.h5": "'y' has nan or infinite numbers; replace them",
        "views.npz": "'y' of shape (46, 19) has no 20 views; check the angles",
        "detector.npz": "has 30 detector elements; an image of 32x32 pixels needs 46",
        "size.npz": "is of an image of 16x16 pixels, the model's are 32x32; choose a model of that size",
        "silent.npz": "does not say what measured y; add 'physics'",
        "matrix.npz": "for images of 9 pixels, the model's have 32x32; choose a model of that size",
        "pickled.npz": "holds pickled Python objects, which are never loaded; save plain numbers",
        "damaged.h5": "is not a readable HDF5 file",
        "half.cfl": "needs half.hdr beside it",
    }
    out = tmp_path / "out"
    ran = run("score", klip, *(folder / name for name in ("good.npz", *said)), "--out", out)
    assert ran.code == 7 and "1 of 10 images scored" in ran.stdout, ran
    rows = {Path(row["file"]).name: row for row in rows_of(out / "scores.csv")}
    assert rows.pop("good.npz")["error"] == ""
    assert rows.keys() == said.keys()
    for name, row in rows.items():
        assert said[name] in row["error"] and str(folder / name) in row["error"] and "\n" not in row["error"]
        assert f"priorlens: {row['error']}" in ran.stderr.splitlines()
    assert files(out / "maps") == ["good.npy"] and "Traceback" not in ran.stderr


def test_a_number_of_views_against_the_command_line_is_a_row(tmp_path: Path, run: Command, klip: Path) -> None:
    path = write(tmp_path / "y.npz", y=sinogram(7))
    ran = run("score", klip, path, "--out", tmp_path / "out", "--physics", LEARNED)
    assert ran.code == 7, ran
    assert "has no 8 views" in rows_of(tmp_path / "out/scores.csv")[0]["error"]


def test_measurements_of_one_name_in_several_folders_keep_apart(tmp_path: Path, run: Command, klip: Path) -> None:
    paths = [write(tmp_path / f"{patient}/ct/y.npz", y=sinogram(8), views=8) for patient in ("one", "two", "three")]
    assert run("score", klip, *paths, "--out", tmp_path / "out", "--no-overlays").code == 0
    assert [row["file"] for row in rows_of(tmp_path / "out/scores.csv")] == list(map(str, paths))
    assert len(files(tmp_path / "out/maps")) == 3


def test_images_and_measurements_are_not_mixed_and_have_to_be_there(
    tmp_path: Path, run: Command, klip: Path, new: Path
) -> None:
    path = write(tmp_path / "y.npz", y=sinogram(8), physics=LEARNED)
    ran = run("score", klip, path, new, "--out", tmp_path / "out")
    assert ran.code == 2 and "score them apart" in ran.stderr, ran
    missing = tmp_path / "missing.npz"
    run("score", klip, missing, "--out", tmp_path / "out").refused(3, missing, "no such file", "check the path")
    assert not (tmp_path / "out").exists()


# --- priors that others trained


@pytest.fixture
def ddpm(tmp_path: Path) -> Path:
    """A DDPM of diffusers', untrained, in a folder as diffusers saves it."""
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    net = diffusers.UNet2DModel(
        sample_size=SIDE,
        in_channels=1,
        out_channels=1,
        block_out_channels=(4, 8),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=2,
    )
    diffusers.DDPMPipeline(net, diffusers.DDPMScheduler(clip_sample=False)).save_pretrained(tmp_path / "ddpm")
    return tmp_path / "ddpm"


PRIOR = ("--method", "klip", "--steps", 3, "--threads", 1)


def test_a_prior_of_diffusers_is_taken_as_it_is(
    tmp_path: Path, run: Command, healthy: Path, new: Path, ddpm: Path
) -> None:
    from safetensors.torch import load_file

    model = tmp_path / "model"
    ran = run("fit", healthy, "--out", model, *PRIOR, "--variance-head", "--prior", ddpm)
    assert ran.code == 0, ran
    assert files(model) == ["config.json", "model.safetensors", "training.csv"]
    assert "denoiser" not in {row["stage"] for row in rows_of(model / "training.csv")}, "only its variance is learned"
    kept, given = load_file(model / "model.safetensors"), load_file(next(ddpm.glob("unet/*.safetensors")))
    for name, tensor in given.items():
        assert any(
            key.startswith("denoiser.") and key.endswith(name) and torch.equal(kept[key], tensor) for key in kept
        )
    text = (model / "config.json").read_text()
    assert json.loads(text)["run"]["prior"] == "ddpm" and str(ddpm.parent) not in text, (
        "where it lay is nobody's business"
    )
    facts = json.loads(run("inspect", model, "--json").stdout)
    assert facts["prior"]["format"] == "diffusers" and facts["size"] == SIDE
    shutil.rmtree(ddpm)
    ran = run("score", model, new, "--out", tmp_path / "out", "--physics", LEARNED, "--no-overlays")
    assert ran.code == 0 and all(np.isfinite(float(row["anomaly"])) for row in rows_of(tmp_path / "out/scores.csv"))


def test_a_prior_that_does_not_suit_the_images_is_refused(tmp_path: Path, run: Command, draw: Draw, ddpm: Path) -> None:
    for i in range(8):
        draw(tmp_path / f"colour/{i}.png", seed=i, colour=True)
    ran = run("fit", tmp_path / "colour", "--out", tmp_path / "m", *PRIOR, "--prior", ddpm)
    ran.refused(3, ddpm, "is a prior of 1 channels, the images have 3", "choose another prior")
    assert files(tmp_path / "m") == []


def test_a_prior_that_cannot_be_had_has_its_exit_code(
    tmp_path: Path, run: Command, healthy: Path, ddpm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> NoReturn:
        raise OSError("Name or service not known\nwhile asking the hub")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    next(ddpm.glob("unet/*.safetensors")).write_bytes(b"hello")
    (tmp_path / "empty").mkdir()
    for prior, code, *said in [
        (tmp_path / "none", 4, "there is no such folder", "give a diffusers or MONAI folder"),
        (tmp_path / "empty", 4, "is no prior's folder", "give one of diffusers"),
        (ddpm, 4, "its weights are truncated", "copy them again"),
        ("owner/name", 6, "the hub cannot give it (offline", "give its folder"),
    ]:
        ran = run("fit", healthy, "--out", tmp_path / "m", *PRIOR, "--prior", prior)
        ran.refused(code, prior, *said)
        assert files(tmp_path / "m") == [], "nothing stands in the way of another try"


# --- verdicts


@pytest.fixture(scope="module")
def aside(tmp_path_factory: pytest.TempPathFactory, run: Command, more: Path) -> Path:
    """A KLIP model of half of `more` that is calibrated on the rest, for two measurements. Not to be written to."""
    folder = tmp_path_factory.mktemp("fitted") / "aside"
    ran = run("fit", more, "--out", folder, *SMALL_KLIP, "--physics", LEARNED, "--aside", 0.5)
    assert ran.code == 0 and not ran.told, ran
    assert ran.stdout.count("on 12 healthy images of 12 patients") == 2, ran
    return folder


def setup(physics: str = "identity", posterior: str = "diffpir") -> str:
    return f"rule=combined, physics={parse(physics)}, posterior={posterior}"


def test_fit_calibrates_whole_images_and_each_measurement_that_it_learns(
    tmp_path: Path, run: Command, aside: Path, new: Path
) -> None:
    assert sorted(calibrated_setups(aside)) == sorted([setup(), setup(LEARNED)])
    whole, measured = (read_calibration(aside, one) for one in (setup(), setup(LEARNED)))
    assert whole.images == measured.images and not np.array_equal(whole.anomaly, measured.anomaly)
    assert not set(whole.images) & KLIPModel.load(aside).provenance_.images
    for physics, known in (("identity", whole), (LEARNED, measured)):
        out = tmp_path / physics
        ran = run("score", aside, new, "--out", out, "--physics", physics, "--alpha", 0.1)
        assert ran.code == 0 and not ran.told, ran
        rows, healthy = rows_of(out / "scores.csv"), rows_of(out / "calibration.csv")
        own = np.array([row["anomaly"] for row in rows], np.float32)
        found = p_values(own, np.array([row["anomaly"] for row in healthy], np.float32))
        assert [row["p_value"] for row in rows] == [f"{value:.6g}" for value in found]
        np.testing.assert_array_equal(np.array([row["anomaly"] for row in healthy], np.float32), known.anomaly)
        names = {f"{column}@sigma={sigma:g}" for sigma in SIGMAS for column in ("bits", "width_0", "width_1")}
        assert names | {"kl_total", "kl_block", *ACQUISITION} <= healthy[0].keys()
        assert ("psnr" in healthy[0]) == (physics != "identity")
        assert json.loads((out / "verdicts.json").read_text())["setup"] == known.setup


@pytest.mark.parametrize(
    "options",
    [
        ("--physics", "super:factor=2"),
        ("--physics", LEARNED, "--noise", 0.1),
        ("--posterior", "pigdm"),
        ("--rule", "squares"),
        ("--rule", "squares", "--window", 0.1, 0.4),
        ("--block", 8),
        ("--recipe", "reference"),
    ],
)
def test_another_way_of_scoring_is_not_calibrated(
    tmp_path: Path, run: Command, aside: Path, new: Path, options: tuple[object, ...]
) -> None:
    out = ("--out", tmp_path / "out")
    ran = run("score", aside, new, *out, *options, "--alpha", 0.1)
    assert ran.code == 3, ran
    assert "is not calibrated for" in ran.told[-1] and f"only for {setup(LEARNED)}; {setup()}" in ran.told[-1]
    assert not (tmp_path / "out").exists()


def test_a_measurement_can_be_calibrated_later_and_fits_no_other_options(
    tmp_path: Path, run: Command, klip: Path, more: Path, new: Path
) -> None:
    copy = shutil.copytree(klip, tmp_path / "model")
    options = ("--physics", "super:factor=2", "--noise", 0.05, "--posterior", "pigdm")
    ran = run("calibrate", copy, more, *options)
    assert ran.code == 0 and len(ran.told) == 1 and "was not learned" in ran.told[0], ran
    wanted = "rule=combined, physics=super:factor=2 noise=0.05, posterior=pigdm"
    assert calibrated_setups(copy) == [wanted] and f"({wanted}) on 24 healthy images" in ran.stdout
    ran = run("score", copy, new, "--out", tmp_path / "out", *options, "--alpha", 0.05, "--no-overlays")
    assert ran.code == 0 and rows_of(tmp_path / "out/scores.csv")[0]["verdict"], ran
    ran = run("score", copy, new, "--out", tmp_path / "no", *options[:4], "--alpha", 0.05)
    assert ran.code == 3 and f"(only for {wanted})" in ran.told[-1], ran


def test_the_published_recipe_can_be_calibrated(
    tmp_path: Path, run: Command, klip: Path, more: Path, new: Path
) -> None:
    copy = shutil.copytree(klip, tmp_path / "model")
    assert run("calibrate", copy, more, "--recipe", "reference").code == 0
    options = ("--recipe", "reference", "--alpha", 0.1, "--no-overlays")
    assert run("score", copy, new, "--out", tmp_path / "out", *options).code == 0
    assert all(row["verdict"] for row in rows_of(tmp_path / "out/scores.csv"))


def test_real_measurements_have_no_p_values(tmp_path: Path, run: Command, aside: Path) -> None:
    """Nobody has healthy ones to calibrate with: the calibration for simulated ones is not theirs."""
    path = write(tmp_path / "y.npz", y=sinogram(8), physics=LEARNED)
    ran = run("score", aside, path, "--out", tmp_path / "out", "--no-overlays")
    assert ran.code == 0 and len(ran.told) == 1 and "real measurements is not known" in ran.told[0], ran
    assert "calibrate" not in ran.stderr, "which could not be done"
    assert "p_value" not in rows_of(tmp_path / "out/scores.csv")[0] and not (tmp_path / "out/verdicts.json").exists()
    ran = run("score", aside, path, "--out", tmp_path / "no", "--alpha", 0.1)
    assert ran.code == 3 and "real measurements" in ran.told[-1] and "leave --alpha out" in ran.told[-1], ran
    assert not (tmp_path / "no").exists()


def test_evaluate_gives_verdicts_of_measurements_too(
    tmp_path: Path, run: Command, klip: Path, more: Path, dataset: Path
) -> None:
    copy = shutil.copytree(klip, tmp_path / "model")
    assert run("calibrate", copy, more, "--physics", LEARNED).code == 0
    options = ("--physics", LEARNED, "--bootstrap", 0, "--no-overlays")
    assert run("evaluate", copy, dataset, "--out", tmp_path / "out", *options).code == 0
    verdicts = json.loads((tmp_path / "out/metrics.json").read_text())["verdicts"]
    assert verdicts["calibration"]["patients"] == 24 and list(verdicts["alphas"]) == ["0.05"]
