"""One HTML file from the findings: nothing is fetched, nothing from the results can run."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from priorlens import __version__
from priorlens.report import card, evaluated, sentences
from priorlens.report.charts import Scale, common_symbols, place_chart, scale_words, spectrum_charts
from priorlens.report.evaluation_charts import curve_charts, score_histograms
from priorlens.report.findings import Case, Findings, printable
from priorlens.report.svg import shown
from priorlens.report.thumbnails import overlay_thumbnail, reconstruction_thumbnail

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Link:
    """Another page of the same report: its file, and what is on it."""

    file: str
    words: str


@dataclass(frozen=True)
class Place:
    """Which page of a report this is.

    page_of: by number of a case the file that tells it; empty for this page. others: links to the other pages.
    """

    page_of: Mapping[int, str]
    others: Sequence[Link] = ()

    def address(self, case: Case) -> str:
        return f"{self.page_of.get(case.number, '')}#case-{case.number}"


@dataclass(frozen=True)
class Told:
    """A case as its page tells it."""

    case: Case
    verdict: str
    place: str
    regions: str
    spectrum: str
    overlay: str | None
    reconstruction: str | None
    place_chart: Markup | None
    spectra: Sequence[tuple[str, Sequence[tuple[str, Markup]]]]
    figures: Sequence[tuple[str, str]]


def by_surprise(cases: Sequence[Case]) -> list[Case]:
    """By rising p-value, else falling anomaly; those that failed at the end."""
    return sorted(cases, key=lambda case: case.rank)


def results_page(
    findings: Findings,
    told: Sequence[Case],
    place: Place,
    *,
    overview: bool = True,
    listed: bool = True,
    on_case: Callable[[], None] = lambda: None,
) -> str:
    """The page of some cases, `told` in their order; with `overview` what came of all, and the model's card.

    listed: whether there is a table of cases: of those that are told here, or on an overview alone of all.
    """
    scale = Scale.of(findings)
    rows = (told or by_surprise(findings.cases)) if listed else []
    return _render(
        "results.html.j2",
        findings=findings,
        rows=rows,
        told=[_told(case, findings, scale, on_case) for case in told],
        place=place,
        overview=overview,
        columns=_Columns.of(findings),
        symbols=common_symbols(findings, scale) if told else Markup(""),
        summary=sentences.summary_words(findings),
        evaluation=_evaluation(findings, scale) if overview and findings.metrics else None,
        card=card,
        noise_levels=sentences.NOISE_LEVELS,
        statuses=sorted({case.status for case in rows}),
        kinds=sorted({case.kind for case in rows} - {""}),
    )


def monitor_page(**context: Any) -> str:
    """The page of a monitor's folder."""
    return _render("monitor.html.j2", **context)


@dataclass(frozen=True)
class _Columns:
    """Which columns the table of cases has."""

    patient: bool
    kind: bool
    p_value: bool
    regions: bool
    error: bool

    @classmethod
    def of(cls, findings: Findings) -> _Columns:
        cases = findings.cases
        return cls(
            patient=any(case.patient for case in cases),
            kind=any(case.kind for case in cases),
            p_value=bool(findings.verdicts),
            regions=any(case.regions is not None for case in cases),
            error=any(case.error for case in cases),
        )


def _told(case: Case, findings: Findings, scale: Scale, on_case: Callable[[], None]) -> Told:
    on_case()
    spectra = findings.spectra
    own = spectra.of.get(case.file) if spectra and not case.error else None
    scored = math.isfinite(case.anomaly)
    place = sentences.place_words(case, findings.healthy) if scored and findings.healthy.size else ""
    charts: list[tuple[str, list[tuple[str, Markup]]]] = []
    if spectra and own:
        scales = [scale_words(panel) for panel in spectra.panels]
        for value, drawn in spectrum_charts(spectra, own):
            charts.append((sentences.value_words(value, spectra), list(zip(scales, drawn, strict=False))))
    return Told(
        case,
        verdict=sentences.verdict_words(case, findings),
        place=place,
        regions=sentences.region_words(case, findings),
        spectrum=sentences.spectrum_words(spectra, own) if spectra and own else "",
        overlay=overlay_thumbnail(case.overlay) if case.overlay else None,
        reconstruction=reconstruction_thumbnail(case.reconstruction) if case.reconstruction else None,
        place_chart=place_chart(case, findings.healthy.size, scale, place) if place else None,
        spectra=charts,
        figures=[(name, shown(value, 4)) for name, value in case.figures.items()],
    )


def _evaluation(findings: Findings, scale: Scale) -> dict[str, Any]:
    kinds = any(case.kind for case in findings.cases)
    return {
        "figures": evaluated.figure_table(findings.metrics),
        "verdicts": evaluated.verdict_tables(findings.metrics),
        "curves": curve_charts(findings.curves),
        "histograms": score_histograms(findings.cases, scale) if kinds else None,
        "misses": evaluated.worst_misses(findings.cases),
        "false_alarms": evaluated.worst_false_alarms(findings.cases),
    }


def _render(template: str, **context: Any) -> str:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"shown": shown, "exact": _exact}
    style, script = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    policy = (
        f"default-src 'none'; style-src {_allowed(style)}; script-src {_allowed(script)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    page = environment.get_template(template).render(
        style=Markup(style), script=Markup(script), policy=Markup(policy), version=__version__, **context
    )
    return printable(page)


def _allowed(text: str) -> str:
    """Names an inline style or script in a policy, which allows no other."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _exact(value: float) -> str:
    """A number as a program reads it; empty where there is none."""
    return repr(float(value)) if math.isfinite(value) else ""
