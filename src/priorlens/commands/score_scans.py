"""`priorlens score` on scans: new scans in; a score, a map on the scan's own grid and a picture of each out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from priorlens.addresses import Address
from priorlens.commands.scan_options import Modality, channels_of

if TYPE_CHECKING:
    from priorlens.commands.ray_engine import Cluster
    from priorlens.commands.recording import Shard


def score_scans(
    folder: Path,
    out: Path,
    inputs: Sequence[Path],
    *,
    rule: str | None,
    alpha: float | None,
    procedure: str | None,
    channels: str | None,
    series: str | None,
    modality: Modality | None,
    group: str | None,
    manifest: Path | None,
    overwrite: bool,
    overlays: bool,
    dicom: bool,
    page: bool,
    shard: Shard,
    log: Path | None,
    cluster: Cluster | None,
) -> None:
    """Say how abnormal scans are, and where; see `priorlens.commands.score`."""
    from priorlens.commands.scans_in import with_series
    from priorlens.volumes.scans import find_scans

    names = channels_of(channels) or scan_channels(folder)
    scans, left_out = with_series(
        *find_scans(list(inputs), channels=names, unnamed=channels is None, group=group, manifest=manifest), series
    )

    from priorlens.commands.model_card import write_card
    from priorlens.commands.recording import WHOLE, begin, complete
    from priorlens.commands.results import report, require_apart
    from priorlens.commands.scan_scoring import ScanScoring
    from priorlens.commands.scan_scoring import score_scans as score_all
    from priorlens.commands.scans_in import found_scans, write_left_out
    from priorlens.ledger import content_of

    require_apart(out, [path for path in inputs if path.is_dir()])
    how = ScanScoring(folder, out, rule, alpha, procedure, modality, overlays, dicom)
    results = how.results()
    asked = {"--channels": channels, "--group": group, "--manifest": manifest and content_of(manifest)}
    identity = how.identity(results, **asked)
    ray = cluster is not None
    with closing(begin(out, identity, overwrite=overwrite, shard=shard, log=log, parquet=ray)) as run:
        write_left_out(out, left_out)
        write_card(out, folder, results.model)
        counts = score_all(results, found_scans(scans, left_out), run=run, cluster=cluster)
    failed: int | None = counts.failed
    if shard != WHOLE:
        failed = complete(out, identity, shard, results.tables, lambda run: None, parquet=ray)
    if failed is not None:
        report(out, len(scans), failed, page=page, what="scans", left_out=len(left_out))


def scan_channels(folder: Path) -> list[str] | None:
    """Names of the channels that a model was fitted to; None where it takes scans of whatever name."""
    from priorlens.checkpoint import read_config
    from priorlens.scan_model import SCANS

    known = [str(name) for name in read_config(folder)[SCANS].get("channels", [])]
    return known if all(known) and known else None


def of_scans(model: Path, *of_images: object) -> bool:
    """Whether a model is one of scans. Raises typer.BadParameter where options that only images have were given too.

    of_images: what --physics, --noise, --posterior, --recipe, --window, --block and --pixel-size say.
    """
    from priorlens.scan_model import is_scan_model

    if not is_scan_model(model):
        return False
    if any(value is not None for value in of_images):
        names = "--physics, --noise, --posterior, --recipe, --window, --block and --pixel-size"
        raise typer.BadParameter(f"{names} are for models of images, this is one of scans; leave them out")
    return True


def here(path: Path | Address) -> Path:
    """Of scans. Raises InputError for an address."""
    from priorlens.errors import InputError

    if not isinstance(path, Path):
        raise InputError(f"{path}: scans are not scored from or to addresses yet; copy them, and give folders")
    return path


def require_there(paths: Sequence[Path | Address]) -> None:
    """Raises InputError for a path that does not exist: now, and not after a model was loaded."""
    from priorlens.errors import InputError

    for path in paths:
        if isinstance(path, Path) and not path.exists():
            raise InputError(f"{path}: there is no such file or folder; check the path")


def refuse_scans(channels: str | None, modality: Modality | None, inputs: Sequence[Path | Address]) -> None:
    """Raises typer.BadParameter for options of scans, InputError for scans, where the model is one of images."""
    from priorlens.errors import InputError
    from priorlens.volumes.scans import is_scan_path
    from priorlens.volumes.studies import is_scan_file

    if channels is not None or modality is not None:
        raise typer.BadParameter("--channels and --modality are for models of scans, this is one of images")
    for path in inputs:
        if is_scan_path(path) if isinstance(path, Path) else is_scan_file(Path(path.name)):
            raise InputError(f"{path}: is or holds a scan, this model is one of images; fit one on scans")
