"""Measurements in files: what was written comes back as y, operator, noise and scale; what is wrong is one line."""

import sys

import h5py
import numpy as np
import pytest
import torch

from priorlens.datasets import is_measurement
from priorlens.errors import InputError, WeightsError
from priorlens.measurement.ct import detectors, parallel_beam
from priorlens.measurement.files import read_measurement
from priorlens.measurement.mri import sampling, simulated_coils, to_kspace
from priorlens.measurement.physics import build, parse

SIDE = 16
SHAPE = (1, SIDE, SIDE)


def phantom(height: int = SIDE, width: int = SIDE) -> torch.Tensor:
    """A bright disc with a hole, of intensity 1."""
    rows = torch.linspace(-1, 1, height)[:, None]
    columns = torch.linspace(-1, 1, width)
    radius = (rows**2 + columns**2).sqrt()
    return ((radius < 0.8) & (radius > 0.3)).float()[None, None] * 0.5 + (radius < 0.8).float() * 0.5


def write(path, **arrays):
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        with h5py.File(path, "w") as file:
            for name, value in arrays.items():
                file[name] = value
    return path


def write_cfl(path, array):
    path.with_suffix(".hdr").write_text("# Dimensions\n" + " ".join(map(str, array.shape)) + "\n# Command\nphantom\n")
    array.astype("<c8").ravel(order="F").tofile(path)
    return path


def scanned(
    height: int = 32, width: int = 40, coils: int = 4, noise: float = 0.0, phase: float = 1.0, acceleration: int = 2
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """k-space of the phantom with a smooth phase, its mask and its coil maps."""
    maps = simulated_coils(coils, (height, width))
    slope = torch.linspace(-phase, phase, width) + torch.linspace(0, phase, height)[:, None]
    kspace = to_kspace(maps * phantom(height, width)[0] * torch.polar(torch.ones(height, width), slope))
    sampled = sampling((height, width), acceleration, 0.3, "cartesian", 0)
    generator = torch.Generator().manual_seed(0)
    kspace = kspace + noise * torch.complex(*torch.randn(2, *kspace.shape, generator=generator))
    return kspace * sampled, sampled, maps


def close_to_the_phantom(measurement, within: float) -> bool:
    found = measurement.operator.pull(measurement.y, 1e-3)
    truth = phantom(*found.shape[2:])
    return float((found - truth).norm() / truth.norm()) < within


def test_what_is_a_measurement_by_its_name(tmp_path):
    names = ["a.npz", "a.h5", "a.HDF5", "a.cfl", "a.png", "a.hdr", "a"]
    assert [is_measurement(tmp_path / name) for name in names] == [True] * 4 + [False] * 3


@pytest.mark.parametrize("suffix", [".npz", ".h5", ".hdf5"])
@pytest.mark.parametrize("turned", [False, True], ids=["detector first", "view first"])
def test_a_sinogram(tmp_path, suffix, turned):
    angles = torch.arange(30) * 6.0
    known = parallel_beam(SIDE, angles)
    y = (known.A(phantom())[0] * known.norm * 7).numpy()  # some unit of attenuation
    path = write(tmp_path / f"y{suffix}", y=y.T if turned else y, angles=angles.numpy(), noise=0.014)
    measurement = read_measurement(path, None, None)
    assert measurement.operator.shape == SHAPE
    assert measurement.y.shape == (1, detectors(SIDE), 30)
    assert measurement.note["scale"] == pytest.approx(7, rel=0.15)
    assert measurement.noise == pytest.approx(0.014 / known.norm / measurement.note["scale"])
    assert close_to_the_phantom(measurement, 0.2)
    again = read_measurement(path, parse("ct:views=30"), (SIDE, SIDE))
    assert torch.equal(again.y, measurement.y)


def test_a_sinogram_of_the_inscribed_circle_and_a_number_of_views(tmp_path):
    known = parallel_beam(SIDE, torch.arange(20) * 9.0, circle=True)
    path = write(tmp_path / "y.npz", y=(known.A(phantom())[0] * known.norm).numpy(), views=20, scale=1.0)
    measurement = read_measurement(path, None, (SIDE, SIDE))
    assert torch.allclose(measurement.y, known.A(phantom()), atol=1e-5)
    assert measurement.note["scale_from"] == "file"
    assert measurement.note["noise_from"] == "estimated"


@pytest.mark.parametrize("name", ["identity", "noise:sigma=.1", "blur:sigma=1", "super:factor=2", "ct-fan:views=9"])
def test_any_named_physics_from_the_file_or_the_caller(tmp_path, name):
    known = build(parse(name), SHAPE)
    y = (known.A(phantom())[0].squeeze(0) * known.norm).numpy()
    within = write(tmp_path / "a.npz", y=y, physics=name, scale=1.0, noise=0.01)
    outside = write(tmp_path / "b.h5", y=y, scale=1.0, noise=0.01)
    for path, physics in ((within, None), (outside, parse(name))):
        measurement = read_measurement(path, physics, (SIDE, SIDE))
        assert torch.allclose(measurement.y, known.A(phantom()), atol=1e-5)
        assert measurement.noise == pytest.approx(0.01 / known.norm)


def test_a_text_as_attribute_of_hdf5(tmp_path):
    with h5py.File(tmp_path / "y.h5", "w") as file:
        file["y"] = phantom()[0, 0].numpy()
        file.attrs["physics"] = "identity"
    assert read_measurement(tmp_path / "y.h5", None, None).note["physics"] == "identity"


def test_pixels_under_a_mask(tmp_path):
    mask = torch.rand(SIDE, SIDE, generator=torch.Generator().manual_seed(0)) > 0.5
    y = 3 * phantom()[0, 0] * mask
    path = write(tmp_path / "y.npz", y=y.numpy(), mask=mask.numpy(), noise=0.3)
    measurement = read_measurement(path, None, None)
    assert measurement.note["scale"] == pytest.approx(3, rel=0.02)
    assert torch.allclose(measurement.y * measurement.note["scale"], y[mask][None])
    boxed = write(tmp_path / "z.npz", y=y.numpy(), noise=0.3)
    kept = read_measurement(boxed, parse("inpaint:box=.5"), None).y
    assert kept.shape == (1, SIDE * SIDE - 64)


def test_a_matrix(tmp_path):
    matrix = torch.randn(100, 8 * 12, generator=torch.Generator().manual_seed(0)) * 5
    x = phantom(8, 12)
    path = write(tmp_path / "y.npz", y=(matrix @ x.flatten()).numpy(), matrix=matrix.numpy(), noise=0.1, scale=1.0)
    measurement = read_measurement(path, None, (8, 12))
    assert torch.allclose(measurement.operator.A(x), measurement.y, atol=1e-5)


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_kspace_with_its_coil_maps(tmp_path, suffix):
    kspace, sampled, maps = scanned(noise=0.01)
    path = write(tmp_path / f"y{suffix}", y=kspace.numpy(), mask=sampled.numpy(), coil_maps=maps.numpy())
    measurement = read_measurement(path, None, None)
    assert measurement.operator.shape == (1, 32, 40)
    assert measurement.y.shape == (1, 4, int(sampled.sum()), 2)
    assert measurement.note["coil_maps_from"] == "file"
    assert measurement.note["scale"] == pytest.approx(1, rel=0.2)
    assert close_to_the_phantom(measurement, 0.25)
    assert 0.01 / 2 < measurement.noise < 0.1


@pytest.mark.parametrize("unit", [1e-12, 1e15])
def test_the_scanners_units_do_not_matter(tmp_path, unit):
    kspace, sampled, maps = scanned()
    path = write(tmp_path / "y.npz", y=kspace.numpy() * unit, mask=sampled.numpy(), coil_maps=maps.numpy())
    measurement = read_measurement(path, None, None)
    assert measurement.note["scale"] == pytest.approx(unit, rel=0.2)
    assert close_to_the_phantom(measurement, 0.25)


def test_one_coil_needs_no_maps(tmp_path):
    kspace, _, _ = scanned(coils=1, acceleration=1)
    measurement = read_measurement(write(tmp_path / "y.npz", y=kspace[0].numpy()), None, None)
    assert measurement.note["coil_maps_from"] == "one coil"
    assert close_to_the_phantom(measurement, 0.2)


def test_a_bart_pair_with_coil_maps_by_espirit(tmp_path):
    pytest.importorskip("sigpy")
    kspace, _, _ = scanned(noise=0.002)
    as_bart = kspace.numpy().transpose(1, 2, 0)[None]  # read-out of length 1, two phase directions, coil
    path = write_cfl(tmp_path / "ksp.cfl", as_bart)
    measurement = read_measurement(path, None, None)
    assert measurement.note["coil_maps_from"] == "ESPIRiT"
    assert close_to_the_phantom(measurement, 0.25)
    other = read_measurement(path.with_suffix(".hdr"), parse("mri"), (32, 40))
    assert torch.allclose(other.y, measurement.y)


@pytest.mark.parametrize(("size", "grid"), [((24, 24), [19, 24]), ((40, 40), [32, 40]), ((64, 48), [32, 40])])
def test_kspace_for_a_model_of_another_size(tmp_path, size, grid):
    kspace, sampled, maps = scanned()
    path = write(tmp_path / "y.npz", y=kspace.numpy(), mask=sampled.numpy(), coil_maps=maps.numpy())
    measurement = read_measurement(path, None, size)
    assert measurement.operator.shape == (1, *size)
    assert measurement.note["grid"] == grid
    found = measurement.operator.pull(measurement.y, 1e-3)
    top, left = ((whole - part + part % 2) // 2 for whole, part in zip(size, grid, strict=True))
    truth = torch.zeros_like(found)
    truth[..., top : top + grid[0], left : left + grid[1]] = phantom(*grid)
    assert float((found - truth).norm() / truth.norm()) < 0.35  # a sharp edge on a coarser grid


def test_noise_of_kspace_is_found(tmp_path):
    kspace, sampled, maps = scanned(noise=0.3)
    path = write(tmp_path / "y.npz", y=kspace.numpy(), mask=sampled.numpy(), coil_maps=maps.numpy(), scale=1.0)
    measurement = read_measurement(path, None, None)
    assert measurement.noise * measurement.operator.norm == pytest.approx(0.3, rel=0.1)


def kspace_arrays() -> dict[str, np.ndarray]:
    kspace, sampled, maps = scanned()
    return {"y": kspace.numpy(), "mask": sampled.numpy(), "coil_maps": maps.numpy()}


IMAGE = phantom()[0, 0].numpy()
WRONG = {
    "no y": ({"x": IMAGE}, None, None, "holds no 'y'"),
    "nothing said": ({"y": IMAGE}, None, None, "does not say what measured y"),
    "nan": ({"y": IMAGE * np.nan, "physics": "identity"}, None, None, "has nan or infinite"),
    "infinite parameter": ({"y": IMAGE, "angles": np.array([np.inf])}, None, None, "'angles' has nan or infinite"),
    "empty": ({"y": IMAGE[:0], "physics": "identity"}, None, None, "'y' holds no numbers"),
    "text": ({"y": np.array("abc"), "physics": "identity"}, None, None, "'y' holds no numbers"),
    "zeros": ({"y": 0 * IMAGE, "physics": "identity"}, None, None, "no signal"),
    "wrong views": ({"y": np.ones((23, 12))}, "ct:views=24", None, "no 24 views"),
    "angles against views": ({"y": np.ones((23, 12)), "angles": np.arange(12)}, "ct:views=24", None, "12 angles, not"),
    "negative views": ({"y": np.ones((23, 12)), "views": -3}, None, None, "'views' is not one number"),
    "detector": ({"y": np.ones((23, 12)), "angles": np.arange(12)}, None, (32, 32), "needs 46"),
    "not square": ({"y": np.ones((23, 12)), "angles": np.arange(12)}, None, (16, 12), "square images"),
    "model's size": ({"y": IMAGE, "physics": "identity"}, None, (32, 32), "the model's are 32x32"),
    "three dimensions": ({"y": IMAGE[None], "physics": "identity"}, None, None, "not an image of height and width"),
    "fan without a size": ({"y": IMAGE, "physics": "ct-fan:views=16"}, None, None, "field of view"),
    "fan's shape": ({"y": IMAGE, "physics": "ct-fan:views=9"}, None, (16, 16), "gives (23, 9)"),
    "unknown physics": ({"y": IMAGE, "physics": "pet"}, None, None, "'pet' is not known"),
    "random pixels": ({"y": IMAGE}, "inpaint:keep=.5", None, "which pixels are there"),
    "empty mask": ({"y": IMAGE, "mask": IMAGE > 2}, None, None, "measures nothing"),
    "mask's shape": ({"y": IMAGE, "mask": IMAGE[:3]}, None, None, "'mask' of shape (3, 16)"),
    "matrix": ({"y": IMAGE[0], "matrix": np.ones((3, 64))}, None, None, "does not give the 16 numbers"),
    "matrix's size": ({"y": IMAGE[0], "matrix": np.ones((16, 64))}, None, (9, 9), "for images of 64 pixels"),
    "matrix without noise": ({"y": np.ones(9), "matrix": np.eye(9)}, None, None, "does not say how noisy"),
    "negative noise": ({"y": IMAGE, "physics": "identity", "noise": -1.0}, None, None, "'noise' is not one number"),
    "complex image": ({"y": IMAGE + 1j}, "blur:sigma=1", None, "'y' is complex"),
    "real k-space": ({"y": IMAGE}, "mri", None, "'y' is real"),
    "k-space of slices": ({"y": np.ones((2, 3, 16, 16), complex)}, None, None, "save one slice"),
    "k-space's mask": ({**kspace_arrays(), "mask": np.ones((3, 3))}, None, None, "'mask' of shape (3, 3)"),
    "coil maps": ({**kspace_arrays(), "coil_maps": np.ones((3, 32, 40))}, None, None, "do not fit 'y'"),
    "empty coil maps": ({**kspace_arrays(), "coil_maps": np.zeros((4, 32, 40))}, None, None, "zero everywhere"),
    "nothing sampled": ({"y": np.zeros((2, 16, 16), complex)}, None, None, "too few; check 'mask'"),
    "tiny model": (kspace_arrays(), None, (8, 8), "choose a larger model"),
    "no calibration": ({"y": np.eye(16)[None].repeat(2, 0) + 0j}, None, None, "too few of at least 8"),
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_what_is_wrong_is_said_in_one_line_with_the_file(tmp_path, case, suffix):
    arrays, physics, size, said = WRONG[case]
    if suffix == ".h5" and case == "text":
        arrays = {**arrays, "y": "abc"}
    path = write(tmp_path / f"y{suffix}", **arrays)
    with pytest.raises(InputError) as error:
        read_measurement(path, parse(physics) if physics else None, size)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    if case != "unknown physics":
        assert str(path) in str(error.value)


def test_files_that_cannot_be_read(tmp_path):
    np.savez(tmp_path / "pickled.npz", y=np.array([{}], dtype=object))
    for name in ("broken.npz", "broken.h5", "y.txt"):
        (tmp_path / name).write_bytes(b"no such thing")
    for name, said in {
        "pickled.npz": "pickled Python objects",
        "broken.npz": "never loaded|not a readable",
        "broken.h5": "not a readable HDF5",
        "y.txt": "is not one of .npz",
        "missing.npz": "no such file",
    }.items():
        with pytest.raises(InputError, match=said):
            read_measurement(tmp_path / name, None, None)


def test_bart_pairs_that_do_not_fit(tmp_path):
    path = write_cfl(tmp_path / "ksp.cfl", np.ones((1, 16, 16, 2), complex))
    header = path.with_suffix(".hdr")
    for text, said in {
        "# Dimensions\n1 16 16 3\n": "says 6144; copy both",
        "# Dimensions\nfour\n": "no line of dimensions",
        "# Dimensions\n": "no line of dimensions",
        "# Dimensions\n0 16\n": "cannot be",
        "# Dimensions\n2 8 16 2\n": "not one slice",
        "# Dimensions\n1 16 16 1 2\n": "not one slice",
    }.items():
        header.write_text(text)
        with pytest.raises(InputError, match=said):
            read_measurement(path, None, None)
    header.unlink()
    with pytest.raises(InputError, match=r"needs ksp.hdr beside it"):
        read_measurement(path, None, None)


def test_without_sigpy_the_line_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sigpy.mri.app", None)
    arrays = kspace_arrays()
    del arrays["coil_maps"]
    with pytest.raises(WeightsError, match=r"pip install 'priorlens\[mri\]'"):
        read_measurement(write(tmp_path / "y.npz", **arrays), None, None)
