"""What the pictures choose and how they stay legible and small."""

from itertools import pairwise

import numpy as np
import pytest
from made_runs import made_run, made_study
from matplotlib.colors import to_rgb
from PIL import Image

from benchmarks.methods import METHODS
from benchmarks.pictures import COLOURS, MAP_COLOURS, MOST_BYTES, Label, new_figure, place_labels, save, spread_out
from benchmarks.pictures_speed import HOLLOW, _draw, _handles, points_of, speed_picture
from benchmarks.shown import QUANTILES, WORST, ranked
from benchmarks.table_growth import exponent
from benchmarks.table_markdown import amount, duration, listed, plain
from benchmarks.table_results import Gathered


def test_six_images_at_quantiles_and_the_worst():
    marks = {f"image{i:02d}": i / 20 for i in range(21)}
    assert ranked(marks) == ("image16", "image12", "image08", "image04", "image01", "image00")
    assert len(ranked(marks)) == len(QUANTILES) + WORST


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_few_images_are_shown_once_each(count):
    names = ranked({str(i): float(i) for i in range(count)})
    assert len(set(names)) == len(names) <= count
    assert names[-1] == "0"


def test_a_picture_of_noise_is_made_small_enough(tmp_path):
    figure = new_figure(9, 9)
    figure.subplots().imshow(np.random.default_rng(0).random((900, 900)), interpolation="nearest")
    save(figure, tmp_path / "noise.png")
    assert 0 < (tmp_path / "noise.png").stat().st_size < MOST_BYTES


def test_an_image_among_maps_stays_grey_when_a_picture_is_made_small(tmp_path):
    noise = np.random.default_rng(0).random((300, 300))
    figure = new_figure(12, 12)
    panels = figure.subplots(4, 4, gridspec_kw={"left": 0, "right": 1, "top": 1, "bottom": 0}).ravel()
    figure.set_layout_engine("none")
    for index, panel in enumerate(panels):
        panel.imshow(noise, cmap=MAP_COLOURS if index else "gray", interpolation="nearest")
        panel.set_axis_off()
    save(figure, tmp_path / "both.png")
    with Image.open(tmp_path / "both.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    grey = pixels[: len(pixels) // 5, : len(pixels) // 5]
    assert len(np.unique(grey)) > 12
    assert np.ptp(grey, axis=2).max() < 20, "of 255: no tint that is seen"


def test_names_at_the_ends_of_lines_keep_apart():
    for heights in ([0.0, 0.01, 0.02, 0.9], [0.97, 0.98, 0.99, 1.0], [0.5]):
        places = spread_out(heights, 0.05)
        assert all(b - a >= 0.05 - 1e-9 for a, b in pairwise(places))
        assert max(places) <= 1 + 1e-9


def test_labels_of_near_points_do_not_cover_each_other():
    figure = new_figure(6, 5)
    axes = figure.subplots()
    labels = [Label(x, y, f"a method {x}", "black") for x, y in ((1, 1), (1.01, 1), (1.02, 1.01), (2, 2))]
    axes.scatter([one.x for one in labels], [one.y for one in labels])
    place_labels(figure, [(axes, labels)])
    figure.canvas.draw()
    boxes = [text.get_tightbbox() for text in axes.texts]
    words = [text.get_bbox_patch() or text for text in axes.texts]
    assert len(words) == len(boxes) == 4
    starts = {tuple(np.round(text.xyann, 1)) for text in axes.texts[:3]}
    assert len(starts) == 3


@pytest.mark.parametrize("power", [0.3, 1.0, 2.5])
def test_exponents_of_power_laws_are_found(power):
    assert exponent([(x, 7 * x**power) for x in (64, 128, 256, 512)]) == pytest.approx(power)
    assert exponent([(64, 1.0), (128, 2.0)]) is None


def test_words():
    assert [amount(x) for x in (0, 0.01234, 4.5678, 123.4, 12345.6, None)] == [
        "0",
        "0.0123",
        "4.57",
        "123",
        "12 346",
        "–",
    ]
    assert [duration(x) for x in (42, 720, 11100)] == ["42 s", "12 min", "3 h 05 min"]
    assert [listed(x) for x in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]
    assert plain("a | b\n<img> [x](y) `c` *d*") == r"a \| b &lt;img&gt; \[x\](y) \`c\` \*d\*"


def test_times_that_were_not_taken_in_turns_are_hollow(tmp_path):
    study = made_study(tmp_path / "data", "head_ct", count=2)
    for name in ("anodode", "patchcore", "brightness"):
        made_run(tmp_path, study, METHODS[name], 0.5, in_turns=name != "patchcore")
    gathered = Gathered.read(tmp_path, METHODS)
    axes = new_figure(4, 4).subplots()
    points = points_of(gathered.runs("head_ct"))
    _draw(axes, "head_ct", points)
    faces = {
        one.entry.name: tuple(drawn.get_facecolor()[0][:3])
        for (one, *_), drawn in zip(points, axes.collections, strict=True)
    }
    assert faces == {
        "anodode": to_rgb(COLOURS["ours"]),
        "patchcore": to_rgb("white"),
        "brightness": to_rgb(COLOURS["simple"]),
    }
    assert tuple(axes.collections[1].get_edgecolor()[0][:3]) == to_rgb(COLOURS["anomalib"])
    told = speed_picture(gathered, tmp_path).markdown
    assert "1 of 3 markers are hollow" in told and "Hollow: taken while the test images were judged" in told
    assert _handles(hollow=True)[-1].get_label() == HOLLOW and len(_handles(hollow=False)) == 4


def test_where_all_times_were_taken_in_turns_nothing_is_said_of_hollow_markers(tmp_path):
    study = made_study(tmp_path / "data", "head_ct", count=2)
    made_run(tmp_path, study, METHODS["anodode"], 0.5)
    assert "ollow" not in speed_picture(Gathered.read(tmp_path, METHODS), tmp_path).markdown
