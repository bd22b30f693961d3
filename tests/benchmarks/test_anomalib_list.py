"""The list of anomalib's peers can be read without anomalib, and says what is not in it."""

import sys

from benchmarks.methods.anomalib_list import ENTRIES, LEFT_OUT


def test_every_peer_runs_in_the_environment_of_anomalib():
    assert {(entry.family, entry.environment, entry.needs) for entry in ENTRIES} == {("anomalib", "anomalib", "")}
    assert len({entry.name for entry in ENTRIES}) == len(ENTRIES)


def test_listing_them_imports_nothing_of_theirs():
    assert all(entry.made_by.startswith("benchmarks.methods.anomalib_") for entry in ENTRIES)
    assert "torch" not in vars(sys.modules["benchmarks.methods.anomalib_list"])


def test_what_is_left_out_has_a_reason_and_is_not_among_them():
    titles = {entry.title for entry in ENTRIES}
    assert all(title not in titles and len(reason) > 20 for title, reason in LEFT_OUT)
