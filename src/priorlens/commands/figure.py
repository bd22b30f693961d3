"""`priorlens figure`: cases of a results folder as a picture for a paper."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from priorlens.report.findings import Case, Findings
    from priorlens.report.rows import Row, Wanted

_INCH = 2.54
_TOP = 4


def figure(
    results: Annotated[
        Path, typer.Argument(metavar="RESULTS", help="Folder that priorlens score or evaluate wrote, with overlays.")
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="The picture; its suffix says which kind: .pdf .svg .png.")
    ],
    cases: Annotated[
        list[str] | None,
        typer.Option(
            "--cases",
            metavar="CASE[,CASE]",
            help="What to show, a row each, in this order; may be repeated. A case is its number (its line in "
            "scores.csv), its name as in the report, or its file's name. Default: as --top says.",
        ),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option("--top", min=1, metavar="N", help="Without --cases: the N most abnormal ones. Default: 4."),
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(
            "--labels",
            metavar="LABEL[,LABEL]",
            help="What to call the cases, in their order; repeated, once for each case, where labels hold commas. "
            "Default: their names.",
        ),
    ] = None,
    hide_identifiers: Annotated[
        bool,
        typer.Option(
            "--hide-identifiers",
            help='Say "case 17" in place of names. What is written in the pixels themselves stays.',
        ),
    ] = False,
    scores: Annotated[
        bool,
        typer.Option("--scores/--no-scores", help="Below each label the p-value; the anomaly where there is none."),
    ] = True,
    reconstruction: Annotated[
        bool, typer.Option("--reconstruction", help="A further column: what prior and measurement agree on.")
    ] = False,
    slices: Annotated[
        list[int] | None,
        typer.Option(
            "--slice",
            metavar="K",
            help="Of scans: the slice to show, from 0 along the scan's own axis as in slices.csv; repeated, once for "
            "each case. Default: the one that scores highest.",
        ),
    ] = None,
    pixel_size: Annotated[
        float | None,
        typer.Option(
            "--pixel-size", metavar="MM", help="Of images: side of a pixel, for a scale bar. Scans say it themselves."
        ),
    ] = None,
    width: Annotated[
        float,
        typer.Option(
            "--width",
            min=5,
            max=60,
            metavar="CM",
            help="Width in centimetres; narrower where the rows would not fit on a page of 24 cm.",
        ),
    ] = 18.0,
    dpi: Annotated[
        int, typer.Option("--dpi", min=72, max=1200, metavar="N", help="Dots an inch of .png, and at most of images.")
    ] = 300,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write --out although it is there.")] = False,
) -> None:
    """Draw cases as a figure for a paper: a row a case, with image, map, and the image with what stands out.

    Solid orange: what stands out. Dashed blue: the truth, where it is known. Colours mean the same in all rows and with
    every figure of a model. Letters stay letters, lines stay lines; equal results give equal bytes.

    \b
    Examples:
      priorlens figure results --out figure.pdf
      priorlens figure results --cases 3,17 --labels "A,B" --pixel-size 0.7 --out figure.svg
      priorlens figure results --cases 2 --slice 71 --hide-identifiers --out figure.png
    """
    from priorlens.outputs import atomic_write, prepare_folder
    from priorlens.report.figure import draw_figure
    from priorlens.report.figure_words import caption, figure_words
    from priorlens.report.findings import read_findings
    from priorlens.report.map_scale import map_scale

    _check(results, out, overwrite, cases, top, pixel_size)
    findings = read_findings(results)
    chosen = _chosen(results, findings, cases, top, hide_identifiers)
    wanted = _wanted(chosen, labels, slices, pixel_size, scores)
    rows = _rows(results, findings, wanted, reconstruction)
    scale = map_scale(findings, [row.anomaly_map for row in rows])
    words = figure_words(findings, rows, scale, reconstruction=reconstruction)
    drawn = draw_figure(rows, scale, words, width=width / _INCH, suffix=out.suffix.lower(), dpi=dpi)
    prepare_folder(out.parent, overwrite=True)
    with atomic_write(out) as file:
        file.write(drawn.content)
    size = f"{drawn.width * _INCH:.1f} x {drawn.height * _INCH:.1f} cm"
    typer.echo(f"{out}: {len(rows)} case{'s' * (len(rows) > 1)}, {size}")
    for line in caption(findings, rows, scale, words):
        typer.echo(line)


def _check(
    results: Path, out: Path, overwrite: bool, cases: Sequence[str] | None, top: int | None, pixel_size: float | None
) -> None:
    """What is known before anything is read. Raises InputError, OutputError and BadParameter."""
    import math

    from priorlens.errors import InputError, OutputError
    from priorlens.report.figure import FORMATS
    from priorlens.report.watched import is_watched

    if cases and top:
        raise typer.BadParameter("--top is for the most abnormal cases, --cases for others; leave one out")
    if pixel_size is not None and not 0 < pixel_size < math.inf:
        raise typer.BadParameter(f"--pixel-size {pixel_size:g} is no length; give millimetres")
    if not results.is_dir():
        raise InputError(f"{results}: there is no such folder; check the path")
    if is_watched(results):
        raise InputError(f"{results}: is of a monitor, which has no pictures of cases; give what priorlens score wrote")
    if out.suffix.lower() not in FORMATS:
        raise OutputError(f"{out}: is not one of {' '.join(FORMATS)}; give --out such a name")
    if out.is_dir():
        raise OutputError(f"{out}: is a folder; give --out the name of a file")
    if out.exists() and not overwrite:
        raise OutputError(f"{out}: is there already; choose another --out or add --overwrite")


def _chosen(results: Path, findings: Findings, cases: Sequence[str] | None, top: int | None, hide: bool) -> list[Case]:
    """Names are those that the user knows, whatever the figure calls them."""
    from priorlens.report.chosen import chosen_cases, most_abnormal
    from priorlens.report.naming import without_names

    chosen = chosen_cases(results, findings, cases) if cases else most_abnormal(results, findings, top or _TOP)
    hidden = without_names(findings).cases if hide else findings.cases
    by_number = {case.number: case for case in hidden}
    return [by_number[case.number] for case in chosen]


def _wanted(
    chosen: Sequence[Case],
    labels: Sequence[str] | None,
    slices: Sequence[int] | None,
    pixel_size: float | None,
    scores: bool,
) -> list[Wanted]:
    from priorlens.report.findings import printable
    from priorlens.report.rows import Wanted

    named: Sequence[str] = list(labels or [""] * len(chosen))
    if len(named) != len(chosen):
        named = [one.strip() for label in named for one in label.split(",")]
    for option, given in (("labels", named), ("slice", slices)):
        if given and len(given) != len(chosen):
            raise typer.BadParameter(f"--{option}: there are {len(given)} for {len(chosen)} cases; give one for each")
    indices: Sequence[int | None] = slices or [None] * len(chosen)
    each = zip(chosen, named, indices, strict=True)
    return [Wanted(case, printable(label), index, pixel_size, scores) for case, label, index in each]


def _rows(results: Path, findings: Findings, wanted: Sequence[Wanted], reconstruction: bool) -> list[Row]:
    """Read case by case, so that of scans only slices are held. Raises InputError."""
    from priorlens.errors import InputError
    from priorlens.report.rows import read_row
    from priorlens.report.shown import read_slices

    slices = read_slices(results)
    rows = [read_row(results, findings, one, slices.get(one.case.stem)) for one in wanted]
    if reconstruction and all(row.reconstruction is None for row in rows):
        raise InputError(f"{results}: holds no reconstructions of these cases; leave --reconstruction out")
    return rows
