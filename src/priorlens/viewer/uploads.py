"""What the page may be given: names that stay in their folder, and contents that begin as an image or a scan does."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from priorlens.errors import InputError
from priorlens.images import IMAGE_SUFFIXES
from priorlens.volumes.scans import SCAN_SUFFIXES

DICOM = (".dcm", ".dicom", ".ima", "")
"""DICOM files often have no suffix, or a number for one."""

ENOUGH = 540
"""Bytes from the start of a file by which it is known."""

_LONGEST = 120
"""Bytes of a name, of which a file system takes 255: what is made of it has a longer one."""

_STARTS = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"II*\x00",
    b"MM\x00*",
    b"II+\x00",
    b"MM\x00+",
    b"BM",
    b"\x93NUMPY",
    b"PK\x03\x04",
    b"\x1f\x8b",
    b"NRRD",
    b"ObjectType",
    b"NDims",
)
_NIFTI_HEADERS = (348, 540)


def suffixes(of_scans: bool) -> list[str]:
    """Of files that may be given; an empty one stands for names without."""
    return sorted({*SCAN_SUFFIXES, *DICOM}) if of_scans else sorted(IMAGE_SUFFIXES)


def safe_name(told: str) -> PurePosixPath:
    """A relative path below the folder of uploads, from what the browser says a file is called, percent-encoded.

    Raises InputError for a name of which nothing is left.
    """
    parts = re.split(r"[/\\]", unquote(told))
    kept = [_end_of(re.sub(r"[\x00-\x1f\x7f:*?\"<>|]", "_", part).strip()) for part in parts]
    kept = [part for part in (one.lstrip(".") for one in kept) if part]
    if not kept:
        raise InputError("a file has no name; give it one")
    return PurePosixPath(*kept[-8:])


def _end_of(part: str) -> str:
    """Where the suffix is."""
    return part.encode()[-_LONGEST:].decode(errors="ignore")


def require_kind(name: PurePosixPath, start: bytes, of_scans: bool) -> None:
    """Raises InputError for what begins as no image, or scan, does."""
    known = suffixes(of_scans)
    suffix = ".nii.gz" if name.name.lower().endswith(".nii.gz") else name.suffix.lower()
    dicom = of_scans and start[128:132] == b"DICM"
    if not dicom and (suffix not in known or suffix == ""):
        shown = " ".join(one for one in known if one)
        raise InputError(f"{name.name}: is not one of {shown}{' or DICOM' if of_scans else ''}; convert it")
    if not dicom and not start.startswith(_STARTS) and not _is_nifti(start):
        raise InputError(f"{name.name}: its content is not that of an image; export it again")


def _is_nifti(start: bytes) -> bool:
    size = start[:4]
    return any(size == length.to_bytes(4, order) for length in _NIFTI_HEADERS for order in ("little", "big"))


def partial_of(path: Path) -> Path:
    """Where a file is as long as it has not arrived whole."""
    return path.with_name(f".{path.name}.partial")


def place_for(folder: Path, name: PurePosixPath) -> Path:
    """A path in the folder that nothing has yet, and nothing that arrives."""
    path = folder.joinpath(name)
    stem, count = name.name, 1
    while path.exists() or partial_of(path).exists():
        count += 1
        path = path.with_name(f"{count}-{stem}")
    return path
