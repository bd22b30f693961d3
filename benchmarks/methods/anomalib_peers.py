"""What the peers of anomalib have in common: images as all methods see them, their model on disk, maps brought back."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.method import Judged, Learned, Task
from benchmarks.methods.anomalib_backbone import as_seen, shared_backbone
from priorlens.images import Image
from priorlens.preparation import Preparation

BARE: dict[str, Any] = {"post_processor": False, "evaluator": False, "visualizer": False}
"""A module of anomalib without what normalises, thresholds, measures or draws: its maps and scores are the raw ones."""


class Peer(ABC):
    """One model of anomalib: its own network, loss and optimiser, on the images and the backbone that all methods have.

    The modules' own steps are called in plain loops: anomalib's Engine wants folders that it splits and normalises by
    itself, and ends training by the AUROC of abnormal images, which no method here may see.
    """

    networks = 1.0
    """That run for an image; a student, decoder or flow beside the backbone is a second one."""

    @abstractmethod
    def build(self, size: int) -> Any:
        """The module of anomalib for images of this side; `shared_backbone` holds meanwhile."""

    @abstractmethod
    def learn(
        self, images: Float[Tensor, "image channel size size"], task: Task, report: Callable[[str], None]
    ) -> Learned:
        """Fit `self.module` to prepared images."""

    def fit(self, task: Task, report: Callable[[str], None]) -> Learned:
        torch.manual_seed(task.seed)
        self.preparation = Preparation.fit(task.images, task.size, task.intensity)
        self._make()
        self.module.train()
        return self.learn(self.preparation.to_model(task.images), task, report)

    def save(self, folder: Path) -> None:
        state = self.module.model.state_dict()
        save_file({name: value.contiguous() for name, value in state.items()}, folder / "model.safetensors")
        (folder / "preparation.json").write_text(json.dumps(asdict(self.preparation)), encoding="utf-8")

    def load(self, folder: Path, task: Task) -> None:
        self.preparation = Preparation.restored(json.loads((folder / "preparation.json").read_text(encoding="utf-8")))
        self._make()
        self.module.model.load_state_dict(load_file(folder / "model.safetensors"))

    @torch.inference_mode()
    def judge(self, images: Sequence[Image]) -> Judged:
        self.module.eval()
        found = self.module.model(as_seen(self.preparation.to_model(images)))
        anomaly = found.pred_score.double().reshape(len(images)).numpy()
        if found.anomaly_map is None:
            return Judged(anomaly, None, self.networks)
        square = (len(images), self.preparation.size, self.preparation.size)
        maps = found.anomaly_map.float().reshape(square).numpy()
        back = [self.preparation.from_model(one, image) for one, image in zip(maps, images, strict=True)]
        return Judged(anomaly, [np.asarray(one, np.float32) for one in back], self.networks)

    def _make(self) -> None:
        with shared_backbone():
            self.module = self.build(self.preparation.size)
