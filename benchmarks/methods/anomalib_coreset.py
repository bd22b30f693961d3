"""Greedy k-centres, as PatchCore selects its patches, without a pass over all patches for every one of them."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

AT_ONCE = 4096
"""Candidates looked at before distances of all points are brought up to date."""


def k_centres(points: Float[Tensor, "point dim"], count: int, first: int) -> list[int]:
    """`count` points, each the farthest from those before it, starting with `first` (Sener & Savarese 2018).

    Distances only ever shrink. So among the candidates with the largest ones, the next centre is known to be the
    farthest of all points for as long as it is farther than the candidates' nearest was; only then all distances are
    renewed, in one product of matrices. The selection is that of the plain loop, but for ties.
    """
    squares = points.square().sum(1)
    centres = [first]
    far = torch.full((len(points),), torch.inf)
    _approach(far, points, squares, centres)
    while len(centres) < count:
        values, candidates = far.topk(min(AT_ONCE, len(points)))
        bound = float(values[-1]) if len(values) < len(points) else -torch.inf
        new = _among(points[candidates], values, bound, count - len(centres))
        added = candidates[new].tolist()
        _approach(far, points, squares, added)
        centres += added
    return centres


def _among(points: Tensor, far: Tensor, bound: float, count: int) -> list[int]:
    """Centres for as long as one is at least as far as `bound`; the first always is. Changes `far`."""
    squares = points.square().sum(1)
    chosen: list[int] = []
    while len(chosen) < count:
        value, index = far.max(0)
        if chosen and (value < bound or value < 0):
            break
        at = int(index)
        chosen.append(at)
        distance = squares + squares[at] - 2 * (points @ points[at])
        torch.minimum(far, distance.clamp_(min=0), out=far)
        far[at] = -1
    return chosen


def _approach(far: Tensor, points: Tensor, squares: Tensor, centres: list[int]) -> None:
    """Squared distances of all points to their nearest centre, once `centres` have joined; a centre's own is -1."""
    wanted, lengths = points[centres], squares[centres]
    for start in range(0, len(points), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        distance = torch.addmm(lengths, points[part], wanted.T, alpha=-2).amin(1).add_(squares[part]).clamp_(min=0)
        torch.minimum(far[part], distance, out=far[part])
    far[centres] = -1
