"""The arithmetic that networks compute in: bfloat16 where the processor has instructions for it, else float32."""

from __future__ import annotations

import functools
import os
import platform

import torch

from priorlens.errors import InputError

VARIABLE = "PRIORLENS_PRECISION"
"""Of the environment: "bfloat16" or "float32" for all networks, whatever the processor."""

_NAMES = {"bfloat16": True, "float32": False}


def half_width(device: torch.device, wanted: bool | None = None) -> torch.autocast:
    """Inside of it convolutions and products compute in bfloat16 if `wanted`; None: if that is the faster one here.

    Raises:
        InputError: the environment asks for an arithmetic that there is none of.
    """
    chosen = computes_bfloat16(device.type) if wanted is None else wanted
    return torch.autocast(device.type, torch.bfloat16, enabled=chosen)


def computes_bfloat16(kind: str) -> bool:
    """Whether devices of this kind ("cpu", "cuda") compute in bfloat16 unless told otherwise. Raises InputError."""
    asked = os.environ.get(VARIABLE)
    if asked and asked not in _NAMES:
        raise InputError(f"{VARIABLE}={asked}: is no arithmetic; set it to {' or '.join(_NAMES)}, or unset it")
    return _NAMES[asked] if asked else _has_instructions(kind)


@functools.cache
def _has_instructions(kind: str) -> bool:
    """Where a CPU has none, PyTorch falls back to loops: measured on AVX2, 6 to 65 times slower than float32."""
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind != "cpu":
        return True
    if platform.machine().lower() in ("x86_64", "amd64"):
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # of ARM
