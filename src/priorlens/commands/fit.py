"""`priorlens fit`: a folder of healthy images in, a model out."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from priorlens.commands.options import Group, Manifest, Threads, use_threads

if TYPE_CHECKING:
    from priorlens.anodode import AnoDODE
    from priorlens.datasets import Case
    from priorlens.images import Image
    from priorlens.klip_model import KLIPModel
    from priorlens.progress import Progress


class Method(StrEnum):
    """What can be learned."""

    anodode = "anodode"
    klip = "klip"


class IntensityMode(StrEnum):
    """How raw intensities become about [0, 1], see `priorlens.normalise.Intensity`."""

    range = "range"
    percentile = "percentile"


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
    IntensityMode,
    typer.Option(
        "--intensity",
        help="range: grey values mean the same in all images, as in CT. percentile: they do not, as in MRI.",
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
    backbone: Backbone = None,
    weights: Weights = None,
    prior: Prior = None,
    patch: Patch = None,
    physics: Physics = None,
    noise: Noise = 0.0,
    intensity: Intensities = IntensityMode.range,
    steps: Steps = None,
    seed: Seed = 0,
    aside: Aside = None,
    group: Group = None,
    manifest: Manifest = None,
    resume: Resume = False,
    overwrite: StartAgain = False,
    threads: Threads = None,
) -> None:
    """Learn what healthy images look like.

    Images are PNG, JPEG, TIFF, BMP or NPY, 8 or 16 bit, grey or colour, of any size. No abnormal image is needed.
    Images that cannot be read are named and left out.

    A share of the patients is kept aside: verdicts are calibrated on them (see priorlens calibrate).

    The model is a folder with model.safetensors, config.json, calibration/ and training.csv, the loss of every step.
    Killed, or stopped with Ctrl-C, the same command with --resume goes on where it was, to the same model.

    \b
    Examples:
      priorlens fit scans/healthy --out model
      priorlens fit dataset --out model        # the images of dataset/train/good
      priorlens fit scans --out model --group '^(\\d+)_' --intensity percentile
      priorlens fit scans --method klip --physics ct:views=24 --out model
    """
    if resume and overwrite:
        raise typer.BadParameter("--resume goes on, --overwrite starts again; choose one of them")
    of_method: dict[Method, dict[str, Any]] = {
        Method.anodode: {"backbone": backbone, "weights": weights},
        Method.klip: {"prior": prior, "patch": patch, "physics": physics, "noise": noise},
    }
    for other, options in of_method.items():
        for name, value in options.items() if other is not method else ():
            if value:
                raise typer.BadParameter(f"--{name} is of --method {other.value}; leave it out with {method.value}")
    if noise and not physics:
        raise typer.BadParameter("--noise is that of a --physics; name one, or leave it out")
    from priorlens.datasets import fingerprint, healthy_cases

    cases = healthy_cases(healthy, group=group, manifest=manifest)

    # Only now what takes seconds to import: a misspelt path is told at once.
    from priorlens.commands import model_folder
    from priorlens.detectors import load_detector

    use_threads(threads)
    shared: dict[str, Any] = {"size": size, "steps": steps, "intensity": intensity.value, "seed": seed}
    detector, own, measured = _new_detector(method, shared, of_method[method])
    model_folder.claim(out, resume=resume, overwrite=overwrite)
    images, used = _read(healthy, cases)
    run = {
        "method": method.value,
        **shared,
        **own,
        "group": group,
        "manifest": manifest and manifest.name,
        "folder": healthy.resolve().name,
        "images": len(used),
        "left_out": len(cases) - len(used),
        "patients": len({case.group for case in used}),
        "fingerprint": fingerprint(used),
        "aside": aside,
    }
    kept, left = _set_aside(images, used, seed, aside)
    finished = not overwrite and model_folder.is_finished(out, run)
    if finished:
        detector = load_detector(out)
    else:
        groups = [used[i].group for i in kept]
        images = [images[i] for i in kept]
        fitted = partial(_fit, detector, bool(group or manifest), images, groups=groups, **measured)
        _train(detector, fitted, out, run, resume)
        typer.echo(f"{out}: learned from {len(kept)} healthy images of {len(set(groups))} patients")
    if not _calibrate(detector, out, [used[i] for i in left], measured) and finished:
        typer.echo(f"{out}: is finished already; nothing is left to resume")


def _fit(detector: AnoDODE | KLIPModel, patients_named: bool, images: Sequence[Image], **options: Any) -> None:
    """Where patients were not named, groups are the names of files, and none of them is a patient to be known again."""
    detector.fit(images, **options)
    if not patients_named:
        detector.provenance_ = replace(detector.provenance_, patients=frozenset())


def _set_aside(
    images: Sequence[Image], used: Sequence[Case], seed: int, share: float | None
) -> tuple[list[int], list[int]]:
    """Indices of the images to fit to, and of those to calibrate with, none of which is a copy of one of the former."""
    from priorlens.commands.terminal import warn
    from priorlens.conformal import FEWEST_PATIENTS
    from priorlens.errors import InputError
    from priorlens.held_out import set_aside
    from priorlens.provenance import image_fingerprint

    kept, left = set_aside([case.group for case in used], seed, share)
    patients = len({used[i].group for i in left})
    if share and patients < FEWEST_PATIENTS:
        raise InputError(
            f"--aside {share:g}: keeps {patients} patients aside, which give no p-value below "
            f"{1 / (patients + 1):.2g}; keep at least {FEWEST_PATIENTS}, or none with --aside 0"
        )
    if patients < FEWEST_PATIENTS:
        return list(range(len(used))), []
    fitted = {image_fingerprint(images[i]) for i in kept} if left else set()
    new = [i for i in left if image_fingerprint(images[i]) not in fitted]
    if len(new) < len(left):
        copies = len(left) - len(new)
        warn(f"{copies} of {len(left)} images kept aside are copies of others that are learned from; they are left out")
    return kept, new


def _calibrate(detector: AnoDODE | KLIPModel, out: Path, aside: Sequence[Case], measured: Mapping[str, Any]) -> bool:
    """Calibrate what was fitted on the images kept aside, where that was not done yet; whether there was any to do."""
    from priorlens.calibration import calibrated_setups, discard_outdated
    from priorlens.commands.calibrate import calibrate_with, described
    from priorlens.commands.terminal import warn
    from priorlens.detectors import setup_of
    from priorlens.errors import InputError
    from priorlens.klip_model import IDENTITY, KLIPModel

    discard_outdated(out)
    if not aside:
        warn(f"{out}: no images were kept aside for p-values; priorlens calibrate {out} HEALTHY does it with others")
        return False
    done = calibrated_setups(out)
    if isinstance(detector, KLIPModel):
        ways = [partial(detector.measure, text, measured["noise"]) for text in measured["physics"]]
        ways = [partial(detector.measure, IDENTITY), *ways]
    else:
        ways = [partial(setattr, detector, "rule", rule) for rule in ("local", detector.rule)]
    news = False
    for choose in ways:
        choose()
        if setup_of(detector) in done:
            continue
        news = True
        try:
            typer.echo(f"{out}: {described(calibrate_with(detector, out, aside, patients_known=False, any_size=True))}")
        except InputError as error:
            warn(f"{error}; there are no p-values until then")
        except KeyboardInterrupt:
            line = f"{out}: is fitted, but not calibrated; the same command with --resume goes on"
            raise KeyboardInterrupt(line) from None
    return news


def _new_detector(
    method: Method, shared: Mapping[str, Any], own: Mapping[str, Any]
) -> tuple[AnoDODE | KLIPModel, dict[str, Any], dict[str, Any]]:
    """A detector still to be fitted, the facts of it that options tell, and what its `fit` takes beside the images."""
    if method is Method.klip:
        from priorlens.klip_model import KLIPModel

        measured = {"physics": own["physics"] or (), "noise": own["noise"]}
        model = KLIPModel(**shared, prior=own["prior"], patch=own["patch"])
        return model, {**own, "prior": own["prior"] and Path(own["prior"]).name}, measured
    from priorlens.anodode import AnoDODE
    from priorlens.features import DEFAULT_BACKBONE

    backbone, weights = own["backbone"] or DEFAULT_BACKBONE, own["weights"]
    detector = AnoDODE(**shared, backbone=backbone, weights=weights)
    return detector, {"backbone": backbone, "weights": weights and weights.name}, {}


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
    detector: AnoDODE | KLIPModel, fitted: Callable[..., object], out: Path, run: Mapping[str, Any], resume: bool
) -> None:
    """Fit the detector and save it into `out`, with its log, a progress bar, and the unfinished state for a resume."""
    from priorlens.commands import model_folder
    from priorlens.commands.terminal import training_bar
    from priorlens.commands.training_log import NAME, training_log
    from priorlens.errors import InputError, ModelError, WeightsError

    state = model_folder.begin(out, run)
    made = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    try:
        with training_log(out / NAME, resume) as log, training_bar() as show:

            def on_progress(progress: Progress) -> None:
                log(progress.stage, progress.step, progress.loss)
                show(progress.stage, progress.loss, progress.done, progress.total)

            fitted(state=state, on_progress=on_progress)
        detector.save(out, facts={model_folder.RUN_FACTS: run, "made": made})
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{out}: its training is unfinished; the same command with --resume goes on") from None
    except (InputError, ModelError, WeightsError):
        if not resume:  # nothing was learned yet; what an earlier run did learn is kept until this is put right
            (out / NAME).unlink(missing_ok=True)
            model_folder.discard_training(out)
        raise
    model_folder.discard_training(out)
