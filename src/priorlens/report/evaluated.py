"""The tables of an evaluation: figures with their intervals, what verdicts are worth, and the cases that went wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from priorlens.datasets import HEALTHY
from priorlens.evaluation import METRICS
from priorlens.report.facts import number, part
from priorlens.report.findings import Case
from priorlens.verdict_figures import ABNORMAL_FIGURES, HEALTHY_FIGURES
from priorlens.volume_figures import SCAN_METRICS

WORST = 5
"""How many misses and false alarms are listed."""

_VERDICT_FIGURES = HEALTHY_FIGURES | ABNORMAL_FIGURES


@dataclass(frozen=True)
class FigureTable:
    """A caption, the headings of the columns, and rows whose first cell names them."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def figure_table(metrics: Mapping[str, Any]) -> FigureTable | None:
    """Every figure of `metrics.json`, a column for each kind."""
    kinds = part(metrics, "kinds")
    if not kinds:
        return None
    of_scans = any("scans" in part(metrics, "counts", kind) for kind in kinds)
    what, names = ("scans", SCAN_METRICS) if of_scans else ("images", METRICS)
    counts = {kind: part(metrics, "counts", kind).get(what) for kind in kinds}
    columns = ["figure", *(f"{kind} ({counts[kind]} {what})" if counts[kind] else kind for kind in kinds)]
    rows = [(words, *(_interval(part(kinds, kind, key)) for kind in kinds)) for key, words in names.items()]
    healthy = part(metrics, "counts", HEALTHY).get(what)
    against = f"{healthy} healthy {what}" if healthy else "what is healthy"
    return FigureTable(f"Each kind against {against}, with 95 % intervals", tuple(columns), tuple(rows))


def verdict_tables(metrics: Mapping[str, Any]) -> list[FigureTable]:
    """What verdicts are worth, a table for each alpha."""
    tables = []
    for alpha, kinds in part(metrics, "verdicts", "alphas").items():
        if not isinstance(kinds, Mapping):
            continue
        names = [name for name in _VERDICT_FIGURES if any(name in part(kinds, kind) for kind in kinds)]
        rows = [(_VERDICT_FIGURES[name], *(_interval(part(kinds, kind, name)) for kind in kinds)) for name in names]
        tables.append(FigureTable(f"Verdicts at alpha = {alpha}", ("figure", *kinds), tuple(rows)))
    return tables


def worst_misses(cases: Sequence[Case]) -> list[Case]:
    """Abnormal images with the lowest anomaly."""
    abnormal = [case for case in cases if case.kind not in ("", HEALTHY) and math.isfinite(case.anomaly)]
    return sorted(abnormal, key=lambda case: case.anomaly)[:WORST]


def worst_false_alarms(cases: Sequence[Case]) -> list[Case]:
    """Healthy images with the highest anomaly."""
    healthy = [case for case in cases if case.kind == HEALTHY and math.isfinite(case.anomaly)]
    return sorted(healthy, key=lambda case: -case.anomaly)[:WORST]


def _interval(figure: Mapping[str, Any]) -> str:
    value, low, high = (number(figure.get(name)) for name in ("value", "low", "high"))
    if math.isnan(value):
        return "–"
    return f"{value:.3f}" if math.isnan(low) or math.isnan(high) else f"{value:.3f} [{low:.3f}, {high:.3f}]"
