"""Whether training had come to its end."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

HEAD = (0.1, 0.2)
"""The share of a curve that its end is compared with. What comes before has no say: beside its steep fall anything is
flat, and a loss that falls as a power of the steps would count as settled however long it still went on falling."""

TAIL = 0.2
"""The share of a curve that must have stopped falling."""

FALL = 0.025
"""Of the fall from head to tail, what the tail may still bring."""

NOISY_FALL = 0.05
"""The same where noise hides how much it brings."""

LEAST_DONE = 0.2
"""The share of the recommended training before which nothing counts as settled: a plateau may be followed by a fall."""


def settled(losses: Sequence[float], done: float = 1.0) -> bool:
    """Whether a noisy loss curve has stopped falling.

    The whole fall is from the mean of the curve's second tenth, the head, to the mean of its last fifth, the tail; the
    fall of the tail is that of the line of least squares through it. A curve has settled where the tail falls by at
    most 2.5 % of the whole fall, or by no more than two standard errors, if these are no more than 5 % of the whole
    fall: more noise would hide anything. A loss that goes on falling as t^-0.5 brings 7.5 % in its tail, as t^-1 4 %,
    at any length. Noise is told from differences of neighbours, to which a trend hardly adds. A curve that, from its
    head on, never fell by more than twice its noise has settled where its tail does not fall by two standard errors.
    Fewer than ten points, or any that is no number, have not. done: the share of the recommended training so far.
    """
    values = np.asarray(losses, np.float64)
    if done < LEAST_DONE or values.size < 10 or not np.isfinite(values).all():
        return False
    first, last = (round(share * values.size) for share in HEAD)
    tail = values[-max(5, round(TAIL * values.size)) :]
    whole = float(values[first:last].mean() - tail.mean())
    noise = float(np.std(np.diff(tail)) / np.sqrt(2))
    steps = np.arange(tail.size) - (tail.size - 1) / 2
    fall = -float(steps @ tail / (steps @ steps)) * (tail.size - 1)
    errors = 2 * noise / float(np.sqrt(steps @ steps)) * (tail.size - 1)
    allowed = errors if whole <= 2 * noise else min(errors, NOISY_FALL * whole)
    return fall <= max(FALL * whole, allowed)
