"""Results of runs that never were, written as real ones are: for tests of what reads them."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
from made_studies import disc, save, spot
from scipy.ndimage import gaussian_filter

from benchmarks import measuring
from benchmarks.fingerprints import figures_code
from benchmarks.folds import fold_of, within_folds
from benchmarks.measuring import figures, matched_height
from benchmarks.results import Options, Place, empty_result, key_of, study_fingerprint, write_predictions, write_result
from benchmarks.selection import judged
from benchmarks.study import Fold, Study
from benchmarks.study_files import remember
from priorlens.evaluation import Outcome
from priorlens.outputs import write_json

MACHINE = {
    "cpu": "Made Up 9",
    "cores": 2,
    "threads": 2,
    "memory_gb": 24,
    "gpu": None,
    "python": "3.11",
    "load": [0.1, 2],
}


def made_study(
    folder: Path, name: str, *, kinds=("spot",), masks=True, slices=False, planted=True, count=8, first=0
) -> Study:
    """Test images of as many patients; in slices each has one healthy and one abnormal image at each of two heights."""
    rng = np.random.default_rng(len(name))
    for index in range(first, first + count):
        places = [f"p{index}_z{height}" for height in (3, 4)] if slices else [f"p{index}_{name}"]
        for place in places:
            save(folder / "test/good" / f"{place}.png", disc(rng))
            for kind in kinds:
                pixels, mask = disc(rng), spot(rng)
                other = place.replace("p", "q", 1)
                save(folder / "test" / kind / f"{other}.png", pixels + 60 * mask)
                if masks:
                    save(folder / "ground_truth" / kind / f"{other}.png", 255 * mask)
    save(folder / "train/good/a.png", disc(rng))
    height = r"_z(\d+)" if slices else None
    return Study(name, (Fold(folder),), "range", planted, f"made images of {name}", r"([pq]\d+)_", height)


def made_run(
    out: Path,
    study: Study,
    entry,
    skill: float,
    *,
    seed=0,
    ms=10.0,
    settled=None,
    every=1,
    maps=True,
    shift=0.0,
    in_turns=True,
    cpu=MACHINE["cpu"],
    **more,
):
    """A run whose maps and scores show the truth with so much skill, from 0 to 1; `shift` is from fold to fold."""
    place = Place(out, study.name, entry.name, seed)
    outcomes = measuring_outcomes(study, skill, seed + sum(map(ord, entry.name)), every, maps)
    folds = fold_of(study)
    outcomes = [replace(one, anomaly=one.anomaly + shift * folds[one.name]) for one in outcomes]
    write_predictions(place.predictions, outcomes)
    result = empty_result(place, made_key(study, {"python": "3.11", "priorlens": "0"}), study.planted)
    result |= {
        "figures_code": figures_code(),
        "machine": {**MACHINE, "cpu": cpu},
        "started": f"2026-01-0{1 + seed}T10:00:00+00:00",
        "model_bytes": 3_000_000,
    }
    curve = (
        []
        if settled is None
        else [["all", step, 0.1 + math.exp(-step / (20 if settled else 80))] for step in range(100)]
    )
    shared = entry.needs
    result["fit"] = {"seconds": [12.5], "converged": settled, "curve": curve, "shared_with": shared, "images": 1}
    times = {"median": ms, "low": 0.9 * ms, "high": 1.2 * ms, "repeats": 3, "interleaved": in_turns}
    result["score"] = {"ms_per_image": times, "calls": 2.0, "judged": len(outcomes), "every": every}
    result["memory"] = {"fit_mb": 500.0, "score_mb": 400.0}
    whole = measuring.read_outcomes(study, place.predictions)
    result["figures"] = figures(whole, resamples=100)
    result["within_folds"] = within_folds(study, whole, resamples=100)
    if study.height:
        result["matched_height"] = matched_height(whole, study.height, resamples=100)
    write_result(place, {**result, **more})


def made_key(study: Study, versions):
    return key_of(Options(), versions, study_fingerprint(study), ["x"])


def failed_run(out: Path, study: Study, entry, line: str):
    place = Place(out, study.name, entry.name, 0)
    result = empty_result(place, made_key(study, {}), study.planted)
    write_result(place, {**result, "failed": line, "machine": MACHINE, "started": "2026-01-01T12:00:00+00:00"})


def measuring_outcomes(study: Study, skill: float, seed: int, every: int, maps: bool):
    rng = np.random.default_rng(seed)
    found = []
    cases = measuring.test_cases(study)
    chosen = judged(cases, 0, every, study.height)
    for number, case in enumerate(cases):
        if case in chosen:
            truth = measuring.with_truth(Outcome(case.name, case.kind, case.group, 0.0), case, None)
            mask = np.zeros(truth.body.shape) if truth.mask is None else truth.mask
            noise = gaussian_filter(rng.standard_normal(mask.shape), 2)
            drawn = (skill * gaussian_filter(mask.astype(float), 1.5) + (1 - skill) * noise).astype(np.float32)
            anomaly = skill * 3 * (case.kind != "good") + rng.standard_normal()
            kept = drawn if maps and (case.kind != "good" or number < 3) else None
            found.append(Outcome(case.name, case.kind, case.group, float(anomaly), kept))
    return found


def made_growth(out: Path, name: str, power: float, *, counts=(100, 1000, 10000), failed=None):
    points = [
        {"what": "size", "value": side, "ms_per_image": (side / 32) ** power, "peak_mb": 300 + side**2 / 100}
        for side in (64, 128, 256, 512)
    ]
    points += [
        {"what": "images", "value": count, "seconds": count / 50, "ms_per_image": 20.0, "peak_mb": 310.0}
        for count in counts
    ]
    if len(counts) < 3:
        points.append({"what": "images", "value": 10000, "left_out": "would take about 400 s, more than 180 s"})
    facts = {"train_images": 16, "steps": 0.01, "passes": 3, "images": 16, "side": 64, "batch": 16, "most_seconds": 180}
    facts["key"] = {"quick": False}
    (out / "growth").mkdir(exist_ok=True)
    write_json(out / "growth" / f"{name}.json", {"method": name, "points": points, "failed": failed, **facts})


__all__ = ["failed_run", "made_growth", "made_run", "made_study", "remember"]
