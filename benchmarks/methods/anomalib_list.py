"""The peers of anomalib, and those of its models that were left out."""

from __future__ import annotations

from benchmarks.method import Entry

_TRAINED = "anomalib_trained"
"""The module of those that train networks; the others fit in one pass over their images."""


def _entry(name: str, title: str, made_by: str, reference: str) -> Entry:
    family, made = "anomalib", f"benchmarks.methods.{made_by}"
    by_minutes = made_by.startswith(_TRAINED)
    return Entry(name, title, family, made, reference, environment="anomalib", by_minutes=by_minutes)


ENTRIES: tuple[Entry, ...] = (
    _entry("patchcore", "PatchCore", "anomalib_fitted:PatchCore", "Roth et al. 2022, arXiv 2106.08265"),
    _entry("padim", "PaDiM", "anomalib_fitted:PaDiM", "Defard et al. 2021, arXiv 2011.08785"),
    _entry("dfm", "DFM", "anomalib_fitted:DFM", "Ahuja et al. 2019, arXiv 1909.11786"),
    _entry("dfkde", "DFKDE", "anomalib_fitted:DFKDE", "anomalib, Akcay et al. 2022, arXiv 2202.08341"),
    _entry(
        "reverse_distillation",
        "Reverse Distillation",
        f"{_TRAINED}:ReverseDistillation",
        "Deng & Li 2022, arXiv 2201.10703",
    ),
    _entry("cflow", "CFLOW", f"{_TRAINED}:CFlow", "Gudovskiy et al. 2022, arXiv 2107.12571"),
    _entry("fastflow", "FastFlow", f"{_TRAINED}:FastFlow", "Yu et al. 2021, arXiv 2111.07677"),
    _entry("stfpm", "STFPM", f"{_TRAINED}:STFPM", "Wang et al. 2021, arXiv 2103.04257"),
)

LEFT_OUT: tuple[tuple[str, str], ...] = (
    (
        "DRAEM",
        "its networks have no backbone to share, and the 700 epochs of its configuration take weeks on two cores; it "
        "also needs pictures of textures that it downloads",
    ),
    (
        "SuperSimpleNet",
        "the 300 epochs that its authors ask for take hours on two cores, and its noise is set for the features of one "
        "WideResNet, whose weights are not to be had without a download",
    ),
)
"""Titles of models that the benchmarks do not run, and why."""
