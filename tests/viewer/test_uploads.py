"""Names that stay in their folder, and contents that begin as an image or a scan does."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from priorlens.errors import InputError
from priorlens.viewer.uploads import ENOUGH, partial_of, place_for, require_kind, safe_name, suffixes

PNG = b"\x89PNG\r\n\x1a\n" + bytes(600)
NIFTI = (348).to_bytes(4, "little") + bytes(600)
DICOM = bytes(128) + b"DICM" + bytes(400)


# --- names


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ("a.png", "a.png"),
        ("study/series 1/a.dcm", "study/series 1/a.dcm"),
        ("M%C3%BCller%20%26%20Sohn.png", "Müller & Sohn.png"),
        ("%3Cscript%3E.png", "_script_.png"),
        ("../../etc/passwd", "etc/passwd"),
        ("..%2f..%2fetc%2fpasswd", "etc/passwd"),
        ("%2e%2e/%2e%2e/a.png", "a.png"),
        ("/etc/passwd", "etc/passwd"),
        ("//server/share/a.png", "server/share/a.png"),
        ("C:\\Users\\ann\\a.png", "C_/Users/ann/a.png"),
        ("..\\..\\a.png", "a.png"),
        ("%2E%2E%5C%2E%2E%5Ca.png", "a.png"),
        (".ssh/.hidden.png", "ssh/hidden.png"),
        ("a/./b/../c.png", "a/b/c.png"),
        ("a.png%00.exe", "a.png_.exe"),
        ("a%0d%0aX: y.png", "a__X_ y.png"),
        (" a.png ", "a.png"),
        ("%252e%252e%252fa.png", "%2e%2e%2fa.png"),
        ("%ff.png", "\ufffd.png"),
        ("...png", "png"),
    ],
)
def test_a_name_becomes_a_path_below_the_folder(told: str, kept: str) -> None:
    assert safe_name(told) == PurePosixPath(kept)


@pytest.mark.parametrize("told", ["", ".", "..", "/", "///", "../..", "...", "%2e", " ", "\\", "./.", "%20/%2e%2e"])
def test_a_name_of_which_nothing_is_left(told: str) -> None:
    with pytest.raises(InputError, match="has no name"):
        safe_name(told)


def test_long_names_keep_their_end_where_the_suffix_is(tmp_path: Path) -> None:
    for letter in "aäあ𝔞":
        name = safe_name(quote(letter * 5000 + ".nii.gz"))
        assert name.name.endswith(f"{letter}.nii.gz") and len(name.name.encode()) <= 120
        partial_of(place_for(tmp_path, name)).touch()
    deep = safe_name("/".join("abcdefghijklmnop"))
    assert str(deep) == "i/j/k/l/m/n/o/p"


@settings(max_examples=300, deadline=None)
@given(st.text() | st.lists(st.sampled_from(["..", ".", "/", "\\", "%2f", "%5c", "%2e", "\0", "a", " "])).map("".join))
def test_no_name_leads_out(told: str) -> None:
    for text in (told, quote(told, errors="replace")):
        try:
            name = safe_name(text)
        except InputError:
            continue
        assert not name.is_absolute() and 1 <= len(name.parts) <= 8
        for part in name.parts:
            assert part not in ("", ".", "..") and not part.startswith(".")
            assert not any(ord(letter) < 32 or letter in '/\\\x7f:*?"<>|' for letter in part)
            assert len(part.encode()) <= 120


# --- places


def test_nothing_takes_another_s_place(tmp_path: Path) -> None:
    name = PurePosixPath("p1/a.png")
    (tmp_path / "p1").mkdir()
    places = []
    for _ in range(3):
        path = place_for(tmp_path, name)
        path.touch()
        places.append(path.name)
    assert places == ["a.png", "2-a.png", "3-a.png"]
    assert place_for(tmp_path, PurePosixPath("p2/a.png")) == tmp_path / "p2/a.png"


def test_nor_that_of_one_that_is_arriving(tmp_path: Path) -> None:
    first = place_for(tmp_path, PurePosixPath("a.png"))
    partial_of(first).touch()
    second = place_for(tmp_path, PurePosixPath("a.png"))
    assert first.name == "a.png" and second.name == "2-a.png"
    assert partial_of(first).name.startswith("."), "hidden files are not scored"


# --- kinds


@pytest.mark.parametrize(
    ("name", "start", "of_scans"),
    [
        ("a.png", PNG, False),
        ("a.PNG", PNG, False),
        ("a.jpg", b"\xff\xd8\xff\xe0", False),
        ("a.tif", b"II*\x00", False),
        ("a.npy", b"\x93NUMPY\x01\x00", False),
        ("a.nii", NIFTI, True),
        ("a.nii", (540).to_bytes(4, "big"), True),
        ("a.nii.gz", b"\x1f\x8b\x08", True),
        ("A.NII.GZ", b"\x1f\x8b\x08", True),
        ("a.dcm", DICOM, True),
        ("IM0001", DICOM, True),
        ("1.2.840.113619.2.1", DICOM, True),
    ],
)
def test_images_and_scans(name: str, start: bytes, of_scans: bool) -> None:
    require_kind(PurePosixPath(name), start[:ENOUGH], of_scans)


@pytest.mark.parametrize(
    ("name", "start", "of_scans", "says"),
    [
        ("a.exe", PNG, False, "is not one of"),
        ("a", PNG, False, "is not one of"),
        ("a.html", b"<script>", False, "is not one of"),
        ("a.svg", b"<svg>", False, "is not one of"),
        ("a.png", b"", False, "its content is not that of an image"),
        ("a.png", b"<script>alert(1)</script>", False, "its content is not that of an image"),
        ("a.png", b" " + PNG, False, "its content is not that of an image"),
        ("a.png", b"#!/bin/sh\n", False, "its content is not that of an image"),
        ("a.dcm", DICOM, False, "is not one of"),
        ("a.nii.gz", b"\x1f\x8b\x08", False, "is not one of"),
        ("a.png", PNG, True, "is not one of"),
        ("a.gz", b"\x1f\x8b\x08", True, "is not one of"),
        ("IM0001", bytes(600), True, "is not one of"),
        ("a.nii", b"notes, not numbers", True, "its content is not that of an image"),
        ("a.dcm", bytes(128) + b"DICN", True, "its content is not that of an image"),
    ],
)
def test_what_is_none_is_named_with_a_remedy(name: str, start: bytes, of_scans: bool, says: str) -> None:
    with pytest.raises(InputError) as error:
        require_kind(PurePosixPath(name), start[:ENOUGH], of_scans)
    assert str(error.value).startswith(f"{name}: ") and says in str(error.value) and "; " in str(error.value)
    assert "\n" not in str(error.value)


def test_which_suffixes_the_page_is_told() -> None:
    assert ".png" in suffixes(False) and ".dcm" not in suffixes(False) and "" not in suffixes(False)
    assert {".nii.gz", ".nii", ".dcm", ""} <= set(suffixes(True)) and ".png" not in suffixes(True)
