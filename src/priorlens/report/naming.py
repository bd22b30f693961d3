"""Results without the names of files, folders and patients: "case 17", "patient 3"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from priorlens.report.findings import Case, Findings
from priorlens.tables import Line, Table

HIDDEN = "hidden"
_NAMES_IN_RUN = ("folder", "manifest", "group", "weights", "prior")


def without_names(findings: Findings) -> Findings:
    """The same results, a case being called by the number of its line and a patient by the order of appearance."""
    told = [line.cells["patient"] for line in findings.patients.lines] if findings.patients else []
    names = dict.fromkeys([*(case.patient for case in findings.cases), *told])
    names.pop("", None)
    patients = {name: f"patient {number}" for number, name in enumerate(names, 1)}
    return replace(
        findings,
        title="results",
        cases=tuple(_hidden(case, patients) for case in findings.cases),
        patients=_table(findings.patients, patients) if findings.patients else None,
        model=model_without_names(findings.model),
    )


def model_without_names(model: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a model but for the names in how it was made."""
    run = model.get("run")
    if not isinstance(run, Mapping):
        return dict(model)
    return {**model, "run": {name: HIDDEN if name in _NAMES_IN_RUN and run[name] else run[name] for name in run}}


def _hidden(case: Case, patients: Mapping[str, str]) -> Case:
    """What an error says after the file and up to what may be another name."""
    name = f"case {case.number}"
    error = "could not be used; its reason is in scores.csv" if case.error else ""
    return replace(case, name=name, patient=patients.get(case.patient, ""), error=error)


def _table(table: Table, patients: Mapping[str, str]) -> Table:
    lines = (Line(one.where, {**one.cells, "patient": patients[one.cells["patient"]]}) for one in table.lines)
    return replace(table, lines=tuple(lines))
