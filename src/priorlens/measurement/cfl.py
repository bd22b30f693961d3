"""Arrays of the BART toolbox: a pair of files, `.hdr` with the dimensions and `.cfl` with complex numbers."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from jaxtyping import Complex64

from priorlens.errors import InputError

_MOST_DIMENSIONS = 16


def read_cfl(path: Path) -> Complex64[np.ndarray, "*dims"]:
    """Read the array of either file of the pair, in BART's order: x, y, z, coil, maps, and so on.

    The header's second line holds the dimensions; the numbers are complex64, little-endian, first dimension fastest.

    Raises:
        InputError: a file of the pair is missing or cannot be read, or they do not belong together.
    """
    header, numbers = path.with_suffix(".hdr"), path.with_suffix(".cfl")
    for file in (header, numbers):
        if not file.is_file():
            raise InputError(f"{path}: needs {file.name} beside it; BART writes .cfl and .hdr as a pair")
    try:
        lines = [line for line in header.read_text(encoding="ascii").splitlines() if not line.startswith("#")]
        dims = tuple(int(word) for word in lines[0].split())
    except (OSError, UnicodeDecodeError, ValueError, IndexError) as error:
        raise InputError(f"{header}: has no line of dimensions; write the array with BART again") from error
    if not 0 < len(dims) <= _MOST_DIMENSIONS or min(dims) < 1:
        raise InputError(f"{header}: has dimensions {dims}, which cannot be; write the array with BART again")
    expected = 8 * math.prod(dims)
    if numbers.stat().st_size != expected:
        raise InputError(
            f"{numbers}: has {numbers.stat().st_size} bytes where {header.name} says {expected}; copy both files again"
        )
    try:
        return np.fromfile(numbers, dtype="<c8").astype(np.complex64, copy=False).reshape(dims, order="F")
    except OSError as error:
        raise InputError(f"{numbers}: cannot be read ({error.strerror}); check its permissions") from error
