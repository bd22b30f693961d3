"""Which scans there are, whose they are, and what is known about them: folders, BraTS, BIDS, DICOM, manifests."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from priorlens.datasets import HEALTHY, patient_of, patients_by, refuse_masks_of_no_kind, visible_files
from priorlens.errors import InputError
from priorlens.ledger import Stamp
from priorlens.manifest import Row
from priorlens.volumes.dicom_files import Series
from priorlens.volumes.ground_truth import kinds_of, with_masks
from priorlens.volumes.left_out import LeftOut
from priorlens.volumes.studies import (
    SCAN_SUFFIXES,
    Study,
    find_studies,
    is_scan_file,
    scan_stem,
    studies_listed,
    with_channels,
)

__all__ = [
    "LESION",
    "SCAN_SUFFIXES",
    "Scan",
    "find_scans",
    "healthy_scans",
    "is_scan_path",
    "labelled_scans",
]

LESION = "lesion"
"""The kind of a scan that has a mask, where no folder or manifest tells its kind."""


@dataclass(frozen=True)
class Scan:
    """One scan of a list: where it is, what results call it, whose it is, and what is known to be in it.

    sources: one for each channel; a file that holds several comes once for each. channels: their names, ("",) where
    there is one without name. name: its path relative to what the user named, without suffix and with forward slashes,
    unique in the list. group: the patient. mask: the file that outlines the lesions, if there is one.
    """

    sources: tuple[Path | Series, ...]
    channels: tuple[str, ...]
    name: str
    group: str
    kind: str = HEALTHY
    mask: Path | None = None

    @property
    def told(self) -> bool:
        """Whether anything tells the patient: else its name is the scan's own, and may be another patient's too."""
        return self.group != self.name

    @property
    def files(self) -> list[Path]:
        """All files that it is read from, in the order of its channels and slices; each once."""
        found: dict[Path, None] = {}
        for source in self.sources:
            paths = [source] if isinstance(source, Path) else [instance.path for instance in source.instances]
            found |= dict.fromkeys(paths)
        return list(found)

    @property
    def path(self) -> Path:
        """Of the first source."""
        first = self.sources[0]
        return first if isinstance(first, Path) else first.path

    @property
    def file(self) -> str:
        """What tables and messages call the scan."""
        return self.path.as_posix()

    def stamp(self) -> Stamp:
        """Of its files as they are now."""
        return Stamp.of(self.files)


def is_scan_path(path: Path) -> bool:
    """Whether a file is a scan rather than an image or a measurement, or a folder holds one (hidden ones left out).

    Raises InputError for a folder that cannot be read.
    """
    if path.is_dir():
        return any(is_scan_file(file) for file in visible_files(path))
    return path.is_file() and is_scan_file(path)


def find_scans(
    inputs: Sequence[Path],
    *,
    channels: Sequence[str] | None = None,
    group: str | None = None,
    manifest: Path | None = None,
    unnamed: bool = False,
) -> tuple[list[Scan], list[LeftOut]]:
    """Every scan among `inputs`, files or folders (searched in depth, in natural order, hidden files left out), and
    what is not used. Which names tell channels, patients and masks: see `layouts.tell`.

    `channels` are the names to take, whatever their case; patients that lack one are left out. None will do where every
    scan is one file without choice; with `unnamed`, a file whose channel nothing tells is taken for the only one named.
    DICOM series have no such name; each is a scan of the patient of its PatientID.
    `group` and `manifest` as for `datasets.find_cases`; a manifest's file is any one of a scan's files. With neither,
    a scan whose patient nothing tells is a patient of its own.

    Raises:
        InputError: an input is missing or holds no scans; several channels to choose from, or none of those named; the
            expression does not match a scan; or the manifest cannot be used.
    """
    pattern, rows = patients_by(group, manifest)
    if manifest and not inputs:
        studies, left_out = studies_listed(rows, Path(os.path.abspath(manifest.parent)))
    else:
        studies, left_out = find_studies(inputs)
    _require_some(studies, left_out, _where(inputs, manifest))
    chosen, lacking = with_channels(studies, channels, _where(inputs, manifest), unnamed=unnamed)
    return _with_rows(_named(chosen, pattern), manifest, rows), left_out + lacking


def healthy_scans(
    folder: Path, *, channels: Sequence[str] | None = None, group: str | None = None, manifest: Path | None = None
) -> tuple[list[Scan], list[LeftOut]]:
    """The scans to learn from: those in `train/good` under `folder` if it exists, else all under `folder`.

    Scans that the manifest calls anything but good are left aside. Those with a mask stay: their slices without lesion
    may be learned from.

    Raises:
        InputError: as `find_scans`; or a data set with `test` but no `train/good`; or no scan is good.
    """
    source = folder / "train" / HEALTHY
    if not source.is_dir():
        if (folder / "test").is_dir():
            raise InputError(f"{folder}: has test/ but no train/{HEALTHY}/; name the folder of healthy scans itself")
        source = folder
    scans, left_out = find_scans([source], channels=channels, group=group, manifest=manifest)
    healthy = [scan for scan in scans if scan.kind == HEALTHY]
    if not healthy:
        raise InputError(f"{source}: holds no scan that {manifest} calls {HEALTHY}; correct one of both")
    return healthy, left_out


def labelled_scans(
    folder: Path,
    *,
    channels: Sequence[str] | None = None,
    group: str | None = None,
    manifest: Path | None = None,
    unnamed: bool = False,
) -> tuple[list[Scan], list[LeftOut]]:
    """The scans of `test/<kind>` under `folder`, kind `good` being healthy; or, without `test`, those of patients whose
    masks lie beside them: of kind "lesion" where there is a mask, else healthy.

    A mask in `ground_truth/<kind>` has the name of its scan or of one of its channels, or that with `_mask`, `_seg`
    and such, or lies as it would beside the scan. An abnormal scan without mask is kept. Patients are told by the path
    inside the kind's folder.

    Raises:
        InputError: as `find_scans`; `test` without `test/good` or another kind; a mask without scan; or no scan is
            anything but healthy.
    """
    pattern, rows = patients_by(group, manifest)
    if not (folder / "test").is_dir():
        return _labelled_by_masks(folder, channels, pattern, manifest, rows, unnamed)
    kinds = kinds_of(folder / "test")
    refuse_masks_of_no_kind(folder / "ground_truth", kinds)
    studies: list[Study] = []
    left_out: list[LeftOut] = []
    for kind in kinds:
        of_kind, unused = find_studies([folder / "test" / kind])
        if kind != HEALTHY:
            of_kind = with_masks(of_kind, folder / "test" / kind, folder / "ground_truth" / kind)
        studies += [replace(study, kind=kind) for study in of_kind]
        left_out += unused
    _require_some(studies, left_out, str(folder / "test"))
    chosen, lacking = with_channels(studies, channels, str(folder / "test"), unnamed=unnamed)
    scans = []
    for kind in kinds:
        of_this = _named([study for study in chosen if study.kind == kind], pattern)
        scans += [replace(scan, name=f"{kind}/{scan.name}") for scan in of_this]
    return _with_rows(scans, manifest, rows), left_out + lacking


def _labelled_by_masks(
    folder: Path,
    channels: Sequence[str] | None,
    pattern: re.Pattern[str] | None,
    manifest: Path | None,
    rows: dict[Path, Row],
    unnamed: bool,
) -> tuple[list[Scan], list[LeftOut]]:
    studies, left_out = find_studies([folder])
    _require_some(studies, left_out, str(folder))
    chosen, lacking = with_channels(studies, channels, str(folder), unnamed=unnamed)
    scans = _with_rows(_named(chosen, pattern), manifest, rows)
    # A mask speaks only where the manifest does not: "" there is no statement.
    told = {path for path, row in rows.items() if row.kind}
    scans = [
        replace(scan, kind=LESION) if scan.mask and scan.kind == HEALTHY and not _files(scan) & told else scan
        for scan in scans
    ]
    if all(scan.kind == HEALTHY for scan in scans):
        raise InputError(
            f"{folder}: has neither test/{HEALTHY}/ and test/<kind of abnormality>/ nor masks beside its scans; add one"
        )
    return scans, left_out + lacking


def _named(studies: Sequence[Study], pattern: re.Pattern[str] | None) -> list[Scan]:
    """Scans with unique names: of several with one name, the later keep their suffix, or are counted `~2`, `~3`."""
    scans: list[Scan] = []
    taken: set[str] = set()
    for study in studies:
        first = study.sources[0]
        one = len(study.sources) == 1 and isinstance(first.file, Path)
        name, count = str(scan_stem(first.relative)) if one else study.name, 1
        full = str(first.relative) if one else name
        while name in taken:
            name = full if count == 1 else f"{full}~{count}"
            count += 1
        taken.add(name)
        whose = patient_of(pattern, first.path, str(first.relative)) if pattern else study.patient or name
        sources, channels = tuple(s.file for s in study.sources), tuple(s.channel for s in study.sources)
        scans.append(Scan(sources, channels, name, whose, study.kind, study.mask))
    return scans


def _files(scan: Scan) -> set[Path]:
    """Absolute paths of all files of a scan."""
    found: set[Path] = set()
    for source in scan.sources:
        paths = [source] if isinstance(source, Path) else [instance.path for instance in source.instances]
        found |= {Path(os.path.abspath(path)) for path in paths}
    return found


def _with_rows(scans: list[Scan], manifest: Path | None, rows: dict[Path, Row]) -> list[Scan]:
    """The scans with what the manifest says of them, which goes before what their folders say."""
    if manifest is None:
        return scans
    complete = []
    for scan in scans:
        listed = sorted(_files(scan) & rows.keys())
        if not listed:
            raise InputError(f"{scan.path}: has no line in {manifest}; add one or leave the scan out")
        row = rows[listed[0]]
        complete.append(replace(scan, group=row.group, kind=row.kind or scan.kind, mask=row.mask or scan.mask))
    return complete


def _require_some(studies: Sequence[Study], left_out: Sequence[LeftOut], where: str) -> None:
    if studies:
        return
    if left_out:
        others = f" (and {len(left_out) - 1} more)" if len(left_out) > 1 else ""
        raise InputError(left_out[0].reason + others)
    raise InputError(f"{where}: holds no scans; name files or folders that hold some")


def _where(inputs: Sequence[Path], manifest: Path | None) -> str:
    return str(inputs[0]) if inputs else str(manifest or "no inputs")
