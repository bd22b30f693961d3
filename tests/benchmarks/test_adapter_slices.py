"""Volumes become slices: which of them, where they go, how grey they are, and that outlines lie on lesions."""

import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks.adapters.slices import GROUP, HEIGHT, Written, by_median, window, write_slices
from priorlens.images import read_image, read_mask
from priorlens.volumes.volume import Volume


def volume(voxels, affine=None):
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) if affine is None else affine
    return Volume(np.asarray(voxels, np.float32)[None], affine, "arbitrary", Path("made"))


@pytest.fixture
def scan():
    """Ten slices of 16x12 that tell row and column; a body from the third slice on, a lesion in two of them."""
    i, j, k = np.meshgrid(np.arange(12), np.arange(16), np.arange(10), indexing="ij")
    voxels = 10.0 * j + i + 20
    lesion = (k >= 5) & (k < 7) & (i == 2) & (j >= 3) & (j < 6)
    return volume(np.where(lesion, 250, voxels)), lesion, k >= 2


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))


def test_learned_slices_have_no_lesion_and_enough_of_the_body(tmp_path, scan):
    voxels, lesion, body = scan
    options = {"to_grey": window(0, 255), "inside": body, "least": 0.5}
    assert write_slices(voxels, lesion, tmp_path, "ann", judged=False, **options) == Written(6, 0)
    assert names(tmp_path) == [f"train/good/ann_z{k:03d}.png" for k in (2, 3, 4, 7, 8, 9)]


def test_judged_slices_come_with_their_outlines(tmp_path, scan):
    voxels, lesion, body = scan
    options = {"to_grey": window(0, 255), "inside": body, "least": 0.5, "kind": "tumour"}
    assert write_slices(voxels, lesion, tmp_path, "ann", judged=True, **options) == Written(6, 2)
    assert not (tmp_path / "train").exists()
    image = read_image(tmp_path / "test/tumour/ann_z005.png").pixels[0]
    mask = read_mask(tmp_path / "ground_truth/tumour/ann_z005.png", image.shape)
    # Rows run to the back and columns to the left, as this scan's own axes do.
    assert image.shape == (16, 12) and np.argwhere(mask).tolist() == [[3, 2], [4, 2], [5, 2]]
    assert (image[mask] == 250).all() and image[7, 4] == 94


def test_an_unclear_slice_is_not_taken_for_healthy(tmp_path, scan):
    voxels, lesion, body = scan
    options = {"to_grey": window(0, 255), "inside": body, "least": 0.5, "clear": False}
    assert write_slices(voxels, lesion, tmp_path, "ann", judged=True, **options) == Written(0, 2)


def test_slices_are_spread_or_counted_off(tmp_path, scan):
    voxels, _, body = scan
    options = {"to_grey": window(0, 255), "inside": body, "least": 0.5, "judged": False}
    write_slices(voxels, None, tmp_path / "most", "ann", most=4, **options)
    assert [int(re.search(HEIGHT, name)[1]) for name in names(tmp_path / "most")] == [3, 5, 7, 9]
    write_slices(voxels, None, tmp_path / "every", "ann", every=3, **options)
    assert [int(re.search(HEIGHT, name)[1]) for name in names(tmp_path / "every")] == [3, 6, 9]


def test_any_orientation_is_cut_alike(tmp_path, scan):
    voxels, lesion, body = scan
    options = {"to_grey": window(0, 255), "least": 0.5, "judged": True}
    write_slices(voxels, lesion, tmp_path / "a", "ann", inside=body, **options)
    turned = volume(voxels.voxels[0].transpose(2, 0, 1)[:, ::-1], np.eye(4)[[1, 2, 0, 3]] * [[1], [-1], [1], [1]])
    parts = (one.transpose(2, 0, 1)[:, ::-1] for one in (lesion, body))
    write_slices(turned, next(parts), tmp_path / "b", "ann", inside=next(parts), **options)
    assert names(tmp_path / "a") == names(tmp_path / "b")
    for name in names(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_grey_is_by_window_or_by_the_median_of_the_body():
    values = np.array([-500.0, -160.0, 40.0, 240.0, 900.0], np.float32)
    assert window(-160, 240)(values).tolist() == [0, 0, 128, 255, 255]
    voxels = volume(np.where(np.arange(1000).reshape(10, 10, 10) < 600, 0, 200))
    to_grey = by_median(voxels, voxels.voxels[0] > 0)
    assert to_grey(np.array([0.0, 200.0, 600.0, 700.0], np.float32)).tolist() == [0, 85, 255, 255]


@pytest.mark.parametrize("name", ["ann_z042.png", "ann_t2_z042.png", "ann_z042"])
def test_names_tell_patient_and_height(name):
    assert re.search(GROUP, name)[1] == "ann" and int(re.search(HEIGHT, name)[1]) == 42
