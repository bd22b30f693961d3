"""Scans as a model sees them, and the way back: what is marked in a scan comes back where it was."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from priorlens.errors import InputError
from priorlens.volumes.scan_preparation import LEAST_BODY, ScanPreparation
from priorlens.volumes.volume import Layout, Volume
from priorlens.volumes.voxel_intensity import VoxelIntensity

PATH = Path("scan.nii.gz")
WINDOW = VoxelIntensity("window", -160.0, 240.0)
PLANES = ["axial", "coronal", "sagittal", "acquired"]
SCANNER_AXIS = {"axial": 2, "coronal": 1, "sagittal": 0}


def affine_of(steps, origin=(12.0, -30.0, 45.0)):
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = steps, origin
    return affine


def turned(*angles):
    return Rotation.from_euler("xyz", angles, degrees=True).as_matrix()


AFFINES = {
    "upright": affine_of(np.diag([1.0, 1.0, 1.0])),
    "as DICOM gives it": affine_of(np.diag([-0.8, -0.8, 2.5])),
    "left-handed": affine_of(np.diag([0.9, -1.1, 1.3])),
    "oblique": affine_of(turned(12, -17, 23) * [0.9, 0.9, 2.0]),
    "oblique, left-handed": affine_of(turned(-21, 8, 30) * [1.1, -0.8, 1.7]),
    "permuted": affine_of(np.eye(3)[:, [1, 2, 0]] * [0.9, -0.9, 2.2]),
    "sagittal, oblique": affine_of(turned(6, 11, -9)[:, [1, 2, 0]] * [-1.0, 1.0, 3.0]),
    "slices far apart": affine_of(np.diag([0.7, 0.7, 5.0])),
    "steeply oblique": affine_of(turned(40, 35, 20) * [1.2, 1.0, 1.5]),
}


def preparation(**options):
    given = {
        "channels": ("",),
        "units": "HU",
        "intensities": (WINDOW,),
        "plane": "axial",
        "dimensions": "2d",
        "spacing": 1.5,
        "size": 32,
        "neighbours": 3.0,
    }
    return ScanPreparation(**{**given, **options})


def positions(shape, affine):
    """Millimetres of every voxel."""
    index = np.moveaxis(np.indices(shape), 0, -1)
    return index @ affine[:3, :3].T + affine[:3, 3]


def shape_for(affine, extent=42.0):
    """Of a scan as long as this, in mm, along each of its axes; somewhat longer along the first."""
    return tuple(
        int(np.ceil(extent * more / step))
        for more, step in zip((1.2, 1.0, 1.1), np.linalg.norm(affine[:3, :3], axis=0), strict=True)
    )


def ball(shape, affine, aside=(0.0, 0.0, 0.0)):
    """Distance in mm from the middle of a scan, or from a place beside it."""
    middle = affine[:3, :3] @ ((np.array(shape) - 1) / 2) + affine[:3, 3] + aside
    return np.linalg.norm(positions(shape, affine) - middle, axis=-1), middle


def scan(affine, marked=None, radius=20.0, value=-60.0):
    """A round body of -60 HU in air, and a smooth blob of up to 200 HU more at `marked`, in mm from its middle."""
    shape = shape_for(affine)
    voxels = np.where(ball(shape, affine)[0] <= radius, value, -1000.0)
    if marked is not None:
        voxels += 200 * np.exp(-0.5 * (ball(shape, affine, marked)[0] / 4) ** 2) * (voxels > -500)
    return Volume(voxels[None].astype(np.float32), affine, "HU", PATH)


def returned(prepared, outside=0.0):
    """What the model would say if it said what it saw: the map of the (middle) channel."""
    planes = prepared.planes()
    maps = [pixels[len(pixels) // 2] for pixels in prepared.pieces(planes).values()]
    return prepared.map_of(planes, prepared.stack_of(planes, maps), outside)


def centre_of_mass(weights, affine):
    places = positions(weights.shape, affine)
    return (places * weights[..., None]).sum((0, 1, 2)) / weights.sum()


MARKED = (6.0, -5.0, 4.0)


@pytest.mark.parametrize(
    ("plane", "dimensions"), [(p, d) for p in PLANES for d in ("2d", "3d")] + [("axial", "2.5d"), ("coronal", "2.5d")]
)
@pytest.mark.parametrize("name", AFFINES)
def test_a_blob_comes_back_to_its_place(name, plane, dimensions):
    """Within a fifth of a model's pixel, in millimetres of the scanner, whatever way the scan was stored."""
    chosen = preparation(plane=plane, dimensions=dimensions, size=16 if dimensions == "3d" else 32)
    without, with_blob = (scan(AFFINES[name], marked) for marked in (None, MARKED))
    found = [returned(chosen.prepare(one)) for one in (without, with_blob)]
    assert found[1].shape == with_blob.shape and found[1].dtype == np.float32
    blob, true = found[1] - found[0], (with_blob.voxels - without.voxels)[0] / 400
    np.testing.assert_allclose(
        centre_of_mass(blob, AFFINES[name]), centre_of_mass(true, AFFINES[name]), atol=0.2 * chosen.spacing
    )
    assert blob.sum() == pytest.approx(true.sum(), rel=0.03)
    peak = np.unravel_index(blob.argmax(), blob.shape)
    away = AFFINES[name][:3, :3] @ (np.array(peak) - np.unravel_index(true.argmax(), true.shape))
    assert np.linalg.norm(away) < max(chosen.spacing, *without.spacing) * 1.5


@pytest.mark.parametrize("spacing", [0.5, 0.9, 2.0, 4.0])
@pytest.mark.parametrize("name", ["oblique, left-handed", "slices far apart"])
def test_a_blob_comes_back_to_its_place_at_any_spacing(name, spacing):
    """From pixels finer than the scan's, in several tiles, to coarse ones, that spread it almost to the body's rim."""
    chosen = preparation(plane="coronal", spacing=spacing, size=48)
    without, with_blob = (scan(AFFINES[name], marked) for marked in (None, (3.0, -2.5, 2.0)))
    found = [returned(chosen.prepare(one)) for one in (without, with_blob)]
    blob, true = found[1] - found[0], (with_blob.voxels - without.voxels)[0]
    np.testing.assert_allclose(
        centre_of_mass(blob, AFFINES[name]), centre_of_mass(true, AFFINES[name]), atol=0.2 * spacing
    )


# --- stacks


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("name", AFFINES)
def test_heights_and_own_indices(name, plane):
    """A slice's height is that of the middle of it, in the scan; its own index names the same voxels."""
    volume = scan(AFFINES[name])
    prepared = preparation(plane=plane).prepare(volume)
    axis = prepared.layout.axes[0]
    count = len(prepared.body)
    if plane == "acquired":
        plane = next(p for p in SCANNER_AXIS if Layout.of(volume.affine, p) == prepared.layout)
    assert count == volume.shape[axis] == len(prepared.heights)
    for index in (0, 1, count // 2, count - 1):
        own = prepared.own_index(index)
        assert prepared.own_index(own) == index
        middle = (np.array(volume.shape) - 1) / 2
        middle[axis] = own
        height = (volume.affine @ [*middle, 1])[SCANNER_AXIS[plane]]
        assert prepared.heights[index] == pytest.approx(height, abs=1e-9)
        scaled = np.clip((np.take(volume.voxels[0], own, axis) + 160) / 400, -0.5, 1.5)
        np.testing.assert_allclose(np.sort(prepared.stack[0, index], None), np.sort(scaled, None), atol=1e-6)
    assert (np.diff(prepared.heights) > 0).all(), "slices go up the scanner axis"


def test_heights_of_a_scan_so_oblique_that_its_slices_face_another_axis():
    """Each scanner axis has a scan axis of its own; that of the slices may lie closer to another's."""
    steps = np.array([[0.70, 0.05, -0.71], [-0.42, 0.84, -0.35], [0.58, 0.54, 0.61]])
    steps, _ = np.linalg.qr(steps)
    for order in ([0, 1, 2], [2, 0, 1]):
        volume = scan(affine_of(steps[:, order]))
        for plane, scanner in SCANNER_AXIS.items():
            prepared = preparation(plane=plane).prepare(volume)
            middle = prepared.affine @ [1, *(np.array(prepared.body.shape[1:]) - 1) / 2, 1]
            assert prepared.heights[1] == pytest.approx(middle[scanner]), (order, plane)


def test_looked_at_are_slices_with_enough_of_the_body():
    volume = scan(AFFINES["upright"])
    prepared = preparation(spacing=1.0, size=100).prepare(volume)
    areas = prepared.body.sum((1, 2))
    expected = [index for index, area in enumerate(areas) if area >= LEAST_BODY * 100**2]
    assert prepared.looked_at() == expected
    assert 0 < len(expected) < np.count_nonzero(areas)


def test_slices_without_lesions():
    volume = scan(AFFINES["as DICOM gives it"])
    prepared = preparation().prepare(volume)
    slices = prepared.looked_at()
    assert prepared.without_lesions(None) == slices
    lesions = np.zeros(volume.shape, bool)
    assert prepared.without_lesions(lesions) == slices
    own = [prepared.own_index(index) for index in slices[3:6]]
    lesions[20, 20, own] = True
    assert prepared.without_lesions(lesions) == slices[:3] + slices[6:]


def test_outside_the_body_and_in_slices_not_looked_at():
    volume = scan(AFFINES["oblique"])
    prepared = preparation().prepare(volume)
    body = prepared.layout.from_stack(prepared.body)
    slices = prepared.looked_at()
    shown = slices[2:5]
    images = prepared.images(shown)
    stack = prepared.stack_of(shown, [np.full((32, 32), 5, np.float32)] * len(images))
    found = prepared.map_of(shown, stack, outside=-3.0)
    expected = np.full(volume.shape, -3, np.float32)
    axis, own = prepared.layout.axes[0], [prepared.own_index(index) for index in shown]
    rows = np.moveaxis(expected, axis, 0)
    for index in own:
        rows[index][np.moveaxis(body, axis, 0)[index]] = 5
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    whole = preparation(dimensions="3d", size=16).prepare(volume)
    stack = whole.stack_of(whole.planes(), [np.full((16, 16, 16), 5, np.float32)] * len(whole.cubes()))
    np.testing.assert_allclose(whole.map_of(whole.planes(), stack, -3.0), np.where(body, 5, -3), rtol=1e-6)


def test_no_slices_make_a_map_of_nothing():
    volume = scan(AFFINES["upright"])
    prepared = preparation().prepare(volume)
    assert (prepared.map_of([], prepared.stack_of([], []), outside=2.0) == 2).all()


# --- tiles


@pytest.mark.parametrize(("radius", "tiles"), [(9.0, 1), (16.0, 4), (20.0, 9)])
def test_bodies_larger_than_a_tile_get_several(radius, tiles):
    """A square of 32 pixels of 0.62 mm is 20 mm wide."""
    prepared = preparation(spacing=0.62).prepare(scan(AFFINES["upright"], radius=radius))
    images = prepared.images([24, 25])
    assert len(images) == 2 * tiles
    assert all(image.pixels.shape == (1, 32, 32) and image.pixels.flags.c_contiguous for image in images)
    assert [str(image.path) for image in images] == ["scan.nii.gz/slice 24"] * tiles + ["scan.nii.gz/slice 25"] * tiles
    assert {image.full_scale for image in images} == {1.0}


@pytest.mark.parametrize(("radius", "cubes"), [(9.0, 1), (16.0, 8), (20.0, 27)])
def test_bodies_larger_than_a_cube_get_several(radius, cubes):
    chosen = preparation(spacing=1.24, size=16, dimensions="3d")
    found = chosen.prepare(scan(AFFINES["upright"], radius=radius)).cubes()
    assert len(found) == cubes and all(cube.shape == (1, 16, 16, 16) for cube in found)


@pytest.mark.parametrize("dimensions", ["2d", "3d"])
def test_a_map_of_tiles_is_on_the_scan_what_it_is_on_the_canvas(dimensions):
    """A constant map comes back constant in the body, a ramp a ramp, seams or no."""
    volume = scan(AFFINES["oblique"], radius=20)
    chosen = preparation(spacing=1.0, size=16, dimensions=dimensions)
    prepared = chosen.prepare(volume)
    canvas, body = prepared.canvas, prepared.layout.from_stack(prepared.body)
    ramp = np.indices(canvas.shape).sum(0).astype(np.float32)
    tiles = canvas.tiles(ramp)
    assert len(tiles) > 8
    planes = prepared.planes() if dimensions == "3d" else list(range(len(prepared.body)))
    stack = prepared.stack_of(planes, tiles if dimensions == "3d" else tiles * len(planes))
    found = prepared.map_of(planes, stack, np.nan)
    assert np.isfinite(found[body]).all() and np.isnan(found[~body]).all()
    places = np.argwhere(body)
    design = np.column_stack([places, np.ones(len(places))])
    fitted, *_ = np.linalg.lstsq(design, found[body], rcond=None)
    inner = np.array(ball(volume.shape, volume.affine)[0])[body] < 18
    assert np.abs(design @ fitted - found[body])[inner].max() < 0.05
    steps = np.abs(fitted[:3]) / volume.spacing
    expected = np.ones(3) if dimensions == "3d" else np.where(np.arange(3) == prepared.layout.axes[0], 0, 1)
    np.testing.assert_allclose(steps, expected, atol=0.01)


@pytest.mark.parametrize("dimensions", ["2d", "2.5d", "3d"])
def test_maps_of_several_levels_and_channels_become_one_stack(dimensions):
    """Whatever stands before the pieces' own axes is kept: blended level by level and channel by channel."""
    chosen = preparation(spacing=1.0, size=16, dimensions=dimensions)
    prepared = chosen.prepare(scan(AFFINES["oblique"], radius=20))
    planes = prepared.planes()
    rng = np.random.default_rng(0)
    maps = [rng.standard_normal((3, *one.shape)).astype(np.float32) for one in prepared.pieces(planes).values()]
    found = prepared.stack_of(planes, maps)
    assert found.shape == (len(planes), *maps[0].shape[:2], *prepared.canvas.shape[-2:])
    for level in range(3):
        alone = prepared.stack_of(planes, [one[level, 0] for one in maps])
        np.testing.assert_allclose(found[:, level, 0], alone, rtol=1e-6, atol=1e-6)
    assert prepared.body_of(planes).shape == alone.shape


@pytest.mark.parametrize("dimensions", ["2d", "3d"])
def test_pieces_have_the_same_numbers_whichever_planes_are_chosen(dimensions):
    """And so meet the same noise: some slices of a scan, those without lesions, as in the whole of it."""
    prepared = preparation(spacing=1.0, size=16, dimensions=dimensions).prepare(scan(AFFINES["upright"], radius=20))
    planes = prepared.planes()
    every, some = prepared.pieces(planes), prepared.pieces(planes[3:7])
    assert len(every) > len(planes) / 2 and set(some) <= set(every)
    for number, piece in some.items():
        np.testing.assert_array_equal(piece, every[number])


@pytest.mark.parametrize("dimensions", ["2d", "3d"])
@pytest.mark.parametrize("name", ["oblique", "slices far apart", "steeply oblique"])
def test_places_of_planes_and_the_body_in_them(name, dimensions):
    """Slices lie as far apart as the scanner left them, a canvas's planes as far as its pixels are wide."""
    volume = scan(AFFINES[name])
    chosen = preparation(spacing=1.2, size=32, dimensions=dimensions)
    prepared = chosen.prepare(volume)
    planes = prepared.planes()
    apart = 1.2 if dimensions == "3d" else volume.spacing[prepared.layout.axes[0]]
    np.testing.assert_allclose(np.diff(prepared.places(planes)), apart, rtol=1e-9)
    area = prepared.body_of(planes).sum() * 1.2**2 * apart
    assert area == pytest.approx(prepared.body.sum() * np.prod(volume.spacing), rel=0.05), "in mm3"
    lesions = np.zeros(volume.shape, bool)
    index = prepared.own_index(planes[len(planes) // 2]) if dimensions == "2d" else volume.shape[2] // 2
    np.moveaxis(lesions, prepared.layout.axes[0], 0)[index, 15:18, 15:18] = True
    free = prepared.planes(lesions)
    hit = sorted(set(planes) - set(free))
    assert 1 <= len(hit) < len(planes) / 3 and hit == list(range(hit[0], hit[-1] + 1))


# --- neighbours


def steps_scan(spacing, channels=1, flip=False):
    """Every slice has a value of its own throughout the body: its height in mm, over 100; channels each 0.2 more."""
    affine = affine_of(np.diag([2.0, 2.0, -spacing if flip else spacing]))
    shape = (20, 22, 12)
    heights = positions(shape, affine)[..., 2]
    heights -= heights.min()
    body = np.zeros(shape, bool)
    body[3:17, 3:19] = True
    voxels = np.stack([np.where(body, heights * 4 - 160 + 80 * channel, -1000) for channel in range(channels)])
    return Volume(voxels.astype(np.float32), affine, "HU", PATH, tuple(f"c{n}" for n in range(channels)))


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("spacing", "neighbours"), [(3.0, 3.0), (2.0, 3.0), (5.0, 3.0), (1.5, 6.0), (4.0, 4.0)])
def test_neighbours_lie_so_many_millimetres_below_and_above(spacing, neighbours, flip):
    """Between slices, linearly; beyond the ends the last slice again. Each channel's three side by side."""
    volume = steps_scan(spacing, channels=2, flip=flip)
    names = {"channels": ("c0", "c1"), "intensities": (WINDOW, WINDOW)}
    prepared = preparation(dimensions="2.5d", neighbours=neighbours, spacing=2.0, size=32, **names).prepare(volume)
    heights = prepared.heights - prepared.heights[0]
    for index in range(12):
        [image] = prepared.images([index])
        assert image.pixels.shape == (6, 32, 32)
        found = image.pixels[:, 16, 16]
        at = (heights[index] + np.array([-neighbours, 0, neighbours])).clip(0, heights[-1])
        np.testing.assert_allclose(found, [*(at / 100), *(at / 100 + 0.2)], atol=1e-5)


def test_two_dimensions_show_the_slice_alone():
    volume = steps_scan(3.0, channels=2)
    names = {"channels": ("c0", "c1"), "intensities": (WINDOW, WINDOW)}
    [image] = preparation(**names, spacing=2.0).prepare(volume).images([4])
    np.testing.assert_allclose(image.pixels[:, 16, 16], [0.12, 0.32], atol=1e-6)


def test_a_scan_of_one_slice_is_its_own_neighbour():
    volume = steps_scan(3.0)
    single = Volume(volume.voxels[..., 5:6].copy(), volume.affine, "HU", PATH)
    prepared = preparation(dimensions="2.5d", spacing=2.0).prepare(single)
    [image] = prepared.images([0])
    assert (image.pixels == image.pixels[:1]).all()
    assert returned(prepared).shape == single.shape


# --- intensities and what surrounds the body


def mri(seed=0):
    rng = np.random.default_rng(seed)
    shape = (24, 26, 20)
    distance = ball(shape, np.diag([2.0, 2, 2, 1]))[0]
    noise = np.abs(rng.normal(0, 3, (2, *shape)))
    voxels = np.where(distance < 17, rng.normal(100, 10, (2, *shape)), noise)
    voxels[1] *= 7
    return Volume(voxels.astype(np.float32), np.diag([2.0, 2, 2, 1]), "arbitrary", PATH, ("flair", "t1"))


ROBUST = {
    "channels": ("flair", "t1"),
    "units": "arbitrary",
    "intensities": (VoxelIntensity("robust"),) * 2,
}


def test_around_the_body_there_is_nothing_where_intensities_mean_nothing():
    """MRI: zero around the body; inside, each channel by itself about 0.4."""
    prepared = preparation(**ROBUST).prepare(mri())
    assert (prepared.stack[:, ~prepared.body] == 0).all()
    np.testing.assert_allclose(np.median(prepared.stack[:, prepared.body], axis=1), 0.4, atol=0.01)


def test_around_the_body_there_is_air_in_ct():
    volume = steps_scan(5.0)
    prepared = preparation().prepare(volume)
    expected = prepared.layout.to_stack((volume.voxels + 160) / 400).clip(-0.5, 1.5)
    np.testing.assert_allclose(prepared.stack, expected, atol=1e-6)
    assert prepared.stack[0, ~prepared.body].min() == np.float32(-0.5)


def test_a_channel_all_alike_is_named():
    volume = mri()
    voxels = volume.voxels.copy()
    voxels[1] = 5
    with pytest.raises(InputError, match=r"^scan\.nii\.gz: all voxels of the body are alike of t1; leave it out$"):
        preparation(**ROBUST).prepare(dataclasses.replace(volume, voxels=voxels))


def test_other_units_are_refused():
    for chosen, volume, has, wants in (
        (preparation(), mri(), "no Hounsfield units", r"Hounsfield units \(CT\)"),
        (preparation(**ROBUST), scan(AFFINES["upright"]), r"Hounsfield units \(CT\)", "no Hounsfield units"),
    ):
        for refuse in (chosen.require_kind, chosen.prepare):
            with pytest.raises(InputError, match=rf"^scan\.nii\.gz: has {has}.* scans have {wants}.*; give ") as error:
                refuse(volume)
            assert "\n" not in str(error.value)


def test_other_channels_are_refused():
    volume = mri()
    one = Volume(volume.voxels[:1].copy(), volume.affine, "arbitrary", PATH, ("flair",))
    with pytest.raises(InputError, match=r"^scan\.nii\.gz: has 1 channels, this model takes 2 \(flair, t1\); give"):
        preparation(**ROBUST).require_kind(one)
    unnamed = preparation(units="arbitrary", intensities=(VoxelIntensity("robust"),))
    with pytest.raises(InputError, match=r"has 2 channels, this model takes 1 \(unnamed\); give the same$"):
        unnamed.prepare(volume)
    unnamed.require_kind(one)


def test_nothing_to_see():
    air = Volume(np.full((1, 10, 10, 10), -1000, np.float32), np.eye(4), "HU", PATH)
    with pytest.raises(InputError, match=r"^scan\.nii\.gz: holds no body"):
        preparation().prepare(air)


# --- cubes to learn from


def test_healthy_cubes_hold_body_and_no_lesion():
    """The lesion is the bright blob: no cube shows it, where without its mask some would."""
    volume = scan(AFFINES["upright"], (10.0, -8.0, 9.0))
    prepared = preparation(dimensions="3d", size=12, spacing=1.5).prepare(volume)
    lesions = volume.voxels[0] > 0
    found = prepared.healthy_cubes(lesions, 30, np.random.default_rng(0))
    free = prepared.healthy_cubes(None, 30, np.random.default_rng(0))
    assert len(free) == len(found) == 30
    for cube in [*found, *free]:
        assert cube.shape == (1, 12, 12, 12) and cube.flags.c_contiguous
        assert (cube > 0).mean() >= 0.15, "the body"
    assert max(cube.max() for cube in found) < 0.45 < max(cube.max() for cube in free)
    again = prepared.healthy_cubes(lesions, 30, np.random.default_rng(0))
    assert all(np.array_equal(one, other) for one, other in zip(found, again, strict=True))
    assert prepared.healthy_cubes(np.ones(volume.shape, bool), 5, np.random.default_rng(0)) == []


# --- a model's folder


@pytest.mark.parametrize(
    "chosen",
    [
        preparation(),
        preparation(**ROBUST, dimensions="2.5d", plane="acquired"),
        preparation(
            units="arbitrary", intensities=(VoxelIntensity("landmarks", standard=(0.1, 0.2, 0.5)),), dimensions="3d"
        ),
    ],
)
def test_by_way_of_json(chosen):
    assert ScanPreparation.restored(json.loads(json.dumps(dataclasses.asdict(chosen)))) == chosen


@pytest.mark.parametrize("change", [{"colour": 1}, {"intensities": [{"mode": "robust"}]}, {"intensities": None}])
def test_configurations_that_say_something_else(change):
    config = {**json.loads(json.dumps(dataclasses.asdict(preparation()))), **change}
    with pytest.raises((KeyError, TypeError)):
        ScanPreparation.restored(config)
    with pytest.raises(KeyError):
        ScanPreparation.restored({})


# --- beyond the scan


def test_beyond_the_scan_there_is_air():
    """A square larger than the scan: in CT air goes on, without a frame; in MRI nothing."""
    [image] = preparation(spacing=2.0, size=64).prepare(steps_scan(5.0)).images([0])
    assert (image.pixels[0, [0, 0, -1, -1], [0, -1, 0, -1]] == np.float32(-0.5)).all()
    assert (image.pixels[0, :14] == np.float32(-0.5)).all(), "the frame and the air within the scan are one"
    slices = preparation(**ROBUST, spacing=2.0, size=64).prepare(mri()).images([10])
    assert (slices[0].pixels[:, :8] == 0).all()
    [*cubes] = preparation(dimensions="3d", spacing=2.0, size=64).prepare(steps_scan(5.0)).cubes()
    assert (cubes[0][0, 0] == np.float32(-0.5)).all()


def test_nothing_in_mri_is_darker_than_its_background():
    volume = mri()
    voxels = volume.voxels.copy()
    voxels[:, 11:13, 12:14, 9:11] = -500
    assert preparation(**ROBUST).prepare(dataclasses.replace(volume, voxels=voxels)).stack.min() == 0


def test_channels_of_other_names_are_refused():
    """Where both are named, whatever the case; a scan whose channel nothing names is taken as it is."""
    volume, chosen = mri(), preparation(**ROBUST)
    chosen.require_kind(dataclasses.replace(volume, channels=("FLAIR", "T1")))
    chosen.require_kind(dataclasses.replace(volume, channels=("", "")))
    with pytest.raises(InputError, match=r"^scan\.nii\.gz: has the channels t1, flair, this model takes flair, t1 in"):
        chosen.require_kind(dataclasses.replace(volume, channels=("t1", "flair")))
