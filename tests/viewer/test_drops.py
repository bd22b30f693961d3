"""What becomes of files that are dropped, step by step, with a scorer that does as it is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pretended_scoring
import pytest
from asking import shelf_of

from made_results import write_results
from priorlens.errors import InputError
from priorlens.viewer import drops as drops_module
from priorlens.viewer.drops import Drop, Drops
from priorlens.viewer.scorer import Scorer


class Played(Scorer):
    """In this process: each run is the next of `acts`; `stop` ends the one that waits."""

    def __init__(self) -> None:
        super().__init__(pretended_scoring.score)
        self.acts: list[Callable[[Path, Path, Any], None]] = []
        self.seen: list[list[str]] = []
        self.stopped, self.begun, self.go_on = threading.Event(), threading.Event(), threading.Event()

    def run(self, files: Path, out: Path, tell: Any) -> None:
        self.seen.append(sorted(str(path.relative_to(files)) for path in files.rglob("*") if path.is_file()))
        (self.acts.pop(0) if self.acts else scored)(files, out, tell)

    def stop(self) -> None:
        self.stopped.set()
        self.go_on.set()

    def waits(self, files: Path, out: Path, tell: Any) -> None:
        """Until it is stopped or told to go on."""
        tell(2, 5)
        self.begun.set()
        assert self.go_on.wait(60)
        if self.stopped.is_set():
            raise InputError("scoring was stopped from outside, for want of memory perhaps; give fewer")
        scored(files, out, tell)


def scored(files: Path, out: Path, tell: Any) -> None:
    tell(1, 1)
    write_results(out, [path.name for path in sorted(files.rglob("*.png"))], overlays=False)


def failing(error: Exception) -> Callable[[Path, Path, Any], None]:
    def act(files: Path, out: Path, tell: Any) -> None:
        raise error

    return act


@pytest.fixture
def scorer() -> Iterator[Played]:
    found = Played()
    yield found
    found.go_on.set()


@pytest.fixture
def drops(tmp_path: Path, scorer: Played) -> Drops:
    """Beside three cases that are there already; of a hundred bytes each at most."""
    return made(tmp_path, scorer)


def made(folder: Path, scorer: Scorer, *, hide: bool = False, of_scans: bool = False) -> Drops:
    shelf = shelf_of(write_results(folder / "results", ["a.png", "b.png", "c.png"], overlays=False), hide=hide)
    return Drops(folder / "kept", shelf, scorer, of_scans=of_scans, most_bytes=100)


def filled(drops: Drops, *names: str, size: int = 10) -> int:
    """A drop that has received these files."""
    number = drops.new().number
    for name in names:
        drops.place(number, PurePosixPath(name)).write_bytes(bytes(size))
        drops.take(number, size)
        drops.added(number)
    return number


def state(drops: Drops, number: int) -> Drop:
    found = drops.get(number)
    assert found is not None
    return found


def over(drops: Drops, number: int) -> Drop:
    """Once it is."""
    end = time.monotonic() + 60
    while state(drops, number).state not in ("done", "failed", "cancelled"):
        assert time.monotonic() < end, state(drops, number)
        time.sleep(0.005)
    return state(drops, number)


def gone(path: Path) -> None:
    end = time.monotonic() + 60
    while path.exists():
        assert time.monotonic() < end, f"{path} is kept"
        time.sleep(0.005)


# --- a drop's way


def test_files_become_cases(tmp_path: Path, drops: Drops, scorer: Played) -> None:
    number = filled(drops, "x.png", "p1/y.png")
    assert (state(drops, number).state, state(drops, number).files) == ("receiving", 2)
    drops.start(number)
    found = over(drops, number)
    assert (found.state, found.done, found.total, found.words, found.cases) == ("done", 1, 1, "2 cases added", (4, 5))
    assert scorer.seen == [["p1/y.png", "x.png"]]
    assert [one.number for one in drops.shelf if one.book.dropped] == [4, 5]
    gone(tmp_path / "kept/drop-1/files")


def test_a_drop_waits_for_the_one_before(drops: Drops, scorer: Played) -> None:
    scorer.acts = [scorer.waits]
    first, second = filled(drops, "x.png"), filled(drops, "y.png")
    drops.start(first)
    drops.start(second)
    assert scorer.begun.wait(60)
    assert (state(drops, first).state, state(drops, second).state) == ("scoring", "waiting")
    assert (state(drops, first).done, state(drops, first).total) == (2, 5)
    assert state(drops, first).words == "2 of 5 images scored"
    assert state(drops, second).words == "waiting for its turn" and not state(drops, second).cases
    scorer.go_on.set()
    assert over(drops, first).cases == (4,) and over(drops, second).cases == (5,)
    assert state(drops, first).words == "1 case added"


@pytest.mark.parametrize(("of_scans", "words"), [(True, "2 of 5 parts scored"), (False, "2 of 5 images scored")])
def test_progress_is_in_what_the_model_takes(tmp_path: Path, scorer: Played, of_scans: bool, words: str) -> None:
    drops = made(tmp_path, scorer, of_scans=of_scans)
    scorer.acts = [scorer.waits]
    number = filled(drops, "x.png")
    drops.start(number)
    assert scorer.begun.wait(60)
    assert state(drops, number).words == words


def test_there_is_no_other_drop(drops: Drops) -> None:
    assert drops.get(1) is None and drops.get(0) is None and drops.get(-1) is None


# --- what it takes


def test_names_that_are_the_same_are_two_files(drops: Drops, scorer: Played) -> None:
    number = filled(drops, "x.png", "x.png", "p/x.png")
    drops.start(number)
    over(drops, number)
    assert scorer.seen == [["2-x.png", "p/x.png", "x.png"]]


def test_room_is_that_of_all_files_together(drops: Drops) -> None:
    number = filled(drops, "x.png", "y.png", size=30)
    assert drops.room(number) == 40
    drops.take(number, 40)
    assert drops.room(number) == 0
    drops.take(number, -40)
    assert drops.room(number) == 40
    assert drops.room(drops.new().number) == 100


def test_not_too_many_files(drops: Drops, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drops_module, "MOST_FILES", 2)
    number = filled(drops, "x.png", "y.png")
    with pytest.raises(InputError, match="no more files can be added"):
        drops.place(number, PurePosixPath("z.png"))


def test_a_drop_that_has_begun_takes_no_more(drops: Drops) -> None:
    number = filled(drops, "x.png")
    drops.start(number)
    over(drops, number)
    with pytest.raises(InputError, match="no more files"):
        drops.place(number, PurePosixPath("y.png"))


def test_nothing_is_not_scored_and_nothing_twice(drops: Drops, scorer: Played) -> None:
    empty, full = filled(drops), filled(drops, "x.png")
    with pytest.raises(InputError, match="nothing to score"):
        drops.start(empty)
    drops.start(full)
    over(drops, full)
    with pytest.raises(InputError, match="scored once"):
        drops.start(full)
    assert len(scorer.seen) == 1


# --- what goes wrong


def test_a_failure_is_told_without_the_paths_here(tmp_path: Path, drops: Drops, scorer: Played) -> None:
    files = tmp_path / "kept/drop-1/files"
    scorer.acts = [failing(InputError(f"{files}/p1/x.png: is empty; export it again"))]
    number = filled(drops, "p1/x.png")
    drops.start(number)
    found = over(drops, number)
    assert (found.state, found.words, found.cases) == ("failed", "p1/x.png: is empty; export it again", ())
    gone(files)


def test_nor_with_names_where_they_are_hidden(tmp_path: Path, scorer: Played) -> None:
    drops = made(tmp_path, scorer, hide=True)
    scorer.acts = [failing(InputError(f"{tmp_path}/kept/drop-1/files/Ann.png: is empty; export it again"))]
    number = filled(drops, "Ann.png")
    drops.start(number)
    found = over(drops, number)
    assert found.state == "failed" and "Ann" not in found.words and str(tmp_path) not in found.words


@pytest.mark.parametrize("error", [InputError("x"), KeyError("Ann"), OSError(28, "No space left"), RuntimeError("Ann")])
def test_whatever_happens_the_next_drop_is_scored(drops: Drops, scorer: Played, error: Exception) -> None:
    scorer.acts = [failing(error)]
    first, second = filled(drops, "x.png"), filled(drops, "y.png")
    drops.start(first)
    drops.start(second)
    found = over(drops, first)
    assert found.state == "failed" and found.words and "Ann" not in found.words
    assert over(drops, second).state == "done"


def test_results_that_cannot_be_read_are_a_failure(drops: Drops, scorer: Played) -> None:
    scorer.acts = [lambda files, out, tell: out.mkdir(parents=True)]
    number = filled(drops, "x.png")
    drops.start(number)
    assert over(drops, number).state == "failed" and "scores.csv" in state(drops, number).words
    assert len(list(drops.shelf)) == 3


# --- cancelled


def test_cancelled_while_it_is_scored(tmp_path: Path, drops: Drops, scorer: Played) -> None:
    scorer.acts = [scorer.waits]
    number = filled(drops, "x.png")
    drops.start(number)
    assert scorer.begun.wait(60)
    drops.cancel(number)
    assert scorer.stopped.is_set()
    assert (state(drops, number).state, state(drops, number).words) == ("cancelled", "cancelled")
    gone(tmp_path / "kept/drop-1/files")
    assert state(drops, number).state == "cancelled", "and not failed, by being stopped"
    assert len(list(drops.shelf)) == 3
    after = filled(drops, "y.png")
    drops.start(after)
    assert over(drops, after).cases == (4,)


def test_cancelled_while_it_waits(tmp_path: Path, drops: Drops, scorer: Played) -> None:
    """Which does not stop the one before it, and costs no scoring."""
    scorer.acts = [scorer.waits]
    first, second = filled(drops, "x.png"), filled(drops, "y.png")
    drops.start(first)
    drops.start(second)
    assert scorer.begun.wait(60)
    drops.cancel(second)
    assert not scorer.stopped.is_set() and state(drops, second).state == "cancelled"
    scorer.go_on.set()
    assert over(drops, first).state == "done"
    gone(tmp_path / "kept/drop-2/files")
    assert len(scorer.seen) == 1 and state(drops, second).state == "cancelled"


def test_cancelled_before_it_begins(tmp_path: Path, drops: Drops) -> None:
    number = filled(drops, "x.png")
    drops.cancel(number)
    assert not (tmp_path / "kept/drop-1/files").exists(), "what was given is forgotten"
    assert state(drops, number).state == "cancelled"
    for step in (lambda: drops.start(number), lambda: drops.place(number, PurePosixPath("y.png"))):
        with pytest.raises(InputError):
            step()


def test_cancelled_before_there_was_a_process_to_stop(drops: Drops, scorer: Played) -> None:
    """The next word of it ends it; at the latest its cases are not added."""
    begun, cancelled = threading.Event(), threading.Event()

    def starts(files: Path, out: Path, tell: Any) -> None:
        begun.set()
        assert cancelled.wait(60)
        scorer.stopped.clear()  # as if it had not been there
        tell(0, 5)
        stopped.append(scorer.stopped.is_set())
        scored(files, out, tell)

    stopped: list[bool] = []
    scorer.acts = [starts]
    number, after = filled(drops, "x.png"), filled(drops, "y.png")
    drops.start(number)
    drops.start(after)
    assert begun.wait(60)
    drops.cancel(number)
    cancelled.set()
    assert over(drops, after).cases == (4,)
    assert stopped == [True] and [one.case.name for one in drops.shelf if one.book.dropped] == ["y.png"]


@pytest.mark.parametrize("error", [None, InputError("x")])
def test_what_is_over_stays_as_it_is(drops: Drops, scorer: Played, error: Exception | None) -> None:
    scorer.acts = [failing(error)] if error else []
    number = filled(drops, "x.png")
    drops.start(number)
    found = over(drops, number)
    drops.cancel(number)
    assert state(drops, number) == found and not scorer.stopped.is_set()


def test_closed_in_the_middle_nothing_more_begins(tmp_path: Path, drops: Drops, scorer: Played) -> None:
    scorer.acts = [scorer.waits]
    first, second = filled(drops, "x.png"), filled(drops, "y.png")
    drops.start(first)
    drops.start(second)
    assert scorer.begun.wait(60)
    drops.close()
    assert scorer.stopped.is_set()
    gone(tmp_path / "kept/drop-2/files")
    assert len(scorer.seen) == 1
    assert {state(drops, number).state for number in (first, second)} == {"cancelled"}


# --- with a process


def test_a_process_that_dies_is_told_and_the_next_drop_works(tmp_path: Path) -> None:
    scorer = Scorer(pretended_scoring.score)
    drops = made(tmp_path, scorer)
    first, second = filled(drops, "dies.png"), filled(drops, "broken.png")
    drops.start(first)
    drops.start(second)
    found = over(drops, first)
    assert (found.state, found.done, found.total) == ("failed", 1, 3) and "stopped from outside" in found.words
    assert over(drops, second).words == "broken.png: is empty; export it again"
    third = filled(drops, "stays.png")
    drops.start(third)
    end = time.monotonic() + 60
    while state(drops, third).total == 0 and time.monotonic() < end:
        time.sleep(0.005)
    drops.cancel(third)
    assert state(drops, third).state == "cancelled" and state(drops, third).done == 1
    drops.close()
