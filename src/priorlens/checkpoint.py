"""A model as a folder: `model.safetensors` and `config.json`. Nothing pickled is ever read."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from priorlens.errors import ModelError
from priorlens.outputs import atomic_write, prepare_folder, write_json

SCHEMA = 1
TENSORS, CONFIG = "model.safetensors", "config.json"
UNFINISHED = "training"
"""Folder inside a model's folder that holds a training run until it is finished."""


def write_checkpoint(folder: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Write both files, `config.json` last: a folder that has one is whole. Raises OutputError.

    An earlier model in the folder goes only when the new one's tensors are safely on disk.
    """
    prepare_folder(folder, overwrite=True)
    stored = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with atomic_write(folder / TENSORS) as file:
        file.write(save(stored))
        file.flush()
        (folder / CONFIG).unlink(missing_ok=True)
    write_json(folder / CONFIG, {"schema": SCHEMA, **config})


def read_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read both files.

    Raises:
        ModelError: no such folder, an unfinished, truncated or foreign model, or one of a newer schema.
    """
    config = read_config(folder)
    path = folder / TENSORS
    try:
        with safe_open(path, framework="pt") as file:
            # Copied into memory of torch's own alignment: read in place, the same weights may sum in another order.
            return {name: file.get_tensor(name).clone() for name in file.keys()}, config  # noqa: SIM118
    except FileNotFoundError as error:
        raise ModelError(f"{path}: is missing; copy the whole model folder, or fit again") from error
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: is truncated or not a safetensors file; copy it again, or fit again") from error


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json` of a finished model of this schema. Raises ModelError."""
    path = folder / CONFIG
    if not path.is_file():
        if (folder / UNFINISHED).is_dir():
            raise ModelError(f"{folder}: its training is unfinished; run the same fit again with --resume")
        raise ModelError(f"{folder}: is not a model folder ({CONFIG} is missing); make one with priorlens fit")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        schema = config["schema"]
        config["method"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(f"{path}: is not a priorlens model's configuration; make one with priorlens fit") from error
    if not isinstance(schema, int) or schema > SCHEMA:
        raise ModelError(f"{path}: has schema {schema}, this version reads up to {SCHEMA}; upgrade priorlens")
    return dict(config)


def versions() -> dict[str, str]:
    """What a model was made with."""
    found = {"python": platform.python_version()}
    for package in ("priorlens", "torch", "timm", "deepinv", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix` and a dot, by what follows."""
    return {name.removeprefix(f"{prefix}."): value for name, value in tensors.items() if name.startswith(f"{prefix}.")}
