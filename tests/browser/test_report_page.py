"""The pages of a report in a real browser: what a reader with a mouse, a keyboard or a screen reader meets."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from made_results import add_evaluation, write_results, write_watch
from priorlens.commands.report import write_page
from priorlens.report import book

playwright = pytest.importorskip("playwright.sync_api", reason="pip install priorlens[browser]")
CHROMIUM = os.environ.get("PRIORLENS_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")

QUIET = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync")
NAMES = [f"good/{i}.png" for i in range(6)] + [f"lesion/{i}.png" for i in range(6)]
HOSTILE = "lesion/<script>alert(1)</script>&'.png"
SIZES = {"desk": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page of each kind."""
    root = tmp_path_factory.mktemp("reports")
    names = [*NAMES, "lesion/broken.png"]
    patients = [f"p{i}" for i in range(len(names))]
    evaluated = add_evaluation(
        write_results(root / "evaluated", names, patients=patients, failed=[12]), 6, 6, planted=True
    )
    scored = write_results(root / "scored", ["1.png", "2.png"], calibrated=False, alpha=None)
    (scored / "model.json").unlink()
    many = write_results(root / "many", NAMES, overlays=False)
    found = {name: write_page(path, path / "report.html") for name, path in (("eval", evaluated), ("score", scored))}
    for alarm in (True, False):
        folder = write_watch(root / f"watch{alarm}", alarm=alarm)
        found["alarm" if alarm else "quiet"] = write_page(folder, folder / "report.html")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(book, "MOST_CASES", 5)
        found["index"] = write_page(many, many / "report.html")
    return found | {"second": found["index"].with_name("cases-002.html")}


@pytest.fixture
def page(browser: object) -> Iterator[object]:
    """An empty page; that nothing was fetched or complained about is checked at its end."""
    context = browser.new_context(viewport=SIZES["desk"], accept_downloads=True)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    opened = context.new_page()
    complaints: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("dialog", lambda dialog: (complaints.append("a script of a file ran"), dialog.dismiss()))
    opened.on(
        "request",
        lambda request: None if request.url.startswith(("file:", "data:", "blob:")) else complaints.append(request.url),
    )
    yield opened
    context.close()
    assert complaints == []


def names_shown(page: object) -> list[str]:
    return page.locator("table.cases tbody tr:visible th").all_inner_texts()


def test_search_and_filters_leave_what_fits(page: object, pages: dict[str, Path]) -> None:
    page.goto(pages["eval"].as_uri())
    assert len(names_shown(page)) == 13
    page.get_by_label("Search by name").fill("LESION/3")
    assert names_shown(page) == ["lesion/3.png"]
    assert page.get_by_role("status").inner_text() == "1 of 13 cases shown"
    page.get_by_label("Search by name").fill("")
    page.get_by_label("Kind", exact=True).select_option("good")
    assert sorted(names_shown(page)) == NAMES[:6]
    page.get_by_label("Kind", exact=True).select_option("")
    page.get_by_label("Verdict", exact=True).select_option("failed")
    assert names_shown(page) == ["lesion/broken.png"]


def test_columns_sort_both_ways_and_empty_cells_stay_last(page: object, pages: dict[str, Path]) -> None:
    page.goto(pages["eval"].as_uri())
    button = page.get_by_role("button", name="Anomaly")
    values = "[...document.querySelectorAll('td[data-value]:nth-of-type(5)')].map(one => one.dataset.value)"
    for down in (False, True):
        button.press("Enter")
        found = page.evaluate(values)
        numbers = [float(value) for value in found[:-1]]
        assert found[-1] == "" and numbers == sorted(numbers, reverse=down) and len(set(numbers)) == 12
        wanted = "descending" if down else "ascending"
        assert page.locator("th[data-name=anomaly]").get_attribute("aria-sort") == wanted
    assert page.locator("th[aria-sort]").count() == 1


def test_a_case_is_opened_left_and_closed_by_keyboard(page: object, pages: dict[str, Path]) -> None:
    page.goto(pages["eval"].as_uri())
    first, second = names_shown(page)[:2]
    page.locator("table.cases tbody a").first.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name=first)
    dialog.wait_for()
    assert page.evaluate("document.activeElement.textContent") == first
    for words in ("p = ", "Among healthy images", "Surprise by noise level", "planted"):
        assert words in dialog.inner_text()
    assert page.evaluate("document.querySelector('dialog img').complete")
    assert page.get_by_role("button", name="Previous").is_disabled()
    page.keyboard.press("ArrowRight")
    page.get_by_role("dialog", name=second).wait_for()
    page.keyboard.press("Escape")
    page.wait_for_function("!document.querySelector('dialog').open")
    assert page.evaluate("document.activeElement.textContent") == second


def test_an_address_opens_its_case_and_the_worst_are_linked(page: object, pages: dict[str, Path]) -> None:
    page.goto(f"{pages['eval'].as_uri()}#case-8")
    page.get_by_role("dialog", name="lesion/1.png").wait_for()
    page.get_by_role("button", name="Close").click()
    link = page.locator(".worst a").first
    name = link.inner_text()
    link.click()
    page.get_by_role("dialog", name=name).wait_for()
    page.go_back()
    page.wait_for_function("!document.querySelector('dialog').open")


def test_the_table_is_copied_and_downloaded(page: object, pages: dict[str, Path]) -> None:
    page.goto(pages["eval"].as_uri())
    page.get_by_label("Kind", exact=True).select_option("lesion")
    with page.expect_download() as started:
        page.get_by_role("button", name="Download CSV").click()
    lines = Path(started.value.path()).read_text("utf-8").splitlines()
    assert lines[0] == "name,kind,patient,status,p_value,anomaly,regions,error" and len(lines) == 8
    assert lines[-1].startswith("lesion/broken.png,lesion,") and lines[-1].endswith("is not an image; remove it")
    page.get_by_role("button", name="Copy table").click()
    page.wait_for_function("document.getElementById('count').textContent.includes('copied')")
    copied = page.evaluate("navigator.clipboard.readText()").splitlines()
    assert len(copied) == 8 and copied[0].split("\t")[:2] == ["name", "kind"]


def test_names_of_files_are_shown_and_not_run(page: object, tmp_path: Path) -> None:
    folder = write_results(tmp_path / "out", ["1.png", "2.png"], patients=["=1+1", "<img src=x onerror=alert(2)>"])
    for name in ("scores.csv", "spectrum.csv"):
        text = (folder / name).read_text().replace("/data/set/test/1.png", f'"/data/set/test/{HOSTILE}"')
        (folder / name).write_text(text)
    page.goto(write_page(folder, folder / "report.html").as_uri())
    assert HOSTILE in names_shown(page)
    page.get_by_role("link", name=HOSTILE).click()
    page.get_by_role("dialog", name=HOSTILE).wait_for()
    page.get_by_role("button", name="Close").click()
    with page.expect_download() as started:
        page.get_by_role("button", name="Download CSV").click()
    assert ",'=1+1," in Path(started.value.path()).read_text("utf-8"), "no formula for a spreadsheet"


def test_links_between_pages_open_the_case(page: object, pages: dict[str, Path]) -> None:
    page.goto(pages["index"].as_uri())
    assert len(names_shown(page)) == 12
    link = page.locator("table.cases tbody a").nth(7)
    name = link.inner_text()
    link.click()
    page.get_by_role("dialog", name=name).wait_for()
    assert page.url.startswith(pages["second"].as_uri())


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["eval", "case", "score", "alarm", "quiet", "index", "second"])
def test_it_fits_and_nothing_bars_anyone(
    browser: object, pages: dict[str, Path], tmp_path: Path, kind: str, size: str, scheme: str
) -> None:
    """No serious violation of the rules of axe-core, and no page wider than its window."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install priorlens[browser]")
    context = browser.new_context(viewport=SIZES[size], color_scheme=scheme, bypass_csp=True)
    page = context.new_page()
    page.goto(pages["eval" if kind == "case" else kind].as_uri() + ("#case-9" if kind == "case" else ""))
    if kind == "case":
        page.locator("dialog[open]").wait_for()
    found = axe.Axe().run(page).response["violations"]
    serious = [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")]
    width = page.evaluate("document.documentElement.scrollWidth")
    shots = Path(os.environ.get("PRIORLENS_SCREENSHOTS") or tmp_path)
    shots.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=shots / f"report-{kind}-{size}-{scheme}.png", full_page=True)
    context.close()
    assert serious == [] and width <= SIZES[size]["width"]
