"""The figure for a paper, read back from the SVG, PDF and PNG that were drawn."""

from __future__ import annotations

import base64
import io
import re
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from PIL import Image

from made_results import LESION, SCAN_AFFINE, SCAN_SHAPE, write_results, write_scan_results
from priorlens.errors import InputError
from priorlens.report.chosen import chosen_cases, most_abnormal
from priorlens.report.figure import draw_figure, scale_bar
from priorlens.report.figure_layout import HIGHEST, length, wrapped
from priorlens.report.figure_words import Words, caption, figure_words
from priorlens.report.findings import read_findings
from priorlens.report.map_scale import MapScale, map_scale
from priorlens.report.rows import Row, Wanted, read_row
from priorlens.report.shown import read_slices

ORANGE, BLUE = "#e69f00", "#56b4e9"
SCALE = MapScale(0.0, 4.0, 2.0, True, "bits")
WORDS = Words(("image", "surprise", "what stands out"), "surprise ≥ 2", "truth")
SVG, XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"


@dataclass(frozen=True)
class Panel:
    """Pixels of a panel's image, and its left, top, width and height on the page."""

    pixels: np.ndarray
    box: tuple[float, float, float, float]

    def share(self, points: np.ndarray) -> np.ndarray:
        """Points on the page, from 0 to 1 along width and height of the panel."""
        left, top, width, height = self.box
        return (points - [left, top]) / [width, height]


class Read:
    """An SVG as it was drawn."""

    def __init__(self, content: bytes) -> None:
        self.root = ElementTree.fromstring(content)
        self.texts = ["".join(text.itertext()) for text in self.root.iter(f"{SVG}text")]
        axes = [group for group in self.root.iter(f"{SVG}g") if group.get("id", "").startswith("axes_")]
        self.panels = [self._panel(image) for group in axes for image in group.iter(f"{SVG}image")]
        self.lines = [self._lines(group) for group in axes]

    def of_text(self, words: str) -> ElementTree.Element:
        (found,) = [text for text in self.root.iter(f"{SVG}text") if "".join(text.itertext()) == words]
        return found

    @staticmethod
    def _panel(image: ElementTree.Element) -> Panel:
        content = base64.b64decode(image.get(f"{XLINK}href").partition(",")[2])
        pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
        a, _, _, d, x, y = (float(number) for number in re.findall(r"-?[\d.]+", image.get("transform")))
        return Panel(pixels, (x, y, a * pixels.shape[1], d * pixels.shape[0]))

    @staticmethod
    def _lines(group: ElementTree.Element) -> list[tuple[str, np.ndarray]]:
        """Colour and points of every path that is only stroked."""
        paths = [path for path in group.iter(f"{SVG}path") if "fill: none" in path.get("style", "")]
        colours = [re.search(r"stroke: (#\w+)", path.get("style"))[1] for path in paths]
        numbers = [np.array(re.findall(r"-?[\d.]+", path.get("d")), float).reshape(-1, 2) for path in paths]
        return list(zip(colours, numbers, strict=True))


def row(**given: object) -> Row:
    """20 pixels high, 40 wide; what stands out are its rows 5 to 9 and columns 10 to 19."""
    image = np.zeros((20, 40, 3), np.uint8)
    image[5:10, 10:20] = 200
    anomaly_map = np.zeros((20, 40), np.float32)
    anomaly_map[5:10, 10:20] = 3
    known = {"regions": None, "truth": None, "reconstruction": None, "step": (1.0, 1.0), "in_mm": False, "sides": None}
    return Row(**{"label": "a", "notes": (), "image": image, "anomaly_map": anomaly_map, **known, **given})


def draw(*rows: Row, scale: MapScale = SCALE, words: Words = WORDS, width: float = 7.0) -> Read:
    return Read(draw_figure(rows, scale, words, width=width, suffix=".svg").content)


def test_three_panels_of_a_row_stand_beside_each_other() -> None:
    drawn = draw(row(), row(label="b"))
    panels = drawn.panels[:6]
    lefts, tops = ([panel.box[side] for panel in panels] for side in (0, 1))
    assert lefts[:3] == lefts[3:] == sorted(lefts[:3]) and len(set(tops)) == 2
    assert all(panel.box[2] / panel.box[3] == pytest.approx(2, rel=1e-4) for panel in panels)
    assert max(left + panel.box[2] for left, panel in zip(lefts, panels, strict=True)) < 7.0 * 72
    assert drawn.texts.index("image") < drawn.texts.index("surprise") < drawn.texts.index("what stands out")
    assert float(drawn.of_text("b").get("y")) > tops[3]


def test_colours_of_the_map_are_inferno_between_the_ends_of_the_scale() -> None:
    anomaly_map = np.linspace(-1, 5, 800, dtype=np.float32).reshape(20, 40)
    pixels = draw(row(anomaly_map=anomaly_map)).panels[1].pixels
    repeat = pixels.shape[0] // 20
    assert pixels.shape == (20 * repeat, 40 * repeat, 3)
    wanted = matplotlib.colormaps["inferno"](np.clip(anomaly_map / 4, 0, 1))[..., :3] * 255
    assert np.abs(pixels[::repeat, ::repeat] - wanted).max() <= 1


def test_large_images_become_as_fine_as_they_are_printed() -> None:
    large = np.tile(np.uint8([[[0] * 3, [255] * 3]]), (2000, 1000, 1))
    drawn = draw(row(image=large, anomaly_map=np.zeros((2000, 2000), np.float32)))
    image = drawn.panels[0]
    assert image.pixels.shape[1] == pytest.approx(image.box[2] / 72 * 300, abs=2)
    assert 100 < image.pixels.mean() < 155


def test_what_reaches_the_threshold_is_outlined_where_it_is() -> None:
    drawn = draw(row())
    (called,) = [line for colour, line in drawn.lines[2] if colour == ORANGE]
    share = drawn.panels[2].share(called) * [40, 20]
    assert np.allclose([share.min(0), share.max(0)], [[10, 5], [20, 10]], atol=0.5)
    assert not [colour for colour, _ in drawn.lines[0] + drawn.lines[1] if colour in (ORANGE, BLUE)]


def test_regions_go_before_the_threshold_and_the_truth_is_another_line() -> None:
    regions, truth = np.zeros((20, 40), bool), np.zeros((20, 40), bool)
    regions[12:16, 2:6] = truth[0:4, 30:40] = True
    drawn = draw(row(regions=regions, truth=truth))
    lines = {colour: drawn.panels[2].share(line) * [40, 20] for colour, line in drawn.lines[2]}
    assert np.allclose([lines[ORANGE].min(0), lines[ORANGE].max(0)], [[2, 12], [6, 16]], atol=1e-3)
    assert np.allclose([lines[BLUE].min(0), lines[BLUE].max(0)], [[30, 0], [40, 4]], atol=1e-3), "up to the edges"
    content = draw_figure([row(truth=truth)], SCALE, WORDS, width=7.0, suffix=".svg").content.decode()
    dashed, solid = (re.findall(rf"stroke-dasharray[^>]*stroke: {colour}", content) for colour in (BLUE, ORANGE))
    assert len(dashed) == 2 and not solid, "one around the lesion, one in the key"
    nothing = draw(row(regions=np.zeros((20, 40), bool)))
    assert not nothing.lines[2]


def test_the_key_has_the_lines_that_there_are() -> None:
    nothing = row(regions=np.zeros((20, 40), bool))  # the only lines in their colours are those of the key
    content = draw_figure([nothing], SCALE, WORDS, width=7.0, suffix=".svg").content.decode()
    assert content.count(ORANGE) == content.count(BLUE) == 1 and ">surprise ≥ 2<" in content and ">truth<" in content
    bare = draw_figure([nothing], SCALE, replace(WORDS, dashed=""), width=7.0, suffix=".svg").content.decode()
    assert ORANGE in bare and BLUE not in bare and ">truth<" not in bare


def test_a_scale_bar_is_as_long_as_it_says() -> None:
    drawn = draw(row(step=(3.0, 1.5), in_mm=True), row(step=(0.01, 0.01), in_mm=True), row())
    for index, (name, millimetres) in enumerate((("10 mm", 60), ("0.1 mm", 0.4))):
        (bar,) = [line for colour, line in drawn.lines[3 * index] if colour == "#ffffff"]
        (start, _), (stop, _) = drawn.panels[3 * index].share(bar)
        assert (stop - start) * millimetres == pytest.approx(float(name.split()[0]), rel=1e-4) and stop < 1
        assert drawn.texts.count(name) == 1
    assert not drawn.lines[6], "where the size of pixels is not known there is none"
    width, height = drawn.panels[0].box[2:]
    assert height / width == pytest.approx(20 * 3 / (40 * 1.5), rel=1e-4), "pixels are as wide as they are"


@pytest.mark.parametrize(("width", "bar"), [(100, 20), (167, 50), (34, 10), (0.7, 0.2), (66.67, 20), (1000, 200)])
def test_scale_bars_are_round(width: float, bar: float) -> None:
    assert scale_bar(float(width)) == pytest.approx(bar)


def test_a_triangle_stands_where_a_map_goes_beyond_the_colours() -> None:
    def triangles(high: float, low: float) -> int:
        content = draw_figure(
            [row()], replace(SCALE, low=low, high=high), WORDS, width=7.0, suffix=".svg"
        ).content.decode()
        return len(re.findall(r'<path d="M [^"]*?L [^"]*?L [^"]*?z\s*" style="fill: #\w+; stroke: #000000', content))

    assert [triangles(4.0, 0.0), triangles(2.0, 0.0), triangles(4.0, 1.0), triangles(2.0, 1.0)] == [0, 1, 1, 2]


HOSTILE = [
    "a_$x^2$_b",
    r"\frac{1}{2}",
    "</text><script>",
    "&amp;",
    "x" * 9 + "%s{0}",
    r"\N{BULLET}$",
    "日本語.png",
    "😀",
]


@pytest.mark.parametrize("suffix", [".svg", ".pdf", ".png"])
def test_names_are_nothing_but_names(suffix: str) -> None:
    rows = [row(label=name, notes=("$n_1$",)) for name in HOSTILE]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        content = draw_figure(rows, SCALE, WORDS, width=7.0, suffix=suffix).content
    if suffix == ".svg":
        texts = Read(content).texts
        assert set(HOSTILE) <= set(texts) and texts.count("$n_1$") == len(rows)


def test_line_ends_and_control_characters() -> None:
    texts = draw(row(label="one\ntwo\r\nthree\x1b[31m\ud800\x00")).texts
    assert {"one", "two", "three\ufffd[31m\ufffd\ufffd"} <= set(texts)


def test_long_names_are_broken_and_their_end_is_kept() -> None:
    name = "study/site-3/scanner_12/" + "a_very_long_series_name_" * 20 + "0017.png"
    texts = draw(row(label=name)).texts
    first = next(index for index, line in enumerate(texts) if line.startswith("…"))
    label = texts[first : next(index for index, line in enumerate(texts) if line.endswith("0017.png")) + 1]
    assert len(label) > 3 and name.endswith("".join(label)[1:])
    assert all(length(line, 8.0) < 1.25 for line in label)
    assert wrapped("tumour/0568_left.png", length("0568_left.png", 8.0)) == ["tumour/", "0568_left.png"]
    assert wrapped("abcdef", length("abcd", 8.0)) == ["abcd", "ef"] and wrapped("", 1.0) == [""]


def test_it_fits_on_a_page() -> None:
    few, many = (draw_figure([row()] * count, SCALE, WORDS, width=7.0) for count in (2, 16))
    assert few.width == pytest.approx(7) and few.height < 4
    assert HIGHEST - 0.2 < many.height <= HIGHEST and many.width < 7
    with pytest.raises(InputError, match="60 cases do not fit on one page; choose fewer"):
        draw_figure([row()] * 60, SCALE, WORDS, width=7.0)
    with pytest.raises(InputError, match="--width 5: is too narrow for 3 columns"):
        draw_figure([row(label="a long label")], SCALE, WORDS, width=5 / 2.54)


def test_equal_rows_give_equal_bytes_without_a_date() -> None:
    for suffix in (".pdf", ".svg", ".png"):
        first, again = (
            draw_figure([row(in_mm=True)], SCALE, WORDS, width=7.0, suffix=suffix).content for _ in range(2)
        )
        assert first == again
        assert b"CreationDate" not in first and b"<dc:date>" not in first and b"Software" not in first


def test_letters_of_a_pdf_are_text_and_lines_are_lines() -> None:
    content = draw_figure([row()], SCALE, WORDS, width=7.0).content
    assert content.startswith(b"%PDF") and b"/Subtype /Type3" not in content and b"/CIDFontType2" in content
    assert content.count(b"/Subtype /Image") == 4, "three panels and the colour bar; no line is one"


def test_dots_of_a_png() -> None:
    drawn = draw_figure([row()], SCALE, WORDS, width=5.0, suffix=".png", dpi=100)
    picture = Image.open(io.BytesIO(drawn.content))
    assert picture.size == (500, int(drawn.height * 100)) and picture.format == "PNG"


# --- from a results folder


def row_of(folder: Path, number: int, **asked: object) -> Row:
    findings = read_findings(folder)
    case = findings.cases[number - 1]
    return read_row(folder, findings, Wanted(case, **asked), read_slices(folder).get(case.stem))


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    return write_scan_results(tmp_path / "scans")


def test_a_scan_is_shown_in_its_highest_slice_with_the_patients_right_on_the_left(scans: Path) -> None:
    made = row_of(scans, 1)
    rows, columns = SCAN_SHAPE[1], SCAN_SHAPE[0]
    assert made.image.shape == (rows, columns, 3) and made.step == (3, 2) and made.in_mm and made.sides == ("R", "L")
    # Voxels run to the patient's left, as columns do; and from back to front, as rows do not.
    wanted = np.zeros((rows, columns), bool)
    wanted[rows - LESION[1].stop : rows - LESION[1].start, LESION[0]] = True
    for seen in (made.truth, made.regions, made.anomaly_map == 3, made.image[..., 0] == 255):
        assert (seen == wanted).all()
    assert made.notes == ("anomaly 2.5", "slice 7") and made.label == "anna"
    drawn = draw(made)
    assert float(drawn.of_text("R").get("x")) < float(drawn.of_text("L").get("x"))


def test_another_slice_and_a_scan_that_runs_the_other_way(tmp_path: Path) -> None:
    turned = SCAN_AFFINE @ np.diag([-1.0, 1, -1, 1])
    folder = write_scan_results(tmp_path / "turned", affine=turned)
    seen = row_of(folder, 1)
    assert seen.truth[:, SCAN_SHAPE[0] - LESION[0].stop : SCAN_SHAPE[0] - LESION[0].start].any(), "own order turned"
    other = row_of(folder, 1, slice=2)
    assert "slice 2" in other.notes and not other.truth.any()
    assert other.anomaly_map == pytest.approx(2 / 11)
    with pytest.raises(InputError, match="has slices 0 to 11, not 12; choose another --slice"):
        row_of(folder, 1, slice=12)


def test_sagittal_slices_run_from_front_to_back(tmp_path: Path) -> None:
    folder = write_scan_results(tmp_path / "out", plane="sagittal")
    made = row_of(folder, 1, slice=5)
    assert made.sides == ("A", "P") and made.step == (5, 3)
    rows, columns = np.nonzero(made.truth)
    assert set(columns) == set(range(24 - 12, 24 - 5)) and set(rows) == set(range(12 - 9, 12 - 6))


def test_ct_is_shown_through_the_window_of_its_model(scans: Path) -> None:
    text = (scans / "model.json").read_text()
    (scans / "model.json").write_text(text.replace('"mode": "robust"', '"mode": "window", "low": 700, "high": 800'))
    image = row_of(scans, 1).image
    assert set(np.unique(image)) == {0, 128}


def test_what_does_not_suit_an_image_or_a_scan(tmp_path: Path, scans: Path) -> None:
    folder = write_results(tmp_path / "images", ["a.png"], layers=True)
    with pytest.raises(InputError, match="has no slices; leave --slice out"):
        row_of(folder, 1, slice=3)
    with pytest.raises(InputError, match="leave --pixel-size out"):
        row_of(scans, 1, pixel_size=1.0)
    (scans / "slices.csv").unlink()
    with pytest.raises(InputError, match=r"slices.csv has no line of case 1; choose its --slice"):
        row_of(scans, 1)


def test_regions_that_were_looked_for_and_not_found_are_none(tmp_path: Path) -> None:
    folder = write_results(tmp_path / "images", ["a.png", "b.png"], layers=True)
    none, one = row_of(folder, 1), row_of(folder, 2, pixel_size=0.5, scores=False)
    assert none.regions.sum() == 0 and one.regions.sum() == 100 and none.notes[0].startswith("p = ")
    assert (one.step, one.in_mm, one.notes) == ((0.5, 0.5), True, ())
    plain = write_results(tmp_path / "plain", ["a.png"], calibrated=False, alpha=None, layers=True)
    assert row_of(plain, 1).regions is None and row_of(plain, 1).notes[0].startswith("anomaly ")


def test_words_say_what_was_outlined_and_what_the_ends_of_colours_are(tmp_path: Path, scans: Path) -> None:
    def said(folder: Path, number: int) -> tuple[MapScale, Words, str]:
        findings, rows = read_findings(folder), [row_of(folder, number)]
        scale = map_scale(findings, [one.anomaly_map for one in rows])
        words = figure_words(findings, rows, scale, reconstruction=False)
        return scale, words, "\n".join(caption(findings, rows, scale, words))

    scale, words, lines = said(scans, 1)
    assert (scale.low, scale.high, scale.threshold, scale.healthy, scale.words) == (0, 2, 2, True, "surprise (bits)")
    assert words.columns == ("image (flair)", "surprise", "what stands out")
    assert (words.solid, words.dashed) == ("regions, surprise ≥ 2", "truth")
    assert "healthy images" in lines and "the right is on the left" in lines and "planted" not in lines
    folder = write_results(tmp_path / "images", ["a.png", "b.png"], layers=True, truth=True)
    scale, words, lines = said(folder, 2)
    assert (scale.low, scale.high, scale.healthy, scale.words) == (0, 3, False, "surprise")
    assert words.solid == "regions at alpha 0.05" and "extremes of these cases" in lines
    assert said(folder, 1)[1].solid == "regions at alpha 0.05 (none)"
    plain = write_results(tmp_path / "plain", ["a.png"], calibrated=False, alpha=None, layers=True)
    assert said(plain, 1)[1].solid == "top 2% of surprise"
    (plain / "model.json").write_text('{"schema": 1}')
    scale, words, _ = said(plain, 1)
    assert words.solid == "top 2% of surprise" and scale.level(np.arange(101.0)) == pytest.approx(98)


def test_cases_by_number_name_and_file(tmp_path: Path) -> None:
    names = ["one/a.png", "two/a.png", "two/b,c.png", "two/7.png", "x/anna.v2.png"]
    folder = write_results(tmp_path / "out", names)
    findings = read_findings(folder)

    def numbers(*wanted: str) -> list[int]:
        return [case.number for case in chosen_cases(folder, findings, wanted)]

    assert numbers("2,1", "case 3") == [2, 1, 3]
    assert numbers("one/a.png", "b,c.png", "/data/set/test/two/7.png", "anna.v2.png", "anna") == [1, 3, 4, 5, 5]
    assert numbers("two/a", "4, 7.png") == [2, 4, 4]
    for words, said in (
        ("9", "has no case 9; give a number from 1 to 5 or a name as in scores.csv"),
        ("a.png", "a.png may be case 1 or 2; give its number"),
        ("", "has no case"),
        ("1,nobody", "has no case nobody"),
    ):
        with pytest.raises(InputError, match=said):
            numbers(words)


def test_a_name_that_is_another_cases_number(tmp_path: Path) -> None:
    folder = write_scan_results(tmp_path / "out", ["2", "bert"])
    with pytest.raises(InputError, match="2 may be case 2 or 1"):
        chosen_cases(folder, read_findings(folder), ["2"])


def test_the_most_abnormal_come_first(tmp_path: Path) -> None:
    folder = write_results(tmp_path / "out", [f"{i}.png" for i in range(8)], failed=[3])
    findings = read_findings(folder)
    first = most_abnormal(folder, findings, 3)
    others = [case.p_value for case in findings.cases if case not in first and not case.error]
    assert len(first) == 3 and max(case.p_value for case in first) <= min(others)
    bad = write_results(tmp_path / "bad", ["a.png"], failed=[0])
    with pytest.raises(InputError, match="no case in it could be scored"):
        most_abnormal(bad, read_findings(bad), 3)
