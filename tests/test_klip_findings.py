"""KLIP on Gaussian priors in float64: what it says of images and measurements, against what is worked out by hand."""

from __future__ import annotations

import math
import warnings

import deepinv
import pytest
import torch
from torch import Tensor, nn

from priorlens.errors import InputError
from priorlens.image_prior import ImagePrior
from priorlens.klip import DRAWS, KLIP, OWN_NOISE, SIGMAS, START, WIDTHS, Findings
from priorlens.measurement.inverses import Dense
from priorlens.measurement.operator import Normalised
from priorlens.measurement.physics import as_measured, build, operator, parse
from priorlens.posterior.denoisers import POSTERIORS
from priorlens.posterior.divergence import quadrature
from priorlens.prior.oracles import GaussianDenoiser

SHAPE = (2, 3, 4)
SIZE = math.prod(SHAPE)
WHITE = 0.25
"""Standard deviation of the white data that posterior denoisers take images to be, in intensities of [0, 1]."""
FINE = torch.logspace(-3, 2, 60, dtype=torch.float64).tolist()


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def gaussian(shape: tuple[int, ...] = SHAPE) -> GaussianDenoiser:
    """Pixels that tell of each other, of standard deviations about 0.3, around 0.5."""
    place = torch.arange(math.prod(shape), dtype=torch.float64)
    near = torch.exp(-(((place[:, None] - place) / 2) ** 2)) + 0.1 * torch.eye(len(place), dtype=torch.float64)
    scale = 0.3 * (1 + 0.5 * torch.sin(place))
    return GaussianDenoiser(0.5 + 0.1 * normal(*shape, seed=1), scale[:, None] * near * scale)


def measuring() -> tuple[Tensor, Dense]:
    """Eight random mixtures of all pixels, by a matrix of norm 1 and by the operator of the matrix."""
    matrix = normal(8, SIZE, seed=2)
    return matrix / torch.linalg.matrix_norm(matrix, 2), Dense(matrix, SHAPE)


def measured(images: int = 3, seed: int = 3) -> Tensor:
    x = gaussian().sample(images, torch.Generator().manual_seed(seed))
    return x.flatten(1) @ measuring()[0].T + 0.02 * normal(images, 8, seed=seed + 1)


class Counted:
    """A denoiser that knows of how many states it was asked."""

    def __init__(self) -> None:
        self.prior, self.states = gaussian(), 0

    def __call__(self, x_t: Tensor, sigma: Tensor) -> Tensor:
        self.states += len(x_t)
        return self.prior(x_t, sigma)


def same(one: Findings, other: Findings, *, rtol: float = 1e-9) -> None:
    for found in ("divergence.energy", "surprise.standardised", "surprise.coherent", "reconstruction"):
        values = []
        for value in (one, other):
            for name in found.split("."):
                value = getattr(value, name)
            values.append(value)
        torch.testing.assert_close(*values, rtol=rtol, atol=rtol)


# --- the image itself is measured


def test_two_images_differ_by_their_negative_log_likelihoods():
    """60 levels over five decades, 2000 draws: within 1 % of a difference of 177 bits (measured: 0.06 %)."""
    prior = gaussian()
    x = prior.mean + torch.tensor([0.5, 2.5]).double()[:, None, None, None] * 0.2 * normal(2, *SHAPE, seed=5)
    expected = -prior.log_prob(x).diff() / math.log(2)
    found = KLIP(prior, sigmas=FINE, widths=(0.0,), draws=2000).score(x).divergence.total.diff()
    assert float(expected) > 50
    torch.testing.assert_close(found, expected, rtol=0.01, atol=0)


def test_pairs_of_opposite_images_differ_so_even_by_one_draw():
    """What noise adds changes its sign with the image's side of the mean: of two such images the mean is free of it.
    Measured: off by 0.02 %."""
    prior = gaussian()
    away = 0.2 * normal(2, *SHAPE, seed=6) * torch.tensor([0.5, 2.0]).double()[:, None, None, None]
    x = torch.cat([prior.mean + away, prior.mean - away])
    bits = KLIP(prior, sigmas=FINE, widths=(0.0,), draws=1).score(x).divergence.total.unflatten(0, (2, 2)).mean(0)
    torch.testing.assert_close(bits.diff(), -prior.log_prob(x[:2]).diff() / math.log(2), rtol=1e-3, atol=0)


def test_the_image_itself_is_its_reconstruction():
    x = gaussian().sample(2, torch.Generator().manual_seed(0))
    found = KLIP(gaussian()).score(x)
    assert found.reconstruction is x
    assert found.nfe == found.divergence.nfe == len(SIGMAS) * DRAWS


def test_energy_of_an_image_is_the_priors_error():
    """One level, one draw: |x - E[x | x_t]|^2 / sigma^2, summed over channels."""
    prior, sigma = gaussian(), 0.3
    x = prior.sample(3, torch.Generator().manual_seed(0))
    x_t = x + sigma * torch.randn(SHAPE, generator=torch.Generator().manual_seed(7))
    drift = x - prior(x_t, torch.full((3,), sigma, dtype=torch.float64))
    found = KLIP(prior, sigmas=(sigma,), draws=1, seed=7).score(x)
    torch.testing.assert_close(found.divergence.energy[:, 0], drift.square().sum(1) / sigma**2)
    white = sigma**2 * WHITE**2 / (sigma**2 + WHITE**2)
    torch.testing.assert_close(found.surprise.standardised[:, 0], drift.square().mean(1) / white)
    torch.testing.assert_close(found.surprise.coherent[:, 0, 0], drift.square().mean(1) / white)


# --- a measurement


def by_hand(name: str, y: Tensor, noise: float, sigma: float, start: tuple[float, ...], seed: int) -> Tensor:
    """The drift at one level and one draw for the posteriors that need no Jacobian, by matrices alone."""
    A, prior = measuring()[0], gaussian()
    gram = A @ A.T

    def towards(image: Tensor, ridge: float) -> Tensor:
        residual = y - image.flatten(1) @ A.T
        return (residual @ torch.linalg.inv(gram + ridge * torch.eye(8).double()) @ A).unflatten(1, SHAPE)

    def denoised(image: Tensor, level: float) -> Tensor:
        return prior(image, torch.full((len(y),), level, dtype=torch.float64))

    generator = torch.Generator().manual_seed(seed)
    image = towards(torch.zeros(len(y), *SHAPE).double(), (noise / sigma) ** 2)
    for level in start:
        answer = denoised(image + level * torch.randn(SHAPE, generator=generator), level)
        image = answer + towards(answer, (noise / sigma) ** 2)
    answer = denoised(image + sigma * torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed)), sigma)
    spread = sigma**2 * WHITE**2 / (sigma**2 + WHITE**2)
    match name:
        case "ddnm":
            return towards(answer, (noise / sigma) ** 2)
        case "diffpir":
            return towards(answer, noise**2 / spread)
    residual = y - answer.flatten(1) @ A.T
    return spread / (spread + noise**2) * (residual @ A).unflatten(1, SHAPE)


@pytest.mark.parametrize("name", ["ddnm", "diffpir", "dps-plain"])
def test_energy_of_a_measurement_is_the_drift_worked_out_by_hand(name):
    """From the pseudo-inverse by two levels to the window's one, and its one draw."""
    y, start, sigma, noise = measured(), (0.8, 0.4), 0.2, 0.05
    options = {"noise": noise, "posterior": name, "sigmas": (sigma,), "draws": 1, "start": start, "seed": 5}
    found = KLIP(gaussian(), measuring()[1], **options).score(y)
    drift = by_hand(name, y, noise, sigma, start, seed=5)
    torch.testing.assert_close(found.divergence.energy[:, 0], drift.square().sum(1) / sigma**2, rtol=1e-6, atol=1e-9)
    assert found.divergence.weights.tolist() == [1.0]
    torch.testing.assert_close(found.divergence.kl_map * math.log(2), found.divergence.energy[:, 0])


def test_the_window_is_that_asked_for_and_its_weights_the_trapezoidal_rules():
    sigmas, widths = (0.1, 0.25, 0.3), (0.0, 2.0)
    found = KLIP(gaussian(), measuring()[1], sigmas=sigmas, widths=widths, draws=3).score(measured())
    divergence = found.divergence
    assert (divergence.sigmas, found.widths, divergence.draws) == (sigmas, widths, 3)
    assert divergence.energy.shape == (3, 3, 3, 4) and found.surprise.coherent.shape == (3, 3, 2, 3, 4)
    torch.testing.assert_close(divergence.weights, quadrature(sigmas))
    nats = torch.trapezoid(divergence.energy.flatten(2).sum(2), torch.tensor(sigmas).double().log(), dim=1)
    torch.testing.assert_close(divergence.total * math.log(2), nats)
    by_default = KLIP(gaussian(), measuring()[1]).score(measured())
    assert (by_default.divergence.sigmas, by_default.widths) == (SIGMAS, WIDTHS)


@pytest.mark.parametrize("name", POSTERIORS)
def test_cost_is_that_of_one_image_and_counted_whatever_the_posterior(name):
    """Evaluations are counted by the denoiser; a product with its Jacobian, of which it does not know, is one more."""
    prior, images = Counted(), 3
    found = KLIP(prior, measuring()[1], posterior=name, sigmas=(0.1, 0.2), draws=5).score(measured(images))
    products = 2 * 5 if name in ("pigdm", "dps") else 0
    assert prior.states == images * (len(START) + 2 * 5)
    assert found.nfe == prior.states / images + products
    assert found.divergence.nfe == found.nfe - len(START)


def test_a_variance_head_costs_as_much_again():
    prior = ImagePrior(1)
    x = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    assert KLIP(prior, variance=prior.variance, sigmas=(0.1,), draws=2).score(x).nfe == 4
    assert KLIP(prior, sigmas=(0.1,), draws=2).score(x).nfe == 2


@pytest.mark.parametrize("name", POSTERIORS)
def test_no_image_depends_on_those_beside_it(name):
    y = measured(4)
    klip = KLIP(gaussian(), measuring()[1], posterior=name)
    together, alone, reverse = klip.score(y), klip.score(y[2:3]), klip.score(y.flip(0))
    torch.testing.assert_close(alone.divergence.energy[0], together.divergence.energy[2], rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(reverse.reconstruction.flip(0), together.reconstruction, rtol=1e-7, atol=1e-9)
    assert float(together.divergence.total.std()) > 0


def test_posteriors_differ_and_an_unknown_one_is_refused():
    totals = {name: KLIP(gaussian(), measuring()[1], posterior=name).score(measured()) for name in POSTERIORS}
    assert len({round(float(found.divergence.total.sum()), 6) for found in totals.values()}) == len(POSTERIORS)
    with pytest.raises(ValueError, match="unknown posterior 'exact'"):
        KLIP(gaussian(), measuring()[1], posterior="exact").score(measured())


def test_the_seed_decides_the_noise():
    one, again, other = (KLIP(gaussian(), measuring()[1], seed=seed).score(measured()) for seed in (0, 0, 1))
    same(one, again, rtol=0)
    assert not torch.allclose(one.divergence.energy, other.divergence.energy)


def test_a_reconstruction_agrees_with_what_was_measured_unless_that_is_noisy():
    A, op = measuring()
    y = measured()

    def off(noise: float) -> float:
        return float((KLIP(gaussian(), op, noise=noise).score(y).reconstruction.flatten(1) @ A.T - y).norm() / y.norm())

    assert off(0.0) < 0.005
    assert off(0.3) > 0.05
    same(KLIP(gaussian(), op, noise=0.0).score(y), KLIP(gaussian(), op, noise=OWN_NOISE).score(y), rtol=0)


def test_what_contradicts_the_prior_costs_more_bits():
    usual = gaussian().sample(6, torch.Generator().manual_seed(4))
    unusual = gaussian().mean + 3 * (usual - gaussian().mean)
    klip = KLIP(gaussian(), measuring()[1], noise=0.02)
    bits = [klip.score(x.flatten(1) @ measuring()[0].T).divergence.total for x in (usual, unusual)]
    assert (bits[1] > 2 * bits[0]).all()


def test_an_image_prior_is_asked_in_intensities_of_zero_to_one():
    prior = ImagePrior(1)
    x = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    same(KLIP(prior).score(x), KLIP(prior.denoiser).score(x), rtol=0)
    sigma, noise = 0.25, torch.randn(1, 16, 16, generator=torch.Generator().manual_seed(0))
    answer = 0.5 + (x + sigma * noise - 0.5) / 2  # an untrained prior's: white data of deviation .25 about .5
    found = KLIP(prior, sigmas=(sigma,), draws=1).score(x)
    torch.testing.assert_close(found.divergence.energy[:, 0], (x - answer).square()[:, 0] / sigma**2)


# --- physics of deepinv's

GREY = (1, 8, 8)


class Twice(nn.Module):
    """Not linear in deepinv's sense: no `LinearPhysics`."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


def physics_of(name: str) -> nn.Module:
    mask = torch.ones(8, 8)
    mask[:, 1:3] = 0
    generator = torch.Generator().manual_seed(0)
    match name:
        case "inpainting":
            return deepinv.physics.Inpainting((1, 8, 8), mask[None])
        case "blur":
            return deepinv.physics.BlurFFT((1, 8, 8), 3 * torch.ones(1, 1, 3, 3))
        case "tomography":
            return deepinv.physics.Tomography(angles=5, img_width=8, normalize=False)
        case "mri":
            return deepinv.physics.MRI(mask=mask, img_size=(2, 8, 8))
        case "coils":
            maps = torch.complex(*(torch.randn(3, 8, 8, generator=generator) for _ in range(2)))
            return deepinv.physics.MultiCoilMRI(mask=mask, coil_maps=maps)
        case "any":
            matrix = torch.randn(20, 64, generator=generator)
            return deepinv.physics.LinearPhysics(
                A=lambda x: x.flatten(1) @ matrix.T, A_adjoint=lambda y: (y @ matrix).unflatten(1, GREY)
            )
    raise ValueError(name)


NAMES = ("inpainting", "blur", "tomography", "mri", "coils", "any")


def made(name: str) -> tuple[nn.Module, Normalised]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return physics_of(name), operator(physics_of(name), GREY)


@pytest.mark.parametrize("name", NAMES)
def test_a_physics_of_deepinvs_is_taken_with_measurements_in_its_own_units(name):
    """The same as the operator of norm 1 made of it, with y and noise divided by the physics' norm."""
    prior = gaussian(GREY)
    x = prior.sample(2, torch.Generator().manual_seed(0)).float()
    physics, known = made(name)
    y = physics.A(torch.cat([x, torch.zeros_like(x)], 1) if name in ("mri", "coils") else x)
    torch.testing.assert_close(as_measured(known, y), known.A(x), rtol=1e-4, atol=1e-4)
    found = KLIP(prior, physics, shape=GREY, noise=0.2 * known.norm).score(y)
    same(found, KLIP(prior, known, noise=0.2).score(known.A(x)), rtol=1e-3)
    if name in ("blur", "tomography", "coils", "any"):
        assert known.norm > 1.5, "a physics whose units matter"


def test_a_physics_without_a_shape_or_that_is_not_linear_is_refused():
    for physics, options, said in (
        (physics_of("blur"), {}, "physics BlurFFT: does not say which images it measures; give `shape`"),
        (Twice(), {"shape": GREY}, "physics Twice: is not linear"),
    ):
        with pytest.raises(InputError) as error:
            KLIP(gaussian(GREY), physics, **options)
        assert said in str(error.value) and "\n" not in str(error.value)


def test_an_operator_by_name_needs_no_shape():
    known = build(parse("super:factor=2"), GREY)
    x = gaussian(GREY).sample(2, torch.Generator().manual_seed(0)).float()
    found = KLIP(gaussian(GREY), known).score(known.A(x))
    torch.testing.assert_close(known.A(found.reconstruction.float()), known.A(x), rtol=0.01, atol=0.01)
