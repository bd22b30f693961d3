"""What is written by hand around the tables, where the code could make it untrue."""

import pytest

from benchmarks.methods import anoddpm, ddpm_ood, diffpath
from benchmarks.methods.simple import LARGEST_FOR_MEDIAN, LARGEST_FOR_PCA
from benchmarks.table import WORDS
from priorlens.klip_model import SIZES
from priorlens.planted import KINDS


@pytest.fixture(scope="module")
def sections():
    """By heading, each on one line."""
    parts = WORDS.read_text(encoding="utf-8").split("\n## ")
    return {part.partition("\n")[0]: " ".join(part.split()) for part in parts}


def test_the_page_says_what_its_figures_cannot_be_compared_with(sections):
    tables = sections["Tables"]
    assert "Pixel figures are of abnormal images only" in tables
    assert "ImageNet's mean and deviation" in tables and "0.5, which ours keep" in tables
    assert "`benchmarks/twins.py`" in tables
    assert "bfloat16" in tables and "bfloat16" in sections["How time and memory grow"]
    assert "Methods see images at sides that differ" in tables and "So these two studies favour ours." in tables
    assert "not corrected for bias" in tables and "The limit of minutes is for the peers that train" in tables
    assert "picked by no figure of test images" in sections["Ahead or behind"]


def test_what_it_says_of_methods_is_what_they_do(sections):
    assert (ddpm_ood.STRIDE, ddpm_ood.STARTS_EVERY, diffpath.HEALTHY, anoddpm.COARSEST) == (50, 100, 256, 64)
    assert diffpath._mixture(2, 0)[-1].covariance_type == "full"
    assert (SIZES.largest, LARGEST_FOR_PCA, LARGEST_FOR_MEDIAN) == (128, 128, 96)
    for words in (
        "its steps are 50 of 1000 apart and its starts 100",
        "at most 256 images",
        "period of 64 pixels",
        "take at most 128 pixels",
        "PCA reconstruction takes at most 128, the median filter 96",
    ):
        assert words in sections["Tables"]


def test_it_tells_all_kinds_of_planted_artefacts(sections):
    """One that is added has to be told there."""
    assert KINDS == ("bright", "dark", "texture", "displacement", "transplant", "streak", "rim")
    for words in ("too bright, too dark, smoothed, displaced or transplanted", "streaks and stars of rays, rings"):
        assert words in sections["Tables"]
