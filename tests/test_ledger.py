"""What a run keeps of its inputs: whole entries or none, for one process at a time, whatever stops it."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from priorlens import ledger as module
from priorlens.errors import OutputError
from priorlens.ledger import TOGETHER, Damaged, Entry, Input, InUse, Ledger, Stamp, content_of, merged

SOURCE = Path(__file__).parents[1] / "src"
SAME = {"model": "a1", "--rule": None}
ODD = ("plain", "two\nlines", 'quote"and,comma', "caf\udce9", "wörld/sub", "'; DROP TABLE rows; --", "")


def inputs(names: Sequence[str]) -> list[Input]:
    return [Input(name, f"/in/{name}.png", position, Stamp(3, 4)) for position, name in enumerate(names)]


def done(one: Input, mark: str = "") -> Entry:
    lines = {"scores.csv": [[one.name, f"{one.position}{mark}"]], "regions.csv": [[one.name, "1"], [one.name, "2"]]}
    return Entry(one.name, lines, one.stamp, content="c0")


def failed(one: Input, *, passing: bool) -> Entry:
    return Entry(one.name, {"scores.csv": [[one.name, "failed"]]}, one.stamp, f"{one.file}: no\nuse", passing)


def begun(path: Path, *, fresh: bool = False, **changed: object) -> Ledger:
    return Ledger.open(path, SAME | changed, fresh=fresh)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.sqlite"


def child(code: str, *arguments: object, **options: object) -> subprocess.Popen[str]:
    """Python in a process of its own, with the names of these tests."""
    head = f"""
        import os, sys, time
        from pathlib import Path
        sys.path[:0] = [{str(SOURCE)!r}, {str(Path(__file__).parent)!r}]
        from test_ledger import *
        path = Path(sys.argv[1])
    """
    text = textwrap.dedent(head) + textwrap.dedent(code)
    command = [sys.executable, "-c", text, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload,no-any-return]


# --- going on


def test_what_is_done_is_not_done_again_and_its_lines_are_kept_in_the_order_of_the_inputs(path: Path) -> None:
    names = ["b", "a", "d", "c"]
    first = begun(path)
    assert first.pending(inputs(names)) == [0, 1, 2, 3]
    for index in (3, 0):
        first.record(done(inputs(names)[index]))
    first.close()
    again = begun(path)
    assert again.pending(inputs(names)) == [1, 2]
    assert (again.counts.before, again.counts.done, again.counts.failed) == (2, 2, 0)
    again.record(done(inputs(names)[2]))
    again.record(failed(inputs(names)[1], passing=False))
    again.flush()
    assert list(again.lines("scores.csv")) == [["b", "0"], ["a", "failed"], ["d", "2"], ["c", "3"]]
    assert [cells[0] for cells in again.lines("regions.csv")] == ["b", "b", "d", "d", "c", "c"]
    assert [again.number_of(state) for state in ("pending", "done", "failed")] == [0, 3, 1]
    assert (again.counts.done, again.counts.failed) == (3, 1)
    again.close()


def test_the_order_is_that_of_the_inputs_of_the_last_run(path: Path) -> None:
    with_all(path, ["a", "b", "c"])
    again = begun(path)
    assert again.pending(inputs(["c", "new", "a", "b"])) == [1]
    again.record(done(inputs(["c", "new", "a", "b"])[1]))
    again.flush()
    assert [cells[0] for cells in again.lines("scores.csv")] == ["c", "new", "a", "b"]
    again.close()


def with_all(path: Path, names: Sequence[str]) -> None:
    ledger = begun(path)
    ledger.pending(inputs(names))
    for one in inputs(names):
        ledger.record(done(one))
    ledger.close()


def test_a_failure_is_tried_again_if_its_reason_may_have_passed(path: Path) -> None:
    one, other = inputs(["a", "b"])
    first = begun(path)
    first.pending([one, other])
    first.record(failed(one, passing=True))
    first.record(failed(other, passing=False))
    first.close()
    again = begun(path)
    assert again.pending([one, other]) == [0]
    assert (again.counts.before, again.counts.failed, again.counts.done) == (1, 1, 0)
    again.record(done(one))
    again.flush()
    assert list(again.lines("scores.csv")) == [["a", "0"], ["b", "failed"]], "nothing is left of the failure"
    again.close()


@pytest.mark.parametrize("changed", [Stamp(3, 5), Stamp(4, 4), Stamp()], ids=["modified", "size", "gone"])
@pytest.mark.parametrize("failing", [False, True])
def test_a_file_that_was_changed_is_done_again(path: Path, changed: Stamp, failing: bool) -> None:
    one, other = inputs(["a", "b"])
    first = begun(path)
    first.pending([one, other])
    first.record(failed(one, passing=False) if failing else done(one))
    first.record(done(other))
    first.close()
    again = begun(path)
    assert again.pending([replace(one, stamp=changed), other]) == [0]
    assert list(again.lines("scores.csv")) == [["b", "1"]], "what was said of the old file is gone at once"
    again.close()


def test_another_file_of_the_same_name_size_and_time_is_another_input(path: Path) -> None:
    with_all(path, ["a"])
    again = begun(path)
    assert again.pending([replace(inputs(["a"])[0], file="/elsewhere/a.png")]) == [0]
    again.close()


def test_inputs_that_are_no_longer_there_are_no_part_of_the_tables_and_come_back_done(path: Path) -> None:
    with_all(path, ["a", "b", "c"])
    fewer = begun(path)
    assert fewer.pending(inputs(["c"])) == []
    assert list(fewer.lines("scores.csv")) == [["c", "2"]]
    assert fewer.number_of("done") == 1
    fewer.close()
    again = begun(path)
    assert again.pending(inputs(["a", "b", "c"])) == []
    assert len(list(again.lines("scores.csv"))) == 3
    again.close()


def test_names_may_be_anything_that_a_file_system_allows(path: Path) -> None:
    with_all(path, ODD)
    again = begun(path)
    assert again.pending(inputs(ODD)) == []
    assert [cells[0] for cells in again.lines("scores.csv")] == list(ODD)
    again.close()


def test_the_stamp_of_files_sees_each_of_them(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("1.dcm", "2.dcm")]
    for file in files:
        file.write_bytes(b"abc")
        os.utime(file, ns=(5, 7))
    whole = Stamp.of(files)
    assert whole == Stamp(6, 7)
    os.utime(files[0], ns=(5, 9))
    assert Stamp.of(files) == Stamp(6, 9)
    files[1].unlink()
    assert Stamp.of(files) == Stamp(3, 9)
    assert Stamp.of([tmp_path / "none", Path("a\0b")]) == Stamp()
    assert content_of(tmp_path / "none") == "" and len(content_of(files[0])) == 64


# --- identity


def test_results_of_another_identity_are_not_mixed_and_the_line_names_what_differs(path: Path) -> None:
    with_all(path, ["a"])
    with pytest.raises(OutputError) as error:
        begun(path, **{"--rule": "local", "alpha": 0.1})
    assert str(error.value).startswith(f"{path.parent}: holds results of another --rule and alpha; ")
    assert "--overwrite" in str(error.value) and "\n" not in str(error.value)
    begun(path).close()  # refusing has neither changed nor locked it


def test_another_version_of_the_database_is_another_identity(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_all(path, ["a"])
    monkeypatch.setattr(module, "SCHEMA", 2)
    with pytest.raises(OutputError, match="another schema"):
        begun(path)


def test_fresh_forgets_everything(path: Path) -> None:
    with_all(path, ["a", "b"])
    other = begun(path, fresh=True, model="b2")
    assert list(other.lines("scores.csv")) == [] and other.pending(inputs(["a", "b"])) == [0, 1]
    other.close()
    with pytest.raises(OutputError, match="another model"):
        begun(path)


# --- one process at a time


HOLD = """
    ledger = begun(path)
    print("open", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def held(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has the ledger open."""
    with child(HOLD, path) as process:
        assert process.stdout and process.stdout.readline() == "open\n", process.stderr and process.stderr.read()
        yield process
        process.kill()


@pytest.mark.parametrize("fresh", [False, True])
def test_while_a_process_has_it_open_another_is_refused(path: Path, held: subprocess.Popen[str], fresh: bool) -> None:
    with pytest.raises(InUse) as error:
        begun(path, fresh=fresh)
    assert str(path.parent) in str(error.value) and "another run writes into this folder; wait" in str(error.value)
    with pytest.raises(InUse):
        Ledger.require_idle(path)


def test_the_lock_of_a_killed_process_is_none(path: Path, held: subprocess.Popen[str]) -> None:
    held.send_signal(signal.SIGKILL)
    held.wait()
    begun(path).close()


def test_one_that_is_soon_closed_is_waited_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 60.0)
    with child(HOLD.replace("600", "1"), path) as process:
        assert process.stdout and process.stdout.readline() == "open\n"
        begun(path).close()
        assert process.wait() == 0, "it had ended"


# --- atomicity

RECORDS = """
    ledger = begun(path)
    names = [str(i) for i in range(100_000)]
    ledger.pending(inputs(names[:2000]))
    print("ready", flush=True)
    for one in inputs(names[:2000]):
        ledger.record(done(one))
        if one.position == 200:
            print("200", flush=True)
        time.sleep(0.0005)
"""


@pytest.mark.parametrize("wait", [0.0, 0.13, 0.31])
def test_killed_while_it_records_every_input_has_all_its_lines_or_none(path: Path, wait: float) -> None:
    with child(RECORDS, path) as process:
        assert process.stdout
        for line in ("ready\n", "200\n"):
            assert process.stdout.readline() == line, process.stderr and process.stderr.read()
        time.sleep(wait)
        process.kill()
    names = [str(i) for i in range(2000)]
    again = begun(path)
    todo = again.pending(inputs(names))
    known = 2000 - len(todo)
    assert 200 - TOGETHER <= known < 2000, "all that were durable"
    scores, regions = list(again.lines("scores.csv")), list(again.lines("regions.csv"))
    assert [cells[0] for cells in scores] == names[:known], "in their order, none twice, none missing"
    assert [cells[0] for cells in regions] == [name for name in names[:known] for _ in range(2)]
    every = inputs(names)
    for index in todo:
        again.record(done(every[index]))
    again.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM rows").fetchone() == (4000,)
    connection.close()


# --- several parts


def test_of_parts_the_lines_are_merged_in_the_order_of_the_inputs(tmp_path: Path) -> None:
    every = inputs([str(i) for i in range(11)])
    ledgers = [begun(tmp_path / f"{part}.sqlite") for part in range(3)]
    for part, one in enumerate(ledgers):
        one.pending(every[part::3])
        for own in reversed(every[part::3]):
            one.record(done(own))
        one.flush()
    assert [cells[0] for cells in merged(ledgers, "scores.csv")] == [str(i) for i in range(11)]
    assert [cells[0] for cells in merged(ledgers, "regions.csv")] == [str(i) for i in range(11) for _ in range(2)]
    for one in ledgers:
        one.close()


def test_an_input_that_two_parts_know_is_in_one_of_them_only(tmp_path: Path) -> None:
    every = inputs(["a", "b", "c"])
    own, other = begun(tmp_path / "own.sqlite"), begun(tmp_path / "other.sqlite")
    for ledger, marks in ((own, "x"), (other, "y")):
        ledger.pending(every)
        for one in every[:2]:
            ledger.record(done(one, marks))
        ledger.flush()
    own.record(failed(every[2], passing=True))
    other.record(failed(every[2], passing=False))
    other.flush()
    own.flush()
    elsewhere = other.place([replace(every[0], stamp=Stamp(9, 9)), *every[1:]])
    assert elsewhere == {"b": "done", "c": "failed"}
    own.counts = module.Counts()
    assert own.pending(every, elsewhere) == []
    assert (own.counts.before, own.counts.done, own.counts.failed) == (3, 2, 1), "a failure elsewhere is one here"
    assert list(merged([own, other], "scores.csv")) == [["a", "0x"], ["b", "1y"], ["c", "failed"]]
    own.close()
    other.close()


# --- what goes wrong


@pytest.mark.parametrize(
    "content", [b"no database at all, but long enough" * 40, b"SQLite format 3\0" + b"\xff" * 4096]
)
def test_a_damaged_ledger_is_told_in_one_line_and_begun_anew_if_asked(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(Damaged) as error:
        begun(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    assert "remove it, or add --overwrite" in str(error.value)
    fresh = begun(path, fresh=True)
    assert fresh.pending(inputs(["a"])) == [0]
    fresh.close()


def test_pages_that_are_damaged_later_on_are_told_too(path: Path) -> None:
    with_all(path, [f"{i:0200d}" for i in range(300)])
    size = path.stat().st_size
    with open(path, "r+b") as file:
        file.seek(8192)
        file.write(b"\x5a" * (size - 8192))
    with pytest.raises(OutputError) as error:
        ledger = begun(path)
        try:
            ledger.pending(inputs([f"{i:0200d}" for i in range(300)]))
        finally:
            ledger.connection.close()
    assert str(path) in str(error.value) and "--overwrite" in str(error.value)


FULL = """
    ledger = begun(path)
    every = inputs([str(i) for i in range(4000)])
    ledger.pending(every)
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        for one in every:
            ledger.record(Entry(one.name, {"scores.csv": [[one.name, "x" * 2000]]}, one.stamp))
        ledger.close()
    except OutputError as error:
        print(error)
"""


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(tmp_path: Path) -> None:
    """On a file system of 2 MB, where this user may make one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only who may mount a file system can fill one")
    path = disk / "run.sqlite"
    try:
        with child(FULL, path, stdin=subprocess.PIPE) as process:
            said, wrong = process.communicate("go\n")
        _, line = said.splitlines()
        assert line.startswith(f"{path}: cannot be written (") and "free some space" in line, said + wrong
        assert "remove" not in line and "--overwrite" not in line and not wrong
        subprocess.run(["mount", "-o", "remount,size=40m", str(disk)], check=True)
        finish(path)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_file_that_may_not_grow_is_one_line_and_the_same_command_goes_on(path: Path) -> None:
    """As by a quota."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**21, 2**21))

    with child(FULL, path, stdin=subprocess.PIPE, preexec_fn=limit) as process:
        said, wrong = process.communicate("go\n")
    _, line = said.splitlines()
    assert line.startswith(f"{path}: cannot be written (") and "the same command goes on" in line, said + wrong
    assert "--overwrite" not in line and not wrong
    finish(path)


def finish(path: Path) -> None:
    """Some were durable; the rest is done, and all is there once."""
    every = inputs([str(i) for i in range(4000)])
    again = begun(path)
    todo = again.pending(every)
    assert 0 < len(todo) < 4000
    for index in todo:
        again.record(done(every[index]))
    again.flush()
    assert [cells[0] for cells in again.lines("scores.csv")] == [one.name for one in every]
    again.close()


def test_memory_does_not_grow_with_what_is_recorded_or_read(path: Path) -> None:
    count = 8_000
    ledger = begun(path)
    ledger.pending(Input(str(i), str(i), i, Stamp(1, 1)) for i in range(count))
    tracemalloc.start()
    for i in range(count):
        ledger.record(Entry(str(i), {"scores.csv": [["x" * 1000]]}, Stamp(1, 1)))
    ledger.flush()
    lines = sum(1 for _ in ledger.lines("scores.csv"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert lines == count
    assert peak < 2**20, "and not 8 MB of lines"
    plan = ledger.connection.execute(
        "EXPLAIN QUERY PLAN SELECT position, cells FROM inputs JOIN rows USING (name) "
        "WHERE table_name = 'scores.csv' AND position IS NOT NULL ORDER BY position"
    )
    assert not any("TEMP B-TREE" in str(line) for line in plan), "SQLite sorts nothing either"
    ledger.close()
