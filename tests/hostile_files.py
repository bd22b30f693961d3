"""Files that no one sends in good faith."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np


class Opens:
    """Pickled, an order to make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (open, (str(self.path), "w"))


def pickled(path: Path) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([Opens(path)], dtype=object), allow_pickle=True)
    return file.getvalue()


def claims() -> bytes:
    """An array that says it takes thirty gigabytes."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (60_000, 60_000)})
    return file.getvalue() + bytes(64)


def bomb() -> bytes:
    """A picture of 900 megapixels, all black and so of hardly more than 100 kilobytes."""
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(bytes(3751)) for _ in range(30_000)) + packer.flush()
    chunks = {b"IHDR": struct.pack(">2I5B", 30_000, 30_000, 1, 0, 0, 0, 0), b"IDAT": data, b"IEND": b""}
    packed = [
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks.items()
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)
