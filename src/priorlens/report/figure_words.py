"""What a figure says besides its rows: the words in it, and a caption to start from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from priorlens.pictures import TOP_SHARE
from priorlens.report.facts import part
from priorlens.report.findings import Findings
from priorlens.report.map_scale import MapScale
from priorlens.report.rows import Row
from priorlens.report.svg import shown


@dataclass(frozen=True)
class Words:
    """columns: titles, from left to right. solid, dashed: what these outlines are; empty where there are none."""

    columns: tuple[str, ...]
    solid: str
    dashed: str

    @property
    def key(self) -> list[str]:
        return [words for words in (self.solid, self.dashed) if words]


def figure_words(findings: Findings, rows: Sequence[Row], scale: MapScale, *, reconstruction: bool) -> Words:
    channels = part(findings.model, "scans").get("channels")
    first = str(channels[0]) if isinstance(channels, list) and len(channels) > 1 else ""
    names = [f"image ({first})" if first else "image", *(["reconstruction"] if reconstruction else [])]
    truth = any(row.truth is not None and row.truth.any() for row in rows)
    return Words(
        columns=(*names, "surprise", "what stands out"),
        solid=_outlined(findings, rows, scale),
        dashed=("planted lesion" if findings.planted else "truth") if truth else "",
    )


def caption(findings: Findings, rows: Sequence[Row], scale: MapScale, words: Words) -> list[str]:
    """Sentences that tell a reader what is drawn."""
    ends = f"{scale.words} from {shown(scale.low)} to {shown(scale.high)}, the same in all rows"
    if scale.healthy:
        said = [f"Colours: {ends}; the ends come from healthy images, triangles stand for what lies beyond."]
    else:
        said = [f"Colours: {ends}; the ends are the extremes of these cases, for the model tells none."]
    lines = [
        f"solid orange, {words.solid}" if words.solid else "",
        f"dashed blue, {words.dashed}" if words.dashed else "",
    ]
    said += [f"Outlines: {'; '.join(line for line in lines if line)}."] if any(lines) else []
    sides = {row.sides for row in rows}
    if ("R", "L") in sides:
        said.append("R and L: the patient's right and left; the right is on the left.")
    if ("A", "P") in sides:
        said.append("A and P: the patient's front and back.")
    if findings.planted:
        said.append("The lesions in these images are planted: they say nothing about patients.")
    if any("p = " in note for row in rows for note in row.notes):
        said.append("p: how often an image of a healthy patient scores so high or higher.")
    return said


def _outlined(findings: Findings, rows: Sequence[Row], scale: MapScale) -> str:
    """What the solid line is."""
    known = math.isfinite(scale.threshold)
    if any(row.regions is None for row in rows):
        return f"surprise ≥ {shown(scale.threshold)}" if known else f"top {TOP_SHARE:.0%} of surprise"
    none = "" if any(row.regions.any() for row in rows if row.regions is not None) else " (none)"
    if findings.alpha is not None:
        return f"regions at alpha {findings.alpha:g}{none}"
    return (f"regions, surprise ≥ {shown(scale.threshold)}" if known else "regions") + none
