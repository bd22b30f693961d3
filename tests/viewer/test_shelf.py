"""Results folders side by side: numbers that stay, and nothing from outside a folder, whatever its tables say."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from asking import shelf_of

from made_results import write_results, write_scan_results
from priorlens.errors import InputError
from priorlens.viewer.shelf import LAYERS, Shelf

SUFFIXES = (".nii.gz", ".png", ".npy")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_results(
        tmp_path_factory.mktemp("data") / "written", ["a.png", "b/c.png", "d.png"], layers=True, truth=True
    )


@pytest.fixture
def results(tmp_path: Path, written: Path) -> Path:
    """Three images, one in a folder of its own, with all layers but a reconstruction."""
    return shutil.copytree(written, tmp_path / "results")


def renamed(folder: Path, name: str) -> None:
    """The first scan's table says that it is called so."""
    for path in (folder / "scores.csv", folder / "slices.csv", folder / "regions.csv"):
        path.write_text(path.read_text().replace(",anna,", f',"{name}",'))


def secrets(path: Path) -> None:
    """Files outside that have just the names of layers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for suffix in SUFFIXES:
        path.with_name(path.name + suffix).write_bytes(b"secret")


# --- numbers


def test_cases_are_numbered_through_all_folders_and_keep_their_numbers(tmp_path: Path, results: Path) -> None:
    scans = write_scan_results(tmp_path / "scans")
    shelf = Shelf()
    assert list(shelf.add(results)) == [1, 2, 3]
    before = {one.number: one.case.name for one in shelf}
    assert list(shelf.add(scans, dropped=True)) == [4, 5]
    after = {one.number: one.case.name for one in shelf}
    assert list(after) == [1, 2, 3, 4, 5] and {number: after[number] for number in before} == before
    for one in shelf:
        found = shelf.get(one.number)
        assert found is not None and (found.number, found.case) == (one.number, one.case)
    assert [one.book.dropped for one in shelf] == [False] * 3 + [True] * 2
    assert shelf.first.folder == results


@pytest.mark.parametrize("number", [0, -1, -3, 4, 10**30])
def test_there_is_no_other_case(results: Path, number: int) -> None:
    assert shelf_of(results).get(number) is None


def test_what_is_no_results_folder_is_refused_and_nothing_of_it_kept(tmp_path: Path, results: Path) -> None:
    shelf = shelf_of(results)
    with pytest.raises(InputError, match=r"holds no scores\.csv"):
        shelf.add(tmp_path)
    assert [one.number for one in shelf] == [1, 2, 3]
    assert list(shelf.add(results, dropped=True)) == [4, 5, 6]


def test_names_are_hidden_in_every_folder(tmp_path: Path, results: Path) -> None:
    shelf = shelf_of(results, hide=True)
    shelf.add(write_scan_results(tmp_path / "scans"), dropped=True)
    assert [one.case.name for one in shelf] == ["case 1", "case 2", "case 3", "case 1", "case 2"]
    assert {one.book.findings.title for one in shelf} == {"results"}
    first = shelf.get(1)
    assert first is not None and first.layer("map") == results / "maps/a.npy", "the files are found all the same"


# --- files


def test_the_layers_of_a_case(results: Path) -> None:
    paths = {name: [one.layer(name) for one in shelf_of(results)] for name in LAYERS}
    assert paths["image"] == [results / f"images/{stem}.png" for stem in ("a", "b/c", "d")]
    assert paths["map"] == [results / f"maps/{stem}.npy" for stem in ("a", "b/c", "d")]
    assert paths["truth"] == [results / f"truth/{stem}.png" for stem in ("a", "b/c", "d")]
    assert paths["segmentation"] == [None, results / "segmentations/b/c.png", results / "segmentations/d.png"]
    assert paths["reconstruction"] == [None, None, None]
    assert [one.overlay for one in shelf_of(results)] == [results / f"overlays/{s}.png" for s in ("a", "b/c", "d")]


def test_a_case_that_failed_has_none(tmp_path: Path) -> None:
    folder = write_results(tmp_path / "results", ["a.png", "b.png"], failed=[1])
    failed = shelf_of(folder).get(2)
    assert failed is not None and failed.case.error
    assert failed.overlay is None and not any(failed.layer(name) for name in LAYERS)


def test_a_file_of_the_folder_and_no_other(tmp_path: Path, results: Path) -> None:
    book = shelf_of(results).first
    (tmp_path / "secret.csv").write_text("secret")
    (results / "own.csv").symlink_to(results / "scores.csv")
    (results / "out.csv").symlink_to(tmp_path / "secret.csv")
    (results / "away").symlink_to(tmp_path)
    (results / "round.csv").symlink_to(results / "round.csv")
    (results / "dangling.csv").symlink_to(results / "nothing.csv")
    os.mkfifo(results / "pipe.csv")
    assert book.file("scores.csv") == results / "scores.csv"
    assert book.file("own.csv") == results / "own.csv", "a link that stays inside"
    outside = ["../secret.csv", str(tmp_path / "secret.csv"), "maps/../../secret.csv", "out.csv", "away/secret.csv"]
    none = ["round.csv", "dangling.csv", "pipe.csv", "maps", "", "nothing.csv", "scores.csv\0", "a" * 5000, "a/" * 3000]
    for name in (*outside, *none, "\udcff"):
        assert book.file(name) is None, ascii(name)


@pytest.mark.parametrize("name", ["../../secret", "{outside}/secret", "x/../../../secret", "..\\..\\secret"])
def test_a_scan_s_name_may_be_a_way_out_and_is_not_gone(tmp_path: Path, name: str) -> None:
    results = write_scan_results(tmp_path / "results")
    secrets(tmp_path / "secret")
    secrets(results.parent / "overlays/secret")
    renamed(results, name.format(outside=tmp_path))
    one = shelf_of(results).get(1)
    assert one is not None and one.case.stem == name.format(outside=tmp_path)
    assert one.overlay is None and not any(one.layer(layer) for layer in LAYERS)


def test_names_that_no_file_can_have(tmp_path: Path) -> None:
    results = write_scan_results(tmp_path / "results")
    renamed(results, "an\0na")
    one = shelf_of(results).get(1)
    assert one is not None and "\0" in one.case.stem
    assert one.overlay is None and not any(one.layer(layer) for layer in LAYERS)


@pytest.mark.parametrize("file", ["../../secret.png", "{outside}/secret.png", "/etc/passwd", "a.png\0", "maps/../../a"])
def test_an_image_s_file_may_be_a_way_out_and_is_not_gone(tmp_path: Path, file: str) -> None:
    results = write_results(tmp_path / "results", ["b.png"], layers=True)
    secrets(tmp_path / "secret")
    table = results / "scores.csv"
    table.write_text(table.read_text().replace("/data/set/test/b.png", file.format(outside=tmp_path)))
    one = shelf_of(results).get(1)
    assert one is not None
    assert one.overlay is None and not any(one.layer(layer) for layer in LAYERS)


def test_layers_that_are_links_to_elsewhere(tmp_path: Path, results: Path) -> None:
    np.save(tmp_path / "secret.npy", np.zeros((40, 56), np.float32))
    (results / "maps/a.npy").unlink()
    (results / "maps/a.npy").symlink_to(tmp_path / "secret.npy")
    os.replace(results / "images", tmp_path / "elsewhere")
    (results / "images").symlink_to(tmp_path / "elsewhere")
    first = shelf_of(results).get(1)
    assert first is not None and first.case.stem == "a"
    assert first.layer("map") is None and first.layer("image") is None
    assert first.layer("truth") == results / "truth/a.png"
