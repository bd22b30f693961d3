"""The best and the default of ours against every peer and baseline, in sentences that the figures write."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.table_contests import DEFAULT, WORDS, Against, Contest, contests
from benchmarks.table_losses import losses
from benchmarks.table_markdown import (
    FEW_WORDS,
    NO_INTERVAL,
    NO_INTERVAL_WORDS,
    NOTHING,
    count,
    few,
    figure,
    folded,
    grid,
    listed,
)
from benchmarks.table_results import Gathered
from benchmarks.table_verdicts import clearly, in_part, interval, kinds, lead, titled

SHARES = ("pixel_ap", "dice_best")
"""Of which a ratio says something."""

PARTIAL_WORDS = (
    "§: for the time it takes, it has judged only some of the images; its figure is of these, and the difference is "
    "taken on these alone. It is no best other where one has judged them all."
)

UNKNOWN_WORDS = "–: no difference could be taken, for it asks for maps of an earlier run, which were not kept."

UNSETTLED_WORDS = (
    "‡: its loss had not settled when its training ended, by a limit of time or with all its steps done; trained for "
    "longer it might be better."
)


def ahead_section(gathered: Gathered) -> str:
    """The whole section below its heading."""
    found = contests(gathered)
    if not found:
        return "There is nothing to compare yet: no study has both a method of ours and another one that are done."
    parts = [_default(gathered), _overview(gathered, found)]
    parts += [UNSETTLED_WORDS] if any(one.unsettled or one.best.unsettled for one in found) else []
    parts += [PARTIAL_WORDS] if any(not each.other.whole for one in found for each in one.against) else []
    parts += [UNKNOWN_WORDS] if any(each.unknown for one in found for each in one.against) else []
    parts += [FEW_WORDS] if any(few(one.patients) for one in found) else []
    parts += [NO_INTERVAL_WORDS] if any(NO_INTERVAL in interval(each) for one in found for each in one.against) else []
    parts += ["\n".join(f"- {line}" for line in _tallies(gathered, found))]
    parts += ["### Where we lose", losses(gathered, found)]
    for name in dict.fromkeys(one.study for one in found):
        own = [one for one in found if one.study == name]
        parts.append(f"### {gathered.title(name)}: ours against each other method")
        parts.append("\n".join(f"- {_sentence(one)}" for one in own))
        parts.append(folded("all differences, the smallest first", "\n\n".join(map(_differences, own))))
    return "\n\n".join(parts)


def _default(gathered: Gathered) -> str:
    """Which of ours was named."""
    named = gathered.methods[DEFAULT].title if DEFAULT in gathered.methods else DEFAULT
    return f"Our default, whatever the figures: {named}."


def _overview(gathered: Gathered, found: Sequence[Contest]) -> str:
    header = ["study", "figure", "best of ours", "best other", "ours", "other", "difference [95 %]", "ratio"]
    header += ["our default", "default less other [95 %]"]
    rows = []
    for one in found:
        leader, default = one.leader, one.default
        rows.append(
            [
                *(gathered.title(one.study), WORDS[one.figure], titled(one.best), titled(leader.other)),
                *(figure(one.value), figure(leader.value), _difference(one, leader)),
                f"{one.ratio:.2f}" if one.figure in SHARES else NOTHING,
                *([figure(default.value), _difference(default, leader)] if default else [NOTHING] * 2),
            ]
        )
    return grid(header, rows, left=4)


def _difference(one: Contest, shown: Against) -> str:
    """To its best other, which is named where the row shows another one, as is any that is clearly ahead beside it."""
    leader = one.leader
    text = interval(leader)
    text += f" ({titled(leader.other)})" if leader.other is not shown.other else ""
    lost = [f"{titled(each.other)}, {interval(each)}" for each in one.lost if each is not leader]
    return f"{text}; clearly behind {listed(lost)}" if lost else text


def _tallies(gathered: Gathered, found: Sequence[Contest]) -> list[str]:
    lines = []
    for key in ("pixel_ap", "image_auroc"):
        own = [one for one in found if one.figure == key]
        clear = [one for one in own if one.clear]
        higher = [_highest(gathered, one) for one in own if not one.clear and one.leader.difference.value > 0]
        lower = [gathered.title(one.study) for one in own if not one.leader.difference.value > 0]
        line = f"{WORDS[key]}: ahead of every other method with the whole interval above zero on "
        line += _of(gathered, clear, own)
        line += f"; highest, but not so clearly, on {listed(higher)}" if higher else ""
        line += f"; not the highest on {listed(lower)}" if lower else ""
        named = [one.default for one in own if one.default]
        line += (
            f". Our default is ahead of every other so on {_of(gathered, [one for one in named if one.clear], named)}"
        )
        lines.append(f"{line[:1].upper()}{line[1:]}.")
    lines.append(f"Both at once, so clearly, by one and the same method: {_both(gathered, found)}.")
    twice = [one for one in found if one.figure == "pixel_ap" and one.ratio >= 2]
    lines.append(f"At least twice the pixel AP of the best other: {_told(gathered, twice)}.")
    return lines


def _both(gathered: Gathered, found: Sequence[Contest]) -> str:
    """On which studies which of ours are clearly ahead of every other by both figures, or only different ones are."""
    one_method, different = [], []
    by_name = {(one.study, one.figure): one for one in found}
    for study in dict.fromkeys(one.study for one in found):
        pair = [by_name[study, figure] for figure in ("pixel_ap", "image_auroc") if (study, figure) in by_name]
        if len(pair) == 2 and all(one.ahead for one in pair):
            of_pixels, of_images = ([f"*{own.entry.title}*" for own in one.ahead] for one in pair)
            told = _told(gathered, pair[1:])
            if same := [name for name in of_pixels if name in of_images]:
                one_method.append(f"{told}: {listed(same)}")
            else:
                different.append(f"{told}: {listed(of_pixels)} by pixel AP, {listed(of_images)} by image AUROC")
    text = "; ".join(one_method) or "on no study"
    return f"{text}. By different methods alone: {'; '.join(different)}" if different else text


def _highest(gathered: Gathered, one: Contest) -> str:
    """The study, with those that judged some images and are ahead on these."""
    behind = listed([titled(each.other) for each in one.in_part])
    return f"{gathered.title(one.study)} (but behind {behind})" if behind else gathered.title(one.study)


def _of(gathered: Gathered, some: Sequence[Contest], whole: Sequence[Contest]) -> str:
    number = f"{len(some)} of {count(len(whole), 'study', 'studies')}"
    return f"{number} ({_told(gathered, some)})" if some else number


def _told(gathered: Gathered, some: Sequence[Contest]) -> str:
    """The studies, each with what qualifies a lead on it."""
    told = []
    for one in some:
        peers = count(len(kinds(one.against)[0]), "peer")
        notes = [f"{len(one.unsettled)} of {peers} had not settled"] if one.unsettled else []
        notes += [f"{one.patients} patients only"] if few(one.patients) else []
        told.append(", ".join([gathered.title(one.study), *notes]))
    return "; ".join(told) or "on no study"


def _sentence(one: Contest) -> str:
    """Says who is ahead by how much, and against whom that is not clear."""
    words = WORDS[one.figure]
    times = f", {one.ratio:.2f} times its figure" if one.figure in SHARES else ""
    told = f"**{words[:1].upper()}{words[1:]}**: our best, {lead(one, times)}.{in_part(one)} {clearly(one)}"
    if one.default and one.default.best is one.best:
        return f"{told} It is our default too."
    if one.default:
        told += f" Our default, {lead(one.default)}.{in_part(one.default)} {clearly(one.default, names=False)}"
    return told


def _differences(one: Contest) -> str:
    header = [WORDS[one.figure], "its figure", f"{one.best.entry.title} less it [95 %]"]
    of_default = {}
    if one.default and one.default.best is not one.best:
        header.append(f"our default, {one.default.best.entry.title}, less it [95 %]")
        of_default = {each.other.entry.name: interval(each) for each in one.default.against}
    rows = []
    for each in one.against:
        cells = [titled(each.other), figure(each.value), interval(each)]
        rows.append(cells + ([of_default[each.other.entry.name]] if of_default else []))
    return grid(header, rows)
