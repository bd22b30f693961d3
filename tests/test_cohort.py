"""The demo cohort: its layout, its reproducibility, brains on air, and lesions where the masks say."""

import ast
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import label

from priorlens import cohort
from priorlens.cohort import healthy_slices, lesion_slices, write_cohort
from priorlens.errors import InputError, OutputError

SIZE = 64


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_healthy_slices_show_a_brain_on_air() -> None:
    for pixels in healthy_slices(6, SIZE, seed=1):
        assert pixels.shape == (SIZE, SIZE) and pixels.dtype == np.float32
        assert np.array_equal(pixels, np.clip(np.round(pixels), 0, 255))
        brain = pixels > 60
        assert 0.2 < brain.mean() < 0.7
        sizes = np.bincount(label(brain)[0].ravel())[1:]
        assert sizes.max() > 0.95 * sizes.sum()
        frame = np.ones_like(brain)
        frame[1:-1, 1:-1] = False
        assert pixels[frame].max() < 40
        assert 120 < np.percentile(pixels[brain], 90) < 230


def test_subjects_differ_and_depend_on_their_number_only() -> None:
    few, more = healthy_slices(2, SIZE, seed=3), healthy_slices(4, SIZE, seed=3)
    for one, other in zip(few, more, strict=False):
        assert np.array_equal(one, other)
    assert len({pixels.tobytes() for pixels in more}) == 4
    assert not np.array_equal(few[0], healthy_slices(1, SIZE, seed=4)[0])


def test_lesions_lie_in_the_brain_and_stand_out_from_the_same_healthy_subject() -> None:
    healthy = healthy_slices(14, SIZE, seed=2)
    for subject, lesion in enumerate(lesion_slices(12, SIZE, seed=2, first=2), start=2):
        assert lesion.mask.shape == lesion.pixels.shape == (SIZE, SIZE)
        assert 3 <= lesion.mask.sum() < 0.1 * SIZE**2
        assert (healthy[subject][lesion.mask] > 30).mean() > 0.8
        assert np.array_equal(lesion.pixels, np.clip(np.round(lesion.pixels), 0, 255))


def test_a_lesion_changes_the_signal_inside_its_extent_and_mass_effect_fades_around_it() -> None:
    rng = np.random.default_rng(0)
    tissue = cohort._sample_tissue(2 * SIZE, rng)
    signal = cohort._signal(tissue, rng)
    changed, extent = cohort._with_lesion(signal, tissue, rng)
    assert extent.min() >= 0.0 and extent.max() == 1.0
    inside, change = extent > 0.5, np.abs(changed - signal)
    rows, columns = np.indices(signal.shape)
    centre = np.argwhere(inside).mean(axis=0)
    far = np.hypot(rows - centre[0], columns - centre[1]) > 0.6 * SIZE
    assert change[inside].mean() > 0.05
    assert change[far].max() < 0.01


def test_the_layout_is_the_one_data_sets_have(tmp_path: Path) -> None:
    folder = write_cohort(tmp_path / "cohort", train=4, test_good=2, test_lesion=3, size=SIZE, seed=5)
    assert folder == tmp_path / "cohort"
    assert names(folder / "train/good") == [f"subject{i:04d}.png" for i in range(4)]
    assert names(folder / "test/good") == ["subject0004.png", "subject0005.png"]
    assert names(folder / "test/lesion") == names(folder / "ground_truth/lesion")
    assert names(folder / "test/lesion") == ["subject0006.png", "subject0007.png", "subject0008.png"]
    with Image.open(folder / "train/good/subject0001.png") as image:
        assert image.mode == "L"
        assert np.array_equal(np.asarray(image), healthy_slices(2, SIZE, seed=5)[1])
    truth = lesion_slices(1, SIZE, seed=5, first=6)[0]
    with Image.open(folder / "ground_truth/lesion/subject0006.png") as image:
        assert np.array_equal(np.asarray(image), 255 * truth.mask.astype(np.uint8))
    with Image.open(folder / "test/lesion/subject0006.png") as image:
        assert np.array_equal(np.asarray(image), truth.pixels)


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    sizes = {"train": 2, "test_good": 1, "test_lesion": 1, "size": 32}
    first, again = (contents(write_cohort(tmp_path / name, **sizes, seed=1)) for name in ("first", "again"))
    assert first == again
    assert first != contents(write_cohort(tmp_path / "other", **sizes, seed=2))


def test_a_used_folder_is_refused_or_freed_of_the_earlier_cohort(tmp_path: Path) -> None:
    write_cohort(tmp_path / "cohort", train=3, test_good=1, test_lesion=1, size=32)
    (tmp_path / "cohort/notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="not empty"):
        write_cohort(tmp_path / "cohort", train=1, test_good=1, test_lesion=1, size=32)
    write_cohort(tmp_path / "cohort", train=1, test_good=1, test_lesion=1, size=32, overwrite=True)
    assert len(contents(tmp_path / "cohort")) == 5
    assert (tmp_path / "cohort/notes.txt").read_text() == "mine"


@pytest.mark.parametrize("installed", [True, False])
def test_a_missing_template_names_the_remedy(installed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Package:
        submodule_search_locations = (str(tmp_path),)

    cohort._templates.cache_clear()
    monkeypatch.setattr(cohort.importlib.util, "find_spec", lambda name: Package if installed else None)
    with pytest.raises(InputError, match="pip install --upgrade nilearn"):
        write_cohort(tmp_path / "cohort", train=1, test_good=1, test_lesion=1)
    assert not (tmp_path / "cohort").exists()


def test_a_broken_template_names_file_and_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Package:
        submodule_search_locations = (str(tmp_path),)

    data = tmp_path / "datasets/data"
    data.mkdir(parents=True)
    for name in ("t1", "gm", "wm"):
        (data / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz").write_bytes(b"not a volume")
    cohort._templates.cache_clear()
    monkeypatch.setattr(cohort.importlib.util, "find_spec", lambda name: Package)
    with pytest.raises(InputError, match=r"mni_icbm152_t1.*--force-reinstall nilearn"):
        healthy_slices(1)


def test_lesions_share_no_code_with_planted_artefacts() -> None:
    """What a detector was chosen on must not be what the demo tests it on."""
    tree = ast.parse(Path(cohort.__file__).read_text(encoding="utf-8"))
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert "priorlens.planted" not in modules
