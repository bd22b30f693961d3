"""k-centres with candidates select what the plain loop selects."""

import pytest
import torch

from benchmarks.methods import anomalib_coreset
from benchmarks.methods.anomalib_coreset import k_centres


def plain(points: torch.Tensor, count: int, first: int) -> list[int]:
    """Farthest point first, by its definition, in float64."""
    points, centres = points.double(), [first]
    far = torch.full((len(points),), torch.inf, dtype=torch.float64)
    while len(centres) < count:
        far = torch.minimum(far, (points - points[centres[-1]]).square().sum(1))
        far[centres[-1]] = -1
        centres.append(int(far.argmax()))
    return centres


@pytest.mark.parametrize("at_once", [1, 2, 16, 4096])
def test_it_selects_what_the_plain_loop_does(monkeypatch, at_once):
    monkeypatch.setattr(anomalib_coreset, "AT_ONCE", at_once)
    points = torch.randn(300, 7, generator=torch.Generator().manual_seed(1)) * torch.arange(1, 8)
    assert k_centres(points, 60, 5) == plain(points, 60, 5)


def test_points_that_are_all_the_same_are_each_taken_once():
    assert sorted(k_centres(torch.ones(12, 3), 12, 4)) == list(range(12))


def test_one_centre_is_the_first():
    assert k_centres(torch.randn(5, 2), 1, 3) == [3]


def test_anomalib_selects_the_same():
    sampling = pytest.importorskip("anomalib.models.components.sampling")
    points = torch.randn(200, 6, generator=torch.Generator().manual_seed(2))
    # anomalib projects rows at random only where the points are a matrix
    theirs = sampling.KCenterGreedy(points[:, :, None], 0.2).select_coreset_idxs()
    assert k_centres(points, 40, theirs[0]) == theirs
