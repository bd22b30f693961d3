"""A model's folder becomes the detector of its method, whichever that is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from priorlens import anodode, detectors, klip_model
from priorlens.anodode import RULES, AnoDODE
from priorlens.checkpoint import TENSORS, UNFINISHED, write_checkpoint
from priorlens.cube_model import CubeModel
from priorlens.detectors import load_detector, setup_of, unit_of
from priorlens.errors import InputError, ModelError
from priorlens.klip_model import KLIPModel
from priorlens.klip_rules import KLIP_RULES


def written(folder: Path, config: dict) -> Path:
    write_checkpoint(folder, {"number": torch.ones(1)}, config)
    return folder


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """What either method was asked to load, instead of loading it."""
    asked: list[tuple] = []
    for kind, made in ((AnoDODE, lambda: AnoDODE()), (KLIPModel, lambda: KLIPModel(device="cpu"))):

        def load(folder: Path, *, device: str | None = None, kind=kind, made=made):
            asked.append((kind, folder, device))
            return made()

        monkeypatch.setattr(kind, "load", load)
    return asked


@pytest.mark.parametrize(("method", "kind"), [(anodode.METHOD, AnoDODE), (klip_model.METHOD, KLIPModel)])
def test_the_method_decides_the_detector(tmp_path, loaded, method, kind):
    assert type(load_detector(written(tmp_path, {"method": method}), device="cpu")) is kind
    load_detector(tmp_path)
    assert loaded == [(kind, tmp_path, "cpu"), (kind, tmp_path, None)]


def test_the_unit_of_a_map_is_that_of_its_rule():
    """As docs/outputs.md has it: code lengths and logarithms of odds are bits, all else is relative."""
    units = {
        AnoDODE: dict.fromkeys(RULES, "1") | dict.fromkeys(("combined", "local", "standardised"), "bit"),
        KLIPModel: dict.fromkeys(KLIP_RULES, "1") | dict.fromkeys(("combined", "coherent", "squares"), "bit"),
    }
    for kind, known in units.items():
        detector = kind(device="cpu")
        for rule, unit in known.items():
            detector.rule = rule
            assert unit_of(detector) == unit, (kind, rule)
    assert unit_of(CubeModel(device="cpu")) == "1", "standard deviations among healthy images"


def refused(folder: Path, *parts: object) -> None:
    with pytest.raises(ModelError) as error:
        load_detector(folder)
    text = str(error.value)
    assert "\n" not in text and text.startswith(str(folder))
    for part in parts:
        assert str(part) in text


def test_an_unknown_method_is_refused_with_those_that_are_known(tmp_path, loaded):
    refused(written(tmp_path, {"method": "patchcore"}), "'patchcore'", "anodode and klip", "upgrade priorlens")
    assert loaded == []


def test_a_model_whose_default_rule_meant_something_else_is_refused(tmp_path):
    refused(written(tmp_path, {"method": anodode.METHOD, "settings": {}}), "rule combined", "fit again")


@pytest.mark.parametrize("method", [anodode.METHOD, klip_model.METHOD])
def test_a_folder_that_only_names_a_method_is_refused_by_it(tmp_path, method):
    refused(written(tmp_path, {"method": method}), "do not belong together")


def test_folders_that_hold_no_model_are_refused(tmp_path):
    refused(tmp_path / "none", "is not a model folder")
    refused(written(tmp_path / "newer", {"method": "klip", "schema": 99}), "schema 99", "upgrade priorlens")
    (tmp_path / "killed" / UNFINISHED).mkdir(parents=True)
    refused(tmp_path / "killed", "unfinished", "--resume")
    (written(tmp_path / "torn", {"method": "klip"}) / TENSORS).write_bytes(b"torn")
    refused(tmp_path / "torn", "truncated")
    (written(tmp_path / "nameless", {"method": "klip"}) / "config.json").write_text('{"schema": 1}')
    refused(tmp_path / "nameless", "not a priorlens model's configuration")


# --- all that may be chosen of how a model scores


def test_the_setup_of_anodode_is_its_rule():
    detector = AnoDODE()
    assert setup_of(detector) == "rule=combined"
    detector.rule = "local"
    assert setup_of(detector) == "rule=local"


def test_the_setup_of_klip_is_all_that_changes_its_scores():
    """Each choice changes it, and back again gives back what it was."""
    plain = setup_of(KLIPModel(device="cpu"))
    assert plain == "rule=combined, physics=identity, posterior=diffpir"
    seen = {plain}
    for choose in (
        lambda model: setattr(model, "rule", "squares"),
        lambda model: setattr(model, "rule", "reference"),
        lambda model: model.measure("ct:views=24"),
        lambda model: model.measure("ct:views=25"),
        lambda model: model.measure("ct:views=24", 0.1),
        lambda model: model.measure("ct:views=24", 0.11),
        lambda model: model.measure("identity", 0.1),
        lambda model: setattr(model, "posterior", "pigdm"),
        lambda model: setattr(model, "window", (0.1, 0.4)),
        lambda model: setattr(model, "window", (0.1, 0.5)),
        lambda model: setattr(model, "block", 8),
        lambda model: setattr(model, "simulated", False),
    ):
        model = KLIPModel(device="cpu")
        choose(model)
        assert setup_of(model) not in seen and "\n" not in setup_of(model)
        seen.add(setup_of(model))
        model.measure("identity")
        model.rule, model.posterior, model.window, model.block, model.simulated = (
            "combined",
            "diffpir",
            None,
            None,
            True,
        )
        assert setup_of(model) == plain


def test_one_measurement_has_one_setup_however_it_is_written():
    setups = set()
    for physics, noise in (("ct:views=24", 0.1), ("ct:views=24,", 0.1), ("ct: views=24 ", 0.10)):
        model = KLIPModel(device="cpu")
        try:
            model.measure(physics, noise)
        except InputError:
            continue
        setups.add(setup_of(model))
    assert len(setups) == 1


def test_only_known_methods_are_looked_for():
    assert {anodode.METHOD, detectors.klip_model.METHOD} == {"anodode", "klip"}
