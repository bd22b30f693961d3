"""`priorlens score`: new images in, a score, a map and a picture of each out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from priorlens.commands.options import Manifest, Model, Overlays, Overwrite, Results, ScoringRule, Threads, use_threads


def score(
    model: Model,
    out: Results,
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="INPUT...", help="Images, and folders of images (searched in depth)."),
    ] = None,
    rule: ScoringRule = None,
    manifest: Manifest = None,
    overwrite: Overwrite = False,
    overlays: Overlays = True,
    threads: Threads = None,
) -> None:
    """Say how abnormal new images are, and where.

    \b
    Writes into --out:
      scores.csv   a line an image: file, anomaly (higher is more abnormal),
                   bits/dim of each scale, nfe, seconds, error
      maps/        surprise at each pixel, NPY (float32) in the image's size
      overlays/    the image, its map, and an outline of what stands out

    An anomaly score is no probability: compare it with those of images that are known to be healthy. What is
    outlined exceeds 99.5 % of the pixels of healthy images.

    An image that cannot be used has the reason in column error, the others are scored, and the exit code is 7.

    \b
    Examples:
      priorlens score model new/ --out results
      priorlens score model a.png b.npy --out results --no-overlays
      priorlens score model --manifest list.csv --out results
    """
    from priorlens.datasets import find_cases
    from priorlens.outputs import prepare_folder

    cases = find_cases(inputs or [], manifest=manifest)

    # Only now what takes seconds to import: a misspelt path is told at once.
    from priorlens.anodode import AnoDODE
    from priorlens.commands.results import report, require_apart, write_scores

    require_apart(out, inputs or [])
    use_threads(threads)
    detector = AnoDODE.load(model)
    if rule:
        detector.rule = rule.value
    prepare_folder(out, overwrite=overwrite)
    failed = write_scores(out, detector, cases, overlays=overlays)
    report(out, len(cases), failed)
