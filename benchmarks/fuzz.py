"""Untrusted input: every reader on damaged files, in a process with limits of time and memory.

    python benchmarks/fuzz.py --cases 20000 [--reader NAME ...] [--seed 0] [--out FOLDER]
    python benchmarks/fuzz.py --again FOLDER/image-17

Seeds, mutations and what each reader promises are those of the tests (tests/fuzz); real files beside the checkout are
seeds as well. Of the cases every reader gets its share; each reader begins with its seeds as they are, and with files
made to do harm. Prints Markdown. A finding is anything but a result that keeps the reader's word or one line of the
package's own error; with --out each is kept as a folder, which --again gives to its reader once more.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent / "tests"
os.environ["OMP_NUM_THREADS"] = "1"
sys.path[:0] = [str(TESTS), str(TESTS / "fuzz"), str(TESTS.parent / "src")]

from contracts import BOUNDS, READERS  # noqa: E402
from fuzzing import Fuzzer, Tally, cases_of, kept, seeds_of  # noqa: E402

SHARES = {
    **{"image": 0.25, "mask": 0.05, "nifti": 0.15, "arrays": 0.13, "dicom": 0.15, "measurement": 0.07},
    **{"checkpoint": 0.06, "model": 0.04, "external": 0.02, "manifest": 0.03, "table": 0.02, "results": 0.03},
}


def fuzzed(reader: str, count: int, seed: int, scratch: Path, out: Path | None, only: int | None) -> Tally:
    """A reader's share of the cases."""
    tally = Tally()
    seeds = seeds_of(reader, scratch, every=True, real=True)
    with Fuzzer(scratch / reader) as fuzzer:
        for case in cases_of(reader, seeds, count, seed, full=True, only=only) if seeds else ():
            outcome = fuzzer.run(case)
            tally.add(case, outcome)
            if outcome.what == "broken":
                words = " ... ".join(line for line in outcome.words.splitlines() if line.strip())
                print(f"{reader} {case.number} ({case.name}): {words[:100]} ... {words[-300:]}", file=sys.stderr)
                if out:
                    kept(case, outcome, out)
    return tally


def again(folder: Path) -> None:
    """One finding, once more."""
    about = json.loads(folder.with_name(f"{folder.name}.json").read_text())
    with tempfile.TemporaryDirectory() as scratch, Fuzzer(Path(scratch)) as fuzzer:
        outcome = fuzzer.read(about["reader"], folder.resolve(), about["target"])
    print(f"{outcome.what} after {outcome.seconds * 1000:.0f} ms, {outcome.bytes / 2**20:.0f} MB\n{outcome.words}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=20_000, help="of all readers together")
    parser.add_argument("--reader", action="append", choices=READERS, help="only this one; may be given several times")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="the case of this number alone")
    parser.add_argument("--out", type=Path, help="where findings are kept")
    parser.add_argument("--again", type=Path, help="a finding that was kept, once more")
    options = parser.parse_args()
    if options.again:
        again(options.again)
        return
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
    readers = options.reader or list(READERS)
    whole = sum(SHARES[reader] for reader in readers)
    print("| reader | cases | accepted | refused | slowest, ms | peak, MB | bound, MB | findings | minutes |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    total = 0
    with tempfile.TemporaryDirectory() as scratch:
        for reader in readers:
            count, start = round(options.cases * SHARES[reader] / whole), time.perf_counter()
            tally = fuzzed(reader, count, options.seed, Path(scratch), options.out, options.only)
            total += len(tally.findings)
            row = (reader, tally.cases, tally.accepted, tally.refused, f"{tally.slowest * 1000:.0f}")
            row += (f"{tally.bytes / 2**20:.0f}", BOUNDS[reader] // 2**20, len(tally.findings))
            row += (f"{(time.perf_counter() - start) / 60:.1f}",)
            print("| " + " | ".join(map(str, row)) + " |", flush=True)
    if total:
        sys.exit(1)


if __name__ == "__main__":
    main()
