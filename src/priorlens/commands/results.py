"""Scores, maps and overlays of many images, written under one folder: what `score` and `evaluate` share."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import typer

from priorlens.acquisition import ACQUISITION, acquisition
from priorlens.commands.report import write_page
from priorlens.commands.scans_in import LEFT_OUT
from priorlens.commands.terminal import progress_bar, warn
from priorlens.commands.verdict_files import VERDICT_FILES, Judged, write_verdicts
from priorlens.conformal import verdict_of
from priorlens.datasets import Case
from priorlens.errors import EXIT_SOME_FAILED, OutputError
from priorlens.layers import IMAGES, LAYERS, SEGMENTATIONS, TRUTH, write_image, write_labels, write_truth
from priorlens.outputs import prepare_folder, write_array, write_rows
from priorlens.pictures import Called, overlay
from priorlens.report.book import discard_report
from priorlens.report.facts import CURVES, METRICS, PAGE
from priorlens.result_folder import SCORES, SPECTRUM
from priorlens.scoring import Described, Failed, Scored, score_cases
from priorlens.verdicts import Judge, Judgement

MAPS, OVERLAYS = "maps", "overlays"
FURTHER = ("blocks", "reconstructions")
"""What only some detectors write, by names of their own."""


def write_scores(
    out: Path,
    detector: Described,
    cases: Sequence[Case],
    *,
    judge: Judge | None = None,
    patients: bool = False,
    results: Iterable[Scored | Failed] | None = None,
    overlays: bool = True,
    on_scored: Callable[[Scored, Judgement | None], None] = lambda scored, judgement: None,
) -> int:
    """Score `cases` into `out`: `scores.csv` with a row each in their order, `maps/`, `overlays/` and what
    is in `LAYERS`; tell `on_scored`.

    judge: gives p-values, and verdicts where it has an alpha. patients: whether the cases' groups are patients' names.

    Every further array of a case goes into a folder of the array's name; those that are tables into one, with the file
    in front of each row. `results` are those of the cases, by default of their images.

    Cases that cannot be used are named on stderr and in the table, and their number is returned. Whatever stops it,
    Ctrl-C included, the table of what was done is written. Raises OutputError.
    """
    _remove_earlier(out, cases)
    rows: list[list[str]] = []
    judged: list[Judged] = []
    tables: dict[str, list[Sequence[object]]] = {name: [] for name in detector.tables_}
    columns = _columns(judge, patients)
    names = (*detector.figure_names_, *ACQUISITION)
    try:
        with progress_bar("scoring", len(cases)) as advance:
            for result in results or score_cases(detector, cases):
                judgement = None
                if isinstance(result, Failed):
                    warn(result.reason)
                else:
                    judgement = judge.judge(result.anomaly, result.anomaly_map) if judge else None
                    judged += [Judged(result.case, result.anomaly, judgement)] if judgement else []
                    _write_maps(out, result, detector.tables_)
                    if judgement and judgement.regions:
                        write_labels(out / SEGMENTATIONS / f"{result.case.name}.png", judgement.labels)
                    for name, lines in tables.items():
                        lines += [(result.case.path.as_posix(), *map(np.float32, line)) for line in result.arrays[name]]
                    if overlays:
                        _write_overlay(out, detector, result, judge, judgement)
                        _write_below(out, result)
                    on_scored(result, judgement)
                rows.append(_row(result, names, _said(columns, result.case, judge, judgement)))
                advance()
    except KeyboardInterrupt:
        done = f"{out / SCORES}: stopped after {len(rows)} of {len(cases)} images"
        raise KeyboardInterrupt(f"{done}; add --overwrite to score them all") from None
    finally:
        header = ["file", *columns, *names, "nfe", "seconds", "error"]
        write_rows(out / SCORES, header, rows)
        for name, lines in tables.items():
            write_rows(out / f"{name}.csv", ["file", *detector.tables_[name]], lines)
        if judge:
            write_verdicts(out, judge, judged, [case.group for case in cases[: len(rows)]] if patients else [])
    return sum(row[-1] != "" for row in rows)


def report(out: Path, cases: int, failed: int, *, page: bool, what: str = "images", left_out: int = 0) -> None:
    """The last words of a command that scored `what`, and with `page` a page of everything in `out`.

    left_out: files that were no case at all.

    Raises typer.Exit if some images could not be used, OutputError.
    """
    if page:
        write_page(out, out / PAGE)
    typer.echo(f"{out}: {cases - failed} of {cases} {what} scored, see {out / SCORES}")
    if failed:
        warn(f"{out / SCORES}: {failed} of {cases} {what} could not be scored; repair or remove those with an error")
    if left_out:
        warn(f"{out / LEFT_OUT}: {left_out} files are left out, it says why")
    if failed or left_out:
        raise typer.Exit(EXIT_SOME_FAILED)


def require_apart(out: Path, inputs: Sequence[Path]) -> None:
    """Refuse to write results among the images, where the next run would take them for images. Raises OutputError."""
    for folder in inputs:
        if out.resolve().is_relative_to(folder.resolve()):
            raise OutputError(f"{out}: lies in {folder}, among the images to score; choose another --out")


def _remove_earlier(out: Path, cases: Sequence[Case]) -> None:
    """What an earlier run wrote under the names of this one, lest it be taken for a result of this one."""
    own = [path for case in cases for path in (*_paths(out, case), *(out / f / f"{case.name}.npy" for f in FURTHER))]
    own += [out / layer / f"{case.name}.png" for case in cases for layer in LAYERS]
    discard_report(out / PAGE)
    remove_results((*(out / name for name in (SCORES, SPECTRUM, METRICS, CURVES, *VERDICT_FILES)), *own))


def remove_results(paths: Iterable[Path]) -> None:
    """Those that are there. Raises OutputError."""
    for path in paths:
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


def _write_overlay(
    out: Path, detector: Described, scored: Scored, judge: Judge | None, judgement: Judgement | None
) -> None:
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
        called=_called(judge, judgement) if judge and judgement else None,
    )


def _write_below(out: Path, scored: Scored) -> None:
    """What a viewer lays the map over: the image, and the truth where it is known."""
    name = f"{scored.case.name}.png"
    write_image(out / IMAGES / name, scored.image.pixels)
    if scored.mask is not None:
        write_truth(out / TRUTH / name, scored.mask)


def _called(judge: Judge, judgement: Judgement) -> Called:
    return Called(judgement.p_value, None if judge.alpha is None else judgement.labels > 0, judge.alpha)


def _columns(judge: Judge | None, patients: bool) -> list[str]:
    """Columns of the table between file and figures."""
    verdict = ["p_value", *(["verdict", "regions"] if judge.alpha is not None else [])] if judge else []
    return [*(["patient"] if patients else []), "anomaly", *verdict]


def _said(columns: Sequence[str], case: Case, judge: Judge | None, judgement: Judgement | None) -> dict[str, str]:
    """What these columns say, but for the anomaly."""
    found = {"patient": case.group}
    if judge and judgement:
        verdict = "" if judge.alpha is None else verdict_of(judgement.p_value, judge.alpha)
        found |= {"p_value": f"{judgement.p_value:.6g}", "verdict": verdict, "regions": str(len(judgement.regions))}
    return {name: found.get(name, "") for name in columns}


def _row(result: Scored | Failed, names: Sequence[str], said: Mapping[str, str]) -> list[str]:
    """A line of the table, its figures with as many digits as float32 has; a figure that is not defined is left out."""
    file = result.case.path.as_posix()
    if isinstance(result, Failed):
        return [file, *said.values(), *[""] * (len(names) + 2), result.reason]
    known = {**result.figures, **acquisition(result.image)}
    anomaly, *figures = (_shown(value) for value in (result.anomaly, *(known[name] for name in names)))
    return [file, *{**said, "anomaly": anomaly}.values(), *figures, str(result.nfe), f"{result.seconds:.4f}", ""]


def _shown(value: float) -> str:
    return "" if math.isnan(value) else str(np.float32(value))
