"""Seconds and peak memory of fit and score, each in a process of its own, on a data set of train/good and test/<kind>.

    python benchmarks/speed.py DATASET [--threads 2] [--repeats 3] [--steps N]

Prints one JSON object. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def measured(arguments: list[str]) -> dict[str, float]:
    """Wall seconds and peak resident GiB of one `priorlens` command."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "priorlens", *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"priorlens {arguments[0]} ended with status {status}")
    return {"seconds": time.perf_counter() - start, "peak_gib": usage.ru_maxrss / 2**20}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=3, help="of the scoring")
    parser.add_argument("--steps", type=int)
    options = parser.parse_args()
    common = ["--threads", str(options.threads)]
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder, "model")
        steps = ["--steps", str(options.steps)] if options.steps else []
        fitted = measured(["fit", str(options.dataset), "--out", str(model), *common, *steps])
        runs, inner = [], []
        for repeat in range(options.repeats):
            out = Path(folder, f"scores{repeat}")
            runs.append(measured(["score", str(model), str(options.dataset / "test"), "--out", str(out), *common]))
            with open(out / "scores.csv", newline="", encoding="utf-8") as file:
                inner.append([float(row["seconds"]) for row in csv.DictReader(file) if row["seconds"]])
    images = len(inner[0])
    per_image = [1000 * run["seconds"] / images for run in runs]
    report = {
        "dataset": options.dataset.name,
        "threads": options.threads,
        "fit_seconds": round(fitted["seconds"], 1),
        "fit_peak_gib": round(fitted["peak_gib"], 2),
        "images_scored": images,
        "score_ms_per_image_whole_command": [round(value, 1) for value in per_image],
        "score_ms_per_image_model_alone": [round(1000 * statistics.median(times), 1) for times in inner],
        "score_peak_gib": round(max(run["peak_gib"] for run in runs), 2),
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
