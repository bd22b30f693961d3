"""Curves on their grid."""

import numpy as np
import pytest

from priorlens import roc
from priorlens.curves import GRID, curve, precision_at, tpr_at


def cases(rng, count):
    found = [roc.scored(rng.normal(1, 1, 1), np.zeros(0)) for _ in range(count)]
    return found + [roc.scored(np.zeros(0), rng.normal(0, 1, 1)) for _ in range(count)]


def test_curves_worked_by_hand():
    points = roc.operating_points(roc.scored(np.array([3.0, 1.0]), np.array([2.0, 1.0, 0.0, 0.0])))
    tpr = tpr_at(points)
    # upright to .5, level to 1/4, straight up the tie to (1/2, 1), level
    assert [tpr[0], tpr[125], tpr[250], tpr[500]] == pytest.approx([0.5, 0.5, 1.0, 1.0])
    assert tpr[GRID == 0.374].item() == pytest.approx(0.5 + 0.5 * (0.374 - 0.25) / 0.25)
    precision = precision_at(points)
    assert [precision[0], precision[250], precision[251], precision[500]] == pytest.approx([1.0, 1.0, 0.5, 0.5])


def test_area_under_the_grid_is_the_auroc_and_bands_enclose_the_curve():
    rng = np.random.default_rng(0)
    found = curve("tumour", "image", cases(rng, 50), [str(i) for i in range(100)], 200, rng)
    assert np.trapezoid(found.tpr, GRID) == pytest.approx(found.auroc, abs=0.01)
    assert (found.tpr_low <= found.tpr + 1e-9).all() and (found.tpr <= found.tpr_high + 1e-9).all()
    assert (np.diff(found.tpr) >= 0).all()
    assert found.prevalence == 0.5


def test_no_bands_without_resamples_and_no_curve_without_abnormal_items():
    rng = np.random.default_rng(0)
    found = curve("tumour", "pixel", cases(rng, 3), list("abcdef"), 0, rng)
    assert np.isnan(found.tpr_low).all() and np.isnan(found.precision_high).all()
    assert curve("tumour", "pixel", cases(rng, 3)[3:], list("abc"), 10, rng) is None
