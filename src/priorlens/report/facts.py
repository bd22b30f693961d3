"""The JSON files of a results folder, with the version of their schema checked."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from priorlens.errors import InputError

SCHEMA = 1
"""The newest of any file that is read here."""

METRICS, CURVES, MODEL, MONITOR = "metrics.json", "curves.json", "model.json", "monitor.json"
PAGE = "report.html"


def read_facts(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None where there is no such file. Raises InputError: it is damaged or newer."""
    if not path.is_file():
        return None
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        schema = int(facts["schema"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: is damaged; score again") from error
    if schema > SCHEMA:
        raise InputError(f"{path}: has schema {schema}, this version reads {SCHEMA}; upgrade priorlens")
    return facts


def number(value: object) -> float:
    """A fact as a number; NaN where it is none."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def part(facts: Mapping[str, Any] | None, *names: str) -> dict[str, Any]:
    """The object at a place inside the facts; empty where there is none."""
    found: Any = facts
    for name in names:
        found = found.get(name) if isinstance(found, Mapping) else None
    return dict(found) if isinstance(found, Mapping) else {}
