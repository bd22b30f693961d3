"""`python -m benchmarks`: every method and its peers on the same images, and the page that says what came of it."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.environments import Environments
from benchmarks.results import QUICK, Options, usable_cores
from benchmarks.studies import FOLDS
from priorlens.errors import EXIT_INTERRUPTED, EXIT_SOME_FAILED, InputError, PriorlensError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)

Out = Annotated[Path, typer.Option(metavar="DIR", help="Folder of results, models, made data and environments.")]
Data = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Folder with brain_mri, head_ct, liver_ct, brats: those there are. Or see --layout."
    ),
]
Names = list[str] | None
"""Of an option that takes `X,Y`, and may be given again: `_names` reads them."""

Methods = Annotated[Names, typer.Option(metavar="X,Y", help="Names of methods, see `list`; default: all.")]
Studies = Annotated[
    Names,
    typer.Option(
        metavar="X,Y", help="Names of studies, see `list`; default: those in --data, or without it the embedded ones."
    ),
]
Quick = Annotated[bool, typer.Option("--quick", help="Small images and hardly any training: the figures mean nothing.")]
DEFAULT_OUT = Path("benchmark-results")

KEPT = Path("benchmarks/measured")
"""What the page in the repository was made from."""

JOBS = 2
"""Two workers of one thread do more than one of two threads."""


@app.command()
def run(
    data: Data = None,
    layout: Annotated[
        str | None, typer.Option(metavar="NAME", help="The layout of a data set of your own in --data, such as bmad.")
    ] = None,
    methods: Methods = None,
    studies: Studies = None,
    seeds: Annotated[Names, typer.Option(metavar="X,Y", help="Seeds of the runs; default: 0.")] = None,
    budget: Annotated[
        float | None, typer.Option(metavar="MINUTES", help="Stop after so long; the next call goes on from there.")
    ] = None,
    limit: Annotated[float, typer.Option(metavar="MINUTES", help="Of one run.")] = 180,
    quick: Quick = False,
    out: Out = DEFAULT_OUT,
    train_images: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Learn from so many healthy images at most; 0: all. "
            f"Default: {Options.train_images}, with --quick {QUICK.train_images}.",
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            min=32,
            metavar="N",
            help=f"Side in pixels that methods which resize see. Default: {Options.size}, with --quick {QUICK.size}.",
        ),
    ] = None,
    peer_minutes: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="MINUTES",
            help=f"Of a processor that training a peer may take. Default: {Options.peer_minutes:g}.",
        ),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            min=2,
            metavar="N",
            help=f"Folds of BraTS, by patient. Default: {FOLDS}; with --layout brats one, or of few patients two.",
        ),
    ] = None,
    jobs: Annotated[
        int, typer.Option(min=1, help="Runs at a time, each with its share of the threads; scoring is timed alone.")
    ] = JOBS,
    threads: Annotated[int | None, typer.Option(min=1, help="Of all methods together; default: all cores.")] = None,
    again: Annotated[Names, typer.Option(metavar="X,Y", help="Methods to run again although nothing changed.")] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Run again what failed, too.")] = False,
    timed: Annotated[
        bool, typer.Option("--timed/--untimed", help="Time scoring at the end; on a busy machine leave it for later.")
    ] = True,
    anomalib_python: Annotated[
        Path | None, typer.Option(metavar="PYTHON", help="Of an environment that has anomalib and priorlens.")
    ] = None,
) -> None:
    """Measure what is missing or stale. Whatever stops it, the same command goes on where it was.

    An option that takes X,Y may also be given several times.
    """
    from benchmarks import plan, runner, side_by_side, timing
    from benchmarks.methods import METHODS
    from benchmarks.studies import studies as find_studies
    from benchmarks.study_files import remember

    began = time.monotonic()
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    options = _options(quick, train_images=train_images, size=size, peer_minutes=peer_minutes)
    seconds = math.inf if budget is None else 60 * budget
    cores = threads or usable_cores()
    with runner.alone(out):
        found = find_studies(data and data.resolve(), out, quick, _names(studies), layout, folds)
        environments = Environments(out, anomalib_python)
        entries = plan.chosen_entries(METHODS, _names(methods))
        renewed = _names(again)
        plan.chosen_entries(METHODS, renewed)  # or it is no method
        plan.require_judgeable(found)
        whole = plan.planned(entries, found, _seeds(seeds), options, environments, out)
        plan.require_runs(whole, renewed)
        todo = plan.to_do(whole, renewed, retry)
        if quick:
            plan.require_nothing_lost(todo)
        for study in found:
            remember(study, out)
        print(f"{len(todo)} of {len(whole)} runs to do", file=sys.stderr)
        until = began + (1 - timing.SHARE * timed) * seconds
        jobs = min(jobs, cores)
        shared = runner.Limits(limit, until, cores // jobs, jobs)
        done = side_by_side.run_all(todo, environments, shared)
        if timed:
            timing.time_all(whole, environments, cores, began + seconds)
    if done < len(todo):
        print(f"budget spent: {len(todo) - done} runs left; call again to go on", file=sys.stderr)
        raise typer.Exit(EXIT_SOME_FAILED)


@app.command()
def growth(
    methods: Methods = None,
    quick: Quick = False,
    out: Out = DEFAULT_OUT,
    budget: Annotated[float | None, typer.Option(metavar="MINUTES", help="Stop after so long.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Of each method; default: all cores.")] = None,
    anomalib_python: Annotated[
        Path | None, typer.Option(metavar="PYTHON", help="Of an environment that has anomalib and priorlens.")
    ] = None,
) -> None:
    """Measure how time and memory grow with the size of images and with their number."""
    from benchmarks import growth as growing
    from benchmarks import plan
    from benchmarks.methods import METHODS

    entries = plan.chosen_entries(METHODS, _names(methods))
    out = out.resolve()
    cores = threads or usable_cores()
    if growing.run(entries, out, Environments(out, anomalib_python), cores, budget, quick):
        raise typer.Exit(EXIT_SOME_FAILED)


@app.command()
def choose(out: Out = DEFAULT_OUT) -> None:
    """Compare ours on artefacts planted in healthy images that none has learned from: what defaults are chosen by."""
    from benchmarks import choosing, runner

    out = _results_in(out)
    with runner.alone(out):
        choosing.choose(out)


@app.command()
def table(
    out: Out = DEFAULT_OUT,
    docs: Annotated[
        Path, typer.Option(metavar="DIR", help="Where benchmarks.md, benchmarks.json and images/ go.")
    ] = Path("docs"),
) -> None:
    """Write docs/benchmarks.md with its pictures, and docs/benchmarks.json, from the results."""
    from benchmarks import table as written

    written.write(out.resolve(), docs)


@app.command()
def keep(
    out: Out = DEFAULT_OUT,
    to: Annotated[Path, typer.Option(metavar="DIR", help="Where it goes, in place of what is there.")] = KEPT,
) -> None:
    """Keep of the results what the page is made from, without models: `run` goes on from a copy of it."""
    from benchmarks import keeping, runner

    out = _results_in(out)
    with runner.alone(out):
        keeping.keep(out, to.resolve())


@app.command("list")
def listed() -> None:
    """Methods, studies and layouts that there are."""
    from benchmarks.adapters import LAYOUTS
    from benchmarks.methods import METHODS
    from benchmarks.studies import registry

    for entry in METHODS.values():
        limits = f" ({told})" if (told := entry.limits) else ""
        typer.echo(f"method {entry.name}: {entry.title}{limits}")
    for name in registry():
        typer.echo(f"study {name}")
    for name in LAYOUTS:
        typer.echo(f"layout {name}")


def _results_in(out: Path) -> Path:
    """The folder, absolute. Raises InputError where there is none."""
    if not out.is_dir():
        raise InputError(f"{out.resolve()}: is no folder of results; run first")
    return out.resolve()


def _names(given: Sequence[str] | None) -> list[str]:
    """What an option names, by commas, by being given several times, or by both; each once."""
    names = (name.strip() for text in given or () for name in text.split(","))
    return list(dict.fromkeys(name for name in names if name))


def _options(quick: bool, **given: float | None) -> Options:
    """What was given goes before what `--quick` would have."""
    return replace(QUICK if quick else Options(), **{key: value for key, value in given.items() if value is not None})


def _seeds(given: Sequence[str] | None) -> list[int]:
    if given is None:
        return [0]
    names = _names(given)
    if not names or not all(name.isdecimal() for name in names):
        raise InputError(f"--seeds {','.join(given)}: are no seeds; give whole numbers from 0 on, such as 0,1,2")
    return list(dict.fromkeys(int(name) for name in names))


def main() -> None:
    """One line for every error that a user can put right."""
    try:
        app()
    except PriorlensError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        print("benchmarks: stopped; call again to go on", file=sys.stderr)
        raise SystemExit(EXIT_INTERRUPTED) from None


if __name__ == "__main__":
    main()
