"""`priorlens evaluate`, `inspect` and `demo`: figures, pictures and facts."""

from __future__ import annotations

import csv
import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from command_line import Command
from PIL import Image

from priorlens import cohort
from priorlens.commands.demo import SIZE
from priorlens.evaluation import METRICS
from priorlens.pictures import TRUTH


def test_figures_curves_and_pictures(tmp_path: Path, run: Command, model: Path, dataset: Path) -> None:
    out = tmp_path / "out"
    ran = run("evaluate", model, dataset, "--out", out, "--bootstrap", 20)
    assert ran.code == 0 and "6 of 6 images scored" in ran.stdout, ran
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["schema"] == 1 and list(metrics["kinds"]) == ["lesion"]
    assert set(metrics["kinds"]["lesion"]) == set(METRICS)
    assert all(set(figure) == {"value", "low", "high"} for figure in metrics["kinds"]["lesion"].values())
    assert metrics["rule"] == "combined" and metrics["images_failed"] == 0
    assert f"{metrics['kinds']['lesion']['image_auroc']['value']:.3f}" in ran.stdout
    assert sorted(path.name for path in out.iterdir()) == [
        "maps",
        "metrics.json",
        "overlays",
        "roc_pr.png",
        "scores.csv",
    ]
    assert np.load(out / "maps/lesion/2.npy").shape == (40, 56)
    for name, drawn in (("lesion/0", True), ("good/0", False)):
        picture = np.asarray(Image.open(out / f"overlays/{name}.png"))
        assert (picture == TRUTH).all(axis=-1).any() == drawn, "the truth is outlined where there is one"


def test_without_masks_there_are_the_figures_of_whole_images(
    tmp_path: Path, run: Command, model: Path, dataset: Path
) -> None:
    shutil.rmtree(dataset / "ground_truth")
    ran = run("evaluate", model, dataset, "--out", tmp_path / "out", "--bootstrap", 0, "--no-overlays")
    assert ran.code == 0, ran
    figures = json.loads((tmp_path / "out/metrics.json").read_text())["kinds"]["lesion"]
    assert figures["pixel_ap"]["value"] is None and figures["image_auroc"]["value"] is not None


def test_rule_and_patients_are_what_was_asked_for(tmp_path: Path, run: Command, model: Path, dataset: Path) -> None:
    out = tmp_path / "out"
    asked = ("--rule", "coherent", "--bootstrap", 5, "--no-overlays", "--group", r"\d")
    assert run("evaluate", model, dataset, "--out", out, *asked).code == 0
    assert not (out / "overlays").exists()
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["rule"] == "coherent" and metrics["bootstrap"]["resamples"] == 5
    assert metrics["counts"]["lesion"] == {"images": 3, "groups": 3, "with_mask": 3}


def test_a_broken_test_image_leaves_the_figures_of_the_others(
    tmp_path: Path, run: Command, model: Path, dataset: Path
) -> None:
    (dataset / "test/lesion/1.png").write_bytes(b"")
    ran = run("evaluate", model, dataset, "--out", tmp_path / "out", "--bootstrap", 0)
    assert ran.code == 7 and "5 of 6 images scored" in ran.stdout and "lesion/1.png: is empty" in ran.stderr
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert metrics["images_failed"] == 1 and metrics["counts"]["lesion"]["images"] == 2


def test_inspect_tells_what_a_person_asks(run: Command, model: Path) -> None:
    ran = run("inspect", model)
    assert ran.code == 0
    for words in ("healthy", "images", "12", "fingerprint", "seed", "tf_efficientnet_lite0", "threshold"):
        assert words in ran.stdout, words


def test_inspect_tells_it_to_programs_too(run: Command, model: Path) -> None:
    facts = json.loads(run("inspect", model, "--json").stdout)
    assert facts["run"]["images"] == 12


def test_the_demo_goes_the_whole_way(
    tmp_path: Path, run: Command, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    small = partial(cohort.write_cohort, train=10, test_good=3, test_lesion=3, size=64)
    monkeypatch.setattr(cohort, "write_cohort", small)
    out = tmp_path / "demo"
    ran = run("demo", "--out", out, "--steps", 1)
    assert ran.code == 0, ran
    assert "planted" in ran.stdout and "image AUROC" in ran.stdout and str(out / "lesions.png") in ran.stdout
    assert f"$ priorlens fit {out / 'cohort'} --out {out / 'model'} --size {SIZE} --seed 0 --steps 1" in ran.stdout
    for name in ("cohort/train/good", "model/config.json", "results/metrics.json", "results/roc_pr.png", "lesions.png"):
        assert (out / name).exists(), name
    with open(out / "results/scores.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 6
    run("demo", "--out", out, "--steps", 1).refused(5, out, "--overwrite")

    request.getfixturevalue("learned")
    assert run("demo", "--out", out, "--overwrite", "--seed", 1).code == 0
    assert json.loads((out / "model/config.json").read_text())["run"]["seed"] == 1
