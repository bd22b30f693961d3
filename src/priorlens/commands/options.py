"""Arguments and options that several commands share, in the words their help shows."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from priorlens.anodode import AnoDODE
    from priorlens.commands.ray_engine import Cluster
    from priorlens.klip_model import KLIPModel
    from priorlens.verdicts import Judge


class Rule(StrEnum):
    """`priorlens.rules.RULES` and `priorlens.klip_rules.KLIP_RULES` once more, as importing those would take seconds
    before any help is shown."""

    combined = "combined"
    local = "local"
    coherent = "coherent"
    standardised = "standardised"
    typicality = "typicality"
    published = "published"
    squares = "squares"


class Posterior(StrEnum):
    """`priorlens.posterior.denoisers.POSTERIORS` once more, for the same reason."""

    ddnm = "ddnm"
    pigdm = "pigdm"
    diffpir = "diffpir"
    dps = "dps"
    dps_plain = "dps-plain"


class FalseDiscoveries(StrEnum):
    """`priorlens.blocks.Procedure` once more."""

    bh = "bh"
    by = "by"
    max = "max"


class Recipe(StrEnum):
    """How KLIP's divergence is computed."""

    own = "own"
    reference = "reference"


Model = Annotated[Path, typer.Argument(metavar="MODEL", help="Folder that priorlens fit has made.")]
Group = Annotated[
    str | None,
    typer.Option(
        "--group",
        metavar="REGEX",
        help="Names the patient of an image: the first capture group (or the whole match) in its path, such as "
        r"'(\w+)_slice'. Images of one patient stay together. Without it every image is a patient of its own.",
    ),
]
Manifest = Annotated[
    Path | None,
    typer.Option(
        "--manifest",
        metavar="CSV",
        help="Table with the columns file,group[,kind][,mask] that names each image's patient, in place of --group. "
        "Paths in it start at its own folder.",
    ),
]
ScoringRule = Annotated[
    Rule | None,
    typer.Option(
        "--rule",
        help="How scales and places become one score and map. Default: the model's own, combined (weights learned on "
        "artefacts planted in healthy images; of anodode, scored by coherent or local, whichever is more unusual). "
        "coherent: errors averaged over a neighbourhood, then squared. Of anodode only, local: the map of combined, "
        "scored by its highest places, for small lesions in usual images. "
        "standardised: errors relative to those expected. typicality: distance of bits/dim from that of healthy ones. "
        "published: bits/dim, and what reconstruction takes away, as AnoDODE was published; slow. Of klip only, "
        "squares: the divergence in bits, a plain sum of squares.",
    ),
]
Physics = Annotated[
    str | None,
    typer.Option(
        "--physics",
        metavar="SPEC",
        help="klip: what measures the images: identity, noise:sigma=.1, ct:views=24, ct-fan:views=48, "
        "mri:acceleration=4,coils=8, blur:sigma=2, inpaint:keep=.5 (or box=.3, mask=FILE), super:factor=4. The "
        "measurement is simulated. Default: the images are taken as they are.",
    ),
]
Noise = Annotated[
    float | None,
    typer.Option(
        "--noise",
        min=0,
        metavar="S",
        help="klip: standard deviation of the noise that the simulation adds to y, of an operator of norm 1. "
        "Default: 0.",
    ),
]
PosteriorName = Annotated[
    Posterior | None,
    typer.Option(
        "--posterior",
        help="klip: how a measurement corrects the prior's expectation; compared in docs/klip.md. Default: diffpir.",
    ),
]
HowComputed = Annotated[
    Recipe | None,
    typer.Option(
        "--recipe",
        help="klip: reference is the published recipe step for step, 100 steps and 8 samples, for comparison; slow.",
    ),
]
NoiseWindow = Annotated[
    tuple[float, float] | None,
    typer.Option(
        "--window",
        metavar="LOW HIGH",
        help="klip: noise levels, for intensities in [0, 1], from which rules other than combined take their bits. "
        "Default: as learned.",
    ),
]
Block = Annotated[
    int | None,
    typer.Option(
        "--block", min=1, metavar="N", help="klip: side of a block in the model's pixels. Default: as learned."
    ),
]
Alpha = Annotated[
    float | None,
    typer.Option(
        "--alpha",
        metavar="A",
        help="Give verdicts, with so large a share of false alarms among healthy images, and list the regions that "
        "stand out, with so large a false-discovery rate. Such as .05. The model must be calibrated.",
    ),
]
RegionRate = Annotated[
    FalseDiscoveries | None,
    typer.Option(
        "--fdr",
        help="How the rate of falsely flagged blocks is controlled. bh: Benjamini-Hochberg, for blocks of positive "
        "dependence. by: Benjamini-Yekutieli, for any. max: none at all in 1 - alpha of healthy images. Default: bh.",
    ),
]
PixelSize = Annotated[
    float | None,
    typer.Option(
        "--pixel-size", metavar="MM", help="Side of a pixel, for regions in millimetres. Default: told in pixels."
    ),
]


class Engine(StrEnum):
    """Who scores."""

    local = "local"
    ray = "ray"


Where = Annotated[
    Engine,
    typer.Option(
        "--engine",
        help="local: this process. ray: a pool of processes, here or on a cluster, each of which holds the model; "
        "needs the extra ray, and an --out that all of them reach.",
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address", metavar="ADDRESS", help="ray: of a running cluster, or auto. Default: one on this machine."
    ),
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", min=1, metavar="N", help="ray: processes that hold the model. Default: one a processor."),
]
Part = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Do only the I-th of N parts of the inputs, for array jobs: all with the same --out, which the last to "
        "end completes.",
    ),
]
Log = Annotated[
    Path | None,
    typer.Option("--log", metavar="FILE", help="Append a line of JSON for every input: done, or failed and why."),
]
Results = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the results; made if missing.")]
ResultsAnywhere = Annotated[
    str,
    typer.Option(
        "--out",
        metavar="DIR",
        help="Folder for the results, or address such as s3://bucket/results; made if missing.",
    ),
]
ManifestAnywhere = Annotated[
    str | None,
    typer.Option(
        "--manifest",
        metavar="CSV",
        help="Table with the columns file,group[,kind][,mask] that names each image's patient, in place of --group. "
        "Paths in it start at its own folder; or, where the inputs are addresses and it is not, at these.",
    ),
]
Scratch = Annotated[
    Path | None,
    typer.Option(
        "--scratch",
        metavar="DIR",
        help="Where the copy of an --out at an address lies on this machine. Default: a folder of the user's cache.",
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Write into --out although it is not empty, over what has the same names.")
]
Overlays = Annotated[
    bool,
    typer.Option("--overlays/--no-overlays", help="One picture an image: the image, its map, and what stands out."),
]
Page = Annotated[
    bool, typer.Option("--report/--no-report", help="report.html: a page that shows all of this, to hand over.")
]
Threads = Annotated[
    int | None, typer.Option("--threads", min=1, metavar="N", help="CPU threads to use. Default: all cores.")
]


@dataclass(frozen=True)
class Run:
    """What `evaluate` was asked for, of images and scans alike."""

    bootstrap: int
    group: str | None
    manifest: Path | None
    overwrite: bool
    overlays: bool
    page: bool
    planted: bool


def use_threads(threads: int | None) -> None:
    """Apply `--threads`, if it was given, and make memory quick. Raises InputError for an arithmetic that is none."""
    from priorlens.commands.memory import keep_freed_memory
    from priorlens.precision import computes_bfloat16

    keep_freed_memory()
    computes_bfloat16("cpu")  # or the environment names another: told now, not image by image
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def cluster_of(engine: Engine, address: str | None, workers: int | None) -> Cluster | None:
    """Where Ray scores; None where it does not. Raises BadParameter, and WeightsError where Ray is not installed."""
    from priorlens.commands.ray_engine import Cluster, require_ray

    if engine is Engine.ray:
        require_ray()
        return Cluster(address, workers)
    if address is not None or workers is not None:
        raise typer.BadParameter("--address and --workers are for --engine ray; leave them out, or add it")
    return None


def set_up(
    detector: AnoDODE | KLIPModel,
    *,
    rule: Rule | None,
    physics: str | None = None,
    noise: float | None = None,
    posterior: Posterior | None = None,
    recipe: Recipe | None = None,
    window: tuple[float, float] | None = None,
    block: int | None = None,
    simulated: bool = True,
) -> None:
    """Apply what the options say to a detector; `simulated` unless it is to judge real measurements.

    Raises BadParameter for those that are not of its method, InputError for those that suit no image.
    """
    from priorlens.commands.terminal import warn
    from priorlens.klip_model import IDENTITY, KLIPModel

    if rule:
        detector.rule = rule.value
    given: dict[str, object] = {"physics": physics, "noise": noise, "posterior": posterior, "recipe": recipe}
    given |= {"window": window, "block": block}
    if not isinstance(detector, KLIPModel):
        for name, value in given.items():
            if value is not None:
                raise typer.BadParameter(f"--{name} is for models of method klip; leave it out")
        return
    if recipe is Recipe.reference:
        for name, own in (("rule", rule), ("posterior", posterior)):
            if own:
                raise typer.BadParameter(f"--recipe reference has its own; leave --{name} out")
        detector.rule = recipe.value
    detector.measure(physics or IDENTITY, noise or 0.0)
    detector.window, detector.block = window, block
    if posterior:
        detector.posterior = posterior.value
    detector.simulated = simulated
    detector.check()
    if not simulated:
        warn("what is usual for real measurements is not known: that for the simulated ones most like them is used")
    elif detector.usual_of_ != detector.measured_as_:
        options = f"--physics {physics or IDENTITY}" + (f" --noise {noise:g}" if noise else "")
        warn(
            f"what is usual for {detector.measured_as_} was not learned, that for whole images is used; "
            f"priorlens fit {options} learns it"
        )


def judge_of(
    detector: AnoDODE | KLIPModel,
    model: Path,
    *,
    alpha: float | None,
    procedure: FalseDiscoveries | None = None,
    pixel_size: float | None = None,
) -> Judge | None:
    """What judges by the calibration of a detector as it is set up; None where there is none, and no alpha.

    Raises BadParameter for an alpha that is no rate, InputError for a verdict that cannot be given, ModelError for a
    calibration of another version of the model.
    """
    import numpy as np

    from priorlens.blocks import fewest_for_by
    from priorlens.calibration import calibrated_setups, read_calibration
    from priorlens.commands.terminal import warn
    from priorlens.detectors import setup_of
    from priorlens.errors import InputError
    from priorlens.verdicts import Judge

    for name, value in {"fdr": procedure, "pixel-size": pixel_size}.items():
        if value is not None and alpha is None:
            raise typer.BadParameter(f"--{name} is of verdicts; give --alpha too, or leave it out")
    if alpha is not None and not 0 < alpha < 1:
        raise typer.BadParameter(f"--alpha {alpha:g} is no rate; give one between 0 and 1, such as .05")
    if pixel_size is not None and not 0 < pixel_size < np.inf:
        raise typer.BadParameter(f"--pixel-size {pixel_size:g} is no length; give millimetres")
    setup = setup_of(detector)
    if not getattr(detector, "simulated", True):  # no images to calibrate with; `set_up` has said what is not known
        if alpha is not None:
            raise InputError(f"{model}: no model is calibrated for real measurements yet; leave --alpha out")
        return None
    calibration = read_calibration(model, setup)
    if calibration is None:
        known = "; ".join(calibrated_setups(model))
        line = f"{model}: is not calibrated for {setup}" + (f" (only for {known})" if known else "")
        line += "; run priorlens calibrate MODEL HEALTHY with the same options, or fit again with --resume"
        if alpha is not None:
            raise InputError(f"{line}, or leave --alpha out")
        warn(f"{line} for p-values")
        return None
    affine = None if pixel_size is None else np.array([[0, pixel_size, 0], [pixel_size, 0, 0], [0, 0, 1.0]])
    try:
        if procedure is FalseDiscoveries.by and (needed := fewest_for_by(alpha or 1.0)) > calibration.patient_count:
            raise InputError(
                f"--fdr by flags nothing at alpha {alpha:g} with fewer than {needed} healthy patients; add some"
            )
        return Judge(calibration, alpha, procedure.value if procedure else "bh", affine)
    except InputError as error:
        raise InputError(f"{model}: {error}") from None
