"""SimpleITK in a process of its own: some damaged files end the process that reads them, others it only prints of."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
from jaxtyping import Float32, Float64

TIMEOUT = 300.0
"""Seconds after which a file counts as unreadable."""

_FORMATS = {".mha": "MetaImageIO", ".mhd": "MetaImageIO", ".nrrd": "NrrdImageIO", ".nhdr": "NrrdImageIO"}
"""By suffix: left to itself, SimpleITK goes by content, and would read every format it knows."""


@dataclass(frozen=True)
class ItkImage:
    """Voxels and where they lie in ITK's coordinates, x to the left, y to the back; `kind` is the type in the file."""

    voxels: Float32[np.ndarray, "i j k"]
    affine: Float64[np.ndarray, "4 4"]
    kind: np.dtype


def decode(path: Path, require: Callable[[tuple[int, ...], int], None]) -> ItkImage:
    """Read one file. `require` is told its shape and numbers a voxel before memory is taken, and may raise.

    Raises RuntimeError where it cannot be read, and where SimpleITK has anything to say of it.
    """
    # -P: the folder of this file holds modules whose names others may have too.
    command = [sys.executable, "-P", __file__, os.path.abspath(path)]
    with tempfile.TemporaryFile() as printed:
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=printed)
        timer = threading.Timer(TIMEOUT, child.kill)
        timer.start()
        try:
            found = _received(child, require)
            child.communicate()
        except (OSError, ValueError) as error:  # a pipe that broke, an answer that was cut off
            raise RuntimeError("the decoder stopped, the file is damaged") from error
        finally:
            timer.cancel()
            child.kill()
            child.communicate()
        printed.seek(0)
        if said := printed.read(500).decode(errors="replace"):
            raise RuntimeError(said)
    return found


def _received(child: subprocess.Popen[bytes], require: Callable[[tuple[int, ...], int], None]) -> ItkImage:
    assert child.stdin and child.stdout
    claimed = _answer(child.stdout)
    shape = tuple(claimed["shape"])
    require(shape, claimed["components"])
    child.stdin.write(b"read\n")
    child.stdin.flush()
    told = _answer(child.stdout)
    kind = np.dtype(told["kind"])
    voxels = np.empty(shape, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # what float32 cannot hold becomes infinite, and is refused
        for k in range(shape[2]):
            content = child.stdout.read(shape[0] * shape[1] * kind.itemsize)
            voxels[:, :, k] = np.frombuffer(content, kind).reshape(shape[1], shape[0]).T
    affine = np.eye(4)
    affine[:3, :3] = np.array(told["direction"]).reshape(3, 3) * np.array(told["spacing"])
    affine[:3, 3] = told["origin"]
    return ItkImage(voxels, affine, kind)


def _answer(answers: IO[bytes]) -> dict[str, Any]:
    answer = json.loads(answers.readline())
    if "error" in answer:
        raise RuntimeError(answer["error"])
    return dict(answer)


def _serve(path: str, requests: BinaryIO, answers: BinaryIO) -> None:
    """Says what a file claims; once asked, reads it and writes its voxels, i fastest."""
    import SimpleITK

    def say(**facts: object) -> None:
        answers.write(json.dumps(facts).encode() + b"\n")
        answers.flush()

    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO(_FORMATS[Path(path).suffix.lower()])
    reader.SetFileName(path)
    try:
        reader.ReadImageInformation()
        say(shape=reader.GetSize(), components=reader.GetNumberOfComponents())
        if not requests.readline():
            return
        image = reader.Execute()
        stored = SimpleITK.GetArrayViewFromImage(image)
        place = {"direction": image.GetDirection(), "spacing": image.GetSpacing(), "origin": image.GetOrigin()}
        say(kind=stored.dtype.str, **place)
        for plane in stored:
            answers.write(plane.tobytes())
    except Exception as error:
        say(error=str(error))


if __name__ == "__main__":
    own = os.dup(1)
    os.dup2(2, 1)  # what is printed must not get between the answers
    with open(own, "wb") as stdout:
        _serve(sys.argv[1], sys.stdin.buffer, stdout)
