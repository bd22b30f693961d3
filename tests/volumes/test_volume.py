"""Volumes small enough to know where each voxel lies and what a viewer shows of it."""

from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from priorlens.errors import InputError
from priorlens.volumes import volume as volume_module
from priorlens.volumes.volume import (
    Layout,
    Volume,
    corner_shift,
    lesions_on,
    looks_like_hounsfield,
    require_affine,
    require_size,
    require_voxels,
    spacing_of,
)

PATH = Path("scan.nii.gz")
RAMP = np.arange(60, dtype=np.float32).reshape(3, 4, 5)


def affine_of(steps, origin=(0, 0, 0)):
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = steps, origin
    return affine


def test_a_volume_tells_its_shape_and_spacing():
    turned = Rotation.from_euler("xyz", (10, 20, 30), degrees=True).as_matrix() * [0.5, 2.0, 3.0]
    volume = Volume(RAMP[None], affine_of(turned), "HU", PATH)
    assert volume.shape == (3, 4, 5) and volume.channels == ("",)
    np.testing.assert_allclose(volume.spacing, [0.5, 2.0, 3.0])
    np.testing.assert_allclose(spacing_of(volume.affine.astype(np.float32)), [0.5, 2.0, 3.0], rtol=1e-6)


def test_as_many_names_as_channels():
    with pytest.raises(ValueError, match="for the channels"):
        Volume(np.stack([RAMP, RAMP]), np.eye(4), "arbitrary", PATH)


@pytest.mark.parametrize(
    ("affine", "says"),
    [
        (np.full((4, 4), np.nan), "affine is none"),
        (np.diag([1.0, 1, 1, 2]), "affine is none"),
        (np.diag([1.0, 0, 1, 1]), "no extent"),
        (affine_of([[1, 1, 0], [0, 0, 0], [0, 0, 1]]), "no extent"),
        (affine_of([[1, 0, 0], [0, 1, np.tan(np.deg2rad(20))], [0, 0, 1]]), "slanted by 20.0 degrees"),
    ],
)
def test_affines_that_cannot_be_used(affine, says):
    with pytest.raises(InputError, match=f"^scan.nii.gz: .*{says}"):
        require_affine(affine, PATH)


# --- layouts


def test_axial_slices_as_a_radiologist_looks_at_them():
    """RAS+: slices to the head, rows to the back, columns to the patient's left."""
    stack = Layout.of(np.eye(4), "axial").to_stack(RAMP)
    assert stack.shape == (5, 4, 3)
    assert stack[0, 0, 0] == RAMP[2, 3, 0], "bottom slice, front, right"
    assert stack[4, 3, 2] == RAMP[0, 0, 4], "top slice, back, left"


def test_coronal_and_sagittal_slices():
    coronal, sagittal = (Layout.of(np.eye(4), plane).to_stack(RAMP) for plane in ("coronal", "sagittal"))
    assert coronal.shape == (4, 5, 3) and coronal[0, 0, 0] == RAMP[2, 0, 4], "back, head, right"
    assert sagittal.shape == (3, 5, 4) and sagittal[0, 0, 0] == RAMP[0, 3, 4], "left, head, front"


@pytest.mark.parametrize(
    ("spacing", "plane"),
    [((1, 1, 5), "axial"), ((1, 5, 1), "coronal"), ((5, 1, 1), "sagittal"), ((1, 1, 1), "axial")],
)
def test_the_acquired_plane_has_its_slices_farthest_apart(spacing, plane):
    affine = np.diag([*spacing, 1.0])
    assert Layout.of(affine, "acquired") == Layout.of(affine, plane)


ORIENTATIONS = [(order, signs) for order in permutations(range(3)) for signs in product((1, -1), repeat=3)]


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_every_orientation_shows_the_same_picture(plane, order, signs):
    """Voxels that know where they lie in the body, stored in any of 48 orders."""
    expected = Layout.of(np.eye(4), plane).to_stack(RAMP)
    steps, stored = np.eye(3)[:, order] * signs, RAMP.transpose(order)
    stored = np.flip(stored, [axis for axis in range(3) if signs[axis] < 0])
    np.testing.assert_array_equal(Layout.of(affine_of(steps), plane).to_stack(stored), expected)


@settings(max_examples=60, deadline=None)
@given(
    angles=st.tuples(*[st.floats(-180, 180)] * 3),
    flip=st.booleans(),
    plane=st.sampled_from(["axial", "coronal", "sagittal", "acquired"]),
)
def test_there_and_back_again_for_any_orientation(angles, flip, plane):
    steps = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * [0.7, -1.1 if flip else 1.1, 3.0]
    affine = affine_of(steps, (5, -6, 7))
    layout = Layout.of(affine, plane)
    stack = layout.to_stack(RAMP[None])
    np.testing.assert_array_equal(layout.from_stack(stack), RAMP[None])
    assert sorted(layout.axes) == [0, 1, 2]
    of_stack = layout.affine(affine, (3, 4, 5))
    for index in ((0, 0, 0), (1, 2, 1), tuple(length - 1 for length in stack.shape[1:])):
        value = stack[(0, *index)]
        [own] = np.argwhere(value == RAMP)
        np.testing.assert_allclose(of_stack @ (*index, 1), affine @ (*own, 1), atol=1e-9)


# --- grids and voxels


def test_how_far_corners_lie_apart():
    moved = affine_of(np.eye(3), (3, 4, 0))
    assert corner_shift(np.eye(4), moved, (3, 4, 5)) == pytest.approx(5.0)
    longer = np.diag([1.0, 1.0, 1.1, 1.0])
    assert corner_shift(np.eye(4), longer, (3, 4, 5)) == pytest.approx(0.45), "half a voxel beyond the last centre"
    assert corner_shift(np.eye(4), longer, (3, 4, 1)) == pytest.approx(0.05), "one slice has two faces"
    assert corner_shift(moved, moved.astype(np.float32), (500, 500, 500)) == 0


def test_sizes(monkeypatch):
    require_size((2**10, 2**10, 2**9), PATH)
    with pytest.raises(InputError, match="more than 512 million voxels"):
        require_size((2**10, 2**10, 2**9 + 1), PATH)
    with pytest.raises(InputError, match=r"has no voxels \(shape 3x0x5\)"):
        require_size((3, 0, 5), PATH)
    monkeypatch.setattr(volume_module, "MAX_VOXELS", 60)
    require_size((3, 4, 5), PATH)


@pytest.mark.parametrize(
    ("voxels", "says"),
    [
        (np.zeros((0, 4, 5)), "has no voxels"),
        (np.where(RAMP < 2, np.nan, RAMP), "2 voxels that are nan or infinite"),
        (np.where(RAMP == 7, np.inf, np.where(RAMP == 8, -np.inf, RAMP)), "2 voxels that are nan or infinite"),
        (np.full((3, 4, 5), -1024.0), "is constant"),
    ],
)
def test_voxels_that_tell_nothing(voxels, says):
    require_voxels(RAMP, PATH)
    with pytest.raises(InputError, match=says):
        require_voxels(voxels.astype(np.float32), PATH)


def test_hounsfield_units_by_their_looks():
    ct = np.linspace(-1000, 500, 60).astype(np.float32).reshape(3, 4, 5)
    assert looks_like_hounsfield(ct, np.dtype(np.int16))
    assert looks_like_hounsfield(ct, np.dtype(np.uint16)), "stored with an intercept"
    assert not looks_like_hounsfield(ct, np.dtype(np.float32))
    assert not looks_like_hounsfield(np.maximum(ct, -160), np.dtype(np.int16)), "cut to a window"
    assert not looks_like_hounsfield(np.minimum(ct, 200), np.dtype(np.int16))


def test_lesions_lie_on_their_scan():
    scan = Volume(RAMP[None], np.eye(4), "HU", PATH)
    np.testing.assert_array_equal(lesions_on(RAMP - 57, np.eye(4), Path("m.nii"), scan), RAMP > 57)
    with pytest.raises(InputError, match=r"^m\.nii: the mask has 3x4x4 voxels but its scan scan\.nii\.gz has 3x4x5"):
        lesions_on(RAMP[..., :4], np.eye(4), Path("m.nii"), scan)
    with pytest.raises(InputError, match=r"^m\.nii: the mask lies 0\.2 mm away"):
        lesions_on(RAMP, affine_of(np.eye(3), (0, 0.2, 0)), Path("m.nii"), scan)
