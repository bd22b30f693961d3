"""The model of cubes: what its fit keeps, what its maps look like, and that nothing is lost on the way to a folder."""

import json

import numpy as np
import pytest
import torch

from priorlens import image_prior
from priorlens.checkpoint import CONFIG, TENSORS
from priorlens.cube_model import DRAWS, METHOD, CubeModel
from priorlens.errors import InputError, ModelError
from priorlens.klip import SIGMAS, WIDTHS
from priorlens.progress import Progress

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


GROUPS = [f"p{index // 2}" for index in range(10)]


@pytest.fixture(scope="module")
def told() -> list[Progress]:
    return []


@pytest.fixture(scope="module")
def fitted(told) -> CubeModel:
    return CubeModel(steps=2, device="cpu").fit(cubes(10), groups=GROUPS, on_progress=told.append)


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


def test_readings_of_the_cubes_held_out_are_standardised(fitted):
    """Of these the map's mean is zero; and the healthy statistics are of their maps."""
    healthy = fitted.healthy_
    assert healthy.anomaly_mean == pytest.approx(0, abs=1e-3)
    assert healthy.map_low < healthy.threshold < healthy.map_high
    assert -1 < healthy.map_low < 1


def test_a_map_for_every_cube_whatever_stands_beside_it(fitted):
    given = cubes(5, seed=3)
    found = fitted.score(given)
    assert len(found) == 5
    assert all(one.shape == (SIDE,) * 3 and one.dtype == np.float32 and np.isfinite(one).all() for one in found)
    np.testing.assert_allclose(fitted.score(given[4:])[0], found[4], atol=1e-4)
    for one, again in zip(found, fitted.score(given), strict=True):
        np.testing.assert_array_equal(one, again)


def test_a_planted_blob_stands_out(fitted):
    """Where nothing was learned yet but that images are about a half with noise, bright places are surprising."""
    [cube] = cubes(1, seed=4)
    planted = cube.copy()
    planted[:, 6:10, 6:10, 6:10] = 1.4
    before, after = fitted.score([cube, planted])
    assert after[6:10, 6:10, 6:10].mean() > before[6:10, 6:10, 6:10].mean() + 1
    assert after[6:10, 6:10, 6:10].mean() > after[:3].mean() + 1


def test_save_and_load(fitted, saved):
    again = CubeModel.load(saved, device="cpu")
    given = cubes(2, seed=5)
    for one, other in zip(fitted.score(given), again.score(given), strict=True):
        np.testing.assert_array_equal(one, other)
    assert again.describe() == fitted.describe()
    assert again.healthy_ == fitted.healthy_ and again.provenance_ == fitted.provenance_
    assert json.loads((saved / CONFIG).read_text())["source"] == "made"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"method": "klip"}, "holds a model of method 'klip'"),
        ({"sigmas": [0.1]}, "do not belong together"),
        ({"widths": None}, "do not belong together"),
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
    [found] = model.score(cubes(1, channels=2, side=9, seed=7))
    assert found.shape == (9, 9, 9) and np.isfinite(found).all()
