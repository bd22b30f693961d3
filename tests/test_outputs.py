"""Files are written whole or not at all."""

import csv
import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from priorlens.errors import OutputError
from priorlens.outputs import atomic_write, prepare_folder, write_array, write_json, write_rows, write_text


def one_line(error: pytest.ExceptionInfo[OutputError], path: Path) -> str:
    text = str(error.value)
    assert "\n" not in text and str(path) in text and ";" in text
    return text


def test_content_appears_under_the_final_name_and_nothing_else_does(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    with atomic_write(path) as file:
        file.write(b"half")
        assert not path.exists()
        assert [p.name for p in tmp_path.iterdir()] == [f".scores.csv.{os.getpid()}.partial"]
        file.write(b" and half")
    assert path.read_bytes() == b"half and half"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, SystemExit, ValueError, OSError(errno.ENOSPC, "No space")])
def test_a_failure_leaves_no_file(tmp_path: Path, failure: BaseException) -> None:
    with pytest.raises((KeyboardInterrupt, SystemExit, ValueError, OutputError)), atomic_write(tmp_path / "x") as file:
        file.write(b"half")
        raise failure
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_the_previous_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    write_text(path, "before")
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as file:
        file.write(b"after")
        raise KeyboardInterrupt
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    path = tmp_path / "map.npy"
    monkeypatch.setattr(os, step, full_disk)
    with pytest.raises(OutputError) as error:
        write_array(path, np.zeros(5))
    assert "no space left" in one_line(error, path) and "free some space" in one_line(error, path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_array_reports_the_reason_of_a_really_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f".map.npy.{os.getpid()}.partial").symlink_to("/dev/full")
    with pytest.raises(OutputError, match="no space left"):
        write_array(tmp_path / "map.npy", np.zeros(100_000))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_read_only_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(OutputError) as error:
        write_text(tmp_path / "x", "text")
    assert "choose an output folder" in one_line(error, tmp_path / "x")


def test_path_through_a_file_onto_a_folder_and_into_nowhere(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "x", tmp_path / "folder", tmp_path / "missing" / "x", tmp_path / ("x" * 300)):
        with pytest.raises(OutputError) as error:
            write_text(path, "text")
        one_line(error, path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def test_json_is_valid_or_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"schema": 1, "value": None, "name": "é"})
    assert json.loads((tmp_path / "x.json").read_text()) == {"schema": 1, "value": None, "name": "é"}
    with pytest.raises(ValueError):
        write_json(tmp_path / "nan.json", float("nan"))
    assert not (tmp_path / "nan.json").exists()


def test_array_is_never_pickled(tmp_path: Path) -> None:
    array = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    write_array(tmp_path / "x.npy", array)
    loaded = np.load(tmp_path / "x.npy", allow_pickle=False)
    assert loaded.dtype == np.float32
    np.testing.assert_array_equal(loaded, array)
    with pytest.raises(ValueError):
        write_array(tmp_path / "objects.npy", np.array([{}]))
    assert not (tmp_path / "objects.npy").exists()


cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), max_size=8)


@given(rows=st.lists(st.lists(cells, min_size=2, max_size=2), max_size=5))
@settings(deadline=None)
def test_rows_come_back(tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]) -> None:
    path = tmp_path_factory.mktemp("rows") / "x.csv"
    write_rows(path, ["file", "anomaly"], rows)
    with open(path, newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["file", "anomaly"], *rows]


def test_rows_keep_the_bytes_of_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    write_rows(tmp_path / "x.csv", ["file"], [[os.fsdecode(b"caf\xe9.png")]])
    assert (tmp_path / "x.csv").read_bytes() == b"file\ncaf\xe9.png\n"


def test_folder_is_created_with_parents(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    assert prepare_folder(path) == path
    assert path.is_dir() and not list(path.iterdir())
    assert prepare_folder(path) == path, "an empty folder will do"


def test_folder_that_holds_something_needs_overwrite(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("kept")
    with pytest.raises(OutputError, match="is not empty; choose another --out or add --overwrite") as error:
        prepare_folder(tmp_path)
    one_line(error, tmp_path)
    assert prepare_folder(tmp_path, overwrite=True) == tmp_path
    assert (tmp_path / "old").read_text() == "kept"


def test_folder_that_is_a_file_or_lies_in_one(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for path in (file, file / "out"):
        with pytest.raises(OutputError) as error:
            prepare_folder(path, overwrite=True)
        one_line(error, path)


def test_folder_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(OutputError, match="permission denied") as error:
        prepare_folder(tmp_path / "out")
    one_line(error, tmp_path / "out")
