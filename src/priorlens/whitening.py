"""Principal components of one level of features, scaled to unit variance: what the priors see."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

_FLOOR = 1e-4  # of the largest variance: directions fainter than this are not blown up to unit variance


@dataclass(frozen=True)
class Whitening:
    """x = matrix (feature - mean), fitted on healthy images: uncorrelated, variance 1, strongest component first."""

    mean: Float[Tensor, " feature"]
    matrix: Float[Tensor, "component feature"]
    kept: float

    @classmethod
    def fit(
        cls, features: Float[Tensor, "image feature height width"], components: int, generator: torch.Generator
    ) -> Whitening:
        """PCA of at most 200,000 positions drawn at random. `kept` is the share of variance the components hold."""
        flat = features.movedim(1, -1).reshape(-1, features.shape[1])
        if len(flat) > 200_000:
            flat = flat[torch.randint(len(flat), (200_000,), generator=generator)]
        flat = flat.double()
        mean = flat.mean(0)
        variances, directions = torch.linalg.eigh(torch.cov(flat.T))
        variances, directions = variances.flip(0), directions.flip(1)
        chosen = slice(min(components, len(mean)))
        scale = (variances[chosen] + _FLOOR * variances[0]).clamp(min=1e-12).sqrt()
        kept = variances[chosen].sum() / variances.sum().clamp(min=1e-12)
        return cls(mean.float(), (directions[:, chosen] / scale).T.float().contiguous(), float(kept))

    def apply(
        self, features: Float[Tensor, "image feature height width"]
    ) -> Float[Tensor, "image component height width"]:
        centred = features.float() - self.mean.to(features.device)[:, None, None]
        return torch.einsum("cf,nfhw->nchw", self.matrix.to(features.device), centred)
