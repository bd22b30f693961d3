"""`torchrun ... -m priorlens fit`: two processes are one command, and their model is that of a single process."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import SMALL, Command, Draw
from safetensors.torch import load_file

import priorlens
from priorlens import checkpoint

SOURCE = Path(priorlens.__file__).parents[1]

TOLERANCE = 2e-3
"""How far a network's weights may differ, relative to their norm: in bfloat16 each process rounds its gradient to three
digits. Measured after three steps, 2e-5; after twenty, 8e-5."""

LOSS = 2e-3

SCRIPT = """
import sys
from priorlens import held_out, preparation
held_out.PLANTED, preparation.SMALLEST = 1, 64
from priorlens.__main__ import main
main()
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command, as small as the other tests' fits are."""
    path = tmp_path_factory.mktemp("script") / "small_priorlens.py"
    path.write_text(SCRIPT)
    return path


def torchrun(script: Path, *arguments: object, logs: Path) -> subprocess.CompletedProcess[str]:
    """Two processes; what the second one says is in `logs` too."""
    environment = os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    launcher += ["--log_dir", str(logs), "--tee", "3"]
    command = [*launcher, str(script), *map(str, arguments)]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    if re.search(r"socket|Address family|getaddrinfo", ran.stderr) and "priorlens: " not in ran.stderr:
        pytest.skip("torchrun cannot open a socket here")
    return ran


def said(logs: Path, rank: int) -> str:
    """What a process has said, on stdout and stderr."""
    paths = [path for path in logs.rglob("*.log") if path.parent.name == str(rank)]
    assert len(paths) == 2, list(logs.rglob("*"))
    return "".join(path.read_text() for path in paths)


def steps(folder: Path) -> dict[tuple[str, str], float]:
    with open(folder / "training.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({(row["stage"], row["step"]) for row in rows}) == len(rows), "each step once"
    return {(row["stage"], row["step"]): float(row["loss"] or "nan") for row in rows}


def plan(folder: Path) -> Any:
    """What `config.json` says of what was asked for and of what it was learned from."""
    config = json.loads((folder / "config.json").read_text())
    learned = ("made", "share", "healthy", "healthy_scales")
    return {name: value for name, value in config.items() if name not in learned}


def distances(model: Path, other: Path) -> dict[str, float]:
    """Of each network, and of each other part, relative to its norm; not of the weights that artefacts have taught:
    those drawn here are so easy to tell that nothing bounds the odds."""
    alone, together = (load_file(folder / checkpoint.TENSORS) for folder in (model, other))
    assert alone.keys() == together.keys()
    squares: dict[str, list[float]] = {}
    for name, value in alone.items():
        of = squares.setdefault(".".join(name.split(".")[:2]), [0.0, 0.0])
        of[0] += float((value.double() - together[name].double()).square().sum())
        of[1] += float(value.double().square().sum())
    return {name: (gap / norm) ** 0.5 if norm else gap for name, (gap, norm) in squares.items() if "combin" not in name}


def test_two_processes_make_the_model_of_one(tmp_path: Path, script: Path, healthy: Path, model: Path) -> None:
    both, logs = tmp_path / "model", tmp_path / "logs"
    ran = torchrun(script, "fit", healthy, "--out", both, *SMALL, "--accumulate", 2, logs=logs)
    assert ran.returncode == 0, ran.stderr
    assert said(logs, 1) == ""
    assert said(logs, 0).count("learned from 12 healthy images") == 1
    assert sorted(path.name for path in both.rglob("*")) == sorted(path.name for path in model.rglob("*"))
    assert plan(both) == plan(model)

    gaps = distances(model, both)
    assert {name.partition(".")[2] for name in gaps} >= {"denoiser", "variance", "whitening"}
    for name, gap in gaps.items():
        assert gap <= (TOLERANCE if name.endswith(("denoiser", "variance")) else 0), name
    one, two = steps(model), steps(both)
    assert one.keys() == two.keys()
    assert all(two[key] == pytest.approx(loss, rel=LOSS, abs=LOSS, nan_ok=True) for key, loss in one.items())


def test_an_error_is_told_once_and_ends_all_with_its_code(tmp_path: Path, script: Path, draw: Draw) -> None:
    for i in range(3):
        draw(tmp_path / f"few/{i}.png", seed=i)
    logs = tmp_path / "logs"
    ran = torchrun(script, "fit", tmp_path / "few", "--out", tmp_path / "model", *SMALL, logs=logs)
    told = [line for line in said(logs, 0).splitlines() if line.startswith("priorlens: ")]
    assert len(told) == 1 and "at least 8 are needed" in told[0]
    assert said(logs, 1) == ""
    assert re.search(r"exitcode\s*: 3\b", ran.stderr), ran.stderr
    assert not (tmp_path / "model").exists() or not list((tmp_path / "model").iterdir())


def test_one_process_loads_nothing_of_several(run: Command, healthy: Path, tmp_path: Path) -> None:
    code = "import sys, priorlens.__main__; print('torch' in sys.modules, 'priorlens.prior.processes' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == ["False", "False"]


def test_a_batch_of_another_size_is_another_run(tmp_path: Path, fit: Command, healthy: Path, model: Path) -> None:
    out = tmp_path / "model"
    ran = fit(healthy, "--out", out, "--batch", 5)
    assert ran.code == 0, ran
    assert json.loads((out / "config.json").read_text())["run"]["batch"] == 5
    assert steps(out) != steps(model)
    fit(healthy, "--out", out, "--resume").refused(5, out, "other batch")
    ran = fit(healthy, "--out", out, "--resume", "--batch", 5, "--accumulate", 2)
    assert ran.code == 0 and "finished already" in ran.stdout, "the number of pieces is no other run"
