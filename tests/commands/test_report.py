"""`priorlens report`, and the pages that other commands write by themselves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Command, Draw

from made_results import add_evaluation, write_results, write_watch


def test_a_page_beside_the_results_or_elsewhere(tmp_path: Path, run: Command) -> None:
    folder = write_results(tmp_path / "out", ["a.png", "b.png"])
    ran = run("report", folder)
    assert ran.code == 0 and str(folder / "report.html") in ran.stdout, ran
    first = (folder / "report.html").read_text()
    run("report", folder).refused(5, folder / "report.html", "is there already", "--overwrite")
    assert run("report", folder, "--overwrite").code == 0
    assert run("report", folder, "--out", tmp_path / "new/page.html").code == 0
    assert first == (folder / "report.html").read_text() == (tmp_path / "new/page.html").read_text()
    assert not list(tmp_path.rglob("*.partial"))


def test_names_are_hidden_if_asked(tmp_path: Path, run: Command) -> None:
    folder = write_results(tmp_path / "out", ["anna.png"], patients=["Anna"])
    assert run("report", folder, "--hide-identifiers").code == 0
    assert "anna" not in (folder / "report.html").read_text().lower()


def test_what_cannot_be_reported(tmp_path: Path, run: Command) -> None:
    (tmp_path / "empty").mkdir()
    run("report", tmp_path / "nowhere").refused(3, tmp_path / "nowhere", "no such folder")
    run("report", tmp_path / "empty").refused(3, tmp_path / "empty", "holds no scores.csv")
    folder = add_evaluation(write_results(tmp_path / "out", ["good/a.png"], overlays=False), 1, 0)
    run("report", folder, "--out", tmp_path / "empty").refused(5, tmp_path / "empty", "is a folder")
    (folder / "metrics.json").write_text('{"schema": 2}')
    run("report", folder).refused(3, folder / "metrics.json", "has schema 2", "upgrade priorlens")
    (folder / "metrics.json").write_text("{")
    run("report", folder).refused(3, folder / "metrics.json", "is damaged")
    assert not (folder / "report.html").exists()


def test_a_monitor_folder(tmp_path: Path, run: Command) -> None:
    folder = write_watch(tmp_path / "watch", alarm=True)
    assert run("report", folder).code == 0
    assert "Alarm at scan 30" in (folder / "report.html").read_text()


def test_score_writes_the_page_and_the_card(tmp_path: Path, run: Command, calibrated: Path, draw: Draw) -> None:
    for i in range(3):
        draw(tmp_path / f"new/{i}.png", seed=50 + i)
    (tmp_path / "new/broken.png").write_bytes(b"none")
    out = tmp_path / "out"
    ran = run("score", calibrated, tmp_path / "new", "--out", out, "--alpha", 0.05)
    assert ran.code == 7, ran
    text = (out / "report.html").read_text()
    assert "3 images scored, 1 could not be used" in text and "Smallest p-value" in text and "Not fit" not in text
    card = json.loads((out / "model.json").read_text())
    shown = json.loads(run("inspect", calibrated, "--json").stdout)
    assert card.pop("schema") == 1 and card.pop("setup") == "rule=combined" and card.pop("map_unit") == "bit"
    scale = card.pop("map_scale")
    assert scale["low"] < scale["threshold"] < scale["high"] and card == shown
    assert str(tmp_path) not in (out / "model.json").read_text() and str(tmp_path) not in text
    ran = run("score", calibrated, tmp_path / "new/0.png", "--out", out, "--overwrite", "--no-report")
    assert ran.code == 0 and not (out / "report.html").exists(), "an earlier page is not taken for one of this run"


@pytest.mark.parametrize("planted", ["option", "file", "no"])
def test_evaluate_writes_the_page_and_the_curves(
    tmp_path: Path, run: Command, calibrated: Path, dataset: Path, planted: str
) -> None:
    out = tmp_path / "out"
    if planted == "file":
        (dataset / "planted").touch()
    options = ["--planted"] if planted == "option" else []
    ran = run("evaluate", calibrated, dataset, "--out", out, "--bootstrap", 20, *options)
    assert ran.code == 0, ran
    curves = json.loads((out / "curves.json").read_text())
    assert curves["schema"] == 1 and {one["level"] for one in curves["curves"]} == {"image", "pixel"}
    lengths = {len(one[name]) for one in curves["curves"] for name in ("tpr", "precision", "tpr_low", "precision_high")}
    assert lengths == {len(curves["grid"])}
    assert json.loads((out / "metrics.json").read_text()).get("planted", False) == (planted != "no")
    text = (out / "report.html").read_text()
    assert ("are planted" in text) == (planted != "no") and "Worst misses" in text and "ROC, pixels" in text
    assert text.count("<template") == 6 and text.count("data:image/webp") == 6
