"""`priorlens monitor`: scored scans in the order of time in; whether, when and in what they have changed out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from priorlens.commands.options import Overwrite, Page, Results

if TYPE_CHECKING:
    from priorlens.drift import Watched
    from priorlens.streams import Stream, Streams

SCHEMA = 1
TABLE, SUMMARY, PICTURE = "monitor.csv", "monitor.json", "monitor.png"


def monitor(
    results: Annotated[
        list[Path],
        typer.Argument(metavar="RESULTS", help="Folders that priorlens score wrote, with one calibrated model."),
    ],
    out: Results,
    alpha: Annotated[
        float, typer.Option(metavar="A", help="Chance that a stream in which nothing changes ever raises an alarm.")
    ] = 0.05,
    times: Annotated[
        Path | None,
        typer.Option(
            "--times",
            metavar="CSV",
            help="Table with the columns file,time[,stream], sorted by time within each stream (scanner, site), which "
            "is watched by itself. Times are numbers or such as 2025-03-31T14:05. Default: one stream, in the order of "
            "RESULTS and of their lines.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Breaks ties among scores.")] = 0,
    overwrite: Overwrite = False,
    page: Page = True,
) -> None:
    """Tell whether scans still look like those that the model was calibrated on.

    A new scanner, protocol or kind of patient changes scores, slowly or at once. Each scan is ranked among the
    calibration and all scans before it, and a bet is kept against the ranks being even. As long as nothing changes, its
    capital ever reaches 1 / alpha with a chance of at most alpha, however long the stream: that is the alarm.

    Watched are the anomaly, every further figure of scores.csv, and of the spectrum the plain surprise and that of the
    widest neighbourhood at each noise level. The unit is the patient where
    scores.csv names patients (means over the patient's images, at the time of the first), else the image. After an
    alarm the watch goes on, but does not start anew.

    \b
    Writes into --out:
      monitor.csv    a line a scan: stream, scan, time, file, p_value, capital,
                     alarm (1 from the alarm on)
      monitor.json   per stream: the alarm, the scan at which the change most
                     probably began, the figures that moved and which way
      monitor.png    the capital against the alarm, and the p-values
      report.html    a page that shows all of this

    The exit code is 8 if any stream raised an alarm.

    \b
    Examples:
      priorlens monitor monday tuesday wednesday --out watch
      priorlens monitor results --times times.csv --out watch
    """
    from priorlens.streams import read_streams

    if not 0 < alpha < 1:
        raise typer.BadParameter("--alpha must lie between 0 and 1")
    found = read_streams(results, times)

    # Only now what takes seconds to import: a folder that does not fit is told at once.
    from priorlens.commands.report import write_page
    from priorlens.commands.terminal import warn
    from priorlens.drift import watch
    from priorlens.errors import EXIT_ALARM
    from priorlens.monitor_plot import monitor_plot
    from priorlens.outputs import prepare_folder, write_json, write_rows
    from priorlens.report.facts import PAGE

    for note in found.notes:
        warn(note)
    if found.failed:
        warn(f"{found.failed} images could not be scored and are left out")
    prepare_folder(out, overwrite=overwrite)
    watched = {one.name: watch(one.features, found.calibration, alpha=alpha, seed=seed) for one in found.streams}
    header = ["stream", "scan", "time", "file", "p_value", "capital", "alarm"]
    write_rows(out / TABLE, header, (row for one in found.streams for row in _rows(one, watched[one.name])))
    write_json(out / SUMMARY, _summary(found, watched, alpha, seed))
    monitor_plot(watched, alpha, out / PICTURE)
    if page:
        write_page(out, out / PAGE)
    for one in found.streams:
        typer.echo(_words(one, watched[one.name], alpha))
    if any(one.alarm is not None for one in watched.values()):
        raise typer.Exit(EXIT_ALARM)


def _rows(stream: Stream, watched: Watched) -> Iterator[list[object]]:
    for index, file in enumerate(stream.files):
        figures = f"{watched.p_values[index]:.6g}", f"{watched.capital[index]:.6g}"
        raised = watched.alarm is not None and index >= watched.alarm
        yield [stream.name, index + 1, _time(stream, index), file, *figures, int(raised)]


def _summary(found: Streams, watched: Mapping[str, Watched], alpha: float, seed: int) -> dict[str, Any]:
    """Scans are counted from 1, as in the table."""
    return {
        "schema": SCHEMA,
        "alpha": alpha,
        "seed": seed,
        "model": found.model,
        "setup": found.setup,
        "unit": "patient" if found.by_patient else "image",
        "calibration": len(next(iter(found.calibration.values()))),
        "features": list(found.calibration),
        "failed": found.failed,
        "streams": [_of_stream(one, watched[one.name]) for one in found.streams],
    }


def _of_stream(stream: Stream, watched: Watched) -> dict[str, Any]:
    return {
        "stream": stream.name,
        "scans": len(stream.files),
        "largest_capital": float(watched.capital.max()),
        "alarm": _scan(stream, watched.alarm),
        "change": _scan(stream, watched.change),
        "delay": None if watched.alarm is None or watched.change is None else watched.alarm - watched.change,
        "moved": [
            {
                "feature": one.name,
                "capital": one.capital,
                "direction": one.direction,
                "shift": one.shift if math.isfinite(one.shift) else None,
            }
            for one in watched.moved
        ],
    }


def _scan(stream: Stream, index: int | None) -> dict[str, Any] | None:
    if index is None:
        return None
    return {"scan": index + 1, "file": stream.files[index], "time": _time(stream, index) or None}


def _time(stream: Stream, index: int) -> str:
    return stream.times[index] if stream.times else ""


def _words(stream: Stream, watched: Watched, alpha: float) -> str:
    """The line that a person reads."""
    if watched.alarm is None or watched.change is None:
        largest = f"largest capital {watched.capital.max():.3g}, an alarm is at {1 / alpha:g}"
        return f"{stream.name}: no alarm in {len(stream.files)} scans ({largest})"
    moved = ", ".join(f"{one.name} {one.direction} ({one.shift:+.2g} sd)" for one in watched.moved[:3])
    more = f" and {len(watched.moved) - 3} more" if len(watched.moved) > 3 else ""
    return (
        f"{stream.name}: ALARM at scan {watched.alarm + 1} of {len(stream.files)} ({stream.files[watched.alarm]}), "
        f"changed probably from scan {watched.change + 1} on: {moved}{more}"
    )
