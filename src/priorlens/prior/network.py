"""A small U-Net over any number of space dimensions, told the noise level and where in the image it looks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

_CONVOLUTION = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_POOLING = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


class UNet(nn.Module):
    """F(x, noise) of EDM: the same code for 1-, 2- and 3-D images and for feature maps.

    `widths` are the channels per resolution, finest first; each step down halves every side (odd sides are
    rounded down and met again on the way up). Position enters as smooth functions of the coordinates, so that the
    prior may know that a ventricle belongs in the middle; `position=False` makes the network shift-equivariant.
    Where `x` is a patch of a larger image, `where` says which: the coordinates of its positions in the whole.
    """

    def __init__(
        self,
        channels: int,
        widths: Sequence[int],
        *,
        space: int = 2,
        blocks: int = 1,
        position: bool = True,
        out_channels: int | None = None,
    ) -> None:
        super().__init__()
        self.position = position
        convolution: Any = _CONVOLUTION[space]
        embedding = 4 * widths[0]
        self.frequencies = nn.Buffer(torch.exp(torch.linspace(0, math.log(100), 16)), persistent=False)
        self.embed = nn.Sequential(nn.Linear(32, embedding), nn.SiLU(), nn.Linear(embedding, embedding), nn.SiLU())
        self.inward = convolution(channels + (4 * space if position else 0), widths[0], 3, padding=1)

        def stage(width_in: int, width: int) -> Stage:
            return Stage(Block(width if i else width_in, width, embedding, convolution) for i in range(blocks))

        self.down = nn.ModuleList(stage(widths[max(i - 1, 0)], width) for i, width in enumerate(widths))
        self.middle = Block(widths[-1], widths[-1], embedding, convolution)
        self.up = nn.ModuleList(
            stage(widths[i] + widths[min(i + 1, len(widths) - 1)], widths[i]) for i in reversed(range(len(widths)))
        )
        self.norm = nn.GroupNorm(_groups(widths[0]), widths[0])
        self.outward = convolution(widths[0], out_channels or channels, 3, padding=1)
        nn.init.zeros_(self.outward.weight)
        nn.init.zeros_(self.outward.bias)

    def forward(
        self,
        x: Float[Tensor, "batch channel *space"],
        noise: Float[Tensor, " batch"],
        where: Float[Tensor, "batch axis *space"] | None = None,
    ) -> Float[Tensor, "batch out *space"]:
        angles = noise[:, None] * self.frequencies
        embedding = self.embed(torch.cat([angles.sin(), angles.cos()], 1))
        if self.position:
            x = torch.cat([x, positions(coordinates(x) if where is None else where)], 1)
        h = self.inward(x)
        skips = []
        for i, stage in enumerate(self.down):
            h = stage(halve(h) if i else h, embedding)
            skips.append(h)
        h = self.middle(h, embedding)
        for i, stage in enumerate(self.up):
            skip = skips.pop()
            h = F.interpolate(h, size=skip.shape[2:], mode="nearest") if i else h
            h = stage(torch.cat([h, skip], 1), embedding)
        return self.outward(F.silu(self.norm(h)))


class Stage(nn.ModuleList):
    """The blocks of one resolution, one after the other."""

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        for block in self:
            h = block(h, embedding)
        return h


class Block(nn.Module):
    """Two convolutions around a skip; the noise level scales and shifts the features between them."""

    def __init__(self, width_in: int, width: int, embedding: int, convolution: Any) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(_groups(width_in), width_in)
        self.conv1 = convolution(width_in, width, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * width)
        self.norm2 = nn.GroupNorm(_groups(width), width)
        self.conv2 = convolution(width, width, 3, padding=1)
        self.skip = convolution(width_in, width, 1) if width_in != width else nn.Identity()
        nn.init.zeros_(self.conv2.weight)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        inner = self.conv1(F.silu(self.norm1(h)))
        scale, shift = self.modulation(embedding).reshape(len(h), -1, *(1,) * (h.ndim - 2)).chunk(2, 1)
        inner = self.conv2(F.silu(self.norm2(inner) * (1 + scale) + shift))
        return self.skip(h) + inner


def coordinates(x: Float[Tensor, "batch channel *space"]) -> Float[Tensor, "batch axis *space"]:
    """Of each position along each axis of space, from -1 to 1 over the whole of `x`."""
    axes = [(torch.arange(n, device=x.device, dtype=x.dtype) + 0.5) * (2 / n) - 1 for n in x.shape[2:]]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).expand(len(x), -1, *x.shape[2:])


def positions(where: Float[Tensor, "batch axis *space"]) -> Float[Tensor, "batch position *space"]:
    """Smooth functions of where each position lies: its coordinates, their cosines, sines and double cosines."""
    waves = []
    for grid in where.unbind(1):
        waves += [grid, (math.pi * grid).cos(), (math.pi * grid).sin(), (2 * math.pi * grid).cos()]
    return torch.stack(waves, 1)


def halve(h: Tensor) -> Tensor:
    """Mean over pairs along every axis that has a pair to give."""
    kernel = tuple(2 if n > 1 else 1 for n in h.shape[2:])
    return _POOLING[h.ndim - 2](h, kernel)


def _groups(width: int) -> int:
    return math.gcd(8, width)
