"""Many files through a detector: order, failures as values, batches, and no figure that depends on its neighbours."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from priorlens import scoring
from priorlens.datasets import Case, find_cases
from priorlens.errors import InputError
from priorlens.images import Image
from priorlens.scores import Scores
from priorlens.scoring import Failed, Scored, score_cases


class MeanBrightness:
    """A detector that can be foreseen: the anomaly is the mean, the map the image itself; grey images only."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def score(self, images: Sequence[Image]) -> Scores:
        self.batches.append([image.path.name for image in images])
        for image in images:
            if len(image.pixels) != 1:
                raise InputError(f"{image.path}: is a colour image; convert it to grey")
        return Scores(
            anomaly=np.array([image.pixels.mean() for image in images], np.float32),
            anomaly_map=tuple(image.pixels[0] for image in images),
            nfe=3,
            figures={"darkest": np.array([image.pixels.min() for image in images], np.float32)},
            arrays={"negative": tuple(-image.pixels[0] for image in images)},
        )


def write_images(folder: Path, count: int) -> list[Case]:
    """Files of growing brightness and size."""
    folder.mkdir()
    for i in range(count):
        pixels = np.arange((8 + i) * 9, dtype=np.float32).reshape(8 + i, 9)
        np.save(folder / f"{i}.npy", pixels + 1000 * i)
    return find_cases([folder])


def test_every_case_has_one_result_in_its_order(tmp_path: Path) -> None:
    cases = write_images(tmp_path / "in", 40)
    results = list(score_cases(MeanBrightness(), cases))
    assert [result.case for result in results] == cases
    for i, result in enumerate(results):
        assert isinstance(result, Scored)
        pixels = np.load(cases[i].path)
        assert result.anomaly == pytest.approx(pixels.mean())
        assert np.array_equal(result.anomaly_map, pixels)
        assert result.figures == {"darkest": pixels.min()}
        assert np.array_equal(result.arrays["negative"], -pixels)
        assert result.nfe == 3 and result.seconds >= 0 and result.mask is None


def test_batches_are_bounded_by_number_and_by_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = write_images(tmp_path / "in", 40)
    detector = MeanBrightness()
    list(score_cases(detector, cases))
    assert [len(batch) for batch in detector.batches] == [16, 16, 8]
    monkeypatch.setattr(scoring, "BATCH_PIXELS", 200)
    detector = MeanBrightness()
    assert len(list(score_cases(detector, cases))) == 40
    assert max(len(batch) for batch in detector.batches) == 3 and detector.batches[-1] == ["39.npy"]


def test_what_cannot_be_used_fails_alone(tmp_path: Path) -> None:
    cases = write_images(tmp_path / "in", 20)
    cases[3].path.write_bytes(b"no array")
    np.save(cases[5].path, np.random.default_rng(0).random((3, 8, 8), np.float32))
    np.save(cases[19].path, np.ones((9, 9)))
    detector = MeanBrightness()
    results = list(score_cases(detector, cases))
    failed = {result.case.name: result.reason for result in results if isinstance(result, Failed)}
    assert [result.case for result in results] == cases
    assert sorted(failed, key=int) == ["3", "5", "19"]
    assert "damaged" in failed["3"] and "colour" in failed["5"] and "constant" in failed["19"]
    for name, reason in failed.items():
        assert f"{name}.npy: " in reason and "\n" not in reason
    assert len(detector.batches) < 15, "a batch is halved, not taken apart"


def test_a_mask_comes_along_and_one_that_does_not_fit_fails_its_image(tmp_path: Path) -> None:
    first, second = write_images(tmp_path / "in", 2)
    mask = np.zeros((8, 9), np.uint8)
    mask[2:4, 3] = 1
    np.save(tmp_path / "mask.npy", mask)
    cases = [Case(case.path, case.name, case.group, "lesion", tmp_path / "mask.npy") for case in (first, second)]
    fits, fails = score_cases(MeanBrightness(), cases)
    assert isinstance(fits, Scored) and fits.mask is not None and np.array_equal(fits.mask, mask > 0)
    assert isinstance(fails, Failed) and "mask.npy: the mask is 9x8 pixels but its image is 9x9" in fails.reason


def test_nothing_to_score() -> None:
    assert list(score_cases(MeanBrightness(), [])) == []


def test_the_next_batch_is_read_while_one_is_scored(tmp_path: Path) -> None:
    cases = write_images(tmp_path / "in", 32)
    second_is_read = threading.Event()

    def told() -> Iterator[Case]:
        for i, case in enumerate(cases):
            if i == 31:
                second_is_read.set()
            yield case

    results = score_cases(MeanBrightness(), told())
    assert isinstance(next(results), Scored)
    assert second_is_read.wait(5), "nothing was read although the first batch is still being looked at"
    assert len(list(results)) == 31


def test_an_error_that_is_not_the_images_is_raised(tmp_path: Path) -> None:
    class Broken:
        def score(self, images: Sequence[Image]) -> Scores:
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        list(score_cases(Broken(), write_images(tmp_path / "in", 3)))
