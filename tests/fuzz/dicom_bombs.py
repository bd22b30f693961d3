"""DICOM made to do harm: sizes that are claimed, deflated and run-length zeros, nesting."""

from __future__ import annotations

import struct
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

SYNTAX = b"\x02\0\x10\0UI"


def _series(change: Callable[[object, int], None] | None = None) -> dict[str, bytes]:
    from volumes.made_dicom import write_series

    with tempfile.TemporaryDirectory() as folder:
        paths = write_series(Path(folder), np.arange(10 * 12 * 3, dtype=np.int16).reshape(10, 12, 3), change=change)
        return {path.name: path.read_bytes() for path in paths}


def deflated(total: int, meta: bytes = b"", group_length: int | None = None) -> bytes:
    """Zeros inside, so many. meta: elements of the first group before the syntax. group_length: as it is claimed."""
    from bombs import zeros

    uid = b"1.2.840.10008.1.2.1.99"
    syntax = meta + SYNTAX + struct.pack("<H", len(uid)) + uid
    length = len(syntax) if group_length is None else group_length
    start = b"\0" * 128 + b"DICM" + b"\x02\0\0\0UL\x04\0" + struct.pack("<I", length)
    return start + syntax + zeros(total, -15)


def dicom_bombs(total: int) -> dict[str, dict[str, bytes]]:
    """Each a folder of files."""
    from pydicom.encaps import encapsulate
    from pydicom.uid import RLELossless

    private = b"\x02\0\x02\x01OB\0\0" + struct.pack("<I", 20_000) + bytes(20_000)
    small = zlib.compressobj(9, wbits=-15)
    hidden = b"\x02\0\x02\x01OB\0\0" + struct.pack("<I", 40)
    hidden += (small.compress(b"small") + small.flush()).ljust(40, b"\0")
    zero_bytes = total if total > 2**30 else total // 16  # below the limit, each zero is read as an element
    side = 13_000 if total > 2**30 else 600
    runs = b"\x81\0" * (side * side // 128 + 1)
    rle = struct.pack("<16I", 2, 64, 64 + len(runs), *[0] * 13) + runs * 2

    def claimed(dataset: object, k: int) -> None:
        dataset.Rows, dataset.Columns = 65_535, 65_535

    def run_length(dataset: object, k: int) -> None:
        dataset.Rows, dataset.Columns = side, side
        dataset.PixelData = encapsulate([rle])
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = RLELossless

    def frames(dataset: object, k: int) -> None:
        dataset.NumberOfFrames = 2**31 - 1

    def words(dataset: object, k: int) -> None:
        dataset.SeriesDescription, dataset.PatientID = "\x1b[31m../../..", "a\nb"

    def far(dataset: object, k: int) -> None:
        dataset.ImagePositionPatient = [0, 0, 1e300 * k]

    def sequences(dataset: object, k: int) -> None:
        dataset.add_new(0x00081115, "UN", b"")

    native = _series()
    nested = {
        name: content[: content.index(b"\x08\0\x05\0")]
        + b"\x08\0\x15\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff" * 5_000
        + content
        for name, content in native.items()
    }
    return {
        "deflated": {"0.dcm": deflated(zero_bytes)},
        "deflated late": {"0.dcm": deflated(zero_bytes, private)},
        "deflated elsewhere": {"0.dcm": deflated(zero_bytes, hidden, 12)},
        "claimed": _series(claimed),
        "run length": _series(run_length),
        "frames": _series(frames),
        "words": _series(words),
        "far": _series(far),
        "nested": nested,
        "endless": {name: content + b"\xfe\xff\0\xe0\0\0\0\0" * 1000 for name, content in native.items()},
    }
