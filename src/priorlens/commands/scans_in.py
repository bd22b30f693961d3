"""Scans that commands are given: those that cannot be used are named and listed, the others go on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from priorlens.commands.terminal import warn
from priorlens.outputs import write_rows

if TYPE_CHECKING:
    from priorlens.commands.scan_options import Modality
    from priorlens.volumes.left_out import LeftOut
    from priorlens.volumes.scans import Scan
    from priorlens.volumes.volume import Volume

LEFT_OUT = "left_out.csv"

_NAMED = 20


def found_scans(scans: list[Scan], left_out: Sequence[LeftOut]) -> list[Scan]:
    """The scans, after each file that is left out was named on stderr; of very many, the first."""
    for one in left_out[:_NAMED]:
        warn(one.reason)
    if len(left_out) > _NAMED:
        warn(f"{len(left_out) - _NAMED} more files are left out")
    for scan in scans:
        for line in (warning for source in scan.sources for warning in getattr(source, "warnings", ())):
            warn(line)
    return scans


def write_left_out(out: Path, left_out: Sequence[LeftOut]) -> None:
    """A table of every file that is left out, and why; none where there is none. Raises OutputError."""
    (out / LEFT_OUT).unlink(missing_ok=True)
    if left_out:
        write_rows(out / LEFT_OUT, ["file", "reason"], [(one.path.as_posix(), one.reason) for one in left_out])


def read_as(scan: Scan, modality: Modality | None) -> Volume:
    """A scan; where its format does not tell units, in those that the user says. Raises InputError."""
    from priorlens.volumes.reading import read_scan

    volume = read_scan(scan)
    told = any(not isinstance(source, Path) for source in scan.sources)
    return volume if told or modality is None else replace(volume, units="HU" if modality == "ct" else "arbitrary")
