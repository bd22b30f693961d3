"""What is left of a run after everything that can stop it: killed processes, a full disk, inputs that vanish or change.

    python benchmarks/faults.py WORK [--images 10000] [--only NAME ...]

Makes images, 1 % of them broken, and a tiny model in the folder WORK, scores them once undisturbed, and then once for
each fault: it does harm in the middle of the run, gives the same command again, and compares. Prints a table; exit code
1 if a line is missing, there twice or another. Faults of a full disk need root, those of Ray need Ray.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

SIDE, BROKEN = 48, 100
RAY = ("--engine", "ray", "--workers", "2")


@dataclass
class Outcome:
    """codes: exit codes of the commands that were given, negative where one was killed. before: what the last of them
    found done. differing: lines that are not as undisturbed."""

    fault: str
    codes: list[int] = field(default_factory=list)
    before: int = 0
    lines: int = 0
    twice: int = 0
    missing: int = 0
    differing: int = 0
    unfinished: int = 0
    seconds: float = 0.0

    @property
    def lost(self) -> bool:
        return bool(self.twice or self.missing or self.differing or self.unfinished)


@dataclass
class Bench:
    """The images, the model, and how to score them."""

    work: Path
    count: int

    @property
    def images(self) -> Path:
        return self.work / "images"

    def start(self, out: Path, *further: str) -> subprocess.Popen[str]:
        options = ["--no-overlays", "--no-report", "--threads", "1", "--out", str(out), *further]
        command = [sys.executable, "-m", "priorlens", "score", str(self.work / "model"), str(self.images), *options]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def finish(self, outcome: Outcome, process: subprocess.Popen[str]) -> None:
        _, said = process.communicate()
        outcome.codes.append(process.returncode)
        outcome.before = next(
            (int(line.split()[-7]) for line in said.splitlines() if line.endswith("were done before")), 0
        )

    def wait(self, process: subprocess.Popen[str], out: Path, share: float) -> None:
        """Until so large a share of the maps is there."""
        while sum(len(files) for _, _, files in os.walk(out / "maps")) < share * self.count:
            if process.poll() is not None:
                raise SystemExit(f"it ended before there was anything to harm: {process.communicate()}")
            time.sleep(0.02)


# --- what is needed


def draw(path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    down, across = np.mgrid[:SIDE, :SIDE] / SIDE
    disc = 1 / (1 + np.exp(40 * (np.hypot(down - rng.normal(0.5, 0.03), across - rng.normal(0.5, 0.03)) - 0.35)))
    pixels = 0.7 * disc + rng.uniform(0, 0.1, (SIDE, SIDE))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((255 * pixels).astype(np.uint8)).save(path)


def prepare(bench: Bench) -> None:
    """Once."""
    if (bench.work / "model/config.json").exists() and bench.images.exists():
        return
    shutil.rmtree(bench.work, ignore_errors=True)
    for i in range(12):
        draw(bench.work / f"healthy/{i}.png", 10**6 + i)
    fit = ["fit", str(bench.work / "healthy"), "--out", str(bench.work / "model"), "--size", "64", "--steps", "3"]
    subprocess.run([sys.executable, "-m", "priorlens", *fit, "--threads", "1"], check=True, stdout=subprocess.DEVNULL)
    for i in range(bench.count):
        path = bench.images / f"{i // 1000:03d}/{i:06d}.png"
        draw(path, i)
        if i % BROKEN == BROKEN // 2:
            path.write_bytes(path.read_bytes()[:100])


def lines(out: Path) -> list[dict[str, str]]:
    with open(out / "scores.csv", newline="") as file:
        return list(csv.DictReader(file))


def same(text: str, other: str) -> bool:
    with suppress(ValueError):
        return bool(np.isclose(float(text), float(other), rtol=1e-3, atol=1e-4))
    return text == other


def compare(outcome: Outcome, out: Path, undisturbed: Path) -> Outcome:
    found, wanted = lines(out), {row["file"]: row for row in lines(undisturbed)}
    counts = Counter(row["file"] for row in found)
    outcome.lines, outcome.twice = len(found), sum(count - 1 for count in counts.values())
    outcome.missing = len(wanted.keys() - counts.keys())
    outcome.differing = sum(
        any(not same(row[name], wanted[row["file"]][name]) for name in row if name != "seconds") for row in found
    )
    maps = [sum(1 for _ in folder.rglob("maps/**/*.npy")) for folder in (out, undisturbed)]
    outcome.missing += abs(maps[0] - maps[1])
    outcome.unfinished = sum(1 for _ in out.rglob("*.partial"))
    return outcome


# --- the faults: each does harm, and gives the same command again


def driver_killed(bench: Bench, out: Path, outcome: Outcome, *further: str) -> None:
    for share in (0.2, 0.6):
        process = bench.start(out, *further)
        bench.wait(process, out, share)
        process.kill()
        bench.finish(outcome, process)
    bench.finish(outcome, bench.start(out, *further))


def ray_driver_killed(bench: Bench, out: Path, outcome: Outcome) -> None:
    driver_killed(bench, out, outcome, *RAY)


def ray_actor_killed(bench: Bench, out: Path, outcome: Outcome) -> None:
    """Twice, in the middle of what it does; the command itself goes on."""
    process = bench.start(out, *RAY)
    for share in (0.2, 0.6):
        bench.wait(process, out, share)
        workers = [one for one, name in below(process.pid).items() if "MapWorker" in name]
        os.kill(workers[0], signal.SIGKILL)
    bench.finish(outcome, process)


def part_killed(bench: Bench, out: Path, outcome: Outcome) -> None:
    """One of two processes that work side by side; the other ends, the part is started again."""
    parts = [bench.start(out, "--shard", f"{part}/2") for part in (1, 2)]
    bench.wait(parts[0], out, 0.3)
    parts[0].kill()
    for process in parts:
        bench.finish(outcome, process)
    bench.finish(outcome, bench.start(out, "--shard", "1/2"))


def disk_full(bench: Bench, out: Path, outcome: Outcome) -> None:
    """A file system for half of the results, which is then made larger."""
    out.mkdir(parents=True)
    half = bench.count * 10_000
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={half}", "tmpfs", str(out)], check=True)
    bench.finish(outcome, bench.start(out))
    subprocess.run(["mount", "-o", f"remount,size={20 * half}", str(out)], check=True)
    bench.finish(outcome, bench.start(out))


def inputs_vanish(bench: Bench, out: Path, outcome: Outcome) -> None:
    """One in a hundred, while the run goes on; later they are back as they were."""
    process = bench.start(out)
    bench.wait(process, out, 0.3)
    gone = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in list(files(bench))[7::BROKEN]}
    for path in gone:
        path.unlink()
    bench.finish(outcome, process)
    for path, (content, modified) in gone.items():
        path.write_bytes(content)
        os.utime(path, ns=(modified, modified))
    bench.finish(outcome, bench.start(out))


def inputs_change(bench: Bench, out: Path, outcome: Outcome) -> None:
    """One in a hundred becomes another image while the run goes on, and later the old one again."""
    process = bench.start(out)
    bench.wait(process, out, 0.3)
    old = {path: path.read_bytes() for path in list(files(bench))[9::BROKEN]}
    for number, path in enumerate(old):
        draw(path, 10**7 + number)
    bench.finish(outcome, process)
    for path, content in old.items():
        path.write_bytes(content)
    bench.finish(outcome, bench.start(out))


def two_drivers(bench: Bench, out: Path, outcome: Outcome) -> None:
    """At one moment: one of them is refused, the other ends, a third finds all done."""
    both = [bench.start(out), bench.start(out)]
    for process in both:
        bench.finish(outcome, process)
    bench.finish(outcome, bench.start(out))
    if sorted(outcome.codes[:2]) != [5, 7]:
        raise SystemExit(f"two-drivers: neither was refused while the other was at work, exit codes {outcome.codes}")


FAULTS: dict[str, Callable[[Bench, Path, Outcome], None]] = {
    "driver-killed": driver_killed,
    "part-killed": part_killed,
    "disk-full": disk_full,
    "inputs-vanish": inputs_vanish,
    "inputs-change": inputs_change,
    "two-drivers": two_drivers,
    "ray-actor-killed": ray_actor_killed,
    "ray-driver-killed": ray_driver_killed,
}


def files(bench: Bench) -> Iterator[Path]:
    """From the last to the first: what the run comes to late."""
    return iter(sorted(bench.images.rglob("*.png"), reverse=True))


def below(process: int) -> dict[int, str]:
    """The processes that a process has started, and those that these have started."""
    parents, names = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            names[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
    found: dict[int, str] = {}
    while new := {one for one, parent in parents.items() if parent in {process, *found}} - found.keys():
        found |= {one: names.get(one, "") for one in new}
    return found


@contextmanager
def emptied(out: Path) -> Iterator[Path]:
    """A folder that is not there before and after, mounted or not."""
    shutil.rmtree(out, ignore_errors=True)
    try:
        yield out
    finally:
        if out.is_mount():
            subprocess.run(["umount", str(out)], check=True)
        shutil.rmtree(out, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--only", nargs="+", choices=list(FAULTS), default=list(FAULTS))
    options = parser.parse_args()
    bench = Bench(options.work, options.images)
    prepare(bench)
    undisturbed = bench.work / "undisturbed"
    shutil.rmtree(undisturbed, ignore_errors=True)
    bench.finish(Outcome(""), bench.start(undisturbed))
    print("| fault | exit codes | done before | lines | twice | missing | differing | half-written | seconds |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    lost = False
    for name in options.only:
        outcome, start = Outcome(name), time.monotonic()
        with emptied(bench.work / "out") as out:
            FAULTS[name](bench, out, outcome)
            compare(outcome, out, undisturbed)
        outcome.seconds = time.monotonic() - start
        lost |= outcome.lost
        one = outcome
        cells = (one.fault, ", ".join(map(str, one.codes)), one.before, one.lines, one.twice, one.missing)
        print(f"| {' | '.join(map(str, cells))} | {one.differing} | {one.unfinished} | {one.seconds:.0f} |", flush=True)
    raise SystemExit(int(lost))


if __name__ == "__main__":
    main()
