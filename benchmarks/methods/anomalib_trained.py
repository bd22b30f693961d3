"""Peers of anomalib that train a network: CFLOW, FastFlow, STFPM, Reverse Distillation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from anomalib.models import Cflow, Fastflow, Stfpm
from anomalib.models import ReverseDistillation as Reverse
from anomalib.models.image.cflow.anomaly_map import AnomalyMapGenerator
from jaxtyping import Float
from torch import Tensor, nn

from benchmarks.method import Learned, Task
from benchmarks.methods.anomalib_backbone import as_seen, layers
from benchmarks.methods.anomalib_peers import BARE, Peer
from benchmarks.methods.anomalib_training import Recipe, train


class Trained(Peer):
    """Trained by the recipe of anomalib's configuration and of its paper."""

    recipe: ClassVar[Recipe]
    networks = 2.0
    remark = ""

    def learn(
        self, images: Float[Tensor, "image channel size size"], task: Task, report: Callable[[str], None]
    ) -> Learned:
        learned = train(self.module, images, self.recipe, task, report)
        return replace(learned, remark="; ".join(part for part in (learned.remark, self.remark) if part))


class FastFlow(Trained):
    """The likelihood of features under a two-dimensional normalising flow for each level."""

    recipe = Recipe(epochs=500, batch=32, patience=3)

    def build(self, size: int) -> Any:
        """anomalib allows it four backbones by name; `shared_backbone` puts ours in the place of its ResNet18."""
        return Fastflow(backbone="resnet18", pre_processor=Fastflow.configure_pre_processor((size, size)), **BARE)


class STFPM(Trained):
    """The distance of a student's features, drawn at random and trained, to those of the backbone."""

    recipe = Recipe(epochs=100, batch=32, patience=5)

    def build(self, size: int) -> Any:
        return Stfpm(layers=layers((4, 8, 16)), **BARE)


class CFlow(Trained):
    """The likelihood of features, given their place, under a conditional normalising flow for each level."""

    recipe = Recipe(epochs=50, batch=32, patience=2)
    remark = "maps relative to the training images, not to the batch"

    def build(self, size: int) -> Any:
        module = Cflow(layers=layers((8, 16, 32)), fiber_batch_size=64, **BARE)
        module.model.anomaly_map_generator = AgainstTraining(module.model.pool_layers)
        return module

    def learn(
        self, images: Float[Tensor, "image channel size size"], task: Task, report: Callable[[str], None]
    ) -> Learned:
        learned = super().learn(images, task, report)
        self.module.model.anomaly_map_generator.learning = True
        with torch.no_grad():
            for batch in images.split(self.recipe.batch):
                self.module.model(as_seen(batch))
        self.module.model.anomaly_map_generator.learning = False
        return learned


class AgainstTraining(AnomalyMapGenerator):
    """The likelihood of each level relative to its largest one in the training images.

    anomalib takes the largest of the batch (the paper: of all test images), which lets the score of an image depend on
    which others are judged with it.
    """

    largest: Tensor

    def __init__(self, pool_layers: list[str]) -> None:
        super().__init__(pool_layers=pool_layers)
        self.register_buffer("largest", torch.full((len(pool_layers),), -torch.inf))
        self.learning = False

    def compute_anomaly_map(
        self, distribution: list[Tensor], height: list[int], width: list[int], image_size: Any
    ) -> Tensor:
        if self.learning:
            self.largest = torch.stack([level.max() for level in distribution]).maximum(self.largest)
        likely = torch.zeros(1)
        for level, largest, *shape in zip(distribution, self.largest, height, width, strict=True):
            relative = (level - largest).exp().reshape(-1, 1, *shape)
            likely = likely + F.interpolate(relative, size=image_size, mode="bilinear", align_corners=True)
        return len(distribution) - likely.squeeze(1)


class ReverseDistillation(Trained):
    """The distance of the backbone's features to those that a decoder makes from a bottleneck of them."""

    recipe = Recipe(epochs=200, batch=16, patience=3)
    remark = "decoder of its ResNet18, joined to the backbone's channels by 1x1 convolutions"

    def build(self, size: int) -> Any:
        sized = Reverse.configure_pre_processor((size, size))
        module = Reverse(backbone="resnet18", layers=layers((4, 8, 16)), pre_processor=sized, **BARE)
        channels = list(module.model.encoder.out_dims)
        module.model.bottleneck = nn.Sequential(Joined(channels, RESNET18), module.model.bottleneck)
        module.model.decoder = nn.Sequential(module.model.decoder, Joined(RESNET18, channels))
        _with_channels_last(module.model.bottleneck, module.model.decoder)
        return module


def _with_channels_last(bottleneck: nn.Module, decoder: nn.Module) -> None:
    """A fifth less time a step on a CPU, with the same losses; the maps of anomalib take views of contiguous levels."""
    for network in (bottleneck, decoder):
        network.to(memory_format=torch.channels_last)
    bottleneck.register_forward_pre_hook(
        lambda _network, seen: ([level.contiguous(memory_format=torch.channels_last) for level in seen[0]],)
    )
    decoder.register_forward_hook(lambda _network, _seen, levels: [level.contiguous() for level in levels])


RESNET18 = [64, 128, 256]
"""Channels of the levels that the bottleneck and the decoder of anomalib are made for."""


class Joined(nn.ModuleList):
    """A 1x1 convolution for each level, from the channels of one network to those of the other.

    The last ones of the decoder also let it have the values below zero that this backbone has and a ResNet has not.
    """

    def __init__(self, given: list[int], wanted: list[int]) -> None:
        super().__init__(nn.Conv2d(a, b, 1) for a, b in zip(given, wanted, strict=True))

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        return [convolution(level) for convolution, level in zip(self, levels, strict=True)]
