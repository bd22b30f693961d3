"""`priorlens score` from and to addresses: the results of a local run, whatever fails on the way. No network."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from command_line import Command, Draw

from priorlens import addresses
from priorlens.commands import publishing

fsspec = pytest.importorskip("fsspec")
from fsspec.implementations.local import LocalFileSystem  # noqa: E402

SOURCE = Path(__file__).parents[2] / "src"
COUNT = 12
BROKEN = 5
SECRET = "aws-secret-4711"
OPTIONS = ("--alpha", 0.2, "--group", r"^(p\d+)/", "--no-overlays", "--no-report", "--threads", 1)
TABLES = ("scores.csv", "spectrum.csv", "regions.csv", "patients.csv", "calibration.csv")
Local = Callable[..., list[dict[str, str]]]


class Frail(LocalFileSystem):
    """A disk as a distant place that fails as it is told to: `fails` says of an operation and a path what it raises."""

    protocol = "frail"
    cachable = False
    fails: Callable[[str, str], BaseException | None] = staticmethod(lambda operation, path: None)

    def _may_fail(self, operation: str, path: str) -> None:
        error = type(self).fails(operation, path)
        if error:
            raise error

    def get_file(self, path1: str, path2: str, callback: object = None, **options: object) -> None:
        self._may_fail("get", path1)
        super().get_file(path1, path2, **options)

    def put_file(self, path1: str, path2: str, callback: object = None, **options: object) -> None:
        Path(path2).write_bytes(Path(path1).read_bytes()[:10])  # as it would be if it stopped here
        self._may_fail("put", path2)
        super().put_file(path1, path2, **options)

    def info(self, path: str, **options: object) -> dict[str, object]:
        self._may_fail("info", path)
        return super().info(path, **options)


fsspec.register_implementation("frail", Frail, clobber=True)


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Caches of its own, and a folder for what is fetched, in which nothing may be left."""
    fetched = tmp_path / "fetched"
    fetched.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(fetched))
    monkeypatch.setattr(addresses, "PAUSE", 0.0)
    monkeypatch.setattr(Frail, "fails", staticmethod(lambda operation, path: None))
    yield fetched
    assert not list(fetched.glob("priorlens-*"))


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory, draw: Draw) -> Path:
    """Images of three patients, one of which cannot be read, and hidden ones. Not to be written to."""
    folder = tmp_path_factory.mktemp("data") / "new"
    for i in range(COUNT):
        draw(folder / f"p{i % 3}/{i}.png", seed=800 + i)
    (folder / f"p{BROKEN % 3}/{BROKEN}.png").write_bytes(b"broken")
    draw(folder / ".hidden/1.png")
    draw(folder / "p1/.2.png")
    (folder / "p1/notes.txt").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, run: Command, calibrated: Path, new: Path) -> Path:
    """What a local run writes. Not to be written to."""
    out = tmp_path_factory.mktemp("results") / "local"
    assert run("score", calibrated, new, "--out", out, *OPTIONS).code == 7
    return out


@pytest.fixture
def memory(new: Path) -> Iterator[str]:
    """The images at an address in memory."""
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    for path in new.rglob("*.*"):
        if path.is_file():
            fs.pipe(f"/night/{path.relative_to(new).as_posix()}", path.read_bytes())
    yield "memory://night"
    fs.store.clear()


def lines(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def close(text: str, other: str) -> bool:
    try:
        return bool(np.isclose(float(text), float(other), rtol=1e-3, atol=1e-4, equal_nan=True))
    except ValueError:
        return text == other


def assert_equal(out: Path, local: Path, address: str, folder: Path) -> None:
    """The tables and maps of a local run, with addresses in place of paths."""
    for table in TABLES:
        found, wanted = lines(out / table), lines(local / table)
        assert len(found) == len(wanted) > 0, table
        for one, two in zip(found, wanted, strict=True):
            for column in two.keys() - {"seconds"}:
                said = two[column].replace(str(folder), address)
                assert close(one[column], said), (table, column, one, two)
    maps = sorted(path.relative_to(local) for path in local.rglob("maps/**/*.npy"))
    assert sorted(path.relative_to(out) for path in out.rglob("maps/**/*.npy")) == maps and len(maps) == COUNT - 1
    for path in maps:
        np.testing.assert_allclose(np.load(out / path), np.load(local / path), rtol=1e-3, atol=1e-3)
    assert not list(out.rglob(".*")), "nothing half-sent is left"


# --- inputs


@pytest.mark.parametrize("slash", ["", "/"])
def test_images_at_an_address_score_as_local_ones(
    tmp_path: Path, run: Command, calibrated: Path, memory: str, new: Path, undisturbed: Path, slash: str
) -> None:
    out = tmp_path / "out"
    ran = run("score", calibrated, memory + slash, "--out", out, *OPTIONS)
    assert ran.code == 7 and f"{COUNT - 1} of {COUNT} images scored" in ran.stdout, ran
    assert any(f"{memory}/p2/5.png: is not an image" in line for line in ran.told), ran.told
    assert_equal(out, undisturbed, memory, new)
    again = run("score", calibrated, memory, "--out", out, *OPTIONS)
    assert f"{COUNT} of {COUNT} images were done before" in again.stderr


def test_what_changed_at_an_address_is_scored_again(
    tmp_path: Path, run: Command, calibrated: Path, memory: str, new: Path
) -> None:
    line = ("score", calibrated, memory, "--out", tmp_path / "out", *OPTIONS)
    assert run(*line).code == 7
    first = lines(tmp_path / "out/scores.csv")
    fs = fsspec.filesystem("memory")
    fs.pipe("/night/p0/0.png", (new / "p1/1.png").read_bytes())
    fs.pipe("/night/p2/5.png", (new / "p2/2.png").read_bytes())
    ran = run(*line)
    assert ran.code == 0 and f"{COUNT - 2} of {COUNT} images were done before" in ran.stderr, ran
    second = lines(tmp_path / "out/scores.csv")
    assert second[0]["anomaly"] != first[0]["anomaly"] and first[1:4] == second[1:4]


def test_files_by_themselves_beside_local_ones(
    tmp_path: Path, run: Command, calibrated: Path, memory: str, new: Path
) -> None:
    out = tmp_path / "out"
    inputs = (f"{memory}/p1/1.png", new / "p0/0.png", f"{memory}/gone.png", f"{memory}/p1/1.png")
    ran = run("score", calibrated, *inputs, "--out", out, "--no-report", "--no-overlays", "--log", tmp_path / "log")
    assert ran.code == 7, ran
    rows = lines(out / "scores.csv")
    assert [row["file"] for row in rows] == [*map(str, inputs[:3])]
    assert "gone.png: cannot be fetched (there is no such file or folder)" in rows[2]["error"]
    assert {path.name for path in (out / "maps").iterdir()} == {"1.npy", "0.npy"}
    told = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [one["passing"] for one in told if one["event"] == "failed"] == [True]
    fsspec.filesystem("memory").pipe("/night/gone.png", (new / "p0/3.png").read_bytes())
    again = run("score", calibrated, *inputs, "--out", out, "--no-report", "--no-overlays")
    assert again.code == 0 and "2 of 3 images were done before" in again.stderr, "what may have passed is tried again"


def test_a_manifest_there_or_here(
    tmp_path: Path, run: Command, calibrated: Path, memory: str, new: Path, undisturbed: Path
) -> None:
    rows = [f"p{i % 3}/{i}.png,p{i % 3}" for i in range(COUNT)]
    text = "\n".join(["file,group", *rows]) + "\n"
    fsspec.filesystem("memory").pipe("/night/list.csv", text.encode())
    (tmp_path / "list.csv").write_text(text)
    options = [one for one in OPTIONS if one not in ("--group", r"^(p\d+)/")]
    for number, manifest in enumerate((f"{memory}/list.csv", tmp_path / "list.csv")):
        out = tmp_path / str(number)
        assert run("score", calibrated, memory, "--manifest", manifest, "--out", out, *options).code == 7
        assert_equal(out, undisturbed, memory, new)
    ran = run("score", calibrated, "--manifest", f"{memory}/list.csv", "--out", tmp_path / "alone", *options)
    assert ran.code == 7 and f"{COUNT - 1} of {COUNT} images" in ran.stdout, ran
    assert sorted(row["patient"] for row in lines(tmp_path / "alone/scores.csv")) == sorted(row[-2:] for row in rows)
    assert (tmp_path / "alone/maps/p0/3.npy").is_file()
    (tmp_path / "list.csv").write_text("file,group\np0/0.png,a\n")
    ran = run("score", calibrated, memory, "--manifest", tmp_path / "list.csv", "--out", tmp_path / "short", *options)
    ran.refused(3, f"{memory}/p0/3.png: has no line in", "list.csv")


def test_a_place_that_fails_is_a_line_for_each_image_and_tells_no_secret(
    tmp_path: Path, run: Command, calibrated: Path, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(operation: str, path: str) -> BaseException | None:
        errors = {"0.png": ConnectionError(SECRET), "1.png": PermissionError(SECRET), "2.png": RuntimeError(SECRET)}
        return errors.get(Path(path).name) if operation == "get" else None

    monkeypatch.setattr(Frail, "fails", staticmethod(fails))
    out = tmp_path / "out"
    line = ("score", calibrated, f"frail://{new}", "--out", out, *OPTIONS)
    ran = run(*line, "--log", tmp_path / "log")
    assert ran.code == 7 and f"{COUNT - 4} of {COUNT} images scored" in ran.stdout, ran
    told = {Path(row["file"]).name: row["error"] for row in lines(out / "scores.csv")}
    assert (
        "ConnectionError" in told["0.png"] and "access is denied" in told["1.png"] and "RuntimeError" in told["2.png"]
    )
    assert all(f"frail://{new}/p0/0.png" in told["0.png"] for _ in (0,))
    everything = [
        ran.stderr,
        ran.stdout,
        *(path.read_text(errors="replace") for path in out.iterdir() if path.is_file()),
    ]
    assert not any(SECRET in text for text in (*everything, (tmp_path / "log").read_text()))
    monkeypatch.setattr(Frail, "fails", staticmethod(lambda operation, path: None))
    again = run(*line)
    assert again.code == 7 and f"{COUNT - 3} of {COUNT} images were done before" in again.stderr, again


def test_what_changes_while_it_is_fetched_is_neither_old_nor_new(
    tmp_path: Path, run: Command, calibrated: Path, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(new / "p0", tmp_path / "p0")

    def changes(operation: str, path: str) -> None:
        if operation == "get" and path.endswith("/3.png"):
            os.utime(path)

    monkeypatch.setattr(Frail, "fails", staticmethod(changes))
    ran = run("score", calibrated, f"frail://{folder}", "--out", tmp_path / "out", "--no-report", "--no-overlays")
    assert ran.code == 7 and "3.png: was changed while it was fetched; score again" in ran.told[0], ran


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("s3://me:aws-secret-4711@bucket/x", ("s3://...@bucket/x: holds a password",)),
        ("https://host/x.png?sig=aws-secret-4711", ("https://host/x.png: what follows the ?",)),
        ("zip://a.png::s3://bucket/x.zip", ("only plain addresses",)),
        ("nosuch://bucket/x", ("has no file system for nosuch://",)),
        ("memory://nothing/here", ("memory://nothing/here: cannot be read (there is no such file or folder)",)),
    ],
)
def test_addresses_that_are_refused(
    tmp_path: Path, run: Command, calibrated: Path, address: str, parts: tuple[str, ...]
) -> None:
    ran = run("score", calibrated, address, "--out", tmp_path / "out")
    ran.refused(3, *parts)
    assert SECRET not in ran.stderr


def test_a_folder_without_images_is_refused(tmp_path: Path, run: Command, calibrated: Path) -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe("/empty/notes.txt", b"x")
    run("score", calibrated, "memory://empty", "--out", tmp_path / "out").refused(3, "memory://empty: holds no images")
    fs.store.clear()


def test_what_is_not_installed_is_one_line(
    tmp_path: Path, run: Command, calibrated: Path, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    run("score", calibrated, "s3://bucket/x", "--out", tmp_path / "out").refused(6, "'priorlens[remote]' s3fs")
    run("score", calibrated, new, "--out", "s3://bucket/x").refused(6, "pip install 'priorlens[remote]' s3fs")
    for module in ("fsspec", "fsspec.core"):
        monkeypatch.setitem(sys.modules, module, None)
    run("score", calibrated, "gs://bucket/x", "--out", tmp_path / "out").refused(6, "'priorlens[remote]' gcsfs")
    assert run("score", calibrated, new / "p0", "--out", tmp_path / "out", "--no-report").code == 0


def test_paths_on_this_machine_need_no_fsspec(new: Path) -> None:
    code = (
        "import sys, pathlib; from priorlens.remote_cases import find_cases_anywhere as find; from priorlens.addresses "
        f"import place; print(len(find([place({str(new)!r})])), 'fsspec' in sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == [str(COUNT), "False"]


def test_scans_are_refused(tmp_path: Path, run: Command, mr_model: Path, calibrated: Path, heads: Path) -> None:
    run("score", mr_model, f"file://{heads}", "--out", tmp_path / "out").refused(3, f"file://{heads}: scans are not")
    run("score", mr_model, heads, "--out", f"file://{tmp_path}/out").refused(3, "scans are not scored from or to")
    run("score", calibrated, "memory://x/h0.nii.gz", "--out", tmp_path / "out").refused(3, "is or holds a scan")


# --- results


def test_results_at_an_address_are_those_of_a_folder(
    tmp_path: Path, run: Command, calibrated: Path, new: Path, undisturbed: Path
) -> None:
    out = tmp_path / "there/results"
    line = ("score", calibrated, f"file://{new}", "--out", f"file://{out}/", *OPTIONS)
    ran = run(*line)
    assert ran.code == 7 and f"file://{out}: {COUNT - 1} of {COUNT} images scored, see file://{out}/scores.csv" in (
        ran.stdout
    ), ran
    assert_equal(out, undisturbed, f"file://{new}", new)
    names = sorted(path.name for path in undisturbed.iterdir())
    assert sorted(path.name for path in out.iterdir()) == sorted([*names, "published.json"])
    (copy,) = (tmp_path / "cache/priorlens").iterdir()
    assert not list(copy.rglob("*.npy")), "without a page nothing of an image stays here"
    again = run(*line)
    assert f"file://{out}: {COUNT} of {COUNT} images were done before" in again.stderr
    assert_equal(out, undisturbed, f"file://{new}", new)


def test_another_machine_goes_on_and_its_page_shows_all(
    tmp_path: Path, run: Command, calibrated: Path, new: Path
) -> None:
    out = tmp_path / "results"
    line = ("score", calibrated, "--out", f"file://{out}", "--threads", 1, "--scratch")
    assert run(*line, tmp_path / "a", new / "p0", "--no-report").code == 0
    assert not (out / "report.html").exists()
    ran = run(*line, tmp_path / "b", new / "p0", new / "p1")
    assert ran.code == 0 and "4 of 8 images were done before" in ran.stderr, ran
    (copy,) = (tmp_path / "b").iterdir()
    assert len(list(copy.glob("overlays/*.png"))) == 8, "the page shows what others have scored"
    assert (out / "report.html").read_bytes() == (copy / "report.html").read_bytes()
    ran = run(*line, tmp_path / "a", new / "p0", new / "p1", "--no-report")
    assert "8 of 8 images were done before" in ran.stderr, "what is there goes before what is here"
    assert not (out / "report.html").exists(), "a page of another state is none"


def test_other_options_are_refused_and_overwriting_leaves_nothing_of_before(
    tmp_path: Path, run: Command, calibrated: Path, new: Path
) -> None:
    out = tmp_path / "results"
    line = ("score", calibrated, new / "p0", "--out", f"file://{out}", "--no-report")
    assert run(*line).code == 0
    run(*line, "--rule", "typicality", "--scratch", tmp_path / "b").refused(
        5, f"file://{out}: holds results of another"
    )
    (out / "maps/mine").mkdir()
    (out / "notes.txt").write_text("not to be touched")
    ran = run("score", calibrated, new / "p1", "--out", f"file://{out}", "--no-report", "--overwrite", "--no-overlays")
    assert ran.code == 0 and "done before" not in ran.stderr
    assert {path.stem for path in out.rglob("*.npy")} == {"1", "4", "7", "10"} and not list(out.glob("overlays/*"))
    assert (out / "notes.txt").is_file()


def test_what_is_in_the_way_is_refused(tmp_path: Path, run: Command, calibrated: Path, new: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other/mine.txt").write_text("mine")
    line = ("score", calibrated, new / "p0", "--no-report", "--out")
    run(*line, f"file://{tmp_path}/other").refused(5, f"file://{tmp_path}/other: is not empty")
    inside = run("score", calibrated, f"file://{new}", "--out", f"file://{new}/results", "--no-report")
    inside.refused(5, f"lies in file://{new}, among the images")
    for further in (("--shard", "1/2"), ()):
        ran = run(*line, f"file://{tmp_path}/x" if further else tmp_path / "x", *(further or ("--scratch", tmp_path)))
        assert ran.code == 2 and (further[:1] or ("--scratch",))[0] in ran.stderr


def test_an_image_done_anew_leaves_nothing_of_before(tmp_path: Path, run: Command, calibrated: Path, new: Path) -> None:
    folder, out = shutil.copytree(new / "p0", tmp_path / "p0"), tmp_path / "results"
    line = ("score", calibrated, folder, "--out", f"file://{out}", "--no-report")
    assert run(*line).code == 0 and (out / "maps/3.npy").is_file()
    (folder / "3.png").write_bytes(b"broken since")
    assert run(*line).code == 7
    assert not list(out.rglob("3.*")) and (out / "maps/0.npy").is_file()


def test_a_place_that_takes_nothing_stops_the_run_and_the_same_command_goes_on(
    tmp_path: Path, run: Command, calibrated: Path, new: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, sent = tmp_path / "results", []
    line = ("score", calibrated, new, "--out", f"frail://{out}", *OPTIONS)

    def full(operation: str, path: str) -> BaseException | None:
        sent.extend([path] if operation == "put" and path.count(".npy") else [])
        return OSError(28, SECRET) if len(sent) > 4 and operation == "put" else None

    def now_and_then(operation: str, path: str) -> BaseException | None:
        sent.append(path)
        return ConnectionError(SECRET) if operation == "put" and len(sent) % 3 == 0 else None

    monkeypatch.setattr(Frail, "fails", staticmethod(full))
    ran = run(*line)
    assert ran.code == 5 and f"frail://{out}" in ran.told[-1] and "no space left" in ran.told[-1], ran
    assert SECRET not in ran.stderr and not list(out.rglob(".*"))
    monkeypatch.setattr(Frail, "fails", staticmethod(now_and_then))
    ran = run(*line)
    assert ran.code == 7 and "images were done before" in ran.stderr, ran
    assert_equal(out, undisturbed, str(new), new)


def test_of_two_runs_the_later_one_goes_on(
    tmp_path: Path, run: Command, calibrated: Path, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, seen = tmp_path / "results", []
    monkeypatch.setattr(publishing, "SECONDS", 0.0)

    def another(operation: str, path: str) -> None:
        """Claims the address while the first is at work."""
        seen.append(path)
        if len(seen) == 12:
            told = json.loads((out / "published.json").read_text())
            (out / "published.json").write_text(json.dumps(told | {"by": "another"}))

    monkeypatch.setattr(Frail, "fails", staticmethod(another))
    ran = run("score", calibrated, new / "p0", new / "p1", "--out", f"frail://{out}", "--no-report", "--no-overlays")
    ran.refused(5, f"frail://{out}: another run has gone on from here")
    assert json.loads((out / "published.json").read_text())["by"] == "another"


SLOWLY = """
    import sys, time
    from fsspec.implementations.local import LocalFileSystem
    from priorlens import ledger, preparation
    from priorlens.__main__ import main
    from priorlens.commands import publishing

    put = LocalFileSystem.put_file
    def slowly(self, *arguments, **options):
        time.sleep(0.02)
        put(self, *arguments, **options)

    LocalFileSystem.put_file, preparation.SMALLEST, publishing.SECONDS = slowly, 64, 0.1
    main()
"""


@pytest.mark.parametrize("machine", ["same", "another"])
def test_a_run_that_was_killed_goes_on(
    tmp_path: Path, run: Command, calibrated: Path, new: Path, undisturbed: Path, machine: str
) -> None:
    out = tmp_path / "results"
    line = ["score", calibrated, f"file://{new}", "--out", f"file://{out}", *OPTIONS, "--scratch"]
    environment = os.environ | {"PYTHONPATH": str(SOURCE), "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", textwrap.dedent(SLOWLY), *map(str, line), str(tmp_path / "same")]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        while len(list(out.rglob("maps/**/[!.]*.npy"))) < 6:
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.005)
        process.kill()
    for path in out.rglob(".*"):  # what a killed process had half-sent; no result has such a name
        path.unlink()
    ran = run(*line, tmp_path / machine)
    assert ran.code == 7 and "images were done before" in ran.stderr, ran
    assert_equal(out, undisturbed, f"file://{new}", new)


# --- Ray


def test_ray_fetches_and_sends_as_well(
    tmp_path: Path, run: Command, calibrated: Path, new: Path, undisturbed: Path
) -> None:
    pytest.importorskip("ray")
    out = tmp_path / "results"
    line = ("score", calibrated, f"file://{new}", "--out", f"file://{out}", *OPTIONS)
    ran = run(*line, "--engine", "ray", "--workers", 1)
    assert ran.code == 7 and f"file://{new}/p2/5.png: is not an image" in ran.stderr, ran
    assert_equal(out, undisturbed, f"file://{new}", new)
    assert (out / "tables/scores/part-00000.parquet").is_file()
    again = run(*line)
    assert f"{COUNT} of {COUNT} images were done before" in again.stderr
    assert not list(out.glob("tables/*/*")), "a run without Ray has no such tables"


def test_ray_tells_of_a_place_that_takes_nothing_in_one_line(
    tmp_path: Path, run: Command, calibrated: Path, new: Path
) -> None:
    pytest.importorskip("ray")
    out = tmp_path / "results"
    out.mkdir()
    (out / "maps").write_text("in the way")
    line = ("score", calibrated, new, "--out", f"file://{out}", *OPTIONS, "--overwrite")
    ran = run(*line, "--engine", "ray", "--workers", 1)
    assert ran.code == 5 and "Traceback" not in ran.stderr, ran
    assert ran.told[-1].startswith(f"priorlens: file://{out}/maps/p") and "cannot be written" in ran.told[-1]
