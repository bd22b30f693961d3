"""From findings to what is written down: figures, maps, spectrum and reconstruction, against other ways to them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from priorlens.combination import reading_names
from priorlens.errors import InputError
from priorlens.images import Image
from priorlens.klip import KLIP, SIGMAS, WIDTHS
from priorlens.klip_rules import KLIPVerdict, Learned, Seen, Window, judge
from priorlens.klip_scores import Judged, judged, judged_by_reference, scores, steps_within
from priorlens.measurement.physics import build, parse
from priorlens.normalise import Intensity
from priorlens.posterior.reference import Reference, reference, respaced
from priorlens.preparation import Preparation
from priorlens.prior.oracles import GaussianDenoiser
from priorlens.surprise import surprise
from priorlens.weighing import CONTEXT, Weighing

SIDE = 16
SHAPE = (1, SIDE, SIDE)
NAMES = (*reading_names(["image"], sigmas=SIGMAS, widths=WIDTHS), *(f"context {name}" for name in CONTEXT))
FIGURES = ("kl_total", "kl_block", "psnr", "ssim")
PREPARATION = Preparation(1, SIDE, Intensity("range", 100.0, 300.0))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(images: int, seed: int = 0, channels: int = 1, side: int = SIDE) -> Tensor:
    """In [0, 1], smooth and unlike each other."""
    at = torch.linspace(0, 3, side)
    waves = (at[:, None] * torch.rand(images, channels, 1, 1, generator=seeded(seed)) + at).sin() / 3 + 0.5
    return waves + 0.05 * torch.randn(images, channels, side, side, generator=seeded(seed + 1))


@pytest.fixture(scope="module")
def prior() -> GaussianDenoiser:
    return GaussianDenoiser(torch.full(SHAPE, 0.5), 0.04 * torch.eye(SIDE**2))


@pytest.fixture(scope="module")
def learned() -> Learned:
    """Weights and usual values that are only there to be told apart."""
    count = len(NAMES)
    usual, weights = torch.linspace(-2, 2, count), torch.linspace(-1, 1, count)
    one = torch.ones(1)
    weighing = Weighing(usual, torch.zeros(count), torch.ones(count), weights[None], 0 * one, one[None], 0.5 * one)
    windows = {"coherent": Window(0.1, 0.25, 1.5, 4), "squares": Window(0.05, 0.4, 0.0, 4)}
    return Learned(weighing, 0.04, windows, {}, {})


def judge_all(learned: Learned, prior: GaussianDenoiser, x: Tensor, rule: str = "squares") -> Judged:
    found = KLIP(prior, build(parse("super:factor=2"), SHAPE), noise=0.05).score(x[:, :, ::2, ::2].contiguous() * 2)
    seen = Seen.of(found)
    return judged(found, seen, learned, judge(rule, learned, seen))


@pytest.fixture(scope="module")
def batch(learned, prior) -> Judged:
    return judge_all(learned, prior, pictures(5))


def blank(reconstruction: Tensor, kl_map: Tensor | None = None) -> Judged:
    """A batch of which only the reconstruction is of interest."""
    images, side = len(reconstruction), reconstruction.shape[-1]
    maps = torch.zeros(images, side, side) if kl_map is None else kl_map
    verdict = KLIPVerdict(torch.arange(images).float(), maps)
    return Judged(verdict, maps, torch.zeros(images, 1, 2), reconstruction, nfe=3)


# --- the spectrum


def test_a_spectrums_bits_sum_to_the_total(batch):
    told = scores([batch], None, None, PREPARATION, 4, FIGURES)
    assert batch.spectrum.shape == (5, len(SIGMAS), 2 + len(WIDTHS))
    for image, table in enumerate(told.arrays["spectrum"]):
        np.testing.assert_allclose(table[:, 0], SIGMAS, rtol=1e-6)
        assert (table[:, 1] > 0).all()
        assert table[:, 1].sum() == pytest.approx(told.figures["kl_total"][image], rel=1e-5)


def test_a_spectrums_widths_are_bits_above_what_is_usual(learned, prior):
    """The mean over pixels of log2 of the coherent surprise, less what was learned, by level and width."""
    x = pictures(2)
    found = KLIP(prior, variance=None).score(x)
    seen = Seen.of(found)
    batch = judged(found, seen, learned, judge("combined", learned, seen))
    for i, sigma in enumerate(SIGMAS):
        for j, width in enumerate(WIDTHS):
            usual = learned.weighing.usual[NAMES.index(f"image coherent sigma={sigma:g} width={width:g}")]
            expected = (found.surprise.coherent[:, i, j] + 1e-5).log2().mean((1, 2)) - usual
            torch.testing.assert_close(batch.spectrum[:, i, 2 + j], expected, rtol=1e-4, atol=1e-4)


# --- figures and arrays


@pytest.mark.parametrize("block", [1, 4, 5, 16, 99])
def test_blocks_sum_to_the_total_and_the_largest_is_told(batch, block):
    told = scores([batch], None, None, PREPARATION, block, FIGURES)
    for image, blocks in enumerate(told.arrays["blocks"]):
        rows = math.ceil(SIDE / block)
        assert blocks.shape == (rows, rows)
        assert blocks.sum() == pytest.approx(told.figures["kl_total"][image], rel=1e-5)
        assert blocks.max() == told.figures["kl_block"][image]
        first = float(batch.kl_map[image, :block, :block].sum())
        assert blocks[0, 0] == pytest.approx(first, rel=1e-5)


def test_the_total_is_the_divergences(prior, learned):
    x = pictures(3)
    found = KLIP(prior).score(x)
    seen = Seen.of(found)
    told = scores(
        [judged(found, seen, learned, judge("squares", learned, seen))], None, None, PREPARATION, 4, ("kl_total",)
    )
    np.testing.assert_allclose(told.figures["kl_total"], found.divergence.total, rtol=1e-5)
    assert tuple(told.figures) == ("kl_total",)


def test_batches_follow_one_another(learned, prior, batch):
    """Two batches are as one; anomaly and map are the verdict's; truths are told apart by their place."""
    x = pictures(5)
    parts = [judge_all(learned, prior, x[:3]), judge_all(learned, prior, x[3:])]
    one = scores([batch], None, x, PREPARATION, 4, FIGURES)
    two = scores(parts, None, x, PREPARATION, 4, FIGURES)
    np.testing.assert_allclose(one.anomaly, batch.verdict.anomaly, rtol=1e-6)
    np.testing.assert_allclose(two.anomaly, one.anomaly, rtol=1e-4)
    for name in FIGURES:
        np.testing.assert_allclose(two.figures[name], one.figures[name], rtol=1e-4, err_msg=name)
        assert one.figures[name].dtype == np.float32
    for image in range(5):
        np.testing.assert_allclose(one.anomaly_map[image], batch.verdict.anomaly_map[image], rtol=1e-6)
        np.testing.assert_allclose(two.anomaly_map[image], one.anomaly_map[image], rtol=1e-4, atol=1e-6)
    assert one.nfe == batch.nfe


def test_no_images_give_no_scores():
    told = scores([], [], None, PREPARATION, 4, FIGURES)
    assert told.anomaly.shape == (0,) and told.anomaly_map == () and told.nfe == 0
    assert [values.shape for values in told.figures.values()] == [(0,)] * 4
    assert told.arrays == {"blocks": (), "reconstructions": (), "spectrum": ()}


# --- what a reconstruction is worth


@pytest.mark.parametrize(("channels", "side"), [(1, 16), (3, 16), (1, 6), (1, 5)])
def test_quality_is_skimages(channels, side):
    """For a range of 1, whatever the images' own; windows no larger than the image."""
    truth = pictures(3, channels=channels, side=side)
    off = truth + torch.tensor([0.01, 0.1, 0.3])[:, None, None, None] * torch.randn(truth.shape, generator=seeded(9))
    preparation = Preparation(channels, side, Intensity("range", 0.0, 255.0))
    told = scores([blank(off)], None, truth, preparation, 4, FIGURES)
    for image in range(3):
        one, other = truth[image].numpy(), off[image].numpy()
        psnr = peak_signal_noise_ratio(one, other, data_range=1.0)
        assert told.figures["psnr"][image] == pytest.approx(psnr, rel=1e-5)
        assert psnr == pytest.approx(-10 * math.log10(np.mean((one - other) ** 2)), rel=1e-4)
        ssim = structural_similarity(
            one, other, data_range=1.0, channel_axis=0, win_size=min(7, side if side % 2 else side - 1)
        )
        assert told.figures["ssim"][image] == pytest.approx(ssim, rel=1e-4)
    assert (np.diff(told.figures["psnr"]) < 0).all() and (np.diff(told.figures["ssim"]) < 0).all()


def test_quality_of_a_known_offset():
    """0.1 everywhere: 20 decibels. Nothing off: infinite, and an SSIM of 1."""
    truth = pictures(2)
    told = scores([blank(truth + torch.tensor([0.1, 0.0])[:, None, None, None])], None, truth, PREPARATION, 4, FIGURES)
    assert told.figures["psnr"][0] == pytest.approx(20.0, abs=1e-3)
    assert told.figures["psnr"][1] == np.inf and told.figures["ssim"][1] == pytest.approx(1.0)


def test_quality_is_unknown_without_truth():
    told = scores([blank(pictures(2))], None, None, PREPARATION, 4, FIGURES)
    assert np.isnan(told.figures["psnr"]).all() and np.isnan(told.figures["ssim"]).all()


# --- on the images' own grids


def own_images(intensity: tuple[float, float] = (100.0, 300.0)) -> list[Image]:
    low, high = intensity
    shapes, rng = ((SIDE, SIDE), (32, 32), (20, 40), (50, 9)), np.random.default_rng(0)
    return [
        Image(rng.uniform(low, high, (1, *shape)).astype(np.float32), Path(f"{i}.npy"), float("nan"))
        for i, shape in enumerate(shapes)
    ]


def test_maps_and_reconstructions_have_their_images_own_size():
    images = own_images()
    told = scores([blank(pictures(4), pictures(4)[:, 0])], images, None, PREPARATION, 4, ("kl_total",))
    for image, shown, rebuilt in zip(images, told.anomaly_map, told.arrays["reconstructions"], strict=True):
        assert shown.shape == image.pixels.shape[1:] and shown.dtype == np.float32
        assert rebuilt.shape == image.pixels.shape and rebuilt.dtype == np.float32


def test_a_reconstruction_is_in_its_images_own_intensities():
    """0 is the low end, 100, and 1 the high one, 300; half of the image is dark and half is bright."""
    half = torch.zeros(4, 1, SIDE, SIDE)
    half[..., SIDE // 2 :] = 1.0
    told = scores([blank(half)], own_images(), None, PREPARATION, 4, ("kl_total",))
    for rebuilt in told.arrays["reconstructions"]:
        width = rebuilt.shape[2]
        np.testing.assert_allclose(rebuilt[..., : width // 2 - 2], 100.0, atol=1e-3)
        np.testing.assert_allclose(rebuilt[..., width - (width // 2 - 2) :], 300.0, atol=1e-3)


def test_each_image_has_its_own_intensities_by_percentile():
    preparation = Preparation(1, SIDE, Intensity("percentile", 0.5, 99.5))
    for low, high in ((0.0, 1.0), (-50.0, 4000.0)):
        images = own_images((low, high))
        x = torch.from_numpy(preparation.to_model(images[:1]).numpy())
        told = scores([blank(x)], images[:1], None, preparation, 4, ("kl_total",))
        (rebuilt,) = told.arrays["reconstructions"]
        np.testing.assert_allclose(rebuilt, images[0].pixels, atol=1e-3 * (high - low))


def test_a_place_stays_where_it_is():
    corner = torch.zeros(4, SIDE, SIDE)
    corner[:, 5:7, 5:7] = 1.0
    told = scores([blank(pictures(4), corner)], own_images(), None, PREPARATION, 4, ("kl_total",))
    square, double = told.anomaly_map[:2]
    np.testing.assert_allclose(square, corner[0])
    assert tuple(np.argwhere(double > 0.9).mean(0)) == (11.5, 11.5), "twice as fine"


# --- the published recipe


@pytest.mark.parametrize("steps", [10, 100])
def test_steps_within_a_window_are_those_whose_noise_lies_in_it(steps):
    """Noise levels for intensities of [0, 1], half of those for [-1, 1] that the schedule has."""
    schedule = respaced(steps)
    sigmas = [0.5 * math.sqrt((1 - float(abar)) / float(abar)) for abar in schedule.abar]
    for low, high in ((0.05, 0.4), (0.0, 1e9), (sigmas[3], sigmas[3]), (sigmas[2] + 1e-9, sigmas[5])):
        first, last = steps_within((low, high), steps)
        assert list(range(first, last)) == [t for t, sigma in enumerate(sigmas) if low <= sigma <= high]
    assert steps_within((0.0, 1e9), steps) == (0, steps)


def test_a_window_without_a_step_is_refused():
    with pytest.raises(InputError) as error:
        steps_within((1e-6, 2e-6), 100)
    assert "window 1e-06 to 2e-06" in str(error.value) and "100 steps" in str(error.value)
    with pytest.raises(InputError):
        steps_within((0.4, 0.1), 100)


def test_the_published_recipe_has_a_map_and_no_spectrum(prior):
    operator = build(parse("super:factor=2"), SHAPE)
    y = operator.A(pictures(2))
    found = reference(prior, operator, y, steps=3, samples=2, block=4, generator=seeded(0))
    assert isinstance(found, Reference)
    batch = judged_by_reference(found, len(WIDTHS))
    told = scores([batch], None, pictures(2), PREPARATION, 4, FIGURES)
    np.testing.assert_allclose(told.anomaly, found.anomaly)
    np.testing.assert_allclose(told.figures["kl_block"], found.anomaly, rtol=1e-5)
    np.testing.assert_allclose(told.figures["kl_total"], found.kl_map.sum((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(told.anomaly_map[1], found.kl_map[1])
    assert [table.shape for table in told.arrays["spectrum"]] == [(0, 2 + len(WIDTHS))] * 2
    assert told.nfe == 6


def test_findings_carry_the_surprise_they_were_made_of(prior):
    """Bits of KLIP are the surprise's energy times channels over sigma^2: one quantity, not two."""
    x = pictures(2)
    found = KLIP(prior, seed=3).score(x)
    plain = surprise(prior, KLIP(prior).variance, x, sigmas=SIGMAS, widths=WIDTHS, draws=4, seed=3)
    torch.testing.assert_close(found.surprise.coherent, plain.coherent)
    torch.testing.assert_close(
        found.divergence.energy, plain.energy / torch.tensor(SIGMAS)[:, None, None] ** 2, rtol=1e-5, atol=1e-7
    )
