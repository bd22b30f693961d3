"""Small valid files of every format that is read, made in code: what mutations start from."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image

SHARED = Path(os.environ.get("PRIORLENS_SHARED", Path(__file__).parents[3] / "shared" / "data"))
_LARGEST_REAL = 2 * 2**20


@dataclass(frozen=True)
class Seed:
    """Files by their path in a folder. target: the one that the reader is given; mutate: those that are damaged."""

    reader: str
    name: str
    files: Mapping[str, bytes | Path]
    target: str
    mutate: tuple[str, ...] = field(default=())

    @property
    def damaged(self) -> tuple[str, ...]:
        return self.mutate or (self.target,)


def _one(reader: str, name: str, content: bytes, target: str | None = None, **beside: bytes) -> Seed:
    target = target or name
    return Seed(reader, name, {target: content, **beside}, target)


def _soft(height: int = 24, width: int = 28) -> np.ndarray:
    """A disc with noise, of about [0, 1]."""
    rng = np.random.default_rng(0)
    down, across = np.mgrid[:height, :width]
    radius = np.hypot(down / height - 0.5, across / width - 0.5)
    return 0.7 / (1 + np.exp(40 * (radius - 0.35))) + rng.uniform(0, 0.1, (height, width))


def _saved(picture: Image.Image, form: str, **options: object) -> bytes:
    content = io.BytesIO()
    picture.save(content, form, **options)
    return content.getvalue()


def _npy(array: np.ndarray, version: tuple[int, int] | None = None) -> bytes:
    content = io.BytesIO()
    np.lib.format.write_array(content, array, version)
    return content.getvalue()


def npz(**arrays: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    return content.getvalue()


def _pictures() -> dict[str, bytes]:
    soft = _soft()
    grey, deep = Image.fromarray((soft * 255).astype(np.uint8)), Image.fromarray((soft * 65535).astype(np.uint16))
    tints = [np.asarray(grey) * np.float32(tint) for tint in (1, 0.6, 0.3, 1)]
    colour = Image.fromarray(np.stack(tints[:3], -1).astype(np.uint8))
    clear = Image.fromarray(np.stack(tints, -1).astype(np.uint8), "RGBA")
    real = Image.fromarray(soft.astype(np.float32))
    return {
        "grey.png": _saved(grey, "PNG"),
        "deep.png": _saved(deep, "PNG"),
        "colour.png": _saved(colour, "PNG", dpi=(96, 96)),
        "clear.png": _saved(clear, "PNG"),
        "palette.png": _saved(colour.quantize(16), "PNG", transparency=3),
        "bits.png": _saved(grey.convert("1"), "PNG"),
        "interlaced.png": interlaced(np.asarray(grey)),
        "plain.tif": _saved(grey, "TIFF"),
        "deep.tif": _saved(deep, "TIFF", compression="tiff_adobe_deflate"),
        "lzw.tif": _saved(colour, "TIFF", compression="tiff_lzw"),
        "jpeg.tif": _saved(colour, "TIFF", compression="jpeg"),
        "packbits.tif": _saved(grey, "TIFF", compression="packbits"),
        "real.tif": _saved(real, "TIFF"),
        "strips.tif": _saved(grey, "TIFF", compression="tiff_lzw", strip_size=28 * 4),
        "tiled.tif": tiled(np.asarray(deep)),
        "group4.tif": _saved(grey.convert("1"), "TIFF", compression="group4"),
        "grey.jpg": _saved(grey, "JPEG", quality=90),
        "turned.jpg": _saved(colour, "JPEG", exif=_turned()),
        "progressive.jpg": _saved(colour, "JPEG", progressive=True),
        "grey.bmp": _saved(grey, "BMP"),
        "colour.bmp": _saved(colour, "BMP"),
    }


def _turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif.tobytes()


def interlaced(grey: np.ndarray) -> bytes:
    """An 8-bit grey PNG in Adam7 order, which Pillow reads but does not write."""
    import zlib

    from mutations import png_of

    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    rows = [row for top, left, down, across in passes for row in grey[top::down, left::across] if row.size]
    height, width = grey.shape
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 1])
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    return png_of([(b"IHDR", header), (b"IDAT", pixels), (b"IEND", b"")])


def tiled(deep: np.ndarray) -> bytes:
    """A 16-bit grey TIFF of tiles of 16 x 16, uncompressed, which Pillow reads but does not write."""
    from mutations import tiff_of

    height, width = deep.shape
    padded = np.zeros((-(-height // 16) * 16, -(-width // 16) * 16), "<u2")
    padded[:height, :width] = deep
    tiles = [padded[r : r + 16, c : c + 16].tobytes() for r in range(0, len(padded), 16) for c in range(0, width, 16)]
    entries = {256: (3, [width]), 257: (3, [height]), 258: (3, [16]), 259: (3, [1]), 262: (3, [1]), 277: (3, [1])}
    return tiff_of({**entries, 322: (3, [16]), 323: (3, [16])}, tiles, 324, 325)


def _numbers() -> dict[str, bytes]:
    soft = _soft()
    return {
        "f4.npy": _npy(soft.astype("<f4")),
        "u1.npy": _npy((soft * 255).astype(np.uint8)),
        "u2-big.npy": _npy((soft * 65535).astype(">u2")),
        "fortran.npy": _npy(np.asfortranarray(soft.astype(np.float64))),
        "channels.npy": _npy(np.stack([soft, soft * 0.5, soft * 0.2], -1).astype(np.float32)),
        "version3.npy": _npy(soft.astype(np.float16), (3, 0)),
        "flags.npy": _npy(soft > 0.5),
    }


def image_seeds() -> list[Seed]:
    return [_one("image", name, content) for name, content in (_pictures() | _numbers()).items()]


def mask_seeds() -> list[Seed]:
    mask = np.zeros((24, 28), np.uint8)
    mask[8:14, 9:20] = 255
    picture = Image.fromarray(mask)
    files = {"mask.png": _saved(picture, "PNG"), "mask.tif": _saved(picture, "TIFF", compression="tiff_deflate")}
    files |= {"mask.bmp": _saved(picture, "BMP"), "mask.npy": _npy(mask > 0)}
    return [_one("mask", name, content) for name, content in files.items()]


AFFINE = np.array([[-2.0, 0, 0, 10], [0, 2, 0, -20], [0, 0, 3, 5], [0, 0, 0, 1]])


def _ramp(*shape: int) -> np.ndarray:
    return (np.arange(np.prod(shape)).reshape(shape) % 997).astype(np.int16)


def nifti_seeds() -> list[Seed]:
    kinds = (nibabel.Nifti1Image, nibabel.Nifti2Image)
    found = {}
    for number, (kind, order) in enumerate((kind, order) for kind in kinds for order in "<>"):
        header = kind.header_class(endianness=order)
        voxels = _ramp(8, 7, 6).astype(f"{order}i2")
        image = kind(voxels, AFFINE, header)
        image.set_qform(AFFINE, code=1)
        found[f"whole{number}.nii"] = image.to_bytes()
    scaled = nibabel.Nifti1Image(_ramp(8, 7, 6), AFFINE)
    scaled.header.set_slope_inter(2, -1024)
    named = nibabel.Nifti1Image(_ramp(8, 7, 6).astype(np.float32), AFFINE)
    named.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"made for a test"))
    found["scaled.nii.gz"] = gzip.compress(scaled.to_bytes(), mtime=0)
    found["extended.nii"] = named.to_bytes()
    found["double.nii.gz"] = gzip.compress(nibabel.Nifti1Image(_ramp(9, 8, 5) * 1.5, AFFINE).to_bytes(), mtime=0)
    found["bytes.nii.gz"] = gzip.compress(
        nibabel.Nifti1Image(_ramp(9, 8, 5).astype(np.uint8), None).to_bytes(), mtime=0
    )
    found["time.nii"] = nibabel.Nifti1Image(_ramp(6, 6, 4, 1), AFFINE).to_bytes()
    return [_one("nifti", name, content) for name, content in found.items()]


def array_seeds() -> list[Seed]:
    voxels, affine = _ramp(8, 7, 6), AFFINE
    channels = {"voxels": np.stack([voxels, voxels * 2]), "affine": affine, "channels": np.array(["flair", "t1"])}
    seeds = [
        _one("arrays", "scan.npz", npz(voxels=voxels, affine=affine, units=np.array("HU"))),
        _one("arrays", "channels.npz", npz(**channels)),
        _one("arrays", "double.npz", npz(voxels=voxels.astype(np.float64), affine=affine)),
    ]
    beside = {"scan.npy": _npy(voxels), "scan.affine.json": json.dumps(affine.tolist()).encode()}
    seeds.append(Seed("arrays", "beside.npy", beside, "scan.npy", tuple(beside)))
    return seeds + _itk_seeds(voxels)


def _itk_seeds(voxels: np.ndarray) -> list[Seed]:
    try:
        import SimpleITK
    except ImportError:
        return []
    import tempfile

    image = SimpleITK.GetImageFromArray(voxels)
    image.SetSpacing((2.0, 2.0, 3.0))
    seeds = []
    with tempfile.TemporaryDirectory() as folder:
        for name, packed in (("a.mha", False), ("b.mha", True), ("c.nrrd", False), ("d.nrrd", True), ("e.mhd", False)):
            SimpleITK.WriteImage(image, f"{folder}/{name}", packed)
            files = {name: Path(folder, name).read_bytes()}
            if name == "e.mhd":
                files["e.raw"] = Path(folder, "e.raw").read_bytes()
            seeds.append(Seed("arrays", name, files, name, tuple(files)))
    return seeds


def manifest_seeds() -> list[Seed]:
    there = {"a.png": b"-", "b.png": b"-", "sub/c.png": b"-"}
    lines = b"file,group,kind,mask\na.png,p1,good,\nb.png,p2,lesion,a.png\nsub/c.png,p3,,\n"
    plain = b'\xef\xbb\xbffile,group\na.png,"p, 1"\nb.png,p2\n'
    return [
        Seed("manifest", "full.csv", {"full.csv": lines, **there}, "full.csv"),
        Seed("manifest", "plain.csv", {"plain.csv": plain, **there}, "plain.csv"),
    ]


def measurement_seeds() -> list[Seed]:
    rng = np.random.default_rng(1)
    soft = _soft(16, 16).astype(np.float32)
    kspace = np.fft.fftshift(np.fft.fft2(soft)).astype(np.complex64)
    noise = np.array(0.01)
    made = {
        "blur.npz": npz(y=soft, physics=np.array("blur:sigma=1"), noise=noise),
        "super.npz": npz(y=soft, physics=np.array("super:factor=2"), noise=noise),
        "ct.npz": npz(y=rng.uniform(size=(16, 12)), angles=np.arange(12) * 15.0),
        "views.npz": npz(y=rng.uniform(size=(16, 12)), views=np.array(12)),
        "mask.npz": npz(y=soft, mask=soft > 0.3, noise=noise),
        "matrix.npz": npz(y=rng.uniform(size=20), matrix=rng.normal(size=(20, 64)), noise=noise, scale=np.array(2.0)),
        "kspace.npz": npz(y=kspace, mask=np.ones((16, 16), bool)),
        "coils.npz": npz(y=np.stack([kspace, kspace * 1j]), coil_maps=np.ones((2, 16, 16), np.complex64)),
    }
    seeds = [_one("measurement", name, content) for name, content in made.items()]
    pair = {"k.hdr": b"# Dimensions\n16 16 1 1 1\n", "k.cfl": kspace.T.astype("<c8").tobytes()}
    seeds.append(Seed("measurement", "k.cfl", pair, "k.cfl", tuple(pair)))
    content = io.BytesIO()
    import h5py

    with h5py.File(content, "w") as file:
        file.create_dataset("y", data=soft, compression="gzip", chunks=(8, 8))
        file["mask"] = soft > 0.3
        file.attrs["noise"], file["physics"] = 0.01, "inpaint"
    return [*seeds, _one("measurement", "file.h5", content.getvalue())]


def table_seeds() -> list[Seed]:
    content = io.StringIO()
    writer = csv.writer(content)
    writer.writerow(["file", "anomaly", "p_value", "error"])
    writer.writerows([f"/data/{i}.png", 0.5 * i, 0.1, ""] for i in range(4))
    return [_one("table", "scores.csv", content.getvalue().encode())]


def real_seeds() -> list[Seed]:
    """Of the real files beside the checkout; none where these are missing."""
    found: list[Seed] = []
    for reader, pattern, most in (
        *(("image", "brain_mri/test/*/*.jpg", 3), ("image", "*_ct/test/*/*.png", 4)),
        *(("mask", "brain_mri/ground_truth/*/*.png", 2), ("nifti", "*/patient*/*.nii.gz", 3)),
    ):
        paths = [path for path in sorted(SHARED.glob(pattern)) if path.stat().st_size < _LARGEST_REAL]
        for path in paths[:: max(1, len(paths) // most)][:most]:
            name = f"real.{path.name.partition('.')[2]}"
            found.append(Seed(reader, f"real {path.relative_to(SHARED)}", {name: path.read_bytes()}, name))
    slices = (
        sorted(SHARED.glob("ct_dicom/**/*.dcm"))[:3]
        or sorted(path for path in SHARED.glob("ct_dicom/**/*") if path.is_file())[:3]
    )
    if slices:
        files = {f"{number}.dcm": path.read_bytes() for number, path in enumerate(slices)}
        found.append(Seed("dicom", "real ct_dicom", files, "", tuple(files)))
    return found
