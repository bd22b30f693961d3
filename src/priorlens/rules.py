"""The rules by which features become a verdict: as published, and those it is compared with in docs/anodode.md.

Every rule reads the same priors. A rule gives one figure an image and one map on a common grid; both higher where
more abnormal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from priorlens.combination import Combination, Readings
from priorlens.feature_prior import FeaturePrior
from priorlens.prior.ode import bits_per_dim
from priorlens.surprise import Surprise
from priorlens.weighing import highest

Rule = Literal["combined", "local", "coherent", "standardised", "typicality", "published"]
RULES: tuple[Rule, ...] = get_args(Rule)

WHOLE_AND_PLACE: tuple[Rule, Rule] = ("coherent", "local")
"""Rule "combined" takes the larger of their figures, so that neither an image that is unusual as a whole nor a small
lesion in a usual one is missed."""

_LEAST_DEVIATION = 1e-6


@dataclass(frozen=True)
class Verdict:
    """What a rule says of a batch of images."""

    anomaly: Float[Tensor, " image"]
    anomaly_map: Float[Tensor, "image side side"]


@dataclass(frozen=True)
class HealthyScale:
    """What held-out healthy images show at one scale: bits per dimension, and what reconstruction takes away."""

    bits_mean: float
    bits_std: float
    bits_map_mean: float
    bits_map_std: float
    residual_mean: float


def healthy_scale(surprises: Sequence[Surprise], residual: Float[Tensor, "image rows columns"]) -> HealthyScale:
    """From the surprise of batches of held-out healthy images, and from the residual of some of them."""
    bits = torch.cat([found.bits_per_dim for found in surprises])
    maps = torch.cat([found.bits_map for found in surprises])
    return HealthyScale(
        bits_mean=float(bits.mean()),
        bits_std=max(float(bits.std(correction=0)), 1e-3),
        bits_map_mean=float(maps.mean()),
        bits_map_std=max(float(maps.std()), 1e-3),
        residual_mean=max(float(residual.mean()), 1e-6),
    )


def from_surprise(
    rule: Rule,
    combination: Combination,
    healthy: dict[str, HealthyScale],
    surprises: dict[str, Surprise],
    found: Readings,
    usual: Mapping[str, tuple[float, float]],
    local: Float[Tensor, "image side side"] | None = None,
) -> Verdict:
    """Every rule but the published one, from the surprise and its readings, which have their context.

    usual: mean and deviation of the figures of healthy images by each of `WHOLE_AND_PLACE`, for rule "combined".
    local: the map of rules "combined" and "local", where it is another than the combination's.

    combined: map by what was learned on planted artefacts; figure of `WHOLE_AND_PLACE`, whichever is further above that
        of healthy images, in their deviations.
    local: the same map, and as figure its mean over the share of the image that is highest: for small lesions.
    coherent: map and figure from coherent surprise, all scales and noise levels alike (method of signed errors).
    standardised: the code length 1/2 (log v + error^2 / v) as map; figure from error^2 / v.
    typicality: how far bits/dim lies from that of healthy images on either side (Nalisnick et al. 2019).
    """
    if rule in ("combined", "local"):
        local = combination.anomaly_map(found) if local is None else local
        peak = highest(local, combination.share)
        if rule == "local":
            return Verdict(peak, local)
        above = []
        for part, figure in zip(WHOLE_AND_PLACE, (combination.anomaly(found), peak), strict=True):
            mean, deviation = usual[part]
            above.append((figure - mean) / max(deviation, _LEAST_DEVIATION))
        return Verdict(torch.maximum(*above), local)
    side = found.maps.shape[-1]
    if rule == "coherent":
        chosen = [i for i, name in enumerate(found.names) if " coherent " in name and name.endswith("width=1")]
        relative = (found.maps[:, chosen] - combination.usual[chosen, None, None]) / combination.spread[
            chosen, None, None
        ]
        return Verdict(combination.anomaly(found), relative.mean(1))
    if rule == "standardised":
        lengths = [(0.5 * (s.expected + s.standardised) / math.log(2)).mean(1) for s in surprises.values()]
        return Verdict(combination.anomaly(found, "standardised"), _summed(lengths, side))
    distances = [
        ((s.bits_per_dim - healthy[name].bits_mean) / healthy[name].bits_std) ** 2 for name, s in surprises.items()
    ]
    maps = [
        ((s.bits_map - healthy[name].bits_map_mean) / healthy[name].bits_map_std).abs() for name, s in surprises.items()
    ]
    return Verdict(torch.stack(distances).mean(0).sqrt(), _summed(maps, side))


def published(
    priors: dict[str, FeaturePrior], healthy: dict[str, HealthyScale], features: dict[str, Tensor], side: int, seed: int
) -> tuple[Verdict, dict[str, Tensor], int]:
    """AnoDODE (Hu & Jin 2023): likelihood by the probability-flow ODE, place by reconstruction.

    The figure is the plain mean over scales of bits/dim. The map is the energy that reconstruction takes away, each
    scale relative to its mean on healthy images (the paper's abstract leaves the rule open: this is our choice).
    Returns the verdict, bits/dim of each scale, and the network evaluations, products for the divergence included.
    """
    bits, residuals, nfe = {}, [], 0
    for name, prior in priors.items():
        likelihood = prior.likelihood(features[name], seed=seed)
        bits[name] = bits_per_dim(likelihood.log_prob, likelihood.z[0].numel()).cpu()
        residual, calls = prior.residual(features[name])
        residuals.append(residual / healthy[name].residual_mean)
        nfe += likelihood.nfe + likelihood.vjps + calls
    return Verdict(torch.stack(list(bits.values())).mean(0), _summed(residuals, side)), bits, nfe


def _summed(maps: list[Float[Tensor, "image _ _"]], side: int) -> Float[Tensor, "image side side"]:
    """Mean over scales of maps brought to one grid."""
    return torch.stack(
        [F.interpolate(m[:, None], size=(side, side), mode="bilinear", align_corners=False)[:, 0] for m in maps]
    ).mean(0)
