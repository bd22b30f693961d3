"""Views of training images: as large as they should be, moved by little, and knowing where they lie."""

import pytest
import torch

from priorlens.prior.network import coordinates
from priorlens.prior.views import MOVED, SHIFT, Views, cut, move


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def disc(side: int = 64) -> torch.Tensor:
    where = coordinates(torch.zeros(1, 1, side, side))
    return (where.square().sum(1, keepdim=True).sqrt() < 0.5).float()


def test_plain_views_are_the_images_themselves():
    x = torch.rand(2, 1, 16, 16)
    views, where = Views().of(x, generator())
    assert views is x and where is None


def test_images_no_larger_than_a_patch_are_whole():
    x = torch.rand(2, 1, 16, 12)
    assert Views(patch=16).of(x, generator())[1] is None


@pytest.mark.parametrize("space", [(20,), (20, 30), (20, 12, 30)])
def test_a_patch_carries_its_coordinates(space):
    x = coordinates(torch.zeros(3, 1, *space))  # images that hold their own coordinates
    patches, where = cut(x, 8, generator())
    assert patches.shape == (3, len(space), *(8,) * len(space))
    torch.testing.assert_close(patches, where)


def test_patches_come_from_all_over_the_image():
    x = torch.arange(32.0).expand(512, 1, 32)
    starts = cut(x, 8, generator())[0][:, 0, 0]
    assert set(starts.tolist()) == set(range(25))


def test_moved_images_keep_their_disc_near_the_middle():
    x = disc().expand(64, -1, -1, -1)
    moved = move(x, generator())
    assert moved.shape == x.shape and moved.amin() >= 0 and moved.amax() <= 1
    where = coordinates(moved)
    centre = (moved * where).sum((2, 3)) / moved.sum((2, 3))
    assert centre.abs().amax() <= SHIFT * 1.15 + 1 / 64  # a scale up to 1.08, and rounding to whole pixels
    assert centre.std() > 0.3 * SHIFT
    areas = moved.mean((1, 2, 3)) / x.mean()
    assert 0.8 < areas.min() < 0.95 and 1.05 < areas.max() < 1.25
    exact = sum(bool(((one - one.round()).abs() < 1e-3).all()) for one in moved) / len(moved)
    assert abs(exact - (1 - MOVED)) < 0.2, "what is only shifted is not smoothed"


def test_the_same_generator_gives_the_same_views():
    x = torch.rand(4, 1, 32, 32)
    one, other = (Views(moved=True, patch=16).of(x, generator(3)) for _ in range(2))
    assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])
