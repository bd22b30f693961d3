"""Every rule on the same trained priors and the same images: the comparison in docs/anodode.md.

    python benchmarks/rules.py MODEL DATASET [--group REGEX] [--skip published]

The figures are those of `priorlens evaluate MODEL DATASET --rule RULE`; here the rules share the surprise, which saves
most of the time. Prints a Markdown table for each kind of abnormality.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from priorlens.anodode import AnoDODE
from priorlens.body import body_mask
from priorlens.combination import readings, with_context
from priorlens.datasets import Case, labelled_cases
from priorlens.evaluation import METRICS, Outcome, evaluate
from priorlens.images import Image, read_image, read_mask
from priorlens.rules import RULES, Rule, Verdict, from_surprise, published

BATCH = 16


def verdicts(detector: AnoDODE, images: list[Image], rules: list[Rule]) -> Iterator[tuple[Rule, Verdict, int]]:
    """What each rule says of a batch, and its network evaluations; all but the published one from one surprise."""
    size, seed = detector.preparation_.size, detector.seed
    prepared = detector.preparation_.to_model(images)
    levels = detector.pyramid_(prepared.to(detector.device))
    features = {scale.name: level for scale, level in zip(detector.pyramid_.scales, levels, strict=True)}
    surprises = {name: prior.surprise(features[name], seed) for name, prior in detector.priors_.items()}
    found = with_context(readings(surprises, size // 4), prepared)
    usual = {name: (known.anomaly_mean, known.anomaly_std) for name, known in detector.statistics_.items()}
    for rule in rules:
        if rule == "published":
            verdict, _, nfe = published(detector.priors_, detector.healthy_scales_, features, size // 4, seed)
            yield rule, verdict, nfe
        else:
            verdict = from_surprise(rule, detector.combination_, detector.healthy_scales_, surprises, found, usual)
            yield rule, verdict, sum(one.nfe for one in surprises.values())


def outcome(detector: AnoDODE, case: Case, image: Image, verdict: Verdict, index: int) -> Outcome:
    """What the metrics need of one image."""
    _, height, width = image.pixels.shape
    mask = read_mask(case.mask, (height, width)) if case.mask else None
    body = body_mask(image.pixels.mean(0, dtype=np.float32)) if mask is not None else None
    square = (detector.preparation_.size,) * 2
    enlarged = F.interpolate(verdict.anomaly_map[index][None, None], size=square, mode="bilinear")[0, 0].numpy()
    own = detector.preparation_.from_model(enlarged, image)
    return Outcome(case.name, case.kind, case.group, float(verdict.anomaly[index]), own, mask, body)


def batches(cases: list[Case]) -> Iterator[tuple[list[Case], list[Image]]]:
    for start in range(0, len(cases), BATCH):
        batch = cases[start : start + BATCH]
        yield batch, [read_image(case.path) for case in batch]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--group")
    parser.add_argument("--skip", nargs="*", default=[])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    detector = AnoDODE.load(options.model)
    cases = labelled_cases(options.dataset, group=options.group)
    rules: list[Rule] = [rule for rule in RULES if rule not in options.skip]
    found: dict[Rule, list[Outcome]] = {rule: [] for rule in rules}
    seconds = dict.fromkeys(rules, 0.0)
    nfe = dict.fromkeys(rules, 0)
    for batch, images in batches(cases):
        start = time.perf_counter()
        for rule, verdict, calls in verdicts(detector, images, rules):
            seconds[rule] += time.perf_counter() - start
            nfe[rule] = calls
            pairs = enumerate(zip(batch, images, strict=True))
            found[rule] += [outcome(detector, case, image, verdict, i) for i, (case, image) in pairs]
            start = time.perf_counter()
    results = {rule: evaluate(found[rule], bootstrap=0)["kinds"] for rule in rules}
    for kind in sorted(next(iter(results.values()))):
        print(f"\n{options.dataset.name}, {kind} (all rows but `published` share their surprise)\n")
        print("| rule | " + " | ".join(METRICS) + " | nfe | s |\n" + "| --- " * (len(METRICS) + 3) + "|")
        for rule in rules:
            row = [results[rule][kind][key]["value"] for key in METRICS]
            cells = " | ".join("–" if value is None else f"{value:.3f}" for value in row)
            print(f"| `{rule}` | {cells} | {nfe[rule]} | {seconds[rule]:.0f} |")


if __name__ == "__main__":
    main()
