"""A results folder becomes a page, or a folder of pages, that says what is there and nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from made_results import add_evaluation, write_results, write_watch
from priorlens.errors import InputError
from priorlens.report import book
from priorlens.report.book import write_report
from priorlens.report.findings import read_findings
from priorlens.report.naming import without_names
from priorlens.report.watched import watched_page

EVALUATED = [f"good/{i}.png" for i in range(4)] + [f"lesion/{i}.png" for i in range(4)]
HOSTILE = "<script>alert(1)</script> \"'&\nä–雪.png"


class Page(HTMLParser):
    """Elements, and the text outside scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page_of(folder: Path, *, hide: bool = False) -> str:
    findings = read_findings(folder)
    return write_report(without_names(findings) if hide else findings, folder / "report.html").read_text("utf-8")


def test_a_page_tells_every_case_by_rising_p_value(tmp_path: Path) -> None:
    folder = write_results(tmp_path / "out", ["a/1.png", "a/2.png", "b.png"], failed=[1])
    page = Page(page_of(folder))
    assert len(page.of("template")) == 3 and len(page.of("img")) == 2
    rows = [one["id"] for one in page.of("tr") if "id" in one]
    assert sorted(rows) == ["case-1", "case-2", "case-3"] and rows[-1] == "case-2", "what failed stands last"
    assert "a/2.png: is not an image; remove it" in page.text and "/data/set" not in page.text
    assert "2 images scored, 1 could not be used" in page.text
    for words in ("regions", "false-discovery rate of 0.05", "healthy calibration images score", "noise level"):
        assert words in page.text


def test_nothing_is_fetched_and_only_our_own_script_may_run(tmp_path: Path) -> None:
    text = page_of(write_results(tmp_path / "out", ["1.png", "2.png"]))
    page = Page(text)
    policy = next(one["content"] for one in page.of("meta") if one.get("http-equiv") == "Content-Security-Policy")
    assert policy and "default-src 'none'" in policy and "unsafe" not in policy
    for tag, directive in (("style", "style-src"), ("script", "script-src")):
        inside = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        assert len(inside) == 1
        digest = base64.b64encode(hashlib.sha256(inside[0].encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy
    addresses = [a.get(name) for _, a in page.tags for name in ("src", "href") if a.get(name)]
    assert all(address.startswith(("#", "data:image/webp;base64,")) for address in addresses)
    assert not [a for _, a in page.tags for name in a if name.startswith("on") or name == "style"]
    assert "http" not in re.sub(r"http-equiv", "", text)


def test_names_from_files_are_text_and_nothing_else(tmp_path: Path) -> None:
    folder = write_results(tmp_path / "out", ["x.png", "y.png"], patients=["p<b>1", "'\"><img src=x>"], failed=[1])
    scores = (folder / "scores.csv").read_text()
    quoted = '"' + HOSTILE.replace('"', '""') + '"'
    scores = scores.replace("/data/set/test/y.png: is not an image", quoted[1:-1]).replace(
        f"{HOSTILE.replace(chr(34), chr(34) * 2)}; remove it", f"{quoted}"
    )
    scores = scores.replace("/data/set/test/y.png", f'"/data/{HOSTILE.replace(chr(34), chr(34) * 2)}"')
    (folder / "scores.csv").write_text(scores)
    text = page_of(folder)
    page = Page(text)
    assert len(page.of("script")) == 1 and not page.of("b") and len(page.of("img")) <= 1
    assert "<script>alert(1)" in page.text and "雪" in text
    assert any(one.get("data-value") == f"{HOSTILE}" for one in page.of("th"))


def test_hidden_identifiers_are_nowhere(tmp_path: Path) -> None:
    names = ["good/anna.png", "good/berta.png", "lesion/carla.png", "lesion/dora.png"]
    folder = write_results(tmp_path / "ward7", names, patients=["Anna", "Berta", "Carla", "Dora"], failed=[3])
    add_evaluation(folder, 2, 1, planted=True)
    text = page_of(folder, hide=True)
    for name in ("anna", "berta", "carla", "dora", "ward7", "/data", "secret-study"):
        assert name not in text.lower()
    assert "case 3" in text and "patient 3" in text
    assert "planted" in text
    assert "ward7" in page_of(folder) and "secret-study" in page_of(folder)


def test_an_evaluation_has_its_figures_curves_and_worst_cases(tmp_path: Path) -> None:
    folder = add_evaluation(write_results(tmp_path / "out", EVALUATED), 4, 4)
    page = Page(page_of(folder))
    for words in ("0.800 [0.700, 0.900]", "Worst misses", "Worst false alarms", "ROC, whole images", "ROC, pixels"):
        assert words in page.text
    assert "lesion (4 images)" in page.text and "ct:views=24" in page.text and "planted" not in page.text
    links = [one["href"] for one in page.of("a") if (one["href"] or "").startswith("#case-")]
    assert len(links) == len(EVALUATED) + 8, "of each case in the table, and of the worst"
    planted = Page(page_of(add_evaluation(folder, 4, 4, planted=True)))
    assert "say nothing about patients" in planted.text and "the planted lesion" in planted.text


def test_without_calibration_that_is_said_plainly(tmp_path: Path) -> None:
    page = Page(page_of(write_results(tmp_path / "out", ["1.png", "2.png"], alpha=None, calibrated=False)))
    assert "not calibrated: there are no p-values and no verdicts" in page.text and "p-value" in page.text
    heads = {one.get("data-name") for one in page.of("th")} - {None}
    assert heads == {"name", "status", "anomaly"}


def test_without_overlays_model_and_spectrum_the_rest_is_there(tmp_path: Path) -> None:
    folder = write_results(tmp_path / "out", ["1.png"], overlays=False)
    for name in ("model.json", "spectrum.csv", "regions.csv"):
        (folder / name).unlink()
    page = Page(page_of(folder))
    assert not page.of("img") and "1 image scored" in page.text and "without a file model.json" in page.text


def test_many_cases_become_a_folder_of_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book, "MOST_CASES", 3)
    folder = add_evaluation(write_results(tmp_path / "out", EVALUATED, overlays=False), 4, 4)
    (folder / "report.html").write_text("earlier")
    index = write_report(read_findings(folder), folder / "report.html")
    assert index == folder / "report/index.html" and not (folder / "report.html").exists()
    pages = {path.name: path.read_text("utf-8") for path in sorted(index.parent.iterdir())}
    assert list(pages) == ["cases-001.html", "cases-002.html", "cases-003.html", "index.html"]
    told = [re.findall(r'<template id="told-(\d+)"', text) for text in pages.values()]
    assert [len(one) for one in told] == [3, 3, 2, 0]
    for text in pages.values():
        for file, number in re.findall(r'href="([^"#]*)#case-(\d+)"', text):
            assert f'id="told-{number}"' in (pages[file] if file else text)
    assert re.findall(r'href="(cases-\d+\.html)">(Cases \d+ to \d+)', pages["index.html"]) == [
        ("cases-001.html", "Cases 1 to 3"),
        ("cases-002.html", "Cases 4 to 6"),
        ("cases-003.html", "Cases 7 to 8"),
    ]
    monkeypatch.setattr(book, "MOST_CASES", 500)
    write_report(read_findings(folder), folder / "report.html")
    assert (folder / "report.html").is_file() and not index.parent.exists()


def test_the_same_results_give_the_same_page(tmp_path: Path) -> None:
    folder = write_results(tmp_path / "out", ["1.png", "2.png"])
    assert page_of(folder) == page_of(folder)


@pytest.mark.parametrize("alarm", [True, False])
def test_a_monitor_has_a_page_of_its_own(tmp_path: Path, alarm: bool) -> None:
    folder = write_watch(tmp_path / "watch", alarm=alarm)
    page = Page(watched_page(folder))
    assert ("Alarm at scan 30 of 60" in page.text) == alarm and "No alarm in 60 scans" in page.text
    assert ("2.5" in page.text) == alarm and "scanner B" in page.text and len(page.of("svg")) == 2
    hidden = watched_page(folder, hide=True)
    assert "scanner" not in hidden.replace("(scanner, protocol", "") and "2026" not in hidden and "stream 2" in hidden
    assert "29.png" not in hidden


@pytest.mark.parametrize("name", ["verdicts.json", "metrics.json", "model.json", "curves.json"])
@pytest.mark.parametrize(
    ("text", "words"), [("{", "is damaged"), ("[1]", "is damaged"), ('{"schema": 2}', "has schema 2, this version")]
)
def test_damaged_and_newer_files_are_told(tmp_path: Path, name: str, text: str, words: str) -> None:
    folder = add_evaluation(write_results(tmp_path / "out", ["good/1.png"], overlays=False), 1, 0)
    (folder / name).write_text(text)
    with pytest.raises(InputError, match=words) as raised:
        read_findings(folder)
    assert name in str(raised.value)


def test_no_results_and_a_damaged_monitor(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no scores\.csv"):
        read_findings(tmp_path)
    folder = write_watch(tmp_path / "watch", alarm=False)
    (folder / "monitor.json").write_text('{"schema": 1}')
    with pytest.raises(InputError, match="is damaged"):
        watched_page(folder)


@pytest.mark.parametrize("name", ["moved", "largest_capital", "alarm"])
def test_a_monitor_that_misses_something_of_a_stream(tmp_path: Path, name: str) -> None:
    folder = write_watch(tmp_path / "watch", alarm=False)
    facts = json.loads((folder / "monitor.json").read_text())
    del facts["streams"][0][name]
    (folder / "monitor.json").write_text(json.dumps(facts))
    with pytest.raises(InputError, match="is damaged; run priorlens monitor again"):
        watched_page(folder)


def test_pages_are_utf8_whatever_files_are_called(tmp_path: Path) -> None:
    folder = write_results(tmp_path / "out", ["good/\udcff.png"], overlays=False)
    assert "\ufffd" in write_report(read_findings(folder), folder / "report.html").read_text(encoding="utf-8")
