"""Processes that train one model together, as torchrun and accelerate launch start them; without these, one alone.

All read the same data and draw the same batches. Each takes its part of a batch, and the sum of their gradients is that
of the whole batch. What must not differ by a rounding (weights, an unfinished run) is the first process's, and so are
all files: the others write nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from safetensors.torch import load, save
from torch import Tensor

from priorlens.errors import InputError, ProcessError
from priorlens.prior.watch import Watch

JOINING = timedelta(minutes=10)
"""How long processes wait for each other in the beginning."""

_watch: Watch | None = None
_ENDLESS = timedelta(days=30)  # of torch's own limits to waiting; `Watch` knows better

Item = TypeVar("Item")


def count() -> int:
    """How many processes work together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this one is, from 0."""
    return dist.get_rank() if count() > 1 else 0


def first() -> bool:
    """Whether this one writes files."""
    return rank() == 0


def join() -> Watch:
    """Find the others by the variables that torchrun and accelerate launch set; from then on tensors on "cuda" are on
    this process's own GPU.

    Raises:
        InputError: the variables are not whole, or a machine has fewer GPUs than processes. ProcessError: some do not
            come.
    """
    global _watch
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    if missing := [name for name in names if name not in os.environ]:
        raise InputError(f"WORLD_SIZE says that there are several processes, but {missing[0]} is not set; use torchrun")
    local, backend = int(os.environ["LOCAL_RANK"]), "gloo"
    if torch.cuda.is_available():
        if local >= (gpus := torch.cuda.device_count()):
            raise InputError(
                f"process {local + 1} of this machine has no GPU, there are {gpus}; start no more than that"
            )
        torch.cuda.set_device(local)
        backend = "cpu:gloo,cuda:nccl"
    try:
        store, own, several = next(dist.rendezvous("env://", timeout=JOINING))
        _watch = Watch(dist.PrefixStore("priorlens", store), own, several)
        dist.init_process_group(
            backend, store=dist.PrefixStore("torch", store), rank=own, world_size=several, timeout=_ENDLESS
        )
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise ProcessError(f"the processes do not find each other at {where}; look whether all were started") from error
    return _watch


def leave() -> None:
    """Be alone again."""
    global _watch
    _watch = None
    if dist.is_initialized():
        dist.destroy_process_group()


def part_of(total: int, index: int, parts: int) -> slice:
    """One of so many parts of `total` things, as even as can be; of few things some parts are empty."""
    return slice(total * index // parts, total * (index + 1) // parts)


def sum_over_all(tensors: Sequence[Tensor]) -> None:
    """Each tensor becomes, on every process, its sum over all of them, reckoned in float32."""
    flat = torch.cat([tensor.reshape(-1).float() for tensor in tensors])
    _wait(dist.all_reduce(flat, async_op=True))
    for tensor, total in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(total.view(tensor.shape))


def of_first(make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors that the first process makes, on all of them, in main memory."""
    return make() if count() == 1 else load(_sent(_packed(make()) if first() else b"", 0))


def decided(choose: Callable[[], Any]) -> Any:
    """What the first process finds, and it alone looks: plain data for JSON."""
    return choose() if count() == 1 else json.loads(_sent(json.dumps(choose()).encode() if first() else b"", 0))


def require_alike(what: str, own: object) -> None:
    """Raises InputError where `own`, plain data, is not what the first process has."""
    if decided(lambda: own) != json.loads(json.dumps(own)):
        raise InputError(f"{what} is another than that of the first process; give all the same images and options")


def shared_out(
    items: Sequence[Item], work: Callable[[Item], dict[str, Tensor]], on_done: Callable[[Item], None]
) -> list[dict[str, Tensor]]:
    """What `work` makes of each item, in main memory, in their order: each process does its share, and all get all."""
    results = []
    for start in range(0, len(items), count()):
        turn = items[start : start + count()]
        own = work(turn[rank()]) if rank() < len(turn) else {}
        for source, item in enumerate(turn):
            made = own if count() == 1 else load(_sent(_packed(own) if source == rank() else b"", source))
            results.append(made)
            on_done(item)
    return results


def _packed(tensors: dict[str, Tensor]) -> bytes:
    return save({name: value.contiguous().cpu() for name, value in tensors.items()})


def _sent(content: bytes, source: int) -> bytes:
    """The bytes that the process `source` has; those that others give are not looked at."""
    size = torch.tensor([len(content)])
    _wait(dist.broadcast(size, source, async_op=True))
    found = torch.empty(int(size), dtype=torch.uint8)
    if rank() == source:
        found = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    _wait(dist.broadcast(found, source, async_op=True))
    return found.numpy().tobytes()


def _wait(work: Any) -> None:
    """Until it is done. Raises as `Watch.until`."""
    try:
        if _watch:
            _watch.until(work.is_completed)
        work.wait()
    except RuntimeError as error:
        raise _watch.missed() if _watch else ProcessError(str(error)) from error
