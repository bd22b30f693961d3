"""`priorlens score` on images, or measurements of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from priorlens.anodode import AnoDODE
    from priorlens.commands.recording import Shard
    from priorlens.datasets import Case
    from priorlens.klip_model import KLIPModel
    from priorlens.scoring import Described, Failed, Scored
    from priorlens.verdicts import Judge


def score_images(
    model: Path,
    out: Path,
    inputs: Sequence[Path],
    *,
    judged: Mapping[str, Any],
    setting: Mapping[str, Any],
    group: str | None,
    manifest: Path | None,
    overwrite: bool,
    overlays: bool,
    page: bool,
    shard: Shard,
    log: Path | None,
) -> None:
    """Say how abnormal images are, and where; see `priorlens.commands.score`.

    judged, setting: what `judge_of` and `set_up` take.
    """
    from priorlens.datasets import find_cases, is_measurement

    cases = find_cases(inputs, group=group, manifest=manifest)
    measured = [is_measurement(case.path) for case in cases]
    if any(measured) and not all(measured):
        raise typer.BadParameter("some inputs are measurements and some are images; score them apart")

    # Only now what takes seconds to import: a misspelt path is told at once.
    from priorlens.commands.doubts import Doubts
    from priorlens.commands.image_results import ImageResults
    from priorlens.commands.model_card import write_card
    from priorlens.commands.options import judge_of, set_up
    from priorlens.commands.recording import WHOLE, begin, complete
    from priorlens.commands.results import finish, report, require_apart, write_scores
    from priorlens.detectors import load_detector
    from priorlens.klip_model import KLIPModel
    from priorlens.scoring import score_cases

    require_apart(out, [path for path in inputs if path.is_dir()])
    detector = load_detector(model)
    set_up(detector, **setting, simulated=not any(measured))
    klip = detector if isinstance(detector, KLIPModel) else None
    if any(measured) and not klip:
        raise typer.BadParameter("measurements are for models of method klip; give images")
    judge = judge_of(detector, model, **judged)
    identity = image_identity(model, detector, judge, group, manifest, overlays)
    with closing(begin(out, identity, overwrite=overwrite, shard=shard, log=log)) as run:
        write_card(out, model, detector)
        results = ImageResults(
            out,
            detector,
            judge,
            patients=bool(group or manifest),
            overlays=overlays,
            doubts=Doubts(judge, detector.provenance_),
        )
        of_measurements = partial(_of_measurements, physics=setting["physics"])
        counts = write_scores(results, cases, run=run, scored=of_measurements if any(measured) else score_cases)
    failed: int | None = counts.failed
    if shard != WHOLE:
        failed = complete(out, identity, shard, results.tables, partial(finish, results))
    if failed is not None:
        report(out, len(cases), failed, page=page)


def image_identity(
    model: Path,
    detector: AnoDODE | KLIPModel,
    judge: Judge | None,
    group: str | None,
    manifest: Path | None,
    overlays: bool,
) -> dict[str, Any]:
    """Whatever changes results: a run of another identity is another run."""
    from priorlens.calibration import model_hash
    from priorlens.commands.recording import verdicts_identity
    from priorlens.detectors import setup_of
    from priorlens.ledger import content_of

    return {
        "model": model_hash(model),
        "way of scoring": setup_of(detector),
        **verdicts_identity(judge),
        "--group": group,
        "--manifest": manifest and content_of(manifest),
        "--overlays": overlays,
    }


def _of_measurements(detector: Described, cases: Sequence[Case], *, physics: str | None) -> Iterator[Scored | Failed]:
    """What the detector says of real measurements, one after the other."""
    import time

    from priorlens.errors import InputError, WeightsError
    from priorlens.klip_model import KLIPModel
    from priorlens.ledger import Stamp, content_of
    from priorlens.measurement.files import read_measurement
    from priorlens.measurement.physics import parse
    from priorlens.scoring import Failed, Loaded, Scored

    assert isinstance(detector, KLIPModel)
    size = detector.preparation_.size
    for case in cases:
        stamp = Stamp.of([case.path])
        try:
            measurement = read_measurement(case.path, parse(physics) if physics else None, (size, size))
            start = time.perf_counter()
            image, scores = detector.score_measurement(measurement)
        except (InputError, WeightsError) as error:
            yield Failed(case, str(error), stamp, getattr(error, "passing", False))
            continue
        loaded = Loaded(case, image, None, stamp, content_of(case.path))
        yield Scored.of(loaded, scores, 0, time.perf_counter() - start)
