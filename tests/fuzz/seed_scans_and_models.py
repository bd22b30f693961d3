"""DICOM series, model folders and results folders, small and valid: what mutations start from."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from seed_files import Seed

RAMP = (np.arange(34 * 36 * 3).reshape(34, 36, 3) * 7 % 1999).astype(np.int16)


SCANS_SETUP = "rule=coherent, scans"
"""As `priorlens.scan_model.setup_of_scans` has it."""


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def dicom_seeds() -> list[Seed]:
    from pydicom import uid

    from volumes.made_dicom import write_enhanced, write_series

    syntaxes = {
        "implicit": uid.ImplicitVRLittleEndian,
        "big-endian": uid.ExplicitVRBigEndian,
        "deflated": uid.DeflatedExplicitVRLittleEndian,
        "rle": uid.RLELossless,
        "jpeg-ls": uid.JPEGLSLossless,
        "jpeg-2000": uid.JPEG2000Lossless,
    }
    made: dict[str, Callable[[Path], object]] = {
        "native": lambda folder: write_series(folder, RAMP),
        "mr": lambda folder: write_series(folder, RAMP, modality="MR"),
        "padded": lambda folder: write_series(folder, RAMP, PixelPaddingValue=0, PixelPaddingRangeLimit=20),
        "enhanced": lambda folder: write_enhanced(folder / "one.dcm", RAMP),
        "enhanced-rle": lambda folder: write_enhanced(
            folder / "one.dcm", RAMP, change=lambda dataset: dataset.compress(uid.RLELossless)
        ),
        "jpeg": _jpeg,
        "jpeg-lossless": _jpeg_lossless,
    }
    for name, syntax in syntaxes.items():
        made[name] = lambda folder, syntax=syntax: _resaved(folder, syntax)
    seeds = []
    for name, make in made.items():
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder))
            files = files_in(Path(folder))
        seeds.append(Seed("dicom", name, files, "", tuple(files)))
    return seeds


def _resaved(folder: Path, syntax: str) -> None:
    from pydicom import dcmread, dcmwrite

    from volumes.made_dicom import write_series

    if syntax.is_encapsulated:
        write_series(folder, RAMP, change=lambda dataset, k: dataset.compress(syntax, generate_instance_uid=False))
        return
    for path in write_series(folder, RAMP):
        dataset = dcmread(path)
        dataset.file_meta.TransferSyntaxUID = syntax
        if not syntax.is_little_endian:
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<i2").astype(">i2").tobytes()
        order = {"implicit_vr": syntax.is_implicit_VR, "little_endian": syntax.is_little_endian}
        dcmwrite(path, dataset, force_encoding=True, **order)


def _jpeg(folder: Path) -> None:
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEGBaseline8Bit

    from volumes.made_dicom import write_series

    stored = (RAMP % 251).astype(np.uint8)

    def change(dataset: object, k: int) -> None:
        content = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(stored[:, :, k].T)).save(content, "JPEG", quality=95)
        dataset.PixelData = encapsulate([content.getvalue()])
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit

    write_series(folder, stored, change=change)


def _jpeg_lossless(folder: Path) -> None:
    """By GDCM, as pydicom has no encoder for it."""
    import gdcm

    from volumes.made_dicom import write_series

    for path in write_series(folder, RAMP):
        reader, writer, change = gdcm.ImageReader(), gdcm.ImageWriter(), gdcm.ImageChangeTransferSyntax()
        reader.SetFileName(str(path))
        assert reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer.SetFileName(str(path))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()


def checkpoint_seeds() -> list[Seed]:
    """Of tensors that stand for nothing: the folder alone."""
    import torch
    from safetensors.torch import save

    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b.c": torch.ones(1, dtype=torch.float64)}
    config = {"schema": 1, "method": "anodode", "settings": {"size": 64}, "notes": [1, 2.5, None, "é"]}
    files = {"model.safetensors": save(tensors), "config.json": json.dumps(config, indent=2).encode()}
    return [Seed("checkpoint", "tensors", files, "", tuple(files))]


def _soft_images(count: int = 12, side: int = 32) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    down, across = np.mgrid[:side, :side] / side - 0.5
    shapes = [0.7 / (1 + np.exp(40 * (np.hypot(down, across) - 0.35))) + rng.uniform(0, 0.1, (side, side))]
    return [(shapes[0] + rng.uniform(0, 0.1, (side, side))).astype(np.float32) for _ in range(count)]


def model_seeds(folder: Path, *, every: bool) -> list[Seed]:
    """Fitted for one step, kept in `folder`. every: with models of images, which take seconds to make."""
    from dataclasses import asdict

    import torch

    from priorlens.cube_model import CubeModel
    from priorlens.scan_surprise import ErrorStack
    from priorlens.volumes.scan_preparation import ScanPreparation
    from priorlens.volumes.voxel_intensity import VoxelIntensity

    torch.set_num_threads(1)
    images = _soft_images()
    groups = [str(number) for number in range(len(images))]
    preparation = ScanPreparation(("",), "arbitrary", (VoxelIntensity("robust"),), "axial", "2d", 4.0, 32, 0.0)
    of_scans = CubeModel(steps=1).fit([image[None] for image in images], groups=groups)
    errors = torch.from_numpy(np.stack(of_scans.signed([image[None] for image in images], range(len(images)))))
    body, places = torch.ones(len(images), *images[0].shape, dtype=torch.bool), np.arange(float(len(images)))
    of_scans.learn_usual([ErrorStack(folder, errors, body, places, 1.0)])
    of_scans.save(folder / "scans", facts={"scans": asdict(preparation)})
    _calibrate(folder / "scans", SCANS_SETUP)
    if every:
        _fit_models_of_images(folder, images, groups)
    seeds = []
    for one in sorted(folder.iterdir()):
        paths = {path.relative_to(one).as_posix(): path for path in one.rglob("*") if path.is_file()}
        seeds.append(Seed("model", one.name, paths, "", tuple(name for name in paths)))
    return seeds


def _small_scan(path: Path) -> object:
    from priorlens.volumes.volume import Volume

    stack = np.stack(_soft_images(6), -1)[None]
    return Volume((400 * stack).astype(np.float32), np.diag([4.0, 4.0, 4.0, 1.0]), "arbitrary", path)


def _fit_models_of_images(folder: Path, images: list[np.ndarray], groups: list[str]) -> None:
    from priorlens import held_out
    from priorlens.anodode import AnoDODE
    from priorlens.detectors import setup_of
    from priorlens.klip_model import KLIPModel

    held_out.PLANTED = 1
    klip = KLIPModel(size=32, steps=1).fit(images, groups=groups)
    klip.save(folder / "klip")
    _calibrate(folder / "klip", setup_of(klip))
    AnoDODE(size=64, steps=1).fit(images, groups=groups).save(folder / "anodode")


def _calibrate(folder: Path, setup: str) -> None:
    from priorlens.calibration import Calibration, model_hash, write_calibration

    count, rng = 20, np.random.default_rng(2)
    names = tuple(f"{number:032x}" for number in range(count))
    blocks = tuple(rng.normal(size=16).astype(np.float32) for _ in names)
    anomaly = rng.normal(size=count).astype(np.float32)
    write_calibration(folder, Calibration(model_hash(folder), setup, names, names, anomaly, blocks, {"a": anomaly}))


def external_seeds(folder: Path) -> list[Seed]:
    """Of diffusers and MONAI, where these are installed."""
    try:
        import diffusers
        import torch
        from monai.networks.nets import DiffusionModelUNet
    except ImportError:
        return []
    from safetensors.torch import save_file

    torch.manual_seed(0)
    unet = {
        **{"sample_size": 8, "in_channels": 1, "out_channels": 1, "block_out_channels": (4, 8)},
        **{"layers_per_block": 1, "down_block_types": ("DownBlock2D", "AttnDownBlock2D")},
        **{"up_block_types": ("AttnUpBlock2D", "UpBlock2D"), "norm_num_groups": 2, "attention_head_dim": 4},
    }
    schedule = diffusers.DDPMScheduler(clip_sample=False)
    diffusers.DDPMPipeline(diffusers.UNet2DModel(**unet), schedule).save_pretrained(folder / "diffusers")
    monai = {
        **{"spatial_dims": 2, "in_channels": 1, "out_channels": 1, "num_res_blocks": 1, "channels": [4, 8, 8]},
        **{"attention_levels": [False, False, True], "norm_num_groups": 2, "num_head_channels": 4},
    }
    net = DiffusionModelUNet(**monai)
    config = json.dumps({"network": monai, "scheduler": {"clip_sample": False}, "range": [0, 1]})
    for name, save in (("monai.safetensors", save_file), ("monai.pt", torch.save)):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(config)
        save(net.state_dict(), folder / name / f"model.{name.rpartition('.')[2]}")
    found = {one.name: files_in(one) for one in sorted(folder.iterdir())}
    return [Seed("external", name, files, "", tuple(files)) for name, files in found.items()]


def results_seeds() -> list[Seed]:
    """Folders that `score`, `evaluate` and `monitor` wrote, with a picture and a reconstruction each."""
    from made_results import add_evaluation, write_results, write_watch

    seeds = []
    with tempfile.TemporaryDirectory() as at:
        folder = Path(at)
        names = ["good/a.png", "lesion/b.png", "lesion/c d.png"]
        scored = write_results(folder / "scored", names, patients=["p1", "p2", "p2"], failed=[2], size=(16, 20))
        add_evaluation(scored, 1, 1)
        (scored / "reconstructions" / "good").mkdir(parents=True)
        np.save(scored / "reconstructions" / "good" / "a.npy", np.zeros((1, 16, 20), np.float32))
        plain = write_results(folder / "plain", ["a.png"], calibrated=False, alpha=None, size=(16, 20))
        watched = write_watch(folder / "watched", alarm=True, names=["one"])
        for one in (scored, plain, watched):
            files = files_in(one)
            damaged = tuple(name for name in files if not name.startswith("maps/"))
            seeds.append(Seed("results", one.name, files, "", damaged))
    return seeds
