"""Where methods run: the Python of an environment, and what is told of the machine."""

import os
import platform
import sys
from pathlib import Path

from benchmarks import environments
from benchmarks.environments import Environments
from benchmarks.results import cpu_told, machine


def test_an_environment_may_be_named_by_a_link_from_here(tmp_path, monkeypatch):
    (tmp_path / "python").symlink_to(sys.executable)
    monkeypatch.chdir(tmp_path)
    assert Environments(tmp_path, Path("python")).python("anomalib") == tmp_path / "python"


def test_an_environment_is_made_anew_where_its_packages_or_their_versions_change(tmp_path, monkeypatch):
    for name in ("REQUIREMENTS", "CONSTRAINTS"):
        (tmp_path / name).write_text("a==1\n")
        monkeypatch.setattr(environments, name, tmp_path / name)
    made = []
    monkeypatch.setattr(environments.venv, "create", lambda folder, **_: (made.append(1), folder.mkdir(exist_ok=True)))
    monkeypatch.setattr(environments.subprocess, "run", lambda *_, **__: None)
    for name, count in (("", 1), ("", 1), ("CONSTRAINTS", 2), ("REQUIREMENTS", 3), ("", 3)):
        if name:
            (tmp_path / name).write_text("a==2\n")
        Environments(tmp_path).python("anomalib")
        assert len(made) == count


def test_the_commit_is_told_where_there_is_git(monkeypatch):
    assert machine(1)["commit"] != ""
    monkeypatch.setenv("PATH", "")
    assert machine(1)["commit"] is None


def test_cores_are_counted_where_the_system_does_not_say_which_may_be_used(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert machine(1)["cores"] == 3


def test_processors_of_one_name_are_told_apart(monkeypatch):
    cpu = "cpu family\t: 25\nmodel\t\t: {}\nmodel name\t: AMD EPYC\nflags\t\t: fpu {}\n\n"
    older, newer = cpu.format(1, "avx2"), cpu.format(17, "avx2 avx512_bf16")
    assert cpu_told(older + newer) == "AMD EPYC, family 25, model 1, without bfloat16"
    assert cpu_told(newer + older) == "AMD EPYC, family 25, model 17, with bfloat16"
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert cpu_told("processor\t: 0\nFeatures\t: fp asimd bf16\n") == "aarch64, with bfloat16"
    assert cpu_told("") == "aarch64"
