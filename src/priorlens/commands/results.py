"""Scores, maps and overlays of many images, written under one folder: what `score` and `evaluate` share."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Sequence
from pathlib import Path

import numpy as np
import typer

from priorlens.commands.terminal import progress_bar, warn
from priorlens.datasets import Case
from priorlens.errors import EXIT_SOME_FAILED, OutputError
from priorlens.outputs import prepare_folder, write_array, write_rows
from priorlens.pictures import overlay
from priorlens.scoring import Described, Failed, Scored, score_cases

TABLE, MAPS, OVERLAYS = "scores.csv", "maps", "overlays"
SPECTRUM, FURTHER = "spectrum.csv", ("blocks", "reconstructions")
"""What only some detectors write, by names of their own."""


def write_scores(
    out: Path,
    detector: Described,
    cases: Sequence[Case],
    *,
    results: Iterable[Scored | Failed] | None = None,
    overlays: bool = True,
    on_scored: Callable[[Scored], None] = lambda scored: None,
) -> int:
    """Score `cases` into `out`: `scores.csv` with a row each in their order, `maps/`, `overlays/`; tell `on_scored`.

    Every further array of a case goes into a folder of the array's name; those that are tables into one, with the file
    in front of each row. `results` are those of the cases, by default of their images.

    Cases that cannot be used are named on stderr and in the table, and their number is returned. Whatever stops it,
    Ctrl-C included, the table of what was done is written. Raises OutputError.
    """
    _remove_earlier(out, cases)
    rows: list[list[str]] = []
    tables: dict[str, list[Sequence[object]]] = {name: [] for name in detector.tables_}
    try:
        with progress_bar("scoring", len(cases)) as advance:
            for result in results or score_cases(detector, cases):
                if isinstance(result, Failed):
                    warn(result.reason)
                else:
                    _write_maps(out, result, detector.tables_)
                    for name, lines in tables.items():
                        lines += [(result.case.path.as_posix(), *map(np.float32, line)) for line in result.arrays[name]]
                    if overlays:
                        _write_overlay(out, detector, result)
                    on_scored(result)
                rows.append(_row(result, detector.figure_names_))
                advance()
    except KeyboardInterrupt:
        done = f"{out / TABLE}: stopped after {len(rows)} of {len(cases)} images"
        raise KeyboardInterrupt(f"{done}; add --overwrite to score them all") from None
    finally:
        write_rows(out / TABLE, ["file", "anomaly", *detector.figure_names_, "nfe", "seconds", "error"], rows)
        for name, lines in tables.items():
            write_rows(out / f"{name}.csv", ["file", *detector.tables_[name]], lines)
    return sum(row[-1] != "" for row in rows)


def report(out: Path, cases: int, failed: int) -> None:
    """The last words of a command that scored images. Raises typer.Exit if some of them could not be used."""
    typer.echo(f"{out}: {cases - failed} of {cases} images scored, see {out / TABLE}")
    if failed:
        warn(f"{out / TABLE}: {failed} of {cases} images could not be scored; repair or remove those with an error")
        raise typer.Exit(EXIT_SOME_FAILED)


def require_apart(out: Path, inputs: Sequence[Path]) -> None:
    """Refuse to write results among the images, where the next run would take them for images. Raises OutputError."""
    for folder in inputs:
        if out.resolve().is_relative_to(folder.resolve()):
            raise OutputError(f"{out}: lies in {folder}, among the images to score; choose another --out")


def _remove_earlier(out: Path, cases: Sequence[Case]) -> None:
    """What an earlier run wrote under the names of this one, lest it be taken for a result of this one."""
    own = (path for case in cases for path in (*_paths(out, case), *(out / f / f"{case.name}.npy" for f in FURTHER)))
    for path in (out / TABLE, out / SPECTRUM, *own):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"{path}: cannot be replaced ({error.strerror}); choose another --out") from error


def _paths(out: Path, case: Case) -> tuple[Path, Path]:
    return out / MAPS / f"{case.name}.npy", out / OVERLAYS / f"{case.name}.png"


def _write_maps(out: Path, scored: Scored, tables: Container[str]) -> None:
    further = {name: array for name, array in scored.arrays.items() if name not in tables}
    for folder, array in {MAPS: scored.anomaly_map, **further}.items():
        path = out / folder / f"{scored.case.name}.npy"
        prepare_folder(path.parent, overwrite=True)
        write_array(path, array)


def _write_overlay(out: Path, detector: Described, scored: Scored) -> None:
    _, path = _paths(out, scored.case)
    prepare_folder(path.parent, overwrite=True)
    healthy = detector.healthy_  # where nothing is known of it, the picture shows what stands out in itself
    overlay(
        scored.image.pixels,
        scored.anomaly_map,
        path,
        name=scored.case.name,
        anomaly=scored.anomaly,
        low=healthy.map_low if healthy else None,
        high=healthy.map_high if healthy else None,
        threshold=healthy.threshold if healthy else None,
        truth=scored.mask,
    )


def _row(result: Scored | Failed, names: Sequence[str]) -> list[str]:
    """A line of the table, its figures with as many digits as float32 has; a figure that is not defined is left out."""
    file = result.case.path.as_posix()
    if isinstance(result, Failed):
        return [file, *[""] * (len(names) + 3), result.reason]
    figures = [result.anomaly, *(result.figures[name] for name in names)]
    shown = ["" if math.isnan(value) else str(np.float32(value)) for value in figures]
    return [file, *shown, str(result.nfe), f"{result.seconds:.4f}", ""]
