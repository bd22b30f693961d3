"""What a model says of healthy images that it has never met: the yardstick of every verdict.

A calibration is of one model and of one way of scoring with it (`priorlens.detectors.setup_of`). It is kept in the
model's folder as calibration/<setup>.safetensors and knows the model it is of by the hash of its tensors.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, Float64, Int
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from priorlens.blocks import HealthyBlocks
from priorlens.checkpoint import TENSORS
from priorlens.conformal import p_values, require_alpha, smallest_p_value
from priorlens.errors import ModelError, OutputError
from priorlens.outputs import atomic_write, prepare_folder

FOLDER = "calibration"
SCHEMA = 1


@dataclass(frozen=True)
class Calibration:
    """Healthy images that were not learned from, as one model scores them in one way.

    model: SHA-256 of the model's tensors. setup: how it scores.
    images, patients: fingerprints of each image and of whom it is of (`priorlens.provenance`); an image whose patient
        is not known counts as a patient of its own.
    anomaly: of each image. blocks: means of its map over blocks (`priorlens.blocks`), in any order.
    features: further figures of each image, by name: its spectrum, for `priorlens.drift`.
    """

    model: str
    setup: str
    images: tuple[str, ...]
    patients: tuple[str, ...]
    anomaly: Float32[np.ndarray, " image"]
    blocks: tuple[Float32[np.ndarray, " _block"], ...]
    features: Mapping[str, Float32[np.ndarray, " image"]]

    def __post_init__(self) -> None:
        parts = (self.images, self.patients, self.anomaly, self.blocks, *self.features.values())
        if len({len(part) for part in parts}) != 1:
            raise ValueError("every image needs a patient, an anomaly, blocks and each feature")

    @cached_property
    def patient_of(self) -> Int[np.ndarray, " image"]:
        """The number of each image's patient, from 0."""
        return np.unique(np.array(self.patients), return_inverse=True)[1]

    @property
    def patient_count(self) -> int:
        return len(set(self.patients))

    @property
    def most_images(self) -> int:
        """Of one patient."""
        return int(np.bincount(self.patient_of).max())

    @property
    def smallest_p_value(self) -> float:
        """No image can get a smaller one, however abnormal it is."""
        return smallest_p_value(self.patient_count)

    @property
    def worth(self) -> dict[str, int | float]:
        """What it can tell, as results and models say it: plain data for JSON."""
        return {
            "images": len(self.images),
            "patients": self.patient_count,
            "smallest_p_value": self.smallest_p_value,
        }

    @cached_property
    def healthy_blocks(self) -> HealthyBlocks:
        return HealthyBlocks(self.blocks, self.patient_of)

    def image_p_values(self, anomaly: Float[np.ndarray, " new"]) -> Float64[np.ndarray, " new"]:
        """For each image by itself: the chance that an image of a healthy patient has so high an anomaly, or more."""
        return p_values(anomaly, self.anomaly, self.patient_of)

    def patient_p_value(self, anomaly: Float[np.ndarray, " image"]) -> float:
        """Of one patient, from all images of it: the highest anomaly against the highest of each healthy patient.

        The number of images is taken to be what it was among those: more images reach higher by chance alone.
        """
        highest = np.full(self.patient_count, -np.inf)
        np.maximum.at(highest, self.patient_of, self.anomaly)
        return float(p_values(anomaly.max(keepdims=True), highest)[0])

    def require(self, alpha: float) -> None:
        """Raises InputError where so few patients cannot give a p-value as low as `alpha`."""
        require_alpha(alpha, self.patient_count)


def model_hash(folder: Path) -> str:
    """SHA-256 of a model's tensors. Raises ModelError."""
    try:
        with open(folder / TENSORS, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{folder / TENSORS}: cannot be read; copy the whole model folder, or fit again") from error


def described(calibration: Calibration, what: str = "images") -> str:
    """What a calibration is worth, in one line; `what` it is of."""
    return (
        f"calibrated ({calibration.setup}) on {len(calibration.images)} healthy {what} of "
        f"{calibration.patient_count} patients: p-values down to {calibration.smallest_p_value:.2g}"
    )


def write_calibration(folder: Path, calibration: Calibration) -> Path:
    """Into the model's folder, in place of an earlier one of the same setup; its path. Raises OutputError."""
    path = _path(folder, calibration.setup)
    prepare_folder(path.parent, overwrite=True)
    names = list(calibration.features)
    tensors = {
        "anomaly": calibration.anomaly,
        "images": _packed(calibration.images),
        "patients": _packed(calibration.patients),
        "blocks": np.concatenate(calibration.blocks),
        "block_counts": np.array([len(blocks) for blocks in calibration.blocks], np.int64),
        "features": np.stack([calibration.features[name] for name in names], 1)
        if names
        else np.zeros((len(calibration.images), 0), np.float32),
    }
    facts = {"schema": SCHEMA, "model": calibration.model, "setup": calibration.setup, "features": names}
    with atomic_write(path) as file:
        file.write(save(tensors, metadata={"priorlens": json.dumps(facts)}))
    return path


def read_calibration(folder: Path, setup: str) -> Calibration | None:
    """That of a setup from the model's folder; None if there is none.

    Raises:
        ModelError: it is damaged, newer, or of an earlier version of the model.
    """
    path = _path(folder, setup)
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="np") as file:
            facts = json.loads(file.metadata()["priorlens"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if facts["schema"] > SCHEMA:
            raise ModelError(f"{path}: has schema {facts['schema']}, this version reads {SCHEMA}; upgrade priorlens")
        counts = tensors["block_counts"]
        if counts.sum() != len(tensors["blocks"]) or (counts < 1).any() or tensors["features"].ndim != 2:
            raise ValueError("blocks or features are missing")
        if {tensors[name].ndim for name in ("anomaly", "blocks", "block_counts")} != {1}:
            raise ValueError("numbers are not in rows")
        found = Calibration(
            facts["model"],
            facts["setup"],
            _unpacked(tensors["images"]),
            _unpacked(tensors["patients"]),
            tensors["anomaly"],
            tuple(np.split(tensors["blocks"], np.cumsum(counts)[:-1])),
            dict(zip(facts["features"], tensors["features"].T, strict=True)),
        )
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: is damaged; run priorlens calibrate again") from error
    if found.setup != setup:
        return None
    if found.model != model_hash(folder):
        raise ModelError(f"{path}: is of an earlier version of this model; run priorlens calibrate again")
    return found


def calibrated_setups(folder: Path) -> list[str]:
    """The setups that a model's folder has calibrations of; damaged ones and those of an earlier version left out."""
    model = model_hash(folder)
    known = [(path, *_model_and_setup(path)) for path in sorted((folder / FOLDER).glob("*.safetensors"))]
    return [setup for path, of_model, setup in known if of_model == model and path == _path(folder, setup)]


def discard_outdated(folder: Path) -> None:
    """Remove the calibrations of earlier versions of a model: no setup may be refused for them. Raises OutputError."""
    model = model_hash(folder)
    for path in (folder / FOLDER).glob("*.safetensors"):
        if _model_and_setup(path)[0] != model:
            try:
                path.unlink()
            except OSError as error:
                raise OutputError(f"{path}: cannot be removed ({error.strerror}); remove it by hand") from error


def _model_and_setup(path: Path) -> tuple[str, str]:
    """What a calibration is of; empty where it is damaged."""
    try:
        with safe_open(path, framework="np") as file:
            facts = json.loads(file.metadata()["priorlens"])
        return str(facts["model"]), str(facts["setup"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        return "", ""


def _path(folder: Path, setup: str) -> Path:
    """A name that people can read, and a digest that tells apart what reads the same."""
    readable = re.sub(r"[^a-z0-9]+", "-", setup.lower()).strip("-")[:60]
    return folder / FOLDER / f"{readable}-{hashlib.sha256(setup.encode()).hexdigest()[:8]}.safetensors"


def _packed(fingerprints: Sequence[str]) -> np.ndarray:
    return np.array([list(bytes.fromhex(one)) for one in fingerprints], np.uint8)


def _unpacked(rows: np.ndarray) -> tuple[str, ...]:
    return tuple(bytes(row).hex() for row in rows)
