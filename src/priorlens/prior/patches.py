"""Images larger than what a network was trained on: overlapping patches, each told where it lies, blended."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from priorlens.prior.network import coordinates

OVERLAP = 0.25
"""Share of a patch's side that it has in common with its neighbour, at least."""

_AT_ONCE = 64  # patches in one call of the network: memory stays bounded


class Patched(nn.Module):
    """A denoiser, or a variance head, of whole images from one of patches.

    The prior of an image is the product of its patches' priors, each knowing its place (PaDIS: Hu et al. 2024,
    "Learning image priors through patch-based diffusion models"). Where patches overlap their answers are averaged by a
    window that falls towards each patch's border, so that no seam shows; PaDIS averages over random partitions instead.

    inner: called as inner(*images, sigma, where), `where` being the coordinates of the patches in their image.
    """

    def __init__(self, inner: nn.Module, patch: int, overlap: float = OVERLAP) -> None:
        super().__init__()
        self.inner = inner
        self.patch = patch
        self.overlap = overlap

    def forward(self, *images_and_sigma: Tensor) -> Tensor:
        *images, sigma = images_and_sigma
        space = images[0].shape[2:]
        if all(side <= self.patch for side in space):
            return self.inner(*images, sigma)
        return blended(self.inner, images, sigma, self.patch, self.overlap)


def blended(
    inner: Callable[..., Tensor],
    images: Sequence[Float[Tensor, "batch channel *space"]],
    sigma: Float[Tensor, " batch"],
    patch: int,
    overlap: float = OVERLAP,
) -> Float[Tensor, "batch channel *space"]:
    """What `inner` says of each patch of the images, averaged where patches overlap."""
    x = images[0]
    where = coordinates(x)
    sides = [min(patch, n) for n in x.shape[2:]]
    window = _window(sides).to(x)
    total, weight = torch.zeros_like(x), torch.zeros_like(x[:1, :1])
    corners = itertools.product(*(starts(n, side, overlap) for n, side in zip(x.shape[2:], sides, strict=True)))
    boxes = [_box(corner, sides) for corner in corners]
    at_once = max(1, _AT_ONCE // len(x))
    for some in (boxes[i : i + at_once] for i in range(0, len(boxes), at_once)):
        parts = [torch.cat([image[box] for box in some]) for image in (*images, where)]
        answers = inner(*parts[:-1], sigma.repeat(len(some)), parts[-1])
        for box, answer in zip(some, answers.chunk(len(some)), strict=True):
            total[box] += window * answer
            weight[box] += window
    return total / weight


def starts(positions: int, side: int, overlap: float) -> list[int]:
    """Where along an axis the patches begin: evenly, from end to end, with at least this overlap."""
    if positions <= side:
        return [0]
    count = 1 + math.ceil((positions - side) / max(1.0, side * (1 - overlap)))
    return [round(i * (positions - side) / (count - 1)) for i in range(count)]


def _box(corner: Sequence[int], sides: Sequence[int]) -> Any:
    """An index into images for the patch that begins at this corner."""
    return (..., *(slice(start, start + side) for start, side in zip(corner, sides, strict=True)))


def _window(sides: Sequence[int]) -> Float[Tensor, "1 1 *side"]:
    """Highest in a patch's middle, falling linearly towards its border, never zero."""
    ramps = [torch.minimum(torch.arange(n) + 1.0, n - torch.arange(n, dtype=torch.float32)) for n in sides]
    return math.prod(torch.meshgrid(*ramps, indexing="ij"), start=torch.ones(()))[None, None]
