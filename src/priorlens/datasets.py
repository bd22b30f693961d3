"""Which images there are, whose they are, and what is known about them: plain folders, the MVTec layout, manifests."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from priorlens.addresses import Address
from priorlens.errors import InputError
from priorlens.images import IMAGE_SUFFIXES
from priorlens.ledger import Stamp
from priorlens.manifest import Row, read_manifest

HEALTHY = "good"
"""The kind of a healthy image, and the name of its folder."""

MIN_HEALTHY = 8
"""Fewer healthy images than this cannot be learned from."""


MEASUREMENT_SUFFIXES = (".npz", ".h5", ".hdf5", ".cfl")
"""Of files that hold a measurement rather than an image; a .hdr goes with its .cfl."""


@dataclass(frozen=True, slots=True)
class Remote:
    """Where an image is fetched from, and a mask of it; stamp: of the image when it was listed."""

    address: Address
    stamp: Stamp
    mask: Address | None = None


@dataclass(frozen=True)
class Case:
    """One image of a list: where it is, what results call it, whose it is, and what is known to be in it.

    `name` is its path relative to what the user named, without suffix and with forward slashes, unique in the list.
    `group` is the patient. `mask` is the file that outlines the lesion, if there is one. `remote`: of an image that is
    not on this machine; then `path` is no more than a name, until `remote_cases.on_disk` has fetched it.
    """

    path: Path
    name: str
    group: str
    kind: str = HEALTHY
    mask: Path | None = None
    remote: Remote | None = None

    @property
    def file(self) -> str:
        """What tables and messages call the image."""
        return str(self.remote.address) if self.remote else self.path.as_posix()

    def stamp(self) -> Stamp:
        """Of the file as it is now; of one that is not on this machine, as it was listed."""
        return self.remote.stamp if self.remote else Stamp.of([self.path])


def is_measurement(path: Path) -> bool:
    """Whether a file's name says that it holds a measurement rather than an image."""
    return path.suffix.lower() in MEASUREMENT_SUFFIXES


def find_cases(inputs: Sequence[Path], *, group: str | None = None, manifest: Path | None = None) -> list[Case]:
    """Every image among `inputs`, files or folders (searched in depth, in natural order, hidden files left out).

    `group` is a regular expression searched for in the path relative to its input; its first capture group, or the
    whole match, names the patient. `manifest` is a CSV with columns `file,group[,kind][,mask]`, paths relative to the
    CSV's own folder; it must have a row for every image found, and with no `inputs` at all it is the list of images.
    With neither, every image is a patient of its own.

    Raises:
        InputError: an input is missing or holds no images, the expression does not match an image, or the manifest
            cannot be used.
    """
    pattern, rows = patients_by(group, manifest)
    found: dict[str, tuple[Path, str]] = {}
    for root in inputs:
        for path, relative in images_under(root):
            found.setdefault(os.path.abspath(path), (path, relative))
    if manifest and not inputs:
        folder = Path(os.path.abspath(manifest.parent))
        for path in rows:
            relative = path.relative_to(folder).as_posix() if folder in path.parents else path.name
            found[str(path)] = path, relative
    if not found:
        raise InputError("no images were named; name files or folders that hold some")
    return _with_rows(named(found.values(), pattern), manifest, rows)


def healthy_cases(folder: Path, *, group: str | None = None, manifest: Path | None = None) -> list[Case]:
    """The healthy images to learn from: those in `train/good` under `folder` if it exists, else all under `folder`.

    Images that the manifest calls anything but good are left out.

    Raises:
        InputError: as `find_cases`; fewer than `MIN_HEALTHY` images; or a data set with `test` but no `train/good`.
    """
    source = folder / "train" / HEALTHY
    if not source.is_dir():
        if (folder / "test").is_dir():
            raise InputError(f"{folder}: has test/ but no train/{HEALTHY}/; name the folder of healthy images itself")
        source = folder
    cases = [case for case in find_cases([source], group=group, manifest=manifest) if case.kind == HEALTHY]
    if len(cases) < MIN_HEALTHY:
        count = "only one healthy image" if len(cases) == 1 else f"only {len(cases)} healthy images"
        raise InputError(f"{source}: holds {count}; at least {MIN_HEALTHY} are needed, and hundreds are better")
    return cases


def labelled_cases(folder: Path, *, group: str | None = None, manifest: Path | None = None) -> list[Case]:
    """The images of `test/<kind>` under `folder`, with the masks of `ground_truth/<kind>`; kind `good` is healthy.

    A mask has its image's name, or that with `_mask`, and any image suffix. An abnormal image without one is kept.
    Patients are told by the path inside the kind's folder, so that a patient may appear in several kinds; by default
    images of equal name in several kinds are one patient's.

    Raises:
        InputError: as `find_cases`; no `test`, no `test/good`, or no other kind; or a mask without image.
    """
    test = folder / "test"
    if not test.is_dir():
        raise InputError(f"{folder}: has no test/ folder; it needs test/{HEALTHY}/ and test/<kind of abnormality>/")
    kinds = sorted((p.name for p in test.iterdir() if p.is_dir() and not p.name.startswith(".")), key=natural_order)
    if HEALTHY not in kinds:
        raise InputError(f"{test}: has no {HEALTHY}/ folder; put the healthy test images there")
    if len(kinds) == 1:
        raise InputError(f"{test}: has no abnormal kind beside {HEALTHY}/; put the abnormal images in test/<kind>/")
    refuse_masks_of_no_kind(folder / "ground_truth", kinds)
    pattern, rows = patients_by(group, manifest)
    cases: list[Case] = []
    for kind in kinds:
        of_kind = named(images_under(test / kind), pattern)
        if kind != HEALTHY:
            of_kind = _with_masks(of_kind, test / kind, folder / "ground_truth" / kind)
        cases += [replace(case, name=f"{kind}/{case.name}", kind=kind) for case in of_kind]
    return _with_rows(cases, manifest, rows)


def split_groups(cases: Sequence[Case], share: float, seed: int) -> tuple[list[Case], list[Case]]:
    """Set aside about `share` (in (0, 1)) of the cases by whole patients at random: (kept, set aside), each in order.

    The same patients are set aside whatever the order of `cases`. One with more than twice that share of the images
    stays, if any other is smaller: else most of a study could be set aside.

    Raises:
        InputError: all cases belong to one patient, so that one side would be empty.
    """
    if not 0 < share < 1:
        raise ValueError(f"share must lie between 0 and 1, not {share}")
    counts: dict[str, int] = {}
    for case in cases:
        counts[case.group] = counts.get(case.group, 0) + 1
    if len(counts) < 2:
        whose = f"all {len(cases)} images belong to patient {cases[0].group!r}" if cases else "there are no images"
        raise InputError(f"{whose}; at least two patients are needed to set some aside")
    names = sorted(counts)
    groups = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    wanted = share * len(cases)
    movable = [name for name in groups if counts[name] <= max(2 * wanted, min(counts.values()))]
    sizes = np.cumsum([counts[name] for name in movable[: len(groups) - 1]])
    number = 1 + int(np.argmin(np.abs(sizes - wanted)))
    aside = set(movable[:number])
    return [case for case in cases if case.group not in aside], [case for case in cases if case.group in aside]


def fingerprint(cases: Iterable[Case]) -> str:
    """SHA-256, in hex, of the contents of all images, whatever their names and order. Raises InputError."""
    contents = []
    for case in cases:
        try:
            with open(case.path, "rb") as file:
                contents.append(hashlib.file_digest(file, "sha256").hexdigest())
        except OSError as error:
            raise _unreadable(case.path, error) from error
    return hashlib.sha256("\n".join(sorted(contents)).encode()).hexdigest()


def images_under(root: Path) -> list[tuple[Path, str]]:
    """The image files of one input, each with its path relative to it; a file named by itself may be of any type."""
    if root.is_file():
        return [(root, root.name)]
    if not root.exists():
        raise InputError(f"{root}: there is no such file or folder; check the path")
    found = [path for path in visible_files(root) if path.suffix.lower() in IMAGE_SUFFIXES]
    if not found:
        raise no_images(root)
    relatives = [(path, path.relative_to(root).as_posix()) for path in found]
    del found  # of a million files no list is kept twice
    relatives.sort(key=lambda pair: natural_order(pair[1]))
    return relatives


def no_images(root: Path | Address) -> InputError:
    return InputError(f"{root}: holds no images ({' '.join(IMAGE_SUFFIXES)}); name a folder that does")


def visible_files(root: Path) -> Iterator[Path]:
    """Every file under a folder that is not hidden. Raises InputError for a folder that cannot be read."""
    entered: set[str] = set()
    for folder, subfolders, files in os.walk(root, onerror=_refuse_folder, followlinks=True):
        if (real := os.path.realpath(folder)) in entered:  # a link to a folder above must not lead round for ever
            subfolders.clear()
            continue
        entered.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        yield from (Path(folder, name) for name in files if not name.startswith("."))


def _refuse_folder(error: OSError) -> None:
    raise _unreadable(error.filename, error) from error


def _unreadable(path: Path | str, error: OSError) -> InputError:
    reason = (error.strerror or str(error)).lower()
    return InputError(f"{path}: cannot be read ({reason}); check that it is there and may be read")


def natural_order(relative: str) -> str:
    """Sort key of a path: numbers by value and before letters, letters whatever their case, then as written.

    One string, in which every part of the path ends in NUL and a number begins with the count of its digits: of a
    million files it takes a tenth of the memory that tuples would.
    """

    def coded(run: str) -> str:
        if not run.isdecimal():
            return "\x02" + run
        digits = str(int(run))
        return f"\x01{chr(len(digits))}{digits}"

    def runs(part: str) -> str:
        return "".join(map(coded, re.findall(r"\d+|\D+", part.casefold())))

    return "".join(f"{runs(part)}\0{part}\0" for part in relative.split("/"))


def named(found: Iterable[tuple[Path | Address, str]], pattern: re.Pattern[str] | None) -> list[Case]:
    """Cases of files and relative paths, with unique names: of several with one name, the later keep their suffix, or
    are counted `~2`, `~3`.
    """
    cases: list[Case] = []
    taken: set[str] = set()
    for path, relative in found:
        name, count = str(PurePosixPath(relative).with_suffix("")), 1
        while name in taken:
            name = relative if count == 1 else f"{relative}~{count}"
            count += 1
        taken.add(name)
        whose = patient_of(pattern, path, relative) if pattern else name
        cases.append(Case(path if isinstance(path, Path) else Path(path.text), name, whose))
    return cases


def patients_by(group: str | None, manifest: Path | None) -> tuple[re.Pattern[str] | None, dict[Path, Row]]:
    """What tells the patients: a compiled expression, or the rows of a manifest, or neither."""
    pattern = pattern_of(group, manifest)
    return pattern, (read_manifest(manifest) if manifest else {})


def pattern_of(group: str | None, manifest: Path | Address | None) -> re.Pattern[str] | None:
    """The expression that names the patients, if there is one; a manifest would name them too. Raises InputError."""
    if manifest and group:
        raise InputError(f"{manifest}: the manifest already names the patients; leave out --group or the manifest")
    try:
        return re.compile(group) if group else None
    except re.error as error:
        raise InputError(f"{group}: is not a regular expression ({error}); correct --group") from error


def patient_of(pattern: re.Pattern[str], path: Path | Address, relative: str) -> str:
    match = pattern.search(relative)
    name = match and match[min(1, pattern.groups)]
    if not name:
        raise InputError(f"{path}: --group {pattern.pattern!r} names no patient in {relative!r}; correct it")
    return name


def _with_masks(cases: Sequence[Case], images: Path, masks: Path) -> list[Case]:
    """The cases of one kind from the folder `images`, with their masks from `masks`, whose every mask has its image."""
    if not masks.is_dir() or not any(masks.iterdir()):
        return list(cases)
    files = {str(PurePosixPath(relative).with_suffix("")): path for path, relative in images_under(masks)}
    unclaimed = set(files)
    complete = []
    for case in cases:
        stem = case.path.relative_to(images).with_suffix("").as_posix()
        name = stem if stem in files else f"{stem}_mask"
        unclaimed.discard(name)
        complete.append(replace(case, mask=files.get(name)))
    if unclaimed:
        orphan = files[min(unclaimed, key=natural_order)]
        raise InputError(f"{orphan}: this mask has no image in {images}; add the image or remove the mask")
    return complete


def refuse_masks_of_no_kind(ground_truth: Path, kinds: Sequence[str]) -> None:
    for masks in sorted(ground_truth.iterdir()) if ground_truth.is_dir() else ():
        if masks.is_dir() and masks.name not in kinds and not masks.name.startswith("."):
            missing = ground_truth.parent / "test" / masks.name
            raise InputError(f"{masks}: these masks have no images, {missing} is missing; add it or remove the masks")


def _with_rows(cases: list[Case], manifest: Path | None, rows: dict[Path, Row]) -> list[Case]:
    """The cases with what the manifest says of them, which goes before what their folders say."""
    if manifest is None:
        return cases
    complete = []
    for case in cases:
        row = rows.get(Path(os.path.abspath(case.path)))
        if row is None:
            raise InputError(f"{case.path}: has no line in {manifest}; add one or leave the image out")
        complete.append(replace(case, group=row.group, kind=row.kind or case.kind, mask=row.mask or case.mask))
    return complete
