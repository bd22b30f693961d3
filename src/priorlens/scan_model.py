"""A model of whole scans: a detector of slices, or of cubes, and how scans become these."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64

from priorlens import cube_model
from priorlens.anodode import AnoDODE
from priorlens.checkpoint import read_config
from priorlens.cube_model import CubeModel
from priorlens.detectors import load_detector, setup_of, unit_of
from priorlens.errors import InputError, ModelError
from priorlens.klip_model import KLIPModel
from priorlens.provenance import Provenance, image_fingerprint
from priorlens.scan_surprise import ErrorStack, peaks
from priorlens.scores import HealthyStatistics
from priorlens.volumes.scan_preparation import Prepared, ScanPreparation
from priorlens.volumes.volume import Volume

Piece = TypeVar("Piece")
OnSlices = Callable[[int, int], None]

SCANS = "scans"
"""Where a model's `config.json` keeps how scans are prepared; models of images have no such entry."""

HIGHEST = 0.05
"""Share of a scan's slices whose mean is its anomaly: those that score highest."""

AT_ONCE = 16
"""Slices, or cubes, that a detector is given together; after each such part there is word of how far it is."""


@dataclass(frozen=True)
class ScanScores:
    """What a model says of one scan; higher is more abnormal.

    anomaly: mean over the slices that score highest, a twentieth of them. anomaly_map: on the scan's own grid; what
    is usual, outside the body and in slices not looked at. slices, slice_anomaly, heights: those looked at, by their
    index along the scan's own axis `axis`, and millimetres along the scanner axis that the plane is named after. body:
    where the patient is. prepared: the scan as the model saw it. nfe: network evaluations.
    """

    anomaly: float
    anomaly_map: Float32[np.ndarray, "i j k"]
    axis: int
    slices: tuple[int, ...]
    slice_anomaly: Float32[np.ndarray, " slice"]
    heights: Float64[np.ndarray, " slice"]
    body: Bool[np.ndarray, "i j k"]
    prepared: Prepared
    nfe: int

    def of_all_slices(self, lesions: Bool[np.ndarray, "i j k"] | None) -> Float32[np.ndarray, " slice"]:
        """Anomaly of every slice of the stack, nan of those not looked at: but of such as hold a lesion, the least."""
        by_slice = np.full(len(self.prepared.body), np.nan, np.float32)
        if lesions is not None:
            by_slice[self.prepared.layout.to_stack(lesions).any((1, 2))] = self.slice_anomaly.min()
        by_slice[[self.prepared.own_index(index) for index in self.slices]] = self.slice_anomaly
        return by_slice


class ScanModel:
    """How scans are prepared, and the fitted detector that sees them.

    detector: of images, for slices (`preparation.dimensions` 2d or 2.5d); or of cubes (3d).
    """

    def __init__(self, preparation: ScanPreparation, detector: AnoDODE | KLIPModel | CubeModel) -> None:
        self.preparation = preparation
        self.detector = detector

    @property
    def healthy_(self) -> HealthyStatistics:
        """Of the detector's slices or cubes, as it is set up."""
        found = self.detector.healthy_
        if found is None:
            raise InputError("what is usual was not learned for this rule and measurement; choose the model's own")
        return found

    @property
    def unit_(self) -> Literal["bit", "1"]:
        """Of the map, see `priorlens.detectors.unit_of`."""
        return unit_of(self.detector)

    def choose(self, rule: str | None) -> None:
        """Set the rule; None leaves the model's own. Raises InputError for one that the detector does not have."""
        if rule is None:
            return
        if isinstance(self.detector, CubeModel):
            raise InputError(f"{rule}: models of cubes have one rule only, {self.detector.rule}; leave --rule out")
        self.detector.rule = rule

    @property
    def provenance_(self) -> Provenance:
        """Of the slices or cubes of the fit, and of whom they are."""
        return self.detector.provenance_

    def met(self, prepared: Prepared) -> str:
        """Why a scan is no new one: the model was fitted to a slice of it. Empty where it has met none.

        Models of cubes, which are drawn at random, cannot tell.
        """
        if self.preparation.dimensions == "3d":
            return ""
        known = any(image_fingerprint(image) in self.provenance_.images for image in prepared.seen)
        return "the model was fitted to slices of this scan" if known else ""

    def score(self, volume: Volume, on_slices: OnSlices = lambda done, total: None) -> ScanScores:
        """What the model says of one scan; `on_slices` is told how many slices, or cubes, of how many are done.

        Raises:
            InputError: a scan of other channels or units than those of the fit, or in which there is nothing to see.
        """
        prepared = self.preparation.prepare(volume)
        slices = prepared.looked_at()
        if not slices:
            raise InputError(f"{volume.path}: shows no slice with enough of a body; give scans like those of the fit")
        judge = self._by_voxels if isinstance(self.detector, CubeModel) else self._by_images
        return judge(prepared, slices, on_slices)

    def errors_of(
        self,
        prepared: Prepared,
        lesions: Bool[np.ndarray, "i j k"] | None = None,
        on_slices: OnSlices = lambda done, total: None,
    ) -> ErrorStack:
        """What a prior of voxels makes of a scan's slices, or cubes: of those without these lesions."""
        assert isinstance(self.detector, CubeModel)
        planes = prepared.planes(lesions)
        pieces = prepared.pieces(planes)
        parts = _parts(list(pieces.items()), on_slices)
        found = [one for part in parts for one in self.detector.signed([p for _, p in part], [n for n, _ in part])]
        return ErrorStack(
            path=prepared.volume.path,
            errors=torch.from_numpy(prepared.stack_of(planes, found)),
            body=torch.from_numpy(prepared.body_of(planes)),
            places=prepared.places(planes),
            pixel=self.preparation.spacing,
            nfe=self.detector.nfe_ * len(pieces),
        )

    def _by_voxels(self, prepared: Prepared, slices: Sequence[int], on_slices: OnSlices) -> ScanScores:
        """The map is the mean of all readings; a slice is judged where the highest of them is highest."""
        assert isinstance(self.detector, CubeModel)
        stack, planes, usual = self.errors_of(prepared, None, on_slices), prepared.planes(), self.healthy_.map_low
        judged = self.detector.judge(stack)
        highest = prepared.layout.to_stack(prepared.map_of(planes, judged.highest, usual))
        by_slice = peaks(highest[list(slices)], prepared.body[list(slices)])
        return _scores(prepared, slices, prepared.map_of(planes, judged.mean, usual), by_slice, stack.nfe)

    def _by_images(self, prepared: Prepared, slices: Sequence[int], on_slices: OnSlices) -> ScanScores:
        """Each slice is judged by itself, as an image; of several tiles, the highest counts."""
        assert not isinstance(self.detector, CubeModel)
        found = [self.detector.score(part) for part in _parts(prepared.seen, on_slices)]
        stack = prepared.stack_of(slices, [one for part in found for one in part.anomaly_map])
        by_slice = np.concatenate([part.anomaly for part in found]).reshape(len(slices), -1).max(axis=1)
        nfe = sum(part.nfe * len(part.anomaly) for part in found)
        return _scores(prepared, slices, prepared.map_of(slices, stack, self.healthy_.map_low), by_slice, nfe)

    def save(self, folder: Path, *, facts: Mapping[str, Any] | None = None) -> None:
        """Write the model's folder; `facts` go into its config. Raises OutputError."""
        self.detector.save(folder, facts={**(facts or {}), SCANS: dataclasses.asdict(self.preparation)})

    @classmethod
    def load(cls, folder: Path, *, device: str | None = None) -> ScanModel:
        """Read a model's folder.

        Raises:
            ModelError: it is missing, truncated, foreign or newer, or of images. WeightsError: as `load_detector`.
        """
        config = read_config(folder)
        if SCANS not in config:
            raise ModelError(f"{folder}: is a model of images, not of scans; fit one on scans, or give images")
        try:
            preparation = ScanPreparation.restored(config[SCANS])
        except (InputError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{folder}: its config does not say how scans are prepared; fit again") from error
        if config["method"] == cube_model.METHOD:
            return cls(preparation, CubeModel.load(folder, device=device))
        return cls(preparation, load_detector(folder, device=device))

    def describe(self) -> dict[str, Any]:
        """What was learned, on what, and how scans are prepared: plain data for JSON."""
        return {**self.detector.describe(), SCANS: dataclasses.asdict(self.preparation)}


def setup_of_scans(model: ScanModel) -> str:
    """All that may be chosen of how scans are scored, in one line, as `priorlens.detectors.setup_of`."""
    return f"{setup_of(model.detector)}, scans"


def is_scan_model(folder: Path) -> bool:
    """Whether a model's folder holds a model of scans. Raises ModelError as `read_config`."""
    return SCANS in read_config(folder)


def _parts(pieces: Sequence[Piece], on_slices: OnSlices) -> Iterator[Sequence[Piece]]:
    """In their order; a part is done once the next is asked for."""
    for start in range(0, len(pieces), AT_ONCE):
        yield pieces[start : start + AT_ONCE]
        on_slices(min(start + AT_ONCE, len(pieces)), len(pieces))


def _highest(by_slice: Float32[np.ndarray, " slice"]) -> float:
    count = max(1, round(HIGHEST * len(by_slice)))
    return float(np.sort(by_slice)[-count:].mean(dtype=np.float64))


def _scores(
    prepared: Prepared,
    slices: Sequence[int],
    anomaly_map: Float32[np.ndarray, "i j k"],
    by_slice: Float32[np.ndarray, " slice"],
    nfe: int,
) -> ScanScores:
    return ScanScores(
        anomaly=_highest(by_slice),
        anomaly_map=anomaly_map,
        axis=prepared.layout.axes[0],
        slices=tuple(prepared.own_index(index) for index in slices),
        slice_anomaly=by_slice.astype(np.float32),
        heights=prepared.heights[slices],
        body=prepared.layout.from_stack(prepared.body),
        prepared=prepared,
        nfe=nfe,
    )
