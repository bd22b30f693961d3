"""Whether verdicts hold what they promise: false alarms, false discoveries, and the monitor, on healthy images.

    python benchmarks/validity.py MODEL DATASET [--rule RULE] [--physics SPEC] [--group REGEX] [--out FOLDER]

The pool is made of the healthy images that `priorlens fit DATASET` kept aside and those of DATASET/test/good: none was
fitted to. Random splits of it are exchangeable by construction, so they test the statistics; that test/good is like
train/good is another matter, told apart here. Prints Markdown. With --out, scores are kept there and used again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import binary_dilation
from scipy.stats import betabinom, binom

from priorlens.acquisition import acquisition
from priorlens.blocks import HealthyBlocks, block_means, block_side, flag
from priorlens.calibrating import image_values
from priorlens.conformal import p_values
from priorlens.datasets import HEALTHY, Case, healthy_cases, labelled_cases
from priorlens.detectors import load_detector, setup_of
from priorlens.drift import watch
from priorlens.held_out import set_aside
from priorlens.images import Image, read_image, read_mask
from priorlens.klip_model import KLIPModel
from priorlens.provenance import image_fingerprint
from priorlens.streams import watched

LEVELS = (0.01, 0.05, 0.10, 0.20)
SPLITS, STREAMS, CHANGED_STREAMS = 200, 500, 100
LENGTH, CHANGE, SOON = 1000, 500, 100
BATCH = 16


@dataclass(frozen=True)
class Level:
    """How often p <= level: one new image for each split, within the binomial 99 % band; and all that are left over."""

    level: float
    share: float
    low: float
    high: float
    share_of_all: float


def p_value_shares(pool: np.ndarray, splits: int = SPLITS, seed: int = 0) -> tuple[int, list[Level]]:
    """Random splits of exchangeable scores: as many calibrate as make every level exact; how many, and the shares."""
    rng = np.random.default_rng(seed)
    calibrating = 100 * (len(pool) // 100) - 1
    first, rest = [], []
    for _ in range(splits):
        order = rng.permutation(len(pool))
        found = p_values(pool[order[calibrating:]], pool[order[:calibrating]])
        first.append(found[0])
        rest.append(found)
    shares = []
    for level in LEVELS:
        low, high = (float(binom.ppf(q, splits, level)) / splits for q in (0.005, 0.995))
        share, of_all = float(np.mean(np.array(first) <= level)), float(np.mean(np.concatenate(rest) <= level))
        shares.append(Level(level, share, low, high, of_all))
    return calibrating, shares


def false_alarms(new: np.ndarray, calibration: np.ndarray) -> list[Level]:
    """One calibration as it is, and new healthy images: with the band that a random calibration of that size leaves."""
    found = p_values(new, calibration)
    shares = []
    for level in LEVELS:
        ranks = int(np.floor(level * (len(calibration) + 1) + 1e-9))
        spread = betabinom(len(new), ranks, len(calibration) + 1 - ranks) if ranks else None
        low, high = (float(spread.ppf(q)) / len(new) if spread else 0.0 for q in (0.005, 0.995))
        share = float(np.mean(found <= level))
        shares.append(Level(level, share, low, high, share))
    return shares


@dataclass(frozen=True)
class Discoveries:
    """Of blocks flagged at a nominal rate, means over images.

    false: share of them that hold no pixel of a lesion; error: its standard error over images. far: share of them that
        do not touch a block with one either: maps are smooth, and what lies beside a lesion stands out with it.
    found: share of images in which a block of the lesion is flagged. healthy: of healthy images with any block flagged.
    """

    alpha: float
    procedure: str
    false: float
    error: float
    far: float
    found: float
    healthy: float


def discoveries(
    healthy: Sequence[np.ndarray],
    abnormal: Sequence[np.ndarray],
    truth: Sequence[np.ndarray],
    splits: int = 10,
    seed: int = 0,
) -> list[Discoveries]:
    """In random halves of the healthy maps one calibrates; the other, and all abnormal maps, are judged."""
    rng = np.random.default_rng(seed)
    blocks, changed = [block_means(one) for one in healthy], [block_means(one) for one in abnormal]
    lesions = [_blocks_with(mask) for mask in truth]
    around = [binary_dilation(one, np.ones((3, 3))) for one in lesions]
    found: dict[tuple[float, str], tuple[list[list[tuple[float, ...]]], list[bool]]] = {}
    for _ in range(splits):
        order = rng.permutation(len(blocks))
        half = order[: len(order) // 2]
        calibration = HealthyBlocks(tuple(blocks[i].ravel() for i in half), np.arange(len(half)))
        for alpha in (0.05, 0.1, 0.2):
            for procedure in ("bh", "by", "max"):
                told, usual = found.setdefault((alpha, procedure), ([], []))
                flags = [flag(one, calibration, alpha, procedure).flagged for one in changed]
                parts = zip(flags, lesions, around, strict=True)
                told.append([_of_image(*one) for one in parts])
                usual += [flag(blocks[i], calibration, alpha, procedure).flagged.any() for i in order[len(half) :]]
    result = []
    for (alpha, procedure), (told, usual) in found.items():
        by_image = np.array(told).mean(0)  # splits share the images: only images are independent
        error = float(by_image[:, 0].std() / np.sqrt(len(by_image)))
        false, far, hit = (float(value) for value in by_image.mean(0))
        result.append(Discoveries(alpha, procedure, false, error, far, hit, float(np.mean(usual))))
    return result


def _of_image(flagged: np.ndarray, lesion: np.ndarray, around: np.ndarray) -> tuple[float, float, float]:
    """False discoveries, those of them that are far from the lesion, and whether it is found."""
    count = max(1, flagged.sum())
    return float((flagged & ~lesion).sum() / count), float((flagged & ~around).sum() / count), (flagged & lesion).any()


@dataclass(frozen=True)
class Alarms:
    """Of streams of scans: the share with an alarm before the change, and within so many scans after it; and how late.

    Streams with an earlier alarm are left out of the latter two. delay: median, of the streams with an alarm at all.
    """

    before: float
    soon: float
    delay: float
    seconds: float


def alarms(
    pool: Mapping[str, np.ndarray],
    changed: Mapping[str, np.ndarray] | None,
    calibrating: int,
    streams: int,
    *,
    alpha: float = 0.05,
    length: int = LENGTH,
    change: int = CHANGE,
    seed: int = 0,
) -> Alarms:
    """Streams drawn, as their calibration, with replacement from the pool: exchangeable until the change, if any."""
    rng = np.random.default_rng(seed)
    at: list[int | None] = []
    start = time.perf_counter()
    change = length if changed is None else change
    for index in range(streams):
        own, before = (rng.integers(len(pool["anomaly"]), size=n) for n in (calibrating, change))
        calibration = {name: values[own] for name, values in pool.items()}
        stream = {name: values[before] for name, values in pool.items()}
        if changed is not None:
            after = rng.integers(len(changed["anomaly"]), size=length - change)
            stream = {name: np.concatenate([values, changed[name][after]]) for name, values in stream.items()}
        at.append(watch(stream, calibration, alpha=alpha, seed=index).alarm)
    seconds = (time.perf_counter() - start) / streams
    late = [alarm - change for alarm in at if alarm is not None and alarm >= change]
    quiet = [alarm for alarm in at if alarm is None or alarm >= change]
    before_share = 1 - len(quiet) / streams
    soon = sum(delay < SOON for delay in late) / max(1, len(quiet))
    return Alarms(before_share, soon, float(np.median(late)) if late else float("nan"), seconds)


def gained(image: Image) -> Image:
    """10 % brighter, within what the file can hold."""
    return Image(np.clip(1.1 * image.pixels, 0, _top(image)).round().astype(np.float32), image.path, image.full_scale)


def noisier(image: Image, rng: np.random.Generator) -> Image:
    """Twice the noise: as much again is added as makes the standard deviation double, within what the file can hold."""
    noise = np.sqrt(3) * acquisition(image)["noise"] * rng.standard_normal(image.pixels.shape)
    pixels = np.clip(image.pixels + noise, 0, _top(image)).round().astype(np.float32)
    return Image(pixels, image.path, image.full_scale)


def _top(image: Image) -> float:
    return image.full_scale if np.isfinite(image.full_scale) else float("inf")


def _blocks_with(mask: np.ndarray) -> np.ndarray:
    """Blocks that hold a pixel of the mask."""
    side = block_side(mask.shape)
    rows = np.add.reduceat(mask.astype(int), np.arange(0, mask.shape[0], side), 0)
    return np.add.reduceat(rows, np.arange(0, mask.shape[1], side), 1) > 0


@dataclass(frozen=True)
class Told:
    """Features of images by name, and their maps."""

    features: dict[str, np.ndarray]
    maps: list[np.ndarray]


def told(detector: object, images: Sequence[Image]) -> Told:
    """What a detector says of images."""
    rows, maps = [], []
    for start in range(0, len(images), BATCH):
        found = detector.score(images[start : start + BATCH])
        for i, anomaly in enumerate(found.anomaly):
            arrays = {name: values[i] for name, values in found.arrays.items()}
            figures = {name: float(values[i]) for name, values in found.figures.items()}
            rows.append(image_values(images[start + i], float(anomaly), figures, arrays, detector.tables_))
            maps.append(found.anomaly_map[i])
    features = {name: np.array([row[name] for row in rows]) for name in rows[0]} if rows else {}
    return Told({n: features[n] for n in watched(list(features)) if np.isfinite(features[n]).all()}, maps)


def kept(folder: Path | None, name: str, detector: object, images: Sequence[Image]) -> Told:
    """The same, from the folder if it was computed before."""
    if folder is None:
        return told(detector, images)
    path = folder / f"{name}.npz"
    if not path.is_file():
        found = told(detector, images)
        maps = {f"map_{i}": one for i, one in enumerate(found.maps)}
        np.savez_compressed(path, **maps, **{f"feature {n}": v for n, v in found.features.items()})
    with np.load(path) as file:
        features = {n.removeprefix("feature "): file[n] for n in file.files if n.startswith("feature ")}
        maps = [file[f"map_{i}"] for i in range(sum(n.startswith("map_") for n in file.files))]
    return Told(features, maps)


def aside_of(model: Path, dataset: Path, group: str | None) -> list[Case]:
    """The images that `fit` kept aside; checked against what it notes of those that it did not."""
    run = json.loads((model / "config.json").read_text())["run"]
    cases = healthy_cases(dataset, group=group)
    _, left = set_aside([case.group for case in cases], run["seed"], run["aside"])
    return [cases[i] for i in left]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--rule")
    parser.add_argument("--physics")
    parser.add_argument("--group")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--streams", type=int, default=STREAMS)
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    torch.set_num_threads(given.threads or torch.get_num_threads())
    detector = load_detector(given.model)
    detector.rule = given.rule or detector.rule
    if given.physics and isinstance(detector, KLIPModel):
        detector.measure(given.physics)
    if given.out:
        given.out.mkdir(parents=True, exist_ok=True)
    labelled = labelled_cases(given.dataset, group=given.group)
    aside = [read_image(case.path) for case in aside_of(given.model, given.dataset, given.group)]
    good = [read_image(case.path) for case in labelled if case.kind == HEALTHY]
    assert not detector.provenance_.images & {image_fingerprint(one) for one in aside + good}, "these were fitted to"
    print(f"## {given.dataset.name}, {setup_of(detector)}\n")
    kept_aside, tested = kept(given.out, "aside", detector, aside), kept(given.out, "good", detector, good)
    pool = {n: np.concatenate([kept_aside.features[n], tested.features[n]]) for n in tested.features}
    _print_p_values(pool["anomaly"], kept_aside.features["anomaly"], tested.features["anomaly"])
    for kind in sorted({case.kind for case in labelled if case.mask}):
        cases = [case for case in labelled if case.kind == kind and case.mask]
        images = [read_image(case.path) for case in cases]
        truth = [read_mask(c.mask, i.pixels.shape[1:]) for c, i in zip(cases, images, strict=True)]
        found = kept(given.out, kind, detector, images)
        _print_discoveries(kind, discoveries(kept_aside.maps + tested.maps, found.maps, truth))
    rng = np.random.default_rng(0)
    gain = kept(given.out, "gain", detector, [gained(one) for one in aside + good])
    noise = kept(given.out, "noise", detector, [noisier(one, rng) for one in aside + good])
    print("| stream | alarm before the change | within 100 scans of it | median delay | seconds a stream |")
    print("| --- | --- | --- | --- | --- |")
    for words, changed, streams in (
        ("healthy", None, given.streams),
        ("gain 10 %", gain.features, CHANGED_STREAMS),
        ("noise doubled", noise.features, CHANGED_STREAMS),
    ):
        found = alarms(pool, changed, len(aside), streams)
        after = "– | –" if changed is None else f"{found.soon:.2f} | {found.delay:.0f}"
        print(f"| {words} ({streams}) | {found.before:.3f} | {after} | {found.seconds:.2f} |", flush=True)


def _print_p_values(pool: np.ndarray, calibration: np.ndarray, new: np.ndarray) -> None:
    calibrating, shares = p_value_shares(pool)
    print(f"{SPLITS} random splits of {len(pool)} healthy images, {calibrating} calibrate:\n")
    print("| p at most | share, one new image a split | binomial 99 % band | share, all that are left |")
    print("| --- | --- | --- | --- |")
    for one in shares:
        print(f"| {one.level:g} | {one.share:.3f} | {one.low:.3f} to {one.high:.3f} | {one.share_of_all:.4f} |")
    print(f"\nCalibrated on the {len(calibration)} kept aside, {len(new)} images of test/good:\n")
    print("| p at most | share | 99 % band |\n| --- | --- | --- |")
    for one in false_alarms(new, calibration):
        print(f"| {one.level:g} | {one.share:.3f} | {one.low:.3f} to {one.high:.3f} |")
    print(flush=True)


def _print_discoveries(kind: str, found: Sequence[Discoveries]) -> None:
    print(f"Blocks, {kind}:\n")
    print(
        "| nominal rate | procedure | false discoveries | of these not beside a lesion | lesion found | healthy, any |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    for one in found:
        rate = f"{one.false:.3f} ± {one.error:.3f}"
        print(f"| {one.alpha:g} | {one.procedure} | {rate} | {one.far:.3f} | {one.found:.3f} | {one.healthy:.3f} |")
    print(flush=True)


if __name__ == "__main__":
    main()
