"""`priorlens score` on images, or measurements of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from priorlens.addresses import Address

if TYPE_CHECKING:
    from priorlens.commands.image_results import ImageResults
    from priorlens.commands.image_scoring import ImageScoring
    from priorlens.commands.publishing import RemoteFolder
    from priorlens.commands.ray_engine import Cluster
    from priorlens.commands.recording import Run, Shard
    from priorlens.datasets import Case
    from priorlens.ledger import Counts, Entry
    from priorlens.scoring import Described, Failed, Scored


def score_images(
    model: Path,
    out: Path | Address,
    inputs: Sequence[Path | Address],
    *,
    judged: Mapping[str, Any],
    setting: Mapping[str, Any],
    group: str | None,
    manifest: Path | Address | None,
    overwrite: bool,
    overlays: bool,
    page: bool,
    shard: Shard,
    log: Path | None,
    scratch: Path | None = None,
    cluster: Cluster | None = None,
) -> None:
    """Say how abnormal images are, and where; see `priorlens.commands.score`.

    judged, setting: what `judge_of` and `set_up` take.
    """
    from priorlens.datasets import is_measurement
    from priorlens.remote_cases import find_cases_anywhere, manifest_content

    local, remote = _folder(out, scratch, shard, keep=page)
    cases = find_cases_anywhere(inputs, group=group, manifest=manifest)
    measured = [is_measurement(case.path) for case in cases]
    if any(measured) and not all(measured):
        raise typer.BadParameter("some inputs are measurements and some are images; score them apart")

    # Only now what takes seconds to import: a misspelt path is told at once.
    from priorlens.commands.image_scoring import ImageScoring
    from priorlens.commands.model_card import write_card
    from priorlens.commands.recording import WHOLE, begin, complete
    from priorlens.commands.results import finish, report, require_apart

    require_apart(out, [path for path in inputs if isinstance(path, Address) or path.is_dir()])
    patients = bool(group or manifest)
    how = ImageScoring(model, local, judged, setting, patients, overlays, any(measured), remote)
    results = how.results()
    identity = how.identity(results, **{"--group": group, "--manifest": manifest_content(manifest)})
    ray = cluster is not None
    going: dict[str, Any] = {"overwrite": overwrite, "shard": shard, "log": log, "remote": remote}
    with closing(begin(local, identity, **going, parquet=ray)) as run:
        write_card(local, model, results.detector)  # type: ignore[arg-type]
        failed: int | None = _score(how, results, cases, run, cluster).failed
    if shard != WHOLE:
        failed = complete(local, identity, shard, results.tables, partial(finish, results), parquet=ray)
    if failed is not None:
        report(local, len(cases), failed, page=page, remote=remote)


def _folder(out: Path | Address, scratch: Path | None, shard: Shard, *, keep: bool) -> tuple[Path, RemoteFolder | None]:
    """Where results lie on this machine, and of what address this is the copy. Raises typer.BadParameter."""
    from priorlens.commands.publishing import RemoteFolder
    from priorlens.commands.recording import WHOLE

    if isinstance(out, Path):
        if scratch is not None:
            raise typer.BadParameter("--scratch is for an --out at an address; leave it out")
        return out, None
    if shard != WHOLE:
        raise typer.BadParameter(
            "--shard needs an --out that is a folder; give parts inputs and addresses of their own"
        )
    remote = RemoteFolder.of(out, scratch, keep=keep)
    return remote.local, remote


def _score(
    how: ImageScoring, results: ImageResults, cases: Sequence[Case], run: Run, cluster: Cluster | None
) -> Counts:
    """In this process, or by others of the cluster."""
    from priorlens.commands.image_scoring import scorer
    from priorlens.commands.ray_engine import entries_by_ray
    from priorlens.commands.results import write_entries, write_scores
    from priorlens.scoring import BATCH, score_cases

    if how.measured:
        return write_scores(results, cases, run=run, scored=partial(_of_measurements, physics=how.setting["physics"]))
    if cluster is None:
        return write_scores(results, cases, run=run, scored=score_cases)

    def entries(todo: Sequence[Case]) -> Iterator[Entry]:
        works = (todo[start : start + BATCH] for start in range(0, len(todo), BATCH))
        return entries_by_ray(partial(scorer, how), works, cluster)

    return write_entries(results, cases, entries, run)


def _of_measurements(detector: Described, cases: Sequence[Case], *, physics: str | None) -> Iterator[Scored | Failed]:
    """What the detector says of real measurements, one after the other."""
    import time

    from priorlens.errors import InputError, WeightsError
    from priorlens.klip_model import KLIPModel
    from priorlens.ledger import content_of
    from priorlens.measurement.files import read_measurement
    from priorlens.measurement.physics import parse
    from priorlens.remote_cases import on_disk
    from priorlens.scoring import Failed, Loaded, Scored

    assert isinstance(detector, KLIPModel)
    size = detector.preparation_.size
    for case in cases:
        stamp = case.stamp()
        try:
            with on_disk(case) as here:
                measurement = read_measurement(here.path, parse(physics) if physics else None, (size, size))
                content = content_of(here.path)
                start = time.perf_counter()
                image, scores = detector.score_measurement(measurement)
        except (InputError, WeightsError) as error:
            reason = str(error).replace(str(case.path), case.file)
            yield Failed(case, reason, stamp, getattr(error, "passing", False))
            continue
        loaded = Loaded(case, image, None, stamp, content)
        yield Scored.of(loaded, scores, 0, time.perf_counter() - start)
