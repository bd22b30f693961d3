"""How KLIP's findings become one map and one figure, and how its rules learn from healthy images what they need.

A rule is learned for one measurement, from images that were set aside and from the same with artefacts planted in them:
which noise levels, width and size of block show the artefacts best. No image of disease is used.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from priorlens.combination import Readings, join, readings, with_context
from priorlens.errors import InputError
from priorlens.klip import Findings
from priorlens.posterior.divergence import block_sums
from priorlens.scores import HealthyStatistics
from priorlens.surprise import smooth
from priorlens.weighing import Weighing, best_share, best_told, fit_weighing, highest

KLIPRule = Literal["combined", "coherent", "squares", "standardised", "reference"]
KLIP_RULES: tuple[KLIPRule, ...] = get_args(KLIPRule)

LEARNED: tuple[KLIPRule, ...] = ("combined", "coherent", "squares")
"""Rules that learn from healthy images which were set aside; "standardised" goes by the variance head alone."""

BLOCKS = (4, 8, 16, 32)
"""How many blocks along a side of the image are tried."""

FLOOR = 1e-5
"""Of a drift's energy, relative to that of white data's error (`combination.readings`)."""


@dataclass(frozen=True)
class Window:
    """Where a rule looks: noise levels low <= sigma <= high, one width, and blocks of so many pixels a side."""

    low: float
    high: float
    width: float
    block: int


@dataclass(frozen=True)
class Learned:
    """What the rules know of one measurement, from healthy images alone.

    weighing: of all readings, for rule "combined". share: of an image, that rule "combined" reads its figure from.
    windows: of the rules "coherent" and "squares".
    planted_auroc: of each rule's figure, planted against untouched. It is what was chosen by, so no measure of quality.
    statistics: of each rule on the untouched images.
    """

    weighing: Weighing
    share: float
    windows: dict[str, Window]
    planted_auroc: dict[str, float]
    statistics: dict[str, HealthyStatistics]

    def tensors(self) -> dict[str, Tensor]:
        """What of it goes into a model's tensors."""
        return self.weighing.tensors()

    def config(self) -> dict[str, Any]:
        """The rest: plain data for JSON."""
        return {
            "share": self.share,
            "windows": {rule: asdict(window) for rule, window in self.windows.items()},
            "planted_auroc": self.planted_auroc,
            "statistics": {rule: asdict(found) for rule, found in self.statistics.items()},
        }

    @classmethod
    def restored(cls, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> Learned:
        """From `tensors` and `config`. Raises KeyError or TypeError where they do not fit."""
        return cls(
            Weighing(**tensors),
            float(config["share"]),
            {rule: Window(**window) for rule, window in config["windows"].items()},
            dict(config["planted_auroc"]),
            {rule: HealthyStatistics(**found) for rule, found in config["statistics"].items()},
        )

    def within(self, window: tuple[float, float] | None, block: int | None) -> Learned:
        """The same with noise levels or a side of block of the user's own, in place of those learned."""
        given = {"low": window and window[0], "high": window and window[1], "block": block}
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        return replace(self, windows={rule: replace(one, **changes) for rule, one in self.windows.items()})


def learned_facts(learned: Mapping[str, Learned]) -> dict[str, Any]:
    """What was learned of each measurement, for people to read: plain data for JSON."""
    return {
        "share": {text: one.share for text, one in learned.items()},
        "planted_auroc": {text: one.planted_auroc for text, one in learned.items()},
        "windows": {
            f"{text}, {rule}": asdict(own) for text, one in learned.items() for rule, own in one.windows.items()
        },
    }


@dataclass(frozen=True)
class Seen:
    """What the rules read of images: `readings` of their surprise, with its context, and bits of every noise level."""

    readings: Readings
    bits: Float[Tensor, "image sigma side side"]
    sigmas: tuple[float, ...]
    widths: tuple[float, ...]

    @classmethod
    def of(cls, found: Findings) -> Seen:
        """In main memory, where the rules learn."""
        divergence, side = found.divergence, found.divergence.energy.shape[-1]
        weights = divergence.weights.to(divergence.energy)[:, None, None]
        read = readings(
            {"image": found.surprise.cpu()}, side, sigmas=divergence.sigmas, widths=found.widths, floor=FLOOR
        )
        return cls(
            with_context(read, found.reconstruction.cpu()),
            (divergence.energy * weights / math.log(2)).cpu(),
            divergence.sigmas,
            found.widths,
        )

    @property
    def coherent(self) -> list[int]:
        """Which readings are coherent surprise: all widths of the first noise level, then of the next."""
        return [index for index, name in enumerate(self.readings.names) if " coherent " in name]

    @classmethod
    def joined(cls, parts: Sequence[Seen]) -> Seen:
        """Several batches as one."""
        bits = torch.cat([part.bits for part in parts])
        return cls(join([part.readings for part in parts]), bits, parts[0].sigmas, parts[0].widths)


@dataclass(frozen=True)
class KLIPVerdict:
    """A rule's figure and map, for each image; both higher where more abnormal."""

    anomaly: Float[Tensor, " image"]
    anomaly_map: Float[Tensor, "image side side"]


def judge(rule: KLIPRule, learned: Learned, seen: Seen) -> KLIPVerdict:
    """What a rule says, but for "reference", which has findings of its own (`priorlens.posterior.reference`).

    combined: log2 of the odds of planted against untouched, by all readings; its mean over the share that is highest.
    coherent: the drift averaged over draws and one width before squaring, as log2 of how many times what healthy images
        show; the mean over the largest block.
    standardised: the plain sum of squares relative to the variance that the head expects there, 1 where all is healthy;
        the largest block's mean. It needs findings whose drifts were divided by that variance.
    squares: bits of the plain sum of squares, as published; the sum over the largest block.
    """
    if rule == "combined":
        anomaly_map = learned.weighing.anomaly_map(seen.readings.maps)
        return KLIPVerdict(highest(anomaly_map, learned.share), anomaly_map)
    if rule == "standardised":
        chosen = [i for i, name in enumerate(seen.readings.names) if " standardised " in name]
        energy = seen.readings.maps[:, chosen].exp2().mean(1)
        block = learned.windows["squares"].block
        return KLIPVerdict(_largest_block(rule, block, energy), smooth(energy[:, None], block / 4)[:, 0])
    window = learned.windows[rule]
    pixels = _windowed(rule, window, seen, learned.weighing.usual)
    if rule == "squares":  # a block's bits at each pixel: what a single pixel has says little
        return KLIPVerdict(_largest_block(rule, window.block, pixels), smooth(pixels[:, None], window.block / 4)[:, 0])
    return KLIPVerdict(_largest_block(rule, window.block, pixels), pixels)


def learn(untouched: Seen, changed: Seen, masks: Bool[Tensor, "artefact side side"], seed: int) -> Learned:
    """From images that were set aside, and the same with artefacts at `masks`.

    The window of a rule, and the share of "combined", are those by whose figure planted images are best told apart from
    untouched ones.
    """
    usual = untouched.readings.means.mean(0)
    weighing = fit_weighing(usual, changed.readings.maps, masks, seed)
    maps = [weighing.anomaly_map(seen.readings.maps) for seen in (untouched, changed)]
    share, auroc = best_share(*maps)
    windows: dict[str, Window] = {}
    told = {"combined": auroc}
    for rule in ("coherent", "squares"):
        windows[rule], told[rule] = best_told(_of_windows(rule, (untouched, changed), usual))
    learned = Learned(weighing, share, windows, told, {})
    statistics: dict[str, HealthyStatistics] = {}
    for rule in LEARNED:
        verdict = judge(rule, learned, untouched)
        statistics[rule] = HealthyStatistics.of(verdict.anomaly.numpy(), verdict.anomaly_map.numpy())
    return replace(learned, statistics=statistics)


def _of_windows(
    rule: str, sets: Sequence[Seen], usual: Float[Tensor, " reading"]
) -> dict[Window, list[Float[Tensor, " image"]]]:
    """The figures of sets of images in every run of noise levels, width that the rule knows, and size of block.

    Blocks are summed before the levels are: both are sums, and there are far fewer blocks than pixels.
    """
    sigmas, side = sets[0].sigmas, sets[0].bits.shape[-1]
    found: dict[Window, list[Tensor]] = {}
    for block in sorted({max(1, side // count) for count in BLOCKS}):
        blocked = [_blocks_of(rule, seen, usual, block) for seen in sets]
        for first, last in itertools.combinations_with_replacement(range(len(sigmas)), 2):
            for index, width in enumerate(sets[0].widths if rule == "coherent" else (0.0,)):
                levels = [values[:, first : last + 1, index] for values in blocked]
                joined = [level.sum(1) if rule == "squares" else level.mean(1) for level in levels]
                found[Window(sigmas[first], sigmas[last], width, block)] = [one.amax(1) for one in joined]
    return found


def _blocks_of(
    rule: str, seen: Seen, usual: Float[Tensor, " reading"], block: int
) -> Float[Tensor, "image sigma width block"]:
    """What each block has at each noise level and width."""
    maps = seen.bits[:, :, None]
    if rule == "coherent":
        chosen = seen.coherent
        maps = (seen.readings.maps[:, chosen] - usual[chosen, None, None]).unflatten(1, (len(seen.sigmas), -1))
    return _of_blocks(rule, block, maps.flatten(0, 2)).flatten(1).unflatten(0, maps.shape[:3])


def _windowed(
    rule: str, window: Window, seen: Seen, usual: Float[Tensor, " reading"]
) -> Float[Tensor, "image side side"]:
    inside = levels_within((window.low, window.high), seen.sigmas)
    if rule == "squares":
        return seen.bits[:, inside].sum(1)
    sigmas = [sigma for sigma, counts in zip(seen.sigmas, inside, strict=True) if counts]
    names = [f"image coherent sigma={sigma:g} width={window.width:g}" for sigma in sigmas]
    chosen = [seen.readings.names.index(name) for name in names]
    return (seen.readings.maps[:, chosen] - usual[chosen, None, None]).mean(1)


def levels_within(window: tuple[float, float], sigmas: Sequence[float]) -> list[bool]:
    """Which noise levels lie in a window. Raises InputError where none does."""
    low, high = window
    inside = [low <= sigma <= high for sigma in sigmas]
    if not any(inside):
        levels = ", ".join(f"{sigma:g}" for sigma in sigmas)
        raise InputError(f"window {low:g} to {high:g}: holds none of the noise levels {levels}; widen it")
    return inside


def _largest_block(rule: str, block: int, pixels: Float[Tensor, "image side side"]) -> Float[Tensor, " image"]:
    return _of_blocks(rule, block, pixels).flatten(1).amax(1)


def _of_blocks(rule: str, block: int, pixels: Float[Tensor, "image side side"]) -> Float[Tensor, "image rows columns"]:
    """Of bits the sum over each block, else the mean; a block at the border has fewer pixels."""
    sums = block_sums(pixels, block)
    return sums if rule == "squares" else sums / block_sums(torch.ones_like(pixels[:1]), block)
