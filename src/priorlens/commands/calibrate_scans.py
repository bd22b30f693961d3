"""`priorlens calibrate` on scans: what a model says of healthy scans that it was not fitted to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from priorlens.calibrating import Entry
    from priorlens.commands.scan_options import Modality
    from priorlens.scan_model import ScanModel
    from priorlens.volumes.scans import Scan


def calibrate_on_scans(
    folder: Path,
    healthy: Path,
    rule: str | None,
    channels: str | None,
    modality: Modality | None,
    *,
    series: str | None,
    group: str | None,
    manifest: Path | None,
) -> None:
    """Calibrate verdicts on healthy scans; see `priorlens.commands.calibrate`."""
    from priorlens.commands.scan_options import channels_of
    from priorlens.commands.scans_in import found_scans, with_series
    from priorlens.commands.score_scans import scan_channels
    from priorlens.datasets import HEALTHY
    from priorlens.errors import InputError
    from priorlens.scan_model import ScanModel
    from priorlens.volumes.scans import find_scans

    names = channels_of(channels) or scan_channels(folder)
    found = find_scans([healthy], channels=names, unnamed=channels is None, group=group, manifest=manifest)
    scans = found_scans(*with_series(*found, series, one_kind=True))
    whole = [scan for scan in scans if scan.kind == HEALTHY and not scan.mask]
    if not whole:
        raise InputError(f"{healthy}: holds no scan that is healthy as a whole; name scans without lesions")
    model = ScanModel.load(folder)
    model.choose(rule)
    calibrate_scans(model, folder, whole, modality)


def calibrate_scans(model: ScanModel, folder: Path, scans: Sequence[Scan], modality: Modality | None = None) -> None:
    """Score healthy scans and write what they show into the model's folder.

    Raises:
        InputError: the model was fitted to some, or they are of too few patients. ModelError, OutputError: the folder
            cannot be read or written.
    """
    from priorlens.calibrating import gathered, require_patients
    from priorlens.calibration import described, model_hash, write_calibration
    from priorlens.commands.terminal import progress_bar, warn
    from priorlens.errors import InputError
    from priorlens.scan_model import setup_of_scans

    require_patients(len({scan.group for scan in scans}))
    entries: list[Entry] = []
    met = []
    with progress_bar("calibrating", len(scans)) as advance:
        for scan in scans:
            advance()
            try:
                found = _entry(model, scan, modality)
            except InputError as error:
                warn(str(error))
                continue
            if isinstance(found, str):
                met.append(f"{scan.path}: {found}")
            elif found.image in {one.image for one in entries}:
                warn(f"{scan.path}: is the same scan as another; it is left out")
            else:
                entries.append(found)
    if met:
        others = f", and to {len(met) - 1} more of the {len(scans)}" if len(met) > 1 else ""
        raise InputError(f"{met[0]}{others}; calibrate {folder} with scans that it has never met")
    calibration = gathered(model_hash(folder), setup_of_scans(model), entries)
    write_calibration(folder, calibration)
    typer.echo(f"{folder}: {described(calibration, 'scans')}")


def _entry(model: ScanModel, scan: Scan, modality: Modality | None) -> Entry | str:
    """What a healthy scan shows; or why it cannot serve. Raises InputError for one that cannot be read or scored."""
    import numpy as np

    from priorlens.calibrating import entry, fitted_to
    from priorlens.commands.scans_in import read_as
    from priorlens.provenance import patient_fingerprint

    volume = read_as(scan, modality)
    patient = patient_fingerprint(scan.group)
    if scan.told and (met := fitted_to(model.provenance_, "", patient)):
        return met
    found = model.score(volume)
    if met := model.met(found.prepared):
        return met
    values = {"anomaly": np.float32(found.anomaly)}
    return entry(volume.fingerprint, patient, found.anomaly_map, values, volume.spacing.tolist())
