"""What a run leaves behind: one JSON file, its predictions, and where they lie under the output folder."""

from __future__ import annotations

import csv
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.study import Study
from priorlens.datasets import visible_files
from priorlens.evaluation import Outcome
from priorlens.outputs import atomic_write, write_json, write_rows

SCHEMA = 1

ROOT = Path(__file__).resolve().parents[1]
"""Of the checkout: holds `benchmarks` and `src`."""

MAPS = "maps.npz"
"""Of a run's predictions."""

COLUMNS = ("name", "kind", "group", "anomaly")
"""Of `scores.csv`."""

MEASURED_WITH = ("torch", "torchvision", "timm", "numpy", "scipy", "scikit-learn", "deepinv", "anomalib")
"""Packages whose version makes results stale; those that an environment lacks are left out."""


@dataclass(frozen=True)
class Options:
    """What a user may change about a run that changes its figures.

    train_images: healthy images learned from at most, 0 for all. test_images: judged of a kind at most, 0 for all.
    size, steps: as in `Task`. peer_minutes: of a processor that the training of a peer may take.
    """

    train_images: int = 500
    test_images: int = 0
    size: int = 192
    steps: float = 1.0
    quick: bool = False
    peer_minutes: float = 8.0


QUICK = Options(train_images=48, test_images=6, size=32, steps=0.02, quick=True)
"""To see that all of it works; the figures mean nothing."""


Name = tuple[str, str, int]
"""Study, method and seed of a run."""


@dataclass(frozen=True)
class Place:
    """Where the files of one run lie."""

    out: Path
    study: str
    method: str
    seed: int

    @property
    def name(self) -> Name:
        return self.study, self.method, self.seed

    @property
    def result(self) -> Path:
        return self.out / "results" / self.study / f"{self.method}-{self.seed}.json"

    @property
    def cut(self) -> Path:
        """How long the run was given by a budget that did not suffice; there until the run is done."""
        return self.result.with_suffix(".cut.json")

    @property
    def predictions(self) -> Path:
        return self.out / "predictions" / self.study / f"{self.method}-{self.seed}"

    @property
    def has_maps(self) -> bool:
        """Whether the maps of all images are there, not only those that `keeping` leaves."""
        return (self.predictions / MAPS).is_file()

    @property
    def models(self) -> Path:
        """One folder a fold, `0`, `1`, ..., each beside a JSON of how it was fitted."""
        return self.out / "models" / self.study / str(self.seed) / self.method

    def model(self, fold: int) -> Path:
        return self.models / str(fold)

    def fitted(self, fold: int) -> Path:
        """How the model of a fold came about; it is there only if the model is complete."""
        return self.models / f"{fold}.json"


def place_of(out: Path, result: Mapping[str, Any]) -> Place:
    """Where the run lies that has this result."""
    return Place(out, result["study"], result["method"], result["seed"])


def read_result(path: Path) -> dict[str, Any] | None:
    """A run's JSON; None where there is none, or one of another schema or cut short."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("schema") == SCHEMA else None


def read_results(out: Path) -> list[dict[str, Any]]:
    """Of all runs, by study, method and seed."""
    found = [read_result(path) for path in (out / "results").glob("*/*.json")]
    return sorted((one for one in found if one), key=lambda one: (one["study"], one["method"], one["seed"]))


def write_result(place: Place, result: Mapping[str, Any]) -> None:
    """Whole or not at all. Raises OutputError."""
    place.result.parent.mkdir(parents=True, exist_ok=True)
    write_json(place.result, dict(result))


def empty_result(place: Place, key: Mapping[str, Any], planted: bool) -> dict[str, Any]:
    """Of a run that has not been: every field of the schema, with nothing in it."""
    return {
        "schema": SCHEMA,
        "method": place.method,
        "study": place.study,
        "seed": place.seed,
        "key": dict(key),
        "machine": None,
        "failed": None,
        "remark": "",
        "planted": planted,
        "fit": None,
        "score": None,
        "memory": None,
        "model_bytes": None,
        "figures": {},
        "figures_code": None,
        "matched_height": None,
        "within_folds": None,
        "started": None,
        "seconds": None,
    }


def write_predictions(folder: Path, outcomes: Sequence[Outcome], stored: Mapping[str, Path] | None = None) -> None:
    """`scores.csv` and `maps.npz`, the maps under the images' names; the scores come last: then all is there.

    stored: files of maps, as `numpy.save` writes them, by the names of their images: of outcomes that have none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scores.csv").unlink(missing_ok=True)
    with atomic_write(folder / MAPS) as file, zipfile.ZipFile(file, "w") as archive:
        for one in outcomes:
            if one.anomaly_map is not None:
                with archive.open(f"{one.name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, one.anomaly_map)
        for name, path in (stored or {}).items():
            with open(path, "rb") as one_map, archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                shutil.copyfileobj(one_map, member)
    rows = [(one.name, one.kind, one.group, repr(one.anomaly)) for one in outcomes]
    write_rows(folder / "scores.csv", COLUMNS, rows)


def read_scores(folder: Path) -> list[dict[str, str]]:
    """The lines of `scores.csv`."""
    with open(folder / "scores.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def versions() -> dict[str, str]:
    """Of Python and of the packages that this process would measure with."""
    found = {"python": platform.python_version()}
    for package in ("priorlens", *MEASURED_WITH):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    if "priorlens" not in found:  # used from a checkout
        import priorlens

        found["priorlens"] = priorlens.__version__
    return found


def machine(threads: int) -> dict[str, Any]:
    """What the figures of time depend on, as far as it can be told."""
    return {
        "cpu": _cpu(),
        "cores": usable_cores(),
        "threads": threads,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "gpu": None,
        "python": platform.python_version(),
        "load": [round(os.getloadavg()[0], 2)],
        "commit": _commit(),
    }


def usable_cores() -> int:
    """Those that this process may use, where the system tells; else all."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def _commit() -> str | None:
    """Of the checkout, marked where files have changed since; None without git."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        found = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
        return found.stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None


def cpu_told(text: str) -> str:
    """Of /proc/cpuinfo: what the first processor is called, its family and model, and whether it has bfloat16.

    Rented machines of one name can be of several families, one of which is twice as fast as another.
    """
    pairs = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    facts = {key.strip(): value.strip() for key, _, value in pairs}
    parts = [facts.get("model name") or platform.processor() or platform.machine()]
    parts += [f"{key.removeprefix('cpu ')} {facts[key]}" for key in ("cpu family", "model") if key in facts]
    if flags := (facts.get("flags") or facts.get("Features", "")).split():  # as x86 and ARM call them
        found = any(flag in ("avx512_bf16", "amx_bf16", "bf16") for flag in flags)
        parts.append(f"{'with' if found else 'without'} bfloat16")
    return ", ".join(parts)


def _cpu() -> str:
    try:
        return cpu_told(Path("/proc/cpuinfo").read_text())
    except OSError:
        return cpu_told("")


def study_fingerprint(study: Study) -> str:
    """Of the names and contents of all files of all folds, and of what the study says of them."""
    digest = hashlib.sha256(repr((study.intensity, study.group, study.height, len(study.folds))).encode())
    for fold in study.folds:
        digest.update("\n".join(fold.left_out).encode("utf-8", "surrogateescape"))
        for path in sorted(visible_files(fold.folder)):
            digest.update(path.relative_to(fold.folder).as_posix().encode("utf-8", "surrogateescape"))
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def key_of(options: Options, used: Mapping[str, str], fingerprint: str, code: Sequence[str]) -> dict[str, Any]:
    """All that makes a run stale once it changes.

    code: fingerprints of what all methods have in common, of the method and of what it needs.
    """
    return {"options": asdict(options), "versions": dict(used), "study": fingerprint, "code": list(code)}


State = Literal["missing", "stale", "failed", "unmeasured", "done"]
"""unmeasured: all is there, but the figures are by other code than there is now."""


def state_of(place: Place, key: Mapping[str, Any], figures: str) -> State:
    """What there is of a run: a failure counts as such only if nothing has changed since.

    figures: the fingerprint of the code that makes them; without maps none can be made anew.
    """
    found = read_result(place.result)
    if found is None:
        return "missing"
    if found["key"] != key:
        return "stale"
    if found["failed"] is not None:
        return "failed"
    if not (place.predictions / "scores.csv").is_file():
        return "missing"
    if found.get("figures_code") == figures:
        return "done"
    return "unmeasured" if place.has_maps else "stale"
