"""Studies for anyone: what is in them, that they are made once, and what is said where their data are missing."""

import gzip

import numpy as np
import pytest

from benchmarks.adapters import embedded
from benchmarks.adapters.embedded import digits, fashion_mnist, mni152
from priorlens.datasets import healthy_cases, labelled_cases
from priorlens.errors import InputError
from priorlens.images import read_image, read_mask


def counts(study):
    """Images to learn from, and to judge by kind."""
    (fold,) = study.folds
    kinds = [case.kind for case in labelled_cases(fold.folder, group=study.group)]
    return len(healthy_cases(fold.folder, group=study.group)), {kind: kinds.count(kind) for kind in sorted(set(kinds))}


def packed(path, array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes(), 1))


@pytest.fixture
def fashion(tmp_path):
    """Thirty images of every class in each split; all pixels of an image but one are its number."""
    folder = tmp_path / "fashion"
    folder.mkdir()
    for split, offset in (("train", 0), ("t10k", 100)):
        labels = np.tile(np.arange(10), 70)
        images = np.full((700, 28, 28), 0) + (np.arange(700) % 200)[:, None, None]
        images[:, 0, 0] = 255 - offset // 100
        packed(folder / f"{split}-images-idx3-ubyte.gz", images)
        packed(folder / f"{split}-labels-idx1-ubyte.gz", labels)
    return folder


def test_digits_are_zeros_against_the_others_and_no_image_is_in_both_parts(tmp_path):
    study = digits(tmp_path, quick=False)
    assert counts(study) == (120, {"good": 58, "other": 180}) and not study.planted and study.intensity == "range"
    folder = study.folds[0].folder
    assert {path.name[0] for path in folder.glob("*/good/*.png")} == {"0"}
    assert {path.name[0] for path in folder.glob("test/other/*.png")} == set("123456789")
    learned, judged = ({path.name for path in (folder / part / "good").iterdir()} for part in ("train", "test"))
    assert not learned & judged
    image = read_image(folder / "train" / "good" / min(learned))
    assert image.pixels.shape == (1, 8, 8) and image.pixels.max() <= 255


def test_the_small_study_lies_beside_the_whole_one_under_the_same_name(tmp_path):
    whole, small = digits(tmp_path, quick=False), digits(tmp_path, quick=True)
    assert whole.name == small.name == "digits" and whole.folds != small.folds
    assert counts(small)[1] == {"good": 20, "other": 27}
    assert digits(tmp_path, quick=False) == whole


def test_the_cohort_has_masks_and_is_called_planted(tmp_path):
    study = mni152(tmp_path, quick=True)
    assert study.planted and counts(study) == (60, {"good": 20, "lesion": 20})
    lesions = [case for case in labelled_cases(study.folds[0].folder) if case.kind == "lesion"]
    assert all(read_mask(case.mask, (64, 64)).any() for case in lesions)


def test_fashion_is_tops_against_the_others_each_of_its_own_split(tmp_path, fashion):
    study = fashion_mnist(tmp_path, True, fashion)
    assert counts(study) == (60, {"good": 20, "other": 27})
    folder = study.folds[0].folder
    assert read_image(folder / "train/good/top_train00010.png").pixels[0, 0, 0] == 255
    image = read_image(folder / "test/other/boot_00009.png").pixels
    assert image[0, 0, 0] == 254 and image[0, 1, 1] == 9
    assert not list((folder / "test/good").glob("*train*"))


def test_without_fashion_one_line_says_where_to_get_it(tmp_path, capsys):
    assert fashion_mnist(tmp_path, False, tmp_path / "nowhere") is None
    assert capsys.readouterr().err == embedded.GET_FASHION + "\n"
    assert not (tmp_path / "studies").exists()


@pytest.mark.parametrize(
    "content", [b"no gzip", gzip.compress(b"\0\0\x08\x03", mtime=0), gzip.compress(bytes(40), mtime=0)]
)
def test_damaged_fashion_is_refused_and_leaves_nothing(tmp_path, fashion, content):
    path = fashion / "train-images-idx3-ubyte.gz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"train-images-idx3-ubyte\.gz"):
        fashion_mnist(tmp_path / "out", True, fashion)
    assert not list((tmp_path / "out" / "studies").iterdir())
