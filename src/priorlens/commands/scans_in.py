"""Scans that commands are given: those that cannot be used are named and listed, the others go on."""

from __future__ import annotations

import re
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


def with_series(
    scans: Sequence[Scan], left_out: Sequence[LeftOut], series: str | None, *, one_kind: bool = False
) -> tuple[list[Scan], list[LeftOut]]:
    """The scans whose DICOM series has a description that `--series` matches; those that are no DICOM stay.

    one_kind: a patient's series must not be told apart only by their descriptions: all would be learned as one kind.

    Raises InputError for an expression that is none, or where one must be chosen.
    """
    from priorlens.errors import InputError
    from priorlens.volumes.left_out import LeftOut

    try:
        pattern = re.compile(series, re.IGNORECASE) if series else None
    except re.error as error:
        raise InputError(f"{series}: is not a regular expression ({error}); correct --series") from error
    kept, others = [], list(left_out)
    described: dict[str, set[str]] = {}
    for scan in scans:
        description = getattr(scan.sources[0], "description", None)
        if description is None or not pattern or pattern.search(description):
            kept.append(scan)
            described.setdefault(scan.group, set()).update({description} if description else ())
        else:
            reason = f"{scan.path}: its series {description!r} is not among those of --series; name another to take it"
            others.append(LeftOut(scan.path, reason))
    several = next((names for names in described.values() if len(names) > 1), None)
    if one_kind and several:
        names = ", ".join(sorted(several))
        raise InputError(f"{scans[0].path}: patients have several series ({names}); choose one kind with --series")
    if not kept:
        raise InputError(f"--series {series}: matches none of the {len(scans)} scans; correct it")
    return kept, others


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
    return replace(volume, units="HU") if modality == "ct" and not told else volume
