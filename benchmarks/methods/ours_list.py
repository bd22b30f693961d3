"""The detectors of priorlens, as its commands make them."""

from __future__ import annotations

from benchmarks.method import Entry

_ANODODE = "Hu & Jin 2023, arXiv 2310.06420; docs/anodode.md"
_KLIP = "KLIP, arXiv 2605.31596; docs/klip.md"
_JOINED = "docs/calibration.md"
_FUSED = "benchmarks.methods.fused"
_BY_FEATURES, _BY_PIXELS = "benchmarks.methods.ours_anodode", "benchmarks.methods.ours_klip"

ENTRIES: tuple[Entry, ...] = (
    Entry("anodode", "AnoDODE, default rule", "ours", f"{_BY_FEATURES}:Combined", _ANODODE),
    Entry("anodode_local", "AnoDODE, rule local", "ours", f"{_BY_FEATURES}:Local", _ANODODE, needs="anodode"),
    Entry("anodode_coherent", "AnoDODE, rule coherent", "ours", f"{_BY_FEATURES}:Coherent", _ANODODE, needs="anodode"),
    Entry("anodode_published", "AnoDODE, as published", "ours", f"{_BY_FEATURES}:Published", _ANODODE, needs="anodode"),
    Entry("klip", "KLIP of whole images", "ours", f"{_BY_PIXELS}:Whole", _KLIP),
    Entry(
        "klip_ct",
        "KLIP, CT of 24 views",
        "ours",
        f"{_BY_PIXELS}:SparseCT",
        _KLIP,
        needs="klip",
        intensity="range",
    ),
    Entry(
        "klip_mri",
        "KLIP, MRI of a quarter of the lines",
        "ours",
        f"{_BY_PIXELS}:FastMRI",
        _KLIP,
        needs="klip",
        intensity="percentile",
    ),
    Entry(
        "klip_reference",
        "KLIP, as published, CT of 24 views",
        "ours",
        f"{_BY_PIXELS}:Reference",
        _KLIP,
        needs="klip",
        slow=10,
        only=("head_ct", "fashion_mnist", "digits"),
    ),
    Entry("fused", "AnoDODE and KLIP, harmonic mean p", "ours", f"{_FUSED}:Fused", _JOINED, needs="anodode+klip"),
    Entry(
        "fused_fisher",
        "AnoDODE and KLIP, Fisher's p",
        "ours",
        f"{_FUSED}:ByFisher",
        _JOINED,
        needs="anodode+klip",
        slow=3,
    ),
    Entry(
        "scan",
        "KLIP of scans, coherent in three dimensions",
        "ours",
        "benchmarks.methods.ours_scan:OfScans",
        f"{_KLIP}, docs/volumes.md",
        only=("brats",),
        of_scans=True,
    ),
)
