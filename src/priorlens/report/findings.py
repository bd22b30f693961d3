"""A folder that `score` or `evaluate` wrote, read back for a person: its cases, and all that is known about them."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Float64

from priorlens.errors import InputError
from priorlens.report.facts import CURVES, METRICS, MODEL, number, part, read_facts
from priorlens.report.spectra import Spectra, read_spectra
from priorlens.result_folder import ANOMALY, CALIBRATION, SCORES, SPECTRUM, VERDICTS
from priorlens.tables import Line, Table, read_table

_NO_FIGURES = ("file", "name", "patient", ANOMALY, "p_value", "verdict", "regions", "error", "seconds")


@dataclass(frozen=True)
class Region:
    """A place that stands out: centre and size as words, the rest as numbers.

    position: the centre by the names of its axes: row and column in pixels; or x, y and, in scans, z in millimetres.
    """

    number: str
    centre: str
    size: str
    peak: float
    q_value: float
    position: Mapping[str, float]


@dataclass(frozen=True)
class Case:
    """One line of the table of scores.

    number: of its line, from 1. file: as the table has it. name: what the page calls it. stem: what its maps and
    pictures are called, without suffix; empty where there are none. anomaly, p_value: NaN where there is none. kind,
    patient, verdict, error: empty where there is none. regions: None where none were looked for. overlay,
    reconstruction: files, where there are some.
    """

    number: int
    file: str
    name: str
    stem: str
    patient: str
    kind: str
    anomaly: float
    p_value: float
    verdict: str
    regions: tuple[Region, ...] | None
    figures: Mapping[str, float]
    error: str
    overlay: Path | None = None
    reconstruction: Path | None = None

    @property
    def status(self) -> str:
        """`verdict` where there is one; `failed`, or `scored`."""
        return "failed" if self.error else self.verdict or "scored"

    @property
    def rank(self) -> tuple[bool, float, float]:
        """What sorts cases by rising p-value, else falling anomaly, and those that failed to the end."""
        p_value = self.p_value if math.isfinite(self.p_value) else math.inf
        return bool(self.error), p_value, -self.anomaly if math.isfinite(self.anomaly) else math.inf


@dataclass(frozen=True)
class Findings:
    """Everything of a results folder. What it does not hold is empty or None."""

    title: str
    cases: tuple[Case, ...]
    verdicts: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    curves: Mapping[str, Any] = field(default_factory=dict)
    patients: Table | None = None
    healthy: Float64[np.ndarray, " image"] = field(default_factory=lambda: np.array([]))
    spectra: Spectra | None = None

    @property
    def alpha(self) -> float | None:
        """The share of false alarms that verdicts were asked for with; None without verdicts."""
        alpha = number(self.verdicts.get("alpha"))
        return alpha if math.isfinite(alpha) else None

    @property
    def planted(self) -> bool:
        return self.metrics.get("planted") is True


def read_findings(folder: Path) -> Findings:
    """Raises InputError: it is no results folder, or a file in it is damaged or newer than this version."""
    if not (folder / SCORES).is_file():
        raise InputError(f"{folder}: holds no {SCORES}; give a folder that priorlens score, evaluate or monitor wrote")
    scores = read_table(folder / SCORES, ("file", ANOMALY, "error"), file_names=True)
    calibration = _table(folder / CALIBRATION, (ANOMALY,))
    spectrum = _table(folder / SPECTRUM, ("file",), file_names=True)
    regions = _table(folder / "regions.csv", ("file", "region", "unit", "size", "peak", "q_value"), file_names=True)
    facts = {name: read_facts(folder / name) or {} for name in (VERDICTS, METRICS, MODEL, CURVES)}
    healthy = np.array([line.number(ANOMALY) for line in calibration.lines] if calibration else [], np.float64)
    return Findings(
        title=printable(folder.resolve().name),
        cases=_cases(folder, scores, regions, _kinds(facts[METRICS])),
        verdicts=facts[VERDICTS],
        metrics=facts[METRICS],
        model=facts[MODEL],
        curves=facts[CURVES],
        patients=_patients(folder / "patients.csv"),
        healthy=healthy[np.isfinite(healthy)],
        spectra=read_spectra(spectrum, calibration) if spectrum else None,
    )


def printable(text: str) -> str:
    """File names that are not UTF-8 with the usual mark in place of what cannot be shown."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _table(path: Path, required: Iterable[str], file_names: bool = False) -> Table | None:
    return read_table(path, required, file_names=file_names) if path.is_file() else None


def _patients(path: Path) -> Table | None:
    table = _table(path, ("patient", "images", ANOMALY, "p_value"), file_names=True)
    if table is None:
        return None
    lines = (Line(one.where, {name: printable(cell) for name, cell in one.cells.items()}) for one in table.lines)
    return replace(table, lines=tuple(lines))


def _kinds(metrics: Mapping[str, Any]) -> dict[str, int]:
    """How many images there are of each kind."""
    counts = {kind: number(part(metrics, "counts", kind).get("images")) for kind in part(metrics, "counts")}
    return {kind: int(count) for kind, count in counts.items() if math.isfinite(count)}


def _cases(folder: Path, scores: Table, regions: Table | None, kinds: Mapping[str, int]) -> tuple[Case, ...]:
    files = [line.cells["file"] for line in scores.lines]
    names = stems_of(folder, scores.lines)
    kind_of = _kind_of(files, names, [bool(line.cells["error"]) for line in scores.lines], kinds)
    shown, places = below_shared_folder(files), _regions(regions)
    cases = []
    for index, line in enumerate(scores.lines):
        cells, file, name = line.cells, files[index], names[index]
        figures = {column: line.number(column) for column in scores.columns if column not in _NO_FIGURES}
        overlay = folder / "overlays" / f"{name}.png" if name else None
        reconstruction = folder / "reconstructions" / f"{name}.npy" if name else None
        cases.append(
            Case(
                number=index + 1,
                file=file,
                name=shown[index],
                stem=name,
                patient=printable(cells.get("patient", "")),
                kind=printable(kind_of[index]),
                anomaly=line.number(ANOMALY),
                p_value=line.number("p_value") if "p_value" in cells else math.nan,
                verdict=cells.get("verdict", ""),
                regions=None if regions is None or cells["error"] else tuple(places.get(cells.get("name", file), ())),
                figures={column: value for column, value in figures.items() if math.isfinite(value)},
                error=printable(cells["error"].replace(file, shown[index])),
                overlay=overlay if overlay and overlay.is_file() else None,
                reconstruction=reconstruction if reconstruction and reconstruction.is_file() else None,
            )
        )
    return tuple(cases)


def stems_of(folder: Path, lines: Iterable[Line]) -> list[str]:
    """What the files of each case are called, found among the maps: the longest end of its path that is there and not
    yet taken, without suffix before with it, as names are given by `priorlens.datasets`."""
    maps = folder / "maps"
    there = {path.relative_to(maps).as_posix().removesuffix(".npy") for path in maps.rglob("*.npy")}
    counted: dict[str, list[str]] = {}
    for name in there:
        if match := re.fullmatch(r"(.+)~(\d+)", name, re.DOTALL):
            counted.setdefault(match[1], []).append(name)
    found = []
    for line in lines:
        if "name" in line.cells:  # of scans, whose file may be a folder that holds several
            found.append("" if line.cells["error"] else line.cells["name"])
            continue
        path = PurePosixPath(line.cells["file"])
        ends = (PurePosixPath(*path.parts[start:]) for start in range(len(path.parts)))
        names = (
            name
            for end in ends
            for name in (str(end.with_suffix("")), str(end), *sorted(counted.get(str(end), [])))
            if name in there
        )
        name = "" if line.cells["error"] else next(names, "")
        there.discard(name)
        found.append(name)
    return found


def _kind_of(files: list[str], names: list[str], failed: list[bool], kinds: Mapping[str, int]) -> list[str]:
    """The kind of each case by its folder; none where that does not agree with what was counted (of a manifest)."""
    found = []
    for file, name in zip(files, names, strict=True):
        parts = [name.split("/")[0], *reversed(PurePosixPath(file).parts[:-1])]
        found.append(next((one for one in parts if one in kinds), ""))
    counted = {kind: sum(one == kind for one, bad in zip(found, failed, strict=True) if not bad) for kind in kinds}
    return found if counted == kinds else [""] * len(files)


def below_shared_folder(files: list[str]) -> list[str]:
    """Paths below the folder that all share: no one else needs to know where that lies."""
    folders = {str(PurePosixPath(file).parent) for file in files}
    try:
        shared = os.path.commonpath(folders) if folders else ""
    except ValueError:  # absolute and relative paths
        shared = ""
    shown = [PurePosixPath(file).relative_to(shared) if shared else PurePosixPath(file) for file in files]
    return [printable(str(path)) for path in shown]


def _regions(table: Table | None) -> dict[str, list[Region]]:
    found: dict[str, list[Region]] = {}
    for line in table.lines if table else ():
        axes = [name for name in line.cells if name.startswith("centre_")]
        position = {name.removeprefix("centre_"): line.number(name) for name in axes}
        centre = ", ".join(f"{axis} {value:g}" for axis, value in position.items())
        space = "mm³" if len(axes) == 3 else "mm²"
        length, area = (" mm", space) if line.cells["unit"] == "mm" else ("", "pixels")
        size, peak, q_value = (line.number(name) for name in ("size", "peak", "q_value"))
        region = Region(line.cells["region"], centre + length, f"{size:g} {area}", peak, q_value, position)
        found.setdefault(line.cells.get("name", line.cells["file"]), []).append(region)
    return found
