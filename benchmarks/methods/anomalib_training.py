"""Training a module of anomalib by its own step, loss and optimiser, until its loss has settled."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from anomalib.data import ImageBatch
from jaxtyping import Float
from torch import Tensor

from benchmarks.curves import settled
from benchmarks.method import PEER_MINUTES, Learned, Task
from benchmarks.methods.anomalib_backbone import as_seen

MINUTES = 8.0
"""After which training ends where it is, and the curve says whether it had settled; unless `PEER_MINUTES` says
otherwise. They are those of a processor, all threads together: neither a busy machine nor fewer threads leave a peer
less of them."""

LEAST_STEPS = 100
"""Before a curve is asked whether it has settled."""

SAID_EVERY = 15.0
"""Seconds between two lines of progress."""


@dataclass(frozen=True)
class Recipe:
    """epochs: as recommended, and at most. batch: images a step. patience: of anomalib's own early stopping, in epochs;
    here the loss has to have settled at so many ends of epochs in a row, where anomalib asks abnormal images."""

    epochs: int
    batch: int
    patience: int


def train(
    module: Any,
    images: Float[Tensor, "image channel size size"],
    recipe: Recipe,
    task: Task,
    report: Callable[[str], None],
) -> Learned:
    """Ends with the recommended epochs, or when the loss has settled, or when time is over."""
    optimiser = _by_hand(module)
    drawing = torch.Generator().manual_seed(task.seed)
    parts = max(1, math.ceil(len(images) / recipe.batch))
    epochs = max(1, round(recipe.epochs * task.steps))
    minutes = float(os.environ.get(PEER_MINUTES, MINUTES))
    limit, least = 60 * minutes * min(1.0, task.steps), LEAST_STEPS * min(1.0, task.steps)
    losses: list[float] = []
    until, said, flat = time.process_time() + limit, time.monotonic(), 0
    end = "the recommended epochs were done"
    for epoch in range(1, epochs + 1):
        for index in torch.randperm(len(images), generator=drawing).tensor_split(parts):
            losses.append(_step(module, optimiser, images[index]))
            if time.monotonic() - said > SAID_EVERY:
                said = time.monotonic()
                report(f"epoch {epoch} of at most {epochs}: loss {losses[-1]:.4g}")
            if time.process_time() > until:
                break
        flat = flat + 1 if len(losses) >= least and settled(losses, epoch / epochs) else 0
        if flat >= recipe.patience:
            end = "the loss had settled"
            break
        if time.process_time() > until:
            end = f"stopped after {limit:.0f} s of a processor"
            break
    curve = [("train", step, loss) for step, loss in enumerate(losses, 1)]
    done = f"{len(losses) / parts:.3g} of {epochs} epochs of {recipe.batch} images a step: {end}"
    return Learned(curve, settled(losses, len(losses) / parts / epochs), done)


def _by_hand(module: Any) -> torch.optim.Optimizer:
    """The module's optimiser; what it asks of Lightning's trainer is given to it directly."""
    optimiser: torch.optim.Optimizer = module.configure_optimizers()
    module.log = lambda *_, **__: None
    module.optimizers = lambda: optimiser
    module.manual_backward = lambda loss: loss.backward()
    return optimiser


def _step(module: Any, optimiser: torch.optim.Optimizer, images: Tensor) -> float:
    """One batch; the loss an image, where the module sums it."""
    batch = ImageBatch(image=as_seen(images))
    if not module.automatic_optimization:
        return float(module.training_step(batch)["loss"].detach()) / len(images)
    optimiser.zero_grad()
    loss = module.training_step(batch)["loss"]
    loss.backward()
    optimiser.step()
    return float(loss.detach())
