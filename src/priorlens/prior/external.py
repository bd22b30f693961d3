"""Priors that others trained: a diffusers folder, a diffusers model on the Hugging Face hub, or a MONAI network.

Read once, brought into the sigma-form by `prior/conventions.py`, and from then on a denoiser like any other:

    diffusers   a pipeline's folder (`unet/`, `scheduler/`), or `config.json`, `scheduler_config.json` and weights side
                by side: a `UNet2DModel`, any scheduler with DDPM's forward process, weights in safetensors
    MONAI       `config.json` beside `model.safetensors` or `model.pt`: {"network": arguments of `DiffusionModelUNet`,
                "scheduler": arguments of `DDPMScheduler`}, and "range": [low, high] of its images if not [-1, 1]

Both are optional: `pip install 'priorlens[priors]'`. Nothing pickled is read; a `model.pt` may hold tensors only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from priorlens.errors import ModelError, WeightsError
from priorlens.prior.conventions import Converted
from priorlens.prior.libraries import (
    Built,
    diffusers_built,
    diffusers_facts,
    diffusers_weights,
    library,
    monai_built,
    monai_facts,
    monai_weights,
    read_json,
)
from priorlens.prior.scaled import Scaled

PREDICTIONS = ("epsilon", "v_prediction", "sample")
"""What diffusers and MONAI train networks to predict."""

_WEIGHTS = "diffusion_pytorch_model*.safetensors"
_HUB_CONFIGS = ["model_index.json", "config.json", "scheduler_config.json", "unet/*.json", "scheduler/*.json"]
_HUB_VARIANTS = ["*.fp16*", "*.non_ema*"]
_HUB_SECONDS = 5.0


@dataclass(frozen=True)
class ExternalPrior:
    """A prior that was trained elsewhere.

    `denoiser` takes images in [-1, 1], without gradients on its weights; the sides of an image must be multiples of
    `multiple`, and `size` is the one it was trained at, where that is known. `facts` are plain JSON, enough for
    `empty_external` to make the same prior again without its weights.
    """

    denoiser: nn.Module
    channels: int
    size: tuple[int, ...] | None
    multiple: int
    facts: dict[str, Any]


def load_external(path: str | Path) -> ExternalPrior:
    """A prior from a local folder, or by its name on the hub ("owner/name") where there is no such folder.

    Raises:
        ModelError: a folder that is none of those above, a file that is missing or broken, weights of other shapes.
        WeightsError: the library that is needed is not installed, or the hub cannot be reached.
    """
    folder = _found(path)
    monai = (folder / "config.json").is_file() and "network" in read_json(folder / "config.json")
    facts = monai_facts(folder) if monai else diffusers_facts(folder)
    prior, built = _assembled(facts, str(path))
    try:
        built.net.load_state_dict(monai_weights(folder) if monai else diffusers_weights(folder))
    except (RuntimeError, ValueError, TypeError) as error:
        raise ModelError(f"{path}: its weights do not fit its config; take both from the same training") from error
    return prior


def empty_external(facts: Mapping[str, Any], where: str = "the external prior") -> ExternalPrior:
    """The prior that `facts` describe, its weights still to be filled in; `where` names it in errors.

    Raises:
        ModelError: arguments that the library refuses, or a network that cannot be a prior of images alone.
        WeightsError: the library is not installed.
    """
    return _assembled(facts, where)[0]


class _Adapted(nn.Module):
    """A library's network as `network(z, t)`, in the precision of its own weights.

    A network that also predicts a variance (learned, after the prediction along the channels) gives its prediction.
    """

    def __init__(self, net: nn.Module, channels: int) -> None:
        super().__init__()
        self.net = net
        self.channels = channels

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        out = self.net(z.to(next(self.net.parameters()).dtype), t)
        return getattr(out, "sample", out)[:, : self.channels]


def _assembled(facts: Mapping[str, Any], where: str) -> tuple[ExternalPrior, Built]:
    if facts["prediction"] not in PREDICTIONS:
        known = ", ".join(PREDICTIONS)
        raise ModelError(f"{where}: predicts {facts['prediction']!r}; take a prior that predicts one of {known}")
    built = _built(facts, where)
    if built.conditional or built.out_channels not in (built.channels, 2 * built.channels):
        raise ModelError(f"{where}: needs more than an image and a time; take an unconditional prior of images")
    try:
        denoiser: nn.Module = Converted.from_alphas_cumprod(
            _Adapted(built.net, built.channels),
            built.alphas_cumprod,
            prediction=facts["prediction"],
            integer_steps=built.integer_steps,
        )
    except ValueError as error:
        raise ModelError(f"{where}: its noise schedule cannot be used: {error}; mend its config") from error
    low, high = facts["range"]
    if (low, high) != (-1, 1):
        # `Scaled` wants the points that -1 and 1 of the network's own units become.
        denoiser = Scaled(denoiser, *(2 * (end - low) / (high - low) - 1 for end in (-1.0, 1.0)))
    denoiser.eval().requires_grad_(False)
    return ExternalPrior(denoiser, built.channels, built.size, 2 ** (built.levels - 1), dict(facts)), built


def _built(facts: Mapping[str, Any], where: str) -> Built:
    try:
        with torch.random.fork_rng(devices=[]):  # weights are drawn, only to be replaced
            return monai_built(facts) if facts["format"] == "monai" else diffusers_built(facts)
    except WeightsError:
        raise
    except Exception as error:  # whatever a library raises for its arguments
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(f"{where}: its config makes no {facts['class']} ({reason}); mend the config") from error


def _found(path: str | Path) -> Path:
    folder = Path(path)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise ModelError(f"{path}: is a file; give the folder that holds the network's config and weights")
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", str(path)):
        raise ModelError(f"{path}: there is no such folder; give a diffusers or MONAI folder, or a name on the hub")
    return _from_hub(str(path))


def _from_hub(name: str) -> Path:
    """The folder of a diffusers model in the hub's cache, downloaded first where it is not there yet."""
    fetch = library("huggingface_hub").snapshot_download
    files = [*_HUB_CONFIGS, _WEIGHTS, f"unet/{_WEIGHTS}"]
    try:
        cached = Path(fetch(name, local_files_only=True))
        if any(cached.rglob(_WEIGHTS)):
            return cached
    except Exception:  # not in the cache: whatever the reason, the hub may have it
        pass
    try:
        # Configs first: what cannot be used is refused before its weights are fetched.
        diffusers_facts(Path(fetch(name, allow_patterns=_HUB_CONFIGS, etag_timeout=_HUB_SECONDS)))
        return Path(fetch(name, allow_patterns=files, ignore_patterns=_HUB_VARIANTS, etag_timeout=_HUB_SECONDS))
    except ModelError:
        raise
    except Exception as error:
        raise WeightsError(
            f"{name}: there is no such folder, and the hub cannot give it (offline, or no such model); "
            "download it where there is a network and give its folder"
        ) from error
