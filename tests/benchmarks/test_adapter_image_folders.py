"""MVTec AD and BMAD on made-up trees: every layout that BMAD comes in, names, patients, and folders that are none."""

import numpy as np
import pytest
from PIL import Image

from benchmarks.adapters import LAYOUTS
from priorlens.datasets import healthy_cases, labelled_cases
from priorlens.errors import InputError
from priorlens.images import read_image, read_mask


def put(folder, *names, mask=False):
    """Made-up pictures of 16x16, every one another; or masks of some pixels."""
    for name in names:
        rng = np.random.default_rng(len(str(folder)) + sum(name.encode()))
        pixels = rng.integers(0, 255, (16, 16)).astype(np.uint8)
        if mask:
            pixels = np.zeros((16, 16), np.uint8)
            pixels[3:6, 3:6] = 255
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name)


@pytest.fixture
def bottle(tmp_path):
    folder = tmp_path / "bottle"
    put(folder / "train/good", *(f"{i:03d}.png" for i in range(9)))
    for kind in ("good", "broken_large", "contamination"):
        put(folder / "test" / kind, "000.png", "001.png")
    for kind in ("broken_large", "contamination"):
        put(folder / "ground_truth" / kind, "000_mask.png", "001_mask.png", mask=True)
    return folder


def test_mvtec_keeps_kinds_and_masks_and_takes_no_two_objects_for_one(tmp_path, bottle):
    study = LAYOUTS["mvtec"](bottle, tmp_path / "out")
    cases = labelled_cases(study.folds[0].folder, group=study.group)
    assert {case.kind for case in cases} == {"good", "broken_large", "contamination"} and len(cases) == 6
    assert all((case.mask is None) == (case.kind == "good") for case in cases)
    assert len({case.group for case in cases}) == 6
    assert len(healthy_cases(study.folds[0].folder)) == 9 and study.name == "mvtec_bottle" and not study.planted


def test_a_changed_image_makes_mvtec_anew(tmp_path, bottle):
    LAYOUTS["mvtec"](bottle, tmp_path / "out")
    put(bottle / "train/good", "extra.png")
    study = LAYOUTS["mvtec"](bottle, tmp_path / "out")
    assert len(healthy_cases(study.folds[0].folder)) == 10


def bmad_tree(folder, layout, names=None):
    """Of BMAD: `brain`, `liver` or `retina` with masks, in their three ways to nest folders, or `plain` without."""
    train = [f"{p:05d}_{s}.png" for p in (3, 4) for s in range(60, 66)]
    test = names or [f"{p:05d}_{s}.png" for p in (10, 11) for s in (60, 61)]
    splits = {"retina": ("Train", "Test", "ungood")}.get(layout, ("train", "test", "Ungood"))
    learn, judge, ill = splits
    inner = "img" if layout == "brain" else ""
    put(folder / learn / "good" / inner, *train)
    if layout == "brain":
        places = {"good": (judge, "good", "img"), "ill": (judge, ill, "img"), "mask": (judge, ill, "label")}
    elif layout == "plain":
        places = {"good": (judge, "good"), "ill": (judge, ill)}
    else:
        places = {"good": (judge, "img", "good"), "ill": (judge, "img", ill), "mask": (judge, "label", ill)}
    put(folder.joinpath(*places["good"]), *test)
    put(folder.joinpath(*places["ill"]), *test)
    if "mask" in places:
        put(folder.joinpath(*places["mask"]), *test, mask=True)
    put(folder / "valid" / "good", "00099_1.png")
    return folder


@pytest.mark.parametrize("layout", ["brain", "liver", "retina", "plain"])
def test_every_layout_of_bmad(tmp_path, layout):
    bmad_tree(tmp_path / "Some_AD" / "deeper", layout)
    study = LAYOUTS["bmad"](tmp_path / "Some_AD", tmp_path / "out")
    folder = study.folds[0].folder
    cases = labelled_cases(folder, group=study.group)
    assert [case.kind for case in cases].count("abnormal") == 4 == [case.kind for case in cases].count("good")
    assert {case.group for case in cases} == {"00010", "00011"}
    assert {case.group for case in healthy_cases(folder, group=study.group)} == {"00003", "00004"}
    for case in cases:
        image = read_image(case.path)
        assert (case.mask is not None) == (case.kind == "abnormal" and layout != "plain")
        assert case.mask is None or read_mask(case.mask, image.pixels.shape[1:]).sum() == 9
    assert ("without masks" in study.about) == (layout == "plain")


def test_bmad_learns_from_nobody_who_is_judged(tmp_path):
    bmad_tree(tmp_path / "Brain_AD", "brain", ["00003_70.png", "00011_60.png"])
    study = LAYOUTS["bmad"](tmp_path / "Brain_AD", tmp_path / "out")
    learned = list((study.folds[0].folder / "train/good").iterdir())
    assert {path.name[:5] for path in learned} == {"00004"} and "6 training images" in study.about


def test_bmad_whose_patients_are_all_judged_is_refused(tmp_path):
    bmad_tree(tmp_path / "Brain_AD", "brain", ["00003_70.png", "00004_60.png"])
    with pytest.raises(InputError, match="nothing is left to learn from"):
        LAYOUTS["bmad"](tmp_path / "Brain_AD", tmp_path / "out")


def test_names_that_tell_no_patient_make_every_image_its_own(tmp_path):
    folder = tmp_path / "histo"
    put(folder / "train/good", *(f"{i}.png" for i in range(9)))
    put(folder / "test/good", "1.png", "2.png")
    put(folder / "test/Ungood", "1.png", "2.png")
    study = LAYOUTS["bmad"](folder, tmp_path / "out")
    cases = labelled_cases(study.folds[0].folder, group=study.group)
    assert study.group is None and len({case.group for case in cases}) == 4 and "patients not told" in study.about


def test_only_windowed_ct_keeps_one_scale(tmp_path):
    for name, intensity in (("Liver_AD", "range"), ("oliver", "percentile"), ("Brain_AD", "percentile")):
        bmad_tree(tmp_path / "x" / name, "brain")
        assert LAYOUTS["bmad"](tmp_path / "x" / name, tmp_path / "out").intensity == intensity


@pytest.mark.parametrize("named", ["Liver_AD", "."])
def test_bmad_is_the_same_study_whichever_folder_above_it_is_named(tmp_path, named):
    bmad_tree(tmp_path / "x/Liver_AD", "liver")
    study = LAYOUTS["bmad"](tmp_path / "x" / named, tmp_path / "out")
    assert (study.name, study.intensity) == ("bmad_liver_ad", "range") and study.about.startswith("Liver_AD of BMAD")
    assert LAYOUTS["bmad"](tmp_path / "x/Liver_AD", tmp_path / "out") == study


def test_of_several_data_sets_of_bmad_one_is_to_be_named(tmp_path):
    bmad_tree(tmp_path / "x/Liver_AD", "liver")
    bmad_tree(tmp_path / "x/Brain_AD/deeper", "brain")
    with pytest.raises(InputError, match=r"x: holds several data sets of BMAD \(Liver_AD, Brain_AD/deeper\); name one"):
        LAYOUTS["bmad"](tmp_path / "x", tmp_path / "out")


@pytest.mark.parametrize("masks", ["label", "anomaly_mask", "Mask", "masks", "ground_truth"])
@pytest.mark.parametrize("layout", ["brain", "liver", "plain"])
def test_bmad_has_masks_by_their_usual_names(tmp_path, layout, masks, capsys):
    folder = bmad_tree(tmp_path / "Some_AD", layout)
    label = folder / {"brain": "test/Ungood/label", "liver": "test/label"}.get(layout, "test/Ungood/label")
    if layout == "plain":
        put(label, *(f"{p:05d}_{s}_mask.png" for p in (10, 11) for s in (60, 61)), mask=True)
    label.rename(label.with_name(masks))
    study = LAYOUTS["bmad"](folder, tmp_path / "out")
    cases = [case for case in labelled_cases(study.folds[0].folder, group=study.group) if case.kind == "abnormal"]
    assert len(cases) == 4 and all(case.mask for case in cases)
    assert "without masks" not in study.about and not capsys.readouterr().err


@pytest.mark.parametrize("layout", ["brain", "liver"])
def test_folders_that_may_be_masks_of_bmad_are_told(tmp_path, layout, capsys):
    folder = bmad_tree(tmp_path / "Some_AD", layout)
    label = folder / {"brain": "test/Ungood/label", "liver": "test/label"}[layout]
    label.rename(label.with_name("Outlines"))
    assert "without masks" in LAYOUTS["bmad"](folder, tmp_path / "out").about
    told = capsys.readouterr().err
    assert told.endswith(f": {label.with_name('Outlines')}\n") and "masks are looked for in label, " in told


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_a_folder_in_another_layout_is_refused_in_one_line(tmp_path, layout):
    for folder, words in ((tmp_path / "nowhere", "there is no such folder"), (tmp_path, "holds n")):
        with pytest.raises(InputError, match=words) as caught:
            LAYOUTS[layout](folder, tmp_path / "out")
        assert str(folder) in str(caught.value) and "\n" not in str(caught.value)
    assert not list((tmp_path / "out").rglob("*"))
