"""The surprise of scans, voxel by voxel: a diffusion prior of healthy slices or cubes, and what is usual in them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
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
from priorlens.images import Image
from priorlens.klip import KLIP, SIGMAS, WIDTHS
from priorlens.prior import processes
from priorlens.progress import Progress, Reporter
from priorlens.provenance import Provenance
from priorlens.scores import HealthyStatistics

METHOD = "klip-scans"
STEPS = 600
"""Fewer than of images: slices of one scan are alike, and convolutions in three dimensions cost ten times as much."""

DRAWS = 2
_VOXELS_AT_ONCE = 2**17  # a few hundred megabytes


class CubeModel:
    """KLIP's divergence where the whole image is known, coherent and standardised, over slices or cubes of scans.

    Errors are divided by the deviation that the variance head expects, averaged over neighbourhoods, then squared. The
    readings, one for each noise level and width, are each taken relative to their mean and deviation in healthy pieces
    that were held out; the map is their mean. Unlike in `KLIPModel` no weights are learned: with few patients, those
    that were held out are not new enough to learn weights from.

    steps: how long to train; None is `STEPS`.
    """

    rule = "coherent"

    def __init__(self, *, steps: int | None = None, seed: int = 0, device: str | None = None) -> None:
        self.steps = STEPS if steps is None else steps
        self.seed = seed
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))

    def fit(
        self,
        cubes: Sequence[Float32[np.ndarray, "channel *space"]],
        *,
        groups: Sequence[str],
        state: Path | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        batch: int | None = None,
        accumulate: int = 1,
    ) -> CubeModel:
        """Learn what healthy cubes, or slices, of about [0, 1], look like. groups: those of one are held out together.

        batch: so many in a training step; None is 4 cubes, or 8 or 16 slices. accumulate: in how many pieces a step is
        done, to save memory. Of several processes the first alone learns what is usual.

        Raises:
            InputError: all are of one patient. ModelError, OutputError: `state` cannot be used.
        """
        kept, held = hold_out(groups, self.seed)
        data = torch.from_numpy(np.stack(cubes))
        self.prior_ = self._new_prior(data.shape[1], data.ndim - 2)
        report = Reporter(on_progress, {"held-out cubes": len(held)}, sum(s for _, s in stages(self.steps, False)))
        learn = partial(fit_image_prior, steps=self.steps, seed=self.seed, batch=batch, accumulate=accumulate)
        learn(self.prior_, data[kept], state=state, on_step=report)
        if processes.first():
            self._learn_what_is_usual(data[held], report)
        slices = [Image(cube, Path("slice"), 1.0) for cube in cubes if cube.ndim == 3]  # cubes are drawn at random
        self.provenance_ = Provenance.of(slices, None) if slices else Provenance(frozenset(), frozenset(), (0, 0))
        self.trained_on_ = {"images": len(kept), "held_out": len(held), "patients": len(set(groups))}
        return self

    def _learn_what_is_usual(self, held: Float[Tensor, "cube channel *space"], report: Reporter) -> None:
        total = square = torch.zeros(len(SIGMAS) * len(WIDTHS), dtype=torch.float64)
        readings = []
        for batch in held.split(_at_once(held)):
            readings.append(self._readings(batch))
            flat = readings[-1].double().movedim(1, 0).flatten(1)
            total, square = total + flat.mean(1) * len(batch), square + flat.square().mean(1) * len(batch)
            report.images("held-out cubes", len(batch))
        self.usual_ = total / len(held)
        self.spread_ = (square / len(held) - self.usual_.square()).clamp(min=1e-12).sqrt()
        healthy = torch.cat([self._joined(found) for found in readings]).flatten(1).numpy()
        self.healthy_ = HealthyStatistics.of(healthy.mean(1), healthy[:, None])

    @property
    def nfe_(self) -> int:
        """Network evaluations of a cube."""
        return len(SIGMAS) * DRAWS

    def score(self, cubes: Sequence[Float32[np.ndarray, "channel *space"]]) -> list[Float32[np.ndarray, "*space"]]:
        """Surprise of each voxel, in deviations of what is usual; higher is more abnormal."""
        data = torch.from_numpy(np.stack(cubes))
        return [one.numpy() for batch in data.split(_at_once(data)) for one in self._joined(self._readings(batch))]

    def save(self, folder: Path, *, facts: Mapping[str, Any] | None = None) -> None:
        """Write the model's folder; `facts` go into its config. Raises OutputError."""
        tensors = self.prior_.tensors() | {"usual": self.usual_, "spread": self.spread_} | self.provenance_.tensors()
        config = {
            "method": METHOD,
            **(facts or {}),
            "settings": {"steps": self.steps, "seed": self.seed},
            "channels": self.prior_.channels,
            "space": self.prior_.space,
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
            model.prior_ = model._new_prior(int(config["channels"]), int(config["space"])).load_tensors(tensors)
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

    def _new_prior(self, channels: int, space: int) -> ImagePrior:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)  # initial weights
            return ImagePrior(channels, space=space).to(self.device)

    def _readings(self, cubes: Float[Tensor, "cube channel *space"]) -> Float[Tensor, "cube reading *space"]:
        klip = KLIP(self.prior_, variance=self.prior_.variance, draws=DRAWS, seed=self.seed)
        return klip.score(cubes.to(self.device)).surprise.coherent.flatten(1, 2).cpu()

    def _joined(self, readings: Float[Tensor, "cube reading *space"]) -> Float[Tensor, "cube *space"]:
        """One map of all readings, each relative to what is usual."""
        usual, spread = (value.float().reshape(-1, *[1] * self.prior_.space) for value in (self.usual_, self.spread_))
        return ((readings - usual) / spread).mean(1)


def _at_once(data: Float[Tensor, "cube channel *space"]) -> int:
    """So many go through the networks together."""
    return max(1, _VOXELS_AT_ONCE // data[0, 0].numel())
