"""A KLIP model as a folder: all that was learned, in tensors and plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from priorlens.checkpoint import read_checkpoint, under, versions, write_checkpoint
from priorlens.errors import InputError, ModelError, WeightsError
from priorlens.image_prior import ImagePrior
from priorlens.klip import SIGMAS, WIDTHS
from priorlens.klip_rules import Learned
from priorlens.preparation import Preparation
from priorlens.prior.external import empty_external
from priorlens.provenance import Provenance

METHOD = "klip"


@dataclass(frozen=True)
class Fitted:
    """What a fit has made of its settings and the healthy images; `learned` is by measurement."""

    settings: dict[str, Any]
    preparation: Preparation
    prior: ImagePrior
    learned: dict[str, Learned]
    trained_on: dict[str, int]
    provenance: Provenance


def write_klip(folder: Path, fitted: Fitted, facts: Mapping[str, Any]) -> None:
    """Write the folder; `facts` go into its config. Raises OutputError."""
    tensors = fitted.prior.tensors() | fitted.provenance.tensors()
    for index, learned in enumerate(fitted.learned.values()):
        tensors |= {f"learned.{index}.{name}": value for name, value in learned.tensors().items()}
    external = fitted.prior.external
    config = {
        "method": METHOD,
        **facts,
        "settings": fitted.settings,
        "preparation": asdict(fitted.preparation),
        "prior": {"patch": fitted.prior.patch, "external": external and external.facts},
        "sigmas": SIGMAS,
        "widths": WIDTHS,
        "trained_on": fitted.trained_on,
        "learned": {text: learned.config() for text, learned in fitted.learned.items()},
        "versions": versions(),
    }
    write_checkpoint(folder, tensors, config)


def read_klip(folder: Path) -> Fitted:
    """The inverse of `write_klip`.

    Raises:
        ModelError: it is missing, truncated, foreign, of another method, or newer.
        WeightsError: the library its prior comes from is not installed.
    """
    tensors, config = read_checkpoint(folder)
    if config["method"] != METHOD:
        raise ModelError(f"{folder}: holds a model of method {config['method']!r}, not {METHOD!r}; fit again")
    try:
        return _fitted(tensors, config)
    except WeightsError:
        raise
    except (InputError, ModelError, AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"{folder}: its config and its tensors do not belong together; fit again") from error


def _fitted(tensors: dict[str, Tensor], config: dict[str, Any]) -> Fitted:
    if tuple(config["sigmas"]) != SIGMAS or tuple(config["widths"]) != WIDTHS:
        raise ValueError("noise levels and widths are other ones")
    preparation = Preparation.restored(config["preparation"])
    facts = config["prior"]["external"]
    external = empty_external(facts) if facts else None
    patch, width, head = config["prior"]["patch"], config["settings"]["width"], config["settings"]["variance_head"]
    if type(width) is not int or type(head) is not bool:
        raise TypeError("the width is no whole number, or it is not said whether there is a variance head")
    prior = ImagePrior(preparation.channels, patch=patch, external=external, width=width, head=head)
    prior.load_tensors(tensors)
    learned = {
        text: Learned.restored(under(f"learned.{index}", tensors), known)
        for index, (text, known) in enumerate(config["learned"].items())
    }
    trained_on, provenance = dict(config["trained_on"]), Provenance.restored(tensors)
    return Fitted(dict(config["settings"]), preparation, prior, learned, trained_on, provenance)
