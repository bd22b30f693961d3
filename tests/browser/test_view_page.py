"""The viewer's page in a real browser: slices, sliders, regions, two cases, files that are dropped."""

from __future__ import annotations

import io
import os
import shutil
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.measure import label, regionprops

import made_results
from made_results import add_evaluation, write_results, write_scan_results
from priorlens.errors import InputError

playwright = pytest.importorskip("playwright.sync_api", reason="pip install priorlens[browser]")
uvicorn = pytest.importorskip("uvicorn", reason="pip install priorlens[view]")
CHROMIUM = os.environ.get("PRIORLENS_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")

PLAIN = ("--headless=new", "--no-sandbox", "--disable-background-networking", "--disable-sync")
DRAWING = (*PLAIN, "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
"""WebGL 2 without a graphics card."""

HOSTILE = "lesion/<script>alert(1)</script>&'.png"
NAMES = [f"good/{i}.png" for i in range(4)] + [f"lesion/{i}.png" for i in range(4)] + ["lesion/broken.png"]
SIZES = {"desk": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}
LARGE = (240, 240, 155)
PATIENCE_MS = 60_000


@contextmanager
def served(folder: Path, kept: Path | None = None) -> Iterator[str]:
    """The address of a viewer of a results folder; files can be dropped on it where it has a folder to keep them in."""
    from priorlens.viewer.drops import Drops
    from priorlens.viewer.server import create_app
    from priorlens.viewer.shelf import Shelf

    shelf = Shelf()
    shelf.add(folder)
    drops = Drops(kept, shelf, pretended_scorer(), of_scans=False, most_bytes=100_000) if kept else None
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(create_app(shelf, drops), log_level="error", access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.02)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        server.should_exit = True
        thread.join()


def pretended_scorer() -> object:
    """Scores what is dropped without a model: slowly, so that the page can be watched; what is named so fails."""
    from priorlens.viewer.scorer import Scorer

    class Pretended(Scorer):
        stopped = False

        def run(self, files: Path, out: Path, tell: Callable[[int, int], None]) -> None:
            self.stopped = False
            names = sorted(path.name for path in files.rglob("*.png"))
            for done in range(10):
                tell(done, 10)
                time.sleep(0.1 if "stays.png" not in names else 1)
                if self.stopped:
                    raise InputError("stopped")
            if "bad.png" in names:
                raise InputError("bad.png: is empty; export it again")
            write_results(out, names, layers=True)

        def stop(self) -> None:
            self.stopped = True

    return Pretended(lambda files, out, tell: None)


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=list(DRAWING))
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A viewer of each kind of results."""
    root = tmp_path_factory.mktemp("viewers")
    patients = [f"p{i}" for i in range(len(NAMES))]
    images = write_results(root / "images", NAMES, patients=patients, failed=[8], layers=True, truth=True)
    old = write_results(root / "old", ["1.png", "2.png"], calibrated=False, alpha=None)
    with (
        served(add_evaluation(images, 4, 4, planted=True)) as calibrated,
        served(write_scan_results(root / "scans")) as scans,
        served(old) as without_images,
    ):
        yield {"images": calibrated, "scans": scans, "old": without_images}


@pytest.fixture
def page(browser: object) -> Iterator[object]:
    """An empty page; that nothing was complained about or asked of elsewhere is checked at its end."""
    context = browser.new_context(viewport=SIZES["desk"], locale="de-DE")
    opened = context.new_page()
    complaints = watched(opened)
    yield opened
    context.close()
    assert complaints == []


def watched(page: object) -> list[str]:
    """What goes wrong on a page, as it does; a breach of the content-security policy is told in the console."""
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: (complaints.append("a script of a file ran"), dialog.dismiss()))

    def asked(request: object) -> None:
        if not request.url.startswith(("http://127.0.0.1:", "data:", "blob:")):
            complaints.append(request.url)

    page.on("request", asked)
    return complaints


def opened(page: object, address: str, panes: int = 1) -> object:
    """Goes to a case, and waits until it is drawn. Returns its pane."""
    page.goto(address)
    for at in range(panes):
        drawn(page.locator(".pane").nth(at))
    return page.locator(".pane").first


def drawn(pane: object) -> None:
    says(pane, "At the crosshair")
    playwright.expect(pane.locator(".loading")).to_be_empty(timeout=PATIENCE_MS)


def says(pane: object, words: str) -> None:
    playwright.expect(pane.locator(".read")).to_contain_text(words, timeout=PATIENCE_MS)


def picture(pane: object) -> np.ndarray:
    """What is seen on the canvas, after what was asked for last is drawn."""
    pane.page.wait_for_timeout(400)
    content = pane.locator(".frame").screenshot()
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), np.int16)


def coloured(pane: object) -> int:
    """Pixels that are not grey: the map's."""
    return int((np.ptp(picture(pane), axis=2) > 40).sum())


def slide(pane: object, name: str, share: float) -> None:
    """Moves a slider as a hand does, to a share of its way."""
    slider = pane.get_by_role("slider", name=name, exact=True)
    most = int(slider.get_attribute("max"))
    slider.evaluate("(one, to) => { one.value = to; one.dispatchEvent(new Event('input')) }", round(share * most))


def set_number(pane: object, name: str, value: str) -> None:
    field = pane.get_by_role("textbox", name=name, exact=True)
    field.fill(value)
    field.press("Tab")


def names_listed(page: object) -> list[str]:
    return page.locator("#cases .name").all_inner_texts()


def test_a_scan_opens_at_its_region_and_slices_follow_keys_wheel_slider_and_profile(
    page: object, addresses: dict[str, str]
) -> None:
    pane = opened(page, f"{addresses['scans']}#case=1")
    says(pane, "axial slice 7 (0 to 11) · height 42 mm · map 3 bits · image 750")
    canvas = pane.get_by_role("application")
    for key, index in (("Home", 0), ("ArrowUp", 1), ("PageUp", 11), ("ArrowLeft", 10), ("PageDown", 0), ("End", 11)):
        canvas.press(key)
        says(pane, f"axial slice {index} ")
    canvas.hover()
    page.mouse.wheel(0, -120)
    says(pane, "axial slice 10 ")
    slide(pane, "Slice", 0.5)
    says(pane, "axial slice 6 ")
    set_number(pane, "Number of the slice", "3")
    says(pane, "axial slice 3 (0 to 11) · height 22 mm")
    profile = pane.get_by_role("slider", name="Anomaly by slice")
    assert "highest in slice 7" in profile.get_attribute("aria-label")
    profile.press("End")
    says(pane, "axial slice 11 ")
    assert profile.get_attribute("aria-valuetext") == "slice 11, anomaly 0.2"
    pane.get_by_role("button", name="Region 1").click()
    says(pane, "axial slice 7 (0 to 11) · height 42 mm · map 3 bits")
    playwright.expect(pane.locator(".read-aloud")).to_contain_text("axial slice 7")


def test_what_is_seen_is_what_the_sliders_say(page: object, addresses: dict[str, str]) -> None:
    pane = opened(page, f"{addresses['scans']}#case=1")
    for name in ("regions", "truth", "crosshair"):
        pane.get_by_label(name).uncheck()
    alone = coloured(pane)
    assert alone > 500, "the lesion stands out in the map"
    pane.get_by_label("Show the map").uncheck()
    assert coloured(pane) == 0, "without map, regions and truth all is grey"
    pane.get_by_label("Show the map").check()
    set_number(pane, "Threshold of the map, as a number", "0,5")
    assert pane.get_by_role("textbox", name="Threshold of the map").input_value() == "0.5"
    assert coloured(pane) > 5 * alone, "the whole slice is above"
    slide(pane, "Threshold of the map", 1)
    assert coloured(pane) == pytest.approx(alone, rel=0.2), "what reaches the threshold is shown"
    slide(pane, "Opacity of the map", 0)
    assert coloured(pane) == 0
    grey = picture(pane).mean()
    slide(pane, "Centre of the window", 0.05)
    assert picture(pane).mean() > 1.2 * grey
    set_number(pane, "Centre of the window, as a number", "no number")
    assert "no" not in pane.get_by_role("textbox", name="Centre of the window").input_value()
    pane.get_by_label("Channel").select_option("t1ce")
    says(pane, "image 0")


def test_outlines_of_regions_and_truth_are_drawn_apart(page: object, addresses: dict[str, str]) -> None:
    pane = opened(page, f"{addresses['images']}#case=6")
    pane.get_by_label("Show the map").uncheck()
    orange, blue = (230, 159, 0), (86, 180, 233)

    def drawn_in(ink: tuple[int, int, int]) -> int:
        return int((np.abs(picture(pane) - np.array(ink)).max(axis=2) < 25).sum())

    both = drawn_in(orange), drawn_in(blue)
    assert min(both) > 50
    pane.get_by_label("regions").uncheck()
    assert drawn_in(orange) < both[0] / 10 and drawn_in(blue) > 50
    pane.get_by_label("planted lesion").uncheck()
    assert drawn_in(blue) < both[1] / 10


def test_planes_and_a_click_lead_to_the_place_that_was_pointed_at(page: object, addresses: dict[str, str]) -> None:
    pane = opened(page, f"{addresses['scans']}#case=1")
    for plane, last in (("coronal", 23), ("sagittal", 19), ("axial", 11)):
        pane.get_by_label(plane, exact=True).check()
        says(pane, f"{plane} slice")
        assert f"(0 to {last})" in pane.locator(".read").inner_text()
    canvas = pane.get_by_role("application")
    frame = canvas.bounding_box()
    middle = {"x": frame["width"] / 2, "y": frame["height"] / 2}
    canvas.click(position={"x": middle["x"] - 40, "y": middle["y"]})
    left_of_picture = [pane.locator(".read").inner_text()]
    pane.get_by_label("sagittal", exact=True).check()
    says(pane, "sagittal slice")
    left_of_picture.append(pane.locator(".read").inner_text())
    assert float(left_of_picture[1].split(" x ")[1].split(" mm")[0]) > 1, "the patient's right is on the left"
    for name in ("regions", "truth", "crosshair"):
        pane.get_by_label(name).uncheck()
    pane.get_by_label("all three", exact=True).check()
    pane.get_by_role("button", name="Region 1").click()
    parts = [one for one in regionprops(label(np.ptp(picture(pane), axis=2) > 40)) if one.area > 100]
    assert len(parts) == 3, "the lesion is seen in each plane"


def test_images_have_no_slices_and_say_what_they_are(page: object, addresses: dict[str, str]) -> None:
    pane = opened(page, f"{addresses['images']}#case=6")
    assert pane.get_by_role("heading", level=2).inner_text() == "lesion/1.png"
    for words in ("abnormal", "lesion planted", "p = ", "Surprise by noise level"):
        assert words in pane.inner_text()
    assert "lesions planted" in page.locator("header").inner_text()
    assert not pane.get_by_label("Slice", exact=True).is_visible()
    assert not pane.get_by_label("coronal", exact=True).is_visible()
    pane.get_by_role("button", name="Region 1").click()
    says(pane, "column 20, row 10 · map 0")


def test_the_list_is_searched_filtered_sorted_and_walked_by_keys(page: object, addresses: dict[str, str]) -> None:
    opened(page, addresses["images"])
    assert len(names_listed(page)) == 9
    page.get_by_label("Search by name").fill("LESION/3")
    assert names_listed(page) == ["lesion/3.png"]
    assert page.locator("#count").inner_text() == "1 of 9 cases fit"
    page.get_by_label("Search by name").fill("")
    page.get_by_label("Kind").select_option("good")
    page.get_by_label("Sort by").select_option("name")
    assert names_listed(page) == NAMES[:4]
    page.get_by_label("Kind").select_option("")
    page.get_by_label("Verdict").select_option("failed")
    assert names_listed(page) == ["lesion/broken.png"]
    page.get_by_label("Verdict").select_option("")
    page.locator("#cases a").first.focus()
    page.keyboard.press("End")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    playwright.expect(page.locator(".pane h2")).to_have_text(names_listed(page)[-2])
    page.locator("#cases a").last.click()
    playwright.expect(page.locator(".pane .error")).to_contain_text("is not an image; remove it")


def test_two_cases_side_by_side_move_together_and_the_address_keeps_them(
    page: object, addresses: dict[str, str]
) -> None:
    opened(page, f"{addresses['scans']}#case=1")
    page.get_by_role("button", name="Compare two cases").click()
    left, right = page.get_by_label("Left case", exact=True), page.get_by_label("Right case", exact=True)
    drawn(right)
    assert page.url.endswith("#case=1&compare=2")
    page.get_by_label("Move together").check()
    left.get_by_role("application").press("Home")
    says(right, "axial slice 0 ")
    right.get_by_label("coronal", exact=True).check()
    says(left, "coronal slice")
    page.get_by_label("Move together").uncheck()
    left.get_by_role("application").press("End")
    says(left, "coronal slice 23 ")
    assert "slice 23 " not in right.locator(".read").inner_text()
    page.reload()
    drawn(right)
    left.get_by_role("combobox", name="Case").select_option(label="bert · scored")
    playwright.expect(left.get_by_role("heading", level=2)).to_have_text("bert")
    drawn(left)
    left.get_by_role("button", name="Close").click()
    playwright.expect(page.locator(".pane")).to_have_count(1)
    assert page.url.endswith("#case=2")


def test_names_of_files_are_shown_and_not_run(page: object, tmp_path: Path) -> None:
    folder = write_results(
        tmp_path / "<img src=x onerror=alert(3)>", ["1.png"], patients=["<img src=x onerror=alert(2)>"]
    )
    for name in ("scores.csv", "spectrum.csv"):
        text = (folder / name).read_text().replace("/data/set/test/1.png", f'"/data/set/test/{HOSTILE}"')
        (folder / name).write_text(text)
    with served(folder) as address:
        page.goto(address)
        playwright.expect(page.locator(".pane h2")).to_have_text(HOSTILE.rpartition("/")[2])
        assert "patient: <img src=x" in page.locator(".pane").inner_text()
        page.wait_for_timeout(300)


def test_dropped_files_are_scored_and_opened_and_refusals_are_told(page: object, tmp_path: Path) -> None:
    content = io.BytesIO()
    Image.new("L", (8, 8)).save(content, "PNG")
    file = {"name": "new <b>.png", "mimeType": "image/png", "buffer": content.getvalue()}
    results = write_results(tmp_path / "results", ["1.png"], layers=True)
    with served(results, tmp_path / "kept") as address:
        opened(page, address)
        chooser = page.get_by_label("Choose files")
        chooser.set_input_files([file])
        playwright.expect(page.locator("#drop-words")).to_contain_text("of 10 images scored", timeout=PATIENCE_MS)
        playwright.expect(page.locator(".pane h2")).to_contain_text("new", timeout=PATIENCE_MS)
        assert "dropped here" in page.locator(".pane").inner_text() and len(names_listed(page)) == 2
        playwright.expect(page.locator("#drop-state")).to_be_hidden()
        drop_on(page, "bad.png", content.getvalue())
        error = page.locator("#drop-error")
        playwright.expect(error).to_have_text("bad.png: is empty; export it again", timeout=PATIENCE_MS)
        chooser.set_input_files([{**file, "name": "large.png", "buffer": bytes(200_000)}])
        playwright.expect(error).to_contain_text("Too large to be sent: 200 kB")
        chooser.set_input_files([{**file, "name": "stays.png"}])
        playwright.expect(page.locator("#drop-words")).to_contain_text("of 10 images scored", timeout=PATIENCE_MS)
        page.get_by_role("button", name="Cancel").click()
        playwright.expect(error).to_have_text("Cancelled.", timeout=PATIENCE_MS)


def drop_on(page: object, name: str, content: bytes) -> None:
    """Lets go of a file over the page."""
    held = page.evaluate_handle(
        """([name, bytes]) => {
          const held = new DataTransfer();
          held.items.add(new File([new Uint8Array(bytes)], name, { type: "image/png" }));
          return held;
        }""",
        [name, list(content)],
    )
    page.dispatch_event("body", "dragover", {"dataTransfer": held})
    playwright.expect(page.locator("#zone")).to_be_visible()
    page.dispatch_event("body", "drop", {"dataTransfer": held})
    playwright.expect(page.locator("#zone")).to_be_hidden()


def test_refused_content_is_told_in_words(browser: object, tmp_path: Path) -> None:
    """The refusal itself stands in the console too, as any does."""
    context = browser.new_context()
    page = context.new_page()
    results = write_results(tmp_path / "results", ["1.png"], layers=True)
    with served(results, tmp_path / "kept") as address:
        opened(page, address)
        page.get_by_label("Choose files").set_input_files(
            [{"name": "letter.png", "mimeType": "image/png", "buffer": b"Dear colleague"}]
        )
        playwright.expect(page.locator("#drop-error")).to_contain_text("its content is not that of an image")
    context.close()


def test_without_webgl_the_picture_of_the_results_is_shown(browser: object, tmp_path: Path) -> None:
    results = write_results(tmp_path / "results", ["1.png"], layers=True)
    with served(results) as address:
        arguments = [*PLAIN, "--disable-gpu", "--disable-3d-apis"]
        blind = browser.browser_type.launch(executable_path=CHROMIUM, args=arguments)
        page = blind.new_page()
        page.goto(address)
        still = page.locator(".still")
        playwright.expect(still).to_contain_text("no WebGL 2", timeout=PATIENCE_MS)
        assert still.locator("img").evaluate("one => one.decode().then(() => one.naturalWidth)") > 0
        blind.close()


def test_slices_of_a_large_scan_follow_without_a_stall(
    page: object, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(made_results, "SCAN_SHAPE", LARGE)
        folder = write_scan_results(tmp_path / "large", ["large"])
    with served(folder) as address:
        pane = opened(page, address)
        pane.get_by_role("application").press("Home")
        times = pane.get_by_role("application").evaluate(
            """async (canvas) => {
              const times = [];
              for (let slice = 0; slice < 60; slice++) {
                const start = performance.now();
                canvas.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowUp" }));
                await new Promise((go) => requestAnimationFrame(() => setTimeout(go)));
                times.push(performance.now() - start);
              }
              return times;
            }"""
        )
        says(pane, "axial slice 60 (0 to 154)")
    record_property("median_ms_a_slice", statistics.median(times))
    print(f"software rendering, {LARGE}: median {statistics.median(times):.0f} ms a slice, longest {max(times):.0f} ms")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["scan", "image", "compare", "failed", "old", "api"])
def test_it_fits_and_nothing_bars_anyone(
    browser: object, addresses: dict[str, str], tmp_path: Path, kind: str, size: str, scheme: str
) -> None:
    """No serious violation of the rules of axe-core, and no page wider than its window."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install priorlens[browser]")
    context = browser.new_context(viewport=SIZES[size], color_scheme=scheme, bypass_csp=True)
    page = context.new_page()
    complaints = watched(page)
    places = {
        "scan": f"{addresses['scans']}#case=1",
        "image": f"{addresses['images']}#case=6",
        "compare": f"{addresses['scans']}#case=1&compare=2",
        "failed": f"{addresses['images']}#case=9",
        "old": addresses["old"],
        "api": f"{addresses['scans']}api",
    }
    if kind in ("scan", "image", "compare"):
        opened(page, places[kind], panes=1 + (kind == "compare"))
    else:
        page.goto(places[kind])
        page.wait_for_load_state("networkidle")
    found = axe.Axe().run(page).response["violations"]
    serious = [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")]
    width = page.evaluate("document.documentElement.scrollWidth")
    shots = Path(os.environ.get("PRIORLENS_SCREENSHOTS") or tmp_path)
    shots.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=shots / f"view-{kind}-{size}-{scheme}.png", full_page=True)
    context.close()
    assert serious == [] and width <= SIZES[size]["width"] and complaints == []
