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

    Also its size, what scores and maps are like on healthy images, and what verdicts are calibrated on.

    \b
    Examples:
      priorlens inspect model
      priorlens inspect model --json | jq .run.fingerprint
    """
    from priorlens.commands.model_card import model_facts
    from priorlens.detectors import load_detector
    from priorlens.scan_model import ScanModel, is_scan_model

    facts = model_facts(model, ScanModel.load(model) if is_scan_model(model) else load_detector(model))
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
    else:
        for line in _lines(facts):
            typer.echo(line)


def _lines(facts: Mapping[str, Any]) -> Iterator[str]:
    """A line a fact; what belongs together indented under its name, and as a table where it is one."""
    width = max((len(str(name)) for name in facts), default=0)
    for name, value in facts.items():
        if not isinstance(value, Mapping):
            yield f"{name:<{width}}  {_words(value)}"
            continue
        yield name
        inner = list(value.values())
        if inner and all(isinstance(one, Mapping) and one.keys() == inner[0].keys() for one in inner):
            yield from (f"  {line}" for line in _table(value))
        else:
            yield from (f"  {line}" for line in _lines(value))


def _table(rows: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Facts of the same kind about several things: a line each, under the facts' names."""
    header = ["", *next(iter(rows.values()))]
    cells = [header, *([name, *map(_words, facts.values())] for name, facts in rows.items())]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for first, *others in cells:
        yield "  ".join([f"{first:<{widths[0]}}", *map(str.rjust, others, widths[1:])])


def _words(value: Any) -> str:
    match value:
        case None:
            return "–"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.4g}"
        case Mapping():
            return " ".join(f"{name} {_words(one)}" for name, one in value.items() if one not in ((), []))
        case list() | tuple():
            return ", ".join(_words(one) for one in value)
        case _:
            return str(value)
