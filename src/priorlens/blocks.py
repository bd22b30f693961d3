"""Which square blocks of an image's map stand out among the blocks of healthy images, with the rate of errors held.

Healthy images of a calibration, to which nothing was fitted, tell what blocks look like; nothing is assumed of how
neighbouring blocks depend on each other. All of it rests on patients that are exchangeable: the new image's is like
those of the calibration. Probabilities are over the calibration as well as the new image, not given one calibration.

Each patient counts as much as any other, each image of one as much as its others, each block of an image likewise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int, Shaped

from priorlens.conformal import p_values
from priorlens.errors import InputError

Procedure = Literal["bh", "by", "max"]
PROCEDURES: tuple[Procedure, ...] = get_args(Procedure)

ALONG = 16
"""Blocks along the longer side of a map, at most."""

_ROUNDING = 1e-9
"""Relative difference up to which two rates are a tie, which counts against the new image: more than their rounding."""


def block_side(shape: Sequence[int]) -> int:
    """Pixels along each side of a block in a map of this shape: the least that make no more than `ALONG` of them."""
    return math.ceil(max(shape) / ALONG)


def block_sides(shape: Sequence[int], spacing: Sequence[float] | None = None) -> tuple[int, ...]:
    """Pixels along each side of a block: as many along each axis, or as many as make its edges of one length.

    spacing: millimetres from a pixel to the next along each axis, of scans whose slices lie farther apart than pixels.
    """
    if spacing is None:
        return (block_side(shape),) * len(shape)
    edge = max(length * step for length, step in zip(shape, spacing, strict=True)) / ALONG
    return tuple(max(1, math.ceil(edge / step - _ROUNDING)) for step in spacing)


def block_means(
    anomaly_map: Float[np.ndarray, "*space"], spacing: Sequence[float] | None = None
) -> Float32[np.ndarray, "*blocks"]:
    """Mean of each block (`block_sides`) of a map of any number of axes; blocks at the far border may be smaller.

    In float32, so that blocks of healthy images that were kept in a file still tie with equal ones of a new image.
    """
    means = np.asarray(anomaly_map, np.float64)
    sides = block_sides(anomaly_map.shape, spacing)
    for axis, (length, side) in enumerate(zip(anomaly_map.shape, sides, strict=True)):
        starts = np.arange(0, length, side)
        pixels = np.diff(starts, append=length)
        means = np.add.reduceat(means, starts, axis) / np.expand_dims(pixels, tuple(range(1, means.ndim - axis)))
    return means.astype(np.float32)


def enlarged(
    blocks: Shaped[np.ndarray, "*blocks"], shape: tuple[int, ...], spacing: Sequence[float] | None = None
) -> Shaped[np.ndarray, "*space"]:
    """The blocks of a map of this shape on its own grid, each pixel with its block's value."""
    sides = block_sides(shape, spacing)
    if blocks.shape != tuple(math.ceil(length / side) for length, side in zip(shape, sides, strict=True)):
        raise ValueError(f"blocks of shape {blocks.shape} are not those of a map of shape {shape}")
    for axis, (length, side) in enumerate(zip(shape, sides, strict=True)):
        blocks = np.take(blocks, np.arange(length) // side, axis)
    return blocks


@dataclass(frozen=True)
class HealthyBlocks:
    """The blocks of calibration images, those of each image in a row, and the number of the patient each is of.

    Raises:
        InputError: no image, or a block that is not a number.
    """

    values: tuple[Float[np.ndarray, "_blocks"], ...]
    patients: Int[np.ndarray, " image"]

    def __post_init__(self) -> None:
        if not self.values:
            raise InputError("calibration: holds no healthy image; add healthy images that no model was fitted to")
        if len(self.values) != self.patients.size or not all(blocks.size for blocks in self.values):
            raise ValueError("every image needs a patient and at least one block")
        if unknown := sum(bool(np.isnan(blocks).any()) for blocks in self.values):
            raise InputError(f"calibration: the maps of {unknown} images hold NaN; leave those images out")

    @classmethod
    def of(
        cls, anomaly_maps: Sequence[Float[np.ndarray, "..."]], patients: Int[np.ndarray, " image"] | None = None
    ) -> HealthyBlocks:
        """From whole maps of healthy images; without patients, each image is of a patient of its own."""
        numbers = np.arange(len(anomaly_maps)) if patients is None else patients
        return cls(tuple(block_means(one).ravel() for one in anomaly_maps), numbers)

    @cached_property
    def maxima(self) -> Float64[np.ndarray, " image"]:
        """The highest block of each image."""
        return np.array([blocks.max() for blocks in self.values], np.float64)

    @cached_property
    def pool(self) -> Pool:
        """All of their blocks together, sorted and counted once for every new image."""
        return Pool.of(self)


@dataclass(frozen=True)
class Pool:
    """Blocks of all calibration images, image after image, each with a weight.

    The unit of weight is a block of the image that has most of them, where its patient has no other image. So with one
    image a patient and all of a size, weights are whole numbers, and equal shares of blocks are exactly equal.

    patients: their number; `unit`: blocks of the image that has most, so the weight of a patient.
    rising: all values, sorted; `from_rank`: the weight from each of these to the highest, and 0.
    rank, own: of each value, how many are below it, and the weight of its own image at or above it, as if that were its
        patient's only one; `first`: where each image's begin, `blocks`: how many it has.
    """

    patients: int
    unit: int
    rising: Float[np.ndarray, " value"]
    from_rank: Float64[np.ndarray, " value+1"]
    rank: Int[np.ndarray, " value"]
    own: Float64[np.ndarray, " value"]
    first: Int[np.ndarray, " image"]
    blocks: Int[np.ndarray, " image"]

    @classmethod
    def of(cls, healthy: HealthyBlocks) -> Pool:
        names, patient_of, images = np.unique(healthy.patients, return_inverse=True, return_counts=True)
        blocks = np.array([one.size for one in healthy.values])
        unit, values = int(blocks.max()), np.concatenate(healthy.values)
        order = np.argsort(values, kind="stable")
        weights = np.repeat(unit / (blocks * images[patient_of]), blocks)[order]
        return cls(
            patients=names.size,
            unit=unit,
            rising=values[order],
            from_rank=np.append(np.cumsum(weights[::-1])[::-1], 0.0),
            rank=np.searchsorted(values[order], values, side="left"),
            own=np.concatenate([own_weight(one, unit) for one in healthy.values]),
            first=np.cumsum(blocks) - blocks,
            blocks=blocks,
        )

    def beside(self, row: Float[np.ndarray, " block"]) -> Float64[np.ndarray, " block"]:
        """Weight at or above each block of a new image, in the calibration images and itself."""
        return self.from_rank[np.searchsorted(self.rising, row, side="left")] + own_weight(row, self.unit)

    def joined_by(self, row: Float[np.ndarray, " block"]) -> Float64[np.ndarray, " value"]:
        """Weight at or above each block of the calibration images, in these and a new image with blocks of its own."""
        passed = np.searchsorted(self.rising, row, side="right")  # a new block is below the values from this rank on
        below = np.cumsum(np.bincount(passed, minlength=self.rising.size + 1))
        return (self.from_rank + (row.size - below) * (self.unit / row.size))[self.rank]


def own_weight(row: Float[np.ndarray, " block"], unit: int) -> Float64[np.ndarray, " block"]:
    """Weight of an image's blocks at or above each of them, `unit` in all, where it is its patient's only one."""
    return (row.size - np.searchsorted(np.sort(row), row, side="left")) * (unit / row.size)


@dataclass(frozen=True)
class Flagged:
    """What stands out in an image.

    flagged: the blocks that do: those with q_value <= alpha.
    q_values: the least alpha at which each block would be flagged.
    p_value: of the whole image; a healthy image has p_value <= alpha with probability at most alpha, for any alpha (of
        "bh" and "by" exact only where patients have one image each, see `flag`).
    """

    flagged: Bool[np.ndarray, "*blocks"]
    q_values: Float64[np.ndarray, "*blocks"]
    p_value: float

    def at(self, alpha: float) -> Flagged:
        """The same at another error rate."""
        return replace(self, flagged=self.q_values <= alpha)


def block_p_values(blocks: Float[np.ndarray, "*blocks"], healthy: HealthyBlocks) -> Float64[np.ndarray, "*blocks"]:
    """Weighted share of blocks, of calibration images and of the new image itself, at or above each block; in (0, 1].

    Places are pooled: of all blocks of healthy images at most a share alpha has p <= alpha, but where healthy maps are
    always higher than elsewhere it is more. Exact where patients have one image each. Where they have several, the new
    one's other images are missing from the pool, and the p-values are off by at most 1 / (patients + 1).
    """
    pool, row = healthy.pool, blocks.ravel()
    share = pool.beside(row) / (pool.unit * (pool.patients + 1))
    return np.minimum(share, 1.0).reshape(blocks.shape)


def flag(
    blocks: Float[np.ndarray, "*blocks"], healthy: HealthyBlocks, alpha: float, procedure: Procedure = "bh"
) -> Flagged:
    """The blocks of a new image that stand out among those of healthy images, at an error rate alpha in (0, 1).

    In a healthy image the probability that anything is flagged is at most alpha, whatever the procedure and however
    blocks depend on each other, where patients have one image each. In an image with an abnormality, the procedures
    promise this of its healthy blocks, if these are as in a healthy image:

    "max": the probability that any of them is flagged is at most alpha. A block's q-value is its conformal p-value
        among the highest blocks of the calibration images. Holds for any dependence, and for patients with several
        images.
    "bh": they are on average at most a share alpha of what is flagged (the false-discovery rate). Benjamini &
        Hochberg (1995) on `block_p_values`; the bound needs positive dependence (PRDS: Benjamini & Yekutieli 2001),
        and healthy blocks that are alike in all places.
    "by": the same for any dependence, and for places that differ; costs a factor of about log(blocks) (Benjamini &
        Yekutieli 2001). Only an abnormality that lowers blocks below their healthy values may loosen the bound, and
        that by less than 1 / (patients + 1) in a p-value.

    With "bh" and "by" the promise for healthy images does not come from these bounds: the smallest adjusted p-value of
    the image is itself ranked among those that the calibration images have in the same pool, and nothing is flagged
    unless that `p_value` too is at most alpha. This treats all images of the pool alike, the new one included, so it
    is exact where patients have one image each. Where they have several it is not: the pool knows one image of the
    new patient and all of the others'. In simulations that errs to the safe side; "max" is exact there too.

    Each image is judged by itself: that something is flagged in one of several images of a patient is more probable.

    Raises:
        InputError: a block is NaN, or alpha is not between 0 and 1.
    """
    if not 0 < alpha < 1:
        raise InputError(f"alpha {alpha:g}: is no error rate; choose one between 0 and 1, such as 0.05")
    if np.isnan(blocks).any():
        raise InputError("blocks: hold NaN; leave this image out")
    if procedure not in PROCEDURES:
        raise ValueError(f"unknown procedure {procedure!r}; known: {', '.join(PROCEDURES)}")
    row = blocks.ravel()
    if procedure == "max":
        q_values = p_values(row, healthy.maxima, healthy.patients)
        p_value = float(q_values.min())
    else:
        adjusted = _adjusted(row, healthy.pool, procedure)
        p_value = _p_value(adjusted, row, healthy, procedure)
        q_values = np.maximum(np.minimum(adjusted, 1.0), p_value)
    return Flagged((q_values <= alpha).reshape(blocks.shape), q_values.reshape(blocks.shape), p_value)


def fewest_for_by(alpha: float) -> int:
    """Calibration patients with fewer than which "by" flags no single block of a square map, however high it is."""
    return math.ceil(sum(1 / i for i in range(1, ALONG**2 + 1)) / alpha) - 1


def _adjusted(
    row: Float[np.ndarray, " block"], pool: Pool, procedure: Literal["bh", "by"]
) -> Float64[np.ndarray, " block"]:
    """The false-discovery rate at which each block would be flagged, not cut off at 1.

    At a threshold it is the share of the pool at or above it divided by that of the image: what Benjamini & Hochberg
    compute from sorted p-values. A block takes the least over thresholds that include it.
    """
    own = own_weight(row, pool.unit)
    rates = pool.beside(row) / (own * (pool.patients + 1)) * _factor(np.array([row.size]), procedure)
    rising = np.argsort(row, kind="stable")
    adjusted = np.empty_like(rates)
    adjusted[rising] = np.minimum.accumulate(rates[rising])
    return adjusted


def _p_value(
    adjusted: Float64[np.ndarray, " block"],
    row: Float[np.ndarray, " block"],
    healthy: HealthyBlocks,
    procedure: Literal["bh", "by"],
) -> float:
    """Of an image's smallest adjusted p-value, among those of the calibration images in the same pool."""
    pool = healthy.pool
    rates = np.minimum.reduceat(pool.joined_by(row) / (pool.own * (pool.patients + 1)), pool.first)
    smallest = adjusted.min(keepdims=True) * (1 + _ROUNDING)  # rounding must break no tie in favour of the new image
    return float(p_values(-smallest, -rates * _factor(pool.blocks, procedure), healthy.patients)[0])


def _factor(blocks: Int[np.ndarray, " image"], procedure: Literal["bh", "by"]) -> Float64[np.ndarray, " image"]:
    """What any dependence costs: 1, or the sum of 1 / i over as many blocks as an image has."""
    sums = np.cumsum(1 / np.arange(1, blocks.max() + 1))
    return sums[blocks - 1] if procedure == "by" else np.ones(blocks.shape)
