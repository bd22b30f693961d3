"""The commands as a user runs them, on images and models so small that each run takes a moment."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from copy import copy
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import SMALL, SMALL_SCANS, Command, Draw, Ran
from PIL import Image
from typer.testing import CliRunner

from priorlens import held_out, preparation, variations, weighing
from priorlens.__main__ import app
from priorlens.anodode import AnoDODE
from priorlens.outputs import write_text
from priorlens.progress import Progress
from volumes.made_scans import head, write_nifti, write_trunk


@pytest.fixture(autouse=True, scope="module")
def small() -> Iterator[None]:
    """One artefact in each image held out, images seen as small as they can be, models read once, and one core."""
    torch.set_num_threads(1)
    read = AnoDODE.load
    load = cache(lambda folder, written: read(folder))

    def load_once(folder: Path, *, device: str | None = None) -> AnoDODE:
        config = folder / "config.json"
        return copy(load(folder, config.stat().st_mtime_ns if config.is_file() else None))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AnoDODE, "load", load_once)
        patch.setattr(held_out, "PLANTED", 1)
        patch.setattr(weighing, "_FEWEST_STEPS", 20)
        patch.setattr(preparation, "SMALLEST", 64)
        yield


@pytest.fixture(scope="module")
def run() -> Command:
    """Runs a command line in this process."""

    def run(*arguments: object) -> Ran:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Ran(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture(scope="module")
def fit(run: Command) -> Command:
    """Runs `priorlens fit` with the options of `SMALL`."""
    return lambda *arguments: run("fit", *arguments, *SMALL)


@pytest.fixture(scope="module")
def draw() -> Draw:
    """Draws one image, grey and of 8 bits unless told otherwise: a soft disc on a dark ground, a little noise."""

    def draw(
        path: Path, *, seed: int = 0, size: tuple[int, int] = (48, 48), bits: int = 8, colour: bool = False
    ) -> Path:
        rng = np.random.default_rng(seed)
        down, across = np.mgrid[: size[0], : size[1]]
        radius = np.hypot(down / size[0] - rng.normal(0.5, 0.03), across / size[1] - rng.normal(0.5, 0.03))
        share = 0.7 / (1 + np.exp(40 * (radius - 0.35))) + rng.uniform(0, 0.1, size)
        if colour:
            share = np.stack([share, share * 0.8, share * 0.6], axis=-1)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((share * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)).save(path)
        return path

    return draw


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory, draw: Draw) -> Path:
    """A folder of twelve healthy images, two of each patient. Not to be written to."""
    folder = tmp_path_factory.mktemp("data") / "healthy"
    for i in range(12):
        draw(folder / f"p{i // 2}_{i}.png", seed=i)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, fit: Command, healthy: Path) -> Path:
    """A model of `healthy`. Not to be written to."""
    folder = tmp_path_factory.mktemp("fitted") / "model"
    ran = fit(healthy, "--out", folder)
    assert ran.code == 0, ran
    return folder


@pytest.fixture(scope="module")
def more(tmp_path_factory: pytest.TempPathFactory, draw: Draw) -> Path:
    """A folder of 24 other healthy images, of 21 patients: three have two. Not to be written to."""
    folder = tmp_path_factory.mktemp("data") / "more"
    for i in range(24):
        draw(folder / f"q{i % 21:02d}_{i}.png", seed=200 + i)
    return folder


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory, run: Command, model: Path, more: Path) -> Path:
    """A copy of `model` that is calibrated on `more`, for its own rule. Not to be written to."""
    folder = shutil.copytree(model, tmp_path_factory.mktemp("fitted") / "calibrated")
    ran = run("calibrate", folder, more, "--group", r"^(q\d+)_")
    assert ran.code == 0, ran
    return folder


@pytest.fixture
def learned(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    """A fit learns nothing and ends at once with what `model` knows: for tests of what is around the learning."""

    def fit(
        detector: AnoDODE,
        images: object,
        *,
        groups: object,
        state: Path | None = None,
        on_progress: Callable[[Progress], None] = lambda progress: None,
        **_: object,
    ) -> AnoDODE:
        on_progress(Progress("s8 denoiser", 1, 1, 0.5, 1, 1))
        if state:
            write_text(state / "s8_denoiser.safetensors", "unfinished")
        known = vars(AnoDODE.load(model))
        vars(detector).update({name: value for name, value in known.items() if name.endswith("_")})
        return detector

    monkeypatch.setattr(AnoDODE, "fit", fit)


@pytest.fixture
def dataset(tmp_path: Path, draw: Draw) -> Path:
    """Three healthy and three abnormal test images, with masks, of other sizes than the training's."""
    folder = tmp_path / "dataset"
    for i in range(3):
        draw(folder / f"test/good/{i}.png", seed=20 + i)
        path = draw(folder / f"test/lesion/{i}.png", seed=30 + i, size=(40, 56))
        lesion = np.zeros((40, 56), np.uint8)
        lesion[15:22, 20 + i : 28 + i] = 255
        Image.fromarray(np.maximum(np.asarray(Image.open(path)), lesion)).save(path)
        mask = folder / f"ground_truth/lesion/{i}.png"
        mask.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(lesion).save(mask)
    return folder


# --- scans


def fit_scans(folder: Path, model: Path) -> Path:
    """A model of the scans in `folder`: two steps, and no varied copies of the slices in place of dozens."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(held_out, "PLANTED", 1)
        patch.setattr(weighing, "_FEWEST_STEPS", 20)
        patch.setattr(preparation, "SMALLEST", 64)
        patch.setattr(variations, "copies", lambda images: 0)
        ran = CliRunner().invoke(app, ["fit", str(folder), "--out", str(model), *SMALL_SCANS])
    assert ran.exit_code == 0, ran
    return model


@pytest.fixture(scope="session")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three MR-like NIfTI files. Not to be written to."""
    folder = tmp_path_factory.mktemp("data") / "heads"
    for i in range(3):
        write_nifti(folder / f"h{i}.nii.gz", head(i))
    return folder


@pytest.fixture(scope="session")
def mr_model(tmp_path_factory: pytest.TempPathFactory, heads: Path) -> Path:
    """A model of `heads`. Not to be written to."""
    return fit_scans(heads, tmp_path_factory.mktemp("fitted") / "mr-model")


@pytest.fixture(scope="session")
def trunks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three CT-like DICOM series, a folder each. Not to be written to."""
    folder = tmp_path_factory.mktemp("data") / "trunks"
    for i in range(3):
        write_trunk(folder / f"t{i}", i)
    return folder


@pytest.fixture(scope="session")
def ct_model(tmp_path_factory: pytest.TempPathFactory, trunks: Path) -> Path:
    """A model of `trunks`. Not to be written to."""
    return fit_scans(trunks, tmp_path_factory.mktemp("fitted") / "ct-model")
