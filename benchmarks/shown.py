"""Which six images of a study are shown, and the maps of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.results import MAPS, Place
from benchmarks.table_outcomes import Outcomes, inside
from benchmarks.table_results import Runs
from priorlens.datasets import HEALTHY
from priorlens.outputs import atomic_write, write_json

QUANTILES = (0.8, 0.6, 0.4, 0.2)
"""Where the first four images stand among all, by how well our best method does on them."""

WORST = 2
"""So many more images, those on which it does worst."""

SMALL_MAPS = "shown.npz"
"""Of a run's predictions, where the maps of all images were not kept."""

SIDE = 96
"""In pixels, to which these are made smaller."""


@dataclass(frozen=True)
class Shown:
    """The images of a study's pictures, and how they were chosen: by which of ours, the best by which figure."""

    names: tuple[str, ...]
    best: str
    figure: str
    measure: str


def shown_images(outcomes: Outcomes, runs: Sequence[Runs]) -> Shown | None:
    """Chosen now if all maps are there, else those that were chosen while they were; None where there are none."""
    path = outcomes.out / "shown" / f"{outcomes.study.name}.json"
    if not all(one.place(outcomes.out, one.done[0]).has_maps for one in runs):
        told = _told(path)
        return told if told and set(told.names) <= outcomes.cases.keys() else None
    chosen = _chosen(outcomes, runs)
    if chosen:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, asdict(chosen))
    return chosen


def _told(path: Path) -> Shown | None:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return Shown(tuple(told["names"]), told["best"], told["figure"], told["measure"])
    except (OSError, ValueError, KeyError):
        return None


def best_of_ours(runs: Sequence[Runs], key: str) -> Runs | None:
    """By this figure, of those that have judged all images."""
    ours = [one for one in runs if one.ours and one.whole and one.value(key) is not None]
    return max(ours, key=lambda one: one.value(key) or 0.0, default=None)


def _chosen(outcomes: Outcomes, runs: Sequence[Runs]) -> Shown | None:
    """By our best method's maps where there are masks, else by its scores; None where there is nothing to choose by."""
    for key, measure in (("pixel_ap", "its pixel AUROC in the body"), ("image_auroc", "its score")):
        if best := best_of_ours(runs, key):
            judged = outcomes.read(best.place(outcomes.out, best.done[0]), maps=True)
            ill = [one for one in judged if one.kind != HEALTHY]
            marks = {one.name: inside(one) if key == "pixel_ap" else one.anomaly for one in ill}
            names = ranked({name: mark for name, mark in marks.items() if not np.isnan(mark)})
            return Shown(names, best.entry.name, key, measure) if names else None
    return None


def ranked(marks: Mapping[str, float]) -> tuple[str, ...]:
    """The images at `QUANTILES` of the marks, then the `WORST`; none twice, and fewer where there are not so many."""
    order = sorted(marks, key=lambda name: (marks[name], name))
    worst = order[:WORST][::-1]
    rest = order[WORST:]
    places = [round(quantile * (len(order) - 1)) - WORST for quantile in QUANTILES]
    middle = [rest[min(max(place, 0), len(rest) - 1)] for place in places] if rest else []
    return tuple(dict.fromkeys([*middle, *worst]))


def read_maps(place: Place, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Of these images, as far as this method judged them: as they are, or as `write_small_maps` has left them."""
    path = place.predictions / (MAPS if place.has_maps else SMALL_MAPS)
    if not path.is_file():
        return {}
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in names if name in stored}


def write_small_maps(folder: Path, maps: Mapping[str, np.ndarray]) -> None:
    """Maps of one method as small grey pictures on one scale: enough to be shown beside each other, not to measure."""
    if not maps:
        return
    low, high = limits(maps)
    with atomic_write(folder / SMALL_MAPS) as file:
        np.savez_compressed(file, **{name: _grey(one, low, high) for name, one in maps.items()})


def limits(maps: Mapping[str, np.ndarray]) -> tuple[float, float]:
    """Values that are shown as the darkest and as the brightest."""
    low, high = np.quantile(np.concatenate([one.ravel() for one in maps.values()]), [0.01, 0.998])
    return float(low), max(float(high), float(low) + 1e-9)


def _grey(one: np.ndarray, low: float, high: float) -> np.ndarray:
    from PIL import Image

    whole = Image.fromarray(np.clip((one - low) / (high - low), 0, 1).astype(np.float32))
    scale = min(1.0, SIDE / max(one.shape))
    height, width = (max(1, round(scale * side)) for side in one.shape)
    return np.rint(255 * np.asarray(whole.resize((width, height), Image.Resampling.BOX))).astype(np.uint8)
