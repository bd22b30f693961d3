"""Real measurements: a file of y and of what measured it becomes y and an operator, in the model's units."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from priorlens.errors import InputError
from priorlens.measurement.arrays import Arrays, number, read_arrays
from priorlens.measurement.ct import detectors, parallel_beam
from priorlens.measurement.inverses import Dense
from priorlens.measurement.kspace import read_kspace
from priorlens.measurement.operator import Normalised
from priorlens.measurement.physics import PhysicsSpec, build, inpainting, parse

BRIGHT = 99.5
"""The percentile of a first reconstruction that becomes 1, the model's bright end."""

LARGEST = 4096
"""Pixels along a side of the largest image that is reconstructed."""

_FIRST_RIDGE = 0.01


@dataclass(frozen=True)
class Measurement:
    """What was measured, in the model's units: y = A x + noise with x about [0, 1] and A of norm 1.

    `noise` is the standard deviation of y's noise. `note` says how it came to be: the physics, the scale that y was
    divided by (so that x times the scale is in the file's units), where noise and coil maps are from.
    """

    y: Float32[Tensor, "1 *measurement"]
    operator: Normalised
    noise: float
    path: Path
    note: dict[str, Any]


@dataclass(frozen=True)
class _Raw:
    """y divided by the operator's norm alone, with what the file or the data say of its noise."""

    y: Float32[Tensor, "1 *measurement"]
    operator: Normalised
    noise: float | None
    note: dict[str, Any]


def read_measurement(path: Path, physics: PhysicsSpec | None, shape: tuple[int, int] | None) -> Measurement:
    """Read y and build its operator for images of `shape` (height, width), by default the measurement's own.

    A file names its physics as text (`physics`), or it is told by what is there: `matrix`; complex k-space `y`;
    `angles` or `views` of a CT; `mask` of pixels. `noise` (in y's units) and `scale` are taken from the file; else
    noise is estimated from y, and the scale is the 99.5th percentile of a first reconstruction. An estimate of
    k-space's noise is at least what that reconstruction leaves unexplained (`misfit` in the note): errors of the coil
    maps and the phase count as noise.

    Raises:
        InputError: a file that cannot be read, misses something, holds numbers that are not finite, or does not fit.
        WeightsError: coil maps have to be estimated and sigpy is not installed.
    """
    contents = read_arrays(path)
    try:
        raw = _raw(path, contents, physics, shape)
    except InputError as error:
        if str(path) in str(error):
            raise
        raise InputError(f"{path}: {error}") from error  # of a physics, which knows no file
    except ValueError as error:
        raise InputError(f"{path}: {' '.join(str(error).split())}; check what the file says of its physics") from error
    if not torch.isfinite(raw.y).all() or not math.isfinite(raw.noise or 0):
        raise InputError(f"{path}: has numbers that single precision cannot hold; save y in other units")
    unit = float(raw.y.abs().max()) or 1.0  # scanners' units may be 1e-12 or 1e12, whose squares are no float32
    with torch.no_grad():
        first = raw.operator.pull(raw.y / unit, _FIRST_RIDGE)
        misfit = unit * float((raw.y / unit - raw.operator.A(first)).square().mean().sqrt())
    given = number(path, contents, "scale")
    scale = given or unit * float(np.percentile(first.numpy(), BRIGHT))
    if not scale > 0:
        raise InputError(f"{path}: reconstructs to nothing, y holds no signal; leave it out")
    stated = number(path, contents, "noise")
    if stated is None and raw.noise is None:
        raise InputError(f"{path}: does not say how noisy y is; add 'noise', its standard deviation, to the file")
    least = misfit if raw.note["physics"] == "mri" else 0.0
    noise = stated / raw.operator.norm if stated is not None else max(float(raw.noise or 0), least)
    note = {
        **raw.note,
        "scale": scale,
        "scale_from": "file" if given else "percentile",
        "noise_from": "file" if stated is not None else "estimated",
        "misfit": misfit / scale,
    }
    return Measurement(raw.y / scale, raw.operator, noise / scale, path, note)


def _raw(path: Path, contents: Arrays, physics: PhysicsSpec | None, shape: tuple[int, int] | None) -> _Raw:
    if physics is None and "physics" in contents:
        physics = _named(path, str(contents["physics"]))
    if "matrix" in contents:
        return _by_matrix(path, contents, shape)
    y = contents["y"]
    name = physics.name if physics else _guessed(path, contents)
    if name != "mri" and y.dtype.kind == "c":
        raise InputError(f"{path}: 'y' is complex, as k-space is, and the physics is {name}; use mri")
    if name == "mri":
        kspace = read_kspace(path, contents, shape)
        return _Raw(kspace.y, kspace.operator, kspace.noise, kspace.note)
    if name == "ct":
        return _by_angles(path, contents, physics, shape)
    if name == "inpaint":
        return _by_mask(path, contents, physics, shape)
    assert physics is not None  # every other name was given
    return _by_name(path, contents, physics, shape)


def _named(path: Path, text: str) -> PhysicsSpec:
    """What the file itself calls its physics; one that would be read from another file is refused."""
    physics = parse(text)
    if "mask" in physics.options:
        raise InputError(f"{path}: its physics names another file; add 'mask' to it, or give --physics")
    return physics


def _guessed(path: Path, contents: Arrays) -> str:
    if contents["y"].dtype.kind == "c":
        return "mri"
    if "angles" in contents or "views" in contents:
        return "ct"
    if "mask" in contents:
        return "inpaint"
    raise InputError(
        f"{path}: does not say what measured y; add 'physics' (such as 'blur:sigma=2'), 'angles', 'mask' or 'matrix', "
        "or give --physics"
    )


def _by_matrix(path: Path, contents: Arrays, shape: tuple[int, int] | None) -> _Raw:
    matrix, y = contents["matrix"], contents["y"]
    if "c" in (matrix.dtype.kind, y.dtype.kind):
        raise InputError(
            f"{path}: 'matrix' and 'y' are to be real; save real and imaginary parts as numbers of their own"
        )
    if matrix.ndim != 2 or matrix.shape[0] != y.size:
        raise InputError(
            f"{path}: 'matrix' of shape {matrix.shape} does not give the {y.size} numbers of 'y'; check both"
        )
    if shape is None:
        side = math.isqrt(matrix.shape[1])
        shape = (side, side)
    if math.prod(shape) != matrix.shape[1]:
        raise InputError(
            f"{path}: 'matrix' is for images of {matrix.shape[1]} pixels, the model's have {shape[1]}x{shape[0]}; "
            "choose a model of that size"
        )
    operator = Dense(_tensor(matrix), (1, *shape))
    return _Raw(_tensor(y).reshape(1, -1) / operator.norm, operator, None, {"physics": "matrix"})


def _by_angles(path: Path, contents: Arrays, physics: PhysicsSpec | None, shape: tuple[int, int] | None) -> _Raw:
    y = contents["y"]
    angles = _angles(path, contents, physics)
    if y.ndim != 2 or len(angles) not in y.shape:
        raise InputError(f"{path}: 'y' of shape {y.shape} has no {len(angles)} views; check the angles or --physics")
    sinogram = _tensor(y if y.shape[1] == len(angles) else y.T)
    count = len(sinogram)
    own = int(count / math.sqrt(2))  # the side of the square whose diagonal the detector covers
    side = shape[0] if shape else next((s for s in (own, own + 1) if detectors(s) == count), own)
    if shape and shape[0] != shape[1]:
        raise InputError(
            f"{path}: a CT is of square images, the model's are {shape[1]}x{shape[0]}; choose another model"
        )
    if count not in (side, detectors(side)):
        raise InputError(
            f"{path}: has {count} detector elements; an image of {side}x{side} pixels needs {detectors(side)} (its "
            f"diagonal) or {side} (the inscribed circle), each as wide as a pixel; rebin it or choose another model"
        )
    _require_side(path, side)
    operator = parallel_beam(side, angles, circle=count == side)
    return _Raw(
        sinogram[None] / operator.norm, operator, _noise_of(sinogram.T / operator.norm), _described("ct", angles)
    )


def _angles(path: Path, contents: Arrays, physics: PhysicsSpec | None) -> Float[Tensor, " view"]:
    """In degrees: as stored, or evenly over the arc."""
    if "angles" in contents:
        angles = _tensor(contents["angles"]).flatten()
        if physics and physics.options["views"] != len(angles):
            raise InputError(f"{path}: has {len(angles)} angles, not the views of {physics}; leave --physics out")
        return angles
    stated = number(path, contents, "views")
    views = stated if stated is not None else physics.options["views"] if physics else 0
    if views not in contents["y"].shape:
        raise InputError(f"{path}: 'y' of shape {contents['y'].shape} has no {views:g} views; add 'angles' in degrees")
    views = int(views)
    arc = float(physics.options["arc"]) if physics else 180.0
    return torch.arange(views, dtype=torch.float32) * (arc / views)


def _by_mask(path: Path, contents: Arrays, physics: PhysicsSpec | None, shape: tuple[int, int] | None) -> _Raw:
    y = contents["y"]
    if "mask" not in contents:
        if physics is None or "keep" in physics.options:
            raise InputError(f"{path}: does not say which pixels are there; add 'mask' to the file")
        operator = build(physics, (1, *_size(path, y, shape)))
    else:
        if contents["mask"].shape != y.shape:
            raise InputError(
                f"{path}: 'mask' of shape {contents['mask'].shape} is not that of 'y', {y.shape}; check both"
            )
        operator = inpainting(torch.from_numpy(contents["mask"] != 0), (1, *_size(path, y, shape)))
    return _Raw(operator.A(_tensor(y)[None, None]), operator, None, {"physics": "inpaint"})


def _by_name(path: Path, contents: Arrays, physics: PhysicsSpec, shape: tuple[int, int] | None) -> _Raw:
    """Physics whose y is an image itself, or a sinogram, and that need nothing more."""
    y = contents["y"]
    factor = int(physics.options.get("factor", 1))
    if physics.name == "ct-fan":
        if shape is None:
            raise InputError(f"{path}: a fan's field of view is told by the model's size alone; score it with a model")
        operator = build(physics, (1, *shape))
    else:
        operator = build(physics, (1, *_size(path, y, shape, factor)))
    expected = operator.A(torch.zeros(1, *operator.shape)).shape[1:]
    if math.prod(expected) != y.size or y.shape != expected[-y.ndim :]:
        raise InputError(f"{path}: 'y' has shape {y.shape}, {physics} gives {tuple(expected)}; check --physics")
    noise = float(physics.noise) if physics.noise is not None else _noise_of(_tensor(y)) / operator.norm
    return _Raw(_tensor(y).reshape(1, *expected) / operator.norm, operator, noise, {"physics": str(physics)})


def _size(path: Path, y: np.ndarray, shape: tuple[int, int] | None, factor: int = 1) -> tuple[int, int]:
    """Height and width of the image of which y is one, `factor` times smaller."""
    if y.ndim != 2:
        raise InputError(f"{path}: 'y' of shape {y.shape} is not an image of height and width; save one image a file")
    size = (y.shape[0] * factor, y.shape[1] * factor)
    _require_side(path, max(size))
    if shape is not None and shape != size:
        raise InputError(
            f"{path}: 'y' is of an image of {size[1]}x{size[0]} pixels, the model's are {shape[1]}x{shape[0]}; "
            "choose a model of that size"
        )
    return size


def _require_side(path: Path, side: int) -> None:
    if side > LARGEST:
        raise InputError(f"{path}: is of an image of {side} pixels a side, more than {LARGEST}; crop or rebin it")


def _noise_of(lines: Float[Tensor, "line sample"]) -> float:
    """Standard deviation from second differences along lines, by their median: structure is rarer than noise."""
    if lines.shape[1] < 3:
        return float(lines.std()) if lines.numel() > 1 else 0.0
    second = lines[:, :-2] - 2 * lines[:, 1:-1] + lines[:, 2:]
    return float(second.abs().median()) / 0.6745 / math.sqrt(6)


def _described(name: str, angles: Tensor) -> dict[str, Any]:
    return {"physics": name, "views": len(angles), "first_angle": float(angles[0]), "last_angle": float(angles[-1])}


def _tensor(array: np.ndarray) -> Float32[Tensor, "..."]:
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused as such
        return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
