"""Cases of a results folder as a person names them: by number, by name, or the most abnormal."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath

from priorlens.errors import InputError
from priorlens.report.findings import Case, Findings, printable

_BY_NUMBER = re.compile(r"(?:case )?([0-9]{1,9})")

_NAMES: tuple[Callable[[Case], str], ...] = (
    lambda case: case.name,
    lambda case: printable(case.file),
    lambda case: PurePosixPath(case.name).name,
)
"""What a case may be called: as in the report, by its path, as its file is."""

_SHORT: tuple[Callable[[Case], str], ...] = (
    lambda case: printable(case.stem),
    lambda case: PurePosixPath(case.name).name.partition(".")[0],
)
"""Without suffix; digits alone are a number rather than such a name."""


def most_abnormal(results: Path, findings: Findings, count: int) -> list[Case]:
    """Those of the smallest p-values, else the highest anomaly. Raises InputError where none was scored."""
    scored = sorted((case for case in findings.cases if not case.error), key=lambda case: case.rank)
    if not scored:
        raise InputError(f"{results}: no case in it could be scored, scores.csv says why")
    return scored[:count]


def chosen_cases(results: Path, findings: Findings, wanted: Iterable[str]) -> list[Case]:
    """Each of `wanted` is what one case is called, or several with commas between; in their order.

    Raises InputError: none is called so, or more than one.
    """
    chosen = []
    for words in map(printable, wanted):
        whole = _called(findings.cases, words)
        if whole or "," not in words:
            chosen.append(_only(results, findings, words, whole))
            continue
        chosen += [
            _only(results, findings, one, _called(findings.cases, one)) for one in map(str.strip, words.split(","))
        ]
    return chosen


def _called(cases: Sequence[Case], words: str) -> list[Case]:
    """Those of this number, and those of this name; a whole name goes before a part of another one."""
    match = _BY_NUMBER.fullmatch(words)
    number = int(match[1]) if match else 0
    found = [case for case in cases if case.number == number]
    for name in _NAMES if match else _NAMES + _SHORT:
        if named := [case for case in cases if words and name(case) == words]:
            return found + [case for case in named if case not in found]
    return found


def _only(results: Path, findings: Findings, words: str, found: Sequence[Case]) -> Case:
    if len(found) == 1:
        return found[0]
    shown = " ".join(words.split())
    if not found:
        last = len(findings.cases)
        raise InputError(f"{results}: has no case {shown}; give a number from 1 to {last} or a name as in scores.csv")
    numbers = " or ".join(str(case.number) for case in found[:5]) + (" or others" if len(found) > 5 else "")
    raise InputError(f"{results}: {shown} may be case {numbers}; give its number, or its path as in scores.csv")
