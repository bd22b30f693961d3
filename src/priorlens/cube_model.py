"""The surprise of scans, voxel by voxel: a diffusion prior of healthy slices or cubes, and what is usual in scans."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32

from priorlens import scan_surprise
from priorlens.checkpoint import read_checkpoint, versions, write_checkpoint
from priorlens.errors import InputError, ModelError
from priorlens.held_out import hold_out
from priorlens.image_prior import ImagePrior, fit_image_prior, stages
from priorlens.images import Image
from priorlens.progress import Progress, Reporter
from priorlens.provenance import Provenance
from priorlens.scan_surprise import DRAWS, SIGMAS, WIDTHS, ErrorStack, Judged, peaks
from priorlens.scores import HealthyStatistics
from priorlens.surprise import signed_errors

METHOD = "klip-scans"
STEPS = 600
"""Fewer than of images: slices of one scan are alike, and convolutions in three dimensions cost ten times as much."""

READ = {"sigmas": list(SIGMAS), "widths": list(WIDTHS), "draws": DRAWS, "null": "scan", "joins": ["mean", "max"]}
"""How scans are read, as a model's folder tells it: what is usual was learned for this and nothing else."""

_VOXELS_AT_ONCE = 2**17  # a few hundred megabytes


class CubeModel:
    """KLIP's divergence where the whole image is known, over slices or cubes of scans: coherent, and standardised.

    `fit` learns the prior, then `learn_usual` how far healthy scans stray from it. Errors are divided by the deviation
    that the variance head expects, averaged over neighbourhoods in three dimensions, divided by their spread in the
    scan itself, then squared (`priorlens.scan_surprise`). Such readings, one for each noise level and width, are each
    taken relative to their mean and deviation in healthy slices. The map is their mean; a slice is judged by the
    highest at each place. Unlike in `KLIPModel` no weights are learned: with few patients, those that were held out are
    not new enough to learn weights from.

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
        done, to save memory. What is usual is learned apart, by `learn_usual`.

        Raises:
            InputError: all are of one patient. ModelError, OutputError: `state` cannot be used.
        """
        kept, held = hold_out(groups, self.seed)
        data = torch.from_numpy(np.stack(cubes))
        self.prior_ = self._new_prior(data.shape[1], data.ndim - 2)
        report = Reporter(on_progress, {}, sum(s for _, s in stages(self.steps)))
        learn = partial(fit_image_prior, steps=self.steps, seed=self.seed, batch=batch, accumulate=accumulate)
        learn(self.prior_, data[kept], state=state, on_step=report)
        slices = [Image(cube, Path("slice"), 1.0) for cube in cubes if cube.ndim == 3]  # cubes are drawn at random
        self.provenance_ = Provenance.of(slices, None) if slices else Provenance(frozenset(), frozenset(), (0, 0))
        self.trained_on_ = {"images": len(kept), "held_out": len(held), "patients": len(set(groups))}
        return self

    def learn_usual(self, stacks: Sequence[ErrorStack]) -> CubeModel:
        """Learn how far healthy slices of whole scans stray from the prior, each scan by its own null.

        stacks: what `signed` says of lesion-free slices, a scan each.

        Raises:
            InputError: there are none, or a scan shows nothing.
        """
        if not stacks:
            raise InputError("no scan has slices without lesion; add scans to learn from")
        self.usual_, self.spread_ = scan_surprise.usual_of(stacks)
        figures, values = [], []
        for stack in stacks:
            found, body = self.judge(stack), stack.body.numpy()
            by_slice = peaks(found.highest, body)
            figures.append(by_slice[~np.isnan(by_slice)])
            values.append(found.mean[body])
        self.healthy_ = HealthyStatistics.of(np.concatenate(figures), np.concatenate(values))
        return self

    @property
    def nfe_(self) -> int:
        """Network evaluations of a cube."""
        return len(SIGMAS) * DRAWS

    def signed(
        self, cubes: Sequence[Float32[np.ndarray, "channel *space"]], numbers: Sequence[int]
    ) -> list[Float32[np.ndarray, "sigma channel *space"]]:
        """The prior's errors by noise level, with their sign; see `priorlens.surprise.signed_errors`.

        numbers: of the cubes, or slices, in their scan: with the model's seed they decide the noise that each meets.
        """
        at_once = max(1, _VOXELS_AT_ONCE // cubes[0][0].size)
        found: list[Float32[np.ndarray, "sigma channel *space"]] = []
        for start in range(0, len(cubes), at_once):
            part = slice(start, start + at_once)
            errors = signed_errors(
                self.prior_.denoiser,
                self.prior_.variance,
                torch.from_numpy(np.stack(cubes[part])).to(self.device),
                sigmas=SIGMAS,
                draws=DRAWS,
                seeds=[(self.seed * 2**32 + number) % 2**63 for number in numbers[part]],
            )
            found += list(errors.cpu().numpy())
        return found

    def judge(self, stack: ErrorStack) -> Judged:
        """How surprising a scan's slices are, in deviations of what is usual; higher is more abnormal.

        Raises:
            InputError: the scan is the same throughout.
        """
        return scan_surprise.judged(stack, self.usual_, self.spread_)

    def save(self, folder: Path, *, facts: Mapping[str, Any] | None = None) -> None:
        """Write the model's folder; `facts` go into its config. Raises OutputError."""
        tensors = self.prior_.tensors() | {"usual": self.usual_, "spread": self.spread_} | self.provenance_.tensors()
        config = {
            "method": METHOD,
            **(facts or {}),
            "settings": {"steps": self.steps, "seed": self.seed},
            "channels": self.prior_.channels,
            "space": self.prior_.space,
            **READ,
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
        if {name: config.get(name) for name in READ} != READ:
            raise ModelError(f"{folder}: reads scans in another way than this version does; fit again")
        try:
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
