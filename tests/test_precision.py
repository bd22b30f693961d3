"""Which arithmetic networks compute in."""

import pytest
import torch

from priorlens import precision
from priorlens.errors import InputError
from priorlens.precision import VARIABLE, computes_bfloat16, half_width

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def unasked(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    precision._has_instructions.cache_clear()
    yield
    precision._has_instructions.cache_clear()


def dtype_of(wanted: bool | None) -> torch.dtype:
    with half_width(CPU, wanted):
        return (torch.ones(2, 2) @ torch.ones(2, 2)).dtype


@pytest.mark.parametrize(("wanted", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_who_asks_is_given_it_whatever_the_machine(wanted, dtype):
    assert dtype_of(wanted) == dtype


@pytest.mark.parametrize(
    ("capability", "instructions", "expected"),
    [("AVX2", False, False), ("AVX512", False, False), ("AVX512", True, True), ("DEFAULT", False, False)],
)
def test_without_instructions_it_is_float32(monkeypatch, capability, instructions, expected):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: instructions)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert computes_bfloat16("cpu") is expected
    assert dtype_of(None) == (torch.bfloat16 if expected else torch.float32)


@pytest.mark.parametrize(("asked", "expected"), [("bfloat16", True), ("float32", False)])
def test_the_environment_has_the_last_word_where_nobody_asks(monkeypatch, asked, expected):
    monkeypatch.setenv(VARIABLE, asked)
    assert computes_bfloat16("cpu") is expected
    assert dtype_of(None) == (torch.bfloat16 if expected else torch.float32)
    assert dtype_of(not expected) == (torch.float32 if expected else torch.bfloat16)


def test_an_unknown_arithmetic_is_refused(monkeypatch):
    monkeypatch.setenv(VARIABLE, "float8")
    with pytest.raises(InputError, match="PRIORLENS_PRECISION=float8"):
        half_width(CPU)
