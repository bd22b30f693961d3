"""`priorlens fit` on scans: which are read, how they are prepared, and the slices or cubes that are learned from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from priorlens.commands.scan_options import Axis, Modality, Seen, channels_of, window_of

if TYPE_CHECKING:
    import numpy as np

    from priorlens.anodode import AnoDODE
    from priorlens.cube_model import CubeModel
    from priorlens.klip_model import KLIPModel
    from priorlens.progress import Progress
    from priorlens.scan_model import ScanModel
    from priorlens.volumes.scan_preparation import ScanPreparation
    from priorlens.volumes.scans import Scan
    from priorlens.volumes.survey import Survey

SLICES, MEMORY = 6000, 4 * 2**30
"""Slices that a model is fitted to, at most, and bytes that they take; of more, as many of each scan, evenly spread."""

CUBES = 2000
"""Cubes, at most; each scan gives as many."""

FEW = 10
"""Of fewer patients none is held out as a whole: other slabs of their slices are, `SLAB` of them together."""

SLAB = 4


@dataclass(frozen=True)
class ScanOptions:
    """What options of `priorlens fit` say of scans, as they were given; None where they were not."""

    modality: Modality | None
    channels: str | None
    series: str | None
    axis: Axis | None
    dimensions: Seen | None
    spacing: float | None
    neighbours: float | None
    window: str | None

    def named(self) -> str | None:
        """The first option that was given."""
        return next((f"--{name}" for name, value in vars(self).items() if value is not None), None)


@dataclass(frozen=True)
class Learned:
    """What is learned from: slices or cubes, and of each its patient and the group that is held out together.

    told: names of patients that something tells, by which they can be known again.
    """

    pieces: list[Any]
    patients: list[str]
    groups: list[str]
    told: set[str]


def fit_scans(
    healthy: Path,
    out: Path,
    *,
    method: str,
    own: dict[str, Any],
    shared: dict[str, Any],
    options: ScanOptions,
    intensity: str | None,
    group: str | None,
    manifest: Path | None,
    aside: float | None,
    batch: int | None,
    accumulate: int,
    resume: bool,
    overwrite: bool,
) -> None:
    """Learn what healthy scans look like; see `priorlens.commands.fit`."""
    from priorlens.commands import model_folder
    from priorlens.commands.fitting import is_finished, train
    from priorlens.commands.scans_in import found_scans, with_series
    from priorlens.cube_model import CubeModel
    from priorlens.prior import processes
    from priorlens.scan_model import ScanModel
    from priorlens.volumes.scans import healthy_scans

    found = healthy_scans(healthy, channels=channels_of(options.channels), group=group, manifest=manifest)
    scans = found_scans(*with_series(*found, options.series, one_kind=True))
    dimensions = (options.dimensions or Seen.flat).value
    detector = _new_detector(method, dimensions, shared, own)
    processes.decided(partial(model_folder.claim, out, resume=resume, overwrite=overwrite))
    kept, left = _set_aside(scans, shared["seed"], aside)
    preparation, kept = _prepared(kept, method, options, dimensions, shared["size"], intensity)
    run = {
        "method": method,
        **shared,
        **own,
        **{name: getattr(value, "value", value) for name, value in vars(options).items()},
        "intensity": intensity,
        "group": group,
        "manifest": manifest and manifest.name,
        "folder": healthy.resolve().name,
        "scans": len(kept),
        "patients": len({scan.group for scan in kept}),
        "fingerprint": _fingerprint(kept),
        "aside": aside,
        "batch": batch,
    }
    if not isinstance(detector, CubeModel):
        detector.size = preparation.size
    model = ScanModel(preparation, detector)
    if finished := is_finished(out, run, overwrite):
        typer.echo(f"{out}: is finished already; nothing is left to learn")
    else:
        learned = _pieces(kept, preparation, shared["seed"], options.modality)
        learn = partial(_fit, model, learned, kept, options.modality, batch=batch, accumulate=accumulate)
        train(model, learn, out, run, resume)
        count, patients = len(learned.pieces), len(set(learned.patients))
        what = "cubes" if dimensions == "3d" else "slices, varied ones among them,"
        typer.echo(f"{out}: learned from {count} {what} of {len(kept)} scans of {patients} patients")
    if processes.first():
        _calibrate(ScanModel.load(out) if finished else model, out, left, options.modality)


def _new_detector(
    method: str, dimensions: str, shared: dict[str, Any], own: dict[str, Any]
) -> AnoDODE | KLIPModel | CubeModel:
    """The detector of slices or cubes, still to be fitted."""
    from priorlens.commands.fitting import new_detector

    if method == "klip" or dimensions == "3d":
        from priorlens.cube_model import CubeModel

        if given := next((name for name, value in own.items() if value), None):
            raise typer.BadParameter(f"--{given} is for images; priors of scans are trained here, on scans as they are")
        return CubeModel(steps=shared["steps"], seed=shared["seed"])
    detector, _, _ = new_detector(method, {**shared, "intensity": "range"}, own)
    return detector


def _set_aside(scans: Sequence[Scan], seed: int, share: float | None) -> tuple[list[Scan], list[Scan]]:
    """Scans to fit to, and those of other patients to calibrate with: only such as are known to be healthy."""
    from priorlens.errors import InputError
    from priorlens.held_out import set_aside

    if any(scan.mask for scan in scans):  # scans with lesions cannot say how high healthy ones score
        if share:
            raise InputError(
                f"--aside {share:g}: some scans have a lesion mask, and only wholly healthy ones can be kept aside; "
                "leave --aside out and calibrate with others"
            )
        return list(scans), []
    kept, left = set_aside([scan.group for scan in scans], seed, share)
    return [scans[i] for i in kept], [scans[i] for i in left]


def _prepared(
    scans: Sequence[Scan],
    method: str,
    options: ScanOptions,
    dimensions: Any,
    size: int | None,
    intensity: Any,
) -> tuple[ScanPreparation, list[Scan]]:
    """How all scans are to be prepared, and those that can be: of the units that most have. The others are named."""
    from priorlens.klip_model import SIZES
    from priorlens.preparation import FOR_FEATURES
    from priorlens.volumes.survey import choose_preparation

    plane: Any = (options.axis or Axis.axial).value
    found = _surveyed(scans, plane, options.modality)
    sizes = SIZES if method == "klip" else FOR_FEATURES
    if size and dimensions != "3d":
        size = max(1, round(size / sizes.multiple)) * sizes.multiple
    preparation = choose_preparation(
        [one for _, one in found],
        plane=plane,
        dimensions=dimensions,
        sizes=sizes,
        size=size,
        spacing=options.spacing,
        neighbours=options.neighbours,
        intensity=intensity,
        window=window_of(options.window),
    )
    return preparation, [scan for scan, _ in found]


def _surveyed(scans: Sequence[Scan], plane: Any, modality: Modality | None) -> list[tuple[Scan, Survey]]:
    """Scans that can be read and are of one modality, with what each tells; the others are named on stderr."""
    from statistics import mode

    from priorlens.commands.scans_in import read_as
    from priorlens.commands.terminal import progress_bar, warn
    from priorlens.errors import InputError
    from priorlens.volumes.reading import read_lesions
    from priorlens.volumes.survey import survey

    found = []
    with progress_bar("looking at scans", len(scans)) as advance:
        for scan in scans:
            try:
                volume = read_as(scan, modality)
                if scan.mask:
                    read_lesions(scan, volume)  # one that does not fit is told now, and stops nothing
                found.append((scan, survey(volume, plane)))
            except InputError as error:
                warn(str(error))
            advance()
    units = {"ct": "HU", "mr": "arbitrary"}
    wanted = units[modality.value] if modality else mode(one.units for _, one in found) if found else None
    for scan, _ in ((scan, one) for scan, one in found if one.units != wanted):
        has = "no Hounsfield units" if wanted == "HU" else "Hounsfield units, as CT has"
        warn(f"{scan.path}: has {has}; it is left out (see --modality)")
    kept = [(scan, one) for scan, one in found if one.units == wanted]
    channels = mode(one.channels for _, one in kept) if kept else ()
    for scan, one in ((scan, one) for scan, one in kept if len(one.channels) != len(channels)):
        warn(f"{scan.path}: has {len(one.channels)} channels, most have {len(channels)}; it is left out")
    kept = [(scan, one) for scan, one in kept if len(one.channels) == len(channels)]
    if not kept:
        raise InputError(f"{scans[0].path}: none of {len(scans)} scans can be used; repair them or name others")
    return kept


def _pieces(scans: Sequence[Scan], preparation: ScanPreparation, seed: int, modality: Modality | None) -> Learned:
    """The slices without lesions, of few patients varied too; or cubes without lesions."""
    import numpy as np

    from priorlens.commands.scans_in import read_as
    from priorlens.commands.terminal import progress_bar
    from priorlens.volumes.reading import read_lesions

    learned = Learned([], [], [], {scan.group for scan in scans if scan.told})
    patients = len({scan.group for scan in scans})
    rng = np.random.default_rng([seed, 2])
    with progress_bar("preparing scans", len(scans)) as advance:
        for scan in scans:
            volume = read_as(scan, modality)
            prepared = preparation.prepare(volume)
            lesions = read_lesions(scan, volume) if scan.mask else None
            if preparation.dimensions == "3d":
                cubes = prepared.healthy_cubes(lesions, max(1, CUBES // len(scans)), rng)
                found: list[tuple[int, Any]] = list(enumerate(cubes))
            else:
                slices = prepared.without_lesions(lesions)
                step = _step(len(slices) * len(scans), sum(one.pixels.nbytes for one in prepared.images(slices[:1])))
                chosen = [slices[int(place)] for place in np.arange(0, len(slices), step)]
                found = [(index, image) for index in chosen for image in prepared.images([index])]
            for index, piece in found:
                learned.pieces.append(piece)
                learned.patients.append(scan.group)
                whole = patients >= FEW or preparation.dimensions == "3d"  # cubes overlap, wherever they lie
                learned.groups.append(scan.group if whole else f"{scan.group} slab {index // SLAB}")
            advance()
    if patients < FEW and preparation.dimensions != "3d":
        _vary(learned, preparation.units == "arbitrary", rng)
    _require_enough(scans, learned)
    return learned


def _step(slices: int, nbytes: int) -> float:
    """Of so many slices, each of so many bytes, one in how many is learned from."""
    return max(1.0, slices / min(SLICES, MEMORY // max(1, nbytes)))


def _vary(learned: Learned, intensities: bool, rng: np.random.Generator) -> None:
    """Add varied copies of the slices, each in the group of its own."""
    from priorlens.variations import copies, varied

    own = list(zip(learned.pieces, learned.patients, learned.groups, strict=True))
    for _ in range(copies(len(own))):
        for image, patient, group in own:
            learned.pieces.append(replace(image, pixels=varied(image.pixels, rng, intensities=intensities)))
            learned.patients.append(patient)
            learned.groups.append(group)


def _require_enough(scans: Sequence[Scan], learned: Learned) -> None:
    from priorlens.datasets import MIN_HEALTHY
    from priorlens.errors import InputError

    if len(learned.pieces) < MIN_HEALTHY or len(set(learned.groups)) < 2:
        raise InputError(
            f"{scans[0].path}: {len(scans)} scans hold {len(learned.pieces)} healthy slices or cubes; "
            f"at least {MIN_HEALTHY} are needed, of more than one place or patient; add scans"
        )


def _fit(
    model: ScanModel,
    learned: Learned,
    scans: Sequence[Scan],
    modality: Modality | None,
    *,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    **options: Any,
) -> None:
    """Held out are groups; known again later are patients."""
    from priorlens.commands.usual_errors import unlearned, usual_errors
    from priorlens.cube_model import CubeModel
    from priorlens.prior import processes
    from priorlens.provenance import patient_fingerprint

    pieces, detector = learned.pieces, model.detector
    if isinstance(detector, CubeModel):
        pieces = [getattr(piece, "pixels", piece) for piece in pieces]
    detector.fit(pieces, groups=learned.groups, on_progress=on_progress, **options)
    known = frozenset(map(patient_fingerprint, learned.told))
    detector.provenance_ = replace(detector.provenance_, patients=known)
    detector.trained_on_ = {**detector.trained_on_, "patients": len(set(learned.patients))}
    if isinstance(detector, CubeModel) and processes.first():  # which writes the model
        new = unlearned(scans, learned.patients, learned.groups, detector.seed)
        detector.learn_usual(usual_errors(model, new, modality, on_progress))


def _fingerprint(scans: Sequence[Scan]) -> str:
    """Of each scan's files and its mask, in their order, and of whose they are: all that the slices depend on."""
    from hashlib import sha256

    from priorlens.datasets import Case, fingerprint

    digest = sha256()
    for scan in scans:
        paths = [*scan.files, *([scan.mask] if scan.mask else [])]
        digest.update("\n".join([scan.group, *(fingerprint([Case(path, "", "")]) for path in paths)]).encode())
    return digest.hexdigest()


def _calibrate(model: ScanModel, out: Path, aside: Sequence[Scan], modality: Modality | None) -> None:
    """On the scans kept aside, where there are enough."""
    from priorlens.calibration import discard_outdated
    from priorlens.commands.calibrate_scans import calibrate_scans
    from priorlens.commands.terminal import warn
    from priorlens.conformal import FEWEST_PATIENTS
    from priorlens.errors import InputError

    discard_outdated(out)
    if len({scan.group for scan in aside}) < FEWEST_PATIENTS:
        warn(f"{out}: no scans were kept aside for p-values; priorlens calibrate {out} HEALTHY does it with others")
        return
    try:
        calibrate_scans(model, out, aside, modality)
    except InputError as error:
        warn(f"{error}; there are no p-values until then")
