"""KLIP's rules, posterior denoisers and measurements on the same prior and images: the comparisons in docs/klip.md.

    python benchmarks/klip.py MODEL DATASET --compare rules      [--physics ct:views=24] [--every 5]
    python benchmarks/klip.py MODEL DATASET --compare posteriors [--physics ct:views=24]
    python benchmarks/klip.py MODEL DATASET --compare physics

rules: the published recipe among them, with 100 steps and 8 samples: `--every 5` takes each fifth image of a kind.
posteriors: by rule "coherent", whose window was learned with the default one. physics: all that the model has learned.
Prints a Markdown table for each kind of abnormality. The figures are those of `priorlens evaluate`, but for the time,
which is that of scoring alone: run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from priorlens.commands.memory import keep_freed_memory
from priorlens.datasets import Case, labelled_cases
from priorlens.evaluation import METRICS, Outcome, evaluate
from priorlens.images import read_image, read_mask
from priorlens.klip_model import KLIPModel
from priorlens.klip_rules import KLIP_RULES
from priorlens.posterior.denoisers import POSTERIORS

BATCH = 16
SHOWN = ("image_auroc", "pixel_auroc", "pixel_ap", "aupro")


def setups(model: KLIPModel, compare: str, skip: list[str]) -> Iterator[str]:
    """Sets the model up for each row of the table, and names it."""
    if compare == "rules":
        for rule in KLIP_RULES:
            if rule not in skip:
                model.rule = rule
                yield rule
    elif compare == "posteriors":
        model.rule = "coherent"
        for name in POSTERIORS:
            if name not in skip:
                model.posterior = name
                yield name
    else:
        for text in model.learned_:
            physics, _, noise = text.partition(" noise=")
            if physics not in skip:
                model.measure(physics, float(noise or 0))
                yield text


def outcomes(model: KLIPModel, cases: list[Case]) -> tuple[list[Outcome], float, int, dict[str, float]]:
    """What the metrics need, seconds and network evaluations an image, and means of the figures."""
    found, seconds, nfe = [], 0.0, 0
    sums: dict[str, float] = {}
    for start in range(0, len(cases), BATCH):
        batch = cases[start : start + BATCH]
        images = [read_image(case.path) for case in batch]
        began = time.perf_counter()
        scores = model.score(images)
        seconds += time.perf_counter() - began
        nfe = scores.nfe
        for name, values in scores.figures.items():
            sums[name] = sums.get(name, 0.0) + float(values.sum())
        for i, (case, image) in enumerate(zip(batch, images, strict=True)):
            mask = read_mask(case.mask, image.pixels.shape[1:]) if case.mask else None
            found.append(
                Outcome(case.name, case.kind, case.group, float(scores.anomaly[i]), scores.anomaly_map[i], mask)
            )
    return found, seconds / len(cases), nfe, {name: value / len(cases) for name, value in sums.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--compare", choices=["rules", "posteriors", "physics"], default="rules")
    parser.add_argument("--physics", default="identity")
    parser.add_argument("--noise", type=float, default=0.0)
    parser.add_argument("--group")
    parser.add_argument("--every", type=int, default=1, help="take one image in so many of each kind")
    parser.add_argument("--skip", nargs="*", default=[])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    model = KLIPModel.load(options.model)
    model.measure(options.physics, options.noise)
    all_cases = labelled_cases(options.dataset, group=options.group)
    kinds = sorted({case.kind for case in all_cases})
    cases = [case for kind in kinds for case in [one for one in all_cases if one.kind == kind][:: options.every]]
    header = " | ".join(METRICS[key] for key in SHOWN)
    print(f"{options.dataset.name}, {options.compare}, {model.measured_as_}, {len(cases)} images, by kind\n")
    print(f"| {options.compare} | kind | {header} | PSNR | nfe | s an image |\n" + "| --- " * (len(SHOWN) + 5) + "|")
    for name in setups(model, options.compare, options.skip):
        found, seconds, nfe, means = outcomes(model, cases)
        psnr = f"{means['psnr']:.1f}" if "psnr" in means else "–"
        for kind, figures in evaluate(found, bootstrap=0)["kinds"].items():
            cells = " | ".join(f"{figures[key]['value']:.3f}" for key in SHOWN)
            print(f"| `{name}` | {kind} | {cells} | {psnr} | {nfe} | {seconds:.3f} |", flush=True)


if __name__ == "__main__":
    main()
