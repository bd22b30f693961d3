"""Networks of diffusers and MONAI: what their folders say, the network that it makes, and its weights.

Each library has three functions: `*_facts` reads the configs of a folder as plain JSON, `*_built` makes of it a network
without weights, and `*_weights` reads those. The libraries are imported only here, and only when they are needed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from priorlens.errors import ModelError, WeightsError

LARGEST, DEEPEST = 2**16, 64
"""Numbers in a config at most, and those of layers; more are damage, or meant to harm."""

MOST_WEIGHTS = 2**30
"""Of a network, 4 GiB of them."""

_DEPTHS = ("layers_per_block", "num_res_blocks", "transformer_num_layers", "mid_block_layers")


@dataclass(frozen=True)
class Built:
    """What a library makes of a config: a network without its weights, and what is asked of it here."""

    net: nn.Module
    channels: int
    out_channels: int
    levels: int
    size: tuple[int, ...] | None
    conditional: bool
    alphas_cumprod: Tensor
    integer_steps: bool = False


def library(name: str) -> Any:
    """An optional library. Raises WeightsError where it is not installed."""
    try:
        return import_module(name)
    except ImportError as error:
        raise WeightsError(f"{name}: is needed for this prior; pip install 'priorlens[priors]'") from error


def read_json(path: Path) -> dict[str, Any]:
    """A config file. Raises ModelError."""
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{path}: is missing; copy the prior's whole folder") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read as JSON; copy it again") from error
    if not isinstance(read, dict):
        raise ModelError(f"{path}: is not a configuration; copy it again")
    return read


def _diffusers_network(folder: Path) -> Path:
    """The folder of the network itself: a pipeline has it in `unet/`."""
    return folder / "unet" if (folder / "unet").is_dir() else folder


def diffusers_facts(folder: Path) -> dict[str, Any]:
    """Both configs; diffusers' remarks about files and versions, which begin with an underscore, stay behind."""
    network, index = _diffusers_network(folder), folder / "model_index.json"
    if not index.is_file() and not (network / "config.json").is_file():
        raise ModelError(
            f"{folder}: is no prior's folder; give one of diffusers (unet/, scheduler/) or MONAI (config.json)"
        )
    parts = {name for name in read_json(index) if not name.startswith("_")} if index.is_file() else set()
    if parts - {"unet", "scheduler"}:
        raise ModelError(f"{folder}: is a pipeline of {', '.join(sorted(parts))}; take one of unet and scheduler alone")
    config = read_json(network / "config.json")
    schedule = read_json((folder / "scheduler" if network != folder else folder) / "scheduler_config.json")
    if config.get("_class_name") != "UNet2DModel":
        raise ModelError(f"{network}: is a {config.get('_class_name')}; of diffusers' networks take a UNet2DModel")
    return {
        "format": "diffusers",
        "class": "UNet2DModel",
        "network": {name: value for name, value in config.items() if not name.startswith("_")},
        "scheduler_class": schedule.get("_class_name", "DDPMScheduler"),
        "scheduler": {name: value for name, value in schedule.items() if not name.startswith("_")},
        "prediction": schedule.get("prediction_type", "epsilon"),
        "range": [0, 1] if config.get("center_input_sample") else [-1, 1],
    }


def _bounded(facts: Mapping[str, Any], make: Callable[[], Any]) -> Any:
    """The network that `make` makes of the config. Raises ValueError where that claims more than a machine could hold.

    Counted first where tensors take no memory; but depth is bounded before, for that many modules take theirs.
    """
    for name, value in (*facts["network"].items(), *facts["scheduler"].items()):
        most = DEEPEST if name in _DEPTHS else LARGEST
        values = value if isinstance(value, list | tuple) else [value]
        if values == [-math.inf]:  # DPM-Solver's "not clipped"
            continue
        if len(values) > LARGEST or any(isinstance(one, int | float) and not abs(one) <= most for one in values):
            raise ValueError(f"{name} is above {most}")
    with torch.device("meta"):
        claimed = sum(parameter.numel() for parameter in make().parameters())
    if claimed > MOST_WEIGHTS:
        raise ValueError(f"it claims {claimed} weights, more than {MOST_WEIGHTS}")
    return make()


def _diffusers() -> Any:
    """Without its remarks on stderr: what matters of them is asked for here."""
    found = library("diffusers")
    found.logging.set_verbosity_error()
    return found


def diffusers_built(facts: Mapping[str, Any]) -> Built:
    diffusers, name = _diffusers(), facts["scheduler_class"]
    net = _bounded(facts, lambda: diffusers.UNet2DModel.from_config(facts["network"]))
    # A class is looked up by a name from a file: only schedulers, and of those any with DDPM's forward process.
    scheduler = getattr(diffusers, name, None) if name.endswith("Scheduler") else None
    signal = getattr(scheduler.from_config(facts["scheduler"]), "alphas_cumprod", None) if scheduler else None
    if signal is None:
        raise ValueError(f"{name} is no scheduler of DDPM's kind")
    config = net.config
    if config.time_embedding_type == "fourier":
        raise ValueError("a fourier time embedding belongs to the VE-SDE")
    side = config.sample_size
    return Built(
        net,
        channels=config.in_channels,
        out_channels=config.out_channels,
        levels=len(config.block_out_channels),
        size=(side, side) if isinstance(side, int) else tuple(side) if side else None,
        conditional=net.class_embedding is not None,
        alphas_cumprod=signal,
        integer_steps=config.time_embedding_type == "learned",
    )


def diffusers_weights(folder: Path) -> dict[str, Tensor]:
    """By diffusers itself, which knows the names of its older versions and weights in several files."""
    network = _diffusers_network(folder)
    if not list(network.glob("diffusion_pytorch_model*.safetensors")):
        raise ModelError(f"{network}: has no diffusion_pytorch_model.safetensors; save it so (nothing pickled is read)")
    try:
        net, told = _diffusers().UNet2DModel.from_pretrained(
            network, use_safetensors=True, local_files_only=True, low_cpu_mem_usage=False, output_loading_info=True
        )
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{network}: its weights are truncated or no safetensors; copy them again") from error
    if told["missing_keys"] or told["mismatched_keys"]:
        raise RuntimeError("missing or mismatched tensors")
    return net.state_dict()


def monai_facts(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    config = read_json(path)
    unknown = sorted(config.keys() - {"network", "scheduler", "range"})
    if unknown or not all(isinstance(config.get(part), dict) for part in ("network", "scheduler")):
        wrong = f"unknown {', '.join(unknown)}" if unknown else "network and scheduler must be objects"
        raise ModelError(f'{path}: {wrong}; it holds "network", "scheduler" and, if need be, "range"')
    match config.get("range", [-1, 1]):
        case [int() | float() as low, int() | float() as high] if low < high:
            units = [low, high]
        case wrong:
            raise ModelError(f'{path}: "range" is {wrong}; it is the [low, high] of the images it was trained on')
    return {
        "format": "monai",
        "class": "DiffusionModelUNet",
        "network": config["network"],
        "scheduler": config["scheduler"],
        "prediction": config["scheduler"].get("prediction_type", "epsilon"),
        "range": units,
    }


def monai_built(facts: Mapping[str, Any]) -> Built:
    library("monai")
    nets, schedulers = import_module("monai.networks.nets"), import_module("monai.networks.schedulers")
    net = _bounded(facts, lambda: nets.DiffusionModelUNet(**facts["network"]))
    return Built(
        net,
        channels=net.in_channels,
        out_channels=net.out_channels,
        levels=len(net.block_out_channels),
        size=None,
        conditional=net.num_class_embeds is not None or net.with_conditioning,
        alphas_cumprod=schedulers.DDPMScheduler(**facts["scheduler"]).alphas_cumprod,
    )


def monai_weights(folder: Path) -> dict[str, Tensor]:
    safe, plain = folder / "model.safetensors", folder / "model.pt"
    path = safe if safe.is_file() else plain
    try:
        return load_file(safe) if path is safe else torch.load(plain, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ModelError(f"{folder}: has no model.safetensors or model.pt; put the network's weights there") from error
    except Exception as error:
        raise ModelError(f"{path}: is truncated, or more than tensors; save the network's state_dict()") from error
