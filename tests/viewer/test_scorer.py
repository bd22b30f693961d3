"""The process that scores: what it tells, what it keeps to itself, and that nothing ends it for good."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pretended_scoring
import pytest

from priorlens.errors import InputError
from priorlens.viewer.scorer import Scorer


@pytest.fixture(scope="module")
def scorer() -> Iterator[Scorer]:
    """One for all tests, as the viewer has: what one does to it must not harm the next."""
    found = Scorer(pretended_scoring.score)
    yield found
    found.stop()


def dropped(folder: Path, *names: str) -> Path:
    files = folder / "files"
    files.mkdir()
    for name in names:
        (files / name).touch()
    return files


def process(scorer: Scorer, folder: Path) -> int:
    """That of a run in which all goes well."""
    folder.mkdir()
    told: list[tuple[int, int]] = []
    scorer.run(dropped(folder, "a.png"), folder / "out", lambda done, total: told.append((done, total)))
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]
    return int((folder / "out/process").read_text())


def failure(scorer: Scorer, folder: Path, name: str) -> str:
    with pytest.raises(InputError) as error:
        scorer.run(dropped(folder, name), folder / "out", lambda done, total: None)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_one_process_for_all_runs_and_not_this_one(tmp_path: Path, scorer: Scorer) -> None:
    first, second = process(scorer, tmp_path / "1"), process(scorer, tmp_path / "2")
    assert first == second != os.getpid()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("broken.png", "{files}/broken.png: is empty; export it again"),
        ("foreign.png", "/data/model: is no model; fit one"),
        ("defect.png", "could not be scored (KeyError); export it again"),
    ],
)
def test_what_goes_wrong_is_told_and_the_process_stays(tmp_path: Path, scorer: Scorer, name: str, says: str) -> None:
    """Of what no one has foreseen only the kind: the rest may hold names."""
    before = process(scorer, tmp_path / "before")
    assert failure(scorer, tmp_path, name) == says.format(files=tmp_path / "files")
    assert process(scorer, tmp_path / "after") == before


def test_a_process_that_dies_is_told_and_there_is_another(tmp_path: Path, scorer: Scorer) -> None:
    before = process(scorer, tmp_path / "before")
    assert "was stopped from outside" in failure(scorer, tmp_path, "dies.png")
    assert process(scorer, tmp_path / "after") != before


def test_one_that_dies_while_it_waits_is_not_missed(tmp_path: Path, scorer: Scorer) -> None:
    before = process(scorer, tmp_path / "before")
    os.kill(before, signal.SIGKILL)
    os.waitid(os.P_PID, before, os.WEXITED | os.WNOWAIT)
    assert process(scorer, tmp_path / "after") != before


def test_stopped_in_the_middle(tmp_path: Path, scorer: Scorer) -> None:
    before, begun, ended = process(scorer, tmp_path / "before"), threading.Event(), []

    def run() -> None:
        try:
            scorer.run(dropped(tmp_path, "stays.png"), tmp_path / "out", lambda done, total: begun.set())
        except InputError as error:
            ended.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    assert begun.wait(60)
    scorer.stop()
    thread.join(60)
    assert not thread.is_alive() and len(ended) == 1 and "stopped" in ended[0]
    with pytest.raises(ProcessLookupError):
        os.kill(before, 0)
    assert process(scorer, tmp_path / "after") != before


def test_it_says_nothing_on_the_terminal(tmp_path: Path, scorer: Scorer, capfd: pytest.CaptureFixture[str]) -> None:
    scorer.stop()  # so that the next process has what this test captures for its terminal
    scorer.run(dropped(tmp_path, "loud.png"), tmp_path / "out", lambda done, total: None)
    (tmp_path / "next").mkdir()
    failure(scorer, tmp_path / "next", "defect.png")
    assert capfd.readouterr() == ("", "")


def test_stopping_what_never_ran_is_nothing() -> None:
    found = Scorer(pretended_scoring.score)
    found.stop()
    found.stop()
