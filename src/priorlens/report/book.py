"""A report as files: one page, or a folder of pages where there are very many cases."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from priorlens.outputs import prepare_folder, write_text
from priorlens.report.findings import Case, Findings
from priorlens.report.page import Link, Place, by_surprise, results_page

MOST_CASES = 500
"""On one page."""

MOST_ROWS = 5000
"""Of a table over all pages; beyond it the overview only links to the pages."""

INDEX = "index.html"
_OWN_FILES = re.compile(r"index\.html|cases-\d+\.html")


def write_report(findings: Findings, out: Path, on_case: Callable[[], None] = lambda: None) -> Path:
    """Write the report to `out`, or where there are too many cases for one page into a folder of that name without
    suffix; the file to open. An earlier report of either form is removed. Raises OutputError.
    """
    cases = by_surprise(findings.cases)
    if len(cases) <= MOST_CASES:
        text = results_page(findings, cases, Place({}), on_case=on_case)
        discard_report(out)
        write_text(out, text)
        return out
    discard_report(out)
    folder = prepare_folder(folder_of(out), overwrite=True)
    parts = [cases[start : start + MOST_CASES] for start in range(0, len(cases), MOST_CASES)]
    files = [f"cases-{number:03d}.html" for number in range(1, len(parts) + 1)]
    links = [Link(file, _words(number, part)) for number, (file, part) in enumerate(zip(files, parts, strict=True))]
    page_of = {case.number: file for file, part in zip(files, parts, strict=True) for case in part}
    overview = Link(INDEX, "Overview")
    for index, (file, part) in enumerate(zip(files, parts, strict=True)):
        own = {number: other for number, other in page_of.items() if other != file}
        beside = [links[i] for i in (index - 1, index + 1) if 0 <= i < len(links)]
        write_text(
            folder / file,
            results_page(findings, part, Place(own, (overview, *beside)), overview=False, on_case=on_case),
        )
    listed = len(cases) <= MOST_ROWS
    write_text(folder / INDEX, results_page(findings, (), Place(page_of, links), listed=listed))
    return folder / INDEX


def folder_of(out: Path) -> Path:
    """Where the pages lie if there are several."""
    return out.with_suffix("") if out.suffix else out.with_name(f"{out.name}-pages")


def discard_report(out: Path) -> None:
    """Remove an earlier report, of one page or many, and nothing else; what cannot be removed stays."""
    folder = folder_of(out)
    pages = [path for path in folder.glob("*.html") if _OWN_FILES.fullmatch(path.name)] if folder.is_dir() else []
    for path in (out, *pages):
        with suppress(OSError):
            path.unlink(missing_ok=True)
    with suppress(OSError):  # not empty, or not there
        folder.rmdir()


def _words(number: int, cases: Sequence[Case]) -> str:
    first = number * MOST_CASES + 1
    return f"Cases {first} to {first + len(cases) - 1}"
