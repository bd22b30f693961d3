"""Images a second of the local engine and of Ray, what an image costs beside its scoring, and the driver's memory.

    python benchmarks/throughput.py speed WORK [--images 600]
    python benchmarks/throughput.py memory WORK [--counts 1000 10000 100000] [--engine ray]

speed: the tiny model and images of `faults.py`; of each engine the time for few and for many images, of which the
difference is free of the start. memory: a detector that does nothing, and images of 8x8 pixels; prints CSV. Let WORK
lie in /dev/shm if it is not the disk that is to be measured. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np

ENGINES = {
    "local, 1 thread": ("--threads", "1"),
    "local, 2 threads": ("--threads", "2"),
    "ray, 2 workers": ("--engine", "ray", "--workers", "2"),
}


# --- speed


def timed(work: Path, count: int, options: Sequence[str]) -> tuple[float, float]:
    """Wall seconds of a run over so many images, and those that scoring took by its own account."""
    some, out = work / f"some{count}", work / "out"
    if not some.exists():
        some.mkdir()
        for path in sorted((work / "images").rglob("*.png"))[:count]:
            os.link(path, some / path.name)
    shutil.rmtree(out, ignore_errors=True)
    command = ["score", str(work / "model"), str(some), "--out", str(out), "--no-overlays", "--no-report", *options]
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "priorlens", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    with open(out / "scores.csv", newline="") as file:
        scoring = sum(float(row["seconds"] or 0) for row in csv.DictReader(file))
    return seconds, scoring


def speed(work: Path, images: int) -> None:
    from faults import Bench, prepare

    prepare(Bench(work, images))
    for name, options in ENGINES.items():
        few, many = images // 6, images
        (short, little), (long, much) = timed(work, few, options), timed(work, many, options)
        each, scoring = (long - short) / (many - few), (much - little) / (many - few)
        facts = {
            "engine": name,
            "images_a_second": round(1 / each, 2),
            "ms_an_image": round(1000 * each, 2),
            "ms_scoring_an_image": round(1000 * scoring, 2),
            "seconds_to_start": round(short - few * each, 1),
            "load": os.getloadavg()[0],
        }
        print(json.dumps(facts), flush=True)


# --- memory


class Nothing:
    """A detector that costs nothing: the anomaly is the mean, the map the image."""

    rule, figure_names_, tables_, healthy_ = "none", (), {}, None

    def score(self, images: Sequence[object]) -> object:
        from priorlens.scores import Scores

        pixels = [image.pixels[0] for image in images]  # type: ignore[attr-defined]
        return Scores(np.array([one.mean() for one in pixels], np.float32), tuple(pixels), 1)


def results_in(out: Path) -> object:
    from priorlens.commands.image_results import ImageResults

    return ImageResults(out, Nothing(), None, patients=False, overlays=False)  # type: ignore[arg-type]


def make_scorer(out: Path) -> Callable[[Sequence[object]], list[object]]:
    from priorlens.scoring import score_cases

    results = results_in(out)
    return lambda cases: [results.entry(one, None) for one in score_cases(results.detector, cases)]  # type: ignore[attr-defined]


def resident() -> dict[str, float]:
    """MB now, and at most so far."""
    text = Path("/proc/self/status").read_text()
    return {name: int(re.search(rf"Vm{name}:\s+(\d+)", text)[1]) / 1024 for name in ("RSS", "HWM")}  # type: ignore[index]


def memory_of(work: Path, count: int, engine: str) -> None:
    """In a process of its own: score, and print a line of the table."""
    from priorlens.commands.ray_engine import Cluster, entries_by_ray
    from priorlens.commands.recording import begin
    from priorlens.commands.results import write_entries, write_scores
    from priorlens.datasets import find_cases
    from priorlens.scoring import BATCH

    folder, out = work / "tiny", work / "out"
    imported = resident()["RSS"]
    cases = find_cases([folder / f"{part:04d}" for part in range(count // 1000)])
    listed = resident()["RSS"]
    start, used = time.perf_counter(), time.process_time()
    with closing(begin(out, {}, overwrite=False, parquet=engine == "ray")) as run:
        if engine == "local":
            write_scores(results_in(out), cases, run=run)  # type: ignore[arg-type]
        else:
            pieces = (cases[first : first + BATCH] for first in range(0, count, BATCH))
            make = partial(make_scorer, out)
            write_entries(results_in(out), cases, lambda todo: entries_by_ray(make, pieces, Cluster(None, 2)), run)  # type: ignore[arg-type]
    each, of_processor = (1000 * one / count for one in (time.perf_counter() - start, time.process_time() - used))
    cells = (
        engine,
        count,
        f"{imported:.0f}",
        f"{listed:.0f}",
        f"{resident()['HWM']:.0f}",
        f"{each:.2f}",
        f"{of_processor:.2f}",
    )
    size = (out / "run.sqlite").stat().st_size / count
    print(",".join(map(str, (*cells, f"{size:.0f}"))), flush=True)


def memory(work: Path, counts: Sequence[int], engine: str) -> None:
    for part in range(max(counts) // 1000):
        if not (folder := work / f"tiny/{part:04d}").exists():
            folder.mkdir(parents=True)
            for i in range(1000):
                np.save(folder / f"{part:04d}_{i:03d}.npy", np.arange(64, dtype=np.float32).reshape(8, 8) + i)
    print(
        "engine,inputs,imported_mb,listed_mb,peak_mb,ms_an_input,processor_ms_an_input,ledger_bytes_an_input",
        flush=True,
    )
    for count in counts:
        shutil.rmtree(work / "out", ignore_errors=True)
        again = ["memory-of", str(work), "--counts", str(count), "--engine", engine]
        subprocess.run([sys.executable, __file__, *again], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "memory", "memory-of"])
    parser.add_argument("work", type=Path)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--engine", choices=["local", "ray"], default="local")
    options = parser.parse_args()
    if options.what == "speed":
        speed(options.work, options.images)
    elif options.what == "memory":
        memory(options.work, options.counts, options.engine)
    else:
        memory_of(options.work, options.counts[0], options.engine)


if __name__ == "__main__":
    main()
