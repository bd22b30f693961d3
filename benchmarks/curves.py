"""Whether training had come to its end."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

TAIL = 0.2
"""The share of a curve that must have stopped falling."""

FALL = 0.02
"""Of the whole fall, what the tail may still bring."""

NOISY_FALL = 0.1
"""The same where noise hides how much it brings."""


def settled(losses: Sequence[float]) -> bool:
    """Whether a noisy loss curve has stopped falling.

    The whole fall is from the mean of its first twentieth to the mean of its last fifth, the tail; the fall of the
    tail is that of the line of least squares through it. A curve has settled where the tail falls by at most 2 % of
    the whole fall, or by no more than two standard errors, if these are no more than 10 % of the whole fall: more noise
    would hide anything. Noise is told from differences of neighbours, to which a trend hardly adds. A curve that never
    fell by more than twice its noise has settled where its tail does not fall by two standard errors. Fewer than ten
    points, or any that is no number, have not.
    """
    values = np.asarray(losses, np.float64)
    if values.size < 10 or not np.isfinite(values).all():
        return False
    tail = values[-max(5, round(TAIL * values.size)) :]
    whole = float(values[: max(1, values.size // 20)].mean() - tail.mean())
    noise = float(np.std(np.diff(tail)) / np.sqrt(2))
    steps = np.arange(tail.size) - (tail.size - 1) / 2
    fall = -float(steps @ tail / (steps @ steps)) * (tail.size - 1)
    errors = 2 * noise / float(np.sqrt(steps @ steps)) * (tail.size - 1)
    allowed = errors if whole <= 2 * noise else min(errors, NOISY_FALL * whole)
    return fall <= max(FALL * whole, allowed)
