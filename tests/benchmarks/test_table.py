"""The page of made-up results: what it says, of whom, and that it says where we lose."""

import json
import re
from dataclasses import replace
from inspect import signature

import numpy as np
import pytest
from made_runs import failed_run, made_growth, made_run, made_study, remember

from benchmarks import measuring, table, table_growth
from benchmarks.fingerprints import code_of, harness_code
from benchmarks.methods import METHODS
from benchmarks.methods.anomalib_list import LEFT_OUT
from benchmarks.results import Options
from benchmarks.table_contests import DEFAULT, contests
from benchmarks.table_outcomes import MATCHED, Outcomes
from benchmarks.table_ran import absent_section
from benchmarks.table_results import Gathered
from priorlens.commands.fit import fit
from priorlens.errors import InputError

SKILLS = {"anodode": 0.8, "klip": 0.83, "klip_reference": 0.9, "patchcore": 0.55, "anoddpm": 0.5, "brightness": 0.3}


pytestmark = pytest.mark.usefixtures("few_resamples")


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Two studies where we lead, one with slices where a baseline does; a failed run, a missing one, two seeds."""
    out = tmp_path_factory.mktemp("out")
    head = made_study(out / "data/head_ct", "head_ct", kinds=("bleed", "rim"), count=24)
    brats = made_study(out / "data/brats", "brats", slices=True, planted=False)
    digits = made_study(out / "data/digits", "digits", masks=False, planted=False, count=12)
    for study in (head, brats, digits):
        remember(study, out)
        for name, skill in SKILLS.items():
            entry = METHODS[name]
            if entry.suits(study):
                ahead = 0.99 if (study.name, name) == ("brats", "brightness") else skill
                settled = {"anodode": True, "klip": False, "patchcore": study is not head}.get(name)
                made_run(
                    out, study, entry, ahead, ms=len(name), settled=settled, every=entry.slow, maps=study is not digits
                )
    made_run(out, head, METHODS["anodode"], 0.75, seed=1, ms=7.0, settled=True)
    made_run(out, head, METHODS["png_size"], 0.2, maps=False, remark="a remark\nwith | signs")
    failed_run(out, head, METHODS["dfkde"], "learning: RuntimeError: a | defect")
    made_growth(out, "anodode", 2.0)
    made_growth(out, "brightness", 1.0, counts=(100, 1000))
    return out


@pytest.fixture(scope="module")
def docs(out, tmp_path_factory):
    docs = tmp_path_factory.mktemp("docs")
    (docs / "images").mkdir()
    (docs / "images" / "benchmarks_of_old.png").write_bytes(b"")
    (docs / "images" / "overlay.png").write_bytes(b"")
    table.write(out, docs)
    return docs


@pytest.fixture(scope="module")
def page(docs):
    return (docs / "benchmarks.md").read_text(encoding="utf-8")


def section(page, heading):
    return re.split(r"\n(?=##)", page.partition(f"\n{heading}\n")[2])[0]


def rows(text, title):
    return [line for line in text.splitlines() if line.startswith(f"| {title} |")]


def test_every_place_of_the_page_is_filled(page):
    assert "{{" not in page
    assert "None" not in page and "nan" not in page
    with pytest.raises(KeyError):
        table.filled("{{a}} {{b}}", {"a": ""})
    with pytest.raises(ValueError, match="no place for b"):
        table.filled("{{a}}", {"a": "", "b": ""})


def test_every_row_of_a_table_has_the_cells_of_its_heading(page):
    for block in re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE):
        lines = block.splitlines()
        assert {len(re.split(r"(?<!\\)\|", line)) for line in lines} == {len(lines[0].split("|"))}, lines[0]


def test_it_says_what_was_run_and_what_was_not(page):
    assert "Made Up 9, 2 cores, 24 GB, no GPU used" in page and "| threads | 2 a run |" in page
    assert "size=192" in page
    assert "- **failed**, DFKDE on head_ct, seed 0: learning: RuntimeError: a \\| defect." in page
    assert re.search(r"\*\*missing\*\*, [^:]*PatchCore[^:]*: head_ct \(seed 1\), brats \(seed 1\)", page)
    assert all(f"**left out**, {title}: " in page for title, _ in LEFT_OUT)


def test_it_says_which_results_are_of_earlier_code(page, out):
    line = next(line for line in page.splitlines() if line.startswith("- **of earlier code**"))
    assert "PatchCore" in line and "DFKDE" in line and "CFLOW" not in line
    gathered = Gathered.read(out, METHODS)
    now = [harness_code(), code_of(METHODS["patchcore"].made_by)]
    results = [
        {**one, "key": {**one["key"], "code": now}} if one["method"] == "patchcore" else one for one in gathered.results
    ]
    assert (
        "PatchCore"
        not in absent_section(replace(gathered, results=tuple(results))).split("earlier code")[1].split("\n")[0]
    )


def test_planted_lesions_are_called_so(page):
    assert "\n### head_ct (planted lesions)\n" in page
    assert "\n### brats\n" in page
    assert "The lesions are planted" in section(page, "### head_ct (planted lesions)")
    assert "The lesions are planted" not in section(page, "### brats")


def test_the_best_of_a_column_is_bold_among_those_who_judged_all(page, out):
    text = section(page, "### head_ct (planted lesions)")
    runs = {one.entry.name: one for one in Gathered.read(out, METHODS).runs("head_ct")}
    best = max(("anodode", "klip"), key=lambda name: runs[name].value("pixel_ap"))
    assert f"**{runs[best].value('pixel_ap'):.3f}**" in rows(text, METHODS[best].title)[0]
    assert "**" not in rows(text, METHODS["klip_reference"].title)[0]
    assert "judged one test image in 10" in text


def test_several_seeds_are_a_mean_and_its_ends(page, out):
    runs = {one.entry.name: one for one in Gathered.read(out, METHODS).runs("head_ct")}["anodode"]
    values = [one["figures"]["all"]["pixel_ap"]["value"] for one in runs.done]
    assert len(values) == 2
    assert runs.value("pixel_ap") == pytest.approx(np.mean(values))
    row = rows(section(page, "### head_ct (planted lesions)"), "AnoDODE, default rule")[0]
    assert f"({min(values):.3f} to {max(values):.3f})" in row


def test_remarks_stand_under_the_table(page):
    text = section(page, "### head_ct (planted lesions)")
    assert re.search(r"^\d+\. the loss had not settled", text, re.MULTILINE)
    assert re.search(r"^\d+\. a remark with \\\| signs", text, re.MULTILINE)
    assert re.search(r"^\d+\. failed: learning", text, re.MULTILINE)
    assert re.search(r"^\d+\. 1 of 2 seeds", text, re.MULTILINE)


def test_kinds_are_folded_and_slices_are_matched(page):
    head, brats = section(page, "### head_ct (planted lesions)"), section(page, "### brats")
    assert "**bleed** against all healthy images" in head and "<details>" in head
    assert "same height" in brats and "same height" not in head
    assert "pixel AP" not in section(page, "### digits").partition("<details>")[0]


def test_time_and_memory(page):
    text = section(page, "### head_ct (planted lesions)")
    row = rows(text, "AnoDDPM, Gaussian noise")[-1]
    assert "12.5 (of klip)" in row and "7.00 | 6.30 to 8.40" in row and "500 | 400 | 2.86" in row


def test_differences_are_those_of_measuring(out):
    gathered = Gathered.read(out, METHODS)
    for study, figures in (("head_ct", ["pixel_ap", "image_auroc"]), ("brats", ["dice_best", MATCHED])):
        outcomes = Outcomes(out, gathered.studies[study])
        runs = {one.entry.name: one for one in gathered.runs(study)}
        read = {
            name: measuring.read_outcomes(outcomes.study, runs[name].place(out, runs[name].done[0]).predictions)
            for name in ("klip", "brightness")
        }
        for figure in figures:
            found = outcomes.difference(runs["klip"], runs["brightness"], figure)
            if figure == MATCHED:
                wanted = measuring.paired_difference_matched(read["klip"], read["brightness"], outcomes.study.height)
            else:
                wanted = measuring.paired_difference(read["klip"], read["brightness"], figure, resamples=100)
            assert found == wanted
            again = outcomes.difference(runs["klip"], runs["brightness"], figure)
            assert again == found


def test_ahead_and_behind_are_said_as_they_are(page):
    lost = section(page, "### Where we lose")
    assert re.search(
        r"\*\*brats, pixel AP\*\*: our best, .* is behind, but not clearly, Smoothed brightness by 0\.\d+ \[", lost
    )
    assert "head_ct" not in lost
    assert "Pixel AP: ahead of every other method with the whole interval above zero on 1 of 2 studies (head_ct" in page
    assert "not the highest on brats" in page
    ours = section(page, "### head_ct (planted lesions): ours against each other method")
    assert re.search(r"clearly ahead of the best other, PatchCore ‡ \(0\.\d+\): \+0\.\d+ \[\+0", ours)
    found = re.findall(r"^\| [^|]+ \| \d\.\d+ \| ([+−]\d\.\d+) \[", ours, re.MULTILINE)
    differences = [float(text.replace("−", "-")) for text in found]
    pixel = differences[:3]
    assert pixel == sorted(pixel)


def test_a_lead_over_a_method_that_had_not_settled_is_said_to_be_one(page):
    head = section(page, "### head_ct (planted lesions): ours against each other method")
    assert "the best other, PatchCore ‡ (" in head
    peers = "2 of 2 peers (1 of them not settled when training ended)"
    assert f"Clearly ahead of {peers} and 1 of 1 simple baseline." in head
    assert len(rows(head, "PatchCore ‡")) == 2 and not rows(head, "PatchCore")
    overview = section(page, "## Ahead or behind")
    assert "| PatchCore ‡ |" in overview and "\n‡: its loss had not settled when its training ended" in overview
    assert "within its time" not in page and "within their time" not in page
    assert "(head_ct (planted lesions), 1 of 2 peers had not settled)" in overview


def test_a_peer_that_judged_some_images_is_compared_on_these(page, out):
    found = [one for one in contests(Gathered.read(out, METHODS)) if one.study == "head_ct"]
    partial = [each for one in found for each in one.against if each.other.entry.name == "anoddpm"]
    assert len(partial) == len(found) and not any(each.other.whole for each in partial)
    assert all(one.best.whole for one in found), "of ours only what has judged all takes part"
    study = Gathered.read(out, METHODS).studies["head_ct"]
    names = Outcomes(out, study).names(partial[0].other)
    assert 0 < len(names) < len(measuring.test_cases(study))
    overview = section(page, "## Ahead or behind")
    assert "\n§: for the time it takes" in overview
    assert rows(
        section(page, "### head_ct (planted lesions): ours against each other method"), "AnoDDPM, Gaussian noise §"
    )


def test_intervals_over_few_patients_are_no_evidence(page):
    overview, brats = section(page, "## Ahead or behind"), section(page, "### brats")
    for text in (overview, brats):
        assert "†: an interval over fewer than 10 patients" in text
    assert all("] † |" in line for line in overview.splitlines() if line.startswith("| brats |"))
    assert not any("†" in line for line in overview.splitlines() if line.startswith("| head_ct"))
    assert "†" not in section(page, "### head_ct (planted lesions)")
    against = section(page, "### brats: ours against each other method")
    assert "clearly ahead" not in against.replace("not clearly", "").lower()
    assert "clearly behind" not in against
    assert "Over 8 patients no difference is called clear." in against


def test_a_figure_without_an_interval_says_why(page, tmp_path):
    """A fold of one healthy patient has no resamples of patients."""
    assert "[–]" not in page
    parts = [made_study(tmp_path / f"data/{i}", "brats", slices=True, count=1, first=i) for i in range(2)]
    study = replace(parts[0], folds=tuple(fold for part in parts for fold in part.folds), planted=False)
    remember(study, tmp_path)
    for name, skill in (("anodode", 0.9), ("brightness", 0.4)):
        made_run(tmp_path, study, METHODS[name], skill)
    made = table.write(tmp_path, tmp_path / "docs").read_text(encoding="utf-8")
    overview, tables = section(made, "## Ahead or behind"), section(made, "### brats")
    assert all("\n[–]: no interval. It takes two patients" in text for text in (overview, tables))
    assert re.search(r"\| [+−]\d\.\d+ \[–\] \|", section(made, "### brats: ours against each other method"))
    assert re.search(r"\| \*{0,2}\d\.\d+\*{0,2} \[–\] \|", tables)


def test_the_default_of_ours_stands_beside_the_best(page, out):
    found = contests(Gathered.read(out, METHODS))
    assert {one.study: one.default.best.entry.name for one in found if one.default} == {
        "head_ct": "anodode",
        "brats": "anodode",
        "digits": "anodode",
    }
    other = next(one for one in found if one.default and one.best is not one.default.best)
    assert other.default.value < other.value and other.default.patients == other.patients
    assert {one.other.entry.name for one in other.default.against} == {one.other.entry.name for one in other.against}
    text = section(
        page,
        f"### {'head_ct (planted lesions)' if other.study == 'head_ct' else other.study}: "
        "ours against each other method",
    )
    assert "Our default, AnoDODE, default rule" in text
    assert "| our default, AnoDODE, default rule, less it [95 %] |" in text
    assert "Our default, whatever the figures: AnoDODE, default rule." in page


def test_all_of_ours_that_are_clearly_ahead_of_every_other_are_known(out):
    gathered = Gathered.read(out, METHODS)
    outcomes = Outcomes(out, gathered.studies["head_ct"])
    runs = [one for one in gathered.runs("head_ct") if one.done]
    found = {one.figure: one for one in contests(gathered) if one.study == "head_ct"}
    for figure, contest in found.items():
        others = [one for one in runs if not one.ours and one.value(figure) is not None]
        low = {
            own.entry.name: min(outcomes.difference(own, other, figure).low for other in others)
            for own in runs
            if own.ours and own.whole
        }
        assert len(low) == 2 and [own.entry.name for own in contest.ahead] == [name for name in low if low[name] > 0]
    assert found["pixel_ap"].ahead and all(not one.ahead for one in contests(gathered) if one.study == "brats")


def test_the_default_is_what_fit_learns_unless_told_otherwise():
    learned = signature(fit).parameters["method"].default
    assert learned.value == DEFAULT and METHODS[DEFAULT].made_by.endswith(":Combined")


def test_scores_of_two_models_are_not_compared(tmp_path):
    """Each fold's model tells its slices apart, on a scale of its own; results of before get the figures too."""
    parts = [made_study(tmp_path / f"data/{i}", "brats", slices=True, count=3, first=3 * i) for i in range(2)]
    study = replace(parts[0], folds=tuple(fold for part in parts for fold in part.folds), planted=False)
    remember(study, tmp_path)
    for name, skill in (("anodode", 0.9), ("brightness", 0.4)):
        made_run(tmp_path, study, METHODS[name], skill, shift=50.0)
    gathered = Gathered.read(tmp_path, METHODS)
    path = gathered.runs("brats")[0].place(tmp_path, gathered.runs("brats")[0].done[0]).result
    facts = json.loads(path.read_text())
    assert gathered.within("brats") and facts["within_folds"]["patients"] == [6, 6]
    runs = gathered.runs("brats")[0]
    assert runs.value("image_auroc") > facts["figures"]["all"]["image_auroc"]["value"] + 0.05
    assert runs.value("pixel_ap") == facts["figures"]["all"]["pixel_ap"]["value"]
    del facts["within_folds"]
    path.write_text(json.dumps(facts))
    again = Gathered.read(tmp_path, METHODS).runs("brats")[0]
    assert (again.value("image_auroc"), again.matched()[0]) == (runs.value("image_auroc"), runs.matched()[0])
    by_name = {one.figure: one for one in contests(gathered)}
    for figure in ("image_auroc", MATCHED):
        one = by_name[figure]
        assert one.against[0].difference.value == pytest.approx(one.value - one.against[0].value)
    page = table.write(tmp_path, tmp_path / "docs").read_text(encoding="utf-8")
    assert "Image figures are taken within each of the 2 folds" in page
    (tmp_path / "predictions/brats" / path.stem / "scores.csv").unlink()  # so that pooled figures are all there is
    assert "they compare scores of 2 models" in table.write(tmp_path, tmp_path / "docs").read_text(encoding="utf-8")


def test_what_was_measured_stands_beside_the_page_a_line_a_run(out, docs):
    lines = (docs / "benchmarks.json").read_text(encoding="utf-8").splitlines()
    written = json.loads("\n".join(lines))
    results = Gathered.read(out, METHODS).results
    assert len(written) == len(results) == len(lines) - 2
    for one, result in zip(written, results, strict=True):
        assert one["figures"] == json.loads(json.dumps(result["figures"])) and one["key"] == result["key"]
        assert one["fit"] is None or "curve" not in one["fit"]


def test_pictures_are_there_small_and_described(page, docs):
    shown = re.findall(r"!\[([^\]]+)\]\(images/(benchmarks_\w+\.png)\)", page)
    names = {name for _, name in shown}
    assert {"benchmarks_speed.png", "benchmarks_curves.png", "benchmarks_growth_size.png"} <= names
    assert {"benchmarks_maps_head_ct_ours.png", "benchmarks_maps_brats_peers.png"} <= names
    assert all(len(alt) > 40 for alt, _ in shown)
    assert "bfloat16" in section(page, "## Quality against speed")
    assert {path.name for path in (docs / "images").iterdir()} == {*names, "overlay.png"}
    assert all((docs / "images" / name).stat().st_size < 400_000 for name in names)


def test_growth_has_exponents_and_says_what_is_missing(page):
    text = section(page, "## How time and memory grow")
    assert "| 4.00 at 64 to 256 at 512 | 2.00 |" in rows(text, "AnoDODE, default rule")[0]
    row = rows(text, "Smoothed brightness")[0]
    assert "| 2.00 at 64 to 16.0 at 512 | 1.00 |" in row and "| 2.00 at 100 to 20.0 at 1000 | – |" in row
    assert "- Smoothed brightness: 10000 images: would take about 400 s" in text


def test_growth_beyond_what_a_method_sees_has_no_exponent(tmp_path):
    made_growth(tmp_path, "pca", 2.0)
    made_growth(tmp_path, "patchcore", 2.0)
    text = table_growth.growth_table(table_growth.read_growth(tmp_path, METHODS))
    assert "| 4.00 at 64 to 256 at 512 | – |" in rows(text, "PCA reconstruction")[0]
    assert "| 4.00 at 64 to 256 at 512 | 2.00 |" in rows(text, "PatchCore")[0]


def test_minutes_of_peers_are_no_other_options(tmp_path):
    study = made_study(tmp_path / "data", "head_ct", count=3)
    for name in ("anodode", "klip", "patchcore"):
        made_run(tmp_path, study, METHODS[name], 0.5)
    path = tmp_path / "results/head_ct/anodode-0.json"
    facts = json.loads(path.read_text())
    del facts["key"]["options"]["peer_minutes"]
    path.write_text(json.dumps(facts))
    page = table.write(tmp_path, tmp_path / "docs").read_text(encoding="utf-8")
    assert "other options" not in page
    assert f"| minutes that a peer may train | {Options().peer_minutes:g} |" in page


def test_without_results_it_is_one_line(tmp_path):
    with pytest.raises(InputError, match="holds no results"):
        table.write(tmp_path, tmp_path / "docs")


def test_a_study_whose_images_are_gone_keeps_its_table(tmp_path):
    study = made_study(tmp_path / "data", "head_ct", count=3)
    made_run(tmp_path, study, METHODS["anodode"], 0.5, settled=True)
    made_run(tmp_path, study, METHODS["brightness"], 0.3)
    page = table.write(tmp_path, tmp_path / "docs").read_text(encoding="utf-8")
    assert len(rows(section(page, "### head_ct (planted lesions)"), "Smoothed brightness")) == 2
    assert "There is nothing to compare yet" in page
