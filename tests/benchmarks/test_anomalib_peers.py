"""Every peer of anomalib learns from a few images, is saved, and says the same after it is read again."""

import importlib.util
from dataclasses import replace

import numpy as np
import pytest
import torch

if importlib.util.find_spec("anomalib") is None:
    pytest.skip("needs the environment of anomalib", allow_module_level=True)

from pathlib import Path

from benchmarks.method import PEER_MINUTES, Task
from benchmarks.methods import anomalib_trained
from benchmarks.methods.anomalib_backbone import as_seen, layers, shared_backbone
from benchmarks.methods.anomalib_list import ENTRIES
from benchmarks.study import Fold
from priorlens.features import load_pyramid
from priorlens.images import Image

SIZE = 64
BY_NAME = {entry.name: entry for entry in ENTRIES}


def made_image(seed: int, spot: bool = False) -> Image:
    """A smooth disc with noise; the spot is a bright square."""
    noise = np.random.default_rng(seed)
    y, x = np.mgrid[:48, :40] / 40
    pixels = 0.5 * ((x - 0.5) ** 2 + (y - 0.6) ** 2 < 0.15) + 0.05 * noise.random((48, 40))
    if spot:
        pixels[18:26, 14:22] = 1
    return Image(pixels.astype(np.float32)[None], Path(f"{seed}.png"), 1.0)


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> Task:
    folder = tmp_path_factory.mktemp("peer")
    images = [made_image(seed) for seed in range(20)]
    return Task(images, [str(i) for i in range(20)], "range", SIZE, 0, 0.02, Fold(folder), folder)


@pytest.fixture(scope="module")
def fitted(task):
    """Each peer with what its training said, fitted once."""
    kept = {}

    def fit(name: str):
        if name not in kept:
            method = BY_NAME[name].make()
            kept[name] = method, method.fit(task, lambda _line: None)
        return kept[name]

    return fit


@pytest.mark.parametrize("name", BY_NAME)
def test_a_peer_judges_any_image_by_a_number_and_a_map_of_its_own_size(fitted, name):
    method, learned = fitted(name)
    judged = method.judge([made_image(100), made_image(101, spot=True)])
    assert judged.anomaly.shape == (2,) and np.isfinite(judged.anomaly).all()
    assert judged.calls == method.networks
    if name == "dfkde":
        assert judged.maps is None
    else:
        assert all(one.shape == (48, 40) and one.dtype == np.float32 for one in judged.maps)
        assert all(np.isfinite(one).all() for one in judged.maps)
    trained = name in ("cflow", "fastflow", "stfpm", "reverse_distillation")
    assert bool(learned.curve) == trained and (learned.converged is None) == (not trained)


@pytest.mark.parametrize("name", BY_NAME)
def test_what_is_read_again_judges_the_same(fitted, name, task, tmp_path):
    method, _ = fitted(name)
    method.save(tmp_path)
    again = BY_NAME[name].make()
    again.load(tmp_path, task)
    images = [made_image(100), made_image(101, spot=True)]
    a, b = method.judge(images), again.judge(images)
    np.testing.assert_allclose(a.anomaly, b.anomaly, rtol=1e-5)
    if a.maps is not None:
        np.testing.assert_allclose(np.stack(a.maps), np.stack(b.maps), rtol=1e-4, atol=1e-5)
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors", ".json"}


@pytest.mark.parametrize("name", BY_NAME)
def test_a_judgement_does_not_depend_on_the_other_images(fitted, name):
    method, _ = fitted(name)
    images = [made_image(100), made_image(101, spot=True), made_image(102)]
    together = method.judge(images).anomaly
    alone = np.concatenate([method.judge([image]).anomaly for image in images])
    np.testing.assert_allclose(together, alone, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["patchcore", "padim"])
def test_a_bright_spot_is_found(fitted, name):
    judged = fitted(name)[0].judge([made_image(100), made_image(101, spot=True)])
    assert judged.anomaly[1] > judged.anomaly[0]
    spot = judged.maps[1][18:26, 14:22].mean()
    assert spot > 1.3 * judged.maps[1].mean()


def test_the_backbone_is_that_of_priorlens_and_nothing_is_downloaded():
    import timm

    with shared_backbone():
        same = timm.create_model("resnet18", pretrained=True, features_only=True, out_indices=[2, 3, 4]).eval()
        other = timm.create_model("resnet18", pretrained=False, features_only=True, out_indices=[2, 3, 4]).eval()
    images = torch.rand(2, 1, SIZE, SIZE)
    pyramid = load_pyramid(bf16=False)
    with torch.no_grad():
        theirs, drawn = (
            network((images.expand(-1, 3, -1, -1) - pyramid.mean) / pyramid.std) for network in (same, other)
        )
    for ours, level, random in zip(pyramid(images), theirs, drawn, strict=True):
        torch.testing.assert_close(ours, level, rtol=1e-3, atol=1e-3)
        assert not torch.allclose(ours, random, atol=0.1)


def test_images_are_shown_as_the_pre_processor_of_anomalib_shows_them():
    from anomalib.models import Padim

    grey = torch.rand(2, 1, SIZE, SIZE)
    theirs = Padim.configure_pre_processor((SIZE, SIZE)).transform(grey.expand(-1, 3, -1, -1))
    torch.testing.assert_close(as_seen(grey), theirs)


def test_levels_have_the_strides_that_are_asked_for():
    import timm

    with shared_backbone():
        network = timm.create_model("any", features_only=True)
    modules = {info["module"]: info["reduction"] for info in network.feature_info.info}
    assert [modules[name] for name in layers((4, 8, 16, 32))] == [4, 8, 16, 32]


def test_channels_last_leave_the_losses_as_they_are(task, fitted, monkeypatch):
    _, learned = fitted("reverse_distillation")
    monkeypatch.setattr(anomalib_trained, "_with_channels_last", lambda *_networks: None)
    plain = BY_NAME["reverse_distillation"].make().fit(task, lambda _line: None)
    first = [[loss for _, _, loss in one.curve[:4]] for one in (learned, plain)]
    assert first[0] == pytest.approx(first[1], rel=1e-3)


def test_training_without_end_stops_at_its_limit_and_says_so(task, monkeypatch):
    monkeypatch.setenv(PEER_MINUTES, "0")
    learned = BY_NAME["stfpm"].make().fit(replace(task, steps=1.0), lambda _line: None)
    assert learned.converged is False and len(learned.curve) == 1
    assert "stopped after 0 s of a processor" in learned.remark
