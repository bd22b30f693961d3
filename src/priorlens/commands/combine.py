"""`priorlens combine`: results of several models on the same images in; one calibrated p-value an image out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from priorlens.commands.options import Overlays, Overwrite, Results

if TYPE_CHECKING:
    from priorlens.combining import Combined
    from priorlens.commands.combined_maps import MapFolder
    from priorlens.result_folder import ResultFolder

SCHEMA = 1
TABLE, SUMMARY = "combined.csv", "combined.json"


class Joining(StrEnum):
    """`priorlens.conformal.COMBINATION_RULES` once more, as importing those would take long before help is shown."""

    harmonic = "harmonic"
    fisher = "fisher"
    cauchy = "cauchy"
    smallest = "smallest"


def combine(
    results: Annotated[
        list[Path],
        typer.Argument(
            metavar="RESULTS",
            help="Two or more folders that priorlens score wrote of the same images, each with another calibrated "
            "model, or with another rule or measurement of one.",
        ),
    ],
    out: Results,
    rule: Annotated[
        Joining,
        typer.Option(
            "--rule",
            help="How p-values of one image are joined before the result is ranked. harmonic: harmonic mean, nearly "
            "the best whether one model sees the anomaly or all do. fisher: product, best where all see it. smallest: "
            "best where one of several that are much alike does. cauchy: much like harmonic.",
        ),
    ] = Joining.harmonic,
    alpha: Annotated[
        float | None,
        typer.Option(
            metavar="A", help="Give verdicts, with so large a share of false alarms among healthy images. Such as .05."
        ),
    ] = None,
    overlays: Overlays = True,
    overwrite: Overwrite = False,
) -> None:
    """Join what several models say of the same images into one p-value and one map each.

    The joined p-value is exact however much the models agree: it is ranked among the healthy images that all of them
    were calibrated on. Models fitted to the same images with the same --seed and --aside keep the same ones aside.
    A joined map is the mean of theirs, each relative to what healthy images show: 0 is usual, 1 is where each alone
    would draw a line.

    \b
    Writes into --out:
      combined.csv    a line an image: file, patient (where results name it),
                      p_value, verdict (with --alpha), p_1, p_2, ... (as each of
                      RESULTS has it, by its own calibration), error
      maps/           the joined map of each image, where all of RESULTS have
                      maps; not of scans
      overlays/       pictures of these, where the first of RESULTS has some
      combined.json   rule, models, and the healthy images they share

    An image that failed in one of RESULTS, or is missing there, has the reason in column error, the others are
    combined, and the exit code is 7; so it is where maps of an image cannot be joined, which is told. Choose RESULTS
    before you see their p-values of the images in question.

    \b
    Examples:
      priorlens combine results-anodode results-klip --out both
      priorlens combine results-anodode results-klip --out both --alpha .05
    """
    from priorlens.result_folder import read_result_folder

    if len(results) < 2:
        raise typer.BadParameter("there is nothing to combine; give two folders of results at least")
    if alpha is not None and not 0 < alpha < 1:
        raise typer.BadParameter(f"--alpha {alpha:g} is no rate; give one between 0 and 1, such as .05")
    folders = [read_result_folder(path) for path in results]

    # Only now what takes seconds to import: a folder that does not fit is told at once.
    from priorlens import combining
    from priorlens.commands.results import require_apart
    from priorlens.outputs import prepare_folder

    require_apart(out, results, "whose maps it would replace")
    found = combining.combine(folders, rule.value)
    if alpha is not None:
        found.require(alpha)
    maps = _map_folders(folders)
    prepare_folder(out, overwrite=overwrite)
    models = [{"folder": one.path.as_posix(), "model": one.model, "setup": one.setup} for one in folders]
    _write(found, maps, out, {"schema": SCHEMA, "rule": rule.value, "alpha": alpha, "results": models}, overlays)


def _map_folders(folders: Sequence[ResultFolder]) -> list[MapFolder]:
    """Of all results, or none where one has no maps that can be joined; says so where others have some."""
    from priorlens.commands.combined_maps import read_map_folder
    from priorlens.commands.terminal import warn

    found = {one.path: read_map_folder(one) for one in folders}
    usable = [one for one in found.values() if one]
    if len(usable) == len(folders):
        return usable
    if usable:
        lacking = ", ".join(str(path) for path, one in found.items() if not one)
        warn(f"{lacking}: has no maps that can be joined; score again for joined maps")
    return []


def _write(found: Combined, maps: Sequence[MapFolder], out: Path, facts: Mapping[str, Any], overlays: bool) -> None:
    """Everything below `out`, the summary last; says how much it was. facts: of the call."""
    from priorlens.commands.combined_maps import discard_maps, write_maps
    from priorlens.commands.image_results import MAPS
    from priorlens.commands.results import remove_results
    from priorlens.commands.terminal import progress_bar, warn
    from priorlens.errors import EXIT_SOME_FAILED
    from priorlens.outputs import write_json, write_rows

    remove_results([out / SUMMARY])
    discard_maps(out)
    header, *rows = _table(found, facts["alpha"])
    write_rows(out / TABLE, header, rows)
    usable = {image.file: image.p_value for image in found.images if not image.error}
    joined = 0
    if maps:
        with progress_bar("joining maps", len(usable)) as advance:
            joined = write_maps(maps, usable, out, overlays=overlays, warn=warn, advance=advance)
    calibration = {
        "images": found.healthy_images,
        "patients": found.healthy_patients,
        "smallest_p_value": found.smallest_p_value,
    }
    write_json(out / SUMMARY, {**facts, "calibration": calibration, "maps": joined})
    for image in found.images:
        if image.error:
            warn(image.error)
    typer.echo(
        f"{out}: {len(usable)} of {len(rows)} images combined, against {found.healthy_images} healthy "
        f"images of {found.healthy_patients} patients: p-values down to {found.smallest_p_value:.2g}"
    )
    if maps:
        typer.echo(f"{out / MAPS}: {joined} joined maps")
    if len(usable) < len(rows) or (maps and joined < len(usable)):
        raise typer.Exit(EXIT_SOME_FAILED)


def _table(found: Combined, alpha: float | None) -> Iterator[list[str]]:
    """The header, then a line an image."""
    from priorlens.conformal import verdict_of

    patients = any(image.patient for image in found.images)
    verdicts = alpha is not None
    own = [f"p_{number}" for number in range(1, 1 + len(found.images[0].own))]
    yield ["file", *(["patient"] if patients else []), "p_value", *(["verdict"] if verdicts else []), *own, "error"]
    for image in found.images:
        row = [image.file, *([image.patient] if patients else []), _shown(image.p_value)]
        if alpha is not None:
            row.append("" if image.error else verdict_of(image.p_value, alpha))
        yield [*row, *map(_shown, image.own), image.error]


def _shown(p_value: float) -> str:
    return "" if math.isnan(p_value) else f"{p_value:.6g}"
