"""The verdicts of a calibrated model on images whose truth is known, while they are scored."""

from __future__ import annotations

from typing import Any

from priorlens.commands.terminal import warn
from priorlens.provenance import Provenance, image_fingerprint
from priorlens.scoring import Scored
from priorlens.verdict_figures import ALPHAS, Tested, tested, verdict_figures
from priorlens.verdicts import Judge, met_before


class TestedVerdicts:
    """Collects what a judge says of scored images at every alpha that its calibration can give.

    Images that the judge was calibrated on, or the model fitted to, are no test: they are counted, and left out here.
    """

    def __init__(self, judge: Judge | None, fitted: Provenance) -> None:
        self.judge = judge
        smallest = judge.calibration.smallest_p_value if judge else 1.0
        self.tests: dict[float, list[Tested]] = {alpha: [] for alpha in ALPHAS if alpha >= smallest}
        self._known = met_before(judge, fitted)
        self._met = 0

    def add(self, scored: Scored) -> None:
        """Judge an image at every alpha."""
        if image_fingerprint(scored.image) in self._known:
            self._met += 1
            return
        if not self.judge or not self.tests:
            return
        p_value = self.judge.p_value(scored.anomaly)
        regions = self.judge.regions_at(scored.anomaly_map, list(self.tests))
        for (alpha, found), (_, labels) in zip(self.tests.items(), regions, strict=True):
            found.append(tested(scored.case.kind, scored.case.group, p_value <= alpha, labels, scored.mask))

    def figures(self, bootstrap: int) -> dict[str, Any]:
        """For `metrics.json`: nothing where the model is not calibrated."""
        if self._met:
            warn(f"{self._met} of the test images were fitted to or calibrated on: figures that hold them are too good")
        if self.judge is None:
            return {}
        for alpha in ALPHAS:
            if alpha not in self.tests:
                have, needed = self.judge.calibration.patient_count, round(1 / alpha) - 1
                warn(f"no verdicts at alpha {alpha:g}: it takes {needed} healthy patients, the calibration has {have}")
        tests = {alpha: found for alpha, found in self.tests.items() if found}
        return {
            "verdicts": {
                "procedure": self.judge.procedure,
                "calibration": self.judge.calibration.worth,
                "images_left_out": self._met,
                "alphas": verdict_figures(tests, bootstrap),
            }
        }
