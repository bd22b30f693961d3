"""Files that the viewer is given, through a model: in the viewer's process for scoring, which keeps the model."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

from priorlens.commands import scan_scoring
from priorlens.commands.doubts import Doubts
from priorlens.commands.image_results import ImageResults
from priorlens.commands.model_card import write_card
from priorlens.commands.options import judge_of
from priorlens.commands.results import write_scores
from priorlens.commands.scans_in import write_left_out
from priorlens.commands.score_scans import scan_channels
from priorlens.datasets import find_cases
from priorlens.detectors import load_detector
from priorlens.outputs import prepare_folder
from priorlens.scan_model import ScanModel, is_scan_model
from priorlens.volumes.scans import find_scans

Tell = Callable[[int, int], None]

_image_model, _scan_model = cache(load_detector), cache(ScanModel.load)


def score_files(model: Path, alpha: float | None, files: Path, out: Path, tell: Tell) -> None:
    """Score what is in the folder `files` into `out`, as `priorlens score MODEL FILES --out OUT --alpha` does.

    Raises InputError and OutputError for what stops all of it; a single broken file has its line in the table.
    """
    (_score_scans if is_scan_model(model) else _score_images)(model, alpha, files, out, tell)


def _score_images(model: Path, alpha: float | None, files: Path, out: Path, tell: Tell) -> None:
    cases = find_cases([files])
    detector = _image_model(model)
    judge = judge_of(detector, model, alpha=alpha)
    prepare_folder(out)
    write_card(out, model, detector)
    done = 0

    def count(*_: object) -> None:
        nonlocal done
        done += 1
        tell(done, len(cases))

    tell(0, len(cases))
    doubts = Doubts(judge, detector.provenance_)
    write_scores(
        ImageResults(out, detector, judge, patients=False, overlays=True, doubts=doubts), cases, on_scored=count
    )


def _score_scans(model: Path, alpha: float | None, files: Path, out: Path, tell: Tell) -> None:
    names = scan_channels(model)
    scans, left_out = find_scans([files], channels=names, unnamed=True)
    detector = _scan_model(model)
    judge = scan_scoring.judge_of_scans(detector, model, alpha, None)
    prepare_folder(out)
    write_card(out, model, detector)
    write_left_out(out, left_out)
    scan_scoring.score_scans(
        out, model, detector, scans, judge=judge, modality=None, overlays=True, dicom=True, on_slices=tell
    )
