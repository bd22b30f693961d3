"""The training loop: it learns what an oracle knows, and a killed run ends where an uninterrupted one does."""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from priorlens.errors import ModelError, OutputError
from priorlens.prior.denoiser import Denoiser, Preconditioned, over_space
from priorlens.prior.network import UNet
from priorlens.prior.oracles import GaussianDenoiser
from priorlens.prior.training import Batch, Schedule, denoising_loss, draw, train, variance_loss
from priorlens.prior.variance import VarianceHead

CPU = torch.device("cpu")
SIDE = 12


def oracle() -> GaussianDenoiser:
    """Smooth lines whose mean and deviation depend on the place: from .4 on the left to 1.6 on the right."""
    place = torch.linspace(-1, 1, SIDE)
    smooth = torch.exp(-0.5 * ((place[:, None] - place) / 0.35) ** 2) + 0.02 * torch.eye(SIDE)
    deviation = 1 + 0.6 * place
    return GaussianDenoiser(place[None], deviation[:, None] * smooth * deviation)


def lines(count: int) -> torch.Tensor:
    return oracle().sample(count, torch.Generator().manual_seed(1))


def denoiser(seed: int = 0) -> Preconditioned:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Preconditioned(UNet(1, (16, 24), space=1), bf16=False)


@torch.no_grad()
def loss_of(module: Denoiser, batch: Batch) -> float:
    """The denoising loss written out once more, for any denoiser (`sigma_data` 1)."""
    sigma = over_space(batch.sigma, batch.x)
    return float(((sigma**2 + 1) / sigma**2 * (module(batch.x_t, batch.sigma) - batch.x) ** 2).mean())


# --- what is learned


def test_training_reaches_the_oracles_loss():
    """On unseen data. Untrained, the loss is 1.8 times the oracle's; 150 steps bring it within 8 % (measured: 4.6)."""
    schedule = Schedule(150, batch=32, learning_rate=4e-3, warm_up=20, ema=0.98)
    unseen = oracle().sample(2048, torch.Generator().manual_seed(2))
    batch = draw(unseen, Schedule(1, batch=2048), torch.Generator().manual_seed(3), CPU)
    floor, module = loss_of(oracle(), batch), denoiser()
    assert loss_of(module, batch) > 1.7 * floor
    losses: list[float] = []
    train(module, denoising_loss, lines(8192), schedule, seed=0, on_step=lambda step, loss: losses.append(loss))
    assert floor < loss_of(module, batch) < 1.08 * floor
    assert len(losses) == 150 and not module.training


def test_denoising_loss_weighs_noise_levels_as_edm_does():
    batch = draw(lines(32), Schedule(1, batch=32), torch.Generator().manual_seed(3), CPU)
    module = denoiser()
    assert denoising_loss(module, batch).item() == pytest.approx(loss_of(module, batch), rel=1e-6)


def test_variance_loss_is_least_for_the_variance_itself():
    """A proper score: by its expectation 0.5 (log v + true / v), and so by its mean over many errors."""

    class Constant(VarianceHead):
        def __init__(self, log_variance: float) -> None:
            nn.Module.__init__(self)
            self.log_variance = log_variance

        def forward(self, x_t: torch.Tensor, denoised: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            return torch.full_like(x_t, self.log_variance)

    x = 0.5 * torch.randn(4096, 1, 4, generator=torch.Generator().manual_seed(0))
    batch = Batch(x, x, torch.ones(4096))
    loss = variance_loss(lambda x_t, sigma: torch.zeros_like(x_t))
    found = {v: float(loss(Constant(math.log(v)), batch)) for v in (0.125, 0.25, 0.5)}
    for v, value in found.items():
        assert value == pytest.approx(0.5 * (math.log(v) + 0.25 / v), abs=0.02)
    assert min(found, key=found.__getitem__) == 0.25


# --- batches and schedule


def test_a_batch_is_what_it_says_it_is():
    schedule = Schedule(1, batch=4096, log_sigma_mean=0.5, log_sigma_std=0.3)
    data = lines(16).half()
    batch = draw(data, schedule, torch.Generator().manual_seed(0), CPU)
    assert batch.x.dtype == batch.x_t.dtype == torch.float32
    assert all(any(torch.equal(x, one) for one in data.float()) for x in batch.x[:20])
    eps = (batch.x_t - batch.x) / over_space(batch.sigma, batch.x)
    assert float(eps.mean()) == pytest.approx(0, abs=0.02) and float(eps.std()) == pytest.approx(1, abs=0.02)
    logs = batch.sigma.log()
    assert float(logs.mean()) == pytest.approx(0.5, abs=0.02) and float(logs.std()) == pytest.approx(0.3, abs=0.02)
    again = draw(data, schedule, torch.Generator().manual_seed(0), CPU)
    assert torch.equal(batch.x_t, again.x_t) and torch.equal(batch.sigma, again.sigma)


def test_learning_rate_warms_up_and_falls_to_a_hundredth():
    schedule = Schedule(1000, learning_rate=2.0, warm_up=10)
    rates = [schedule.learning_rate_at(step) for step in range(1000)]
    assert rates[0] == pytest.approx(0.2, rel=0.01)
    assert max(rates) == rates[9] == pytest.approx(2.0, rel=0.01)
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[-1] == pytest.approx(0.02, rel=0.01)


# --- resuming


SEED = 5


class Killed(Exception):
    """Stands for whatever ends a process between two steps."""


def run(
    module: nn.Module, state: Path | None = None, *, seed: int = SEED, kill_at: int = 0, save_every: float = 60.0
) -> list[int]:
    """Twelve steps at most; a kill comes before its step is written. Returns the steps that were done and kept."""
    kept: list[int] = []

    def on_step(step: int, loss: float) -> None:
        if step == kill_at:
            raise Killed
        kept.append(step)

    schedule = Schedule(12, batch=8, warm_up=3)
    with pytest.raises(Killed) if kill_at else nullcontext():
        train(
            module,
            denoising_loss,
            lines(64),
            schedule,
            seed=seed,
            state=state,
            on_step=on_step,
            save_every=save_every,
        )
    return kept


def same(one: nn.Module, other: nn.Module) -> bool:
    """Bit for bit."""
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """An unfinished run, killed in its fifth step."""
    path = tmp_path / "run.safetensors"
    assert run(denoiser(), path, kill_at=5, save_every=0.0) == [1, 2, 3, 4]
    return path


@pytest.mark.parametrize("kills", [[2], [7], [12], [3, 4, 9]], ids=str)
def test_a_killed_run_ends_where_an_uninterrupted_one_does(tmp_path, kills):
    whole, state, steps = denoiser(), tmp_path / "run.safetensors", []
    run(whole)
    module = denoiser()
    for kill_at in kills:
        steps += run(module, state, kill_at=kill_at, save_every=0.0)
        module = denoiser(seed=99)  # a new process: any weights, until it has read its own
    steps += run(module, state)
    assert steps == list(range(1, 13)), "no step is kept twice, none left out"
    assert same(module, whole)


def test_a_run_killed_before_anything_was_written_starts_again(tmp_path):
    whole, module, state = denoiser(), denoiser(), tmp_path / "run.safetensors"
    run(whole)
    run(module, state, kill_at=4)
    assert not state.exists()
    module = denoiser()
    assert len(run(module, state)) == 12
    assert same(module, whole)


def test_a_finished_run_is_only_read(tmp_path):
    module, state = denoiser(), tmp_path / "run.safetensors"
    run(module, state)
    again = denoiser(seed=99)
    assert run(again, state) == []
    assert same(again, module) and not again.training


def test_another_seed_gives_another_run(state):
    one, other = denoiser(), denoiser()
    run(one)
    run(other, seed=SEED + 1)
    assert not same(one, other)
    with pytest.raises(ModelError, match="not this run's unfinished training") as error:
        run(denoiser(), state, seed=SEED + 1)
    assert str(state) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("data", "steps"), [(-lines(64), 12), (lines(63), 12), (lines(64), 11)], ids=["other", "fewer", "shorter"]
)
def test_other_data_or_another_schedule_is_another_run(state, data, steps):
    with pytest.raises(ModelError, match="not this run's unfinished training"):
        train(denoiser(), denoising_loss, data, Schedule(steps, batch=8, warm_up=3), seed=SEED, state=state)


def test_the_global_generator_is_left_alone():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    run(denoiser())
    assert torch.equal(torch.get_rng_state(), before)


def test_a_network_of_another_shape_is_refused(state):
    other = Preconditioned(UNet(1, (8, 24), space=1), bf16=False)
    with pytest.raises(ModelError, match="start again without --resume"):
        run(other, state)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"not a state at all"),
        lambda path: save_file({"x": torch.zeros(1)}, path),
        lambda path: save_file({"x": torch.zeros(1)}, path, {"run": "[1, 2]"}),
        lambda path: save_file({"x": torch.zeros(1)}, path, {"run": "7"}),
        lambda path: save_file({"x": torch.zeros(1)}, path, {"run": '{"seed": 5, "step": 3}'}),
        lambda path: (path.unlink(), path.mkdir()),
    ],
    ids=["truncated", "empty", "text", "foreign", "a list", "a number", "other tensors", "a folder"],
)
def test_a_state_that_cannot_be_read_is_named_in_one_line(state, spoil):
    spoil(state)
    with pytest.raises(ModelError) as error:
        run(denoiser(), state)
    assert str(state) in str(error.value) and "\n" not in str(error.value)


def test_a_state_that_cannot_be_written(tmp_path):
    with pytest.raises(OutputError):
        run(denoiser(), tmp_path / "no folder" / "run.safetensors", save_every=0.0)
