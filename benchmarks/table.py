"""docs/benchmarks.md and its pictures, from the results alone; the words around them are in `page.md`."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.method import Entry
from benchmarks.methods import METHODS
from benchmarks.pictures import Picture, remove_others
from benchmarks.pictures_curves import curves_picture
from benchmarks.pictures_growth import growth_pictures
from benchmarks.pictures_maps import map_pictures
from benchmarks.pictures_speed import speed_picture
from benchmarks.table_ahead import ahead_section
from benchmarks.table_choosing import choosing_section
from benchmarks.table_figures import study_section
from benchmarks.table_growth import growth_facts, growth_table, read_growth
from benchmarks.table_ran import absent_section, methods_section, ran_section
from benchmarks.table_results import Gathered
from priorlens.errors import InputError
from priorlens.outputs import write_text

WORDS = Path(__file__).with_name("page.md")
"""The page without what is measured; `{{name}}` is where a part of `parts_of` goes."""

PAGE = "benchmarks.md"

RUNS = "benchmarks.json"
"""What was measured of every run, for those who reckon with it themselves."""


def write(out: Path, docs: Path, methods: Mapping[str, Entry] = METHODS) -> Path:
    """Write `docs/benchmarks.md`, `docs/benchmarks.json` and `docs/images/benchmarks_*.png`.

    Raises:
        InputError: there are no results.
    """
    gathered = Gathered.read(out, methods)
    if not gathered.results:
        raise InputError(f"{out / 'results'}: holds no results; make some with: python -m benchmarks run --out {out}")
    images = docs / "images"
    images.mkdir(parents=True, exist_ok=True)
    parts, pictures = parts_of(gathered, images)
    write_text(docs / PAGE, filled(WORDS.read_text(encoding="utf-8"), parts))
    write_text(docs / RUNS, runs_text(gathered.results))
    remove_others(images, pictures)
    return docs / PAGE


def runs_text(results: Sequence[Mapping[str, Any]]) -> str:
    """JSON with a line for each run, so that a version shows what changed; losses, which are many, are left out."""
    lines = []
    for one in results:
        fit = one["fit"] and {name: value for name, value in one["fit"].items() if name != "curve"}
        lines.append(json.dumps({**one, "fit": fit}, allow_nan=False))
    return "[\n" + ",\n".join(lines) + "\n]\n"


def parts_of(gathered: Gathered, images: Path) -> tuple[dict[str, str], list[Picture]]:
    """What goes into the places of the page, and the pictures that were written for it."""
    growths = read_growth(gathered.out, gathered.methods)
    _say("differences, with their intervals")
    parts = {
        "ran": ran_section(gathered),
        "absent": absent_section(gathered),
        "methods": methods_section(gathered),
        "ahead": ahead_section(gathered),
        "studies": "\n\n".join(study_section(gathered, name) for name in gathered.names),
        "choosing": choosing_section(gathered),
        "growth_table": growth_table(growths) if growths else "Not measured yet.",
        "growth_facts": growth_facts(growths),
    }
    _say("pictures")
    drawn: dict[str, Sequence[Picture | None]] = {
        "speed": [speed_picture(gathered, images)],
        "curves": [curves_picture(gathered, images)],
        "maps": [picture for name in gathered.names for picture in map_pictures(gathered, name, images)],
        "growth": list(growth_pictures(growths, images)),
    }
    parts |= {name: _shown(pictures) for name, pictures in drawn.items()}
    return parts, [picture for pictures in drawn.values() for picture in pictures if picture]


def _shown(pictures: Sequence[Picture | None]) -> str:
    found = [picture.markdown for picture in pictures if picture]
    return "\n\n".join(found) or "Nothing to show yet."


def filled(words: str, parts: Mapping[str, str]) -> str:
    """The page with every part in its place. Raises KeyError for a place without a part, ValueError for the reverse."""
    places = set(re.findall(r"\{\{(\w+)\}\}", words))
    if unused := parts.keys() - places:
        raise ValueError(f"the page has no place for {', '.join(sorted(unused))}")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], words)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
