"""Whitened features: mean zero, identity covariance, strongest component first."""

import math

import pytest
import torch

from priorlens.whitening import Whitening

FEATURES = 6


def draw(images: int = 40, side: int = 8, spread: tuple[float, ...] = (5, 3, 2, 1, 0.8, 0.5)) -> torch.Tensor:
    """Correlated features, far from zero mean; `spread` are the deviations along their own axes."""
    generator = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(FEATURES, FEATURES, generator=generator)).Q
    plain = torch.randn(images, FEATURES, side, side, generator=generator) * torch.tensor(spread)[:, None, None]
    return torch.einsum("fg,nghw->nfhw", axes, plain) + torch.arange(FEATURES)[:, None, None]


def fit(features: torch.Tensor, components: int = FEATURES) -> Whitening:
    return Whitening.fit(features, components, torch.Generator().manual_seed(0))


def moments(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    flat = x.movedim(1, -1).reshape(-1, x.shape[1]).double()
    return flat.mean(0), torch.cov(flat.T)


@pytest.mark.parametrize("components", [1, 3, FEATURES])
def test_covariance_is_the_identity(components):
    """On the data it was fitted to: to float32, and a part in 100 for the floor under the faintest direction."""
    features = draw()
    mean, covariance = moments(fit(features, components).apply(features))
    torch.testing.assert_close(mean, torch.zeros(components).double(), rtol=0, atol=1e-4)
    found = covariance.reshape(components, components)
    torch.testing.assert_close(found, torch.eye(components).double(), rtol=0, atol=0.011)
    torch.testing.assert_close(found - found.diag().diag(), torch.zeros_like(found), rtol=0, atol=1e-4)


def test_the_strongest_component_comes_first():
    features = draw()
    norms = fit(features).matrix.norm(dim=1)  # one over the deviation along each axis
    expected = 1 / torch.tensor([5, 3, 2, 1, 0.8, 0.5])
    torch.testing.assert_close(norms, expected, rtol=0.06, atol=0)


def test_kept_is_the_share_of_variance():
    spread = (3.0, 2.0, 1.0, 0.5, 0.5, 0.5)
    features = draw(images=200, spread=spread)
    shares = torch.tensor(spread).square().cumsum(0) / sum(s**2 for s in spread)
    for components in (1, 2, 3, FEATURES, 50):
        found = fit(features, components)
        assert len(found.matrix) == min(components, FEATURES)
        assert found.kept == pytest.approx(float(shares[min(components, FEATURES) - 1]), abs=0.01)


def test_a_faint_direction_is_not_blown_up():
    """A constant feature stays near zero instead of noise of variance one, or nan."""
    features = draw(spread=(5, 3, 2, 1, 1, 0))
    whitened = fit(features).apply(features)
    assert whitened.isfinite().all()
    assert moments(whitened)[1].diag()[-1] < 1e-3
    constant = torch.full((2, 3, 4, 4), 2.5)
    assert (fit(constant, 3).apply(constant).abs() < 1e-3).all()


def test_many_positions_are_drawn_and_not_all_used():
    features = draw(images=60, side=64)
    assert features[:, 0].numel() > 200_000
    whitening = fit(features)
    assert torch.equal(fit(features).matrix, whitening.matrix)
    mean, covariance = moments(whitening.apply(features))
    torch.testing.assert_close(covariance, torch.eye(FEATURES).double(), rtol=0, atol=0.02)
    assert mean.abs().max() < 4 / math.sqrt(200_000) * 2


def test_half_precision_is_taken():
    features = draw().half()
    whitened = fit(features).apply(features)
    assert whitened.dtype == torch.float32
    torch.testing.assert_close(moments(whitened)[1], torch.eye(FEATURES).double(), rtol=0, atol=0.011)
