"""`priorlens score`: new images, or measurements of them, in; a score, a map and a picture of each out."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from priorlens.commands.options import (
    Address,
    Alpha,
    Block,
    Engine,
    Group,
    HowComputed,
    Log,
    ManifestAnywhere,
    Model,
    Noise,
    NoiseWindow,
    Overlays,
    Overwrite,
    Page,
    Part,
    Physics,
    PixelSize,
    PosteriorName,
    RegionRate,
    ResultsAnywhere,
    ScoringRule,
    Scratch,
    Threads,
    Where,
    Workers,
    cluster_of,
    use_threads,
)
from priorlens.commands.scan_options import Channels, DicomOut, ModalityOf, SeriesOf


def score(
    model: Model,
    out: ResultsAnywhere,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT...",
            help="Images, and folders of images (searched in depth); or, for models of scans, NIfTI files, DICOM "
            "folders and folders of patients; or, for klip, real measurements (.npz .h5 .cfl). Images and measurements "
            "may lie at addresses such as s3://bucket/folder.",
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
    manifest: ManifestAnywhere = None,
    channels: Channels = None,
    series: SeriesOf = None,
    modality: ModalityOf = None,
    dicom: DicomOut = True,
    overwrite: Overwrite = False,
    overlays: Overlays = True,
    page: Page = True,
    shard: Part = None,
    log: Log = None,
    scratch: Scratch = None,
    engine: Where = Engine.local,
    address: Address = None,
    workers: Workers = None,
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
                     (of images; a scan is judged as a whole)

    \b
    Of scans, where the model is one of scans:
      maps/          NIfTI, on the scan's own grid
      segmentations/ NIfTI, regions by number; regions.csv in millimetres
      slices.csv     a line a slice: its index, its height in mm, its anomaly
      dicom/         for DICOM series: parametric map, segmentation and
                     structured report, which refer to the source
      left_out.csv   files that belong to no scan that can be used, and why

    An anomaly score is no probability, and a p-value is not the probability of disease: see docs/verdicts.md. Without
    --alpha, what is outlined exceeds 99.5 % of the pixels of healthy images.

    An image that cannot be used has the reason in column error, the others are scored, and the exit code is 7.

    Whatever stops a run, the same command goes on where it was: run.sqlite knows what is done. With another model, or
    options that change results, it refuses to mix; --overwrite begins anew.

    \b
    Examples:
      priorlens score model new/ --out results
      priorlens score model new/ --out results --alpha .05
      priorlens score model a.png b.npy --out results --no-overlays
      priorlens score model --manifest list.csv --out results
      priorlens score klip-model new/ --physics ct:views=24 --out results
      priorlens score klip-model kspace.cfl --out results
      priorlens score scan-model patient.nii.gz dicom-folder --out results
      priorlens score model archive/ --out results --shard 3/8
      priorlens score model archive/ --out results --engine ray --address auto
      priorlens score model s3://bucket/night --out s3://bucket/results
    """
    from priorlens.addresses import place
    from priorlens.commands.recording import parse_shard
    from priorlens.commands.score_images import score_images
    from priorlens.commands.score_scans import here, of_scans, refuse_scans, require_there, score_scans

    places = [place(one) for one in inputs or []]
    target, listed = place(out), place(manifest) if manifest else None
    require_there(places)
    use_threads(threads)
    run: dict[str, Any] = {"group": group, "overwrite": overwrite, "overlays": overlays}
    run |= {"page": page, "shard": parse_shard(shard), "log": log, "cluster": cluster_of(engine, address, workers)}
    if of_scans(model, physics, noise, posterior, recipe, window, block, pixel_size):
        of_scans_only: dict[str, Any] = {"alpha": alpha, "procedure": fdr and fdr.value}
        of_scans_only |= {"channels": channels, "series": series, "modality": modality, "dicom": dicom}
        of_scans_only |= {"manifest": here(listed) if listed else None}
        score_scans(model, here(target), [*map(here, places)], rule=rule and rule.value, **of_scans_only, **run)
        return
    refuse_scans(channels or series, modality, places)
    setting: dict[str, Any] = {
        "rule": rule,
        "physics": physics,
        "noise": noise,
        "posterior": posterior,
        "recipe": recipe,
    }
    setting |= {"window": window, "block": block}
    judged = {"alpha": alpha, "procedure": fdr, "pixel_size": pixel_size}
    run |= {"manifest": listed, "scratch": scratch}
    score_images(model, target, places, judged=judged, setting=setting, **run)
