"""Where a fit stands, over all its stages."""

import math

from priorlens.progress import Progress, Reporter


def test_steps_and_images_count_alike():
    seen: list[Progress] = []
    report = Reporter(seen.append, {"features": 5, "held-out images": 2}, steps=4)
    report.images("features", 3)
    report.images("features", 2)
    for step in (1, 2, 3, 4):
        report("s8 denoiser", step, 4, 1 / step)
    report.images("held-out images", 2)
    assert [(p.stage, p.step, p.steps) for p in seen] == [
        ("features", 3, 5),
        ("features", 5, 5),
        *(("s8 denoiser", step, 4) for step in (1, 2, 3, 4)),
        ("held-out images", 2, 2),
    ]
    assert [p.done for p in seen] == [3, 5, 6, 7, 8, 9, 11]
    assert {p.total for p in seen} == {11}
    assert seen[2].loss == 1.0 and math.isnan(seen[0].loss)


def test_a_resumed_stage_starts_where_it_was():
    seen: list[Progress] = []
    Reporter(seen.append, {}, steps=10)("s8 denoiser", 8, 10, 0.5)
    assert seen[0].done == 8


def test_nobody_need_listen():
    report = Reporter(None, {"features": 1}, steps=1)
    report.images("features", 1)
    report("s8 denoiser", 1, 1, 0.0)
