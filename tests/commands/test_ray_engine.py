"""`priorlens score --engine ray`: the results of the local engine, whichever process is killed."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command_line import Command, Draw

from priorlens import scoring
from priorlens.commands import parquet

SOURCE = Path(__file__).parents[2] / "src"
COUNT = 24
Line = Callable[..., list[object]]


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory, draw: Draw) -> Path:
    """Images, one of which cannot be read. Not to be written to."""
    folder = tmp_path_factory.mktemp("data") / "new"
    for i in range(COUNT):
        draw(folder / f"{i:02d}.png", seed=700 + i)
    (folder / "05.png").write_bytes(b"broken")
    return folder


@pytest.fixture(scope="module")
def line(calibrated: Path, new: Path) -> Line:
    """The command, but for what a test adds."""
    options = ("--alpha", 0.2, "--group", r"^(\d+)", "--no-overlays", "--no-report", "--threads", 1)
    return lambda out, *further: ["score", calibrated, new, "--out", out, *options, *further]


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory, run: Command, line: Line) -> Path:
    """What the local engine writes. Not to be written to."""
    out = tmp_path_factory.mktemp("results") / "local"
    assert run(*line(out)).code == 7
    return out


def lines(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def assert_equal(out: Path, local: Path) -> None:
    """To the last bit that the size of batches allows."""
    for table in ("scores.csv", "spectrum.csv", "regions.csv", "patients.csv"):
        found, wanted = lines(out / table), lines(local / table)
        assert len(found) == len(wanted) > 0, table
        for one, two in zip(found, wanted, strict=True):
            for column in two.keys() - {"seconds"}:
                assert close(one[column], two[column]), (table, column, one, two)
    maps = sorted(path.name for path in (local / "maps").iterdir())
    assert sorted(path.name for path in (out / "maps").iterdir()) == maps and len(maps) == COUNT - 1
    for name in maps:
        np.testing.assert_allclose(np.load(out / "maps" / name), np.load(local / "maps" / name), rtol=1e-3, atol=1e-3)


def close(text: str, other: str) -> bool:
    try:
        return bool(np.isclose(float(text), float(other), rtol=1e-3, atol=1e-4, equal_nan=True))
    except ValueError:
        return text == other


def below(process: int) -> dict[int, str]:
    """The processes that a process has started, and those that these have started, by what they call themselves."""
    parents, names = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            names[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
        except (OSError, ValueError):
            continue
    found: dict[int, str] = {}
    while new := {one for one, parent in parents.items() if parent in {process, *found}} - found.keys():
        found |= {one: names.get(one, "") for one in new}
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are found in /proc")
def test_the_results_are_those_of_the_local_engine_though_a_worker_is_killed(
    tmp_path: Path, run: Command, line: Line, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    monkeypatch.setattr(scoring, "BATCH", 1)  # of one piece of work
    out, killed = tmp_path / "out", []

    def kill() -> None:
        """A process that scores, as soon as there is a map."""
        while not list(out.glob("maps/*.npy")):
            time.sleep(0.005)
        workers = [one for one, name in below(os.getpid()).items() if "MapWorker" in name]
        os.kill(workers[0], signal.SIGKILL)
        killed.append(len(list(out.glob("maps/*.npy"))))

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    ran = run(*line(out, "--engine", "ray", "--workers", 2))
    assert ran.code == 7 and f"{COUNT - 1} of {COUNT} images scored" in ran.stdout, ran
    assert killed and killed[0] < COUNT - 2, "it was killed in the middle"
    assert len(ran.told) == 2 and "05.png: is not an image" in ran.told[0], "nothing but the broken file is told"
    assert_equal(out, local)
    assert_data_sets(out)
    again = run(*line(out))
    assert f"{COUNT} of {COUNT} images were done before" in again.stderr, "the local engine goes on where Ray was"
    assert not (out / "tables").exists() or not list((out / "tables").iterdir())


def assert_data_sets(out: Path) -> None:
    """The Parquet data sets say what the tables say."""
    from pyarrow import dataset

    assert sorted(path.name for path in (out / "tables").iterdir()) == ["regions", "scores", "spectrum"]
    for name in ("scores", "spectrum", "regions"):
        read = dataset.dataset(out / "tables" / name).to_table().to_pylist()
        rows = lines(out / f"{name}.csv")
        assert len(read) == len(rows) > 0 and list(read[0]) == list(rows[0])
        for one, row in zip(read, rows, strict=True):
            for column, text in row.items():
                value = one[column]
                same = value == text if isinstance(value, str) else value is None and not text
                assert same or np.float32(value) == np.float32(text), (name, column, value, text)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are found in /proc")
def test_a_killed_driver_takes_its_workers_along_and_the_same_command_goes_on(
    tmp_path: Path, run: Command, line: Line, local: Path
) -> None:
    pytest.importorskip("ray")
    out = tmp_path / "out"
    code = "from priorlens import scoring; scoring.BATCH = 1; from priorlens.__main__ import main; main()"
    command = [sys.executable, "-c", code, *map(str, line(out, "--engine", "ray", "--workers", 1))]
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as driver:
        while len(list(out.glob("maps/*.npy"))) < 4:
            assert driver.poll() is None, driver.stderr and driver.stderr.read()
            time.sleep(0.01)
        started = below(driver.pid)
        driver.kill()
    assert any("MapWorker" in name for name in started.values())
    assert not (out / "scores.csv").exists() and len(list(out.glob("maps/*.npy"))) < COUNT - 1
    end = time.monotonic() + 120
    while time.monotonic() < end and any(Path(f"/proc/{one}").exists() for one in started):
        time.sleep(0.2)
    assert not [name for one, name in started.items() if Path(f"/proc/{one}").exists() and "MapWorker" in name]
    ran = run(*line(out))
    assert ran.code == 7 and f"{COUNT - 1} of {COUNT} images scored" in ran.stdout, ran
    assert_equal(out, local)
    assert not list(out.rglob(".*"))


def test_a_cluster_that_is_not_there_is_one_line(tmp_path: Path, run: Command, line: Line) -> None:
    pytest.importorskip("ray")
    ran = run(*line(tmp_path / "out", "--engine", "ray", "--address", "127.0.0.1:1"))
    ran.refused(3, "--address 127.0.0.1:1: cannot be reached", "start the cluster first")


def test_ray_that_is_not_installed_is_one_line(
    tmp_path: Path, run: Command, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    out = tmp_path / "out"
    run(*line(out, "--engine", "ray")).refused(6, "Ray is not installed; pip install 'priorlens[ray]'")
    assert run(*line(out)).code == 7, "nothing stands in the way of the local engine"


@pytest.mark.parametrize("option", [("--address", "auto"), ("--workers", 2)])
def test_options_of_ray_without_it(tmp_path: Path, run: Command, line: Line, option: tuple[object, ...]) -> None:
    ran = run(*line(tmp_path / "out", *option))
    assert ran.code == 2 and "are for --engine ray" in " ".join(ran.stderr.split())


# --- Parquet

HEADER = ["file", "patient", "anomaly", "regions", "error"]


def test_a_data_set_has_parts_of_so_many_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = pytest.importorskip("pyarrow.dataset")
    monkeypatch.setattr(parquet, "LINES", 3)
    rows = [[f"caf\udce9/{i}\n", "", f"{i}.25", str(i), "x"] for i in range(7)]
    rows[4] = ["b,\"'", "p", "", "", ""]
    for count in (7, 0, 3):  # the one after the other in the same place
        parquet.write_parquet(tmp_path / "scores", HEADER, iter(rows[:count]))
        names = sorted(path.name for path in (tmp_path / "scores").iterdir())
        assert names == [f"part-{number:05d}.parquet" for number in range(max(1, -(-count // 3)))]
        table = dataset.dataset(tmp_path / "scores").to_table()
        assert [str(kind) for kind in table.schema.types] == ["string", "string", "float", "int64", "string"]
        assert table.column_names == HEADER and len(table) == count
        if count == 7:
            assert table["regions"].to_pylist() == [0, 1, 2, 3, None, 5, 6]
            assert table["anomaly"].to_pylist() == [0.25, 1.25, 2.25, 3.25, None, 5.25, 6.25]
            assert table["file"].to_pylist()[3:5] == ["caf\ufffd/3\n", "b,\"'"]
    assert [path.name for path in tmp_path.iterdir()] == ["scores"], "nothing half-written is left"


def test_a_data_set_that_is_not_finished_is_none(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")

    def rows() -> object:
        yield ["a", "", "1", "1", ""]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        parquet.write_parquet(tmp_path / "scores", HEADER, rows())  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
