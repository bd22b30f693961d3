"""One contract for every operator: adjointness, unit norm, and pull against the closed form of the dense matrix."""

import warnings

import deepinv
import pytest
import torch

from priorlens.errors import InputError
from priorlens.measurement import inverses
from priorlens.measurement.ct import parallel_beam, radon_matrix
from priorlens.measurement.inverses import Dense, Factored, Iterative
from priorlens.measurement.linear import Matrix
from priorlens.measurement.mri import MultiCoil, magnetic_resonance, sampling, simulated_coils, to_image, to_kspace
from priorlens.measurement.operator import Operator
from priorlens.measurement.physics import build, operator, parse

SIDE = 16
SHAPE = (1, SIDE, SIDE)
ANGLES = torch.arange(6) * 30.0

EVERY_NAME = [
    "identity",
    "noise:sigma=.2",
    "ct:views=5",
    "ct:views=24,arc=360",
    "ct-fan:views=7",
    "mri",
    "mri:acceleration=4,pattern=gaussian,centre=.13",
    "mri:acceleration=2,pattern=equispaced,coils=3,centre=.2",
    "mri:acceleration=4,coils=8",
    "blur:sigma=1.5",
    "inpaint",
    "inpaint:keep=.2",
    "inpaint:box=.4",
    "super:factor=4",
]


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def matrix_of(A, shape: tuple[int, ...] = SHAPE, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """What A does to every unit image, as columns, in float64."""
    units = torch.eye(shape[0] * shape[1] * shape[2], dtype=dtype).reshape(-1, *shape)
    return A(units).flatten(1).double().T


def named(text: str):
    text = "mri:centre=.13" if text == "mri" else text  # the default of 8 % is one of 16 lines: allowed, but singular
    return build(parse(text), SHAPE, seed=3)


def from_deepinv(physics, shape: tuple[int, ...] = SHAPE):
    return operator(physics, shape)


def wrapped_by_deepinv() -> dict[str, tuple[object, tuple[int, ...]]]:
    """Physics that a user may bring, of each kind that `operator` treats apart."""
    mask = sampling((SIDE, SIDE), 4, 0.13, "cartesian", 0).float()
    maps = simulated_coils(4, (SIDE, SIDE))
    physics = deepinv.physics
    return {
        "tomography": (physics.Tomography(angles=ANGLES, img_width=SIDE, normalize=False), SHAPE),
        "mri, real image": (physics.MRI(mask=mask), SHAPE),
        "mri, complex image": (physics.MRI(mask=mask), (2, SIDE, SIDE)),
        "multi-coil, real image": (physics.MultiCoilMRI(mask=mask, coil_maps=maps), SHAPE),
        "multi-coil, complex image": (physics.MultiCoilMRI(mask=mask, coil_maps=maps), (2, SIDE, SIDE)),
        "inpainting, colour": (physics.Inpainting((3, 8, 8), mask=(normal(3, 8, 8) > 0).float()), (3, 8, 8)),
        "denoising": (physics.Denoising(), SHAPE),
        "downsampling": (physics.Downsampling((1, 16, 16), filter="gaussian", factor=2), SHAPE),
        "blur with borders": (physics.Blur(torch.rand(1, 1, 3, 3), padding="valid"), SHAPE),
    }


def larger_than_the_coils():
    sampled = sampling((10, 12), 2, 0.3, "cartesian", 0)
    phase = torch.polar(torch.ones(10, 12), normal(10, 12))
    return magnetic_resonance(simulated_coils(2, (10, 12)) * phase, sampled, (SIDE, SIDE))


def iterative():
    return Iterative(Matrix(normal(100, SIDE * SIDE), SHAPE), tolerance=1e-6)


OPERATORS = {
    **{text: lambda text=text: named(text) for text in EVERY_NAME},
    **{f"deepinv {kind}": lambda kind=kind: from_deepinv(*wrapped_by_deepinv()[kind]) for kind in wrapped_by_deepinv()},
    "coils with a phase, in a larger image": larger_than_the_coils,
    "iterative": iterative,
    "dense": lambda: Dense(normal(300, SIDE * SIDE), SHAPE, (30, 10)),
}


@pytest.fixture(scope="module", params=OPERATORS, ids=OPERATORS)
def any_operator(request):
    return OPERATORS[request.param]()


def test_it_is_an_operator(any_operator):
    assert isinstance(any_operator, Operator)
    y = any_operator.A(normal(2, *any_operator.shape))
    assert y.dtype == torch.float32
    assert any_operator.A_adjoint(y).shape == (2, *any_operator.shape) == any_operator.pull(y, 0.1).shape


def test_the_adjoint_is_the_adjoint(any_operator):
    """<A x, y> = <x, A_adjoint y> to a millionth of |A x| |y|, float32's precision."""
    x = normal(3, *any_operator.shape)
    Ax = any_operator.A(x).flatten(1)
    y = normal(3, Ax[0].numel(), seed=1)
    back = any_operator.A_adjoint(y.reshape(any_operator.A(x).shape)).flatten(1)
    left, right = (Ax.double() * y).sum(1), (x.flatten(1).double() * back).sum(1)
    assert ((left - right).abs() <= 2e-6 * Ax.norm(dim=1) * y.norm(dim=1)).all()


def test_the_largest_singular_value_is_one(any_operator):
    largest = torch.linalg.matrix_norm(matrix_of(any_operator.A, any_operator.shape), 2)
    assert float(largest) == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("ridge", [1.0, 0.03, 1e-3])
def test_pull_is_the_closed_form_of_the_dense_matrix(any_operator, ridge):
    A = matrix_of(any_operator.A, any_operator.shape)
    y = any_operator.A(normal(2, *any_operator.shape)) + 0.1
    exact = A.T @ torch.linalg.solve(A @ A.T + ridge * torch.eye(len(A)), y.flatten(1).double().T)
    pulled = any_operator.pull(y, ridge).flatten(1).double().T
    assert float((pulled - exact).norm() / exact.norm()) < 1e-4


@pytest.mark.parametrize("name", ["identity", "inpaint", "inpaint:box=.4", "super:factor=4", "mri"])
def test_without_a_ridge_pull_is_the_pseudo_inverse(name):
    known = named(name)
    A = matrix_of(known.A)
    y = known.A(normal(2, *SHAPE))
    exact = torch.linalg.pinv(A, rtol=1e-4) @ y.flatten(1).double().T
    assert torch.allclose(known.pull(y, 0.0).flatten(1).double().T, exact, atol=1e-5)


@pytest.mark.parametrize("numbers", [40, 100], ids=["measurement", "pixels"])
def test_in_float64_factors_are_exact_down_to_tiny_ridges(numbers):
    known = Dense(normal(numbers, 64, dtype=torch.float64), (1, 8, 8))
    A = matrix_of(known.A, (1, 8, 8), torch.float64)
    y = normal(2, numbers, dtype=torch.float64)
    left, singular, right = torch.linalg.svd(A, full_matrices=False)
    exact = right.T @ ((singular / (singular**2 + 1e-9))[:, None] * (left.T @ y.T))
    assert torch.allclose(known.pull(y, 1e-9).flatten(1).T, exact, rtol=1e-5, atol=1e-8)


def test_a_factor_too_wide_for_an_inverse_gives_the_same(monkeypatch):
    known = named("ct:views=5")
    y = known.A(normal(2, *SHAPE))
    expected = known.pull(y, 0.01)
    monkeypatch.setattr(inverses, "LARGEST_INVERSE", 10)
    known._forget()
    assert torch.allclose(known.pull(y, 0.01), expected, atol=1e-5)


def test_factors_are_kept_while_they_fit(monkeypatch):
    known = named("ct:views=5")
    y = known.A(normal(1, *SHAPE))
    for ridge in (0.1, 0.2, 0.1):
        known.pull(y, ridge)
    assert list(known._factors) == [0.2, 0.1]
    first = known._factors[0.1]
    known.pull(y, 0.1)
    assert known._factors[0.1] is first
    monkeypatch.setattr(inverses, "FACTOR_BYTES", 1)
    known.pull(y, 0.3)
    assert list(known._factors) == [0.3]


def test_in_another_precision_factors_are_found_again():
    known = named("ct:views=5")
    y = known.A(normal(1, *SHAPE))
    single = known.pull(y, 1e-3)
    double = known.double().pull(y.double(), 1e-3)
    assert double.dtype == torch.float64
    assert torch.allclose(single.double(), double, atol=1e-5)


def test_too_much_to_factor_is_iterative(monkeypatch):
    monkeypatch.setattr(inverses, "LARGEST_GRAM", 20)
    known = parallel_beam(SIDE, ANGLES)
    assert isinstance(known, Iterative)
    monkeypatch.undo()
    factored = parallel_beam(SIDE, ANGLES)
    assert isinstance(factored, Factored)
    y = known.A(normal(2, *SHAPE))
    exact = factored.pull(y, 0.01)
    assert float((known.pull(y, 0.01) - exact).norm() / exact.norm()) < 2e-3


def test_gradients_pass_through(any_operator):
    x = normal(1, *any_operator.shape).requires_grad_()
    any_operator.A(x).square().sum().backward()
    expected = 2 * any_operator.A_adjoint(any_operator.A(x.detach()))
    assert torch.allclose(x.grad, expected, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"circle": True}, {"fan_beam": True}, {"parallel_computation": False}])
@pytest.mark.parametrize("side", [16, 17])
def test_the_radon_matrix_is_what_deepinv_computes(side, options):
    physics = deepinv.physics.Tomography(angles=ANGLES, img_width=side, normalize=False, **options)
    matrix, measured = radon_matrix(physics)
    x = normal(2, 1, side, side)
    expected = physics.A(x)
    assert measured == expected.shape[2:]
    found = (matrix.float() @ x.flatten(1).T).T.reshape(expected.shape)
    assert torch.allclose(found, expected, atol=1e-4 * float(expected.abs().max()))


def test_real_magnetic_resonance_is_deepinvs_with_an_imaginary_part_of_zero():
    sampled = sampling((SIDE, SIDE), 4, 0.13, "cartesian", 0)
    maps = simulated_coils(3, (SIDE, SIDE))
    physics = deepinv.physics.MultiCoilMRI(mask=sampled.float(), coil_maps=maps)
    known = MultiCoil(maps, sampled)
    x = normal(2, *SHAPE)
    expected = physics.A(torch.cat([x, torch.zeros_like(x)], 1))  # batch, real and imaginary, coil, height, width
    found = known.A(x) * known.norm
    assert torch.allclose(found, expected[..., sampled].moveaxis(1, -1), atol=1e-5)
    assert torch.allclose(known.A_adjoint(found) * known.norm, physics.A_adjoint(expected)[:, :1], atol=1e-5)


def test_kspace_and_back():
    image = torch.complex(normal(2, 7, 8), normal(2, 7, 8, seed=1))
    assert torch.allclose(to_image(to_kspace(image)), image, atol=1e-5)
    point = torch.zeros(7, 8, dtype=torch.complex64)
    point[3, 4] = 1
    assert torch.allclose(to_kspace(point), torch.full((7, 8), 56**-0.5, dtype=torch.complex64), atol=1e-6)


def test_bad_matrices_are_refused():
    with pytest.raises(ValueError, match="cannot measure"):
        Dense(torch.ones(2, 3), (1, 2, 2))
    with pytest.raises(ValueError, match="measures nothing"):
        Dense(torch.zeros(2, 4), (1, 2, 2))
    with pytest.raises(ValueError, match="measures nothing"):
        Dense(torch.full((2, 4), torch.nan), (1, 2, 2))


def test_what_is_not_linear_or_not_one_tensor_is_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pair = deepinv.physics.stack(deepinv.physics.Denoising(), deepinv.physics.Denoising())
    with pytest.raises(InputError, match="several tensors"):
        operator(pair, SHAPE)
    with pytest.raises(InputError, match="not linear"):
        operator(torch.nn.Identity(), SHAPE)
