"""What healthy images look like, pixel by pixel: a denoiser and its variance head, trained here or brought along."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from priorlens.checkpoint import under
from priorlens.errors import InputError, ModelError
from priorlens.prior.denoiser import Denoiser, Preconditioned
from priorlens.prior.external import ExternalPrior
from priorlens.prior.network import UNet
from priorlens.prior.patches import Patched
from priorlens.prior.scaled import Scaled
from priorlens.prior.training import OnStage, Schedule, denoising_loss, of_stage, train, variance_loss
from priorlens.prior.variance import ScaledVariance, VarianceHead
from priorlens.prior.views import Views

STEPS = 2400
VARIANCE_SHARE = 0.25
"""Steps of the variance head, as a share of the denoiser's."""

SIGMA_DATA = 0.5
"""Standard deviation of images in [-1, 1], about (Karras et al. 2022)."""

LARGEST_WHOLE = 128
"""Side of the largest images that the prior sees whole; of larger ones it sees patches of this side."""

MOST_CHANNELS = 256
"""Of images: networks of as many as a damaged model's configuration may claim would not fit into memory."""

FEW = 1000
"""Fewer images than this are also shifted, turned and stretched, lest they be known by heart."""

WIDTH, NARROWEST, WIDEST = 32, 8, 256
"""Channels of the denoiser at the finest resolution. With 16 it takes a third of the time."""

NO_HEAD = "the model has no variance head, which the rule standardised needs; fit again with --variance-head"

_DENOISER, _VARIANCE = (1, 2, 4, 4), (16, 32, 48)  # the denoiser's in multiples of the width
_DENOISER_3D, _VARIANCE_3D = (16, 32, 64), (8, 16, 24)  # a third axis costs ten times as much on a CPU
_BATCH_3D = 4
_LOG_SIGMA = (-1.2, 1.2)  # mean and deviation in training, in units of [-1, 1] (Karras et al. 2022, Table 1)


class ImagePrior:
    """Denoiser and variance of images of about [0, 1]; the networks inside see [-1, 1].

    patch: side of the patches that the networks see of larger images; None: images are seen whole.
    external: a prior that was trained elsewhere, on whole images; None: a small U-Net, to be trained.
    width: channels of the U-Net at the finest resolution, of images in two dimensions.
    head: whether there is a variance head.

    Raises:
        InputError: patches for a prior that was trained elsewhere, or too few or too many channels.
    """

    def __init__(
        self,
        channels: int,
        *,
        space: int = 2,
        patch: int | None = None,
        external: ExternalPrior | None = None,
        width: int = WIDTH,
        head: bool = True,
    ) -> None:
        if external and patch:
            raise InputError(f"patch {patch}: a prior trained elsewhere sees images whole; leave the patch out")
        if not 1 <= channels <= MOST_CHANNELS:
            raise InputError(f"{channels} channels: from 1 to {MOST_CHANNELS} can be learned; choose fewer")
        if not NARROWEST <= width <= WIDEST:
            raise InputError(f"width {width}: a prior has from {NARROWEST} to {WIDEST} channels; choose one between")
        self.channels = channels
        self.space = space
        self.patch = patch
        self.external = external
        widths, of_head = tuple(width * times for times in _DENOISER), _VARIANCE
        if space == 3:
            widths, of_head = _DENOISER_3D, _VARIANCE_3D
        network = external.denoiser if external else Preconditioned(UNet(channels, widths, space=space), SIGMA_DATA)
        self.inner: nn.Module = network
        self.head = VarianceHead(channels, of_head, space=space, sigma_data=SIGMA_DATA) if head else None
        for module in self.networks.values():
            module.eval().requires_grad_(False)

    @property
    def networks(self) -> dict[str, nn.Module]:
        """By the stage in which each is trained."""
        return {"denoiser": self.inner, **({"variance": self.head} if self.head else {})}

    def to(self, device: torch.device) -> ImagePrior:
        for module in self.networks.values():
            module.to(device)
            if self.space == 2:
                module.to(memory_format=torch.channels_last)
        return self

    @property
    def denoiser(self) -> Denoiser:
        """E[x | x_t], of whole images in [0, 1]."""
        return Scaled(Patched(self.inner, self.patch) if self.patch else self.inner)

    @property
    def variance(self) -> ScaledVariance:
        """log Var[x | x_t], of whole images in [0, 1]. Raises ModelError where there is no head."""
        if self.head is None:
            raise ModelError(NO_HEAD)
        return ScaledVariance(Patched(self.head, self.patch) if self.patch else self.head)

    def parameters(self) -> dict[str, int]:
        """How many numbers each network has learned."""
        return {name: sum(p.numel() for p in module.parameters()) for name, module in self.networks.items()}

    def tensors(self) -> dict[str, Tensor]:
        """Everything that was learned, by name."""
        return {
            f"{part}.{name}": value
            for part, module in self.networks.items()
            for name, value in module.state_dict().items()
        }

    def load_tensors(self, tensors: dict[str, Tensor]) -> ImagePrior:
        """The inverse of `tensors`. Raises KeyError or RuntimeError where they do not fit."""
        for part, module in self.networks.items():
            module.load_state_dict(under(part, tensors))
        return self


def stages(steps: int, *, external: bool = False, head: bool = True) -> list[tuple[str, int]]:
    """The stages in which an image prior is learned, with their steps."""
    denoiser, variance = ("denoiser", steps), ("variance", max(1, round(steps * VARIANCE_SHARE)))
    return [*([] if external else [denoiser]), *([variance] if head else [])]


def fit_image_prior(
    prior: ImagePrior,
    images: Float[Tensor, "image channel *space"],
    *,
    steps: int,
    seed: int,
    state: Path | None,
    on_step: OnStage,
    batch: int | None = None,
    accumulate: int = 1,
) -> None:
    """Train the denoiser, unless it was brought along, then its variance head, if any, on healthy images in [0, 1].

    batch: images in a step; None is 16, of large images 8, of cubes 4. accumulate: see `train`.
    """
    data = 2 * images - 1
    side = prior.patch or max(images.shape[2:])
    batch = batch or (_BATCH_3D if prior.space == 3 else 16 if side <= 64 else 8)
    views = Views(moved=len(images) < FEW and images.ndim == 4, patch=prior.patch)
    losses = {"denoiser": denoising_loss, "variance": variance_loss(prior.inner)}
    for stage, count in stages(steps, external=prior.external is not None, head=prior.head is not None):
        module = prior.networks[stage]
        module.requires_grad_(True)
        train(
            module,
            losses[stage],
            data,
            Schedule(count, batch=batch, log_sigma_mean=_LOG_SIGMA[0], log_sigma_std=_LOG_SIGMA[1]),
            seed=seed + (stage == "variance"),  # else the head would meet the very draws the denoiser learned from
            views=views,
            state=state / f"{stage}.safetensors" if state else None,
            on_step=of_stage(on_step, stage, count),
            accumulate=accumulate,
        )
        module.requires_grad_(False)
