"""Small studies for tests: discs, with a bright spot planted in some."""

from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.study import Fold, Study

SIDE = 48


def made_study(folder: Path, name: str = "discs", train: int = 16, test: int = 12, seed: int = 0) -> Study:
    """Healthy discs of two images a patient, and as many test images with a spot as without."""
    rng = np.random.default_rng(seed)
    for i in range(train):
        save(folder / "train/good" / f"p{i // 2}_{i}.png", disc(rng))
    for i in range(test):
        save(folder / "test/good" / f"q{i // 2}_{i}.png", disc(rng))
        pixels, mask = disc(rng), spot(rng)
        save(folder / "test/spot" / f"q{i // 2}_{i}.png", pixels + 90 * mask)
        save(folder / "ground_truth/spot" / f"q{i // 2}_{i}.png", 255 * mask)
    return Study(name, (Fold(folder),), "range", True, "made discs", group=r"^(\w\d+)_", height=None)


def disc(rng: np.random.Generator) -> np.ndarray:
    row, column = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    radius = rng.uniform(17, 20)
    return 20 + 100 * (np.hypot(row, column) < radius) + rng.normal(0, 4, (SIDE, SIDE))


def spot(rng: np.random.Generator) -> np.ndarray:
    row, column = np.mgrid[:SIDE, :SIDE] - rng.integers(18, 30, 2)[:, None, None]
    return np.hypot(row, column) < 4


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)
