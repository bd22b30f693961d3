"""Models of scans: maps on the scans' own grid, slices by name and height, and which scans a model has met."""

import dataclasses
import json
from functools import partialmethod
from pathlib import Path

import numpy as np
import pytest
import torch

from priorlens import held_out, image_prior, scan_model, weighing
from priorlens.anodode import AnoDODE
from priorlens.checkpoint import CONFIG, TENSORS
from priorlens.cube_model import CubeModel
from priorlens.errors import InputError, ModelError
from priorlens.feature_prior import FeaturePrior
from priorlens.scan_model import AT_ONCE, HIGHEST, SCANS, ScanModel, is_scan_model, setup_of_scans
from priorlens.volumes.scan_body import scan_body
from priorlens.volumes.scan_preparation import ScanPreparation
from priorlens.volumes.volume import Volume
from priorlens.volumes.voxel_intensity import VoxelIntensity

SHAPE = (40, 48, 56)  # of sagittal slices: columns, rows and slices of the stack are the third, second and first
STEPS = np.array([[0.0, 0.0, -1.0], [1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])  # i to the front, j to the feet, k to the left


@pytest.fixture(autouse=True, scope="module")
def small():
    """The same sums in every run, on one core; few artefacts and steps, networks of a few thousand parameters."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(held_out, "PLANTED_EACH", 1)
        patch.setattr(weighing, "_FEWEST_STEPS", 20)
        patch.setattr(image_prior, "_DENOISER_3D", (8, 8))
        patch.setattr(image_prior, "_VARIANCE_3D", (8, 8))
        for name in ("likelihood", "residual"):
            patch.setattr(FeaturePrior, name, partialmethod(getattr(FeaturePrior, name), steps=1))
        yield
    torch.set_num_threads(threads)


def scan(seed, bright=None, units="arbitrary", channels=1):
    """A head of 2 mm voxels, stored sagittally: darker inside, its texture by the seed; a bright blob where asked."""
    rng = np.random.default_rng(seed)
    places = np.indices(SHAPE)
    middle = np.array(SHAPE) / 2 - 0.5
    distance = np.sqrt(
        sum(((place - m) / (0.4 * side)) ** 2 for place, m, side in zip(places, middle, SHAPE, strict=True))
    )
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = 2 * STEPS, (50.0, -40.0, 60.0)
    voxels = np.where(distance < 1, 100 + 40 * distance, 0) * (distance < 1)
    voxels = np.where(distance < 1, voxels + 6 * rng.standard_normal(SHAPE), 0)
    if bright is not None:
        blob = sum((place - b) ** 2 for place, b in zip(places, bright, strict=True)) <= 5**2
        voxels[blob] += 150
    stacked = np.stack([voxels * (channel + 1) for channel in range(channels)]).astype(np.float32)
    return Volume(stacked, affine, units, Path(f"scan{seed}.nii.gz"), tuple("ab"[:channels]) if channels > 1 else ("",))


def preparation(**options):
    given = {
        "channels": ("",),
        "units": "arbitrary",
        "intensities": (VoxelIntensity("robust"),),
        "plane": "axial",
        "dimensions": "2d",
        "spacing": 2.0,
        "size": 64,
        "neighbours": 4.0,
    }
    return ScanPreparation(**{**given, **options})


def fitted_to(chosen, scans, each):
    """AnoDODE, fitted to some slices of these scans."""
    images, groups = [], []
    for number, volume in enumerate(scans):
        prepared = chosen.prepare(volume)
        slices = prepared.looked_at()[:: max(1, len(prepared.looked_at()) // each)]
        for index in slices:
            found = prepared.images([index])
            images += found
            groups += [f"p{number} slab {index // 8}"] * len(found)
    return ScanModel(chosen, AnoDODE(size=chosen.size, steps=2, device="cpu").fit(images, groups=groups))


@pytest.fixture(scope="module")
def model() -> ScanModel:
    return fitted_to(preparation(), [scan(0), scan(1)], 5)


@pytest.fixture(scope="module")
def scored(model):
    return model.score(scan(7))


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans") / "model"
    model.save(folder, facts={"source": "made"})
    return folder


def judging(model, *scans):
    """What is usual learned of whole scans."""
    model.detector.learn_usual([model.errors_of(model.preparation.prepare(one)) for one in scans])
    return model


@pytest.fixture(scope="module")
def cubes() -> ScanModel:
    chosen = preparation(dimensions="3d", size=16, spacing=3.0)
    rng = np.random.default_rng(0)
    pieces = [(n, cube) for n in range(3) for cube in chosen.prepare(scan(n)).healthy_cubes(None, 4, rng)]
    detector = CubeModel(steps=2, device="cpu").fit([cube for _, cube in pieces], groups=[f"p{n}" for n, _ in pieces])
    return judging(ScanModel(chosen, detector), scan(1))


def one_line(error, *parts):
    text = str(error.value)
    assert "\n" not in text
    for part in parts:
        assert str(part) in text, text


# --- slices


def test_the_map_is_on_the_scan_s_own_grid(model, scored):
    """Outside the body it is what is usual in healthy slices, and so in slices that are not looked at."""
    usual = np.float32(model.healthy_.map_low)
    assert scored.anomaly_map.shape == SHAPE and scored.anomaly_map.dtype == np.float32
    assert np.isfinite(scored.anomaly_map).all()
    assert (scored.anomaly_map[~scored.body] == usual).all()
    np.testing.assert_array_equal(scored.body, scan_body(scan(7)))
    others = sorted(set(range(SHAPE[1])) - set(scored.slices))
    assert others and (scored.anomaly_map[:, others] == usual).all()
    shown = np.take(scored.anomaly_map, scored.slices, 1)[np.take(scored.body, scored.slices, 1)]
    assert (shown != usual).mean() > 0.99


def test_slices_by_index_and_height(scored):
    """Axial slices run along the scan's second axis, which goes down: from the feet their own indices fall."""
    assert scored.axis == 1
    assert list(scored.slices) == sorted(scored.slices, reverse=True)
    assert len(scored.slices) == len(scored.slice_anomaly) == len(scored.heights)
    np.testing.assert_allclose(scored.heights, 60 - 2 * np.array(scored.slices))
    areas = scored.body.sum((0, 2)) * 4
    assert sorted(scored.slices) == [index for index, area in enumerate(areas) if area >= 0.02 * 128**2]


def test_the_scan_s_anomaly_is_that_of_its_highest_slices(scored):
    count = max(1, round(HIGHEST * len(scored.slices)))
    assert scored.anomaly == pytest.approx(np.sort(scored.slice_anomaly)[-count:].mean(), rel=1e-6)
    assert scored.nfe > 0 and scored.nfe % len(scored.slices) == 0


def test_scores_are_those_of_the_slices_as_images(model, scored):
    images = scored.prepared.images(scored.prepared.looked_at()[:3])
    alone = model.detector.score(images)
    np.testing.assert_allclose(alone.anomaly, scored.slice_anomaly[:3], rtol=2e-2, atol=2e-2)


def noted(model, volume, monkeypatch, at_once):
    """What the model says where so many slices are given together, and how far it told that it is."""
    monkeypatch.setattr(scan_model, "AT_ONCE", at_once)
    told = []
    return model.score(volume, lambda done, total: told.append((done, total))), told


def thin(volume):
    """Seven slices of it."""
    kept = np.abs(np.arange(SHAPE[1]) - 24)[:, None] < 4
    return dataclasses.replace(volume, voxels=np.where(kept, volume.voxels, 0))


def test_slices_are_told_as_they_are_done(model, monkeypatch):
    """Never fewer than before, and all of them in the end; the same comes of it however they are parted."""
    whole, told = noted(model, thin(scan(7)), monkeypatch, 99)
    assert told == [(7, 7)] and len(whole.slices) == 7
    for at_once, expected in ((3, [(3, 7), (6, 7), (7, 7)]), (1, [(done, 7) for done in range(1, 8)]), (7, [(7, 7)])):
        parted, told = noted(model, thin(scan(7)), monkeypatch, at_once)
        assert told == expected
        np.testing.assert_allclose(parted.anomaly_map, whole.anomaly_map, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(parted.slice_anomaly, whole.slice_anomaly, rtol=1e-4, atol=1e-4)
        assert parted.anomaly == pytest.approx(whole.anomaly, rel=1e-4, abs=1e-4)
        np.testing.assert_array_equal(parted.slices, whole.slices)
        np.testing.assert_array_equal(parted.heights, whole.heights)
        assert parted.nfe == whole.nfe
    assert AT_ONCE < 50, "of a scan of fifty slices there is word before its end"


def test_a_planted_blob_scores_higher_where_it_lies(model, scored):
    place = (20, 22, 24)
    found = model.score(scan(7, bright=place))
    above = found.anomaly_map - scored.anomaly_map
    blob = sum((index - p) ** 2 for index, p in zip(np.indices(SHAPE), place, strict=True)) <= 4**2
    far = found.body & (sum((index - p) ** 2 for index, p in zip(np.indices(SHAPE), place, strict=True)) > 14**2)
    assert above[blob].mean() > 3 * np.abs(above[far]).mean()
    assert found.anomaly > scored.anomaly
    highest = found.slices[int(found.slice_anomaly.argmax())]
    assert abs(highest - place[1]) <= 6


def test_bodies_larger_than_the_square(model):
    """A spacing half as large: each slice in several tiles, one map, one score a slice."""
    wide = ScanModel(dataclasses.replace(model.preparation, spacing=1.2), model.detector)
    volume = scan(7)
    prepared = wide.preparation.prepare(volume)
    tiles = len(prepared.images(prepared.looked_at()[:1]))
    assert tiles > 1
    few = dataclasses.replace(volume, voxels=np.where(np.abs(np.arange(48) - 24)[:, None] < 4, volume.voxels, 0))
    found = wide.score(few)
    assert found.anomaly_map.shape == SHAPE and len(found.slice_anomaly) == len(found.slices) == 7
    assert found.nfe % (7 * len(found.prepared.images(found.prepared.looked_at()[:1]))) == 0


def test_nothing_that_is_large_enough(model):
    volume = scan(7)
    crumb = np.zeros_like(volume.voxels)
    crumb[:, 18:22, 22:26, 26:30] = volume.voxels[:, 18:22, 22:26, 26:30]
    with pytest.raises(InputError) as error:
        model.score(dataclasses.replace(volume, voxels=crumb))
    one_line(error, "scan7.nii.gz: shows no slice with enough of a body")


def test_other_scans_are_refused(model):
    for wrong, says in ((scan(7, units="HU"), "Hounsfield"), (scan(7, channels=2), "has 2 channels")):
        with pytest.raises(InputError) as error:
            model.score(wrong)
        one_line(error, "scan7.nii.gz: has", says)


def test_a_scan_of_the_fit_is_known_again(model):
    assert "fitted to slices of this scan" in model.met(model.preparation.prepare(scan(1)))
    assert model.met(model.preparation.prepare(scan(7))) == ""
    elsewhere = dataclasses.replace(scan(0), path=Path("other/name.nii"))
    assert model.met(model.preparation.prepare(elsewhere)), "by its voxels, not by its name"


# --- a folder


def test_save_and_load(model, scored, saved):
    assert is_scan_model(saved)
    again = ScanModel.load(saved, device="cpu")
    assert again.preparation == model.preparation and again.describe() == model.describe()
    found = again.score(scan(7))
    np.testing.assert_array_equal(found.anomaly_map, scored.anomaly_map)
    np.testing.assert_array_equal(found.slice_anomaly, scored.slice_anomaly)
    assert found.anomaly == scored.anomaly
    assert again.met(again.preparation.prepare(scan(1))) and not again.met(again.preparation.prepare(scan(7)))
    assert json.loads((saved / CONFIG).read_text())["source"] == "made"
    assert setup_of_scans(again) == "rule=combined, scans"


def changed(saved, folder, change):
    folder.mkdir(exist_ok=True)
    (folder / TENSORS).symlink_to(saved / TENSORS)
    config = {**json.loads((saved / CONFIG).read_text()), **change}
    (folder / CONFIG).write_text(json.dumps({key: value for key, value in config.items() if value != "gone"}))
    return folder


def test_a_model_of_images_is_refused(saved, tmp_path):
    folder = changed(saved, tmp_path / "images", {SCANS: "gone"})
    assert not is_scan_model(folder)
    with pytest.raises(ModelError) as error:
        ScanModel.load(folder)
    one_line(error, folder, "is a model of images, not of scans")
    with pytest.raises(ModelError):
        is_scan_model(tmp_path / "nowhere")


@pytest.mark.parametrize("found", [{}, None, [], "axial", {"plane": "axial"}, 3])
def test_preparations_that_cannot_be_read(saved, tmp_path, found):
    folder = changed(saved, tmp_path / "changed", {SCANS: found})
    with pytest.raises(ModelError) as error:
        ScanModel.load(folder)
    one_line(error, folder, "does not say how scans are prepared; fit again")


# --- cubes


def test_a_scan_larger_than_a_cube(cubes):
    """Eight cubes or more, one map. A slice is judged by the highest of all readings, of which the map is the mean."""
    volume = scan(7)
    found = cubes.score(volume)
    count = len(found.prepared.cubes())
    assert count >= 8 and found.nfe == count * cubes.detector.nfe_
    assert found.anomaly_map.shape == SHAPE and np.isfinite(found.anomaly_map).all()
    assert (found.anomaly_map[~found.body] == np.float32(cubes.healthy_.map_low)).all()
    np.testing.assert_array_equal(found.body, scan_body(volume))
    assert len(found.slice_anomaly) == len(found.slices) == len(found.heights)
    for index, anomaly in zip(found.slices, found.slice_anomaly, strict=True):
        values = np.sort(found.anomaly_map[:, index][found.body[:, index]])
        assert anomaly > values[-max(1, round(0.02 * values.size)) :].mean()


def test_cubes_are_told_as_they_are_done(cubes, monkeypatch):
    count = len(cubes.preparation.prepare(scan(7)).cubes())
    whole, told = noted(cubes, scan(7), monkeypatch, 999)
    assert told == [(count, count)]
    parted, told = noted(cubes, scan(7), monkeypatch, 3)
    assert told == [(min(done, count), count) for done in range(3, count + 3, 3)]
    np.testing.assert_allclose(parted.anomaly_map, whole.anomaly_map, rtol=1e-4, atol=1e-4)
    assert parted.nfe == whole.nfe


def test_cubes_show_a_planted_blob_where_it_lies(cubes):
    place = (20, 22, 24)
    before, after = (cubes.score(scan(7, bright=bright)) for bright in (None, place))
    above = after.anomaly_map - before.anomaly_map
    index = np.array(np.unravel_index(above.argmax(), SHAPE))
    assert np.linalg.norm(index - place) <= 6, "a cube's pixel is a voxel and a half"
    assert after.anomaly > before.anomaly
    assert abs(after.slices[int(after.slice_anomaly.argmax())] - place[1]) <= 6


def test_cubes_in_a_folder(cubes, tmp_path):
    folder = tmp_path / "model"
    cubes.save(folder)
    assert is_scan_model(folder)
    again = ScanModel.load(folder, device="cpu")
    assert isinstance(again.detector, CubeModel) and again.preparation == cubes.preparation
    one, other = (found.score(scan(8)) for found in (cubes, again))
    np.testing.assert_array_equal(one.anomaly_map, other.anomaly_map)
    assert one.anomaly == other.anomaly
    assert again.met(again.preparation.prepare(scan(0))) == "", "drawn at random, they cannot tell"
    assert setup_of_scans(again) == "rule=coherent, scans"


# --- slabs of several channels


def test_slabs_of_two_channels_make_six(tmp_path):
    """Fitted, saved, loaded and scored: nothing on the way takes images for grey or colour."""
    names = {"channels": ("a", "b"), "intensities": (VoxelIntensity("robust"),) * 2}
    chosen = preparation(dimensions="2.5d", **names)
    several = fitted_to(chosen, [scan(0, channels=2), scan(1, channels=2)], 4)
    assert several.detector.channels_ == 6
    folder = tmp_path / "model"
    several.save(folder)
    volume = scan(7, channels=2)
    thin = dataclasses.replace(volume, voxels=np.where(np.abs(np.arange(48) - 24)[:, None] < 3, volume.voxels, 0))
    one, other = (found.score(thin) for found in (several, ScanModel.load(folder, device="cpu")))
    assert one.anomaly_map.shape == SHAPE
    np.testing.assert_array_equal(one.anomaly_map, other.anomaly_map)


# --- slices, voxel by voxel


@pytest.fixture(scope="module")
def flat() -> ScanModel:
    """KLIP of slices."""
    chosen = preparation(size=32, spacing=4.0)
    pieces = [
        (f"p{n}", image.pixels)
        for n in range(3)
        for image in chosen.prepare(scan(n)).images(chosen.prepare(scan(n)).looked_at()[::8])
    ]
    detector = CubeModel(steps=2, device="cpu").fit([one for _, one in pieces], groups=[group for group, _ in pieces])
    return judging(ScanModel(chosen, detector), scan(0), scan(2))


def test_the_model_of_cubes_sees_slices_too(flat, tmp_path):
    """KLIP of slices: one map, the scans of the fit known again, and the same from its folder."""
    told: list[tuple[int, int]] = []
    found = flat.score(scan(7, bright=(20, 22, 24)), lambda done, total: told.append((done, total)))
    assert found.anomaly_map.shape == SHAPE and found.nfe == len(found.slices) * flat.detector.nfe_
    assert told[-1] == (len(found.slices), len(found.slices)) and told == sorted(told)
    assert (found.anomaly_map[~found.body] == np.float32(flat.healthy_.map_low)).all()
    place = np.array(np.unravel_index(found.anomaly_map.argmax(), SHAPE))
    assert np.linalg.norm(place - (20, 22, 24)) <= 8, "a pixel is two voxels"
    assert abs(found.slices[int(found.slice_anomaly.argmax())] - 22) <= 6
    assert flat.met(flat.preparation.prepare(scan(1))) and not flat.met(flat.preparation.prepare(scan(7)))
    flat.save(tmp_path / "model")
    again = ScanModel.load(tmp_path / "model", device="cpu")
    one, other = (model.score(scan(8)) for model in (again, flat))
    np.testing.assert_array_equal(one.anomaly_map, other.anomaly_map)
    np.testing.assert_array_equal(one.slice_anomaly, other.slice_anomaly)


def test_slices_with_lesions_never_say_what_is_usual(flat):
    """What is said of the others is, bit for bit, as in the whole scan: they meet the same noise, at the same place."""
    prepared = flat.preparation.prepare(scan(5, bright=(20, 22, 24)))
    lesions = scan(5, bright=(20, 22, 24)).voxels[0] > scan(5).voxels[0] + 100
    whole, free = flat.errors_of(prepared), flat.errors_of(prepared, lesions)
    kept = [place for place, index in enumerate(prepared.looked_at()) if index in prepared.without_lesions(lesions)]
    assert 0 < len(kept) == len(free.body) <= len(whole.body) - 8
    torch.testing.assert_close(free.errors, whole.errors[kept], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(free.places, whole.places[kept])
    assert np.diff(free.places).max() >= 9 * np.diff(free.places).min(), "and leave a gap"


def test_a_scan_s_gain_and_offset_do_not_matter(flat):
    volume = scan(7, bright=(20, 22, 24))
    inside = volume.voxels > 0
    other = dataclasses.replace(volume, voxels=np.where(inside, 3 * volume.voxels + 50, 0).astype(np.float32))
    one, two = flat.score(volume), flat.score(other)
    np.testing.assert_allclose(one.slice_anomaly, two.slice_anomaly, rtol=1e-2, atol=1e-2)
    np.testing.assert_allclose(one.anomaly_map, two.anomaly_map, rtol=5e-2, atol=5e-2)


def test_slices_in_several_tiles(flat):
    """Errors are blended before they are squared: of a body larger than the square there is one map, without seams."""
    wide = ScanModel(dataclasses.replace(flat.preparation, spacing=2.0), flat.detector)
    prepared = wide.preparation.prepare(scan(7))
    tiles = len(prepared.images(prepared.looked_at()[:1]))
    assert tiles > 1
    stack = wide.errors_of(prepared)
    assert (
        stack.errors.shape[-2:] == prepared.canvas.shape and stack.nfe == len(stack.body) * tiles * flat.detector.nfe_
    )
    found = wide.score(scan(7))
    assert found.nfe == stack.nfe and np.isfinite(found.anomaly_map).all()
