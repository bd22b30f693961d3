"""`priorlens report`: a results folder as a page to look at and to hand over."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from priorlens.commands.options import Overwrite


def report(
    results: Annotated[
        Path,
        typer.Argument(metavar="RESULTS", help="Folder that priorlens score, evaluate or monitor wrote."),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="The page. Default: report.html in RESULTS.")
    ] = None,
    overwrite: Overwrite = False,
    hide_identifiers: Annotated[
        bool,
        typer.Option(
            "--hide-identifiers",
            help='Say "case 17" and "patient 3" in place of the names of files, folders and patients. What is written '
            "in the pixels themselves stays, and so do the kinds of an evaluation.",
        ),
    ] = False,
) -> None:
    """Write a page that shows everything in a results folder.

    One HTML file that loads nothing from anywhere: the cases, to search, filter, sort and open one by one, with
    pictures, regions and the surprise at each noise level; the figures of an evaluation; the streams of a monitor; and
    what model it was. More than 500 images become a folder of pages, named as the file without suffix.

    \b
    Examples:
      priorlens report results --overwrite
      priorlens report results --out for-review.html --hide-identifiers
    """
    from priorlens.errors import InputError, OutputError
    from priorlens.outputs import prepare_folder
    from priorlens.report.book import folder_of
    from priorlens.report.facts import PAGE

    if not results.is_dir():
        raise InputError(f"{results}: there is no such folder; check the path")
    out = out or results / PAGE
    if out.is_dir():
        raise OutputError(f"{out}: is a folder; give --out the name of a file, such as {out / PAGE}")
    for path in (out, folder_of(out)):
        if path.exists() and not overwrite:
            raise OutputError(f"{path}: is there already; choose another --out or add --overwrite")
    prepare_folder(out.parent, overwrite=True)
    typer.echo(f"{write_page(results, out, hide=hide_identifiers)}: open it in a browser")


def write_page(results: Path, out: Path, *, hide: bool = False) -> Path:
    """The report of a results folder; the file to open. Raises InputError and OutputError."""
    from priorlens.commands.terminal import progress_bar
    from priorlens.outputs import write_text
    from priorlens.report.book import write_report
    from priorlens.report.findings import read_findings
    from priorlens.report.naming import without_names
    from priorlens.report.watched import is_watched, watched_page

    if is_watched(results):
        write_text(out, watched_page(results, hide=hide))
        return out
    findings = read_findings(results)
    findings = without_names(findings) if hide else findings
    with progress_bar("writing the report", len(findings.cases)) as advance:
        return write_report(findings, out, advance)
