"""Damaged files through every reader, in a process of its own: what was refused, accepted or broken."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from bombs import bombs
from contracts import SECONDS
from mutations import MARKER, mutated, pick
from seed_files import Seed

_HERE = Path(__file__).parent
_HIDDEN = ("DeprecationWarning", "PendingDeprecationWarning", "ImportWarning", "ResourceWarning")
"""What Python does not show its users; all other warnings are shown each time."""

_START = 120
"""Seconds in which the first case of a process has to be done beside its own: PyTorch is loaded meanwhile."""


@dataclass(frozen=True)
class Case:
    """One damaged seed. Equal seed and number, equal files."""

    reader: str
    number: int
    name: str
    files: Mapping[str, bytes | Path]
    target: str


@dataclass(frozen=True)
class Outcome:
    """what: accepted, refused, or broken, which is a finding. words: the line, or what went wrong."""

    what: str
    words: str
    seconds: float = 0.0
    bytes: int = 0


@dataclass
class Tally:
    """Of one reader."""

    accepted: int = 0
    refused: int = 0
    slowest: float = 0.0
    bytes: int = 0
    findings: list[tuple[Case, Outcome]] = field(default_factory=list)

    @property
    def cases(self) -> int:
        return self.accepted + self.refused + len(self.findings)

    def add(self, case: Case, outcome: Outcome) -> None:
        self.accepted += outcome.what == "accepted"
        self.refused += outcome.what == "refused"
        if outcome.what == "broken":
            self.findings.append((case, outcome))
        self.slowest, self.bytes = max(self.slowest, outcome.seconds), max(self.bytes, outcome.bytes)


def seeds_of(reader: str, folder: Path, *, every: bool, real: bool) -> list[Seed]:
    """What a reader's mutations start from. every: with models that take seconds to make; real: with real files."""
    import seed_files
    import seed_scans_and_models as further

    place = folder / "seeds" / reader
    place.mkdir(parents=True, exist_ok=True)
    match reader:
        case "model":
            return further.model_seeds(place, every=every)
        case "external":
            return further.external_seeds(place)
        case "dicom" | "checkpoint" | "results":
            found = getattr(further, f"{reader}_seeds")()
        case "arrays":
            found = seed_files.array_seeds()
        case _:
            found = getattr(seed_files, f"{reader}_seeds")()
    return found + ([one for one in seed_files.real_seeds() if one.reader == reader] if real else [])


def cases_of(
    reader: str, seeds: Sequence[Seed], count: int, seed: int, *, full: bool, only: int | None = None
) -> Iterator[Case]:
    """First every seed as it is, then the bombs, then mutations, `count` in all. only: the one of that number."""
    fixed = [*seeds, *bombs(reader, full=full, seeds=list(seeds))]
    for number in range(count) if only is None else (only,):
        if number < len(fixed):
            one = fixed[number]
            yield Case(reader, number, one.name, one.files, one.target)
            continue
        rng = np.random.default_rng([seed, zlib.crc32(reader.encode()), number])
        yield _mutant(reader, number, pick(rng, seeds), seeds, rng)


def _mutant(reader: str, number: int, one: Seed, seeds: Sequence[Seed], rng: np.random.Generator) -> Case:
    """Of one file of a seed, at times of all, and in the same way."""
    files = dict(one.files)
    chosen = list(one.damaged) if rng.random() < 0.3 else [str(pick(rng, one.damaged))]
    donors = [_content(pick(rng, list(pick(rng, seeds).files.values())))] if rng.random() < 0.1 else []
    state = int(rng.integers(2**32))
    for name in chosen:
        files[name] = mutated(name, _content(one.files[name]), np.random.default_rng(state), donors)
    return Case(reader, number, one.name, files, one.target)


def _content(content: bytes | Path) -> bytes:
    return content if isinstance(content, bytes) else content.read_bytes()


def written(case: Case, folder: Path) -> Path:
    """The files of a case in a folder of their own; those that are not damaged may be links."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in case.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            os.link(content, path)
    return folder


class Fuzzer:
    """One worker process, replaced when a case has ended it; to be used in a `with` block."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Fuzzer:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def run(self, case: Case) -> Outcome:
        folder = written(case, self.folder / "case")
        outcome = self.read(case.reader, folder, case.target)
        marker = self.folder / MARKER
        if marker.exists():
            marker.unlink()
            return replace(outcome, what="broken", words=f"was run as code; {outcome.words}")
        return outcome

    def read(self, reader: str, folder: Path, target: str) -> Outcome:
        """What comes of files that are there."""
        limit = float(SECONDS + 10)
        if self._child is None:
            self._child, limit = self._started(), limit + _START
        request = json.dumps({"reader": reader, "folder": str(folder), "target": target}).encode() + b"\n"
        start = time.perf_counter()
        self._child.stdin.write(request)
        self._child.stdin.flush()
        ready, _, _ = select.select([self._child.stdout], [], [], limit)
        line = self._child.stdout.readline() if ready else b""
        if line:
            return Outcome(**json.loads(line))
        code, seconds = self._end(), time.perf_counter() - start
        printed = (self.folder / "printed").read_bytes()[-2_000:].decode(errors="replace")
        return Outcome("broken", f"the process ended ({code}) after {seconds:.1f} s: {printed}", seconds)

    def _started(self) -> subprocess.Popen[bytes]:
        source = _HERE.parents[1] / "src"
        paths = [str(_HERE), str(_HERE.parent), str(source)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        warnings = ["-W", "always", *(part for one in _HIDDEN for part in ("-W", f"ignore::{one}"))]
        command = [sys.executable, *warnings, "-X", "faulthandler", str(_HERE / "fuzz_worker.py")]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=self.folder, env=environment)

    def _end(self) -> int | None:
        """The exit status; negative, the signal that ended it."""
        if self._child is None:
            return None
        self._child.stdin.close()
        try:
            code = self._child.wait(5)
        except subprocess.TimeoutExpired:
            self._child.kill()
            code = self._child.wait()
        self._child.stdout.close()
        self._child = None
        return code


def kept(case: Case, outcome: Outcome, out: Path) -> Path:
    """A finding in a folder of its own, with all that is needed to meet it again."""
    folder = written(case, out / f"{case.reader}-{case.number}")
    about = {"reader": case.reader, "number": case.number, "seed": case.name, "target": case.target}
    (out / f"{folder.name}.json").write_text(json.dumps({**about, "words": outcome.words}, indent=2))
    return folder
