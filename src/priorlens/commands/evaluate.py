"""`priorlens evaluate`: a model against images whose truth is known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
    Run,
    ScoringRule,
    Threads,
    use_threads,
)
from priorlens.commands.scan_options import Channels, DicomOut, ModalityOf, SeriesOf


def evaluate(
    model: Model,
    dataset: Annotated[
        Path,
        typer.Argument(
            metavar="DATASET",
            help="Folder with test/good, test/KIND and ground_truth/KIND, as MVTec and BMAD have; for models of scans "
            "also a folder of patients with masks beside their scans, as BraTS has.",
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
    channels: Channels = None,
    series: SeriesOf = None,
    modality: ModalityOf = None,
    dicom: DicomOut = False,
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

    Of scans, where the model is one of scans, metrics.json has the AUROC of scans and slices, also of slices of the
    same height in other patients; Dice in 3-D; and FROC, lesions found against false positives per scan.

    Where a model of images is calibrated, metrics.json also says what verdicts at alpha .01 and .05 are worth: false
    alarms, sensitivity, lesions found, and regions that are none. --alpha writes the verdicts themselves, as for score.

    \b
    Examples:
      priorlens evaluate model dataset --out evaluation
      priorlens evaluate model dataset --out evaluation --group '^(\\d+)_'
      priorlens evaluate klip-model dataset --physics ct:views=24 --out ct
      priorlens evaluate scan-model brats --out brats-evaluation
    """
    from priorlens.commands.evaluate_images import evaluate_images
    from priorlens.commands.evaluate_scans import evaluate_scans
    from priorlens.commands.score_scans import of_scans, refuse_scans

    use_threads(threads)
    shared = Run(bootstrap, group, manifest, overwrite, overlays, page, planted)
    if of_scans(model, physics, noise, posterior, recipe, window, block):
        evaluate_scans(
            model,
            dataset,
            out,
            shared,
            rule=rule and rule.value,
            alpha=alpha,
            procedure=fdr and fdr.value,
            channels=channels,
            series=series,
            modality=modality,
            dicom=dicom,
        )
        return
    refuse_scans(channels or series, modality, [dataset])
    evaluate_images(
        model,
        dataset,
        out,
        shared,
        judged={"alpha": alpha, "procedure": fdr},
        setting={
            "rule": rule,
            "physics": physics,
            "noise": noise,
            "posterior": posterior,
            "recipe": recipe,
            "window": window,
            "block": block,
        },
    )
