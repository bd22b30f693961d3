"""Images at addresses (`s3://bucket/night`): listed as those on this machine are, and fetched one by one to be read."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath

from priorlens.addresses import Address, Found, fetch, listing, place, require_file_system, stamp_at
from priorlens.datasets import Case, Remote, find_cases, images_under, named, natural_order, no_images, pattern_of
from priorlens.errors import InputError
from priorlens.images import IMAGE_SUFFIXES
from priorlens.ledger import Stamp, content_of
from priorlens.manifest import Line, listed_twice, read_lines

_ASKED_AT_ONCE = 16
"""Single files whose stamps are asked for at the same time."""


_Listed = tuple[Path | Found, str]
"""One file of a list, here or not, and its path from what the user has named."""


def find_cases_anywhere(
    inputs: Sequence[Path | Address], *, group: str | None = None, manifest: Path | Address | None = None
) -> list[Case]:
    """As `datasets.find_cases`, where inputs and manifest may be addresses, too.

    A manifest that is at an address has paths that start at its own folder; in one on this machine they start at the
    inputs, if these are addresses. Both may name addresses as such.

    Raises:
        InputError: as `datasets.find_cases`; an address cannot be listed; or a manifest is for images of both kinds.
    """
    local = [one for one in inputs if isinstance(one, Path)]
    lines = _lines(manifest) if manifest else []
    if len(local) == len(inputs) and not isinstance(manifest, Address) and not any("://" in one.file for one in lines):
        return find_cases(local, group=group, manifest=manifest)
    if manifest and local:
        raise InputError(f"{local[0]}: is on this machine, and {manifest} is for images at addresses; score them apart")
    pattern = pattern_of(group, manifest)
    rows = _rows(manifest, lines, [one for one in inputs if isinstance(one, Address)]) if manifest else {}
    listed = _listed(inputs) if inputs else _of_rows(manifest, rows)
    return _cases(listed, pattern, rows, manifest)


def manifest_content(manifest: Path | Address | None) -> str | None:
    """Its SHA-256; None where there is no manifest. Raises InputError."""
    if manifest is None or isinstance(manifest, Path):
        return content_of(manifest) if manifest else None
    with tempfile.TemporaryDirectory(prefix="priorlens-") as folder:
        fetch(manifest, Path(folder, "manifest.csv"))
        return content_of(Path(folder, "manifest.csv"))


@contextmanager
def on_disk(case: Case) -> Iterator[Case]:
    """The case with its files on this disk, for as long as the block lasts.

    Raises InputError, which may pass, where they cannot be fetched; and what the block raises, in the words of the
    addresses.
    """
    if case.remote is None:
        yield case
        return
    with tempfile.TemporaryDirectory(prefix="priorlens-") as folder:
        addresses = [case.remote.address, *_beside(case.remote.address)]
        paths = {Path(folder, one.name): one for one in addresses}
        mask = Path(folder, "mask", case.remote.mask.name) if case.remote.mask else None
        if mask and case.remote.mask:
            mask.parent.mkdir()
            paths[mask] = case.remote.mask
        for path, address in paths.items():
            fetch(address, path)
        try:
            yield replace(case, path=Path(folder, case.remote.address.name), mask=mask, remote=None)
        except InputError as error:
            line = str(error)
            for path, address in paths.items():
                line = line.replace(str(path), str(address))
            raise InputError(line, passing=error.passing) from None


def _beside(address: Address) -> list[Address]:
    """What belongs to a file: the header of a measurement of BART."""
    stem, _, suffix = address.text.rpartition(".")
    return [Address(f"{stem}.hdr")] if suffix.lower() == "cfl" else []


def _listed(inputs: Sequence[Path | Address]) -> list[_Listed]:
    """Each file once."""
    found: dict[str, _Listed] = {}
    for root in inputs:
        if isinstance(root, Path):
            for path, relative in images_under(root):
                found.setdefault(os.path.abspath(path), (path, relative))
        else:
            for one in _found_at(root):
                found.setdefault(one.address.text, (one, one.relative))
    return list(found.values())


def _found_at(root: Address) -> list[Found]:
    """The images below an address. A single image that cannot be reached is one of them: it fails when it is read."""
    require_file_system(root)
    try:
        found = listing(root)
    except InputError as error:
        if error.passing and PurePosixPath(root.name).suffix.lower() in IMAGE_SUFFIXES:
            return [Found(root, root.name, Stamp())]
        raise
    if len(found) == 1 and found[0].address == root:
        return found
    images = [one for one in found if PurePosixPath(one.relative).suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        raise no_images(root)
    return sorted(images, key=lambda one: natural_order(one.relative))


def _lines(manifest: Path | Address) -> list[Line]:
    if isinstance(manifest, Path):
        return read_lines(manifest)
    with tempfile.TemporaryDirectory(prefix="priorlens-") as folder:
        copy = Path(folder, "manifest.csv")
        fetch(manifest, copy)
        try:
            return [replace(one, where=one.where.replace(str(copy), str(manifest))) for one in read_lines(copy)]
        except InputError as error:
            raise InputError(str(error).replace(str(copy), str(manifest))) from None


def _rows(manifest: Path | Address, lines: Sequence[Line], inputs: Sequence[Address]) -> dict[Address, Line]:
    """The lines by the address of their image; those of masks in full."""
    roots: list[Address | None] = [manifest.parent] if isinstance(manifest, Address) else list(inputs)
    rows: dict[Address, Line] = {}
    for line in lines:
        own: set[Address] = set()
        for root in roots or [None]:
            image, mask = _resolved(line.file, root, line), line.mask and _resolved(line.mask, root, line)
            if image in rows and image not in own:
                raise listed_twice(line)
            own.add(image)
            rows[image] = replace(line, mask=str(mask))
    return rows


def _resolved(name: str, root: Address | None, line: Line) -> Address:
    if "://" in name:
        one = place(name)
        assert isinstance(one, Address)
        return one
    if root is None:
        raise InputError(f"{line.where}: {name} is no address, as other lines are; give all as addresses")
    return root.leads_to(name)


def _of_rows(manifest: Path | Address | None, rows: Mapping[Address, Line]) -> list[_Listed]:
    """Every image of a manifest."""
    folder = manifest.parent if isinstance(manifest, Address) else None
    for address in list(rows)[:1]:
        require_file_system(address)
    with ThreadPoolExecutor(_ASKED_AT_ONCE) as threads:
        stamps = list(threads.map(stamp_at, rows))
    listed: list[_Listed] = []
    for address, stamp in zip(rows, stamps, strict=True):
        inside = folder is not None and address.is_within(folder)
        relative = address.text[len(folder.text) + 1 :] if folder and inside else address.name
        listed.append((Found(address, relative, stamp), relative))
    return listed


def _cases(
    listed: Sequence[_Listed],
    pattern: re.Pattern[str] | None,
    rows: Mapping[Address, Line],
    manifest: Path | Address | None,
) -> list[Case]:
    """With unique names, and with what the manifest says of them."""
    cases = []
    pairs = ((one.address if isinstance(one, Found) else one, relative) for one, relative in listed)
    for case, (one, _) in zip(named(pairs, pattern), listed, strict=True):
        if isinstance(one, Path):
            cases.append(case)
            continue
        remote = Remote(one.address, one.stamp)
        if manifest:
            line = rows.get(one.address)
            if line is None:
                raise InputError(f"{one.address}: has no line in {manifest}; add one or leave the image out")
            mask = place(line.mask) if line.mask else None
            remote = replace(remote, mask=mask if isinstance(mask, Address) else None)
            case = replace(case, group=line.group, kind=line.kind or case.kind)
        cases.append(replace(case, remote=remote))
    return cases
