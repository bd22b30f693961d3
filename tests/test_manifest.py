"""A manifest as it stands; what becomes of its images is tested with the data sets."""

from pathlib import Path

import pytest

from priorlens.errors import InputError
from priorlens.manifest import Row, read_manifest


def write(folder: Path, *lines: str, encoding: str = "utf-8") -> Path:
    for name in ("1.png", "2.png", "sub/3.png"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    path = folder / "manifest.csv"
    path.write_text("".join(f"{line}\n" for line in lines), encoding=encoding)
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_rows_by_absolute_path(tmp_path, encoding):
    path = write(
        tmp_path, "group,file,mask,kind", "Zoë,1.png,2.png,lesion", "bob, sub/../sub/3.png,,", encoding=encoding
    )
    assert read_manifest(path) == {
        tmp_path / "1.png": Row("Zoë", "lesion", tmp_path / "2.png"),
        tmp_path / "sub" / "3.png": Row("bob", "", None),
    }


def test_kind_and_mask_may_be_left_out(tmp_path):
    assert read_manifest(write(tmp_path, "file,group", "1.png,ann")) == {tmp_path / "1.png": Row("ann", "", None)}


def test_quoted_names_and_paths_relative_to_the_csv(tmp_path, monkeypatch):
    (tmp_path / "a, b.png").touch()
    path = write(tmp_path, "file,group", '"a, b.png","x, y"')
    monkeypatch.chdir(tmp_path.parent)
    assert read_manifest(path.relative_to(tmp_path.parent)) == {tmp_path / "a, b.png": Row("x, y", "", None)}


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["file;group", "1.png;a"], "must name the columns"),
        ([], "must name the columns"),
        (["file,group"], "lists no images"),
        (["file,group", "1.png,"], "line 2: has no file, no group"),
        (["file,group", "1.png,a", "2.png"], "line 3: has no file, no group"),
        (["file,group", "9.png,a"], "there is no file"),
        (["file,group", "sub,a"], "there is no file"),
        (["file,group,mask", "1.png,a,9.png"], "there is no file"),
        (["file,group", "1.png,a", "sub/../1.png,b"], "line 3: sub/../1.png is listed a second time"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path, lines, reason):
    path = write(tmp_path, *lines)
    with pytest.raises(InputError) as error:
        read_manifest(path)
    assert str(path) in str(error.value) and reason in str(error.value) and "\n" not in str(error.value)


def test_a_manifest_that_cannot_be_read(tmp_path):
    (tmp_path / "binary.csv").write_bytes(b"file,group\n\xff\xfe,a\n")
    for name, reason in (("none.csv", "no such file"), (".", "is a directory"), ("binary.csv", "not a CSV table")):
        with pytest.raises(InputError) as error:
            read_manifest(tmp_path / name)
        assert reason in str(error.value) and "\n" not in str(error.value)
