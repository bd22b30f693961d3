"""Fingerprints of code: of what can change a result, and of what can change only the figures that are taken of it.

Comments, layout and docstrings do not matter. Imports are read, not run, those inside of functions too.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

FOLLOWED = ("benchmarks", "priorlens")
"""Packages whose modules count; others are known by their versions."""

ASIDE = ("benchmarks.method", "priorlens.__main__", "priorlens.commands", "priorlens.report", "priorlens.viewer")
"""Modules, with all that is in them, which only pass on or show what others find."""

FIGURES = ("benchmarks.folds", "benchmarks.measuring", "priorlens.bootstrap", "priorlens.evaluation", "priorlens.roc")
"""Those that look at predictions and make none."""

IMAGES = ("priorlens.datasets", "priorlens.images")
"""What the benchmarks find and read images with."""

HARNESS: Mapping[str, Collection[str]] = {
    "benchmarks.measuring": ("height_of",),
    "benchmarks.selection": ("SIZED", "training", "judged", "seen_at", "spread"),
    "benchmarks.stages": ("BATCH", "judged_cases", "loaded", "with_models", "_task", "_outcomes"),
    "benchmarks.study_files": ("study_facts", "study_from"),
}
"""Definitions that decide which images a method sees, how large, and what becomes of its answer."""


class Source(NamedTuple):
    """whole: its syntax as text. parts: that of its definitions, by name. imported: names that may be modules."""

    whole: str
    parts: Mapping[str, str]
    imported: frozenset[str]


def code_of(made_by: str) -> str:
    """Of a method, "module:Class", its module, and all that this imports of `FOLLOWED`."""
    return _digest([made_by, *_sources([made_by.partition(":")[0]], (*ASIDE, *FIGURES)).values()])


def harness_code() -> str:
    """Of what all methods have in common: `HARNESS`, and the reading of images."""
    found = _sources(IMAGES, (*ASIDE, *FIGURES))
    parts = [_source(module).parts[name] for module, names in HARNESS.items() for name in names]
    return _digest([*found.values(), *parts])


def figures_code() -> str:
    """Of what makes figures of predictions."""
    return _digest(_sources(["benchmarks.folds"], ASIDE).values())


def _sources(modules: Iterable[str], aside: Collection[str]) -> dict[str, str]:
    """Of these modules and of all that they import, in the order of their names."""
    found: dict[str, str] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name in found or _file(name) is None:
            continue
        source = _source(name)
        found[name] = source.whole
        inside = [one for one in source.imported if one.startswith(tuple(f"{package}." for package in FOLLOWED))]
        waiting += [one for one in inside if not any(one == other or one.startswith(f"{other}.") for other in aside)]
    return dict(sorted(found.items()))


def _source(module: str) -> Source:
    file = _file(module)
    if file is None:
        raise ValueError(f"{module} is no module")
    return _parsed(file.read_text(encoding="utf-8"))


def _file(module: str) -> Path | None:
    """Where a module is written; None where there is none. Imports nothing."""
    package, *below = module.split(".")
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent.joinpath(*below) if below else Path(spec.origin).with_suffix("")
    files = path.with_suffix(".py"), path / "__init__.py"
    return next((file for file in files if file.is_file()), None)


@functools.cache
def _parsed(text: str) -> Source:
    tree = _WithoutText().visit(ast.parse(text))
    imported = set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    parts = {name: ast.dump(node) for node in tree.body for name in _named(node)}
    return Source(ast.dump(tree), parts, frozenset(imported))


class _WithoutText(ast.NodeTransformer):
    """Takes out strings that stand alone: docstrings, of constants too."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        alone = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if alone else node


def _named(node: ast.stmt) -> list[str]:
    """What a statement of a module defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:16]
