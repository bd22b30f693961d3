"""What was run: machine, versions, options, dates, and what did not come about."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from benchmarks.fingerprints import figures_code
from benchmarks.methods.anomalib_list import LEFT_OUT
from benchmarks.plan import codes_of
from benchmarks.table_markdown import amount, count, duration, grid, listed, plain
from benchmarks.table_remarks import options_of, peer_minutes_of
from benchmarks.table_results import FAMILIES, Gathered


def ran_section(gathered: Gathered) -> str:
    """A table of facts; where runs differ in one, it has a line each."""
    done = [one for one in gathered.results if one["failed"] is None]
    facts = [
        ("runs", f"{len(done)} done, {len(gathered.results) - len(done)} failed, {_missing(gathered)} missing"),
        ("methods", f"{len({one['method'] for one in gathered.results})} of {len(gathered.methods)}"),
        ("studies", listed([gathered.title(name) for name in gathered.names])),
        ("seeds", listed([str(seed) for seed in gathered.seeds])),
        ("began", _dates(gathered)),
        ("time", _time(gathered)),
        *(("machine", text) for text in _different(gathered, _machine)),
        *(("threads", text) for text in _different(gathered, _threads)),
        *(("options", text) for text in _different(gathered, options_of)),
        *(("minutes that a peer may train", text) for text in _different(gathered, peer_minutes_of)),
        *(("versions", text) for text in _different(gathered, _versions)),
        ("load of the machine as runs began", _load(gathered)),
    ]
    told = grid(["", ""], [[name, plain(text)] for name, text in facts], left=2)
    quick = any(one["key"].get("options", {}).get("quick") for one in gathered.results)
    return f"**Some of this was made with `--quick`: its figures mean nothing.**\n\n{told}" if quick else told


def _missing(gathered: Gathered) -> int:
    return sum(len(studies) for studies in gathered.missing().values())


def _different(gathered: Gathered, told: Any) -> list[str]:
    """What runs say, each once, the most frequent first; with how many say so where they do not agree."""
    found: dict[str, int] = {}
    for one in gathered.results:
        if text := told(one):
            found[text] = found.get(text, 0) + 1
    order = sorted(found, key=lambda text: -found[text])
    return order if len(order) == 1 else [f"{text} ({count(found[text], 'run')})" for text in order]


def _machine(one: Mapping[str, Any]) -> str:
    facts = one["machine"]
    if not facts:
        return ""
    gpu = f"GPU {facts['gpu']}" if facts["gpu"] else "no GPU used"
    return f"{facts['cpu']}, {count(facts['cores'], 'core')}, {facts['memory_gb']} GB, {gpu}"


def _threads(one: Mapping[str, Any]) -> str:
    if not one["machine"]:
        return ""
    timed = one["score"]["ms_per_image"].get("threads") if one["score"] else None
    apart = f", {timed} while scoring was timed" if timed else ""
    return f"{one['machine']['threads']} a run{apart}"


def _versions(one: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in one["key"].get("versions", {}).items())


def _dates(gathered: Gathered) -> str:
    started = sorted(datetime.datetime.fromisoformat(one["started"]) for one in gathered.results if one["started"])
    if not started:
        return "–"
    first, last = (f"{moment:%Y-%m-%d %H:%M} UTC" for moment in (started[0], started[-1]))
    return f"first run {first}, last run {last}"


def _time(gathered: Gathered) -> str:
    """Of whole runs; of those that do not tell it, that of learning and judging: the rest comes on top."""
    whole = [one["seconds"] for one in gathered.results if one.get("seconds") is not None]
    learned = judged = 0.0
    for one in gathered.results:
        if one.get("seconds") is not None:
            continue
        if one["fit"] and not one["fit"].get("shared_with"):
            learned += sum(one["fit"]["seconds"])
        if one["score"]:
            judged += one["score"]["judged"] * one["score"]["ms_per_image"]["median"] / 1000
    parts = [f"{duration(sum(whole))}, all runs together"] if whole else []
    if len(whole) < len(gathered.results):
        others = f"{count(len(gathered.results) - len(whole), 'other run')}" if whole else "all runs together"
        parts.append(f"{duration(learned)} of learning and about {duration(judged)} of judging, {others}")
    return "; ".join(parts)


def _load(gathered: Gathered) -> str:
    loads = [one["machine"]["load"][0] for one in gathered.results if one["machine"] and one["machine"]["load"]]
    return f"{amount(min(loads))} to {amount(max(loads))} processes" if loads else "–"


def absent_section(gathered: Gathered) -> str:
    """What failed, what is missing, and what was left out on purpose, a line each."""
    lines = []
    for one in gathered.results:
        if one["failed"] is not None:
            seed = f", seed {one['seed']}" if len(gathered.seeds) > 1 else ""
            lines.append(
                f"**failed**, {gathered.methods[one['method']].title} on {one['study']}{seed}: {plain(one['failed'])}"
            )
    lacking: dict[str, list[str]] = {}
    for title, studies in gathered.missing().items():
        lacking.setdefault(listed(studies), []).append(title)
    lines += [f"**missing**, {'; '.join(titles)}: {studies}" for studies, titles in lacking.items()]
    if away := listed([name for name in gathered.names if name not in gathered.studies]):
        lines.append(f"**not compared, nor shown**, for the images measured on are not here: {away}")
    if outdated := listed([gathered.methods[name].title for name in _outdated(gathered)]):
        lines.append(f"**of earlier code**: what these do has changed since, and their figures may: {outdated}")
    lines += [f"**left out**, {title}: {plain(reason)}" for title, reason in LEFT_OUT]
    return "\n".join(f"- {line}." if not line.endswith(".") else f"- {line}" for line in lines)


def _outdated(gathered: Gathered) -> list[str]:
    """Methods with a result that the code beside this one would not have made, in the order of the list."""
    now = codes_of(list(gathered.methods.values()))
    figures = figures_code()
    found = {
        one["method"]
        for one in gathered.results
        if one["key"].get("code") != now[one["method"]] or (one["figures_code"] or figures) != figures
    }
    return [name for name in gathered.methods if name in found]


def methods_section(gathered: Gathered) -> str:
    """Who the methods are, and where they come from."""
    rows = []
    for family, title in FAMILIES.items():
        for entry in gathered.methods.values():
            if entry.family == family:
                slow = f"one test image in {entry.slow}" if entry.slow > 1 else ""
                shares = f"model of {entry.needs.replace('+', ' and ')}" if entry.needs else ""
                rows.append(
                    [
                        entry.title,
                        f"`{entry.name}`",
                        title,
                        plain(entry.reference),
                        "; ".join(filter(None, (entry.limits, slow, shares))),
                    ]
                )
    return grid(["method", "name", "family", "from", "limits"], rows, left=5)
