"""Which runs there are, and in which order: what is cheap goes over all studies first, and bases before their users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

from benchmarks.environments import EnvironmentMissing, Environments
from benchmarks.fingerprints import code_of, figures_code, harness_code
from benchmarks.measuring import test_cases
from benchmarks.method import Entry, Family
from benchmarks.results import Name, Options, Place, State, key_of, read_result, state_of, study_fingerprint
from benchmarks.stages import NEEDS, Run, bases, read_fitted
from benchmarks.study import Study
from priorlens.errors import InputError

RANKS: dict[Family, int] = {"simple": 0, "ours": 1, "diffusion": 2, "anomalib": 3}
"""About how long families take: what nobody has waited for yet goes by these."""


@dataclass(frozen=True)
class Planned:
    """A run, what there is of it, and, where it cannot even start, why."""

    run: Run
    state: State
    impossible: str = ""

    @property
    def name(self) -> Name:
        return self.run.place.name

    @property
    def needed(self) -> list[Name]:
        """The runs whose models it reads."""
        place = self.run.place
        return [(place.study, base, place.seed) for base in bases(self.run.entry)]


def chosen_entries(methods: Mapping[str, Entry], names: Sequence[str]) -> list[Entry]:
    """Those named, with what they need; all of them, if none is. Raises InputError for an unknown one."""
    if unknown := [name for name in names if name not in methods]:
        raise InputError(f"{unknown[0]}: is no method; there are {', '.join(methods)}")
    wanted = set(names or methods)
    wanted |= {base for name in wanted for base in bases(methods[name])}
    return in_order([entry for name, entry in methods.items() if name in wanted])


def in_order(entries: Sequence[Entry]) -> list[Entry]:
    """By family, slow ones last in theirs, else as listed; but none before what it needs of these."""
    waiting = sorted(entries, key=lambda entry: (RANKS[entry.family], entry.slow))
    ordered: list[Entry] = []
    while waiting:
        open_ = {entry.name for entry in waiting}
        ready = next((entry for entry in waiting if not open_ & set(bases(entry))), None)
        if ready is None:
            raise ValueError(f"{waiting[0].name} needs itself")
        waiting.remove(ready)
        ordered.append(ready)
    return ordered


def planned(
    entries: Sequence[Entry],
    studies: Sequence[Study],
    seeds: Sequence[int],
    options: Options,
    environments: Environments,
    out: Path,
) -> list[Planned]:
    """Every run in its order, seed by seed, method by method, over all studies, with what there is of it."""
    fingerprints = {study.name: study_fingerprint(study) for study in studies}
    used, missing = _versions(entries, environments)
    listed = {entry.name: entry for entry in entries}
    codes, figures = codes_of(entries), figures_code()
    plan: list[Planned] = []
    states: dict[tuple[str, str, int], State] = {}
    for seed in seeds:
        for entry in entries:
            for study in studies:
                if not entry.suits(study):
                    continue
                of_study = partial(_key_of, options=options, study=fingerprints[study.name], used=used)
                keys = {name: of_study(listed[name], code=codes[name]) for name in bases(entry)}
                key = of_study(entry, code=codes[entry.name])
                place = Place(out, study.name, entry.name, seed)
                run = Run(entry, study, place, options, key, keys)
                of_bases = [states.get((study.name, base, seed)) for base in keys]
                state = _with_bases(run, state_of(place, key, figures), of_bases)
                impossible = missing.get(entry.environment, "")
                state = "done" if impossible and _came_about(place) else state  # or what there is would be lost
                states[study.name, entry.name, seed] = state
                plan.append(Planned(run, state, impossible))
    return plan


def _came_about(place: Place) -> bool:
    found = read_result(place.result)
    return found is not None and found["failed"] is None


def codes_of(entries: Sequence[Entry]) -> dict[str, list[str]]:
    """What is in the keys of each method: fingerprints of what all have in common, of itself and of what it needs."""
    common, own = harness_code(), {entry.name: code_of(entry.made_by) for entry in entries}
    return {entry.name: [common, *(own[name] for name in (entry.name, *bases(entry)))] for entry in entries}


def _key_of(
    entry: Entry, *, options: Options, study: str, used: Mapping[str, dict[str, str]], code: Sequence[str]
) -> dict[str, Any]:
    """That of `results`, without the minutes that it has no use for; of one that judges some images only, which."""
    key = key_of(options, used[entry.environment], study, code)
    if not entry.by_minutes:
        del key["options"]["peer_minutes"]
    return {**key, "every": entry.slow} if entry.slow > 1 else key


def _with_bases(run: Run, state: State, of_bases: Sequence[State | None]) -> State:
    """A run is stale too where what it needs has to be made again; one that failed for lack of it is missing."""
    if state != "missing" and {"missing", "stale"} & set(of_bases):
        return "stale"
    if state == "failed" and not any(run.lacks(fold) for fold in range(len(run.study.folds))):
        found = read_result(run.place.result)
        return "missing" if found and found["failed"].startswith(NEEDS) else state
    return state


def _versions(entries: Sequence[Entry], environments: Environments) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """Of every environment that is used; and, of one that cannot be had, why."""
    used: dict[str, dict[str, str]] = {}
    missing: dict[str, str] = {}
    for name in dict.fromkeys(entry.environment for entry in entries):
        try:
            used[name] = environments.versions(name)
        except EnvironmentMissing as error:
            used[name], missing[name] = {}, str(error)
    return used, missing


def to_do(plan: Sequence[Planned], again: Sequence[str] = (), retry: bool = False) -> list[Planned]:
    """What has to run: missing and stale ones, failed ones with `retry`, and those of the methods named in `again`.

    A run that needs one of these runs too. Of those of which only the figures are to be made again nothing else is.
    What is done runs once more where one that has to run needs its model, and that was not kept; the others that read
    it stay as they are, for a model of the same key is held to be the same.
    """
    renewed = set(again)
    chosen, begun = dict[Name, Planned](), set[Name]()
    for one in plan:
        wanted = one.state in ("missing", "stale") or (retry and one.state == "failed")
        wanted |= bool({one.run.entry.name, *bases(one.run.entry)} & renewed) or not begun.isdisjoint(one.needed)
        if wanted and not (one.impossible and one.state == "done"):
            chosen[one.name] = replace(one, state="done") if one.state == "unmeasured" else one
            begun.add(one.name)
        elif one.state == "unmeasured":
            chosen[one.name] = one
    lacking = _models_lacking([chosen[name].run for name in begun]) - begun
    for one in plan:
        if one.name in lacking and one.state in ("done", "unmeasured"):
            chosen[one.name] = replace(one, state="done")
    return [chosen[one.name] for one in plan if one.name in chosen]


def _models_lacking(runs: Sequence[Run]) -> set[Name]:
    """Whose models these need, which are not there."""
    return {
        (run.place.study, name, run.place.seed)
        for run in runs
        if run.entry.needs
        for fold in range(len(run.study.folds))
        for name in run.lacks(fold)
    }


def require_judgeable(studies: Sequence[Study]) -> None:
    """Raises InputError for a study without abnormal or healthy test images: methods would learn from it in vain."""
    for study in studies:
        try:
            test_cases(study)
        except InputError as error:
            raise InputError(f"{study.name} cannot be judged: {error}") from error


def require_runs(plan: Sequence[Planned], again: Sequence[str]) -> None:
    """Raises InputError where a method that is to run again has no run in the plan."""
    there = {one.run.entry.name for one in plan}
    if idle := [name for name in again if name not in there]:
        raise InputError(
            f"--again {idle[0]}: is not among these --methods, or not meant for these studies; name it in --methods "
            "too, or leave it out"
        )


def require_nothing_lost(todo: Sequence[Planned]) -> None:
    """Raises InputError where a run in brief would take the place of a whole one's result, or of its models."""
    for place in (one.run.place for one in todo):
        for found in (read_result(place.result), read_fitted(place, 0)):
            if found and not found["key"]["options"]["quick"]:
                raise InputError(
                    f"{place.out}: --quick would replace what {place.method} has of {place.study} there; give it an "
                    "--out of its own"
                )


def counted(plan: Sequence[Planned]) -> dict[str, int]:
    """How many runs are in each state."""
    return {state: sum(one.state == state for one in plan) for state in get_args(State)}
