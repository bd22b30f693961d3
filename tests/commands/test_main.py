"""Entry points, help, and how errors end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Command
from typer.testing import CliRunner

import priorlens
from priorlens import anodode, klip_rules
from priorlens.__main__ import app
from priorlens.blocks import PROCEDURES
from priorlens.commands.options import FalseDiscoveries, Posterior, Rule
from priorlens.errors import InputError
from priorlens.posterior.denoisers import POSTERIORS

COMMANDS = ("demo", "fit", "score", "evaluate", "calibrate", "combine", "monitor", "inspect")
SOURCE = Path(priorlens.__file__).parents[1]


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, env=environment)


def test_importing_the_package_and_its_command_line_loads_nothing_heavy() -> None:
    heavy = {"torch", "timm", "numpy", "scipy", "matplotlib", "rich"}
    ran = python("-c", f"import sys, priorlens, priorlens.__main__; print(sorted({heavy} & set(sys.modules)))")
    assert ran.stdout == "[]\n", ran.stdout + ran.stderr


def test_python_m() -> None:
    ran = python("-m", "priorlens", "--version")
    assert ran.stdout == f"priorlens {priorlens.__version__}\n" and ran.returncode == 0
    ran = python("-m", "priorlens", "score", "model", "no-such-image.png", "--out", "results")
    assert ran.stderr == "priorlens: no-such-image.png: there is no such file or folder; check the path\n"
    assert ran.returncode == 3


def test_every_public_name_can_be_had_and_no_other() -> None:
    for name in priorlens.__all__:
        assert getattr(priorlens, name) is not None
        assert name in dir(priorlens)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = priorlens.nothing


def test_help_names_every_command_and_every_exit_code(run: Command) -> None:
    ran = run("--help")
    assert ran.code == 0
    for word in (*COMMANDS, "Exit codes", *(f"\n    {code} " for code in (0, 2, 3, 4, 5, 6, 7, 8, 130))):
        assert word in ran.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(run: Command, command: str) -> None:
    ran = run(command, "--help")
    assert ran.code == 0
    if command != "demo":
        assert f"priorlens {command} " in ran.stdout.split("Example")[1], "an example to copy"
    options = ran.stdout.split("Options:")[1]
    assert all(len(line.split("  ")) > 1 for line in options.splitlines() if line.startswith("  --"))
    assert max(map(len, ran.stdout.splitlines())) <= 80


def test_the_rules_that_help_lists_are_the_detectors() -> None:
    own = [rule for rule in klip_rules.KLIP_RULES if rule != "reference"]  # which is a recipe
    assert tuple(rule.value for rule in Rule) == tuple(dict.fromkeys([*anodode.RULES, *own]))
    assert tuple(one.value for one in Posterior) == POSTERIORS
    assert tuple(one.value for one in FalseDiscoveries) == PROCEDURES


def test_wrong_options_are_exit_2(run: Command) -> None:
    assert run("fit", "--nonsense").code == 2
    assert run("nonsense").code == 2
    assert run("fit", "images", "--out", "model", "--resume", "--overwrite").code == 2


def test_a_traceback_for_those_who_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIORLENS_DEBUG", "1")
    result = CliRunner().invoke(app, ["score", "model", "missing.png", "--out", "results"])
    assert isinstance(result.exception, InputError)
