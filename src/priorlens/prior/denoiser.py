"""The one interface a prior has to offer, and the network behind it in EDM's preconditioning."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from priorlens.precision import half_width


@runtime_checkable
class Denoiser(Protocol):
    """The posterior mean E[x | x_t] for x_t = x + sigma * eps: all that a detector may ask of a prior."""

    def __call__(
        self, x_t: Float[Tensor, "batch channel *space"], sigma: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch channel *space"]: ...


def over_space(value: Float[Tensor, " batch"], like: Tensor) -> Tensor:
    """One number an image, shaped to broadcast over its channels and space."""
    return value.to(like.dtype).reshape(-1, *(1,) * (like.ndim - 1))


def score(
    denoiser: Denoiser, x_t: Float[Tensor, "batch channel *space"], sigma: Float[Tensor, " batch"]
) -> Float[Tensor, "batch channel *space"]:
    """Gradient of the log density of noised images, by Tweedie: (E[x | x_t] - x_t) / sigma^2."""
    return (denoiser(x_t, sigma) - x_t) / over_space(sigma, x_t) ** 2


class Preconditioned(nn.Module):
    """A network as a denoiser: D = c_skip x_t + c_out F(c_in x_t, log(sigma) / 4).

    Source: Karras et al. 2022, "Elucidating the design space of diffusion-based generative models", equation 7 and
    Table 1. `sigma_data` is the standard deviation of clean data, 1 for whitened features.

    `where`: the coordinates of a patch in its image, for a network that takes them (`prior.patches`).
    The network runs in bfloat16 if `bf16` says so, or, if it is None, where the machine is fast at that; the skip and
    everything outside stay in the input's precision.
    """

    def __init__(self, network: nn.Module, sigma_data: float = 1.0, bf16: bool | None = None) -> None:
        super().__init__()
        self.network = network
        self.sigma_data = sigma_data
        self.bf16 = bf16

    def forward(
        self,
        x_t: Float[Tensor, "batch channel *space"],
        sigma: Float[Tensor, " batch"],
        where: Float[Tensor, "batch axis *space"] | None = None,
    ) -> Float[Tensor, "batch channel *space"]:
        s = over_space(sigma, x_t)
        total = (s**2 + self.sigma_data**2).sqrt()
        with half_width(x_t.device, self.bf16):
            seen, noise = (x_t / total).float(), sigma.float().log() / 4
            out = self.network(seen, noise) if where is None else self.network(seen, noise, where)
        return (self.sigma_data / total) ** 2 * x_t + s * self.sigma_data / total * out.to(x_t.dtype)
