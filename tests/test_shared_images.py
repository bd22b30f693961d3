"""Real images, where they lie beside the checkout (or at PRIORLENS_SHARED): never part of it, read in place."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from priorlens import held_out
from priorlens.anodode import AnoDODE
from priorlens.datasets import HEALTHY, find_cases, healthy_cases, labelled_cases
from priorlens.images import read_image, read_mask

DATA = Path(os.environ.get("PRIORLENS_SHARED", Path(__file__).parents[2] / "shared" / "data"))
KINDS = {"brain_mri": {"tumour"}, "head_ct": {"bleed"}, "liver_ct": {"star", "tumour"}}
PATIENT = r"^(\d+)_"

pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not all((DATA / name).is_dir() for name in KINDS), reason=f"no images of these in {DATA}"),
]


@pytest.fixture
def one_core() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", KINDS)
def test_every_40th_image_can_be_read(name):
    cases = [*healthy_cases(DATA / name), *labelled_cases(DATA / name)][::40]
    shapes = {read_image(case.path).pixels.shape for case in cases}
    assert {shape[0] for shape in shapes} == {1}, "grey images, some of them stored as colour"


@pytest.mark.parametrize(("name", "kinds"), KINDS.items())
def test_every_abnormal_image_has_its_mask(name, kinds):
    abnormal = [case for case in labelled_cases(DATA / name) if case.kind != HEALTHY]
    assert {case.kind for case in abnormal} == kinds
    assert all(case.mask for case in abnormal)
    for case in abnormal[::40]:
        assert read_mask(case.mask, read_image(case.path).pixels.shape[1:]).any(), case.mask


def test_no_liver_patient_is_both_learned_from_and_tested_on():
    learned = {case.group for case in healthy_cases(DATA / "liver_ct", group=PATIENT)}
    tested = {case.group for case in labelled_cases(DATA / "liver_ct", group=PATIENT)}
    assert len(learned) > 10 and len(tested) > 10
    assert not learned & tested


def test_a_patient_s_liver_slices_are_held_out_together():
    groups = [case.group for case in healthy_cases(DATA / "liver_ct", group=PATIENT)]
    assert len(set(groups)) < len(groups)
    kept, held = held_out.hold_out(groups, seed=0)
    assert not {groups[i] for i in kept} & {groups[i] for i in held}


def test_a_tiny_detector_scores_real_images(one_core, monkeypatch):
    monkeypatch.setattr(held_out, "PLANTED", 12)
    healthy = [read_image(case.path) for case in find_cases([DATA / "head_ct" / "train" / HEALTHY])[:40]]
    tests = labelled_cases(DATA / "head_ct")
    new = [next(case for case in tests if case.kind == kind) for kind in (HEALTHY, "bleed")]
    images = [read_image(case.path) for case in new]
    scores = AnoDODE(size=64, steps=20, seed=0, device="cpu").fit(healthy).score(images)
    assert np.isfinite(scores.anomaly).all()
    for image, anomaly_map in zip(images, scores.anomaly_map, strict=True):
        assert anomaly_map.shape == image.pixels.shape[1:]
        assert np.isfinite(anomaly_map).all() and np.ptp(anomaly_map) > 0
