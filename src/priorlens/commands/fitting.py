"""What fitting to images and to scans have in common: a new detector, and a training that can be gone on with."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from priorlens.anodode import AnoDODE
    from priorlens.klip_model import KLIPModel
    from priorlens.progress import Progress


@runtime_checkable  # so that tests can check types
class Saved(Protocol):
    """A model that can be written to a folder."""

    def save(self, folder: Path, *, facts: Mapping[str, Any] | None = None) -> None: ...


def new_detector(
    method: str, shared: Mapping[str, Any], own: Mapping[str, Any]
) -> tuple[AnoDODE | KLIPModel, dict[str, Any], dict[str, Any]]:
    """A detector still to be fitted, the facts of it that options tell, and what its `fit` takes beside the images."""
    if method == "klip":
        from priorlens.image_prior import WIDTH
        from priorlens.klip_model import KLIPModel

        measured = {"physics": own["physics"] or (), "noise": own["noise"]}
        network: dict[str, Any] = {"width": own["width"] or WIDTH, "variance_head": bool(own["variance-head"])}
        model = KLIPModel(**shared, prior=own["prior"], patch=own["patch"], **network)
        return model, {**own, "prior": own["prior"] and Path(own["prior"]).name}, measured
    from priorlens.anodode import AnoDODE
    from priorlens.features import DEFAULT_BACKBONE

    backbone, weights = own["backbone"] or DEFAULT_BACKBONE, own["weights"]
    detector = AnoDODE(**shared, backbone=backbone, weights=weights)
    return detector, {"backbone": backbone, "weights": weights and weights.name}, {}


def is_finished(out: Path, run: Mapping[str, Any], overwrite: bool) -> bool:
    """Whether `out` holds the model already, which is not to be overwritten, as the first process sees it.

    Raises:
        OutputError: it holds another. InputError: another process has other images or options than the first.
    """
    from priorlens.commands import model_folder
    from priorlens.prior import processes

    processes.require_alike("what is to be learned", dict(run))
    return bool(processes.decided(lambda: not overwrite and model_folder.is_finished(out, run)))


def train(model: Saved, fitted: Callable[..., object], out: Path, run: Mapping[str, Any], resume: bool) -> None:
    """Fit the model and save it into `out`, with its log, a progress bar, and the unfinished state for a resume.

    Of several processes the first one does so, the others learn with it.
    """
    from priorlens.commands import model_folder
    from priorlens.commands.terminal import training_bar
    from priorlens.commands.training_log import NAME, training_log
    from priorlens.errors import InputError, ModelError, WeightsError
    from priorlens.prior import processes

    if not processes.first():
        fitted()
        return
    state = model_folder.begin(out, run)
    made = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    try:
        with training_log(out / NAME, resume) as log, training_bar() as show:

            def on_progress(progress: Progress) -> None:
                log(progress.stage, progress.step, progress.loss)
                show(progress.stage, progress.loss, progress.done, progress.total)

            fitted(state=state, on_progress=on_progress)
        model.save(out, facts={model_folder.RUN_FACTS: run, "made": made})
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{out}: its training is unfinished; the same command with --resume goes on") from None
    except (InputError, ModelError, WeightsError):
        if not resume:  # nothing was learned yet; what an earlier run did learn is kept until this is put right
            (out / NAME).unlink(missing_ok=True)
            model_folder.discard_training(out)
        raise
    model_folder.discard_training(out)
