"""One loop that trains a denoiser, or the variance head beside it: for feature maps or images, in 2-D or 3-D.

A killed run resumes to the same result: every step draws its batch and its noise from the seed and the step's number,
and weights, their average and the optimiser's moments are written to one file now and then. Several processes
(`prior.processes`) share the batches of one run, each doing its part of every step.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from priorlens.checkpoint import under
from priorlens.errors import InputError, ModelError, ProcessError
from priorlens.outputs import atomic_write
from priorlens.prior import processes
from priorlens.prior.denoiser import Denoiser, Preconditioned, over_space
from priorlens.prior.variance import VarianceHead
from priorlens.prior.views import Views

WHOLE = slice(None)

_DRIFT = 1e-3  # by which weights of processes on unlike machines may differ
_SAME_DATA = 0.02  # standard deviations of whitened features: more than rounding, less than one other image in hundreds


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to learn, and at which noise levels: log(sigma) ~ N(log_sigma_mean, log_sigma_std^2)."""

    steps: int
    batch: int = 16
    learning_rate: float = 1e-3
    warm_up: int = 100
    ema: float = 0.998
    clip: float = 1.0
    log_sigma_mean: float = -0.2
    log_sigma_std: float = 1.2

    def learning_rate_at(self, step: int) -> float:
        """Linear warm-up, then a cosine down to a hundredth."""
        warm = min(1.0, (step + 1) / self.warm_up)
        return self.learning_rate * warm * (0.495 * (1 + math.cos(math.pi * step / self.steps)) + 0.01)


@dataclass(frozen=True)
class Batch:
    """Clean data, the same with noise, and how much of it; `where` they lie, if they are patches of larger images."""

    x: Float[Tensor, "batch channel *space"]
    x_t: Float[Tensor, "batch channel *space"]
    sigma: Float[Tensor, " batch"]
    where: Float[Tensor, "batch axis *space"] | None = None

    def part(self, chosen: slice) -> Batch:
        """Some of it."""
        where = None if self.where is None else self.where[chosen]
        return Batch(self.x[chosen], self.x_t[chosen], self.sigma[chosen], where)


Loss = Callable[[nn.Module, Batch], Tensor]

OnStage = Callable[[str, int, int, float], None]
"""Called with a stage's name, its step, its number of steps, and the loss."""


def of_stage(on_stage: OnStage, stage: str, steps: int) -> Callable[[int, float], None]:
    """What `train` is to call, for one stage of several."""
    return lambda step, loss: on_stage(stage, step, steps, loss)


def denoising_loss(module: nn.Module, batch: Batch) -> Tensor:
    """Squared error of the denoiser, weighted by 1/c_out^2 (Karras et al. 2022, Table 1): every noise level counts."""
    assert isinstance(module, Preconditioned)
    sigma = over_space(batch.sigma, batch.x)
    weight = (sigma**2 + module.sigma_data**2) / (sigma * module.sigma_data) ** 2
    return (weight * (module(batch.x_t, batch.sigma, batch.where) - batch.x) ** 2).mean()


def variance_loss(denoiser: Denoiser) -> Loss:
    """Gaussian negative log-likelihood of the denoiser's error, per element and up to a constant: a proper score.

    A denoiser that is asked about patches is told where they lie, as `Preconditioned` is.
    """

    def loss(module: nn.Module, batch: Batch) -> Tensor:
        assert isinstance(module, VarianceHead)
        where = () if batch.where is None else (batch.where,)
        with torch.no_grad():
            denoised = denoiser(batch.x_t, batch.sigma, *where)
        log_variance = module(batch.x_t, denoised, batch.sigma, *where)
        return 0.5 * (log_variance + (batch.x - denoised) ** 2 * (-log_variance).exp()).mean()

    return loss


def train(
    module: nn.Module,
    loss_of: Loss,
    data: Float[Tensor, "image channel *space"],
    schedule: Schedule,
    *,
    seed: int,
    views: Views | None = None,
    state: Path | None = None,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
    save_every: float = 60.0,
    accumulate: int = 1,
) -> None:
    """Train `module` in place; it ends holding the average of its weights along the way (EMA).

    data: clean examples, in any floating type; each batch is cast to float32 on the module's device.
    views: how each step sees its images; None is whole, as they are.
    state: file that keeps the unfinished run; a run that finds it goes on from there. It is left in place at the end.
        A run of another seed, schedule, views or network, or of visibly other data, is refused. Of several processes
        only the first reads and writes it.
    on_step: called after each step with its number, from 1, and its loss; not for steps done before a resume.
    save_every: seconds between two writes of `state`.
    accumulate: in how many pieces a process takes its part of a batch: more need less memory, and differ by rounding.

    Raises:
        ModelError: `state` cannot be read or belongs to another run. OutputError: it cannot be written.
        InputError: the loss is no longer finite; another process has other data. ProcessError: one has ended.
    """
    device = next(module.parameters()).device
    optimiser = torch.optim.AdamW(module.parameters(), schedule.learning_rate, weight_decay=0.0)
    average = {name: value.detach().clone() for name, value in module.state_dict().items()}
    run = {"seed": seed, "schedule": dataclasses.asdict(schedule), "images": len(data)}
    if views:
        run["views"] = dataclasses.asdict(views)
    typical = data.mean(0, dtype=torch.float32).cpu()
    first = _resume(state, module, optimiser, average, run, typical) if state and state.exists() else 0
    first = _join(module, optimiser, average, {**run, "step": first}, typical)
    own = processes.part_of(schedule.batch, processes.rank(), processes.count())
    module.train()
    saved = time.monotonic()
    for step in range(first, schedule.steps):
        batch = draw(data, schedule, torch.Generator().manual_seed(_seed_of(seed, step)), device, views, own)
        optimiser.zero_grad()
        loss = _gradient(module, loss_of, batch, schedule.batch, accumulate)
        if not math.isfinite(loss):
            raise InputError(f"the loss is no longer finite at step {step + 1}; look for images of extreme intensities")
        optimiser.param_groups[0]["lr"] = schedule.learning_rate_at(step)
        torch.nn.utils.clip_grad_norm_(module.parameters(), schedule.clip)
        optimiser.step()
        _follow(average, module, min(schedule.ema, (1 + step) / (10 + step)))
        on_step(step + 1, loss)
        if state and (time.monotonic() - saved > save_every or step + 1 == schedule.steps):
            _save(state, module, optimiser, average, {**run, "step": step + 1}, typical)
            saved = time.monotonic()
    module.load_state_dict(_agreed(average))
    module.eval()


def draw(
    data: Tensor,
    schedule: Schedule,
    generator: torch.Generator,
    device: torch.device,
    views: Views | None = None,
    own: slice = WHOLE,
) -> Batch:
    """A batch with its noise, or a process's own part of it; the same generator state gives the same batch on every
    device, and the same images and noise however many processes share it."""
    chosen = torch.randint(len(data), (schedule.batch,), generator=generator)
    x, where = data[chosen].float(), None
    if views:
        x, where = views.of(x, generator)
    normal = torch.randn(schedule.batch, generator=generator)
    sigma = (schedule.log_sigma_mean + schedule.log_sigma_std * normal).exp()
    x_t = x + over_space(sigma, x) * torch.randn(x.shape, generator=generator)
    part = Batch(x, x_t, sigma, where).part(own)
    at = None if part.where is None else part.where.to(device)
    return Batch(_fast(part.x.to(device)), _fast(part.x_t.to(device)), part.sigma.to(device), at)


def _gradient(module: nn.Module, loss_of: Loss, own: Batch, total: int, accumulate: int) -> float:
    """Leave in the module the gradient of the mean loss over all `total` images of a step, of which `own` are this
    process's, and return that loss. Each piece counts by its share of the images."""
    loss = torch.zeros((), device=own.x.device)
    pieces = min(accumulate, len(own.x))
    for index in range(pieces):
        piece = own.part(processes.part_of(len(own.x), index, pieces))
        share = loss_of(module, piece) * (len(piece.x) / total)
        share.backward()
        loss += share.detach()
    if processes.count() > 1:
        learned = [parameter for parameter in module.parameters() if parameter.requires_grad]
        for parameter in learned:
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        processes.sum_over_all([loss, *(parameter.grad for parameter in learned if parameter.grad is not None)])
    return loss.item()


def _agreed(average: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the first process has learned. The others have the same but for what another processor rounds otherwise."""
    if processes.count() == 1:
        return average
    learned = processes.of_first(lambda: {name: value.contiguous().cpu() for name, value in average.items()})
    for name, value in learned.items():
        if not torch.allclose(average[name].cpu(), value, rtol=_DRIFT, atol=_DRIFT):
            raise ProcessError("the processes have learned different weights; give all machines the same versions")
    return learned


def _fast(x: Tensor) -> Tensor:
    """Channels last, the layout in which convolutions in bfloat16 are several times faster on a CPU."""
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def _seed_of(seed: int, step: int) -> int:
    return (seed * 1_000_003 + step) % 2**63


@torch.no_grad()
def _follow(average: dict[str, Tensor], module: nn.Module, decay: float) -> None:
    for name, value in module.state_dict().items():
        average[name].lerp_(value, 1 - decay)


def _save(
    path: Path,
    module: nn.Module,
    optimiser: torch.optim.Optimizer,
    average: dict[str, Tensor],
    run: dict[str, Any],
    typical: Tensor,
) -> None:
    metadata = {"run": json.dumps(run)}
    with atomic_write(path) as file:
        file.write(save(_tensors(module, optimiser, average, typical), metadata))


def _tensors(
    module: nn.Module, optimiser: torch.optim.Optimizer, average: dict[str, Tensor], typical: Tensor
) -> dict[str, Tensor]:
    """All that a run goes on from."""
    tensors = {"data.mean": typical} | {f"weights.{name}": value for name, value in module.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in average.items()}
    for index, moments in optimiser.state_dict()["state"].items():
        tensors |= {f"moments.{index}.{name}": value for name, value in moments.items()}
    return {name: value.contiguous().cpu() for name, value in tensors.items()}


def _restore(
    tensors: dict[str, Tensor],
    module: nn.Module,
    optimiser: torch.optim.Optimizer,
    average: dict[str, Tensor],
    typical: Tensor,
) -> None:
    """The inverse of `_tensors`. Raises KeyError, RuntimeError or ValueError where they do not fit.

    The mean of the data tells other images, and features that were whitened along other axes, from rounding.
    """
    if not torch.allclose(tensors["data.mean"], typical, atol=_SAME_DATA):
        raise ValueError("other data")
    module.load_state_dict(under("weights", tensors))
    average.update({name: value.to(average[name].device) for name, value in under("average", tensors).items()})
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in under("moments", tensors).items():
        index, key = name.split(".", 1)
        moments.setdefault(int(index), {})[key] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": moments})


def _resume(
    path: Path,
    module: nn.Module,
    optimiser: torch.optim.Optimizer,
    average: dict[str, Tensor],
    run: dict[str, Any],
    typical: Tensor,
) -> int:
    """Load what `_save` wrote; the number of steps already done."""
    problem = ModelError(f"{path}: is not this run's unfinished training; start again without --resume")
    try:
        with safe_open(path, framework="pt") as file:
            found = dict(json.loads((file.metadata() or {}).get("run", "{}")))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        step = int(found.pop("step"))
        if found != run:
            raise problem
        _restore(tensors, module, optimiser, average, typical)
        return step
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise problem from error


def _join(
    module: nn.Module,
    optimiser: torch.optim.Optimizer,
    average: dict[str, Tensor],
    run: dict[str, Any],
    typical: Tensor,
) -> int:
    """All processes begin where the first one does, in the same run; the number of steps already done."""
    if processes.count() == 1:
        return int(run["step"])
    begun = int(processes.decided(lambda: run["step"]))
    processes.require_alike("a training", {**run, "step": begun})
    tensors = processes.of_first(lambda: _tensors(module, optimiser, average, typical))
    try:
        _restore(tensors, module, optimiser, average, typical)
    except (KeyError, RuntimeError, ValueError) as error:
        raise InputError("the data or networks are not those of the first process; give all the same") from error
    return begun
