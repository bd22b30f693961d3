"""A model folder of whatever method becomes its detector."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from priorlens import anodode, klip_model
from priorlens.anodode import AnoDODE
from priorlens.checkpoint import read_config
from priorlens.cube_model import CubeModel
from priorlens.errors import ModelError
from priorlens.klip_model import KLIPModel


def setup_of(detector: AnoDODE | KLIPModel | CubeModel) -> str:
    """All that may be chosen of how a model scores, in one line: scores compare only where this is the same."""
    parts = [f"rule={detector.rule}"]
    if isinstance(detector, KLIPModel):
        parts += [f"physics={detector.measured_as_}", f"posterior={detector.posterior}"]
        parts += ["window={:g} {:g}".format(*detector.window)] if detector.window else []
        parts += [f"block={detector.block}"] if detector.block else []
        parts += [] if detector.simulated else ["real"]
    return ", ".join(parts)


def unit_of(detector: AnoDODE | KLIPModel | CubeModel) -> Literal["bit", "1"]:
    """Of the map, as the rule says it: bits, or a number relative to what is usual."""
    in_bits: tuple[str, ...] = ()
    if isinstance(detector, AnoDODE):
        in_bits = ("combined", "local", "standardised")
    elif isinstance(detector, KLIPModel):
        in_bits = ("combined", "coherent", "squares")
    return "bit" if detector.rule in in_bits else "1"


def load_detector(folder: Path, *, device: str | None = None) -> AnoDODE | KLIPModel:
    """Read a model's folder.

    Raises:
        ModelError: it is missing, truncated, foreign or newer, or of a method that this version does not know.
        WeightsError: what its networks are made of is not installed.
    """
    match read_config(folder)["method"]:
        case anodode.METHOD:
            return AnoDODE.load(folder, device=device)
        case klip_model.METHOD:
            return KLIPModel.load(folder, device=device)
        case method:
            known = f"{anodode.METHOD} and {klip_model.METHOD}"
            raise ModelError(f"{folder}: holds a model of {method!r}, this version knows {known}; upgrade priorlens")
