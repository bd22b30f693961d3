"""The model's card: what was asked, what the model learned from, and what its verdicts are held against."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from priorlens.report.facts import part
from priorlens.report.findings import Findings
from priorlens.report.svg import shown

Facts = list[tuple[str, str]]
"""Names and what is said of them."""

PROCEDURES = {
    "bh": "Benjamini-Hochberg",
    "by": "Benjamini-Yekutieli",
    "max": "none at all in 1 - alpha of healthy images",
}

UNCALIBRATED = "not calibrated: there are no p-values and no verdicts"


def asked(findings: Findings) -> Facts:
    """What was asked of the model, as far as the results say it."""
    verdicts, metrics, model = findings.verdicts, findings.metrics, findings.model
    rule = verdicts.get("setup") or model.get("setup") or (metrics.get("rule") and f"rule={metrics['rule']}")
    facts = [("Way of scoring", rule), ("Measurement", metrics.get("physics"))]
    if verdicts:
        alpha = findings.alpha
        facts.append(("Alpha", "none: p-values without verdicts" if alpha is None else f"{alpha:g}"))
        procedure = str(verdicts.get("procedure") or "")
        facts.append(("Rate of false regions held by", PROCEDURES.get(procedure, procedure) if alpha else None))
    else:
        facts.append(("Verdicts", UNCALIBRATED))
    if findings.metrics:
        facts.append(("Lesions", "planted" if findings.planted else None))
        left_out = part(metrics, "verdicts").get("images_left_out")
        if left_out:
            words = f"{left_out} of these images: the model was fitted to or calibrated on them, figures are too good"
            facts.append(("Not fit for a test", words))
    return _told(facts)


def learned(findings: Findings) -> Facts:
    """What the model is and what it learned from; without `model.json` what `verdicts.json` says."""
    model, run, trained = findings.model, part(findings.model, "run"), part(findings.model, "trained_on")
    size, scans = model.get("size"), part(findings.model, "scans")
    return _told(
        [
            ("Method", model.get("method")),
            ("Made", model.get("made")),
            ("Model", findings.verdicts.get("model")),
            ("Images learned from", run.get("folder")),
            ("Scans", run.get("scans")),
            ("Seen as", _seen(scans)),
            (
                "Number of slices" if scans else "Number of images",
                _counted(trained, "images", "and {} held out for what is usual", "held_out"),
            ),
            ("Patients", trained.get("patients")),
            ("Broken images left out", run.get("left_out") or None),
            ("Fingerprint of the images", run.get("fingerprint")),
            ("Backbone", model.get("backbone")),
            ("Prior", model.get("prior") if isinstance(model.get("prior"), str) else None),
            ("Grid", f"{size} x {size} pixels, {model.get('channels')} channel(s)" if size else None),
            ("Intensities", _of_scans(scans) if scans else _words(model.get("intensity"))),
            ("Training", f"{model['steps']} steps, seed {model.get('seed')}" if model.get("steps") else None),
        ]
    )


def _seen(scans: Mapping[str, Any]) -> str | None:
    """How scans become what the model sees."""
    if not scans:
        return None
    spacing = scans.get("spacing")
    pixels = f" of {spacing:g} mm pixels" if isinstance(spacing, int | float) else ""
    return f"{scans.get('plane')} slices{pixels}, {scans.get('dimensions')}"


def _of_scans(scans: Mapping[str, Any]) -> str | None:
    """How the intensities of each channel are scaled."""
    found = [one for one in scans.get("intensities") or () if isinstance(one, Mapping)]
    names = [str(name) for name in scans.get("channels") or ()]
    words = []
    for index, one in enumerate(found):
        window = f" {_number(one.get('low'))} to {_number(one.get('high'))} HU" if one.get("mode") == "window" else ""
        name = names[index] if index < len(names) else ""
        words.append(f"{name} {one.get('mode')}{window}".strip())
    return ", ".join(words) or None


def healthy_statistics(findings: Findings) -> Facts:
    """What the rule that was used says of held-out healthy images."""
    healthy = part(findings.model, "healthy")
    rule = str(findings.model.get("rule", ""))
    own = part(healthy, rule) or (healthy if "anomaly_mean" in healthy else {})
    names = {"anomaly_mean": "Mean anomaly", "anomaly_std": "Standard deviation", "threshold": "Threshold of the map"}
    return [(words, shown(own[key], 4)) for key, words in names.items() if isinstance(own.get(key), int | float)]


def calibration(findings: Findings) -> Facts:
    """What p-values are held against."""
    found = part(findings.verdicts, "calibration")
    if not found:
        return [("Calibration", UNCALIBRATED)]
    smallest = found.get("smallest_p_value")
    return _told(
        [
            ("Healthy images", found.get("images")),
            ("Healthy patients", found.get("patients")),
            ("Smallest p-value there can be", shown(smallest) if isinstance(smallest, int | float) else None),
        ]
    )


def versions(findings: Findings) -> Facts:
    return _told(sorted(part(findings.model, "versions").items()))


def _counted(facts: Mapping[str, Any], name: str, more: str, other: str) -> str | None:
    if name not in facts:
        return None
    return f"{facts[name]}" + (f" {more.format(facts[other])}" if facts.get(other) else "")


def _words(value: object) -> str | None:
    """A mapping in a line."""
    if not isinstance(value, Mapping):
        return None if value is None else str(value)
    return ", ".join(f"{name} {_number(one)}" for name, one in value.items() if one is not None)


def _number(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _told(facts: list[tuple[str, Any]]) -> Facts:
    return [(name, str(value)) for name, value in facts if value is not None and value != ""]
