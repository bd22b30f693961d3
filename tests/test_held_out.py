"""What is set aside from the healthy images, and the artefacts planted in it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from priorlens import held_out
from priorlens.datasets import MIN_HEALTHY
from priorlens.errors import InputError
from priorlens.held_out import FEWEST, FOLDS, PLANTED_EACH, folds, hold_out, plant_each, planted_count, set_aside
from priorlens.planted import INSIDE


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(1, 12), min_size=2, max_size=40), seed=st.integers(0, 5))
def test_no_patient_is_cut_in_two(sizes, seed):
    groups = [f"p{patient}" for patient, size in enumerate(sizes) for _ in range(size)]
    np.random.default_rng(seed).shuffle(groups)
    kept, held = hold_out(groups, seed)
    assert sorted(kept + held) == list(range(len(groups))), "each image on one side"
    assert kept and held
    assert not {groups[i] for i in kept} & {groups[i] for i in held}
    assert (kept, held) == hold_out(groups, seed)


@pytest.mark.parametrize(("images", "held"), [(8, 2), (40, 12), (80, 24), (240, 24), (1100, 110)])
def test_how_many_are_held_out(images, held):
    """A tenth, at least 24, and no more than 30 %."""
    assert len(hold_out([str(i) for i in range(images)], 0)[1]) == pytest.approx(held, abs=1)


@pytest.mark.parametrize("seed", range(6))
def test_a_patient_with_most_of_the_images_is_learned_from(seed):
    kept, held = hold_out(["many"] * 100 + ["few"] * 8, seed)
    assert (len(kept), len(held)) == (100, 8)


def test_one_patient_alone_cannot_be_split():
    with pytest.raises(InputError) as error:
        hold_out(["ann"] * 20, 0)
    assert "\n" not in str(error.value)


def test_another_seed_holds_out_others():
    groups = [str(i) for i in range(100)]
    assert hold_out(groups, 0) != hold_out(groups, 1)


# --- set aside for calibration


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=60),
    seed=st.integers(0, 5),
    share=st.sampled_from([None, 0.0, 0.1, 0.3, 0.5]),
)
def test_what_is_set_aside_leaves_whole_patients_enough_to_learn_from(sizes, seed, share):
    groups = [f"p{patient}" for patient, size in enumerate(sizes) for _ in range(size)]
    np.random.default_rng(seed).shuffle(groups)
    kept, aside = set_aside(groups, seed, share)
    assert sorted(kept + aside) == list(range(len(groups))), "each image on one side"
    assert kept == sorted(kept) and aside == sorted(aside)
    assert not {groups[i] for i in kept} & {groups[i] for i in aside}
    if aside:
        assert len(kept) >= MIN_HEALTHY and share != 0
        hold_out([groups[i] for i in kept], seed)
    assert (kept, aside) == set_aside(groups, seed, share)


@pytest.mark.parametrize(
    ("patients", "aside"), [(12, 0), (FEWEST - 1, 0), (FEWEST, 9), (200, 40), (500, 100), (700, 100), (3000, 300)]
)
@pytest.mark.parametrize("images", [1, 20])
def test_how_many_patients_are_set_aside(patients, aside, images):
    """A tenth, at least a hundred, and no more than a fifth; none where that would be of no use. P-values go by
    patients, so it does not matter how many images each has."""
    groups = [f"p{i // images}" for i in range(patients * images)]
    _, left = set_aside(groups, 0)
    assert len({groups[i] for i in left}) == aside


@pytest.mark.parametrize(("share", "aside"), [(0.0, 0), (0.1, 2), (0.25, 5), (0.5, 10)])
def test_the_share_that_is_asked_for_is_set_aside(share, aside):
    assert len(set_aside([str(i) for i in range(20)], 0, share)[1]) == aside


@pytest.mark.parametrize("groups", [["ann"] * 20, ["ann"] * 10 + ["bob"] * 10, [str(i) for i in range(9)]])
def test_none_are_set_aside_where_the_rest_could_not_be_learned_from(groups):
    """One patient; two, of whom one would be left; nine images, of whom five would be left."""
    assert set_aside(groups, 0, 0.5) == (list(range(len(groups))), [])


def test_the_order_of_the_images_does_not_matter_and_the_seed_does():
    groups = [f"p{i // 2}" for i in range(200)]
    chosen = {groups[i] for i in set_aside(groups, 0)[1]}
    assert {groups[::-1][i] for i in set_aside(groups[::-1], 0)[1]} == chosen
    assert {groups[i] for i in set_aside(groups, 1)[1]} != chosen


def test_those_held_out_next_are_drawn_anew():
    """Not the patients that came next in the draw of those set aside: else the two would be no independent draws."""
    groups = [str(i) for i in range(1000)]
    kept, aside = set_aside(groups, 0)
    held = {kept[i] for i in hold_out([groups[i] for i in kept], 0)[1]}
    assert not held & set(aside)
    longer = set(set_aside(groups, 0, 0.19)[1]) - set(aside)
    assert len(held & longer) < len(held) / 2


# --- planted artefacts


def images(count: int, channels: int = 1) -> np.ndarray:
    """Soft discs with a little noise."""
    down, across = np.mgrid[:48, :48] / 48 - 0.5
    disc = 0.7 / (1 + np.exp(40 * (np.hypot(down, across) - 0.35)))
    noise = np.random.default_rng(0).uniform(0, 0.1, (count, 1, 48, 48))
    return (disc + noise).repeat(channels, 1).astype(np.float32)


@pytest.mark.parametrize("channels", [1, 3])
def test_each_copy_differs_from_its_image_and_only_at_the_mask(channels):
    healthy = images(3, channels)
    planted, masks, sources = plant_each(healthy, np.random.default_rng(0))
    assert len(planted) == len(masks) == planted_count(3) == 3 * PLANTED_EACH
    assert sources == [0, 1, 2] * PLANTED_EACH
    for i, (image, mask) in enumerate(zip(planted, masks, strict=True)):
        change = image - healthy[i % 3]
        assert mask.any() and image.dtype == np.float32 and image.shape == (channels, 48, 48)
        assert np.abs(change[0][mask]).mean() > 5 * np.abs(change[0][~mask]).mean()
        assert np.allclose(change, change[:1], atol=1e-6), "the same in all channels"


def test_artefacts_lie_in_what_is_taken_for_the_body():
    """By default the bright disc; a body of one's own is found in each image's mean over channels."""
    healthy, seen = images(2, channels=3), []

    def upper(grey: np.ndarray) -> np.ndarray:
        seen.append(grey)
        return np.arange(48)[:, None] + np.zeros((48, 48)) < 24

    _, masks, _ = plant_each(healthy, np.random.default_rng(0), upper)
    np.testing.assert_array_equal(seen, np.tile(healthy.mean(1), (PLANTED_EACH, 1, 1)))
    assert len(masks) == planted_count(2)
    assert all(mask[:24].sum() >= INSIDE * mask.sum() for mask in masks)
    _, anywhere, _ = plant_each(healthy, np.random.default_rng(0))
    assert any(mask[:24].sum() < INSIDE * mask.sum() for mask in anywhere)


def test_artefacts_differ_and_the_seed_decides_them():
    one, same, other = (plant_each(images(2), np.random.default_rng(seed))[0] for seed in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert not np.array_equal(one[0], one[2]), "two copies of one image get two artefacts"


def test_images_in_which_nothing_can_be_planted_are_left_out(monkeypatch):
    plant = held_out.plant

    def sometimes(pixels, body, rng):
        if pixels.max() > 5:
            raise InputError("no room")
        return plant(pixels, body, rng)

    monkeypatch.setattr(held_out, "plant", sometimes)
    healthy = images(2)
    healthy[1] *= 10
    planted, masks, sources = plant_each(healthy, np.random.default_rng(0))
    assert len(planted) == len(masks) == PLANTED_EACH
    assert sources == [0] * PLANTED_EACH, "the copies that there are, by their image"


def test_how_many_are_planted():
    assert [planted_count(held) for held in (0, 1, 24, 30, 110, 240, 1000)] == [0, 8, 192, 240, 220, 240, 1000]
    assert [planted_count(held) for held in (239, 320, 400)] == [239, 320, 400]
    assert [planted_count(held, 2) for held in (0, 1, 24, 30, 110, 240, 1000)] == [0, 16, 384, 480, 440, 480, 1000]


@pytest.mark.parametrize("count", [1, 2, 5, 7])
def test_a_patient_is_in_one_fold_and_no_fold_is_empty(count):
    groups = [f"p{patient}" for patient in range(count) for _ in range(1 + patient % 3)] * 2
    found = folds(groups)
    if count > 1:
        assert all(len({fold for fold, own in zip(found, groups, strict=True) if own == one}) == 1 for one in groups)
        assert set(found) == set(range(min(count, FOLDS)))
    else:
        assert found == [0, 2], "one patient's images: each by itself"
        assert folds(["p"] * 10) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4], "those side by side together"
    assert folds([]) == []


def test_many_copies_are_planted_where_many_are_asked_for():
    planted, masks, sources = plant_each(images(2), np.random.default_rng(0), many=2)
    assert len(planted) == len(masks) == planted_count(2, 2) == 4 * PLANTED_EACH
    assert sources == [0, 1] * 2 * PLANTED_EACH
