"""Whatever is wrong with scans: one line that names the file and the remedy, an exit code, and the others go on."""

from __future__ import annotations

import csv
import errno
import gzip
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import pytest
from command_line import SMALL_SCANS, Command, Ran
from pydicom.dataset import FileDataset

from priorlens import variations
from priorlens.scan_model import ScanModel
from volumes.made_dicom import SAGITTAL, made_slice, save
from volumes.made_scans import OBLIQUE, SPACING, head, lesion_mask, trunk, write_nifti, write_trunk

SHALLOW = (40, 48, 11)


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def reasons(out: Path) -> dict[str, list[str]]:
    """By file, or folder of a series, as `left_out.csv` and `scores.csv` have it; empty where all is well."""
    found: dict[str, list[str]] = {}
    for row in rows(out / "left_out.csv") if (out / "left_out.csv").exists() else ():
        found.setdefault(row["file"], []).append(row["reason"])
    for row in rows(out / "scores.csv"):
        found.setdefault(row["file"], []).extend([row["error"]] if row["error"] else [])
    return found


def nothing_is_half_written(folder: Path) -> None:
    assert not [path for path in folder.rglob("*") if path.name.endswith(".partial")]


@pytest.fixture(autouse=True)
def no_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of few patients' slices no varied copies are made, which would take a while to learn."""
    monkeypatch.setattr(variations, "copies", lambda images: 0)


@dataclass(frozen=True)
class Batch:
    """A folder that was scored in one go, and what came of it."""

    folder: Path
    out: Path
    ran: Ran

    def tells(self, path: Path, *parts: str) -> None:
        """One line on stderr and in a table names this file, what is wrong with it and the remedy."""
        (line,) = [line for line in self.ran.told if line.startswith(f"priorlens: {path}: ")]
        for part in (*parts, "; "):
            assert part in line, line
        assert reasons(self.out)[str(path)] == [line.removeprefix("priorlens: ")]


# --- NIfTI and NPZ files among good ones


def change_header(path: Path, voxels: np.ndarray, **fields: object) -> None:
    """A file whose header claims something else."""
    image = nibabel.Nifti1Image(voxels, OBLIQUE)
    content = bytearray(image.to_bytes())
    header = image.header.copy()
    for name, value in fields.items():
        header[name] = value
    content[:348] = header.binaryblock
    path.write_bytes(gzip.compress(content) if path.name.endswith(".gz") else bytes(content))


def cut(path: Path) -> None:
    write_nifti(path, head(1, SHALLOW))
    path.write_bytes(path.read_bytes()[:-2000])


def with_nan(path: Path) -> None:
    voxels = head(1, SHALLOW).astype(np.float32)
    voxels[20, 20, 5] = np.nan
    write_nifti(path, voxels)


def bomb(path: Path) -> None:
    """A small scan, and 64 MiB more of nothing."""
    content = nibabel.Nifti1Image(head(1, SHALLOW), OBLIQUE).to_bytes()
    path.write_bytes(gzip.compress(content + bytes(2**26), 1))


def pickled(path: Path) -> None:
    np.savez(path, voxels=np.array([{}, {}], dtype=object), affine=np.eye(4))


def pickled_affine(path: Path) -> None:
    np.savez(path, voxels=head(1, SHALLOW), affine=np.array([{}], dtype=object))


def moved() -> np.ndarray:
    affine = OBLIQUE.copy()
    affine[0, 3] += 3
    return affine


def sheared(path: Path) -> None:
    affine = OBLIQUE.copy()
    affine[:3, 2] += 0.2 * affine[:3, 1]
    image = nibabel.Nifti1Image(head(1, SHALLOW), affine)
    image.set_qform(None, code=0)
    nibabel.save(image, path)


BROKEN: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "zero_size.nii.gz": (
        lambda path: change_header(path, head(1, SHALLOW), dim=[3, 40, 0, 11, 1, 1, 1, 1]),
        ("has no voxels (shape 40x0x11)", "export it again"),
    ),
    "four_axes.nii.gz": (
        lambda path: write_nifti(path, np.stack([head(1, SHALLOW)] * 3, -1)),
        ("has 4 axes (time?)", "give one volume"),
    ),
    "flat.nii.gz": (lambda path: write_nifti(path, head(1, SHALLOW)[:, :, 5]), ("has 2 axes", "save it as a PNG")),
    "nan.nii.gz": (with_nan, ("has 1 voxels that are nan or infinite", "replace them")),
    "disagree.nii.gz": (
        lambda path: write_nifti(path, head(1, SHALLOW), qform=moved()),
        ("its sform and qform disagree by 3 mm", "fslorient"),
    ),
    "sheared.nii": (sheared, ("slanted by", "resample it upright")),
    "hounsfield.nii.gz": (
        lambda path: write_nifti(path, trunk(1, SHALLOW)),
        ("has Hounsfield units (CT), this model's scans have no Hounsfield units", "--modality"),
    ),
    "constant.nii.gz": (lambda path: write_nifti(path, np.full(SHALLOW, 7, np.int16)), ("is constant", "leave it out")),
    "colour.nii.gz": (
        lambda path: write_nifti(path, np.zeros(SHALLOW, [("R", "u1"), ("G", "u1"), ("B", "u1")])),
        ("holds RGB voxels", "save one grey channel"),
    ),
    "truncated.nii.gz": (cut, ("is truncated", "export it again")),
    "bomb.nii.gz": (bomb, ("holds far more than the", "export it again")),
    "claims.nii": (
        lambda path: change_header(path, head(1, SHALLOW), dim=[3, 30000, 30000, 30000, 1, 1, 1, 1]),
        ("has more than 512 million voxels", "crop it"),
    ),
    "short.nii": (
        lambda path: change_header(path, head(1, SHALLOW), dim=[3, 400, 400, 400, 1, 1, 1, 1]),
        ("is truncated", "export it again"),
    ),
    "words.nii": (lambda path: path.write_text("dear colleague"), ("is not a NIfTI file", "export it again")),
    "empty.nii.gz": (lambda path: path.touch(), ("is empty", "export it again")),
    "packed.nii": (
        lambda path: path.write_bytes(gzip.compress(nibabel.Nifti1Image(head(1, SHALLOW), OBLIQUE).to_bytes())),
        ("is compressed with gzip", "rename it to packed.nii.gz"),
    ),
    "dangling.nii.gz": (lambda path: path.symlink_to("nowhere"), ("there is no such file", "check the path")),
    "pickled.npz": (pickled, ("holds pickled Python objects, which are never loaded", "save plain numbers")),
    "pickled_affine.npz": (pickled_affine, ("holds pickled Python objects", "save plain numbers")),
    "tiny.nii.gz": (
        lambda path: write_nifti(path, head(1, SHALLOW)[18:22, 18:22, 3:7]),
        ("shows no slice with enough of a body", "give scans like those of the fit"),
    ),
}


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory, run: Command, mr_model: Path) -> Batch:
    """Every one of `BROKEN` between two good scans, one of them in a folder that is called x.nii."""
    folder = tmp_path_factory.mktemp("batch") / "scans"
    write_nifti(folder / "a_good.nii.gz", head(8, SHALLOW))
    write_nifti(folder / "x.nii/z_good.nii.gz", head(9, SHALLOW))
    (folder / "y.nii.gz").mkdir()
    for name, (write, _) in BROKEN.items():
        write(folder / name)
    out = folder.parent / "out"
    return Batch(folder, out, run("score", mr_model, folder, "--out", out, "--no-overlays"))


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_scan_is_named(batch: Batch, name: str) -> None:
    batch.tells(batch.folder / name, *BROKEN[name][1])


def test_the_others_are_scored(batch: Batch) -> None:
    assert batch.ran.code == 7 and "Traceback" not in batch.ran.stderr
    # One line of each that is broken, and one at the end of how many these are, or two: some are known to be none
    # before they are read.
    assert len(BROKEN) + 1 <= len(batch.ran.told) <= len(BROKEN) + 2, batch.ran.stderr
    good = {path: found for path, found in reasons(batch.out).items() if not found}
    assert list(good) == [f"{batch.folder}/a_good.nii.gz", f"{batch.folder}/x.nii/z_good.nii.gz"]
    maps = sorted(str(path.relative_to(batch.out)) for path in (batch.out / "maps").rglob("*.nii.gz"))
    assert maps == ["maps/a_good.nii.gz", "maps/x.nii/z_good.nii.gz"]
    nothing_is_half_written(batch.out)


def test_all_of_them_to_learn_from(tmp_path: Path, run: Command, batch: Batch) -> None:
    """Those of Hounsfield units, and those of a few voxels, are no fault by themselves."""
    folder = shutil.copytree(batch.folder, tmp_path / "scans", symlinks=True)
    for name in ("a_good.nii.gz", "hounsfield.nii.gz", "tiny.nii.gz"):
        (folder / name).unlink()
    shutil.rmtree(folder / "x.nii")
    ran = run("fit", folder, "--out", tmp_path / "model", *SMALL_SCANS)
    assert ran.code == 3 and "Traceback" not in ran.stderr, ran
    assert len(ran.told) == len(BROKEN) - 2 + 1, ran.stderr
    assert "scans can be used; repair them or name others" in ran.told[-1]
    assert not any((tmp_path / "model").glob("*")), "nothing stands in the way of another try"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_scan_that_may_not_be_read(tmp_path: Path, run: Command, mr_model: Path) -> None:
    folder, out = tmp_path / "scans", tmp_path / "out"
    write_nifti(folder / "a.nii.gz", head(8, SHALLOW))
    locked = write_nifti(folder / "b.nii.gz", head(9, SHALLOW))
    locked.chmod(0)
    batch = Batch(folder, out, run("score", mr_model, folder, "--out", out, "--no-overlays"))
    batch.tells(locked, "may not be read", "change its permissions")
    assert batch.ran.code == 7 and "1 of 2 scans scored" in batch.ran.stdout


# --- DICOM series among good ones


def series(folder: Path, change: Callable[[FileDataset, int], None] | None = None, **options: object) -> list[Path]:
    """Named by its folder, which its patient is called too."""
    options = {"shape": SHALLOW, "patient": folder.name, "description": folder.name, **options}
    return write_trunk(folder, 9, change=change, **options)


def change_slices(
    first: int, change: Callable[[FileDataset], None], last: int = 99
) -> Callable[[FileDataset, int], None]:
    def changed(dataset: FileDataset, k: int) -> None:
        if first <= k <= last:
            change(dataset)

    return changed


def move(millimetres: float) -> Callable[[FileDataset], None]:
    def moved(dataset: FileDataset) -> None:
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y, z + millimetres]

    return moved


def tilt(dataset: FileDataset, k: int) -> None:
    x, y, z = dataset.ImagePositionPatient
    dataset.ImagePositionPatient = [x, y + 0.8 * k, z]


def set_tags(**tags: object) -> Callable[[FileDataset], None]:
    def changed(dataset: FileDataset) -> None:
        for keyword, value in tags.items():
            setattr(dataset, keyword, value)

    return changed


def unknown_syntax(folder: Path) -> None:
    for path in series(folder):
        content = path.read_bytes()
        uid = b"1.2.840.10008.1.2.1\0"
        assert content.count(uid) == 1
        path.write_bytes(content.replace(uid, b"1.2.840.10008.1.2.77"))


def missing(folder: Path) -> None:
    series(folder)[5].unlink()


def twice(folder: Path) -> None:
    paths = series(folder)
    dataset = made_slice(
        np.full((48, 40), 7, np.int16), (-80, -90, 60), spacing=SPACING, patient=folder.name, number=77
    )
    save(dataset, paths[0].with_name("other.dcm"))


WHOLE: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "missing": (missing, ("1 is missing around 60.0 mm", "send the whole series again")),
    "twice": (twice, ("1 lie where another does", "with other pixels", "send one acquisition at a time")),
    "uneven": (
        lambda folder: series(folder, change_slices(4, move(0.9), 4)),
        ("its steps are uneven", "export it at one slice spacing"),
    ),
    "pixel_sizes": (
        lambda folder: series(folder, change_slices(6, set_tags(PixelSpacing=[3, 3]))),
        ("pixel", "; "),
    ),
    "tilted": (lambda folder: series(folder, tilt), ("gantry was tilted", "export it resampled upright")),
    "magnetic": (
        lambda folder: series(folder, modality="MR"),
        ("has no Hounsfield units (MRI?), this model's scans have Hounsfield units", "--modality"),
    ),
}
"""Series of which nothing is scored, by the name of their folder."""


@pytest.fixture(scope="module")
def dicom(tmp_path_factory: pytest.TempPathFactory, run: Command, ct_model: Path) -> Batch:
    folder = tmp_path_factory.mktemp("batch") / "archive"
    for name, (write, _) in WHOLE.items():
        write(folder / name)
    unknown_syntax(folder / "syntax")
    series(folder / "good")
    series(folder / "burnt", change_slices(0, set_tags(BurnedInAnnotation="YES"), 3))
    series(folder / "turned", change_slices(9, set_tags(ImageOrientationPatient=list(SAGITTAL))))
    cut = series(folder / "cut")[-1]
    cut.write_bytes(cut.read_bytes()[:-500])
    out = folder.parent / "out"
    return Batch(folder, out, run("score", ct_model, folder, "--out", out, "--no-overlays"))


@pytest.mark.parametrize("name", WHOLE)
def test_a_series_that_cannot_be_used_is_named_once(dicom: Batch, name: str) -> None:
    dicom.tells(dicom.folder / name, *WHOLE[name][1])


def test_a_transfer_syntax_that_nothing_decodes(dicom: Batch) -> None:
    (line,) = [line for line in dicom.ran.told if str(dicom.folder / "syntax") in line]
    assert line.startswith(f"priorlens: {dicom.folder}/syntax/0000.dcm: ") and "; " in line
    assert reasons(dicom.out)[str(dicom.folder / "syntax")] == [line.removeprefix("priorlens: ")]


def test_slices_that_cannot_be_used_leave_the_others(dicom: Batch) -> None:
    for k in (9, 10):
        dicom.tells(dicom.folder / f"turned/{k:04}.dcm", "lies across the others of its series", "leave it out")
    dicom.tells(dicom.folder / "cut/0010.dcm", "is truncated", "send it again")
    assert nibabel.load(dicom.out / "maps/turned.nii.gz").shape == (40, 48, 9)
    assert nibabel.load(dicom.out / "maps/cut.nii.gz").shape == (40, 48, 10)


def test_burnt_in_text_is_a_warning_only(dicom: Batch) -> None:
    (line,) = [line for line in dicom.ran.told if str(dicom.folder / "burnt") in line]
    assert "4 slices say that text is burnt into them; look at what is flagged there" in line
    assert reasons(dicom.out)[str(dicom.folder / "burnt")] == []


def test_the_other_series_are_scored(dicom: Batch) -> None:
    assert dicom.ran.code == 7 and "Traceback" not in dicom.ran.stderr
    good = {Path(path).name for path, found in reasons(dicom.out).items() if not found}
    assert good == {"good", "burnt", "turned", "cut"}
    assert {path.parent.name for path in (dicom.out / "dicom").rglob("map.dcm")} == good
    nothing_is_half_written(dicom.out)


# --- a whole archive in one folder


BROKEN_SLICES: tuple[Callable[[Path, FileDataset], object], ...] = (
    lambda path, dataset: path.touch(),
    lambda path, dataset: path.write_bytes(np.random.default_rng(0).bytes(3000)),
    lambda path, dataset: path.write_text("dear colleague"),
    lambda path, dataset: path.write_bytes(save(dataset, path).read_bytes()[:300]),
    lambda path, dataset: path.write_bytes(save(dataset, path).read_bytes()[:-700]),
    lambda path, dataset: (delattr(dataset, "ImagePositionPatient"), save(dataset, path)),
    lambda path, dataset: (delattr(dataset, "PixelSpacing"), save(dataset, path)),
    lambda path, dataset: (delattr(dataset, "PixelData"), save(dataset, path)),
    lambda path, dataset: (set_tags(ImageOrientationPatient=[0] * 6)(dataset), save(dataset, path)),
    lambda path, dataset: (set_tags(PixelSpacing=[0, 4])(dataset), save(dataset, path)),
)
"""Ten ways in which a slice can be broken, each of which leaves a file."""


def archive(folder: Path) -> dict[str, str]:
    """1000 files in one folder: two series by turns, and what is left out of them, with a part of the reason."""
    spacing, count = (4.0, 4.0, 1.0), 492
    for letter, seed in (("a", 1), ("b", 2)):
        voxels = np.full((32, 32, count), -1000, np.int16)
        voxels[:, :, 230:250] = trunk(seed, (32, 32, 40))[:, :, 10:30]  # the patient is in a few of them
        for k in range(count):
            pixels = np.ascontiguousarray(voxels[:, :, k].T + np.int16(1024))
            options = {
                "patient": "eve",
                "spacing": spacing,
                "series": letter,
                "description": f"kernel {letter}",
                "number": k + 1,
            }
            save(made_slice(pixels, (-60, -60, float(k)), **options), folder / f"{k:04}{letter}.dcm")
    left_out = {}
    for number, breaking in enumerate(BROKEN_SLICES):
        dataset = made_slice(np.zeros((32, 32), np.int16), (-60, -60, 600 + number), series="a", number=600 + number)
        breaking(folder / f"x{number}.dcm", dataset)
        left_out[f"x{number}.dcm"] = "; "
    for number in range(5):
        options = {"orientation": SAGITTAL, "series": "a", "number": 700 + number}
        dataset = made_slice(np.zeros((32, 32), np.int16), (0, 0, 30 * number), **options)
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        save(dataset, folder / f"localizer{number}.dcm")
        left_out[f"localizer{number}.dcm"] = "is a localizer"
    shutil.copy(folder / "0240a.dcm", folder / "copy.dcm")
    return left_out | {"copy.dcm": f"is a copy of {folder}/0240a.dcm; nothing is lost"}


def test_a_thousand_files_in_one_folder(tmp_path: Path, run: Command, ct_model: Path) -> None:
    folder, out = tmp_path / "archive", tmp_path / "out"
    expected = archive(folder)
    assert len(os.listdir(folder)) == 1000
    ran = run("score", ct_model, folder, "--out", out, "--no-overlays", "--no-dicom")
    assert ran.code == 7 and "2 of 2 scans scored" in ran.stdout, ran
    left_out = {Path(row["file"]).name: row for row in rows(out / "left_out.csv")}
    assert left_out.keys() == expected.keys() and len(expected) == 16
    for name, part in expected.items():
        reason = left_out[name]["reason"]
        assert reason.startswith(f"{folder}/{name}: ") and "; " in reason and part in reason, reason
        assert f"priorlens: {reason}" in ran.told
    assert len(ran.told) == 17 and "16 files are left out, it says why" in ran.told[-1]
    found = rows(out / "scores.csv")
    assert [row["error"] for row in found] == ["", ""]
    for letter in "ab":
        image = nibabel.load(out / f"maps/archive/kernel {letter}.nii.gz")
        assert image.shape == (32, 32, 492)
        np.testing.assert_allclose(image.affine, [[-4, 0, 0, 60], [0, -4, 0, 60], [0, 0, 1, 0], [0, 0, 0, 1]])
        lines = [line for line in rows(out / "slices.csv") if line["name"] == f"archive/kernel {letter}"]
        seen = [int(line["slice"]) for line in lines]
        assert seen == list(range(seen[0], seen[-1] + 1)) and set(range(232, 248)) <= set(seen) <= set(range(230, 250))
        assert [float(line["height_mm"]) for line in lines] == seen, "each slice lies in its own place"
        assert np.flatnonzero(np.ptp(image.get_fdata(), axis=(0, 1)) > 0).tolist() == seen


def test_series_of_odd_descriptions_stay_in_the_folder_of_results(tmp_path: Path, run: Command, ct_model: Path) -> None:
    """Of several in one folder, whose descriptions become names of results."""
    for number, description in enumerate(("../../up", "..", "T1/T2")):
        options = {"description": description, "series": str(number), "name": f"{number}_{{:03}}.dcm".format}
        write_trunk(tmp_path / "study", 9, shape=(40, 48, 4), **options)
    ran = run("score", ct_model, tmp_path / "study", "--out", tmp_path / "results/out", "--no-overlays")
    assert ran.code == 0 and "3 of 3 scans scored" in ran.stdout, ran
    out = tmp_path / "results/out"
    assert os.listdir(tmp_path / "results") == ["out"]
    folders = {path.parent for path in out.rglob("map.dcm")}
    assert len(folders) == 3 and {path.parent for path in folders} == {out / "dicom/study"}
    assert len(list((out / "maps/study").glob("[!.]*.nii.gz"))) == 3


def test_names_that_are_no_text_and_look_like_markup(tmp_path: Path, run: Command, mr_model: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/[red] caf\xe9"))
    for name in ("good [bold].nii.gz", "two\nlines.nii.gz"):
        write_nifti(tmp_path / "plain.nii.gz", head(8, (40, 48, 5)))
        folder.mkdir(exist_ok=True)
        (tmp_path / "plain.nii.gz").rename(folder / name)
    (folder / "bad :bug:.nii").write_text("dear colleague")
    ran = run("score", mr_model, folder, "--out", tmp_path / "out")
    assert ran.code == 7 and "2 of 3 scans scored" in ran.stdout, ran
    assert "bad :bug:.nii: is not a NIfTI file" in ran.stderr and "[red]" in ran.stderr
    assert (tmp_path / "out/overlays/good [bold].png").is_file()
    assert b"caf\xe9" in (tmp_path / "out/scores.csv").read_bytes()


# --- the wrong kind of scan, of model, of option


def test_channels(tmp_path: Path, run: Command, mr_model: Path) -> None:
    folder, out = tmp_path / "brats", tmp_path / "out"
    for name, channels in (("ann", ("flair", "t1ce")), ("bob", ("t1ce",))):
        for turn, channel in enumerate(channels):
            write_nifti(folder / f"{name}/{name}_{channel}.nii.gz", head(turn, SHALLOW))
    ran = run("score", mr_model, folder, "--out", out)
    ran.refused(3, folder, "holds several channels (flair, t1ce)", "--channels flair")
    run("score", mr_model, folder, "--out", out, "--channels", "adc").refused(
        3, folder, "adc", "; there are flair, t1ce"
    )
    run("fit", folder, "--out", out, *SMALL_SCANS).refused(3, folder, "holds several channels", "--channels flair")
    assert not out.exists()
    batch = Batch(folder, out, run("score", mr_model, folder, "--out", out, "--channels", "flair", "--no-overlays"))
    assert batch.ran.code == 7 and "1 of 1 scans scored" in batch.ran.stdout
    batch.tells(folder / "bob/bob_t1ce.nii.gz", "has no flair, only t1ce", "add it or leave the patient out")
    out = tmp_path / "both"
    ran = run("score", mr_model, folder, "--out", out, "--channels", "flair,t1ce", "--no-overlays")
    assert ran.code == 7 and "0 of 1 scans scored" in ran.stdout
    Batch(folder, out, ran).tells(
        folder / "ann/ann_flair.nii.gz", "has 2 channels, this model takes 1 (unnamed)", "give the same"
    )


def test_channels_on_two_grids(tmp_path: Path, run: Command, mr_model: Path) -> None:
    first = write_nifti(tmp_path / "p/ann_flair.nii.gz", head(0, SHALLOW))
    other = write_nifti(tmp_path / "p/ann_t1.nii.gz", head(1, (40, 48, 12)))
    ran = run("score", mr_model, tmp_path / "p", "--out", tmp_path / "out", "--channels", "flair,t1")
    assert ran.code == 7 and "is not on the grid of" in ran.told[0] and str(other) in ran.told[0]
    assert reasons(tmp_path / "out")[str(first)] == [ran.told[0].removeprefix("priorlens: ")]


def test_a_model_of_images_is_given_scans(tmp_path: Path, run: Command, model: Path, heads: Path, trunks: Path) -> None:
    out = tmp_path / "out"
    for scans in (heads, trunks, heads / "h0.nii.gz"):
        says = (scans, "is or holds a scan, this model is one of images", "fit one on scans")
        run("score", model, scans, "--out", out).refused(3, *says)
        run("calibrate", model, scans).refused(3, *says)
    for i in range(2):
        write_nifti(tmp_path / f"set/test/{('good', 'lesion')[i]}/{i}.nii.gz", head(i, SHALLOW))
    run("evaluate", model, tmp_path / "set", "--out", out).refused(3, tmp_path / "set", "this model is one of images")
    ran = run("score", model, heads, "--out", out, "--channels", "flair")
    assert ran.code == 2 and "are for models of scans, this is one of images" in ran.stderr
    assert not out.exists()


def test_a_model_of_scans_is_given_images(
    tmp_path: Path, run: Command, mr_model: Path, healthy: Path, dataset: Path
) -> None:
    out = tmp_path / "out"
    for path in (healthy, healthy / "p0_0.png"):
        run("score", mr_model, path, "--out", out).refused(3, path, "; ")
    run("calibrate", mr_model, healthy).refused(3, healthy, "holds no scans", "name a folder that does")
    run("evaluate", mr_model, dataset, "--out", out).refused(3, dataset, "holds no scans", "; ")
    ran = run("score", mr_model, healthy, "--out", out, "--pixel-size", 0.5)
    assert ran.code == 2 and "for models of images, this is one of scans; leave them out" in ran.stderr
    assert not out.exists()


def test_hounsfield_units_are_refused_by_a_model_of_mri_and_the_reverse(
    tmp_path: Path, run: Command, mr_model: Path, ct_model: Path, heads: Path, trunks: Path
) -> None:
    """All that is given is of the other kind."""
    for fitted, scans in ((mr_model, trunks), (ct_model, heads)):
        out = tmp_path / fitted.name
        ran = run("score", fitted, scans, "--out", out, "--no-overlays")
        assert ran.code == 7 and "0 of 3 scans scored" in ran.stdout and len(ran.told) == 4
        assert all("Hounsfield units" in line and "--modality" in line for line in ran.told[:3])
        assert not list(out.rglob("*.nii.gz"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--window", "head"), "--window head: is no window; give brain, soft"),
        (("--window", "80,0"), "has its lower end first; turn them round"),
        (("--window", "nan,80"), "--window nan,80"),
        (("--channels", "flair,"), "is no list of names; give such as flair,t1ce"),
        (("--channels", "flair,flair"), "is no list of names"),
        (("--intensity", "percentile"), "--intensity percentile is for images; give window, robust or landmarks"),
        (("--dimensions", "4d"), "'4d' is not one of"),
        (("--spacing", "0"), "--spacing"),
        (("--spacing", "nan"), "--spacing"),
        (("--resume", "--overwrite"), "choose one of them"),
    ],
)
def test_options_that_are_wrong(tmp_path: Path, run: Command, heads: Path, options: tuple[str, ...], says: str) -> None:
    ran = run("fit", heads, "--out", tmp_path / "model", *options, *SMALL_SCANS)
    assert ran.code == 2 and says in " ".join(ran.stderr.split()), ran
    assert not (tmp_path / "model/config.json").exists()


def test_options_of_scans_for_images(tmp_path: Path, run: Command, healthy: Path) -> None:
    ran = run("fit", healthy, "--out", tmp_path / "model", "--axis", "coronal")
    assert ran.code == 2 and "--axis is for scans" in ran.stderr and not (tmp_path / "model").exists()


def test_a_window_for_mri(tmp_path: Path, run: Command, heads: Path) -> None:
    for options, says in (
        (("--window", "brain"), "; leave one out"),
        (("--intensity", "window"), "; choose robust or landmarks"),
    ):
        ran = run("fit", heads, "--out", tmp_path / "model", *options, *SMALL_SCANS)
        ran.refused(3, "window", "Hounsfield units", says)
        assert not any((tmp_path / "model").glob("*")), "nothing stands in the way of another try"


def test_an_empty_folder(tmp_path: Path, run: Command, mr_model: Path) -> None:
    empty, out = tmp_path / "empty.nii", tmp_path / "out"
    empty.mkdir()
    run("score", mr_model, empty, "--out", out).refused(3, empty, "holds no scans", "name a folder that does")
    run("calibrate", mr_model, empty).refused(3, empty, "holds no scans", "name a folder that does")
    run("evaluate", mr_model, empty, "--out", out).refused(3, empty, "holds no scans", "name a folder that does")
    run("score", mr_model, empty / "none", "--out", out).refused(3, empty / "none", "no such file", "check the path")
    run("score", mr_model, "--out", out).refused(3, "no", "; name")
    assert not out.exists()


def test_only_broken_files(tmp_path: Path, run: Command, ct_model: Path) -> None:
    path = tmp_path / "study/1.dcm"
    path.parent.mkdir()
    path.write_text("dear colleague")
    run("score", ct_model, path.parent, "--out", tmp_path / "out").refused(3, path, "; ")
    run("fit", path.parent, "--out", tmp_path / "out", *SMALL_SCANS).refused(3, path, "; ")
    assert not (tmp_path / "out").exists()


# --- masks, and data sets


def labelled(folder: Path) -> Path:
    """A healthy scan, and two with lesions."""
    mask = lesion_mask(SHALLOW)
    write_nifti(folder / "test/good/a.nii.gz", head(1, SHALLOW))
    for i, name in enumerate("bc"):
        write_nifti(folder / f"test/lesion/{name}.nii.gz", head(2 + i, SHALLOW, mask))
        write_nifti(folder / f"ground_truth/lesion/{name}.nii.gz", mask)
    return folder


def test_a_mask_on_another_grid(tmp_path: Path, run: Command, mr_model: Path) -> None:
    folder, out = labelled(tmp_path / "set"), tmp_path / "out"
    mask = write_nifti(folder / "ground_truth/lesion/b.nii.gz", lesion_mask(SHALLOW), moved())
    ran = run("evaluate", mr_model, folder, "--out", out, "--no-overlays", "--bootstrap", 0)
    assert ran.code == 7 and "2 of 3 scans scored" in ran.stdout, ran
    assert ran.told[0].startswith(f"priorlens: {mask}: the mask lies 3 mm away") and "; resample it" in ran.told[0]
    assert reasons(out)[f"{folder}/test/lesion/b.nii.gz"] == [ran.told[0].removeprefix("priorlens: ")]


@pytest.mark.parametrize("kinds", [("good",), ("lesion",), ("good", "lesion")])
def test_every_scan_of_a_kind_is_broken(tmp_path: Path, run: Command, mr_model: Path, kinds: tuple[str, ...]) -> None:
    folder, out = labelled(tmp_path / "set"), tmp_path / "out"
    for kind in kinds:
        for path in (folder / "test" / kind).iterdir():
            path.write_bytes(b"")
    ran = run("evaluate", mr_model, folder, "--out", out, "--no-overlays", "--bootstrap", 0)
    assert ran.code in (3, 7) and "Traceback" not in ran.stderr, ran
    assert all("; " in line for line in ran.told) and len(ran.told) >= 2, ran.stderr


def test_masks_and_kinds_that_are_not_there(tmp_path: Path, run: Command, mr_model: Path) -> None:
    folder, out = labelled(tmp_path / "set"), tmp_path / "out"
    orphan = write_nifti(folder / "ground_truth/lesion/d.nii.gz", lesion_mask(SHALLOW))
    ran = run("evaluate", mr_model, folder, "--out", out)
    ran.refused(3, orphan, "this mask has no scan", "remove the mask")
    orphan.unlink()
    shutil.rmtree(folder / "test/good")
    run("evaluate", mr_model, folder, "--out", out).refused(
        3, folder / "test", "has no good/ folder", "put the healthy"
    )
    run("fit", folder, "--out", out, *SMALL_SCANS).refused(3, folder, "has test/ but no train/good/", "name the folder")
    run("calibrate", mr_model, folder).refused(3, folder, "is a data set with train/ or test/", "; name a folder")
    assert not out.exists()


def test_a_broken_mask_of_a_scan_to_learn_from(tmp_path: Path, run: Command) -> None:
    for name in ("ann", "bob", "eve"):
        write_nifti(tmp_path / f"brats/{name}/{name}_flair.nii.gz", head(1, SHALLOW))
        write_nifti(tmp_path / f"brats/{name}/{name}_seg.nii.gz", lesion_mask(SHALLOW))
    mask = tmp_path / "brats/bob/bob_seg.nii.gz"
    mask.write_bytes(mask.read_bytes()[:-50])
    ran = run("fit", tmp_path / "brats", "--out", tmp_path / "model", "--channels", "flair", *SMALL_SCANS)
    assert ran.code == 0 and "of 2 scans of 2 patients" in ran.stdout, ran
    (line,) = ran.told
    assert line.startswith(f"priorlens: {mask}: is truncated") and "; " in line


def test_too_few_slices_to_learn_from(tmp_path: Path, run: Command) -> None:
    path = write_nifti(tmp_path / "one/a.nii.gz", head(1, (40, 48, 5)))
    ran = run("fit", tmp_path / "one", "--out", tmp_path / "model", *SMALL_SCANS)
    ran.refused(3, path, "hold 3 healthy slices", "at least 8 are needed", "add scans")
    assert not any((tmp_path / "model").glob("*")), "nothing stands in the way of another try"


# --- calibration


def test_calibration_with_scans_that_cannot_serve(tmp_path: Path, run: Command, mr_model: Path, heads: Path) -> None:
    copy = shutil.copytree(mr_model, tmp_path / "model")
    run("calibrate", copy, heads).refused(3, "3 healthy patients", "calibrate with at least 9")
    for i in range(9):
        write_nifti(tmp_path / f"more/{i}.nii.gz", head(20 + i, (40, 48, 6)))
    met = shutil.copy(heads / "h1.nii.gz", tmp_path / "more/again.nii.gz")
    ran = run("calibrate", copy, tmp_path / "more")
    ran.refused(3, met, "the model was fitted to slices of this scan", "it has never met")
    run("score", copy, heads, "--out", tmp_path / "out", "--alpha", 0.1).refused(3, copy, "is not calibrated", "; run")
    assert not (copy / "calibration").exists() and not (tmp_path / "out").exists()


# --- a full disk, Ctrl-C, and a model that is not whole


@pytest.mark.parametrize("at", ["b.nii.gz", "b.png", "scores.csv", "map.dcm"])
def test_disk_full_while_scoring_scans(
    tmp_path: Path, run: Command, ct_model: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    for name in "ab":
        series(tmp_path / "new" / name)
    replace, out = os.replace, tmp_path / "out"

    def full(source: Path, target: Path) -> None:
        if str(target).endswith(at):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    ran = run("score", ct_model, tmp_path / "new", "--out", out)
    ran.refused(5, out, at, "no space left", "free some space")
    nothing_is_half_written(out)
    assert not list(out.rglob(at))
    if at == "b.nii.gz":
        assert [Path(row["file"]).name for row in rows(out / "scores.csv")] == ["a"], "what was done is kept"


def test_ctrl_c_while_scoring_scans(
    tmp_path: Path, run: Command, mr_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(3):
        write_nifti(tmp_path / f"new/{i}.nii.gz", head(i, SHALLOW))
    score, out, turns = ScanModel.score, tmp_path / "out", iter(range(10))

    def score_once(*arguments: object) -> object:
        if next(turns) == 1:
            raise KeyboardInterrupt
        return score(*arguments)

    monkeypatch.setattr(ScanModel, "score", score_once)
    ran = run("score", mr_model, tmp_path / "new", "--out", out, "--no-overlays")
    ran.refused(130, out / "scores.csv", "stopped after 1 of 3 scans", "the same command goes on")
    assert len(rows(out / "scores.csv")) == 1 == len(list((out / "maps").iterdir()))
    nothing_is_half_written(out)


def test_a_model_that_does_not_say_how_scans_are_prepared(
    tmp_path: Path, run: Command, mr_model: Path, heads: Path
) -> None:
    copy = shutil.copytree(mr_model, tmp_path / "model")
    text = (copy / "config.json").read_text()
    for spoilt in (text.replace('"plane"', '"plain"'), text.replace('"robust"', '"gentle"')):
        assert spoilt != text
        (copy / "config.json").write_text(spoilt)
        run("score", copy, heads, "--out", tmp_path / "out").refused(4, copy, "; ")
        run("inspect", copy).refused(4, copy, "; ")
    assert not (tmp_path / "out").exists()
