"""fastMRI: the reconstructions in its HDF5 files, with the boxes of fastMRI+ where its tables lie beside them.

fastMRI: Zbontar et al. 2018, arXiv:1811.08839. fastMRI+: Zhao et al. 2022, doi:10.1038/s41597-022-01255-z.
"""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32

from benchmarks.adapters.made import existing_folder
from benchmarks.adapters.scan_studies import Cut, Kind, Source, scan_study
from benchmarks.adapters.slices import by_median
from benchmarks.study import Study
from priorlens.datasets import visible_files
from priorlens.errors import InputError
from priorlens.volumes.scan_body import scan_body
from priorlens.volumes.volume import Volume, require_size, require_voxels

IMAGES = "reconstruction_rss"

LEAST_BODY = 0.1
"""Slices of which the body fills a smaller share are not cut."""

ABNORMAL = "finding"
"""The kind of all boxes: there are dozens of labels, most of them rare."""

_NORMAL = "normal"  # begins the remarks on whole studies that tell of nothing abnormal
_COLUMNS = {"file", "slice", "x", "y", "width", "height", "label"}


@dataclass
class Findings:
    """What fastMRI+ says of one file. boxes: by slice; x, y, width, height. whole: a finding without place."""

    boxes: dict[int, list[tuple[int, int, int, int]]] = field(default_factory=dict)
    whole: bool = False


def fastmri(folder: Path, out: Path) -> Study:
    """Files of the folder with `reconstruction_rss`, healthy where fastMRI+ has reviewed them and found nothing.

    Without its tables all slices are taken for healthy; the study then has no abnormal kind, and a run refuses it. Of
    files with boxes only the slices with boxes are used, as abnormal ones. Raises InputError.
    """
    existing_folder(folder, "fastMRI's .h5 files")
    files = sorted(path for path in visible_files(folder) if path.suffix.lower() in (".h5", ".hdf5"))
    if not files:
        raise InputError(f"{folder}: holds no .h5 files with {IMAGES}; name the folder of fastMRI's files")
    if importlib.util.find_spec("h5py") is None:
        raise InputError(f"{files[0]}: is HDF5, which needs h5py; install it with: pip install h5py")
    tables = sorted(path for path in visible_files(folder) if path.suffix.lower() == ".csv")
    findings, reviewed = _findings(tables)
    sources = [_source(path, tables, findings.get(path.stem)) for path in files if _used(path, findings, reviewed)]
    about = "MRI reconstructions (fastMRI)"
    if findings:
        about += ", findings being the boxes of fastMRI+, which need not be complete"
        about += (
            "" if reviewed else "; files without a box are taken for healthy, for no table tells which were reviewed"
        )
    else:
        about += " without annotations: nobody says that they are healthy"
    return scan_study(Kind("fastmri", about, abnormal=ABNORMAL), sources, folder, out)


def _used(path: Path, findings: dict[str, Findings], reviewed: set[str]) -> bool:
    """Not those with a finding that has no place, nor, where it is told which were reviewed, any other."""
    if path.stem in findings:
        return bool(findings[path.stem].boxes) or not findings[path.stem].whole
    return not reviewed or path.stem in reviewed


def _source(path: Path, tables: Sequence[Path], found: Findings | None) -> Source:
    boxes = found.boxes if found else {}
    return Source(path.stem, (path, *tables), _reader(path, boxes), only_judged=bool(boxes))


def _reader(path: Path, boxes: dict[int, list[tuple[int, int, int, int]]]) -> Callable[[], Cut]:
    def read() -> Cut:
        images = _images(path)
        # Columns to the patient's left and rows to the front: slices are cut with the last row on top, as radiologists
        # saw them, and fastMRI+ counts its boxes from there.
        volume = Volume(images.transpose(2, 1, 0)[None], np.diag([-1.0, 1.0, 1.0, 1.0]), "arbitrary", path)
        body = scan_body(volume)
        truth = _boxed(images.shape, boxes)[:, ::-1].transpose(2, 1, 0)
        return Cut(volume, truth, body, by_median(volume, body), LEAST_BODY, clear=not boxes)

    return read


def _boxed(shape: tuple[int, ...], boxes: dict[int, list[tuple[int, int, int, int]]]) -> Bool[np.ndarray, "slice y x"]:
    truth = np.zeros(shape, bool)
    for number, found in boxes.items():
        if 0 <= number < len(truth):
            for x, y, width, height in found:
                truth[number, max(0, y) : max(0, y + height), max(0, x) : max(0, x + width)] = True
    return truth


def _images(path: Path) -> Float32[np.ndarray, "slice row column"]:
    """The reconstructions alone: the measurement in the same file is a hundred times as large."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            link = file.get(IMAGES, getlink=True)
            if isinstance(link, h5py.HardLink) and isinstance(stored := file[IMAGES], h5py.Dataset):
                if len(stored.shape) != 3:
                    raise InputError(f"{path}: its {IMAGES} has {len(stored.shape)} axes, not three; leave it out")
                require_size(stored.shape, path)
                images = np.asarray(stored[()], np.float32)
                require_voxels(images, path)
                return images
    except InputError:
        raise
    except Exception as error:  # a damaged file fails in every way there is
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{path}: is not a readable HDF5 file ({reason}); copy it again") from error
    raise InputError(f"{path}: has no {IMAGES} (a file of a challenge's test set?); leave it out")


def _findings(tables: Sequence[Path]) -> tuple[dict[str, Findings], set[str]]:
    """By file, from tables such as `knee.csv`; and the files that `knee_file_list.csv` says were reviewed."""
    found: dict[str, Findings] = {}
    reviewed: set[str] = set()
    for path in tables:
        try:
            with open(path, newline="", encoding="utf-8-sig") as file:
                lines = list(csv.reader(file))
        except (OSError, ValueError, csv.Error) as error:
            raise InputError(f"{path}: is not a readable CSV table ({error}); copy it again") from error
        header = [cell.strip().lower() for cell in lines[0]] if lines else []
        if set(header) >= _COLUMNS:
            for number, cells in enumerate(lines[1:], start=2):
                _add(found, dict(zip(header, cells, strict=False)), f"{path}: line {number}")
        elif path.stem.lower().endswith("file_list"):
            reviewed |= {Path(line[0].strip()).stem for line in lines if line}
    return found, reviewed


def _add(found: dict[str, Findings], row: dict[str, str], where: str) -> None:
    if not row.get("file"):
        return
    of_file = found.setdefault(Path(row["file"].strip()).stem, Findings())
    if not row.get("width", "").strip():
        of_file.whole |= not row.get("label", "").strip().lower().startswith(_NORMAL)
        return
    try:
        number, x, y, width, height = (int(float(row[name])) for name in ("slice", "x", "y", "width", "height"))
    except (KeyError, ValueError) as error:
        raise InputError(f"{where} holds no box (slice, x, y, width, height); correct or remove it") from error
    of_file.boxes.setdefault(number, []).append((x, y, width, height))
