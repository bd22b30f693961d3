"""What healthy features look like at one scale: whitening, a denoiser, its variance head, and what they are asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from priorlens.checkpoint import under
from priorlens.features import Scale
from priorlens.prior import processes
from priorlens.prior.denoiser import Preconditioned
from priorlens.prior.network import UNet
from priorlens.prior.ode import Likelihood, encode, log_likelihood
from priorlens.prior.training import OnStage, Schedule, denoising_loss, of_stage, train, variance_loss
from priorlens.prior.variance import VarianceHead
from priorlens.surprise import Surprise, surprise
from priorlens.whitening import Whitening

COMPONENTS = 64
"""Principal components kept at most."""

SIGMA_MIN, SIGMA_MAX = 0.05, 20.0
"""Ends of the probability-flow ODE, in units of the whitened features' standard deviation."""

SIGMA_R = 1.0
"""Noise level up to which features are encoded when they are reconstructed, in the same units."""

ODE_STEPS = 8
"""Heun steps, two evaluations each. Their error is small beside that of one probe (benchmarks/likelihood.py)."""


@dataclass(frozen=True)
class Plan:
    """How large a scale's networks are, and how many steps they learn, for the default of 1000 steps asked for."""

    denoiser: tuple[int, ...]
    variance: tuple[int, ...]
    steps: int


# Fine scales have many positions: narrow networks learn enough there, and wide ones would take all the time.
_PLANS = {
    8: Plan((48, 64, 96), (32, 48), 900),
    16: Plan((96, 128), (48, 64), 1200),
    32: Plan((128,), (64,), 1500),
}


class FeaturePrior:
    """The diffusion prior of the healthy features of one scale, position-aware, over whitened components."""

    def __init__(self, scale: Scale, whitening: Whitening, bf16: bool | None = None) -> None:
        self.scale = scale
        self.whitening = whitening
        plan = _PLANS[scale.stride]
        components = len(whitening.matrix)
        self.denoiser = Preconditioned(UNet(components, plan.denoiser), bf16=bf16).eval()
        self.variance = VarianceHead(components, plan.variance, bf16=bf16).eval()
        self.to(torch.device("cpu"))

    def to(self, device: torch.device) -> FeaturePrior:
        for module in (self.denoiser, self.variance):
            module.to(device).to(memory_format=torch.channels_last)
        return self

    def tensors(self) -> dict[str, Tensor]:
        """Everything that was learned, by name."""
        found = {"whitening.mean": self.whitening.mean, "whitening.matrix": self.whitening.matrix}
        for part, module in (("denoiser", self.denoiser), ("variance", self.variance)):
            found |= {f"{part}.{name}": value for name, value in module.state_dict().items()}
        return found

    @classmethod
    def from_tensors(cls, scale: Scale, tensors: dict[str, Tensor], bf16: bool | None = None) -> FeaturePrior:
        """The inverse of `tensors`. Raises KeyError or RuntimeError where they do not fit."""
        whitening = Whitening(tensors["whitening.mean"], tensors["whitening.matrix"], float("nan"))
        prior = cls(scale, whitening, bf16)
        for part, module in (("denoiser", prior.denoiser), ("variance", prior.variance)):
            module.load_state_dict(under(part, tensors))
        return prior

    def whiten(
        self, features: Float[Tensor, "image feature rows columns"]
    ) -> Float[Tensor, "image component rows columns"]:
        return self.whitening.apply(features).contiguous(memory_format=torch.channels_last)

    def surprise(self, features: Float[Tensor, "image feature rows columns"], seed: int = 0) -> Surprise:
        """Every reading of the surprise, from a few denoiser calls."""
        return surprise(self.denoiser, self.variance, self.whiten(features), seed=seed).cpu()

    def likelihood(
        self, features: Float[Tensor, "image feature rows columns"], *, steps: int = ODE_STEPS, seed: int = 0
    ) -> Likelihood:
        """Log density by the probability-flow ODE (Heun), as AnoDODE publishes it."""
        return log_likelihood(
            self.denoiser,
            self.whiten(features),
            sigma_min=SIGMA_MIN,
            sigma_max=SIGMA_MAX,
            steps=steps,
            probes=1,
            generator=torch.Generator().manual_seed(seed),
        )

    @torch.no_grad()
    def residual(
        self, features: Float[Tensor, "image feature rows columns"], *, sigma_r: float = SIGMA_R, steps: int = ODE_STEPS
    ) -> tuple[Float[Tensor, "image rows columns"], int]:
        """Energy of what reconstruction takes away: the ODE up to sigma_r and denoised from there; and its nfe.

        All the way back the ODE would give every image again, for it is invertible; the posterior mean at sigma_r keeps
        what is expected of a healthy image and loses the rest.
        """
        x = self.whiten(features)
        up = encode(self.denoiser, x, sigma_min=SIGMA_MIN, sigma_r=sigma_r, steps=steps)
        back = self.denoiser(up.x_t, torch.full((len(x),), sigma_r, device=x.device))
        return (x - back).square().mean(1).cpu(), up.nfe + 1


def stages(scale: Scale, steps: int) -> list[tuple[str, int]]:
    """The stages in which a scale is learned, with their steps, where `steps` are asked for on the scale of 1000."""
    learned = max(1, round(_PLANS[scale.stride].steps * steps / 1000))
    return [(f"{scale.name} denoiser", learned), (f"{scale.name} variance", max(1, learned // 3))]


def fit_feature_prior(
    scale: Scale,
    features: Float[Tensor, "image feature rows columns"],
    *,
    steps: int,
    seed: int,
    device: torch.device,
    state: Path | None,
    on_step: OnStage,
    batch: int | None = None,
    accumulate: int = 1,
) -> FeaturePrior:
    """Whitening, then the denoiser, then its variance head, each learned from healthy features.

    batch: features of so many images in a step; None is 16. accumulate: see `train`.
    """
    whitening = _whitening(features, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # initial weights
        prior = FeaturePrior(scale, whitening).to(device)
    data = torch.cat([whitening.apply(part).half() for part in features.split(256)])
    losses = (denoising_loss, variance_loss(prior.denoiser))
    for module, loss, (stage, count) in zip(
        (prior.denoiser, prior.variance), losses, stages(scale, steps), strict=True
    ):
        train(
            module,
            loss,
            data,
            Schedule(count) if batch is None else Schedule(count, batch=batch),
            seed=seed,
            state=state / f"{stage.replace(' ', '_')}.safetensors" if state else None,
            on_step=of_stage(on_step, stage, count),
            accumulate=accumulate,
        )
    return prior


def _whitening(features: Float[Tensor, "image feature rows columns"], seed: int) -> Whitening:
    """Of several processes the first one's: of axes that are nearly alike each might choose others."""

    def fit() -> dict[str, Tensor]:
        found = Whitening.fit(features, COMPONENTS, torch.Generator().manual_seed(seed))
        return {"mean": found.mean, "matrix": found.matrix, "kept": torch.tensor(found.kept, dtype=torch.float64)}

    found = processes.of_first(fit)
    return Whitening(found["mean"], found["matrix"], float(found["kept"]))


def total_steps(scales: Sequence[Scale], steps: int) -> int:
    """Over all stages of all scales."""
    return sum(count for scale in scales for _, count in stages(scale, steps))
