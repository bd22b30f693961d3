"""Folders of results as `priorlens score`, `evaluate` and `monitor` write them, without a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from priorlens.conformal import p_values, verdict_of
from priorlens.curves import GRID, Curve, curves_facts
from priorlens.evaluation import METRICS
from priorlens.outputs import write_array, write_json, write_rows
from priorlens.pictures import Called, overlay

SIGMAS = (0.25, 1.0, 4.0)
STRIDES = (8, 32)
HEALTHY = 40
ALPHA = 0.05


def write_results(
    folder: Path,
    names: Sequence[str],
    *,
    root: str = "/data/set/test",
    alpha: float | None = ALPHA,
    calibrated: bool = True,
    patients: Sequence[str] = (),
    failed: Sequence[int] = (),
    overlays: bool = True,
    size: tuple[int, int] = (40, 56),
) -> Path:
    """A folder of the images `names`, paths below `root`; those at the places `failed` could not be read."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    healthy = rng.normal(size=HEALTHY).astype(np.float32)
    anomaly = rng.normal(1, 1, len(names)).astype(np.float32)
    p = p_values(anomaly, healthy)
    said = ["p_value", *(["verdict", "regions"] if alpha else [])] if calibrated else []
    rows, regions, spectrum = [], [], []
    for i, name in enumerate(names):
        file = f"{root}/{name}"
        patient = [patients[i]] if patients else []
        if i in failed:
            cells = [""] * (len(patient) + 1 + len(said) + 3)
            rows.append([file, *cells, f"{file}: is not an image; remove it"])
            continue
        count = i % 3 if alpha else 0
        verdict = [f"{p[i]:.6g}", *([verdict_of(p[i], alpha), count] if alpha else [])] if calibrated else []
        rows.append([file, *patient, anomaly[i], *verdict, 1.5, 60, "0.1", ""])
        regions += [[file, k + 1, "px", 10 + k, 20, 48, 4.5 - k, 3, 0.02 * (k + 1)] for k in range(count)]
        spectrum += [[file, float(s), sigma, *(anomaly[i] * np.array([0.1, 0.3]))] for s in STRIDES for sigma in SIGMAS]
        stem = name.rpartition(".")[0]
        anomaly_map = np.zeros(size, np.float32)
        anomaly_map[10:20, 10:20] = 3
        (folder / "maps" / stem).parent.mkdir(parents=True, exist_ok=True)
        write_array(folder / "maps" / f"{stem}.npy", anomaly_map)
        if overlays:
            (folder / "overlays" / stem).parent.mkdir(parents=True, exist_ok=True)
            pixels = rng.uniform(size=(1, *size)).astype(np.float32)
            called = Called(float(p[i]), anomaly_map > 1, alpha) if calibrated else None
            path = folder / "overlays" / f"{stem}.png"
            overlay(pixels, anomaly_map, path, name=stem, anomaly=float(anomaly[i]), threshold=1.0, called=called)
    columns = ["file", *(["patient"] if patients else []), "anomaly", *said, "s8", "nfe", "seconds", "error"]
    write_rows(folder / "scores.csv", columns, rows)
    write_rows(folder / "spectrum.csv", ["file", "stride", "sigma", "standardised", "width_0"], spectrum)
    if calibrated:
        _write_verdicts(folder, alpha, healthy, regions)
    write_json(folder / "model.json", MODEL)
    return folder


MODEL = {
    "schema": 1,
    "made": "2026-01-02T03:04:05+00:00",
    "run": {"folder": "secret-study", "images": 50, "left_out": 2, "patients": 45, "fingerprint": "abc"},
    "versions": {"python": "3.11.7", "torch": "2.14.1"},
    "method": "anodode",
    "rule": "combined",
    "backbone": "tf_efficientnet_lite0",
    "size": 64,
    "channels": 1,
    "intensity": {"mode": "range", "low": 0.0, "high": 255.0},
    "steps": 100,
    "seed": 0,
    "trained_on": {"images": 40, "held_out": 10, "patients": 45},
    "healthy": {"combined": {"anomaly_mean": 0.1, "anomaly_std": 0.2, "threshold": 3.0}},
}


def _write_verdicts(folder: Path, alpha: float | None, healthy: np.ndarray, regions: list[list[object]]) -> None:
    counts = {"images": HEALTHY, "patients": HEALTHY, "smallest_p_value": 1 / (HEALTHY + 1)}
    facts = {"schema": 1, "model": "f" * 64, "setup": "rule=combined", "alpha": alpha, "procedure": "bh"}
    write_json(folder / "verdicts.json", {**facts, "calibration": counts})
    places = [f"{name}@stride={s},sigma={g:g}" for s in STRIDES for g in SIGMAS for name in ("standardised", "width_0")]
    spread = np.linspace(-0.1, 0.1, HEALTHY)
    rows = [[f"{i:032x}", f"{i:032x}", healthy[i], *[spread[i]] * len(places)] for i in range(HEALTHY)]
    write_rows(folder / "calibration.csv", ["image", "patient", "anomaly", *places], rows)
    if alpha:
        header = ["file", "region", "unit", "centre_row", "centre_column", "size", "peak", "mean", "q_value"]
        write_rows(folder / "regions.csv", header, regions)


def add_evaluation(folder: Path, good: int, lesion: int, *, planted: bool = False) -> Path:
    """What `evaluate` writes beside: figures, and one curve of each level."""
    figure = {"value": 0.8, "low": 0.7, "high": 0.9}
    nothing = {"value": None, "low": None, "high": None}
    kinds = {"lesion": {name: figure if name != "aupro" else nothing for name in METRICS}}
    verdicts = {"0.05": {"good": {"false_alarm_rate": figure}, "lesion": {"sensitivity": figure}}}
    counts = {kind: {"images": n, "groups": n, "with_mask": n} for kind, n in (("good", good), ("lesion", lesion))}
    facts = {"schema": 1, "kinds": kinds, "counts": counts, "rule": "combined", "images_failed": 0}
    facts |= {"verdicts": {"images_left_out": 1, "alphas": verdicts}, "physics": "ct:views=24"}
    write_json(folder / "metrics.json", facts | ({"planted": True} if planted else {}))
    up, down = np.sqrt(GRID), 1 - GRID / 2
    bands = up * 0.9, np.minimum(up * 1.1, 1), down, down * 0.9, np.minimum(down * 1.1, 1)
    curves = [Curve("lesion", level, up, *bands, 0.8, 0.7, 0.5) for level in ("image", "pixel")]
    write_json(folder / "curves.json", curves_facts(curves))
    return folder


def write_watch(folder: Path, *, alarm: bool, names: Sequence[str] = ("scanner A", "scanner B")) -> Path:
    """A folder of `monitor`: with `alarm` the last of the streams raises one at scan 30."""
    folder.mkdir(parents=True)
    rows, streams = [], []
    for name in names:
        raised = alarm and name == names[-1]
        capital = np.exp(np.arange(60) / 10) if raised else np.full(60, 0.9)
        rows += [
            [name, i + 1, "2026-01-02", f"/data/{name}/{i}.png", 0.5, f"{capital[i]:.6g}", int(raised and i >= 29)]
            for i in range(60)
        ]
        scan = {"scan": 30, "file": f"/data/{name}/29.png", "time": "2026-01-02"} if raised else None
        change = {"scan": 12, "file": f"/data/{name}/11.png", "time": None} if raised else None
        moved = [{"feature": "noise", "capital": 99.0, "direction": "higher", "shift": 2.5}] if raised else []
        largest = float(capital.max())
        facts = {"stream": name, "scans": 60, "largest_capital": largest, "alarm": scan, "change": change}
        streams.append({**facts, "delay": 18 if raised else None, "moved": moved})
    header = ["stream", "scan", "time", "file", "p_value", "capital", "alarm"]
    write_rows(folder / "monitor.csv", header, rows)
    facts = {"schema": 1, "alpha": 0.05, "seed": 0, "model": "f" * 64, "setup": "rule=combined", "unit": "image"}
    facts |= {"calibration": 40, "features": ["anomaly", "noise"], "failed": 0, "streams": streams}
    write_json(folder / "monitor.json", facts)
    return folder
