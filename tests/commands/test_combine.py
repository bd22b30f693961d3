"""`priorlens combine` on folders as `priorlens score` writes them: what it tells, and each bad input."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from command_line import Command

from priorlens.commands.combine import Joining
from priorlens.conformal import COMBINATION_RULES, combined_p_values, p_values
from priorlens.layers import write_image
from priorlens.outputs import write_json, write_rows

Write = Callable[..., Path]
FILES = [f"new/{number}.png" for number in range(6)]


def readings(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(count).astype(np.float32)


@pytest.fixture
def scored(tmp_path: Path) -> Write:
    """Writes a folder of results on `files`, the last very abnormal, with 20 calibration images, and says where."""

    def write(
        name: str,
        *,
        seed: int = 0,
        files: Sequence[str] = FILES,
        failed: Sequence[str] = (),
        patients: bool = False,
        model: str = "",
    ) -> Path:
        out = tmp_path / name
        out.mkdir()
        found, healthy = readings(seed, len(files)), readings(seed + 100, 20)
        found[-1] = 9
        rows = []
        for file, anomaly, p_value in zip(files, found, p_values(found, healthy), strict=True):
            said = ["", "", "", "", f"{file}: is empty; replace it"] if file in failed else [anomaly, f"{p_value:.6g}"]
            rows.append([file, *([f"p{file[4]}"] if patients else []), *said, *[3, 0.1, ""][: 5 - len(said)]])
        columns = ["file", *(["patient"] if patients else []), "anomaly", "p_value", "nfe", "seconds", "error"]
        write_rows(out / "scores.csv", columns, rows)
        known = [[f"{i:032x}", f"{i // 2 if patients else i:032x}", one, 0.5] for i, one in enumerate(healthy)]
        write_rows(out / "calibration.csv", ["image", "patient", "anomaly", "bits@sigma=0.5"], known)
        write_json(out / "verdicts.json", {"schema": 1, "model": model or name, "setup": "rule=combined"})
        return out

    return write


def lines(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_rules_are_those_of_the_method() -> None:
    assert sorted(Joining) == sorted(COMBINATION_RULES)


@pytest.mark.parametrize("rule", [None, *COMBINATION_RULES])
def test_one_p_value_an_image(tmp_path: Path, run: Command, scored: Write, rule: str | None) -> None:
    one, two, out = scored("one"), scored("two", seed=1), tmp_path / "out"
    ran = run("combine", one, two, "--out", out, *(["--rule", rule] if rule else []))
    assert ran.code == 0 and not ran.stderr, ran
    assert ran.stdout == (
        f"{out}: 6 of 6 images combined, against 20 healthy images of 20 patients: p-values down to 0.048\n"
    )
    rows = lines(out / "combined.csv")
    assert list(rows[0]) == ["file", "p_value", "p_1", "p_2", "error"] and [row["file"] for row in rows] == FILES
    anomalies = [np.append(readings(seed, 6)[:5], np.float32(9)) for seed in (0, 1)]
    healthy = np.stack([readings(100, 20), readings(101, 20)])
    expected = combined_p_values(np.stack(anomalies), healthy, rule or "harmonic")
    assert [row["p_value"] for row in rows] == [f"{value:.6g}" for value in expected]
    assert float(rows[-1]["p_value"]) == pytest.approx(1 / 21, rel=1e-5)
    for column, results in (("p_1", one), ("p_2", two)):
        assert [row[column] for row in rows] == [row["p_value"] for row in lines(results / "scores.csv")]
    facts = json.loads((out / "combined.json").read_text())
    assert facts == {
        "schema": 1,
        "rule": rule or "harmonic",
        "alpha": None,
        "results": [
            {"folder": str(one), "model": "one", "setup": "rule=combined"},
            {"folder": str(two), "model": "two", "setup": "rule=combined"},
        ],
        "calibration": {"images": 20, "patients": 20, "smallest_p_value": 1 / 21},
        "maps": 0,
    }
    assert not (out / "maps").exists()


SCALES = ({"low": -1.0, "threshold": 3.0, "high": 5.0}, {"low": 10.0, "threshold": 12.0, "high": 15.0})


def with_maps(folder: Path, number: int, images: bool = True) -> dict[str, np.ndarray]:
    """Gives results the maps, and the pictures of images, that `score` writes beside the tables; maps by file."""
    write_json(folder / "model.json", {"schema": 1, "map_unit": "bit", "map_scale": SCALES[number]})
    found = {}
    for index, file in enumerate(FILES):
        values = np.random.default_rng([number, index]).normal(size=(6, 5)).astype(np.float32)
        (folder / "maps/new").mkdir(parents=True, exist_ok=True)
        np.save(folder / "maps" / file.replace(".png", ".npy"), values)
        if images:
            grey = (255 * np.random.default_rng(index).random((1, 6, 5))).astype(np.float32)
            write_image(folder / "images" / file, grey)
        found[file] = values
    return found


def test_maps_are_joined_relative_to_what_is_usual(tmp_path: Path, run: Command, scored: Write) -> None:
    folders = scored("one"), scored("two", seed=1)
    one, two = (with_maps(folder, number) for number, folder in enumerate(folders))
    ran = run("combine", *folders, "--out", tmp_path / "out")
    assert ran.code == 0 and f"{tmp_path / 'out/maps'}: 6 joined maps\n" in ran.stdout, ran
    for file in FILES:
        joined = np.load(tmp_path / "out/maps" / file.replace(".png", ".npy"))
        expected = ((one[file] + 1) / 4 + (two[file] - 10) / 2) / 2
        assert joined.dtype == np.float32
        np.testing.assert_allclose(joined, expected, rtol=1e-5, atol=1e-6)
        assert (tmp_path / "out/overlays" / file).is_file()
    assert json.loads((tmp_path / "out/combined.json").read_text())["maps"] == 6


def test_a_map_that_cannot_be_joined_is_told_and_the_others_are(tmp_path: Path, run: Command, scored: Write) -> None:
    one, two = scored("one"), scored("two", seed=1)
    with_maps(one, 0, images=False)
    with_maps(two, 1)
    np.save(two / "maps/new/0.npy", np.zeros((9, 9), np.float32))
    (two / "maps/new/1.npy").write_bytes(b"no array")
    (two / "maps/new/2.npy").unlink()
    ran = run("combine", one, two, "--out", tmp_path / "out")
    assert ran.code == 7 and "3 joined maps" in ran.stdout and "6 of 6 images combined" in ran.stdout, ran
    assert len(ran.stderr.splitlines()) == 3
    for said in ("new/0.png: has maps of 6x5 and 9x9 pixels", "maps/new/1.npy", "new/2.png: is not joined with others"):
        assert said in ran.stderr
    assert sorted(path.name for path in (tmp_path / "out/maps/new").iterdir()) == ["3.npy", "4.npy", "5.npy"]
    assert not (tmp_path / "out/overlays").exists()


@pytest.mark.parametrize("lack", ["maps", "model.json"])
def test_without_maps_or_what_they_mean_there_are_p_values(
    tmp_path: Path, run: Command, scored: Write, lack: str
) -> None:
    one, two = scored("one"), scored("two", seed=1)
    with_maps(one, 0)
    with_maps(two, 1)
    shutil.rmtree(two / lack) if lack == "maps" else (two / lack).unlink()
    ran = run("combine", one, two, "--out", tmp_path / "out")
    assert ran.code == 0 and "joined" not in ran.stdout, ran
    assert ran.stderr == f"priorlens: {two}: has no maps that can be joined; score again for joined maps\n"
    assert not (tmp_path / "out/maps").exists()


def test_volumes_of_scans_are_not_joined(tmp_path: Path, run: Command, scored: Write) -> None:
    folders = scored("one"), scored("two", seed=1)
    for number, folder in enumerate(folders):
        with_maps(folder, number)
        rows = (folder / "scores.csv").read_text().splitlines()
        named = [f"{line},{'name' if index == 0 else '../../escaped'}" for index, line in enumerate(rows)]
        (folder / "scores.csv").write_text("\n".join(named) + "\n")
    ran = run("combine", *folders, "--out", tmp_path / "out")
    assert ran.code == 0 and not ran.stderr and not (tmp_path / "out/maps").exists(), ran


def test_maps_of_an_earlier_call_do_not_stay(tmp_path: Path, run: Command, scored: Write) -> None:
    one, two = scored("one"), scored("two", seed=1)
    with_maps(one, 0)
    with_maps(two, 1)
    out = ("--out", tmp_path / "out")
    assert run("combine", one, two, *out, "--no-overlays").code == 0
    assert (tmp_path / "out/maps/new/0.npy").is_file() and not (tmp_path / "out/overlays").exists()
    assert run("combine", one, two, *out, "--overwrite").code == 0
    assert (tmp_path / "out/overlays/new/0.png").is_file()
    shutil.rmtree(two / "maps")
    assert run("combine", one, two, *out, "--overwrite").code == 0
    assert not [path for folder in ("maps", "overlays") for path in (tmp_path / "out" / folder).rglob("*.*")]


@pytest.mark.parametrize("below", ["", "maps"])
def test_results_are_not_replaced_by_what_is_made_of_them(
    tmp_path: Path, run: Command, scored: Write, below: str
) -> None:
    one, two = scored("one"), scored("two", seed=1)
    known = with_maps(one, 0)
    with_maps(two, 1)
    run("combine", two, one, "--out", one / below, "--overwrite").refused(5, one, "choose another --out")
    np.testing.assert_array_equal(np.load(one / "maps/new/0.npy"), known[FILES[0]])


def test_a_damaged_picture_is_told_before_anything_is_written_of_its_image(
    tmp_path: Path, run: Command, scored: Write
) -> None:
    one, two = scored("one"), scored("two", seed=1)
    with_maps(one, 0)
    with_maps(two, 1)
    (one / "images/new/0.png").write_bytes(b"no picture")
    ran = run("combine", one, two, "--out", tmp_path / "out")
    assert ran.code == 7 and "5 joined maps" in ran.stdout and "images/new/0.png" in ran.stderr, ran
    assert not (tmp_path / "out/maps/new/0.npy").exists()


def test_maps_of_colour_images_of_three_models_that_failed_once(tmp_path: Path, run: Command, scored: Write) -> None:
    folders = [scored(name, seed=seed) for seed, name in enumerate(("one", "two"))]
    folders.append(scored("three", seed=2, failed=[FILES[2]]))
    known = [with_maps(folder, number % 2) for number, folder in enumerate(folders)]
    for file in FILES:
        write_image(folders[0] / "images" / file, np.random.default_rng(0).random((3, 6, 5)).astype(np.float32))
    ran = run("combine", *folders, "--out", tmp_path / "out", "--alpha", 0.1)
    assert ran.code == 7 and "5 joined maps" in ran.stdout, ran
    assert not (tmp_path / "out/maps/new/2.npy").exists() and (tmp_path / "out/overlays/new/3.png").is_file()
    one, two = known[0][FILES[0]], known[1][FILES[0]]
    expected = (2 * (one + 1) / 4 + (two - 10) / 2) / 3
    np.testing.assert_allclose(np.load(tmp_path / "out/maps/new/0.npy"), expected, rtol=1e-5, atol=1e-6)


def test_verdicts_at_alpha_and_patients_where_they_are_named(tmp_path: Path, run: Command, scored: Write) -> None:
    folders = [scored(name, seed=seed, patients=True) for seed, name in enumerate(("one", "two", "three"))]
    out = tmp_path / "out"
    assert run("combine", *folders, "--out", out, "--alpha", 0.1).code == 0
    rows = lines(out / "combined.csv")
    assert list(rows[0]) == ["file", "patient", "p_value", "verdict", "p_1", "p_2", "p_3", "error"]
    assert [row["patient"] for row in rows] == [f"p{i}" for i in range(6)]
    assert all(row["verdict"] == ("abnormal" if float(row["p_value"]) <= 0.1 else "usual") for row in rows)
    assert rows[-1]["verdict"] == "abnormal" and rows[-1]["p_value"] == f"{1 / 11:.6g}"
    facts = json.loads((out / "combined.json").read_text())
    assert facts["alpha"] == 0.1 and facts["calibration"]["patients"] == 10


def test_images_that_a_result_lacks_are_named(tmp_path: Path, run: Command, scored: Write) -> None:
    one, two = scored("one", failed=[FILES[1]]), scored("two", seed=1, files=[*FILES[1:], "new/x, y.png"])
    ran = run("combine", one, two, "--out", tmp_path / "out", "--alpha", 0.05)
    assert ran.code == 7 and "4 of 7 images combined" in ran.stdout, ran
    assert ran.stderr.splitlines() == [
        f"priorlens: new/0.png: is not in {two}; score it there too",
        "priorlens: new/1.png: is empty; replace it",
        f"priorlens: new/x, y.png: is not in {one}; score it there too",
    ]
    rows = {row["file"]: row for row in lines(tmp_path / "out/combined.csv")}
    assert list(rows) == [*FILES, "new/x, y.png"]
    for file in ("new/0.png", "new/1.png", "new/x, y.png"):
        assert (rows[file]["p_value"], rows[file]["verdict"]) == ("", "")
        assert f"priorlens: {rows[file]['error']}" in ran.stderr
    assert (rows["new/1.png"]["p_1"], rows["new/1.png"]["p_2"] != "") == ("", True)
    assert rows["new/5.png"]["verdict"] in ("abnormal", "usual") and rows["new/5.png"]["error"] == ""


def test_file_names_that_are_not_utf_8_keep_their_bytes(tmp_path: Path, run: Command, scored: Write) -> None:
    folders = [scored(name, seed=seed, files=["new/\udcff é.png"]) for seed, name in enumerate(("one", "two"))]
    assert run("combine", *folders, "--out", tmp_path / "out").code == 0
    assert b"\nnew/\xff \xc3\xa9.png," in (tmp_path / "out/combined.csv").read_bytes()


def test_an_output_folder_in_use(tmp_path: Path, run: Command, scored: Write) -> None:
    line = ("combine", scored("one"), scored("two", seed=1), "--out", tmp_path / "out")
    assert run(*line).code == 0
    run(*line).refused(5, tmp_path / "out", "--overwrite")
    assert run(*line, "--overwrite").code == 0


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda a: shutil.rmtree(a), ("holds no scores.csv", "priorlens score")),
        (lambda a: (a / "calibration.csv").unlink(), ("without calibration", "priorlens calibrate MODEL HEALTHY")),
        (lambda a: (a / "verdicts.json").unlink(), ("without calibration", "priorlens calibrate MODEL HEALTHY")),
        (lambda a: (a / "verdicts.json").write_text("[]"), ("verdicts.json", "damaged")),
        (
            lambda a: (a / "verdicts.json").write_text('{"schema": 2, "model": "", "setup": ""}'),
            ("schema 2", "upgrade"),
        ),
        (lambda a: (a / "calibration.csv").write_text("image,anomaly\n"), ("calibration.csv", "no column patient")),
        (lambda a: (a / "calibration.csv").write_text("image,patient,anomaly\n"), ("0 healthy patients",)),
        (lambda a: (a / "scores.csv").write_text("file,error\n"), ("scores.csv", "no column anomaly")),
        (lambda a: (a / "scores.csv").write_text("file,anomaly,error\n"), ("no scored image in common",)),
        (
            lambda a: (a / "scores.csv").write_text("file,anomaly,error\nnew/0.png,high,\n"),
            ("line 2", "anomaly", "high"),
        ),
        (lambda a: (a / "scores.csv").write_text("file,anomaly,error\nx,1,\nx,2,\n"), ("line 3", "a second time")),
    ],
)
def test_results_that_cannot_be_combined(
    tmp_path: Path, run: Command, scored: Write, break_it: Callable[[Path], object], said: tuple[str, ...]
) -> None:
    well, ill = scored("well"), scored("ill", seed=1)
    break_it(ill)
    run("combine", well, ill, "--out", tmp_path / "out").refused(3, ill, *said)
    assert not (tmp_path / "out").exists()


def test_results_that_do_not_belong_together(tmp_path: Path, run: Command, scored: Write) -> None:
    one, out = scored("one"), ("--out", tmp_path / "out")
    run("combine", one, one, *out).refused(3, one, "same model in the same setup", "leave one of the two out")
    run("combine", one, scored("b", model="one"), *out).refused(3, tmp_path / "b", "same model in the same setup", one)
    run("combine", one, scored("c", patients=True), *out).refused(3, tmp_path / "c", "--group")
    run("combine", one, scored("d", files=["old/0.png"]), *out).refused(3, "no scored image in common")
    assert not (tmp_path / "out").exists()


def test_an_alpha_below_the_smallest_p_value(tmp_path: Path, run: Command, scored: Write) -> None:
    ran = run("combine", scored("one"), scored("two", seed=1), "--out", tmp_path / "out", "--alpha", 0.01)
    ran.refused(3, "alpha 0.01", "20 healthy patients", "0.0476", "at least 99")
    assert not (tmp_path / "out").exists()


def test_a_wrong_command_line(tmp_path: Path, run: Command, scored: Write) -> None:
    one, two, out = scored("one"), scored("two", seed=1), ("--out", tmp_path / "out")
    for line, said in (
        ((one,), "two folders of results at least"),
        ((one, two, "--alpha", 2), "--alpha 2 is no rate"),
        ((one, two, "--alpha", 0), "--alpha 0 is no rate"),
        ((one, two, "--rule", "mean"), "'mean' is not one of"),
        ((), "Missing argument"),
    ):
        ran = run("combine", *line, *out)
        assert ran.code == 2 and said in ran.stderr, ran
    assert not (tmp_path / "out").exists()


def test_help_fits_a_terminal(run: Command) -> None:
    ran = run("combine", "--help")
    assert ran.code == 0 and "priorlens combine " in ran.stdout.split("Example")[1]
    assert max(map(len, ran.stdout.splitlines())) <= 80
