"""Slices of a scan judged together: errors coherent in three dimensions, in units of the scan's own null.

1. A prior's errors keep their sign (`priorlens.surprise.signed_errors`), at each noise level.
2. They are averaged with a Gaussian over the neighbourhood, in the slice and, by the same width in millimetres, across
   slices: a lesion moves neighbouring voxels the same way, in all three directions.
3. Each such reading is divided by its own spread over this one scan's body. Most of a body is healthy, lesion or not,
   and the median absolute deviation tells how far that strays: the empirical null (Efron 2004, "Large-scale
   simultaneous hypothesis testing: the choice of a null hypothesis", JASA 99). So what differs between scanners and
   patients drops out, as a gain of all errors does. It is not centred: errors have a sign, and zero is expected.
4. Squared, mean over channels: 1 for Gaussian errors. Then taken relative to mean and deviation in healthy scans.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64
from torch import Tensor

from priorlens.errors import InputError
from priorlens.surprise import smooth

SIGMAS = (0.05, 0.1, 0.175, 0.25, 0.4, 0.7)
"""Noise levels, in units of intensities about [0, 1]."""

WIDTHS = (0.0, 1.0, 2.5, 4.0, 6.0)
"""Widths (standard deviations) of the Gaussian over which errors are averaged, in pixels; as wide across slices."""

DRAWS = 2

PEAKS = 0.02
"""Share of a slice's body whose mean is its anomaly: where the surprise is highest."""

LEAST = 1e-6
"""A null smaller than this is none: there is nothing in the scan that could vary."""

_REACH = 3.0  # widths beyond which a slice counts no longer, as in `smooth`


@dataclass(frozen=True)
class ErrorStack:
    """Signed errors of some slices of one scan, on the model's grid.

    path: of the scan, for error messages. body: where the patient is. places: of the slices along the axis that they
    are stacked along, mm, in rising order; they need not be evenly spaced. pixel: side of the grid's pixels, mm.
    nfe: network evaluations that they took.
    """

    path: Path
    errors: Float[Tensor, "slice sigma channel row column"]
    body: Bool[Tensor, "slice row column"]
    places: Float64[np.ndarray, " slice"]
    pixel: float
    nfe: int = 0


@dataclass(frozen=True)
class Judged:
    """Of one scan's slices, of all readings in deviations of what is usual: the mean, and the highest at each place."""

    mean: Float32[np.ndarray, "slice row column"]
    highest: Float32[np.ndarray, "slice row column"]


def coherent(
    errors: Float[Tensor, "slice channel row column"],
    places: Float64[np.ndarray, " slice"],
    pixel: float,
    width: float,
) -> Float[Tensor, "slice channel row column"]:
    """Their Gaussian mean, `width` pixels wide within each slice and as many millimetres across slices.

    A constant is left as it is: weights are those of the slices that there are, whatever lies between and beyond them.
    """
    if width <= 0:
        return errors
    apart = np.abs(places[:, None] - places[None]) / (width * pixel)
    weights = np.exp(-0.5 * apart**2) * (apart <= _REACH)
    rows = torch.from_numpy(weights / weights.sum(1, keepdims=True)).to(errors)
    flat = smooth(errors, width)
    return (rows @ flat.flatten(1)).reshape(flat.shape)


def own_null(reading: Float[Tensor, "slice row column"], body: Bool[Tensor, "slice row column"]) -> float:
    """1.4826 median absolute deviation over a scan's body: the standard deviation, where most is Gaussian.

    Raises:
        InputError: there is no body, or nothing varies in it.
    """
    inside = reading[body].numpy()
    if not inside.size:
        raise InputError("shows no body on the model's grid; give scans like those of the fit")
    null = 1.4826 * float(np.median(np.abs(inside - np.median(inside))))
    if not null > LEAST:
        raise InputError("is the same throughout its body; leave it out")
    return null


def readings(stack: ErrorStack, widths: Sequence[float] = WIDTHS) -> Iterator[Float[Tensor, "slice row column"]]:
    """Squares in units of the scan's own null, for every noise level and width; one at a time, as memory is bounded.

    Raises:
        InputError: as `own_null`, with the scan's name.
    """
    for level in range(stack.errors.shape[1]):
        for width in widths:
            found = coherent(stack.errors[:, level], stack.places, stack.pixel, width)
            try:
                nulls = [own_null(channel, stack.body) for channel in found.unbind(1)]
            except InputError as error:
                raise InputError(f"{stack.path}: {error}") from None
            yield (found / found.new_tensor(nulls)[:, None, None]).square().mean(1)


def usual_of(stacks: Sequence[ErrorStack]) -> tuple[Float64[Tensor, " reading"], Float64[Tensor, " reading"]]:
    """Mean and standard deviation of each reading over the bodies of healthy scans, each by its own null.

    Raises:
        InputError: as `own_null`.
    """
    sums: Tensor | float = 0.0
    for stack in stacks:
        inside = [reading[stack.body].double() for reading in readings(stack)]
        sums = sums + torch.stack([torch.stack([x.sum(), x.square().sum(), x.new_tensor(len(x))]) for x in inside])
    total, square, count = torch.as_tensor(sums).unbind(1)
    mean = total / count
    return mean, (square / count - mean.square()).clamp(min=1e-12).sqrt()


def judged(stack: ErrorStack, usual: Float64[Tensor, " reading"], spread: Float64[Tensor, " reading"]) -> Judged:
    """All readings of a scan, each relative to what is usual. Raises InputError as `own_null`."""
    highest = torch.full(stack.body.shape, -torch.inf, dtype=stack.errors.dtype)
    total = torch.zeros_like(highest)
    for reading, mean, deviation in zip(readings(stack), usual.tolist(), spread.tolist(), strict=True):
        relative = (reading - mean) / deviation
        highest = torch.maximum(highest, relative)
        total += relative
    return Judged((total / len(usual)).float().numpy(), highest.float().numpy())


def peaks(
    stack: Float32[np.ndarray, "slice row column"], body: Bool[np.ndarray, "slice row column"]
) -> Float32[np.ndarray, " slice"]:
    """Of each slice, the mean of where it is highest within the body; nan where there is none."""
    found = np.full(len(stack), np.nan, np.float32)
    for index, (values, there) in enumerate(zip(stack, body, strict=True)):
        if there.any():
            inside = values[there]
            count = max(1, round(PEAKS * inside.size))
            found[index] = np.partition(inside, -count)[-count:].mean()
    return found
