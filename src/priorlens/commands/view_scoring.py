"""Files that the viewer is given, through a model: in the viewer's process for scoring, which keeps the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

from priorlens.commands.image_results import ImageResults
from priorlens.commands.image_scoring import ImageScoring
from priorlens.commands.model_card import write_card
from priorlens.commands.results import write_scores
from priorlens.commands.scan_scoring import ScanResults, ScanScoring, score_scans
from priorlens.commands.scans_in import write_left_out
from priorlens.commands.score_scans import scan_channels
from priorlens.datasets import find_cases
from priorlens.outputs import prepare_folder
from priorlens.scan_model import is_scan_model
from priorlens.volumes.scans import find_scans

Tell = Callable[[int, int], None]


def score_files(model: Path, alpha: float | None, files: Path, out: Path, tell: Tell) -> None:
    """Score what is in the folder `files` into `out`, as `priorlens score MODEL FILES --out OUT --alpha` does.

    Raises InputError and OutputError for what stops all of it; a single broken file has its line in the table.
    """
    (_score_scans if is_scan_model(model) else _score_images)(model, alpha, files, out, tell)


def _score_images(model: Path, alpha: float | None, files: Path, out: Path, tell: Tell) -> None:
    cases = find_cases([files])
    known = _of_images(model, alpha)
    prepare_folder(out)
    write_card(out, model, known.detector)  # type: ignore[arg-type]
    done = 0

    def count(*_: object) -> None:
        nonlocal done
        done += 1
        tell(done, len(cases))

    tell(0, len(cases))
    write_scores(known.into(out), cases, on_scored=count)


def _score_scans(model: Path, alpha: float | None, files: Path, out: Path, tell: Tell) -> None:
    scans, left_out = find_scans([files], channels=scan_channels(model), unnamed=True)
    known = _of_scans(model, alpha)
    prepare_folder(out)
    write_card(out, model, known.model)
    write_left_out(out, left_out)
    score_scans(replace(known, how=replace(known.how, out=out)), scans, on_slices=tell)


@cache
def _of_images(model: Path, alpha: float | None) -> ImageResults:
    return ImageScoring(model, Path(), {"alpha": alpha}, {"rule": None}, patients=False, overlays=True).results()


@cache
def _of_scans(model: Path, alpha: float | None) -> ScanResults:
    return ScanScoring(model, Path(), alpha=alpha).results()
