"""What the page is told: everything of the results, nothing that is no JSON, and no names where they are hidden."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from asking import shelf_of, strict, texts

from made_results import SCAN_SHAPE, add_evaluation, write_results, write_scan_results
from priorlens.outputs import write_array
from priorlens.viewer.answers import Results, Scoring, Told, results, told

NOTHING = Scoring(possible=False, why_not="no model", most_bytes=0, suffixes=[])
NAMES = ["good/<script>alert(1)</script>.png", "good/Müller.png", "lesion/o'neil & sons.png", "lesion/broken.png"]
PATIENTS = ["Müller^Änne", "<b>Bob</b>", "Müller^Änne", "Zoë"]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "written"
    return write_results(folder, NAMES, patients=PATIENTS, failed=[3], layers=True, truth=True)


@pytest.fixture
def folder(tmp_path: Path, written: Path) -> Path:
    return shutil.copytree(written, tmp_path / "Klinik Süd")


def all_of(folder: Path, *, hide: bool = False) -> Results:
    found = results(shelf_of(folder, hide=hide), NOTHING)
    strict(found.model_dump_json())
    return found


def one_of(folder: Path, number: int = 1, *, hide: bool = False) -> Told:
    one = shelf_of(folder, hide=hide).get(number)
    assert one is not None
    found = told(one)
    strict(found.model_dump_json())
    return found


def replaced(path: Path, old: str, new: str) -> None:
    content = path.read_bytes()
    assert old.encode() in content, path.read_text()
    path.write_bytes(content.replace(old.encode(), new.encode("utf-8", "surrogateescape")))


def facts(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


# --- all results


def test_everything_but_single_cases(folder: Path) -> None:
    found = all_of(folder)
    assert (found.title, found.calibrated, found.alpha, found.planted) == ("Klinik Süd", True, 0.05, False)
    assert found.tables == ["scores.csv", "regions.csv", "spectrum.csv", "calibration.csv"]
    assert found.scoring == NOTHING and not found.report and not found.hidden
    assert found.summary[0] == "3 images scored, 1 could not be used." and "alpha = 0.05" in found.summary[1]
    assert ("Alpha", "0.05") in found.asked and ("Method", "anodode") in found.learned
    assert ("Healthy images", "40") in found.calibration
    (folder / "report.html").touch()
    assert all_of(folder).report


def test_lines_by_rising_p_value_and_failed_last(folder: Path) -> None:
    lines = all_of(folder).cases
    p_values = [line.p_value for line in lines]
    assert p_values[3] is None and None not in p_values[:3] and p_values[:3] == sorted(p_values[:3])  # type: ignore
    assert lines[3].number == 4 and lines[3].status == "failed" and "is not an image" in lines[3].error
    assert (lines[3].anomaly, lines[3].regions) == (None, None)
    assert {line.number for line in lines} == {1, 2, 3, 4}
    for line in lines[:3]:
        assert line.status == ("abnormal" if line.p_value <= 0.05 else "usual")
        assert (line.name, line.patient) == (NAMES[line.number - 1], PATIENTS[line.number - 1])
        assert line.regions == line.number - 1 and line.error == "" and not line.dropped


def test_without_a_calibration_by_falling_anomaly_and_no_verdict(tmp_path: Path) -> None:
    found = all_of(write_results(tmp_path / "out", ["a.png", "b.png", "c.png"], calibrated=False, alpha=None))
    assert not found.calibrated and found.alpha is None
    anomalies = [line.anomaly for line in found.cases]
    assert anomalies == sorted(anomalies, reverse=True) and len(set(anomalies)) == 3  # type: ignore
    assert {(line.status, line.p_value, line.regions) for line in found.cases} == {("scored", None, None)}
    assert "not calibrated" in " ".join(found.summary)
    assert found.calibration == [("Calibration", "not calibrated: there are no p-values and no verdicts")]


def test_kinds_and_planted_lesions(folder: Path) -> None:
    found = all_of(add_evaluation(folder, good=2, lesion=1, planted=True))
    assert {line.number: line.kind for line in found.cases} == {1: "good", 2: "good", 3: "lesion", 4: "lesion"}
    assert found.planted and any("planted" in line for line in found.summary)


def test_cases_that_were_dropped(tmp_path: Path, folder: Path) -> None:
    shelf = shelf_of(folder)
    shelf.add(write_results(tmp_path / "drop", ["new.png"]), dropped=True)
    lines = results(shelf, NOTHING).cases
    assert {line.name for line in lines if line.dropped} == {"new.png"} and len(lines) == 5
    assert next(line.number for line in lines if line.dropped) == 5


# --- one case


def test_a_case(folder: Path) -> None:
    found = one_of(folder, 3)
    assert found.dimensions == 2 and found.verdict_words.startswith("Called ")
    assert "of 40 healthy calibration images" in found.place_words
    assert found.region_words == "2 places stand out at a false-discovery rate of 0.05."
    assert "surprise is above the band" in found.spectrum_words
    assert dict(found.figures)["s8"] == 1.5 and "seconds" not in dict(found.figures)
    assert [layer.layer for layer in found.layers] == ["image", "map", "segmentation", "truth"]
    for layer in found.layers:
        assert layer.address == f"/api/cases/3/layers/{layer.layer}.nii.gz" and layer.channels == [""]
    assert found.overlay == "/api/cases/3/overlay.png" and found.slices is None
    first, second = found.regions_found
    assert (first.number, first.centre, first.size) == ("1", "row 10, column 20", "48 pixels")
    assert (first.peak, first.q_value, second.q_value) == (4.5, 0.02, 0.04)
    assert first.position == (20, 29, 0), "a column to the right, rows from below"


def test_a_case_that_failed(folder: Path) -> None:
    found = one_of(folder, 4)
    assert found.status == "failed" and "could not be scored" in found.verdict_words
    assert (found.layers, found.map_scale, found.overlay, found.regions_found) == ([], None, None, [])
    assert (found.place_words, found.spectrum_words, found.region_words) == ("", "", "")


def test_a_scan(tmp_path: Path) -> None:
    found = one_of(write_scan_results(tmp_path / "scans"))
    assert found.dimensions == 3 and found.layers[0].channels == ["flair", "t1ce"]
    (region,) = found.regions_found
    assert region.centre == "x 8, y -6, z 42 mm" and region.size == "630 mm³"
    assert region.position == (8, -6, 42) and region.q_value is None
    assert found.slices is not None and found.slices.axis == 2
    assert found.slices.index == list(range(SCAN_SHAPE[2]))
    assert found.slices.height_mm == [7 + 5 * k for k in range(SCAN_SHAPE[2])]
    assert max(found.slices.anomaly) == found.slices.anomaly[7] == 1


def test_slices_are_those_of_the_scan_itself(tmp_path: Path) -> None:
    scans = write_scan_results(tmp_path / "scans", ["a", "b"])
    lines = (scans / "slices.csv").read_text().splitlines()
    (scans / "slices.csv").write_text("\n".join([lines[0], *(line for line in lines if ",a," in line)][:4]) + "\n")
    first = one_of(scans, 1).slices
    assert first is not None and first.index == [0, 1, 2]
    assert one_of(scans, 2).slices is None
    (scans / "slices.csv").unlink()
    assert one_of(scans, 1).slices is None


# --- the scale of the map


def test_the_scale_of_a_model_with_healthy_images(folder: Path) -> None:
    known = {"low": 0.5, "high": 4, "threshold": 3}
    for unit, words in (("bit", "bits"), ("1", "relative to what is usual"), ("ell", ""), (None, "")):
        facts(folder / "model.json", map_scale=known, map_unit=unit)
        scale = one_of(folder).map_scale
        assert scale is not None and not scale.own and scale.unit == words
        assert (scale.low, scale.high, scale.threshold) == (0.5, 4, 3)


def test_the_scale_of_scans(tmp_path: Path) -> None:
    scale = one_of(write_scan_results(tmp_path / "scans")).map_scale
    assert scale is not None and (scale.low, scale.threshold, scale.high, scale.own) == (0, 2, 2, False)


@pytest.mark.parametrize(
    "known",
    [
        {},
        [1],
        {"low": 4, "high": 1, "threshold": 2},
        {"low": math.nan, "high": 1, "threshold": 2},
        {"low": 0, "high": math.inf, "threshold": 2},
        {"low": "0", "high": 1, "threshold": 2},
    ],
)
def test_without_healthy_statistics_the_scale_is_the_map_s_own(folder: Path, known: object) -> None:
    facts(folder / "model.json", map_scale=known)
    write_array(folder / "maps/good/Müller.npy", np.linspace(-2, 6, 40 * 56, dtype=np.float32).reshape(40, 56))
    scale = one_of(folder, 2).map_scale
    assert scale is not None and scale.own and (scale.low, scale.high) == (-2, 6) and 5.8 < scale.threshold < 6


# --- tables and facts that no one sane wrote


@pytest.mark.parametrize("figure", ["nan", "inf", "-inf", ""])
def test_figures_that_are_no_numbers(folder: Path, figure: str) -> None:
    replaced(folder / "regions.csv", ",4.5,", f",{figure},")
    replaced(folder / "regions.csv", ",10,20,", f",{figure},20,")
    replaced(folder / "scores.csv", ",1.5,60,", f",{figure},60,")
    found = one_of(folder, 2)
    assert found.regions_found[0].peak is None and found.regions_found[0].position is None
    assert "s8" not in dict(found.figures) and dict(found.figures)["nfe"] == 60
    all_of(folder)


def test_anomalies_and_p_values_that_are_no_numbers(folder: Path) -> None:
    lines = [line.split(",") for line in (folder / "scores.csv").read_text().splitlines()]
    for line, (anomaly, p_value) in zip(lines[1:4], [("nan", "nan"), ("inf", ""), ("-inf", "inf")], strict=True):
        line[2:4] = anomaly, p_value
    (folder / "scores.csv").write_text("\n".join(map(",".join, lines)) + "\n")
    assert {(line.anomaly, line.p_value) for line in all_of(folder).cases} == {(None, None)}
    for number in range(1, 5):
        assert one_of(folder, number).place_words == ""


@pytest.mark.parametrize("verdict", ["<script>", "ABNORMAL", "failed "])
def test_a_verdict_that_there_is_none_of(folder: Path, verdict: str) -> None:
    replaced(folder / "scores.csv", "usual", verdict)
    lines = {line.number: line.status for line in all_of(folder).cases}
    assert "scored" in lines.values() and verdict not in lines.values()


def test_slices_that_are_no_numbers(tmp_path: Path) -> None:
    scans = write_scan_results(tmp_path / "scans")
    replaced(scans / "slices.csv", ",17.000,", ",nan,")
    found = one_of(scans).slices
    assert found is not None and found.height_mm[2] is None and len(found.height_mm) == SCAN_SHAPE[2]


def test_bytes_that_are_no_text(folder: Path) -> None:
    """In names of columns, files, patients and regions, and half characters in JSON."""
    replaced(folder / "scores.csv", ",s8,", ",s\udcff,")
    replaced(folder / "scores.csv", "<b>Bob</b>", "B\udcffb")
    replaced(folder / "regions.csv", ",1,px", ",\udcff,px")
    facts(folder / "model.json", method="\ud800")
    found = one_of(folder, 2)
    assert found.patient == "B\ufffdb" and "s\ufffd" in dict(found.figures)
    assert found.regions_found[0].number == "\ufffd"
    assert ("Method", "\ufffd") in all_of(folder).learned


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("verdicts.json", {"alpha": "x", "calibration": [1], "setup": ["x"], "procedure": {"a": 1}}),
        ("verdicts.json", {"alpha": math.nan, "calibration": {"images": math.inf}}),
        ("model.json", {"scans": {"channels": {"a": 1}, "plane": [1], "intensities": {}}, "rule": {}, "run": [3]}),
        ("model.json", {"steps": math.nan, "trained_on": 3, "intensity": [], "healthy": None, "versions": "x"}),
        (
            "metrics.json",
            {
                "kinds": {"a": {"image_auroc": 3}},
                "counts": {"a": {"images": math.inf}},
                "verdicts": 4,
                "planted": "yes",
            },
        ),
        ("metrics.json", {"kinds": [3], "counts": "x", "physics": {"a": math.nan}}),
    ],
)
def test_facts_of_other_kinds(folder: Path, file: str, changes: dict[str, object]) -> None:
    (folder / file).touch()
    (folder / file).write_text((folder / file).read_text() or '{"schema": 1}')
    facts(folder / file, **changes)
    assert len(all_of(folder).cases) == 4 and one_of(folder).name == NAMES[0]


# --- hidden names


def secret_names(folder: Path) -> set[str]:
    """Whatever names a person, a file or a folder in these results."""
    parts = {"script", "Müller", "neil", "broken", "Änne", "Bob", "Zoë", "Klinik", "Süd", "/data/set", "secret-study"}
    return parts | {str(folder), folder.name}


def test_no_name_is_told_where_names_are_hidden(folder: Path) -> None:
    add_evaluation(folder, good=2, lesion=1)
    (folder / "report.html").touch()
    said = list(texts(strict(all_of(folder, hide=True).model_dump_json())))
    for number in range(1, 5):
        said += texts(strict(one_of(folder, number, hide=True).model_dump_json()))
    for name in secret_names(folder):
        assert not [text for text in said if name in text], name
    open_to_all = list(texts(strict(all_of(folder).model_dump_json())))
    for name in ("script", "Müller", "Änne", "Bob", "Klinik", "secret-study"):
        assert [text for text in open_to_all if name in text], f"{name} is told where they are not hidden"


def test_what_hidden_names_leave(folder: Path) -> None:
    (folder / "report.html").touch()
    found = all_of(folder, hide=True)
    assert found.hidden and found.title == "results" and found.tables == [] and not found.report
    assert {line.number: line.name for line in found.cases} == {n: f"case {n}" for n in range(1, 5)}
    assert {line.number: line.patient for line in found.cases if line.number < 4} == {
        1: "patient 1",
        2: "patient 2",
        3: "patient 1",
    }
    one = one_of(folder, 3, hide=True)
    assert one.overlay is None, "its caption has the name"
    assert len(one.layers) == 4 and len(one.regions_found) == 2


def test_no_address_has_a_name_in_it(folder: Path, tmp_path: Path) -> None:
    for shown in (folder, write_scan_results(tmp_path / "scans", ["Änne", "bob"])):
        for number in (1, 2):
            one = one_of(shown, number)
            for address in [layer.address for layer in one.layers] + [one.overlay or ""]:
                assert address == "" or address.startswith(f"/api/cases/{number}/")
                assert address.isascii() and not any(name in address for name in ("nne", "bob", "ller", "script"))
