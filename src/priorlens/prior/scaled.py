"""A denoiser in other units: networks are usually trained on images in [-1, 1]."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from priorlens.prior.denoiser import Denoiser


class Scaled(nn.Module):
    """A denoiser of x = low + (high - low) (u + 1) / 2 made from one of u, whose images lie in [-1, 1].

    E[x | x_t] is the same map of E[u | u_t], because a posterior mean goes with any affine change of units. Noise is
    scaled without the shift: u_t has noise level 2 sigma / (high - low). Nothing is clipped, so that `low` and `high`
    only name two points of the map.

    Raises:
        ValueError: `high` is not above `low`.
    """

    def __init__(self, inner: Denoiser, low: float = 0.0, high: float = 1.0) -> None:
        super().__init__()
        if not high > low:
            raise ValueError(f"high ({high:g}) must be above low ({low:g})")
        self.inner = inner
        self.low = low
        self.high = high

    def forward(
        self, x_t: Float[Tensor, "batch channel *space"], sigma: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch channel *space"]:
        half = (self.high - self.low) / 2
        u = self.inner((x_t - self.low) / half - 1, sigma / half)
        return self.low + half * (u + 1)
