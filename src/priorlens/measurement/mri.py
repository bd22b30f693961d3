"""Magnetic resonance of a real image: k-space of one or several coils, undersampled."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Bool, Complex, Complex64, Float
from torch import Tensor, nn

from priorlens.errors import InputError, WeightsError
from priorlens.measurement.inverses import solved
from priorlens.measurement.linear import spectral_norm
from priorlens.measurement.operator import Normalised

PATTERNS = ("cartesian", "gaussian", "equispaced")
"""Which lines are sampled beside the centre: at random, at random but denser inside, or at equal distances."""

_LEAST_CALIBRATION = 8  # a fully sampled square of fewer samples a side holds too few of ESPIRiT's 6x6 kernels
_MOST_CALIBRATION = 24
_LARGEST_GRAM = 2_000


def to_kspace(image: Complex[Tensor, "*batch height width"]) -> Complex[Tensor, "*batch height width"]:
    """Orthonormal Fourier transform with the zero frequency, and the image's origin, at index height // 2, width // 2.

    deepinv, sigpy and BART share this convention.
    """
    return torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(image, dim=(-2, -1)), norm="ortho"), dim=(-2, -1))


def to_image(kspace: Complex[Tensor, "*batch height width"]) -> Complex[Tensor, "*batch height width"]:
    """The inverse of `to_kspace`."""
    return torch.fft.fftshift(torch.fft.ifft2(torch.fft.ifftshift(kspace, dim=(-2, -1)), norm="ortho"), dim=(-2, -1))


class MultiCoil(nn.Module):
    """y = sampled F (coil maps * x) / norm for a real image x; its adjoint takes the real part.

    `coil_maps` may carry the image's phase, exp(i phase) multiplied in, so that what is unknown stays a real magnitude.
    An image larger than the maps is measured in their field of view alone, its centre; the rest is not seen. y is
    [batch, coil, sample, (real, imaginary)], of the sampled places alone, row by row of k-space.
    """

    coil_maps: Tensor
    sampled: Tensor

    def __init__(
        self,
        coil_maps: Complex[Tensor, "coil height width"],
        sampled: Bool[Tensor, "height width"],
        size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        field = (int(coil_maps.shape[1]), int(coil_maps.shape[2]))
        self.shape: tuple[int, ...] = (1, *(size or field))
        if self.shape[1] < field[0] or self.shape[2] < field[1]:
            raise ValueError(f"an image of {self.shape[1:]} pixels does not hold coil maps of {field}")
        rows, columns = ((whole // 2 - part // 2) for whole, part in zip(self.shape[1:], field, strict=True))
        self.window = (..., slice(rows, rows + field[0]), slice(columns, columns + field[1]))
        self.register_buffer("coil_maps", coil_maps)
        self.register_buffer("sampled", sampled)
        self.norm = 1.0
        self.norm = spectral_norm(self, coil_maps.real)
        if self.norm == 0:
            raise ValueError("nothing is sampled, or the coils see nothing")

    def A(self, x: Float[Tensor, "batch channel *space"]) -> Float[Tensor, "batch *measurement"]:
        coils = to_kspace(self.coil_maps * x[self.window])  # the image's one channel broadcasts over the coils
        return torch.view_as_real(coils[..., self.sampled] / self.norm).to(x.dtype)

    def A_adjoint(self, y: Float[Tensor, "batch *measurement"]) -> Float[Tensor, "batch channel *space"]:
        x = y.new_zeros(len(y), *self.shape)
        x[self.window] = self.combined(y).real.to(y.dtype)
        return x

    def combined(self, y: Float[Tensor, "batch *measurement"]) -> Complex[Tensor, "batch 1 height width"]:
        """What the adjoint is the real part of, in the field of view."""
        samples = torch.view_as_complex(y.contiguous())
        kspace = samples.new_zeros(*samples.shape[:2], *self.sampled.shape)
        kspace[..., self.sampled] = samples
        return (self.coil_maps.conj() * to_image(kspace)).sum(1, keepdim=True) / self.norm


class SingleCoil(MultiCoil):
    """One coil that sees every place of a real image alike: pull in closed form, by two Fourier transforms.

    With F the Fourier transform, A_adjoint A = F^-1 (m(k) + m(-k)) / 2 F on real images, m the sampled places.
    """

    def __init__(self, sampled: Bool[Tensor, "height width"]) -> None:
        super().__init__(torch.ones(1, *sampled.shape, dtype=torch.complex64), sampled)
        origin = torch.fft.ifftshift(sampled.float())
        mirrored = origin.flip((0, 1)).roll((1, 1), (0, 1))
        self.spectrum: Tensor
        self.register_buffer("spectrum", (origin + mirrored) / 2 / self.norm**2)

    def pull(
        self, residual: Float[Tensor, "batch *measurement"], ridge: float
    ) -> Float[Tensor, "batch channel *space"]:
        seen = self.spectrum > 0
        weight = torch.where(seen, 1 / (self.spectrum + ridge).where(seen, 1), 0)
        return torch.fft.ifft2(weight * torch.fft.fft2(self.A_adjoint(residual))).real


def magnetic_resonance(
    coil_maps: Complex[Tensor, "coil height width"],
    sampled: Bool[Tensor, "height width"],
    size: tuple[int, int] | None = None,
) -> Normalised:
    """The operator for these coils: in closed form where it is one coil of constant 1, else factored or iterative.

    Several coils make a well-conditioned problem, and their A is quick: a factor pays for small images alone.
    """
    field = tuple(coil_maps.shape[1:])
    if len(coil_maps) == 1 and size in (None, field) and bool((coil_maps == 1).all()):
        return SingleCoil(sampled)
    return solved(MultiCoil(coil_maps, sampled, size), coil_maps.real, _LARGEST_GRAM)


def sampling(
    size: tuple[int, int], acceleration: int, centre: float, pattern: str, seed: int
) -> Bool[Tensor, "height width"]:
    """Whole lines of k-space: the `centre` fraction, and others by `pattern`, one in `acceleration` of all.

    Raises:
        InputError: the centre alone has more lines than the acceleration leaves.
    """
    from deepinv.physics.generator import EquispacedMaskGenerator, GaussianMaskGenerator, RandomMaskGenerator

    kinds = dict(zip(PATTERNS, (RandomMaskGenerator, GaussianMaskGenerator, EquispacedMaskGenerator), strict=True))
    if acceleration == 1:
        return torch.ones(size, dtype=torch.bool)
    lines, middle = size[1] // acceleration, int(centre * size[1])
    if lines <= middle or middle == 0:
        raise InputError(
            f"mri: acceleration={acceleration} samples {lines} of {size[1]} lines and {middle} of them in the "
            f"centre with centre={centre:g}; there have to be some there and some outside"
        )
    generator = kinds[pattern](size, acceleration, centre, rng=torch.Generator().manual_seed(seed))
    return generator.step(batch_size=1)["mask"][0, 0] > 0


def simulated_coils(count: int, size: tuple[int, int]) -> Complex64[Tensor, "coil height width"]:
    """Coils around the image: Gaussian lobes with a linear phase each, of sum of squares 1 everywhere."""
    if count == 1:
        return torch.ones(1, *size, dtype=torch.complex64)
    axes = [torch.linspace(-1, 1, side, dtype=torch.float64) for side in size]
    rows, columns = torch.meshgrid(*axes, indexing="ij")
    angle = 2 * math.pi * torch.arange(count, dtype=torch.float64)[:, None, None] / count
    distance = (rows - torch.sin(angle)) ** 2 + (columns - torch.cos(angle)) ** 2
    phase = angle + (rows * torch.cos(angle) - columns * torch.sin(angle))
    lobes = torch.polar(torch.exp(-distance / 2), phase)
    return (lobes / lobes.abs().square().sum(0).sqrt()).to(torch.complex64)


def calibration_width(sampled: Bool[Tensor, "height width"]) -> int:
    """Side of the largest fully sampled square in the centre of k-space, at most 24."""
    height, width = sampled.shape
    for side in range(min(_MOST_CALIBRATION, height, width), 0, -1):
        top, left = height // 2 - side // 2, width // 2 - side // 2
        if sampled[top : top + side, left : left + side].all():
            return side
    return 0


def estimate_coils(
    kspace: Complex64[Tensor, "coil height width"], sampled: Bool[Tensor, "height width"], name: str
) -> Complex64[Tensor, "coil height width"]:
    """Coil maps by sigpy's ESPIRiT from the fully sampled centre, of sum of squares 1. `name` stands in the errors.

    They are kept where the data hardly support them, outside the body, so that the empty background is measured too.
    Source: Uecker et al. 2014, "ESPIRiT, an eigenvalue approach to autocalibrating parallel MRI".

    Raises:
        WeightsError: sigpy is not installed.
        InputError: the fully sampled centre is too small.
    """
    width = calibration_width(sampled)
    if width < _LEAST_CALIBRATION:
        raise InputError(
            f"{name}: the fully sampled centre of k-space is {width} samples wide, too few of at least "
            f"{_LEAST_CALIBRATION} to estimate coil maps; add 'coil_maps' to the file"
        )
    try:
        from sigpy.mri.app import EspiritCalib
    except ImportError as error:
        raise WeightsError(
            f"{name}: estimating coil maps needs sigpy, which is not installed; pip install 'priorlens[mri]' or add "
            "'coil_maps' to the file"
        ) from error
    maps = EspiritCalib(kspace.numpy(), calib_width=width, crop=0, show_pbar=False).run()
    return torch.from_numpy(np.nan_to_num(np.asarray(maps, dtype=np.complex64)))


def smooth_phase(
    kspace: Complex64[Tensor, "coil height width"], coil_maps: Complex64[Tensor, "coil height width"], width: int
) -> Complex64[Tensor, "height width"]:
    """exp(i phase) of the coils' combined image at low resolution: k-space's centre, `width` samples, in a Hann window.

    Source: the phase constraint of partial Fourier imaging (Noll, Nishimura & Macovski 1991, "Homodyne detection").
    """
    windows = []
    for side in kspace.shape[1:]:
        offset = torch.arange(side) - side // 2
        inside = offset.abs() <= width / 2
        windows.append(torch.where(inside, torch.cos(math.pi * offset / (width + 2)) ** 2, torch.zeros(())))
    low = (coil_maps.conj() * to_image(kspace * windows[0][:, None] * windows[1])).sum(0)
    return torch.where(low.abs() > 0, low / low.abs().clamp(min=1e-30), torch.ones((), dtype=low.dtype))
