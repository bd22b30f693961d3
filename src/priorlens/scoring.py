"""Many image files through a detector: read ahead in a thread, scored in batches, failures as values."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32

from priorlens.datasets import Case
from priorlens.errors import InputError
from priorlens.images import Image, read_image, read_mask
from priorlens.ledger import Stamp, content_of
from priorlens.remote_cases import on_disk
from priorlens.scores import HealthyStatistics, Scores

BATCH = 16
"""Images scored at once; fewer where they are large, see `BATCH_PIXELS`."""

BATCH_PIXELS = 2**24
"""A batch is closed once its images hold more pixels than this, all together: memory stays bounded."""

Item = TypeVar("Item")


@runtime_checkable
class Detector(Protocol):
    """Whatever scores images. An image that does not suit it is an `InputError` that names its file."""

    def score(self, images: Sequence[Image]) -> Scores: ...


@runtime_checkable
class Described(Detector, Protocol):
    """A detector that also says what its scores hold, and how to show them."""

    @property
    def rule(self) -> str: ...

    @property
    def figure_names_(self) -> tuple[str, ...]: ...

    @property
    def tables_(self) -> dict[str, tuple[str, ...]]: ...

    @property
    def healthy_(self) -> HealthyStatistics | None: ...


@dataclass(frozen=True)
class Failed:
    """An image, or its mask, that could not be used; `reason` is one line that names the file and the remedy.

    stamp: of the file when it was read. passing: whether it may be usable another time.
    """

    case: Case
    reason: str
    stamp: Stamp
    passing: bool = False


@dataclass(frozen=True)
class Loaded:
    """An image as stored in its file, and the truth about it where there is a mask.

    stamp, content: of the file when it was read, and its SHA-256.
    """

    case: Case
    image: Image
    mask: Bool[np.ndarray, "height width"] | None
    stamp: Stamp
    content: str


@dataclass(frozen=True)
class Scored(Loaded):
    """A scored image: `anomaly` and `anomaly_map` grow with abnormality, the map has the image's own size.

    figures, arrays: what else the detector says of it, by name (`priorlens.scores.Scores`).
    nfe: network evaluations that the image took.
    seconds: the image's share of the time that its batch took to score, without reading and writing.
    """

    anomaly: float
    anomaly_map: Float32[np.ndarray, "height width"]
    nfe: int
    seconds: float
    figures: dict[str, float]
    arrays: dict[str, np.ndarray]

    @classmethod
    def of(cls, loaded: Loaded, scores: Scores, index: int, seconds: float) -> Scored:
        """What `scores` say of the image that has this index in them."""
        return cls(
            loaded.case,
            loaded.image,
            loaded.mask,
            loaded.stamp,
            loaded.content,
            anomaly=float(scores.anomaly[index]),
            anomaly_map=scores.anomaly_map[index],
            nfe=scores.nfe,
            seconds=seconds,
            figures={name: float(values[index]) for name, values in scores.figures.items()},
            arrays={name: values[index] for name, values in scores.arrays.items()},
        )


def score_cases(detector: Detector, cases: Iterable[Case]) -> Iterator[Scored | Failed]:
    """Score every case, one result each in their order. A case that cannot be used does not hold up the others."""
    for batch in _one_ahead(_batches(cases)):
        scored = iter(_score(detector, [one for one in batch if isinstance(one, Loaded)]))
        for one in batch:
            yield one if isinstance(one, Failed) else next(scored)


def read_case(case: Case) -> Loaded | Failed:
    """The image of a case and its mask, if it has one. A file that changes meanwhile is neither old nor new."""
    stamp = case.stamp()
    try:
        with on_disk(case) as here:
            image = read_image(here.path)
            _, height, width = image.pixels.shape
            mask = read_mask(here.mask, (height, width)) if here.mask else None
            loaded = Loaded(case, replace(image, path=case.path), mask, stamp, content_of(here.path))
    except InputError as error:
        return Failed(case, str(error), stamp, error.passing)
    if case.stamp() != stamp:
        return Failed(case, f"{case.file}: was changed while it was read; score again", stamp, True)
    return loaded


def _batches(cases: Iterable[Case]) -> Iterator[list[Loaded | Failed]]:
    batch: list[Loaded | Failed] = []
    pixels = 0
    for case in cases:
        one = read_case(case)
        batch.append(one)
        pixels += one.image.pixels.size if isinstance(one, Loaded) else 0
        if len(batch) == BATCH or pixels > BATCH_PIXELS:
            yield batch
            batch, pixels = [], 0
    if batch:
        yield batch


def _one_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items, each made in a thread while the one before it is in use."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        coming = thread.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = thread.submit(next, items, None)
            yield item


def _score(detector: Detector, batch: Sequence[Loaded]) -> list[Scored | Failed]:
    """Results of a batch in its order. A batch that is refused is halved until only those that do not suit fail."""
    if not batch:
        return []
    start = time.perf_counter()
    try:
        scores = detector.score([one.image for one in batch])
    except InputError as error:
        if len(batch) == 1:
            case = batch[0].case  # of an image that is not on this machine, the path is only a name
            return [Failed(case, str(error).replace(str(case.path), case.file), batch[0].stamp)]
        middle = len(batch) // 2
        return _score(detector, batch[:middle]) + _score(detector, batch[middle:])
    seconds = (time.perf_counter() - start) / len(batch)
    return [Scored.of(one, scores, i, seconds) for i, one in enumerate(batch)]
