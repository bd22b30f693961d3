"""Results to look at, and a server that scores files by a process that pretends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from asking import NAMES, PATIENTS, drops_beside, page, shelf_of
from starlette.testclient import TestClient

from made_results import add_evaluation, write_results
from priorlens.viewer.drops import Drops


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four cases with all layers, one failed, evaluated, with a report. Not to be written to."""
    found = tmp_path_factory.mktemp("data") / "Klinik"
    write_results(found, NAMES, patients=PATIENTS, failed=[3], layers=True, truth=True)
    (found / "report.html").write_text("<!doctype html><title>Änne</title>")
    return add_evaluation(found, good=2, lesion=1)


@pytest.fixture(scope="module")
def client(folder: Path) -> TestClient:
    return page(shelf_of(folder))


@pytest.fixture
def drops(tmp_path: Path, folder: Path) -> Iterator[Drops]:
    """What takes a thousand bytes; the process that scores is one that pretends."""
    found = drops_beside(shelf_of(folder), tmp_path)
    yield found
    found.close()


@pytest.fixture
def giving(drops: Drops) -> TestClient:
    return page(drops.shelf, drops)
