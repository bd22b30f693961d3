"""The yardstick of verdicts: p-values of images and patients by hand, and a file that is what it says or is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save, save_file

from priorlens.calibration import (
    FOLDER,
    Calibration,
    calibrated_setups,
    discard_outdated,
    model_hash,
    read_calibration,
    write_calibration,
)
from priorlens.checkpoint import TENSORS
from priorlens.conformal import p_values, smallest_p_value
from priorlens.errors import InputError, ModelError

SETUP = "rule=combined, physics=ct:views=24 noise=0.1"


def calibration(
    anomaly: list[float], patients: list[int] | None = None, *, model: str = "ab", setup: str = SETUP
) -> Calibration:
    """Of images with three or four blocks."""
    rng = np.random.default_rng(0)
    count = len(anomaly)
    return Calibration(
        model,
        setup,
        tuple(f"{i:032x}" for i in range(count)),
        tuple(f"{one:032x}" for one in (range(100, 100 + count) if patients is None else patients)),
        np.array(anomaly, np.float32),
        tuple(rng.normal(size=3 + i % 2).astype(np.float32) for i in range(count)),
        {"kl_total": rng.normal(size=count).astype(np.float32), "bits@sigma=0.5": np.arange(count, dtype=np.float32)},
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder, as far as a calibration needs one."""
    save_file({"weights": np.ones(3, np.float32)}, tmp_path / TENSORS)
    return tmp_path


def of_model(folder: Path, setup: str = SETUP) -> Calibration:
    return calibration([1.0, 3.0, 2.0], [7, 8, 7], model=model_hash(folder), setup=setup)


def one_line(error: pytest.ExceptionInfo[Exception], *parts: object) -> None:
    text = str(error.value)
    assert "\n" not in text
    for part in parts:
        assert str(part) in text, text


# --- p-values


def test_p_values_of_images_are_conformal_by_patient():
    known = calibration([1.0, 2.0, 3.0, 4.0, 5.0], [9, 4, 9, 4, 6])
    assert known.patient_count == 3 and known.smallest_p_value == 1 / 4
    assert list(known.patient_of) == [2, 0, 2, 0, 1]
    found = known.image_p_values(np.array([2.5, 6.0, 4.0]))
    np.testing.assert_allclose(found, np.array([1 + 0.5 + 0.5 + 1, 1, 1 + 0.5 + 1]) / 4)
    np.testing.assert_array_equal(found, p_values(np.array([2.5, 6.0, 4.0]), known.anomaly, known.patient_of))


@pytest.mark.parametrize(
    ("own", "expected"), [([2.5], 1.0), ([0.0, 3.5, 1.0], 3 / 4), ([4.5, 4.5], 2 / 4), ([9], 1 / 4)]
)
def test_a_patient_is_judged_by_its_highest_image(own, expected):
    """Highest of each of the healthy ones: 3, 4 and 5."""
    known = calibration([1.0, 2.0, 3.0, 4.0, 5.0], [9, 4, 9, 4, 6])
    assert known.patient_p_value(np.array(own, np.float32)) == pytest.approx(expected)


def test_a_patient_with_the_images_of_a_healthy_one_is_above_it_in_none():
    known = calibration([1.0, 2.0, 3.0, 4.0, 5.0], [9, 4, 9, 4, 6])
    for patient in range(3):
        own = known.anomaly[known.patient_of == patient]
        highest = np.array([known.anomaly[known.patient_of == one].max() for one in range(3)])
        assert known.patient_p_value(own) == pytest.approx((1 + (highest >= own.max()).sum()) / 4)


@given(patients=st.integers(1, 400), alpha=st.floats(1e-3, 0.99))
def test_an_alpha_is_refused_exactly_where_no_p_value_can_reach_it(patients, alpha):
    known = calibration([0.0] * patients)
    if smallest_p_value(patients) <= alpha:
        known.require(alpha)
        return
    with pytest.raises(InputError) as error:
        known.require(alpha)
    one_line(error, f"alpha {alpha:g}", f"{patients} healthy patients", "calibrate with at least", "larger alpha")
    wanted = int(str(error.value).partition("at least ")[2].partition(",")[0])
    assert smallest_p_value(wanted) <= alpha * (1 + 1e-8) and smallest_p_value(max(1, wanted - 1)) > alpha * (1 - 1e-8)


@pytest.mark.parametrize(("alpha", "patients"), [(0.05, 19), (0.01, 99), (0.1, 9), (0.001, 999)])
def test_how_many_patients_the_usual_alphas_take(alpha, patients):
    calibration([0.0] * patients).require(alpha)
    with pytest.raises(InputError, match=f"at least {patients}, "):
        calibration([0.0] * (patients - 1)).require(alpha)


# --- the file


def same(one: Calibration, other: Calibration) -> bool:
    return (
        (one.model, one.setup, one.images, one.patients) == (other.model, other.setup, other.images, other.patients)
        and np.array_equal(one.anomaly, other.anomaly)
        and all(np.array_equal(*pair) for pair in zip(one.blocks, other.blocks, strict=True))
        and list(one.features) == list(other.features)
        and all(np.array_equal(values, other.features[name]) for name, values in one.features.items())
    )


def test_what_is_written_is_read_again(folder):
    written = of_model(folder)
    path = write_calibration(folder, written)
    assert path.parent == folder / FOLDER and path.name.startswith("rule-combined-physics-ct-views-24-noise-0-1-")
    found = read_calibration(folder, SETUP)
    assert same(found, written) and found.patient_count == 2
    assert [len(blocks) for blocks in found.blocks] == [3, 4, 3]
    np.testing.assert_array_equal(found.healthy_blocks.maxima, [blocks.max() for blocks in written.blocks])
    assert write_calibration(folder, found).read_bytes() == path.read_bytes()


def test_without_further_figures_too(folder):
    bare = Calibration(
        model_hash(folder), "rule=x", ("00" * 16,), ("01" * 16,), np.ones(1, np.float32), (np.ones(1, np.float32),), {}
    )
    write_calibration(folder, bare)
    assert same(read_calibration(folder, "rule=x"), bare)


def test_a_setup_has_a_file_of_its_own_and_a_later_one_takes_its_place(folder):
    setups = [SETUP, SETUP.replace("=", ":"), SETUP.upper(), "rule=combined", SETUP + ", block=8"]
    paths = {write_calibration(folder, of_model(folder, setup)) for setup in setups}
    assert len(paths) == len(setups)
    assert sorted(calibrated_setups(folder)) == sorted(setups)
    assert all(read_calibration(folder, setup).setup == setup for setup in setups)
    later = calibration([5.0] * 4, model=model_hash(folder))
    assert write_calibration(folder, later) in paths and same(read_calibration(folder, SETUP), later)


def test_no_calibration_is_none(folder):
    assert read_calibration(folder, SETUP) is None and calibrated_setups(folder) == []
    path = write_calibration(folder, of_model(folder, "rule=other"))
    assert read_calibration(folder, SETUP) is None
    other = write_calibration(folder, of_model(folder))
    other.write_bytes(path.read_bytes())
    assert read_calibration(folder, SETUP) is None, "that of another setup under its name"
    path.rename(path.with_name("renamed.safetensors"))
    assert calibrated_setups(folder) == [], "as none of them would be read"


def test_a_calibration_of_another_model_is_refused(folder):
    path = write_calibration(folder, of_model(folder))
    save_file({"weights": np.zeros(3, np.float32)}, folder / TENSORS)
    with pytest.raises(ModelError) as error:
        read_calibration(folder, SETUP)
    one_line(error, path, "earlier version of this model", "run priorlens calibrate again")
    assert calibrated_setups(folder) == []


def test_calibrations_of_another_model_can_be_discarded(folder):
    write_calibration(folder, of_model(folder, "rule=old"))
    DAMAGE["truncated"](write_calibration(folder, of_model(folder, "rule=damaged")))
    save_file({"weights": np.zeros(3, np.float32)}, folder / TENSORS)
    kept = write_calibration(folder, of_model(folder, "rule=new"))
    (folder / FOLDER / "note.txt").write_text("not to be touched")
    discard_outdated(folder)
    assert sorted(path.name for path in (folder / FOLDER).iterdir()) == ["note.txt", kept.name]
    assert read_calibration(folder, "rule=old") is None is read_calibration(folder, "rule=damaged")
    discard_outdated(folder)
    assert kept.is_file()


def test_nothing_to_discard(folder):
    discard_outdated(folder)
    assert not (folder / FOLDER).exists()


def test_a_model_without_tensors(folder):
    write_calibration(folder, of_model(folder))
    assert model_hash(folder) == hashlib.sha256((folder / TENSORS).read_bytes()).hexdigest()
    (folder / TENSORS).unlink()
    for ask in (lambda: read_calibration(folder, SETUP), lambda: model_hash(folder), lambda: calibrated_setups(folder)):
        with pytest.raises(ModelError) as error:
            ask()
        one_line(error, folder / TENSORS, "cannot be read", ";")


def rewritten(path: Path, facts: dict | None = None, **tensors: np.ndarray | None) -> None:
    """The same file with other facts and tensors; None leaves one out."""
    with safe_open(path, framework="np") as file:
        known = json.loads(file.metadata()["priorlens"])
    stored = {name: value for name, value in (load_file(path) | tensors).items() if value is not None}
    path.write_bytes(save(stored, metadata={"priorlens": json.dumps(known | (facts or {}))}))


DAMAGE = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-40]),
    "empty": lambda path: path.write_bytes(b""),
    "no safetensors": lambda path: path.write_text("anomaly,1,2"),
    "foreign": lambda path: save_file({"weights": np.ones(3, np.float32)}, path),
    "foreign facts": lambda path: path.write_bytes(save({"a": np.ones(1)}, metadata={"priorlens": "[1]"})),
    "facts no JSON": lambda path: path.write_bytes(save({"a": np.ones(1)}, metadata={"priorlens": "{"})),
    "no anomaly": lambda path: rewritten(path, anomaly=None),
    "no counts": lambda path: rewritten(path, block_counts=None),
    "names of other figures": lambda path: rewritten(path, {"features": ["a"]}),
    "schema no number": lambda path: rewritten(path, {"schema": "one"}),
    "fewer images": lambda path: rewritten(path, images=np.zeros((2, 16), np.uint8)),
    "fewer patients": lambda path: rewritten(path, patients=np.zeros((2, 16), np.uint8)),
    "fewer scores": lambda path: rewritten(path, anomaly=np.ones(2, np.float32)),
    "fewer blocks": lambda path: rewritten(path, blocks=np.ones(5, np.float32)),
    "other counts": lambda path: rewritten(path, block_counts=np.array([3, 4])),
    "fewer figures": lambda path: rewritten(path, features=np.ones((2, 2), np.float32)),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_or_foreign_file_is_refused(folder, how):
    path = write_calibration(folder, of_model(folder))
    DAMAGE[how](path)
    with pytest.raises(ModelError) as error:
        read_calibration(folder, SETUP)
    one_line(error, path, "damaged", "run priorlens calibrate again")


def test_a_file_of_a_later_version_is_refused(folder):
    path = write_calibration(folder, of_model(folder))
    rewritten(path, {"schema": 2})
    with pytest.raises(ModelError) as error:
        read_calibration(folder, SETUP)
    one_line(error, path, "schema 2", "upgrade priorlens")


def test_damaged_files_are_no_calibrated_setups(folder):
    write_calibration(folder, of_model(folder, "rule=good"))
    for how in ("truncated", "empty", "no safetensors", "foreign", "foreign facts", "facts no JSON"):
        DAMAGE[how](write_calibration(folder, of_model(folder, f"rule={how}")))
    assert calibrated_setups(folder) == ["rule=good"]
