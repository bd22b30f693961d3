"""`priorlens fit`: a folder of healthy images or scans in, a model out."""

from __future__ import annotations

from typing import Any

import typer

from priorlens.commands.fit_options import (
    Accumulate,
    Aside,
    Backbone,
    Batch,
    Healthy,
    Intensities,
    IntensityMode,
    Method,
    Noise,
    Out,
    Patch,
    Physics,
    Prior,
    Resume,
    Seed,
    Size,
    StartAgain,
    Steps,
    VarianceHead,
    Weights,
    WhatToLearn,
    Width,
)
from priorlens.commands.options import Group, Manifest, Threads, use_threads
from priorlens.commands.scan_options import (
    AxisOf,
    Channels,
    DimensionsOf,
    ModalityOf,
    Neighbours,
    SeriesOf,
    Spacing,
    Window,
)
from priorlens.commands.together import as_one


@as_one()
def fit(
    healthy: Healthy,
    out: Out,
    method: WhatToLearn = Method.anodode,
    size: Size = None,
    backbone: Backbone = None,
    weights: Weights = None,
    prior: Prior = None,
    patch: Patch = None,
    width: Width = None,
    variance_head: VarianceHead = False,
    physics: Physics = None,
    noise: Noise = 0.0,
    intensity: Intensities = None,
    steps: Steps = None,
    seed: Seed = 0,
    batch: Batch = None,
    accumulate: Accumulate = 1,
    aside: Aside = None,
    group: Group = None,
    manifest: Manifest = None,
    channels: Channels = None,
    series: SeriesOf = None,
    modality: ModalityOf = None,
    axis: AxisOf = None,
    dimensions: DimensionsOf = None,
    spacing: Spacing = None,
    neighbours: Neighbours = None,
    window: Window = None,
    resume: Resume = False,
    overwrite: StartAgain = False,
    threads: Threads = None,
) -> None:
    """Learn what healthy images, or scans, look like.

    Images are PNG, JPEG, TIFF, BMP or NPY, 8 or 16 bit, grey or colour, of any size. Scans are NIfTI, DICOM series, NPZ
    (voxels and affine), MHA or NRRD; of scans with a lesion mask beside them, as BraTS has, the slices without lesion
    are learned. No abnormal image is needed. What cannot be read is named and left out.

    A share of the patients is kept aside: verdicts are calibrated on them (see priorlens calibrate).

    The model is a folder with model.safetensors, config.json, calibration/ and training.csv, the loss of every step.
    Killed, or stopped with Ctrl-C, the same command with --resume goes on where it was, to the same model.

    On several GPUs or machines: torchrun --nproc_per_node 4 -m priorlens fit ..., or the same with accelerate launch;
    the model is the same but for rounding, however many processes train it.

    \b
    Examples:
      priorlens fit scans/healthy --out model
      priorlens fit dataset --out model        # the images of dataset/train/good
      priorlens fit scans --out model --group '^(\\d+)_' --intensity percentile
      priorlens fit scans --method klip --physics ct:views=24 --out model
      priorlens fit brats --channels flair,t1ce --out model
      priorlens fit dicom --modality ct --window brain --out model
    """
    if resume and overwrite:
        raise typer.BadParameter("--resume goes on, --overwrite starts again; choose one of them")
    of_method: dict[Method, dict[str, Any]] = {
        Method.anodode: {"backbone": backbone, "weights": weights},
        Method.klip: {"prior": prior, "patch": patch, "physics": physics, "noise": noise}
        | {"width": width, "variance-head": variance_head or None},
    }
    for other, options in of_method.items():
        for name, value in options.items() if other is not method else ():
            if value:
                raise typer.BadParameter(f"--{name} is of --method {other.value}; leave it out with {method.value}")
    if prior and width:
        raise typer.BadParameter("--width is that of a new prior, --prior has its own; leave one of them out")
    if noise and not physics:
        raise typer.BadParameter("--noise is that of a --physics; name one, or leave it out")
    from priorlens.commands.fit_images import fit_images
    from priorlens.commands.fit_scans import ScanOptions, fit_scans
    from priorlens.volumes.scans import is_scan_path

    use_threads(threads)
    shared: dict[str, Any] = {"size": size, "steps": steps, "seed": seed}
    scans = ScanOptions(modality, channels, series, axis, dimensions, spacing, neighbours, window)
    if is_scan_path(healthy):
        if intensity and not intensity.of_scans:
            raise typer.BadParameter(f"--intensity {intensity.value} is for images; give window, robust or landmarks")
        fit_scans(
            healthy,
            out,
            method=method.value,
            own=of_method[method],
            shared=shared,
            options=scans,
            intensity=intensity and intensity.value,
            group=group,
            manifest=manifest,
            aside=aside,
            batch=batch,
            accumulate=accumulate,
            resume=resume,
            overwrite=overwrite,
        )
        return
    if given := scans.named():
        raise typer.BadParameter(f"{given} is for scans, and {healthy} holds none; leave it out")
    shared["intensity"] = _of_images(intensity)
    own, pace = of_method[method], (batch, accumulate)
    fit_images(healthy, out, method.value, own, shared, group, manifest, aside, resume, overwrite, *pace)


def _of_images(intensity: IntensityMode | None) -> str:
    if intensity and intensity.of_scans:
        raise typer.BadParameter(f"--intensity {intensity.value} is for scans; give range or percentile")
    return (intensity or IntensityMode.range).value
