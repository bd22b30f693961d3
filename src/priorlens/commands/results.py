"""Scores, maps and overlays of many images, written under one folder: what `score` and `evaluate` share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path

import typer

from priorlens.addresses import Address
from priorlens.commands.doubts import DOUBTS, tell
from priorlens.commands.image_results import MAPS, OVERLAYS, ImageResults
from priorlens.commands.publishing import RemoteFolder
from priorlens.commands.recording import Run, record
from priorlens.commands.report import write_page
from priorlens.commands.scans_in import LEFT_OUT
from priorlens.commands.terminal import warn
from priorlens.commands.verdict_files import PATIENTS, VERDICT_FILES, write_basis, write_patients
from priorlens.datasets import Case
from priorlens.errors import EXIT_SOME_FAILED, OutputError
from priorlens.layers import LAYERS
from priorlens.ledger import Counts, Entry, merged
from priorlens.report.book import discard_report, folder_of
from priorlens.report.facts import CURVES, METRICS, PAGE
from priorlens.result_folder import SCORES, SPECTRUM
from priorlens.scoring import Described, Failed, Scored, score_cases
from priorlens.verdicts import Judgement

FURTHER = ("blocks", "reconstructions")
"""What only some detectors write, by names of their own."""

Scores = Callable[[Described, Sequence[Case]], Iterable[Scored | Failed]]
OnScored = Callable[[Scored, Judgement | None], None]


def write_scores(
    results: ImageResults,
    cases: Sequence[Case],
    *,
    run: Run | None = None,
    scored: Scores = score_cases,
    on_scored: OnScored = lambda scored, judgement: None,
) -> Counts:
    """Score `cases` in this process: a row each in `scores.csv` in their order, maps and pictures; tell `on_scored`.

    run: one that can be gone on with; what it has is not scored again, and not told. scored: what the detector says of
    cases, by default of their images.

    Cases that cannot be used are named on stderr and in the table, and counted. Raises OutputError.
    """

    def entries(todo: Sequence[Case]) -> Iterator[Entry]:
        for result in scored(results.detector, todo):
            judgement = results.judgement(result)
            yield results.entry(result, judgement)
            if isinstance(result, Scored):
                on_scored(result, judgement)

    return write_entries(results, cases, entries, run or Run.in_memory())


def write_entries(
    results: ImageResults,
    cases: Sequence[Case],
    entries: Callable[[Sequence[Case]], Iterable[Entry]],
    run: Run,
) -> Counts:
    """The same, whoever scores: `entries` gives those of cases, in any order."""
    out = results.out
    total, places = run.todo(cases)
    todo = [cases[place] for place in places]
    _remove_earlier(out, todo)
    if run.publisher:
        run.publisher.discard([cases[place].name for place in run.own.anew], run.own)
    scored = entries(todo)
    at_end = partial(finish, results, run)
    record(out, run, scored, results.tables, total=total, what="images", at_end=at_end)
    return run.own.counts


def finish(results: ImageResults, run: Run) -> None:
    """What is told and written once all images are known."""
    judge = results.judge
    if judge:
        write_basis(results.out, judge)
        tell(merged(run.ledgers, DOUBTS))
    if judge and results.patients:
        place = list(results.tables[SCORES]).index("anomaly")
        lines = ((line[1], float(line[place] or "nan")) for line in merged(run.ledgers, SCORES))
        write_patients(results.out / PATIENTS, judge, lines)


def report(
    out: Path,
    cases: int,
    failed: int,
    *,
    page: bool,
    what: str = "images",
    left_out: int = 0,
    remote: RemoteFolder | None = None,
) -> None:
    """The last words of a command that scored `what`, and with `page` a page of everything in `out`.

    left_out: files that were no case at all. remote: of what address `out` is the copy.

    Raises typer.Exit if some images could not be used, OutputError, InputError.
    """
    called = remote.address if remote else out
    if page and remote:
        remote.fetch_pictures()
    if page:
        write_page(out, out / PAGE)
    if page and remote:
        remote.send_page(out / PAGE, folder_of(out / PAGE))
    typer.echo(f"{called}: {cases - failed} of {cases} {what} scored, see {called / SCORES}")
    if failed:
        warn(f"{called / SCORES}: {failed} of {cases} {what} could not be scored; repair or remove those with an error")
    if left_out:
        warn(f"{out / LEFT_OUT}: {left_out} files are left out, it says why")
    if failed or left_out:
        raise typer.Exit(EXIT_SOME_FAILED)


def require_apart(
    out: Path | Address, inputs: Sequence[Path | Address], why: str = "among the images to score"
) -> None:
    """Refuse to write results among the images, where the next run would take them for images. Raises OutputError.

    inputs: folders; addresses of any sort. why: what is said where these are no images.
    """
    for folder in inputs:
        if isinstance(out, Address) or isinstance(folder, Address):
            within = isinstance(out, Address) and isinstance(folder, Address) and out.is_within(folder)
        else:
            within = out.resolve().is_relative_to(folder.resolve())
        if within:
            raise OutputError(f"{out}: lies in {folder}, {why}; choose another --out")


def _remove_earlier(out: Path, cases: Sequence[Case]) -> None:
    """What an earlier run wrote under the names of this one, lest it be taken for a result of this one."""
    discard_report(out / PAGE)
    tables = (out / name for name in (SCORES, SPECTRUM, METRICS, CURVES, *VERDICT_FILES))
    folders = {MAPS: ".npy", OVERLAYS: ".png"} | dict.fromkeys(FURTHER, ".npy") | dict.fromkeys(LAYERS, ".png")
    there = {out / folder: suffix for folder, suffix in folders.items() if (out / folder).exists()}
    own = (folder / f"{case.name}{suffix}" for case in cases for folder, suffix in there.items())
    remove_results(chain(tables, own))


def remove_results(paths: Iterable[Path]) -> None:
    """Those that are there. Raises OutputError."""
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"{path}: cannot be replaced ({error.strerror}); choose another --out") from error
