"""Peers of anomalib that look at the training images once and train nothing: PatchCore, PaDiM, DFM, DFKDE."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from anomalib.models import Dfkde, Dfm, Padim, Patchcore
from jaxtyping import Float
from torch import Tensor

from benchmarks.method import Learned, Task
from benchmarks.methods.anomalib_backbone import as_seen, layers
from benchmarks.methods.anomalib_coreset import k_centres
from benchmarks.methods.anomalib_peers import BARE, Peer

BATCH = 32


class Fitted(Peer):
    """One pass over the images, then the model's own fit."""

    remark = ""

    def learn(
        self, images: Float[Tensor, "image channel size size"], task: Task, report: Callable[[str], None]
    ) -> Learned:
        with torch.no_grad():
            for batch in images.split(BATCH):
                self.module.model(as_seen(batch))
        self.finish(report)
        return Learned(remark=self.remark)

    def finish(self, report: Callable[[str], None]) -> None:
        self.module.fit()


class PatchCore(Fitted):
    """Distance to the nearest of a coreset of the patches of healthy images, a tenth of all."""

    remark = "k-centre selection by exact distances, without the random projection"

    def build(self, size: int) -> Any:
        return Patchcore(layers=layers((8, 16)), coreset_sampling_ratio=0.1, num_neighbors=9, **BARE)

    def finish(self, report: Callable[[str], None]) -> None:
        """Selects what anomalib's own loop would without its projection, which is to more dimensions than there are."""
        model = self.module.model
        patches = torch.vstack(model.embedding_store)
        model.embedding_store.clear()
        count = max(1, int(len(patches) * self.module.coreset_sampling_ratio))
        report(f"selecting {count} of {len(patches)} patches")
        first = int(torch.randint(len(patches), (1,)))
        model.memory_bank = patches[k_centres(patches, count, first)]


class PaDiM(Fitted):
    """Mahalanobis distance to the Gaussian of each place, over 100 channels drawn at random, as for its ResNet18."""

    def build(self, size: int) -> Any:
        return Padim(layers=layers((4, 8, 16)), n_features=100, **BARE)


class DFM(Fitted):
    """What principal components of pooled features that explain .97 of their variance leave over."""

    def build(self, size: int) -> Any:
        return Dfm(layer=layers((16,))[0], pooling_kernel_size=4, pca_level=0.97, score_type="fre", **BARE)


class DFKDE(Fitted):
    """A kernel density of 16 principal components of the pooled deepest features; says nothing about places."""

    remark = "scores of images only"

    def build(self, size: int) -> Any:
        return Dfkde(layers=layers((32,)), n_pca_components=16, **BARE)
