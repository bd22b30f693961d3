"""Whom the best of ours, and the default of ours, are behind, and by how much."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.table_contests import WORDS, Against, Contest
from benchmarks.table_markdown import bracketed, figure, listed
from benchmarks.table_results import Gathered
from benchmarks.table_verdicts import titled


def losses(gathered: Gathered, found: Sequence[Contest]) -> str:
    """A line for each figure and each of the two, the clear losses first."""
    told = [line for one in found for line in _of(gathered, one)]
    ordered = sorted(told, key=lambda line: "clearly behind" not in line)
    return "\n".join(ordered) or "In none of these figures is the best of ours, or our default, below another method."


def _of(gathered: Gathered, one: Contest) -> Iterator[str]:
    """Of the best, and of the default where that is another one."""
    default = one.default
    both = default is not None and default.best is one.best
    contests = [("our best, and our default,", one)] if both else [("our best,", one), ("our default,", default)]
    for who, contest in contests:
        if contest and (behind := _behind(contest)):
            heading = f"**{gathered.title(one.study)}, {WORDS[one.figure]}**"
            yield f"- {heading}: {who} {titled(contest.best)} ({figure(contest.value)}), is {behind}."


def _behind(one: Contest) -> str:
    """The others that are ahead of it, clearly and not, and those that are on a part of the images."""
    ahead = [each for each in one.against if each.difference.value < 0]
    parts = {
        "clearly behind": [each for each in ahead if each.other.whole and each.lost],
        "behind, but not clearly,": [each for each in ahead if each.other.whole and not each.lost],
        "on a part of the images clearly behind": [each for each in one.in_part if each.lost],
        "on a part of the images behind, but not clearly,": [each for each in one.in_part if not each.lost],
    }
    return "; ".join(f"{words} {listed(list(map(_by, some)))}" for words, some in parts.items() if some)


def _by(each: Against) -> str:
    """How far behind whom; the interval is that of the loss."""
    found = each.difference
    low, high = 0.0 - found.high, 0.0 - found.low  # none is ever -0
    between = bracketed(found.value, low, high, each.patients, sign=True)
    return f"{titled(each.other)} by {figure(-found.value)}{between}"
