"""What has to be said of a run beside its figures, as notes under a table."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.table_markdown import NOTHING, plain
from benchmarks.table_results import Gathered, Runs

OF_PEERS = "peer_minutes"
"""The option that only methods have which train by a limit of time."""


class Notes:
    """Numbered in the order of their first mention; equal ones share a number."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def marks(self, remarks: Sequence[str]) -> str:
        """The numbers of these remarks, for a cell."""
        found = [str(self.numbers.setdefault(remark, len(self.numbers) + 1)) for remark in remarks]
        return ", ".join(found) or NOTHING

    def text(self) -> str:
        return "\n".join(f"{number}. {remark}" for remark, number in self.numbers.items())


def remarks(gathered: Gathered, runs: Runs) -> list[str]:
    """A sentence each; none where there is nothing to be said."""
    found = [f"failed: {plain(one['failed'])}" for one in runs.failed]
    for one in runs.done:
        every, judged = one["score"]["every"], one["score"]["judged"]
        fit = one["fit"] or {}
        if every > 1:
            found.append(f"judged one test image in {every}, {judged} in all; takes no part in bold or ranks")
        if fit.get("converged") is False:
            found.append("the loss had not settled when training ended: its figures may be too low (see the curves)")
        if one["remark"]:
            found.append(plain("; ".join(dict.fromkeys(one["remark"].split("; ")))))
        if options_of(one) != usual_options(gathered):
            found.append(f"run with other options than the rest: {options_of(one)}")
    if runs.done and len(runs.done) < len(gathered.seeds):
        found.append(f"{len(runs.done)} of {len(gathered.seeds)} seeds")
    return list(dict.fromkeys(found))


def options_of(result: Mapping[str, Any]) -> str:
    """Such as `size=192, steps=1.0`, without the minutes that only peers have."""
    options = result["key"].get("options", {})
    return ", ".join(f"{name}={json.dumps(value)}" for name, value in options.items() if name != OF_PEERS)


def peer_minutes_of(result: Mapping[str, Any]) -> str:
    """Nothing of a method that trains by no limit of time."""
    minutes = result["key"].get("options", {}).get(OF_PEERS)
    return "" if minutes is None else f"{minutes:g}"


def usual_options(gathered: Gathered) -> str:
    """Those of most results."""
    return Counter(map(options_of, gathered.results)).most_common(1)[0][0]
