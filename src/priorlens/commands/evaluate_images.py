"""`priorlens evaluate` on images: a model against images whose truth is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from priorlens.commands.options import Run

if TYPE_CHECKING:
    from priorlens.anodode import AnoDODE
    from priorlens.datasets import Case
    from priorlens.evaluation import Outcome
    from priorlens.klip_model import KLIPModel
    from priorlens.scoring import Scored
    from priorlens.verdicts import Judgement


def evaluate_images(
    model: Path, dataset: Path, out: Path, run: Run, *, judged: Mapping[str, Any], setting: Mapping[str, Any]
) -> None:
    """Measure a model on images with known truth; see `priorlens.commands.evaluate`.

    judged, setting: what `judge_of` and `set_up` take.
    """
    from priorlens.datasets import labelled_cases
    from priorlens.outputs import prepare_folder, write_json

    cases = labelled_cases(dataset, group=run.group, manifest=run.manifest)
    _require_masks(cases)

    # Only now what takes seconds to import: a mask that does not fit is told at once.
    from priorlens import evaluation
    from priorlens.commands.image_results import ImageResults
    from priorlens.commands.model_card import write_card
    from priorlens.commands.options import judge_of, set_up
    from priorlens.commands.results import report, require_apart, write_scores
    from priorlens.commands.terminal import print_table
    from priorlens.commands.tested_verdicts import TestedVerdicts
    from priorlens.detectors import load_detector
    from priorlens.verdict_figures import verdict_table

    require_apart(out, [dataset / "test", dataset / "ground_truth"])
    detector = load_detector(model)
    set_up(detector, **setting)
    judge = judge_of(detector, model, **judged)
    prepare_folder(out, overwrite=run.overwrite)
    write_card(out, model, detector)
    outcomes: list[Outcome] = []
    verdicts = TestedVerdicts(judge, detector.provenance_)

    def on_scored(scored: Scored, judgement: Judgement | None) -> None:
        outcomes.append(_outcome(scored))
        verdicts.add(scored)

    patients = bool(run.group or run.manifest)
    results = ImageResults(out, detector, judge, patients=patients, overlays=run.overlays)
    failed = write_scores(results, cases, on_scored=on_scored).failed
    metrics = evaluation.evaluate(outcomes, bootstrap=run.bootstrap)
    facts = {"rule": detector.rule, "images_failed": failed, **_measured(detector), **verdicts.figures(run.bootstrap)}
    facts |= {"planted": True} if run.planted or (dataset / "planted").is_file() else {}
    write_json(out / "metrics.json", metrics | facts)
    _write_curves(out, outcomes, min(run.bootstrap, 300))
    print_table(evaluation.table(metrics))
    if facts.get("verdicts", {}).get("alphas"):
        print_table(verdict_table(facts["verdicts"]["alphas"]))
    report(out, len(cases), failed, page=run.page)


def _write_curves(out: Path, outcomes: Sequence[Outcome], bootstrap: int) -> None:
    """As numbers and as a picture. Raises OutputError."""
    from priorlens import evaluation
    from priorlens.curves import curves_facts
    from priorlens.outputs import write_json
    from priorlens.plots import roc_pr_plot

    curves = evaluation.curves(outcomes, bootstrap)
    write_json(out / "curves.json", curves_facts(curves))
    roc_pr_plot(curves, out / "roc_pr.png")


def _measured(detector: AnoDODE | KLIPModel) -> dict[str, str]:
    """How the images were measured, where that is said."""
    text = getattr(detector, "measured_as_", None)
    return {"physics": text} if text else {}


def _require_masks(cases: Sequence[Case]) -> None:
    """Read every mask before hours of scoring. Raises InputError."""
    from priorlens.commands.terminal import progress_bar
    from priorlens.errors import InputError
    from priorlens.images import read_image, read_mask

    masked = [(case.path, case.mask) for case in cases if case.mask]
    with progress_bar("checking masks", len(masked)) as advance:
        for path, mask in masked:
            advance()
            try:
                _, height, width = read_image(path).pixels.shape
            except InputError:
                continue  # reported with the scores, as any image that cannot be read
            read_mask(mask, (height, width))


def _outcome(scored: Scored) -> Outcome:
    """What the metrics need; healthy images without their map."""
    import numpy as np

    from priorlens.body import body_mask
    from priorlens.datasets import HEALTHY
    from priorlens.evaluation import Outcome

    case = scored.case
    if case.kind == HEALTHY:
        return Outcome(case.name, case.kind, case.group, scored.anomaly)
    grey = scored.image.pixels.mean(axis=0, dtype=np.float32)
    return Outcome(case.name, case.kind, case.group, scored.anomaly, scored.anomaly_map, scored.mask, body_mask(grey))
