"""`priorlens calibrate`: healthy images that a model has never met become the yardstick of its verdicts."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from priorlens.commands.options import (
    Block,
    Group,
    HowComputed,
    Manifest,
    Model,
    Noise,
    NoiseWindow,
    Physics,
    PosteriorName,
    ScoringRule,
    Threads,
    set_up,
    use_threads,
)
from priorlens.commands.scan_options import Channels, ModalityOf, SeriesOf

if TYPE_CHECKING:
    from priorlens.anodode import AnoDODE
    from priorlens.calibrating import Entry
    from priorlens.calibration import Calibration
    from priorlens.datasets import Case
    from priorlens.klip_model import KLIPModel


def calibrate(
    model: Model,
    healthy: Annotated[
        Path,
        typer.Argument(metavar="HEALTHY", help="Folder of healthy images, or scans, that the model was not fitted to."),
    ],
    rule: ScoringRule = None,
    physics: Physics = None,
    noise: Noise = None,
    posterior: PosteriorName = None,
    recipe: HowComputed = None,
    window: NoiseWindow = None,
    block: Block = None,
    group: Group = None,
    manifest: Manifest = None,
    channels: Channels = None,
    series: SeriesOf = None,
    modality: ModalityOf = None,
    threads: Threads = None,
) -> None:
    """Calibrate verdicts on healthy images that the model has never met.

    priorlens fit keeps some images aside and does this by itself. Do it again with images of your own scanner, with
    more of them, for another rule, or for another measurement. What was calibrated for the same rule and measurement
    before is replaced.

    Images or patients that the model was fitted to are refused: their p-values would be too good. Patients are
    compared where both fit and calibrate were told them. n healthy patients give p-values down to 1/(n + 1): 19 are
    needed for alpha .05, 99 for .01.

    \b
    Examples:
      priorlens calibrate model more-healthy/
      priorlens calibrate model more-healthy/ --group '^(\\d+)_'
      priorlens calibrate klip-model more-healthy/ --physics ct:views=24
    """
    from priorlens.commands.calibrate_scans import calibrate_on_scans
    from priorlens.commands.score_scans import of_scans, refuse_scans, require_there
    from priorlens.errors import InputError

    require_there([healthy])
    use_threads(threads)
    if (healthy / "train").is_dir() or (healthy / "test").is_dir():
        raise InputError(f"{healthy}: is a data set with train/ or test/; name a folder of healthy images itself")
    if of_scans(model, physics, noise, posterior, recipe, window, block):
        calibrate_on_scans(
            model, healthy, rule and rule.value, channels, modality, series=series, group=group, manifest=manifest
        )
        return
    refuse_scans(channels or series, modality, [healthy])
    setting = {"rule": rule, "physics": physics, "noise": noise, "posterior": posterior, "recipe": recipe}
    _calibrate_on_images(model, healthy, {**setting, "window": window, "block": block}, group, manifest)


def _calibrate_on_images(
    model: Path, healthy: Path, setting: Mapping[str, Any], group: str | None, manifest: Path | None
) -> None:
    """setting: what `set_up` takes."""
    from priorlens.datasets import HEALTHY, find_cases
    from priorlens.errors import InputError

    cases = [case for case in find_cases([healthy], group=group, manifest=manifest) if case.kind == HEALTHY]
    if not cases:
        raise InputError(
            f"{manifest}: calls no image in {healthy} {HEALTHY}; correct the manifest or name other images"
        )

    # Only now what takes seconds to import: a misspelt path is told at once.
    from priorlens.calibration import described
    from priorlens.checkpoint import read_config
    from priorlens.commands.terminal import warn
    from priorlens.detectors import load_detector, setup_of

    detector = load_detector(model)
    set_up(detector, **setting)
    run = read_config(model).get("run", {})
    named = bool(group or manifest)
    if not named and (run.get("group") or run.get("manifest")):
        warn(
            f"{model}: was fitted with patients named; without --group or --manifest every image counts as a patient "
            "of its own, p-values may be too small, and patients that it was fitted to are not recognised"
        )
    earlier = _earlier(model, setup_of(detector))
    found = calibrate_with(detector, model, cases, patients_known=named)
    instead = f", in place of {earlier.patient_count} patients" if earlier else ""
    typer.echo(f"{model}: {described(found)}{instead}")


def _earlier(model: Path, setup: str) -> Calibration | None:
    """What will be replaced, if it can be read."""
    from priorlens.calibration import read_calibration
    from priorlens.errors import ModelError

    try:
        return read_calibration(model, setup)
    except ModelError:
        return None


def calibrate_with(
    detector: AnoDODE | KLIPModel,
    folder: Path,
    cases: Sequence[Case],
    *,
    patients_known: bool,
    any_size: bool = False,
) -> Calibration:
    """Score `cases` and write what they show into the model's folder.

    any_size: leave images of another size than the model's out, by a warning, in place of refusing them all.

    Raises:
        InputError: the model was fitted to some, they are of too few patients, or of another kind or size.
        ModelError, OutputError: the folder cannot be read or written.
    """
    from priorlens.calibrating import gathered, require_kind, require_patients
    from priorlens.calibration import model_hash, write_calibration
    from priorlens.detectors import setup_of
    from priorlens.errors import InputError

    try:
        require_patients(len({case.group for case in cases}))
        known = _new_to(detector, folder, cases, patients_known, any_size)
        entries = _entries(detector, [case for case in cases if case.path in known], known)
        found = gathered(model_hash(folder), setup_of(detector), entries)
        require_kind(found, detector.healthy_)
    except _Refused as refused:
        raise InputError(str(refused)) from None
    except InputError as error:
        raise InputError(f"{os.path.commonpath([case.path.parent for case in cases])}: {error}") from None
    write_calibration(folder, found)
    return found


class _Refused(Exception):
    """One of the images; the line names its file already."""


def _new_to(
    detector: AnoDODE | KLIPModel, folder: Path, cases: Sequence[Case], patients_known: bool, any_size: bool
) -> dict[Path, tuple[str, str]]:
    """Fingerprints of each image that can be read and of its patient; of images that are the same only the first."""
    from priorlens.calibrating import fitted_to, require_size
    from priorlens.commands.terminal import progress_bar, warn
    from priorlens.errors import InputError
    from priorlens.images import read_image
    from priorlens.provenance import image_fingerprint, patient_fingerprint

    fitted = detector.provenance_
    found: dict[Path, tuple[str, str]] = {}
    seen: dict[str, Path] = {}
    met: list[str] = []
    with progress_bar("comparing with the images of the fit", len(cases)) as advance:
        for case in cases:
            advance()
            try:
                image = read_image(case.path)
            except InputError as error:
                warn(str(error))
                continue
            own, patient = image_fingerprint(image), patient_fingerprint(case.group)
            if why := fitted_to(fitted, own, patient if patients_known else None):
                met.append(f"{case.path}: {why}")
            elif own in seen:
                warn(f"{case.path}: is the same image as {seen[own]}; it is left out")
            else:
                try:
                    require_size(image, fitted.sides)
                except InputError as error:
                    if not any_size:
                        raise _Refused(str(error)) from None
                    warn(str(error))
                    continue
                found[case.path], seen[own] = (own, patient), case.path
    if met:
        others = f", and to {len(met) - 1} more of the {len(cases)}" if len(met) > 1 else ""
        raise _Refused(f"{met[0]}{others}; calibrate {folder} with images that it has never met")
    return found


def _entries(
    detector: AnoDODE | KLIPModel, cases: Sequence[Case], known: Mapping[Path, tuple[str, str]]
) -> Iterator[Entry]:
    """What the images that can be used show; the others are named."""
    from priorlens.calibrating import entry, image_values
    from priorlens.commands.terminal import progress_bar, warn
    from priorlens.scoring import Failed, score_cases

    with progress_bar("calibrating", len(cases)) as advance:
        for result in score_cases(detector, cases):
            advance()
            if isinstance(result, Failed):
                warn(result.reason)
                continue
            values = image_values(result.image, result.anomaly, result.figures, result.arrays, detector.tables_)
            yield entry(*known[result.case.path], result.anomaly_map, values)
