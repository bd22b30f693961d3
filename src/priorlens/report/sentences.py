"""What the numbers of a case mean, in words that claim no more than they do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from priorlens.report.facts import number, part
from priorlens.report.findings import Case, Findings
from priorlens.report.spectra import Spectra
from priorlens.report.svg import shown

VALUES = {
    "standardised": "Each place by itself",
    "bits": "Bits at each noise level",
    "wide": "Averaged over a wide neighbourhood",
}

NOISE_LEVELS = (
    "A low noise level σ stands for fine structure and noise, a high one for large structures. The band holds the "
    "middle 90 % of the healthy calibration images at each level, the dashed line is their mean. At any one level, one "
    "healthy image in twenty lies above the band too."
)


def verdict_words(case: Case, findings: Findings) -> str:
    """What is said of the case as a whole."""
    if case.error:
        return "This image could not be scored."
    if math.isnan(case.p_value):
        return f"Anomaly {shown(case.anomaly)}. The model is not calibrated: there is no p-value and no verdict."
    p_value, alpha = shown(case.p_value), findings.alpha
    if alpha is None:
        return f"p = {p_value}. No verdict was asked for."
    if case.verdict == "abnormal":
        return f"Called abnormal: p = {p_value} is at most alpha = {alpha:g}."
    return f"Called usual: p = {p_value} is above alpha = {alpha:g}. That does not rule anything out."


def place_words(case: Case, healthy: np.ndarray) -> str:
    """Where the case lies among the healthy images."""
    above = int((healthy.astype(np.float32) >= np.float32(case.anomaly)).sum())
    if not above:
        return f"None of {healthy.size} healthy calibration images scores as high."
    return f"{above} of {healthy.size} healthy calibration images score{'s' * (above == 1)} as high or higher."


def region_words(case: Case, findings: Findings) -> str:
    """How many places stand out."""
    if case.regions is None:
        return ""
    rate = "" if findings.alpha is None else f" at a false-discovery rate of {findings.alpha:g}"
    if not case.regions:
        return f"No place stands out{rate}."
    return f"{len(case.regions)} place{'s' * (len(case.regions) > 1)} stand{'s' * (len(case.regions) == 1)} out{rate}."


def spectrum_words(spectra: Spectra, own: Sequence[np.ndarray]) -> str:
    """Which noise levels lie above the band of healthy images, and what is seen there."""
    above, all_levels = set(), set()
    for panel, values in zip(spectra.panels, own, strict=True):
        if panel.value != spectra.wide or panel.high is None:
            continue
        all_levels |= set(panel.sigmas)
        above |= {s for s, v, top in zip(panel.sigmas, values, panel.high, strict=True) if v > top}
    if not all_levels:
        return "There are no healthy images to compare the noise levels with."
    if not above:
        return (
            "Averaged over the whole image, the surprise is above the band of healthy images at no noise level; one "
            "small place hardly moves it."
        )
    where = ", ".join(f"{level:g}" for level in sorted(above))
    return (
        "Averaged over the whole image, the surprise is above the band of healthy images at "
        f"σ = {where}: {_meaning(above, all_levels)}."
    )


def value_words(value: str, spectra: Spectra) -> str:
    return VALUES["wide"] if value == spectra.wide and value not in VALUES else VALUES.get(value, value)


def summary_words(findings: Findings) -> list[str]:
    """What came of it all, in a few sentences."""
    cases = findings.cases
    failed = sum(bool(case.error) for case in cases)
    scored = len(cases) - failed
    what = "scan" if findings.model.get("scans") else "image"
    said = [f"{scored} {what}{'s' * (scored != 1)} scored" + (f", {failed} could not be used." if failed else ".")]
    if findings.alpha is not None:
        abnormal = sum(case.verdict == "abnormal" for case in cases)
        said.append(
            f"{abnormal} called abnormal and {scored - abnormal} usual at alpha = {findings.alpha:g}: of healthy "
            f"patients like those of the calibration, a share of about {findings.alpha:g} is called abnormal by design."
        )
    for kind, figures in part(findings.metrics, "kinds").items():
        if words := _separation(kind, figures, what):
            said.append(words)
    if findings.planted:
        said.append(
            "The lesions in these images are planted: the figures show that everything works, and say nothing about "
            "patients."
        )
    if scored and not findings.verdicts:
        said.append(
            "The model is not calibrated for this way of scoring: there are no p-values and no verdicts, and the "
            f"anomaly only ranks these {what}s among each other."
        )
    return said


def _separation(kind: str, figures: Mapping[str, Any], what: str) -> str:
    """How well the anomaly tells a kind from what is healthy; of scans that are all abnormal, slice by slice."""
    names = {"image_auroc": "", "scan_auroc": "", "slice_auroc_matched": " slice of the same height"}
    for name, slices in names.items():
        pairs = part(figures, name)
        value, low, high = (number(pairs.get(end)) for end in ("value", "low", "high"))
        if math.isnan(value):
            continue
        interval = "" if math.isnan(low) else f", 95 % interval {shown(low)} to {shown(high)}"
        figure = f"{'slice' if slices else what} AUROC"
        return (
            f"Of a healthy {slices.strip() or what} and one of {kind}, the latter has the higher anomaly in a share of "
            f"{shown(value)} of all pairs ({figure}{interval})."
        )
    return ""


def _meaning(above: set[float], levels: set[float]) -> str:
    """Of the lower, middle and higher third of the levels, in what lies those above the band."""
    ordered = sorted(levels)
    thirds = {min(3 * ordered.index(level) // len(ordered), 2) for level in above}
    if thirds == {0, 1, 2}:
        return "from fine to large structures"
    names = {0: "fine structure and noise", 1: "structures of middle size", 2: "large structures"}
    return " and ".join(names[third] for third in sorted(thirds))
