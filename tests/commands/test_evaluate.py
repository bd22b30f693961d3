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

from priorlens import calibrating, cohort, held_out
from priorlens.blocks import block_means, flag
from priorlens.calibration import read_calibration
from priorlens.commands.demo import SIZE
from priorlens.evaluation import METRICS
from priorlens.layers import LAYERS
from priorlens.pictures import TRUTH
from priorlens.regions import find_regions


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
        *("curves.json", "images", "maps", "metrics.json", "model.json", "overlays"),
        *("report.html", "roc_pr.png", "scores.csv", "spectrum.csv", "truth"),
    ]
    assert sorted(path.name for path in (out / "images").rglob("*.png")) == [
        "0.png",
        "0.png",
        "1.png",
        "1.png",
        "2.png",
        "2.png",
    ]
    assert sorted(str(path.relative_to(out)) for path in (out / "truth").rglob("*.png")) == [
        *("truth/lesion/0.png", "truth/lesion/1.png", "truth/lesion/2.png"),
    ]
    with Image.open(out / "truth/lesion/1.png") as picture, Image.open(dataset / "ground_truth/lesion/1.png") as mask:
        assert picture.mode == "L"
        np.testing.assert_array_equal(np.asarray(picture), np.asarray(mask))
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
    assert not (tmp_path / "out/truth").exists()


def test_rule_and_patients_are_what_was_asked_for(tmp_path: Path, run: Command, model: Path, dataset: Path) -> None:
    out = tmp_path / "out"
    asked = ("--rule", "coherent", "--bootstrap", 5, "--no-overlays", "--group", r"\d")
    assert run("evaluate", model, dataset, "--out", out, *asked).code == 0
    assert not any((out / folder).exists() for folder in ("overlays", *LAYERS))
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


# --- verdicts


def scores_by_kind(out: Path) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    with open(out / "scores.csv", newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault(Path(row["file"]).parent.name, []).append(row)
    return found


def test_verdicts_are_counted_where_the_calibration_can_give_them(
    tmp_path: Path, run: Command, calibrated: Path, dataset: Path
) -> None:
    """By hand from the tables and maps; 21 patients give no verdict at .01."""
    out = tmp_path / "out"
    ran = run("evaluate", calibrated, dataset, "--out", out, "--alpha", 0.05, "--bootstrap", 20)
    assert (
        ran.code == 0
        and "no verdicts at alpha 0.01: it takes 99" in ran.stderr
        and "Verdicts" in ran.stdout
        and "alpha 0.05" in ran.stdout
    ), ran
    verdicts = json.loads((out / "metrics.json").read_text())["verdicts"]
    assert verdicts["calibration"] == {"images": 24, "patients": 21, "smallest_p_value": 1 / 22}
    assert (verdicts["procedure"], verdicts["images_left_out"]) == ("bh", 0)
    assert list(verdicts["alphas"]) == ["0.05"] and list(verdicts["alphas"]["0.05"]) == ["good", "lesion"]
    scores, found = scores_by_kind(out), verdicts["alphas"]["0.05"]
    called = {kind: [float(row["p_value"]) <= 0.05 for row in rows] for kind, rows in scores.items()}
    assert [row["verdict"] == "abnormal" for row in scores["lesion"]] == called["lesion"]
    regions = {kind: [int(row["regions"]) for row in rows] for kind, rows in scores.items()}
    assert found["good"]["false_alarm_rate"]["value"] == pytest.approx(np.mean(called["good"]))
    assert found["good"]["any_region"]["value"] == pytest.approx(np.mean(np.array(regions["good"]) > 0))
    assert found["good"]["false_regions"]["value"] == pytest.approx(np.mean(regions["good"]))
    assert found["lesion"]["sensitivity"]["value"] == pytest.approx(np.mean(called["lesion"]))
    known = read_calibration(calibrated, "rule=combined")
    hit, beside = [], []
    for i in range(3):
        truth = np.asarray(Image.open(dataset / f"ground_truth/lesion/{i}.png")) > 0
        anomaly_map = np.load(out / f"maps/lesion/{i}.npy")
        _, labels = find_regions(anomaly_map, flag(block_means(anomaly_map), known.healthy_blocks, 0.05))
        assert labels.max(initial=0) == regions["lesion"][i]
        hit.append(bool((labels[truth] > 0).any()))
        beside.append(labels.max(initial=0) - len(set(labels[truth]) - {0}))
    assert found["lesion"]["lesions_found"]["value"] == pytest.approx(np.mean(hit))
    assert found["lesion"]["false_regions"]["value"] == pytest.approx(np.mean(beside))


def test_figures_of_verdicts_do_not_wait_for_an_alpha(
    tmp_path: Path, run: Command, calibrated: Path, dataset: Path
) -> None:
    out = tmp_path / "out"
    options = ("--bootstrap", 0, "--no-overlays", "--group", r"\d")
    assert run("evaluate", calibrated, dataset, "--out", out, *options).code == 0
    rate = json.loads((out / "metrics.json").read_text())["verdicts"]["alphas"]["0.05"]["good"]["false_alarm_rate"]
    assert rate["low"] is not None, "each healthy image is another patient's"
    rows = scores_by_kind(out)
    assert "p_value" in rows["good"][0] and "verdict" not in rows["good"][0]
    assert (out / "patients.csv").is_file() and not (out / "regions.csv").exists()


def test_images_that_were_calibrated_on_or_fitted_to_are_no_test(
    tmp_path: Path, run: Command, calibrated: Path, dataset: Path, more: Path, healthy: Path
) -> None:
    """Under whatever name and format; the verdicts of the others are counted as without them."""
    found = []
    for turn in ("without", "with"):
        if turn == "with":
            shutil.copy(more / "q03_3.png", dataset / "test/good/another.png")
            np.save(dataset / "test/good/again.npy", np.asarray(Image.open(more / "q04_4.png")))
            Image.open(healthy / "p2_5.png").save(dataset / "test/lesion/fitted.tif")
        out = tmp_path / turn
        ran = run("evaluate", calibrated, dataset, "--out", out, "--bootstrap", 0, "--no-overlays")
        assert ran.code == 0, ran
        found.append(json.loads((out / "metrics.json").read_text()))
    assert "3 of the test images were fitted to or calibrated on" in ran.stderr and len(ran.told) == 2, ran
    without, with_them = (metrics["verdicts"] for metrics in found)
    assert with_them["images_left_out"] == 3 and without["images_left_out"] == 0
    assert with_them["alphas"] == without["alphas"]
    assert len(scores_by_kind(out)["good"]) == 5, "they are scored, and said so"


def test_images_that_were_fitted_to_are_told_without_a_calibration_too(
    tmp_path: Path, run: Command, model: Path, dataset: Path, healthy: Path
) -> None:
    shutil.copy(healthy / "p2_5.png", dataset / "test/good/other.png")
    ran = run("evaluate", model, dataset, "--out", tmp_path / "out", "--bootstrap", 0, "--no-overlays")
    assert ran.code == 0 and len(ran.told) == 1 and "1 of the test images were fitted to" in ran.told[0], ran
    assert "verdicts" not in json.loads((tmp_path / "out/metrics.json").read_text())


def test_too_few_patients_for_any_alpha_leave_the_p_values(
    tmp_path: Path, run: Command, model: Path, more: Path, dataset: Path
) -> None:
    own = shutil.copytree(model, tmp_path / "model")
    assert run("calibrate", own, more, "--group", r"^q(\d[0-6])").code == 3, "not all of them match"
    for path in sorted(more.iterdir())[:10]:
        (tmp_path / "few").mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / "few")
    assert run("calibrate", own, tmp_path / "few").code == 0
    ran = run("evaluate", own, dataset, "--out", tmp_path / "out", "--bootstrap", 0, "--no-overlays")
    assert ran.code == 0 and "Verdicts" not in ran.stdout, ran
    assert json.loads((tmp_path / "out/metrics.json").read_text())["verdicts"]["alphas"] == {}
    assert scores_by_kind(tmp_path / "out")["good"][0]["p_value"]


def test_inspect_tells_what_is_calibrated(tmp_path: Path, run: Command, model: Path, calibrated: Path) -> None:
    facts = json.loads(run("inspect", calibrated, "--json").stdout)
    assert facts["calibration"] == {"rule=combined": {"images": 24, "patients": 21, "smallest_p_value": 1 / 22}}
    assert "rule=combined" in run("inspect", calibrated).stdout
    assert json.loads(run("inspect", model, "--json").stdout)["calibration"] == {}
    renamed = shutil.copytree(calibrated, tmp_path / "model")
    (path,) = (renamed / "calibration").iterdir()
    path.rename(path.with_name("mine.safetensors"))
    assert json.loads(run("inspect", renamed, "--json").stdout)["calibration"] == {}


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
    small = partial(cohort.write_cohort, train=28, test_good=3, test_lesion=3, size=64)
    monkeypatch.setattr(cohort, "write_cohort", small)
    monkeypatch.setattr(held_out, "FEWEST", 20)
    monkeypatch.setattr(held_out, "MOST_ASIDE", 0.7)
    monkeypatch.setattr(calibrating, "FARTHEST", 1e9)  # two are held out: little is known of how far others may lie
    out = tmp_path / "demo"
    ran = run("demo", "--out", out, "--steps", 1)
    assert ran.code == 0, ran
    assert "planted" in ran.stdout and "image AUROC" in ran.stdout and str(out / "lesions.png") in ran.stdout
    assert f"$ priorlens fit {out / 'cohort'} --out {out / 'model'} --size {SIZE} --seed 0 --steps 1" in ran.stdout
    for name in ("cohort/train/good", "model/config.json", "results/metrics.json", "results/roc_pr.png", "lesions.png"):
        assert (out / name).exists(), name
    with open(out / "results/scores.csv", newline="") as file:
        assert [row["verdict"] in ("abnormal", "usual") for row in csv.DictReader(file)] == [True] * 6
    facts = json.loads(run("inspect", out / "model", "--json").stdout)
    assert facts["calibration"].keys() == {"rule=combined", "rule=local"}
    assert facts["calibration"]["rule=local"]["patients"] == 20
    run("demo", "--out", out, "--steps", 1).refused(5, out, "--overwrite")

    request.getfixturevalue("learned")
    assert run("demo", "--out", out, "--overwrite", "--seed", 1).code == 0
    assert json.loads((out / "model/config.json").read_text())["run"]["seed"] == 1
