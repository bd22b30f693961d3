"""`priorlens fit` on images: which are read, which are kept aside, and what is calibrated on those."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from priorlens.anodode import AnoDODE
    from priorlens.datasets import Case
    from priorlens.images import Image
    from priorlens.klip_model import KLIPModel


def fit_images(
    healthy: Path,
    out: Path,
    method: str,
    options: Mapping[str, Any],
    shared: dict[str, Any],
    group: str | None,
    manifest: Path | None,
    aside: float | None,
    resume: bool,
    overwrite: bool,
    batch: int | None,
    accumulate: int,
) -> None:
    """Learn what healthy images look like; of several processes the first alone writes and calibrates."""
    from priorlens.datasets import fingerprint, healthy_cases

    cases = healthy_cases(healthy, group=group, manifest=manifest)

    # Only now what takes seconds to import: a misspelt path is told at once.
    from priorlens.commands import model_folder
    from priorlens.commands.fitting import is_finished, new_detector, train
    from priorlens.detectors import load_detector
    from priorlens.prior import processes

    detector, own, measured = new_detector(method, shared, options)
    processes.decided(partial(model_folder.claim, out, resume=resume, overwrite=overwrite))
    images, used = _read(healthy, cases)
    run = {
        "method": method,
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
        "batch": batch,
    }
    kept, left = _set_aside(images, used, shared["seed"], aside)
    if not (finished := is_finished(out, run, overwrite)):
        groups = [used[i].group for i in kept]
        images = [images[i] for i in kept]
        pace = {"batch": batch, "accumulate": accumulate}
        fitted = partial(_fit, detector, bool(group or manifest), images, groups=groups, **measured, **pace)
        train(detector, fitted, out, run, resume)
        typer.echo(f"{out}: learned from {len(kept)} healthy images of {len(set(groups))} patients")
    if not processes.first():
        return
    detector = load_detector(out) if finished else detector
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
    from priorlens.calibration import calibrated_setups, described, discard_outdated
    from priorlens.commands.calibrate import calibrate_with
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
