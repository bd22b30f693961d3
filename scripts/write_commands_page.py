"""Write docs/commands.md: what every command's --help says, and the exit codes. Run it after changing either."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import typer
from typer.testing import CliRunner

from priorlens import errors
from priorlens.__main__ import app

PAGE = Path(__file__).parent.parent / "docs" / "commands.md"

HEAD = """# Commands

Every command is also `python -m priorlens ...`. Results go to stdout, progress and warnings to stderr.
This page is made by `scripts/write_commands_page.py` from what the commands say themselves.
"""

TABLE_HEAD = """
## Exit codes

An error is one line on stderr, which names the file and the remedy.

| code | meaning |
| --- | --- |
"""

OTHER_CODES = {
    0: "Done.",
    1: "A fault of priorlens itself, with a traceback: please report it.",
    2: "Usage: an unknown command or option, a missing argument, a value out of range.",
}


def page() -> str:
    """The whole page, the same on every machine with the same version of typer."""
    names = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]
    helps = [f"\n## `priorlens {name}`\n\n```text\n{help_of(name)}\n```\n" for name in names]
    return HEAD + "".join(helps) + exit_codes()


def help_of(command: str) -> str:
    """What `--help` prints, as wide as a terminal of 100 columns shows it."""
    result = CliRunner().invoke(app, [command, "--help"], prog_name="priorlens", terminal_width=100)
    assert result.exit_code == 0, result.output
    return "\n".join(line.rstrip() for line in result.output.strip().splitlines())


def exit_codes() -> str:
    """A table of what `priorlens.errors` says of each."""
    kinds = [kind for kind in vars(errors).values() if inspect.isclass(kind) and kind is not errors.PriorlensError]
    said = OTHER_CODES | {kind.exit_code: inspect.getdoc(kind) for kind in kinds}
    for code, meaning in re.findall(
        r'^EXIT_\w+ = (\d+)\n"""(.+?)"""', inspect.getsource(errors), re.MULTILINE | re.DOTALL
    ):
        said[int(code)] = meaning
    rows = [f"| {code} | {' '.join(str(said[code]).split())} |\n" for code in sorted(said)]
    return TABLE_HEAD + "".join(rows)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    typer.echo(f"wrote {PAGE}")
