"""The model of cubes: what its fit keeps, what its maps look like, and that nothing is lost on the way to a folder."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from priorlens import image_prior
from priorlens.checkpoint import CONFIG, TENSORS
from priorlens.cube_model import METHOD, CubeModel
from priorlens.errors import InputError, ModelError
from priorlens.progress import Progress
from priorlens.scan_surprise import DRAWS, SIGMAS, WIDTHS, ErrorStack, peaks

SIDE = 16


@pytest.fixture(autouse=True, scope="module")
def small():
    """Networks of a few thousand parameters, and the same sums in every run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_prior, "_DENOISER_3D", (8, 8))
        patch.setattr(image_prior, "_VARIANCE_3D", (8, 8))
        yield
    torch.set_num_threads(threads)


def cubes(count, channels=1, side=SIDE, seed=0):
    """Smooth ones: a ramp, brighter to one side, and some noise."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0.2, 0.6, side)[:, None, None]
    return [
        (ramp + rng.uniform(0, 0.1) + 0.03 * rng.standard_normal((channels, side, side, side))).astype(np.float32)
        for _ in range(count)
    ]


def stack(model, cube):
    """A scan that is one cube, all of it body."""
    [errors] = model.signed([cube], [0])
    there = torch.ones(cube.shape[1:], dtype=torch.bool)
    return ErrorStack(
        Path("scan"), torch.from_numpy(np.moveaxis(errors, 2, 0).copy()), there, np.arange(SIDE) * 1.0, 1.0
    )


def score(model, cube):
    return model.judge(stack(model, cube)).mean


GROUPS = [f"p{index // 2}" for index in range(10)]


@pytest.fixture(scope="module")
def told() -> list[Progress]:
    return []


@pytest.fixture(scope="module")
def fitted(told) -> CubeModel:
    model = CubeModel(steps=2, device="cpu").fit(cubes(10), groups=GROUPS, on_progress=told.append)
    return model.learn_usual([stack(model, cube) for cube in cubes(3, seed=9)])


@pytest.fixture(scope="module")
def saved(fitted, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cubes") / "model"
    fitted.save(folder, facts={"source": "made"})
    return folder


def test_what_was_fitted(fitted, told):
    """Held out are whole patients: three tenths of ten cubes, at the most."""
    assert fitted.trained_on_["patients"] == 5
    assert fitted.trained_on_["images"] + fitted.trained_on_["held_out"] == 10
    assert fitted.trained_on_["held_out"] in (2, 4)
    assert fitted.usual_.shape == fitted.spread_.shape == (len(SIGMAS) * len(WIDTHS),)
    assert (fitted.spread_ > 0).all() and fitted.nfe_ == len(SIGMAS) * DRAWS
    assert told, "progress is told"
    described = json.loads(json.dumps(fitted.describe()))
    assert described["method"] == METHOD and described["steps"] == 2 and described["rule"] == "coherent"
    assert sum(described["parameters"].values()) > 1000


def test_healthy_statistics_are_of_the_scans_that_what_is_usual_was_read_off(fitted):
    """Of their maps and of their slices' figures; each reading is standardised, so that the maps' mean is zero."""
    found = [fitted.judge(stack(fitted, cube)) for cube in cubes(3, seed=9)]
    maps = np.concatenate([one.mean.ravel() for one in found])
    healthy = fitted.healthy_
    assert maps.mean() == pytest.approx(0, abs=1e-4)
    assert healthy.map_low == pytest.approx(np.median(maps), abs=1e-5)
    assert healthy.threshold == pytest.approx(np.quantile(maps, 0.995), rel=1e-5)
    figures = np.concatenate([peaks(one.highest, np.ones((SIDE,) * 3, bool)) for one in found])
    assert healthy.anomaly_mean == pytest.approx(figures.mean(), rel=1e-5)
    assert healthy.anomaly_std == pytest.approx(figures.std(), rel=1e-4)


def test_one_scan_without_lesions_is_enough_and_none_is_refused(fitted):
    model = CubeModel(steps=1, device="cpu").fit(cubes(6), groups=GROUPS[:6])
    with pytest.raises(InputError, match="no scan has slices without lesion; add"):
        model.learn_usual([])
    model.learn_usual([stack(model, cubes(1)[0])])
    assert np.isfinite(score(model, cubes(1, seed=3)[0])).all() and model.healthy_.map_high > model.healthy_.map_low


def test_errors_depend_on_their_number_and_not_on_what_stands_beside_them(fitted):
    given = cubes(5, seed=3)
    found = fitted.signed(given, range(5))
    assert all(one.shape == (len(SIGMAS), 1, *[SIDE] * 3) and one.dtype == np.float32 for one in found)
    np.testing.assert_allclose(fitted.signed(given[4:], [4])[0], found[4], atol=1e-4)
    for one, again in zip(found, fitted.signed(given, range(5)), strict=True):
        np.testing.assert_array_equal(one, again)
    assert np.abs(fitted.signed(given[4:], [5])[0] - found[4]).max() > 0.1


def test_a_planted_blob_stands_out(fitted):
    """Where nothing was learned yet but that images are about a half with noise, bright places are surprising."""
    [cube] = cubes(1, seed=4)
    planted = cube.copy()
    planted[:, 6:10, 6:10, 6:10] = 1.4
    before, after = (score(fitted, one) for one in (cube, planted))
    assert after[6:10, 6:10, 6:10].mean() > before[6:10, 6:10, 6:10].mean() + 1
    assert after[6:10, 6:10, 6:10].mean() > after[:3].mean() + 1


def test_save_and_load(fitted, saved):
    again = CubeModel.load(saved, device="cpu")
    for cube in cubes(2, seed=5):
        np.testing.assert_array_equal(score(fitted, cube), score(again, cube))
    assert again.describe() == fitted.describe()
    assert again.healthy_ == fitted.healthy_ and again.provenance_ == fitted.provenance_
    assert json.loads((saved / CONFIG).read_text())["source"] == "made"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"method": "klip"}, "holds a model of method 'klip'"),
        ({"sigmas": [0.1]}, "reads scans in another way than this version does; fit again"),
        ({"widths": None}, "reads scans in another way"),
        ({"null": "training"}, "reads scans in another way"),
        ({"draws": 4}, "reads scans in another way"),
        ({"channels": 2}, "do not belong together"),
        ({"settings": {"stages": 3}}, "do not belong together"),
        ({"healthy": {}}, "do not belong together"),
    ],
)
def test_folders_that_hold_something_else(saved, tmp_path, change, says):
    (tmp_path / TENSORS).symlink_to(saved / TENSORS)
    (tmp_path / CONFIG).write_text(json.dumps({**json.loads((saved / CONFIG).read_text()), **change}))
    with pytest.raises(ModelError, match=says) as error:
        CubeModel.load(tmp_path)
    assert str(error.value).startswith(str(tmp_path)) and "\n" not in str(error.value)


def test_folders_of_earlier_versions(saved, tmp_path):
    """They had neither a null nor joins, and other widths."""
    (tmp_path / TENSORS).symlink_to(saved / TENSORS)
    config = json.loads((saved / CONFIG).read_text())
    earlier = {key: value for key, value in config.items() if key not in ("null", "joins", "draws")}
    (tmp_path / CONFIG).write_text(json.dumps(earlier))
    with pytest.raises(ModelError, match="; fit again"):
        CubeModel.load(tmp_path)


def test_one_patient_is_refused():
    with pytest.raises(InputError):
        CubeModel(steps=1, device="cpu").fit(cubes(8), groups=["p"] * 8)


def test_the_seed_decides():
    few, groups = cubes(6, side=8), GROUPS[:6]
    one, again, other = (
        CubeModel(steps=1, seed=seed, device="cpu").fit(few, groups=groups).prior_.tensors() for seed in (0, 0, 1)
    )
    assert all(torch.equal(value, again[name]) for name, value in one.items())
    assert not all(torch.equal(value, other[name]) for name, value in one.items())


def test_two_channels_and_sides_of_any_length():
    model = CubeModel(steps=1, device="cpu").fit(cubes(6, channels=2, side=9), groups=GROUPS[:6])
    [found] = model.signed(cubes(1, channels=2, side=9, seed=7), [0])
    assert found.shape == (len(SIGMAS), 2, 9, 9, 9) and np.isfinite(found).all()
