"""`priorlens score`: the table, the maps, the pictures."""

from __future__ import annotations

import csv
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import Command, Draw
from PIL import Image

from priorlens.anodode import RULES

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
    assert list(rows[0]) == ["file", "anomaly", "s8", "s16", "s32", "nfe", "seconds", "error"]
    for row, name, size in zip(rows, ("a/1", "a/2", "b"), ((48, 48), (70, 33), (48, 48)), strict=True):
        assert all(np.isfinite(float(row[column])) for column in list(row)[1:-1])
        assert int(row["nfe"]) > 0 and row["error"] == ""
        anomaly_map = np.load(out / f"maps/{name}.npy", allow_pickle=False)
        assert anomaly_map.shape == size and anomaly_map.dtype == np.float32 and np.isfinite(anomaly_map).all()
        with Image.open(out / f"overlays/{name}.png") as picture:
            assert picture.width > 500
    assert sorted(path.name for path in out.iterdir()) == ["maps", "overlays", "scores.csv"]


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
    assert ran.code == 0 and not (out / "overlays").exists()
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


def test_overwriting_leaves_nothing_of_the_earlier_run_under_the_same_name(
    tmp_path: Path, run: Command, model: Path, new: Path
) -> None:
    out = tmp_path / "out"
    assert run("score", model, new, "--out", out).code == 0
    (out / "mine.txt").write_text("not to be touched")
    (new / "b.tif").write_bytes(b"damaged since")
    assert run("score", model, new, "--out", out, "--overwrite").code == 7
    assert (out / "maps/a/1.npy").is_file() and (out / "overlays/a/1.png").is_file()
    assert not (out / "maps/b.npy").exists() and not (out / "overlays/b.png").exists()
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
