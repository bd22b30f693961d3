"""What becomes of runs: done, failed in every way, resumed, made again where something changed."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fake_methods import entry
from made_studies import made_study

from benchmarks import plan, runner, side_by_side, stages, timing
from benchmarks.environments import Environments
from benchmarks.methods import METHODS
from benchmarks.results import (
    ROOT,
    Options,
    Place,
    read_result,
    read_results,
    read_scores,
    versions,
    write_predictions,
)
from benchmarks.study_files import remember, remembered
from benchmarks.unfinished import is_unfinished
from priorlens.errors import InputError, OutputError
from priorlens.evaluation import METRICS
from priorlens.images import read_image

ENTRIES = {
    one.name: one
    for one in (
        entry("bright", "Bright"),
        entry("dark", "Dark"),
        entry("both", "Both", needs="bright+dark"),
        entry("constant", "Constant"),
        entry("mapless", "Mapless", slow=3),
        entry("crashes", "Crashes"),
        entry("stops", "Stops"),
        entry("needs_crashed", "Bright", needs="crashes"),
        entry("crashes_later", "CrashesLater"),
        entry("killed", "Killed"),
        entry("needs_killed", "Bright", needs="killed"),
        entry("leaves", "Leaves"),
        entry("no_numbers", "NoNumbers"),
        entry("small_maps", "SmallMaps"),
        entry("not_there", "NoSuchClass"),
        entry("sleeps", "Sleeps"),
        entry("meets", "Meets"),
        entry("met", "Meets"),
        entry("elsewhere", "Bright", only=("another",)),
    )
}
OPTIONS = Options(train_images=10, size=64)


@pytest.fixture(scope="module", autouse=True)
def one_thread(found_by_workers):
    found_by_workers.setenv("OMP_NUM_THREADS", "1")


def planned(study, out, *names, options=OPTIONS, seeds=(0,)):
    return plan.planned(plan.chosen_entries(ENTRIES, names), [study], seeds, options, Environments(out), out)


def run(todo, out, minutes=5.0, until=float("inf"), jobs=1):
    return side_by_side.run_all(todo, Environments(out), runner.Limits(minutes, until, 1, jobs))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return made_study(tmp_path_factory.mktemp("discs"))


@pytest.fixture(scope="module")
def results(study, tmp_path_factory):
    """Of every method that ends by itself, by method."""
    out = tmp_path_factory.mktemp("out")
    names = [name for name in ENTRIES if name not in ("sleeps", "stops", "meets", "met", "needs_killed", "elsewhere")]
    remember(study, out)
    whole = planned(study, out, *names)
    run(plan.to_do(whole), out)
    timing.time_all([one for one in whole if one.run.place.method in ("bright", "both")], Environments(out), 1, np.inf)
    return {one["method"]: {**one, "out": out} for one in read_results(out)}


def test_a_run_writes_its_figures_times_and_memory(results):
    found = results["bright"]
    assert (found["failed"], found["planted"], found["remark"]) == (None, True, "fitted quickly")
    assert set(found["figures"]) == {"all", "spot"}
    assert set(found["figures"]["all"]) == set(METRICS)
    assert found["figures"]["all"]["image_auroc"]["value"] > 0.95
    assert found["figures"]["all"]["pixel_ap"]["value"] > 0.8
    assert found["fit"]["images"] == 10
    assert len(found["fit"]["curve"]) <= 301
    assert found["fit"]["curve"][-1][1] == 999
    assert found["score"]["calls"] == 2.0
    assert found["score"]["judged"] == 24
    assert found["memory"]["score_mb"] > 10
    assert found["seconds"] >= found["fit"]["seconds"][0]
    assert found["model_bytes"] == (Place(found["out"], "discs", "bright", 0).model(0) / "mean.npy").stat().st_size


def test_times_are_taken_in_turns_at_least_three_times(results):
    times = results["bright"]["score"]["ms_per_image"]
    assert times["interleaved"]
    assert [times[name] for name in ("repeats", "images", "together", "threads")] == [3, 16, 2, 1]
    assert times["low"] <= times["median"] <= times["high"]
    assert not results["dark"]["score"]["ms_per_image"]["interleaved"]


@pytest.mark.parametrize(("quick", "seconds"), [(False, 6.0), (True, 0.5)])
def test_passes_of_quick_are_short(study, tmp_path, quick, seconds):
    asked = []
    clock = SimpleNamespace(ask=lambda line: asked.append(line.split()))  # that cannot load anything
    (one,) = planned(study, tmp_path, "bright", options=replace(OPTIONS, quick=quick))
    timing._time_study({"bright": one.run}, {"bright": clock}, tmp_path, 1, np.inf)
    assert [words[:2] for words in asked] == [["load", str(seconds)]]


def test_direction(results):
    """A planted obvious lesion is found; what says the same of everything has AUROC .5 and AP = prevalence."""
    assert results["dark"]["figures"]["all"]["image_auroc"]["value"] < 0.05
    constant = results["constant"]["figures"]["all"]
    assert constant["image_auroc"]["value"] == 0.5
    assert constant["image_ap"]["value"] == 0.5
    assert constant["pixel_auroc"]["value"] == 0.5
    study = remembered(results["constant"]["out"])["discs"]
    masks = [read_image(path).pixels > 0 for path in (study.folds[0].folder / "ground_truth/spot").iterdir()]
    assert constant["pixel_ap"]["value"] == pytest.approx(np.mean(masks), abs=1e-9)


def test_predictions_are_those_of_the_images(results):
    place = Place(results["bright"]["out"], "discs", "bright", 0)
    rows = read_scores(place.predictions)
    assert len(rows) == 24
    assert {row["group"] for row in rows} == {f"q{i}" for i in range(6)}
    with np.load(place.predictions / "maps.npz", allow_pickle=False) as maps:
        assert sum(name.startswith("spot/") for name in maps) == 12
        assert sum(name.startswith("good/") for name in maps) == 3
        assert maps["spot/q0_0"].dtype == np.float32


def test_a_method_that_reads_two_models_gets_both(results):
    both = results["both"]
    assert both["failed"] is None
    assert both["fit"]["shared_with"] == "bright+dark"
    assert both["fit"]["seconds"] == [
        pytest.approx(sum(results[name]["fit"]["seconds"][0] for name in ("bright", "dark")), abs=0.002)
    ]
    assert not Place(both["out"], "discs", "both", 0).models.exists()


def test_a_slow_method_judges_some_images_and_says_so(results):
    assert (results["mapless"]["score"]["judged"], results["mapless"]["score"]["every"]) == (8, 3)
    assert results["mapless"]["figures"]["all"]["pixel_ap"]["value"] is None


def test_how_long_a_peer_may_train_is_an_option_that_reaches_the_worker(results):
    assert results["mapless"]["remark"].startswith(f"peers may take {OPTIONS.peer_minutes:g} minutes")
    assert "peer_minutes" not in results["mapless"]["key"]["options"]
    peer, used = replace(ENTRIES["mapless"], by_minutes=True), {"own": {}}
    assert (
        plan._key_of(peer, options=OPTIONS, study="", used=used, code=[])["options"]["peer_minutes"]
        == OPTIONS.peer_minutes
    )


@pytest.mark.parametrize(
    ("method", "line"),
    [
        ("crashes", "learning: RuntimeError: a defect of two lines"),
        ("needs_crashed", "needs the model of crashes, which is not there"),
        ("crashes_later", "judging: RuntimeError: a defect"),
        ("killed", "judging: killed, most likely because memory ran out"),
        ("leaves", "judging: ended with status 7 and no answer"),
        ("no_numbers", "judging: ValueError: gave scores"),
        ("small_maps", "judging: ValueError: good/q0_0: gave a map of shape (8, 8)"),
        ("not_there", "learning: AttributeError"),
    ],
)
def test_a_defect_of_a_method_is_a_row(results, method, line):
    found = results[method]
    assert found["failed"].startswith(line)
    assert "\n" not in found["failed"]
    assert found["figures"] == {}
    assert found["machine"]["load"]
    assert not Place(found["out"], "discs", method, 0).predictions.exists()


def test_nothing_is_left_behind(results):
    out = results["bright"]["out"]
    assert list((out / "work").iterdir()) == []
    assert list(out.rglob("*.partial")) == []


def test_what_is_done_is_not_done_again(results, study):
    whole = planned(study, results["bright"]["out"], "bright", "both", "crashes")
    assert plan.to_do(whole) == []
    assert plan.counted(whole) == {"missing": 0, "stale": 0, "failed": 1, "unmeasured": 0, "done": 3}
    assert names_of(plan.to_do(whole, retry=True)) == ["crashes"]
    assert names_of(plan.to_do(whole, again=["dark"])) == ["dark", "both"]


def test_another_option_image_or_version_makes_runs_stale(results, study, tmp_path, monkeypatch):
    out = results["bright"]["out"]
    assert names_of(plan.to_do(planned(study, out, "bright", options=replace(OPTIONS, steps=0.5)))) == ["bright"]
    assert names_of(plan.to_do(planned(study, out, "mapless"))) == []
    monkeypatch.setitem(ENTRIES, "mapless", replace(ENTRIES["mapless"], slow=2))
    assert names_of(plan.to_do(planned(study, out, "mapless"))) == ["mapless"]
    other = made_study(tmp_path, seed=1)
    assert names_of(plan.to_do(planned(other, out, "bright"))) == ["bright"]
    monkeypatch.setattr(Environments, "versions", lambda self, name: {**versions(), "torch": "99"})
    assert names_of(plan.to_do(planned(study, out, "bright"))) == ["bright"]


def names_of(todo):
    return [one.run.place.method for one in todo]


def test_a_broken_result_is_missing(study, tmp_path):
    place = Place(tmp_path, "discs", "bright", 0)
    place.result.parent.mkdir(parents=True)
    place.result.write_text('{"schema": 1')
    assert names_of(plan.to_do(planned(study, tmp_path, "bright"))) == ["bright"]
    assert read_results(tmp_path) == []


def test_a_run_takes_no_longer_than_it_may_and_its_models_are_kept(study, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_SLEEPER", str(tmp_path / "sleeper"))
    monkeypatch.setenv("FAKE_FITS", str(tmp_path / "fits"))
    todo = planned(study, tmp_path, "sleeps")
    with pytest.raises(runner.OutOfBudget):
        runner.one_run(todo[0], Environments(tmp_path), runner.Limits(60.0, time.monotonic() + 8, 1))
    assert read_results(tmp_path) == []
    cut = json.loads(todo[0].run.place.cut.read_text())
    assert cut["lacking"] == 1 and 0 < cut["seconds"] <= 8
    assert runner.given_before(todo[0], 1) == 0  # it has its model now
    run(todo, tmp_path, minutes=0.4)
    assert not todo[0].run.place.cut.exists()
    assert read_results(tmp_path)[0]["failed"] == "stopped after 0.4 minutes (--limit)"
    assert gone(int((tmp_path / "sleeper").read_text()))
    monkeypatch.setenv("FAKE_AWAKE", "1")
    assert run(plan.to_do(planned(study, tmp_path, "sleeps"), retry=True), tmp_path) == 1
    assert read_results(tmp_path)[0]["failed"] is None
    assert (tmp_path / "fits").read_text() == "fit\n"


def test_a_training_that_was_stopped_goes_on_where_it_was(study, tmp_path):
    run(planned(study, tmp_path, "stops"), tmp_path)
    left = "learning: ended with status 7 and no answer"
    assert read_results(tmp_path)[0]["failed"] == left
    place = Place(tmp_path, "discs", "stops", 0)
    assert is_unfinished(place)
    other = planned(study, tmp_path, "stops", options=replace(OPTIONS, steps=0.5))
    run(other, tmp_path)
    assert read_results(tmp_path)[0]["failed"] == left  # it was begun anew
    assert run(plan.to_do(planned(study, tmp_path, "stops", options=other[0].run.options), retry=True), tmp_path) == 1
    found = read_results(tmp_path)[0]
    assert found["failed"] is None and found["remark"] == "went on from step 7"
    assert 100 < found["fit"]["seconds"][0] < 110
    assert not is_unfinished(place) and [path.name for path in place.models.iterdir() if path.is_dir()] == ["0"]


def test_runs_go_side_by_side_but_not_beside_what_they_need(study, tmp_path, monkeypatch, capsys):
    met = tmp_path / "met"
    met.mkdir()
    monkeypatch.setenv("FAKE_MET", str(met))
    todo = planned(study, tmp_path / "out", "both", "meets", "met")
    assert run(todo, tmp_path / "out", jobs=2) == 5
    assert {one["failed"] for one in read_results(tmp_path / "out")} == {None}
    said = [line.split()[2] for line in capsys.readouterr().err.splitlines()]
    assert said.index("both") > max(said.index("bright"), said.index("dark"))


def test_what_others_may_have_killed_is_done_again_alone_with_what_needs_it(study, tmp_path, capsys):
    todo = planned(study, tmp_path, "needs_killed", "bright")
    assert run(todo, tmp_path, jobs=2) == 3
    said = [line for line in capsys.readouterr().err.splitlines() if "bright" not in line]
    assert said[0].endswith("discs killed 0: once more alone, judging: killed, most likely because memory ran out")
    assert [line.split()[2] for line in said[1:]] == ["killed", "needs_killed"]
    failed = {one["method"]: one for one in read_results(tmp_path) if one["failed"]}
    assert failed["killed"]["failed"] == "judging: killed, most likely because memory ran out"
    assert failed["killed"]["machine"]["threads"] == 2


def test_a_defect_of_one_run_ends_those_beside_it(study, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_SLEEPER", str(tmp_path / "sleeper"))

    def broken(place, result):
        raise OutputError("no space left")

    monkeypatch.setattr(runner, "write_result", broken)
    with pytest.raises(OutputError, match="no space left"):
        run(planned(study, tmp_path, "sleeps", "bright"), tmp_path, jobs=2)
    assert not (tmp_path / "sleeper").is_file() or gone(int((tmp_path / "sleeper").read_text()))
    assert read_results(tmp_path) == []


def test_a_run_that_is_known_to_take_longer_lets_others_go_first(study, tmp_path, capsys):
    todo = planned(study, tmp_path, "both")
    dark = next(one for one in todo if one.run.place.method == "dark").run
    dark.place.cut.parent.mkdir(parents=True)
    dark.place.cut.write_text(json.dumps({"key": dark.key, "lacking": 1, "seconds": 180, "threads": 1}))
    assert run(todo, tmp_path, until=time.monotonic() + 180) == 1
    assert [one["method"] for one in read_results(tmp_path)] == ["bright"]
    lines = capsys.readouterr().err.splitlines()
    assert lines[1:] == [
        "[2/3] discs dark 0: left for a larger budget, 3 minutes did not suffice before",
        "[3/3] discs both 0: left for a larger budget, needs dark",
    ]
    changed = planned(study, tmp_path, "dark", options=replace(OPTIONS, steps=0.5))
    assert runner.given_before(changed[0], 1) == 0


def test_what_failed_for_lack_of_a_model_is_missing_once_it_is_there(study, tmp_path, monkeypatch):
    run(planned(study, tmp_path, "needs_crashed"), tmp_path)
    assert plan.to_do(planned(study, tmp_path, "needs_crashed")) == []
    monkeypatch.setenv("FAKE_DEFECT", "no")
    run(plan.to_do(planned(study, tmp_path, "crashes"), retry=True), tmp_path)
    todo = plan.to_do(planned(study, tmp_path, "needs_crashed"))
    assert [(one.run.place.method, one.state) for one in todo] == [("needs_crashed", "missing")]


def test_other_figures_are_taken_of_the_predictions_that_there_are(study, tmp_path, monkeypatch):
    run(planned(study, tmp_path, "both"), tmp_path)
    before = {one["method"]: one for one in read_results(tmp_path)}
    monkeypatch.setattr(plan, "figures_code", lambda: "other")
    monkeypatch.setattr(runner, "figures_code", lambda: "other")
    monkeypatch.setattr(runner.measuring, "figures", lambda outcomes: {"all": before["both"]["figures"]["all"]})
    whole = planned(study, tmp_path, "both")
    assert plan.counted(whole)["unmeasured"] == 3
    assert [one.state for one in plan.to_do(whole, again=["dark"])] == ["unmeasured", "done", "done"]
    with monkeypatch.context() as patch:
        patch.setattr(runner, "work", lambda *_: pytest.fail("a worker"))
        assert run(plan.to_do(whole), tmp_path) == 3
    after = {one["method"]: one for one in read_results(tmp_path)}
    assert after["both"] == {**before["both"], "figures_code": "other", "figures": after["both"]["figures"]}
    assert plan.to_do(planned(study, tmp_path, "both")) == []


def test_predictions_that_are_cut_short_are_a_line_and_not_a_crash(results, tmp_path):
    place = Place(results["bright"]["out"], "discs", "bright", 0)
    study = remembered(place.out)["discs"]
    broken = Place(tmp_path, "discs", "bright", 0)
    broken.predictions.mkdir(parents=True)
    (broken.predictions / "scores.csv").write_bytes((place.predictions / "scores.csv").read_bytes())
    (broken.predictions / "maps.npz").write_bytes((place.predictions / "maps.npz").read_bytes()[:1000])
    run = stages.Run(ENTRIES["bright"], study, broken, OPTIONS, {}, {})
    assert runner.measure({}, run).startswith("its predictions cannot be measured")


def test_maps_wait_on_disk_and_are_none_of_the_method_s_memory(results, tmp_path, monkeypatch):
    out = results["bright"]["out"]
    one = planned(remembered(out)["discs"], out, "bright")[0].run
    asked = []
    monkeypatch.setattr(stages, "peak_mb", lambda: asked.append("peak") or 1.0)

    def write(folder, outcomes, stored):
        asked.append([each.anomaly_map for each in outcomes if each.anomaly_map is not None])
        write_predictions(tmp_path / "written", outcomes, stored)

    monkeypatch.setattr(stages, "write_predictions", write)
    assert stages.judge(one)["memory_mb"] == 1.0
    assert asked == ["peak", []]
    with np.load(tmp_path / "written/maps.npz") as maps, np.load(one.place.predictions / "maps.npz") as usual:
        assert maps.files == usual.files and len(maps.files) == 15
        assert all(np.array_equal(maps[name], usual[name]) for name in maps.files)


def test_nothing_starts_once_the_budget_is_spent(study, tmp_path):
    assert run(planned(study, tmp_path, "bright", "dark"), tmp_path, until=time.monotonic() - 1) == 0
    assert read_results(tmp_path) == []


SCRIPT = """
import sys
import test_benchmark_runs as runs
from made_studies import made_study
from pathlib import Path
out = Path(sys.argv[1])
study = made_study(out / "discs")
try:
    todo = runs.plan.to_do(runs.planned(study, out, "bright", "sleeps", "meets"))
    runs.run(todo, out, jobs=int(sys.argv[2]))
except KeyboardInterrupt:
    raise SystemExit(130)
"""


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_interrupt_ends_the_workers_and_leaves_what_is_done(jobs, tmp_path):
    """With two of them one waits in vain for another of its kind, where it has begun yet."""
    sleeper, met, bright = tmp_path / "sleeper", tmp_path / "met", Place(tmp_path, "discs", "bright", 0)
    met.mkdir()
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT), str(Path(__file__).parent)])
    environment = {**os.environ, "PYTHONPATH": path, "FAKE_SLEEPER": str(sleeper), "FAKE_MET": str(met)}
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path), str(jobs)],
        env=environment,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests in the background ignore it
    )
    deadline = time.monotonic() + 100
    while not (sleeper.is_file() and bright.result.is_file()) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130, process.stderr.read()
    assert all(gone(int(number)) for number in (sleeper.read_text(), *os.listdir(met)))
    assert [one["method"] for one in read_results(tmp_path)] == ["bright"]


def gone(number):
    """Whether a process has ended; it may take a moment."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def test_order_and_names():
    order = names(plan.chosen_entries(ENTRIES, ["both", "mapless", "constant"]))
    assert order == ["bright", "dark", "both", "constant", "mapless"]
    with pytest.raises(InputError, match="no_such"):
        plan.chosen_entries(ENTRIES, ["no_such"])
    slow_first = [entry("second", "Bright", needs="first"), replace(entry("first", "Bright"), family="ours")]
    assert names(plan.in_order(slow_first)) == ["first", "second"]


def test_families_are_run_from_the_quickest_to_the_slowest():
    families = [one.family for one in plan.chosen_entries(METHODS, [])]
    assert list(dict.fromkeys(families)) == ["simple", "ours", "diffusion", "anomalib"]


def names(entries):
    return [one.name for one in entries]


def test_a_method_is_left_out_of_studies_that_it_is_not_for(study, tmp_path):
    assert planned(study, tmp_path, "elsewhere") == []


def test_an_environment_that_cannot_be_had_is_a_row(study, tmp_path):
    entries = [replace(ENTRIES["bright"], environment="anomalib")]
    without = Environments(tmp_path, anomalib=tmp_path / "no-python")
    todo = plan.to_do(plan.planned(entries, [study], [0], OPTIONS, without, tmp_path))
    side_by_side.run_all(todo, without, runner.Limits(1, float("inf"), 1))
    assert "no-python" in read_result(Place(tmp_path, "discs", "bright", 0).result)["failed"]


def test_one_process_at_a_time_measures_into_a_folder(tmp_path):
    with runner.alone(tmp_path), pytest.raises(OutputError, match="another process"), runner.alone(tmp_path):
        pass


def test_results_are_plain_json(results):
    for path in (results["bright"]["out"] / "results").glob("*/*.json"):
        json.loads(path.read_text(), parse_constant=lambda text: pytest.fail(text))
