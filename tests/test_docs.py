"""What the documents say is so: commands, links, scripts, modules and pins."""

import ast
import importlib.util
import os
import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def slug(heading: str) -> str:
    """A heading's anchor, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.skipif(version("typer") != pins()["typer"], reason="help is laid out by the pinned version of typer")
def test_the_page_of_commands_is_current():
    spec = importlib.util.spec_from_file_location("write_commands_page", ROOT / "scripts" / "write_commands_page.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.page() == script.PAGE.read_text(encoding="utf-8"), "run scripts/write_commands_page.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), f"{page.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in map(slug, headings), f"{page.name}: {target}"


def test_the_scripts_that_the_readme_names_can_be_run():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^(scripts/\S+)", readme, re.MULTILINE))
    assert {"scripts/demo.sh", "scripts/test.sh"} <= named
    assert all(os.access(ROOT / script, os.X_OK) for script in named)


def test_python_in_the_readme_imports_what_is_there():
    import priorlens

    blocks = re.findall(r"```python\n(.+?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    for node in (node for block in blocks for node in ast.walk(ast.parse(block))):
        if isinstance(node, ast.ImportFrom) and node.module == "priorlens":
            assert all(hasattr(priorlens, alias.name) for alias in node.names)


def test_the_picture_of_the_architecture_names_every_module():
    picture = (ROOT / "docs" / "images" / "architecture.svg").read_text(encoding="utf-8")
    for path in (ROOT / "src" / "priorlens").rglob("*.py"):
        if path.stem != "__init__" and path.parent.name != "commands":
            assert re.search(rf"\b{path.stem}\b", picture), f"{path.stem} is missing in architecture.svg"


def test_every_dependency_has_a_pin_and_a_reason():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(name for extra in project["optional-dependencies"].values() for name in extra),
    ]
    names = {re.match(r"[\w.-]+", requirement)[0] for requirement in wanted} - {"priorlens"}
    reasons = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    assert names <= pins().keys()
    assert [name for name in names if name not in reasons] == []
