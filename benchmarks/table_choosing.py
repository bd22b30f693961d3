"""Ours beside each other on planted artefacts, as `benchmarks/choosing.py` found them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.choosing import SHOWN, read_choosing
from benchmarks.table_markdown import between, bold, count, figure, grid
from benchmarks.table_results import Gathered


def choosing_section(gathered: Gathered) -> str:
    """A table a study, methods in their order; the first seed."""
    found = [one for one in read_choosing(gathered.out) if one["seed"] == min(gathered.seeds)]
    of_study = {name: [one for one in found if one["study"] == name] for name in gathered.names}
    tables = [_table(gathered, name, of) for name, of in of_study.items() if of]
    return "\n\n".join(tables) or "Not measured yet."


def _table(gathered: Gathered, study: str, found: Sequence[Mapping[str, Any]]) -> str:
    by_method = {one["method"]: one for one in found}
    ordered = [(entry, by_method[name]) for name, entry in gathered.methods.items() if name in by_method]
    best = {name: figure(max(one["figures"][name]["value"] for _, one in ordered)) for name in SHOWN}
    rows = [[entry.title, *(_cell(one["figures"][name], best[name]) for name in SHOWN)] for entry, one in ordered]
    some = ordered[0][1]
    images = f"{count(some['healthy'], 'healthy image')}, {count(some['planted'], 'copy', 'copies')} with an artefact"
    return f"{study}, {images}:\n\n{grid(['method', *SHOWN.values()], rows)}"


def _cell(found: Mapping[str, float], best: str) -> str:
    return bold(figure(found["value"]), best) + between(found["low"], found["high"])
