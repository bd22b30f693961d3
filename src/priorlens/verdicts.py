"""From a score to a verdict: how probable so high a score is in a healthy image, and which places stand out in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from priorlens.blocks import Procedure, block_means, flag
from priorlens.calibration import Calibration
from priorlens.provenance import Provenance
from priorlens.regions import Region, find_regions
from priorlens.volumes.volume import spacing_of


@dataclass(frozen=True)
class Judgement:
    """What is said of one image.

    p_value: of its anomaly. abnormal: whether that is at most alpha; None where no alpha was given, and then no region
    is told either. regions: places that stand out, the highest peak first; `labels` holds their numbers from 1.
    """

    p_value: float
    abnormal: bool | None
    regions: tuple[Region, ...]
    labels: Int[np.ndarray, "*space"]


@dataclass(frozen=True)
class Judge:
    """Judges images by a calibration.

    alpha: false alarms among healthy images, as a share; also the false-discovery rate of regions. procedure: how the
    regions' rate is controlled (`priorlens.blocks`). affine: from a map's indices to millimetres, see `find_regions`.
    """

    calibration: Calibration
    alpha: float | None = None
    procedure: Procedure = "bh"
    affine: Float[np.ndarray, "n n"] | None = None

    def __post_init__(self) -> None:
        if self.alpha is not None:
            self.calibration.require(self.alpha)

    def p_value(self, anomaly: float) -> float:
        """Of one image."""
        return float(self.calibration.image_p_values(np.array([anomaly]))[0])

    def judge(self, anomaly: float, anomaly_map: Float[np.ndarray, "*space"]) -> Judgement:
        """Of one image, whatever others there are."""
        p_value = self.p_value(anomaly)
        if self.alpha is None:
            return Judgement(p_value, None, (), np.zeros(anomaly_map.shape, np.int32))
        regions, labels = self.regions(anomaly_map, self.alpha)
        return Judgement(p_value, p_value <= self.alpha, tuple(regions), labels)

    def regions(
        self, anomaly_map: Float[np.ndarray, "*space"], alpha: float
    ) -> tuple[list[Region], Int[np.ndarray, "*space"]]:
        """Places that stand out at a level other than the judge's own."""
        (found,) = self.regions_at(anomaly_map, [alpha])
        return found

    def regions_at(
        self, anomaly_map: Float[np.ndarray, "*space"], alphas: Sequence[float]
    ) -> list[tuple[list[Region], Int[np.ndarray, "*space"]]]:
        """The same at each of several levels; the blocks are ranked once."""
        spacing = self._spacing(anomaly_map.ndim)
        blocks = block_means(anomaly_map, spacing)
        flagged = flag(blocks, self.calibration.healthy_blocks, max(alphas), self.procedure)
        return [find_regions(anomaly_map, flagged.at(alpha), self.affine, spacing) for alpha in alphas]

    def _spacing(self, axes: int) -> list[float] | None:
        """Millimetres along each axis of a scan; None of planes, whose blocks are counted in pixels."""
        if self.affine is None or axes < 3:
            return None
        return spacing_of(self.affine).tolist()


def met_before(judge: Judge | None, fitted: Provenance) -> frozenset[str]:
    """Fingerprints of the images that a judge was calibrated on or the model fitted to: no p-value of theirs holds."""
    return fitted.images | frozenset(judge.calibration.images if judge else ())
