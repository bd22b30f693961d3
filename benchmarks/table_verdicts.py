"""How one of ours stands against the others by one figure, in words."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.table_contests import Against, Contest
from benchmarks.table_markdown import bracketed, count, few, figure, listed, signed
from benchmarks.table_results import Runs


def titled(runs: Runs) -> str:
    """With the marks of what qualifies its figures."""
    return " ".join([runs.entry.title, *(["‡"] if runs.unsettled else []), *([] if runs.whole else ["§"])])


def interval(each: Against) -> str:
    """The difference, with its interval."""
    found = each.difference
    return signed(found.value) + bracketed(found.value, found.low, found.high, each.patients, sign=True)


def verdict(each: Against) -> str:
    """Of ours; a preposition ends it."""
    difference = each.difference
    if each.clear:
        return "clearly ahead of"
    if each.lost:
        return "clearly behind"
    if difference.value == 0:
        return "level with"
    return "ahead of, but not clearly," if difference.value > 0 else "behind, but not clearly,"


def lead(one: Contest, times: str = "") -> str:
    """Against the best other, and against all that are clearly ahead; those come first, for they decide.

    times: what follows the difference to the best other.
    """
    leader = one.leader
    found = f"{verdict(leader)} the best other, {_told(leader)}{times}"
    lost = listed([_told(each) for each in one.lost if each is not leader])
    if not lost:
        return f"{titled(one.best)} ({figure(one.value)}), is {found}"
    parts = [found, f"clearly behind {lost}"] if leader.lost else [f"clearly behind {lost}", found]
    return f"{titled(one.best)} ({figure(one.value)}), is {', and '.join(parts)}"


def _told(each: Against) -> str:
    return f"{titled(each.other)} ({figure(each.value)}): {interval(each)}"


def in_part(one: Contest) -> str:
    """Of others that judged some images and are ahead there, a sentence each; nothing where there is none."""
    return "".join(
        f" On the images that it judged, {titled(each.other)} is {'clearly ahead' if each.lost else 'ahead'} of "
        f"{one.best.entry.title}{'' if each.lost else ', but not clearly'}: {interval(each)}."
        for each in one.in_part
        if each is not one.leader
    )


def clearly(one: Contest, names: bool = True) -> str:
    """Of how many peers and baselines it is clearly ahead, how many of them had not settled, and of whom it is not."""
    if few(one.patients):
        return f"Over {count(one.patients or 0, 'patient')} no difference is called clear."
    peers, simple = kinds(one.against)
    text = " and ".join(_share(some, name) for some, name in ((peers, "peer"), (simple, "simple baseline")) if some)
    doubtful = [each for each in one.against if not each.difference.low > 0]
    told = [f"{titled(each.other)} ({interval(each)})" for each in doubtful]
    return f"Clearly ahead of {text}; not of {listed(told)}." if told and names else f"Clearly ahead of {text}."


def kinds(against: Sequence[Against]) -> tuple[list[Against], list[Against]]:
    """Peers, and simple baselines, to be ahead of which says less."""
    simple = [each for each in against if each.other.entry.family == "simple"]
    return [each for each in against if each.other.entry.family != "simple"], simple


def _share(some: Sequence[Against], name: str) -> str:
    ahead = [each for each in some if each.clear]
    unsettled = sum(each.other.unsettled for each in ahead)
    note = f" ({unsettled} of them not settled when training ended)" if unsettled else ""
    return f"{len(ahead)} of {count(len(some), name)}{note}"
