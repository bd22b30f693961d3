"""Likelihood, encoding and decoding against closed forms, in float64.

For x ~ N(mean, C) everything along the ODE is known: (C + sigma^2 I)^(-1/2) (x_t - mean) does not change. Hence where
it ends, and the log determinant of the way, position by position.
"""

import math

import pytest
import torch
from torch import nn
from torchdiffeq import odeint

from priorlens.prior.denoiser import Preconditioned
from priorlens.prior.ode import bits_per_dim, decode, drift, encode, log_likelihood, reconstruct
from priorlens.prior.oracles import GaussianDenoiser, MixtureDenoiser

SHAPE = (2, 2, 2)
SIZE = math.prod(SHAPE)
LEVELS = {"sigma_min": 0.02, "sigma_max": 30.0}
ORDERS = [("euler", 1), ("heun", 2), ("rk4", 4)]
STAGES = {"euler": 1, "heun": 2, "rk4": 4}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=seeded(seed))


def covariance(size: int, seed: int, spread: float = 1.0) -> torch.Tensor:
    """Random axes, variances spread over two decades about `spread`."""
    axes, _ = torch.linalg.qr(normal(size, size, seed=seed))
    return spread * (axes * torch.logspace(-1, 1, size, dtype=torch.float64)) @ axes.T


class KnownGaussian:
    """A Gaussian prior with its ODE in closed form."""

    def __init__(self, shape: tuple[int, ...] = SHAPE, seed: int = 0) -> None:
        self.mean = 0.3 * normal(*shape, seed=seed)
        self.covariance = covariance(self.mean.numel(), seed + 1)
        self.denoiser = GaussianDenoiser(self.mean, self.covariance)
        self.x = self.denoiser.sample(3, seeded(seed + 2))

    def growth(self, sigma_from: float, sigma_to: float) -> torch.Tensor:
        """Log of the matrix that carries x_t - mean from one noise level to another."""
        variances, axes = torch.linalg.eigh(self.covariance)
        return 0.5 * (axes * ((variances + sigma_to**2) / (variances + sigma_from**2)).log()) @ axes.T

    def carried(self, sigma_from: float, sigma_to: float) -> torch.Tensor:
        moved = (self.x - self.mean).flatten(1) @ torch.matrix_exp(self.growth(sigma_from, sigma_to))
        return self.mean + moved.reshape(self.x.shape)

    def log_prob_map(self, sigma_min: float, sigma_max: float, terminal_std: float) -> torch.Tensor:
        z = self.carried(sigma_min, sigma_max)
        terminal = -0.5 * (z / terminal_std) ** 2 - math.log(terminal_std) - 0.5 * math.log(2 * math.pi)
        return (terminal + self.growth(sigma_min, sigma_max).diagonal().reshape(self.mean.shape)).sum(1)


def known_mixture() -> tuple[MixtureDenoiser, torch.Tensor]:
    covariances = torch.stack([covariance(SIZE, seed, spread=0.3) for seed in (1, 2)])
    mixture = MixtureDenoiser(torch.tensor([1.0, 2.0]).double(), 0.5 * normal(2, *SHAPE, seed=3), covariances)
    return mixture, mixture.sample(3, seeded(4))


@pytest.mark.parametrize(("method", "order"), ORDERS)
def test_likelihood_converges_with_the_solvers_order(method, order):
    known = KnownGaussian()
    truth = known.log_prob_map(**LEVELS, terminal_std=math.hypot(30, 1))

    def error_at(steps):
        found = log_likelihood(known.denoiser, known.x, **LEVELS, method=method, steps=steps, probes=None)
        return (found.log_prob_map - truth).abs().max().item()

    coarse, fine = error_at(16), error_at(32)
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.15)
    assert fine < {1: 6e-2, 2: 3e-3, 4: 3e-6}[order]


@pytest.mark.parametrize(("method", "order"), ORDERS)
@pytest.mark.parametrize("direction", ["encode", "decode"])
def test_encode_and_decode_converge_with_the_solvers_order(method, order, direction):
    known = KnownGaussian()
    latent = known.carried(0.02, 3.0)

    def error_at(steps):
        kwargs = {"sigma_min": 0.02, "sigma_r": 3.0, "method": method, "steps": steps}
        if direction == "encode":
            return (encode(known.denoiser, known.x, **kwargs).x_t - latent).abs().max().item()
        return (decode(known.denoiser, latent, **kwargs).x_t - known.x).abs().max().item()

    assert math.log2(error_at(32) / error_at(64)) == pytest.approx(order, abs=0.15)


def test_dopri5_is_the_reference_for_likelihood_and_encoding():
    known = KnownGaussian()
    kwargs = {"method": "dopri5", "rtol": 1e-7, "atol": 1e-7}
    found = log_likelihood(known.denoiser, known.x, **LEVELS, probes=None, **kwargs)
    truth = known.log_prob_map(**LEVELS, terminal_std=math.hypot(30, 1))
    torch.testing.assert_close(found.log_prob_map, truth, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.z, known.carried(0.02, 30.0), rtol=0, atol=1e-5)
    up = encode(known.denoiser, known.x, sigma_min=0.02, sigma_r=3.0, **kwargs)
    torch.testing.assert_close(up.x_t, known.carried(0.02, 3.0), rtol=0, atol=1e-5)
    assert found.nfe > 6 and up.nfe > 6


@pytest.mark.parametrize("method", ["heun", "rk4", "dopri5"])
def test_likelihood_is_the_density_at_sigma_min(method):
    """To 2e-3 nats, of about 10: what the terminal Gaussian, centred at zero, leaves at sigma_max = 1000."""
    known = KnownGaussian()
    found = log_likelihood(
        known.denoiser,
        known.x,
        sigma_min=0.01,
        sigma_max=1000.0,
        method=method,
        steps=50 if method == "rk4" else 100,
        probes=None,
    )
    tolerance = 1e-2 if method == "heun" else 2e-3
    torch.testing.assert_close(found.log_prob, known.denoiser.log_prob(known.x, 0.01), rtol=0, atol=tolerance)


@pytest.mark.parametrize("method", ["rk4", "dopri5"])
def test_likelihood_of_a_mixture(method):
    mixture, x = known_mixture()
    kwargs = {"sigma_min": 0.05, "sigma_max": 1000.0, "probes": None}
    found = log_likelihood(mixture, x, **kwargs, method=method, steps=50, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.log_prob, mixture.log_prob(x, 0.05), rtol=0, atol=2e-3)


def test_a_matched_terminal_gaussian_needs_a_smaller_sigma_max():
    """Error of N(0, sigma_max^2 I), as published, against that of the data's own second moment: white data, exact."""
    white = GaussianDenoiser(torch.zeros(SHAPE).double(), torch.eye(SIZE).double())
    x = white.sample(4, seeded(0))
    truth = white.log_prob(x, 0.02)
    kwargs = {"sigma_min": 0.02, "sigma_max": 5.0, "steps": 1, "probes": None}
    torch.testing.assert_close(log_likelihood(white, x, **kwargs).log_prob, truth, rtol=0, atol=1e-12)
    published = log_likelihood(white, x, **kwargs, terminal_std=5.0).log_prob
    z = x * math.hypot(5, 1) / math.hypot(0.02, 1)
    expected = SIZE * math.log(math.hypot(5, 1) / 5) - 0.5 * (z**2).flatten(1).sum(1) * (1 / 25 - 1 / 26)
    torch.testing.assert_close(published - truth, expected, rtol=0, atol=1e-9)


def test_sigma_data_changes_the_error_but_not_the_answer():
    known = KnownGaussian()
    truth = known.log_prob_map(**LEVELS, terminal_std=30.0)
    for sigma_data in (0.3, 2.0):
        kwargs = {"method": "rk4", "steps": 40, "probes": None, "sigma_data": sigma_data, "terminal_std": 30.0}
        found = log_likelihood(known.denoiser, known.x, **LEVELS, **kwargs)
        torch.testing.assert_close(found.log_prob_map, truth, rtol=0, atol=1e-4)


def test_the_scaled_flow_is_the_ode_of_its_drift():
    """torchdiffeq on dx/dsigma as the papers write it, not scaled, in sigma itself."""
    mixture, x = known_mixture()

    def papers(sigma, x_t):
        return drift(mixture, x_t, sigma.expand(len(x_t)))

    path = odeint(papers, x, torch.tensor([0.05, 4.0]).double(), rtol=1e-9, atol=1e-9)
    ours = encode(mixture, x, sigma_min=0.05, sigma_r=4.0, method="rk4", steps=60)
    torch.testing.assert_close(ours.x_t, path[-1], rtol=0, atol=1e-6)


def test_map_sums_to_the_log_probability():
    known = KnownGaussian()
    for probes in (None, 3):
        found = log_likelihood(known.denoiser, known.x, **LEVELS, steps=4, probes=probes, generator=seeded(0))
        assert torch.equal(found.log_prob_map.flatten(1).sum(1), found.log_prob)
        assert found.log_prob_map.shape == (3, *SHAPE[1:])


@pytest.mark.parametrize("shape", [(6,), (2, 5), (2, 2, 2, 2)], ids=["vectors", "1-D", "3-D"])
def test_any_space(shape):
    known = KnownGaussian(shape, seed=5)
    found = log_likelihood(known.denoiser, known.x, **LEVELS, method="rk4", steps=40, probes=None)
    truth = known.log_prob_map(**LEVELS, terminal_std=math.hypot(30, 1))
    torch.testing.assert_close(found.log_prob_map, truth, rtol=0, atol=1e-4)


@pytest.mark.parametrize("method", ["heun", "dopri5"])
def test_hutchinsons_estimate_keeps_its_stated_error(method):
    """Over seeds, (estimate - exact) / standard_error has mean 0 and spread 1 (a t variate of 11 degrees: 1.1)."""
    known = KnownGaussian()
    x = known.x[:1]
    kwargs = {**LEVELS, "method": method, "steps": 6, "rtol": 1e-3, "atol": 1e-3}
    exact = log_likelihood(known.denoiser, x, **kwargs, probes=None)
    runs = [
        log_likelihood(known.denoiser, x, **kwargs, probes=12, generator=seeded(seed))
        for seed in range(30 if method == "heun" else 10)
    ]
    deviations = torch.cat([(run.log_prob - exact.log_prob) / run.standard_error for run in runs])
    assert abs(deviations.mean()) < 3.5 / math.sqrt(len(runs))
    assert 0.6 < deviations.std() < 1.5
    assert exact.standard_error.tolist() == [0.0]


def test_new_probes_along_the_path_are_less_noisy_than_one():
    """Spread over seeds of the single-probe estimate: new probes at 32 evaluations against one that is kept."""
    known = KnownGaussian()

    def spread(method):
        kwargs = {**LEVELS, "method": method, "rtol": 0.1, "atol": 0.1}
        runs = [log_likelihood(known.denoiser, known.x[:1], **kwargs, generator=seeded(seed)) for seed in range(20)]
        return torch.cat([run.log_prob for run in runs]).std()

    assert spread("heun") < 0.5 * spread("dopri5")


def test_an_image_does_not_depend_on_its_neighbours():
    known = KnownGaussian()
    together = log_likelihood(known.denoiser, known.x, **LEVELS, steps=5, probes=2, generator=seeded(1))
    alone = log_likelihood(known.denoiser, known.x[1:2], **LEVELS, steps=5, probes=2, generator=seeded(1))
    torch.testing.assert_close(alone.log_prob_map[0], together.log_prob_map[1], rtol=0, atol=1e-10)


@pytest.mark.parametrize("method", ["euler", "heun", "rk4", "dopri5"])
def test_every_evaluation_is_counted(method):
    known = KnownGaussian()
    calls = []

    def counted(x_t, sigma):
        calls.append(sigma)
        return known.denoiser(x_t, sigma)

    kwargs = {"method": method, "steps": 5, "rtol": 1e-2, "atol": 1e-2}
    found = log_likelihood(counted, known.x, **LEVELS, **kwargs, probes=2, generator=seeded(0))
    assert found.nfe == len(calls)
    assert found.vjps == 2 * found.nfe
    if method != "dopri5":
        assert found.nfe == 5 * STAGES[method]
    exact = log_likelihood(known.denoiser, known.x, **LEVELS, **kwargs, probes=None)
    assert exact.vjps == SIZE * exact.nfe

    calls.clear()
    there_and_back = reconstruct(counted, known.x, sigma_min=0.02, sigma_r=1.0, **kwargs)
    assert there_and_back.nfe == len(calls)


def test_encode_and_decode_are_inverse():
    mixture, x = known_mixture()
    kwargs = {"sigma_min": 0.02, "sigma_r": 2.0, "method": "rk4", "steps": 15}
    latent = encode(mixture, x, **kwargs).x_t
    assert (latent - x).abs().max() > 0.5
    torch.testing.assert_close(decode(mixture, latent, **kwargs).x_t, x, rtol=0, atol=1e-5)
    torch.testing.assert_close(reconstruct(mixture, x, **kwargs).x_t, decode(mixture, latent, **kwargs).x_t)


def test_bits_per_dim_of_known_densities():
    """A Gaussian's mean surprise is its entropy, 1/2 log2(2 pi e variance); small variances make it negative."""
    for std in (1.0, 0.05):
        white = GaussianDenoiser(torch.zeros(SHAPE).double(), std**2 * torch.eye(SIZE).double())
        x = torch.full((1, *SHAPE), std, dtype=torch.float64)  # the typical energy: one variance an element
        entropy = 0.5 * math.log2(2 * math.pi * math.e * std**2)
        assert bits_per_dim(white.log_prob(x), SIZE).item() == pytest.approx(entropy, abs=1e-12)
        found = log_likelihood(
            white, x, sigma_min=0.001 * std, sigma_max=1000 * std, steps=1, probes=None, sigma_data=std
        )
        assert bits_per_dim(found.log_prob, SIZE).item() == pytest.approx(entropy, abs=1e-5)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode], ids=["no_grad", "inference_mode"])
def test_gradients_are_not_needed_outside(mode):
    known = KnownGaussian()
    expected = log_likelihood(known.denoiser, known.x, **LEVELS, steps=3, probes=1, generator=seeded(0))
    with mode():
        found = log_likelihood(known.denoiser, known.x.clone(), **LEVELS, steps=3, probes=1, generator=seeded(0))
    torch.testing.assert_close(found.log_prob, expected.log_prob)
    assert not expected.log_prob.requires_grad


class Convolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        with torch.no_grad():
            self.conv.weight.copy_(0.2 * normal(2, 2, 3, 3, seed=0))
            self.conv.bias.zero_()

    def forward(self, x: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.conv(x))


def test_a_bfloat16_network_is_integrated_in_float32():
    """bfloat16 keeps 8 bits: the log density of 32 elements agrees within 0.1 nats; float32 and float64 within 1e-3."""
    x = normal(2, 2, 4, 4, seed=1)
    kwargs = {**LEVELS, "steps": 8, "probes": None}
    full = log_likelihood(Preconditioned(Convolution(), bf16=False), x.float(), **kwargs)
    half = log_likelihood(Preconditioned(Convolution(), bf16=True), x.float(), **kwargs)
    wide = log_likelihood(Preconditioned(Convolution(), bf16=False), x, **kwargs)
    assert half.log_prob.dtype == half.z.dtype == torch.float32
    torch.testing.assert_close(half.log_prob, full.log_prob, rtol=0, atol=0.1)
    torch.testing.assert_close(wide.log_prob.float(), full.log_prob, rtol=0, atol=1e-3)


def test_bfloat16_images_and_answers_are_upcast():
    known = KnownGaussian()

    def blunt(x_t, sigma):
        return known.denoiser(x_t, sigma).bfloat16()

    found = log_likelihood(blunt, known.x.bfloat16(), **LEVELS, steps=4, probes=1, generator=seeded(0))
    assert found.log_prob_map.dtype == torch.float32
    up = encode(blunt, known.x.bfloat16(), sigma_min=0.1, sigma_r=1.0)
    assert up.x_t.dtype == torch.float32


def test_the_networks_weights_gather_no_gradients():
    network = Preconditioned(Convolution(), bf16=False)
    log_likelihood(network, normal(1, 2, 4, 4, seed=1), **LEVELS, steps=2, probes=1, generator=seeded(0))
    assert all(weight.grad is None for weight in network.parameters())


def test_refuses_what_has_no_meaning():
    known = KnownGaussian()
    with pytest.raises(ValueError, match="sigma_min < sigma_max"):
        log_likelihood(known.denoiser, known.x, sigma_min=1.0, sigma_max=0.5, probes=None)
    with pytest.raises(ValueError, match="generator"):
        log_likelihood(known.denoiser, known.x, **LEVELS, probes=1)
    with pytest.raises(ValueError, match="one probe or more"):
        log_likelihood(known.denoiser, known.x, **LEVELS, probes=0, generator=seeded(0))
    with pytest.raises(ValueError, match="positive"):
        encode(known.denoiser, known.x, sigma_min=0.0, sigma_r=1.0)
