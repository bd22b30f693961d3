"""KLIP from images to verdict: fitted, measured, saved. Its form is tested here, not how much it knows."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from priorlens import held_out, image_prior, klip_model, klip_rules, weighing
from priorlens.checkpoint import CONFIG, TENSORS
from priorlens.cohort import healthy_slices
from priorlens.errors import InputError, ModelError, OutputError
from priorlens.images import Image
from priorlens.klip import DRAWS, SIGMAS, START, WIDTHS
from priorlens.klip_model import IDENTITY, KLIPModel
from priorlens.klip_rules import KLIP_RULES, LEARNED, Learned
from priorlens.measurement.files import Measurement
from priorlens.measurement.physics import build, parse, simulate
from priorlens.progress import Progress
from priorlens.provenance import Provenance
from priorlens.scores import Scores

SIDE = 32
OPTIONS = {"size": SIDE, "steps": 2, "width": 8, "variance_head": True, "device": "cpu"}
GROUPS = [f"p{i // 2}" for i in range(10)]
SUPER, BLUR = "super:factor=2", "blur:sigma=1"
OWN = LEARNED


@cache
def ten_slices(seed: int) -> list[np.ndarray]:
    return healthy_slices(10, SIDE, seed)


def slices(count: int, seed: int = 1) -> list[np.ndarray]:
    """Seed 0 is what `fitted` has seen. Not to be written to."""
    return ten_slices(seed)[:count]


@pytest.fixture(autouse=True, scope="module")
def small():
    """Networks of a few thousand parameters, one artefact an image, one size of block, one epoch, few steps."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_prior, "_DENOISER", (1, 1))
        patch.setattr(image_prior, "_VARIANCE", (8, 8))
        patch.setattr(held_out, "PLANTED", 1)
        patch.setattr(klip_rules, "BLOCKS", (4,))
        patch.setattr(weighing, "_EPOCHS", 1)
        patch.setattr(weighing, "_FEWEST_STEPS", 1)
        patch.setattr(klip_model, "REFERENCE_STEPS", 2)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def progress() -> list[Progress]:
    return []


@pytest.fixture(scope="module")
def fitted(progress) -> KLIPModel:
    """Not to be changed, but for what `model` resets."""
    return KLIPModel(**OPTIONS).fit(slices(10, 0), groups=GROUPS, physics=[SUPER], on_progress=progress.append)


def reset(model: KLIPModel) -> KLIPModel:
    model.rule, model.posterior, model.window, model.block, model.simulated = "combined", "diffpir", None, None, True
    model.measure(IDENTITY)
    return model


@pytest.fixture
def model(fitted) -> KLIPModel:
    return reset(fitted)


@pytest.fixture(scope="module")
def saved(fitted, tmp_path_factory) -> Path:
    """Not to be changed; see `folder`."""
    path = tmp_path_factory.mktemp("saved") / "model"
    reset(fitted).save(path, facts={"source": "cohort"})
    return path


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    """A copy of the saved model, its files free to be changed."""
    path = tmp_path / "model"
    path.mkdir()
    for name in (TENSORS, CONFIG):
        (path / name).write_bytes((saved / name).read_bytes())
    return path


def same(one: Scores, other: Scores, *, rtol: float = 0.0) -> bool:
    def close(a: np.ndarray, b: np.ndarray) -> bool:
        return np.allclose(a, b, rtol=rtol, atol=rtol * (np.abs(a).max() if a.size else 0), equal_nan=True)

    return (
        close(one.anomaly, other.anomaly)
        and one.nfe == other.nfe
        and one.figures.keys() == other.figures.keys()
        and all(close(values, other.figures[name]) for name, values in one.figures.items())
        and all(close(*pair) for pair in zip(one.anomaly_map, other.anomaly_map, strict=True))
        and one.arrays.keys() == other.arrays.keys()
        and all(close(*p) for name, own in one.arrays.items() for p in zip(own, other.arrays[name], strict=True))
    )


def one_line(error: pytest.ExceptionInfo[Exception], *parts: object) -> None:
    text = str(error.value)
    assert "\n" not in text
    for part in parts:
        assert str(part) in text, text


def measurement(model: KLIPModel, shape: tuple[int, ...], noise: float = 0.02) -> Measurement:
    """As if read from a file: of the first unseen slice, in the model's units."""
    operator = build(parse(SUPER), shape)
    x = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0))
    if shape == (1, SIDE, SIDE):
        x = model.preparation_.to_model([Image(slices(1)[0][None], Path("x.npy"), float("nan"))])
    return Measurement(simulate(operator, x, noise, 0), operator, noise, Path("y.npz"), {"physics": SUPER})


# --- fitting


def test_what_is_usual_is_learned_for_whole_images_and_each_measurement(fitted):
    assert list(fitted.learned_) == ["identity", SUPER]
    for learned in fitted.learned_.values():
        assert learned.statistics.keys() == learned.planted_auroc.keys() == set(OWN)
        assert learned.windows.keys() == {"coherent", "squares"}
    one, other = fitted.learned_.values()
    assert not torch.allclose(one.weighing.usual, other.weighing.usual)


def test_what_was_given_is_known_again_held_out_or_not(fitted):
    images = [Image(one[None], Path(f"{i}.npy"), float("nan")) for i, one in enumerate(slices(10, 0))]
    assert fitted.provenance_ == Provenance.of(images, GROUPS)
    assert len(fitted.provenance_.images) == 10 and len(fitted.provenance_.patients) == 5


def test_a_fitted_model_takes_images_as_they_are():
    model = KLIPModel(**OPTIONS).fit(slices(8, 0), physics=[BLUR], noise=0.1)
    assert list(model.learned_) == ["identity", "blur:sigma=1 noise=0.1"]
    assert model.measured_as_ == IDENTITY and model.noise == 0


def test_progress_runs_through_all_stages_to_the_end(fitted, progress):
    assert list(dict.fromkeys(p.stage for p in progress)) == [
        "denoiser",
        "variance",
        "held-out images",
        "planted artefacts",
    ]
    assert [p.done for p in progress] == sorted(p.done for p in progress)
    assert progress[-1].done == progress[-1].total == {p.total for p in progress}.pop()


def test_patients_are_held_out_whole(fitted):
    found = fitted.trained_on_
    assert found["patients"] == 5 and found["images"] + found["held_out"] == 10
    assert found["images"] % 2 == found["held_out"] % 2 == 0 < found["held_out"]


@pytest.mark.parametrize("stage", ["variance", "held-out images"])
def test_the_same_seed_gives_the_same_model_even_after_a_kill(fitted, tmp_path, stage):
    class Killed(Exception):
        pass

    def kill(at: Progress) -> None:
        if at.stage == stage:
            raise Killed

    options = {"groups": GROUPS, "physics": [SUPER], "state": tmp_path / "training"}
    with pytest.raises(Killed):
        KLIPModel(**OPTIONS).fit(slices(10, 0), on_progress=kill, **options)
    again = KLIPModel(**OPTIONS).fit(slices(10, 0), **options)
    for name, value in again.prior_.tensors().items():
        assert torch.equal(value, fitted.prior_.tensors()[name]), name
    assert [learned.config() for learned in again.learned_.values()] == [
        learned.config() for learned in fitted.learned_.values()
    ]
    for text, learned in again.learned_.items():
        for name, value in learned.tensors().items():
            assert torch.equal(value, fitted.learned_[text].tensors()[name]), (text, name)


def test_another_seed_gives_another_model(fitted):
    other = KLIPModel(**OPTIONS, seed=1).fit(slices(10, 0), groups=GROUPS)
    assert any(not torch.equal(value, fitted.prior_.tensors()[name]) for name, value in other.prior_.tensors().items())


def test_a_state_of_other_data_is_refused(tmp_path):
    KLIPModel(**OPTIONS).fit(slices(8, 0), state=tmp_path)
    with pytest.raises(ModelError) as error:
        KLIPModel(**OPTIONS).fit([255 - one for one in slices(8, 0)], state=tmp_path)
    one_line(error, tmp_path, "unfinished training")


def test_a_second_fit_forgets_the_first():
    """Other images, of another size: nothing of the first's measurements is in the way."""
    model = KLIPModel(**OPTIONS).fit(slices(8, 0), physics=[SUPER])
    model.size = 48
    model.fit(slices(8, 0), physics=[SUPER])
    model.measure(SUPER)
    assert model.score(slices(1)).arrays["blocks"][0].shape[0] * model.learned_[SUPER].windows["squares"].block >= 48


def test_colour_in_percentiles_and_patches(tmp_path):
    """Every option that changes the form of a model, and none of them lost in a model's folder."""
    images = [np.stack([s, 0.8 * s, 255 - s]) for s in slices(8)]
    options = OPTIONS | {"patch": 16, "intensity": "percentile", "rule": "squares", "seed": 3, "steps": 1}
    model = KLIPModel(**options).fit(images, physics=[BLUR])
    assert model.channels_ == 3 and model.prior_.patch == 16
    model.measure(BLUR)
    scores = model.score(images[:1])
    assert scores.arrays["reconstructions"][0].shape == (3, SIDE, SIDE)
    model.save(tmp_path)
    loaded = KLIPModel.load(tmp_path, device="cpu")
    assert loaded.rule == "squares"
    loaded.measure(BLUR)
    assert same(loaded.score(images[:1]), scores)
    assert loaded.describe() == model.describe()


def test_large_images_are_seen_in_patches(monkeypatch):
    monkeypatch.setattr(klip_model, "LARGEST_WHOLE", 32)
    whole, patched = (KLIPModel(**OPTIONS | {"size": size, "steps": 1}) for size in (32, 48))
    assert whole.fit(slices(8)).prior_.patch is None
    assert patched.fit(slices(8)).prior_.patch == 32
    assert patched.score(slices(1)).anomaly_map[0].shape == (SIDE, SIDE)


@pytest.mark.parametrize(
    ("images", "options", "reason"),
    [
        (lambda: slices(7), {}, "7 healthy images; at least 8"),
        (lambda: [*slices(8), np.ones((64, 64))], {}, "image 8: is constant"),
        (lambda: slices(8), {"groups": ["ann"] * 8}, "patient"),
        (lambda: slices(8), {"groups": ["ann", "bob"]}, "2 groups for 8 images"),
        (lambda: slices(8), {"physics": ["super:factor=5"]}, "super:factor=5"),
        (lambda: slices(8), {"physics": ["petscan"]}, "'petscan' is not known"),
        (lambda: slices(8), {"physics": [BLUR], "noise": -1.0}, "noise -1"),
        (lambda: [np.stack([s, s / 2, 255 - s]) for s in slices(8)], {"physics": ["ct"]}, "one channel"),
    ],
    ids=["few", "constant", "one patient", "groups missing", "does not fit", "unknown", "noise", "colour"],
)
def test_what_it_cannot_learn_from_is_told_before_it_trains(monkeypatch, images: Callable, options, reason):
    monkeypatch.setattr(klip_model, "fit_image_prior", lambda *given, **named: pytest.fail("trained"))
    if "groups" in options and len(options["groups"]) == 8:
        monkeypatch.undo()  # one patient is found when some are held out
    with pytest.raises(InputError) as error:
        KLIPModel(**OPTIONS).fit(images(), **options)
    one_line(error, reason)


def test_a_state_that_cannot_be_written_is_told_at_once(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError) as error:
        KLIPModel(**OPTIONS).fit(slices(8), state=tmp_path / "file")
    one_line(error, tmp_path / "file")


# --- how images are measured


def test_a_measurement_is_told_by_name_and_noise(model):
    for physics, noise, text in (
        ("identity", 0.0, "identity"),
        ("identity", 0.1, "identity noise=0.1"),
        ("ct:views=8", 0.0, "ct:views=8,arc=180"),
        (SUPER, 0.05, "super:factor=2 noise=0.05"),
        ("noise:sigma=.2", 0.0, "noise:sigma=0.2 noise=0.2"),
        ("noise:sigma=.2", 0.7, "noise:sigma=0.2 noise=0.2"),
    ):
        model.measure(physics, noise)
        assert model.measured_as_ == text


@pytest.mark.parametrize(
    ("physics", "noise", "parts"),
    [
        ("petscan", 0.0, ("'petscan' is not known", "identity")),
        ("ct:views=0", 0.0, ("views is a whole number from 1",)),
        (SUPER, -0.1, ("noise -0.1", "0 or more")),
        (SUPER, float("nan"), ("noise nan",)),
        (SUPER, float("inf"), ("noise inf",)),
    ],
)
def test_a_measurement_that_cannot_be_changes_nothing(model, physics, noise, parts):
    model.measure(BLUR, 0.3)
    with pytest.raises(InputError) as error:
        model.measure(physics, noise)
    one_line(error, *parts)
    assert model.measured_as_ == "blur:sigma=1 noise=0.3"


def test_a_physics_that_images_do_not_fit_is_told(model):
    model.measure("super:factor=5")
    with pytest.raises(InputError) as error:
        model.score(slices(1))
    one_line(error, "super:factor=5", "32x32")


def test_statistics_are_those_of_the_measurement_where_it_was_learned_else_of_whole_images(model):
    model.measure(SUPER)
    assert model.usual_of_ == SUPER and model.healthy_ == model.learned_[SUPER].statistics["combined"]
    learned = model.score(slices(1))
    model.measure(SUPER, 0.01)
    assert model.usual_of_ == IDENTITY and model.healthy_ is None
    fallback = model.score(slices(1))
    usual = [model.learned_[name].weighing.usual for name in (SUPER, IDENTITY)]
    columns = [one.arrays["spectrum"][0][:, 2:] for one in (learned, fallback)]
    energies, above = 2 * len(SIGMAS), len(SIGMAS) * len(WIDTHS)  # then comes the context
    shift = (usual[0] - usual[1])[energies : energies + above].reshape(len(SIGMAS), len(WIDTHS)).numpy()
    assert np.abs(columns[1] - columns[0] - shift).mean() < 0.3 * np.abs(shift).mean(), "against whole images' usual"
    model.measure(IDENTITY)
    for rule in OWN:
        model.rule = rule
        assert model.healthy_ == model.learned_[IDENTITY].statistics[rule]
    for rule in set(KLIP_RULES) - set(LEARNED):
        model.rule = rule
        assert model.healthy_ is None


def test_noise_depends_on_the_image_and_the_seed_alone(model):
    """In another order, beside others, in two batches; another seed draws other noise, and so does another image."""
    model.measure(IDENTITY, 0.2)
    images = slices(3)

    def noisy(model: KLIPModel, some: list[np.ndarray]) -> torch.Tensor:
        x = model.preparation_.to_model([Image(one[None], Path("x"), float("nan")) for one in some])
        return model._measured(model._operator(), x) - x

    together = noisy(model, images)
    assert float(together.std()) == pytest.approx(0.2, rel=0.05)
    assert torch.equal(noisy(model, images[::-1]).flip(0), together)
    assert torch.equal(noisy(model, images[1:2])[0], together[1])
    assert not torch.allclose(together[0], together[1], atol=1e-3)
    model.seed = 1
    assert not torch.allclose(noisy(model, images), together, atol=1e-3)
    model.seed = 0


# --- scoring


@pytest.mark.parametrize("rule", KLIP_RULES)
def test_no_image_depends_on_those_beside_it(model, rule, monkeypatch):
    """Alone, among others, in another order: but for bfloat16 sums in another order."""
    model.rule = rule
    model.measure(SUPER, 0.05)
    monkeypatch.setattr(klip_model, "_IMAGES_AT_ONCE", 2)
    images = slices(3)
    together, reverse, alone = model.score(images), model.score(images[::-1]), model.score(images[2:])
    assert together.anomaly.std() > 1e-4
    np.testing.assert_allclose(reverse.anomaly[::-1], together.anomaly, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(alone.anomaly[0], together.anomaly[2], rtol=1e-3, atol=1e-3)
    for name, values in alone.figures.items():
        np.testing.assert_allclose(values[0], together.figures[name][2], rtol=1e-3, err_msg=name)
    spread = together.anomaly_map[2].std()
    np.testing.assert_allclose(alone.anomaly_map[0] / spread, together.anomaly_map[2] / spread, rtol=1e-2, atol=1e-2)


def test_maps_and_reconstructions_have_their_images_own_size(model):
    rng = np.random.default_rng(0)
    images = [rng.uniform(0, 255, shape).astype(np.float32) for shape in ((32, 32), (40, 90), (1, 130, 70), (9, 300))]
    model.measure(SUPER)
    scores = model.score(images)
    sizes = [(32, 32), (40, 90), (130, 70), (9, 300)]
    assert [m.shape for m in scores.anomaly_map] == sizes
    assert [r.shape for r in scores.arrays["reconstructions"]] == [(1, *size) for size in sizes]
    assert all(m.dtype == np.float32 and np.isfinite(m).all() for m in scores.anomaly_map)


def test_figures_and_tables_are_those_announced(model):
    for physics, noise, figures in (
        (IDENTITY, 0.0, ("kl_total", "kl_block")),
        (IDENTITY, 0.1, ("kl_total", "kl_block", "psnr", "ssim")),
        (SUPER, 0.0, ("kl_total", "kl_block", "psnr", "ssim")),
    ):
        model.measure(physics, noise)
        scores = model.score(slices(2))
        assert tuple(scores.figures) == model.figure_names_ == figures
        assert all(values.shape == (2,) and np.isfinite(values).all() for values in scores.figures.values())
        for table, columns in model.tables_.items():
            assert scores.arrays[table][0].shape == (len(SIGMAS), len(columns))
        assert model.tables_["spectrum"][:2] == ("sigma", "bits")


def test_the_image_itself_is_reconstructed_as_it_is(model):
    (image,) = slices(1)
    np.testing.assert_allclose(model.score([image]).arrays["reconstructions"][0][0], image, atol=0.01)


def test_psnr_is_of_the_reconstruction_that_is_given(model):
    """On the model's own grid and in its units: image and model are both 32 pixels wide."""
    model.measure(SUPER)
    scores = model.score(slices(2))
    known = [Image(one[None], Path("x"), float("nan")) for one in slices(2)]
    truth = model.preparation_.to_model(known).numpy()
    for i, rebuilt in enumerate(scores.arrays["reconstructions"]):
        intensity = model.preparation_.intensity
        scaled = (rebuilt - intensity.low) / (intensity.high - intensity.low)
        psnr = -10 * np.log10(np.mean((scaled - truth[i]) ** 2))
        assert scores.figures["psnr"][i] == pytest.approx(psnr, abs=0.01)


def test_cost_is_counted(model):
    """Five levels and four draws; six calls on the way to an image, where that was not measured itself."""
    assert model.score(slices(1)).nfe == len(SIGMAS) * DRAWS
    model.measure(SUPER)
    assert model.score(slices(1)).nfe == len(START) + len(SIGMAS) * DRAWS
    model.posterior = "pigdm"
    assert model.score(slices(1)).nfe == len(START) + 2 * len(SIGMAS) * DRAWS
    model.posterior, model.rule = "diffpir", "standardised"  # which asks the variance head as often
    assert model.score(slices(1)).nfe == len(START) + 2 * len(SIGMAS) * DRAWS


def test_the_posterior_is_the_one_chosen(model):
    model.measure(BLUR, 0.1)
    totals = set()
    for model.posterior in ("diffpir", "ddnm", "dps-plain"):
        totals.add(round(float(model.score(slices(1)).figures["kl_total"][0]), 1))
    assert len(totals) == 3
    with pytest.raises(InputError) as error:
        KLIPModel(posterior="exact")
    one_line(error, "exact", "diffpir")


def test_no_images_give_no_scores(model):
    for physics in (IDENTITY, SUPER):
        model.measure(physics)
        scores = model.score([])
        assert scores.anomaly.shape == (0,) and scores.anomaly_map == ()
        assert all(values.shape == (0,) for values in scores.figures.values())


def test_arrays_and_images_score_alike(model):
    pixels = slices(2)
    images = [Image(p[None], Path(f"{i}.npy"), float("nan")) for i, p in enumerate(pixels)]
    assert same(model.score(pixels), model.score(images))


def test_an_image_unlike_the_healthy_ones_is_named(model):
    with pytest.raises(InputError) as error:
        model.score([slices(1)[0], np.random.default_rng(0).uniform(0, 1, (3, 64, 64))])
    one_line(error, "image 1", "is colour", "grey")


@pytest.mark.parametrize("rule", [*OWN, "standardised"])
@pytest.mark.parametrize("physics", [IDENTITY, SUPER])
def test_damage_shows_where_it_is(model, rule, physics):
    """Noise in a corner changes the map there, and hardly anywhere else; how, an untrained prior need not know."""
    damaged = [image.copy() for image in slices(2)]
    for i, image in enumerate(damaged):
        image[18:, 18:] = np.random.default_rng(i).uniform(0, 255, (14, 14))
    model.rule = rule
    model.measure(physics)
    for one, other in zip(model.score(damaged).anomaly_map, model.score(slices(2)).anomaly_map, strict=True):
        change = np.abs(one - other)
        assert change[18:, 18:].mean() > 5 * max(change[:12].mean(), change[:, :12].mean())


def test_without_a_variance_head_no_rule_but_one_lacks_anything(tmp_path):
    told = []
    plain = KLIPModel(**OPTIONS | {"variance_head": False})
    plain.fit(slices(8, 0), on_progress=lambda progress: told.append(progress))
    assert "variance" not in {one.stage for one in told} and told[-1].done == told[-1].total
    assert plain.describe()["parameters"].keys() == {"denoiser"}
    plain.save(tmp_path / "model")
    again = KLIPModel.load(tmp_path / "model", device="cpu")
    for rule in OWN:
        plain.rule = again.rule = rule
        assert np.isfinite(again.score(slices(2)).anomaly).all() and same(
            plain.score(slices(2)), again.score(slices(2))
        )
    again.rule = "standardised"
    with pytest.raises(ModelError) as error:
        again.score(slices(1))
    one_line(error, "variance head", "--variance-head")


@pytest.mark.parametrize(
    "change", [{"width": float("inf")}, {"width": 10**30}, {"width": "8"}, {"variance_head": 1}, {"width": None}]
)
def test_a_folder_that_tells_of_no_such_network_is_refused(folder, change):
    config = json.loads((folder / CONFIG).read_text())
    config["settings"] |= change
    (folder / CONFIG).write_text(json.dumps(config))
    with pytest.raises(ModelError) as error:
        KLIPModel.load(folder, device="cpu")
    one_line(error, folder, "fit again")


def test_a_folder_of_before_the_width_is_refused(folder):
    config = json.loads((folder / CONFIG).read_text())
    del config["settings"]["width"], config["settings"]["variance_head"]
    (folder / CONFIG).write_text(json.dumps(config))
    with pytest.raises(ModelError) as error:
        KLIPModel.load(folder, device="cpu")
    one_line(error, folder, "fit again")


def test_a_narrow_prior_is_narrow_when_loaded_too(tmp_path, fitted):
    wide = KLIPModel(**OPTIONS | {"width": 16}).fit(slices(8, 0))
    assert wide.describe()["parameters"]["denoiser"] > 2 * fitted.describe()["parameters"]["denoiser"]
    wide.save(tmp_path / "model")
    assert KLIPModel.load(tmp_path / "model", device="cpu").describe() == wide.describe()


# --- windows and blocks of one's own


def test_a_block_of_ones_own_is_used_for_blocks_and_rule(model):
    model.rule = "squares"
    learned = model.learned_[IDENTITY].windows["squares"]
    rows = -(-SIDE // learned.block)
    assert model.score(slices(1)).arrays["blocks"][0].shape == (rows, rows)
    model.block = SIDE
    scores = model.score(slices(2))
    assert scores.arrays["blocks"][0].shape == (1, 1)
    np.testing.assert_allclose(scores.figures["kl_block"], scores.figures["kl_total"])
    inside = [learned.low <= sigma <= learned.high for sigma in SIGMAS]
    bits = [table[inside, 1].sum() for table in scores.arrays["spectrum"]]
    np.testing.assert_allclose(scores.anomaly, bits, rtol=1e-4)


def test_a_window_of_ones_own_is_used_by_the_rule(model):
    """One block as large as the image: the rule's figure is what the spectrum has inside the window."""
    model.rule, model.block = "squares", SIDE
    for window in ((SIGMAS[0], SIGMAS[-1]), (SIGMAS[1], SIGMAS[2]), (SIGMAS[3], SIGMAS[3])):
        model.window = window
        scores = model.score(slices(2))
        inside = [window[0] <= sigma <= window[1] for sigma in SIGMAS]
        bits = [table[inside, 1].sum() for table in scores.arrays["spectrum"]]
        np.testing.assert_allclose(scores.anomaly, bits, rtol=1e-4)


@pytest.mark.parametrize("rule", ["coherent", "squares", "reference"])
def test_a_window_without_a_noise_level_is_refused(model, rule):
    model.rule, model.window = rule, (1e-7, 2e-7)
    with pytest.raises(InputError) as error:
        model.score(slices(1))
    one_line(error, "window 1e-07 to 2e-07")


# --- the published recipe


def test_the_published_recipe_takes_eight_samples_a_step(model):
    """Two steps here instead of a hundred; 800 evaluations become 16."""
    model.rule = "reference"
    for physics in (IDENTITY, SUPER):
        model.measure(physics)
        scores = model.score(slices(2))
        assert scores.nfe == 8 * klip_model.REFERENCE_STEPS == 16
        np.testing.assert_allclose(scores.anomaly, scores.figures["kl_block"], rtol=1e-5)
        assert scores.arrays["spectrum"][0].shape == (0, 2 + len(WIDTHS))


def test_the_published_recipes_window_is_one_of_its_steps(model, monkeypatch):
    """Of ten steps, those of noise up to .4: fewer than all, and other figures."""
    seen = []
    known = klip_model.reference

    def reference(*given, window, **named):
        seen.append(window)
        return known(*given, window=window, **named)

    monkeypatch.setattr(klip_model, "REFERENCE_STEPS", 10)
    monkeypatch.setattr(klip_model, "reference", reference)
    model.rule = "reference"
    anomaly = []
    for model.window in (None, (0.0, 0.4), (0.4, 1e9)):
        anomaly.append(float(model.score(slices(1)).anomaly[0]))
    assert seen[0] is None and seen[1][0] == 0 and seen[1][1] == seen[2][0] and seen[2][1] == 10
    assert len(set(anomaly)) == 3


# --- real measurements


@pytest.mark.parametrize("rule", ["combined", "squares", "reference"])
def test_a_real_measurement_is_judged_like_a_simulated_one(model, rule):
    """Image, figures and map are those of the image that was measured; what is true is not known.

    What is usual is that of super-resolution, although not with this noise, and not that of whole images.
    """
    found = measurement(model, (1, SIDE, SIDE))
    model.rule = rule
    usual = model.learned_[SUPER]
    windows = {name: dataclasses.replace(window, block=16) for name, window in usual.windows.items()}
    other = dataclasses.replace(usual, windows=windows)
    image, scores = with_learned(model, {SUPER: other}, lambda: model.score_measurement(found))
    model.measure(SUPER, found.noise)
    simulated = with_learned(model, {model.measured_as_: other}, lambda: model.score(slices(1)))
    for name in ("kl_total", "kl_block"):
        np.testing.assert_allclose(scores.figures[name], simulated.figures[name], rtol=1e-3)
    np.testing.assert_allclose(scores.anomaly, simulated.anomaly, rtol=1e-3, atol=1e-3)
    assert scores.arrays["blocks"][0].shape == simulated.arrays["blocks"][0].shape == (2, 2)
    assert np.isnan(scores.figures["psnr"]).all() and np.isnan(scores.figures["ssim"]).all()
    assert image.path == found.path and image.pixels is scores.arrays["reconstructions"][0]
    assert image.pixels.shape == (1, SIDE, SIDE) and scores.anomaly_map[0].shape == (SIDE, SIDE)
    intensity = model.preparation_.intensity
    own = image.pixels * (intensity.high - intensity.low) + intensity.low
    np.testing.assert_allclose(own, simulated.arrays["reconstructions"][0], rtol=1e-3, atol=0.5)


def with_learned(model: KLIPModel, learned: dict[str, Learned], does: Callable):
    """What it does where this was learned in place of, or beside, what was."""
    known = model.learned_
    model.learned_ = known | learned
    try:
        return does()
    finally:
        model.learned_ = known


def test_what_is_usual_of_a_real_measurement_is_that_of_its_sort(model):
    assert model.usual_like_("super:factor=4") == SUPER
    assert model.usual_like_("mri") == model.usual_like_("identity") == IDENTITY
    assert model.healthy_ is not None
    model.simulated = False
    assert model.healthy_ is None


def test_what_was_set_is_checked_before_any_image(model):
    model.rule, model.window = "squares", (5.0, 6.0)
    with pytest.raises(InputError, match="window 5 to 6"):
        model.check()
    model.rule, model.window = "reference", (50.0, 100.0)  # where the published schedule begins
    model.check()
    model.window = (1e-7, 2e-7)
    with pytest.raises(InputError, match="window 1e-07 to 2e-07"):
        model.check()
    model.window = None
    model.measure("super:factor=5")
    with pytest.raises(InputError, match="super:factor=5"):
        model.check()
    model.simulated = False
    model.check()


def test_a_measurement_of_other_images_is_refused(model):
    for shape in ((1, 2 * SIDE, SIDE), (3, SIDE, SIDE), (1, 16, 16)):
        with pytest.raises(InputError) as error:
            model.score_measurement(measurement(model, shape))
        one_line(error, "y.npz", shape, (1, SIDE, SIDE))


# --- a prior that others trained


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory) -> Path:
    """A diffusers folder of three resolutions, for images of 28 pixels: sides are multiples of 4."""
    diffusers = pytest.importorskip("diffusers")
    path = tmp_path_factory.mktemp("prior") / "ddpm"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = diffusers.UNet2DModel(
            sample_size=28,
            in_channels=1,
            out_channels=1,
            block_out_channels=(4, 4, 8),
            layers_per_block=1,
            down_block_types=("DownBlock2D",) * 3,
            up_block_types=("UpBlock2D",) * 3,
            norm_num_groups=2,
        )
    diffusers.DDPMPipeline(net, diffusers.DDPMScheduler(clip_sample=False)).save_pretrained(path)
    return path


@pytest.mark.parametrize(("size", "chosen"), [(None, 28), (27, 28), (33, 32), (36, 36)])
def test_sizes_are_the_priors_own_or_multiples_of_what_it_needs(pipeline, monkeypatch, size, chosen):
    monkeypatch.setattr(klip_model, "fit_image_prior", lambda *given, **named: None)
    monkeypatch.setattr(KLIPModel, "_see", lambda *given: None)
    monkeypatch.setattr(klip_model, "learn", lambda *given: None)
    model = KLIPModel(prior=pipeline, steps=1, size=size, device="cpu").fit(slices(8))
    assert model.preparation_.size == chosen


def test_a_prior_of_others_is_used_and_kept_in_the_models_folder(pipeline, tmp_path):
    """Only a variance head is learned, if asked; loaded again, the model does not need the prior's folder."""
    stages = []
    model = KLIPModel(prior=str(pipeline), steps=2, variance_head=True, device="cpu")
    model.fit(slices(8), on_progress=lambda progress: stages.append(progress.stage))
    assert "denoiser" not in stages and "variance" in stages
    x_t, sigma = torch.rand(1, 1, 28, 28, generator=torch.Generator().manual_seed(0)), torch.tensor([0.2])
    external = image_prior.ImagePrior(1, external=klip_model.load_external(pipeline)).denoiser
    torch.testing.assert_close(model.prior_.denoiser(x_t, sigma), external(x_t, sigma), rtol=1e-4, atol=1e-5)
    scores = model.score(slices(2))
    model.save(tmp_path / "model")
    text = (tmp_path / "model" / CONFIG).read_text()
    assert str(pipeline.parent) not in text and json.loads(text)["prior"]["external"]["class"] == "UNet2DModel"
    loaded = KLIPModel.load(tmp_path / "model", device="cpu")
    assert same(loaded.score(slices(2)), scores, rtol=1e-6)
    assert loaded.describe() == model.describe() and model.describe()["prior"]["format"] == "diffusers"


def test_a_prior_that_does_not_fit_is_told_before_it_trains(pipeline, tmp_path, monkeypatch):
    monkeypatch.setattr(klip_model, "fit_image_prior", lambda *given, **named: pytest.fail("trained"))
    colour = [np.stack([s, 0.8 * s, 255 - s]) for s in slices(8)]
    with pytest.raises(InputError) as error:
        KLIPModel(prior=pipeline, device="cpu").fit(colour)
    one_line(error, pipeline, "1 channels", "3")
    with pytest.raises(InputError) as error:
        KLIPModel(prior=pipeline, patch=16, device="cpu").fit(slices(8))
    one_line(error, "patch 16", "whole")
    with pytest.raises(ModelError) as error:
        KLIPModel(prior=tmp_path / "none", device="cpu").fit(slices(8))
    one_line(error, tmp_path / "none")


# --- a model's folder


def test_a_saved_model_scores_the_same_by_every_rule(model, saved):
    loaded = KLIPModel.load(saved, device="cpu")
    assert loaded.rule == "combined" and loaded.describe() == model.describe()
    assert loaded.provenance_ == model.provenance_
    for physics in (IDENTITY, SUPER):
        for rule in KLIP_RULES:
            model.rule = loaded.rule = rule
            for one in (model, loaded):
                one.measure(physics)
            assert same(loaded.score(slices(1)), model.score(slices(1))), rule
            assert loaded.healthy_ == model.healthy_


def test_a_loaded_model_saves_the_same_bytes(saved, tmp_path):
    KLIPModel.load(saved).save(tmp_path / "again", facts={"source": "cohort"})
    for name in (TENSORS, CONFIG):
        assert (tmp_path / "again" / name).read_bytes() == (saved / name).read_bytes()


def test_configuration_and_description_are_plain_data(model, saved):
    config = json.loads((saved / CONFIG).read_text())
    assert config["method"] == "klip" and config["source"] == "cohort"
    assert config["settings"]["seed"] == 0 and config["trained_on"] == model.trained_on_
    assert list(config["learned"]) == [IDENTITY, SUPER]
    described = model.describe()
    assert json.loads(json.dumps(described)) == described
    assert described["size"] == SIDE and described["prior"] == "trained here"
    assert set(described["windows"]) == {f"{text}, {rule}" for text in (IDENTITY, SUPER) for rule in OWN[1:]}
    assert all(count > 100 for count in described["parameters"].values())


def change(config: dict, *keys: str, to: object) -> None:
    *above, last = keys
    for key in above:
        config = config[key]
    if to is None:
        del config[last]
    else:
        config[last] = to


@pytest.mark.parametrize(
    ("keys", "to", "reason"),
    [
        (("method",), "anodode", "method 'anodode'"),
        (("settings",), [1, 2], "do not belong together"),
        (("settings", "rule"), "median", "settings are not those of a KLIP model"),
        (("settings", "backbone"), "resnet", "settings are not those of a KLIP model"),
        (("sigmas",), [0.1, 0.2], "do not belong together"),
        (("widths",), None, "do not belong together"),
        (("preparation", "intensity"), 3, "do not belong together"),
        (("preparation", "channels"), 3, "do not belong together"),
        (("prior",), [], "do not belong together"),
        (("learned", IDENTITY, "share"), None, "do not belong together"),
        (("learned", IDENTITY, "windows"), {"squares": 4}, "do not belong together"),
        (("learned", "ct:views=3"), {}, "do not belong together"),
        (("trained_on",), None, "do not belong together"),
    ],
    ids=lambda value: ".".join(value) if isinstance(value, tuple) else None,
)
def test_a_configuration_that_does_not_fit(folder, keys, to, reason):
    config = json.loads((folder / CONFIG).read_text())
    change(config, *keys, to=to)
    (folder / CONFIG).write_text(json.dumps(config))
    with pytest.raises(ModelError) as error:
        KLIPModel.load(folder)
    one_line(error, folder, reason)


@pytest.mark.parametrize(
    "part", ["denoiser.", "variance.", "learned.0.inner", "learned.0.outer_bias", "learned.1.", "provenance."]
)
def test_tensors_that_are_missing(folder, part):
    kept = {name: value for name, value in load_file(folder / TENSORS).items() if not name.startswith(part)}
    save_file(kept, folder / TENSORS)
    with pytest.raises(ModelError) as error:
        KLIPModel.load(folder)
    one_line(error, folder, "do not belong together")


def test_an_unknown_rule_is_refused(model):
    for name in ("median", "Combined", "typicality"):
        with pytest.raises(InputError) as error:
            model.rule = name
        one_line(error, name, *KLIP_RULES)
    with pytest.raises(InputError):
        KLIPModel(rule="median")
    assert model.rule == "combined"


# --- a GPU, where there is one


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("rule", KLIP_RULES)
def test_a_gpu_is_used_when_present(rule):
    model = KLIPModel(size=SIDE, steps=2, width=8, variance_head=True, rule=rule).fit(slices(8, 0), physics=[SUPER])
    assert model.device.type == "cuda"
    for physics in (IDENTITY, SUPER):
        model.measure(physics)
        assert np.isfinite(model.score(slices(2)).anomaly).all()
