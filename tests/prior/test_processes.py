"""Several processes train one model: the same as one process does, from the same draws, and none waits for the dead."""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as multiprocessing
from safetensors.torch import load_file, save_file
from torch import nn

from priorlens.errors import InputError, ModelError, ProcessError
from priorlens.prior import processes, watch
from priorlens.prior.denoiser import Preconditioned
from priorlens.prior.network import UNet
from priorlens.prior.training import Schedule, denoising_loss, train
from priorlens.prior.views import Views

PROCESSES = 3
STEPS = 8

WEIGHTS = 1e-5
"""How far float32 weights may differ, relative to their norm, however many processes or pieces: measured 2e-7."""

BF16 = 2e-3
"""The same where networks run in bfloat16, which rounds each process's gradient to 3 digits: measured 2e-4."""


def images(count: int = 40) -> torch.Tensor:
    """Blobs whose place and brightness vary."""
    generator = torch.Generator().manual_seed(1)
    axis = torch.linspace(-1, 1, 16)
    down, across, level = (torch.rand(count, 1, 1, generator=generator) for _ in range(3))
    return (level * torch.exp(-((axis[:, None] - down + 0.5) ** 2 + (axis - across + 0.5) ** 2) / 0.2))[:, None]


def denoiser(bf16: bool = False) -> Preconditioned:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Preconditioned(UNet(1, (16, 24)), 0.5, bf16=bf16)


WAYS = {
    "whole": {"batch": 8},
    "one_each": {"batch": 3},
    "fewer_images_than_processes": {"batch": 2},
    "in_pieces": {"batch": 8, "accumulate": 3},
    "views": {"batch": 8, "views": Views(moved=True, patch=12)},
    "bf16": {"batch": 8, "bf16": True},
}


def learned(
    *,
    batch: int = 8,
    accumulate: int = 1,
    bf16: bool = False,
    views: Views | None = None,
    state: Path | None = None,
    stop: int = 0,
    losses: list[float] | None = None,
    data: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """Weights after eight steps; `stop`: left after so many."""
    module = denoiser(bf16)

    def on_step(step: int, loss: float) -> None:
        if losses is not None:
            losses.append(loss)
        if step == stop:
            raise StopIteration

    schedule = Schedule(STEPS, batch=batch, warm_up=3)
    with suppress(StopIteration):
        train(
            module,
            denoising_loss,
            images() if data is None else data,
            schedule,
            seed=5,
            views=views,
            state=state,
            on_step=on_step,
            save_every=0.0,
            accumulate=accumulate,
        )
    return module.state_dict()


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Of all weights, relative to their norm."""
    gap, norm = (
        sum(float(value.double().square().sum()) for value in values)
        for values in ([one[name] - other[name] for name in one], one.values())
    )
    return (gap / norm) ** 0.5


# --- what processes do together


def port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def join(rank: int, count: int, free: int) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free), "CUDA_VISIBLE_DEVICES": ""}
    processes.join()


def work(rank: int, count: int, free: int, folder: Path) -> None:
    """All that the tests below look at: starting processes takes longer than what they do."""
    join(rank, count, free)
    found: dict[str, object] = {"who": [processes.rank(), processes.count(), processes.first()]}
    for name, way in WAYS.items():
        losses: list[float] = []
        save_file(learned(**way, losses=losses), folder / f"{name}.{rank}.safetensors")
        found[name] = losses
    own = folder / "together.safetensors" if rank == 0 else None
    learned(state=own, stop=4)
    alone = folder / "alone.safetensors" if rank == 0 else None
    losses = []
    save_file(learned(state=alone, losses=losses), folder / f"resumed.{rank}.safetensors")
    found["resumed"] = losses

    found["decided"] = processes.decided(lambda: {"by": rank})
    tensors = processes.of_first(lambda: {"a": torch.full((2, 3), float(rank)), "none": torch.zeros(0)})
    found["of_first"] = [tensors["a"].tolist(), list(tensors["none"].shape)]
    told: list[int] = []
    shared = processes.shared_out(range(7), lambda item: {"of": torch.tensor([item, rank])}, told.append)
    found["shared"], found["told"] = [one["of"].tolist() for one in shared], told
    for name, own_plan in {"alike": {"seed": 1, "names": ("a", "b")}, "unlike": {"seed": rank}}.items():
        try:
            processes.require_alike("it", own_plan)
        except InputError as error:
            found[name] = str(error)
    began = time.monotonic()
    try:
        learned(data=images() + (0.5 if rank else 0.0))
    except (InputError, ProcessError) as error:
        found["other_data"] = [type(error).__name__, str(error), error.exit_code, time.monotonic() - began]
    (folder / f"{rank}.json").write_text(json.dumps(found))
    if rank:
        os._exit(0)  # without a word to the first, which is in the middle of a step


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("together")
    learned(state=folder / "alone.safetensors", stop=5)
    multiprocessing.spawn(work, (PROCESSES, port(), folder), PROCESSES)
    return folder


def found(done: Path, rank: int) -> dict[str, object]:
    return json.loads((done / f"{rank}.json").read_text())


@pytest.mark.parametrize("name", WAYS)
def test_processes_learn_what_one_does(done: Path, name: str) -> None:
    losses: list[float] = []
    alone = learned(**{**WAYS[name], "accumulate": 1}, losses=losses)
    weights = [load_file(done / f"{name}.{rank}.safetensors") for rank in range(PROCESSES)]
    assert 0 < distance(alone, weights[0]) < (BF16 if name == "bf16" else WEIGHTS)
    assert all(torch.equal(weights[0][key], other[key]) for other in weights[1:] for key in other)
    for rank in range(PROCESSES):
        assert found(done, rank)[name] == pytest.approx(losses, rel=1e-2 if name == "bf16" else 1e-5)


def test_one_process_in_pieces_learns_the_same() -> None:
    whole = learned()
    assert 0 < distance(whole, learned(accumulate=3)) < WEIGHTS
    more, fewer = learned(accumulate=100), learned(accumulate=8)
    assert all(torch.equal(more[name], fewer[name]) for name in more), "an image is the smallest piece"


def test_a_run_goes_on_with_another_number_of_processes(done: Path) -> None:
    whole = learned()
    assert len(found(done, 0)["resumed"]) == STEPS - 4
    assert distance(whole, load_file(done / "resumed.0.safetensors")) < WEIGHTS
    losses: list[float] = []
    assert distance(whole, learned(state=done / "together.safetensors", losses=losses)) < WEIGHTS
    assert len(losses) == STEPS - 3, "the fourth step was not written"


def test_only_the_first_writes_the_unfinished_run(done: Path) -> None:
    assert {path.name for path in done.glob("*together*")} == {"together.safetensors"}
    with pytest.raises(ModelError):
        learned(state=done / "together.safetensors", batch=4)


def test_what_processes_tell_each_other(done: Path) -> None:
    for rank in range(PROCESSES):
        told = found(done, rank)
        assert told["who"] == [rank, PROCESSES, rank == 0]
        assert told["decided"] == {"by": 0} and told["of_first"] == [[[0.0] * 3] * 2, [0]]
        assert told["shared"] == [[item, item % PROCESSES] for item in range(7)] and told["told"] == list(range(7))
        assert "alike" not in told
        refused = "it is another than that of the first process; give all the same images and options"
        assert told.get("unlike") == (refused if rank else None)


def test_other_data_than_the_first_has_is_refused(done: Path) -> None:
    for rank in range(1, PROCESSES):
        kind, told, code, _ = found(done, rank)["other_data"]
        assert kind == "InputError" and code == 3 and "not those of the first process" in told


# --- when one is gone


def test_none_waits_for_others_that_are_gone(done: Path) -> None:
    kind, told, code, seconds = found(done, 0)["other_data"]
    assert kind == "ProcessError" and code == 9 and seconds < 60
    assert told.startswith("another process of this training has ended") and "--resume" in told and "\n" not in told


Pair = tuple[watch.Watch, torch.distributed.HashStore]


@pytest.fixture
def pair() -> Pair:
    """The first of two processes, which has heard of the other once."""
    store = torch.distributed.HashStore()
    store.set("alive/1", "0")
    return watch.Watch(store, 0, 2), store


def test_one_that_gives_no_sign_of_life_is_gone(pair: Pair) -> None:
    seen, store = pair
    for _ in range(watch.MISSED + 1):
        seen.look()
    store.set("alive/1", "1")
    for _ in range(watch.MISSED + 2):
        seen.look()
    with pytest.raises(ProcessError, match="process 1 of this training gives no sign of life"):
        seen.look()


def test_why_another_has_failed_is_told_with_its_exit_code(pair: Pair) -> None:
    seen, store = pair
    store.set("known/0", "")
    other = watch.Watch.__new__(watch.Watch)
    vars(other).update(vars(seen), rank=1, others=[0])
    assert other.fail(ModelError("model: is damaged"))
    with pytest.raises(ProcessError, match="process 1 of this training: model: is damaged") as raised:
        seen.until(lambda: False)
    assert raised.value.exit_code == ModelError.exit_code


def test_a_process_that_was_stopped_stops_all(pair: Pair) -> None:
    seen, store = pair
    store.set("failed", json.dumps({"rank": 1, "code": 130, "text": ""}))
    with pytest.raises(KeyboardInterrupt):
        seen.look()


def test_variables_that_are_not_whole_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(InputError, match="RANK is not set; use torchrun"):
        processes.join()


def test_one_process_alone_is_the_first_of_one() -> None:
    assert (processes.rank(), processes.count(), processes.first()) == (0, 1, True)
    assert processes.decided(lambda: nn.Identity).__name__ == "Identity", "what it finds is not even looked at"
    assert [processes.part_of(7, i, 3) for i in range(3)] == [slice(0, 2), slice(2, 4), slice(4, 7)]
    assert [processes.part_of(2, i, 3) for i in range(3)] == [slice(0, 0), slice(0, 1), slice(1, 2)]
