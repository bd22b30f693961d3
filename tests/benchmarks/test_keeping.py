"""What is kept of results: the page can be made of it again, and runs go on from it."""

import json
import shutil
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
from made_runs import made_growth, made_run, made_study, remember

from benchmarks import keeping, plan, table
from benchmarks.environments import EnvironmentMissing, Environments
from benchmarks.methods import METHODS
from benchmarks.results import Options, Place, read_result, read_results, state_of, write_result
from benchmarks.shown import SMALL_MAPS
from benchmarks.table_contests import contests
from benchmarks.table_results import Gathered
from priorlens.errors import InputError, OutputError

SKILLS = {"anodode": 0.8, "klip": 0.83, "klip_reference": 0.9, "patchcore": 0.55, "anoddpm": 0.5, "png_size": 0.2}


pytestmark = pytest.mark.usefixtures("few_resamples")


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
            assert astuple(one.difference) == pytest.approx(astuple(other.difference), nan_ok=True)


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
    """It is compared with those that judge a part of the images, too; those that were run later among them."""
    best = json.loads((copy / "shown/head_ct.json").read_text())["best"]
    for path in (copy / "results/head_ct").glob(f"{best}-*.json"):
        path.unlink()
    made_run(copy, studies[0], METHODS["ddpm_ood"], 0.5, every=METHODS["ddpm_ood"].slow)
    told = page(copy, tmp_path / "docs")[0]
    found = {one.figure: one for one in contests(Gathered.read(copy, METHODS)) if one.study == "head_ct"}["pixel_ap"]
    assert {best, found.best.entry.name} == {"anodode", "klip"}
    assert {one.other.entry.name: one.unknown for one in found.against} == dict.fromkeys(
        ("patchcore", "anoddpm", "ddpm_ood"), False
    )
    assert f"with {METHODS[best].title}, when these were chosen the best of ours by pixel AP" in told


def test_a_comparison_that_would_need_maps_is_left_open(copy, studies, tmp_path):
    made_run(copy, studies[0], METHODS["ddpm_ood"], 0.5, every=7)
    told = page(copy, tmp_path / "docs")[0]
    assert "–: no difference could be taken, for it asks for maps of an earlier run" in told
    assert "nan" not in told
    first = contests(Gathered.read(copy, METHODS))[0]
    assert first.figure == "pixel_ap" and first.against[-1].other.entry.name == "ddpm_ood"
    assert first.against[-1].unknown and not first.clear and first.leader.clear


def test_images_that_were_not_measured_on_are_not_compared(copy, tmp_path):
    other = made_study(tmp_path / "other", "head_ct", kinds=("bleed", "rim"), count=23)
    remember(other, copy)
    told = page(copy, tmp_path / "docs")[0]
    assert "**not compared, nor shown**, for the images measured on are not here: head_ct." in told
    assert {one.study for one in contests(Gathered.read(copy, METHODS))} == {"brats"}


def test_a_study_whose_images_are_elsewhere_stays_as_it_was_kept(copy, kept, tmp_path):
    (copy / "studies/head_ct.json").unlink()
    keeping.keep(copy, tmp_path / "again")
    before, after = (
        {path.relative_to(one): path.read_bytes() for path in one.rglob("*.*")} for one in (kept, tmp_path / "again")
    )
    assert before == after


def test_only_what_was_kept_is_replaced(out, kept, copy, tmp_path):
    for place in (out, out / "predictions", out.parent):
        with pytest.raises(OutputError, match="or in it, or around it"):
            keeping.keep(out, place)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/page.md").write_text("words")
    with pytest.raises(OutputError, match="was not made by keep"):
        keeping.keep(out, tmp_path / "docs")
    assert (tmp_path / "docs/page.md").is_file() and (out / "results").is_dir()
    keeping.keep(out, copy)
    assert not (copy / "studies").exists()
    assert not list(tmp_path.glob(".copy.*"))


def test_no_run_that_was_kept_before_gets_lost(copy, kept, out, studies, tmp_path):
    shutil.copytree(kept, tmp_path / "kept")
    made_run(tmp_path / "kept", studies[0], METHODS["padim"], 0.5)
    with pytest.raises(InputError, match="has head_ct padim 0, which"):
        keeping.keep(out, tmp_path / "kept")
    assert Place(tmp_path / "kept", "head_ct", "padim", 0).result.is_file()


def test_what_means_nothing_or_cannot_be_reckoned_is_not_kept(out, kept, studies, tmp_path):
    with pytest.raises(InputError, match="holds no results"):
        keeping.keep(tmp_path, tmp_path / "kept")
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    place = Place(copy, "head_ct", "klip", 0)
    found = read_result(place.result)
    for changed, words in (
        ({"figures_code": "earlier"}, "its figures are by earlier code"),
        ({"key": {**found["key"], "options": {**found["key"]["options"], "quick": True}}}, "means nothing"),
    ):
        write_result(place, {**found, **changed})
        with pytest.raises(InputError, match=words):
            keeping.keep(copy, tmp_path / "kept")
    write_result(place, found)
    (copy / "studies/head_ct.json").unlink()
    with pytest.raises(InputError, match="head_ct: the images it was measured on are not here"):
        keeping.keep(copy, tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def test_what_was_kept_is_done_until_figures_are_made_otherwise(copy):
    place = Place(copy, "head_ct", "klip", 0)
    found = read_result(place.result)
    assert state_of(place, found["key"], found["figures_code"]) == "done"
    assert state_of(place, found["key"], "other") == "stale"


class Nowhere(Environments):
    def versions(self, name):
        if name != "own":
            raise EnvironmentMissing("no network")
        return super().versions(name)


def test_a_model_that_was_not_kept_is_made_again_for_those_that_need_it_alone(copy, studies):
    """A peer whose environment cannot be had here stays as it was, although it is not known whether it is stale."""
    entries = plan.chosen_entries(METHODS, ["klip", "anoddpm", "elbo", "patchcore"])

    def whole():
        return plan.planned(entries, [studies[0]], [0], Options(), Nowhere(copy), copy)

    def settle():
        for one in whole():
            if found := one.run.entry.environment == "own" and read_result(one.run.place.result):
                write_result(one.run.place, {**found, "key": one.run.key})
        return [one.run.place.method for one in plan.to_do(whole())]

    assert settle() == ["klip", "elbo"]
    assert [one.run.place.method for one in plan.to_do(whole(), again=["patchcore"])] == ["klip", "elbo"]
    made_run(copy, studies[0], METHODS["elbo"], 0.3, every=2)
    assert settle() == []


def test_the_page_of_the_repository_is_of_what_is_kept_beside_it():
    root = Path(__file__).parents[2]
    told = (root / "docs/benchmarks.json").read_text(encoding="utf-8")
    assert table.runs_text(read_results(root / "benchmarks/measured")) == told
    page = (root / "docs/benchmarks.md").read_text(encoding="utf-8")
    assert f"| runs | {len(json.loads(told))} done, 0 failed" in page
