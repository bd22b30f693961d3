"""Curve plots are written whole, for any number of kinds."""

import numpy as np
import pytest
from PIL import Image

from priorlens.curves import GRID, Curve
from priorlens.plots import roc_pr_plot


def made(kind, level, band):
    low, high = (np.clip(GRID - 0.1, 0, 1), np.clip(GRID + 0.1, 0, 1)) if band else (np.full_like(GRID, np.nan),) * 2
    return Curve(kind, level, GRID, low, high, 1 - GRID, low[::-1], high[::-1], 0.5, 0.5, 0.1)


@pytest.mark.parametrize("kinds", [0, 1, 9])
def test_plot_can_be_read_back(tmp_path, kinds):
    curves = [made(f"kind {i}", level, i % 2 == 0) for i in range(kinds) for level in ("image", "pixel")]
    roc_pr_plot(curves, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > 1000
