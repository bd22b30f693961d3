"""`priorlens score`: new images, or measurements of them, in; a score, a map and a picture of each out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    PixelSize,
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
    from priorlens.datasets import Case
    from priorlens.klip_model import KLIPModel
    from priorlens.scoring import Failed, Scored


def score(
    model: Model,
    out: Results,
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="INPUT...",
            help="Images, and folders of images (searched in depth); or, for klip, real measurements (.npz .h5 .cfl).",
        ),
    ] = None,
    rule: ScoringRule = None,
    physics: Physics = None,
    noise: Noise = None,
    posterior: PosteriorName = None,
    recipe: HowComputed = None,
    window: NoiseWindow = None,
    block: Block = None,
    alpha: Alpha = None,
    fdr: RegionRate = None,
    pixel_size: PixelSize = None,
    group: Group = None,
    manifest: Manifest = None,
    overwrite: Overwrite = False,
    overlays: Overlays = True,
    page: Page = True,
    threads: Threads = None,
) -> None:
    """Say how abnormal new images are, and where.

    \b
    Writes into --out:
      scores.csv   a line an image: file, anomaly (higher is more abnormal),
                   bits/dim of each scale, brightness, noise, nfe, seconds,
                   error; for klip bits of the divergence, PSNR, SSIM
      maps/        surprise at each pixel, NPY (float32) in the image's size
      overlays/    the image, its map, and an outline of what stands out
      report.html  a page that shows all of this; model.json, what model it was
      spectrum.csv surprise by noise level
      blocks/, reconstructions/
                   for klip: bits by block, and the image that prior and
                   measurement agree on

    \b
    Where the model is calibrated, as priorlens fit does by itself, also:
      p_value        in scores.csv: how often a healthy image scores so high
      verdict, regions
                     with --alpha: whether that is at most alpha, and the
                     number of places that stand out, listed in regions.csv
      patients.csv   with --group or --manifest: the same for whole patients

    An anomaly score is no probability, and a p-value is not the probability of disease: see docs/verdicts.md. Without
    --alpha, what is outlined exceeds 99.5 % of the pixels of healthy images.

    An image that cannot be used has the reason in column error, the others are scored, and the exit code is 7.

    \b
    Examples:
      priorlens score model new/ --out results
      priorlens score model new/ --out results --alpha .05
      priorlens score model a.png b.npy --out results --no-overlays
      priorlens score model --manifest list.csv --out results
      priorlens score klip-model new/ --physics ct:views=24 --out results
      priorlens score klip-model kspace.cfl --out results
    """
    from priorlens.datasets import find_cases, is_measurement

    cases = find_cases(inputs or [], group=group, manifest=manifest)
    measured = [is_measurement(case.path) for case in cases]
    if any(measured) and not all(measured):
        raise typer.BadParameter("some inputs are measurements and some are images; score them apart")

    # Only now what takes seconds to import: a misspelt path is told at once.
    from priorlens.commands.doubts import Doubts
    from priorlens.commands.model_card import write_card
    from priorlens.commands.results import report, require_apart, write_scores
    from priorlens.detectors import load_detector
    from priorlens.klip_model import KLIPModel
    from priorlens.outputs import prepare_folder

    require_apart(out, [path for path in inputs or [] if path.is_dir()])
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
        simulated=not any(measured),
    )
    klip = detector if isinstance(detector, KLIPModel) else None
    if any(measured) and not klip:
        raise typer.BadParameter("measurements are for models of method klip; give images")
    results = _of_measurements(klip, cases, physics) if klip and any(measured) else None
    judge = judge_of(detector, model, alpha=alpha, procedure=fdr, pixel_size=pixel_size)
    prepare_folder(out, overwrite=overwrite)
    write_card(out, model, detector)
    doubts = Doubts(judge, detector.provenance_)
    failed = write_scores(
        out,
        detector,
        cases,
        judge=judge,
        patients=bool(group or manifest),
        results=results,
        overlays=overlays,
        on_scored=doubts.add,
    )
    doubts.tell()
    report(out, len(cases), failed, page=page)


def _of_measurements(detector: KLIPModel, cases: Sequence[Case], physics: str | None) -> Iterator[Scored | Failed]:
    """What the detector says of real measurements, one after the other."""
    import time

    from priorlens.errors import InputError, WeightsError
    from priorlens.measurement.files import read_measurement
    from priorlens.measurement.physics import parse
    from priorlens.scoring import Failed, Loaded, Scored

    size = detector.preparation_.size
    for case in cases:
        try:
            measurement = read_measurement(case.path, parse(physics) if physics else None, (size, size))
            start = time.perf_counter()
            image, scores = detector.score_measurement(measurement)
        except (InputError, WeightsError) as error:
            yield Failed(case, str(error))
            continue
        yield Scored.of(Loaded(case, image, None), scores, 0, time.perf_counter() - start)
