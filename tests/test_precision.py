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


@pytest.mark.parametrize(("avx512", "amx"), [(False, False), (True, False), (False, True)])
def test_without_instructions_it_is_float32(monkeypatch, avx512, amx):
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert computes_bfloat16("cpu") is (avx512 or amx)
    assert dtype_of(None) == (torch.bfloat16 if avx512 or amx else torch.float32)


def test_other_processors_are_asked_by_the_library_that_computes(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert computes_bfloat16("cpu") is False


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
