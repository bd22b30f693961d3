"""Conformal p-values: how unusual an image's score is among those of healthy images that no model was fitted to.

They are exact for any scores and any number of healthy images, as long as the new patient is exchangeable with those
of the calibration: of healthy patients at most a share alpha has p <= alpha. What is exchanged is a patient, not an
image: images of one patient are alike, and count together as much as any other patient's.
"""

from __future__ import annotations

import bisect
import math
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

from priorlens.errors import InputError

CombinationRule = Literal["fisher", "harmonic", "cauchy", "smallest"]
COMBINATION_RULES: tuple[CombinationRule, ...] = get_args(CombinationRule)

FEWEST_PATIENTS = 9
"""To calibrate with: of fewer, the smallest p-value lies above 10 %, and that is no verdict worth the name."""

_VALUES_AT_ONCE = 4_000_000
_ROUNDING = 1e-12


def p_values(
    scores: Float[np.ndarray, " new"],
    calibration: Float[np.ndarray, " healthy"],
    patients: Int[np.ndarray, " healthy"] | None = None,
) -> Float64[np.ndarray, " new"]:
    """For each new image by itself, how probable a score at least as high is in a healthy image; in (0, 1].

    (1 + sum over the K calibration patients of the share of their images with a score at least as high) / (K + 1):
    ties count against the new image, which is a patient of its own. Higher scores are more abnormal. `patients` tells
    whose each calibration score is; without it, each is a patient's only image. Raises InputError without calibration
    or where a score is NaN. Source: split-conformal p-values (Vovk, Gammerman & Shafer 2005), as used for outliers
    (Bates et al. 2023, "Testing for outliers with conformal p-values"), for patients with several images (Lee, Barber
    & Willett 2023, "Distribution-free inference with hierarchical data").
    """
    _check(scores, calibration)
    sizes = _images_of_patient(calibration, patients)
    return (1 + _patients_at_or_above(scores, calibration, sizes)) / (1 + _count(sizes))


def smallest_p_value(patients: int) -> float:
    """The p-value of an image above all of so many calibration patients: no alpha below it can ever be reached."""
    if patients < 1:
        raise InputError(
            f"{patients} healthy patients: a p-value needs one at least to compare with; add healthy images"
        )
    return 1 / (patients + 1)


def require_alpha(alpha: float, patients: int) -> None:
    """Raises InputError where so few calibration patients cannot give a p-value as low as alpha."""
    if smallest_p_value(patients) > alpha:
        raise InputError(
            f"alpha {alpha:g}: {patients} healthy patients give no p-value below {smallest_p_value(patients):.3g}; "
            f"calibrate with at least {math.ceil(1 / alpha - 1e-9) - 1}, or choose a larger alpha"
        )


def verdict_of(p_value: float, alpha: float) -> Literal["abnormal", "usual"]:
    """In words: "abnormal" where the p-value is at most alpha."""
    return "abnormal" if p_value <= alpha else "usual"


def online_p_values(
    stream: Float[np.ndarray, " time"], calibration: Float[np.ndarray, " healthy"], generator: np.random.Generator
) -> Float64[np.ndarray, " time"]:
    """Each scan's rank among the calibration, the scans before it and itself; in (0, 1], low where the score is high.

    (number greater + U x number equal, itself included) / number of all, with U drawn uniformly for each scan: as long
    as all are exchangeable the p-values are independent and uniform, so that no bet on them wins in the long run.
    Each score is a patient's only one. Raises InputError without calibration or where a score is NaN. Source: smoothed
    conformal transducers (Vovk, Nouretdinov & Gammerman 2003, "Testing exchangeability on-line").
    """
    _check(stream, calibration)
    known = sorted(calibration.tolist())
    found = []
    for score, share in zip(stream.tolist(), 1 - generator.random(stream.size), strict=True):
        bisect.insort(known, score)
        above = bisect.bisect_right(known, score)
        equal = above - bisect.bisect_left(known, score)
        found.append((len(known) - above + share * equal) / len(known))
    return np.array(found, np.float64)


def combined_p_values(
    scores: Float[np.ndarray, "detector new"],
    calibration: Float[np.ndarray, "detector healthy"],
    rule: CombinationRule = "harmonic",
    patients: Int[np.ndarray, " healthy"] | None = None,
) -> Float64[np.ndarray, " new"]:
    """One p-value for each new image by itself from several detectors, whatever their dependence; in (0, 1].

    The calibration images and the new one are ranked together by each detector, the ranks of each image are joined by
    `rule`, and the new image's joined rank is itself ranked among all of them: what is joined needs no law of its own.
    With one image a patient this is exact because all images are treated alike. With several, the new patient's other
    images are not known: they are taken to equal the one seen, which is the worst that they can be because all rules
    join convex functions of p. Each detector counts alike, higher scores are more abnormal, and a single detector gives
    `p_values`. Raises InputError as that does.

    fisher: product of p (Fisher 1925): best where all detectors see the anomaly, poor where one does.
    harmonic: harmonic mean of p (Wilson 2019): nearly the best either way.
    cauchy: sum of half-Cauchy quantiles (Liu, Meng & Pillai 2025, "A heavily right strategy"); with Cauchy's own (Liu &
        Xie 2020), which are not convex, it would not be exact with several images a patient.
    smallest: smallest p (Tippett 1931): best where one of several much alike detectors sees the anomaly.
    """
    _check(scores, calibration)
    sizes = _images_of_patient(calibration[0], patients)
    count = _count(sizes)
    above = np.stack([_patients_at_or_above(healthy, healthy, sizes) for healthy in calibration])
    above_new = np.stack([_patients_at_or_above(*pair, sizes) for pair in zip(scores, calibration, strict=True)])
    own = _joined(_evidence((above_new + 1) / (count + 1), rule), rule)
    least = own - _ROUNDING * (1 + np.abs(own))
    # A calibration image's evidence where the new image is below it, and where it reaches it.
    apart, passed = _evidence(above / (count + 1), rule), _evidence((above + 1) / (count + 1), rule)
    found = np.empty(scores.shape[1])
    step = max(1, _VALUES_AT_ONCE // calibration.size)
    for start in range(0, found.size, step):
        some = slice(start, start + step)
        reached = calibration[:, None] <= scores[:, some, None]
        joined = _joined(np.where(reached, passed[:, None], apart[:, None]), rule)
        found[some] = (1 + _patients_of(joined >= least[some, None], sizes)) / (count + 1)
    return found


def _evidence(p: Float64[np.ndarray, "detector some"], rule: CombinationRule) -> Float64[np.ndarray, "detector some"]:
    """What each p-value tells: falls with p, and is convex. The largest 1 / p is the limit of sums of its powers."""
    if rule == "fisher":
        return -np.log(p)
    if rule == "cauchy":
        return 1 / np.tan(np.pi / 2 * p)
    return 1 / p


def _joined(evidence: Float64[np.ndarray, "detector *some"], rule: CombinationRule) -> Float64[np.ndarray, "*some"]:
    return evidence.max(0) if rule == "smallest" else evidence.sum(0)


def _patients_of(
    chosen: Bool[np.ndarray, "new healthy"], sizes: Int[np.ndarray, " healthy"]
) -> Float64[np.ndarray, " new"]:
    """How many patients the chosen images are, of each patient the share of its images."""
    return sum((chosen[:, sizes == size].sum(1) / size for size in np.unique(sizes)), np.zeros(len(chosen)))


def _patients_at_or_above(
    scores: Float[np.ndarray, " new"],
    calibration: Float[np.ndarray, " healthy"],
    sizes: Int[np.ndarray, " healthy"],
) -> Float64[np.ndarray, " new"]:
    """How many calibration patients are at or above each score; of one with some images above, their share counts.

    Counted in whole images for all patients with as many, so that shares that add up to a whole do so without rounding.
    """
    total = np.zeros(scores.shape)
    for size in np.unique(sizes):
        of_size = np.sort(calibration[sizes == size])
        total += (of_size.size - np.searchsorted(of_size, scores, side="left")) / size
    return total


def _images_of_patient(
    calibration: Float[np.ndarray, " healthy"], patients: Int[np.ndarray, " healthy"] | None
) -> Int[np.ndarray, " healthy"]:
    """For each image, how many images its patient has."""
    if patients is None:
        return np.ones(calibration.shape, np.int64)
    _, patient_of, images = np.unique(patients, return_inverse=True, return_counts=True)
    return images[patient_of]


def _count(sizes: Int[np.ndarray, " healthy"]) -> int:
    """The number of patients."""
    return round(float((1 / sizes).sum()))


def _check(scores: Float[np.ndarray, "*new"], calibration: Float[np.ndarray, "*healthy"]) -> None:
    if not calibration.size:
        raise InputError("calibration: holds no healthy image; add healthy images that no model was fitted to")
    for name, values in (("scores", scores), ("calibration", calibration)):
        if unknown := int(np.isnan(values).sum()):
            raise InputError(f"{name}: {unknown} of {values.size} are not a number; leave those images out")
