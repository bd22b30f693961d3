"""Each patient of a BraTS folder scored by a model that learned from the lesion-free slices of the others.

    python benchmarks/brats.py DATA/brats --out FOLDER [-- options of priorlens fit]

Fits, one after the other, as many models as there are patients, with `priorlens fit`; finished ones in FOLDER are used
again. Prints Markdown: slices with a lesion against lesion-free slices of the same height of other patients, voxels,
lesions found, seconds and memory; beside them the baseline, which needs no learning: smoothed brightness of the first
channel, in deviations from the median of the body. The threshold of every best Dice is chosen on the test scans, for
both alike. With --ms FOLDER another patient is scored by the first model.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from priorlens.evaluation import interval_cell
from priorlens.scan_model import ScanModel
from priorlens.scan_surprise import PEAKS
from priorlens.volume_figures import SCAN_METRICS, ScanOutcome, evaluate_scans, outcome_of
from priorlens.volumes.reading import read_lesions, read_scan
from priorlens.volumes.scan_body import scan_body
from priorlens.volumes.scans import LESION, Scan, labelled_scans
from priorlens.volumes.volume import Layout, Volume

SMOOTHING = 1.5
"""Width in voxels of the Gaussian over which the baseline averages brightness."""


@dataclass(frozen=True)
class Result:
    """One patient: what the model says of the scan and of its slices, what the baseline says, and the seconds taken."""

    model: ScanOutcome
    baseline: ScanOutcome
    seconds: float


def brightness(volume: Volume) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The baseline: its map, the body, and a figure for each axial slice, the mean of its brightest voxels."""
    body = scan_body(volume)
    voxels = volume.voxels[0]
    median = np.median(voxels[body])
    deviation = 1.4826 * np.median(np.abs(voxels[body] - median))
    smooth = gaussian_filter(np.where(body, (voxels - median) / deviation, -5.0), SMOOTHING).astype(np.float32)
    layout = Layout.of(volume.affine, "axial")
    stack, inside = layout.to_stack(smooth), layout.to_stack(body)
    by_slice = np.full(len(stack), np.nan, np.float32)
    for index, (plane, there) in enumerate(zip(stack, inside, strict=True)):
        if there.any():
            count = max(1, round(PEAKS * there.sum()))
            by_slice[index] = np.sort(plane[there])[-count:].mean()
    return smooth, body, by_slice


def judged(model: ScanModel, scan: Scan) -> Result:
    """Both on one scan. The slices that the model looks at count for the baseline too."""
    volume = read_scan(scan)
    truth = read_lesions(scan, volume)
    start = time.perf_counter()
    scores = model.score(volume)
    seconds = time.perf_counter() - start
    by_slice = scores.of_all_slices(truth)
    smooth, body, brightest = brightness(volume)
    brightest = np.where(np.isnan(by_slice), np.nan, brightest)
    shared: dict[str, Any] = {"name": scan.name, "group": scan.group, "kind": LESION, "mask": truth}
    shared["affine"] = volume.affine
    own = outcome_of(
        **shared,
        anomaly=scores.anomaly,
        slice_anomaly=by_slice,
        anomaly_map=scores.anomaly_map,
        body=scores.body,
        plane=scores.prepared.preparation.plane,
    )
    baseline = outcome_of(
        **shared, anomaly=float(np.nanmax(brightest)), slice_anomaly=brightest, anomaly_map=smooth, body=body
    )
    return Result(own, baseline, seconds)


def fitted(patients: Sequence[Path], left_out: Path, out: Path, options: Sequence[str]) -> Path:
    """A model of all patients but one, by the command line."""
    folder, model = out / "without" / left_out.name, out / f"model_{left_out.name}"
    folder.mkdir(parents=True, exist_ok=True)
    for patient in patients:
        if patient != left_out and not (folder / patient.name).exists():
            (folder / patient.name).symlink_to(patient.resolve())
    if not (model / "config.json").is_file():
        command = [sys.executable, "-m", "priorlens", "fit", str(folder), "--out", str(model), *options]
        started = time.perf_counter()
        resume = ["--resume"] if model.exists() else []
        subprocess.run([*command, *resume], check=True, stdout=subprocess.DEVNULL)
        print(f"fit without {left_out.name}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    return model


def table(results: Sequence[Result]) -> Iterator[str]:
    """Every figure of both, with intervals over patients."""
    own, baseline = (
        evaluate_scans(outcomes) for outcomes in zip(*((r.model, r.baseline) for r in results), strict=True)
    )
    yield "| figure | model | smoothed brightness |"
    yield "| --- | --- | --- |"
    for key, words in SCAN_METRICS.items():
        cells = [interval_cell(found["kinds"][LESION][key]) for found in (own, baseline)]
        yield f"| {words} | {cells[0]} | {cells[1]} |"
    counts = own["counts"][LESION]
    yield ""
    yield ", ".join(f"{name} {value}" for name, value in counts.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--channels", default="flair")
    parser.add_argument("--rule")
    parser.add_argument("--ms", type=Path)
    arguments, options = parser.parse_known_args()
    options = [option for option in options if option != "--"]
    patients = sorted(path for path in arguments.data.iterdir() if path.is_dir())
    channels = arguments.channels.split(",")
    results = []
    for patient in patients:
        folder = fitted(patients, patient, arguments.out, ["--channels", arguments.channels, *options])
        model = ScanModel.load(folder)
        model.choose(arguments.rule)
        scans, _ = labelled_scans(patient, channels=channels)
        results.append(judged(model, scans[0]))
        one = evaluate_scans([results[-1].model], bootstrap=0)["kinds"][LESION]
        base = evaluate_scans([results[-1].baseline], bootstrap=0)["kinds"][LESION]
        line = (
            f"{patient.name}: best Dice {one['dice_best']['value']:.3f} (brightness {base['dice_best']['value']:.3f})"
        )
        print(f"{line}, voxel AP {one['voxel_ap']['value']:.3f}, map in {results[-1].seconds:.1f} s")
    print("\n".join(table(results)))
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GB")
    if arguments.ms:
        scans, _ = labelled_scans(arguments.ms, channels=channels)
        print(f"{arguments.ms.name}, by the model without {patients[0].name}:")
        model = ScanModel.load(arguments.out / f"model_{patients[0].name}")
        model.choose(arguments.rule)
        print("\n".join(table([judged(model, scans[0])])))


if __name__ == "__main__":
    main()
