"""Results of several models become one p-value an image: whatever the order and the names in their tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from priorlens.combining import Combined, combine
from priorlens.conformal import COMBINATION_RULES, combined_p_values, p_values
from priorlens.errors import InputError
from priorlens.result_folder import ResultFolder
from priorlens.tables import Line, Table

HEALTHY = [f"{number:032x}" for number in range(20)]


def table(name: str, rows: Sequence[Mapping[str, object]]) -> Table:
    lines = [
        Line(f"{name}, line {number}", {key: str(value) for key, value in row.items()})
        for number, row in enumerate(rows, 2)
    ]
    return Table(Path(name), tuple(rows[0]), tuple(lines))


def result(
    name: str,
    new: Mapping[str, object],
    healthy: Mapping[str, object],
    *,
    patients: Mapping[str, str] | None = None,
    named: Mapping[str, str] | None = None,
    errors: Mapping[str, str] | None = None,
    model: str = "",
) -> ResultFolder:
    """What a model says of new images by file, and of healthy ones by fingerprint. patients: of healthy images;
    named: of new ones."""
    scores = [
        {
            "file": file,
            "patient": (named or {}).get(file, ""),
            "anomaly": value,
            "p_value": 0.5,
            "error": (errors or {}).get(file, ""),
        }
        for file, value in new.items()
    ]
    known = [
        {"image": image, "patient": (patients or {}).get(image, f"{name} {image}"), "anomaly": value}
        for image, value in healthy.items()
    ]
    return ResultFolder(Path(name), model or name, "rule", table(f"{name}/s", scores), table(f"{name}/c", known))


def drawn(seed: int, names: Sequence[str] = HEALTHY) -> dict[str, float]:
    return dict(zip(names, np.random.default_rng(seed).normal(size=len(names)).tolist(), strict=True))


def values(found: Combined) -> dict[str, float]:
    return {image.file: image.p_value for image in found.images}


def shuffled(named: Mapping[str, float], seed: int = 0) -> dict[str, float]:
    names = list(named)
    return {names[i]: named[names[i]] for i in np.random.default_rng(seed).permutation(len(names))}


@pytest.mark.parametrize("rule", COMBINATION_RULES)
def test_tables_are_matched_by_their_names(rule):
    """The same p-values as from arrays, whatever the order of lines in each table."""
    new, healthy = [drawn(1, "abc"), drawn(2, "abc")], [drawn(3), drawn(4)]
    found = combine([result("one", new[0], healthy[0]), result("two", shuffled(new[1]), shuffled(healthy[1]))], rule)
    arrays = [np.array([list(one.values()) for one in some]) for some in (new, healthy)]
    assert [image.file for image in found.images] == ["a", "b", "c"]
    assert list(values(found).values()) == combined_p_values(arrays[0], arrays[1], rule).tolist()
    assert (found.healthy_images, found.healthy_patients, found.smallest_p_value) == (20, 20, 1 / 21)
    assert all(image.own == (0.5, 0.5) and image.error == "" for image in found.images)


def test_only_healthy_images_that_all_share_count():
    healthy = [drawn(3), drawn(4), drawn(5)]
    new = [drawn(seed, "ab") for seed in (6, 7, 8)]
    shared = HEALTHY[4:15]
    alone = [result(name, new[i], {k: healthy[i][k] for k in shared}) for i, name in enumerate("xyz")]
    less = [dict(list(healthy[0].items())[4:]), healthy[1], dict(list(healthy[2].items())[:15])]
    found = combine([result(name, new[i], less[i]) for i, name in enumerate("xyz")], "fisher")
    assert found == combine(alone, "fisher")
    assert (found.healthy_images, found.healthy_patients) == (11, 11)


def test_a_model_twice_under_another_name_is_itself():
    """Whatever the rule: what is joined from two equal ranks is ordered as they are."""
    new, healthy = drawn(1, "abcdef"), drawn(2)
    both = [result("one", new, healthy), result("two", new, healthy)]
    expected = p_values(np.array(list(new.values())), np.array(list(healthy.values()))).tolist()
    for rule in COMBINATION_RULES:
        assert list(values(combine(both, rule)).values()) == pytest.approx(expected, rel=1e-12)


def test_patients_are_those_of_the_calibration_by_whatever_names():
    new, healthy = [drawn(1, "ab"), drawn(2, "ab")], [drawn(3), drawn(4)]
    whose = {image: f"p{i // 2}" for i, image in enumerate(HEALTHY)}
    other = {image: f"q{9 - i // 2}" for i, image in enumerate(HEALTHY)}
    same = combine([result(str(i), new[i], healthy[i], patients=whose) for i in (0, 1)], "harmonic")
    found = combine(
        [result(str(i), new[i], healthy[i], patients=names) for i, names in enumerate((whose, other))], "harmonic"
    )
    assert found == same and (found.healthy_images, found.healthy_patients) == (20, 10)
    arrays = [np.array([list(one.values()) for one in some]) for some in (new, healthy)]
    expected = combined_p_values(arrays[0], arrays[1], "harmonic", np.arange(20) // 2)
    assert list(values(found).values()) == expected.tolist()


def test_results_that_do_not_agree_on_patients():
    pairs = {image: f"p{i // 2}" for i, image in enumerate(HEALTHY)}
    crossed = {image: f"p{(i + 1) // 2 % 10}" for i, image in enumerate(HEALTHY)}
    one = result("one", drawn(1, "a"), drawn(2), patients=pairs)
    for patients in (None, crossed):
        other = result("two", drawn(1, "a"), drawn(2), patients=patients)
        for pair in ((one, other), (other, one)):
            with pytest.raises(
                InputError, match=rf"^{pair[1].path}: does not have the same .* as {pair[0].path}; .*--group"
            ):
                combine(pair, "harmonic")


def test_too_few_healthy_patients_in_common():
    few = [result("one", drawn(1, "a"), drawn(2, HEALTHY[:14])), result("two", drawn(1, "a"), drawn(3, HEALTHY[6:]))]
    with pytest.raises(InputError, match=r"^one, two: 8 healthy patients .* at least 9 .*--seed and --aside"):
        combine(few, "harmonic")
    none = [result("one", drawn(1, "a"), drawn(2, HEALTHY[:9])), result("two", drawn(1, "a"), drawn(3, HEALTHY[9:]))]
    with pytest.raises(InputError, match=r"^one, two: 0 healthy patients"):
        combine(none, "harmonic")
    pairs = {image: f"p{i // 3}" for i, image in enumerate(HEALTHY)}
    with pytest.raises(InputError, match=r"^one, two: 7 healthy patients"):
        combine([result(name, drawn(1, "a"), drawn(2), patients=pairs) for name in ("one", "two")], "harmonic")


def test_an_image_that_one_of_the_results_lacks_has_the_reason():
    """Those of the others are as they would be without it."""
    first = {"a": 1.0, "b": "", "c": 2.0, "d": 0.5, "e": ""}
    second = {"z": 3.0, "e": 4.0, "d": 1.5, "b": 2.5, "a": 0.0}
    one = result("one", first, drawn(2), errors={"b": "b: is empty; replace it"})
    two = result("two", second, drawn(3))
    found = combine([one, two], "fisher")
    reasons = {image.file: image.error for image in found.images}
    assert reasons == {
        "a": "",
        "b": "b: is empty; replace it",
        "c": "c: is not in two; score it there too",
        "d": "",
        "e": "one/s, line 6: e has no anomaly; score it again",
        "z": "z: is not in one; score it there too",
    }
    assert [image.file for image in found.images if np.isnan(image.p_value)] == ["b", "c", "e", "z"]
    assert [np.isnan(image.own).tolist() for image in found.images if image.file in "cz"] == [
        [False, True],
        [True, False],
    ]
    whole = combine(
        [result("one", {"a": 1, "d": 0.5}, drawn(2)), result("two", {"a": 0, "d": 1.5}, drawn(3))], "fisher"
    )
    assert {file: values(found)[file] for file in "ad"} == values(whole)


def test_no_image_in_common():
    with pytest.raises(InputError, match=r"^one, two: have no scored image in common; .*same paths"):
        combine([result("one", drawn(1, "a"), drawn(2)), result("two", drawn(1, "b"), drawn(2))], "harmonic")


def test_patients_of_new_images_are_those_that_any_of_the_results_names():
    new = drawn(1, "abc")
    one, two = result("one", new, drawn(2), named={"a": "x"}), result("two", new, drawn(3), named={"a": "x", "b": "y"})
    found = combine([one, two], "harmonic")
    assert [image.patient for image in found.images] == ["x", "y", ""]
    with pytest.raises(InputError, match=r"^a: is of patient 'x' in one, of 'z' in three; .*--group"):
        combine([one, two, result("three", new, drawn(4), named={"a": "z"})], "harmonic")


def test_one_model_in_one_setup_may_not_count_twice():
    same = [result(name, drawn(1, "a"), drawn(2), model="m") for name in ("one", "two")]
    with pytest.raises(InputError, match=r"^two: was scored by the same model in the same setup as one; "):
        combine(same, "harmonic")


def test_lines_that_cannot_be_used():
    one, new = result("one", drawn(1, "a"), drawn(2)), drawn(1, "a")
    with pytest.raises(InputError, match="two/c, line 5: has no anomaly"):
        combine([one, result("two", new, drawn(2) | {HEALTHY[3]: ""})], "harmonic")
    twice = result("two", new, drawn(2))
    for scores, calibration, said in (
        (table("two/s", [line.cells for line in twice.scores.lines] * 2), twice.calibration, "two/s, line 3: a is"),
        (twice.scores, table("two/c", [line.cells for line in twice.calibration.lines] * 2), "two/c, line 22: 0000"),
    ):
        with pytest.raises(InputError, match=f"^{said}.*listed a second time"):
            combine([one, ResultFolder(Path("two"), "two", "rule", scores, calibration)], "harmonic")


def test_an_alpha_that_so_few_patients_cannot_give():
    found = combine([result(name, drawn(1, "a"), drawn(2)) for name in ("one", "two")], "harmonic")
    found.require(0.05)
    found.require(1 / 21)
    with pytest.raises(InputError, match=r"^alpha 0\.04: 20 healthy patients .* below 0\.0476; .* at least 24, "):
        found.require(0.04)


def test_healthy_images_are_called_as_seldom_as_alpha_says():
    """Two models that mostly agree, patients with several images, and calibrations that overlap in part."""
    rng = np.random.default_rng(0)
    whose = {f"{i:032x}": f"{i // 3}" for i in range(90)}
    alarms = []
    for _ in range(150):
        common = np.repeat(rng.normal(size=30), 3)
        scores = rng.normal(size=(2, 90)) + common
        new = rng.normal(size=2) + rng.normal()
        keep = [list(whose)[:72], list(whose)[12:]]
        calibrations = [{image: scores[m, int(image, 16)] for image in keep[m]} for m in (0, 1)]
        found = combine([result(str(m), {"a": new[m]}, calibrations[m], patients=whose) for m in (0, 1)], "harmonic")
        alarms.append(found.images[0].p_value <= 0.1)
    assert found.healthy_patients == 20
    assert 0 < np.mean(alarms) <= 0.1 + 3 * np.sqrt(0.1 * 0.9 / 150)
