"""The best of ours against every peer and baseline, on the same images, in sentences that the figures write."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.table_markdown import NOTHING, between, count, figure, folded, grid, listed, signed
from benchmarks.table_outcomes import MATCHED, Outcomes, readable
from benchmarks.table_results import Gathered, Runs
from priorlens.bootstrap import Estimate

WORDS = {
    "pixel_ap": "pixel AP",
    "image_auroc": "image AUROC",
    "dice_best": "best Dice",
    MATCHED: "image AUROC, same height",
}
"""Figures that are compared; the last two only where a study has slices of volumes."""

SHARES = ("pixel_ap", "dice_best")
"""Of which a ratio says something."""


@dataclass(frozen=True)
class Against:
    """One peer or baseline. difference: of the best of ours less this one, on the images that both have judged."""

    other: Runs
    value: float
    difference: Estimate


@dataclass(frozen=True)
class Contest:
    """The best of ours by one figure on one study, and all others, the smallest difference first."""

    study: str
    figure: str
    best: Runs
    value: float
    against: tuple[Against, ...]

    @property
    def leader(self) -> Against:
        """The best of the others."""
        return max(self.against, key=lambda one: one.value)

    @property
    def clear(self) -> bool:
        """Ahead of every other with the interval above zero."""
        return all(one.difference.low > 0 for one in self.against)

    @property
    def ratio(self) -> float:
        return self.value / self.leader.value if self.leader.value else math.inf


def contests(gathered: Gathered) -> list[Contest]:
    """Of all studies whose images are there, in their order."""
    found = []
    for name in gathered.names:
        if name in gathered.studies:
            outcomes = Outcomes(gathered.out, gathered.studies[name])
            chosen = [one for one in readable(gathered.runs(name), gathered.out) if one.whole]
            keys = [key for key in WORDS if key in ("pixel_ap", "image_auroc") or outcomes.study.height]
            found += [contest for key in keys if (contest := _contest(outcomes, chosen, key))]
    return found


def _contest(outcomes: Outcomes, chosen: Sequence[Runs], key: str) -> Contest | None:
    """None where the figure is not defined for one of ours and one other."""
    values = {one.entry.name: _value(one, key) for one in chosen}
    known = [(one, value) for one in chosen if (value := values[one.entry.name]) is not None]
    ours = [pair for pair in known if pair[0].ours]
    others = [pair for pair in known if not pair[0].ours]
    if not ours or not others:
        return None
    best, value = max(ours, key=lambda pair: pair[1])
    against = [Against(other, figure, outcomes.difference(best, other, key)) for other, figure in others]
    against.sort(key=lambda one: (math.isnan(one.difference.value), one.difference.value))
    return Contest(outcomes.study.name, key, best, value, tuple(against))


def _value(runs: Runs, key: str) -> float | None:
    return runs.matched()[0] if key == MATCHED else runs.value(key)


def ahead_section(gathered: Gathered) -> str:
    """The whole section below its heading."""
    found = contests(gathered)
    if not found:
        return "There is nothing to compare yet: no study has both a method of ours and another one that are done."
    parts = [_overview(gathered, found), "\n".join(f"- {line}" for line in _tallies(gathered, found))]
    parts += ["### Where we lose", _losses(gathered, found)]
    for name in dict.fromkeys(one.study for one in found):
        own = [one for one in found if one.study == name]
        parts.append(f"### {gathered.title(name)}: ours against each other method")
        parts.append("\n".join(f"- {_sentence(one)}" for one in own))
        parts.append(folded("all differences, the smallest first", "\n\n".join(map(_differences, own))))
    return "\n\n".join(parts)


def _overview(gathered: Gathered, found: Sequence[Contest]) -> str:
    header = ["study", "figure", "best of ours", "best other", "ours", "other", "difference [95 %]", "ratio"]
    rows = []
    for one in found:
        leader = one.leader
        rows.append(
            [
                *(gathered.title(one.study), WORDS[one.figure], one.best.entry.title, leader.other.entry.title),
                *(figure(one.value), figure(leader.value), _interval(leader.difference)),
                f"{one.ratio:.2f}" if one.figure in SHARES else NOTHING,
            ]
        )
    return grid(header, rows, left=4)


def _interval(difference: Estimate) -> str:
    return signed(difference.value) + between(difference.low, difference.high, sign=True)


def _tallies(gathered: Gathered, found: Sequence[Contest]) -> list[str]:
    lines = []
    for key in ("pixel_ap", "image_auroc"):
        own = [one for one in found if one.figure == key]
        clear = [gathered.title(one.study) for one in own if one.clear]
        higher = [gathered.title(one.study) for one in own if not one.clear and one.value > one.leader.value]
        lower = [gathered.title(one.study) for one in own if one.value <= one.leader.value]
        line = f"{WORDS[key]}: ahead of every other method with the whole interval above zero on {_of(clear, own)}"
        line += f"; highest, but not so clearly, on {listed(higher)}" if higher else ""
        line += f"; not the highest on {listed(lower)}" if lower else ""
        lines.append(f"{line[:1].upper()}{line[1:]}.")
    clear_of = [{one.study for one in found if one.figure == key and one.clear} for key in ("pixel_ap", "image_auroc")]
    both = [gathered.title(name) for name in gathered.names if name in clear_of[0] & clear_of[1]]
    lines.append(f"Both at once, so clearly: {listed(both) if both else 'on no study'}.")
    twice = [gathered.title(one.study) for one in found if one.figure == "pixel_ap" and one.ratio >= 2]
    lines.append(f"At least twice the pixel AP of the best other: {listed(twice) if twice else 'on no study'}.")
    return lines


def _of(names: Sequence[str], whole: Sequence[Contest]) -> str:
    return f"{len(names)} of {count(len(whole), 'study', 'studies')}" + (f" ({listed(names)})" if names else "")


def _losses(gathered: Gathered, found: Sequence[Contest]) -> str:
    lines = []
    for one in found:
        behind = [each for each in one.against if each.difference.value < 0]
        if behind:
            names = [f"{each.other.entry.title} by {_size(each.difference)}" for each in behind]
            lines.append(
                f"- **{gathered.title(one.study)}, {WORDS[one.figure]}**: our best, {one.best.entry.title} "
                f"({figure(one.value)}), is behind {listed(names)}."
            )
    return "\n".join(lines) or "In none of these figures is the best of ours below another method."


def _size(difference: Estimate) -> str:
    """How far behind; the interval is that of the loss."""
    return figure(-difference.value) + between(-difference.high, -difference.low, sign=True)


def _sentence(one: Contest) -> str:
    """Says who is ahead by how much, and against whom that is not clear."""
    leader = one.leader
    words = WORDS[one.figure]
    parts = [f"**{words[:1].upper()}{words[1:]}**: our best, {one.best.entry.title} ({figure(one.value)}), is "]
    parts.append(f"{_verdict(leader.difference)} the best other, {leader.other.entry.title} ({figure(leader.value)}): ")
    parts.append(f"{_interval(leader.difference)}")
    parts.append(f", {one.ratio:.2f} times its figure. " if one.figure in SHARES else ". ")
    clearly = [each for each in one.against if each.difference.low > 0]
    parts.append(f"Clearly ahead of {len(clearly)} of {count(len(one.against), 'other method')}")
    doubtful = [each for each in one.against if not each.difference.low > 0]
    names = [f"{each.other.entry.title} ({_interval(each.difference)})" for each in doubtful]
    parts.append(f"; not of {listed(names)}." if names else ".")
    return "".join(parts)


def _verdict(difference: Estimate) -> str:
    if difference.low > 0:
        return "clearly ahead of"
    if difference.high < 0:
        return "clearly behind"
    if difference.value == 0:
        return "level with"
    return "ahead of, but not clearly," if difference.value > 0 else "behind, but not clearly,"


def _differences(one: Contest) -> str:
    header = [WORDS[one.figure], "its figure", f"{one.best.entry.title} less it [95 %]"]
    rows = [[each.other.entry.title, figure(each.value), _interval(each.difference)] for each in one.against]
    return grid(header, rows)
