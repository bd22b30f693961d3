"""Several runs at a time, none beside what it needs."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from threading import Event

from benchmarks.environments import Environments
from benchmarks.plan import Planned
from benchmarks.results import Name
from benchmarks.runner import Disturbed, Limits, OutOfBudget, given_before, one_run, summary

MORE = 1.1
"""Times what a run was given in vain, the least that the budget has to have left before it is begun again."""


def run_all(todo: Sequence[Planned], environments: Environments, limits: Limits) -> int:
    """Do these runs in their order; returns how many were done before the budget was spent. Says so on stderr.

    What was killed or took too long beside others is done again at the end, alone and with all threads. Left out are
    those that were given as much before and did not end, with those that need them.
    """
    heads = {}
    for number, one in enumerate(todo, 1):
        heads[one.name] = f"[{number}/{len(todo)}] {' '.join(map(str, one.name))}"
    done, disturbed = _side_by_side(todo, environments, limits, heads)
    alone = replace(limits, threads=limits.threads * limits.jobs, jobs=1)
    return done + _side_by_side(disturbed, environments, alone, heads)[0]


def _side_by_side(
    todo: Sequence[Planned], environments: Environments, limits: Limits, heads: Mapping[Name, str]
) -> tuple[int, list[Planned]]:
    """How many were done; and which were disturbed, with those that need them."""
    limits = replace(limits, stop=Event())
    waiting, at_work, disturbed = list(todo), dict[Future[str], Planned](), list[Planned]()
    left, done = set[Name](), 0
    # Workers die with the thread that started them: those of the pool live as long as the pool.
    with ThreadPoolExecutor(limits.jobs) as pool:
        try:
            while waiting or at_work:
                while len(at_work) < limits.jobs and (one := _next(waiting, at_work.values(), limits)):
                    waiting.remove(one)
                    if set(one.needed) & {each.name for each in disturbed}:
                        disturbed.append(one)
                    elif why := _too_long(one, left, limits):
                        left.add(one.name)
                        _say(f"{heads[one.name]}: left for a larger budget, {why}")
                    else:
                        at_work[pool.submit(_done, one, environments, limits)] = one
                if not at_work:
                    break
                for ended in wait(at_work, return_when=FIRST_COMPLETED).done:
                    one = at_work.pop(ended)
                    try:
                        _say(f"{heads[one.name]}: {ended.result()}")
                        done += 1
                    except Disturbed as failed:
                        disturbed.append(one)
                        _say(f"{heads[one.name]}: once more alone, {failed}")
                    except OutOfBudget:
                        continue
        finally:
            limits.stop.set()
    return done, disturbed


def _next(waiting: Sequence[Planned], at_work: Collection[Planned], limits: Limits) -> Planned | None:
    """The first one whose models nobody has to make any more; None where there is none now, or no time."""
    if time.monotonic() >= limits.until:
        return None
    unmade = {one.name for one in (*waiting, *at_work)}
    return next((one for one in waiting if not unmade.intersection(one.needed)), None)


def _too_long(planned: Planned, left: Collection[Name], limits: Limits) -> str:
    """Why the budget cannot suffice, if that is known."""
    if needed := [name for name in planned.needed if name in left]:
        return f"needs {' and '.join(base for _, base, _ in needed)}"
    given = given_before(planned, limits.threads)
    vain = given and MORE * given >= limits.until - time.monotonic()
    return f"{given / 60:.3g} minutes did not suffice before" if vain else ""


def _done(planned: Planned, environments: Environments, limits: Limits) -> str:
    """What there is to say of the run, now that it was done. Raises OutOfBudget and Disturbed."""
    began = time.monotonic()
    result = one_run(planned, environments, limits)
    return summary(result, time.monotonic() - began)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
