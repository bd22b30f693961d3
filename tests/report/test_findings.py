"""What is read back from a results folder, and the words it is told in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from made_results import HEALTHY, SIGMAS, add_evaluation, write_results
from priorlens.outputs import write_array
from priorlens.pictures import overlay
from priorlens.report.findings import Case, read_findings
from priorlens.report.sentences import place_words, spectrum_words
from priorlens.report.svg import Axis, shown
from priorlens.report.thumbnails import overlay_thumbnail, reconstruction_thumbnail

KINDS = ["good/1.png", "good/2.png", "lesion/1.png"]


def case(anomaly: float) -> Case:
    return Case(1, "x", "x", "x", "", "", anomaly, 0.1, "", None, {}, "")


def test_cases_have_their_kind_picture_and_regions(tmp_path: Path) -> None:
    findings = read_findings(add_evaluation(write_results(tmp_path / "out", KINDS), 2, 1))
    assert [one.name for one in findings.cases] == KINDS and [one.kind for one in findings.cases] == [
        "good",
        "good",
        "lesion",
    ]
    assert [len(one.regions or ()) for one in findings.cases] == [0, 1, 2]
    assert all(one.overlay and one.overlay.is_file() for one in findings.cases)
    assert findings.healthy.size == HEALTHY and findings.spectra and len(findings.spectra.panels) == 4


def test_kinds_that_do_not_agree_with_the_counts_are_not_told(tmp_path: Path) -> None:
    findings = read_findings(add_evaluation(write_results(tmp_path / "out", KINDS), 1, 2))
    assert {one.kind for one in findings.cases} == {""}


def test_each_image_of_equal_name_gets_its_own_picture(tmp_path: Path) -> None:
    folder = write_results(tmp_path / "out", ["a/x.png", "a/x.tif", "b/x.png", "c/y.png"], overlays=False)
    for path in [*folder.rglob("*.npy")]:
        path.unlink()
    for name in ("x", "x.tif", "x.png", "y"):
        write_array(folder / "maps" / f"{name}.npy", np.zeros((2, 2), np.float32))
    findings = read_findings(folder)
    (folder / "overlays").mkdir()
    for name in ("x", "x.tif", "x.png", "y"):
        (folder / "overlays" / f"{name}.png").touch()
    findings = read_findings(folder)
    assert [one.overlay.name for one in findings.cases if one.overlay] == ["x.png", "x.tif.png", "x.png.png", "y.png"]


def test_fewer_lines_than_images_after_an_interruption(tmp_path: Path) -> None:
    folder = write_results(tmp_path / "out", ["1.png", "2.png", "3.png"])
    lines = (folder / "scores.csv").read_text().splitlines(keepends=True)
    (folder / "scores.csv").write_text("".join(lines[:2]))
    assert [one.name for one in read_findings(folder).cases] == ["1.png"]
    (folder / "scores.csv").write_text(lines[0])
    assert read_findings(folder).cases == ()


@pytest.mark.parametrize(
    ("height", "words"),
    [
        (0.0, "at no noise level"),
        (1.0, "above the band of healthy images at σ = 0.25, 1, 4: from fine to large structures"),
    ],
)
def test_a_sentence_on_the_spectrum(tmp_path: Path, height: float, words: str) -> None:
    spectra = read_findings(write_results(tmp_path / "out", ["1.png"])).spectra
    assert spectra
    assert words in spectrum_words(spectra, [np.full(len(SIGMAS), height)] * 4)


def test_a_high_level_alone_means_large_structures(tmp_path: Path) -> None:
    spectra = read_findings(write_results(tmp_path / "out", ["1.png"])).spectra
    assert spectra and "large structures" in spectrum_words(spectra, [np.array([0, 0, 1.0])] * 4)
    assert "fine structure" in spectrum_words(spectra, [np.array([1.0, 0, 0])] * 4)


def test_the_place_among_healthy_images_counts_ties() -> None:
    healthy = np.array([0.0, 1.0, 2.0])
    assert place_words(case(1.0), healthy).startswith("2 of 3 ")
    assert place_words(case(2.0), healthy) == "1 of 3 healthy calibration images scores as high or higher."
    assert place_words(case(3.0), healthy).startswith("None of 3 ")


def test_thumbnails_are_small_and_hold_no_name(tmp_path: Path) -> None:
    pictures = []
    for name in ("one", "quite another name"):
        path = tmp_path / f"{name}.png"
        overlay(np.ones((1, 40, 56), np.float32), np.eye(40, 56, dtype=np.float32), path, name=name, threshold=0.5)
        pictures.append(overlay_thumbnail(path))
    assert pictures[0] == pictures[1] and pictures[0] and len(pictures[0]) < 40_000
    (tmp_path / "broken.png").write_bytes(b"no picture")
    assert overlay_thumbnail(tmp_path / "broken.png") is None
    write_array(tmp_path / "r.npy", np.random.default_rng(0).uniform(size=(1, 32, 24)).astype(np.float32))
    assert (reconstruction_thumbnail(tmp_path / "r.npy") or "").startswith("data:image/webp;base64,")
    write_array(tmp_path / "flat.npy", np.zeros(3))
    assert reconstruction_thumbnail(tmp_path / "flat.npy") is None
    header = b"\x93NUMPY\x01\x00" + bytes([70, 0])
    claim = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 99999999999, 9)}"
    (tmp_path / "huge.npy").write_bytes(header + claim.ljust(70).encode())
    assert reconstruction_thumbnail(tmp_path / "huge.npy") is None
    Image.new("RGB", (3, 3)).save(tmp_path / "tiny.png")
    assert overlay_thumbnail(tmp_path / "tiny.png")


def test_numbers_are_plain() -> None:
    assert [shown(x) for x in (0.0, 0.0123456, 12345.6, 1e9, 1e-7, float("nan"))] == [
        "0",
        "0.0123",
        "1.23e+04",
        "1.00e+09",
        "1.00e-07",
        "–",
    ]
    axis = Axis(0, 10, 0, 100)
    assert axis(5) == 50 and axis(99) == 100 and axis.ticks(5) == [0, 2, 4, 6, 8, 10]
