"""How a training step sees its images: shifted and turned a little, where there are few; in patches, where large."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from priorlens.prior.network import coordinates

SHIFT, TURN, STRETCH = 0.06, math.radians(7.0), 0.08
"""Largest shift as a share of half a side, largest turn, and largest change of scale."""

MOVED = 0.5
"""Share of the views that are turned and stretched; interpolation smooths them, so the rest is only shifted."""


@dataclass(frozen=True)
class Views:
    """What is made of each image of a batch.

    moved: shift, turn and stretch 2-D images a little: a few hundred images then do not become known by heart. Never
        mirrored: the liver is on one side.
    patch: a square (a cube) of this side from a random place, for a prior that sees patches (PaDIS, Hu et al. 2024).
    """

    moved: bool = False
    patch: int | None = None

    def of(
        self, x: Float[Tensor, "batch channel *space"], generator: torch.Generator
    ) -> tuple[Float[Tensor, "batch channel *side"], Float[Tensor, "batch axis *side"] | None]:
        """The views, and where in their images they lie (None: they are whole)."""
        if self.moved:
            x = move(x, generator)
        if self.patch is None or all(side <= self.patch for side in x.shape[2:]):
            return x, None
        return cut(x, self.patch, generator)


def move(x: Float[Tensor, "batch channel rows columns"], generator: torch.Generator) -> Tensor:
    """Each image shifted by whole pixels, some of them turned and stretched; the border is repeated."""

    def within(limit: float) -> Tensor:
        return (2 * torch.rand(len(x), generator=generator) - 1) * limit

    turned = torch.rand(len(x), generator=generator) < MOVED
    angle, scale = within(TURN) * turned, 1 + within(STRETCH) * turned
    shifts = [(within(SHIFT) * side / 2).round() * 2 / side for side in (x.shape[3], x.shape[2])]
    rows = [
        torch.stack([scale * angle.cos(), -scale * angle.sin(), shifts[0]], 1),
        torch.stack([scale * angle.sin(), scale * angle.cos(), shifts[1]], 1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1).to(x), list(x.shape), align_corners=False)
    moved = F.grid_sample(x, grid, mode="bicubic", padding_mode="border", align_corners=False)
    return moved.clamp(x.amin(), x.amax())


def cut(
    x: Float[Tensor, "batch channel *space"], side: int, generator: torch.Generator
) -> tuple[Float[Tensor, "batch channel *side"], Float[Tensor, "batch axis *side"]]:
    """A patch of each image from a random place, and its coordinates in the whole."""
    where = coordinates(x)
    patches, places = [], []
    for image, grid in zip(x, where, strict=True):
        window: list[slice] = [slice(None)]
        for n in image.shape[1:]:
            start = int(torch.randint(max(n - side, 0) + 1, (), generator=generator))
            window.append(slice(start, start + min(side, n)))
        patches.append(image[tuple(window)])
        places.append(grid[tuple(window)])
    return torch.stack(patches), torch.stack(places)
