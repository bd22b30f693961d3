"""Ours beside each other on artefacts planted in what they have not learned from."""

import json

import numpy as np
import pytest
from made_runs import made_run, made_study
from made_studies import disc, save

from benchmarks import choosing
from benchmarks.methods import METHODS
from benchmarks.methods.ours import kept_and_aside
from benchmarks.results import Options, Place, empty_result, read_result, write_result
from benchmarks.stages import Run, fit
from benchmarks.study import Fold, Study
from benchmarks.study_files import remember
from benchmarks.table import WORDS
from benchmarks.table_choosing import choosing_section
from benchmarks.table_results import Gathered
from priorlens.images import Image

OPTIONS = Options(train_images=30, size=64, steps=0.01)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory, found_by_workers):
    """The output folder after AnoDODE has learned discs, and its run."""
    out = tmp_path_factory.mktemp("chosen")
    rng = np.random.default_rng(0)
    for index in range(30):
        save(out / "discs" / "train/good" / f"{index:02d}.png", disc(rng))
    study = Study("discs", (Fold(out / "discs"),), "range", True, "made", r"(\d+)")
    remember(study, out)
    entry = METHODS["anodode"]
    run = Run(entry, study, Place(out, "discs", "anodode", 0), OPTIONS, {"options": vars(OPTIONS)}, {})
    fit(run, 0)
    write_result(run.place, empty_result(run.place, run.key, True))
    return out, run


def test_artefacts_lie_in_images_kept_aside_and_nowhere_else(fitted, capsys):
    out, _ = fitted
    choosing.choose(out)
    told = json.loads((out / "choosing/discs/anodode-0.json").read_text())
    _, aside = kept_and_aside([f"{i:02d}" for i in range(30)], 0)
    assert told["healthy"] == len(aside) == 3
    assert told["planted"] == choosing.COPIES * len(aside)
    assert set(told["figures"]) == set(choosing.SHOWN)
    assert capsys.readouterr().err.startswith("discs anodode 0: image AUROC 0.")


def test_what_was_judged_is_not_judged_again_unless_the_model_is_another(fitted, monkeypatch):
    out, run = fitted
    choosing.choose(out)
    monkeypatch.setattr(choosing, "_judged", lambda run: pytest.fail("judged again"))
    choosing.choose(out)
    result = read_result(run.place.result)
    monkeypatch.setitem(result["key"], "code", ["other"])
    write_result(run.place, result)
    choosing.choose(out)  # its model is of another code: there is none to judge with
    assert choosing._stored(out / "choosing/discs/anodode-0.json", result["key"]) is None


def test_an_artefact_changes_its_mask_only_and_all_channels_alike(tmp_path):
    rng = np.random.default_rng(1)
    rows, columns = np.mgrid[:64, :64]
    grey = (100 * np.exp(-((rows - 32) ** 2 + (columns - 32) ** 2) / 400)).astype(np.float32)
    image = Image(np.stack([grey, grey + 1, grey + 2]), tmp_path, 255.0)
    changed, mask, body = choosing.with_artefact(image, rng)
    difference = changed.pixels - image.pixels
    assert np.abs(difference[:, mask]).max() > 1
    np.testing.assert_allclose(difference[0], difference[2], atol=1e-4)
    assert mask[body].any() and np.abs(difference[:, ~mask]).max() < np.abs(difference[:, mask]).max()


def test_only_ours_that_keep_images_aside_take_part():
    names = {name for name, entry in METHODS.items() if choosing.takes_part(entry)}
    assert {"anodode", "klip", "fused"} <= names
    assert not {"scan", "klip_reference", "patchcore", "pca"} & names


def test_the_page_has_a_place_and_a_table_for_it(tmp_path):
    assert "{{choosing}}" in WORDS.read_text()
    study = made_study(tmp_path / "spots", "spots")
    remember(study, tmp_path)
    for name, value in (("anodode", 0.5), ("klip", 0.9)):
        made_run(tmp_path, study, METHODS[name], value)
        figures = {key: {"value": value, "low": value - 0.1, "high": value + 0.1} for key in choosing.SHOWN}
        path = tmp_path / "choosing/spots" / f"{name}-0.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        facts = {"study": "spots", "method": name, "seed": 0, "healthy": 3, "planted": 12, "figures": figures}
        path.write_text(json.dumps(facts))
    told = choosing_section(Gathered.read(tmp_path, METHODS))
    assert "spots, 3 healthy images, 12 copies with an artefact:" in told
    lines = [line for line in told.splitlines() if line.startswith("| ")]
    assert lines[1] == "| --- | ---: | ---: | ---: |"
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| AnoDODE, default rule", "| KLIP of whole images"]
    assert "**0.900** [0.800, 1.000]" in lines[3] and "**" not in lines[2]
