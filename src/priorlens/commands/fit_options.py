"""Options of `priorlens fit`, in the words its help shows."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Method(StrEnum):
    """What can be learned."""

    anodode = "anodode"
    klip = "klip"


class IntensityMode(StrEnum):
    """How raw intensities become about [0, 1], see `priorlens.normalise.Intensity`; those of scans, see
    `priorlens.volumes.voxel_intensity`."""

    range = "range"
    percentile = "percentile"
    window = "window"
    robust = "robust"
    landmarks = "landmarks"

    @property
    def of_scans(self) -> bool:
        return self in (IntensityMode.window, IntensityMode.robust, IntensityMode.landmarks)


Healthy = Annotated[
    Path, typer.Argument(metavar="HEALTHY", help="Folder of healthy images, or a data set with train/good in it.")
]
Out = Annotated[Path, typer.Option("--out", metavar="MODEL", help="Folder for the model; made if missing.")]
WhatToLearn = Annotated[
    Method,
    typer.Option(
        "--method",
        help="What to learn. anodode: diffusion priors of features. klip: a diffusion prior of the images themselves, "
        "which judges measurements of images too.",
    ),
]
Size = Annotated[
    int | None,
    typer.Option("--size", min=32, metavar="N", help="Side in pixels at which images are seen. Default: from them."),
]
Backbone = Annotated[
    str | None,
    typer.Option(
        "--backbone",
        metavar="NAME",
        help="anodode: network of timm's that turns images into features. Default: tf_efficientnet_lite0.",
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        metavar="FILE",
        help="anodode: the backbone's weights, .safetensors. Default: installed, or from timm's hub.",
    ),
]
Prior = Annotated[
    str | None,
    typer.Option(
        "--prior",
        metavar="PATH",
        help="klip: a prior that was trained elsewhere, in place of a new one: a folder of diffusers' or MONAI's, or "
        "the name of a diffusers model on the Hugging Face hub.",
    ),
]
Patch = Annotated[
    int | None,
    typer.Option(
        "--patch",
        min=16,
        metavar="N",
        help="klip: side of the patches in which larger images are learned. Default: 128, and whole images up to that.",
    ),
]
Width = Annotated[
    int | None,
    typer.Option(
        "--width",
        min=8,
        max=256,
        metavar="N",
        help="klip: channels of the prior's network at the finest resolution. Default: 32; 16 is three times as fast.",
    ),
]
VarianceHead = Annotated[
    bool,
    typer.Option(
        "--variance-head",
        help="klip: also learn how wrong the prior is to be expected at each place, a fifth more time; only score "
        "--rule standardised needs it.",
    ),
]
Physics = Annotated[
    list[str] | None,
    typer.Option(
        "--physics",
        metavar="SPEC",
        help="klip: a measurement to learn beside whole images, such as ct:views=24; may be given several times.",
    ),
]
Noise = Annotated[
    float, typer.Option("--noise", min=0, metavar="S", help="klip: standard deviation of the noise of --physics.")
]
Intensities = Annotated[
    IntensityMode | None,
    typer.Option(
        "--intensity",
        help="Images: range, grey values mean the same in all, as in CT (the default); percentile, they do not, as in "
        "MRI. Scans: window, in Hounsfield units (the default where there are some); robust, by median and deviation "
        "inside the body (the default of others); landmarks, by its deciles.",
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(
        "--steps", min=1, metavar="N", help="How long to train. Default: 1000, for klip 2400; fewer is faster."
    ),
]
Seed = Annotated[
    int, typer.Option("--seed", min=0, metavar="S", help="The same seed on the same machine gives the same model.")
]
Aside = Annotated[
    float | None,
    typer.Option(
        "--aside",
        min=0,
        max=0.5,
        metavar="SHARE",
        help="Share of the healthy images, by patient, that is kept for calibration and not learned from; 0 for none. "
        "Default: 100 patients, but at least a tenth of them and at most a fifth; none of fewer than 45.",
    ),
]
Batch = Annotated[
    int | None,
    typer.Option(
        "--batch",
        min=1,
        metavar="N",
        help="Images in a training step, over all processes. Default: 16; of large images 8, of cubes 4.",
    ),
]
Accumulate = Annotated[
    int,
    typer.Option(
        "--accumulate",
        min=1,
        metavar="N",
        help="In how many pieces each process does its part of a training step: more need less memory, and the model "
        "is the same but for rounding.",
    ),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with the unfinished training in --out; the rest must be the same.")
]
StartAgain = Annotated[
    bool, typer.Option("--overwrite", help="Start again, and in the end replace the model that is in --out.")
]
