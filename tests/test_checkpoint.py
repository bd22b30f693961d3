"""A model's folder, whole or refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from priorlens import checkpoint
from priorlens.checkpoint import CONFIG, SCHEMA, TENSORS, UNFINISHED, read_checkpoint, read_config, write_checkpoint
from priorlens.errors import ModelError, OutputError
from priorlens.outputs import write_json

FOUND = {"a": torch.arange(6.0).reshape(2, 3), "b.c": torch.ones(1, dtype=torch.float64)}
SETTINGS = {"method": "anodode", "numbers": [1, 2.5], "name": "Zoë"}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "models" / "mine"
    write_checkpoint(folder, FOUND, SETTINGS)
    return folder


def refused(folder: Path, *parts: object) -> None:
    with pytest.raises(ModelError) as error:
        read_checkpoint(folder)
    text = str(error.value)
    assert "\n" not in text
    for part in (folder, *parts):
        assert str(part) in text, text


def test_what_was_written_is_read(model):
    tensors, config = read_checkpoint(model)
    assert config == {"schema": SCHEMA, **SETTINGS} == read_config(model)
    assert tensors.keys() == FOUND.keys()
    for name, value in FOUND.items():
        assert torch.equal(tensors[name], value) and tensors[name].dtype == value.dtype
    assert sorted(path.name for path in model.iterdir()) == [CONFIG, TENSORS]


def test_any_layout_of_memory_and_gradients_are_taken(tmp_path):
    tensors = {
        "turned": torch.arange(6.0).reshape(2, 3).T,
        "last": torch.rand(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    write_checkpoint(tmp_path, tensors, SETTINGS)
    assert all(torch.equal(value, tensors[name]) for name, value in read_checkpoint(tmp_path)[0].items())


def test_writing_again_replaces_the_model_and_gives_the_same_bytes(model):
    first = [(model / name).read_bytes() for name in (CONFIG, TENSORS)]
    write_checkpoint(model, {"other": torch.zeros(1)}, {"method": "klip"})
    assert read_checkpoint(model)[0].keys() == {"other"}
    write_checkpoint(model, FOUND, SETTINGS)
    assert [(model / name).read_bytes() for name in (CONFIG, TENSORS)] == first


# --- never half a model


def test_the_configuration_comes_last(model, monkeypatch):
    """Wherever writing stops, the folder does not pass for a model: neither the new one nor the old."""
    seen = []

    def stop(path: Path, data: object) -> None:
        seen.append(sorted(p.name for p in model.iterdir()))
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "write_json", stop)
    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(model, {"new": torch.zeros(1)}, SETTINGS)
    assert seen == [[TENSORS]]
    refused(model, CONFIG, "is missing")


def test_tensors_that_cannot_be_written_leave_the_earlier_model(model, monkeypatch):
    """A full disk must not cost the model that was there."""
    before = [(model / name).read_bytes() for name in (CONFIG, TENSORS)]

    def full(*_: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save", full)
    with pytest.raises(OutputError, match=r"model\.safetensors"):
        write_checkpoint(model, {"other": torch.zeros(1)}, {"method": "klip"})
    assert [(model / name).read_bytes() for name in (CONFIG, TENSORS)] == before
    assert sorted(path.name for path in model.iterdir()) == [CONFIG, TENSORS]


def test_a_place_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "model"):
        with pytest.raises(OutputError) as error:
            write_checkpoint(folder, FOUND, SETTINGS)
        assert str(folder) in str(error.value) and "\n" not in str(error.value)


# --- what is refused


def test_missing(tmp_path):
    refused(tmp_path / "none", "is not a model folder", "priorlens fit")
    (tmp_path / "file").touch()
    refused(tmp_path / "file", "is not a model folder")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "is not a model folder")


def test_unfinished(tmp_path):
    (tmp_path / UNFINISHED).mkdir()
    refused(tmp_path, "unfinished", "--resume")


@pytest.mark.parametrize("left", [0, 4, 40, -1])
def test_truncated_tensors(model, left):
    path = model / TENSORS
    path.write_bytes(path.read_bytes()[:left])
    refused(model, TENSORS, "truncated", "copy it again")


def test_tensors_that_are_not_there(model):
    (model / TENSORS).unlink()
    refused(model, TENSORS, "is missing", "copy the whole")
    (model / TENSORS).mkdir()
    refused(model, TENSORS)


def test_pickled_tensors_are_not_read(model):
    torch.save(FOUND, model / TENSORS)
    refused(model, "not a safetensors file")


@pytest.mark.parametrize(
    "content",
    ["", "{", '{"schema": 1', "[]", "[1]", "7", "null", '"schema"', "{}", '{"schema": 1}', '{"method": "x"}', "\x00"],
)
def test_foreign_configuration(model, content):
    (model / CONFIG).write_text(content)
    refused(model, CONFIG, "is not a priorlens model's configuration")


def test_configuration_that_is_not_text(model):
    (model / CONFIG).write_bytes(b"\xff\xfe\x00{")
    refused(model, CONFIG, "is not a priorlens model's configuration")


def test_a_folder_of_another_program(tmp_path):
    write_json(tmp_path / CONFIG, {"architectures": ["ViT"], "model_type": "vit"})
    save_file({"x": torch.zeros(1)}, tmp_path / TENSORS)
    refused(tmp_path, "is not a priorlens model's configuration")


@pytest.mark.parametrize("schema", [SCHEMA + 1, 1000, "2", None, [1], 1.5])
def test_newer(model, schema):
    write_json(model / CONFIG, {**SETTINGS, "schema": schema})
    refused(model, CONFIG, f"has schema {schema}", "upgrade priorlens")


def test_versions_name_what_a_model_was_made_with():
    found = checkpoint.versions()
    assert found.keys() == {"python", "priorlens", "torch", "timm", "deepinv", "numpy"}
    assert json.dumps(found)
    assert found["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
