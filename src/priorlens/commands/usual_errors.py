"""What a prior of voxels, once it is learned, makes of healthy scans as a whole: what is usual is read off that."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from priorlens.commands.scan_options import Modality
from priorlens.commands.scans_in import read_as
from priorlens.held_out import LARGEST, hold_out
from priorlens.progress import Progress
from priorlens.scan_model import ScanModel
from priorlens.scan_surprise import ErrorStack
from priorlens.volumes.reading import read_lesions
from priorlens.volumes.scans import Scan

BYTES = 2**30
"""Of errors that are kept at once, about: of more scans, what is usual is not read off."""


def unlearned(scans: Sequence[Scan], patients: Sequence[str], groups: Sequence[str], seed: int) -> list[Scan]:
    """Scans of patients who are held out as a whole; of few patients, where none is, all scans. In random order.

    patients, groups: of each slice or cube that the prior was fitted to, as its `fit` was given them.
    """
    kept, _ = hold_out(groups, seed)
    seen = {patients[index] for index in kept}
    found = [scan for scan in scans if scan.group not in seen] or list(scans)
    return [found[index] for index in np.random.default_rng([seed, 3]).permutation(len(found))]


def usual_errors(
    model: ScanModel, scans: Sequence[Scan], modality: Modality | None, on_progress: Callable[[Progress], None]
) -> list[ErrorStack]:
    """What the prior makes of the slices without lesions of whole scans, as many as tell well what is usual.

    Raises:
        InputError: a scan can no longer be read.
    """
    stacks: list[ErrorStack] = []
    for done, scan in enumerate(scans):
        on_progress(Progress("healthy scans", done, len(scans), float("nan"), done, len(scans)))
        volume = read_as(scan, modality)
        prepared = model.preparation.prepare(volume)
        lesions = read_lesions(scan, volume) if scan.mask else None
        if prepared.planes(lesions):
            stacks.append(model.errors_of(prepared, lesions))
        if sum(len(one.body) for one in stacks) >= LARGEST or sum(one.errors.nbytes for one in stacks) >= BYTES:
            break
    return stacks
