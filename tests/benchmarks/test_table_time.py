"""How long all runs took together, as the page has it, and on which processors."""

from types import SimpleNamespace

from made_runs import made_run, made_study

from benchmarks.methods import METHODS
from benchmarks.table_figures import cost
from benchmarks.table_markdown import duration
from benchmarks.table_ran import _time
from benchmarks.table_results import Gathered

OLD = {"fit": {"seconds": [60.0]}, "score": {"judged": 100, "ms_per_image": {"median": 600.0}}}


def told(*results):
    return _time(SimpleNamespace(results=results))


def test_the_wall_time_of_runs_is_taken_where_they_tell_it():
    assert told(OLD) == f"{duration(60)} of learning and about {duration(60)} of judging, all runs together"
    assert told({**OLD, "seconds": 180.0}, {**OLD, "seconds": 120.0}) == f"{duration(300)}, all runs together"
    assert told({**OLD, "seconds": 180.0}, {**OLD, "seconds": None}) == (
        f"{duration(180)}, all runs together; "
        f"{duration(60)} of learning and about {duration(60)} of judging, 1 other run"
    )


def test_times_of_another_processor_than_most_are_marked(tmp_path):
    study = made_study(tmp_path / "data", "head_ct", count=2)
    for name in ("anodode", "klip", "klip_ct", "patchcore"):
        made_run(tmp_path, study, METHODS[name], 0.5, cpu="Made Up, model_1", in_turns=name != "patchcore")
    assert "¶" not in cost(Gathered.read(tmp_path, METHODS).runs("head_ct"))
    made_run(tmp_path, study, METHODS["brightness"], 0.5, cpu="Made Up")
    made_run(tmp_path, study, METHODS["klip"], 0.5, cpu="Made Up", seed=1)
    told = cost(Gathered.read(tmp_path, METHODS).runs("head_ct"))
    marked = {line.split(" | ")[0].strip("| ") for line in told.splitlines() if line.startswith("|") and "¶" in line}
    assert marked == {"KLIP of whole images", "KLIP, CT of 24 views", "Smoothed brightness"}
    assert "| KLIP, CT of 24 views | 12.5 (of klip) ¶ | 10.0 | 9.00 to 12.0 | 2.00 |" in told
    assert "| Smoothed brightness | 12.5 ¶ | 10.0 ¶ | 9.00 to 12.0 ¶ | 2.00 |" in told
    assert told.splitlines()[-1].startswith("¶: times of another processor than those of most rows")
    assert "Made Up in place of Made Up, model\\_1." in told
