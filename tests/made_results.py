"""Folders of results as `priorlens score`, `evaluate` and `monitor` write them, without a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from priorlens.conformal import p_values, verdict_of
from priorlens.curves import GRID, Curve, curves_facts
from priorlens.evaluation import METRICS
from priorlens.layers import IMAGES, SEGMENTATIONS, TRUTH, write_image, write_labels, write_truth
from priorlens.outputs import write_array, write_json, write_rows
from priorlens.pictures import Called, overlay
from priorlens.volumes.nifti import write_nifti, write_shown
from priorlens.volumes.volume import Volume

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
    layers: bool = False,
    truth: bool = False,
) -> Path:
    """A folder of the images `names`, paths below `root`; those at the places `failed` could not be read. With `layers`
    the images and their regions lie there by themselves, with `truth` their lesions too."""
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
            if layers:
                _write_layers(folder, f"{stem}.png", pixels, anomaly_map, count, truth)
    columns = ["file", *(["patient"] if patients else []), "anomaly", *said, "s8", "nfe", "seconds", "error"]
    write_rows(folder / "scores.csv", columns, rows)
    write_rows(folder / "spectrum.csv", ["file", "stride", "sigma", "standardised", "width_0"], spectrum)
    if calibrated:
        _write_verdicts(folder, alpha, healthy, regions)
    write_json(folder / "model.json", MODEL)
    return folder


def _write_layers(
    folder: Path, name: str, pixels: np.ndarray, anomaly_map: np.ndarray, count: int, truth: bool
) -> None:
    """Regions are the square that stands out in the map and, as the second, one below it; the lesion lies beside."""
    write_image(folder / IMAGES / name, pixels)
    lesion, labels = np.zeros(anomaly_map.shape, bool), np.zeros(anomaly_map.shape, np.int32)
    lesion[12:24, 14:26] = True
    for number in range(1, count + 1):
        labels[15 * number - 5 : 15 * number + 5, 10:20] = number
    if truth:
        write_truth(folder / TRUTH / name, lesion)
    if count:
        write_labels(folder / SEGMENTATIONS / name, labels)


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


SCAN_SHAPE = (20, 24, 12)
SCAN_AFFINE = np.array([[-2.0, 0, 0, 20], [0, 3.0, 0, -30], [0, 0, 5.0, 7], [0, 0, 0, 1]])
"""The first axis runs to the patient's left, slices are 5 mm apart."""

LESION = (slice(4, 8), slice(5, 12), slice(6, 9))
"""Of the scans: to the patient's right, and to the back."""

SCAN_MODEL = {
    **MODEL,
    "method": "klip-scans",
    "map_unit": "bit",
    "map_scale": {"low": 0.0, "high": 2.0, "threshold": 2.0},
    "healthy": {"anomaly_mean": 0.1, "anomaly_std": 0.2, "map_low": 0.0, "map_high": 2.0, "threshold": 1.0},
    "scans": {"channels": ["flair", "t1ce"], "plane": "axial", "dimensions": "2d", "intensities": [{"mode": "robust"}]},
}


def write_scan_results(
    folder: Path,
    names: Sequence[str] = ("anna", "bert"),
    *,
    affine: np.ndarray = SCAN_AFFINE,
    truth: bool = True,
    regions: bool = True,
    plane: str = "axial",
) -> Path:
    """A folder of scans of two channels, by a model that is not calibrated. Slice 7 scores highest. The second channel
    is empty; in the first, every voxel of slice k has the intensity 100 k, and 50 more where the lesion is."""
    folder.mkdir(parents=True)
    scores, slices, places = [], [], []
    shape = SCAN_SHAPE
    for number, name in enumerate(names):
        voxels = np.zeros((2, *shape), np.float32)
        voxels[0] = 100 * np.arange(shape[2])
        voxels[(0, *LESION)] += 50
        volume = Volume(voxels, affine, "arbitrary", Path(f"/data/{name}"), ("flair", "t1ce"))
        anomaly_map = np.linspace(0, 1, shape[2], dtype=np.float32) * np.ones(shape, np.float32)
        anomaly_map[LESION] = 3
        lesion = (anomaly_map == 3).astype(np.int16)
        for part in ("maps", "overlays", IMAGES, SEGMENTATIONS, TRUTH):
            (folder / part / name).parent.mkdir(parents=True, exist_ok=True)
        write_nifti(folder / "maps" / f"{name}.nii.gz", anomaly_map, volume)
        write_shown(folder / IMAGES / f"{name}.nii.gz", volume)
        if truth:
            write_nifti(folder / TRUTH / f"{name}.nii.gz", lesion, volume)
        if regions:
            write_nifti(folder / SEGMENTATIONS / f"{name}.nii.gz", lesion, volume)
            places.append([f"/data/{name}", name, 1, "mm", 8, -6, 42, 630, 3, 3, ""])
        file, by_slice = f"/data/{name}", 1 / (1 + np.abs(np.arange(shape[2]) - 7.0))
        scores.append([file, name, "", 2.5 - number, int(regions), shape[2], 7, "42.00", 60, "0.1", ""])
        slices += [[file, name, k, f"{7 + 5 * k:.3f}", by_slice[k]] for k in range(shape[2])]
    header = [
        "file",
        "name",
        "patient",
        "anomaly",
        "regions",
        "slices",
        "highest_slice",
        "highest_mm",
        "nfe",
        "seconds",
    ]
    write_rows(folder / "scores.csv", [*header, "error"], scores)
    write_rows(folder / "slices.csv", ["file", "name", "slice", "height_mm", "anomaly"], slices)
    columns = ["file", "name", "region", "unit", "centre_x", "centre_y", "centre_z", "size", "peak", "mean", "q_value"]
    write_rows(folder / "regions.csv", columns, places)
    write_json(folder / "model.json", {**SCAN_MODEL, "scans": {**SCAN_MODEL["scans"], "plane": plane}})
    return folder


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
