"""Arguments and options that several commands share, in the words their help shows."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Rule(StrEnum):
    """`priorlens.anodode.RULES` once more, as importing those would take seconds before any help is shown."""

    combined = "combined"
    local = "local"
    coherent = "coherent"
    standardised = "standardised"
    typicality = "typicality"
    published = "published"


Model = Annotated[Path, typer.Argument(metavar="MODEL", help="Folder that priorlens fit has made.")]
Group = Annotated[
    str | None,
    typer.Option(
        "--group",
        metavar="REGEX",
        help="Names the patient of an image: the first capture group (or the whole match) in its path, such as "
        r"'(\w+)_slice'. Images of one patient stay together. Without it every image is a patient of its own.",
    ),
]
Manifest = Annotated[
    Path | None,
    typer.Option(
        "--manifest",
        metavar="CSV",
        help="Table with the columns file,group[,kind][,mask] that names each image's patient, in place of --group. "
        "Paths in it start at its own folder.",
    ),
]
ScoringRule = Annotated[
    Rule | None,
    typer.Option(
        "--rule",
        help="How scales and places become one score and map. Default: the model's own, combined (weights learned on "
        "artefacts planted in healthy images). local: the same map, scored by its highest 2 %; for small lesions in "
        "images that are otherwise as usual. coherent: errors averaged over a neighbourhood, then squared. "
        "standardised: errors relative to those expected there. typicality: distance of bits/dim from that of healthy "
        "images. published: bits/dim, and what reconstruction takes away, as AnoDODE was published; slow.",
    ),
]
Results = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the results; made if missing.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Write into --out although it is not empty, over what has the same names.")
]
Overlays = Annotated[
    bool,
    typer.Option("--overlays/--no-overlays", help="One picture an image: the image, its map, and what stands out."),
]
Threads = Annotated[
    int | None, typer.Option("--threads", min=1, metavar="N", help="CPU threads to use. Default: all cores.")
]


def use_threads(threads: int | None) -> None:
    """Apply `--threads`, if it was given, and make memory quick."""
    from priorlens.commands.memory import keep_freed_memory

    keep_freed_memory()
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
