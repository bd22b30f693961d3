"""What a method has to do to take part: learn from healthy images, then say how abnormal others are, and where."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from benchmarks.study import Fold, Study
from priorlens.images import Image

PEER_MINUTES = "BENCHMARKS_PEER_MINUTES"
"""Variable of a worker's environment: minutes of a processor that the training of a peer may take."""

_MEANING = {"range": "the same in all images", "percentile": "something else in each image"}

Family = Literal["ours", "anomalib", "diffusion", "simple"]


@dataclass(frozen=True)
class Task:
    """What a method may know before it sees a test image.

    images: healthy ones, as stored. groups: their patients. intensity: see `Study`. size: side in pixels at which every
    method that resizes has to see the images. steps: of training, as a share of what the method takes by default
    (1 but in `--quick`). fold: for methods that read scans. folder: empty, for files of the method's own.
    """

    images: Sequence[Image]
    groups: Sequence[str]
    intensity: Literal["range", "percentile"]
    size: int
    seed: int
    steps: float
    fold: Fold
    folder: Path


@dataclass
class Learned:
    """How training went.

    curve: (stage, step, loss) as the method itself defines its loss; empty where nothing is trained.
    converged: whether the loss had stopped falling when training ended, by `benchmarks.curves.settled`; None without.
    remark: a line for the table, such as which recommended setting could not be kept.
    """

    curve: list[tuple[str, int, float]] = field(default_factory=list)
    converged: bool | None = None
    remark: str = ""


@dataclass(frozen=True)
class Judged:
    """What a method says of images.

    anomaly: one number an image, higher is more abnormal. maps: (height, width) of each image's own size, float32, or
    None of a method that says nothing about places. calls: of networks, an image.
    """

    anomaly: np.ndarray
    maps: list[np.ndarray] | None
    calls: float = 0.0


class Method(Protocol):
    """One method. It is made without arguments, lives in a process of its own, and uses torch's threads at most.

    A method with `needs` is not fitted: `load` gets the folder that the method it needs has saved. It may have a
    `remark`, a line for the table; and, where it judges more at once than it is asked about, `times` (see
    `benchmarks.stages.Timed`).
    """

    def fit(self, task: Task, report: Callable[[str], None]) -> Learned: ...

    def save(self, folder: Path) -> None:
        """All that scoring needs, and nothing else: its bytes are the size of the model in the table."""

    def load(self, folder: Path, task: Task) -> None:
        """The inverse of save, in another process. `task.images` may be looked at (a baseline of their mean, say)."""

    def judge(self, images: Sequence[Image]) -> Judged:
        """Raises nothing but what a defect raises: a crash becomes a row that says so."""


@dataclass(frozen=True)
class Entry:
    """A method as the list of methods has it.

    made_by: "module:Class", imported only where it runs. needs: the name of the method whose model it reads; several
    share one. "a+b" reads both: `load` gets a folder that holds `a` and `b`, the folders these have saved. slow: takes
    so long an image that only every `slow`-th test image of a kind is judged, and the table says so. environment:
    "own", that of priorlens, or "anomalib". only: the names of studies it is meant for, a name standing for
    `<name>_<folder>` too; empty, all. of_scans: it takes the scans that slices were cut from, and is meant for no study
    that cannot tell them. intensity: of the studies it is meant for, see `Study`; empty, any. by_minutes: it trains
    until its loss settles, or for the minutes that `Options` gives to peers.
    """

    name: str
    title: str
    family: Family
    made_by: str
    reference: str
    needs: str = ""
    slow: int = 1
    environment: Literal["own", "anomalib"] = "own"
    only: tuple[str, ...] = ()
    of_scans: bool = False
    intensity: Literal["", "range", "percentile"] = ""
    by_minutes: bool = False

    def suits(self, study: Study) -> bool:
        """Whether it is meant for the study."""
        layouts = tuple(f"{name}_" for name in self.only)
        named = not self.only or study.name in self.only or study.name.startswith(layouts)
        told = not self.of_scans or all(fold.scans and fold.judged for fold in study.folds)
        return named and told and self.intensity in ("", study.intensity)

    @property
    def limits(self) -> str:
        """The studies it is meant for, in words; empty where it is any."""
        told = [f"only {', '.join(self.only)}"] if self.only else []
        told += ["only where a study can tell its scans"] if self.of_scans else []
        told += [f"only where grey values mean {_MEANING[self.intensity]}"] if self.intensity else []
        return "; ".join(told)

    def make(self) -> Method:
        module, _, name = self.made_by.partition(":")
        made: Method = getattr(importlib.import_module(module), name)()
        return made
