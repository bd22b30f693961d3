"""Damage to files, deterministic by a generator: blind at the level of bytes, and by what formats mean."""

from __future__ import annotations

import gzip
import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

MARKER = "priorlens-fuzz-marker"
"""The file that appears in the working folder if anything that was read is also run."""

EXPRESSION = f"__import__('os').system('touch {MARKER}')"
NUMBERS = (0, 1, 2, 3, 7, 8, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63)
REALS = (0.0, -0.0, 1.0, -1.0, 1e-45, 1e-30, 1e30, 3e38, 1e300, -1e300, float("inf"), float("-inf"), float("nan"))
TEXTS = (
    "",
    " ",
    "0",
    "-1",
    "nan",
    "inf",
    "1e999",
    "9" * 400,
    "a\nb",
    "a\0b",
    "\x1b[31m",
    "é\udc80",
    "x" * 5000,
    "../" * 9,
)
Rng = np.random.Generator
Mutation = Callable[[bytes, Rng], bytes]


def pick(rng: Rng, among: Sequence) -> object:
    return among[int(rng.integers(len(among)))]


def mutated(name: str, content: bytes, rng: Rng, donors: Sequence[bytes]) -> bytes:
    """Damaged by one to three mutations, of which those that know the format are as likely as the blind ones."""
    for _ in range(1 + int(rng.integers(3))):
        known = _known(name, content)
        if known and rng.random() < 0.6:
            try:
                content = pick(rng, known)(content, rng)
            except Exception:  # of a format that an earlier mutation has destroyed
                content = blind(content, rng, donors)
        else:
            content = blind(content, rng, donors)
    return content


def _known(name: str, content: bytes) -> list[Mutation]:
    """What understands a file, by its first bytes, else by its name."""
    lower = name.lower()
    if content[:8] == b"\x89PNG\r\n\x1a\n":
        return [png]
    if content[:4] in (b"II*\0", b"MM\0*"):
        return [tiff]
    if content[:2] == b"\xff\xd8":
        return [jpeg]
    if content[:2] == b"\x1f\x8b":
        return [inside_gzip]
    if content[:6] == b"\x93NUMPY":
        return [npy]
    if content[:2] == b"PK":
        return [inside_zip]
    if lower.endswith(".safetensors"):
        return [safetensors]
    if content[:4] in (b"\x5c\x01\0\0", b"\0\0\x01\x5c", b"\x1c\x02\0\0", b"\0\0\x02\x1c"):
        return [nifti]
    if content[128:132] == b"DICM":
        return [dicom, dicom_lengths]
    if lower.endswith(".json"):
        return [in_json, text]
    if lower.endswith((".csv", ".hdr", ".mha", ".mhd", ".nrrd")):
        return [text]
    return []


# --- blind


def blind(content: bytes, rng: Rng, donors: Sequence[bytes] = ()) -> bytes:
    if not content:
        return rng.bytes(16)
    ways = [_flip, _flip, _run, _number, _number, _cut, _drop, _repeat, _insert, _real]
    if donors and rng.random() < 0.1:
        other = pick(rng, donors)
        return content[: int(rng.integers(len(content)))] + other[int(rng.integers(len(other) + 1)) :]
    return pick(rng, ways)(content, rng)


def _place(content: bytes, rng: Rng) -> int:
    """Anywhere, but mostly among the first bytes, where headers are."""
    end = len(content) if rng.random() < 0.4 else min(len(content), 512)
    return int(rng.integers(end))


def _flip(content: bytes, rng: Rng) -> bytes:
    found = bytearray(content)
    for _ in range(1 + int(rng.integers(8))):
        found[_place(content, rng)] ^= 1 << int(rng.integers(8))
    return bytes(found)


def _run(content: bytes, rng: Rng) -> bytes:
    at, length = _place(content, rng), 1 + int(rng.integers(64))
    byte = pick(rng, (b"\0", b"\xff", b"\x7f", b"(", b"["))
    return content[:at] + byte * min(length, len(content) - at) + content[at + length :]


def _number(content: bytes, rng: Rng) -> bytes:
    size = int(pick(rng, (1, 2, 4, 8)))
    number = int(pick(rng, NUMBERS)) * (-1 if rng.random() < 0.2 else 1)
    coded = (number % 256**size).to_bytes(size, pick(rng, ("little", "big")))
    at = _place(content, rng)
    return content[:at] + coded + content[at + size :]


def _real(content: bytes, rng: Rng) -> bytes:
    form = str(pick(rng, ("<f4", ">f4", "<f8", ">f8")))
    coded, at = _coded(float(pick(rng, REALS)), form), _place(content, rng)
    return content[:at] + coded + content[at + len(coded) :]


def _coded(value: float, form: str) -> bytes:
    with np.errstate(over="ignore"):
        return np.array(value).astype(form).tobytes()


def _cut(content: bytes, rng: Rng) -> bytes:
    return content[: int(rng.integers(len(content)))]


def _drop(content: bytes, rng: Rng) -> bytes:
    at = _place(content, rng)
    return content[:at] + content[at + 1 + int(rng.integers(64)) :]


def _repeat(content: bytes, rng: Rng) -> bytes:
    at, length = _place(content, rng), 1 + int(rng.integers(256))
    return content[:at] + content[at : at + length] * (2 + int(rng.integers(3))) + content[at + length :]


def _insert(content: bytes, rng: Rng) -> bytes:
    at = _place(content, rng)
    return content[:at] + rng.bytes(1 + int(rng.integers(32))) + content[at:]


# --- pictures


def png_of(chunks: Sequence[tuple[bytes, bytes]]) -> bytes:
    parts = [b"\x89PNG\r\n\x1a\n"]
    for name, data in chunks:
        parts += [len(data).to_bytes(4, "big"), name, data, zlib.crc32(name + data).to_bytes(4, "big")]
    return b"".join(parts)


def _chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    at, found = 8, []
    while at + 8 <= len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        found.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def png(content: bytes, rng: Rng) -> bytes:
    """Chunks changed, doubled, dropped or new, with checksums that are right."""
    chunks = _chunks(content)
    at = int(rng.integers(len(chunks)))
    name, data = chunks[at]
    match int(rng.integers(6)):
        case 0:  # sizes, depth, colour, interlace
            header = bytearray(chunks[0][1])
            field, size = pick(rng, ((0, 4), (4, 4), (8, 1), (9, 1), (12, 1)))
            header[field : field + size] = (int(pick(rng, NUMBERS)) % 256**size).to_bytes(size, "big")
            chunks[0] = (chunks[0][0], bytes(header))
        case 1:
            chunks[at] = (name, blind(data, rng))
        case 2:
            chunks.insert(int(rng.integers(len(chunks))), (name, data))
        case 3:
            chunks.pop(at)
        case 4:  # the pixels themselves, packed again
            whole = b"".join(data for name, data in chunks if name == b"IDAT")
            others = [chunk for chunk in chunks if chunk[0] != b"IDAT"]
            chunks = [*others[:-1], (b"IDAT", zlib.compress(blind(zlib.decompress(whole), rng))), *others[-1:]]
        case 5:
            kind = pick(rng, (b"tRNS", b"PLTE", b"iCCP", b"zTXt", b"eXIf", b"acTL", b"fcTL", b"gAMA", b"iTXt"))
            chunks.insert(1, (kind, pick(rng, (b"", b"a\0\0" + zlib.compress(bytes(2**22)), rng.bytes(30)))))
    return png_of(chunks)


def tiff_of(entries: Mapping[int, tuple[int, list[int]]], blocks: Sequence[bytes], offsets: int, counts: int) -> bytes:
    """A little-endian TIFF of one page, by tag: type and values; its blocks under the tags of offsets and counts."""
    starts = np.cumsum([8, *(len(block) for block in blocks)])
    pages = {**entries, offsets: (4, starts[:-1].tolist()), counts: (4, [len(block) for block in blocks])}
    first = int(starts[-1])
    extra_at = first + 2 + 12 * len(pages) + 4
    table, extra = struct.pack("<H", len(pages)), b""
    for tag, (kind, values) in sorted(pages.items()):
        coded = struct.pack(f"<{len(values)}{'H' if kind == 3 else 'I'}", *values)
        if len(coded) > 4:
            extra, coded = extra + coded, struct.pack("<I", extra_at + len(extra))
        table += struct.pack("<HHI", tag, kind, len(values)) + coded.ljust(4, b"\0")
    return b"II*\0" + struct.pack("<I", first) + b"".join(blocks) + table + b"\0\0\0\0" + extra


def tiff(content: bytes, rng: Rng) -> bytes:
    """One entry of the first directory: its tag, type, count or value."""
    order = "<" if content[:2] == b"II" else ">"
    (at,) = struct.unpack_from(f"{order}I", content, 4)
    (count,) = struct.unpack_from(f"{order}H", content, at)
    entry = at + 2 + 12 * int(rng.integers(count))
    field, size = pick(rng, ((0, 2), (2, 2), (4, 4), (8, 4), (8, 4)))
    number = int(pick(rng, (*NUMBERS, 256, 257, 258, 259, 273, 322, 330, 339, 34665))) % 256**size
    if rng.random() < 0.1:  # the next directory: this one, for ever
        entry, field, size, number = at + 2 + 12 * count, 0, 4, at
    coded = number.to_bytes(size, "little" if order == "<" else "big")
    return content[: entry + field] + coded + content[entry + field + size :]


def jpeg(content: bytes, rng: Rng) -> bytes:
    """A segment's length or its first bytes, a segment twice, or the size of the frame."""
    at, segments = 2, []
    while at + 4 <= len(content) and content[at] == 0xFF and content[at + 1] != 0xDA:
        length = int.from_bytes(content[at + 2 : at + 4], "big")
        segments.append((at, length + 2))
        at += length + 2
    start, length = pick(rng, segments)
    match int(rng.integers(3)):
        case 0:
            place, size = start + 2 + int(rng.integers(8)), int(pick(rng, (1, 2)))
            number = int(pick(rng, NUMBERS)) % 256**size
            return content[:place] + number.to_bytes(size, "big") + content[place + size :]
        case 1:
            return content[:start] + content[start : start + length] * 2 + content[start + length :]
    frame = next((at for at, _ in segments if content[at + 1] in (0xC0, 0xC1, 0xC2)), start)
    sides = struct.pack(">HH", int(pick(rng, NUMBERS)) % 2**16, int(pick(rng, NUMBERS)) % 2**16)
    return content[: frame + 5] + sides + content[frame + 9 :]


# --- numbers and scans

_HEADERS = (
    "{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 16), }",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (0, 16), }",
    "{'descr': '|O', 'fortran_order': False, 'shape': (16, 16), }",
    "{'descr': '<M8[s]', 'fortran_order': False, 'shape': (16, 16), }",
    "{'descr': '|V2147483647', 'fortran_order': False, 'shape': (1, 1), }",
    "{'descr': [('a', '<f4'), ('b', '|O')], 'fortran_order': False, 'shape': (16, 16), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (16L, 16L), }",
    "{'descr': '<c16', 'fortran_order': True, 'shape': (16, 16), }",
    "{'descr': '<f2', 'fortran_order': True, 'shape': (True, 16), }",
    "{'descr': '<f16', 'fortran_order': False, 'shape': (8, 8), }",
    "{'descr': 'g', 'fortran_order': False, 'shape': (16, 16, 1), }",
    f"{{'descr': '<f4', 'fortran_order': False, 'shape': {EXPRESSION}, }}",
    f"{EXPRESSION}",
    "(" * 3000,
    "{'descr': '\\d', 'fortran_order': False, 'shape': (16, 16), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "9" * 5000 + ",), }",
    "[" * 90 + "]" * 90,
)


def npy(content: bytes, rng: Rng) -> bytes:
    """Another header: of an extreme shape, of objects, or an expression."""
    wide = content[6] > 1
    (length,) = struct.unpack_from("<I" if wide else "<H", content, 8)
    start = 12 if wide else 10
    header, data = content[start : start + length], content[start + length :]
    if rng.random() < 0.5:
        header = str(pick(rng, _HEADERS)).encode()
    else:
        numbers = list(re.finditer(rb"\d+", header))
        found = pick(rng, numbers)
        number = str(int(pick(rng, NUMBERS)) * (-1 if rng.random() < 0.2 else 1)).encode()
        header = header[: found.start()] + number + header[found.end() :]
    header = header.rstrip() + b" " * (-(len(header) + 1) % 16) + b"\n"
    size = len(header) if rng.random() < 0.9 else int(pick(rng, NUMBERS))
    coded = struct.pack("<I", size % 2**32) if wide else struct.pack("<H", size % 2**16)
    return content[:8] + coded + header + data


_NIFTI1 = {"sizeof": (0, "i"), "dim": (40, "8h"), "intent": (68, "h"), "datatype": (70, "h"), "bitpix": (72, "h")}
_NIFTI1 |= {"pixdim": (76, "8f"), "vox_offset": (108, "f"), "slope": (112, "f"), "inter": (116, "f")}
_NIFTI1 |= {"units": (123, "b"), "codes": (252, "2h"), "quatern": (256, "6f"), "srow": (280, "12f")}
_NIFTI2 = {"datatype": (12, "h"), "bitpix": (14, "h"), "dim": (16, "8q"), "pixdim": (104, "8d"), "offset": (168, "q")}
_NIFTI2 |= {
    "slope": (176, "d"),
    "inter": (184, "d"),
    "codes": (344, "2i"),
    "quatern": (352, "6d"),
    "srow": (400, "12d"),
}


def nifti(content: bytes, rng: Rng) -> bytes:
    """One number of a field of the header."""
    order = "<" if content[0] else ">"
    version = _NIFTI1 if 0x5C in (content[0], content[3]) else _NIFTI2
    start, form = version[str(pick(rng, list(version)))]
    kind, many = form[-1], int(form[:-1] or 1)
    size = struct.calcsize(kind)
    at = start + size * int(rng.integers(many))
    if kind in "fd":
        coded = _coded(float(pick(rng, REALS)), f"{order}{kind}")
    else:
        number = int(pick(rng, (*NUMBERS, 4, 16, 64, 128, 512, 1536, 2304))) * (-1 if rng.random() < 0.3 else 1)
        coded = (number % 256**size).to_bytes(size, "little" if order == "<" else "big")
    return content[:at] + coded + content[at + size :]


def inside_gzip(content: bytes, rng: Rng) -> bytes:
    raw = gzip.decompress(content)
    return gzip.compress(nifti(raw, rng) if rng.random() < 0.6 else blind(raw, rng), 1, mtime=0)


def inside_zip(content: bytes, rng: Rng) -> bytes:
    """One member damaged, renamed, doubled or dropped; packed again."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = str(pick(rng, list(members)))
    match int(rng.integers(5)):
        case 0 | 1:
            members[name] = npy(members[name], rng) if members[name][:1] == b"\x93" else blind(members[name], rng)
        case 2:
            members[name] = blind(members[name], rng)
        case 3:
            members.pop(name)
        case 4:
            other = pick(rng, ("../out.npy", "/tmp/out.npy", "voxels", f"{EXPRESSION}.npy", "units.npy", "scale.npy"))
            members[str(other)] = members[name]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", int(pick(rng, (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))) as archive:
        for name, member in members.items():
            archive.writestr(zipfile.ZipInfo(name), member)
    return packed.getvalue()


# --- DICOM

_LONG = (b"OB", b"OW", b"OF", b"SQ", b"UT", b"UN", b"OD", b"UC", b"UR", b"OL")
_WRONG = {
    b"DS": (b"nan", b"inf", b"1e308", b"-1e308", b"0", b"1e999", b"1\\2\\3\\4", b"abc", b"1" * 60, b"1e-320", b""),
    b"IS": (b"-1", b"0", b"2147483648", b"1e9", b"9" * 30, b"x", b"1\\2", b""),
    b"UI": (
        b"1.2.840.10008.1.2.1.99",
        b"1.2.840.10008.1.2.4.50",
        b"1.2.840.10008.1.2.4.70",
        b"1.2.840.10008.1.2.5",
        b"",
    ),
    b"CS": (b"MONOCHROME1", b"RGB", b"\x1b[31m", b"a\nb", b"ISO 2022 IR 87", b"GB18030", b"nonsense", b""),
    b"LO": (b"", b"x" * 3000, b"a\nb", b"\x1b[2J", b"\xff\xfe", EXPRESSION.encode()),
}


def _elements(content: bytes) -> list[tuple[int, bytes, int, int]]:
    """Start, type, start and length of the value of every element of explicit VR, little-endian, sequences opened."""
    at, found = 132, []
    while at + 8 <= len(content):
        tag, kind = content[at : at + 4], content[at + 4 : at + 6]
        if tag[:2] == b"\xfe\xff":
            at += 8
            continue
        if not kind.isalpha():
            break
        wide = kind in _LONG
        length = int.from_bytes(content[at + 8 : at + 12] if wide else content[at + 6 : at + 8], "little")
        value = at + (12 if wide else 8)
        found.append((at, kind, value, length))
        at = value if kind == b"SQ" or length == 2**32 - 1 else value + length
    return found


def dicom(content: bytes, rng: Rng) -> bytes:
    """An element's value replaced by one of its type that cannot be meant, its length kept right."""
    at, kind, value, length = pick(rng, _elements(content))
    if kind == b"US":
        wrong = struct.pack("<H", int(pick(rng, NUMBERS)) % 2**16)
    elif kind in (b"OW", b"OB", b"SQ", b"UN"):
        return content[:value] + blind(content[value:], rng)
    else:
        wrong = bytes(pick(rng, _WRONG.get(kind, _WRONG[b"LO"])))
        wrong += b"\0" * (len(wrong) % 2)
    return content[: at + 6] + struct.pack("<H", len(wrong)) + wrong + content[value + length :]


def dicom_lengths(content: bytes, rng: Rng) -> bytes:
    """An element's length, type or tag."""
    at, kind, _, _ = pick(rng, _elements(content))
    match int(rng.integers(4)):
        case 0:
            other = pick(rng, (b"SQ", b"UN", b"OB", b"DS", b"IS", b"AT", b"FD", b"PN", b"??"))
            return content[: at + 4] + other + content[at + 6 :]
        case 1:
            return content[: at + 2] + struct.pack("<H", int(pick(rng, NUMBERS)) % 2**16) + content[at + 4 :]
    if kind in _LONG:
        return content[: at + 8] + struct.pack("<I", int(pick(rng, NUMBERS)) % 2**32) + content[at + 12 :]
    return content[: at + 6] + struct.pack("<H", int(pick(rng, NUMBERS)) % 2**16) + content[at + 8 :]


# --- texts

_VALUES = (
    *NUMBERS,
    *REALS,
    *TEXTS,
    None,
    True,
    [],
    {},
    [[]],
    EXPRESSION,
    -1,
    -(2**31),
    10**30,
    "1",
    [1, 2, 3],
    {"a": 1},
)


def in_json(content: bytes, rng: Rng) -> bytes:
    """One value replaced by an extreme one of any type, its key renamed, or the value dropped."""
    return json.dumps(_changed(json.loads(content), rng)).encode("utf-8", "surrogatepass")


def _changed(data: object, rng: Rng) -> object:
    places: list[tuple[object, object]] = []

    def visit(part: object) -> None:
        for key, value in part.items() if isinstance(part, dict) else enumerate(part):
            places.append((part, key))
            if isinstance(value, dict | list):
                visit(value)

    if isinstance(data, dict | list):
        visit(data)
    if not places or rng.random() < 0.03:
        return pick(rng, _VALUES)
    part, key = pick(rng, places)
    match int(rng.integers(6)):
        case 0:
            part.pop(key)
        case 1 if isinstance(part, dict):
            part[str(pick(rng, TEXTS))] = part[key]
        case _:
            part[key] = pick(rng, _VALUES)
    return data


def safetensors(content: bytes, rng: Rng) -> bytes:
    """The header's claims of type, shape and place, or its length."""
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    if rng.random() < 0.1:
        return int(pick(rng, NUMBERS)).to_bytes(8, "little") + content[8:]
    name = str(pick(rng, list(header)))
    if rng.random() < 0.3 and "__metadata__" in header:
        header["__metadata__"] = _changed(header["__metadata__"], rng)
    elif rng.random() < 0.3:  # a right header, wrong numbers
        data = blind(data, rng)[: len(data)].ljust(len(data), b"\0")
    elif rng.random() < 0.3:
        header[name]["dtype"] = pick(rng, ("F64", "F16", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "C64", "X"))
    else:
        _changed(header[name], rng)
    coded = json.dumps(header).encode("utf-8", "surrogatepass")
    coded += b" " * (-len(coded) % 8)
    return len(coded).to_bytes(8, "little") + coded + data


def text(content: bytes, rng: Rng) -> bytes:
    """A number or word replaced by an extreme one, a line doubled or dropped, or a separator changed."""
    end = content.find(b"\n\n") if rng.random() < 0.5 else -1  # headers of scans end so
    header = content[: end if 0 < end < 4096 else min(len(content), 4096)]
    words = list(re.finditer(rb"[^\s,=]+", header))
    lines = header.splitlines(keepends=True)
    match int(rng.integers(5)):
        case 0 | 1 if words:
            found = pick(rng, words)
            wrong = str(pick(rng, (*NUMBERS, *REALS, *TEXTS, EXPRESSION, '"', "/dev/zero", "LIST", "%s %n"))).encode(
                "utf-8", "surrogateescape"
            )
            header = header[: found.start()] + wrong + header[found.end() :]
        case 2 if lines:
            line = int(rng.integers(len(lines)))
            header = b"".join(lines[:line] + [lines[line]] * int(rng.integers(3)) + lines[line + 1 :])
        case _:
            header = header.replace(
                *pick(rng, ((b",", b";"), (b"\n", b"\r"), (b" = ", b"="), (b",", b"\t"), (b"1", b"\0")))
            )
    return header + content[min(len(content), 4096) if not 0 < end < 4096 else end :]
