"""Nothing is lost and nothing is done twice: `priorlens score`, killed, refused, in parts, and started again."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from command_line import Command, Draw

from priorlens import ledger, scoring
from priorlens.commands import recording
from priorlens.errors import OutputError
from priorlens.scan_model import ScanModel
from volumes.made_scans import head, write_nifti

SOURCE = Path(__file__).parents[2] / "src"
COUNT = 36
TABLES = ("scores.csv", "spectrum.csv", "regions.csv", "patients.csv", "calibration.csv")
SCAN_TABLES = ("scores.csv", "slices.csv", "regions.csv")
SHALLOW = (48, 56, 9)

SLOWLY = """
    import os, sys, time
    from priorlens import preparation
    from priorlens.__main__ import main

    replace = os.replace

    def slowly(source, target):
        time.sleep(0.02)
        replace(source, target)

    os.replace, preparation.SMALLEST = slowly, 64
    main()
"""
"""The command in a process of its own, as small as in these tests, its writing slow enough to be hit in the middle."""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "PATIENCE", 0.1)


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory, draw: Draw) -> Path:
    """Images of twelve patients, of two sizes; two of them cannot be read. Not to be written to."""
    folder = tmp_path_factory.mktemp("data") / "new"
    for i in range(COUNT):
        draw(folder / f"p{i % 12:02d}/{i:02d}.png", seed=500 + i, size=(48, 48 + 8 * (i % 2)))
    for i in (7, 30):
        (folder / f"p{i % 12:02d}/{i:02d}.png").write_bytes(b"broken")
    return folder


@pytest.fixture(scope="module")
def line(calibrated: Path, new: Path) -> Callable[..., list[object]]:
    """The command, but for what a test adds."""
    options = ("--alpha", 0.2, "--group", r"^(p\d+)/", "--no-overlays", "--no-report")
    return lambda out, *further: ["score", calibrated, new, "--out", out, *options, *further]


Line = Callable[..., list[object]]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, run: Command, line: Line) -> Path:
    """What the command writes if nothing comes between. Not to be written to."""
    out = tmp_path_factory.mktemp("results") / "undisturbed"
    ran = run(*line(out))
    assert ran.code == 7 and f"{COUNT - 2} of {COUNT} images scored" in ran.stdout, ran
    return out


def killed(arguments: list[object], out: Path, maps: int) -> None:
    """Start the command, and kill it as soon as there are so many maps."""
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    command = [sys.executable, "-c", textwrap.dedent(SLOWLY), *map(str, arguments), "--threads", "1"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        while len(list(out.rglob("maps/**/*.n[pi]*"))) < maps:
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.005)
        process.kill()


def lines(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def assert_equal(out: Path, other: Path, tables: tuple[str, ...] = TABLES) -> None:
    """The same lines in the same order and the same maps, but for the seconds and what batches of other images do to
    the last digits; and nothing else is left."""
    for table in tables:
        found, wanted = lines(out / table), lines(other / table)
        assert len(found) == len(wanted), table
        for one, two in zip(found, wanted, strict=True):
            for column in two.keys() - {"seconds"}:
                assert close(one[column], two[column]), (table, column, one, two)
    maps = [sorted(path.relative_to(folder) for path in folder.rglob("maps/**/*.*")) for folder in (out, other)]
    assert maps[0] == maps[1]
    for path in maps[0]:
        if path.suffix == ".npy":
            np.testing.assert_allclose(np.load(out / path), np.load(other / path), rtol=1e-3, atol=1e-3)
    assert not list(out.rglob(".*")), "nothing half-written is left"


def close(text: str, other: str) -> bool:
    try:
        return bool(np.isclose(float(text), float(other), rtol=1e-3, atol=1e-4, equal_nan=True))
    except ValueError:
        return text == other


def said_before(stderr: str) -> int:
    """How many the command says were done before."""
    found = re.search(r"(\d+) of \d+ \w+ were done before$", stderr, re.MULTILINE)
    return int(found[1]) if found else 0


# --- killed


def test_killed_again_and_again_the_same_command_goes_on_to_the_same_results(
    tmp_path: Path, run: Command, line: Line, undisturbed: Path
) -> None:
    out, known = tmp_path / "out", 0
    for maps in (1, 19):
        killed(line(out), out, maps)
        assert not (out / "scores.csv").exists(), "no table that is not whole"
    (out / "maps/.a.npy.99999999.partial").write_bytes(b"of a process that is gone")
    (out / "maps/.b.npy.1.partial").write_bytes(b"of one that lives")
    ran = run(*line(out))
    known = said_before(ran.stderr)
    assert ran.code == 7 and f"{COUNT - 2} of {COUNT} images scored" in ran.stdout, ran
    assert known <= 21
    (out / "maps/.b.npy.1.partial").unlink()
    assert_equal(out, undisturbed)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("maps/**/*.npy")}
    again = run(*line(out))
    assert again.code == 7 and said_before(again.stderr) == COUNT
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("maps/**/*.npy")}, "nothing is done twice"
    assert_equal(out, undisturbed)


def test_a_killed_part_is_completed_by_the_whole_or_by_itself(
    tmp_path: Path, run: Command, line: Line, undisturbed: Path
) -> None:
    """And while it is at work, the whole is refused."""
    out = tmp_path / "out"
    killed(line(out, "--shard", "1/2"), out, 3)
    ran = run(*line(out, "--shard", "2/2"))
    assert ran.code == 0 and "part 2 of 2 is done; the last to end writes the tables" in ran.stdout, ran
    assert not (out / "scores.csv").exists()
    copy = shutil.copytree(out, tmp_path / "copy")
    for folder, further in ((out, ()), (copy, ("--shard", "1/2"))):
        ran = run(*line(folder, *further))
        assert ran.code == 7 and f"{COUNT - 2} of {COUNT} images scored" in ran.stdout, ran
        assert_equal(folder, undisturbed)


def test_a_second_run_into_the_same_folder_is_refused(
    tmp_path: Path, run: Command, line: Line, undisturbed: Path
) -> None:
    """The first goes on, and a third after it finds all done."""
    out = tmp_path / "out"
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    command = [sys.executable, "-c", textwrap.dedent(SLOWLY).replace("0.02", "0.15"), *map(str, line(out))]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as first:
        while not list(out.rglob("*.npy")):
            assert first.poll() is None
            time.sleep(0.01)
        for further in ((), ("--overwrite",), ("--shard", "1/2"), ("--shard", "1/2", "--overwrite")):
            run(*line(out, *further)).refused(5, out, "another run writes into this folder; wait for it")
        assert first.poll() is None, "they were refused while it was at work"
        assert first.wait() == 7
    assert_equal(out, undisturbed)
    assert said_before(run(*line(out)).stderr) == COUNT


# --- inputs that come and go


@pytest.fixture
def own(tmp_path: Path, new: Path, line: Line) -> Line:
    """The same command on a copy of the images, that a test may change."""
    copy = shutil.copytree(new, tmp_path / "new")
    return lambda *arguments: [copy if one == new else one for one in line(*arguments)]


@pytest.fixture
def at_first(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Once the first image is scored, do something, once."""
    score_cases = scoring.score_cases

    def at_first(act: Callable[[], object]) -> None:
        def scored(*arguments: object) -> Iterator[object]:
            for turn, one in enumerate(score_cases(*arguments)):
                yield one
                if turn == 0:
                    act()
                    monkeypatch.setattr(scoring, "score_cases", score_cases)

        monkeypatch.setattr(scoring, "score_cases", scored)

    return at_first


def by_name(out: Path) -> dict[str, dict[str, str]]:
    rows = lines(out / "scores.csv")
    found = {Path(row["file"]).stem: row for row in rows}
    assert len(found) == len(rows) == COUNT, "none twice, none missing"
    return found


def test_an_input_that_vanishes_during_the_run_fails_and_is_done_when_it_is_back(
    tmp_path: Path, run: Command, own: Line, at_first: Callable[..., None], undisturbed: Path
) -> None:
    out, last = tmp_path / "out", tmp_path / "new/p11/35.png"
    content, times = last.read_bytes(), (last.stat().st_atime_ns, last.stat().st_mtime_ns)
    at_first(last.unlink)
    ran = run(*own(out))
    assert ran.code == 7 and f"{COUNT - 3} of {COUNT} images scored" in ran.stdout, ran
    assert "there is no such file" in by_name(out)["35"]["error"] and not (out / "maps/p11/35.npy").exists()
    last.write_bytes(content)
    os.utime(last, ns=times)
    ran = run(*own(out))
    assert ran.code == 7 and said_before(ran.stderr) == COUNT - 1
    assert by_name(out)["35"]["error"] == ""
    wanted = lines(undisturbed / "scores.csv")
    assert [row["anomaly"] != "" for row in lines(out / "scores.csv")] == [row["anomaly"] != "" for row in wanted]


def test_an_input_that_changes_during_the_run_is_what_it_was_when_it_was_read(
    tmp_path: Path, run: Command, own: Line, at_first: Callable[..., None], draw: Draw
) -> None:
    """One that is read later is new; one that was read before is done again."""
    out, early, late = tmp_path / "out", tmp_path / "new/p00/00.png", tmp_path / "new/p11/35.png"

    def change() -> None:
        for path in (early, late):
            draw(path, seed=7)

    at_first(change)
    assert run(*own(out)).code == 7
    first = by_name(out)
    assert first["00"]["anomaly"] != first["35"]["anomaly"]
    ran = run(*own(out))
    assert said_before(ran.stderr) == COUNT - 1
    second = by_name(out)
    assert close(second["00"]["anomaly"], second["35"]["anomaly"]), "both are the same image now"
    assert {name for name in first if first[name]["anomaly"] != second[name]["anomaly"]} == {"00"}


def test_inputs_that_come_and_go_between_runs(tmp_path: Path, run: Command, own: Line, draw: Draw) -> None:
    out = tmp_path / "out"
    assert run(*own(out)).code == 7
    shutil.rmtree(tmp_path / "new/p03")
    draw(tmp_path / "new/p00/0.png", seed=9)
    ran = run(*own(out))
    assert said_before(ran.stderr) == COUNT - 3, "the three of the patient are gone, one is new"
    files = [Path(row["file"]).stem for row in lines(out / "scores.csv")]
    assert len(files) == COUNT - 2 == len(set(files)) and files[:2] == ["0", "00"] and "03" not in files


# --- another run


@pytest.mark.parametrize(
    ("further", "named"),
    [
        (("--alpha", 0.1), "alpha"),
        (("--fdr", "max"), "--fdr"),
        (("--overlays",), "--overlays"),
        (("--group", r"(\d)\.png$"), "--group"),
        (("--pixel-size", 2), "--pixel-size"),
    ],
)
def test_other_options_are_not_mixed(
    tmp_path: Path, run: Command, line: Line, undisturbed: Path, further: tuple[object, ...], named: str
) -> None:
    out = shutil.copytree(undisturbed, tmp_path / "out")
    for part in ((), ("--shard", "1/2")):
        ran = run(*line(out, *further, *part))
        assert ran.code == 5 and f"holds results of another {named}" in ran.told[-1], ran
        assert "--overwrite" in ran.told[-1] and "Traceback" not in ran.stderr
    assert_equal(out, undisturbed)


def test_another_model_is_not_mixed_and_overwrite_begins_anew(
    tmp_path: Path, run: Command, fit: Command, healthy: Path, line: Line, calibrated: Path, undisturbed: Path
) -> None:
    out = shutil.copytree(undisturbed, tmp_path / "out")
    assert fit(healthy, "--out", tmp_path / "model", "--seed", 5).code == 0
    other = [tmp_path / "model" if one == calibrated else one for one in line(out)]
    del other[other.index("--alpha") : other.index("--alpha") + 2]
    ran = run(*other, "--rule", "standardised")
    assert ran.code == 5 and "model" in ran.told[-1] and "way of scoring" in ran.told[-1], ran
    ran = run(*other)
    assert ran.code == 5 and "holds results of another" in ran.told[-1] and "model" in ran.told[-1], ran
    ran = run(*other, "--overwrite")
    assert ran.code == 7 and said_before(ran.stderr) == 0, ran
    rows, known = by_name(out), by_name(undisturbed)
    assert all(rows[name]["anomaly"] != known[name]["anomaly"] for name in rows if known[name]["anomaly"])
    assert not (out / "regions.csv").exists()
    assert said_before(run(*other).stderr) == COUNT


# --- parts


def test_parts_in_any_order_make_the_whole(tmp_path: Path, run: Command, line: Line, undisturbed: Path) -> None:
    out = tmp_path / "out"
    for part in (3, 1):
        ran = run(*line(out, "--shard", f"{part}/3"))
        assert ran.code == 0 and f"part {part} of 3 is done" in ran.stdout, ran
        assert not (out / "scores.csv").exists() and not (out / "patients.csv").exists()
    ran = run(*line(out, "--shard", "2/3"))
    assert ran.code == 7 and f"{COUNT - 2} of {COUNT} images scored" in ran.stdout, ran
    assert_equal(out, undisturbed)
    ran = run(*line(out))
    assert ran.code == 7 and said_before(ran.stderr) == COUNT
    assert f"{COUNT - 2} of {COUNT} images scored" in ran.stdout, "failures of parts are failures of the whole"
    assert_equal(out, undisturbed)


def test_the_whole_after_parts_of_which_an_input_was_changed_has_it_once(
    tmp_path: Path, run: Command, own: Line, draw: Draw
) -> None:
    out = tmp_path / "out"
    for part in (1, 2):
        assert run(*own(out, "--shard", f"{part}/2")).code in (0, 7)
    draw(tmp_path / "new/p00/00.png", seed=7)
    ran = run(*own(out))
    assert ran.code == 7 and said_before(ran.stderr) == COUNT - 1, ran
    by_name(out)
    ran = run(*own(out, "--shard", "2/2"))
    assert ran.code == 5 and "do not make a whole" in ran.told[-1] and "without --shard" in ran.told[-1], ran
    assert run(*own(out)).code == 7
    by_name(out)


def test_parts_that_saw_other_inputs_are_no_whole(tmp_path: Path, run: Command, own: Line, draw: Draw) -> None:
    out = tmp_path / "out"
    assert run(*own(out, "--shard", "1/2")).code == 0
    draw(tmp_path / "new/p00/0.png", seed=9)
    ran = run(*own(out, "--shard", "2/2"))
    assert ran.code == 5 and "were given different inputs; run the same command without --shard" in ran.told[-1], ran
    assert not (out / "scores.csv").exists()
    assert run(*own(out)).code == 7
    assert len({row["file"] for row in lines(out / "scores.csv")}) == COUNT + 1 == len(lines(out / "scores.csv"))


@pytest.mark.parametrize("part", ["0/3", "4/3", "3", "a/b", "1/0", "-1/3"])
def test_what_is_no_part(tmp_path: Path, run: Command, line: Line, part: str) -> None:
    ran = run(*line(tmp_path / "out", "--shard", part))
    assert ran.code == 2 and "is no part such as 3/8" in " ".join(ran.stderr.split())
    assert not (tmp_path / "out").exists()


ENDING = """
    import sys, time
    from contextlib import closing
    from pathlib import Path

    from priorlens.commands.recording import Shard, begin, complete, record
    from priorlens.datasets import Case
    from priorlens.ledger import Entry, Stamp

    folder, index, of = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    tables = {"scores.csv": ["file"]}
    print("ready", flush=True)
    for turn in sys.stdin:
        number, at = turn.split()
        out, shard = folder / number, Shard(index, of)
        with closing(begin(out, {}, overwrite=False, shard=shard)) as run:
            total, places = run.todo([Case(Path(str(i)), str(i), "") for i in range(10)])
            entries = (Entry(str(i), {"scores.csv": [[str(i)]]}, Stamp()) for i in places)
            record(out, run, entries, tables, total=total, what="images")
            time.sleep(max(0.0, float(at) - time.time()))
        complete(out, {}, shard, tables, lambda run: None)
        print("ended", flush=True)
"""


def test_a_part_begins_though_another_began_between_two_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, prepare = tmp_path / "out", recording.prepare_folder

    def while_another_begins(path: Path, overwrite: bool = False) -> Path:
        path.mkdir(exist_ok=True)
        (path / "run-2-of-3.sqlite").touch()
        return prepare(path, overwrite=overwrite)

    monkeypatch.setattr(recording, "prepare_folder", while_another_begins)
    with closing(recording.begin(out, {}, overwrite=False, shard=recording.Shard(0, 3))) as run:
        assert run.shard.of == 3
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").touch()
    monkeypatch.setattr(recording, "prepare_folder", prepare)
    with pytest.raises(OutputError, match="is not empty"):
        recording.begin(tmp_path / "full", {}, overwrite=False)


def test_of_parts_that_end_at_the_same_moment_one_writes_the_tables(tmp_path: Path) -> None:
    of, environment = 3, os.environ | {"PYTHONPATH": str(SOURCE)}
    command = [sys.executable, "-c", textwrap.dedent(ENDING), str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1, "env": environment}
    parts = [subprocess.Popen([*command, str(index), str(of)], **pipes) for index in range(of)]  # type: ignore[call-overload]
    try:
        for part in parts:
            assert part.stdout.readline() == "ready\n"
        for turn in range(12):
            for part in parts:
                part.stdin.write(f"{turn} {time.time() + 0.3}\n")
            for part in parts:
                while (said := part.stdout.readline()) and said != "ended\n":
                    pass
                assert said == "ended\n"
            assert [row["file"] for row in lines(tmp_path / f"{turn}/scores.csv")] == [str(i) for i in range(10)]
    finally:
        for part in parts:
            part.kill()
            part.communicate()


# --- what is told


def test_the_log_has_a_line_of_json_for_every_input(tmp_path: Path, run: Command, own: Line) -> None:
    out, log = tmp_path / "out", tmp_path / "log.jsonl"
    shutil.rmtree(tmp_path / "new/p06")
    assert run(*own(out, "--log", log)).code == 7
    (tmp_path / "new/p00/00.png").touch()
    assert run(*own(out, "--log", log)).code == 7
    told = [json.loads(one) for one in log.read_text().splitlines()]
    count = COUNT - 3
    assert [one["event"] for one in told[: count + 2]].count("done") == count - 1
    assert told[0]["event"] == "started" and (told[0]["inputs"], told[0]["before"]) == (count, 0)
    (broken,) = (one for one in told if one["event"] == "failed")
    assert broken["input"] == "p07/07" and "07.png" in broken["reason"] and broken["passing"] is False
    assert {key: told[count + 1][key] for key in ("event", "done", "failed", "of")} == {
        **{"event": "ended", "done": count - 1, "failed": 1, "of": count}
    }
    assert [one["event"] for one in told[count + 2 :]] == ["started", "done", "ended"]
    assert told[-2]["input"] == "p00/00" and len(told[-2]["content"]) == 64
    assert all(one["time"].endswith("+00:00") for one in told)
    ran = run(*own(tmp_path / "other", "--log", tmp_path / "none/log.jsonl"))
    assert ran.code == 5 and "choose another --log" in ran.told[-1], ran


def test_a_damaged_ledger(tmp_path: Path, run: Command, line: Line, undisturbed: Path) -> None:
    out = shutil.copytree(undisturbed, tmp_path / "out")
    (out / "run.sqlite").write_bytes(b"no database" * 1000)
    run(*line(out)).refused(5, out / "run.sqlite", "remove it, or add --overwrite to begin anew")
    ran = run(*line(out, "--overwrite"))
    assert ran.code == 7 and said_before(ran.stderr) == 0, ran
    assert_equal(out, undisturbed)


# --- scans


def test_scans_go_on_too(tmp_path: Path, run: Command, mr_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed, as a whole and in parts; and one that is changed is scored again."""
    for i in range(4):
        write_nifti(tmp_path / f"new/{i}.nii.gz", head(i, SHALLOW))
    (tmp_path / "new/3.nii.gz").write_bytes((tmp_path / "new/3.nii.gz").read_bytes()[:-200])

    def line(name: str, *further: object) -> list[object]:
        return ["score", mr_model, tmp_path / "new", "--out", tmp_path / name, "--no-overlays", "--no-report", *further]

    code = run(*line("whole")).code
    assert code == 7
    killed(line("killed"), tmp_path / "killed", 1)
    ran = run(*line("killed"))
    assert ran.code == 7 and "of 4 scans" in ran.stdout, ran
    assert_equal(tmp_path / "killed", tmp_path / "whole", SCAN_TABLES)
    for part in (2, 1):
        ran = run(*line("parts", "--shard", f"{part}/2"))
        assert ran.code == (0 if part == 2 else 7), ran
    assert_equal(tmp_path / "parts", tmp_path / "whole", SCAN_TABLES)
    scored: list[object] = []
    score = ScanModel.score
    monkeypatch.setattr(ScanModel, "score", lambda *given: scored.append(given[1]) or score(*given))
    write_nifti(tmp_path / "new/1.nii.gz", head(9, SHALLOW))
    assert run(*line("whole")).code == 7
    assert len(scored) == 1, "only the one that was changed"
    rows = {Path(row["file"]).name: row for row in lines(tmp_path / "whole/scores.csv")}
    old = {Path(row["file"]).name: row for row in lines(tmp_path / "parts/scores.csv")}
    assert [name for name in rows if rows[name]["anomaly"] != old[name]["anomaly"]] == ["1.nii.gz"]
    run(*line("whole", "--no-dicom")).refused(5, "another --dicom")
