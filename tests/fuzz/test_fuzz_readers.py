"""Damaged files are refused in one line or read as promised; and each defect that damage has brought to light, by name.

The full run is benchmarks/fuzz.py.
"""

from __future__ import annotations

import gzip
import io
import json
import struct
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from bombs import MEGABYTE, Harm, zeros
from contracts import READERS, require_line
from dicom_bombs import deflated
from fuzzing import Fuzzer, Tally, cases_of, seeds_of
from mutations import MARKER, tiff_of
from seed_files import AFFINE, npz

from priorlens.checkpoint import read_config
from priorlens.errors import InputError, ModelError, PriorlensError
from priorlens.image_prior import MOST_CHANNELS, ImagePrior
from priorlens.images import read_image
from priorlens.manifest import read_manifest
from priorlens.measurement import arrays as measured_arrays
from priorlens.measurement.files import read_measurement
from priorlens.result_folder import read_result_folder
from priorlens.tables import read_table
from priorlens.volumes import dicom_headers
from priorlens.volumes.arrays import read_array_volume
from priorlens.volumes.dicom_files import find_series
from priorlens.volumes.nifti import read_nifti

CASES = {
    **{"image": 160, "mask": 40, "nifti": 80, "arrays": 50, "dicom": 50, "measurement": 50, "checkpoint": 60},
    **{"model": 12, "manifest": 30, "table": 30, "results": 12},
}
"""Of each reader, 574 in all; priors of other libraries, which take long to load, are left to the full run."""


def test_every_reader_has_its_share():
    assert {*CASES, "external"} == set(READERS) and sum(CASES.values()) >= 500


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def fuzzer(scratch: Path):
    """One process for all readers: it loads PyTorch once."""
    with Fuzzer(scratch / "worker") as fuzzer:
        yield fuzzer


@pytest.mark.parametrize("reader", CASES)
def test_nothing_but_results_and_lines(reader, scratch, fuzzer):
    seeds = seeds_of(reader, scratch, every=False, real=False)
    tally = Tally()
    for case in cases_of(reader, seeds, CASES[reader], 1, full=False):
        outcome = fuzzer.run(case)
        tally.add(case, outcome)
        if case.number < len(seeds):
            assert outcome.what == "accepted", f"{case.name}: {outcome.words}"
    assert [(case.number, case.name, outcome.words[-2000:]) for case, outcome in tally.findings] == []
    assert tally.cases == CASES[reader]


@pytest.mark.shared
def test_real_files_that_are_damaged(scratch, fuzzer):
    for reader in ("image", "nifti", "dicom"):
        seeds = [one for one in seeds_of(reader, scratch, every=False, real=True) if one.name.startswith("real")]
        if not seeds:
            pytest.skip("the real images are not here")
        for case in list(cases_of(reader, seeds, len(seeds) + 60, 2, full=False))[-20:]:
            outcome = fuzzer.run(case)
            assert outcome.what != "broken", (case.number, case.name, outcome.words[-2000:])


def test_equal_seeds_damage_alike(scratch):
    seeds = seeds_of("image", scratch, every=False, real=False)
    once, again = (list(cases_of("image", seeds, 90, 7, full=False)) for _ in range(2))
    assert once == again
    assert next(cases_of("image", seeds, 90, 7, full=False, only=88)) == once[88]


def test_what_is_run_as_code_is_found(scratch, fuzzer):
    """The check itself: a pickle that is read leaves its mark."""
    import os

    assert Harm().__reduce__() == (os.system, (f"touch {MARKER}",))
    (fuzzer.folder / MARKER).touch()
    case = next(cases_of("table", seeds_of("table", scratch, every=False, real=False), 1, 0, full=False))
    assert fuzzer.run(case).what == "broken"
    assert fuzzer.run(case).what == "accepted"


# --- what damage has brought to light


def refused(read, *parts: object, error: type[PriorlensError] = InputError) -> str:
    """One line of the package's own, without a warning beside it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(error) as caught:
            read()
    for part in parts:
        assert str(part) in str(caught.value), str(caught.value)
    return str(caught.value)


def npy_of(header: str, data: bytes = b"") -> bytes:
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header) + 1) + header.encode() + b"\n" + data


def test_texts_of_files_do_not_reach_the_terminal_as_commands(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text('anomaly\n"\x1b[31m\nnext"\n')
    line = refused(lambda: read_table(path, ["anomaly"]).lines[0].number("anomaly"), path)
    require_line(line, tmp_path)
    assert "\x1b" not in line and "\n" not in line


def test_a_line_does_not_fill_the_screen(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("anomaly\n" + "x" * 100_000)
    assert len(refused(lambda: read_table(path, ["anomaly"]).lines[0].number("anomaly"), path)) < 9_000


def test_a_damaged_tiff_prints_nothing(tmp_path, capfd):
    """libtiff writes to stderr by itself, and Pillow to a log that nobody has set up."""
    sides = {256: (3, [16]), 257: (3, [16]), 258: (3, [8]), 262: (3, [1]), 278: (3, [16])}
    for number, (compression, samples) in enumerate(((5, 1), (8, 1), (1, 65_024))):
        path = tmp_path / f"{number}.tif"
        path.write_bytes(tiff_of({**sides, 259: (3, [compression]), 277: (3, [samples])}, [b"\xff" * 40], 273, 279))
        refused(lambda path=path: read_image(path), path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["<f4", "<f8"])
def test_an_npy_that_python_2_wrote_gives_no_warning(tmp_path, kind):
    path = tmp_path / "a.npy"
    values = np.arange(256.0).astype(kind)
    path.write_bytes(npy_of(f"{{'descr': '{kind}', 'fortran_order': False, 'shape': (16L, 16L), }}", values.tobytes()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(path).pixels.shape == (1, 16, 16)


def test_floats_that_are_no_numbers_give_no_warning(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.full(256, 0x7FF0000000000001, np.uint64).view(np.float64).reshape(16, 16))  # a signalling nan
    refused(lambda: read_image(path), "nan or infinite")


@pytest.mark.parametrize("low", [-3e38, 2.9e38])
def test_colours_near_the_largest_float_stay_finite(tmp_path, low):
    """Without a warning: of a grey image of three channels the mean would be infinite."""
    path = tmp_path / "a.npy"
    pixels = np.full((3, 16, 16), 3e38, np.float32)
    pixels[:, 0, 0] = low
    np.save(path, pixels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isfinite(read_image(path).pixels).all()


def test_a_manifest_of_names_that_no_disk_could_hold(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text(f"file,group\n{'x' * 5_000},p\n")
    refused(lambda: read_manifest(path), path, "there is no file")


def test_nested_configurations(tmp_path):
    for content in ("[" * 200_000, '{"a":' * 100_000):
        (tmp_path / "config.json").write_text(content)
        refused(lambda: read_config(tmp_path), "config.json", error=ModelError)


@pytest.mark.parametrize("schema", ["Infinity", "NaN", "[" * 100_000])
def test_results_of_no_schema(tmp_path, schema):
    (tmp_path / "scores.csv").write_text("file,anomaly,error\n")
    (tmp_path / "calibration.csv").write_text("image,patient,anomaly\n")
    (tmp_path / "verdicts.json").write_text(f'{{"schema": {schema}')
    if "[" not in schema:
        (tmp_path / "verdicts.json").write_text(f'{{"schema": {schema}, "model": "", "setup": ""}}')
    refused(lambda: read_result_folder(tmp_path), "verdicts.json")


@pytest.mark.parametrize("width", [0, 7, 257, 10**9])
def test_models_of_a_width_that_none_has(width):
    with pytest.raises(InputError, match="width"):
        ImagePrior(1, width=width)


def test_models_of_more_channels_than_fit_into_memory():
    with pytest.raises(InputError, match="channels"):
        ImagePrior(MOST_CHANNELS + 1)


@pytest.mark.parametrize(
    "change", [{"plane": "nonsense"}, {"units": 1}, {"spacing": 0}, {"size": 2**31}, {"size": 32.5}, {"channels": []}]
)
def test_models_that_prepare_scans_as_none_is(change):
    from dataclasses import asdict

    from priorlens.volumes.scan_preparation import ScanPreparation
    from priorlens.volumes.voxel_intensity import VoxelIntensity

    known = ScanPreparation(("",), "arbitrary", (VoxelIntensity("robust"),), "axial", "2d", 4.0, 32, 0.0)
    told = json.loads(json.dumps(asdict(known)))
    assert ScanPreparation.restored(told) == known
    with pytest.raises((ValueError, TypeError)):
        ScanPreparation.restored({**told, **change})


@pytest.mark.parametrize("change", [{"channels": 10**7}, {"size": 2**31}, {"size": "64"}, {"intensity": {"mode": "x"}}])
def test_models_that_prepare_images_as_none_is(change):
    from dataclasses import asdict

    from priorlens.normalise import Intensity
    from priorlens.preparation import Preparation

    known = Preparation(1, 64, Intensity("range", 0.0, 255.0))
    assert Preparation.restored(asdict(known)) == known
    if "intensity" in change:
        change = {"intensity": asdict(known.intensity) | change["intensity"]}
    with pytest.raises((ValueError, TypeError)):
        Preparation.restored({**asdict(known), **change})


def test_what_diffusers_says_of_a_config_is_not_printed(tmp_path, capfd):
    pytest.importorskip("diffusers")
    from priorlens.prior.external import load_external

    unet = {"_class_name": "UNet2DModel", "sample_size": 8, "in_channels": 1, "out_channels": 1, "odd": 1, "": 2}
    unet |= {"block_out_channels": [4, 8], "layers_per_block": 1, "norm_num_groups": 2, "attention_head_dim": 4}
    unet |= {"down_block_types": ["DownBlock2D"] * 2, "up_block_types": ["UpBlock2D"] * 2}
    (tmp_path / "config.json").write_text(json.dumps(unet))
    (tmp_path / "scheduler_config.json").write_text(json.dumps({"_class_name": "DDPMScheduler", "odd": 1}))
    refused(lambda: load_external(tmp_path), "has no diffusion_pytorch_model", error=ModelError)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("change", [{"channels": [20_000] * 3}, {"num_res_blocks": 10**9}])
def test_networks_that_their_config_claims_to_be_huge(tmp_path, change):
    pytest.importorskip("monai")
    from priorlens.prior.external import load_external

    network = {"spatial_dims": 2, "in_channels": 1, "out_channels": 1, "num_res_blocks": 1, "channels": [4, 8, 8]}
    network |= {"attention_levels": [False] * 3, "norm_num_groups": 2, "num_head_channels": 4, **change}
    (tmp_path / "config.json").write_text(json.dumps({"network": network, "scheduler": {}}))
    refused(lambda: load_external(tmp_path), tmp_path, error=ModelError)


def test_a_nifti_that_lies_nowhere_gives_no_warning(tmp_path):
    import nibabel

    path = tmp_path / "a.nii"
    image = nibabel.Nifti2Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), AFFINE)
    image.header.set_qform(AFFINE, 1)
    content = bytearray(image.to_bytes())
    content[400:408] = struct.pack("<d", 1e300)
    path.write_bytes(content)
    refused(lambda: read_nifti(path), path, "disagree")


def test_wide_numbers_are_not_held_beside_the_voxels(tmp_path, monkeypatch):
    """Zeros of 64 bits, packed to almost nothing, are read piece by piece: two gigabytes stay the most there is."""
    from nibabel import Nifti1Image

    from priorlens.volumes import nifti

    path, values = tmp_path / "a.nii.gz", np.arange(512.0).reshape(8, 8, 8)
    path.write_bytes(gzip.compress(Nifti1Image(values, AFFINE).to_bytes()))
    monkeypatch.setattr(nifti, "_CHUNK", 100)
    np.testing.assert_array_equal(read_nifti(path).voxels[0], values)


def test_the_header_of_an_npz_is_not_read_whatever_its_length(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("affine.npy", npy_of("{}"))
        archive.writestr("voxels.npy", b"\x93NUMPY\2\0" + struct.pack("<I", 2**32 - 1) + bytes(MEGABYTE))
    refused(lambda: read_array_volume(path), path, "a header of 4294967295 bytes")


@pytest.mark.parametrize("order", ["C", "F"])
def test_the_voxels_of_an_npz_are_read_in_pieces(tmp_path, monkeypatch, order):
    from priorlens.volumes import arrays

    monkeypatch.setattr(arrays, "_CHUNK", 7)
    voxels = np.asarray(np.arange(120.0).reshape(2, 3, 4, 5), order=order)
    (tmp_path / "a.npz").write_bytes(npz(voxels=voxels, affine=AFFINE))
    np.testing.assert_array_equal(read_array_volume(tmp_path / "a.npz").voxels, voxels)


MHA = b"ObjectType = Image\nNDims = 3\nBinaryData = True\nCompressedData = %s\nDimSize = 8 8 8\n"
MHA += b"ElementType = MET_UCHAR\nElementDataFile = %s\n"


def test_an_mha_that_cannot_be_unpacked_is_not_taken_for_zeros(tmp_path, capfd):
    """SimpleITK says so on stderr, and goes on."""
    pytest.importorskip("SimpleITK")
    packed = bytearray(zeros(MEGABYTE))
    packed[40] ^= 255
    (tmp_path / "a.mha").write_bytes(MHA % (b"True", b"LOCAL") + bytes(packed[:100]))
    refused(lambda: read_array_volume(tmp_path / "a.mha"), tmp_path / "a.mha", "damaged")
    assert capfd.readouterr() == ("", "")


def test_an_mha_that_ends_the_process_that_reads_it(tmp_path, monkeypatch):
    pytest.importorskip("SimpleITK")
    from priorlens.volumes import itk_decoder

    crashing = tmp_path / "crashing.py"
    crashing.write_text("import os\nos.kill(os.getpid(), 11)\n")
    monkeypatch.setattr(itk_decoder, "__file__", str(crashing))
    (tmp_path / "a.mha").write_bytes(MHA % (b"False", b"LOCAL") + bytes(range(256)) * 2)
    refused(lambda: read_array_volume(tmp_path / "a.mha"), tmp_path / "a.mha", "the decoder stopped")


@pytest.mark.parametrize("name", [b"/dev/zero", b"../b.raw", b"LIST", b"%d.raw 1 8 1"])
def test_headers_that_lead_elsewhere(tmp_path, name):
    pytest.importorskip("SimpleITK")
    (tmp_path / "a.mhd").write_bytes(MHA % (b"False", name))
    refused(lambda: read_array_volume(tmp_path / "a.mhd"), tmp_path / "a.mhd", "not in one file beside it")


@pytest.mark.parametrize("late", [True, False])
def test_a_deflated_bomb_that_hides_its_transfer_syntax(tmp_path, monkeypatch, late):
    """Behind 20 kB of private data, or with a group length that leads to another, harmless stream."""
    import zlib

    monkeypatch.setattr(dicom_headers, "_MAX_INFLATED", MEGABYTE)
    if late:
        content = deflated(8 * MEGABYTE, b"\x02\0\x02\x01OB\0\0" + struct.pack("<I", 20_000) + bytes(20_000))
    else:
        small = zlib.compressobj(9, wbits=-15)
        harmless = (small.compress(b"small") + small.flush()).ljust(40, b"\0")
        content = deflated(8 * MEGABYTE, b"\x02\0\x02\x01OB\0\0" + struct.pack("<I", 40) + harmless, 12)
    (tmp_path / "a.dcm").write_bytes(content)
    _, left_out = find_series([tmp_path])
    assert "inflates to more than 1 GiB" in left_out[0].reason


def test_slices_that_lie_beyond_everything(tmp_path):
    from volumes.made_dicom import write_series

    def far(dataset, k):
        dataset.ImagePositionPatient = [0, 0, 1e300 * k]

    write_series(tmp_path, np.arange(300, dtype=np.int16).reshape(10, 10, 3), change=far)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        series, left_out = find_series([tmp_path])
    assert not series and any("does not tell where it lies" in one.reason for one in left_out)


def hdf5(path: Path, fill) -> Path:
    import h5py

    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        fill(file, h5py)
    path.write_bytes(content.getvalue())
    return path


def measured(path: Path):
    return lambda: read_measurement(path, None, None)


def test_an_hdf5_that_claims_terabytes(tmp_path):
    path = hdf5(tmp_path / "a.h5", lambda f, _: f.create_dataset("y", (2**20, 2**20), "<f8", chunks=(64, 64)))
    refused(measured(path), path, "bytes of numbers")


def test_an_hdf5_of_numbers_in_other_files(tmp_path):
    path = hdf5(
        tmp_path / "a.h5", lambda f, _: f.create_dataset("y", (8, 8), "u1", external=[("/proc/self/exe", 0, 64)])
    )
    refused(measured(path), path, "in other files")
    path = hdf5(tmp_path / "b.h5", lambda f, h5py: f.update({"y": h5py.ExternalLink("/etc/passwd", "/y")}))
    refused(measured(path), path, "holds no 'y'")


def test_an_hdf5_of_words_that_are_none(tmp_path):
    path = hdf5(tmp_path / "a.h5", lambda f, _: f.update({"y": b"\xff\xfe"}))
    refused(measured(path), path, "not a readable HDF5")


def test_an_npz_measurement_of_more_than_fits(tmp_path, monkeypatch):
    monkeypatch.setattr(measured_arrays, "_MOST", 1000)
    path = tmp_path / "a.npz"
    path.write_bytes(npz(y=np.ones((16, 16)), mask=np.ones((16, 16), bool)))
    refused(measured(path), path, "claims 2304 bytes")


@pytest.mark.parametrize(
    "arrays, part",
    [
        ({"views": np.array(1e12)}, "no 1e+12 views"),
        ({"physics": np.array("nonsense")}, "is not known"),
        ({"physics": np.array("blur:sigma=2"), "y": np.ones((8, 7))}, "a.npz: physics blur"),
        ({"physics": np.array("inpaint:mask=/etc/passwd")}, "names another file"),
        ({"physics": np.array("super:factor=64"), "y": np.ones((100, 100))}, "more than 4096"),
        ({"matrix": np.full((256, 16), 1e300)}, "nan or infinite"),
        ({"y": np.full((16, 16), 1e300), "mask": np.ones((16, 16))}, "single precision"),
    ],
)
def test_measurements_that_cannot_be_meant(tmp_path, arrays, part):
    path = tmp_path / "a.npz"
    path.write_bytes(npz(**{"y": np.ones((16, 16)), "noise": np.array(0.1), **arrays}))
    refused(measured(path), path, part)
