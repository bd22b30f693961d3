"""Masks that lie apart from their scans, in `ground_truth/<kind>` for those of `test/<kind>`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from priorlens.datasets import HEALTHY, natural_order
from priorlens.errors import InputError
from priorlens.volumes.layouts import MASKS, tell
from priorlens.volumes.studies import Study, files_under, scan_stem


def kinds_of(test: Path) -> list[str]:
    """The kinds that have a folder, in natural order. Raises InputError without `good` or without any other."""
    kinds = sorted((p.name for p in test.iterdir() if p.is_dir() and not p.name.startswith(".")), key=natural_order)
    if HEALTHY not in kinds:
        raise InputError(f"{test}: has no {HEALTHY}/ folder; put the healthy test scans there")
    if len(kinds) == 1:
        raise InputError(f"{test}: has no abnormal kind beside {HEALTHY}/; put the abnormal scans in test/<kind>/")
    return kinds


def with_masks(studies: Sequence[Study], scans: Path, masks: Path) -> list[Study]:
    """The studies of the folder `scans` with their masks from `masks`, if there is such a folder.

    A mask has the path of its scan or of one of its channels, or that and an ending such as `_mask` or `-seg`, or the
    path that it would have beside its scan (`layouts.tell`).

    Raises:
        InputError: a mask without scan, or a second one of a scan.
    """
    if not masks.is_dir() or not any(masks.iterdir()):
        return list(studies)
    by_path: dict[str, int] = {}
    for number, study in enumerate(studies):
        for path in (study.name, *(str(scan_stem(source.relative)) for source in study.sources)):
            by_path.setdefault(path, number)
    found: dict[int, Path] = {}
    files = files_under(masks)
    names = frozenset(scan_stem(file.relative).name.lower() for file in files)
    for file in files:
        stem = scan_stem(file.relative)
        owner = next((by_path[path] for path in _claims(stem, masks.name, names) if path in by_path), None)
        if owner is None:
            raise InputError(f"{file.path}: this mask has no scan in {scans}; add the scan or remove the mask")
        if owner in found:
            raise InputError(f"{file.path}: is a second mask of a scan, beside {found[owner]}; remove one")
        found[owner] = file.path
    return [replace(study, mask=found.get(number, study.mask)) for number, study in enumerate(studies)]


def _claims(stem: PurePosixPath, folder: str, beside: frozenset[str]) -> list[str]:
    """Paths of the scan or study that a mask of this path may belong to, the likeliest first."""
    claims = [str(stem)]
    for ending in sorted(MASKS):
        if stem.name.lower().endswith((f"_{ending}", f"-{ending}")):
            claims.append(str(stem.with_name(stem.name[: -len(ending) - 1])))
    told = tell(stem, folder, beside)
    return [*claims, told.study] if told else claims
