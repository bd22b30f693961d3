"""`priorlens figure`: what it takes, what it refuses, and that it reads what `score` and `evaluate` write."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from command_line import Command, Draw
from PIL import Image

from made_results import add_evaluation, write_results, write_scan_results, write_watch


def texts(path: Path) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", path.read_text())


def labels(path: Path) -> list[str]:
    """Of the rows, from above: what ends like a file, or is a hidden name."""
    return [text for text in texts(path) if re.fullmatch(r".*\.png|case \d+", text)]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    names = [f"{letter}.png" for letter in "abcdef"]
    return write_results(tmp_path / "results", names, layers=True, truth=True, failed=[4])


def test_the_most_abnormal_cases_unless_others_are_named(tmp_path: Path, run: Command, results: Path) -> None:
    out = tmp_path / "new/figure.svg"
    ran = run("figure", results, "--out", out)
    assert ran.code == 0 and ran.stderr == "" and f"{out}: 4 cases, 18.0 x" in ran.stdout, ran
    assert "Colours: surprise from 0 to 3" in ran.stdout and "dashed blue, truth" in ran.stdout
    p_values = [float(text.removeprefix("p = ")) for text in texts(out) if text.startswith("p = ")]
    assert p_values == sorted(p_values) and len(labels(out)) == 4
    ran = run("figure", results, "--out", out, "--overwrite", "--cases", "c.png,1", "--cases", "b")
    assert ran.code == 0 and labels(out) == ["c.png", "a.png", "b.png"]
    ran = run("figure", results, "--out", out, "--overwrite", "--top", 1, "--no-scores")
    assert ran.code == 0 and len(labels(out)) == 1 and not any("p = " in text for text in texts(out))
    assert not list(tmp_path.rglob("*.partial"))


def test_labels_and_hidden_names(tmp_path: Path, run: Command, results: Path) -> None:
    out = tmp_path / "figure.svg"
    ran = run("figure", results, "--out", out, "--cases", "3,a.png", "--hide-identifiers")
    assert ran.code == 0 and labels(out) == ["case 3", "case 1"] and "a.png" not in out.read_text() + ran.stdout
    options = ["--out", out, "--overwrite", "--cases", "3,1"]
    assert run("figure", results, *options, "--labels", "left, right").code == 0
    assert {"left", "right"} <= set(texts(out)) and not labels(out)
    assert run("figure", results, *options, "--labels", "A, then", "--labels", "B").code == 0
    assert {"A, then", "B"} <= set(texts(out))
    ran = run("figure", results, *options, "--labels", "A,B,C")
    assert ran.code == 2 and "there are 3 for 2 cases" in ran.stderr


def test_equal_results_give_equal_files(tmp_path: Path, run: Command, results: Path) -> None:
    for suffix in (".pdf", ".svg", ".png", ".PDF"):
        paths = [tmp_path / f"{number}{suffix}" for number in (1, 2)]
        for path in paths:
            assert run("figure", results, "--out", path, "--top", 2).code == 0
        assert paths[0].read_bytes() == paths[1].read_bytes() != b""


def test_size_and_dots(tmp_path: Path, run: Command, results: Path) -> None:
    out = tmp_path / "figure.png"
    ran = run("figure", results, "--out", out, "--width", 12.7, "--dpi", 100, "--cases", 1, "--pixel-size", 0.5)
    assert ran.code == 0 and "12.7 x" in ran.stdout
    assert Image.open(out).width == 500
    for option, value in (("--width", 1), ("--dpi", 5), ("--pixel-size", 0), ("--pixel-size", "nan"), ("--top", 0)):
        ran = run("figure", results, "--out", tmp_path / "other.png", option, value)
        assert ran.code == 2 and option in ran.stderr and not (tmp_path / "other.png").exists()


def test_planted_lesions_are_called_so(tmp_path: Path, run: Command) -> None:
    folder = write_results(tmp_path / "out", ["good/a.png", "lesion/b.png"], layers=True, truth=True)
    for planted in (True, False):
        add_evaluation(folder, 1, 1, planted=planted)
        out = tmp_path / f"{planted}.svg"
        ran = run("figure", folder, "--out", out)
        assert ran.code == 0 and ("are planted" in ran.stdout) == planted
        assert texts(out).count("planted lesion") == planted and ("planted" in texts(out)) == planted


def test_reconstructions_are_a_further_column(tmp_path: Path, run: Command, results: Path) -> None:
    options = ["--reconstruction", "--cases", "1,2"]
    run("figure", results, "--out", tmp_path / "no.svg", *options).refused(3, results, "holds no reconstructions")
    (results / "reconstructions").mkdir()
    np.save(results / "reconstructions/a.npy", np.random.default_rng(0).uniform(size=(1, 40, 56)))
    assert run("figure", results, "--out", tmp_path / "yes.svg", *options).code == 0
    assert "reconstruction" in texts(tmp_path / "yes.svg")
    assert (tmp_path / "yes.svg").read_text().count("<image") == 4 + 3 + 1, "the second case has none; the colour bar"


def test_slices_of_scans(tmp_path: Path, run: Command) -> None:
    folder, out = write_scan_results(tmp_path / "scans"), tmp_path / "figure.svg"
    ran = run("figure", folder, "--out", out, "--cases", "bert,anna", "--slice", 6, "--slice", 2)
    assert ran.code == 0 and "the right is on the left" in ran.stdout, ran
    found = [text for text in texts(out) if text.startswith("slice ")]
    assert found == ["slice 6", "slice 2"] and texts(out).count("R") == 2 and "10 mm" in texts(out)
    ran = run("figure", folder, "--out", out, "--overwrite", "--slice", 6)
    assert ran.code == 2 and "there are 1 for 2 cases" in ran.stderr
    options = ["--overwrite", "--cases", 1, "--slice", 12]
    run("figure", folder, "--out", out, *options).refused(3, folder, "slices 0 to 11, not 12", "--slice")


def test_what_cannot_be_drawn(tmp_path: Path, run: Command, results: Path) -> None:
    out = tmp_path / "figure.svg"
    run("figure", tmp_path / "nowhere", "--out", out).refused(3, tmp_path / "nowhere", "no such folder")
    (tmp_path / "empty").mkdir()
    run("figure", tmp_path / "empty", "--out", out).refused(3, tmp_path / "empty", "holds no scores.csv")
    watch = write_watch(tmp_path / "watch", alarm=True)
    run("figure", watch, "--out", out).refused(3, watch, "is of a monitor")
    old = write_results(tmp_path / "old", ["a.png"])
    run("figure", old, "--out", out).refused(3, old / "images", "score again without --no-overlays")
    for wanted, *said in (("zebra", "has no case zebra"), ("5", "case 5 could not be scored", "choose another")):
        run("figure", results, "--out", out, "--cases", wanted).refused(3, results, *said)
    (results / "maps/a.npy").write_bytes(b"nothing")
    run("figure", results, "--out", out, "--cases", "1").refused(3, results / "maps/a.npy", "damaged")
    assert run("figure", results, "--out", out, "--cases", "1", "--top", "2").code == 2
    assert not out.exists()


def test_where_it_cannot_be_written(tmp_path: Path, run: Command, results: Path) -> None:
    for name in ("figure.jpg", "figure", "figure.pdf.txt"):
        run("figure", results, "--out", tmp_path / name).refused(5, tmp_path / name, ".pdf .svg .png")
    (tmp_path / "folder.pdf").mkdir()
    run("figure", results, "--out", tmp_path / "folder.pdf").refused(5, "is a folder")
    there = tmp_path / "there.pdf"
    there.write_text("mine")
    run("figure", results, "--out", there).refused(5, there, "is there already", "--overwrite")
    assert there.read_text() == "mine"
    assert run("figure", results, "--out", there, "--overwrite").code == 0 and there.read_bytes()[:4] == b"%PDF"


def test_names_are_not_evaluated(tmp_path: Path, run: Command) -> None:
    names = ["a_$x^2$.png", "$\\frac{.png", "日本.png"]
    folder = write_results(tmp_path / "out", names, layers=True)
    ran = run("figure", folder, "--out", tmp_path / "figure.svg", "--cases", "1,2,3")
    assert ran.code == 0 and ran.stderr == "" and labels(tmp_path / "figure.svg") == names
    ran = run("figure", folder, "--out", tmp_path / "figure.pdf", "--labels", "$1$,\\2,%3", "--top", 3)
    assert ran.code == 0 and ran.stderr == ""


def test_of_what_evaluate_writes(tmp_path: Path, run: Command, calibrated: Path, dataset: Path, draw: Draw) -> None:
    out = tmp_path / "out"
    ran = run("evaluate", calibrated, dataset, "--out", out, "--bootstrap", 20, "--alpha", 0.3)
    assert ran.code == 0, ran
    picture = tmp_path / "figure.png"
    ran = run("figure", out, "--out", picture, "--cases", "lesion/0.png,good/1.png", "--pixel-size", 1, "--dpi", 100)
    assert ran.code == 0 and "surprise (bits)" in ran.stdout and "healthy images" in ran.stdout, ran
    assert "dashed blue, truth" in ran.stdout and "regions at alpha 0.3" in ran.stdout
    pixels = np.asarray(Image.open(io.BytesIO(picture.read_bytes())).convert("RGB")).astype(int)
    blue = (np.abs(pixels - [86, 180, 233]).max(axis=-1) < 40).sum()
    assert blue > 50, "the truth is drawn"


def test_of_what_scoring_scans_writes(tmp_path: Path, run: Command, mr_model: Path, heads: Path) -> None:
    out = tmp_path / "out"
    assert run("score", mr_model, heads / "h0.nii.gz", "--out", out).code == 0
    ran = run("figure", out, "--out", tmp_path / "figure.svg")
    assert ran.code == 0 and "R and L" in ran.stdout, ran
    found = texts(tmp_path / "figure.svg")
    assert {"R", "L", "20 mm"} <= set(found) and any(text.startswith("slice ") for text in found)
