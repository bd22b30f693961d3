"""Freed memory is kept where the C library lets itself be asked, and nothing happens elsewhere."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from priorlens.commands import memory
from priorlens.commands.memory import keep_freed_memory


class Library:
    """A C library that notes what it is asked; with `answer`, the names it has."""

    def __init__(self, answer: int) -> None:
        self.options: dict[int, int] = {}
        self.answer = answer

    def mallopt(self, option: int, value: int) -> int:
        self.options[option] = value
        return self.answer


@pytest.fixture
def linux(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(memory.sys, "platform", "linux")
    return monkeypatch


def test_it_does_not_raise_and_may_be_called_again():
    for _ in range(3):
        assert keep_freed_memory() is None


@pytest.mark.parametrize("answer", [0, 1], ids=["refused", "granted"])
def test_all_blocks_come_from_a_heap_that_is_not_trimmed(linux, answer):
    """By glibc's numbers: M_TRIM_THRESHOLD -1, M_TOP_PAD -2, M_MMAP_MAX -4; values are C ints."""
    library = Library(answer)
    linux.setattr(memory.ctypes, "CDLL", lambda name: library)
    keep_freed_memory()
    once = dict(library.options)
    keep_freed_memory()
    assert library.options == once
    assert once.keys() == {-1, -2, -4}
    assert once[-4] == 0, "no block of the main thread is mapped: a threshold could not be beyond 32 MiB"
    assert once[-1] > once[-2] >= 64 * 2**20
    assert all(ctypes.c_int(value).value == value for value in once.values())


def test_nothing_happens_where_the_library_has_no_mallopt(linux):
    linux.setattr(memory.ctypes, "CDLL", lambda name: object())
    keep_freed_memory()


def test_nothing_happens_where_no_library_can_be_opened(linux):
    def missing(name: str | None) -> object:
        raise OSError("no such library")

    linux.setattr(memory.ctypes, "CDLL", missing)
    keep_freed_memory()


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_other_systems_are_not_asked(monkeypatch, platform):
    asked = []
    monkeypatch.setattr(memory.sys, "platform", platform)
    monkeypatch.setattr(memory.ctypes, "CDLL", asked.append)
    keep_freed_memory()
    assert asked == []


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="no glibc")
def test_glibc_accepts_every_option(linux):
    answers = []
    known = ctypes.CDLL(None).mallopt

    def mallopt(option: int, value: int) -> None:
        answers.append(known(option, value))

    linux.setattr(memory.ctypes, "CDLL", lambda name: type("C", (), {"mallopt": staticmethod(mallopt)}))
    keep_freed_memory()
    assert answers == [1, 1, 1]


FAULTS = """
import resource, sys, torch
from priorlens.commands.memory import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
def once():
    torch.ones(48 * 2**18)  # 48 MiB
for _ in range(30):
    once()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    once()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="no glibc")
def test_a_large_tensor_finds_the_memory_of_the_one_before():
    def faults(how: str) -> int:
        done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
        return int(done.stdout)

    if (before := faults("not kept")) < 10:
        pytest.skip("torch has another allocator here, which keeps memory by itself")
    assert faults("kept") < before / 5
