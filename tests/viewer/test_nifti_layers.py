"""Layers as the page gets them: one grid, pictures upright, values as they lie in the files."""

from __future__ import annotations

import gzip
import json
import shutil
import struct
from pathlib import Path

import nibabel
import numpy as np
import pytest
from asking import shelf_of
from PIL import Image

from hostile_files import pickled
from made_results import SCAN_AFFINE, SCAN_SHAPE, write_results, write_scan_results
from priorlens.errors import InputError
from priorlens.outputs import write_array
from priorlens.pictures import displayable
from priorlens.viewer.nifti_layers import channels_of, grid_of, layer_file, slice_axis, top_of
from priorlens.viewer.shelf import LAYERS, Shelved

ROWS, COLUMNS = 40, 56


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_results(
        tmp_path_factory.mktemp("data") / "written", ["a.png", "b.png", "c.png"], layers=True, truth=True
    )


@pytest.fixture
def results(tmp_path: Path, written: Path) -> Path:
    """Three images with all layers but a reconstruction: none, one and two regions."""
    return shutil.copytree(written, tmp_path / "results")


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    return write_scan_results(tmp_path / "scans")


def case(folder: Path, number: int = 1) -> Shelved:
    found = shelf_of(folder).get(number)
    assert found is not None
    return found


def nifti(one: Shelved, name: str) -> nibabel.Nifti1Image:
    content = layer_file(one, name)
    assert content is not None
    return nibabel.Nifti1Image.from_bytes(gzip.decompress(content))


def facts(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


# --- images


def test_an_image_is_one_slice_with_columns_first(results: Path) -> None:
    with Image.open(results / "images/b.png") as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (ROWS, COLUMNS)
    image = nifti(case(results, 2), "image")
    assert image.shape == (COLUMNS, ROWS, 1)
    np.testing.assert_array_equal(np.asarray(image.dataobj)[..., 0].T, pixels)


def test_a_picture_stands_upright(results: Path) -> None:
    """To the right x rises, down y falls, as an axial view shows them when left is left; the lowest row is y = 0."""
    image = nifti(case(results), "image")
    np.testing.assert_array_equal(image.affine, [[1, 0, 0, 0], [0, -1, 0, ROWS - 1], [0, 0, 1, 0], [0, 0, 0, 1]])
    assert (image.header["sform_code"], image.header["qform_code"]) == (1, 1)
    np.testing.assert_allclose(image.get_qform(), image.affine)
    assert image.header.get_xyzt_units()[0] == "mm"


def test_colours_stay_colours(tmp_path: Path, results: Path) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (ROWS, COLUMNS, 3), np.uint8)
    Image.fromarray(pixels).save(results / "images/a.png")
    found = np.asarray(nifti(case(results), "image").dataobj)[..., 0].T
    assert found.dtype.names == ("R", "G", "B")
    for channel, name in enumerate("RGB"):
        np.testing.assert_array_equal(found[name], pixels[..., channel])


def test_all_layers_of_an_image_lie_on_one_grid_with_their_own_values(results: Path) -> None:
    write_array(prepared(results / "reconstructions/c.npy"), np.full((1, ROWS, COLUMNS), 0.25, np.float32))
    one = case(results, 3)
    layers = {name: nifti(one, name) for name in LAYERS}
    for image in layers.values():
        assert image.shape == (COLUMNS, ROWS, 1)
        np.testing.assert_array_equal(image.affine, layers["image"].affine)
    values = {name: np.asarray(image.dataobj)[..., 0].T for name, image in layers.items()}
    np.testing.assert_array_equal(values["map"], np.load(results / "maps/c.npy"))
    for name, folder in (("segmentation", "segmentations"), ("truth", "truth")):
        with Image.open(results / folder / "c.png") as picture:
            np.testing.assert_array_equal(values[name], np.asarray(picture))
    assert set(np.unique(values["segmentation"])) == {0, 1, 2} and set(np.unique(values["truth"])) == {0, 255}
    assert (values["reconstruction"] == 0.25).all()


def prepared(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def test_a_reconstruction_in_colour_is_as_it_is_shown(results: Path) -> None:
    """Its own intensities may go from 0 to 1, of which whole numbers would leave nothing."""
    values = np.random.default_rng(4).uniform(size=(3, ROWS, COLUMNS)).astype(np.float32)
    write_array(prepared(results / "reconstructions/a.npy"), values)
    found = np.asarray(nifti(case(results), "reconstruction").dataobj)[..., 0].T
    shown = displayable(values)
    assert len(np.unique(shown)) > 100
    for channel, name in enumerate("RGB"):
        np.testing.assert_array_equal(found[name], shown[..., channel])


def test_equal_layers_are_equal_bytes_and_name_nothing(results: Path) -> None:
    first, again = (layer_file(case(results), "map") for _ in range(2))
    assert first is not None and first == again
    assert first[3] == 0, "gzip's header holds no name"


def test_there_may_be_no_layer_at_all(tmp_path: Path) -> None:
    one = case(write_results(tmp_path / "failed", ["a.png"], failed=[0]))
    assert grid_of(one) is None and layer_file(one, "map") is None and layer_file(one, "image") is None
    assert channels_of(one, "image") == [""]


# --- millimetres of images


def test_pixels_of_a_known_size(results: Path) -> None:
    facts(results / "verdicts.json", pixel_size=0.5)
    one = case(results)
    expected = [[0.5, 0, 0, 0], [0, -0.5, 0, (ROWS - 1) / 2], [0, 0, 0.5, 0], [0, 0, 0, 1]]
    for name in ("image", "map"):
        np.testing.assert_allclose(nifti(one, name).affine, expected)
    grid = grid_of(one)
    assert grid is not None and grid.pixel_size == 0.5


@pytest.mark.parametrize("size", [None, 0, -1, 1e-320, 1e300, float("nan"), float("inf"), "0.5", True, [1]])
def test_a_size_that_is_none_is_not_believed(results: Path, size: object) -> None:
    facts(results / "verdicts.json", pixel_size=size)
    np.testing.assert_allclose(nifti(case(results), "image").affine[:2, :2], [[1, 0], [0, -1]])


@pytest.mark.parametrize("size", [None, 0.5])
def test_the_place_of_a_region(results: Path, size: float | None) -> None:
    """In pixels, or in the millimetres that its table then has: the same place in the picture."""
    facts(results / "verdicts.json", pixel_size=size)
    grid = grid_of(case(results))
    assert grid is not None
    centre = {"row": 12.0, "column": 30.0} if size is None else {"x": 15.0, "y": 6.0}
    found = grid.position(centre)
    assert found is not None
    np.testing.assert_allclose(np.linalg.inv(grid.affine) @ (*found, 1), [30, 12, 0, 1], atol=1e-9)


@pytest.mark.parametrize("centre", [{}, {"row": 3.0}, {"column": 3.0}, {"row": np.nan, "column": 1.0}, {"x": 1.0}])
def test_a_region_without_a_place(results: Path, centre: dict[str, float]) -> None:
    grid = grid_of(case(results))
    assert grid is not None and grid.position(centre) is None


# --- scans


def test_layers_of_scans_are_the_files_as_they_lie(scans: Path) -> None:
    one = case(scans)
    for name, folder in LAYERS.items():
        path = scans / folder / "anna.nii.gz"
        assert layer_file(one, name) == (path.read_bytes() if path.is_file() else None)
    grid = grid_of(one)
    assert grid is not None and (grid.dimensions, grid.shape) == (3, SCAN_SHAPE)
    np.testing.assert_allclose(grid.affine, SCAN_AFFINE)
    assert grid.position({"x": 8.0, "y": -6.0, "z": 42.0}) == (8.0, -6.0, 42.0)
    assert grid.position({"x": 8.0, "y": -6.0}) is None


def test_without_an_image_the_map_tells_the_grid(scans: Path) -> None:
    (scans / "images/anna.nii.gz").unlink()
    grid = grid_of(case(scans))
    assert grid is not None and (grid.dimensions, grid.shape) == (3, SCAN_SHAPE)
    np.testing.assert_allclose(grid.affine, SCAN_AFFINE)


def test_names_of_channels(scans: Path) -> None:
    assert channels_of(case(scans), "image") == ["flair", "t1ce"]
    assert channels_of(case(scans), "map") == channels_of(case(scans), "truth") == [""]
    for told in (["flair"], "flair", None, {"a": 1}, 3):
        facts(scans / "model.json", scans={"channels": told})
        assert channels_of(case(scans), "image") == ["1", "2"], told


@pytest.mark.parametrize(("plane", "axis"), [("axial", 2), ("coronal", 1), ("sagittal", 0), ("acquired", 2), (7, 2)])
def test_slices_follow_one_another_along_the_model_s_plane(tmp_path: Path, plane: str, axis: int) -> None:
    one = case(write_scan_results(tmp_path / "scans", plane=plane))
    grid = grid_of(one)
    assert grid is not None and slice_axis(one, grid) == axis


def test_the_axis_is_one_of_the_scan_s_own(tmp_path: Path) -> None:
    turned = SCAN_AFFINE[:, [2, 0, 1, 3]]
    one = case(write_scan_results(tmp_path / "scans", affine=turned))
    grid = grid_of(one)
    assert grid is not None and slice_axis(one, grid) == 0, "the first axis of these goes up"


# --- a map by itself


def test_the_highest_fiftieth_of_a_map(results: Path) -> None:
    values = np.linspace(-1, 4, ROWS * COLUMNS, dtype=np.float32).reshape(ROWS, COLUMNS)
    write_array(results / "maps/a.npy", values)
    assert np.mean(values > top_of(results / "maps/a.npy")) == pytest.approx(0.02, abs=1e-3)


# --- damaged files


def refused(one: Shelved, name: str, *says: str) -> None:
    with pytest.raises(InputError) as error:
        layer_file(one, name)
    assert "\n" not in str(error.value)
    for part in says:
        assert part in str(error.value), str(error.value)


def test_a_pickled_map_is_not_obeyed(tmp_path: Path, results: Path) -> None:
    (results / "maps/a.npy").write_bytes(pickled(tmp_path / "done"))
    refused(case(results), "map", "a.npy")
    with pytest.raises(InputError):
        top_of(results / "maps/a.npy")
    assert not (tmp_path / "done").exists()
    np.load(results / "maps/a.npy", allow_pickle=True)
    assert (tmp_path / "done").exists(), "obeyed, it would have been seen"


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"no map", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_damaged_layers_are_named(results: Path, content: bytes) -> None:
    (results / "maps/a.npy").write_bytes(content)
    refused(case(results), "map", "a.npy")
    (results / "images/a.png").write_bytes(content)
    refused(case(results), "image", "a.png")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_maps_that_are_no_numbers(results: Path, value: float) -> None:
    write_array(results / "maps/a.npy", np.full((ROWS, COLUMNS), value, np.float32))
    refused(case(results), "map", "a.npy", "nan or infinite")


@pytest.mark.parametrize("cut", [0, 10, 60])
def test_damaged_scans_have_no_grid(scans: Path, cut: int) -> None:
    path = scans / "images/anna.nii.gz"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(InputError, match="anna"):
        grid_of(case(scans))


@pytest.mark.parametrize("steps", [np.zeros(12), np.full(12, np.nan), np.array([1.0, 1, 0, 0] * 3)])
def test_a_scan_that_lies_nowhere(scans: Path, steps: np.ndarray) -> None:
    path = scans / "images/anna.nii.gz"
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[252:256], raw[280:328] = struct.pack("<2h", 0, 1), steps.astype("<f4").tobytes()
    path.write_bytes(gzip.compress(bytes(raw)))
    with pytest.raises(InputError, match="anna"):
        grid_of(case(scans))


def test_a_scan_whose_header_lies(scans: Path) -> None:
    path = scans / "images/anna.nii.gz"
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[42:48] = struct.pack("<3h", 30000, 30000, 30000)
    path.write_bytes(gzip.compress(bytes(raw)))
    with pytest.raises(InputError, match="million voxels"):
        grid_of(case(scans))
