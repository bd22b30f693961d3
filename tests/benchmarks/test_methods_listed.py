"""The list of methods: every one can be made, what it needs is there, and ours keep patients apart."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.method import Entry
from benchmarks.methods import METHODS
from benchmarks.methods.ours import ASIDE, kept_and_aside
from benchmarks.methods.ours_scan import _place
from benchmarks.study import Fold, Study
from priorlens.conformal import combined_p_values

_OWN = [entry for entry in METHODS.values() if entry.environment == "own"]


@pytest.mark.parametrize("entry", _OWN, ids=lambda entry: entry.name)
def test_a_method_can_be_made_and_says_whence_it_is(entry: Entry) -> None:
    made = entry.make()
    assert all(callable(getattr(made, name)) for name in ("fit", "save", "load", "judge"))
    assert entry.title and entry.reference and entry.slow >= 1


def test_what_a_method_needs_is_listed_and_needs_nothing() -> None:
    needed = {name for entry in METHODS.values() if entry.needs for name in entry.needs.split("+")}
    assert needed <= METHODS.keys() and not any(METHODS[name].needs for name in needed)


def test_a_method_may_be_meant_for_some_studies_only() -> None:
    def study(name: str, intensity: str) -> Study:
        return Study(name, (), intensity, False, "")  # type: ignore[arg-type]

    ct, mri = study("head_ct", "range"), study("brain_mri", "percentile")
    suited = {name: [entry.suits(ct), entry.suits(mri)] for name, entry in METHODS.items()}
    assert suited["klip"] == suited["patchcore"] == [True, True]
    assert suited["klip_ct"] == [True, False] and suited["klip_mri"] == [False, True]
    assert suited["klip_reference"] == [True, False] and suited["scan"] == [False, False]
    whole = Fold(Path("fold0"), (Path("p0"),), (Path("p1"),))
    brats = replace(study("brats", "percentile"), folds=(whole,))
    assert METHODS["scan"].suits(brats) and METHODS["scan"].suits(replace(brats, name="brats_mine"))
    assert not METHODS["scan"].suits(replace(brats, folds=(whole, Fold(Path("fold1")))))
    assert not METHODS["scan"].suits(replace(brats, name="lits_mine"))


def test_names_are_unique() -> None:
    families = ("ours", "anomalib", "diffusion", "simple")
    lists = [importlib.import_module(f"benchmarks.methods.{family}_list").ENTRIES for family in families]
    assert sum(map(len, lists)) == len(METHODS) and all(name == entry.name for name, entry in METHODS.items())


def test_no_patient_is_learned_from_and_kept_aside() -> None:
    groups = [f"p{i % 40}" for i in range(200)]
    kept, aside = kept_and_aside(groups, seed=3)
    assert sorted(kept + aside) == list(range(200))
    assert not {groups[i] for i in kept} & {groups[i] for i in aside}
    assert len({groups[i] for i in aside}) == round(ASIDE * 40)
    assert kept_and_aside(groups, 3) == (kept, aside) != kept_and_aside(groups, 4)


def test_a_slice_is_found_by_its_name() -> None:
    assert _place(Path("test/lesion/BraTS20_001_z042.png")) == ("BraTS20_001", 42)
    with pytest.raises(ValueError, match="is not named as the slice of a patient"):
        _place(Path("a.png"))


def test_fused_is_high_where_either_part_is_and_keeps_the_order_beyond() -> None:
    from benchmarks.method import Judged
    from benchmarks.methods.fused import Fused

    usual = np.linspace(-1, 1, 50)

    def part(anomaly: list[float]) -> SimpleNamespace:
        healthy = SimpleNamespace(map_low=1.0, threshold=3.0)
        judged = Judged(np.array(anomaly), [np.full((2, 3), 3.0)] * len(anomaly), 7)
        return SimpleNamespace(usual=usual, detector=SimpleNamespace(healthy_=healthy), judge=lambda images: judged)

    fused = Fused()
    fused.parts = (part([0.0, 2.0, 0.0, 3.0]), part([0.0, 0.0, 2.0, 0.0]))  # type: ignore[assignment]
    judged = fused.judge([])
    usual_image, first, second, further = judged.anomaly
    assert usual_image < first < further and first == pytest.approx(second)
    assert judged.calls == 14 and judged.maps is not None and (judged.maps[0] == 1).all()


@pytest.mark.parametrize("rule", ["harmonic", "fisher"])
def test_fused_never_orders_images_against_their_p_values(rule) -> None:
    from benchmarks.methods import fused

    rng = np.random.default_rng(0)
    joined = fused.ByFisher() if rule == "fisher" else fused.Fused()
    assert joined.rule == rule
    usual, new = rng.normal(size=(2, 50)), rng.normal(0.7, 1.5, (2, 300))
    joined.parts = tuple(SimpleNamespace(usual=one) for one in usual)  # type: ignore[assignment]
    p, anomaly = combined_p_values(new, usual, rule), joined._joined(new)
    order = np.argsort(anomaly)
    assert (np.diff(p[order]) <= 1e-12).all()
    least = p < 1.01 / 51
    assert least.sum() > 10 and len(set(anomaly[least])) > 0.9 * least.sum()


def test_fused_is_the_mean_of_standardised_scores_where_no_patient_was_kept_aside() -> None:
    from benchmarks.method import Judged
    from benchmarks.methods.fused import Fused

    def part(mean: float, std: float, anomaly: list[float]) -> SimpleNamespace:
        healthy = SimpleNamespace(map_low=1.0, threshold=3.0, anomaly_mean=mean, anomaly_std=std)
        judged = Judged(np.array(anomaly), [np.full((2, 3), 3.0)] * len(anomaly), 7)
        detector = SimpleNamespace(healthy_=healthy)
        return SimpleNamespace(usual=np.empty(0), detector=detector, judge=lambda images: judged)

    assert kept_and_aside(["a"] * 30 + ["b"] * 30, seed=0)[1] == []
    fused = Fused()
    fused.parts = (part(1.0, 2.0, [1.0, 5.0]), part(10.0, 5.0, [10.0, 20.0]))  # type: ignore[assignment]
    assert fused.judge([]).anomaly.tolist() == [0, 2]


def test_a_scan_is_judged_at_once_and_its_time_and_calls_are_those_of_a_slice(monkeypatch, tmp_path: Path) -> None:
    from benchmarks import stages
    from benchmarks.methods import ours_scan
    from priorlens.images import Image

    looked = []
    layout = SimpleNamespace(to_stack=lambda values: values)

    def score(scan: object) -> SimpleNamespace:
        looked.append(scan)
        return SimpleNamespace(
            nfe=800,
            slices=range(80),
            of_all_slices=lambda lesions: np.r_[np.arange(80.0), np.nan],
            prepared=SimpleNamespace(layout=layout),
            anomaly_map=np.zeros((81, 4, 4), np.float32),
        )

    monkeypatch.setattr(ours_scan.ScanModel, "load", lambda folder: SimpleNamespace(score=score))
    monkeypatch.setattr(ours_scan, "labelled_scans", lambda folder, channels: ([folder.name], []))
    monkeypatch.setattr(ours_scan, "read_scan", lambda scan: scan)
    method = ours_scan.OfScans()
    method.load(tmp_path, SimpleNamespace(fold=SimpleNamespace(judged=(Path("a"), Path("b")))))  # type: ignore[arg-type]
    images = [
        Image(np.zeros((1, 4, 4), np.float32), Path(f"{name}.png"), 1.0) for name in ("a_z001", "a_z002", "b_z080")
    ]
    judged = method.judge(images)
    assert judged.anomaly.tolist() == [1, 2, 0] and judged.calls == 10 and looked == ["a", "b"]
    method.judge(images)
    assert len(looked) == len(method.times) == 2
    timed = stages.Timed.__new__(stages.Timed)
    timed.method, timed.images = method, images[:1]
    assert timed.milliseconds() == method.times[-1]
    timed.milliseconds()
    assert looked == ["a", "b", "a", "a"]


@pytest.mark.parametrize(("side", "seen"), [(192, 96), (32, 32)], ids=["default", "quick"])
def test_scans_are_seen_no_larger_than_the_runs_images(monkeypatch, tmp_path: Path, side: int, seen: int) -> None:
    from benchmarks.methods import ours_scan

    asked: list[str] = []
    monkeypatch.setattr(ours_scan, "app", lambda words, standalone_mode: asked.extend(words))
    monkeypatch.setattr(ours_scan, "_curve", lambda path: [])
    task = SimpleNamespace(folder=tmp_path, fold=SimpleNamespace(scans=()), size=side, seed=0, steps=1.0)
    ours_scan.OfScans().fit(task, lambda line: None)  # type: ignore[arg-type]
    assert asked[asked.index("--size") + 1] == str(seen)
