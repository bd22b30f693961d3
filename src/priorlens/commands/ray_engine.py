"""Scoring on Ray: a pool of processes, on this machine or a cluster, each of which holds the model.

What is done to an input is what is done without Ray; only where, and in which order, is Ray's.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from priorlens.commands.memory import keep_freed_memory
from priorlens.errors import InputError, PriorlensError, WeightsError
from priorlens.ledger import Entry

Score = Callable[[Any], list[Entry]]
"""Scores one piece of work: some images, or a scan."""

_RAY = {"RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_worker_niceness": "0"}
"""Its own notes are not for the user; and its processes need not yield to whatever else runs on this machine."""


@dataclass(frozen=True)
class Cluster:
    """Where to score. address: of a running cluster, None for one on this machine. workers: processes that hold the
    model; None for one a processor, or where there are graphics processors one for each of those."""

    address: str | None = None
    workers: int | None = None


class Worker:
    """One process of the pool. make: loads the model and gives what scores with it."""

    def __init__(self, make: Callable[[], Score]) -> None:
        import torch
        from ray import cloudpickle
        from ray.util.metrics import Counter, Histogram

        torch.set_num_threads(1)
        keep_freed_memory()
        self.score, self.packed = make(), cloudpickle
        self.inputs = Counter("priorlens_inputs", "Inputs that were scored, or could not be.", tag_keys=("state",))
        self.seconds = Histogram(
            "priorlens_seconds", "To read, score and write one piece of work.", boundaries=[0.01, 0.1, 1, 10, 100]
        )

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[bytes]]:
        found = []
        for work in batch["work"]:
            start = time.perf_counter()
            try:
                entries = self.score(self.packed.loads(work))  # as Ray sends whatever goes between processes of one run
            except PriorlensError as error:  # such as a full disk; Ray would wrap it in its own words
                found.append(self.packed.dumps(error))
                continue
            self.seconds.observe(time.perf_counter() - start)
            for entry in entries:
                self.inputs.inc(1, {"state": "failed" if entry.reason else "done"})
            found.append(self.packed.dumps(entries))
        return {"entries": found}


def require_ray() -> None:
    """Raises WeightsError: Ray, or what writes its tables, is not installed."""
    if any(find_spec(name) is None for name in ("ray", "pyarrow")):
        raise WeightsError("--engine ray: Ray is not installed; pip install 'priorlens[ray]'")


def entries_by_ray(make: Callable[[], Score], works: Iterable[Any], cluster: Cluster) -> Iterator[Entry]:
    """Of each piece of work, in the order in which they are done. A process that dies is replaced, its work done again.

    Raises WeightsError: Ray is not installed. InputError: the cluster cannot be reached. And what a process raises.
    """
    for name, value in _RAY.items():
        os.environ.setdefault(name, value)  # read when Ray is first imported
    require_ray()
    import ray
    from ray import cloudpickle
    from ray.data import ActorPoolStrategy, DataContext

    rows = [{"work": cloudpickle.dumps(work)} for work in works]
    if not rows:
        return
    try:
        _require_answer(cluster.address)
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        line = f"--address {cluster.address}: cannot be reached ({reason}); start the cluster first"
        raise InputError(line) from error
    try:
        _hush(DataContext)
        processors = ray.cluster_resources()
        graphics = int(processors.get("GPU", 0))
        workers = cluster.workers or graphics or max(1, int(processors.get("CPU", 1)))
        data = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            Worker,
            fn_constructor_args=(make,),
            batch_size=1,
            compute=ActorPoolStrategy(size=min(workers, len(rows))),
            num_cpus=0 if graphics else 1,
            num_gpus=1 if graphics else 0,
        )
        for row in data.iter_rows():
            entries = cloudpickle.loads(row["entries"])
            if isinstance(entries, PriorlensError):
                raise entries
            yield from entries
    finally:
        ray.shutdown()


def _require_answer(address: str | None) -> None:
    """Of a host and a port; else Ray would try for many minutes. Raises OSError."""
    match = re.fullmatch(r"(?:ray://)?\[?(.+?)\]?:(\d{1,5})", address or "")
    if match:
        socket.create_connection((match[1], min(int(match[2]), 2**16 - 1)), timeout=10).close()


def _hush(context: Any) -> None:
    """The run has a bar of its own, and its failures are values."""
    context.get_current().enable_progress_bars = False
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
