"""How images are to be scored, as plain facts: from them any process can make the same results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from priorlens.commands.publishing import RemoteFolder

if TYPE_CHECKING:
    from priorlens.commands.image_results import ImageResults
    from priorlens.datasets import Case
    from priorlens.ledger import Entry


@dataclass(frozen=True)
class ImageScoring:
    """judged, setting: what `judge_of` and `set_up` take. patients: whether the cases' groups are patients' names.
    measured: whether the inputs are real measurements. remote: of what address `out` is the copy."""

    model: Path
    out: Path
    judged: Mapping[str, Any]
    setting: Mapping[str, Any]
    patients: bool
    overlays: bool
    measured: bool = False
    remote: RemoteFolder | None = None

    def results(self) -> ImageResults:
        """The model, read and set up. Raises ModelError, InputError, typer.BadParameter."""
        import typer

        from priorlens.commands.doubts import Doubts
        from priorlens.commands.image_results import ImageResults
        from priorlens.commands.options import judge_of, set_up
        from priorlens.detectors import load_detector
        from priorlens.klip_model import KLIPModel

        detector = load_detector(self.model)
        set_up(detector, **self.setting, simulated=not self.measured)
        if self.measured and not isinstance(detector, KLIPModel):
            raise typer.BadParameter("measurements are for models of method klip; give images")
        judge = judge_of(detector, self.model, **self.judged)
        doubts = Doubts(judge, detector.provenance_)
        shown: dict[str, Any] = {"patients": self.patients, "overlays": self.overlays}
        return ImageResults(self.out, detector, judge, **shown, doubts=doubts, remote=self.remote)

    def identity(self, results: ImageResults, **asked: object) -> dict[str, Any]:
        """Whatever changes results: a run of another identity is another run. asked: what cases are, by option."""
        from priorlens.calibration import model_hash
        from priorlens.commands.recording import verdicts_identity
        from priorlens.detectors import setup_of

        detector: Any = results.detector
        return {
            "model": model_hash(self.model),
            "way of scoring": setup_of(detector),
            **verdicts_identity(results.judge),
            "--overlays": self.overlays,
            **asked,
        }


def scorer(how: ImageScoring) -> Callable[[Sequence[Case]], list[Entry]]:
    """What scores some images in a process of its own."""
    from priorlens.scoring import score_cases

    results = how.results()

    def score(cases: Sequence[Case]) -> list[Entry]:
        return [results.entry(one, results.judgement(one)) for one in score_cases(results.detector, cases)]

    return score
