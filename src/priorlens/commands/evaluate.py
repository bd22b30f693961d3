"""`priorlens evaluate`: a model against images whose truth is known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from priorlens.commands.options import (
    Alpha,
    Block,
    Group,
    HowComputed,
    Manifest,
    Model,
    Noise,
    NoiseWindow,
    Overlays,
    Overwrite,
    Page,
    Physics,
    PosteriorName,
    RegionRate,
    Results,
    ScoringRule,
    Threads,
    judge_of,
    set_up,
    use_threads,
)

if TYPE_CHECKING:
    from priorlens.anodode import AnoDODE
    from priorlens.datasets import Case
    from priorlens.evaluation import Outcome
    from priorlens.klip_model import KLIPModel
    from priorlens.scoring import Scored
    from priorlens.verdicts import Judgement


def evaluate(
    model: Model,
    dataset: Annotated[
        Path,
        typer.Argument(
            metavar="DATASET", help="Folder with test/good, test/KIND and ground_truth/KIND, as MVTec and BMAD have."
        ),
    ],
    out: Results,
    rule: ScoringRule = None,
    physics: Physics = None,
    noise: Noise = None,
    posterior: PosteriorName = None,
    recipe: HowComputed = None,
    window: NoiseWindow = None,
    block: Block = None,
    alpha: Alpha = None,
    fdr: RegionRate = None,
    bootstrap: Annotated[
        int, typer.Option(min=0, metavar="N", help="Resamples of patients behind the 95 % intervals; 0 for none.")
    ] = 1000,
    group: Group = None,
    manifest: Manifest = None,
    overwrite: Overwrite = False,
    overlays: Overlays = True,
    page: Page = True,
    planted: Annotated[
        bool,
        typer.Option(
            "--planted",
            help="The lesions are planted, and results say so. Default: if there is a file DATASET/planted.",
        ),
    ] = False,
    threads: Threads = None,
) -> None:
    """Measure a model on images with known truth.

    Each kind of abnormality, a folder test/KIND, is compared with the healthy images of test/good. A mask in
    ground_truth/KIND has its image's name; what is above half of its largest value is lesion. An abnormal image
    without a mask counts for the figures of whole images only.

    \b
    Writes into --out, beside what priorlens score writes:
      metrics.json   image AUROC, AP, FPR at 95 % TPR; pixel AUROC, AP, AUPRO,
                     best Dice; each with its 95 % interval
      roc_pr.png     ROC and precision-recall curves; curves.json, their points

    Where the model is calibrated, metrics.json also says what verdicts at alpha .01 and .05 are worth: false alarms,
    sensitivity, lesions found, and regions that are none. --alpha writes the verdicts themselves, as for score.

    \b
    Examples:
      priorlens evaluate model dataset --out evaluation
      priorlens evaluate model dataset --out evaluation --group '^(\\d+)_'
      priorlens evaluate klip-model dataset --physics ct:views=24 --out ct
    """
    from priorlens.datasets import labelled_cases
    from priorlens.outputs import prepare_folder, write_json

    cases = labelled_cases(dataset, group=group, manifest=manifest)
    _require_masks(cases)

    # Only now what takes seconds to import: a mask that does not fit is told at once.
    from priorlens import evaluation
    from priorlens.commands.model_card import write_card
    from priorlens.commands.results import report, require_apart, write_scores
    from priorlens.commands.terminal import print_table
    from priorlens.commands.tested_verdicts import TestedVerdicts
    from priorlens.detectors import load_detector
    from priorlens.verdict_figures import verdict_table

    require_apart(out, [dataset / "test", dataset / "ground_truth"])
    use_threads(threads)
    detector = load_detector(model)
    set_up(
        detector,
        rule=rule,
        physics=physics,
        noise=noise,
        posterior=posterior,
        recipe=recipe,
        window=window,
        block=block,
    )
    judge = judge_of(detector, model, alpha=alpha, procedure=fdr)
    prepare_folder(out, overwrite=overwrite)
    write_card(out, model, detector)
    outcomes: list[Outcome] = []
    verdicts = TestedVerdicts(judge, detector.provenance_)

    def on_scored(scored: Scored, judgement: Judgement | None) -> None:
        outcomes.append(_outcome(scored))
        verdicts.add(scored)

    patients = bool(group or manifest)
    failed = write_scores(out, detector, cases, judge=judge, patients=patients, overlays=overlays, on_scored=on_scored)
    metrics = evaluation.evaluate(outcomes, bootstrap=bootstrap)
    facts = {"rule": detector.rule, "images_failed": failed, **_measured(detector), **verdicts.figures(bootstrap)}
    facts |= {"planted": True} if planted or (dataset / "planted").is_file() else {}
    write_json(out / "metrics.json", metrics | facts)
    _write_curves(out, outcomes, min(bootstrap, 300))
    print_table(evaluation.table(metrics))
    if facts.get("verdicts", {}).get("alphas"):
        print_table(verdict_table(facts["verdicts"]["alphas"]))
    report(out, len(cases), failed, page=page)


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
