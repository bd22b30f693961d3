"""Files made to do harm: small ones that claim or unpack to gigabytes, pickles, nesting, places outside the folder."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Mapping
from functools import cache

import numpy as np
from mutations import EXPRESSION, MARKER, png_of, tiff_of
from seed_files import AFFINE, Seed, npz

MEGABYTE = 2**20
SMALL, FULL = 64 * MEGABYTE, 10 * 2**30
"""What nested zeros unpack to in CI, and in the full run."""

MOST_IN_ZIP = 5 * 2**30
"""Each byte goes through a checksum there, which takes its time."""

_PIECE = bytes(MEGABYTE)

BYTE, DOUBLE = (2, 8), (64, 64)
"""NIfTI's codes of types, and their bits."""


class Harm:
    """Unpickled, it runs a command."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {MARKER}",)


def _npy_of(header: str, data: bytes = b"", version: tuple[int, int] = (1, 0)) -> bytes:
    coded = header.encode() + b"\n"
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H" if version == (1, 0) else "<I", len(coded)) + coded + data


def _claim(shape: tuple[int, ...], kind: str = "<f4") -> str:
    return f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}"


@cache
def zeros(total: int, wbits: int = 15) -> bytes:
    """So many zeros, a multiple of a megabyte, packed; 31 makes gzip of it, -15 a bare stream.

    One megabyte is packed, and its bytes repeated: ten gigabytes would take a minute.
    """
    packer = zlib.compressobj(9, wbits=-15)
    piece = packer.compress(bytes(MEGABYTE)) + packer.flush(zlib.Z_FULL_FLUSH)
    body = piece * (total // MEGABYTE) + b"\x03\0"
    if wbits == 15:
        return b"\x78\xda" + body + ((total % 65_521 << 16) | 1).to_bytes(4, "big")
    if wbits == 31:
        check = 0
        for _ in range(total // MEGABYTE):
            check = zlib.crc32(bytes(MEGABYTE), check)
        return gzip.compress(b"", mtime=0)[:10] + body + struct.pack("<II", check, total % 2**32)
    return body


def _rounded(total: int) -> int:
    """Up to whole megabytes."""
    return -(-total // MEGABYTE) * MEGABYTE


def _png(width: int, height: int, depth: int, colour: int, data: bytes, *more: tuple[bytes, bytes]) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return png_of([(b"IHDR", header), *more, (b"IDAT", data), (b"IEND", b"")])


def _in_zip(members: Mapping[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, member in members.items():
            archive.writestr(zipfile.ZipInfo(name), member)
    return content.getvalue()


def _zip_of_zeros(before: bytes, total: int, member: str, **others: np.ndarray) -> bytes:
    """An NPZ of which one member is its header and then zeros, at most `MOST_IN_ZIP`."""
    content = io.BytesIO()

    def entry(name: str) -> zipfile.ZipInfo:
        made = zipfile.ZipInfo(f"{name}.npy")
        made.compress_type = zipfile.ZIP_DEFLATED
        return made

    with zipfile.ZipFile(content, "w", compresslevel=1) as archive:
        for name, array in others.items():
            with archive.open(entry(name), "w") as file:
                np.lib.format.write_array(file, array)
        with archive.open(entry(member), "w", force_zip64=True) as file:
            file._compressor = _Repeating()
            file.write(before)
            for _ in range(min(total, MOST_IN_ZIP) // MEGABYTE):
                file.write(_PIECE)
    return content.getvalue()


class _Repeating:
    """Packs as zlib does, and zeros only once."""

    def __init__(self) -> None:
        self._packer = zlib.compressobj(9, wbits=-15)
        self._piece = b""

    def compress(self, data: bytes) -> bytes:
        if data is _PIECE and self._piece:
            return self._piece
        packed = self._packer.compress(data) + self._packer.flush(zlib.Z_FULL_FLUSH)
        self._piece = packed if data is _PIECE else self._piece
        return packed

    def flush(self) -> bytes:
        return self._packer.flush()


def image_bombs(total: int) -> dict[str, bytes]:
    side = 13_000 if total > SMALL else 3_000
    pixels = zeros(_rounded(side * (side + 1)))
    long = {256: (4, [side]), 257: (4, [side]), 258: (3, [8]), 259: (3, [8]), 262: (3, [1]), 277: (3, [1])}
    harm = pickle.dumps(Harm())
    return {
        "claims.png": _png(2**31 - 1, 2**31 - 1, 16, 6, zlib.compress(b"")),
        "large.png": _png(side, side, 8, 0, pixels),
        "colour.png": _png(side, side // 3, 8, 2, pixels),
        "largest.png": _png(side, side, 8, 2, zeros(_rounded((3 * side + 1) * side))),
        "bits.png": _png(side, side, 1, 0, zeros(_rounded((side // 8 + 1) * side))),
        "more.png": _png(16, 16, 8, 0, zeros(total)),
        "text.png": _png(16, 16, 8, 0, zlib.compress(bytes(17 * 16)), (b"zTXt", b"a\0\0" + zeros(total))),
        "profile.png": _png(16, 16, 8, 0, zlib.compress(bytes(17 * 16)), (b"iCCP", b"a\0\0" + zeros(total))),
        "strip.tif": tiff_of(long, [zeros(total)], 273, 279),
        "many.tif": tiff_of({**long, 278: (4, [1])}, [b"\0"] * 200, 273, 279),
        "claims.npy": _npy_of(_claim((2**31 - 1, 2**31 - 1))),
        "pickle.npy": _npy_of(_claim((16, 16), "|O"), harm),
        "bare.npy": harm,
        "expression.npy": _npy_of(EXPRESSION),
        "in-shape.npy": _npy_of(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({EXPRESSION},), }}"),
        "nested.npy": _npy_of("(" * 9_000),
        "python2.npy": _npy_of("{'descr': '<f4', 'fortran_order': False, 'shape': (16L, 16L), }", bytes(1024)),
        "script.png": EXPRESSION.encode(),
        "eps.png": f"%!PS-Adobe-3.0\n%%BoundingBox: 0 0 9 9\n({MARKER}) (w) file closefile".encode(),
    }


def nifti_bombs(total: int) -> dict[str, bytes]:
    from nibabel import Nifti1Image, Nifti2Image

    def header(shape: tuple[int, int, int], kind: tuple[int, int]) -> bytes:
        made = (Nifti2Image if max(shape) >= 2**15 else Nifti1Image)(np.zeros((2, 2, 2), np.uint8), AFFINE).header
        made.set_data_shape(shape)
        made["datatype"], made["bitpix"] = kind
        made["vox_offset"] = made.single_vox_offset
        return made.binaryblock + bytes(4)

    many = (512, 512, 2048 if total > SMALL else 16)
    plain = header((1000, 1000, 500), BYTE)
    return {
        "claims.nii": header((32767, 32767, 32767), DOUBLE),
        "long.nii": header((2**40, 2**20, 1), DOUBLE),
        "claims.nii.gz": gzip.compress(plain, mtime=0),
        "zeros.nii.gz": zeros(total, 31),
        "header.nii.gz": gzip.compress(plain, mtime=0) + zeros(total, 31),
        "more.nii.gz": gzip.compress(header((16, 16, 16), BYTE), mtime=0) + zeros(total, 31),
        "wide.nii.gz": gzip.compress(header(many, DOUBLE), mtime=0) + zeros(8 * int(np.prod(many)), 31),
        "nested.nii.gz": gzip.compress(zeros(total, 31), mtime=0),
    }


def array_bombs(total: int) -> dict[str, dict[str, bytes]]:
    many = (512, 512, 2048 if total > SMALL else 16)
    harm = np.array([Harm()] * 8, object).reshape(2, 2, 2)
    nested = f"{'[' * 60_000}".encode()
    data = b"ObjectType = Image\nNDims = 3\nBinaryData = True\nCompressedData = %s\nDimSize = %s\n"
    data += b"ElementType = MET_DOUBLE\nElementDataFile = %s\n"
    claims = b"65000 65000 65000"
    nrrd = b"NRRD0004\ntype: double\ndimension: 3\nsizes: %s\nencoding: %s\nendian: little\n%s\n\n"
    files = {
        "wide.npz": _zip_of_zeros(_npy_of(_claim(many, "<f16")), 16 * int(np.prod(many)), "voxels", affine=AFFINE),
        "more.npz": _zip_of_zeros(_npy_of(_claim((8, 8, 8))), total, "voxels", affine=AFFINE),
        "affine.npz": _zip_of_zeros(_npy_of(_claim((total // 8,), "<f8")), total, "affine", voxels=AFFINE),
        "units.npz": _zip_of_zeros(
            _npy_of(_claim((), f"<U{total // 4}")), total, "units", voxels=AFFINE, affine=AFFINE
        ),
        "claims.npz": _in_zip({"voxels.npy": _npy_of(_claim((2**20, 2**20, 2**20))), "affine.npy": _npy_of("{}")}),
        "pickle.npz": npz(voxels=harm, affine=AFFINE),
        "affines.npz": npz(voxels=np.ones((4, 4, 4)), affine=harm),
        "expression.npz": _in_zip({"voxels.npy": _npy_of(EXPRESSION), "affine.npy": _npy_of(EXPRESSION)}),
        "header.npz": _zip_of_zeros(b"\x93NUMPY\2\0" + struct.pack("<I", 2**32 - 1), total, "voxels", affine=AFFINE),
        "claims.mha": data % (b"False", claims, b"LOCAL"),
        "packed.mha": data % (b"True", b"512 512 16", b"LOCAL") + zeros(total),
        "device.mhd": data % (b"False", b"512 512 16", b"/dev/zero"),
        "list.mhd": data % (b"False", b"512 512 16", b"LIST") + b"/etc/passwd\n" * 16,
        "pattern.mhd": data % (b"False", b"512 512 16", b"%9999999d.raw 1 2000000000 1"),
        "claims.nrrd": nrrd % (claims, b"raw", b"") + b"0",
        "packed.nrrd": nrrd % (b"512 512 16", b"gzip", b"") + zeros(total, 31),
        "device.nhdr": nrrd % (b"512 512 16", b"raw", b"data file: /dev/zero"),
        "outside.nhdr": nrrd % (b"8 8 8", b"raw", b"data file: /proc/self/exe"),
    }
    found = {name: {name: content} for name, content in files.items()}
    voxels = _npy_of(_claim((8, 8, 8), "|u1"), bytes(range(256)) * 2)
    found["nested.npy"] = {"nested.npy": voxels, "nested.affine.json": nested}
    found["expression.npy"] = {"expression.npy": voxels, "expression.affine.json": EXPRESSION.encode()}
    found["numbers.npy"] = {"numbers.npy": voxels, "numbers.affine.json": b"[[1e999, NaN, 9" + b"9" * 9_000 + b"]]"}
    return found


def measurement_bombs(total: int) -> dict[str, dict[str, bytes]]:
    import h5py

    def hdf5(fill: object) -> bytes:
        content = io.BytesIO()
        with h5py.File(content, "w") as file:
            fill(file)
        return content.getvalue()

    def linked(file: h5py.File) -> None:
        file["y"] = h5py.ExternalLink("/etc/passwd", "/y")

    def outside(file: h5py.File) -> None:
        file.create_dataset("y", (64, 64), "u1", external=[("/proc/self/exe", 0, 4096)])

    def packed(file: h5py.File) -> None:
        file.create_dataset("y", (total // 8,), "<f8", chunks=(MEGABYTE,), compression="gzip", fillvalue=0)
        file["y"][: 2 * MEGABYTE] = 0

    y, harm = np.ones((16, 16), np.float32), np.array([Harm()], object)
    large = 2**31 if total > SMALL else 2**24
    files = {
        "claims.h5": hdf5(lambda file: file.create_dataset("y", (2**20, 2**20), "<f8", chunks=(64, 64))),
        "unwritten.h5": hdf5(lambda file: file.create_dataset("y", (total // 8,), "<f8", chunks=(1024,))),
        "packed.h5": hdf5(packed),
        "words.h5": hdf5(lambda file: file.update({"y": b"\xff\xfe", "physics": b"\xff"})),
        "names.h5": hdf5(lambda file: file.create_dataset("y", (3,), h5py.string_dtype())),
        "link.h5": hdf5(linked),
        "outside.h5": hdf5(outside),
        "groups.h5": hdf5(lambda file: file.create_group("/".join("a" * 500))),
        "pickle.npz": npz(y=harm),
        "claims.npz": _in_zip({"y.npy": _npy_of(_claim((2**20, 2**20)))}),
        "zeros.npz": _zip_of_zeros(_npy_of(_claim((total // 4,))), total, "y"),
        "beside.npz": _zip_of_zeros(_npy_of(_claim((total // 4,))), total, "notes", y=y),
        "views.npz": npz(y=y, views=np.array(1e12)),
        "infinite.npz": npz(y=y, views=np.array(2**62)),
        "complex.npz": npz(y=np.ones((300, 8, 8), np.complex64)),
        "wide.npz": npz(y=y, physics=np.array("super:factor=64"), noise=np.array(0.1)),
        "expression.npz": npz(y=y, physics=np.array(EXPRESSION), noise=np.array(0.1)),
        "file.npz": npz(y=y, physics=np.array("inpaint:mask=/etc/passwd"), noise=np.array(0.1)),
        "ct.npz": npz(y=np.ones((8, 3600)), physics=np.array("ct:views=3600")),
        "matrix.npz": npz(y=np.ones(2), matrix=np.full((2, 4), 1e300), noise=np.array(0.1)),
    }
    found = {name: {name: content} for name, content in files.items()}
    found["claims.cfl"] = {"claims.cfl": b"-", "claims.hdr": f"# Dimensions\n{large} {large} 1 1\n".encode()}
    found["digits.cfl"] = {"digits.cfl": b"-", "digits.hdr": b"# Dimensions\n" + b"9" * 9_000 + b"\n"}
    return found


def checkpoint_bombs() -> dict[str, dict[str, bytes]]:
    config = json.dumps({"schema": 1, "method": "anodode"}).encode()
    nothing = b"\2\0\0\0\0\0\0\0{}"

    def tensors(header: bytes, length: int | None = None) -> bytes:
        return (len(header) if length is None else length).to_bytes(8, "little") + header

    claim = b'{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,%d]}}'
    wraps = b'{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}'
    weights = {
        "claims": tensors(claim % 2**60),
        "wraps": tensors(wraps),
        "long": tensors(b"{}", 2**63),
        "hundred": tensors(b"{}", 10**8),
        "nested": tensors(b'{"a":' + b"[" * 60_000),
        "empty": tensors(b'{"a":{"dtype":"F32","shape":[99999999999,0],"data_offsets":[0,0]}}'),
        "pickle": pickle.dumps(Harm()),
    }
    configs = {
        "nested-config": b"[" * 200_000,
        "nested-objects": b'{"schema":1,"method":' + b'{"a":' * 100_000,
        "infinite": b'{"schema": Infinity, "method": "anodode"}',
        "digits": b'{"schema": ' + b"9" * 9_000 + b', "method": "anodode"}',
        "words": b'{"schema": 1, "method": ["' + EXPRESSION.encode() + b'"]}',
        "utf-16": config.decode().encode("utf-16"),
        "zero": b"\0" * 100,
    }
    found = {name: {"model.safetensors": content, "config.json": config} for name, content in weights.items()}
    return found | {name: {"model.safetensors": nothing, "config.json": content} for name, content in configs.items()}


def external_bombs(seeds: list[Seed]) -> dict[str, dict[str, bytes]]:
    """Networks that their configs claim to be huge, and weights that are pickled."""
    found = {}
    for seed in seeds:
        name = "unet/config.json" if seed.name == "diffusers" else "config.json"
        config = json.loads(seed.files[name])
        network = config if seed.name == "diffusers" else config["network"]
        wide = "block_out_channels" if seed.name == "diffusers" else "channels"
        deep = "layers_per_block" if seed.name == "diffusers" else "num_res_blocks"
        for what, value in (("wide", {wide: [20_000] * len(network[wide])}), ("deep", {deep: 10**9})):
            changed = json.loads(seed.files[name])
            (changed if seed.name == "diffusers" else changed["network"]).update(value)
            found[f"{seed.name}-{what}"] = {**seed.files, name: json.dumps(changed).encode()}
        if seed.name == "monai.pt":
            harm = _in_zip({"model/data.pkl": pickle.dumps(Harm(), protocol=2), "model/version": b"3\n"})
            found["pickle"] = {**seed.files, "model.pt": harm}
            found["old-pickle"] = {**seed.files, "model.pt": pickle.dumps(Harm(), protocol=2)}
    return found


def bombs(reader: str, *, full: bool, seeds: list[Seed]) -> list[Seed]:
    """Those for a reader."""
    total = FULL if full else SMALL
    match reader:
        case "image" | "mask":
            whole = {name: {name: content} for name, content in image_bombs(total).items()}
        case "nifti":
            whole = {name: {name: content} for name, content in nifti_bombs(total).items()}
        case "arrays":
            whole = array_bombs(total)
        case "measurement":
            whole = measurement_bombs(total)
        case "checkpoint":
            whole = checkpoint_bombs()
        case "external":
            return [Seed(reader, f"bomb {name}", files, "") for name, files in external_bombs(seeds).items()]
        case "dicom":
            from dicom_bombs import dicom_bombs

            return [Seed(reader, f"bomb {name}", files, "") for name, files in dicom_bombs(total).items()]
        case _:
            return []
    target = "" if reader == "checkpoint" else None
    return [Seed(reader, f"bomb {name}", files, name if target is None else target) for name, files in whole.items()]
