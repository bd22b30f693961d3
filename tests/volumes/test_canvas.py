"""Canvases over scans: places are kept both ways, tiles cover all and blend into what they were cut from."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from priorlens.volumes.canvas import OVERLAP, Canvas


def index_maps(shape):
    """For each axis, an array that holds its own index everywhere."""
    return np.indices(shape).astype(np.float32)


def centres(canvas):
    """Where each voxel of the canvas has its centre, as indices of the scan's."""
    axes = [
        middle + (np.arange(count) - (count - 1) / 2) * step
        for middle, count, step in zip(canvas.centre, canvas.shape, canvas.step, strict=True)
    ]
    return np.stack(np.meshgrid(*axes, indexing="ij"))


CANVASES = [
    pytest.param(Canvas.over((40, 30), [(5, 30), (3, 28)], [1.7, 1.3], [16, 16]), id="shrinking"),
    pytest.param(Canvas.over((40, 30), [(5, 30), (3, 28)], [0.6, 0.9], [16, 16]), id="enlarging, several tiles"),
    pytest.param(Canvas.over((12, 50), [(0, 11), (0, 49)], [0.25, 1.9], [48, 32]), id="one way and the other"),
    pytest.param(Canvas.over((20, 14, 9), [(2, 18), (1, 13), (0, 8)], [1.1, 0.8, 0.4], [8, 8, 8]), id="3d"),
    pytest.param(Canvas.over((16, 9), [(4, 11), (0, 8)], [1.0, 1.0], [24, 24]), id="larger than the scan"),
]


@pytest.mark.parametrize("canvas", CANVASES)
def test_ramps_keep_their_place_on_the_canvas(canvas):
    """Every voxel of the canvas inside the scan tells, exactly, where in the scan it lies; the outermost half is held;
    0 beyond."""
    found, expected = canvas.to_canvas(index_maps(canvas.source)), centres(canvas)
    sides = np.array(canvas.source).reshape(-1, *(1,) * len(canvas.source))
    inside = ((expected > -0.5 - 1e-6) & (expected < sides - 0.5 + 1e-6)).all(0)
    assert found.dtype == np.float32 and found.shape == expected.shape
    np.testing.assert_allclose(found[:, inside], expected.clip(0, sides - 1)[:, inside], atol=2e-4)
    assert (found[:, ~inside] == 0).all()


@pytest.mark.parametrize("canvas", CANVASES)
def test_ramps_keep_their_place_on_the_way_back(canvas):
    """And what the canvas does not reach is `outside`."""
    found = np.stack([canvas.from_canvas(ramp, outside=-7.0) for ramp in index_maps(canvas.shape)])
    first = centres(canvas).reshape(len(canvas.shape), -1)[:, 0]
    axes = [
        (np.arange(side) - start) / step for side, start, step in zip(canvas.source, first, canvas.step, strict=True)
    ]
    expected = np.stack(np.meshgrid(*axes, indexing="ij"))
    counts = np.array(canvas.shape).reshape(-1, *(1,) * len(canvas.shape))
    reached = ((expected > -0.5 - 1e-6) & (expected < counts - 0.5 + 1e-6)).all(0)
    assert found.dtype == np.float32 and found.shape[1:] == canvas.source
    np.testing.assert_allclose(found[:, reached], expected.clip(0, counts - 1)[:, reached], atol=2e-4)
    assert (found[:, ~reached] == -7.0).all()


def test_which_voxels_the_canvas_does_not_reach():
    """A box of 8 voxels and a tile of 8, each as large as a voxel: the box itself and no more."""
    canvas = Canvas.over((16, 16), [(4, 11), (6, 13)], [1.0, 1.0], [8, 8])
    back = canvas.from_canvas(np.ones((8, 8), np.float32), outside=0.0)
    expected = np.zeros((16, 16), np.float32)
    expected[4:12, 6:14] = 1
    np.testing.assert_array_equal(back, expected)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), axes=st.integers(2, 3))
def test_a_canvas_holds_its_box_and_brings_every_ramp_back(data, axes):
    """Through the canvas, ramps stay in the box what they were, but for its border: there canvas or scan may end."""
    source, box, step = [], [], []
    for _ in range(axes):
        source.append(side := data.draw(st.integers(3, 24)))
        first = data.draw(st.integers(0, side - 1))
        box.append((first, data.draw(st.integers(first, side - 1))))
        step.append(data.draw(st.floats(0.3, 3.0)))
    canvas = Canvas.over(source, box, step, [data.draw(st.integers(4, 12)) for _ in range(axes)])
    assert all(count >= side for count, side in zip(canvas.shape, canvas.tile, strict=True))
    inside = tuple(slice(first, last + 1) for first, last in box)
    reached = canvas.from_canvas(np.ones(canvas.shape, np.float32), outside=0.0)
    np.testing.assert_allclose(reached[inside], 1, rtol=1e-5)
    ramps = index_maps(source)
    away = [
        (ramp >= first + 2 * each + 1) & (ramp <= last - 2 * each - 1)
        for ramp, (first, last), each in zip(ramps, box, step, strict=True)
    ]
    keep = np.all(away, axis=0)
    for ramp in ramps:
        back = canvas.from_canvas(canvas.to_canvas(ramp), outside=np.nan)
        np.testing.assert_allclose(back[keep], ramp[keep], atol=1e-3)


def test_one_voxel_to_one_is_left_alone():
    voxels = np.random.default_rng(0).random((3, 12, 10), np.float32)
    canvas = Canvas.over((12, 10), [(0, 11), (0, 9)], [1.0, 1.0], [8, 8])
    assert canvas.shape == (12, 10)
    np.testing.assert_array_equal(canvas.to_canvas(voxels), voxels)
    np.testing.assert_array_equal(canvas.from_canvas(voxels[0], 0.0), voxels[0])


def test_shrinking_does_not_alias():
    stripes = np.tile(np.array([0, 1], np.float32), (64, 32))
    canvas = Canvas.over((64, 64), [(0, 63), (0, 63)], [4.0, 4.0], [16, 16])
    assert np.ptp(canvas.to_canvas(stripes)[1:-1, 1:-1]) < 0.05
    finer = Canvas.over((16, 16), [(0, 15), (0, 15)], [0.25, 0.25], [64, 64])
    assert np.ptp(finer.from_canvas(stripes, 0.0)[1:-1, 1:-1]) < 0.05, "nor on the way back"


# --- tiles


@pytest.mark.parametrize(
    ("count", "tile", "number"),
    [(64, 64, 1), (65, 64, 2), (112, 64, 2), (113, 64, 3), (40, 16, 3), (41, 16, 4), (33, 32, 2)],
)
def test_how_many_tiles(count, tile, number):
    """Each goes on at most three quarters of its side further than the one before."""
    canvas = Canvas.over((count, 8), [(0, count - 1), (0, 7)], [1.0, 1.0], [tile, 8])
    tiles = canvas.tiles(np.zeros((1, count, 8), np.float32))
    assert [one.shape for one in tiles] == [(1, tile, 8)] * number


def test_a_box_of_just_the_tile_is_one_tile_whatever_the_last_digit_says():
    """Spacings are lengths of steps, and these are right to some 16 digits only."""
    for step in (1.5625, np.nextafter(1.5625, 0), np.nextafter(1.5625, 2)):
        canvas = Canvas.over((100, 100), [(0, 99), (0, 99)], [step, step], [64, 64])
        assert canvas.shape == (64, 64)


@settings(max_examples=50, deadline=None)
@given(counts=st.lists(st.integers(4, 60), min_size=2, max_size=3), side=st.sampled_from([4, 8, 12, 16]))
def test_tiles_cover_all_overlap_and_blend_into_what_they_were_cut_from(counts, side):
    canvas = Canvas.over(counts, [(0, count - 1) for count in counts], [1.0] * len(counts), [side] * len(counts))
    for ramp in index_maps(canvas.shape):
        np.testing.assert_allclose(canvas.blended(canvas.tiles(ramp)), ramp, rtol=1e-5, atol=1e-4)
    constant = np.full(canvas.shape, 3.25, np.float32)
    np.testing.assert_allclose(canvas.blended(canvas.tiles(constant)), constant, rtol=1e-6)
    corners = np.stack([ramp.min(axis=tuple(range(len(counts)))) for ramp in canvas.tiles(index_maps(canvas.shape)[0])])
    apart = np.diff(np.unique(corners))
    assert (apart <= side * (1 - OVERLAP)).all() and (apart > 0).all()
    assert all(tile.shape == canvas.tile for tile in canvas.tiles(constant))


def test_where_tiles_overlap_the_nearer_one_counts_more():
    """Tiles of 0 and 1 side by side: the way from one to the other never falls, and has no step."""
    canvas = Canvas.over((28, 16), [(0, 27), (0, 15)], [1.0, 1.0], [16, 16])
    zero, one = np.zeros((16, 16), np.float32), np.ones((16, 16), np.float32)
    row = canvas.blended([zero, one])[:, 5]
    assert row[:12].max() == 0 and row[16:].min() == 1
    np.testing.assert_allclose(row[12:16], [0.125, 0.375, 0.625, 0.875], atol=1e-6)
