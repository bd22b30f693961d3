"""Which measurement, by name: "ct:views=24" becomes an operator for images of one size, and y is simulated with it."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from priorlens.errors import InputError
from priorlens.images import read_image
from priorlens.measurement.ct import fan_beam, parallel_beam, tomography
from priorlens.measurement.inverses import Decomposed, solved
from priorlens.measurement.linear import Matrix, Physical
from priorlens.measurement.mri import PATTERNS, MultiCoil, magnetic_resonance, sampling, simulated_coils
from priorlens.measurement.operator import Normalised, Operator

Value = float | int | str


class _Option(NamedTuple):
    """What an option may be: the default tells its type; numbers lie between `least` and `most`, both allowed."""

    default: Value
    least: float = -math.inf
    most: float = math.inf
    words: tuple[str, ...] = ()


_TINY = 1e-6
OPTIONS: dict[str, dict[str, _Option]] = {
    "identity": {},
    "noise": {"sigma": _Option(0.1, _TINY, 1e6)},
    "ct": {"views": _Option(24, 1, 3600), "arc": _Option(180.0, 1, 360)},
    "ct-fan": {"views": _Option(48, 1, 3600)},
    "mri": {
        "acceleration": _Option(4, 1, 64),
        "coils": _Option(1, 1, 64),
        "centre": _Option(0.08, _TINY, 1),
        "pattern": _Option(PATTERNS[0], words=PATTERNS),
    },
    "blur": {"sigma": _Option(2.0, 0.1, 100)},
    "inpaint": {"keep": _Option(0.5, _TINY, 1), "mask": _Option(""), "box": _Option(0.3, _TINY, 1)},
    "super": {"factor": _Option(4, 2, 64)},
}
"""Every physics by name, with its options."""


@dataclass(frozen=True)
class PhysicsSpec:
    """A measurement by name, its options completed by the defaults; `text` is the same for the same measurement."""

    name: str
    options: dict[str, Value]
    text: str

    def __str__(self) -> str:
        return self.text

    @property
    def noise(self) -> float | None:
        """The noise that belongs to the measurement, of `noise:sigma=...` alone; else the user says."""
        return float(self.options["sigma"]) if self.name == "noise" else None


def parse(text: str) -> PhysicsSpec:
    """Read "name" or "name:option=value,option=value".

    Raises:
        InputError: an unknown name or option, or a value that cannot be; the line says what is known.
    """
    name, _, rest = text.strip().partition(":")
    if name not in OPTIONS:
        raise InputError(f"physics {text!r}: {name!r} is not known; known are {', '.join(OPTIONS)}")
    known = OPTIONS[name]
    given: dict[str, Value] = {}
    for part in re.split(r",(?=[^,=]*=)", rest) if rest else []:  # a mask's path may have a comma in it
        key, equals, value = part.partition("=")
        if not equals or key not in known:
            takes = ", ".join(f"{key}={option.default}" for key, option in known.items()) or "no options"
            raise InputError(f"physics {text!r}: {part!r} is not an option of {name}; it takes {takes}")
        if key in given:
            raise InputError(f"physics {text!r}: {key} is given twice; give it once")
        given[key] = _value(text, key, value, known[key])
    if name == "inpaint":
        if len(given) > 1:
            raise InputError(f"physics {text!r}: give one of keep, mask and box")
        options = given or {"keep": known["keep"].default}
    else:
        options = {key: given.get(key, option.default) for key, option in known.items()}
    shown = ",".join(
        f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}" for key, value in options.items()
    )
    return PhysicsSpec(name, options, f"{name}:{shown}" if shown else name)


def _value(text: str, key: str, value: str, option: _Option) -> Value:
    if isinstance(option.default, str):
        if value and value in (option.words or (value,)):
            return value
        raise InputError(f"physics {text!r}: {key} is one of {', '.join(option.words) or 'the files there are'}")
    try:
        number = type(option.default)(value)
    except ValueError:
        number = math.nan
    if not option.least <= number <= option.most:
        kind = "whole number" if isinstance(option.default, int) else "number"
        raise InputError(f"physics {text!r}: {key} is a {kind} from {option.least:g} to {option.most:g}, not {value!r}")
    return number


def build(spec: PhysicsSpec, shape: tuple[int, ...], seed: int = 0) -> Normalised:
    """The operator for images of this shape (channel, height, width); `seed` draws what is random in it.

    Raises:
        InputError: the measurement does not fit images of this shape.
    """
    if len(shape) != 3:
        raise InputError(f"physics {spec}: measures images of height and width, not of shape {shape[1:]}")
    try:
        return _BUILDERS[spec.name](spec, shape, seed)
    except ValueError as error:
        raise InputError(f"physics {spec}: {' '.join(str(error).split())}") from error


def simulate(
    operator: Operator, x: Float[Tensor, "batch channel *space"], noise: float, seed: int
) -> Float[Tensor, "batch *measurement"]:
    """A x with white noise of standard deviation `noise`, in y's units.

    Each image's noise depends on the image and the seed alone, not on the images beside it.
    """
    y = operator.A(x)
    if not noise:
        return y
    draws = []
    for image in x.cpu().numpy():
        generator = torch.Generator().manual_seed(seed + zlib.crc32(image.tobytes()))
        draws.append(torch.randn(y.shape[1:], generator=generator, dtype=y.dtype))
    return y + noise * torch.stack(draws).to(y.device)


def operator(physics: nn.Module, shape: tuple[int, ...]) -> Normalised:
    """The operator of a `deepinv.physics.LinearPhysics`, by the quickest way there is to solve it.

    Where deepinv's magnetic resonance has a complex image and `shape` one channel, the image is real: its imaginary
    part is zero.

    Raises:
        InputError: a physics that is not linear, or whose measurement is not one tensor.
    """
    from deepinv.physics import MRI, DecomposablePhysics, Inpainting, LinearPhysics, MultiCoilMRI, Tomography

    known: nn.Module | object = physics
    if not isinstance(known, LinearPhysics):
        raise InputError(f"physics {type(physics).__name__}: is not linear; only linear measurements can be used")
    if isinstance(known, Tomography) and shape[0] == 1:
        return tomography(physics)
    if isinstance(known, MRI | MultiCoilMRI) and shape[0] == 1 and len(shape) == 3:
        sampled = known.mask[0, 0] > 0
        maps = (
            known.coil_maps[0] if isinstance(known, MultiCoilMRI) else torch.ones(1, *shape[1:], dtype=torch.complex64)
        )
        return magnetic_resonance(maps, sampled)
    if isinstance(known, Inpainting | MRI):
        return Decomposed(physics, shape, (known.mask[0] != 0).expand(shape))
    if isinstance(known, DecomposablePhysics):
        return Decomposed(physics, shape)
    if not isinstance(known.A(torch.zeros(1, *shape)), Tensor):
        raise InputError(f"physics {type(physics).__name__}: measures several tensors; use one physics at a time")
    return solved(Physical(physics, shape), torch.empty(0))


def as_measured(operator: Any, y: Float[Tensor, "batch *numbers"]) -> Float[Tensor, "batch *measurement"]:
    """What a `deepinv.physics.LinearPhysics` measured, as its `operator` measures it: divided by the norm, and of a
    sampled or masked physics the numbers alone that were measured."""
    linear = getattr(operator, "linear", operator)
    if isinstance(linear, MultiCoil):  # deepinv: real and imaginary part, then coils, if there are several
        y = (y[:, :, None] if y.ndim == 4 else y)[..., linear.sampled].moveaxis(1, -1)
    elif isinstance(linear, Matrix):
        y = y.reshape(len(y), *linear.measured)
    elif getattr(linear, "kept", None) is not None:
        y = y[:, linear.kept]
    return y / operator.norm


def _identity(spec: PhysicsSpec, shape: tuple[int, ...], seed: int) -> Normalised:
    from deepinv.physics import DecomposablePhysics

    return Decomposed(DecomposablePhysics(), shape)


def _ct(spec: PhysicsSpec, shape: tuple[int, ...], seed: int) -> Normalised:
    side = _square(shape)
    return parallel_beam(side, _angles(spec, float(spec.options["arc"])))


def _ct_fan(spec: PhysicsSpec, shape: tuple[int, ...], seed: int) -> Normalised:
    return fan_beam(_square(shape), _angles(spec, 360.0))


def _angles(spec: PhysicsSpec, arc: float) -> Float[Tensor, " view"]:
    views = int(spec.options["views"])
    return torch.arange(views, dtype=torch.float32) * (arc / views)


def _square(shape: tuple[int, ...]) -> int:
    _grey(shape)
    if shape[1] != shape[2]:
        raise ValueError(f"measures square images, not {shape[2]}x{shape[1]} pixels; choose a model of square images")
    return shape[1]


def _grey(shape: tuple[int, ...]) -> None:
    if shape[0] != 1:
        raise ValueError(f"measures images of one channel, not {shape[0]}; choose a model of grey images")


def _mri(spec: PhysicsSpec, shape: tuple[int, ...], seed: int) -> Normalised:
    _grey(shape)
    size, options = (shape[1], shape[2]), spec.options
    sampled = sampling(size, int(options["acceleration"]), float(options["centre"]), str(options["pattern"]), seed)
    return magnetic_resonance(simulated_coils(int(options["coils"]), size), sampled)


def _blur(spec: PhysicsSpec, shape: tuple[int, ...], seed: int) -> Normalised:
    from deepinv.physics import BlurFFT

    sigma = float(spec.options["sigma"])
    reach = math.ceil(4 * sigma)
    if 2 * reach + 1 > min(shape[1:]):
        raise ValueError(f"reaches over {2 * reach + 1} pixels, more than the image's {min(shape[1:])}; lower sigma")
    offset = torch.arange(-reach, reach + 1, dtype=torch.float32)
    line = torch.exp(-((offset / sigma) ** 2) / 2)
    kernel = line[:, None] * line / line.sum() ** 2
    return Decomposed(BlurFFT(shape, kernel[None, None].expand(1, shape[0], -1, -1).contiguous()), shape)


def _inpaint(spec: PhysicsSpec, shape: tuple[int, ...], seed: int) -> Normalised:
    height, width = shape[1:]
    kept = torch.ones(height, width, dtype=torch.bool)
    if "mask" in spec.options:
        kept = _mask(Path(str(spec.options["mask"])), (height, width))
    elif "box" in spec.options:
        sides = [max(1, round(float(spec.options["box"]) * side)) for side in (height, width)]
        top, left = ((whole - part) // 2 for whole, part in zip((height, width), sides, strict=True))
        kept[top : top + sides[0], left : left + sides[1]] = False
    else:
        drawn = torch.randperm(height * width, generator=torch.Generator().manual_seed(seed))
        kept = (drawn < round(float(spec.options["keep"]) * height * width)).reshape(height, width)
    if not kept.any():
        raise ValueError("keeps no pixel at all; keep some")
    return inpainting(kept, shape)


def inpainting(kept: Bool[Tensor, "height width"], shape: tuple[int, ...]) -> Normalised:
    """The pixels where `kept` is True, in every channel; y holds those alone, in one row."""
    from deepinv.physics import Inpainting

    return operator(Inpainting(shape, kept.float().expand(shape).contiguous()), shape)


def _mask(path: Path, size: tuple[int, int]) -> Bool[Tensor, "height width"]:
    """The bright pixels are measured."""
    pixels = torch.from_numpy(read_image(path).pixels).amax(0)
    if tuple(pixels.shape) != size:
        raise InputError(
            f"{path}: is {pixels.shape[1]}x{pixels.shape[0]} pixels, images here {size[1]}x{size[0]}; resize it"
        )
    return pixels > pixels.max() / 2


def _super(spec: PhysicsSpec, shape: tuple[int, ...], seed: int) -> Normalised:
    """Block averages times the factor: rows of length 1 that do not overlap, so that A A_adjoint = I."""
    from deepinv.physics import DecomposablePhysics

    factor = int(spec.options["factor"])
    if any(side % factor for side in shape[1:]):
        raise ValueError(f"the factor does not divide images of {shape[2]}x{shape[1]} pixels; choose one that does")
    averages = DecomposablePhysics(
        V_adjoint=lambda x: F.avg_pool2d(x, factor) * factor,
        V=lambda y: y.repeat_interleave(factor, -2).repeat_interleave(factor, -1) / factor,
        mask=1 / factor,
    )
    return Decomposed(averages, shape)


_BUILDERS: dict[str, Callable[[PhysicsSpec, tuple[int, ...], int], Normalised]] = {
    "identity": _identity,
    "noise": _identity,
    "ct": _ct,
    "ct-fan": _ct_fan,
    "mri": _mri,
    "blur": _blur,
    "inpaint": _inpaint,
    "super": _super,
}
