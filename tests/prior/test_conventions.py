"""Every convention against an oracle: a known denoiser is made a network of that convention, and converted back.

What a convention does to an image is written here as its paper has it, in terms of time, and shares no code with the
conversion, which knows only sigma.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from priorlens.prior.conventions import PREDICTIONS, Converted
from priorlens.prior.denoiser import Denoiser
from priorlens.prior.oracles import GaussianDenoiser, MixtureDenoiser

SHAPE = (2, 3)
BETA_MIN, BETA_MAX = 0.1, 20.0
SIGMA_MIN, SIGMA_MAX = 0.02, 60.0


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def mixture() -> MixtureDenoiser:
    factors = normal(2, 6, 6, seed=0)
    return MixtureDenoiser(torch.tensor([1.0, 2.0]).double(), 2 * normal(2, *SHAPE, seed=1), factors @ factors.mT / 6)


def cosine(steps: int = 1000) -> torch.Tensor:
    """Nichol & Dhariwal 2021, with their limit of .999 on beta."""
    t = torch.arange(steps + 1, dtype=torch.float64) / steps
    signal = ((t + 0.008) / 1.008 * math.pi / 2).cos() ** 2
    return (1 - signal[1:] / signal[:-1]).clamp(max=0.999)


BETAS = {
    "linear": torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64),
    "scaled_linear": torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2,
    "cosine": cosine(),
    "two steps": torch.tensor([0.1, 0.5], dtype=torch.float64),
}


def discrete(betas: torch.Tensor):
    """alpha_t and s_t of a DDPM; between steps log sigma is interpolated."""
    signal = (1 - betas).cumprod(0).numpy()
    log_sigmas = np.log(np.sqrt((1 - signal) / signal))

    def process(t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        sigma = torch.from_numpy(np.exp(np.interp(t.numpy(), np.arange(len(betas)), log_sigmas)))
        alpha = torch.cos(torch.atan(sigma))
        return alpha, torch.sin(torch.atan(sigma))

    return process


def vp(t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Song et al. 2021, equation 33."""
    log_alpha = -0.25 * t**2 * (BETA_MAX - BETA_MIN) - 0.5 * t * BETA_MIN
    return log_alpha.exp(), (-torch.expm1(2 * log_alpha)).sqrt()


def sub_vp(t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Song et al. 2021, the sub-VP SDE's perturbation kernel."""
    log_alpha = -0.25 * t**2 * (BETA_MAX - BETA_MIN) - 0.5 * t * BETA_MIN
    return log_alpha.exp(), -torch.expm1(2 * log_alpha)


def ve(t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Song et al. 2021, equation 31."""
    return torch.ones_like(t), SIGMA_MIN * (SIGMA_MAX / SIGMA_MIN) ** t


class OracleNetwork:
    """A denoiser as the network that a convention would have trained, and the times that it was asked for."""

    def __init__(self, denoiser: Denoiser, process, prediction: str) -> None:
        self.denoiser, self.process, self.prediction = denoiser, process, prediction
        self.asked: list[torch.Tensor] = []

    def __call__(self, z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        self.asked.append(t)
        alpha, s = (value[:, None, None] for value in self.process(t.double()))
        x = self.denoiser(z / alpha, (s / alpha).flatten())
        eps = (z - alpha * x) / s
        return {"epsilon": eps, "v_prediction": alpha * eps - s * x, "sample": x, "score": -eps / s}[self.prediction]


CONVENTIONS = {
    **{name: (discrete(betas), Converted.from_betas, {"betas": betas}) for name, betas in BETAS.items()},
    "vp": (vp, Converted.vp, {"beta_min": BETA_MIN, "beta_max": BETA_MAX}),
    "sub_vp": (sub_vp, Converted.sub_vp, {"beta_min": BETA_MIN, "beta_max": BETA_MAX}),
    "ve": (ve, Converted.ve, {"sigma_min": SIGMA_MIN, "sigma_max": SIGMA_MAX}),
}
LAST = {"vp": 1.0, "sub_vp": 1.0, "ve": 1.0} | {name: len(betas) - 1.0 for name, betas in BETAS.items()}


def agree(name: str, prediction: str, t: torch.Tensor) -> None:
    """The converted network is the oracle at the noise levels of times t."""
    process, convert, options = CONVENTIONS[name]
    network = OracleNetwork(mixture(), process, prediction)
    alpha, s = process(t)
    x_t = (1 + s / alpha)[:, None, None] * normal(len(t), *SHAPE, seed=2)
    converted = convert(network, **options, prediction=prediction)(x_t, s / alpha)
    # What a prediction says of x is multiplied by up to sigma: so are float64's rounding errors.
    torch.testing.assert_close(converted, mixture()(x_t, s / alpha), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("name", CONVENTIONS)
@settings(max_examples=20, deadline=None, derandomize=True)
@given(fraction=st.floats(0.002, 1))
def test_is_the_oracle_at_any_noise_level(name, prediction, fraction):
    t = fraction * LAST[name]
    if name in BETAS and abs(t - round(t)) <= 2e-3:
        t = round(t)  # so near to a step the network is told the step itself, by design
    agree(name, prediction, torch.tensor([t]).double())


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("name", BETAS)
def test_is_the_oracle_on_the_steps(name, prediction):
    agree(name, prediction, torch.linspace(0, LAST[name], 7).round().double())


@pytest.mark.parametrize("name", BETAS)
def test_a_step_is_told_as_itself(name):
    """Also where its sigma was rounded to float32; the batch may ask for several at once."""
    steps = torch.arange(len(BETAS[name])).double()
    alpha, s = discrete(BETAS[name])(steps)
    network = OracleNetwork(mixture(), discrete(BETAS[name]), "epsilon")
    Converted.from_betas(network, BETAS[name])(torch.zeros(len(steps), *SHAPE), (s / alpha).float())
    assert network.asked[0].dtype == torch.float32
    assert torch.equal(network.asked[0], steps.float())


def test_between_steps_the_network_is_told_a_fraction_or_the_nearest():
    process = discrete(BETAS["linear"])
    alpha, s = process(torch.tensor([10.25, 500.75]).double())
    x_t = normal(2, *SHAPE, seed=3)
    for integer_steps, told in [(False, [10.25, 500.75]), (True, [10, 501])]:
        network = OracleNetwork(mixture(), process, "epsilon")
        Converted.from_betas(network, BETAS["linear"], integer_steps=integer_steps)(x_t, s / alpha)
        torch.testing.assert_close(network.asked[0], torch.tensor(told), rtol=0, atol=1e-9, check_dtype=False)
        assert network.asked[0].is_floating_point() != integer_steps


@pytest.mark.parametrize(("scale", "convert"), [(999.0, Converted.vp), (999.0, Converted.sub_vp), (10.0, Converted.ve)])
def test_continuous_times_are_told_on_the_networks_scale(scale, convert):
    process = {Converted.vp: vp, Converted.sub_vp: sub_vp}.get(convert, ve)
    alpha, s = process(torch.tensor([0.3]).double())
    network = OracleNetwork(mixture(), process, "sample")
    bounds = {"sigma_min": SIGMA_MIN, "sigma_max": SIGMA_MAX} if process is ve else {}
    convert(network, **bounds, time_scale=scale)(normal(1, *SHAPE, seed=4), s / alpha)
    torch.testing.assert_close(network.asked[0], torch.tensor([0.3 * scale]).double())


def test_ve_networks_may_be_told_sigma():
    def score(z, t):
        return (GaussianDenoiser(torch.zeros(SHAPE).double(), torch.eye(6).double())(z, t) - z) / t[:, None, None] ** 2

    converted = Converted.ve(score, SIGMA_MIN, SIGMA_MAX, prediction="score", told="sigma")
    x_t, sigma = normal(3, *SHAPE, seed=5), torch.tensor([SIGMA_MIN, 1.0, SIGMA_MAX]).double()
    torch.testing.assert_close(converted(x_t, sigma), x_t / (1 + sigma[:, None, None] ** 2))


@pytest.mark.parametrize("name", CONVENTIONS)
def test_outside_its_levels_a_network_is_told_its_nearest_time(name):
    _, convert, options = CONVENTIONS[name]
    seen = []
    x_t, sigma = normal(2, *SHAPE, seed=6), torch.tensor([1e-7, 1e6]).double()
    convert(lambda z, t: seen.append((z, t)) or z, **options, prediction="sample")(x_t, sigma)
    ((z, t),) = seen
    torch.testing.assert_close(t, torch.tensor([1e-5 if "vp" in name else 0, LAST[name]]).double())
    # alpha goes on following sigma: for far too large ones z is the noise alone, of its usual size
    size = {"ve": x_t[1], "sub_vp": x_t[1] / 1e6}.get(name, x_t[1] / math.hypot(1, 1e6))
    torch.testing.assert_close(z[1], size)


def test_no_noise_at_all_is_answered():
    converted = Converted.from_betas(lambda z, t: torch.ones_like(z), BETAS["linear"])
    x_t = normal(1, *SHAPE, seed=7)
    torch.testing.assert_close(converted(x_t, torch.zeros(1).double()), x_t)


def test_steps_without_signal_are_left_out():
    signal = torch.tensor([0.9, 0.5, 0.1, 0.0, 0.0]).double()
    seen = []
    converted = Converted.from_alphas_cumprod(lambda z, t: seen.append(t) or z, signal, prediction="v_prediction")
    converted(normal(1, *SHAPE, seed=8), torch.tensor([1e4]).double())
    assert seen[0].tolist() == [2]


@pytest.mark.parametrize(
    "signal", [[0.9], [0.9, 0.9], [0.5, 0.9], [1.0, 0.5], [0.9, 0.0], [0.9, 0.5, 0.0, 0.1], [0.9, -0.1]]
)
def test_refuses_a_schedule_that_is_none(signal):
    with pytest.raises(ValueError, match="alphas_cumprod"):
        Converted.from_alphas_cumprod(lambda z, t: z, torch.tensor(signal))


def test_the_gradient_goes_through():
    converted = Converted.vp(OracleNetwork(mixture(), vp, "epsilon"))
    x_t, sigma = normal(1, *SHAPE, seed=9).requires_grad_(), torch.tensor([0.7]).double()
    (found,) = torch.autograd.grad(converted(x_t, sigma).sum(), x_t)
    (expected,) = torch.autograd.grad(mixture()(x_t, sigma).sum(), x_t)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


def test_keeps_the_images_precision():
    converted = Converted.vp(lambda z, t: z.double())
    assert converted(torch.ones(2, *SHAPE), torch.ones(2)).dtype == torch.float32
