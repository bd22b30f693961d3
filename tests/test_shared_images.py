"""Real images, where they lie beside the checkout (or at PRIORLENS_SHARED): never part of it, read in place."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from priorlens import held_out, image_prior, klip_rules
from priorlens.anodode import AnoDODE
from priorlens.datasets import HEALTHY, find_cases, healthy_cases, labelled_cases
from priorlens.images import Image, read_image, read_mask
from priorlens.klip import OWN_NOISE, SIGMAS, START
from priorlens.klip_model import KLIPModel
from priorlens.measurement.cfl import read_cfl
from priorlens.measurement.files import read_measurement
from priorlens.measurement.physics import build, parse
from priorlens.posterior.sampling import early_start
from priorlens.preparation import Preparation, Sizes
from priorlens.prior.oracles import GaussianDenoiser

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


def one_of_each_kind() -> list[Image]:
    """A healthy image of the test set and one with a bleed."""
    tests = labelled_cases(DATA / "head_ct")
    return [read_image(next(case for case in tests if case.kind == kind).path) for kind in (HEALTHY, "bleed")]


def test_a_tiny_detector_scores_real_images(one_core, monkeypatch):
    monkeypatch.setattr(held_out, "PLANTED", 12)
    healthy = [read_image(case.path) for case in find_cases([DATA / "head_ct" / "train" / HEALTHY])[:40]]
    images = one_of_each_kind()
    scores = AnoDODE(size=64, steps=20, seed=0, device="cpu").fit(healthy).score(images)
    assert np.isfinite(scores.anomaly).all()
    for image, anomaly_map in zip(images, scores.anomaly_map, strict=True):
        assert anomaly_map.shape == image.pixels.shape[1:]
        assert np.isfinite(anomaly_map).all() and np.ptp(anomaly_map) > 0


@pytest.fixture(scope="module")
def tiny_klip() -> Iterator[KLIPModel]:
    """Of 40 heads, with networks of a few thousand weights: it has seen what it needs to run, and knows little."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(held_out, "PLANTED", 12)
        patch.setattr(image_prior, "_DENOISER", (1, 1))
        patch.setattr(image_prior, "_VARIANCE", (8, 8))
        patch.setattr(klip_rules, "BLOCKS", (8,))
        healthy = [read_image(case.path) for case in find_cases([DATA / "head_ct" / "train" / HEALTHY])[:40]]
        yield KLIPModel(size=64, steps=5, width=8, seed=0, device="cpu").fit(healthy)
    torch.set_num_threads(threads)


@pytest.mark.parametrize("physics", ["identity", "ct:views=24", "mri:acceleration=4", "super:factor=4"])
def test_a_tiny_klip_scores_real_images(tiny_klip, physics):
    tiny_klip.measure(physics)
    images = one_of_each_kind()
    scores = tiny_klip.score(images)
    assert np.isfinite(scores.anomaly).all() and (scores.figures["kl_total"] > 0).all()
    for image, anomaly_map, reconstruction in zip(
        images, scores.anomaly_map, scores.arrays["reconstructions"], strict=True
    ):
        assert anomaly_map.shape == image.pixels.shape[1:]
        assert np.isfinite(anomaly_map).all() and np.ptp(anomaly_map) > 0
        assert np.corrcoef(reconstruction.ravel(), image.pixels.ravel())[0, 1] > 0.5


def test_real_kspace_is_read_reconstructed_and_scored(tiny_klip):
    """Eight coils, an eighth of k-space; BART's reconstruction of the same scan lies beside it."""
    pytest.importorskip("sigpy")
    folder = DATA / "kspace_brain"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    measurement = read_measurement(folder / "ksp.cfl", None, (64, 64))
    assert measurement.note["coils"] == 8 and measurement.note["coil_maps_from"] == "ESPIRiT"
    assert measurement.note["scan"] == [180, 230] and measurement.note["grid"] == [50, 64]
    image, scores = tiny_klip.score_measurement(measurement)
    assert np.isfinite(scores.anomaly).all() and np.isfinite(scores.figures["kl_total"]).all()
    assert scores.anomaly_map[0].shape == (64, 64)
    assert np.isfinite(scores.anomaly_map[0]).all() and np.ptp(scores.anomaly_map[0]) > 0
    assert image.pixels.shape == (1, 64, 64) and np.isfinite(image.pixels).all()
    bart = torch.from_numpy(np.abs(read_cfl(folder / "img.cfl")).reshape(180, 230, 2, order="F")[..., 0])
    smaller = F.interpolate(bart[None, None].float(), size=(50, 64), mode="area")[0, 0].numpy()
    assert np.corrcoef(image.pixels[0, 7:57].ravel(), smaller.ravel())[0, 1] > 0.8


def test_an_early_start_is_nearer_the_truth_than_any_pseudo_inverse(one_core):
    """Under the Gaussian of 600 heads at 32 pixels, known in closed form: no training, and no network to blame."""
    train = [read_image(case.path) for case in healthy_cases(DATA / "head_ct")[::5][:600]]
    preparation = Preparation.fit(train, 32, "range", Sizes(32, 32, 16))
    flat = preparation.to_model(train).double().flatten(1)
    covariance = torch.cov(flat.T) + 1e-4 * torch.eye(flat.shape[1], dtype=torch.float64)
    prior = GaussianDenoiser(flat.mean(0).reshape(1, 32, 32), covariance)
    healthy = [case for case in labelled_cases(DATA / "head_ct") if case.kind == HEALTHY]
    x = preparation.to_model([read_image(case.path) for case in healthy[:: len(healthy) // 10][:10]])
    operator = build(parse("ct:views=12"), (1, 32, 32))
    y = operator.A(x)

    def psnr(found: torch.Tensor) -> torch.Tensor:
        return -10 * (found - x).square().flatten(1).mean(1).log10()

    ridges = [10.0**power for power in (-6, -5, -4, -3, -2.5, -2, -1.5, -1)]
    best = torch.stack([psnr(operator.pull(y, ridge)) for ridge in ridges]).amax(0)
    ridge, generator = (OWN_NOISE / min(SIGMAS)) ** 2, torch.Generator().manual_seed(0)
    started = early_start(prior, operator, y, sigmas=START, ridge=ridge, generator=generator)
    assert started.nfe == len(START)
    gain = psnr(started.image) - best
    assert (gain > 1).all() and gain.mean() > 4, gain
