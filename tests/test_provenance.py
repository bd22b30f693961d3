"""Images are known again by their pixels and patients by their names, and neither can be read off a fingerprint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from priorlens.images import Image, read_image
from priorlens.provenance import DIGITS, Provenance, image_fingerprint, patient_fingerprint


def image(pixels: np.ndarray, path: str = "a.png", full_scale: float = 255.0) -> Image:
    return Image(np.asarray(pixels, np.float32), Path(path), full_scale)


@pytest.fixture
def grey() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (12, 16), dtype=np.uint8)


def test_neither_name_nor_format_of_the_file_matters(tmp_path, grey):
    for name in ("a.png", "b.tif", "c.bmp"):
        PIL.Image.fromarray(grey).save(tmp_path / name)
    PIL.Image.fromarray(np.stack([grey] * 3, -1)).save(tmp_path / "grey_as_colour.png")
    np.save(tmp_path / "d.npy", grey)
    np.save(tmp_path / "channel_first.npy", grey[None])
    np.save(tmp_path / "float.npy", grey.astype(np.float64))
    np.save(tmp_path / "turned_in_memory.npy", np.asfortranarray(grey))
    found = {image_fingerprint(read_image(path)) for path in tmp_path.iterdir()}
    assert len(found) == 1


def test_any_other_pixel_or_shape_is_another_image(grey):
    changed = grey.copy()
    changed[3, 5] += 1
    others = [changed, grey.T, grey.reshape(16, 12), grey[::-1], grey / 255, grey[:-1]]
    found = {image_fingerprint(image(one[None])) for one in (grey, *others)}
    assert len(found) == 1 + len(others)
    assert image_fingerprint(image(grey[None])) != image_fingerprint(image(np.stack([grey] * 3)))


def test_how_an_array_lies_in_memory_does_not_matter(grey):
    wide = np.zeros((1, 12, 32), np.float32)
    wide[..., ::2] = grey
    assert image_fingerprint(image(wide[..., ::2])) == image_fingerprint(image(grey[None]))


def test_fingerprints_are_hexadecimal_and_tell_no_name():
    for found in (patient_fingerprint("Ann Smith"), image_fingerprint(image(np.eye(9)[None]))):
        assert len(found) == DIGITS and bytes.fromhex(found)
    assert patient_fingerprint("Ann") != patient_fingerprint("ann") != patient_fingerprint("ann ")
    assert patient_fingerprint("caf\udce9") != patient_fingerprint("caf"), "a file name that is no text"


def test_what_was_given_is_kept_with_the_tensors(grey):
    images = [image(grey[None]), image(grey[None, :9]), image(np.eye(40)[None])]
    known = Provenance.of(images, ["ann", "bob", "ann"])
    assert known.images == frozenset(map(image_fingerprint, images)) and len(known.images) == 3
    assert known.patients == {patient_fingerprint("ann"), patient_fingerprint("bob")}
    assert known.sides == (16, 40)
    assert Provenance.restored({"other": torch.ones(1), **known.tensors()}) == known


def test_the_order_of_images_leaves_no_trace(grey):
    images = [image(grey[None, :9]), image(grey[None])]
    one, other = (Provenance.of(some, ["a", "b"]).tensors() for some in (images, images[::-1]))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("patients", [None, []])
def test_patients_need_not_be_known(grey, patients):
    known = Provenance.of([image(grey[None])], patients)
    assert known.patients == frozenset() and Provenance.restored(known.tensors()) == known


@pytest.mark.parametrize("missing", ["images", "patients", "sides"])
def test_tensors_of_a_model_without_it(grey, missing):
    tensors = Provenance.of([image(grey[None])], None).tensors()
    del tensors[f"provenance.{missing}"]
    with pytest.raises(KeyError):
        Provenance.restored(tensors)
