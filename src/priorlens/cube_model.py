"""The surprise of whole scans in three dimensions: a diffusion prior of healthy cubes, and what is usual in them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from priorlens.checkpoint import read_checkpoint, versions, write_checkpoint
from priorlens.errors import InputError, ModelError
from priorlens.held_out import hold_out
from priorlens.image_prior import ImagePrior, fit_image_prior, stages
from priorlens.klip import KLIP, SIGMAS, WIDTHS
from priorlens.progress import Progress, Reporter
from priorlens.provenance import Provenance
from priorlens.scores import HealthyStatistics

METHOD = "klip-3d"
STEPS = 600
"""Three-dimensional convolutions cost about ten times as much as those of images: fewer steps."""

DRAWS = 2
_AT_ONCE = 4  # cubes: a few hundred megabytes


class CubeModel:
    """KLIP's divergence of whole images, coherent and standardised, over cubes of scans in place of images.

    A cube's readings are its coherent surprise at each noise level and width; each is taken relative to its mean and
    deviation in healthy cubes that were held out, and the map is their mean. Unlike in `KLIPModel` no weights are
    learned: artefacts are not planted in three dimensions.

    steps: how long to train; None is `STEPS`.
    """

    rule = "coherent"

    def __init__(self, *, steps: int | None = None, seed: int = 0, device: str | None = None) -> None:
        self.steps = STEPS if steps is None else steps
        self.seed = seed
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))

    def fit(
        self,
        cubes: Sequence[Float32[np.ndarray, "channel size size size"]],
        *,
        groups: Sequence[str],
        state: Path | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> CubeModel:
        """Learn what healthy cubes, of about [0, 1], look like. groups: the patient of each; none is cut in two.

        Raises:
            InputError: all are of one patient. ModelError, OutputError: `state` cannot be used.
        """
        kept, held = hold_out(groups, self.seed)
        data = torch.from_numpy(np.stack(cubes))
        self.prior_ = self._new_prior(data.shape[1])
        report = Reporter(on_progress, {"held-out cubes": len(held)}, sum(s for _, s in stages(self.steps, False)))
        fit_image_prior(self.prior_, data[kept], steps=self.steps, seed=self.seed, state=state, on_step=report)
        total = square = torch.zeros(len(SIGMAS) * len(WIDTHS), dtype=torch.float64)
        for batch in data[held].split(_AT_ONCE):
            flat = self._readings(batch).double().movedim(1, 0).flatten(1)
            total, square = total + flat.mean(1) * len(batch), square + flat.square().mean(1) * len(batch)
            report.images("held-out cubes", len(batch))
        self.usual_ = total / len(held)
        self.spread_ = (square / len(held) - self.usual_.square()).clamp(min=1e-12).sqrt()
        maps = [self._map(batch) for batch in data[held].split(_AT_ONCE)]
        healthy = torch.cat(maps).flatten(1).numpy()
        self.healthy_ = HealthyStatistics.of(healthy.mean(1), healthy[:, None])
        self.provenance_ = Provenance(frozenset(), frozenset(), (0, 0))  # cubes are drawn at random
        self.trained_on_ = {"cubes": len(kept), "held_out": len(held), "patients": len(set(groups))}
        return self

    @property
    def nfe_(self) -> int:
        """Network evaluations of a cube."""
        return len(SIGMAS) * DRAWS

    def score(
        self, cubes: Sequence[Float32[np.ndarray, "channel size size size"]]
    ) -> list[Float32[np.ndarray, "size size size"]]:
        """Surprise of each voxel, in deviations of what is usual; higher is more abnormal."""
        data = torch.from_numpy(np.stack(cubes))
        return [one.numpy() for batch in data.split(_AT_ONCE) for one in self._map(batch)]

    def save(self, folder: Path, *, facts: Mapping[str, Any] | None = None) -> None:
        """Write the model's folder; `facts` go into its config. Raises OutputError."""
        tensors = self.prior_.tensors() | {"usual": self.usual_, "spread": self.spread_} | self.provenance_.tensors()
        config = {
            "method": METHOD,
            **(facts or {}),
            "settings": {"steps": self.steps, "seed": self.seed},
            "channels": self.prior_.channels,
            "sigmas": SIGMAS,
            "widths": WIDTHS,
            "trained_on": self.trained_on_,
            "healthy": dataclasses.asdict(self.healthy_),
            "versions": versions(),
        }
        write_checkpoint(folder, tensors, config)

    @classmethod
    def load(cls, folder: Path, *, device: str | None = None) -> CubeModel:
        """Read a model's folder. Raises ModelError: it is missing, truncated, foreign, of another method, or newer."""
        tensors, config = read_checkpoint(folder)
        if config["method"] != METHOD:
            raise ModelError(f"{folder}: holds a model of method {config['method']!r}, not {METHOD!r}; fit again")
        try:
            if tuple(config["sigmas"]) != SIGMAS or tuple(config["widths"]) != WIDTHS:
                raise ValueError("noise levels and widths are other ones")
            model = cls(**config["settings"], device=device)
            model.prior_ = model._new_prior(int(config["channels"])).load_tensors(tensors)
            model.usual_, model.spread_ = tensors["usual"], tensors["spread"]
            model.provenance_ = Provenance.restored(tensors)
            model.healthy_ = HealthyStatistics(**config["healthy"])
            model.trained_on_ = dict(config["trained_on"])
        except (InputError, AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ModelError(f"{folder}: its config and its tensors do not belong together; fit again") from error
        return model

    def describe(self) -> dict[str, Any]:
        """What was learned, on what, and how large it is: plain data for JSON."""
        return {
            "method": METHOD,
            "rule": self.rule,
            "steps": self.steps,
            "seed": self.seed,
            "trained_on": self.trained_on_,
            "parameters": self.prior_.parameters(),
            "healthy": dataclasses.asdict(self.healthy_),
        }

    def _new_prior(self, channels: int) -> ImagePrior:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)  # initial weights
            return ImagePrior(channels, space=3).to(self.device)

    def _readings(self, cubes: Float[Tensor, "cube channel *space"]) -> Float[Tensor, "cube reading *space"]:
        klip = KLIP(self.prior_, variance=self.prior_.variance, draws=DRAWS, seed=self.seed)
        return klip.score(cubes.to(self.device)).surprise.coherent.flatten(1, 2).cpu()

    def _map(self, cubes: Float[Tensor, "cube channel *space"]) -> Float[Tensor, "cube *space"]:
        usual, spread = (value.float().reshape(1, -1, 1, 1, 1) for value in (self.usual_, self.spread_))
        return ((self._readings(cubes) - usual) / spread).mean(1)
