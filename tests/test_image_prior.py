"""The prior of images: its units, its patches, how it is learned, and that nothing is lost on the way to a file."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from priorlens import image_prior
from priorlens.errors import InputError, ModelError
from priorlens.image_prior import SIGMA_DATA, VARIANCE_SHARE, ImagePrior, fit_image_prior, stages
from priorlens.prior.denoiser import Denoiser
from priorlens.prior.external import empty_external, load_external
from priorlens.prior.oracles import GaussianDenoiser
from priorlens.prior.training import train
from priorlens.prior.variance import Variance, WhiteVariance

SIDE = 16


@pytest.fixture(autouse=True, scope="module")
def small():
    """Networks of a few thousand parameters, and the same sums in every run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_prior, "_DENOISER", (1, 1))
        patch.setattr(image_prior, "_VARIANCE", (8, 8))
        patch.setattr(image_prior, "_DENOISER_3D", (8, 8))
        patch.setattr(image_prior, "_VARIANCE_3D", (8, 8))
        yield
    torch.set_num_threads(threads)


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def made(channels: int = 1, *, random: bool = True, **options) -> ImagePrior:
    """A prior of random weights; a new one's last layers are zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        prior = ImagePrior(channels, **{"width": 8} | options)
        for module in prior.networks.values() if random else ():
            for parameter in module.parameters():
                parameter += 0.1 * torch.randn(parameter.shape)
    return prior


def said(prior: ImagePrior, x_t: Tensor, level: float = 0.2) -> tuple[Tensor, Tensor]:
    """By denoiser and variance head."""
    sigma = torch.full((len(x_t),), level)
    with torch.no_grad():
        denoised = prior.denoiser(x_t, sigma)
        return denoised, prior.variance(x_t, denoised, sigma)


def fit(
    prior: ImagePrior, data: Tensor, state: Path | None = None, steps: int = 4, seed: int = 0, on_step=None
) -> None:
    fit_image_prior(prior, data, steps=steps, seed=seed, state=state, on_step=on_step or (lambda *told: None))


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


# --- units


def test_a_new_prior_is_that_of_white_data_about_a_half():
    """Of deviation .25 in intensities of [0, 1], as KLIP takes images to be where no head has learned better."""
    prior, x_t = made(random=False), uniform(2, 1, SIDE, SIDE)
    assert isinstance(prior.denoiser, Denoiser) and isinstance(prior.variance, Variance)
    for level in (0.05, 0.25, 1.0):
        denoised, log_variance = said(prior, x_t, level)
        torch.testing.assert_close(denoised, 0.5 + (x_t - 0.5) * 0.25**2 / (0.25**2 + level**2))
        white = WhiteVariance(SIGMA_DATA / 2)(x_t, denoised, torch.full((2,), level))
        torch.testing.assert_close(log_variance, white)


class Answer(nn.Module):
    """A head that knows the variance of a Gaussian prior in its own units."""

    def __init__(self, oracle: GaussianDenoiser) -> None:
        super().__init__()
        self.oracle = oracle

    def forward(self, x_t: Tensor, denoised: Tensor, sigma: Tensor) -> Tensor:
        # What it is shown has to be in its own units as well, or it would not be the oracle's answer.
        torch.testing.assert_close(denoised, self.oracle(x_t, sigma), rtol=1e-6, atol=1e-6)
        return self.oracle.posterior_variance(sigma).log().expand_as(x_t)


def test_denoiser_and_variance_are_brought_to_intensities_of_zero_to_one():
    """Against the oracle of the same Gaussian in [0, 1]: mean (m + 1) / 2, covariance C / 4."""
    place = torch.arange(9, dtype=torch.float64)
    covariance = 0.3 * torch.exp(-(((place[:, None] - place) / 2) ** 2)) + 0.05 * torch.eye(9, dtype=torch.float64)
    mean = torch.linspace(-0.5, 0.5, 9, dtype=torch.float64).reshape(1, 3, 3)
    prior = made()
    inside = GaussianDenoiser(mean, covariance)
    prior.inner, prior.head = inside, Answer(inside)
    outside = GaussianDenoiser((mean + 1) / 2, covariance / 4)
    x_t, sigma = uniform(3, 1, 3, 3).double(), torch.tensor([0.05, 0.3, 2.0], dtype=torch.float64)
    denoised = prior.denoiser(x_t, sigma)
    torch.testing.assert_close(denoised, outside(x_t, sigma))
    torch.testing.assert_close(prior.variance(x_t, denoised, sigma), outside.posterior_variance(sigma).log())


# --- patches


def test_images_larger_than_the_patch_are_seen_in_patches_and_others_whole():
    patched, whole = made(patch=SIDE), made()
    small, large = uniform(2, 1, SIDE, SIDE), uniform(2, 1, SIDE, 2 * SIDE)
    for ours, theirs in zip(said(patched, small), said(whole, small), strict=True):
        assert torch.equal(ours, theirs)
    for ours, theirs in zip(said(patched, large), said(whole, large), strict=True):
        assert ours.shape == large.shape and not torch.allclose(ours, theirs)
    ours = said(patched, large)[0]
    changed = large.clone()
    changed[..., -1] = 0
    reached = (said(patched, changed)[0] != ours).any(dim=(0, 1, 2))
    assert reached[-1] and not reached[: SIDE // 2].any(), "the far end is in no patch of the near one"


class Pixelwise(nn.Module):
    """Looks neither at place nor at neighbours: patches cannot change its answer."""

    def forward(self, *images_and_more: Tensor) -> Tensor:
        return images_and_more[0].sin()


def test_patches_leave_no_seam_where_place_does_not_matter():
    patched, whole = made(patch=SIDE), made()
    for prior in (patched, whole):
        prior.inner = prior.head = Pixelwise()
    x_t = uniform(2, 1, 40, 50)
    for ours, theirs in zip(said(patched, x_t), said(whole, x_t), strict=True):
        torch.testing.assert_close(ours, theirs)


# --- a file


@pytest.mark.parametrize(
    ("channels", "options"), [(1, {}), (3, {}), (1, {"patch": SIDE}), (1, {"space": 1}), (2, {"space": 3})]
)
def test_tensors_are_all_that_was_learned(channels, options):
    prior, again = made(channels, **options), made(channels, random=False, **options)
    x_t = uniform(2, channels, *(2 * SIDE,) * options.get("space", 2))
    assert not torch.allclose(said(again, x_t)[0], said(prior, x_t)[0])
    assert again.load_tensors(prior.tensors()) is again
    assert equal(again.tensors(), prior.tensors())
    for ours, theirs in zip(said(again, x_t), said(prior, x_t), strict=True):
        assert torch.equal(ours, theirs)
    assert {name.split(".")[0] for name in prior.tensors()} == {"denoiser", "variance"}
    numbers = {part: 0 for part in prior.parameters()}
    for name, value in prior.tensors().items():
        numbers[name.split(".")[0]] += value.numel()
    assert prior.parameters() == numbers


def test_tensors_that_do_not_fit_are_refused():
    tensors = made().tensors()
    for wrong in (
        {name: value for name, value in tensors.items() if name.startswith("denoiser")},
        made(3).tensors(),
        {},
    ):
        with pytest.raises((KeyError, RuntimeError)):
            made().load_tensors(wrong)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    diffusers = pytest.importorskip("diffusers")
    path = tmp_path_factory.mktemp("prior") / "ddpm"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = diffusers.UNet2DModel(
            sample_size=SIDE,
            in_channels=1,
            out_channels=1,
            block_out_channels=(4, 8),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D"),
            norm_num_groups=2,
        )
    diffusers.DDPMPipeline(net, diffusers.DDPMScheduler(clip_sample=False)).save_pretrained(path)
    return path


def test_a_prior_brought_along_goes_into_the_file_and_learns_only_its_variance(folder):
    external = load_external(folder)
    prior = made(external=external, random=False)
    x_t, before = uniform(2, 1, SIDE, SIDE), {name: value.clone() for name, value in prior.tensors().items()}
    inside = external.denoiser(2 * x_t - 1, torch.full((2,), 0.4))
    torch.testing.assert_close(said(prior, x_t)[0], (inside + 1) / 2)
    told = []
    fit(prior, uniform(8, 1, SIDE, SIDE), steps=8, on_step=lambda stage, *rest: told.append((stage, *rest[:2])))
    assert told == [("variance", 1, 2), ("variance", 2, 2)]
    changed = {name.split(".")[0] for name, value in prior.tensors().items() if not torch.equal(value, before[name])}
    assert changed == {"variance"}
    empty = made(external=empty_external(external.facts), random=False).load_tensors(prior.tensors())
    for ours, theirs in zip(said(empty, x_t), said(prior, x_t), strict=True):
        assert torch.equal(ours, theirs)


def test_a_prior_brought_along_has_no_patches(folder):
    with pytest.raises(InputError, match=r"^patch 8: .* sees images whole"):
        made(external=load_external(folder), patch=8)


# --- learning


def test_stages():
    assert stages(2400) == [("denoiser", 2400), ("variance", round(2400 * VARIANCE_SHARE))]
    assert stages(2400, external=True) == stages(2400)[1:] and stages(2400, head=False) == stages(2400)[:1]
    assert stages(2400, external=True, head=False) == []
    assert stages(1) == [("denoiser", 1), ("variance", 1)]


def test_without_a_head_only_the_denoiser_is_learned():
    prior, told = made(head=False, random=False), []
    fit(prior, uniform(8, 1, SIDE, SIDE), steps=2, on_step=lambda stage, *rest: told.append(stage))
    assert told == ["denoiser"] * 2
    assert prior.parameters().keys() == {"denoiser"}
    assert {name.split(".")[0] for name in prior.tensors()} == {"denoiser"}
    assert equal(made(head=False).load_tensors(prior.tensors()).tensors(), prior.tensors())
    with pytest.raises(ModelError, match="--variance-head"):
        prior.variance  # noqa: B018


def test_the_width_is_that_of_the_finest_resolution():
    narrow, wide = (made(width=width).parameters()["denoiser"] for width in (8, 16))
    assert 2 < wide / narrow < 4


def test_both_networks_learn_in_turn_and_tell_every_step():
    prior, told = made(random=False), []
    before = {name: value.clone() for name, value in prior.tensors().items()}

    def on_step(stage: str, step: int, steps: int, loss: float) -> None:
        told.append((stage, step, steps))
        assert loss == loss

    fit(prior, uniform(10, 1, SIDE, SIDE), steps=4, on_step=on_step)
    assert told == [*(("denoiser", i, 4) for i in (1, 2, 3, 4)), ("variance", 1, 1)]
    for part in ("denoiser", "variance"):
        one, other = ({n: v for n, v in of.items() if n.startswith(part)} for of in (before, prior.tensors()))
        assert not equal(one, other)
    for module in (prior.inner, prior.head):
        assert not module.training and not any(parameter.requires_grad for parameter in module.parameters())


def test_it_learns_what_the_images_show():
    """All images are one, bright on the left. Error against that of a prior that knows nothing: .48 after 100 steps."""
    image = torch.where(torch.arange(8) < 4, 0.9, 0.2).expand(1, 1, 8, 8)
    prior, x_t = made(random=False), image + 0.5 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    before = (said(prior, x_t, 0.5)[0] - image).square().mean()
    fit(prior, image.repeat(1000, 1, 1, 1), steps=100)
    assert (said(prior, x_t, 0.5)[0] - image).square().mean() < 0.7 * before


def test_cubes_are_learned_as_they_are(monkeypatch):
    """In three dimensions: no patches, neither moved nor turned, few at once; and something is learned of them."""
    seen = []
    monkeypatch.setattr(
        image_prior, "train", lambda *given, views, **options: seen.append((views.moved, views.patch, given[3].batch))
    )
    cubes = uniform(6, 1, 8, 8, 8)
    fit(made(space=3), cubes)
    assert seen == [(False, None, image_prior._BATCH_3D)] * 2
    monkeypatch.undo()
    bright = torch.where(torch.arange(8) < 4, 0.9, 0.2).expand(6, 1, 8, 8, 8).contiguous()
    prior = made(space=3, random=False)
    x_t = bright[:2] + 0.5 * torch.randn(2, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    before = (said(prior, x_t, 0.5)[0] - bright[:2]).square().mean()
    fit(prior, bright, steps=60)
    denoised, log_variance = said(prior, x_t, 0.5)
    assert denoised.shape == log_variance.shape == x_t.shape
    assert (denoised - bright[:2]).square().mean() < 0.85 * before


def test_a_new_prior_of_cubes_is_white_too():
    prior, x_t = made(2, random=False, space=3), uniform(1, 2, 7, 8, 9)
    denoised, _ = said(prior, x_t, 0.25)
    torch.testing.assert_close(denoised, 0.5 + (x_t - 0.5) / 2)


def test_patches_are_learned_with_their_places(monkeypatch):
    seen = []
    monkeypatch.setattr(image_prior, "train", lambda *given, views, **options: seen.append((views, options["seed"])))
    fit(made(patch=SIDE), uniform(8, 1, 2 * SIDE, 2 * SIDE), seed=5)
    assert [(views.patch, views.moved, seed) for views, seed in seen] == [(SIDE, True, 5), (SIDE, True, 6)]
    monkeypatch.undo()
    prior = made(patch=SIDE)
    fit(prior, uniform(8, 1, 2 * SIDE, 2 * SIDE), steps=1)
    assert torch.isfinite(said(prior, uniform(1, 1, 2 * SIDE, 2 * SIDE))[0]).all()


@pytest.mark.parametrize("killed_at", [("denoiser", 3), ("variance", 1)])
def test_training_resumes_bit_for_bit(tmp_path, monkeypatch, killed_at):
    class Killed(Exception):
        pass

    def kill(stage: str, step: int, steps: int, loss: float) -> None:
        if (stage, step) == killed_at:
            raise Killed

    monkeypatch.setattr(image_prior, "train", partial(train, save_every=-1.0))
    data, whole, again, told = uniform(8, 1, SIDE, SIDE), made(), made(), []
    fit(whole, data, steps=8)
    with pytest.raises(Killed):
        fit(again, data, tmp_path, steps=8, on_step=kill)
    again = made()
    fit(again, data, tmp_path, steps=8, on_step=lambda stage, step, *rest: told.append((stage, step)))
    assert equal(again.tensors(), whole.tensors())
    assert told[0] == killed_at, "what was done before is not done again"
    assert not equal(made().tensors(), whole.tensors())


def test_the_seed_decides_what_is_learned():
    data, learned = uniform(8, 1, SIDE, SIDE), []
    for seed in (0, 0, 1):
        learned.append(made())
        fit(learned[-1], data, seed=seed, steps=1)
    one, again, other = (prior.tensors() for prior in learned)
    assert equal(one, again) and not equal(one, other)
