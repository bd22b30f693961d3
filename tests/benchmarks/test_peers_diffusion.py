"""The diffusion peers against a Gaussian prior, of which all they compute is known in closed form."""

import dataclasses
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.method import Task
from benchmarks.methods import METHODS, anoddpm, ddpm_ood, diffpath, elbo, on_prior
from benchmarks.methods.maps import smoothed, top_mean
from benchmarks.study import Fold
from priorlens.image_prior import ImagePrior
from priorlens.images import Image
from priorlens.klip_model import KLIPModel
from priorlens.preparation import Preparation
from priorlens.prior.oracles import GaussianDenoiser
from priorlens.provenance import Provenance

SHAPE = (1, 3, 4)
SIZE = math.prod(SHAPE)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian() -> GaussianDenoiser:
    """Random axes, standard deviations from 0.05 to 0.5 about grey."""
    axes, _ = torch.linalg.qr(torch.randn(SIZE, SIZE, dtype=torch.float64, generator=seeded(0)))
    variances = torch.logspace(math.log10(0.05), math.log10(0.5), SIZE, dtype=torch.float64) ** 2
    mean = 0.5 + 0.05 * torch.randn(SHAPE, dtype=torch.float64, generator=seeded(1))
    return GaussianDenoiser(mean, (axes * variances) @ axes.T)


def exact_draws(x: Tensor) -> tuple[Tensor, Tensor]:
    """Copies of one image, and noise for them whose mean is 0 and covariance 1: any quadratic's mean is exact."""
    units = math.sqrt(SIZE) * torch.eye(SIZE, dtype=torch.float64)
    noise = torch.cat([units, -units]).reshape(-1, *SHAPE)
    return x.expand(len(noise), *SHAPE), noise


def in_axes(prior: GaussianDenoiser, x: Tensor) -> Tensor:
    return (x - prior.mean).flatten(1) @ prior.axes


def test_noise_levels_are_those_of_the_schedules():
    """AnoDDPM's 250th of 1000 steps: alpha_bar = product of (1 - beta), images scaled to [-1, 1] there."""
    betas = np.linspace(1e-4, 0.02, 1000)[:250]
    alpha_bar = np.prod(1 - betas)
    levels = anoddpm.levels()
    assert levels[0] == pytest.approx(math.sqrt((1 - alpha_bar) / alpha_bar) / 2, rel=1e-9)
    assert levels[-1] == 0 and len(levels) == anoddpm.STEPS + 1
    assert all(upper > lower for upper, lower in itertools.pairwise(levels))
    betas = np.linspace(0.0015**0.5, 0.0195**0.5, 1000) ** 2
    alpha_bar = np.cumprod(1 - betas)[[99, 199]]
    starts = [path[0] for path in ddpm_ood.paths()]
    np.testing.assert_allclose(starts[:2], np.sqrt((1 - alpha_bar) / alpha_bar) / 2, rtol=1e-9)
    assert starts[-1] <= on_prior.HIGHEST < 2 * starts[-1]


def test_anoddpm_reconstructs_with_the_mean_and_spread_of_the_closed_form():
    """Each step is affine: along an axis of variance v, x_s - m = (g + (1 - g) r) (x_t - m), g = v / (v + t^2),
    r = (s / t)^2, with noise s^2 (1 - r). The mean to 1e-10; the spread, of 20000 samples, to 5 %."""
    prior, sigmas = gaussian(), anoddpm.levels()
    x = prior.sample(1, seeded(2)) + 0.2
    gain, variance = torch.ones(SIZE, dtype=torch.float64), torch.full((SIZE,), sigmas[0] ** 2, dtype=torch.float64)
    for t, s in itertools.pairwise(sigmas):
        g, r = prior.variances / (prior.variances + t**2), (s / t) ** 2
        gain = gain * (g + (1 - g) * r)
        variance = variance * (g + (1 - g) * r) ** 2 + s**2 * (1 - r)

    def opposite(like: Tensor) -> Tensor:
        half = torch.randn(len(like) // 2, *SHAPE, dtype=torch.float64, generator=generator)
        return torch.cat([half, -half])

    generator = seeded(3)
    back = anoddpm.noised_and_denoised(prior, x.expand(20000, *SHAPE), sigmas, opposite)
    found = in_axes(prior, back)
    torch.testing.assert_close(found.mean(0, keepdim=True), gain * in_axes(prior, x), rtol=0, atol=1e-10)
    torch.testing.assert_close(found.var(0), variance, rtol=0.05, atol=0)


def test_octave_noise_is_white_noises_opposite():
    """Unit variance, and neighbours that agree; the periods make it so, whatever the size."""
    found = torch.stack([anoddpm.octave_noise((1, 48, 40), seeded(seed)) for seed in range(8)])
    assert found.shape == (8, 1, 48, 40)
    torch.testing.assert_close(found.flatten(1).std(1), torch.ones(8), rtol=1e-4, atol=0)
    assert (found[..., 1:] * found[..., :-1]).mean() > 0.5


def test_plms_converges_to_the_ode_faster_than_euler():
    """Of the Gaussian's ODE, x - m grows as sqrt(v + sigma^2): at 40 steps a twentieth of DDIM's error at most."""
    prior = gaussian()
    x_t = prior.mean + torch.randn(3, *SHAPE, dtype=torch.float64, generator=seeded(4))
    sigmas = torch.linspace(1.0, 0.2, 41, dtype=torch.float64).tolist()
    growth = ((prior.variances + sigmas[-1] ** 2) / (prior.variances + sigmas[0] ** 2)).sqrt()
    truth = growth * in_axes(prior, x_t)
    multistep = (in_axes(prior, ddpm_ood.reconstructed(prior, x_t, sigmas)) - truth).abs().max()
    euler = x_t
    for t, s in itertools.pairwise(sigmas):
        euler = euler + (s - t) * on_prior.predicted_noise(prior, euler, t)
    assert multistep < (in_axes(prior, euler) - truth).abs().max() / 20
    assert multistep < 2e-3


def test_ddpm_ood_z_scores_are_those_of_the_healthy_images():
    values = np.random.default_rng(0).random((3, 10))
    usual = ddpm_ood.Usual.of(values)
    z = usual.z(values)
    np.testing.assert_allclose(z.mean(1), 0, atol=1e-12)
    np.testing.assert_allclose(z.std(1), 1, rtol=1e-12)
    squares = np.random.default_rng(1).random((3, 2, 5, 5))
    np.testing.assert_allclose(usual.z(squares).mean((2, 3)), usual.z(squares.mean((2, 3))), rtol=1e-9)


def test_diffpath_statistics_are_those_of_the_analytic_ode():
    """Along an axis eps(sigma) = sigma c / sqrt(v + sigma^2), c = (x - m) / sqrt(v + first^2). Euler's first order:
    within 2 % of the largest at 1000 steps, and half the error at twice as many."""
    prior = gaussian()
    x = prior.sample(2, seeded(5)) + 0.1

    def errors(steps: int) -> Tensor:
        times = torch.linspace(0.1, 2.0, steps, dtype=torch.float64)
        sigmas, v = times**2, prior.variances
        scale = in_axes(prior, x) / (v + sigmas[0] ** 2).sqrt()
        eps = (sigmas[:, None] * (v + sigmas[:, None] ** 2).rsqrt() * scale[:, None]) @ prior.axes.T
        rates = eps.diff(dim=1) / times.diff()[:, None]
        truth = torch.stack([(one**p).flatten(1).mean(1) for one in (eps, rates) for p in (1, 2, 3)], 1)
        found = diffpath.path_statistics(prior, x, sigmas.tolist(), times.tolist())
        assert found.shape == (2, 6)
        return ((found - truth).abs() / truth.abs().max(0).values).amax(1)

    coarse, fine = errors(1000), errors(2000)
    assert coarse.max() < 0.02
    torch.testing.assert_close(coarse / fine, torch.full_like(fine, 2.0), rtol=0.1, atol=0)


def test_diffpath_takes_as_many_components_as_the_images_show():
    rng = np.random.default_rng(0)
    one = rng.normal(size=(120, 6))
    two = np.concatenate([one[:60], one[60:] + 12])
    assert diffpath.density(one, 0)[-1].n_components == 1
    assert diffpath.density(two, 0)[-1].n_components == 2
    found = diffpath.density(one, 0).score_samples(np.stack([np.zeros(6), np.full(6, 5.0)]))
    assert found[0] > found[1] + 20


def closed_form_bound(prior: GaussianDenoiser, x: Tensor, start: float, end: float) -> Tensor:
    """Nats of an image: the integral over sigma of its expectation, d^2 / 2 [1/(v + a^2) - 1/(v + b^2)] +
    1/2 [log(s^2/(v + s^2)) + v/(v + s^2)]_a^b along each axis, and the two ends."""
    v, d = prior.variances, in_axes(prior, x)
    a, b = v + start**2, v + end**2
    middle = d**2 / 2 * (1 / a - 1 / b)
    middle = middle + 0.5 * (math.log(end**2 / start**2) - (b / a).log() + v / b - v / a)
    total = end**2 + elbo.SPREAD**2
    ratio = end**2 / total
    last = 0.5 * (SIZE * (ratio - 1 - math.log(ratio)) + ((x - elbo.CENTRE) ** 2).flatten(1).sum(1) / total)
    return middle.sum(1) + last + SIZE / 2 * (1 + math.log(2 * math.pi * start**2))


def bound(prior: GaussianDenoiser, x: Tensor, sigmas: list[float]) -> Tensor:
    copies, noise = exact_draws(x)
    return elbo.nats(prior, copies, sigmas, lambda _: noise).flatten(1).sum(1).mean()


def test_elbo_is_its_closed_form():
    """In float64, to 1e-3 nats of some 15 at 400 noise levels; the trapezoidal rule's error is of second order."""
    prior = gaussian()
    x = prior.sample(1, seeded(6)) + 0.1
    truth = closed_form_bound(prior, x, 0.01, 3.0)[0]
    errors = []
    for levels in (200, 400):
        sigmas = torch.logspace(-2, math.log10(3.0), levels, dtype=torch.float64).tolist()
        sigmas[0], sigmas[-1] = 0.01, 3.0
        errors.append(float((bound(prior, x, sigmas) - truth).abs()))
    assert errors[1] < 1e-3
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)


def test_elbo_bounds_the_negative_log_likelihood_and_reaches_it():
    """On average: by 0.02 bits/dim over the levels of the benchmark, by 1e-4 over wide ones."""
    prior = gaussian()
    x = prior.sample(500, seeded(7))
    truth = -prior.log_prob(x)
    gap = (closed_form_bound(prior, x, elbo.LOWEST, on_prior.HIGHEST) - truth).mean() / SIZE / math.log(2)
    assert 0 < gap < 0.02
    wide = (closed_form_bound(prior, x, 1e-4, 1e3) - truth).mean() / SIZE / math.log(2)
    assert abs(wide) < 1e-4


def test_maps_are_smoothed_by_the_side_and_scored_by_their_top():
    spots = np.zeros((1, 192, 192))
    spots[0, 96, 96] = 1.0
    found = smoothed(spots)
    assert found.sum() == pytest.approx(1, rel=1e-3)
    assert found[0, 96, 96] == pytest.approx(1 / (2 * math.pi * 4), rel=0.02)
    assert smoothed(spots[:, 48:144, 48:144])[0, 48, 48] == pytest.approx(1 / (2 * math.pi), rel=0.05)
    ramp = np.arange(400.0).reshape(1, 20, 20)
    assert top_mean(ramp)[0] == pytest.approx(398.5)


def picture(seed: int, side: tuple[int, int] = (40, 36)) -> Image:
    """A bright disc of varying size on grey noise."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: side[0], : side[1]]
    disc = (rows - side[0] / 2) ** 2 + (columns - side[1] / 2) ** 2 < (10 + seed % 4) ** 2
    pixels = (60 + 100 * disc + 4 * rng.standard_normal(side)).astype(np.float32)
    return Image(pixels[None], Path(f"{seed}.png"), 255.0)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Task]:
    """A KLIP model with the weights it began with, and nothing learned: enough to be read and asked."""
    folder = tmp_path_factory.mktemp("klip")
    images = [picture(seed) for seed in range(24)]
    groups = [str(seed) for seed in range(24)]
    model = KLIPModel(size=32, device="cpu")
    model.preparation_, model.prior_ = Preparation.fit(images, 32), ImagePrior(1)
    model.learned_, model.trained_on_, model.provenance_ = {}, {"images": 0}, Provenance.of(images, groups)
    model.save(folder / "model")
    return folder, Task(images, groups, "range", 64, 0, 1.0, Fold(folder), folder)


@pytest.mark.parametrize("name", ["anoddpm", "anoddpm_octaves", "ddpm_ood", "diffpath", "elbo"])
def test_a_peer_reads_klips_prior_and_judges_each_image_by_itself(fitted, name, monkeypatch):
    monkeypatch.setattr(ddpm_ood, "HEALTHY", 4)
    monkeypatch.setattr(diffpath, "HEALTHY", 12)
    folder, task = fitted
    entry = METHODS[name]
    assert entry.needs == "klip" and entry.family == "diffusion"
    method = entry.make()
    assert method.fit(task, print).remark
    method.load(folder, task)
    images = [picture(50), picture(51, (33, 48)), picture(52)]
    found = method.judge(images)
    assert found.anomaly.shape == (3,) and np.isfinite(found.anomaly).all()
    assert found.calls >= 10
    alone = method.judge(images[1:2])
    np.testing.assert_allclose(alone.anomaly, found.anomaly[1:2], rtol=0.02, atol=0.02)  # the network is in bfloat16
    if name == "diffpath":
        assert found.maps is None
        return
    assert found.maps is not None
    assert [one.shape for one in found.maps] == [image.pixels.shape[1:] for image in images]
    assert all(one.dtype == np.float32 and np.isfinite(one).all() for one in found.maps)


def test_ddpm_ood_takes_what_is_usual_from_images_that_the_prior_did_not_learn_from(fitted):
    _, task = fitted
    chosen = on_prior.unseen(task)
    assert 0 < len(chosen) < len(task.images)
    assert chosen == on_prior.unseen(dataclasses.replace(task, images=()))


def test_nothing_is_said_of_where_a_peer_was_reduced_that_is_not_so():
    assert f"{anoddpm.STEPS} ancestral steps" in anoddpm.AnoDDPM.remark
    assert "25 steps for 250" in METHODS["anoddpm"].reference and anoddpm.STEPS == 25
    assert "20 noise levels" in METHODS["elbo"].reference and elbo.LEVELS == 20
