"""`priorlens evaluate` on scans: a model against scans whose lesions are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from priorlens.commands.options import Run
from priorlens.commands.scan_options import Modality, channels_of

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Bool

    from priorlens.commands.scan_results import ScoredScan
    from priorlens.volume_figures import ScanOutcome


def evaluate_scans(
    folder: Path,
    dataset: Path,
    out: Path,
    run: Run,
    *,
    rule: str | None,
    alpha: float | None,
    procedure: str | None,
    channels: str | None,
    series: str | None,
    modality: Modality | None,
    dicom: bool,
) -> None:
    """Measure a model on scans with known truth; see `priorlens.commands.evaluate`."""
    from priorlens.commands.scans_in import with_series
    from priorlens.commands.score_scans import scan_channels
    from priorlens.volumes.scans import labelled_scans

    names = channels_of(channels) or scan_channels(folder)
    found = labelled_scans(dataset, channels=names, unnamed=channels is None, group=run.group, manifest=run.manifest)
    scans, left_out = with_series(*found, series)

    from priorlens.commands.model_card import write_card
    from priorlens.commands.results import report, require_apart
    from priorlens.commands.scan_scoring import ScanScoring, score_scans
    from priorlens.commands.scans_in import found_scans, write_left_out
    from priorlens.errors import InputError
    from priorlens.outputs import prepare_folder

    require_apart(out, [dataset])
    results = ScanScoring(folder, out, rule, alpha, procedure, modality, run.overlays, dicom, with_truth=True).results()
    prepare_folder(out, overwrite=run.overwrite)
    write_left_out(out, left_out)
    write_card(out, folder, results.model)
    outcomes: list[ScanOutcome] = []
    met: list[str] = []

    def on_scan(scored: ScoredScan, truth: Bool[np.ndarray, "i j k"] | None) -> None:
        if scored.met:
            met.append(scored.scan.name)
        else:
            outcomes.append(_outcome(scored, truth))

    failed = score_scans(results, found_scans(scans, left_out), on_scan=on_scan).failed
    if not outcomes:
        raise InputError(f"{dataset}: holds no scan that can be used and is new to the model; give others")
    facts = {"rule": results.model.detector.rule, "scans_failed": failed, "scans_left_out": len(met)}
    facts |= {"planted": True} if run.planted or (dataset / "planted").is_file() else {}
    _write_metrics(out, outcomes, facts, run.bootstrap)
    report(out, len(scans), failed, page=run.page, what="scans", left_out=len(left_out))


def _write_metrics(out: Path, outcomes: Sequence[ScanOutcome], facts: Mapping[str, object], bootstrap: int) -> None:
    """Into `metrics.json`, and onto the terminal. Raises OutputError."""
    from priorlens import volume_figures
    from priorlens.commands.terminal import print_table
    from priorlens.outputs import write_json

    metrics = volume_figures.evaluate_scans(outcomes, bootstrap=bootstrap)
    write_json(out / "metrics.json", {**metrics, **facts, "froc": _froc(outcomes)})
    print_table(volume_figures.scan_table(metrics))


def _outcome(scored: ScoredScan, truth: Bool[np.ndarray, "i j k"] | None) -> ScanOutcome:
    """What the figures need."""
    from priorlens.datasets import HEALTHY
    from priorlens.volume_figures import outcome_of

    scan, scores = scored.scan, scored.scores
    # A mask that holds nothing says that the scan is healthy, whatever its folder.
    kind = HEALTHY if truth is not None and not truth.any() else scan.kind
    return outcome_of(
        name=scan.name,
        group=scan.group,
        kind=kind,
        anomaly=scores.anomaly,
        slice_anomaly=scores.of_all_slices(truth),
        anomaly_map=scores.anomaly_map,
        mask=truth,
        body=scores.body,
        affine=scored.volume.affine,
        plane=scores.prepared.preparation.plane,
    )


def _froc(outcomes: Sequence[ScanOutcome]) -> dict[str, dict[str, list[float]]]:
    """The points of each kind's curve, without its first."""
    from priorlens.datasets import HEALTHY
    from priorlens.froc import froc

    found = {}
    for kind in sorted({outcome.kind for outcome in outcomes} - {HEALTHY}):
        known = [one.candidates for one in outcomes if one.kind in (HEALTHY, kind) and one.candidates]
        if any(scan.lesions for scan in known):
            curve = froc(known)
            found[kind] = {
                "false_positives_per_scan": curve.false_positives_per_scan[1:].tolist(),
                "sensitivity": curve.sensitivity[1:].tolist(),
                "threshold": curve.thresholds[1:].tolist(),
            }
    return found
