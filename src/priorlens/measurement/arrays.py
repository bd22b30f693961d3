"""The arrays of a measurement's file, by name: .npz, HDF5, or a pair of BART files."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from priorlens.datasets import MEASUREMENT_SUFFIXES
from priorlens.errors import InputError
from priorlens.measurement.cfl import read_cfl
from priorlens.volumes.arrays import npy_header

Arrays = Mapping[str, Shaped[np.ndarray, "..."]]

_MOST = 2**30
"""Bytes of all arrays of a file together, as they are claimed."""


def read_arrays(path: Path) -> Arrays:
    """Every array of the file, `y` among them; that of a BART pair is y, as [coil, x, y].

    Raises:
        InputError: missing, damaged, pickled, without `y`, or with what is no finite number.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; check the path")
    match path.suffix.lower():
        case ".cfl" | ".hdr":
            contents: dict[str, Any] = {"y": _planar(path, read_cfl(path))}
        case ".npz":
            contents = _npz(path)
        case ".h5" | ".hdf5":
            contents = _hdf5(path)
        case _:
            raise InputError(f"{path}: is not one of {' '.join(MEASUREMENT_SUFFIXES)}; save it as one of these")
    if "y" not in contents:
        raise InputError(f"{path}: holds no 'y'; save the measurement under that name")
    for name, array in contents.items():
        if array.dtype.kind not in "buifcSU":
            raise InputError(f"{path}: {name!r} holds {array.dtype} values; save plain numbers")
        if array.dtype.kind in "fc" and not np.isfinite(array).all():
            raise InputError(f"{path}: {name!r} has nan or infinite numbers; replace them or leave the file out")
    if contents["y"].dtype.kind not in "uifc" or contents["y"].size == 0:
        raise InputError(f"{path}: 'y' holds no numbers; save the measurement under that name")
    return contents


def _npz(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            total = 0
            for name in archive.zip.namelist():
                with archive.zip.open(name) as member:
                    shape, _, kind = npy_header(member)
                total += math.prod(shape) * kind.itemsize
            _require_bounded(path, total)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of headers that Python 2 wrote
                return {name: archive[name] for name in archive.files}
    except InputError:
        raise
    except Exception as error:  # a damaged archive fails in every way there is
        if "allow_pickle" in str(error) or "pickle" in str(error).lower():
            raise InputError(
                f"{path}: holds pickled Python objects, which are never loaded; save plain numbers"
            ) from error
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{path}: is not a readable .npz ({reason}); save it again") from error


def _hdf5(path: Path) -> dict[str, Any]:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            # Links may lead to any file there is.
            own = [name for name in file if not isinstance(file.get(name, getlink=True), h5py.ExternalLink)]
            arrays = {name: item for name in own if isinstance(item := file[name], h5py.Dataset)}
            if any(item.external or item.is_virtual for item in arrays.values()):
                raise InputError(f"{path}: keeps its numbers in other files; save them in this one")
            _require_bounded(path, sum(item.nbytes for item in arrays.values()))
            found = {name: item[()] for name, item in arrays.items()}
            found |= {name: value for name, value in file.attrs.items() if name not in found}
            return {
                name: np.asarray(value.decode() if isinstance(value, bytes) else value) for name, value in found.items()
            }
    except InputError:
        raise
    except Exception as error:  # a damaged file fails in every way there is
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{path}: is not a readable HDF5 file ({reason}); save it again") from error


def _require_bounded(path: Path, total: int) -> None:
    if total > _MOST:
        raise InputError(f"{path}: claims {total} bytes of numbers, more than {_MOST}; save one measurement a file")


def _planar(path: Path, array: np.ndarray) -> np.ndarray:
    """BART's [x, y, z, coil, 1, ...], one of the first three of length 1, as [coil, first, second]."""
    dims = (*array.shape, 1, 1, 1, 1)
    sides = [side for side in dims[:3] if side > 1]
    if len(sides) != 2 or any(side > 1 for side in dims[4:]):
        raise InputError(f"{path}: has dimensions {array.shape}, not one slice of k-space; take one with 'bart slice'")
    return array.reshape(*sides, dims[3], order="F").transpose(2, 0, 1)


def number(path: Path, contents: Arrays, name: str) -> float | None:
    """The one number that `name` holds, at least 0; None where the file has none of that name."""
    if name not in contents:
        return None
    value = contents[name]
    if value.size != 1 or value.dtype.kind not in "uif" or not float(value.reshape(-1)[0]) >= 0:
        raise InputError(f"{path}: {name!r} is not one number of at least 0; correct it in the file")
    return float(value.reshape(-1)[0])
