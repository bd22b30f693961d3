"""`priorlens score`: the table, the maps, the pictures."""

from __future__ import annotations

import csv
import json
import runpy
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from command_line import Command, Draw
from PIL import Image

from priorlens import scoring
from priorlens.acquisition import ACQUISITION
from priorlens.anodode import RULES
from priorlens.blocks import Procedure, block_means, flag
from priorlens.calibration import calibrated_setups, model_hash, read_calibration
from priorlens.conformal import p_values
from priorlens.layers import LAYERS
from priorlens.pictures import CALLED, displayable
from priorlens.regions import Region, find_regions

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_folder.py"


def table(out: Path) -> list[dict[str, str]]:
    with open(out / "scores.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def new(tmp_path: Path, draw: Draw) -> Path:
    """Three images in two folders, one of another size."""
    draw(tmp_path / "new/a/1.png", seed=100)
    draw(tmp_path / "new/a/2.png", seed=101, size=(70, 33))
    draw(tmp_path / "new/b.tif", seed=102)
    return tmp_path / "new"


def test_a_row_a_map_and_a_picture_for_every_image(tmp_path: Path, run: Command, model: Path, new: Path) -> None:
    out = tmp_path / "out"
    ran = run("score", model, new, "--out", out)
    assert ran.code == 0 and "3 of 3 images scored" in ran.stdout and str(out / "scores.csv") in ran.stdout, ran
    rows = table(out)
    assert [row["file"] for row in rows] == [f"{new}/a/1.png", f"{new}/a/2.png", f"{new}/b.tif"]
    assert list(rows[0]) == ["file", "anomaly", "s8", "s16", "s32", *ACQUISITION, "nfe", "seconds", "error"]
    for row, name, size in zip(rows, ("a/1", "a/2", "b"), ((48, 48), (70, 33), (48, 48)), strict=True):
        assert all(np.isfinite(float(row[column])) for column in list(row)[1:-1])
        assert int(row["nfe"]) > 0 and row["error"] == ""
        anomaly_map = np.load(out / f"maps/{name}.npy", allow_pickle=False)
        assert anomaly_map.shape == size and anomaly_map.dtype == np.float32 and np.isfinite(anomaly_map).all()
        with Image.open(out / f"overlays/{name}.png") as picture:
            assert picture.width > 500
        with Image.open(out / f"images/{name}.png") as picture, Image.open(row["file"]) as source:
            assert (picture.mode, picture.size) == ("L", source.size)
            np.testing.assert_array_equal(np.asarray(picture), displayable(np.float32(source)[None])[..., 0])
    assert sorted(path.name for path in out.iterdir()) == [
        *("images", "maps", "model.json", "overlays", "report.html", "run.sqlite", "scores.csv", "spectrum.csv"),
    ]


def test_same_seed_same_bytes(
    tmp_path: Path, run: Command, fit: Command, healthy: Path, model: Path, new: Path
) -> None:
    """From fit to table, but for the seconds."""
    assert fit(healthy, "--out", tmp_path / "again").code == 0
    assert (tmp_path / "again/model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
    seen = []
    for turn, fitted in enumerate((model, tmp_path / "again")):
        out = tmp_path / str(turn)
        assert run("score", fitted, new, "--out", out, "--no-overlays").code == 0
        rows = [row | {"seconds": ""} for row in table(out)]
        seen.append((rows, [(out / f"maps/{name}.npy").read_bytes() for name in ("a/1", "a/2", "b")]))
    assert seen[0] == seen[1]


def test_inputs_are_files_and_folders_in_the_order_given(tmp_path: Path, run: Command, model: Path, new: Path) -> None:
    out = tmp_path / "out"
    ran = run("score", model, new / "b.tif", new / "a", "--out", out, "--no-overlays")
    assert ran.code == 0 and not any((out / folder).exists() for folder in ("overlays", *LAYERS))
    assert [Path(row["file"]).name for row in table(out)] == ["b.tif", "1.png", "2.png"]
    assert (out / "maps/1.npy").is_file() and (out / "maps/b.npy").is_file()


def test_a_manifest_can_be_the_list_of_images(tmp_path: Path, run: Command, model: Path, new: Path) -> None:
    (new / "list.csv").write_text("file,group\na/2.png,p\nb.tif,q\n")
    ran = run("score", model, "--manifest", new / "list.csv", "--out", tmp_path / "out", "--no-overlays")
    assert ran.code == 0
    assert [Path(row["file"]).name for row in table(tmp_path / "out")] == ["2.png", "b.tif"]


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_scores(tmp_path: Path, run: Command, model: Path, new: Path, rule: str) -> None:
    ran = run("score", model, new / "b.tif", "--out", tmp_path / "out", "--rule", rule)
    assert ran.code == 0, ran
    (row,) = table(tmp_path / "out")
    assert np.isfinite(float(row["anomaly"]))
    unit = json.loads((tmp_path / "out/model.json").read_text())["map_unit"]
    assert unit == ("bit" if rule in ("combined", "local", "standardised") else "1")


def test_overwriting_leaves_nothing_of_the_earlier_run_under_the_same_name(
    tmp_path: Path, run: Command, model: Path, new: Path
) -> None:
    out = tmp_path / "out"
    assert run("score", model, new, "--out", out).code == 0
    (out / "mine.txt").write_text("not to be touched")
    (new / "b.tif").write_bytes(b"damaged since")
    for layer in ("truth", "segmentations"):  # of an earlier run with masks and verdicts
        shutil.copytree(out / "images", out / layer)
    assert run("score", model, new, "--out", out, "--overwrite").code == 7
    assert (out / "maps/a/1.npy").is_file() and (out / "overlays/a/1.png").is_file()
    assert not (out / "maps/b.npy").exists() and not (out / "overlays/b.png").exists()
    assert [str(path.relative_to(out)) for layer in LAYERS for path in sorted((out / layer).rglob("*.png"))] == [
        *("images/a/1.png", "images/a/2.png"),
    ]
    assert run("score", model, new, "--out", out, "--overwrite", "--no-overlays").code == 7
    assert not [path for layer in ("overlays", *LAYERS) for path in (out / layer).rglob("*.png")]
    assert (out / "mine.txt").is_file()


def test_results_are_not_written_among_the_images(tmp_path: Path, run: Command, model: Path, new: Path) -> None:
    run("score", model, new, "--out", new / "results").refused(5, new / "results", "choose another --out")
    assert not (new / "results").exists()


@pytest.mark.usefixtures("learned")
def test_the_example_lists_from_the_most_to_the_least_abnormal(
    tmp_path: Path, healthy: Path, new: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["own_folder.py", str(healthy), str(new)])
    runpy.run_path(str(EXAMPLE))
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[1] for line in lines} == {f"{new}/a/1.png", f"{new}/a/2.png", f"{new}/b.tif"}
    anomalies = [float(line.split()[0]) for line in lines]
    assert anomalies == sorted(anomalies, reverse=True)
    assert (tmp_path / "model/config.json").is_file()


# --- verdicts


SCORES = ("scores.csv", "verdicts.json", "regions.csv", "patients.csv", "calibration.csv")


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, draw: Draw) -> Path:
    """Five images of four patients: ann's second, and all of carl, has a bright square. Not to be written to."""
    folder = tmp_path_factory.mktemp("data") / "study"
    for i, name in enumerate(("ann_1", "ann_2", "bob_1", "carl_1", "dora_1")):
        path = draw(folder / f"{name}.png", seed=400 + i, size=(48, 60) if name == "bob_1" else (48, 48))
        if name in ("ann_2", "carl_1"):
            pixels = np.asarray(Image.open(path)).copy()
            pixels[16:28, 20:34] = 255 - 20 * i
            Image.fromarray(pixels).save(path)
    return folder


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory, run: Command, calibrated: Path, study: Path) -> Path:
    """What `score --alpha .2 --group` says of the study. Not to be written to."""
    out = tmp_path_factory.mktemp("results") / "judged"
    ran = run("score", calibrated, study, "--out", out, "--alpha", 0.2, "--group", "^([a-z]+)_")
    assert ran.code == 0 and not ran.stderr, ran
    return out


def test_p_values_are_those_of_the_calibration_that_is_written_beside_them(judged: Path) -> None:
    """Computed by hand, and by `p_values`, from nothing but the two tables."""
    healthy, rows = rows_of(judged / "calibration.csv"), table(judged)
    assert len(healthy) == 24 and len({row["patient"] for row in healthy}) == 21
    scores = np.array([row["anomaly"] for row in healthy], np.float32)
    own = np.array([row["anomaly"] for row in rows], np.float32)
    names = np.array([row["patient"] for row in healthy])
    found = p_values(own, scores, np.unique(names, return_inverse=True)[1])
    assert [row["p_value"] for row in rows] == [f"{value:.6g}" for value in found]
    for row, score in zip(rows, own, strict=True):
        shares = [np.mean(scores[names == name] >= score) for name in set(names)]
        assert float(row["p_value"]) == pytest.approx((1 + sum(shares)) / 22, rel=1e-5)
    assert len(set(found)) > 2, "there is something to tell apart"


def test_the_calibration_beside_the_scores_is_the_model_s(judged: Path, calibrated: Path) -> None:
    (setup,) = calibrated_setups(calibrated)
    known, rows = read_calibration(calibrated, setup), rows_of(judged / "calibration.csv")
    assert [row["image"] for row in rows] == list(known.images)
    assert [int(row["patient"]) for row in rows] == list(known.patient_of), "a number, and no name"
    for name, values in {"anomaly": known.anomaly, **known.features}.items():
        np.testing.assert_array_equal(np.array([row[name] for row in rows], np.float32), values, err_msg=name)
    facts = json.loads((judged / "verdicts.json").read_text())
    assert facts == {
        "schema": 1,
        "model": model_hash(calibrated),
        "setup": "rule=combined",
        "alpha": 0.2,
        "procedure": "bh",
        "pixel_size": None,
        "calibration": {"images": 24, "patients": 21, "smallest_p_value": 1 / 22},
    }


def test_figures_of_the_spectrum_have_the_names_that_the_calibration_gives_them(judged: Path) -> None:
    """What `priorlens monitor` relies on: every figure of a scan can be found among those of the healthy images."""
    named = set(rows_of(judged / "calibration.csv")[0])
    spectrum = rows_of(judged / "spectrum.csv")
    assert len(spectrum) == 5 * 15
    for row in spectrum:
        where = f"stride={float(row['stride']):g},sigma={float(row['sigma']):g}"
        assert {f"{name}@{where}" for name in list(row)[3:]} <= named
    assert {"s8", "s16", "s32", *ACQUISITION} <= named & set(table(judged)[0])


def test_verdicts_are_whether_the_p_value_is_at_most_alpha(judged: Path) -> None:
    rows = table(judged)
    assert list(rows[0])[:6] == ["file", "patient", "anomaly", "p_value", "verdict", "regions"]
    assert [row["patient"] for row in rows] == ["ann", "ann", "bob", "carl", "dora"]
    for row in rows:
        assert row["verdict"] == ("abnormal" if float(row["p_value"]) <= 0.2 else "usual")
    assert {row["verdict"] for row in rows} == {"abnormal", "usual"}


def regions_by_hand(
    out: Path, model: Path, name: str, alpha: float, procedure: Procedure = "bh"
) -> tuple[list[Region], np.ndarray]:
    """From the map that was written and the model's calibration."""
    anomaly_map = np.load(out / f"maps/{name}.npy")
    known = read_calibration(model, "rule=combined")
    return find_regions(anomaly_map, flag(block_means(anomaly_map), known.healthy_blocks, alpha, procedure))


def test_regions_are_those_of_the_map(judged: Path, calibrated: Path) -> None:
    listed = rows_of(judged / "regions.csv")
    columns = ["file", "region", "unit", "centre_row", "centre_column", "size", "peak", "mean", "q_value"]
    assert listed and list(listed[0]) == columns
    for row in table(judged):
        own = [one for one in listed if one["file"] == row["file"]]
        regions, labels = regions_by_hand(judged, calibrated, Path(row["file"]).stem, 0.2)
        assert len(own) == len(regions) == labels.max(initial=0) == int(row["regions"])
        anomaly_map = np.load(judged / f"maps/{Path(row['file']).stem}.npy")
        for number, one in enumerate(own, 1):
            inside = labels == number
            centre = np.argwhere(inside).mean(0)
            assert int(one["region"]) == number and one["unit"] == "px" and float(one["size"]) == inside.sum()
            np.testing.assert_allclose([float(one["centre_row"]), float(one["centre_column"])], centre, atol=0.006)
            assert float(one["peak"]) == pytest.approx(anomaly_map[inside].max(), rel=1e-5)
            assert float(one["mean"]) == pytest.approx(anomaly_map[inside].mean(dtype=float), rel=1e-5)
            assert 1 / 22 - 1e-6 <= float(one["q_value"]) <= 0.2
    order = [(row["file"], int(row["region"])) for row in listed]
    files = [row["file"] for row in table(judged)]
    assert order == sorted(order, key=lambda pair: (files.index(pair[0]), pair[1]))


def test_regions_are_there_as_a_layer_too(judged: Path, calibrated: Path) -> None:
    """Where there are some: each pixel has the number of its region, as the table counts them."""
    for row in table(judged):
        name = Path(row["file"]).stem
        path = judged / f"segmentations/{name}.png"
        assert path.is_file() == (int(row["regions"]) > 0)
        if path.is_file():
            with Image.open(path) as picture:
                assert picture.mode == "I;16"
                np.testing.assert_array_equal(np.asarray(picture), regions_by_hand(judged, calibrated, name, 0.2)[1])
    assert (judged / "segmentations").is_dir() and not (judged / "truth").exists()


def test_patients_are_judged_by_their_highest_image(judged: Path) -> None:
    rows = rows_of(judged / "patients.csv")
    assert list(rows[0]) == ["patient", "images", "anomaly", "p_value", "verdict"]
    assert [(row["patient"], row["images"]) for row in rows] == [
        ("ann", "2"),
        ("bob", "1"),
        ("carl", "1"),
        ("dora", "1"),
    ]
    healthy, scores = rows_of(judged / "calibration.csv"), table(judged)
    highest: dict[str, float] = {}
    for row in healthy:
        highest[row["patient"]] = max(highest.get(row["patient"], -np.inf), float(row["anomaly"]))
    for row in rows:
        own = max(float(one["anomaly"]) for one in scores if one["patient"] == row["patient"])
        assert float(row["anomaly"]) == own
        p_value = (1 + sum(value >= own for value in highest.values())) / 22
        assert float(row["p_value"]) == pytest.approx(p_value, rel=1e-5)
        assert row["verdict"] == ("abnormal" if p_value <= 0.2 else "usual")


def test_an_image_s_verdict_does_not_depend_on_those_beside_it(
    tmp_path: Path, run: Command, calibrated: Path, study: Path, judged: Path
) -> None:
    together = {Path(row["file"]).name: row for row in table(judged)}
    listed = rows_of(judged / "regions.csv")
    for name in ("ann_2", "carl_1", "dora_1"):
        out = tmp_path / name
        path = study / f"{name}.png"
        assert run("score", calibrated, path, "--out", out, "--alpha", 0.2, "--no-overlays").code == 0
        (row,) = table(out)
        for column in ("p_value", "verdict", "regions"):
            assert row[column] == together[path.name][column], (name, column)
        alone = rows_of(out / "regions.csv")
        beside = [one for one in listed if one["file"] == str(path)]
        for one, other in zip(alone, beside, strict=True):
            assert [one[c] for c in ("region", "centre_row", "centre_column", "size")] == [
                other[c] for c in ("region", "centre_row", "centre_column", "size")
            ]
            assert float(one["q_value"]) == pytest.approx(float(other["q_value"]), rel=1e-4)


def test_without_alpha_there_are_p_values_and_no_verdicts(
    tmp_path: Path, run: Command, calibrated: Path, study: Path, judged: Path
) -> None:
    out = tmp_path / "out"
    ran = run("score", calibrated, study, "--out", out)
    assert ran.code == 0 and not ran.stderr, ran
    rows = table(out)
    assert list(rows[0])[:4] == ["file", "anomaly", "p_value", "s8"]
    assert [row["p_value"] for row in rows] == [row["p_value"] for row in table(judged)]
    assert json.loads((out / "verdicts.json").read_text())["alpha"] is None
    assert sorted(path.name for path in out.iterdir()) == [
        *("calibration.csv", "images", "maps", "model.json", "overlays"),
        *("report.html", "run.sqlite", "scores.csv", "spectrum.csv", "verdicts.json"),
    ]


def test_regions_in_millimetres(tmp_path: Path, run: Command, calibrated: Path, study: Path, judged: Path) -> None:
    out = tmp_path / "out"
    options = ("--alpha", 0.2, "--pixel-size", 0.5, "--no-overlays")
    assert run("score", calibrated, study, "--out", out, *options).code == 0
    assert json.loads((out / "verdicts.json").read_text())["pixel_size"] == 0.5
    found, pixels = rows_of(out / "regions.csv"), rows_of(judged / "regions.csv")
    assert list(found[0])[2:6] == ["unit", "centre_x", "centre_y", "size"]
    for one, other in zip(found, pixels, strict=True):
        assert one["unit"] == "mm" and float(one["size"]) == pytest.approx(float(other["size"]) / 4)
        assert float(one["centre_x"]) == pytest.approx(float(other["centre_column"]) / 2, abs=0.01)
        assert float(one["centre_y"]) == pytest.approx(float(other["centre_row"]) / 2, abs=0.01)


@pytest.mark.parametrize("procedure", ["by", "max"])
def test_another_procedure_flags_other_regions(
    tmp_path: Path, run: Command, calibrated: Path, study: Path, procedure: Procedure
) -> None:
    out = tmp_path / "out"
    options = ("--alpha", 0.3, "--fdr", procedure, "--no-overlays")
    assert run("score", calibrated, study, "--out", out, *options).code == 0
    assert json.loads((out / "verdicts.json").read_text())["procedure"] == procedure
    for row in table(out):
        regions, _ = regions_by_hand(out, calibrated, Path(row["file"]).stem, 0.3, procedure)
        assert int(row["regions"]) == len(regions)


def test_a_broken_image_has_no_verdict_and_its_patient_s_others_have(
    tmp_path: Path, run: Command, calibrated: Path, study: Path
) -> None:
    new = shutil.copytree(study, tmp_path / "study")
    (new / "ann_2.png").write_bytes(b"")
    (new / "dora_1.png").write_bytes(b"")
    out = tmp_path / "out"
    options = ("--alpha", 0.2, "--group", "^([a-z]+)_", "--no-overlays")
    assert run("score", calibrated, new, "--out", out, *options).code == 7
    rows = {Path(row["file"]).stem: row for row in table(out)}
    for name in ("ann_2", "dora_1"):
        broken = rows[name]
        assert broken["patient"] == name[:-2] and "is empty" in broken["error"]
        assert not any(value for column, value in broken.items() if column not in ("file", "patient", "error"))
    assert rows["ann_1"]["p_value"] and rows["ann_1"]["error"] == ""
    assert [(row["patient"], row["images"]) for row in rows_of(out / "patients.csv")] == [
        *(("ann", "1"), ("bob", "1"), ("carl", "1"), ("dora", "0"))
    ]


def test_patients_may_come_from_a_manifest_and_are_told_without_alpha_too(
    tmp_path: Path, run: Command, calibrated: Path, study: Path
) -> None:
    new = shutil.copytree(study, tmp_path / "study")
    (new / "list.csv").write_text('file,group\nann_1.png,"x, y"\ncarl_1.png,"x, y"\nbob_1.png,z\n')
    ran = run("score", calibrated, "--manifest", new / "list.csv", "--out", tmp_path / "out", "--no-overlays")
    assert ran.code == 0, ran
    rows = rows_of(tmp_path / "out/patients.csv")
    assert list(rows[0]) == ["patient", "images", "anomaly", "p_value"]
    assert [(row["patient"], row["images"]) for row in rows] == [("x, y", "2"), ("z", "1")]


def test_nothing_of_an_earlier_verdict_stays_beside_scores_without_one(
    tmp_path: Path, run: Command, calibrated: Path, study: Path, judged: Path
) -> None:
    out = shutil.copytree(judged, tmp_path / "out")
    assert {path.name for path in out.iterdir()} >= set(SCORES)
    ran = run("score", calibrated, study, "--out", out, "--overwrite", "--rule", "standardised", "--no-overlays")
    assert ran.code == 0 and "is not calibrated for rule=standardised" in ran.stderr, ran
    assert {path.name for path in out.iterdir()} & set(SCORES) == {"scores.csv"}
    assert "p_value" not in table(out)[0]


def test_stopped_with_ctrl_c_the_verdicts_are_those_of_the_table(
    tmp_path: Path, run: Command, calibrated: Path, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score_cases = scoring.score_cases

    def stopped(detector: object, cases: list[object]) -> Iterator[object]:
        yield from score_cases(detector, cases[:2])
        raise KeyboardInterrupt

    monkeypatch.setattr(scoring, "score_cases", stopped)
    out = tmp_path / "out"
    options = ("--alpha", 0.2, "--group", "^([a-z]+)_", "--no-overlays")
    line = "stopped after 2 of 5 images; the same command goes on"
    run("score", calibrated, study, "--out", out, *options).refused(130, line)
    assert [row["patient"] for row in table(out)] == ["ann", "ann"]
    assert [(row["patient"], row["images"]) for row in rows_of(out / "patients.csv")] == [("ann", "2")]
    assert {row["file"] for row in rows_of(out / "regions.csv")} <= {row["file"] for row in table(out)}


def test_pictures_outline_the_regions(judged: Path) -> None:
    for row in table(judged):
        picture = np.asarray(Image.open(judged / f"overlays/{Path(row['file']).stem}.png")).astype(int)
        last = picture[32 : 32 + 240, -12 - 240 :]
        assert (np.abs(last - CALLED).max(-1) < 30).any() == (int(row["regions"]) > 0)


def test_a_patient_with_more_images_than_any_of_the_calibration_has_no_p_value(
    tmp_path: Path, run: Command, calibrated: Path, study: Path
) -> None:
    """Of the calibration no patient has more than two images."""
    out = tmp_path / "out"
    options = ("--alpha", 0.2, "--group", "^[a-z]*(_)", "--no-overlays")
    ran = run("score", calibrated, study, "--out", out, *options)
    assert ran.code == 0 and "1 of 1 patients have more images" in ran.stderr and "calibrate with --group" in ran.stderr
    (row,) = rows_of(out / "patients.csv")
    assert (row["images"], row["p_value"], row["verdict"]) == ("5", "", "") and float(row["anomaly"])


def test_images_that_the_model_has_met_or_of_another_size_are_told(
    tmp_path: Path, run: Command, calibrated: Path, more: Path, draw: Draw
) -> None:
    large = draw(tmp_path / "large.png", size=(200, 200))
    ran = run("score", calibrated, next(more.iterdir()), large, "--out", tmp_path / "out", "--no-overlays")
    assert ran.code == 0 and "fitted to or calibrated on it; its p-value means nothing" in ran.stderr
    assert f"{large}: is more than twice as large" in ran.stderr
