"""The commands on scans, as a user runs them: NIfTI, BraTS and DICOM in; results on the grid of what came in."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from command_line import SMALL_SCANS, Command, Ran
from PIL import Image

from priorlens import variations
from priorlens.anodode import AnoDODE
from priorlens.commands import fit_scans, scan_scoring
from priorlens.commands.usual_errors import unlearned
from priorlens.commands.view_scoring import score_files
from priorlens.cube_model import CubeModel
from priorlens.held_out import hold_out
from priorlens.scan_surprise import SIGMAS, WIDTHS, ErrorStack
from priorlens.volumes.scan_preparation import LEAST_BODY
from priorlens.volumes.scans import Scan
from volumes.made_scans import OBLIQUE, head, lesion_mask, trunk, write_nifti, write_trunk

SHALLOW = (40, 48, 11)
"""Of scans that are only scored: the model's own width, and few slices."""

BRATS = (40, 48, 16)


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def config(model: Path) -> dict[str, Any]:
    return json.loads((model / "config.json").read_text())


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def hashes(folder: Path) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files(folder)}


def scored(ran: Ran, out: Path, count: int) -> list[dict[str, str]]:
    """All scans were scored, nothing was left out, and nothing was said but that the model is not calibrated."""
    assert ran.code == 0 and not ran.told and f"{count} of {count} scans scored" in ran.stdout, ran
    found = rows(out / "scores.csv")
    assert len(found) == count and all(row["error"] == "" for row in found)
    assert not (out / "left_out.csv").exists()
    return found


@pytest.fixture(autouse=True)
def no_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of few patients' slices no varied copies are made, which would take a while to learn."""
    monkeypatch.setattr(variations, "copies", lambda images: 0)


class Pieces(list[Any]):
    """What a fit was given to learn from, in place of learning it: slices, and a varied copy of each."""

    groups: list[str]

    @property
    def own(self) -> list[Any]:
        """Without the varied copies, which come last."""
        return self[: len(self) // 2]

    @property
    def slices(self) -> dict[str, list[int]]:
        """By scan, which of its slices."""
        found: dict[str, list[int]] = {}
        for image in self.own:
            found.setdefault(image.path.parent.name, []).append(int(image.path.name.removeprefix("slice ")))
        return found


@pytest.fixture
def pieces(monkeypatch: pytest.MonkeyPatch, mr_model: Path) -> Pieces:
    """A fit learns nothing and ends at once with what `mr_model` knows; what it was to learn from is kept."""
    found = Pieces()

    def fit(detector: AnoDODE, images: Any, *, groups: Any, state: Path, on_progress: Any, **_: Any) -> AnoDODE:
        found[:], found.groups = images, list(groups)
        known = vars(AnoDODE.load(mr_model))
        vars(detector).update({name: value for name, value in known.items() if name.endswith("_")})
        return detector

    monkeypatch.setattr(AnoDODE, "fit", fit)
    monkeypatch.setattr(variations, "copies", lambda images: 1)
    return found


# --- fit


def brats(folder: Path, patients: int, *, channels: tuple[str, ...] = ("flair", "t1ce"), first: int = 0) -> Path:
    """Patients as BraTS has them, with a tumour in slices 6 to 8 of 16."""
    mask = lesion_mask(BRATS, low=6 / 16, high=9 / 16)
    for number in range(first, first + patients):
        name = f"BraTS20_{number:03}"
        for turn, channel in enumerate(channels):
            write_nifti(folder / name / f"{name}_{channel}.nii.gz", head(number + 100 * turn, BRATS, mask))
        write_nifti(folder / name / f"{name}_seg.nii.gz", mask * np.uint8(4))
    return folder


def test_fit_to_a_folder_of_nifti(heads: Path, mr_model: Path) -> None:
    assert files(mr_model) == ["config.json", "model.safetensors", "training.csv"]
    found = config(mr_model)
    assert (found["run"]["folder"], found["run"]["scans"], found["run"]["patients"]) == ("heads", 3, 3)
    scans = found["scans"]
    assert (scans["units"], scans["plane"], scans["dimensions"], scans["size"]) == ("arbitrary", "axial", "2d", 64)
    assert [one["mode"] for one in scans["intensities"]] == ["robust"] and scans["channels"] == [""]
    assert found["trained_on"]["patients"] == 3
    assert str(heads.parent) not in (mr_model / "config.json").read_text(), "where scans lie is nobody's business"


def test_fit_to_dicom_folders(trunks: Path, ct_model: Path) -> None:
    found = config(ct_model)
    assert (found["run"]["scans"], found["run"]["patients"]) == (3, 3)
    scans = found["scans"]
    assert scans["units"] == "HU" and scans["spacing"] == 4
    assert [(one["mode"], one["low"], one["high"]) for one in scans["intensities"]] == [("window", -160, 240)]


def test_fit_to_brats_leaves_slices_with_lesions_out(tmp_path: Path, run: Command, pieces: Pieces) -> None:
    folder = brats(tmp_path / "brats", 3)
    ran = run("fit", folder, "--out", tmp_path / "model", "--channels", "flair", *SMALL_SCANS)
    assert ran.code == 0 and not ran.told, ran
    scans = config(tmp_path / "model")["scans"]
    assert scans["channels"] == ["flair"]
    enough = LEAST_BODY * (scans["size"] * scans["spacing"]) ** 2 / 16
    for name, slices in pieces.slices.items():
        voxels = nibabel.load(folder / name.removesuffix("_flair.nii.gz") / name).get_fdata()
        seen = np.flatnonzero((voxels > 0).sum((0, 1)) >= enough)
        assert slices == [k for k in seen if not 6 <= k < 9] and len(slices) == len(seen) - 3
    assert len(pieces.slices) == 3 and len(pieces) == 2 * len(pieces.own)
    assert f"learned from {len(pieces)} slices, varied ones among them, of 3 scans of 3 patients" in ran.stdout
    assert all(image.pixels.shape == (1, 64, 64) for image in pieces)


def test_several_channels_from_fit_to_scores(tmp_path: Path, run: Command) -> None:
    ran = run(
        "fit", brats(tmp_path / "brats", 2), "--out", tmp_path / "model", "--channels", "flair,t1ce", *SMALL_SCANS
    )
    assert ran.code == 0 and not ran.told, ran
    assert config(tmp_path / "model")["scans"]["channels"] == ["flair", "t1ce"]
    out, new = tmp_path / "out", brats(tmp_path / "new", 1, channels=("t1", "t1ce", "flair"), first=7)
    (row,) = scored(run("score", tmp_path / "model", new, "--out", out), out, 1)
    assert (row["file"], row["patient"]) == (f"{new}/BraTS20_007/BraTS20_007_flair.nii.gz", "BraTS20_007")
    (path,) = (out / "maps").rglob("*.nii.gz")
    source = nibabel.load(new / "BraTS20_007/BraTS20_007_flair.nii.gz")
    np.testing.assert_array_equal(nibabel.load(path).affine, source.affine)
    (path,) = (out / "images").rglob("*.nii.gz")
    image = nibabel.load(path)
    assert image.shape == (*BRATS, 2) and image.get_data_dtype() == np.int16
    np.testing.assert_array_equal(image.affine, source.affine)
    np.testing.assert_array_equal(image.get_fdata()[..., 0], source.get_fdata())
    other = nibabel.load(new / "BraTS20_007/BraTS20_007_t1ce.nii.gz").get_fdata()
    np.testing.assert_array_equal(image.get_fdata()[..., 1], other, err_msg="the model's channels, in its order")


def test_slabs_of_coronal_slices(tmp_path: Path, run: Command) -> None:
    for i in range(3):
        write_nifti(tmp_path / f"heads/{i}.nii.gz", head(i, (40, 12, 32)))
    model, out = tmp_path / "model", tmp_path / "out"
    options = ("--dimensions", "2.5d", "--axis", "coronal", "--spacing", 5, "--neighbours", 8)
    ran = run("fit", tmp_path / "heads", "--out", model, *options, *SMALL_SCANS)
    assert ran.code == 0 and not ran.told, ran
    scans = config(model)["scans"]
    assert (scans["plane"], scans["dimensions"], scans["spacing"], scans["neighbours"]) == ("coronal", "2.5d", 5, 8)
    write_nifti(tmp_path / "0.nii.gz", head(9, (40, 12, 32)))
    (row,) = scored(run("score", model, tmp_path / "0.nii.gz", "--out", out), out, 1)
    slices = [int(line["slice"]) for line in rows(out / "slices.csv")]
    assert slices == sorted(slices) and len(slices) == int(row["slices"]) and max(slices) < 12, "of the second axis"
    heights = [float(line["height_mm"]) for line in rows(out / "slices.csv")]
    steps = np.diff(heights) / np.diff(slices)
    np.testing.assert_allclose(steps, OBLIQUE[1, 1], atol=2e-3)
    assert nibabel.load(out / "maps/0.nii.gz").shape == (40, 12, 32)


def test_cubes(tmp_path: Path, run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_scans, "CUBES", 9)
    for i in range(3):
        write_nifti(tmp_path / f"heads/{i}.nii.gz", head(i))
    model, out = tmp_path / "model", tmp_path / "out"
    ran = run(
        "fit", tmp_path / "heads", "--out", model, "--dimensions", "3d", "--spacing", 5, "--steps", 2, "--threads", 1
    )
    assert ran.code == 0 and not ran.told and "learned from 9 cubes of 3 scans of 3 patients" in ran.stdout, ran
    assert config(model)["scans"]["dimensions"] == "3d"
    scored(run("score", model, tmp_path / "heads/0.nii.gz", "--out", out), out, 1)
    assert nibabel.load(out / "maps/0.nii.gz").shape == (40, 48, 32)
    assert "3d" in run("inspect", model).stdout


def test_klip_of_slices_reads_what_is_usual_off_those_without_lesions(
    tmp_path: Path, run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of few patients, of every scan; the tumour's slices 6 to 8 are missing, and the others are where they were."""
    stacks: list[ErrorStack] = []
    learn = CubeModel.learn_usual
    monkeypatch.setattr(CubeModel, "learn_usual", lambda self, found: learn(self, _kept(stacks, found)))
    model, out = tmp_path / "model", tmp_path / "out"
    options = ("--method", "klip", "--size", 32, "--steps", 2, "--threads", 1, "--channels", "flair,t1ce")
    ran = run("fit", brats(tmp_path / "brats", 3), "--out", model, *options)
    assert ran.code == 0 and not ran.told, ran
    assert sorted(stack.path.parent.name for stack in stacks) == [f"BraTS20_00{n}" for n in range(3)]
    for stack in stacks:
        assert stack.errors.shape[1:3] == (len(SIGMAS), 2)
        steps = np.diff(stack.places) / np.diff(stack.places).min()
        np.testing.assert_allclose(sorted(steps)[-1], 4, rtol=1e-6, err_msg="three slices are left out")
        assert np.allclose(sorted(steps)[:-1], 1)
    found = config(model)
    assert (found["null"], found["widths"], found["scans"]["channels"]) == ("scan", list(WIDTHS), ["flair", "t1ce"])
    scored(run("score", model, brats(tmp_path / "new", 1, first=7), "--out", out), out, 1)
    assert "healthy scans" in (model / "training.csv").read_text()


def _kept(stacks: list[ErrorStack], found: Any) -> list[ErrorStack]:
    stacks[:] = found
    return stacks


def test_of_many_patients_only_those_held_out_say_what_is_usual() -> None:
    """Of few, of whom only slabs are held out, all do; in an order that the seed decides."""
    scans = [Scan((Path(f"s{n}.nii"),), ("",), f"s{n}", f"p{n}") for n in range(12)]
    patients = [f"p{n}" for n in range(12) for _ in range(4)]
    kept, held = hold_out(patients, 0)
    found = unlearned(scans, patients, patients, 0)
    assert {scan.group for scan in found} == {patients[index] for index in held}
    assert not {scan.group for scan in found} & {patients[index] for index in kept}
    whose = [f"p{n}" for n in range(3) for _ in range(40)]
    slabs = [f"{patient} slab {place % 40 // 4}" for place, patient in enumerate(whose)]
    few = unlearned(scans[:3], whose, slabs, 0)
    assert sorted(scan.group for scan in few) == ["p0", "p1", "p2"]
    assert few == unlearned(scans[:3], whose, slabs, 0)


def test_many_patients_are_held_out_as_a_whole_and_not_varied(tmp_path: Path, run: Command, pieces: Pieces) -> None:
    for i in range(fit_scans.FEW):
        write_nifti(tmp_path / f"heads/{i}.nii.gz", head(i, (40, 48, 5)))
    ran = run("fit", tmp_path / "heads", "--out", tmp_path / "model", *SMALL_SCANS)
    assert ran.code == 0 and f"learned from {len(pieces)} slices" in ran.stdout, ran
    assert pieces.groups == [image.path.parent.name.removesuffix(".nii.gz") for image in pieces]
    assert len({(image.path, image.pixels.tobytes()) for image in pieces}) == len(pieces) >= 3 * fit_scans.FEW
    (tmp_path / "heads/0.nii.gz").unlink()
    run("fit", tmp_path / "heads", "--out", tmp_path / "fewer", *SMALL_SCANS)
    assert all(" slab " in group for group in pieces.groups) and len({i.path for i in pieces}) == len(pieces) // 2


def test_modality_tells_ct_from_mr(tmp_path: Path, run: Command, pieces: Pieces) -> None:
    """Of a folder of both, stored as NIfTI, which does not tell; told by the numbers, and by the user."""
    for i in range(2):
        write_nifti(tmp_path / f"both/mr{i}.nii.gz", head(i, SHALLOW))
        write_nifti(tmp_path / f"both/ct{i}.nii.gz", trunk(i, SHALLOW))
    write_nifti(tmp_path / "both/ct2.nii.gz", trunk(2, SHALLOW))
    for options, kept, other in (((), "ct", "mr"), (("--modality", "mr"), "mr", "ct"), (("--modality", "ct"), "", "")):
        model = tmp_path / f"model{kept}"
        ran = run("fit", tmp_path / "both", "--out", model, *options, *SMALL_SCANS)
        assert ran.code == 0 and all(name.startswith(kept) for name in pieces.slices), ran
        assert len(ran.told) == {"ct": 2, "mr": 3, "": 0}[kept]
        for i, line in enumerate(ran.told):
            has = {"mr": "no Hounsfield units", "ct": "Hounsfield units, as CT has"}[other]
            assert line == f"priorlens: {tmp_path}/both/{other}{i}.nii.gz: has {has}; it is left out (see --modality)"
        assert config(model)["scans"]["units"] == ("arbitrary" if kept == "mr" else "HU")


@pytest.mark.parametrize(("window", "low", "high"), [("brain", 0, 80), ("-50,150.5", -50, 150.5)])
def test_window(
    tmp_path: Path, run: Command, pieces: Pieces, trunks: Path, window: str, low: float, high: float
) -> None:
    ran = run("fit", trunks / "t0", "--out", tmp_path / "model", "--modality", "ct", "--window", window, *SMALL_SCANS)
    assert ran.code == 0 and not ran.told and len(pieces.own) > 20, ran
    (intensity,) = config(tmp_path / "model")["scans"]["intensities"]
    assert (intensity["mode"], intensity["low"], intensity["high"]) == ("window", low, high)
    spine = max(image.pixels.max() for image in pieces.own)
    assert spine > 1, "bone lies above the window"


def test_a_finished_model_of_scans_is_not_learned_again(
    tmp_path: Path, run: Command, heads: Path, mr_model: Path
) -> None:
    copy = shutil.copytree(mr_model, tmp_path / "model")
    before = hashes(copy)
    ran = run("fit", heads, "--out", copy, "--resume", *SMALL_SCANS)
    assert ran.code == 0 and "is finished already" in ran.stdout, ran
    run("fit", heads, "--out", copy, *SMALL_SCANS).refused(5, copy, "holds a finished model", "--overwrite")
    ran = run("fit", heads, "--out", copy, "--resume", "--axis", "coronal", *SMALL_SCANS)
    ran.refused(5, copy, "other axis", "--overwrite")
    assert hashes(copy) == before


def test_broken_scans_to_learn_from_are_named_and_left_out(
    tmp_path: Path, run: Command, pieces: Pieces, heads: Path
) -> None:
    folder = shutil.copytree(heads, tmp_path / "heads")
    (folder / "empty.nii.gz").touch()
    (folder / "words.nii").write_text("no scan")
    write_nifti(folder / "constant.nii.gz", np.full(SHALLOW, 7, np.int16))
    ran = run("fit", folder, "--out", tmp_path / "model", *SMALL_SCANS)
    assert ran.code == 0 and "of 3 scans of 3 patients" in ran.stdout and len(pieces.slices) == 3, ran
    assert [line.split(": ")[1] for line in ran.told] == [
        str(folder / name) for name in ("constant.nii.gz", "empty.nii.gz", "words.nii")
    ]
    assert all("; " in line for line in ran.told)
    assert config(tmp_path / "model")["run"]["scans"] == 3


# --- score


def layers(out: Path, name: str) -> list[nibabel.Nifti1Image]:
    """The image, and what else a viewer lays over it, all of one shape and at one place."""
    found = [nibabel.load(path) for path in (out / "images").rglob(f"{name}.nii.gz")]
    for kind in ("maps", "segmentations", "truth"):
        found += [nibabel.load(path) for path in (out / kind).rglob(f"{name}.nii.gz")]
    for image in found:
        assert image.shape[:3] == found[0].shape[:3]
        np.testing.assert_array_equal(image.affine, found[0].affine)
    return found


@pytest.fixture
def regions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a model of two steps makes of a scan, its higher half is a region."""
    above = scan_scoring.regions_above
    monkeypatch.setattr(
        scan_scoring, "regions_above", lambda found, high, *options: above(found, float(found.max()) / 2, *options)
    )


def decoded(path: Path) -> pydicom.Dataset:
    """A DICOM file that can be read to its end."""
    dataset = pydicom.dcmread(path)
    dataset.walk(lambda data, element: element.value)
    return dataset


def test_one_file(tmp_path: Path, run: Command, mr_model: Path, regions: None) -> None:
    path = write_nifti(tmp_path / "ann.nii.gz", head(9, SHALLOW, lesion_mask(SHALLOW)))
    out = tmp_path / "out"
    before = path.read_bytes()
    (row,) = scored(run("score", mr_model, path, "--out", out), out, 1)
    assert row["file"] == str(path) and row["patient"] == "ann"
    lines = rows(out / "slices.csv")
    anomalies = {int(line["slice"]): float(line["anomaly"]) for line in lines}
    assert float(row["anomaly"]) == pytest.approx(max(anomalies.values())), "a twentieth of so few slices is one"
    assert anomalies[int(row["highest_slice"])] == max(anomalies.values())
    source, found = nibabel.load(path), nibabel.load(out / "maps/ann.nii.gz")
    labels = nibabel.load(out / "segmentations/ann.nii.gz")
    for image in (found, labels):
        assert image.shape == SHALLOW and image.header.get_xyzt_units()[0] == source.header.get_xyzt_units()[0]
        np.testing.assert_array_equal(image.affine, source.affine)
        for field in ("sform_code", "qform_code", "quatern_b", "qoffset_x", "srow_x", "srow_z"):
            np.testing.assert_array_equal(image.header[field], source.header[field])
    assert found.get_data_dtype() == np.float32 and np.isfinite(found.get_fdata()).all()
    told = rows(out / "regions.csv")
    assert len(told) == int(row["regions"]) == int(labels.get_fdata().max()) > 0
    for line in told:
        places = np.argwhere(labels.get_fdata() == int(line["region"]))
        centre = [float(line[name]) for name in ("centre_x", "centre_y", "centre_z")]
        assert line["unit"] == "mm" and float(line["size"]) == pytest.approx(64 * len(places), rel=1e-3)
        np.testing.assert_allclose(centre, nibabel.affines.apply_affine(source.affine, places).mean(0), atol=4)
    with Image.open(out / "overlays/ann.png") as picture:
        assert picture.width > 500
    page = (out / "report.html").read_text()
    assert "ann" in page and "<html" in page
    assert path.read_bytes() == before
    assert sorted(one.name for one in out.iterdir()) == [
        *("images", "maps", "model.json", "overlays", "regions.csv", "report.html"),
        *("run.sqlite", "scores.csv", "segmentations", "slices.csv"),
    ]
    image, *_ = layers(out, "ann")
    assert image.get_data_dtype() == np.int16
    np.testing.assert_array_equal(image.affine, source.affine)
    np.testing.assert_array_equal(image.get_fdata(), source.get_fdata())
    assert json.loads((out / "model.json").read_text())["map_unit"] == "bit"


def test_a_folder(tmp_path: Path, run: Command, mr_model: Path) -> None:
    """Of two patients, one of whom lies the other way round in the file: the same scan gives the same score."""
    voxels, folder, out = head(9, SHALLOW), tmp_path / "new", tmp_path / "out"
    write_nifti(folder / "a/1.nii.gz", voxels)
    turned = nibabel.as_closest_canonical(nibabel.load(folder / "a/1.nii.gz"))
    assert turned.affine[0, 0] > 0 > OBLIQUE[0, 0]
    write_nifti(folder / "b.nii", np.asarray(turned.dataobj), turned.affine)
    before = hashes(folder)
    found = scored(run("score", mr_model, folder, "--out", out, "--no-overlays"), out, 2)
    assert [row["file"] for row in found] == [f"{folder}/a/1.nii.gz", f"{folder}/b.nii"]
    first, second = (nibabel.load(out / f"maps/{name}.nii.gz") for name in ("a/1", "b"))
    np.testing.assert_array_equal(second.affine, nibabel.load(folder / "b.nii").affine)
    np.testing.assert_allclose(first.get_fdata()[::-1], second.get_fdata(), atol=1e-5)
    assert found[0]["anomaly"] == found[1]["anomaly"]
    assert hashes(folder) == before and not (out / "dicom").exists()
    assert not any((out / name).exists() for name in ("overlays", "images", "truth"))


def test_a_dicom_folder(tmp_path: Path, run: Command, ct_model: Path, regions: None) -> None:
    folder, out = tmp_path / "study", tmp_path / "out"
    paths = write_trunk(folder / "ct", 9, shape=SHALLOW, lesion=lesion_mask(SHALLOW))
    before = hashes(folder)
    (row,) = scored(run("score", ct_model, folder, "--out", out), out, 1)
    assert hashes(folder) == before
    assert (row["file"], row["patient"]) == (str(folder / "ct"), "P9") and int(row["regions"]) > 0
    found = nibabel.load(out / "maps/ct.nii.gz")
    np.testing.assert_allclose(found.affine, [[-4, 0, 0, 80], [0, -4, 0, 90], [0, 0, 4, 40], [0, 0, 0, 1]], atol=1e-6)
    image = nibabel.load(out / "images/ct.nii.gz")
    np.testing.assert_array_equal(image.affine, found.affine)
    voxels = trunk(9, SHALLOW, lesion_mask(SHALLOW))
    np.testing.assert_array_equal(image.get_fdata(), voxels, err_msg="Hounsfield units, to the unit")
    own = {str(pydicom.dcmread(path).SOPInstanceUID) for path in paths}
    parametric = decoded(out / "dicom/ct/map.dcm")
    values = np.frombuffer(parametric.FloatPixelData, "<f4").reshape(-1, 48, 40).transpose(2, 1, 0)
    groups = parametric.PerFrameFunctionalGroupsSequence
    heights = [group.PlanePositionSequence[0].ImagePositionPatient[2] for group in groups]
    assert sorted(heights) == list(range(40, 84, 4))
    np.testing.assert_array_equal(values[..., np.argsort(heights)], found.get_fdata().astype(np.float32))
    segmentation = decoded(out / "dicom/ct/segmentation.dcm")
    assert segmentation.pixel_array.shape[1:] == (48, 40) and segmentation.pixel_array.any()
    assert len(segmentation.SegmentSequence) == int(row["regions"])
    measurements = decoded(out / "dicom/ct/measurements.dcm")
    assert measurements.Modality == "SR"
    for dataset in (parametric, segmentation, measurements):
        assert dataset.PatientID == "P9" and str(dataset.SOPInstanceUID) not in own
        assert dataset.StudyInstanceUID == pydicom.dcmread(paths[0]).StudyInstanceUID
    for dataset in (parametric, segmentation):
        (series,) = dataset.ReferencedSeriesSequence
        assert {str(one.ReferencedSOPInstanceUID) for one in series.ReferencedInstanceSequence} <= own


def test_no_dicom(tmp_path: Path, run: Command, ct_model: Path) -> None:
    write_trunk(tmp_path / "ct", 9, shape=SHALLOW)
    out = tmp_path / "out"
    scored(run("score", ct_model, tmp_path / "ct", "--out", out, "--no-dicom", "--no-report"), out, 1)
    assert not (out / "dicom").exists() and (out / "maps/ct.nii.gz").is_file()


def test_overwriting_leaves_nothing_of_the_earlier_run(
    tmp_path: Path, run: Command, ct_model: Path, regions: None
) -> None:
    folder, out = tmp_path / "new", tmp_path / "out"
    for i in (8, 9):
        write_trunk(folder / f"p{i}", i, shape=SHALLOW, lesion=lesion_mask(SHALLOW))
    scored(run("score", ct_model, folder, "--out", out), out, 2)
    (folder / "p8/0003.dcm").unlink()
    (out / "mine.txt").write_text("not to be touched")
    other = run("score", ct_model, folder, "--out", out, "--no-overlays")
    assert other.code == 5 and "results of another --overlays" in other.stderr and "--overwrite" in other.stderr, other
    shutil.copytree(out / "images", out / "truth")  # of an earlier run with masks
    ran = run("score", ct_model, folder, "--out", out, "--overwrite")
    assert ran.code == 7 and "1 of 1 scans scored" in ran.stdout
    assert files(out / "images") == ["p8.nii.gz", "p9.nii.gz"] and files(out / "truth") == ["p8.nii.gz"]
    assert run("score", ct_model, folder, "--out", out, "--overwrite", "--no-overlays", "--no-dicom").code == 7
    assert files(out / "images") == ["p8.nii.gz"], "that of a scan that is none of this run's stays"
    assert run("score", ct_model, folder, "--out", out, "--overwrite").code == 7
    assert (out / "dicom/p9/segmentation.dcm").is_file() and (out / "mine.txt").is_file()


def test_intensities_that_are_no_whole_numbers(tmp_path: Path, run: Command, mr_model: Path) -> None:
    path, out = tmp_path / "ann.nii.gz", tmp_path / "out"
    nibabel.save(nibabel.Nifti1Image(head(9, SHALLOW).astype(np.float32) / 7, OBLIQUE), path)
    scored(run("score", mr_model, path, "--out", out), out, 1)
    image, source = layers(out, "ann")[0], nibabel.load(path).get_fdata()
    assert image.get_data_dtype() == np.int16
    assert np.abs(image.get_fdata() - source).max() <= np.ptp(source) / 65000
    np.testing.assert_array_equal(image.affine, nibabel.load(path).affine)


def test_what_the_viewer_is_given_is_scored_in_the_same_way(tmp_path: Path, run: Command, mr_model: Path) -> None:
    """Loose files in one folder, a broken one and a bomb among them; progress never falls, and ends at all."""
    write_nifti(tmp_path / "new/a.nii.gz", head(9, SHALLOW))
    write_nifti(tmp_path / "new/b.nii.gz", head(10, SHALLOW))
    (tmp_path / "new/cut.nii.gz").write_bytes((tmp_path / "new/a.nii.gz").read_bytes()[:500])
    np.savez(tmp_path / "new/claims.npz", voxels=np.array([{}], dtype=object), affine=np.eye(4))
    out, told = tmp_path / "out", []
    score_files(mr_model, None, tmp_path / "new", tmp_path / "own", lambda done, total: told.append((done, total)))
    assert run("score", mr_model, tmp_path / "new", "--out", out, "--no-report").code == 7
    own, found = ([row | {"seconds": ""} for row in rows(folder / "scores.csv")] for folder in (tmp_path / "own", out))
    assert own == found and sum(row["error"] == "" for row in own) == 2
    for name in ("slices.csv", "regions.csv", "maps/a.nii.gz", "maps/b.nii.gz", "images/a.nii.gz"):
        assert (tmp_path / "own" / name).read_bytes() == (out / name).read_bytes(), name
    ends = [index for index, (done, total) in enumerate(told) if done == total]
    assert len(ends) == 2 and ends[-1] == len(told) - 1
    for part in (told[: ends[0] + 1], told[ends[0] + 1 :]):
        assert [done for done, _ in part] == sorted({done for done, _ in part}) and len({of for _, of in part}) == 1


def test_results_are_not_written_among_the_scans(tmp_path: Path, run: Command, mr_model: Path, heads: Path) -> None:
    folder = shutil.copytree(heads, tmp_path / "heads")
    run("score", mr_model, folder, "--out", folder / "out").refused(5, folder / "out", "choose another --out")
    assert sorted(os.listdir(folder)) == ["h0.nii.gz", "h1.nii.gz", "h2.nii.gz"]


# --- evaluate, calibrate, inspect

FIGURES = ("scan_auroc", "slice_auroc", "slice_auroc_matched", "voxel_auroc", "dice_best", "cpm")


def test_evaluate_patients_whose_masks_lie_beside_their_scans(
    tmp_path: Path, run: Command, mr_model: Path, heads: Path
) -> None:
    dataset, out = brats(tmp_path / "brats", 2, channels=("flair",), first=10), tmp_path / "out"
    for name in ("eve", "zoe"):
        write_nifti(dataset / name / f"{name}_flair.nii.gz", head(len(name) + ord(name[0]), SHALLOW))
    before = hashes(dataset)
    ran = run("evaluate", mr_model, dataset, "--out", out, "--channels", "flair", "--bootstrap", 20)
    found = scored(ran, out, 4)
    assert [row["patient"] for row in found] == ["BraTS20_010", "BraTS20_011", "eve", "zoe"]
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["schema"] == 1 and metrics["scans_failed"] == 0 and set(metrics["kinds"]) == {"lesion"}
    for name in FIGURES:
        assert 0 <= metrics["kinds"]["lesion"][name]["value"] <= 1
    counts = metrics["counts"]
    assert counts["good"] == {"scans": 2, "groups": 2}
    assert (counts["lesion"]["scans"], counts["lesion"]["lesions"], counts["lesion"]["lesion_slices"]) == (2, 2, 6)
    curve = metrics["froc"]["lesion"]
    assert curve["sensitivity"] == sorted(curve["sensitivity"]) and max(curve["sensitivity"]) <= 1
    assert "slice AUROC" in ran.stdout and (out / "report.html").is_file()
    assert len(files(out / "maps")) == len(files(out / "images")) == 4
    masks = [nibabel.load(path) for path in sorted(dataset.rglob("*_seg.nii.gz"))]
    for path, mask in zip(sorted((out / "truth").rglob("*.nii.gz")), masks, strict=True):
        truth = nibabel.load(path)
        assert truth.get_data_dtype() == np.int16 and set(np.unique(truth.get_fdata())) == {0, 1}
        np.testing.assert_array_equal(truth.get_fdata(), mask.get_fdata() > 0)
        np.testing.assert_array_equal(truth.affine, mask.affine)
    assert hashes(dataset) == before


def test_evaluate_kinds_of_dicom(tmp_path: Path, run: Command, ct_model: Path) -> None:
    """With masks as NIfTI, drawn on what a converter makes of the series."""
    dataset, out = tmp_path / "set", tmp_path / "out"
    mask = lesion_mask(SHALLOW)
    write_trunk(dataset / "test/good/ann", 5, shape=SHALLOW)
    write_trunk(dataset / "test/lesion/bob", 6, shape=SHALLOW, lesion=mask)
    affine = np.array([[-4.0, 0, 0, 80], [0, -4, 0, 90], [0, 0, 4, 40], [0, 0, 0, 1]])
    write_nifti(dataset / "ground_truth/lesion/bob.nii.gz", mask, affine)
    ran = run("evaluate", ct_model, dataset, "--out", out, "--bootstrap", 0, "--no-overlays")
    found = scored(ran, out, 2)
    assert [row["patient"] for row in found] == ["P5", "P6"]
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["counts"]["lesion"]["lesion_slices"] == int(mask.any((0, 1)).sum())
    assert {"scan_auroc", "scan_ap", "voxel_ap", "dice_best_per_scan"} <= metrics["kinds"]["lesion"].keys()
    assert files(out / "maps") == ["good/ann.nii.gz", "lesion/bob.nii.gz"] and not (out / "dicom").exists()
    assert not (out / "images").exists() and not (out / "truth").exists()


def test_calibrated_on_healthy_scans(tmp_path: Path, run: Command, mr_model: Path) -> None:
    model, out = shutil.copytree(mr_model, tmp_path / "model"), tmp_path / "out"
    for i in range(9):
        write_nifti(tmp_path / f"healthy/{i}.nii.gz", head(20 + i, SHALLOW))
    before = hashes(tmp_path / "healthy")
    ran = run("calibrate", model, tmp_path / "healthy")
    assert ran.code == 0 and not ran.stderr, ran
    assert "on 9 healthy scans of 9 patients: p-values down to 0.1" in ran.stdout
    assert hashes(tmp_path / "healthy") == before
    tumour = lesion_mask(SHALLOW, 0.2, 0.8)
    write_nifti(tmp_path / "new/a.nii.gz", head(50, SHALLOW))
    write_nifti(tmp_path / "new/b.nii.gz", head(50, SHALLOW, tumour))
    write_nifti(tmp_path / "new/c.nii.gz", head(23, SHALLOW))
    ran = run("score", model, tmp_path / "new", "--out", out, "--alpha", 0.1)
    assert ran.code == 0 and len(ran.told) == 1 and "c.nii.gz: the model was calibrated on this patient" in ran.told[0]
    *found, known = rows(out / "scores.csv")
    assert known["p_value"] == known["verdict"] == "", "of what was calibrated on there is none"
    for row in found:
        assert 0.1 <= float(row["p_value"]) <= 1
        assert row["verdict"] == ("abnormal" if float(row["p_value"]) <= 0.1 else "usual")
    assert float(found[0]["anomaly"]) < float(found[1]["anomaly"])
    assert float(found[0]["p_value"]) >= float(found[1]["p_value"])
    run("score", model, tmp_path / "new", "--out", tmp_path / "o2", "--alpha", 0.05).refused(3, model, "; ")
    facts = json.loads(run("inspect", model, "--json").stdout)
    (worth,) = facts["calibration"].values()
    assert worth["patients"] == 9


def test_inspect(run: Command, mr_model: Path, ct_model: Path) -> None:
    facts = json.loads(run("inspect", mr_model, "--json").stdout)
    assert facts["run"]["folder"] == "heads" and facts["calibration"] == {}
    assert facts["scans"] == config(mr_model)["scans"]
    ran = run("inspect", ct_model)
    assert ran.code == 0 and not ran.stderr
    lines = [line.split() for line in ran.stdout.splitlines()]
    assert ["units", "HU"] in lines and ["plane", "axial"] in lines and ["patients", "3"] in lines
    assert "Traceback" not in ran.stdout and "{" not in ran.stdout, "nothing is left as Python writes it"
