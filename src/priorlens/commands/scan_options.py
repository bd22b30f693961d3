"""Options of the commands that take scans, in the words their help shows."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Modality(StrEnum):
    """What intensities mean: Hounsfield units, or nothing in particular."""

    ct = "ct"
    mr = "mr"


class Axis(StrEnum):
    """`priorlens.volumes.volume.Plane` once more, as importing that would take time before any help is shown."""

    axial = "axial"
    coronal = "coronal"
    sagittal = "sagittal"
    acquired = "acquired"


class Seen(StrEnum):
    """`priorlens.volumes.scan_preparation.Dimensions` once more."""

    flat = "2d"
    slab = "2.5d"
    whole = "3d"


Channels = Annotated[
    str | None,
    typer.Option(
        "--channels",
        metavar="NAMES",
        help="scans: which of a patient's scans to take, by the names in their files, such as flair or flair,t1ce.",
    ),
]
SeriesOf = Annotated[
    str | None,
    typer.Option(
        "--series",
        metavar="REGEX",
        help="scans: which DICOM series to take, by a part of their descriptions, such as 'flair' or '^ax t2'.",
    ),
]
ModalityOf = Annotated[
    Modality | None,
    typer.Option(
        "--modality",
        help="scans: ct has Hounsfield units, mr has not. Default: told by the files. Scans of the other are left out.",
    ),
]
AxisOf = Annotated[
    Axis | None,
    typer.Option(
        "--axis",
        help="scans: of the slices; acquired is that along which they lie farthest apart. Default: axial.",
    ),
]
Spacing = Annotated[
    float | None,
    typer.Option(
        "--spacing", min=0.01, metavar="MM", help="scans: side of the model's pixels. Default: chosen from the scans."
    ),
]
DimensionsOf = Annotated[
    Seen | None,
    typer.Option(
        "--dimensions",
        help="scans: 2d, slice by slice. 2.5d, each slice with its neighbours. 3d, cubes of the whole scan, by a prior "
        "in three dimensions (klip's, coherent); slow. Default: 2d.",
    ),
]
Neighbours = Annotated[
    float | None,
    typer.Option(
        "--neighbours", min=0.01, metavar="MM", help="scans, 2.5d: how far off the neighbours are. Default: 3, or more."
    ),
]
Window = Annotated[
    str | None,
    typer.Option(
        "--window",
        metavar="NAME",
        help="scans, ct: Hounsfield units that are told apart: soft (-160 to 240), brain (0 to 80), lung, bone, or two "
        "numbers such as -50,150. Default: soft.",
    ),
]
DicomOut = Annotated[
    bool,
    typer.Option(
        "--dicom/--no-dicom",
        help="For DICOM series: the map, the flagged regions and their measurements as DICOM objects too.",
    ),
]


def window_of(text: str | None) -> tuple[float, float] | None:
    """Two numbers in Hounsfield units, from `--window`. Raises typer.BadParameter."""
    if text is None:
        return None
    from priorlens.volumes.voxel_intensity import WINDOWS

    if text in WINDOWS:
        return WINDOWS[text]
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        names = ", ".join(WINDOWS)
        raise typer.BadParameter(
            f"--window {text}: is no window; give {names}, or two numbers such as -50,150"
        ) from None
    if not low < high:
        raise typer.BadParameter(f"--window {text}: has its lower end first; turn them round")
    return low, high


def channels_of(text: str | None) -> list[str] | None:
    """Names from `--channels`. Raises typer.BadParameter."""
    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise typer.BadParameter(f"--channels {text}: is no list of names; give such as flair,t1ce")
    return names
