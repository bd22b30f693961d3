"""`priorlens view` as a process: what it prints, what it scores, and how it ends."""

from __future__ import annotations

import csv
import gzip
import http.client
import io
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urlsplit

import nibabel
import numpy as np
import pytest
from command_line import Command, Draw

import priorlens
from hostile_files import bomb, claims, pickled
from made_results import write_results, write_watch

SOURCE = Path(priorlens.__file__).parents[1]
PATIENCE = 120.0
"""Seconds for what takes a moment on a machine that does nothing else."""


@dataclass(frozen=True)
class Viewer:
    """A running one. kept: where it keeps what it scores; noise: all that it says on stderr."""

    process: subprocess.Popen[bytes]
    address: str
    kept: Path
    noise: Path

    def ask(self, method: str, path: str, content: bytes = b"", **headers: str) -> tuple[int, bytes]:
        place = urlsplit(self.address)
        connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=PATIENCE)
        own = {"X-Priorlens": "view", **{name.replace("_", "-"): value for name, value in headers.items()}}
        connection.request(method, path, content, own)
        answer = connection.getresponse()
        found = answer.status, answer.read()
        connection.close()
        return found

    def json(self, path: str) -> Any:
        status, content = self.ask("GET", path)
        assert status == 200, content
        return json.loads(content)

    def drop(self, **files: bytes) -> int:
        """Files as a browser sends them, and begun to be scored."""
        number = json.loads(self.ask("POST", "/api/drops")[1])["drop"]
        for name, content in files.items():
            assert self.ask("POST", f"/api/drops/{number}/files", content, X_File_Name=quote(name))[0] == 204
        assert self.ask("POST", f"/api/drops/{number}/start")[0] == 202
        return int(number)

    def waits(self, number: int, *states: str) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE
        while (told := self.json(f"/api/drops/{number}"))["state"] not in states:
            assert time.monotonic() < end, told
            time.sleep(0.05)
        return dict(told)

    def scoring_processes(self) -> list[int]:
        tasks = Path(f"/proc/{self.process.pid}/task")
        children = [int(pid) for task in tasks.iterdir() for pid in (task / "children").read_text().split()]
        return [pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    def scoring_process(self) -> int:
        """Once there is one."""
        end = time.monotonic() + PATIENCE
        while not (found := self.scoring_processes()):
            assert time.monotonic() < end
            time.sleep(0.02)
        (process,) = found
        return process

    def ends(self, how: signal.Signals) -> None:
        """Cleanly: at once, with its own code, and without a word on stderr."""
        os.kill(self.process.pid, how)
        assert self.process.wait(PATIENCE) == 0
        assert self.process.stdout is not None and self.process.stdout.read() == b"ended\n"


def started(folder: Path, *arguments: object) -> tuple[Viewer, list[str]]:
    """A viewer on a port of its own choice, once it has said which; and what it printed before."""
    (folder / "tmp").mkdir()
    noise = folder / "stderr"
    environment = os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1", "TMPDIR": str(folder / "tmp")}
    command = [sys.executable, "-m", "priorlens", "view", *map(str, arguments), "--port", "0"]
    with open(noise, "wb") as file:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file, env=environment)
    assert process.stdout is not None
    said: list[str] = []
    while not said or ": open it in a browser" not in said[-1]:
        said.append(line_of(process.stdout))
        assert said[-1], f"it ended: {said} {noise.read_text()}"
    return Viewer(process, said.pop().partition(": open")[0], folder / "kept", noise), said


def line_of(pipe: IO[bytes]) -> str:
    assert select.select([pipe], [], [], PATIENCE)[0], "it says nothing"
    return pipe.readline().decode()


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory, draw: Draw) -> Path:
    """Three images to score."""
    folder = tmp_path_factory.mktemp("data") / "new"
    for number in range(3):
        draw(folder / f"{number}.png", seed=100 + number, size=(48, 60))
    return folder


@pytest.fixture(scope="module")
def viewer(tmp_path_factory: pytest.TempPathFactory, model: Path, new: Path) -> Iterator[Viewer]:
    """Of an image that was scored first, and a megabyte to drop. The last test ends it."""
    folder = tmp_path_factory.mktemp("viewer")
    options = ("--model", model, "--out", folder / "kept", "--upload-limit", 1)
    found, said = started(folder, new / "0.png", *options)
    assert any("1 of 1 images scored" in line for line in said), said
    found.noise.write_bytes(b"")  # that the model is not calibrated, it has said
    yield found
    if found.process.poll() is None:
        found.process.kill()
        found.process.wait()


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory, run: Command, model: Path, new: Path) -> Path:
    """What `priorlens score` makes of the images."""
    out = tmp_path_factory.mktemp("results") / "scored"
    assert run("score", model, new, "--out", out, "--no-report").code == 0
    return out


def anomalies(results: Path) -> dict[str, str]:
    with open(results / "scores.csv", newline="") as file:
        return {Path(row["file"]).name: row["anomaly"] for row in csv.DictReader(file)}


# --- scored here


def test_an_image_is_scored_first(viewer: Viewer, scored: Path) -> None:
    assert viewer.address.startswith("http://127.0.0.1:")
    told = viewer.json("/api/results")
    (line,) = told["cases"]
    assert (line["name"], line["dropped"], line["status"]) == ("0.png", False, "scored")
    assert line["anomaly"] == pytest.approx(float(anomalies(scored)["0.png"]), rel=1e-4), "among others, to rounding"
    assert told["scoring"]["possible"] and told["scoring"]["most_bytes"] == 2**20 and told["report"]
    assert viewer.ask("GET", "/report")[0] == 200


def test_a_process_that_dies_is_told_and_the_next_drop_works(viewer: Viewer, new: Path) -> None:
    first = viewer.drop(**{"1.png": (new / "1.png").read_bytes()})
    os.kill(viewer.scoring_process(), signal.SIGKILL)
    told = viewer.waits(first, "done", "failed")
    assert told["state"] == "failed" and "stopped from outside" in told["words"] and told["cases"] == []
    second = viewer.drop(**{"none.png": b"\x89PNG\r\n\x1a\n"})
    assert viewer.waits(second, "done", "failed")["state"] == "done"


def test_what_is_dropped_is_scored_as_priorlens_score_does(viewer: Viewer, new: Path, scored: Path) -> None:
    """The same anomalies, and maps of the same bytes."""
    number = viewer.drop(**{path.name: path.read_bytes() for path in sorted(new.iterdir())})
    told = viewer.waits(number, "done", "failed")
    assert (told["state"], told["done"], told["total"], told["words"]) == ("done", 3, 3, "3 cases added")
    results = viewer.kept / f"drop-{number}/results"
    assert anomalies(results) == anomalies(scored)
    lines = {line["number"]: line for line in viewer.json("/api/results")["cases"]}
    for case, name in zip(told["cases"], ("0", "1", "2"), strict=True):
        assert (lines[case]["name"], lines[case]["dropped"]) == (f"{name}.png", True)
        assert np.float32(lines[case]["anomaly"]) == np.float32(anomalies(scored)[f"{name}.png"])
        assert (results / f"maps/{name}.npy").read_bytes() == (scored / f"maps/{name}.npy").read_bytes()
        status, layer = viewer.ask("GET", f"/api/cases/{case}/layers/map.nii.gz")
        values = np.asarray(nibabel.Nifti1Image.from_bytes(gzip.decompress(layer)).dataobj)[..., 0].T
        assert status == 200
        np.testing.assert_array_equal(values, np.load(scored / f"maps/{name}.npy"))
    assert not (viewer.kept / f"drop-{number}/files").exists(), "the files are forgotten"


def test_files_that_are_broken_or_worse(tmp_path: Path, viewer: Viewer, new: Path) -> None:
    """Each is named with what is wrong; a good one beside them is scored, and nothing in them is obeyed."""
    files = {
        "good.png": (new / "0.png").read_bytes(),
        "cut.png": (new / "0.png").read_bytes()[:200],
        "none.png": b"\x89PNG\r\n\x1a\n" + b"<script>" * 40,
        "pickled.npy": pickled(tmp_path / "obeyed"),
        "claims.npy": claims(),
        "bomb.png": bomb(),
    }
    assert len(files["bomb.png"]) < 2**18
    told = viewer.waits(viewer.drop(**files), "done", "failed")
    assert told["state"] == "done", told
    found = {line["name"]: line for line in viewer.json("/api/results")["cases"] if line["number"] in told["cases"]}
    assert found.keys() == files.keys()
    assert found.pop("good.png")["status"] == "scored"
    for name, line in found.items():
        assert line["status"] == "failed" and line["error"].startswith(f"{name}: ") and "; " in line["error"], line
        assert str(viewer.kept) not in line["error"] and line["anomaly"] is None
    assert not (tmp_path / "obeyed").exists()
    np.load(io.BytesIO(files["pickled.npy"]), allow_pickle=True)
    assert (tmp_path / "obeyed").exists(), "obeyed, it would have been seen"


def test_too_much_is_refused(viewer: Viewer) -> None:
    number = json.loads(viewer.ask("POST", "/api/drops")[1])["drop"]
    status, content = viewer.ask("POST", f"/api/drops/{number}/files", b"\x89PNG\r\n\x1a\n", X_File_Name="a.png")
    assert (status, content) == (204, b"")
    large = b"\x89PNG\r\n\x1a\n" + bytes(2**20)
    place = urlsplit(viewer.address)
    connection = http.client.HTTPConnection("127.0.0.1", place.port, timeout=PATIENCE)
    connection.putrequest("POST", f"/api/drops/{number}/files")
    for name, value in {"X-Priorlens": "view", "X-File-Name": "b.png", "Content-Length": str(len(large))}.items():
        connection.putheader(name, value)
    connection.endheaders()  # none of it is sent: it is refused by what it says
    answer = connection.getresponse()
    assert answer.status == 413 and "1 MiB" in json.loads(answer.read())["detail"]
    connection.close()
    assert [path.name for path in (viewer.kept / f"drop-{number}/files").iterdir()] == ["a.png"]


def test_cancelled_while_it_is_scored(viewer: Viewer, new: Path) -> None:
    """The process is held still, so that there is something to cancel, and is gone thereafter."""
    before = len(viewer.json("/api/results")["cases"])
    for process in viewer.scoring_processes():
        os.kill(process, signal.SIGSTOP)
    number = viewer.drop(**{"1.png": (new / "1.png").read_bytes()})
    viewer.waits(number, "scoring")
    process = viewer.scoring_process()
    assert viewer.ask("DELETE", f"/api/drops/{number}")[0] == 204
    assert viewer.json(f"/api/drops/{number}")["state"] == "cancelled"
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
    assert len(viewer.json("/api/results")["cases"]) == before


def test_other_pages_are_refused(viewer: Viewer) -> None:
    assert viewer.ask("GET", "/api/results", Host="evil.example")[0] == 403
    assert viewer.ask("POST", "/api/drops", Origin="http://evil.example")[0] == 403
    assert viewer.ask("GET", "/static/../server.py")[0] == viewer.ask("GET", "/static/..%2fserver.py")[0] == 404
    assert viewer.ask("GET", "/api/tables/..%2f..%2fetc%2fpasswd")[0] == 404


def leaves_in_the_middle(viewer: Viewer, number: int) -> socket.socket:
    """Of a file that it sends."""
    place = urlsplit(viewer.address)
    sending = socket.create_connection(("127.0.0.1", place.port or 0))
    head = f"POST /api/drops/{number}/files HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Priorlens: view\r\n"
    sending.sendall(f"{head}X-File-Name: Ann.png\r\nContent-Length: 5000\r\n\r\n".encode() + b"\x89PNG\r\n\x1a\n")
    files = viewer.kept / f"drop-{number}/files"
    end = time.monotonic() + PATIENCE
    while not list(files.iterdir()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return sending


def test_ctrl_c_ends_it_whatever_is_open(viewer: Viewer, new: Path) -> None:
    """Files that arrive, one that stopped arriving and a process for scoring among them. Nothing was said of any."""
    number = json.loads(viewer.ask("POST", "/api/drops")[1])["drop"]
    leaves_in_the_middle(viewer, number).close()
    end = time.monotonic() + PATIENCE
    while list((viewer.kept / f"drop-{number}/files").iterdir()):
        assert time.monotonic() < end, "what did not arrive whole is kept"
        time.sleep(0.02)
    viewer.drop(**{"1.png": (new / "1.png").read_bytes()})
    process = viewer.scoring_process()
    with leaves_in_the_middle(viewer, number):
        viewer.ends(signal.SIGINT)
    assert viewer.noise.read_text() == ""
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
    assert (viewer.kept / "scored/scores.csv").is_file(), "--out keeps what was scored"
    assert not list((viewer.noise.parent / "tmp").glob("priorlens-*"))


# --- results that are there


def test_results_with_hidden_names_to_the_whole_network(tmp_path: Path) -> None:
    """With a warning, under whatever number the machine has; ended as a service is."""
    folder = write_results(tmp_path / "Klinik", ["Ann.png", "Bob.png"], patients=["Ann", "Bob"])
    viewer, said = started(tmp_path, folder, "--hide-identifiers", "--host", "0.0.0.0")
    try:
        assert said == [] and viewer.address.startswith("http://0.0.0.0:")
        (line,) = viewer.noise.read_text().splitlines()
        assert line.startswith("priorlens: ") and "without a password" in line
        port = urlsplit(viewer.address).port
        local = Viewer(viewer.process, f"http://127.0.0.1:{port}", viewer.kept, viewer.noise)
        found = local.ask("GET", "/api/results")[1].decode() + local.ask("GET", "/api/cases/1")[1].decode()
        assert '"case 1"' in found and not any(name in found for name in ("Ann", "Bob", "Klinik"))
        assert local.ask("GET", "/api/results", Host=f"evil.example:{port}")[0] == 403
        assert local.ask("GET", "/api/results", Host=f"192.168.7.7:{port}")[0] == 200
        assert local.ask("POST", "/api/drops")[0] == 409
        assert len(list((tmp_path / "tmp").iterdir())) == 1
        viewer.ends(signal.SIGTERM)
    finally:
        viewer.process.kill()
        viewer.process.wait()
    assert list((tmp_path / "tmp").iterdir()) == [], "what it kept for itself is gone"
    assert viewer.noise.read_text().splitlines() == [line]


# --- what it does not open


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """A viewer in this process leaves them as they were."""
    before = {name: signal.getsignal(name) for name in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for name, handler in before.items():
        signal.signal(name, handler)


def test_a_taken_port(tmp_path: Path, run: Command) -> None:
    folder = write_results(tmp_path / "results", ["a.png"], overlays=False)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        run("view", folder, "--port", port).refused(5, f"127.0.0.1:{port}", "in use", "choose another --port")


@pytest.mark.parametrize("host", ["192.0.2.7", "no such host", "ä..b", "\udcff"])
def test_a_host_that_is_not_this_machine(tmp_path: Path, run: Command, host: str) -> None:
    folder = write_results(tmp_path / "results", ["a.png"], overlays=False)
    run("view", folder, "--port", 0, "--host", host).refused(5, "cannot be listened on", "--host")


def test_no_results(tmp_path: Path, run: Command, new: Path) -> None:
    run("view", tmp_path, "--port", 0).refused(3, tmp_path, "is no results folder", "--model")
    run("view", new / "0.png", "--port", 0).refused(3, new / "0.png", "is no results folder", "--model")
    run("view", tmp_path / "nowhere", "--port", 0).refused(3, tmp_path / "nowhere")
    folder = write_results(tmp_path / "results", ["a.png"], overlays=False)
    run("view", folder, folder, "--port", 0).refused(3, folder, "is no results folder")
    (folder / "scores.csv").write_text("file,anomaly\n")
    run("view", folder, "--port", 0).refused(3, folder / "scores.csv", "error")
    shutil.rmtree(folder)
    (folder / "scores.csv").mkdir(parents=True)
    run("view", folder, "--port", 0).refused(3, folder)


def test_the_folder_of_a_monitor(tmp_path: Path, run: Command) -> None:
    folder = write_watch(tmp_path / "watch", alarm=True)
    run("view", folder, "--port", 0).refused(3, folder, "priorlens monitor", "report.html")


def test_a_model_that_is_none(tmp_path: Path, run: Command, new: Path) -> None:
    folder = write_results(tmp_path / "results", ["a.png"], overlays=False)
    run("view", folder, "--port", 0, "--model", tmp_path / "nowhere").refused(4, tmp_path / "nowhere")
    run("view", new / "0.png", "--port", 0, "--model", tmp_path).refused(4, tmp_path)


def test_an_out_that_is_in_use(tmp_path: Path, run: Command, model: Path) -> None:
    folder = write_results(tmp_path / "results", ["a.png"], overlays=False)
    before = sorted(folder.rglob("*"))
    run("view", folder, "--port", 0, "--model", model, "--out", folder).refused(5, folder, "is not empty")
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    "option", [("--alpha", "2"), ("--alpha", "0"), ("--alpha", "nan"), ("--port", "65536"), ("--upload-limit", "0")]
)
def test_options_that_are_none(tmp_path: Path, run: Command, model: Path, option: tuple[str, str]) -> None:
    folder = write_results(tmp_path / "results", ["a.png"], overlays=False)
    ran = run("view", folder, *(() if option[0] == "--port" else ("--port", 0)), "--model", model, *option)
    assert ran.code == 2 and option[0] in ran.stderr and "Traceback" not in ran.stderr
