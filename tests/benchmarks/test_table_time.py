"""How long all runs took together, as the page has it."""

from types import SimpleNamespace

from benchmarks.table_markdown import duration
from benchmarks.table_ran import _time

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
