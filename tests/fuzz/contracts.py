"""Every reader by name, and what it promises of whatever it does not refuse."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

GIGABYTE = 2**30
BOUNDS = {
    "image": 5 * GIGABYTE,
    "mask": 5 * GIGABYTE,
    "nifti": 4 * GIGABYTE,
    "arrays": 12 * GIGABYTE,
    "dicom": 6 * GIGABYTE,
    "measurement": 4 * GIGABYTE,
    "checkpoint": 1 * GIGABYTE,
    "model": 2 * GIGABYTE,
    "external": 8 * GIGABYTE,
    "manifest": 1 * GIGABYTE,
    "table": 1 * GIGABYTE,
    "results": 2 * GIGABYTE,
}
"""Memory, in bytes, that reading one file, series or folder may take beside what the program had before."""

SECONDS = 180
"""Time that one file, series or folder may take; each is far below it."""


def read(reader: str, folder: Path, target: str) -> None:
    """Give a file, or the folder where there is no `target`, to a reader; AssertionError where it breaks its word."""
    _READERS[reader](folder / target if target else folder)


def _image(path: Path) -> None:
    from priorlens.images import MAX_PIXELS, MIN_SIDE, read_image

    image = read_image(path)
    channels, height, width = image.pixels.shape
    assert image.pixels.dtype == np.float32 and channels in (1, 3), image.pixels.shape
    assert min(height, width) >= MIN_SIDE and height * width <= MAX_PIXELS, image.pixels.shape
    assert np.isfinite(image.pixels).all() and image.pixels.min() < image.pixels.max()
    assert math.isnan(image.full_scale) or image.full_scale in (255, 65535)


def _mask(path: Path) -> None:
    from priorlens.images import read_mask

    mask = read_mask(path, (24, 28))
    assert mask.dtype == bool and mask.shape == (24, 28)


def _require_volume(volume: object, constant: bool = False) -> None:
    from priorlens.volumes.volume import MAX_VOXELS

    assert volume.voxels.dtype == np.float32 and volume.voxels.ndim == 4 and 0 < volume.voxels[0].size <= MAX_VOXELS
    assert np.isfinite(volume.voxels).all() and np.isfinite(volume.affine).all()
    assert volume.units in ("HU", "arbitrary") and len(volume.channels) == len(volume.voxels)
    assert (volume.spacing > 0).all() and len(volume.fingerprint) == 32


def _nifti(path: Path) -> None:
    from priorlens.volumes.nifti import read_mask, read_nifti

    volume = read_nifti(path)
    _require_volume(volume)
    assert volume.voxels.min() < volume.voxels.max()
    assert read_mask(path, volume).shape == volume.shape


def _arrays(path: Path) -> None:
    from priorlens.errors import InputError
    from priorlens.volumes.arrays import npz_channels, read_array_mask, read_array_volume
    from priorlens.volumes.scans import is_scan_path

    assert is_scan_path(path) in (True, False)
    channels = None
    with contextlib.suppress(InputError):
        channels = npz_channels(path) if path.suffix == ".npz" else None
    volume = read_array_volume(path)
    _require_volume(volume)
    assert channels in (None, volume.channels)
    if len(volume.channels) == 1:
        assert read_array_mask(path, volume).shape == volume.shape


def _dicom(folder: Path) -> None:
    from priorlens.volumes.reading import read_scan
    from priorlens.volumes.scans import find_scans

    scans, left_out = find_scans([folder])
    for one in left_out:
        require_line(one.reason, folder)
    for scan in scans:
        assert "/../" not in f"/{scan.name}/" and not scan.name.startswith("/"), scan.name
        _require_volume(read_scan(scan))


def _measurement(path: Path) -> None:
    import torch

    from priorlens.measurement.files import read_measurement

    found = read_measurement(path, None, None)
    assert found.y.dtype == torch.float32 and torch.isfinite(found.y).all()
    assert math.isfinite(found.noise) and found.noise >= 0, found.noise
    assert torch.isfinite(found.operator.A_adjoint(found.y)).all()
    json.dumps(found.note)


def _checkpoint(folder: Path) -> None:
    import torch

    from priorlens.checkpoint import SCHEMA, read_checkpoint

    tensors, config = read_checkpoint(folder)
    assert all(isinstance(value, torch.Tensor) for value in tensors.values())
    assert isinstance(config, dict) and config["schema"] <= SCHEMA and "method" in config


def _model(folder: Path) -> None:
    """Loaded, told of, and shown one image or scan."""
    from priorlens.calibration import calibrated_setups, read_calibration
    from priorlens.detectors import load_detector, setup_of
    from priorlens.images import Image
    from priorlens.scan_model import ScanModel, is_scan_model, setup_of_scans
    from priorlens.volumes.volume import Volume

    calibrated_setups(folder)
    rng = np.random.default_rng(0)
    if is_scan_model(folder):
        model = ScanModel.load(folder)
        json.dumps(model.describe())
        _require_calibration(read_calibration(folder, setup_of_scans(model)))
        voxels = rng.uniform(100, 200, (1, 24, 24, 4)).astype(np.float32)
        model.preparation.prepare(Volume(voxels, np.diag([4.0, 4, 4, 1]), "arbitrary", folder / "scan.nii"))
        return
    detector = load_detector(folder)
    json.dumps(detector.describe())
    _require_calibration(read_calibration(folder, setup_of(detector)))
    image = Image(rng.uniform(0, 1, (1, 32, 32)).astype(np.float32), folder / "a.png", float("nan"))
    assert detector.preparation_.to_model([image]).shape[:2] == (1, 1)


def _require_calibration(calibration: object) -> None:
    assert calibration is None or len(calibration.images) == len(calibration.anomaly) == len(calibration.blocks)


def _external(folder: Path) -> None:
    import torch

    from priorlens.prior.external import load_external

    prior = load_external(folder)
    json.dumps(prior.facts)
    side = max(8, prior.multiple)
    with torch.no_grad():
        denoised = prior.denoiser(torch.zeros(1, prior.channels, side, side), torch.tensor([0.5]))
    assert denoised.shape == (1, prior.channels, side, side)


def _manifest(path: Path) -> None:
    from priorlens.datasets import find_cases
    from priorlens.manifest import read_manifest

    rows = read_manifest(path)
    assert rows and all(image.is_file() and row.group for image, row in rows.items())
    assert all(row.mask is None or row.mask.is_file() for row in rows.values())
    assert len(find_cases([], manifest=path)) == len(rows)


def _table(path: Path) -> None:
    from priorlens.tables import read_table

    table = read_table(path, ("file", "anomaly"), file_names=True)
    for line in table.lines:
        assert set(line.cells) == set(table.columns)
        assert isinstance(line.number("anomaly"), float)


def _results(folder: Path) -> None:
    """Read back, as `combine` and as `report` do, and made a page of."""
    from priorlens.errors import InputError
    from priorlens.report.book import write_report
    from priorlens.report.findings import read_findings
    from priorlens.report.watched import is_watched, watched_page
    from priorlens.result_folder import read_result_folder

    if is_watched(folder):
        _require_page(watched_page(folder))
        return
    with contextlib.suppress(InputError):
        assert read_result_folder(folder).path == folder
    page = write_report(read_findings(folder), folder / "report.html")
    _require_page(page.read_text(encoding="utf-8"))


def _require_page(page: str) -> None:
    assert page.rstrip().endswith("</html>") and len(page) < 2**24


_READERS: dict[str, Callable[[Path], None]] = {
    "image": _image,
    "mask": _mask,
    "nifti": _nifti,
    "arrays": _arrays,
    "dicom": _dicom,
    "measurement": _measurement,
    "checkpoint": _checkpoint,
    "model": _model,
    "external": _external,
    "manifest": _manifest,
    "table": _table,
    "results": _results,
}
READERS = tuple(_READERS)


def require_line(reason: str, folder: Path) -> None:
    """What is said of a file is one line of a bounded length that names it, without control characters."""
    name = str(folder)
    assert name in reason, f"names no file: {reason[:500]!r}"
    rest = reason.replace(name, "")
    assert len(rest) < 9_000, f"has {len(rest)} characters: {reason[:500]!r}"
    assert rest.replace("\N{REPLACEMENT CHARACTER}", "").isprintable() or not _controls(rest), f"{reason[:500]!r}"


def _controls(text: str) -> list[str]:
    return [one for one in text if ord(one) < 32 or 127 <= ord(one) < 160 or one in "\u2028\u2029"]
