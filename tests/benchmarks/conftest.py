"""The benchmarks lie beside the package: tests import them from the project's root."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))


@pytest.fixture(scope="module")
def few_resamples():
    """Of patients: 100, unless a test asks for a number itself."""
    from benchmarks import measuring

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring.figures, "__defaults__", (100,))
        patch.setattr(measuring.replicates, "__defaults__", (100, 0))
        patch.setattr(measuring.paired_difference_matched, "__defaults__", (100,))
        yield


@pytest.fixture(scope="module")
def found_by_workers():
    """Methods of the tests, which lie in this folder; for further changes, what makes them and undoes them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        yield patch
