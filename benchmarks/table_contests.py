"""Ours against every peer and baseline, on the same images: the best by each figure, and the default of ours."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks.study import Study
from benchmarks.table_markdown import few
from benchmarks.table_outcomes import MATCHED, Outcomes, readable
from benchmarks.table_results import Gathered, Runs
from priorlens.bootstrap import Estimate
from priorlens.evaluation import IMAGE_FIGURES

WORDS = {
    "pixel_ap": "pixel AP",
    "image_auroc": "image AUROC",
    "dice_best": "best Dice",
    MATCHED: "image AUROC, same height",
}
"""Figures that are compared; the last two only where a study has slices of volumes."""

DEFAULT = "anodode"
"""The one of ours that stands for all, whatever the figures: what `priorlens fit` learns unless told otherwise, from
images and from scans."""


@dataclass(frozen=True)
class Against:
    """One peer or baseline, by its figure on all that it has judged. difference: of ours less this one, on the images
    that both have judged. patients: behind its interval, None if not known."""

    other: Runs
    value: float
    difference: Estimate
    patients: int | None

    @property
    def ours(self) -> float:
        """Our figure on the images that both have judged."""
        return self.value + self.difference.value

    @property
    def unknown(self) -> bool:
        """Whether it would take maps that were not kept."""
        return math.isnan(self.difference.value)

    @property
    def clear(self) -> bool:
        """Whether ours is ahead with the interval above zero, where that is evidence."""
        return self.difference.low > 0 and not few(self.patients)

    @property
    def lost(self) -> bool:
        """Whether ours is behind with the interval below zero, where that is evidence."""
        return self.difference.high < 0 and not few(self.patients)


@dataclass(frozen=True)
class Contest:
    """One of ours by one figure on one study, and all others, the smallest difference first.

    best: the best of ours, but in the contest of the `default`. patients: behind the intervals, None if not known.
    ahead: all of ours that are clearly ahead of every other; not told in the contest of the `default`.
    """

    study: str
    figure: str
    best: Runs
    value: float
    against: tuple[Against, ...]
    patients: int | None
    default: Contest | None = None
    ahead: tuple[Runs, ...] = ()

    @property
    def leader(self) -> Against:
        """The best of the others that have judged all images; of those that judged some where there is no other."""
        return next((one for one in self.against if one.other.whole and not one.unknown), self.against[0])

    @property
    def lost(self) -> list[Against]:
        """The others that have judged all images and are ahead of it with the interval below zero."""
        return [one for one in self.against if one.other.whole and one.lost]

    @property
    def in_part(self) -> list[Against]:
        """The others that have judged some images and are ahead of it on these."""
        return [one for one in self.against if not one.other.whole and one.difference.value < 0]

    @property
    def clearly(self) -> list[Against]:
        """The others that it is ahead of with the interval above zero; none where intervals are no evidence."""
        return [one for one in self.against if one.clear]

    @property
    def clear(self) -> bool:
        """Ahead of every other so."""
        return len(self.clearly) == len(self.against)

    @property
    def unsettled(self) -> list[Against]:
        """The others whose loss was still falling when training ended."""
        return [one for one in self.against if one.other.unsettled]

    @property
    def ratio(self) -> float:
        return self.leader.ours / self.leader.value if self.leader.value else math.inf


def compared(study: Study) -> list[str]:
    """The figures of `WORDS` that a study's methods are compared by."""
    return [key for key in WORDS if key in ("pixel_ap", "image_auroc") or study.height]


def is_of_pixels(figure: str) -> bool:
    """Whether it takes maps."""
    return figure not in (*IMAGE_FIGURES, MATCHED)


def contests(gathered: Gathered) -> list[Contest]:
    """Of all studies whose images are there, in their order."""
    found = []
    for name in gathered.names:
        if name in gathered.studies:
            outcomes = Outcomes(gathered.out, gathered.studies[name], gathered.within(name))
            there = readable(gathered.runs(name), gathered.out)
            chosen = [one for one in there if one.whole or not one.ours]
            for key in compared(outcomes.study):
                patients = {one.entry.name: gathered.patients_of(one, pixels=is_of_pixels(key)) for one in chosen}
                contest = _contest(outcomes, chosen, key, patients)
                found += [contest] if contest else []
    return found


def _contest(
    outcomes: Outcomes, chosen: Sequence[Runs], key: str, patients: Mapping[str, int | None]
) -> Contest | None:
    """patients: by method. None where there is no difference of one of ours and one other."""
    known = [(one, value) for one in chosen if (value := _value(one, key)) is not None]
    ours = [pair for pair in known if pair[0].ours]
    others = [pair for pair in known if not pair[0].ours]
    if not ours or not others:
        return None

    def against(own: Runs) -> Iterator[Against]:
        """The strongest others first."""
        for other, figure in sorted(others, key=lambda pair: -pair[1]):
            yield Against(other, figure, outcomes.difference(own, other, key), patients[other.entry.name])

    def of(own: Runs, value: float) -> Contest:
        ordered = sorted(against(own), key=lambda one: (one.unknown, one.difference.value))
        return Contest(outcomes.study.name, key, own, value, tuple(ordered), patients[own.entry.name])

    best = of(*max(ours, key=lambda pair: pair[1]))
    if best.leader.unknown:
        return None
    named = [pair for pair in ours if pair[0].entry.name == DEFAULT]
    default = (best if named[0][0] is best.best else of(*named[0])) if named else None
    asked = {one.best.entry.name: one for one in (best, default) if one}

    def ahead(own: Runs) -> bool:
        """Of every other, clearly; after the first that it is not ahead of no difference is taken, for each is slow."""
        contest = asked.get(own.entry.name)
        return contest.clear if contest else all(each.clear for each in against(own))

    known_default = None if default and default.leader.unknown else default
    return replace(best, default=known_default, ahead=tuple(own for own, _ in ours if ahead(own)))


def _value(runs: Runs, key: str) -> float | None:
    return runs.matched()[0] if key == MATCHED else runs.value(key)
