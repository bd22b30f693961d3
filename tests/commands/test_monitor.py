"""`priorlens monitor` on folders as `priorlens score` writes them: what it tells, and each bad input."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from command_line import Command
from PIL import Image

from priorlens.outputs import write_json, write_rows

SIGMAS = (0.5, 2.0)
FEATURES = [f"bits@sigma={sigma:g}" for sigma in SIGMAS]
Write = Callable[..., Path]


def readings(rng: np.random.Generator, scans: int) -> np.ndarray:
    """An anomaly and two bits for each scan."""
    return rng.standard_normal((scans, 1 + len(SIGMAS))) + rng.standard_normal((scans, 1))


@pytest.fixture
def scored(tmp_path: Path) -> Write:
    """Writes a folder of results with 60 calibration images, and says where."""

    def write(
        name: str,
        scans: int = 40,
        *,
        seed: int = 0,
        shift: float = 0.0,
        patients: Sequence[str] | None = None,
        model: str = "ab",
        healthy_seed: int = 99,
    ) -> Path:
        out = tmp_path / name
        out.mkdir()
        found = readings(np.random.default_rng(seed), scans) + shift
        files = [f"{name}/{i:03d}.png" for i in range(scans)]
        whose = [[patient] for patient in patients] if patients else [[]] * scans
        rows = [[file, *p, one[0], 0.5, 3, 0.1, ""] for file, p, one in zip(files, whose, found, strict=True)]
        columns = ["file", *(["patient"] if patients else []), "anomaly", "p_value", "nfe", "seconds", "error"]
        write_rows(out / "scores.csv", columns, rows)
        bits = [[f, s, v, 7] for f, one in zip(files, found, strict=True) for s, v in zip(SIGMAS, one[1:], strict=True)]
        write_rows(out / "spectrum.csv", ["file", "sigma", "bits", "other"], bits)
        healthy = readings(np.random.default_rng(healthy_seed), 60)
        known = [[f"{i:032x}", f"{i // 2 if patients else i:032x}", *one] for i, one in enumerate(healthy)]
        write_rows(out / "calibration.csv", ["image", "patient", "anomaly", *FEATURES], known)
        write_json(out / "verdicts.json", {"schema": 1, "model": model, "setup": "rule=combined", "alpha": 0.05})
        return out

    return write


@pytest.fixture
def table(tmp_path: Path) -> Write:
    """Writes a table of times, and says where."""

    def write(rows: Sequence[Sequence[object]], columns: Sequence[str] = ("file", "time")) -> Path:
        write_rows(tmp_path / "times.csv", columns, rows)
        return tmp_path / "times.csv"

    return write


def lines(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_an_alarm_is_told_in_table_summary_picture_and_exit_code(tmp_path: Path, run: Command, scored: Write) -> None:
    before, after = scored("before", 80), scored("after", 40, seed=1, shift=6)
    ran = run("monitor", before, after, "--out", tmp_path / "out")
    assert ran.code == 8 and not ran.stderr, ran
    facts = json.loads((tmp_path / "out/monitor.json").read_text())
    assert (facts["schema"], facts["alpha"], facts["unit"], facts["calibration"]) == (1, 0.05, "image", 60)
    assert facts["features"] == ["anomaly", *FEATURES] and (facts["model"], facts["setup"]) == ("ab", "rule=combined")
    [stream] = facts["streams"]
    assert stream["stream"] == "all" and stream["scans"] == 120 and stream["change"]["scan"] == 81
    assert stream["change"] == {"scan": 81, "file": "after/000.png", "time": None}
    assert stream["delay"] == stream["alarm"]["scan"] - 81 and 0 < stream["delay"] < 20
    assert all(one["direction"] == "higher" and one["shift"] > 2 for one in stream["moved"])
    rows = lines(tmp_path / "out/monitor.csv")
    assert list(rows[0]) == ["stream", "scan", "time", "file", "p_value", "capital", "alarm"] and len(rows) == 120
    assert [row["alarm"] for row in rows].index("1") + 1 == stream["alarm"]["scan"]
    assert float(rows[stream["alarm"]["scan"] - 1]["capital"]) >= 20
    assert f"ALARM at scan {stream['alarm']['scan']} of 120" in ran.stdout and "from scan 81 on" in ran.stdout
    with Image.open(tmp_path / "out/monitor.png") as picture:
        assert picture.width > 1000


def test_a_healthy_stream_ends_well(tmp_path: Path, run: Command, scored: Write) -> None:
    results = scored("results")
    ran = run("monitor", results, "--out", tmp_path / "out")
    assert ran.code == 0 and ran.stdout.count("\n") == 1 and "all: no alarm in 40 scans" in ran.stdout, ran
    [stream] = json.loads((tmp_path / "out/monitor.json").read_text())["streams"]
    assert (stream["alarm"], stream["change"], stream["delay"], stream["moved"]) == (None, None, None, [])
    run("monitor", results, "--out", tmp_path / "out").refused(5, "--overwrite")
    assert run("monitor", results, "--out", tmp_path / "out", "--overwrite").code == 0


def test_streams_are_watched_apart_in_the_order_of_time(
    tmp_path: Path, run: Command, scored: Write, table: Write
) -> None:
    well, ill = scored("well", 40), scored("ill", 40, seed=1, shift=6)
    taken = [(f"well/{i:03d}.png", f"2025-01-01T00:{i:02d}", "A") for i in reversed(range(40))]
    taken += [(f"ill/{i:03d}.png", f"2025-01-01T00:{i:02d}", "B $x") for i in range(40)]
    times = table(
        [*sorted(taken, key=lambda row: row[1]), ("unscored.png", "2026-01-01", "A")], ("file", "time", "stream")
    )
    ran = run("monitor", ill, well, "--times", times, "--out", tmp_path / "out")
    assert ran.code == 8 and "A: no alarm" in ran.stdout and "B $x: ALARM" in ran.stdout, ran
    rows = [row for row in lines(tmp_path / "out/monitor.csv") if row["stream"] == "A"]
    assert [row["file"] for row in rows] == [f"well/{i:03d}.png" for i in range(40)]
    assert rows[5]["time"] == "2025-01-01T00:05" and rows[5]["scan"] == "6"


def test_files_of_the_table_are_found_by_its_folder_or_by_name(
    tmp_path: Path, run: Command, scored: Write, table: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = scored("results", 3)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    times = table([("./results/002.png", 1), ("elsewhere/001.png", 2.5), ("results/000.png", 1e3)])
    assert run("monitor", results, "--times", times, "--out", tmp_path / "out").code == 0
    assert [row["file"][-7:] for row in lines(tmp_path / "out/monitor.csv")] == ["002.png", "001.png", "000.png"]
    times = table([("results/002.png", 1), ("a/001.png", 2), ("b/001.png", 3), ("results/000.png", 4)])
    ran = run("monitor", results, "--times", times, "--out", tmp_path / "no")
    ran.refused(3, times, "several files are named 001.png")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([("a/000.png", 1), ("a/001.png", 0), ("a/002.png", 2)], ("line 3", "earlier", "sort the table by time")),
        ([("a/000.png", 1), ("a/001.png", 2), ("a/002.png", 2)], ("a/001.png", "a/002.png", "same time 2")),
        ([("a/000.png", 1), ("a/001.png", 2)], ("no line for a/002.png",)),
        ([("a/000.png", 1), ("a/000.png", 2), ("a/002.png", 3)], ("line 3", "a second time")),
        ([("a/000.png", 1), ("a/001.png", "2025-01-01"), ("a/002.png", 3)], ("line 3", "same way")),
        ([("a/000.png", "2025-01-01"), ("a/001.png", "2025-01-02T00:00Z")], ("line 3", "same way")),
        ([("a/000.png", "noon")], ("line 2", "noon", "2025-03-31T14:05")),
        ([("a/000.png", "nan")], ("line 2", "is no time")),
        ([("a/000.png", "")], ("line 2", "no time")),
    ],
)
def test_a_table_of_times_that_cannot_be_used(
    tmp_path: Path, run: Command, scored: Write, table: Write, rows: list[tuple[str, object]], said: tuple[str, ...]
) -> None:
    results, times = scored("a", 3), table(rows)
    run("monitor", results, "--times", times, "--out", tmp_path / "out").refused(3, times, *said)
    assert not (tmp_path / "out").exists()


def test_files_that_are_no_table_of_times(tmp_path: Path, run: Command, scored: Write, table: Write) -> None:
    results, out = scored("a", 3), ("--out", tmp_path / "out")
    run("monitor", results, "--times", tmp_path / "none.csv", *out).refused(3, "none.csv", "check the path")
    run("monitor", results, "--times", table([("x", 1)], ("name", "time")), *out).refused(3, "no column file")
    (tmp_path / "times.csv").write_bytes(b"file,time\n\xff,1\n")
    run("monitor", results, "--times", tmp_path / "times.csv", *out).refused(3, "times.csv", "UTF-8")
    (tmp_path / "times.csv").write_text("file,time\na/000.png\n")
    run("monitor", results, "--times", tmp_path / "times.csv", *out).refused(3, "line 2", "too few columns")


def test_images_of_a_patient_are_one_scan(tmp_path: Path, run: Command, scored: Write, table: Write) -> None:
    patients = ["x", "y", "x", "", "", "y"]
    results = scored("a", 6, patients=patients)
    ran = run("monitor", results, "--out", tmp_path / "out")
    assert ran.code == 0 and not ran.stderr, ran
    facts = json.loads((tmp_path / "out/monitor.json").read_text())
    assert (facts["unit"], facts["calibration"]) == ("patient", 30)
    assert [row["file"] for row in lines(tmp_path / "out/monitor.csv")] == [f"a/{i:03d}.png" for i in (0, 1, 3, 4)]
    times = table([("a/005.png", 1), *((f"a/{i:03d}.png", 2 if i in (0, 2) else 3 + i) for i in (0, 2, 1, 3, 4))])
    assert run("monitor", results, "--times", times, "--out", tmp_path / "timed").code == 0
    found = [(row["file"], row["time"]) for row in lines(tmp_path / "timed/monitor.csv")]
    assert found == [("a/005.png", "1"), ("a/000.png", "2"), ("a/003.png", "6"), ("a/004.png", "7")]


def test_several_images_of_healthy_patients_and_no_patient_in_the_stream_is_said(
    tmp_path: Path, run: Command, scored: Write
) -> None:
    results = scored("a", 6)
    shutil.copy(scored("b", 6, patients=list("uvwxyz")) / "calibration.csv", results)
    ran = run("monitor", results, "--out", tmp_path / "out")
    assert ran.code == 0 and "60 images of 30 patients" in ran.stderr and "--group" in ran.stderr, ran


def test_what_was_not_scored_or_not_by_all_is_left_out(tmp_path: Path, run: Command, scored: Write) -> None:
    results = scored("a", 6)
    rows = lines(results / "scores.csv")
    rows[2] |= {"anomaly": "", "error": "a/002.png: is empty"}
    write_rows(results / "scores.csv", list(rows[0]), [list(row.values()) for row in rows])
    bits = lines(results / "spectrum.csv")
    for row in bits:
        row["bits"] = "" if (row["file"], row["sigma"]) == ("a/001.png", "2.0") else row["bits"]
    write_rows(results / "spectrum.csv", list(bits[0]), [list(row.values()) for row in bits])
    ran = run("monitor", results, "--out", tmp_path / "out")
    assert ran.code == 0 and "1 images could not be scored" in ran.stderr, ran
    assert "1 features are not watched" in ran.stderr and "bits@sigma=2" in ran.stderr
    facts = json.loads((tmp_path / "out/monitor.json").read_text())
    assert facts["features"] == ["anomaly", "bits@sigma=0.5"] and facts["failed"] == 1
    assert facts["streams"][0]["scans"] == 5


def test_a_spectrum_that_lacks_lines_is_refused(tmp_path: Path, run: Command, scored: Write) -> None:
    results = scored("a", 6)
    bits = [row for row in lines(results / "spectrum.csv") if row["file"] != "a/001.png"]
    write_rows(results / "spectrum.csv", list(bits[0]), [list(row.values()) for row in bits])
    run("monitor", results, "--out", tmp_path / "out").refused(3, "spectrum.csv", "a/001.png", "score it again")


def test_without_a_spectrum_the_anomaly_is_watched(tmp_path: Path, run: Command, scored: Write) -> None:
    results = scored("a", 6)
    (results / "spectrum.csv").unlink()
    assert run("monitor", results, "--out", tmp_path / "out").code == 0
    assert json.loads((tmp_path / "out/monitor.json").read_text())["features"] == ["anomaly"]


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda a: shutil.rmtree(a), ("holds no scores.csv", "priorlens score")),
        (lambda a: (a / "calibration.csv").unlink(), ("without calibration", "priorlens calibrate MODEL HEALTHY")),
        (lambda a: (a / "verdicts.json").unlink(), ("without calibration", "priorlens calibrate MODEL HEALTHY")),
        (lambda a: (a / "verdicts.json").write_text("{"), ("verdicts.json", "damaged")),
        (lambda a: (a / "verdicts.json").write_text('{"schema": 1}'), ("verdicts.json", "damaged")),
        (
            lambda a: write_json(a / "verdicts.json", {"schema": 2, "model": "ab", "setup": "x"}),
            ("schema 2", "upgrade"),
        ),
        (lambda a: (a / "calibration.csv").write_text("image,anomaly\n"), ("calibration.csv", "no column patient")),
        (lambda a: (a / "calibration.csv").write_text("image,patient,anomaly\n"), ("lists no healthy image",)),
        (lambda a: (a / "calibration.csv").write_text("image,patient,anomaly\n0,0,\n"), ("has no anomaly",)),
        (lambda a: (a / "scores.csv").write_text("file,anomaly,error\n"), ("no scan was scored",)),
        (lambda a: (a / "scores.csv").write_text("file,anomaly,error\nx,,broken\n"), ("no scan was scored",)),
        (lambda a: (a / "scores.csv").write_text("file,anomaly,error\nx,high,\n"), ("line 2", "anomaly", "high")),
        (lambda a: (a / "scores.csv").write_text("file,anomaly,error\nx,1,\nx,2,\n"), ("line 3", "scored already")),
    ],
)
def test_results_that_cannot_be_watched(
    tmp_path: Path, run: Command, scored: Write, break_it: Callable[[Path], object], said: tuple[str, ...]
) -> None:
    results = scored("a", 3)
    break_it(results)
    run("monitor", results, "--out", tmp_path / "out").refused(3, results, *said)
    assert not (tmp_path / "out").exists()


def test_results_that_do_not_belong_together(tmp_path: Path, run: Command, scored: Write) -> None:
    one, out = scored("a", 3), ("--out", tmp_path / "out")
    run("monitor", one, scored("b", 3, model="cd"), *out).refused(3, tmp_path / "b", "another model or another setup")
    run("monitor", one, scored("c", 3, healthy_seed=98), *out).refused(3, tmp_path / "c", "another calibration")
    run("monitor", one, one, *out).refused(3, "a/000.png", "scored already")


@pytest.mark.parametrize("alpha", [0, 1, -0.5])
def test_an_alpha_that_is_no_share(tmp_path: Path, run: Command, scored: Write, alpha: float) -> None:
    ran = run("monitor", scored("a", 3), "--out", tmp_path / "out", "--alpha", alpha)
    assert ran.code == 2 and "--alpha" in ran.stderr
