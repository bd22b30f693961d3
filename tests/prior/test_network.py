"""The U-Net over one, two and three dimensions of space, odd sides and single positions among them."""

import pytest
import torch

from priorlens.prior.network import UNet, coordinates, halve, positions


def unet(space: int = 2, *, widths: tuple[int, ...] = (8, 16), position: bool = True, **options: int) -> UNet:
    """With random weights everywhere: a new U-Net answers zero, as its last convolution is zero."""
    network = UNet(2, widths, space=space, position=position, **options)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


def normal(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


NOISE = torch.tensor([-0.3, 0.4])


@pytest.mark.parametrize(
    "size", [(16,), (13,), (1,), (8, 8), (7, 12), (5, 1), (1, 1), (4, 4, 4), (5, 3, 7), (1, 2, 3)], ids=str
)
@pytest.mark.parametrize("widths", [(8,), (8, 12), (4, 8, 16)])
def test_every_size_in_every_number_of_dimensions(size, widths):
    network = unet(len(size), widths=widths)
    out = network(normal(2, 2, *size), NOISE)
    assert out.shape == (2, 2, *size)
    assert out.isfinite().all() and out.std() > 0


def test_a_new_network_answers_zero():
    assert (UNet(2, (8, 16))(normal(2, 2, 9, 9), NOISE) == 0).all()


def test_channels_out_may_differ():
    network = unet(out_channels=3, blocks=2)
    assert network(normal(2, 2, 9, 9), NOISE).shape == (2, 3, 9, 9)


@torch.no_grad()
def test_the_noise_level_is_heard_and_images_do_not_mix():
    network, x = unet(), normal(2, 2, 8, 8)
    out = network(x, NOISE)
    assert (out[0] - network(x, NOISE.flip(0))[0]).abs().max() > 1e-3
    torch.testing.assert_close(out[1:], network(x[1:], NOISE[1:]), rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("space", [1, 2])
def test_without_position_a_shifted_image_gives_a_shifted_answer(space):
    """Shifts by a multiple of the coarsest pixel. The image is empty but for a patch further from the border than the
    network sees, so that neither the border's padding nor the means of group norm tell where it lies."""
    side, patch, shift = 112, 6, 8
    x = torch.zeros(1, 2, *(side,) * space)
    near = (slice(None), slice(None), *(slice(48, 48 + patch),) * space)
    far = (slice(None), slice(None), *(slice(48 + shift, 48 + shift + patch),) * space)
    moved = x.clone()
    x[near] = moved[far] = normal(1, 2, *(patch,) * space)
    axes = tuple(range(2, 2 + space))
    inner = (slice(None), slice(None), *(slice(32, 80),) * space)

    def differ(network: UNet) -> float:
        there = network(moved, NOISE[:1])
        return float((network(x, NOISE[:1]).roll((shift,) * space, axes) - there)[inner].abs().max())

    assert differ(unet(space, position=False)) < 1e-4
    assert differ(unet(space, position=True)) > 1e-2


def test_positions_are_smooth_bounded_and_the_same_for_every_image():
    found = positions(coordinates(torch.zeros(3, 1, 10, 7)))
    assert found.shape == (3, 8, 10, 7)
    assert found.abs().max() <= 1
    torch.testing.assert_close(found[0], found[2])
    torch.testing.assert_close(found[0, 0, :, 0], (torch.arange(10) + 0.5) / 5 - 1)
    torch.testing.assert_close(found[0, 4, 0, :], (torch.arange(7) + 0.5) * 2 / 7 - 1)


def test_halving_is_the_mean_of_pairs_and_spares_single_positions():
    x = torch.arange(10.0).reshape(1, 1, 5, 2)
    torch.testing.assert_close(halve(x), torch.tensor([[[[1.5], [5.5]]]]))
    torch.testing.assert_close(halve(x[..., :1]), torch.tensor([[[[1.0], [5.0]]]]))
    assert halve(torch.zeros(1, 1, 4, 1, 3)).shape == (1, 1, 2, 1, 1)
