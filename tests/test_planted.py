"""What is promised about planted artefacts: where they lie, how strong they are, and that a seed fixes them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_dilation, gaussian_filter

from priorlens.errors import InputError
from priorlens.planted import INSIDE, KINDS, VISIBLE, Planted, plant

SIZE = 48


def head(seed: int = 0, size: int = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """A textured disc on a dark background."""
    rows, columns = np.mgrid[:size, :size] - (size - 1) / 2
    body = np.hypot(rows / 1.1, columns) < 0.38 * size
    texture = gaussian_filter(np.random.default_rng(seed).standard_normal((size, size)), 1.5)
    pixels = np.where(body, 0.5 + 0.6 * texture, 0.02)
    return np.clip(pixels, 0, 1).astype(np.float32), body


def contrast(pixels: np.ndarray, body: np.ndarray) -> float:
    return float(np.subtract(*np.percentile(pixels[body], (95, 5))))


@pytest.mark.parametrize("kind", KINDS)
def test_mask_holds_what_changed_and_lies_in_the_body(kind: str) -> None:
    pixels, body = head()
    before = pixels.copy()
    for seed in range(15):
        planted = plant(pixels, body, np.random.default_rng(seed), kind)
        changed = np.abs(planted.pixels - pixels) > VISIBLE * contrast(pixels, body) + 1e-6
        assert planted.kind == kind
        assert not (changed & ~planted.mask).any()
        # Closing may add gaps between changed pixels, and nothing further out.
        assert not (planted.mask & ~binary_dilation(changed, np.ones((3, 3), dtype=bool))).any()
        assert planted.mask.sum() >= 4
        assert body[planted.mask].mean() >= INSIDE
        assert planted.mask.mean() < 0.35
        assert planted.pixels.min() >= pixels.min() and planted.pixels.max() <= pixels.max()
    assert np.array_equal(pixels, before)


@pytest.mark.parametrize("kind", (None, *KINDS))
def test_a_seed_fixes_the_artefact(kind: str | None) -> None:
    pixels, body = head()
    first, again, other = (plant(pixels, body, np.random.default_rng(seed), kind) for seed in (5, 5, 6))
    assert np.array_equal(first.pixels, again.pixels) and np.array_equal(first.mask, again.mask)
    assert first.kind == again.kind
    assert not np.array_equal(first.pixels, other.pixels)


def test_every_kind_turns_up_by_default() -> None:
    pixels, body = head()
    rng = np.random.default_rng(0)
    assert {plant(pixels, body, rng).kind for _ in range(60)} == set(KINDS)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), gain=st.sampled_from((0.25, 4.0, 256.0)), shift=st.sampled_from((-2.0, 0.0, 8.0))
)
def test_strength_follows_the_scale_of_the_image(seed: int, gain: float, shift: float) -> None:
    """Gains are powers of two, so that only the shift rounds."""
    pixels, body = head(seed % 7)
    plain = plant(pixels, body, np.random.default_rng(seed), "bright")
    scaled = plant((gain * pixels + gain * shift).astype(np.float32), body, np.random.default_rng(seed), "bright")
    np.testing.assert_allclose(scaled.pixels / gain - shift, plain.pixels, atol=1e-5)


@pytest.mark.parametrize(("kind", "sign"), [("bright", 1), ("dark", -1)])
def test_offsets_have_their_direction_and_strength(kind: str, sign: int) -> None:
    pixels, body = head()
    for seed in range(10):
        planted = plant(pixels, body, np.random.default_rng(seed), kind)
        change = sign * (planted.pixels - pixels) / contrast(pixels, body)
        assert change.min() > -1e-6
        assert change.max() < 1.0


def test_texture_keeps_the_mean_and_smooths() -> None:
    pixels, body = head(size=64)
    smoother = 0
    for seed in range(12):
        planted = plant(pixels, body, np.random.default_rng(seed), "texture")
        assert abs(planted.pixels[planted.mask].mean() - pixels[planted.mask].mean()) < 0.35 * contrast(pixels, body)
        smoother += planted.pixels[planted.mask].std() < pixels[planted.mask].std()
    assert smoother >= 8


def test_a_rim_is_brighter_than_its_inside() -> None:
    pixels, body = head(size=96)
    pixels = np.where(body, 0.5, 0.0).astype(np.float32)
    pixels[0, 0] = 1.0  # the room above the tissue that a bright rim needs
    for seed in range(5):
        planted = plant(pixels, body, np.random.default_rng(seed), "rim")
        row, column = np.argwhere(planted.mask).mean(axis=0).round().astype(int)
        assert planted.pixels[row, column] < planted.pixels[planted.mask].max() - 0.05


def test_a_streak_is_thin() -> None:
    pixels, body = head(size=96)
    for seed in range(10):
        mask = plant(pixels, body, np.random.default_rng(seed), "streak").mask
        rows, columns = np.nonzero(mask)
        box = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
        assert mask.sum() < 0.8 * box or min(np.ptp(rows), np.ptp(columns)) <= 4


def test_works_on_images_that_are_not_square() -> None:
    pixels, body = head(size=64)
    planted = plant(pixels[:, 10:50], body[:, 10:50], np.random.default_rng(0), "displacement")
    assert isinstance(planted, Planted) and planted.pixels.shape == planted.mask.shape == (64, 40)


def test_what_cannot_be_planted_is_said_in_one_line() -> None:
    pixels, body = head()
    flat = np.full_like(pixels, 0.5)
    for arguments, message in (
        ((pixels, np.zeros_like(body), None), "body mask is empty"),
        ((flat, body, None), "image is constant"),
        ((body.astype(np.float32), core_of(body), "displacement"), "too uniform"),
    ):
        with pytest.raises(InputError, match=message) as raised:
            plant(arguments[0], arguments[1], np.random.default_rng(0), arguments[2])
        assert "\n" not in str(raised.value)
    with pytest.raises(ValueError, match="unknown kind"):
        plant(pixels, body, np.random.default_rng(0), "star")


def core_of(body: np.ndarray) -> np.ndarray:
    """A few pixels in the middle, far from everything that is not flat."""
    core = np.zeros_like(body)
    core[SIZE // 2 - 1 : SIZE // 2 + 1, SIZE // 2 - 1 : SIZE // 2 + 1] = True
    return core
