"""`priorlens fit`: a folder of healthy images in, a model out."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from priorlens.commands.options import Group, Manifest, Threads, use_threads

if TYPE_CHECKING:
    from priorlens.anodode import AnoDODE, Progress
    from priorlens.datasets import Case
    from priorlens.images import Image


class Method(StrEnum):
    """What can be learned; one so far."""

    anodode = "anodode"


class IntensityMode(StrEnum):
    """How raw intensities become about [0, 1], see `priorlens.normalise.Intensity`."""

    range = "range"
    percentile = "percentile"


Healthy = Annotated[
    Path, typer.Argument(metavar="HEALTHY", help="Folder of healthy images, or a data set with train/good in it.")
]
Out = Annotated[Path, typer.Option("--out", metavar="MODEL", help="Folder for the model; made if missing.")]
WhatToLearn = Annotated[Method, typer.Option("--method", help="What to learn: diffusion priors of features (AnoDODE).")]
Size = Annotated[
    int | None,
    typer.Option("--size", min=32, metavar="N", help="Side in pixels at which images are seen. Default: from them."),
]
Backbone = Annotated[
    str, typer.Option("--backbone", metavar="NAME", help="Network of timm's that turns images into features.")
]
Weights = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        metavar="FILE",
        help="The backbone's weights, .safetensors. Default: installed, or from timm's hub.",
    ),
]
Intensities = Annotated[
    IntensityMode,
    typer.Option(
        "--intensity",
        help="range: grey values mean the same in all images, as in CT. percentile: they do not, as in MRI.",
    ),
]
Steps = Annotated[
    int | None, typer.Option("--steps", min=1, metavar="N", help="How long to train. Default: 1000; fewer is faster.")
]
Seed = Annotated[
    int, typer.Option("--seed", min=0, metavar="S", help="The same seed on the same machine gives the same model.")
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with the unfinished training in --out; the rest must be the same.")
]
StartAgain = Annotated[
    bool, typer.Option("--overwrite", help="Start again, and in the end replace the model that is in --out.")
]


def fit(
    healthy: Healthy,
    out: Out,
    method: WhatToLearn = Method.anodode,
    size: Size = None,
    backbone: Backbone = "tf_efficientnet_lite0",
    weights: Weights = None,
    intensity: Intensities = IntensityMode.range,
    steps: Steps = None,
    seed: Seed = 0,
    group: Group = None,
    manifest: Manifest = None,
    resume: Resume = False,
    overwrite: StartAgain = False,
    threads: Threads = None,
) -> None:
    """Learn what healthy images look like.

    Images are PNG, JPEG, TIFF, BMP or NPY, 8 or 16 bit, grey or colour, of any size. No abnormal image is needed.
    Images that cannot be read are named and left out.

    The model is a folder with model.safetensors, config.json and training.csv, the loss of every step. Killed, or
    stopped with Ctrl-C, the same command with --resume goes on where it was, to the same model.

    \b
    Examples:
      priorlens fit scans/healthy --out model
      priorlens fit dataset --out model        # the images of dataset/train/good
      priorlens fit scans --out model --group '^(\\d+)_' --intensity percentile
    """
    if resume and overwrite:
        raise typer.BadParameter("--resume goes on, --overwrite starts again; choose one of them")
    from priorlens.datasets import fingerprint, healthy_cases

    cases = healthy_cases(healthy, group=group, manifest=manifest)

    # Only now what takes seconds to import: a misspelt path is told at once.
    from priorlens.anodode import AnoDODE
    from priorlens.commands import model_folder

    use_threads(threads)
    model_folder.claim(out, resume=resume, overwrite=overwrite)
    detector = AnoDODE(size=size, backbone=backbone, weights=weights, steps=steps, intensity=intensity.value, seed=seed)
    images, used = _read(healthy, cases)
    run = {
        "method": method.value,
        "size": size,
        "backbone": backbone,
        "weights": weights and weights.name,
        "intensity": intensity.value,
        "steps": steps,
        "seed": seed,
        "group": group,
        "manifest": manifest and manifest.name,
        "folder": healthy.resolve().name,
        "images": len(used),
        "left_out": len(cases) - len(used),
        "patients": len({case.group for case in used}),
        "fingerprint": fingerprint(used),
    }
    if not overwrite and model_folder.is_finished(out, run):
        typer.echo(f"{out}: is finished already; nothing is left to resume")
        return
    _train(detector, images, [case.group for case in used], out, run, resume)
    typer.echo(f"{out}: learned from {run['images']} healthy images of {run['patients']} patients")


def _read(healthy: Path, cases: Sequence[Case]) -> tuple[list[Image], list[Case]]:
    """The images that can be read, and whose they are; the others are named on stderr. InputError if too few remain."""
    from priorlens.commands.terminal import progress_bar, warn
    from priorlens.datasets import MIN_HEALTHY
    from priorlens.errors import InputError
    from priorlens.images import read_image

    images, used = [], []
    with progress_bar("reading", len(cases)) as advance:
        for case in cases:
            try:
                images.append(read_image(case.path))
                used.append(case)
            except InputError as error:
                warn(str(error))
            advance()
    if len(used) < MIN_HEALTHY:
        raise InputError(
            f"{healthy}: only {len(used)} of {len(cases)} images can be used; at least {MIN_HEALTHY} are needed, "
            "add or repair some"
        )
    if len(used) < len(cases):
        warn(f"{healthy}: {len(cases) - len(used)} of {len(cases)} images cannot be used and are left out")
    return images, used


def _train(
    detector: AnoDODE, images: Sequence[Image], groups: Sequence[str], out: Path, run: Mapping[str, Any], resume: bool
) -> None:
    """Fit the detector and save it into `out`, with its log, a progress bar, and the unfinished state for a resume."""
    from priorlens.commands import model_folder
    from priorlens.commands.terminal import training_bar
    from priorlens.commands.training_log import NAME, training_log
    from priorlens.errors import InputError, WeightsError

    state = model_folder.begin(out, run)
    made = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    try:
        with training_log(out / NAME, resume) as log, training_bar() as show:

            def on_progress(progress: Progress) -> None:
                log(progress.stage, progress.step, progress.loss)
                show(progress.stage, progress.loss, progress.done, progress.total)

            detector.fit(images, groups=groups, state=state, on_progress=on_progress)
        detector.save(out, facts={model_folder.RUN_FACTS: run, "made": made})
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{out}: its training is unfinished; the same command with --resume goes on") from None
    except (InputError, WeightsError):
        if not resume:  # nothing was learned yet; what an earlier run did learn is kept until this is put right
            (out / NAME).unlink(missing_ok=True)
            model_folder.discard_training(out)
        raise
    model_folder.discard_training(out)
