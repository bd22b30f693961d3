"""Networks trained in other conventions as denoisers: one conversion, made when a network is loaded.

A network was trained on z_t = alpha_t x + s_t eps at times t and predicts one of four things. With the noise level
sigma = s / alpha and x_t = z_t / alpha = x + sigma eps, alpha is a function of sigma alone (Karras et al. 2022,
Table 1):

    VP, and so DDPM   alpha^2 + s^2 = 1    alpha = 1 / sqrt(1 + sigma^2)
    sub-VP            s = 1 - alpha^2      alpha = 2 / (sigma + sqrt(sigma^2 + 4))
    VE                alpha = 1

and what is predicted gives the posterior mean (Ho et al. 2020; Salimans & Ho 2022; Song et al. 2021):

    epsilon        E[x | x_t] = x_t - sigma eps
    v_prediction   v = alpha eps - s x, hence E[x | x_t] = (x_t - sigma / alpha v) / (1 + sigma^2)
    sample         E[x | x_t] itself
    score          of z_t, -eps / s, hence E[x | x_t] = x_t + alpha sigma^2 score
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from priorlens.prior.denoiser import over_space

Prediction = Literal["epsilon", "v_prediction", "sample", "score"]
PREDICTIONS: tuple[Prediction, ...] = get_args(Prediction)

Network = Callable[[Tensor, Tensor], Tensor]
"""What a network is here: network(z_t, t) with one t an image, t in the network's own numbers."""

Level = Callable[[Tensor], Tensor]
"""A number for each noise level: float64 on the CPU, in and out."""

_ROUNDING = 1e-3  # in steps: a noise level that was rounded to float32 still is that of its step
_EARLIEST = 1e-5  # continuous times are trained from here on (Song et al. 2021, appendix C)


class Converted(nn.Module):
    """A network of another convention as a denoiser: z = alpha(sigma) x_t goes in, E[x | x_t] comes out.

    Outside the noise levels that the network was trained for, it is told the nearest time it knows, and alpha goes on
    following sigma: the network then sees z on the scale it is used to, with other noise than it is told. Below, that
    does little harm for `epsilon`, whose part fades with sigma; above, the prior is only a guess.

    Samplers' extras (clipping, thresholding) are no part of the posterior mean and are not done.
    """

    def __init__(self, network: Network, *, alpha: Level, time: Level, prediction: Prediction = "epsilon") -> None:
        super().__init__()
        self.network = network
        self.alpha = alpha
        self.time = time
        self.prediction = prediction

    def forward(
        self, x_t: Float[Tensor, "batch channel *space"], sigma: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch channel *space"]:
        # A handful of numbers: on the CPU they can be float64 whatever the device, which t needs between close steps.
        level = sigma.detach().cpu().double()
        t = self.time(level)
        if t.is_floating_point():
            t = t.to(torch.promote_types(x_t.dtype, torch.float32))
        alpha, noise = (over_space(value, x_t).to(x_t.device) for value in (self.alpha(level), level))
        out = self.network(alpha * x_t, t.to(x_t.device)).to(x_t.dtype)
        match self.prediction:
            case "epsilon":
                return x_t - noise * out
            case "v_prediction":
                return (x_t - noise / alpha * out) / (1 + noise**2)
            case "score":
                return x_t + alpha * noise**2 * out
            case "sample":
                return out

    @classmethod
    def from_alphas_cumprod(
        cls,
        network: Network,
        alphas_cumprod: Float[Tensor, " step"],
        *,
        prediction: Prediction = "epsilon",
        integer_steps: bool = False,
    ) -> Converted:
        """A DDPM: step t, counted from 0, has alpha^2 = alphas_cumprod[t], whatever schedule they come from.

        Between steps the network is told a fraction, log sigma being interpolated; or the nearest step, as an integer,
        where it knows only whole ones. Last steps without any signal (zero terminal SNR) have no sigma and are left
        out.

        Raises:
            ValueError: fewer than two steps, or signal that does not fall from step to step, from below 1.
        """
        signal = alphas_cumprod.detach().cpu().double()
        signal = signal[: len(signal) - int((signal.flip(0) <= 0).cumprod(0).sum())]
        if len(signal) < 2 or not (signal[0] < 1 and signal[-1] > 0 and (signal.diff() < 0).all()):
            raise ValueError("alphas_cumprod must fall from step to step, between 1 and 0, for two steps or more")
        log_sigmas = 0.5 * ((1 - signal) / signal).log()

        def time(sigma: Tensor) -> Tensor:
            t = _interpolated(sigma.log(), log_sigmas)
            near = t.round()
            return near.long() if integer_steps else torch.where((t - near).abs() < _ROUNDING, near, t)

        return cls(network, alpha=_vp_alpha, time=time, prediction=prediction)

    @classmethod
    def from_betas(
        cls,
        network: Network,
        betas: Float[Tensor, " step"],
        *,
        prediction: Prediction = "epsilon",
        integer_steps: bool = False,
    ) -> Converted:
        """A DDPM by its noise schedule: alphas_cumprod is the running product of 1 - betas."""
        signal = (1 - betas.double()).cumprod(0)
        return cls.from_alphas_cumprod(network, signal, prediction=prediction, integer_steps=integer_steps)

    @classmethod
    def vp(
        cls,
        network: Network,
        beta_min: float = 0.1,
        beta_max: float = 20.0,
        *,
        prediction: Prediction = "epsilon",
        time_scale: float = 1.0,
    ) -> Converted:
        """The VP-SDE: log alpha = -B(t) / 2, B(t) = beta_min t + (beta_max - beta_min) t^2 / 2, t from 0 to 1.

        Source: Song et al. 2021, equation 33. The network is told `time_scale` t; their own code has 999 there.
        """

        def time(sigma: Tensor) -> Tensor:
            return time_scale * _linear_time(torch.log1p(sigma**2), beta_min, beta_max)

        return cls(network, alpha=_vp_alpha, time=time, prediction=prediction)

    @classmethod
    def sub_vp(
        cls,
        network: Network,
        beta_min: float = 0.1,
        beta_max: float = 20.0,
        *,
        prediction: Prediction = "epsilon",
        time_scale: float = 1.0,
    ) -> Converted:
        """The sub-VP SDE: alpha as in `vp`, and s = 1 - alpha^2. Source: Song et al. 2021, equation 29."""

        def time(sigma: Tensor) -> Tensor:
            return time_scale * _linear_time(2 * torch.asinh(sigma / 2), beta_min, beta_max)

        return cls(network, alpha=_sub_vp_alpha, time=time, prediction=prediction)

    @classmethod
    def ve(
        cls,
        network: Network,
        sigma_min: float = 0.01,
        sigma_max: float = 50.0,
        *,
        prediction: Prediction = "epsilon",
        told: Literal["time", "sigma"] = "time",
        time_scale: float = 1.0,
    ) -> Converted:
        """The VE-SDE: alpha = 1, sigma = sigma_min (sigma_max / sigma_min)^t. Source: Song et al. 2021, equation 31.

        The network is told `time_scale` t, or sigma itself, as their own networks are; those predict the score.
        """

        def time(sigma: Tensor) -> Tensor:
            known = sigma.clamp(sigma_min, sigma_max)
            return (
                known if told == "sigma" else time_scale * (known / sigma_min).log() / math.log(sigma_max / sigma_min)
            )

        return cls(network, alpha=torch.ones_like, time=time, prediction=prediction)


def _vp_alpha(sigma: Tensor) -> Tensor:
    return (1 + sigma**2).rsqrt()


def _sub_vp_alpha(sigma: Tensor) -> Tensor:
    return 2 / (sigma + (sigma**2 + 4).sqrt())


def _linear_time(integral: Tensor, beta_min: float, beta_max: float) -> Tensor:
    """The t at which the integral of a linear beta is reached, by the root that does not cancel for small ones."""
    slope = beta_max - beta_min
    return (2 * integral / (beta_min + (beta_min**2 + 2 * slope * integral).sqrt())).clamp(_EARLIEST, 1)


def _interpolated(value: Tensor, knots: Tensor) -> Tensor:
    """Where a value lies among increasing knots, in steps and fractions of one; at an end where it lies outside."""
    upper = torch.searchsorted(knots, value).clamp(1, len(knots) - 1)
    lower = upper - 1
    fraction = (value - knots[lower]) / (knots[upper] - knots[lower])
    return (lower + fraction).clamp(0, len(knots) - 1)
