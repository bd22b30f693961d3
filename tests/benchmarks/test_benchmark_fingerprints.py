"""Which code makes a result stale, which only its figures, and which neither."""

import pytest

from benchmarks import fingerprints
from benchmarks.fingerprints import code_of, figures_code, harness_code

METHODS = {
    "anodode": "benchmarks.methods.ours_anodode:Combined",
    "klip": "benchmarks.methods.ours_klip:Whole",
    "simple": "benchmarks.methods.simple:Constant",
    "stfpm": "benchmarks.methods.anomalib_trained:STFPM",
}


def found():
    return {name: code_of(made_by) for name, made_by in METHODS.items()} | {
        "harness": harness_code(),
        "figures": figures_code(),
    }


def test_what_a_method_says_of_itself_is_not_its_code(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    codes = []
    for text in (
        '"""One."""\nx = 1\n',
        '"""Two."""\n# why\nx  =  1\n"""Of x."""\n',
        "x = 2\n",
        "x = 1\ndef f():\n    import priorlens.body\n",
    ):
        (tmp_path / "method_of_a_test.py").write_text(text)
        codes.append(code_of("method_of_a_test:X"))
    assert codes[0] == codes[1]
    assert len(set(codes)) == 3
    assert code_of("method_of_a_test:Y") != codes[-1]


@pytest.mark.parametrize(
    ("module", "old", "new", "changed"),
    [
        ("priorlens.anodode", "import", "", {"anodode"}),
        ("priorlens.klip_model", "import", "", {"klip"}),
        ("priorlens.preparation", "import", "", {"anodode", "klip", "simple", "stfpm"}),
        ("priorlens.images", "import", "", {"anodode", "klip", "simple", "stfpm", "harness", "figures"}),
        ("priorlens.roc", "import", "", {"figures"}),
        ("benchmarks.measuring", "RESAMPLES = 1000", "RESAMPLES = 999", {"figures"}),
        ("benchmarks.curves", "LEAST_DONE = 0.2", "LEAST_DONE = 0.3", {"stfpm"}),
        ("benchmarks.methods.anomalib_training", "LEAST_STEPS = 100", "LEAST_STEPS = 50", {"stfpm"}),
        ("benchmarks.stages", "BATCH = 16", "BATCH = 8", {"harness"}),
        ("benchmarks.stages", "CURVE_POINTS = 300", "CURVE_POINTS = 30", set()),
        ("benchmarks.selection", "SIZED = 25", "SIZED = 5", {"harness"}),
        ("benchmarks.selection", "TIMED = 16", "TIMED = 5", set()),
        ("priorlens.report.card", "import", "", set()),
        ("priorlens.images", '"""', '"""Of late: ', set()),
    ],
)
def test_code_makes_stale_what_it_can_change(module, old, new, changed, monkeypatch):
    before = found()
    file = fingerprints._file(module)
    text = file.read_text(encoding="utf-8")
    if old == "import":
        old, new = "from __future__ import annotations\n", "from __future__ import annotations\nimport zlib\n"
    assert old in text
    other = fingerprints._parsed(text.replace(old, new, 1))
    source = fingerprints._source
    monkeypatch.setattr(fingerprints, "_source", lambda name: other if name == module else source(name))
    after = found()
    assert {name for name in after if after[name] != before[name]} == changed
