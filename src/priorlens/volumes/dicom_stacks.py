"""Slices of one series become stacks: what mixes is split, copies are left out, gaps and slants are found."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from priorlens.volumes.dicom_headers import MARKS, Slice
from priorlens.volumes.left_out import LeftOut
from priorlens.volumes.volume import ORTHOGONAL

_MARK_NAMES = tuple(dict.fromkeys(name for name, *_ in MARKS))

MIN_SLICES = 3
"""Fewer slices than this are no scan."""

MIN_PART = 4
"""So many slices of another orientation or size than most of their series are a scan of their own."""

SAME_PLACE = 1e-3
"""Millimetres along the normal up to which two slices lie at one place."""

GAP = 1.5
"""A step of more than so many medians leaves slices out."""

_COSINE = 1e-3
"""Up to which two orientations are one: cosines are stored rounded."""

_EVEN_SHARE, _EVEN_MM = 0.01, 0.05
"""Of the median step, and millimetres: steps that differ by less than the larger are even."""

_DRIFT_SHARE = 0.25
"""Of a step: how far a slice may lie from where even steps would put it."""

_SHIFT_SHARE, _SHIFT_MM = 0.1, 0.05
"""Of a pixel, and millimetres: how far slices may be shifted in their plane, whichever is larger."""


@dataclass(frozen=True)
class Stack:
    """Slices that lie evenly one above the other, from the lowest along the normal to the highest.

    positions: mm along the normal. step: mm from a slice to the next, in the patient's coordinates as DICOM has them.
    part: what tells it from other stacks of its series, such as "EchoTime 4.6"; empty if it is the only one.
    """

    slices: tuple[Slice, ...]
    positions: tuple[float, ...]
    step: tuple[float, ...]
    part: str


def find_stacks(slices: Sequence[Slice]) -> tuple[list[Stack], list[LeftOut]]:
    """The stacks among the slices of one series, and what of it is left out."""
    stacks: list[Stack] = []
    slices, left_out = _without_copies_by_name(slices)
    parts, strays = _by_grid(slices)
    left_out += strays
    for part, label in parts:
        for marked, mark in _by_marks(part, _MARK_NAMES):
            unique, copies = _without_copies(marked)
            left_out += copies
            stack = _stacked(unique, " ".join(filter(None, (label, mark))))
            if isinstance(stack, Stack):
                stacks.append(stack)
            else:
                left_out.append(stack)
    return stacks, left_out


def folder_of(slices: Sequence[Slice]) -> Path:
    """The deepest folder that holds all files, or the only file."""
    paths = {piece.path for piece in slices}
    folders = paths if len(paths) == 1 else {path.parent for path in paths}
    if len({folder.is_absolute() for folder in folders}) > 1:
        folders = {Path(os.path.abspath(folder)) for folder in folders}
    return Path(os.path.commonpath(folders))


# --- copies


def _without_copies_by_name(slices: Sequence[Slice]) -> tuple[list[Slice], list[LeftOut]]:
    """Without those whose SOPInstanceUID an earlier one at the same place has.

    Elsewhere the same one comes from a poor anonymiser, and says nothing.
    """
    first: dict[tuple[object, ...], Slice] = {}
    kept, left_out = [], []
    for piece in slices:
        key = (piece.sop_instance_uid, piece.frame, piece.position, piece.orientation)
        earlier = first.setdefault(key, piece) if piece.sop_instance_uid else piece
        if earlier is piece:
            kept.append(piece)
        else:
            left_out.append(_copy_of(piece, earlier))
    return kept, left_out


def _without_copies(slices: Sequence[Slice]) -> tuple[list[Slice], list[LeftOut]]:
    """Without those that lie where an earlier one lies and store the same pixels."""
    if not _repeats(slices):
        return list(slices), []
    first: dict[tuple[object, ...], Slice] = {}
    kept, left_out = [], []
    places = _places(slices)
    shared = np.bincount(places) > 1
    for piece, place in zip(slices, places, strict=True):
        digest = _digest(piece) if shared[place] else None
        earlier = first.setdefault((int(place), digest, piece.rescale), piece) if digest else piece
        if earlier is piece:
            kept.append(piece)
        else:
            left_out.append(_copy_of(piece, earlier))
    return kept, left_out


def _copy_of(piece: Slice, earlier: Slice) -> LeftOut:
    frame = f", frame {earlier.frame + 1}" if earlier.of_frames > 1 else ""
    return LeftOut(piece.path, f"{piece} is a copy of {earlier.path}{frame}; nothing is lost, remove one of them")


def _digest(piece: Slice) -> str | None:
    """Of the pixels as stored, or None where they cannot be told."""
    if piece.pixels is None:
        return None
    start, length = piece.pixels
    try:
        with open(piece.path, "rb") as file:
            file.seek(start)
            return hashlib.sha256(file.read(length)).hexdigest()
    except OSError:  # vanished meanwhile; whoever reads the series will say so
        return None


# --- what mixes


def _by_grid(slices: Sequence[Slice]) -> tuple[list[tuple[list[Slice], str]], list[LeftOut]]:
    """By orientation and size: the largest part, with others that are scans of their own, and the strays."""
    orientations: list[tuple[float, ...]] = []
    by_grid: dict[tuple[tuple[float, ...], int, int], list[Slice]] = {}
    for piece in slices:
        own = piece.orientation
        known = (o for o in orientations if max(abs(a - b) for a, b in zip(o, own, strict=True)) <= _COSINE)
        if (orientation := next(known, None)) is None:
            orientations.append(orientation := own)
        by_grid.setdefault((orientation, piece.columns, piece.rows), []).append(piece)
    grids = sorted(by_grid.items(), key=lambda item: -len(item[1]))
    (main, _), *_ = grids
    parts, left_out = [], []
    for grid, part in grids:
        if grid == main or len(part) >= MIN_PART:
            parts.append((part, "" if len(grids) == 1 else f"{_facing(grid[0])} {grid[1]}x{grid[2]}"))
            continue
        if grid[0] != main[0]:
            what = "lies across the others of its series, as a localizer does; leave it out"
        else:
            what = f"is {grid[1]}x{grid[2]} pixels, the others of its series {main[1]}x{main[2]}; leave it out"
        left_out += [LeftOut(piece.path, f"{piece} {what}") for piece in part]
    return (parts if len(parts) > 1 else [(part, "") for part, _ in parts]), left_out


def _facing(orientation: tuple[float, ...]) -> str:
    """The plane that slices of this orientation lie closest to."""
    normal = np.cross(orientation[:3], orientation[3:])
    return ("sagittal", "coronal", "axial")[int(np.argmax(abs(normal)))]


def _by_marks(slices: list[Slice], names: Sequence[str]) -> list[tuple[list[Slice], str]]:
    """Apart by what their headers tell where several lie at one place or steps are uneven, else together.

    A mark is taken if it makes that better and leaves a part that could be a scan; one that differs from slice to
    slice does not.
    """
    wrong = _repeats(slices) + _uneven(slices)
    if not wrong:
        return [(slices, "")]
    for position, name in enumerate(names):
        parts: dict[str, list[Slice]] = {}
        for piece in slices:
            parts.setdefault(piece.marks.get(name, ""), []).append(piece)
        if len(parts) < 2 or max(map(len, parts.values())) < MIN_SLICES:
            continue
        if sum(_repeats(part) + _uneven(part) for part in parts.values()) < wrong:
            rest = names[position + 1 :]
            return [
                (found, " ".join(filter(None, (f"{name} {value}".strip(), deeper))))
                for value, part in parts.items()
                for found, deeper in _by_marks(part, rest)
            ]
    return [(slices, "")]


# --- where they lie


def _along(slices: Sequence[Slice]) -> np.ndarray:
    """Millimetres along the normal of the first."""
    orientation = slices[0].orientation
    normal = np.cross(orientation[:3], orientation[3:])
    return np.array([piece.position for piece in slices]) @ normal


def _places(slices: Sequence[Slice]) -> np.ndarray:
    """For each slice the number of the place where it lies, from the lowest."""
    along = _along(slices)
    order = np.argsort(along, kind="stable")
    places = np.empty(len(slices), int)
    places[order] = np.concatenate([[0], np.cumsum(np.diff(along[order]) > SAME_PLACE)])
    return places


def _repeats(slices: Sequence[Slice]) -> int:
    """How many slices lie where another already does."""
    return len(slices) - 1 - int(_places(slices).max())


def _median(steps: np.ndarray) -> float:
    """The lower one of an even number: of two steps, one across a gap, it is the true one."""
    return float(np.sort(steps)[(len(steps) - 1) // 2])


def _uneven(slices: Sequence[Slice]) -> int:
    """How many of the steps from place to place are neither the median's length nor gaps."""
    along = np.sort(_along(slices))
    steps = np.diff(along)
    steps = steps[steps > SAME_PLACE]
    if len(steps) < 2:
        return 0
    median = _median(steps)
    return int(((abs(steps - median) > _tolerance(median)) & (steps <= GAP * median)).sum())


def _tolerance(step: float) -> float:
    return max(_EVEN_SHARE * step, _EVEN_MM)


def _stacked(slices: Sequence[Slice], part: str) -> Stack | LeftOut:
    """The slices in order, or why they are none that can be used: then the series is left out as a whole."""
    path = folder_of(slices)
    name = slices[0].description or slices[0].series_uid or "without a name"
    which = f"{path}: series {name!r}{f' ({part})' if part else ''}"
    count = len(slices)
    if count < MIN_SLICES:
        plural = "slice" if count == 1 else "slices"
        return LeftOut(path, f"{which} has only {count} {plural}, at least {MIN_SLICES} are needed; send all of it")
    order = np.argsort(_along(slices), kind="stable")
    ordered = tuple(slices[index] for index in order)
    along = np.asarray(_along(ordered))
    if problem := _spacing_problem(ordered) or _steps_problem(along) or _slant_problem(ordered):
        return LeftOut(path, f"{which}, {count} slices: {problem}")
    first, last = np.array(ordered[0].position), np.array(ordered[-1].position)
    step = (last - first) / (count - 1)
    return Stack(ordered, tuple(along.tolist()), tuple(step.tolist()), part)


def _spacing_problem(slices: Sequence[Slice]) -> str | None:
    spacings = np.array([piece.spacing for piece in slices])
    if float(np.ptp(spacings, axis=0).max()) <= 1e-3 * spacings.min():
        return None
    low, high = spacings.min(), spacings.max()
    return f"its PixelSpacing differs from slice to slice ({low:g} to {high:g} mm); export one acquisition at a time"


def _steps_problem(along: np.ndarray) -> str | None:
    """What is wrong with positions in rising order."""
    steps = np.diff(along)
    if (twice := steps <= SAME_PLACE).any():
        where = along[:-1][twice][0]
        return (
            f"{int(twice.sum())} lie where another does (first at {where:.1f} mm) with other pixels, and no header "
            "tells them apart; send one acquisition at a time"
        )
    median = _median(steps)
    gaps = steps > GAP * median
    if gaps.any():
        missing = int(np.round(steps[gaps] / median - 1).clip(1).sum())
        middles = ((along[:-1] + along[1:]) / 2)[gaps]
        around = ", ".join(f"{middle:.1f}" for middle in middles[:3]) + (" and more" if len(middles) > 3 else "")
        verb = "is" if missing == 1 else "are"
        return f"{missing} {verb} missing around {around} mm along their normal; send the whole series again"
    even = along[0] + (along[-1] - along[0]) / len(steps) * np.arange(len(along))
    drift = abs(along - even).max() > _DRIFT_SHARE * median
    if drift or (abs(steps - median) > _tolerance(median)).any():
        return f"its steps are uneven ({steps.min():.2f} to {steps.max():.2f} mm); export it at one slice spacing"
    return None


def _slant_problem(slices: Sequence[Slice]) -> str | None:
    """Gantry tilt, or slices shifted against each other in their plane."""
    orientation = slices[0].orientation
    normal = np.cross(orientation[:3], orientation[3:])
    positions = np.array([piece.position for piece in slices])
    way = positions[-1] - positions[0]
    sine = float(np.linalg.norm(np.cross(way, normal)) / (np.linalg.norm(way) * np.linalg.norm(normal)))
    # What `Volume` takes for right-angled: a scan that is found here can also be read.
    if sine > ORTHOGONAL:
        angle = float(np.degrees(np.arcsin(np.minimum(sine, 1.0))))
        return f"its gantry was tilted, slices are slanted by {angle:.2f} degrees; export it resampled upright"
    share = (positions - positions[0]) @ way / (way @ way)
    beside = np.linalg.norm(positions - positions[0] - share[:, None] * way, axis=1).max()
    if beside > max(_SHIFT_SHARE * min(slices[0].spacing), _SHIFT_MM):
        return f"its slices are shifted against each other by up to {beside:.2f} mm; export it resampled"
    return None
