"""What each rule makes of the same surprise, on surprises simple enough to know the answer."""

import math
from dataclasses import replace

import pytest
import torch

from priorlens.combination import Combination, Readings, reading_names, readings, with_context
from priorlens.rules import RULES, HealthyScale, Verdict, from_surprise
from priorlens.surprise import SIGMAS, WIDTHS, Surprise
from priorlens.weighing import CONTEXT_NAMES, Weighing, highest

SCALES = {"s8": 8, "s16": 4}
SIDE, IMAGES = 16, 3
NAMES = (*reading_names(list(SCALES)), *CONTEXT_NAMES)
SURPRISE = len(NAMES) - len(CONTEXT_NAMES)
IMAGE = torch.rand(IMAGES, 1, 4 * SIDE, 4 * SIDE, generator=torch.Generator().manual_seed(0))
HEALTHY = {
    "s8": HealthyScale(bits_mean=1.0, bits_std=0.1, bits_map_mean=1.0, bits_map_std=0.5, residual_mean=1.0),
    "s16": HealthyScale(bits_mean=2.0, bits_std=0.2, bits_map_mean=2.0, bits_map_std=0.4, residual_mean=1.0),
}
FIGURES = torch.tensor(
    [
        [" coherent " in name and name.endswith("width=1") for name in NAMES],
        [" standardised " in name for name in NAMES],
    ]
).float()
COMBINATION = Combination(
    NAMES,
    usual=torch.zeros(len(NAMES)),
    spread=torch.ones(len(NAMES)),
    figures=FIGURES / FIGURES.sum(1, keepdim=True),
    weighing=Weighing(
        usual=torch.zeros(len(NAMES)),
        mean=torch.zeros(len(NAMES)),
        deviation=torch.ones(len(NAMES)),
        inner=0.5 * torch.cat([torch.linspace(-1, 1, SURPRISE), torch.zeros(len(CONTEXT_NAMES))])[None],
        inner_bias=torch.tensor([0.5]),
        outer=torch.ones(1, 1),
        outer_bias=torch.zeros(1),
    ),
    share=0.02,
)


USUAL = {"coherent": (1.0, 0.5), "local": (0.0, 4.0)}


def surprises(
    *, bits: dict[str, float] | None = None, standardised: float = 1.0, expected: float = 0.0, coherent: float = 1.0
) -> dict[str, Surprise]:
    found = {}
    for name, rows in SCALES.items():
        at = (IMAGES, len(SIGMAS), rows, rows)
        found[name] = Surprise(
            bits_map=torch.full((IMAGES, rows, rows), (bits or {"s8": 1.0, "s16": 2.0})[name]),
            energy=torch.ones(at),
            expected=torch.full(at, expected),
            standardised=torch.full(at, standardised),
            coherent=torch.full((*at[:2], len(WIDTHS), *at[2:]), coherent),
            nfe=1,
        )
    return found


def laid_out(found: dict[str, Surprise]) -> Readings:
    return with_context(readings(found, SIDE), IMAGE)


def judge(rule: str, found: dict[str, Surprise]) -> Verdict:
    return from_surprise(rule, COMBINATION, HEALTHY, found, laid_out(found), USUAL)


def everywhere(verdict: Verdict, anomaly: float, at: float) -> None:
    torch.testing.assert_close(verdict.anomaly, torch.full((IMAGES,), anomaly), rtol=0, atol=0.005)
    torch.testing.assert_close(verdict.anomaly_map, torch.full((IMAGES, SIDE, SIDE), at), rtol=0, atol=0.005)


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "published"])
def test_every_rule_judges_every_image_on_the_common_grid(rule):
    verdict = judge(rule, surprises())
    assert verdict.anomaly.shape == (IMAGES,)
    assert verdict.anomaly_map.shape == (IMAGES, SIDE, SIDE)


def test_combined_has_the_map_of_the_combination_and_the_figure_that_is_further_from_the_usual():
    """The whole image is two deviations above, 2 bits of 1 ± 0.5; the map's highest 2 %, as on all of it, less."""
    found = surprises(standardised=2.0, expected=0.3, coherent=4.0)
    laid = laid_out(found)
    verdict = judge("combined", found)
    torch.testing.assert_close(verdict.anomaly_map, COMBINATION.anomaly_map(laid))
    torch.testing.assert_close(judge("coherent", found).anomaly, COMBINATION.anomaly(laid))
    assert float(verdict.anomaly[0]) == pytest.approx((2.0 - 1) / 0.5, abs=0.01)
    assert float(judge("local", found).anomaly[0]) / 4 < 1.99


def test_combined_is_local_where_a_place_is_more_unusual_than_the_whole():
    usual = USUAL | {"local": (0.0, 0.01)}
    found = surprises(standardised=2.0, expected=0.3, coherent=4.0)
    laid = laid_out(found)
    verdict = from_surprise("combined", COMBINATION, HEALTHY, found, laid, usual)
    torch.testing.assert_close(verdict.anomaly, judge("local", found).anomaly / 0.01)


@pytest.mark.parametrize("rule", ["combined", "local"])
def test_a_map_of_others_takes_the_place_of_the_combination_s(rule):
    """As of images that the combination has learned from."""
    found, given = surprises(coherent=0.5), torch.arange(float(IMAGES * SIDE * SIDE)).reshape(IMAGES, SIDE, SIDE)
    verdict = from_surprise(rule, COMBINATION, HEALTHY, found, laid_out(found), USUAL, given)
    assert torch.equal(verdict.anomaly_map, given)
    peak = highest(given, 0.02)
    torch.testing.assert_close(verdict.anomaly, peak if rule == "local" else peak / 4)
    other = from_surprise("coherent", COMBINATION, HEALTHY, found, laid_out(found), USUAL, given)
    torch.testing.assert_close(other.anomaly_map, judge("coherent", found).anomaly_map)


def test_coherent_is_bits_above_what_is_usual():
    everywhere(judge("coherent", surprises(coherent=4.0)), anomaly=2.0, at=2.0)
    everywhere(judge("coherent", surprises(standardised=4.0, expected=3.0)), anomaly=0.0, at=0.0)


def test_standardised_is_a_code_length():
    """1/2 (log v + error^2 / v), in bits; the figure from error^2 / v alone."""
    verdict = judge("standardised", surprises(standardised=4.0, expected=0.6))
    everywhere(verdict, anomaly=2.0, at=0.5 * (0.6 + 4.0) / math.log(2))


def test_typicality_looks_to_both_sides():
    """Three deviations off at both scales, above or below: the same figure. The map's deviations are its own."""
    for sign in (-1, 1):
        bits = {"s8": 1.0 + sign * 0.3, "s16": 2.0 + sign * 0.6}
        everywhere(judge("typicality", surprises(bits=bits)), anomaly=3.0, at=(0.3 / 0.5 + 0.6 / 0.4) / 2)
    one_sided = surprises(bits={"s8": 1.3, "s16": 2.0})
    everywhere(judge("typicality", one_sided), anomaly=3 / math.sqrt(2), at=0.3)
    everywhere(judge("typicality", surprises()), anomaly=0.0, at=0.0)


def test_a_place_stays_where_it_is():
    """Surprise in one corner of both scales lies in that corner of every rule's map."""
    corner = surprises()
    for found in corner.values():
        rows = found.bits_map.shape[1]
        inside = (..., slice(rows // 2, None), slice(None, rows // 2))
        for values in (found.bits_map, found.standardised, found.coherent):
            values[inside] += 5
    weighing = replace(COMBINATION.weighing, inner=COMBINATION.weighing.inner.sign().square() * 0.1)
    increasing = replace(COMBINATION, weighing=weighing)
    for rule in ("combined", "coherent", "standardised", "typicality"):
        found = from_surprise(rule, increasing, HEALTHY, corner, laid_out(corner), USUAL).anomaly_map
        inside = found[:, 10:, :6]
        assert inside.min() > found[:, :6].max() and inside.min() > found[:, :, 10:].max(), rule
