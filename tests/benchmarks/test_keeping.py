"""What is kept of results: the page can be made of it again, and runs go on from it."""

import json
import shutil
from dataclasses import astuple

import numpy as np
import pytest
from made_runs import made_growth, made_run, made_study, remember

from benchmarks import keeping, measuring, plan, table
from benchmarks.environments import Environments
from benchmarks.fingerprints import figures_code
from benchmarks.methods import METHODS
from benchmarks.results import Options, Place, read_result, state_of, write_result
from benchmarks.shown import SMALL_MAPS
from benchmarks.table_contests import contests
from benchmarks.table_results import Gathered
from priorlens.errors import InputError

SKILLS = {"anodode": 0.8, "klip": 0.83, "klip_reference": 0.9, "patchcore": 0.55, "anoddpm": 0.5, "png_size": 0.2}


@pytest.fixture(scope="module", autouse=True)
def few_resamples():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring.replicates, "__defaults__", (100, 0))
        patch.setattr(measuring.paired_difference_matched, "__defaults__", (100,))
        yield


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    head = made_study(folder / "head_ct", "head_ct", kinds=("bleed", "rim"), count=24)
    return [head, made_study(folder / "brats", "brats", slices=True, planted=False)]


@pytest.fixture(scope="module")
def out(studies, tmp_path_factory):
    """Runs on two studies, one of them with two seeds; some judge a part of the images, one has no maps."""
    out = tmp_path_factory.mktemp("out")
    for study in studies:
        remember(study, out)
        for name, skill in SKILLS.items():
            if METHODS[name].suits(study):
                made_run(out, study, METHODS[name], skill, every=METHODS[name].slow, maps=name != "png_size")
    made_run(out, studies[0], METHODS["klip"], 0.75, seed=1)
    made_growth(out, "anodode", 2.0)
    return out


@pytest.fixture(scope="module")
def kept(out, tmp_path_factory):
    kept = tmp_path_factory.mktemp("repository") / "measured"
    keeping.keep(out, kept)
    return kept


@pytest.fixture
def copy(kept, studies, tmp_path):
    """On another machine, where the images are."""
    copy = tmp_path / "copy"
    shutil.copytree(kept, copy)
    for study in studies:
        remember(study, copy)
    return copy


def page(out, docs):
    docs.mkdir()
    table.write(out, docs)
    return (docs / "benchmarks.md").read_text(encoding="utf-8"), (docs / "benchmarks.json").read_text(encoding="utf-8")


def test_the_page_can_be_made_of_what_was_kept(out, copy, tmp_path):
    assert page(copy, tmp_path / "b") == page(out, tmp_path / "a")
    names = {path.name for path in (tmp_path / "a/images").iterdir()}
    assert names == {path.name for path in (tmp_path / "b/images").iterdir()}
    assert sum("maps" in name for name in names) == 4


def test_differences_and_intervals_are_those_of_the_maps(out, copy):
    before, after = (contests(Gathered.read(one, METHODS)) for one in (out, copy))
    assert len(before) == len(after) == 6
    for a, b in zip(before, after, strict=True):
        assert (a.best.entry, a.value) == (b.best.entry, b.value)
        for one, other in zip(a.against, b.against, strict=True):
            assert astuple(one.difference) == pytest.approx(astuple(other.difference), abs=1e-6, nan_ok=True)


def test_it_is_small_and_does_not_say_where_images_lie(kept, out, studies):
    files = [path for path in kept.rglob("*") if path.is_file()]
    assert not any(path.name == "maps.npz" for path in files)
    assert not (kept / "models").exists() and not (kept / "studies").exists()
    told = b"".join(path.read_bytes() for path in files if path.suffix in (".json", ".csv"))
    assert not any(str(folder).encode() in told for folder in (out, *(study.folds[0].folder for study in studies)))


def test_maps_that_are_shown_look_as_they_did(kept, out):
    small = kept / "predictions/head_ct/klip-0" / SMALL_MAPS
    shown = json.loads((kept / "shown/head_ct.json").read_text())
    with np.load(small) as maps, np.load(out / "predictions/head_ct/klip-0/maps.npz") as whole:
        assert set(maps) == set(shown["names"])
        for name in maps:
            assert maps[name].dtype == np.uint8
            assert np.corrcoef(maps[name].ravel(), whole[name].ravel())[0, 1] > 0.97


def test_one_that_was_not_the_best_can_become_it(copy, studies, tmp_path):
    """It is compared with those that judged a part of the images, too."""
    made_run(copy, studies[0], METHODS["patchcore"], 0.1)
    result = Place(copy, "head_ct", "klip", 0).result
    result.unlink()
    Place(copy, "head_ct", "klip", 1).result.unlink()
    told = page(copy, tmp_path / "docs")[0]
    assert "AnoDDPM, Gaussian noise §" in told and "AnoDODE, default rule" in told


def test_a_new_comparison_that_needs_maps_is_refused(copy, studies):
    made_run(copy, studies[0], METHODS["ddpm_ood"], 0.5, every=7)
    with pytest.raises(InputError, match=r"anodode-0: its maps were not kept.*--again anodode --studies head_ct"):
        contests(Gathered.read(copy, METHODS))


def test_nothing_is_kept_of_a_folder_without_results_or_images(out, kept, tmp_path):
    with pytest.raises(InputError, match="holds no results"):
        keeping.keep(tmp_path, tmp_path / "kept")
    shutil.copytree(kept, tmp_path / "copy")
    with pytest.raises(InputError, match="head_ct: where its images lie is not known; run with --data first"):
        keeping.keep(tmp_path / "copy", tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def test_what_was_kept_is_done_until_figures_are_made_otherwise(copy):
    place = Place(copy, "head_ct", "klip", 0)
    found = read_result(place.result)
    write_result(place, {**found, "figures_code": "now"})
    assert state_of(place, found["key"], "now") == "done"
    assert state_of(place, found["key"], "other") == "stale"


def test_models_that_were_not_kept_are_made_again_for_those_that_need_them(copy, studies):
    entries = plan.chosen_entries(METHODS, ["klip", "anoddpm", "elbo", "patchcore"])
    study, options = studies[0], Options()

    def todo():
        whole = plan.planned(entries, [study], [0], options, Environments(copy), copy)
        return [one.run.place.method for one in plan.to_do(whole)]

    for one in plan.planned(entries, [study], [0], options, Environments(copy), copy):
        if found := read_result(one.run.place.result):
            write_result(one.run.place, {**found, "key": one.run.key, "figures_code": figures_code()})
    assert todo() == ["klip", "anoddpm", "elbo"]  # elbo is missing; what read the old model is made again
    made_run(copy, study, METHODS["elbo"], 0.3, every=2)
    place = Place(copy, study.name, "elbo", 0)
    key = next(
        one.run.key
        for one in plan.planned(entries, [study], [0], options, Environments(copy), copy)
        if one.run.place == place
    )
    write_result(place, {**read_result(place.result), "key": key, "figures_code": figures_code()})
    assert todo() == []
