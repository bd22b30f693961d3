"""Growth on made images: a point a process, resumed, left out where it would take too long."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_methods import entry

from benchmarks import growth
from benchmarks.environments import Environments
from benchmarks.growth import MOST_SECONDS, Wanted, expected_seconds, wanted_points
from benchmarks.growth_worker import TEST, TRAIN, batches, made_image
from benchmarks.table_growth import read_growth
from priorlens.errors import InputError

ENTRIES = {
    one.name: one
    for one in (
        entry("bright", "Bright"),
        entry("dark", "Dark"),
        entry("both", "Both", needs="bright+dark"),
        entry("crashes_later", "CrashesLater"),
        entry("scan", "Bright", of_scans=True),
        replace(entry("elsewhere", "Bright"), environment="anomalib"),
    )
}


@pytest.fixture(scope="module", autouse=True)
def small(found_by_workers):
    found_by_workers.setattr(growth, "QUICK_SIZES", (64,))
    found_by_workers.setattr(growth, "QUICK_COUNTS", (20,))


def measure(out, *names, budget=None):
    environments = Environments(out, anomalib=out / "no-python")
    return growth.run([ENTRIES[name] for name in names], out, environments, 1, budget, True, ENTRIES)


def stored(out, name):
    return json.loads((out / "growth" / f"{name}.json").read_text())


def test_points_are_measured_written_and_kept(tmp_path, capfd):
    assert measure(tmp_path, "both") == 0
    found = stored(tmp_path, "both")
    size, images = found["points"]
    assert (size["what"], size["value"], size["scored"]) == ("size", 64, 16)
    assert 0 < size["low"] <= size["ms_per_image"] <= size["high"]
    assert (images["what"], images["value"]) == ("images", 20)
    assert images["seconds"] == pytest.approx(20 * images["ms_per_image"] / 1000)
    assert all(point["peak_mb"] > 20 for point in found["points"])
    assert not (tmp_path / "work" / "growth").exists()
    capfd.readouterr()
    assert measure(tmp_path, "both") == 0
    assert stored(tmp_path, "both") == found
    assert capfd.readouterr().err == ""
    facts = read_growth(tmp_path, ENTRIES)[0]
    assert facts.series("size", "ms_per_image") == [(64, size["ms_per_image"])]


def test_what_fails_is_a_line_and_ends_its_series(tmp_path):
    measure(tmp_path, "crashes_later", "scan", "elsewhere")
    size, images = stored(tmp_path, "crashes_later")["points"]
    assert size["failed"] == "scoring: RuntimeError: a defect"
    assert images["failed"] == size["failed"]
    assert stored(tmp_path, "scan")["failed"] == "it takes the scans of a study, not images"
    assert "no-python" in stored(tmp_path, "elsewhere")["failed"]
    lines = {one.entry.name: one.absent for one in read_growth(tmp_path, ENTRIES)}
    assert lines["crashes_later"] == ("side 64 and 20 images: scoring: RuntimeError: a defect",)


def test_points_not_tried_for_want_of_a_smaller_one_stand_with_its_reason(tmp_path):
    measure(tmp_path, "bright")
    points = [
        {"what": "size", "value": 64, "failed": "no memory"},
        {"what": "size", "value": 128, "left_out": growth.NOT_TRIED},
        {"what": "images", "value": 100, "failed": "no memory"},
        {"what": "images", "value": 300, "failed": "no time"},
        {"what": "images", "value": 1000, "left_out": growth.NOT_TRIED},
    ]
    (tmp_path / "growth" / "bright.json").write_text(json.dumps({**stored(tmp_path, "bright"), "points": points}))
    assert read_growth(tmp_path, ENTRIES)[0].absent == (
        "side 64, side 128 and 100 images: no memory",
        "300 images and 1000 images: no time",
    )


def test_what_was_measured_is_not_lost_to_a_call_that_cannot_measure_it(tmp_path):
    measure(tmp_path, "bright")
    whole = stored(tmp_path, "bright")
    path = tmp_path / "growth" / "bright.json"
    path.write_text(json.dumps({**whole, "key": {**whole["key"], "quick": False}}))
    before = path.read_bytes()
    with pytest.raises(InputError, match="--quick would replace"):
        measure(tmp_path, "bright")
    environments = Environments(tmp_path, anomalib=tmp_path / "no-python")
    gone = replace(ENTRIES["bright"], environment="anomalib")
    growth.run([gone], tmp_path, environments, 1, None, False, ENTRIES)
    assert path.read_bytes() == before


def test_a_point_that_failed_is_tried_again(tmp_path):
    measure(tmp_path, "bright")
    whole = stored(tmp_path, "bright")
    images = whole["points"][1]
    failed = {"what": "size", "value": 64, "failed": "no memory"}
    (tmp_path / "growth" / "bright.json").write_text(json.dumps({**whole, "points": [failed, images]}))
    measure(tmp_path, "bright")
    assert {one["what"]: "failed" in one for one in stored(tmp_path, "bright")["points"]} == {
        "size": False,
        "images": False,
    }


def test_a_budget_that_is_spent_leaves_points(tmp_path):
    assert measure(tmp_path, "bright", budget=0) == 2
    assert not (tmp_path / "growth" / "bright.json").exists()


def test_what_would_take_too_long_is_left_out_with_all_beyond_it(tmp_path):
    points = [{"what": "size", "value": 64, "ms_per_image": 100.0, "peak_mb": 1.0}]
    assert expected_seconds(Wanted("images", 10000), points) == pytest.approx(1000)
    assert expected_seconds(Wanted("size", 128), points) == pytest.approx(4 * 0.1 * 8)
    assert expected_seconds(Wanted("size", 64), []) == 0
    point = growth._point([ENTRIES["bright"]], Wanted("images", 10000), points, tmp_path, Path(), 1, np.inf)
    assert point["left_out"] == f"would take about 1000 s, more than {MOST_SECONDS:.0f} s"
    point = growth._point([ENTRIES["bright"]], Wanted("images", 20000), [*points, point], tmp_path, Path(), 1, np.inf)
    assert point["left_out"] == "a smaller one did not come about either"


def test_made_images_are_the_same_every_time_and_never_twice():
    for side in (64, 128):
        image = made_image(side, TEST, 3)
        assert image.pixels.shape == (1, side, side)
        assert 0 <= image.pixels.min() < image.pixels.max() <= 255
        np.testing.assert_array_equal(image.pixels, made_image(side, TEST, 3).pixels)
        assert not np.array_equal(image.pixels, made_image(side, TRAIN, 3).pixels)
    assert [len(batch) for batch in batches(64, 20)] == [16, 4]


def test_points_in_full():
    assert [one.value for one in wanted_points(quick=False)] == [64, 128, 256, 512, 100, 300, 1000, 10000]
