"""Which images a run learns from and judges: the same for all methods."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from benchmarks.measuring import height_of
from priorlens.datasets import HEALTHY, Case
from priorlens.images import read_image

T = TypeVar("T")

SIZED = 25
"""Training images that are looked at for their size."""

TIMED = 16
"""Test images that are scored for the time."""

PICTURED = 3
"""Healthy test images whose maps are kept."""


def training(cases: Sequence[Case], most: int, study: str) -> list[Case]:
    """At most so many cases (0: all), patient by patient in an order drawn by the study's name; the last in part."""
    if not most or len(cases) <= most:
        return list(cases)
    by_patient: dict[str, list[Case]] = {}
    for case in cases:
        by_patient.setdefault(case.group, []).append(case)
    names = sorted(by_patient)
    order = np.random.default_rng(zlib.crc32(study.encode())).permutation(len(names))
    chosen = {case.path for case in [case for i in order for case in by_patient[names[i]]][:most]}
    return [case for case in cases if case.path in chosen]


def judged(cases: Sequence[Case], most: int, every: int, height: str | None) -> list[Case]:
    """Every so manieth case of each kind, further apart where a kind would have more than `most` (0: no limit).

    With `height`, every so manieth number of a slice instead, so that slices keep their partners of the same number.
    """
    kinds = sorted({case.kind for case in cases})
    of_kind = {kind: [case for case in cases if case.kind == kind] for kind in kinds}
    step = every * (math.ceil(max(map(len, of_kind.values())) / most / every) or 1 if most else 1)
    if height:
        kept = set(sorted({height_of(case.name, height) for case in cases})[::step])
        return [case for case in cases if height_of(case.name, height) in kept]
    return [case for kind in kinds for case in of_kind[kind][::step]]


def seen_at(paths: Sequence[Path], most: int) -> int:
    """Side in pixels at which methods that resize see images: `most`, but about three times their own at most.

    Small images gain nothing by being enlarged further. It is a multiple of 32, and at least 64 unless `most` is
    less: then those that can do with so little see that, and the others 64.
    """
    longest = [max(read_image(path).pixels.shape[1:]) for path in spread(paths, SIZED)]
    return min(most, max(64, 32 * math.ceil(3 * float(np.median(longest)) / 32)))


def spread(cases: Sequence[T], count: int) -> list[T]:
    """So many of the cases at equal distances, or all."""
    if len(cases) <= count:
        return list(cases)
    return [cases[i] for i in np.linspace(0, len(cases) - 1, count).round().astype(int)]


def pictured(cases: Sequence[Case]) -> set[str]:
    """Names of healthy cases whose maps are kept; the first is the same however many cases are left out."""
    healthy = [case for case in cases if case.kind == HEALTHY]
    return {case.name for case in spread(healthy, PICTURED)}
