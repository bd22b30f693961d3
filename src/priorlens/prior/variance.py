"""What the prior itself expects its error to be: a small head that predicts the log variance of x - E[x | x_t]."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from priorlens.precision import half_width
from priorlens.prior.denoiser import over_space
from priorlens.prior.network import UNet

_LIMIT = 8.0  # e^8: no place is expected to be three thousand times more or less predictable than white data


@runtime_checkable
class Variance(Protocol):
    """log Var[x | x_t] for each element, from x_t, the denoiser's answer and sigma: learned, or in closed form."""

    def __call__(
        self,
        x_t: Float[Tensor, "batch channel *space"],
        denoised: Float[Tensor, "batch channel *space"],
        sigma: Float[Tensor, " batch"],
    ) -> Float[Tensor, "batch channel *space"]: ...


class VarianceHead(nn.Module):
    """log Var[x | x_t] for each element, from x_t, the denoiser's answer and sigma.

    Trained on healthy images by the Gaussian negative log-likelihood of the error, so that error^2 / variance has mean
    1 on healthy tissue everywhere. The same by Tweedie, without training: sigma^2 times the diagonal of the denoiser's
    Jacobian. The network adds to the answer for white data of standard deviation `sigma_data`, which is right at both
    ends of the noise levels.
    """

    def __init__(
        self, channels: int, widths: Sequence[int], *, space: int = 2, sigma_data: float = 1.0, bf16: bool | None = None
    ) -> None:
        super().__init__()
        self.network = UNet(2 * channels, widths, space=space, out_channels=channels)
        self.sigma_data = sigma_data
        self.bf16 = bf16

    def forward(
        self,
        x_t: Float[Tensor, "batch channel *space"],
        denoised: Float[Tensor, "batch channel *space"],
        sigma: Float[Tensor, " batch"],
        where: Float[Tensor, "batch axis *space"] | None = None,
    ) -> Float[Tensor, "batch channel *space"]:
        s = over_space(sigma, x_t)
        total = s**2 + self.sigma_data**2
        seen = torch.cat([x_t / total.sqrt(), denoised / self.sigma_data], 1)
        with half_width(x_t.device, self.bf16):
            correction = self.network(seen.float(), sigma.float().log() / 4, where)
        white = (s * self.sigma_data) ** 2 / total
        return white.log() + correction.to(x_t.dtype).clamp(-_LIMIT, _LIMIT)


class ScaledVariance:
    """The variance of x = low + (high - low) (u + 1) / 2 from that of u, as `prior.scaled.Scaled` is for a denoiser."""

    def __init__(self, inner: Variance, low: float = 0.0, high: float = 1.0) -> None:
        self.inner = inner
        self.low = low
        self.half = (high - low) / 2

    def __call__(
        self,
        x_t: Float[Tensor, "batch channel *space"],
        denoised: Float[Tensor, "batch channel *space"],
        sigma: Float[Tensor, " batch"],
    ) -> Float[Tensor, "batch channel *space"]:
        u_t, expected = ((x - self.low) / self.half - 1 for x in (x_t, denoised))
        return self.inner(u_t, expected, sigma / self.half) + 2 * math.log(self.half)


class WhiteVariance:
    """That of white data of standard deviation `sigma_data`, sigma^2 sigma_data^2 / (sigma^2 + sigma_data^2): what is
    expected everywhere where no head has learned better."""

    calls = 0
    """Network evaluations that an answer takes."""

    def __init__(self, sigma_data: float) -> None:
        self.sigma_data = sigma_data

    def __call__(
        self,
        x_t: Float[Tensor, "batch channel *space"],
        denoised: Float[Tensor, "batch channel *space"],
        sigma: Float[Tensor, " batch"],
    ) -> Float[Tensor, "batch channel *space"]:
        s = over_space(sigma, x_t)
        return (s**2 / (1 + (s / self.sigma_data) ** 2)).log().expand_as(x_t)
