"""Layers of a case, read back from files that may be missing, damaged or tampered with."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from made_results import LESION, SCAN_AFFINE, SCAN_SHAPE, write_results, write_scan_results
from priorlens.errors import InputError
from priorlens.report.findings import Case, read_findings
from priorlens.report.shown import Shown, Slices, layer_files, layout_of, read_shown, read_slices


def case_of(folder: Path, number: int = 1) -> Case:
    return read_findings(folder).cases[number - 1]


def shown_of(folder: Path, number: int = 1) -> Shown:
    return read_shown(folder, case_of(folder, number))


def nifti(path: Path, values: np.ndarray, affine: np.ndarray = SCAN_AFFINE) -> None:
    nibabel.save(nibabel.Nifti1Image(values, affine), path)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Of three images the first has no region, the second one, the third two."""
    return write_results(tmp_path / "images", ["a.png", "good/b.png", "c.png"], layers=True, truth=True)


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    return write_scan_results(tmp_path / "scans")


def test_an_image_with_its_regions_and_truth(images: Path) -> None:
    shown = shown_of(images, 3)
    stored = np.asarray(Image.open(images / "images/c.png"))
    assert (shown.image == stored[None]).all() and shown.affine is None and shown.spacing is None
    assert (shown.anomaly_map == np.load(images / "maps/c.npy")).all()
    assert {int(label): int((shown.segmentation == label).sum()) for label in np.unique(shown.segmentation)} == {
        0: 40 * 56 - 200,
        1: 100,
        2: 100,
    }
    assert shown.truth[12:24, 14:26].all() and shown.truth.sum() == 144
    assert shown.reconstruction is None and shown_of(images, 1).segmentation is None


def test_colour_and_a_reconstruction(images: Path) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    Image.fromarray(colour).save(images / "images/a.png")
    (images / "reconstructions").mkdir()
    np.save(images / "reconstructions/a.npy", np.full((1, 8, 9), 0.5))
    shown = shown_of(images)
    assert (shown.image == np.moveaxis(colour, 2, 0)).all()
    assert shown.reconstruction.shape == (1, 8, 9) and (shown.reconstruction == 0.5).all()


def test_an_image_that_is_all_the_same_is_shown(images: Path) -> None:
    Image.fromarray(np.full((40, 56), 7, np.uint8)).save(images / "images/a.png")
    assert (shown_of(images).image == 7).all()


def test_a_scan_of_several_channels_in_its_own_units(scans: Path) -> None:
    shown = shown_of(scans)
    assert shown.image.shape == (2, *SCAN_SHAPE) and not shown.image[1].any()
    assert shown.image[0, 0, 0, 11] == 1100 and shown.image[0, 5, 6, 7] == 750
    assert np.allclose(shown.affine, SCAN_AFFINE) and shown.placed and shown.spacing.tolist() == [2, 3, 5]
    assert shown.truth[LESION].all() and shown.truth.sum() == shown.segmentation.sum() == 4 * 7 * 3
    assert (shown.anomaly_map[LESION] == 3).all()


def test_rescaling_of_the_header_is_applied(scans: Path) -> None:
    image = nibabel.Nifti1Image(np.full(SCAN_SHAPE, 3, np.int16), SCAN_AFFINE)
    image.header.set_slope_inter(0.5, -1000)
    nibabel.save(image, scans / "images/anna.nii.gz")
    assert (shown_of(scans).image == -998.5).all()


def test_a_file_that_does_not_say_where_it_lies(scans: Path) -> None:
    for part in ("images", "maps", "truth", "segmentations"):
        path = scans / part / "anna.nii.gz"
        content = bytearray(gzip.decompress(path.read_bytes()))
        content[252:256] = bytes(4)  # qform_code, sform_code
        path.write_bytes(gzip.compress(bytes(content)))
    shown = shown_of(scans)
    assert not shown.placed and shown.spacing.tolist() == [2, 3, 5]


def test_what_was_scored_without_pictures(tmp_path: Path) -> None:
    folder = write_results(tmp_path / "out", ["a.png", "b.png"], failed=[1])
    with pytest.raises(InputError, match=r"images: holds no image of case 1.*score again without --no-overlays"):
        shown_of(folder)
    with pytest.raises(InputError, match="case 2 could not be scored"):
        shown_of(folder, 2)


@pytest.mark.parametrize("stem", ["../a", "/etc/passwd", "x/../../a", "a\0b"])
def test_a_name_that_leads_out_of_the_folder(images: Path, stem: str) -> None:
    with pytest.raises(InputError, match="leads out of this folder"):
        layer_files(images, replace(case_of(images), stem=stem))


def test_links_that_lead_out_of_the_folder(images: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes((images / "images/a.png").read_bytes())
    (images / "images/a.png").unlink()
    (images / "images/a.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(InputError, match="is a link that leads out"):
        shown_of(images)


def test_overlong_names_are_names_of_nothing(images: Path) -> None:
    with pytest.raises(InputError, match="holds no image"):
        layer_files(images, replace(case_of(images), stem="a" * 5000))


def test_regions_that_the_table_has_and_no_file(images: Path) -> None:
    (images / "segmentations/c.png").unlink()
    with pytest.raises(InputError, match=r"segmentations/c.png: is missing"):
        shown_of(images, 3)


def test_images_that_cannot_be_used(images: Path) -> None:
    path, content = images / "images/a.png", (images / "images/a.png").read_bytes()
    for damaged, words in ((content[:200], "truncated or damaged"), (b"", "is empty"), (b"GIF89a", "damaged")):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=f"images/a.png: .*{words}"):
            shown_of(images)
    Image.new("RGBA", (56, 40)).save(path)
    with pytest.raises(InputError, match="mode RGBA"):
        shown_of(images)
    Image.new("L", (40, 56)).save(path)
    with pytest.raises(InputError, match=r"maps/a.npy: has the size 40x56 but .*images/a.png has 56x40"):
        shown_of(images)


def test_maps_that_cannot_be_used(images: Path) -> None:
    path = images / "maps/a.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"maps/a.npy: is truncated or damaged"):
        shown_of(images)
    for array, words in (
        (np.full((40, 56), np.nan, np.float32), "2240 voxels that are nan"),
        (np.zeros((40, 56), complex), "holds complex128"),
        (np.zeros(9), "of shape"),
        (np.zeros((3, 40, 56)), "has the size 3x40x56"),
    ):
        np.save(path, array)
        with pytest.raises(InputError, match=f"maps/a.npy: .*{words}"):
            shown_of(images)


def test_scans_that_cannot_be_used(scans: Path) -> None:
    path, content = scans / "images/anna.nii.gz", (scans / "images/anna.nii.gz").read_bytes()
    for damaged, words in (
        (content[: len(content) // 2], "truncated"),
        (gzip.decompress(content), "damaged"),
        (gzip.compress(b"x" * 1000), "is not a NIfTI file"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=f"images/anna.nii.gz: .*{words}"):
            shown_of(scans)
    for shape, words in (((4, 4, 4, 2, 2), "5 axes"), ((4, 4, 4, 65), "4 axes"), ((4, 4), "no volume")):
        nifti(path, np.ones(shape, np.int16))
        with pytest.raises(InputError, match=words):
            shown_of(scans)


def test_a_header_that_claims_more_than_the_file_can_hold(scans: Path) -> None:
    path = scans / "images/anna.nii.gz"
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[42:50] = np.array([800, 800, 800, 1], "<i2").tobytes()  # a gibibyte
    path.write_bytes(gzip.compress(bytes(content[:5000])))
    with pytest.raises(InputError, match="ends before its last voxel"):
        shown_of(scans)


def test_layers_at_other_places(scans: Path) -> None:
    moved = SCAN_AFFINE.copy()
    moved[2, 3] += 5
    nifti(scans / "truth/anna.nii.gz", np.zeros(SCAN_SHAPE, np.int16), moved)
    with pytest.raises(InputError, match=r"truth/anna.nii.gz: lies 5 mm away"):
        shown_of(scans)
    nifti(scans / "truth/anna.nii.gz", np.zeros((4, 5, 6), np.int16))
    with pytest.raises(InputError, match=r"truth/anna.nii.gz: has the size 4x5x6"):
        shown_of(scans)


def test_slices_of_each_scan(scans: Path, images: Path) -> None:
    found = read_slices(scans)
    assert set(found) == {"anna", "bert"} and found["anna"].highest == 7
    assert found["anna"].index == tuple(range(12)) and found["anna"].height_mm[2] == 17
    assert read_slices(images) == {}
    assert Slices((9, 4), (0.0, 1.0), (1.0, 2.0)).highest == 4
    text = (scans / "slices.csv").read_text()
    (scans / "slices.csv").write_text(text.replace("anna,3,", "anna,3.5,"))
    with pytest.raises(InputError, match=r"line 5: is no slice"):
        read_slices(scans)


@pytest.mark.parametrize(("plane", "axis"), [("axial", 2), ("coronal", 1), ("sagittal", 0), ("acquired", 2)])
def test_slices_lie_in_the_plane_of_the_model(tmp_path: Path, plane: str, axis: int) -> None:
    folder = write_scan_results(tmp_path / "scans", plane=plane)
    assert layout_of(read_findings(folder), SCAN_AFFINE).axes[0] == axis
