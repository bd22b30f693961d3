"""Scans through a model, one after the other, into a results folder: what `score` and `evaluate` share."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from priorlens.calibrating import fitted_to
from priorlens.calibration import calibrated_setups, model_hash, read_calibration
from priorlens.commands.image_results import MAPS, OVERLAYS
from priorlens.commands.ray_engine import Cluster, entries_by_ray
from priorlens.commands.recording import Run, record, verdicts_identity
from priorlens.commands.results import remove_results
from priorlens.commands.scan_options import Modality
from priorlens.commands.scan_results import (
    DICOM,
    REGIONS,
    SLICES,
    SMALLEST,
    FailedScan,
    ScoredScan,
    scan_entry,
    scan_tables,
    write_images,
)
from priorlens.commands.scans_in import read_as
from priorlens.commands.terminal import warn
from priorlens.commands.verdict_files import VERDICT_FILES, write_basis
from priorlens.errors import InputError, OutputError
from priorlens.layers import LAYERS
from priorlens.ledger import Counts, Entry
from priorlens.outputs import prepare_folder
from priorlens.provenance import patient_fingerprint
from priorlens.regions import regions_above
from priorlens.report.book import discard_report
from priorlens.report.facts import CURVES, METRICS, PAGE
from priorlens.result_folder import SCORES, SPECTRUM
from priorlens.scan_model import OnSlices, ScanModel, ScanScores, setup_of_scans
from priorlens.verdicts import Judge
from priorlens.volumes.dicom_files import Series
from priorlens.volumes.dicom_map import write_parametric_map
from priorlens.volumes.dicom_report import ScanFigures, write_measurements
from priorlens.volumes.dicom_result import MadeBy
from priorlens.volumes.dicom_segmentation import write_segmentation
from priorlens.volumes.reading import read_lesions
from priorlens.volumes.scans import Scan
from priorlens.volumes.volume import Volume

OnScan = Callable[[ScoredScan, Bool[np.ndarray, "i j k"] | None], None]


def judge_of_scans(model: ScanModel, folder: Path, alpha: float | None, procedure: str | None) -> Judge | None:
    """What judges scans by the model's calibration; None where there is none, and no alpha.

    Raises InputError for verdicts that cannot be given, ModelError for a calibration of another version of the model.
    """
    setup = setup_of_scans(model)
    calibration = read_calibration(folder, setup)
    if calibration is None:
        known = "; ".join(calibrated_setups(folder))
        line = f"{folder}: is not calibrated for {setup}" + (f" (only for {known})" if known else "")
        if alpha is not None:
            raise InputError(f"{line}; run priorlens calibrate {folder} HEALTHY, or leave --alpha out")
        warn(f"{line}; run priorlens calibrate {folder} HEALTHY for p-values")
        return None
    try:
        return Judge(calibration, alpha, procedure or "bh")  # type: ignore[arg-type]
    except InputError as error:
        raise InputError(f"{folder}: {error}") from None


@dataclass(frozen=True)
class ScanScoring:
    """How scans are to be scored, as plain facts: from them any process can make the same results.

    with_truth: whether masks are read, for `on_scan` and the pictures.
    """

    model: Path
    out: Path
    rule: str | None = None
    alpha: float | None = None
    procedure: str | None = None
    modality: Modality | None = None
    overlays: bool = True
    dicom: bool = True
    with_truth: bool = False

    def results(self) -> ScanResults:
        """The model, read and set up. Raises ModelError; InputError for verdicts that cannot be given."""
        model = ScanModel.load(self.model)
        model.choose(self.rule)
        return ScanResults(self, model, judge_of_scans(model, self.model, self.alpha, self.procedure))

    def identity(self, results: ScanResults, **asked: object) -> dict[str, object]:
        """Whatever changes results: a run of another identity is another run. asked: what scans are, by option."""
        return {
            "model": model_hash(self.model),
            "way of scoring": setup_of_scans(results.model),
            **verdicts_identity(results.judge),
            "--modality": self.modality and self.modality.value,
            "--overlays": self.overlays,
            "--dicom": self.dicom,
            **asked,
        }


@dataclass(frozen=True)
class ScanResults:
    """What scores scans, and writes what is said of each."""

    how: ScanScoring
    model: ScanModel
    judge: Judge | None

    @property
    def tables(self) -> dict[str, Sequence[str]]:
        return scan_tables(self.judge)

    @cached_property
    def made_by(self) -> MadeBy:
        folder = self.how.model
        return MadeBy(self.model.describe()["method"], folder.resolve().name, model_hash(folder), self.model.unit_)

    def entry(
        self,
        scan: Scan,
        on_scan: OnScan = lambda scored, truth: None,
        on_slices: OnSlices = lambda done, total: None,
    ) -> Entry:
        """Score a scan and write its files; its lines. Raises OutputError."""
        how, judge, stamp = self.how, self.judge, scan.stamp()
        try:
            scored = _scored(self.model, scan, judge, how.modality, on_slices)
            truth = read_lesions(scan, scored.volume) if how.with_truth and scan.mask else None
        except InputError as error:
            return scan_entry(FailedScan(scan, str(error), error.passing), judge, stamp)
        write_images(how.out, scored, self.model.healthy_, judge, truth, overlays=how.overlays)
        if how.dicom:
            _write_dicom(how.out, scored, self.model, self.made_by)
        on_scan(scored, truth)
        return scan_entry(scored, judge, stamp)


def scan_scorer(how: ScanScoring) -> Callable[[Scan], list[Entry]]:
    """What scores a scan in a process of its own."""
    results = how.results()
    return lambda scan: [results.entry(scan)]


def score_scans(
    results: ScanResults,
    scans: Sequence[Scan],
    *,
    run: Run | None = None,
    cluster: Cluster | None = None,
    on_scan: OnScan = lambda scored, truth: None,
    on_slices: OnSlices = lambda done, total: None,
) -> Counts:
    """Score `scans`, and tell `on_scan` of each; how many could be used, and not.

    run: one that can be gone on with; what it has is not scored again, and not told. cluster: where to score, if not in
    this process; then nobody is told. on_slices: is told of each scan how many of its slices are done.

    Those that cannot be used are named on stderr and in the table. Whatever stops it, Ctrl-C included, the tables of
    what was done are written. Raises OutputError.
    """
    run, out = run or Run.in_memory(), results.how.out
    total, places = run.todo(scans)
    todo = [scans[place] for place in places]
    _remove_earlier(out, todo)
    if results.judge:
        write_basis(out, results.judge)
    entries: Iterator[Entry] = (results.entry(scan, on_scan, on_slices) for scan in todo)
    if cluster is not None:
        entries = entries_by_ray(partial(scan_scorer, results.how), todo, cluster)
    record(out, run, entries, results.tables, total=total, what="scans")
    return run.own.counts


def _scored(
    model: ScanModel, scan: Scan, judge: Judge | None, modality: Modality | None, on_slices: OnSlices
) -> ScoredScan:
    """Raises InputError."""
    volume = read_as(scan, modality)
    start = time.perf_counter()
    scores = model.score(volume, on_slices)
    seconds = time.perf_counter() - start
    met = _met(model, judge, scan, volume, scores)
    if met:
        warn(f"{scan.path}: {met}; what is said of it is too good")
    judgement = None
    if judge and not met:
        judgement = replace(judge, affine=volume.affine).judge(scores.anomaly, scores.anomaly_map)
        if judge.alpha is not None:
            return ScoredScan(scan, volume, scores, judgement, judgement.regions, judgement.labels, seconds, met)
    regions, labels = regions_above(scores.anomaly_map, model.healthy_.map_high, volume.affine, SMALLEST)
    return ScoredScan(scan, volume, scores, judgement, regions, labels, seconds, met)


def _met(model: ScanModel, judge: Judge | None, scan: Scan, volume: Volume, scores: ScanScores) -> str:
    """Why a scan is no new one to the model or its calibration; empty where it is new."""
    patient = patient_fingerprint(scan.group) if scan.told else None
    if why := fitted_to(model.provenance_, "", patient) or model.met(scores.prepared):
        return why
    calibration = judge.calibration if judge else None
    if calibration and (volume.fingerprint in calibration.images or patient in calibration.patients):
        return "the model was calibrated on this patient"
    return ""


def _write_dicom(out: Path, one: ScoredScan, model: ScanModel, made_by: MadeBy) -> None:
    """Map, segmentation and measurements of a DICOM series; a series they cannot refer to is named on stderr."""
    series = next((source for source in one.scan.sources if isinstance(source, Series)), None)
    if series is None:
        return
    place = prepare_folder(out / DICOM / one.scan.name, overwrite=True)
    healthy = model.healthy_
    try:
        ends = (healthy.map_low, healthy.map_high)
        write_parametric_map(place / "map.dcm", series, one.scores.anomaly_map, made_by, ends)
        segmentation = write_segmentation(place / "segmentation.dcm", series, one.labels, one.regions, made_by)
        if segmentation.warning:
            warn(segmentation.warning)
        p_value = one.judgement.p_value if one.judgement else None
        figures = ScanFigures(one.scores.anomaly, p_value)
        write_measurements(place / "measurements.dcm", series, segmentation.path, one.regions, figures, made_by)
    except InputError as error:
        warn(str(error))


def _remove_earlier(out: Path, scans: Sequence[Scan]) -> None:
    """What an earlier run wrote under the names of this one, lest it be taken for a result of this one."""
    inputs = {os.path.realpath(path) for scan in scans for path in (*scan.files, *([scan.mask] if scan.mask else []))}
    for path in _results_of(out, scans):
        if os.path.realpath(path) in inputs:
            raise OutputError(f"{path}: is an input, and a result would take its place; choose another --out")
    discard_report(out / PAGE)
    remove_results(_results_of(out, scans))


def _results_of(out: Path, scans: Sequence[Scan]) -> Iterator[Path]:
    for name in (SCORES, SPECTRUM, METRICS, CURVES, SLICES, REGIONS, *VERDICT_FILES):
        yield out / name
    for scan in scans:
        yield out / MAPS / f"{scan.name}.nii.gz"
        for layer in LAYERS:
            yield out / layer / f"{scan.name}.nii.gz"
        yield out / OVERLAYS / f"{scan.name}.png"
        for name in ("map", "segmentation", "measurements"):
            yield out / DICOM / scan.name / f"{name}.dcm"
