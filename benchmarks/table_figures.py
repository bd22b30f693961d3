"""The tables of a study: how well every method did, over all and by kind, and what it cost."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from benchmarks.measuring import POOLED
from benchmarks.results import read_scores
from benchmarks.table_markdown import (
    FEW_WORDS,
    NO_INTERVAL,
    NO_INTERVAL_WORDS,
    NOTHING,
    amount,
    bold,
    bracketed,
    count,
    figure,
    folded,
    grid,
    listed,
    plain,
)
from benchmarks.table_remarks import Notes, remarks
from benchmarks.table_results import FAMILIES, Gathered, Runs
from priorlens.datasets import HEALTHY

COLUMNS = {
    "image_auroc": "image AUROC",
    "image_ap": "image AP",
    "fpr95": "FPR95 ↓",
    "pixel_auroc": "pixel AUROC",
    "pixel_ap": "pixel AP",
    "aupro": "AUPRO",
    "dice_best": "best Dice",
    "pixel_auroc_per_image": "pixel AUROC in body",
}
"""Keys of `METRICS`, as short as a table of this width wants them."""

MAIN = ("image_auroc", "pixel_ap")
"""Shown with their intervals."""

OF_IMAGES = ("image_auroc", "image_ap", "fpr95")
"""Defined without masks."""


def study_section(gathered: Gathered, study: str) -> str:
    """All of a study, under its heading."""
    runs = gathered.runs(study)
    notes = Notes()
    parts = [f"### {gathered.title(study)}", about(gathered, study), quality(gathered, runs, POOLED, notes)]
    parts += [notes.text()] if notes.numbers else []
    kinds = sorted({kind for one in runs for kind in one.kinds})
    tables = [f"**{kind}** against all healthy images\n\n{quality(gathered, runs, kind, None)}" for kind in kinds]
    tables = tables if len(kinds) > 1 else []
    marks = {"†": FEW_WORDS, NO_INTERVAL: NO_INTERVAL_WORDS}
    parts += [words for mark, words in marks.items() if any(mark in text for text in (*parts, *tables))]
    if tables:
        parts.append(folded(f"{gathered.title(study)} by kind: {listed(kinds)}", "\n\n".join(tables)))
    parts.append(folded(f"{gathered.title(study)}: time and memory", cost(runs)))
    return "\n\n".join(parts)


def about(gathered: Gathered, study: str) -> str:
    """What the images are, and how many were judged."""
    known = gathered.studies.get(study)
    sentences = [f"{known.about[:1].upper()}{known.about[1:]}."] if known else []
    done = (
        (rows, result)
        for one in gathered.runs(study)
        for result in (one.done if one.whole else ())
        if (rows := _scores(gathered, one, result))
    )
    if first := next(done, None):
        rows, result = first
        kinds = Counter(row["kind"] for row in rows)
        ill = listed([f"{kinds[kind]} of {kind}" for kind in sorted(kinds) if kind != HEALTHY])
        patients = count(len({row["group"] for row in rows}), "patient")
        unknown = len({row["group"] for row in rows}) == len(rows)
        by = "each counted as a patient of its own" if unknown else f"of {patients}"
        sentences.append(f"Judged: {kinds[HEALTHY]} healthy images and {ill}, {by}.")
        learned = result["fit"]["images"] if result["fit"] and "images" in result["fit"] else None
        sentences += [f"Learned from {count(learned, 'healthy image')}."] if learned else []
    if known and len(known.folds) > 1:
        sentences.append(_of_folds(gathered, study, len(known.folds)))
    if gathered.planted(study):
        sentences.append("**The lesions are planted**: figures say how well these are found, not disease.")
    return " ".join(sentences)


def _scores(gathered: Gathered, runs: Runs, result: Mapping[str, Any]) -> list[dict[str, str]]:
    """Empty where the predictions are gone."""
    with suppress(OSError):
        return read_scores(runs.place(gathered.out, result).predictions)
    return []


def _of_folds(gathered: Gathered, study: str, folds: int) -> str:
    """Which images are compared with which, where folds have models of their own."""
    if not gathered.within(study):
        return (
            f"**Image figures, also those at the same height, are pooled: they compare scores of {folds} models**, one "
            "a fold, for not every result has them within folds."
        )
    return (
        f"Image figures are taken within each of the {folds} folds, which have a model each, and averaged by their "
        "patients; at the same height, patients are paired within a fold only. Pixel figures pool the maps of all "
        "folds. The results' files hold the pooled image figures too."
    )


def quality(gathered: Gathered, runs: Sequence[Runs], kind: str, notes: Notes | None) -> str:
    """Methods in their families; the best of each column is bold. With `notes`, remarks are numbered into it."""
    keys = [key for key in COLUMNS if key in OF_IMAGES or any(one.values(key, kind) for one in runs)]
    matched = kind == POOLED and any(one.matched()[0] is not None for one in runs)
    heads = [COLUMNS[key] + (" [95 %]" if key in MAIN else "") for key in keys]
    heads += ["image AUROC, same height [95 %]"] * matched + ["notes"] * (notes is not None)
    whole = [one for one in runs if one.whole]
    best = {key: _best([one.value(key, kind) for one in whole], key) for key in keys}
    best_matched = _best([one.matched()[0] for one in whole])
    patients = (
        {key: gathered.patients(runs[0].study, kind, pixels=key not in OF_IMAGES) for key in MAIN} if runs else {}
    )

    def row(one: Runs) -> list[str]:
        cells = [_cell(one, key, kind, best[key], patients.get(key)) for key in keys]
        if matched:
            value, low, high = one.matched()
            cells.append(bold(figure(value), best_matched) + bracketed(value, low, high, patients["image_auroc"]))
        return cells + ([notes.marks(remarks(gathered, one))] if notes is not None else [])

    return _by_family(runs, ["method", *heads], row)


def _best(values: Iterable[float | None], key: str = "") -> str:
    """The best figure as it is printed."""
    known = [value for value in values if value is not None]
    return figure((min if key == "fpr95" else max)(known)) if known else ""


def _cell(one: Runs, key: str, kind: str, best: str, patients: int | None) -> str:
    """The mean over seeds, its interval where it is a main figure, and lowest and highest of several seeds."""
    values = one.values(key, kind)
    text = figure(one.value(key, kind))
    text = bold(text, best) if one.whole else text
    if key in MAIN:
        text += bracketed(one.value(key, kind), *one.interval(key, kind), patients)
    if len(values) > 1:
        text += f" ({figure(min(values))} to {figure(max(values))})"
    return text


def _by_family(runs: Sequence[Runs], header: Sequence[str], row: Callable[[Runs], list[str]]) -> str:
    rows = []
    for family, title in FAMILIES.items():
        members = [one for one in runs if one.entry.family == family]
        rows += [[f"*{title}*", *[""] * (len(header) - 1)]] if members else []
        rows += [[one.entry.title, *row(one)] for one in members]
    return grid(header, rows)


def cost(runs: Sequence[Runs]) -> str:
    """Seconds, milliseconds, calls of networks and bytes, the median over seeds; of which processors, if of several."""
    heads = ["seconds to fit", "ms an image", "fastest to slowest", "calls an image", "peak MB, fitting"]
    heads += ["peak MB, scoring", "model, MB"]
    usual = _usual_processor(runs)
    by_name = {one.entry.name: one for one in runs}

    def mark(*some: Runs) -> str:
        return " ¶" if any(processor != usual for one in some for processor in one.processors) else ""

    def row(one: Runs) -> list[str]:
        if not one.done:
            return [NOTHING] * len(heads)
        timed = one.times
        learned_by = [by_name[name] for name in one.entry.needs.split("+") if name in by_name]
        low, high = min(each["low"] for each in timed), max(each["high"] for each in timed)
        ms = amount(statistics.median(each["median"] for each in timed)) + ("" if one.in_turns else " *")
        seconds = _fit_seconds(one)
        return [
            seconds if seconds == NOTHING else seconds + mark(one, *learned_by),
            ms + mark(one),
            f"{amount(low)} to {amount(high)}{mark(one)}",
            amount(_median(result["score"]["calls"] for result in one.done)),
            *(
                amount(_median((result["memory"] or {}).get(key) for result in one.done))
                for key in ("fit_mb", "score_mb")
            ),
            amount(_median(result["model_bytes"] / 2**20 for result in one.done if result["model_bytes"] is not None)),
        ]

    return "\n\n".join(filter(None, (_by_family(runs, ["method", *heads], row), _other_processors(runs, usual))))


def _usual_processor(runs: Sequence[Runs]) -> str:
    """That of most methods; empty where no result tells one."""
    counts = Counter(processor for one in runs for processor in one.processors)
    return counts.most_common(1)[0][0] if counts else ""


def _other_processors(runs: Sequence[Runs], usual: str) -> str:
    """What their mark means; nothing where there is one alone."""
    others = sorted({processor for one in runs for processor in one.processors if processor != usual})
    if not others:
        return ""
    return plain(
        f"¶: times of another processor than those of most rows, and not to be compared with them: {listed(others)} in "
        f"place of {usual}. Earlier results tell a processor by its name alone, so that two names may be of one."
    )


def _fit_seconds(one: Runs) -> str:
    """Of one model; folds are averaged."""
    fits = [result["fit"] for result in one.done if result["fit"] and result["fit"]["seconds"]]
    if not fits:
        return NOTHING
    seconds = amount(statistics.median(statistics.fmean(fit["seconds"]) for fit in fits))
    shared = fits[0].get("shared_with")
    return f"{seconds} (of {shared.replace('+', ' and ')})" if shared else seconds


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
