"""The detector from images to verdict, learned in three steps: its form is tested here, not how much it knows."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache, partialmethod
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from priorlens import anodode, held_out, weighing
from priorlens.anodode import AnoDODE
from priorlens.checkpoint import CONFIG, TENSORS
from priorlens.cohort import healthy_slices
from priorlens.combination import readings, with_context
from priorlens.errors import InputError, ModelError, OutputError, WeightsError
from priorlens.feature_prior import FeaturePrior
from priorlens.images import Image
from priorlens.progress import Progress
from priorlens.provenance import Provenance
from priorlens.rules import RULES
from priorlens.scores import Scores
from priorlens.surprise import SIGMAS, WIDTHS

OPTIONS = {"size": 64, "steps": 3, "device": "cpu"}
GROUPS = [f"p{i // 2}" for i in range(10)]


@cache
def ten_slices(seed: int) -> list[np.ndarray]:
    return healthy_slices(10, 64, seed)


def slices(count: int, seed: int = 0) -> list[np.ndarray]:
    """Seed 0 is what `fitted` has seen. Not to be written to."""
    return ten_slices(seed)[:count]


@pytest.fixture(autouse=True, scope="module")
def small():
    """The same sums in every run, on no more than one core; two artefacts an image, few steps of what weighs readings,
    and two ODE steps instead of eight."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(held_out, "PLANTED_EACH", 1)
        patch.setattr(weighing, "_FEWEST_STEPS", 100)
        for name in ("likelihood", "residual"):
            patch.setattr(FeaturePrior, name, partialmethod(getattr(FeaturePrior, name), steps=2))
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def progress() -> list[Progress]:
    return []


@pytest.fixture(scope="module")
def fitted(progress) -> AnoDODE:
    """Not to be changed, but for its rule; see `detector`."""
    return AnoDODE(**OPTIONS).fit(slices(10), groups=GROUPS, on_progress=progress.append)


@pytest.fixture
def detector(fitted) -> AnoDODE:
    fitted.rule = "combined"
    return fitted


@pytest.fixture(scope="module")
def saved(fitted, tmp_path_factory) -> Path:
    """Not to be changed; see `model`."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    fitted.rule = "combined"
    fitted.save(folder, facts={"source": "cohort"})
    return folder


@pytest.fixture
def model(saved, tmp_path) -> Path:
    """A copy of the saved model, its configuration free to be changed."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / TENSORS).symlink_to(saved / TENSORS)
    (folder / CONFIG).write_bytes((saved / CONFIG).read_bytes())
    return folder


def same(one: Scores, other: Scores) -> bool:
    return (
        np.array_equal(one.anomaly, other.anomaly)
        and one.figures.keys() == other.figures.keys()
        and all(np.array_equal(values, other.figures[name]) for name, values in one.figures.items())
        and one.nfe == other.nfe
        and all(np.array_equal(a, b) for a, b in zip(one.anomaly_map, other.anomaly_map, strict=True))
        and one.arrays.keys() == other.arrays.keys()
        and all(
            np.array_equal(*pair)
            for name in one.arrays
            for pair in zip(one.arrays[name], other.arrays[name], strict=True)
        )
    )


def one_line(error: pytest.ExceptionInfo[Exception], *parts: object) -> None:
    text = str(error.value)
    assert "\n" not in text
    for part in parts:
        assert str(part) in text, text


# --- scoring


def test_maps_have_their_images_own_size(detector):
    rng = np.random.default_rng(0)
    images = [rng.uniform(0, 255, shape).astype(np.float32) for shape in ((64, 64), (40, 90), (1, 130, 70), (9, 300))]
    scores = detector.score(images)
    assert [m.shape for m in scores.anomaly_map] == [(64, 64), (40, 90), (130, 70), (9, 300)]
    assert all(m.dtype == np.float32 and np.isfinite(m).all() for m in scores.anomaly_map)
    assert scores.anomaly.shape == (4,) and scores.anomaly.dtype == np.float32
    assert tuple(scores.figures) == detector.figure_names_ == ("s8", "s16", "s32")
    assert all(bits.shape == (4,) and np.isfinite(bits).all() for bits in scores.figures.values())


@pytest.mark.parametrize("rule", ["combined", "typicality", "published"])  # the others read what these read
def test_no_image_depends_on_those_beside_it(detector, rule, monkeypatch):
    """Alone, among others, and in another order. Within 1e-4, of anomaly and of the map relative to its spread
    (measured: 1e-5): networks compute in bfloat16, and a kernel may sum in another order for another size of batch."""
    detector.rule = rule
    monkeypatch.setattr(anodode, "_SCORE_BATCH", 2)
    images = slices(3, seed=1)
    together = detector.score(images)
    assert together.anomaly.std() > 1e-3
    reverse = detector.score(images[::-1])
    alone = {i: detector.score([images[i]]) for i in (0, 2)}
    np.testing.assert_allclose(reverse.anomaly[::-1], together.anomaly, rtol=1e-4, atol=1e-4)
    for i, own in alone.items():
        np.testing.assert_allclose(own.anomaly[0], together.anomaly[i], rtol=1e-4, atol=1e-4)
        for name, bits in own.figures.items():
            np.testing.assert_allclose(bits[0], together.figures[name][i], rtol=1e-4, atol=1e-4)
        spread = together.anomaly_map[i].std()
        np.testing.assert_allclose(own.anomaly_map[0] / spread, together.anomaly_map[i] / spread, rtol=1e-4, atol=1e-4)
        assert own.nfe == together.nfe


def test_no_images_give_no_scores(detector):
    scores = detector.score([])
    assert scores.anomaly.shape == (0,) and scores.anomaly_map == ()
    assert [bits.shape for bits in scores.figures.values()] == [(0,)] * 3


def test_cost_is_counted(detector):
    """Five noise levels, two draws, denoiser and variance head, at three scales. Published, with two
    Heun steps: four evaluations and as many products for the likelihood, four and one for the reconstruction."""
    image = slices(1, seed=1)
    assert detector.score(image).nfe == 5 * 2 * 2 * 3
    detector.rule = "published"
    assert detector.score(image).nfe == (4 + 4 + 5) * 3


def test_arrays_and_images_score_alike(detector):
    pixels = slices(2, seed=1)
    images = [Image(p[None], Path(f"{i}.npy"), float("nan")) for i, p in enumerate(pixels)]
    assert same(detector.score(pixels), detector.score(images))


def test_an_image_unlike_the_healthy_ones_is_named(detector):
    with pytest.raises(InputError) as error:
        detector.score([slices(1, seed=1)[0], np.random.default_rng(0).uniform(0, 1, (3, 64, 64))])
    one_line(error, "image 1", "is colour", "grey")
    with pytest.raises(InputError) as error:
        detector.score([np.zeros((64, 64))])
    one_line(error, "image 0", "constant")


def test_obvious_damage_is_surprising(detector):
    """Half of a slice replaced by noise: even three steps of training suffice for the features to look unusual.

    As a whole: after so few steps single places of healthy slices, which `combined` looks at too, may stand out."""
    detector.rule = "coherent"
    healthy = slices(6, seed=1)
    damaged = [image.copy() for image in healthy]
    for i, image in enumerate(damaged):
        image[16:48, 16:48] = np.random.default_rng(i).uniform(0, 255, (32, 32))
    assert detector.score(damaged).anomaly.min() > detector.score(healthy).anomaly.max()


# --- the spectrum


def test_the_spectrum_has_a_row_a_scale_and_noise_level(detector):
    (name,) = detector.tables_
    assert name == "spectrum" and detector.tables_[name] == anodode.SPECTRUM
    assert anodode.SPECTRUM == ("stride", "sigma", "standardised", "width_0", "width_1", "width_2")
    scores = detector.score(slices(3, seed=1))
    assert len(scores.arrays["spectrum"]) == 3
    for rows in scores.arrays["spectrum"]:
        assert rows.shape == (3 * len(SIGMAS), len(anodode.SPECTRUM)) and np.isfinite(rows).all()
        np.testing.assert_array_equal(rows[:, 0], np.repeat([8, 16, 32], len(SIGMAS)))
        np.testing.assert_allclose(rows[:, 1], np.tile(SIGMAS, 3))
    assert np.ptp([rows[:, 2:] for rows in scores.arrays["spectrum"]], axis=0).min() > 0, "images differ in all of it"


def test_each_figure_of_the_spectrum_is_the_reading_of_its_name(detector):
    """Bits above what is usual, by the names that the combination gives its readings."""
    image = slices(1, seed=1)
    (rows,) = detector.score(image).arrays["spectrum"]
    prepared = detector.preparation_.to_model([Image(image[0][None], Path("x"), float("nan"))])
    found = with_context(readings(detector._surprises(prepared), 16), prepared)
    above = dict(zip(found.names, (found.means[0] - detector.combination_.usual).tolist(), strict=True))
    for stride, sigma, standardised, *widths in rows.tolist():
        scale = f"s{stride:g}"
        assert standardised == pytest.approx(above[f"{scale} standardised sigma={sigma:g}"], abs=1e-4)
        for width, value in zip(WIDTHS, widths, strict=True):
            assert value == pytest.approx(above[f"{scale} coherent sigma={sigma:g} width={width:g}"], abs=1e-4)


def test_the_spectrum_is_zero_on_average_of_those_held_out_and_damage_lies_above(detector):
    healthy = [slices(10)[i] for i in held_out.hold_out(GROUPS, detector.seed)[1]]
    damaged = [image.copy() for image in healthy]
    for i, image in enumerate(damaged):
        image[16:48, 16:48] = np.random.default_rng(i).uniform(0, 255, (32, 32))
    usual, odd = (np.mean(detector.score(some).arrays["spectrum"], 0)[:, 2:] for some in (healthy, damaged))
    np.testing.assert_allclose(usual, 0, atol=1e-3)
    assert odd.mean() > 0.5


def test_rules_share_a_spectrum_but_for_the_published_one(detector):
    image, found = slices(1, seed=1), []
    for rule in RULES:
        detector.rule = rule
        scores = detector.score(image)
        assert scores.arrays.keys() == detector.tables_.keys()
        found += scores.arrays.get("spectrum", ())
    assert len(found) == len(RULES) - 1 and all(np.array_equal(one, found[0]) for one in found)
    detector.rule = "published"
    assert detector.tables_ == {} and detector.score(image).arrays == {}


def test_no_images_have_no_spectrum(detector):
    assert detector.score([]).arrays == {"spectrum": ()}


# --- fitting


def test_what_was_given_is_known_again_held_out_or_not(fitted):
    images = [Image(one[None], Path(f"{i}.npy"), float("nan")) for i, one in enumerate(slices(10))]
    assert fitted.provenance_ == Provenance.of(images, GROUPS)
    assert len(fitted.provenance_.images) == 10 and len(fitted.provenance_.patients) == 5
    assert fitted.provenance_.sides == (64, 64)


def test_healthy_statistics_are_of_the_present_rule(detector):
    found = {}
    for rule in RULES:
        detector.rule = rule
        found[rule] = detector.healthy_
        assert found[rule].map_low < found[rule].threshold < found[rule].map_high
        # Of two images held out, each is a deviation from their mean, whichever figure is the larger.
        assert found[rule].anomaly_std > 0 or rule == "combined"
    assert len(set(found.values())) == len(RULES)
    assert found["coherent"].anomaly_mean == pytest.approx(0, abs=1e-3), "bits above what is usual"


def test_what_is_usual_of_an_image_is_told_by_what_did_not_learn_from_it(monkeypatch):
    """Of forty patients of two images twelve are held out; an artefact is in the fold of the image that it lies in."""
    seen = {}

    def record(healthy, planted, masks, own, seed):
        seen["folds"] = own
        combination, by_others = combine(healthy, planted, masks, own, seed)
        return combination, torch.full_like(by_others, 7.0)

    combine = anodode.fit_combination
    monkeypatch.setattr(anodode, "fit_combination", record)
    groups = [f"p{i // 2}" for i in range(80)]
    images = [ten_slices(i // 10)[i % 10] for i in range(80)]
    detector = AnoDODE(**OPTIONS | {"steps": 1}).fit(images, groups=groups)
    held = [groups[i] for i in held_out.hold_out(groups, detector.seed)[1]]
    untouched, artefacts = (own.tolist() for own in seen["folds"])
    assert len(set(held)) == 12 and set(untouched) == set(range(5))
    assert len({(group, fold) for group, fold in zip(held, untouched, strict=True)}) == 12, "a patient is in one fold"
    assert artefacts == untouched * (len(artefacts) // len(untouched))
    usual = detector.statistics_["local"]
    assert (usual.anomaly_mean, usual.map_low, usual.threshold) == (7.0, 7.0, 7.0)


def test_progress_runs_through_all_stages_to_the_end(fitted, progress):
    stages = list(dict.fromkeys(p.stage for p in progress))
    networks = [f"{scale} {part}" for scale in ("s8", "s16", "s32") for part in ("denoiser", "variance")]
    assert stages == ["features", *networks, "held-out images", "planted artefacts"]
    assert [p.done for p in progress] == sorted(p.done for p in progress)
    assert progress[-1].done == progress[-1].total == {p.total for p in progress}.pop()


def test_patients_are_held_out_whole(fitted):
    """Five patients of two images: what is kept and what is held out are even in number."""
    found = fitted.trained_on_
    assert found["patients"] == 5
    assert found["images"] + found["held_out"] == 10
    assert found["images"] % 2 == found["held_out"] % 2 == 0
    assert found["held_out"] > 0


def test_the_same_seed_gives_the_same_detector_even_after_a_kill(fitted, tmp_path):
    class Killed(Exception):
        pass

    def kill(at: Progress) -> None:
        if at.stage == "s16 variance":
            raise Killed

    images, unseen = slices(10), slices(2, seed=1)
    again = AnoDODE(**OPTIONS)
    with pytest.raises(Killed):
        again.fit(images, groups=GROUPS, state=tmp_path / "training", on_progress=kill)
    assert len(list((tmp_path / "training").iterdir())) == 3
    again.fit(images, groups=GROUPS, state=tmp_path / "training")
    fitted.rule = "combined"
    assert same(again.score(unseen), fitted.score(unseen))


def test_colour_in_percentiles_and_two_sizes(tmp_path):
    """Every option that changes the form of a model, and none of them lost in a model's folder."""
    images = [np.stack([s, 0.8 * s, 255 - s]) for s in slices(8, seed=1)]
    detector = AnoDODE(**OPTIONS | {"steps": 1}, zooms=(1.0, 0.5), intensity="percentile", rule="coherent").fit(images)
    assert detector.channels_ == 3
    assert detector.figure_names_ == ("s8", "s16", "s32", "x0.5_s8", "x0.5_s16", "x0.5_s32")
    scores = detector.score(images[:1])
    assert tuple(scores.figures) == detector.figure_names_
    (spectrum,) = scores.arrays["spectrum"]
    np.testing.assert_array_equal(spectrum[:, 0], np.repeat([8, 16, 32, 16, 32, 64], len(SIGMAS)))
    detector.save(tmp_path)
    loaded = AnoDODE.load(tmp_path, device="cpu")
    assert same(loaded.score(images[:1]), scores)
    assert loaded.describe() == detector.describe()


@pytest.mark.parametrize(
    ("images", "options", "reason"),
    [
        (lambda: slices(7), {}, "7 healthy images; at least 8"),
        (lambda: [], {}, "0 healthy images; at least 8"),
        (lambda: [*slices(8), np.ones((64, 64))], {}, "image 8: is constant"),
        (lambda: slices(8), {"groups": ["ann"] * 8}, "patient"),
        (lambda: slices(8), {"groups": ["ann", "bob"]}, "2 groups for 8 images"),
        (lambda: [*slices(8), np.eye(64)[None].repeat(3, 0)], {}, "image 8: is colour"),
    ],
    ids=["few", "none", "constant", "one patient", "groups missing", "colour"],
)
def test_images_it_cannot_learn_from(images: Callable, options, reason):
    with pytest.raises(InputError) as error:
        AnoDODE(**OPTIONS).fit(images(), **options)
    one_line(error, reason)


def test_unknown_rule_backbone_and_state(fitted, tmp_path):
    with pytest.raises(InputError) as error:
        AnoDODE(rule="median")
    one_line(error, "median", *RULES)
    with pytest.raises(InputError):
        fitted.rule = "Combined"
    with pytest.raises(WeightsError) as error:
        AnoDODE(**OPTIONS, backbone="nonsense").fit(slices(8))
    one_line(error, "nonsense")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError) as error:
        AnoDODE(**OPTIONS).fit(slices(8), state=tmp_path / "file")
    one_line(error, tmp_path / "file")


# --- a model's folder


def test_a_saved_model_scores_the_same_by_every_rule(detector, saved):
    images = slices(1, seed=1)
    loaded = AnoDODE.load(saved, device="cpu")
    assert loaded.rule == "combined"
    assert loaded.describe() == detector.describe()
    assert loaded.provenance_ == detector.provenance_
    for rule in RULES:
        detector.rule = loaded.rule = rule
        assert same(loaded.score(images), detector.score(images)), rule
        assert loaded.healthy_ == detector.healthy_
    detector.rule = "combined"


def test_a_loaded_model_saves_the_same_bytes(saved, tmp_path):
    AnoDODE.load(saved).save(tmp_path / "again", facts={"source": "cohort"})
    for name in (TENSORS, CONFIG):
        assert (tmp_path / "again" / name).read_bytes() == (saved / name).read_bytes()


def test_the_rule_is_saved(detector, tmp_path):
    detector.rule = "typicality"
    detector.save(tmp_path)
    assert AnoDODE.load(tmp_path).rule == "typicality"


def test_configuration_and_description_are_plain_data(detector, saved):
    config = json.loads((saved / CONFIG).read_text())
    assert config["method"] == "anodode" and config["source"] == "cohort"
    assert config["settings"]["seed"] == 0 and config["trained_on"]["patients"] == 5
    assert config["healthy"].keys() == set(RULES) and config["versions"]["torch"]
    described = detector.describe()
    assert json.loads(json.dumps(described)) == described
    assert described["size"] == 64 and described["trained_on"] == detector.trained_on_
    assert all(count > 1000 for count in described["parameters"].values())


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
        (("method",), "klip", "method 'klip'"),
        (("settings",), [1, 2], "do not belong together"),
        (("settings", "rule"), "median", "do not belong together"),
        (("settings", "zooms"), [1.0, 2.0], "do not belong together"),
        (("settings", "backbone"), "test_resnet", "do not belong together"),
        (("preparation", "intensity"), 3, "do not belong together"),
        (("healthy",), [], "do not belong together"),
        (("healthy_scales", "s8"), {"bits_mean": 1.0}, "do not belong together"),
        (("share",), "much", "do not belong together"),
    ],
    ids=lambda value: ".".join(value) if isinstance(value, tuple) else None,
)
def test_a_configuration_that_does_not_fit(model, keys, to, reason):
    config = json.loads((model / CONFIG).read_text())
    change(config, *keys, to=to)
    (model / CONFIG).write_text(json.dumps(config))
    with pytest.raises(ModelError) as error:
        AnoDODE.load(model)
    one_line(error, model, reason)


@pytest.mark.parametrize(
    "part", ["backbone.", "s32.variance", "combination.weighing.outer", "provenance.", "provenance.sides"]
)
def test_tensors_that_are_missing(model, part):
    kept = {name: value for name, value in load_file(model / TENSORS).items() if not name.startswith(part)}
    (model / TENSORS).unlink()
    save_file(kept, model / TENSORS)
    with pytest.raises(ModelError) as error:
        AnoDODE.load(model)
    one_line(error, model, "do not belong together")


def test_a_backbone_this_timm_does_not_know(model):
    config = json.loads((model / CONFIG).read_text())
    config["settings"]["backbone"] = "net_of_next_year"
    (model / CONFIG).write_text(json.dumps(config))
    with pytest.raises(WeightsError) as error:
        AnoDODE.load(model)
    one_line(error, "net_of_next_year")


def test_no_model_at_all(tmp_path):
    with pytest.raises(ModelError) as error:
        AnoDODE.load(tmp_path / "none")
    one_line(error, tmp_path / "none")
