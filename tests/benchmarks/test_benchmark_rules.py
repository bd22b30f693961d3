"""`benchmarks/rules.py` shares the surprise between rules: what it says is what `score` says by each of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.rules import verdicts
from priorlens import held_out, weighing
from priorlens.anodode import AnoDODE
from priorlens.cohort import healthy_slices
from priorlens.images import Image
from priorlens.rules import RULES


def test_each_rule_says_what_score_says_by_it(monkeypatch):
    monkeypatch.setattr(held_out, "PLANTED", 1)
    monkeypatch.setattr(weighing, "_FEWEST_STEPS", 10)
    slices = healthy_slices(10, 64, 0)
    detector = AnoDODE(size=64, steps=1, device="cpu").fit(slices)
    images = [Image(one[None].astype(np.float32), Path(f"{i}"), float("nan")) for i, one in enumerate(slices[:2])]
    found = {rule: (verdict, nfe) for rule, verdict, nfe in verdicts(detector, images, list(RULES))}
    assert list(found) == list(RULES)
    for rule, (verdict, nfe) in found.items():
        detector.rule = rule
        scores = detector.score(images)
        torch.testing.assert_close(verdict.anomaly, torch.from_numpy(scores.anomaly), rtol=1e-4, atol=1e-4)
        assert nfe == scores.nfe
        assert verdict.anomaly_map.shape == (2, 16, 16)
        assert float(verdict.anomaly_map.mean()) == pytest.approx(
            float(np.mean(scores.anomaly_map)), rel=0.05, abs=0.05
        )
