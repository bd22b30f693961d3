"""`priorlens inspect`: what a model was trained on, how, and what healthy images look like to it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from priorlens.commands.options import Model


def inspect(
    model: Model,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Show what a model was trained on, and how.

    Also its size, and what scores and maps are like on healthy images.

    \b
    Examples:
      priorlens inspect model
      priorlens inspect model --json | jq .run.fingerprint
    """
    from priorlens.anodode import AnoDODE
    from priorlens.checkpoint import TENSORS, read_config

    facts = AnoDODE.load(model).describe()
    config = read_config(model)
    facts |= {name: config[name] for name in ("made", "run", "versions") if name in config}
    facts["megabytes"] = round((model / TENSORS).stat().st_size / 1e6, 1)
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
    else:
        for line in _lines(facts):
            typer.echo(line)


def _lines(facts: Mapping[str, Any], depth: int = 0) -> Iterator[str]:
    """A line a fact, what belongs together indented under its name."""
    margin = "  " * depth
    width = max((len(str(name)) for name in facts), default=0)
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield f"{margin}{name}"
            yield from _lines(value, depth + 1)
        else:
            yield f"{margin}{name:<{width}}  {_words(value)}"


def _words(value: Any) -> str:
    match value:
        case None:
            return "–"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.6g}"
        case list() | tuple():
            return ", ".join(_words(one) for one in value)
        case _:
            return str(value)
