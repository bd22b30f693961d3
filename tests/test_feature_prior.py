"""The prior of one scale: its parts, its stages, and what it is asked; priors of two steps are enough for that."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from priorlens.feature_prior import COMPONENTS, FeaturePrior, fit_feature_prior, stages, total_steps
from priorlens.features import Scale

CPU = torch.device("cpu")
SCALES = (Scale(1.0, 8, 40), Scale(1.0, 16, 112), Scale(1.0, 32, 320))
SCALE = Scale(1.0, 32, 320)


def features(images: int = 24, seed: int = 0) -> torch.Tensor:
    """Correlated features, in half precision as a fit keeps them."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(SCALE.channels, 100, generator=torch.Generator().manual_seed(1))
    plain = torch.randn(images, 100, 3, 3, generator=generator)
    return (torch.einsum("fc,nchw->nfhw", mixing, plain) / 10 + 2).half()


def fit(state: Path | None = None, seed: int = 0, on_step=lambda stage, step, steps, loss: None) -> FeaturePrior:
    return fit_feature_prior(SCALE, features(), steps=2, seed=seed, device=CPU, state=state, on_step=on_step)


@pytest.fixture(scope="module")
def prior() -> FeaturePrior:
    return fit()


def equal(one: FeaturePrior, other: FeaturePrior) -> bool:
    a, b = one.tensors(), other.tensors()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_stages_and_their_steps():
    assert stages(Scale(1.0, 8, 40), 1000) == [("s8 denoiser", 900), ("s8 variance", 300)]
    assert stages(Scale(2.0, 16, 40), 500) == [("x2_s16 denoiser", 600), ("x2_s16 variance", 200)]
    assert stages(Scale(1.0, 32, 40), 0) == [("s32 denoiser", 1), ("s32 variance", 1)], "at least one"
    assert total_steps(SCALES, 1000) == (900 + 1200 + 1500) * 4 // 3


def test_both_networks_are_trained_and_reported(prior):
    seen = []
    again = fit(on_step=lambda stage, step, steps, loss: seen.append((stage, step, steps)))
    assert seen == [
        *(("s32 denoiser", step, 3) for step in (1, 2, 3)),
        ("s32 variance", 1, 1),
    ]
    assert equal(prior, again), "the same seed, the same prior"
    assert not equal(prior, fit(seed=1))
    for module in (prior.denoiser, prior.variance):
        assert not module.training
        assert float(module.network.outward.weight.detach().abs().max()) > 0, "a new network's is zero"


def test_the_global_generator_is_left_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    fit()
    assert torch.equal(torch.get_rng_state(), before)


def test_whitened_features_are_white(prior):
    whitened = prior.whiten(features().float())
    assert whitened.shape == (24, COMPONENTS, 3, 3)
    flat = whitened.movedim(1, -1).reshape(-1, COMPONENTS)
    torch.testing.assert_close(torch.cov(flat.T), torch.eye(COMPONENTS), rtol=0, atol=0.02)


def test_tensors_hold_all_there_is(prior):
    restored = FeaturePrior.from_tensors(SCALE, prior.tensors())
    assert equal(restored, prior)
    x = features(2, seed=5).float()
    assert torch.equal(restored.surprise(x).coherent, prior.surprise(x).coherent)


@pytest.mark.parametrize("spoil", ["missing", "of another shape", "of another scale"])
def test_tensors_that_do_not_fit(prior, spoil):
    tensors, scale = prior.tensors(), SCALE
    name = "denoiser.network.outward.weight"
    match spoil:
        case "missing":
            del tensors[name]
        case "of another shape":
            tensors[name] = tensors[name][:3]
        case "of another scale":
            scale = Scale(1.0, 8, 40)
    with pytest.raises((KeyError, RuntimeError)):
        FeaturePrior.from_tensors(scale, tensors)
    with pytest.raises(KeyError):
        FeaturePrior.from_tensors(scale, {})


def test_a_killed_fit_ends_where_an_uninterrupted_one_does(prior, tmp_path):
    class Killed(Exception):
        pass

    def kill(stage: str, step: int, steps: int, loss: float) -> None:
        if stage == "s32 variance":
            raise Killed

    with pytest.raises(Killed):
        fit(tmp_path, on_step=kill)
    assert [path.name for path in tmp_path.iterdir()] == ["s32_denoiser.safetensors"]
    seen = []
    resumed = fit(tmp_path, on_step=lambda stage, *_: seen.append(stage))
    assert seen == ["s32 variance"]
    assert equal(resumed, prior)


def test_surprise_is_of_each_image_and_place(prior):
    found = prior.surprise(features(2, seed=5).float(), seed=1)
    assert found.bits_map.shape == (2, 3, 3)
    assert found.bits_map.isfinite().all()
    assert torch.equal(found.energy, prior.surprise(features(2, seed=5).float(), seed=1).energy)
    assert not torch.equal(found.energy, prior.surprise(features(2, seed=5).float(), seed=2).energy)


def test_likelihood_and_residual_say_what_they_cost(prior):
    x = features(2, seed=5).float()
    likelihood = prior.likelihood(x, steps=4)
    assert likelihood.log_prob.shape == (2,) and likelihood.log_prob_map.shape == (2, 3, 3)
    assert (likelihood.nfe, likelihood.vjps) == (8, 8)
    residual, nfe = prior.residual(x, steps=4)
    assert residual.shape == (2, 3, 3) and (residual >= 0).all()
    assert nfe == 9


def test_unusual_features_are_more_surprising(prior):
    """By all that is asked: features three times as far from their mean."""
    x = features(4, seed=6).float()
    mean = prior.whitening.mean[:, None, None]
    far = mean + 3 * (x - mean)
    usual, unusual = prior.surprise(x), prior.surprise(far)
    assert (unusual.bits_per_dim > usual.bits_per_dim).all()
    assert unusual.standardised.mean() > usual.standardised.mean()
    assert unusual.coherent.mean() > usual.coherent.mean()
    assert (prior.likelihood(far).log_prob < prior.likelihood(x).log_prob).all()
    assert prior.residual(far)[0].mean() > prior.residual(x)[0].mean()
