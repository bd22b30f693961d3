"""`priorlens score` on images, or measurements of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from priorlens.datasets import Case
    from priorlens.klip_model import KLIPModel
    from priorlens.scoring import Failed, Scored


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
    from priorlens.commands.model_card import write_card
    from priorlens.commands.options import judge_of, set_up
    from priorlens.commands.results import report, require_apart, write_scores
    from priorlens.detectors import load_detector
    from priorlens.klip_model import KLIPModel
    from priorlens.outputs import prepare_folder

    require_apart(out, [path for path in inputs if path.is_dir()])
    detector = load_detector(model)
    set_up(detector, **setting, simulated=not any(measured))
    klip = detector if isinstance(detector, KLIPModel) else None
    if any(measured) and not klip:
        raise typer.BadParameter("measurements are for models of method klip; give images")
    results = _of_measurements(klip, cases, setting["physics"]) if klip and any(measured) else None
    judge = judge_of(detector, model, **judged)
    prepare_folder(out, overwrite=overwrite)
    write_card(out, model, detector)
    doubts = Doubts(judge, detector.provenance_)
    failed = write_scores(
        out,
        detector,
        cases,
        judge=judge,
        patients=bool(group or manifest),
        results=results,
        overlays=overlays,
        on_scored=doubts.add,
    )
    doubts.tell()
    report(out, len(cases), failed, page=page)


def _of_measurements(detector: KLIPModel, cases: Sequence[Case], physics: str | None) -> Iterator[Scored | Failed]:
    """What the detector says of real measurements, one after the other."""
    import time

    from priorlens.errors import InputError, WeightsError
    from priorlens.measurement.files import read_measurement
    from priorlens.measurement.physics import parse
    from priorlens.scoring import Failed, Loaded, Scored

    size = detector.preparation_.size
    for case in cases:
        try:
            measurement = read_measurement(case.path, parse(physics) if physics else None, (size, size))
            start = time.perf_counter()
            image, scores = detector.score_measurement(measurement)
        except (InputError, WeightsError) as error:
            yield Failed(case, str(error))
            continue
        yield Scored.of(Loaded(case, image, None), scores, 0, time.perf_counter() - start)
