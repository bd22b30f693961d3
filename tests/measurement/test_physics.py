"""Names of measurements, what is said of wrong ones, and simulation. Every operator's contract: test_operator.py."""

import numpy as np
import PIL.Image
import pytest
import torch

from priorlens.errors import InputError
from priorlens.measurement.mri import PATTERNS, sampling
from priorlens.measurement.physics import OPTIONS, build, parse, simulate

SHAPE = (1, 16, 16)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def picture(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=seeded())


def fitting(name: str) -> str:
    """A text that fits images of 16x16 pixels."""
    return {"mri": "mri:centre=.13", "blur": "blur:sigma=1.5"}.get(name, name)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("identity", "identity"),
        ("noise:sigma=.2", "noise:sigma=0.2"),
        ("ct", "ct:views=24,arc=180"),
        ("ct:arc=120,views=60", "ct:views=60,arc=120"),
        ("ct-fan:views=12", "ct-fan:views=12"),
        (" mri:coils=8 ", "mri:acceleration=4,coils=8,centre=0.08,pattern=cartesian"),
        ("blur:sigma=2", "blur:sigma=2"),
        ("inpaint", "inpaint:keep=0.5"),
        ("inpaint:box=.3", "inpaint:box=0.3"),
        ("inpaint:mask=a,b.png", "inpaint:mask=a,b.png"),
        ("super:factor=2", "super:factor=2"),
    ],
)
def test_a_text_becomes_a_spec_with_one_canonical_text(text, canonical):
    spec = parse(text)
    assert str(spec) == spec.text == canonical
    assert str(parse(spec.text)) == canonical


def test_only_a_noisy_identity_says_its_own_noise():
    assert parse("noise:sigma=.2").noise == 0.2
    assert parse("identity").noise is None
    assert parse("blur:sigma=2").noise is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "known are identity, noise, ct"),
        ("pet:views=3", "'pet' is not known"),
        ("ct:view=3", "'view=3' is not an option of ct; it takes views=24, arc=180"),
        ("ct:24", "'24' is not an option of ct"),
        ("identity:sigma=1", "it takes no options"),
        ("ct:views=2.5", "views is a whole number from 1 to 3600, not '2.5'"),
        ("ct:views=0", "from 1 to 3600"),
        ("ct:views=3,views=4", "given twice"),
        ("blur:sigma=nan", "sigma is a number from 0.1 to 100, not 'nan'"),
        ("blur:sigma=", "not ''"),
        ("noise:sigma=-1", "sigma is a number"),
        ("mri:pattern=spiral", "pattern is one of cartesian, gaussian, equispaced"),
        ("inpaint:keep=.5,box=.3", "give one of keep, mask and box"),
        ("inpaint:mask=", "mask is one of"),
        ("super:factor=1", "from 2 to 64"),
    ],
)
def test_a_wrong_text_is_one_line_that_says_what_is_known(text, said):
    with pytest.raises(InputError) as error:
        parse(text)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "shape", "said"),
    [
        ("super:factor=3", SHAPE, "does not divide images of 16x16 pixels"),
        ("ct", (1, 16, 12), "measures square images, not 12x16"),
        ("ct", (3, 16, 16), "images of one channel, not 3"),
        ("mri", (3, 64, 64), "images of one channel, not 3"),
        ("mri:acceleration=16", SHAPE, "1 of 16 lines and 1 of them in the centre"),
        ("mri:centre=.01", SHAPE, "0 of them in the centre"),
        ("blur:sigma=3", SHAPE, "25 pixels, more than the image's 16"),
        ("inpaint:keep=.001", SHAPE, "keeps no pixel"),
        ("inpaint:box=1", SHAPE, "keeps no pixel"),
        ("inpaint:mask=missing.png", SHAPE, "missing.png: there is no such file"),
        ("identity", (1, 8, 8, 8), "images of height and width"),
    ],
)
def test_a_measurement_that_does_not_fit_the_image_is_one_line(text, shape, said):
    with pytest.raises(InputError) as error:
        build(parse(text), shape)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", OPTIONS)
def test_the_seed_alone_decides_what_is_random(name):
    x = picture(2, *SHAPE)
    spec = parse(fitting(name))
    first, again, other = (build(spec, SHAPE, seed).A(x) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (name not in ("mri", "inpaint"))


@pytest.mark.parametrize("name", OPTIONS)
def test_simulated_noise_has_the_size_asked_for(name):
    known = build(parse(fitting(name)), SHAPE)
    x = picture(50, *SHAPE)
    clean = known.A(x)
    assert torch.equal(simulate(known, x, 0.0, 0), clean)
    noisy = simulate(known, x, 0.3, 1)
    assert torch.equal(noisy, simulate(known, x, 0.3, 1))
    assert not torch.allclose(noisy, simulate(known, x, 0.3, 2))
    alone = simulate(known, x[7:8], 0.3, 1)
    torch.testing.assert_close(alone[0], noisy[7], msg="no image's noise depends on the images beside it")
    assert float((noisy - clean).std()) == pytest.approx(0.3, rel=0.05)


def test_what_the_simple_ones_measure():
    x = picture(1, 1, 16, 16)
    assert torch.equal(build(parse("identity"), SHAPE).A(x), x)
    averages = build(parse("super:factor=4"), SHAPE)
    assert torch.allclose(averages.A(x) * averages.norm, torch.nn.functional.avg_pool2d(x, 4))
    box = build(parse("inpaint:box=.5"), SHAPE)
    hole = torch.ones(16, 16, dtype=torch.bool)
    hole[4:12, 4:12] = False
    assert torch.equal(box.A(x), x[:, 0][:, hole])
    flat = torch.full((1, *SHAPE), 0.7)
    assert torch.allclose(build(parse("blur:sigma=1.5"), SHAPE).A(flat), flat)
    assert build(parse("inpaint:keep=.25"), SHAPE).A(x).shape == (1, 64)


def test_a_blurred_point_stays_where_it_is():
    point = torch.zeros(1, *SHAPE)
    point[0, 0, 5, 9] = 1
    blurred = build(parse("blur:sigma=1.5"), SHAPE).A(point)
    assert int(blurred.argmax()) == 5 * 16 + 9
    assert torch.allclose(blurred[0, 0, 4], blurred[0, 0, 6], atol=1e-6)


def test_every_fan_ray_of_a_disc_ends_on_the_detector():
    known = build(parse("ct-fan:views=8"), (1, 32, 32))
    y = known.A(torch.ones(1, 1, 32, 32))[0] * known.norm
    assert y.shape == (46, 8)
    assert (y > 0.5).float().mean() > 0.6  # the shadow of a square fills its diagonal at half of the angles
    assert float(y[0].abs().max()) < 8  # and its edge is at the corners


def test_a_masks_bright_pixels_are_measured(tmp_path):
    mask = np.zeros((16, 16), dtype=np.uint8)
    mask[2:9, 3:5] = 255
    PIL.Image.fromarray(mask).save(tmp_path / "mask.png")
    spec = parse(f"inpaint:mask={tmp_path / 'mask.png'}")
    x = picture(1, *SHAPE)
    assert torch.equal(build(spec, SHAPE).A(x), x[:, 0][:, torch.from_numpy(mask > 0)])
    with pytest.raises(InputError, match=r"mask.png: is 16x16 pixels, images here 32x32"):
        build(spec, (1, 32, 32))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_whole_lines_are_sampled_as_many_as_asked(pattern):
    sampled = sampling((48, 64), 4, 0.08, pattern, seed=0)
    assert torch.equal(sampled, sampled[:1].expand(48, -1))
    assert int(sampled[0].sum()) in (15, 16, 17)
    assert sampled[0, 32 - 2 : 32 + 2].all()
    assert sampling((48, 64), 1, 0.08, pattern, seed=0).all()
