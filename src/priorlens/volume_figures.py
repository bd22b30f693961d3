"""What is measured on scans whose truth is known: by scan, by slice, by voxel and by lesion.

As in `priorlens.evaluation`, every kind of abnormality stands against the healthy scans, intervals are those of
resampled patients, and a figure that the data do not define is null. A scan's map is not kept: of its voxels there
remain counts (`VoxelCounts`), of its peaks `priorlens.froc.ScanCandidates`, together about a megabyte.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int, Int32
from rich.table import Table

from priorlens import froc, metrics, roc
from priorlens.bootstrap import LEVEL, Estimate, Figure, estimates, interval, mean_estimate, multiplicities
from priorlens.datasets import HEALTHY
from priorlens.errors import InputError
from priorlens.evaluation import estimate_facts, interval_cell
from priorlens.volumes.volume import Layout, Plane

SCHEMA = 1

SCAN_METRICS = {
    "scan_auroc": "scan AUROC",
    "scan_ap": "scan AP",
    "slice_auroc": "slice AUROC",
    "slice_auroc_matched": "slice AUROC, same height, other patients",
    "voxel_auroc": "voxel AUROC in body",
    "voxel_ap": "voxel AP in body",
    "dice_best": "best Dice, one threshold for all",
    "dice_best_per_scan": "best Dice, mean per scan",
    "cpm": "lesions found, mean of the seven below (CPM)",
    **{froc.name_of(rate): f"lesions found at {rate:g} false positives per scan" for rate in froc.RATES},
}
"""Keys of the figures in their order, with the words of the table; all in [0, 1], higher is better."""

COUNTS = {
    "lesions": "lesions",
    "lesion_slices": "slices with a lesion",
    "matched_lesion_slices": "of these, with a partner of the same height",
    "matched_pairs": "pairs of slices of the same height",
}
"""Keys of the counts that the table shows, with its words."""

MATCH_MM = 2.5
"""Heights that differ by no more than this are the same."""

FINENESS = 4096
"""Of the voxels of one sort that lie above a bin of `VoxelCounts`, one in this many at most is taken down in it.

Counts at any threshold are then low by at most that share, so that the best Dice is off by less than 0.0003 and the
AUROC by less than 0.001 whatever the values. AP has no such bound; measured on 30 made maps of 1.7 million voxels, of
five distributions, all three were off by less than 0.00003.
"""

_VOXEL_FIGURES: dict[str, Figure] = {
    "voxel_auroc": roc.auroc,
    "voxel_ap": roc.average_precision,
    "dice_best": roc.best_dice,
}
_QUANTILES = 1024
_RESAMPLES_AT_ONCE = 64
_ROUNDING = 1e-6


@dataclass(frozen=True)
class VoxelCounts:
    """How many voxels of lesions, and how many others, a map has at each value: the lowest of a bin, ascending."""

    values: Float32[np.ndarray, " bin"]
    lesion: Int32[np.ndarray, " bin"]
    other: Int32[np.ndarray, " bin"]


@dataclass(frozen=True)
class ScanOutcome:
    """One scored test scan: its kind (`good` is healthy), its patient, its scores, and what is known of the truth.

    anomaly: of the scan. slice_anomaly: of each slice; NaN leaves a slice without lesion out, as one without body, and
    makes the slices' figures NaN where the slice holds a lesion.
    heights_mm: where each slice lies along the slicing direction. They are compared between patients, which has a
    meaning where scans are registered to one another; else replace them by heights above something anatomical.
    lesion_voxels: of each slice. None, as `voxels` and `candidates`, where it is not known where the lesions are.
    voxels: only of abnormal scans.
    """

    name: str
    group: str
    kind: str
    anomaly: float
    slice_anomaly: Float[np.ndarray, " slice"]
    heights_mm: Float64[np.ndarray, " slice"]
    lesion_voxels: Int[np.ndarray, " slice"] | None = None
    voxels: VoxelCounts | None = None
    candidates: froc.ScanCandidates | None = None

    @property
    def slice_lesion(self) -> Bool[np.ndarray, " slice"] | None:
        """Which slices hold any of a lesion."""
        return None if self.lesion_voxels is None else self.lesion_voxels > 0


def outcome_of(
    *,
    name: str,
    group: str,
    kind: str,
    anomaly: float,
    slice_anomaly: Float[np.ndarray, " slice"],
    anomaly_map: Float32[np.ndarray, "_i _j _k"],
    mask: Bool[np.ndarray, "_i _j _k"] | None,
    body: Bool[np.ndarray, "_i _j _k"] | None,
    affine: Float[np.ndarray, "4 4"],
    plane: Plane = "axial",
    min_size: float = 0.0,
    tolerance_mm: float = 0.0,
) -> ScanOutcome:
    """What to keep of a scan's map and truth, on the scan's own grid; `slice_anomaly` goes by slice of `plane`.

    Voxels and peaks are those of the `body` (None: of all the scan). Lesions count in whole: what the body leaves out
    of one is missed, not forgotten. Slices without body or lesion are left out. `min_size` and `tolerance_mm` are those
    of `froc.match`. Raises InputError where sizes differ, the map has NaN inside, or a healthy scan has a lesion.
    """
    _check(name, kind, anomaly_map, mask, body)
    truth = np.zeros(anomaly_map.shape, bool) if mask is None and kind == HEALTHY else mask
    body = np.ones(anomaly_map.shape, bool) if body is None else body
    inside = body if truth is None else body | truth
    values = anomaly_map[inside]
    if np.isnan(values).any():
        raise InputError(f"{name}: its map has values that are no numbers; score the scan again")
    layout = Layout.of(affine, plane)
    shown = _by_slice(inside, layout) > 0
    if shown.size != slice_anomaly.size:
        raise ValueError(f"{name}: {slice_anomaly.size} scores for {shown.size} {plane} slices")
    outcome = ScanOutcome(
        name, group, kind, anomaly, np.where(shown, slice_anomaly, np.nan), _heights(anomaly_map.shape, layout, affine)
    )
    if truth is None:
        return outcome
    return replace(
        outcome,
        lesion_voxels=_by_slice(truth, layout),
        voxels=None if kind == HEALTHY else count_voxels(values, truth[inside]),
        candidates=froc.match(froc.candidates(anomaly_map, affine, body), truth, affine, min_size, tolerance_mm),
    )


def count_voxels(values: Float32[np.ndarray, " voxel"], lesion: Bool[np.ndarray, " voxel"]) -> VoxelCounts:
    """Exact up to `FINENESS` voxels of each sort; of more, those below the highest are counted in bins (see there)."""
    sorts = [np.sort(values[lesion]), np.sort(values[~lesion])]
    bins = np.unique(np.concatenate([_bin_ends(one) for one in sorts]))
    counts = [np.diff(np.searchsorted(one, bins, side="left"), append=one.size).astype(np.int32) for one in sorts]
    return VoxelCounts(bins, *counts)


def voxel_points(scans: Sequence[VoxelCounts]) -> roc.OperatingPoints:
    """Operating points of all voxels of all scans as one set; here every lesion voxel is a region of its own."""
    values, lesion, other = _pooled(scans)
    last_of_tie = np.flatnonzero(np.append(values[1:] != values[:-1], True)) if values.size else np.zeros(0, int)
    true, false = (np.append(0.0, np.cumsum(counts)[last_of_tie]) for counts in (lesion, other))
    return roc.OperatingPoints(true, false, true)


def evaluate_scans(
    outcomes: Sequence[ScanOutcome],
    bootstrap: int = 1000,
    seed: int = 0,
    match_mm: float = MATCH_MM,
    least_pixels: int = 1,
) -> dict[str, Any]:
    """The content of `metrics.json`, laid out as that of `evaluation.evaluate`; figures are the keys of `SCAN_METRICS`.

    Slices: those with a lesion against those of all scans without one; `slice_auroc_matched` only against those of the
    same height (within `match_mm`) of other patients, since position tells of disease and slices of one patient are
    alike. All such pairs count the same, so that a slice with many partners counts more. Slices with fewer than
    `least_pixels` voxels of a lesion are neither. Voxels: of the abnormal scans, pooled. Lesions: see `priorlens.froc`.
    """
    if least_pixels < 1:
        raise ValueError(f"{least_pixels} voxels are no lesion")
    figures: dict[str, Any] = {}
    healthy = [outcome for outcome in outcomes if outcome.kind == HEALTHY]
    counts: dict[str, Any] = {HEALTHY: {"scans": len(healthy), "groups": len({one.group for one in healthy})}}
    for kind in sorted({outcome.kind for outcome in outcomes} - {HEALTHY}):
        chosen = [outcome for outcome in outcomes if outcome.kind in (HEALTHY, kind)]
        pairs = pair_slices(chosen, match_mm, least_pixels)
        found = _figures(chosen, kind, pairs, least_pixels, bootstrap, seed)
        figures[kind] = {key: estimate_facts(found[key]) for key in SCAN_METRICS}
        counts[kind] = _counts(chosen, kind, pairs, least_pixels)
    return {
        "schema": SCHEMA,
        "kinds": figures,
        "counts": counts,
        "slices": {"match_mm": match_mm, "least_pixels": least_pixels},
        "bootstrap": {"resamples": bootstrap, "seed": seed, "level": LEVEL, "unit": "group"},
    }


def scan_table(evaluated: dict[str, Any]) -> Table:
    """`evaluate_scans`' result for a terminal: a row per figure, a column per kind, with the interval in brackets."""
    counts = evaluated["counts"]
    grid = Table(title="Scans (95 % intervals)", title_justify="left")
    grid.add_column("figure")
    for kind in evaluated["kinds"]:
        grid.add_column(f"{kind} ({counts[kind]['scans']} scans)", justify="right")
    for key, words in SCAN_METRICS.items():
        grid.add_row(words, *(interval_cell(figures[key]) for figures in evaluated["kinds"].values()))
    for key, words in COUNTS.items():
        grid.add_row(words, *(str(counts[kind][key]) for kind in evaluated["kinds"]))
    return grid


@dataclass(frozen=True)
class SlicePairs:
    """Pairs of a slice with a lesion (of the row's patient) and one without (of the column's), of the same height.

    won: how often the one with the lesion scores higher, a tie being one half; pairs: how many there are. Both are 0
    within a patient. partnered: slices with a lesion that are in any pair.
    """

    won: Float64[np.ndarray, "group group"]
    pairs: Float64[np.ndarray, "group group"]
    partnered: int


def pair_slices(outcomes: Sequence[ScanOutcome], match_mm: float = MATCH_MM, least_pixels: int = 1) -> SlicePairs:
    """All such pairs among these scans, by patients in the order of their names; see `evaluate_scans`."""
    names = sorted({outcome.group for outcome in outcomes})
    sides = [_sides([one for one in outcomes if one.group == name], least_pixels) for name in names]
    won, pairs, partnered = np.zeros((len(names), len(names))), np.zeros((len(names), len(names))), 0
    for row, (lesion, _) in enumerate(sides):
        score, height = lesion[..., None]
        has_partner = np.zeros(len(score), bool)
        for column, (_, free) in enumerate(sides):
            if row != column:
                near = np.abs(height - free[1]) <= match_mm + _ROUNDING
                higher = np.where(np.isnan(score), np.nan, (score > free[0]) + (score == free[0]) / 2)
                won[row, column], pairs[row, column] = higher[near].sum(), near.sum()
                has_partner |= near.any(axis=1)
        partnered += int(has_partner.sum())
    return SlicePairs(won, pairs, partnered)


def _sides(outcomes: Sequence[ScanOutcome], least_pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores and heights of the slices with a lesion, and of those without."""
    every = [np.stack([one.slice_anomaly, one.heights_mm]) for one in outcomes]
    chosen = [_lesion_and_free(one, least_pixels) for one in outcomes]
    lesion, free = (
        np.concatenate([slices[:, pick[side]] for slices, pick in zip(every, chosen, strict=True)], axis=1)
        for side in (0, 1)
    )
    return lesion, free


def _lesion_and_free(outcome: ScanOutcome, least_pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """Which slices hold a lesion of at least this many voxels, and which hold none and have a score."""
    voxels = outcome.lesion_voxels
    if voxels is None:
        return (np.zeros(outcome.slice_anomaly.size, bool),) * 2
    return voxels >= least_pixels, (voxels == 0) & ~np.isnan(outcome.slice_anomaly)


def _figures(
    chosen: Sequence[ScanOutcome], kind: str, pairs: SlicePairs, least_pixels: int, resamples: int, seed: int
) -> dict[str, Estimate]:
    """Of the scans of one kind and the healthy ones; a stream of random numbers of its own for each level."""
    streams = {
        level: np.random.default_rng([seed, *f"{kind}/{level}".encode()])
        for level in ("scan", "slice", "matched", "voxel", "dice", "lesion")
    }
    groups = [one.group for one in chosen]
    scans = [metrics.image_scores(np.array([one.kind == kind]), np.array([one.anomaly])) for one in chosen]
    slices = [roc.scored(*(one.slice_anomaly[side] for side in _lesion_and_free(one, least_pixels))) for one in chosen]
    voxels = [(one.voxels, one.group) for one in chosen if one.voxels is not None]
    peaks = [(one.candidates, one.group) for one in chosen if one.candidates is not None]
    dice = np.array([float(roc.best_dice(voxel_points([counts]))) for counts, _ in voxels], np.float64)
    found = estimates(
        {"scan_auroc": roc.auroc, "scan_ap": roc.average_precision}, scans, groups, resamples, streams["scan"]
    )
    found |= estimates({"slice_auroc": roc.auroc}, slices, groups, resamples, streams["slice"])
    found["slice_auroc_matched"] = _matched(pairs, resamples, streams["matched"])
    found |= _voxel_estimates(*_apart(voxels), resamples, streams["voxel"])
    found["dice_best_per_scan"] = mean_estimate(dice, _apart(voxels)[1], resamples, streams["dice"])
    return found | froc.estimates(*_apart(peaks), resamples, streams["lesion"])


def _apart(pairs: Sequence[tuple[Any, str]]) -> tuple[list[Any], list[str]]:
    return [one for one, _ in pairs], [group for _, group in pairs]


def _matched(found: SlicePairs, resamples: int, rng: np.random.Generator) -> Estimate:
    """Share of the pairs won. A patient that is drawn twice is still one patient: it makes no pairs with itself."""
    total = found.pairs.sum()
    value = float(found.won.sum() / total) if total else float("nan")
    lesion, free = found.pairs.any(axis=1), found.pairs.any(axis=0)
    # Two patients could only be drawn as they are, or make no pair.
    if np.isnan(value) or resamples < 1 or min(lesion.sum(), free.sum()) < 2 or (lesion | free).sum() < 3:
        return Estimate(value, float("nan"), float("nan"))
    weights = multiplicities(np.array(lesion + 2 * free), resamples, rng)
    won, pairs = (np.sum((weights @ counts) * weights, axis=1) for counts in (found.won, found.pairs))
    return Estimate(value, *interval(np.divide(won, pairs, out=np.full_like(won, np.nan), where=pairs > 0)))


def _voxel_estimates(
    scans: Sequence[VoxelCounts], groups: Sequence[str], resamples: int, rng: np.random.Generator
) -> dict[str, Estimate]:
    """As `bootstrap.estimates`: the figures over all values, their replicates at about two thousand of them."""
    exact = voxel_points(scans)
    values = {name: float(figure(exact)) for name, figure in _VOXEL_FIGURES.items()}
    names, group_of = np.unique(np.array(groups, str), return_inverse=True)
    thresholds = _quantiles(scans)
    counts = np.zeros((2, names.size, thresholds.size + 2))
    for scan, group in zip(scans, group_of, strict=True):
        at = np.searchsorted(scan.values, thresholds, side="left")
        for sort, voxels in enumerate((scan.lesion, scan.other)):
            above = np.append(np.cumsum(voxels[::-1], dtype=np.int64)[::-1], 0)
            counts[sort, group] += np.concatenate([[0], above[at], above[:1]])
    holds = counts[..., -1] > 0
    if resamples < 1 or holds.sum(axis=1).min() < 2:
        return {name: Estimate(value, float("nan"), float("nan")) for name, value in values.items()}
    weights = multiplicities(holds[0] + 2 * holds[1], resamples, rng)
    replicates: dict[str, list[np.ndarray]] = {name: [] for name in values}
    for start in range(0, resamples, _RESAMPLES_AT_ONCE):
        true, false = (weights[start : start + _RESAMPLES_AT_ONCE] @ one for one in counts)
        for name, figure in _VOXEL_FIGURES.items():
            replicates[name].append(figure(roc.OperatingPoints(true, false, true)))
    return {name: Estimate(value, *interval(np.concatenate(replicates[name]))) for name, value in values.items()}


def _quantiles(scans: Sequence[VoxelCounts]) -> Float32[np.ndarray, " threshold"]:
    """Falling values: at equal steps of the number of lesion voxels, and of others, at or above them."""
    values, *sorts = _pooled(scans)
    totals = [np.cumsum(counts) for counts in sorts if counts.any()]
    steps = [np.searchsorted(total, np.linspace(1, total[-1], _QUANTILES).round()) for total in totals]
    return np.unique(values[np.concatenate(steps)])[::-1] if steps else values[:0]


def _pooled(scans: Sequence[VoxelCounts]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values of all scans, falling, with the lesion and other voxels at each."""
    values = np.concatenate([np.zeros(0, np.float32), *(scan.values for scan in scans)])
    falling = np.argsort(-values, kind="stable")
    lesion = np.concatenate([np.zeros(0, np.int64), *(scan.lesion for scan in scans)])
    other = np.concatenate([np.zeros(0, np.int64), *(scan.other for scan in scans)])
    return values[falling], lesion[falling], other[falling]


def _bin_ends(ascending: Float32[np.ndarray, " voxel"]) -> Float32[np.ndarray, " bin"]:
    """The lowest value of each bin: the `FINENESS` highest voxels have one each, then bins grow with rank."""
    count = ascending.size
    grown = np.floor(FINENESS * np.exp(np.arange(FINENESS * np.log(max(count / FINENESS, 1))) / FINENESS)).astype(int)
    first = np.concatenate([np.arange(min(count, FINENESS)), grown[grown < count]])
    low = count - np.append(first[1:], count) if count else first
    return ascending[low]


def _by_slice(voxels: Bool[np.ndarray, "i j k"], layout: Layout) -> Int[np.ndarray, " slice"]:
    """How many are set in each slice."""
    counts = np.count_nonzero(voxels, axis=layout.axes[1:])
    return counts[::-1] if layout.flipped[0] else counts


def _heights(shape: tuple[int, ...], layout: Layout, affine: Float[np.ndarray, "4 4"]) -> Float64[np.ndarray, " slice"]:
    """Of slices along the direction from each to the next, rising, in the scanner's millimetres."""
    stack = layout.affine(affine, shape)  # type: ignore[arg-type]
    step = float(np.linalg.norm(stack[:3, 0]))
    return stack[:3, 3] @ stack[:3, 0] / step + step * np.arange(shape[layout.axes[0]])


def _counts(chosen: Sequence[ScanOutcome], kind: str, pairs: SlicePairs, least_pixels: int) -> dict[str, int]:
    scans = [one for one in chosen if one.kind == kind]
    sides = [_lesion_and_free(one, least_pixels) for one in chosen]
    return {
        "scans": len(scans),
        "groups": len({one.group for one in scans}),
        "with_mask": sum(one.lesion_voxels is not None for one in scans),
        "lesions": sum(one.candidates.lesions for one in scans if one.candidates is not None),
        "lesion_slices": sum(int(lesion.sum()) for lesion, _ in sides),
        "free_slices": sum(int(free.sum()) for _, free in sides),
        "matched_lesion_slices": pairs.partnered,
        "matched_pairs": int(pairs.pairs.sum()),
    }


def _check(name: str, kind: str, anomaly_map: np.ndarray, mask: np.ndarray | None, body: np.ndarray | None) -> None:
    shapes = {array.shape for array in (anomaly_map, mask, body) if array is not None}
    if len(shapes) > 1:
        sizes = ", ".join("x".join(map(str, shape)) for shape in sorted(shapes))
        raise InputError(f"{name}: map, mask and body differ in size ({sizes}); redraw the mask on the scan's grid")
    if kind == HEALTHY and mask is not None and mask.any():
        raise InputError(f"{name}: is of kind {HEALTHY}, but its mask has a lesion; correct the kind or the mask")
