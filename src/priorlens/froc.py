"""Free-response ROC: the share of lesions found against the false positives that a scan costs.

A detector's marks are its candidates: the highest voxels of its map, none closer to another than a set distance.
Components of `map >= t` would be the other choice. They merge as t falls, so that more can be marked and fewer marks be
right; candidates are there once, for all thresholds, and both axes rise as the threshold falls.

A candidate finds the lesion that its peak lies in; of several in one lesion the highest finds it, and the others count
neither way. One that lies in no lesion is a false positive. So does LUNA16, whose lesions are spheres (Setio et al.
2017, "Validation, comparison, and combination of algorithms for automatic detection of pulmonary nodules"); on the
curve see Bandos et al. 2009, "Area under the free-response ROC curve (FROC) and a related summary index".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.morphology import local_maxima

from priorlens.bootstrap import Estimate, interval, multiplicities

RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False positives per scan at which sensitivity is read; the mean of the seven is LUNA16's CPM."""

SEPARATION_MM = 10.0
"""Between a candidate and the next: two lesions closer than this are found as one."""

LIMIT = 200
"""Candidates a scan at most, so that no single scan fills the curve with its own."""

_TOUCHING = np.ones((3, 3, 3), bool)
_ROUNDING = 1 + 1e-6
_RESAMPLES_AT_ONCE = 64


@dataclass(frozen=True)
class Candidates:
    """Where a map peaks, as indices of voxels, and how high; the highest first."""

    positions: Int[np.ndarray, "candidate 3"]
    scores: Float[np.ndarray, " candidate"]


@dataclass(frozen=True)
class ScanCandidates:
    """What the candidates of one scan are.

    lesions: how many the scan has. found: for each of them that a candidate lies in, the score of the highest.
    false_positives: scores of the candidates that lie in none.
    """

    lesions: int
    found: Float[np.ndarray, " found"]
    false_positives: Float[np.ndarray, " false"]


@dataclass(frozen=True)
class Froc:
    """The curve as the threshold falls: what a reader has who looks at all candidates at or above it.

    The first point is nothing looked at, at the threshold `inf`; each further one is a score that occurs.
    `sensitivity` is NaN without lesions, `false_positives_per_scan` without scans.
    """

    false_positives_per_scan: Float64[np.ndarray, " threshold"]
    sensitivity: Float64[np.ndarray, " threshold"]
    thresholds: Float64[np.ndarray, " threshold"]


def candidates(
    anomaly_map: Float[np.ndarray, "i j k"],
    affine: Float[np.ndarray, "4 4"],
    inside: Bool[np.ndarray, "i j k"] | None = None,
    separation_mm: float = SEPARATION_MM,
    limit: int = LIMIT,
) -> Candidates:
    """Greedily from the highest: local maxima `inside` more than `separation_mm` from every one already taken.

    A local maximum is a voxel, or a plateau of touching equal ones, higher than all of its 26 neighbours that are
    inside; a plateau is one, at a voxel in its middle. Equal ones are taken in the order of the array. Only the order
    of the map's values matters. Raises ValueError where a value inside is NaN.
    """
    shape = tuple(side + 2 for side in anomaly_map.shape)
    bordered = np.full(shape, -np.inf, anomaly_map.dtype)
    np.copyto(bordered[1:-1, 1:-1, 1:-1], anomaly_map, where=True if inside is None else inside)
    if np.isnan(bordered).any():
        raise ValueError("a map with NaN has no highest voxels")
    peaks = local_maxima(bordered, connectivity=3, allow_borders=False)[1:-1, 1:-1, 1:-1]
    positions = _middles(peaks)
    scores = anomaly_map[tuple(positions.T)]
    falling = np.argsort(-scores, kind="stable")
    taken = falling[_apart(_millimetres(positions[falling], affine), separation_mm, limit)]
    return Candidates(positions[taken], scores[taken])


def find_lesions(
    mask: Bool[np.ndarray, "i j k"], affine: Float[np.ndarray, "4 4"], min_size: float = 0.0
) -> tuple[Int[np.ndarray, "i j k"], int]:
    """Each voxel's lesion, from 1, and how many there are; 0 is none, -1 a lesion of less than `min_size` mm^3.

    A lesion is a 26-connected component of the mask.
    """
    labels, _ = ndimage.label(mask, _TOUCHING)
    sizes = np.bincount(labels.ravel())[1:] * abs(np.linalg.det(affine[:3, :3].astype(np.float64)))
    large = sizes * _ROUNDING >= min_size
    numbers = np.concatenate([[0], np.where(large, np.cumsum(large), -1)]).astype(np.int32)
    return numbers[labels], int(large.sum())


def match(
    found: Candidates,
    mask: Bool[np.ndarray, "i j k"],
    affine: Float[np.ndarray, "4 4"],
    min_size: float = 0.0,
    tolerance_mm: float = 0.0,
) -> ScanCandidates:
    """Which candidates find a lesion of the mask, and which are false positives.

    A candidate finds the lesion in which it lies, or else the nearest within `tolerance_mm` of it. Lesions of less than
    `min_size` mm^3 (none, unless asked for) need not be found; what lies in one and in no other is no false positive.
    """
    lesions, count = find_lesions(mask, affine, min_size)
    hit = _lesion_of(found.positions, np.maximum(lesions, 0), affine, tolerance_mm)
    small = _lesion_of(found.positions, np.where(lesions < 0, 1, 0), affine, tolerance_mm) if (lesions < 0).any() else 0
    best = np.full(count + 1, -np.inf, found.scores.dtype)
    np.maximum.at(best, hit, found.scores)
    return ScanCandidates(
        lesions=count,
        found=best[np.unique(hit[hit > 0])],
        false_positives=found.scores[(hit == 0) & (np.asarray(small) == 0)],
    )


def froc(scans: Sequence[ScanCandidates]) -> Froc:
    """The exact curve of all scans together; healthy scans, which have no lesions, count for the false positives."""
    found, false_positives = _scores(scans)
    thresholds = np.unique(np.concatenate([found, false_positives]))[::-1]
    lesions, count = sum(scan.lesions for scan in scans), len(scans)
    return Froc(
        false_positives_per_scan=np.append(0.0, _at_or_above(false_positives, thresholds)) / (count or np.nan),
        sensitivity=np.append(0.0, _at_or_above(found, thresholds)) / (lesions or np.nan),
        thresholds=np.append(np.inf, thresholds),
    )


def sensitivity_at(curve: Froc, false_positives_per_scan: float) -> float:
    """The largest share of lesions found at no more than these false positives per scan; NaN where it is not defined.

    No interpolation, unlike LUNA16's own program: the share is one that a user of the detector can have.
    """
    affordable = curve.false_positives_per_scan <= false_positives_per_scan * _ROUNDING
    known = affordable.any() and not np.isnan(curve.sensitivity).any()
    return float(curve.sensitivity[affordable].max()) if known else float("nan")


def mean_sensitivity(curve: Froc) -> float:
    """Mean of the sensitivities at `RATES`: LUNA16's CPM."""
    return float(np.mean([sensitivity_at(curve, rate) for rate in RATES]))


def estimates(
    scans: Sequence[ScanCandidates], groups: Sequence[str], resamples: int, rng: np.random.Generator
) -> dict[str, Estimate]:
    """`cpm` and `froc_at_0.125` ... `froc_at_8`, with their percentile intervals over whole patients.

    Patients with lesions and those without are drawn separately, in their numbers. Replicates are exact: sensitivity
    changes only at the scores of lesions that are found, so that counts at these hold all of the curve that is read.
    """
    names, group_of = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    thresholds = np.unique(_scores(scans)[0])[::-1]
    counts = np.zeros((2, names.size, thresholds.size))
    totals = np.zeros((2, names.size))
    for scan, group in zip(scans, group_of, strict=True):
        counts[0, group] += _at_or_above(scan.found, thresholds)
        counts[1, group] += _at_or_above(scan.false_positives, thresholds)
        totals[:, group] += scan.lesions, 1
    values = _read(np.ones((1, names.size)), counts, totals)[0]
    bounds = [(float("nan"), float("nan"))] * values.size
    if resamples > 0 and np.count_nonzero(totals[0]) >= 2:
        weights = multiplicities((totals[0] > 0).astype(int), resamples, rng)
        blocks = [weights[start : start + _RESAMPLES_AT_ONCE] for start in range(0, resamples, _RESAMPLES_AT_ONCE)]
        bounds = [interval(column) for column in np.concatenate([_read(one, counts, totals) for one in blocks]).T]
    return {
        name: Estimate(float(value), *bound)
        for name, value, bound in zip(("cpm", *map(name_of, RATES)), values, bounds, strict=True)
    }


def name_of(rate: float) -> str:
    """What the sensitivity at these false positives per scan is called."""
    return f"froc_at_{rate:g}"


def _read(
    weights: Float64[np.ndarray, "resample group"],
    counts: Float64[np.ndarray, "2 group threshold"],
    totals: Float64[np.ndarray, "2 group"],
) -> Float64[np.ndarray, "resample figure"]:
    """The mean of the sensitivities at `RATES`, and these."""
    detected, false_positives = weights @ counts[0], weights @ counts[1]
    lesions, scans = weights @ totals[0], weights @ totals[1]
    lesions[lesions == 0] = np.nan
    found = [
        np.max(np.where(false_positives <= rate * _ROUNDING * scans[:, None], detected, 0.0), axis=1, initial=0.0)
        for rate in RATES
    ]
    sensitivities = np.stack(found, axis=1) / lesions[:, None]
    return np.concatenate([sensitivities.mean(axis=1, keepdims=True), sensitivities], axis=1)


def _middles(peaks: Bool[np.ndarray, "i j k"]) -> Int[np.ndarray, "peak 3"]:
    """A voxel of each connected part, in the order of the array: that of median i, among those of median j, then k."""
    labels, count = ndimage.label(peaks, _TOUCHING)
    part, index = labels[peaks], np.flatnonzero(peaks)
    order = np.argsort(part, kind="stable")
    part, index = part[order], index[order]
    for axis, side in enumerate(peaks.shape):
        along = index // math.prod(peaks.shape[axis + 1 :]) % side
        sizes = np.bincount(part, minlength=count + 1)[1:]
        middle = along[np.cumsum(sizes) - (sizes + 2) // 2]
        kept = along == middle[part - 1]
        part, index = part[kept], index[kept]
    return np.stack(np.unravel_index(np.sort(index), peaks.shape), axis=1)


def _apart(places: Float64[np.ndarray, "peak 3"], separation_mm: float, limit: int) -> Int[np.ndarray, " taken"]:
    """Greedily, in their order: those farther than `separation_mm` from all before them that are taken."""
    tree, free = cKDTree(places), np.ones(len(places), bool)
    taken: list[int] = []
    for index in range(len(places)):
        if len(taken) == limit:
            break
        if free[index]:
            taken.append(index)
            free[tree.query_ball_point(places[index], separation_mm * _ROUNDING)] = False
    return np.array(taken, int)


def _lesion_of(
    positions: Int[np.ndarray, "candidate 3"],
    lesions: Int[np.ndarray, "i j k"],
    affine: Float[np.ndarray, "4 4"],
    tolerance_mm: float,
) -> Int[np.ndarray, " candidate"]:
    """The lesion in which each lies, or else the nearest within the tolerance; 0 for none."""
    hit = lesions[tuple(positions.T)]
    voxels = np.argwhere(lesions > 0)
    if tolerance_mm > 0 and len(voxels):
        nearest = cKDTree(_millimetres(voxels, affine))
        distances, index = nearest.query(_millimetres(positions, affine))
        near = lesions[tuple(voxels[index].T)]
        hit = np.where(distances <= tolerance_mm * _ROUNDING, near, 0)
    return hit


def _millimetres(positions: Int[np.ndarray, "n 3"], affine: Float[np.ndarray, "4 4"]) -> Float64[np.ndarray, "n 3"]:
    """Where voxels lie, but for the origin, which distances do not need."""
    return positions @ affine[:3, :3].astype(np.float64).T


def _scores(scans: Sequence[ScanCandidates]) -> tuple[Float64[np.ndarray, " found"], Float64[np.ndarray, " false"]]:
    empty = np.zeros(0)
    found = np.concatenate([empty, *(scan.found for scan in scans)])
    return found, np.concatenate([empty, *(scan.false_positives for scan in scans)])


def _at_or_above(
    scores: Float[np.ndarray, " score"], thresholds: Float64[np.ndarray, " threshold"]
) -> Int[np.ndarray, " threshold"]:
    return scores.size - np.searchsorted(np.sort(scores), thresholds, side="left")
