"""The Python that a method runs in: that of priorlens, or one with packages that priorlens itself does not want."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.results import ROOT, versions
from priorlens.errors import PriorlensError

REQUIREMENTS = ROOT / "benchmarks" / "requirements-anomalib.txt"
CONSTRAINTS = ROOT / "constraints.txt"


class EnvironmentMissing(PriorlensError):
    """An environment could not be made."""


@dataclass
class Environments:
    """Pythons by the name of their environment; "anomalib" is made when it is first asked for, unless it is given."""

    out: Path
    anomalib: Path | None = None
    _ready: Path | None = None
    _versions: dict[Path, dict[str, str]] = field(default_factory=dict)

    def python(self, environment: str) -> Path:
        """Raises EnvironmentMissing."""
        if environment == "own":
            return Path(sys.executable)
        if not self._ready:  # once: several runs ask
            self._ready = self.anomalib.absolute() if self.anomalib else self._made()  # its links are what makes it one
        return self._ready

    def versions(self, environment: str) -> dict[str, str]:
        """What a worker there measures with. Raises EnvironmentMissing."""
        if environment == "own":
            return versions()
        python = self.python(environment)
        if python not in self._versions:
            command = [str(python), "-m", "benchmarks.worker", "--versions"]
            try:
                told = subprocess.run(
                    command, cwd=ROOT, env=variables(), check=True, capture_output=True, text=True, timeout=300
                )
                self._versions[python] = json.loads(told.stdout)
            except (OSError, subprocess.SubprocessError, ValueError) as error:
                reason = (getattr(error, "stderr", "") or str(error)).strip().splitlines()[-1:]
                raise EnvironmentMissing(f"{python}: does not start a worker ({' '.join(reason)})") from error
        return self._versions[python]

    def _made(self) -> Path:
        folder = self.out / "environments" / "anomalib"
        python = folder / "bin" / "python"
        done = folder / "complete"
        asked = REQUIREMENTS.read_bytes() + CONSTRAINTS.read_bytes()
        if done.is_file() and done.read_bytes() == asked:
            return python
        print("making the environment for anomalib: some minutes", file=sys.stderr, flush=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        try:
            venv.create(folder, with_pip=True, clear=True)
            wanted = ["-c", str(CONSTRAINTS), "-r", str(REQUIREMENTS), "-e", str(ROOT)]
            subprocess.run([*install, *wanted], check=True, stdout=sys.stderr)
            done.write_bytes(asked)
        except (OSError, subprocess.SubprocessError) as error:
            raise EnvironmentMissing(f"the environment for anomalib could not be made ({error})") from error
        return python


def variables(threads: int | None = None, scratch: Path | None = None) -> dict[str, str]:
    """Of a worker's environment: this checkout's own code, so many threads, no GPU, temporary files in `scratch`."""
    path = [str(ROOT / "src"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    limits = {} if threads is None else dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    places = {} if scratch is None else {"TMPDIR": str(scratch)}
    return {**os.environ, **limits, **places, "PYTHONPATH": os.pathsep.join(path), "CUDA_VISIBLE_DEVICES": ""}
