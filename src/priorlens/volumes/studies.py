"""Studies: which files, and which DICOM series, belong together as the channels and the mask of one scan."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from priorlens.datasets import HEALTHY, natural_order, visible_files
from priorlens.errors import InputError
from priorlens.volumes.arrays import ITK_SUFFIXES, affine_beside, is_volume_npz, npz_channels
from priorlens.volumes.dicom_files import Series, find_series
from priorlens.volumes.dicom_headers import is_dicom
from priorlens.volumes.layouts import Told, mask_rank, tell
from priorlens.volumes.left_out import LeftOut
from priorlens.volumes.nifti import NIFTI_SUFFIXES

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
"""Of DICOM files; those without one are known by their content."""

SCAN_SUFFIXES = (*NIFTI_SUFFIXES, *ITK_SUFFIXES, ".npz", ".npy", *DICOM_SUFFIXES)
"""Of files that may be scans; .npz and .npy only if they bring an affine."""


@dataclass(frozen=True)
class Source:
    """One channel; `relative` is its place under what the user named."""

    file: Path | Series
    relative: PurePosixPath
    channel: str = ""

    @property
    def path(self) -> Path:
        return self.file if isinstance(self.file, Path) else self.file.path


@dataclass(frozen=True)
class Study:
    """Channels of one patient on one occasion. `patient` is "" where nothing tells whose it is."""

    name: str
    patient: str
    sources: tuple[Source, ...]
    mask: Path | None = None
    kind: str = HEALTHY


@dataclass(frozen=True)
class FoundFile:
    """A possible scan or mask under an input; `root` tells studies of equal name under several inputs apart."""

    path: Path
    relative: PurePosixPath
    root: Path


def scan_stem(relative: PurePosixPath) -> PurePosixPath:
    """A path without its suffix, of which `.nii.gz` is one; dots that start none stay."""
    lower = relative.name.lower()
    suffix = max((s for s in SCAN_SUFFIXES if lower.endswith(s)), key=len, default="")
    return relative.with_name(relative.name[: len(relative.name) - len(suffix)] or relative.name)


def is_scan_file(path: Path) -> bool:
    """Whether a file is taken for a scan: by its suffix, and where that does not tell by a look into it."""
    name = path.name.lower()
    if name.endswith(".npz"):
        return is_volume_npz(path)
    if name.endswith(".npy"):
        return affine_beside(path).is_file()
    return name.endswith(SCAN_SUFFIXES) or _is_dicom(path)


def find_studies(inputs: Sequence[Path]) -> tuple[list[Study], list[LeftOut]]:
    """All under files and folders (searched in depth, in natural order, hidden files left out), and what is not used.

    Raises:
        InputError: an input is missing, cannot be read, or is a folder without scans.
    """
    found: dict[Path, FoundFile] = {}
    for root in inputs:
        for file in files_under(root):
            found.setdefault(Path(os.path.abspath(file.path)), file)
    return _studies(found.values())


def studies_listed(paths: Iterable[Path], folder: Path) -> tuple[list[Study], list[LeftOut]]:
    """Of files as a manifest lists them, whose names start at its folder."""
    return _studies(
        FoundFile(path, PurePosixPath(path.relative_to(folder) if folder in path.parents else path.name), folder)
        for path in paths
    )


def _studies(found: Iterable[FoundFile]) -> tuple[list[Study], list[LeftOut]]:
    """Files put together to studies, in the order of each study's first scan; DICOM comes last."""
    files = list(found)
    beside: dict[tuple[Path, PurePosixPath], set[str]] = {}
    for file in files:
        beside.setdefault((file.root, file.relative.parent), set()).add(scan_stem(file.relative).name.lower())
    told: dict[tuple[Path, str], list[tuple[FoundFile, Told]]] = {}
    dicom, left_out = [], []
    for file in files:
        name = file.path.name.lower()
        if name.endswith((".img", ".img.gz")):
            left_out.append(
                LeftOut(file.path, f"{file.path}: is half of a .hdr/.img pair; convert the pair to one .nii.gz")
            )
        elif not name.endswith(SCAN_SUFFIXES) or name.endswith(DICOM_SUFFIXES):
            dicom.append(file)
        elif what := tell(
            scan_stem(file.relative),
            Path(os.path.abspath(file.root)).name,
            frozenset(beside[file.root, file.relative.parent]),
        ):
            told.setdefault((file.root, what.study), []).append((file, what))
    studies = []
    for (root, _), members in told.items():
        study, unused = _study(root, members)
        studies += [study] if study.sources else []
        left_out += unused
        if all(what.is_mask for _, what in members):
            left_out += [
                LeftOut(file.path, f"{file.path}: is a mask by its name, without its scan; add that, or rename it")
                for file, _ in members
            ]
    order = {file.path: number for number, file in enumerate(files)}
    studies.sort(key=lambda study: order[study.sources[0].path])  # of which a mask may have come first
    of_dicom, unused = _dicom_studies(dicom)
    return studies + of_dicom, left_out + unused


def with_channels(
    studies: Sequence[Study], channels: Sequence[str] | None, where: str, *, unnamed: bool = False
) -> tuple[list[Study], list[LeftOut]]:
    """Studies of which each is one scan: with one source for each channel, in the order of `channels`.

    Several files of one channel are a scan each, if no other channel is asked for. unnamed: a file or series whose
    channel nothing tells will do too, where one channel is asked for.

    Raises:
        InputError: `channels` is None and there are several to choose from; or none of the studies has them.
    """
    if channels is None:
        return _only_channel(studies, where), []
    wanted = [channel.lower() for channel in channels]
    if not wanted or len(set(wanted)) < len(wanted):
        raise InputError(f"--channels {' '.join(channels)}: names none, or one twice; correct it")
    complete, left_out = [], []
    for study in studies:
        will_do = {"", wanted[0]} if unnamed and len(wanted) == 1 else set(wanted)
        having = [[s for s in study.sources if s.channel.lower() in will_do & {c, ""}] for c in wanted]
        if len(wanted) == 1:
            complete += [replace(study, sources=(source,)) for source in having[0]]
        elif all(len(sources) == 1 for sources in having):
            complete.append(replace(study, sources=tuple(sources[0] for sources in having)))
        if not all(having):
            missing = ", ".join(c for c, sources in zip(wanted, having, strict=True) if not sources)
            reason = f"has no {missing}, only {_names(study.sources)}; add it or leave the patient out"
            left_out.append(_left_out(study, reason))
        elif len(wanted) > 1 and any(len(sources) > 1 for sources in having):
            twice = next(c for c, sources in zip(wanted, having, strict=True) if len(sources) > 1)
            left_out.append(_left_out(study, f"has several {twice}; keep the one that belongs to the other channels"))
    if studies and not complete:
        every = _names([source for study in studies for source in study.sources])
        raise InputError(f"{where}: no scan has the channels {', '.join(wanted)}; there are {every}")
    return complete, left_out


def _only_channel(studies: Sequence[Study], where: str) -> list[Study]:
    sources = [source for study in studies for source in study.sources]
    names = {source.channel for source in sources if source.channel}
    if len(names) > 1 or any(len({source.channel for source in study.sources}) > 1 for study in studies):
        example = "flair" if "flair" in names else min(names, key=natural_order)
        raise InputError(
            f"{where}: holds several channels ({_names(sources)}); name which with --channels, such as "
            f"--channels {example}"
        )
    return [replace(study, sources=(source,)) for study in studies for source in study.sources]


def _names(sources: Iterable[Source]) -> str:
    return ", ".join(sorted({source.channel or "one without a name" for source in sources}, key=natural_order))


def _left_out(study: Study, reason: str) -> LeftOut:
    path = study.sources[0].path
    folder = path if len(study.sources) == 1 else path.parent
    return LeftOut(folder, f"{folder}: {reason}")


def _study(root: Path, members: Sequence[tuple[FoundFile, Told]]) -> tuple[Study, list[LeftOut]]:
    """Of the files of one study; of several masks the one whose name speaks most of lesions."""
    sources: list[Source] = []
    left_out = []
    for file, what in members:
        if what.is_mask:
            continue
        channels: tuple[str, ...] = (what.channel,)
        if file.path.name.lower().endswith(".npz"):
            try:
                inside = npz_channels(file.path)
            except InputError as error:
                left_out.append(LeftOut(file.path, str(error)))
                continue
            channels = inside if inside != ("",) else channels
        sources += [Source(file.path, file.relative, channel) for channel in channels]
    masks = sorted((file for file, what in members if what.is_mask), key=lambda file: mask_rank(file.path.name))
    for other in masks[1:] if sources else ():
        reason = f"is not the mask that is used, {masks[0].path} is; name the right one in a manifest, or remove one"
        left_out.append(LeftOut(other.path, f"{other.path}: {reason}"))
    what = members[0][1]
    name = what.study if what.study != "." else Path(os.path.abspath(root)).name
    return Study(name, what.patient, tuple(sources), masks[0].path if masks else None), left_out


def _dicom_studies(files: Sequence[FoundFile]) -> tuple[list[Study], list[LeftOut]]:
    if not files:
        return [], []
    series, left_out = find_series([file.path for file in files])
    found = {Path(os.path.abspath(file.path)): file for file in files}
    places = [_place(one, found) for one in series]
    studies = []
    for one, place in zip(series, places, strict=True):
        name = place
        if places.count(place) > 1:
            label = " ".join(word for word in (one.description.strip() or one.uid, one.part) if word)
            name = place / (label.replace("/", "-").strip(".") or one.uid)  # ".." would be another folder
        studies.append(Study(str(name), one.patient, (Source(one, name),)))
    order = sorted(range(len(places)), key=lambda number: natural_order(str(places[number])))
    return [studies[number] for number in order], left_out


def _place(series: Series, found: dict[Path, FoundFile]) -> PurePosixPath:
    """The folder of a series, or its one file, under what the user named."""
    file = found.get(Path(os.path.abspath(series.instances[0].path)))
    root = Path(os.path.abspath(file.root)) if file else Path(os.path.abspath(series.path)).parent
    path = Path(os.path.abspath(series.path))
    if path == root or root not in path.parents:
        return PurePosixPath(path.name)
    return scan_stem(PurePosixPath(path.relative_to(root).as_posix()))


def files_under(root: Path) -> list[FoundFile]:
    """Possible scans under one input; a file named by itself may be of any type."""
    if root.is_file():
        return [FoundFile(root, PurePosixPath(root.name), root.parent)]
    if not root.exists():
        raise InputError(f"{root}: there is no such file or folder; check the path")
    paths = [path for path in visible_files(root) if is_scan_file(path) or _is_pair(path)]
    if not paths:
        raise InputError(f"{root}: holds no scans ({' '.join(SCAN_SUFFIXES)}); name a folder that does")
    relatives = [FoundFile(path, PurePosixPath(path.relative_to(root).as_posix()), root) for path in paths]
    return sorted(relatives, key=lambda file: natural_order(str(file.relative)))


def _is_pair(path: Path) -> bool:
    name = path.name.lower()
    ending = next((ending for ending in (".img.gz", ".img") if name.endswith(ending)), None)
    return ending is not None and path.with_name(path.name[: -len(ending)] + ".hdr").exists()


def _is_dicom(path: Path) -> bool:
    try:
        return path.is_file() and path.name != "DICOMDIR" and is_dicom(path)
    except OSError:
        return False
