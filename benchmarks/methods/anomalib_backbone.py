"""The backbone of priorlens, with its weights, in every network that anomalib makes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import timm
import torch
from jaxtyping import Float
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from priorlens.features import DEFAULT_BACKBONE, load_pyramid


@contextmanager
def shared_backbone() -> Iterator[None]:
    """While it lasts, any network that is asked of timm is the backbone of priorlens: with its weights where pretrained
    ones are asked for, drawn at random where not. So nothing is downloaded, and code that allows only ResNets by name
    (FastFlow's, say) takes the channels and strides of this one from timm as it would those of a ResNet."""
    weights = load_pyramid(bf16=False).backbone.state_dict()
    create = timm.create_model

    def create_shared(_name: str, pretrained: bool = False, pretrained_cfg: Any = None, **options: Any) -> nn.Module:
        network = create(DEFAULT_BACKBONE, pretrained=False, **options)
        if pretrained:
            network.load_state_dict({name: weights[name] for name in network.state_dict()})
        network.register_forward_hook(_contiguous)
        return network.to(memory_format=torch.channels_last)

    with mock.patch.object(timm, "create_model", create_shared):
        yield


def _contiguous(_network: nn.Module, _seen: Any, levels: list[Tensor]) -> list[Tensor]:
    """The backbone runs faster with channels last; the code of anomalib takes views of features as they come."""
    return [level.contiguous() for level in levels]


def layers(strides: Sequence[int]) -> list[str]:
    """What timm calls the levels of these strides; `layer1` to `layer4` of a ResNet are those of 4 to 32."""
    info: Any = timm.create_model(DEFAULT_BACKBONE, features_only=True, pretrained=False).feature_info
    names = dict(zip(info.reduction(), info.module_name(), strict=True))
    return [names[stride] for stride in strides]


def as_seen(images: Float[Tensor, "image channel size size"]) -> Float[Tensor, "image 3 size size"]:
    """Images in about [0, 1] as anomalib's pre-processor shows them to any backbone; grey ones as colour."""
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
    return (images.expand(-1, 3, -1, -1) - mean) / std
