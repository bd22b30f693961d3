"""What is known of a model, as `priorlens inspect` tells it and as it goes with results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from priorlens.calibration import calibrated_setups, read_calibration
from priorlens.checkpoint import TENSORS, read_config
from priorlens.detectors import setup_of, unit_of
from priorlens.errors import ModelError
from priorlens.outputs import write_json
from priorlens.scan_model import ScanModel, setup_of_scans
from priorlens.scores import HealthyStatistics

if TYPE_CHECKING:
    from priorlens.anodode import AnoDODE
    from priorlens.klip_model import KLIPModel

CARD = "model.json"
SCHEMA = 1


def model_facts(model: Path, detector: AnoDODE | KLIPModel | ScanModel) -> dict[str, Any]:
    """How it was made, what it learned from, and on what each way of scoring is calibrated: plain data for JSON."""
    config = read_config(model)
    facts: dict[str, Any] = {name: config[name] for name in ("made", "run", "versions") if name in config}
    facts |= {"megabytes": round((model / TENSORS).stat().st_size / 1e6, 1), **detector.describe()}
    worth = {setup: _worth(model, setup) for setup in calibrated_setups(model)}
    facts["calibration"] = {setup: found for setup, found in worth.items() if found}
    return facts


def write_card(out: Path, model: Path, detector: AnoDODE | KLIPModel | ScanModel) -> None:
    """`model.json` beside results, with how it scored; of paths on this machine only their last part.

    Raises OutputError.
    """
    if isinstance(detector, ScanModel):
        setup, unit = setup_of_scans(detector), detector.unit_
    else:
        setup, unit = setup_of(detector), unit_of(detector)
    facts = {"setup": setup, "map_unit": unit, **model_facts(model, detector)}
    if detector.healthy_ is not None:
        facts["map_scale"] = _map_scale(detector.healthy_, of_scans=isinstance(detector, ScanModel))
    write_json(out / CARD, {"schema": SCHEMA, **_without_paths(facts)})


def _map_scale(healthy: HealthyStatistics, of_scans: bool) -> dict[str, float]:
    """Ends of the colours in all pictures of the model, and what is outlined; of scans the threshold of single images
    is too low."""
    high, threshold = (healthy.scan_high, healthy.map_high) if of_scans else (healthy.map_high, healthy.threshold)
    return {"low": healthy.map_low, "high": high, "threshold": threshold}


def _worth(model: Path, setup: str) -> dict[str, Any]:
    """On what one way of scoring is calibrated; empty where that cannot be read."""
    try:
        found = read_calibration(model, setup)
    except ModelError:
        return {}
    return found.worth if found else {}


def _without_paths(value: Any) -> Any:
    match value:
        case Mapping():
            return {name: _without_paths(one) for name, one in value.items()}
        case list() | tuple():
            return [_without_paths(one) for one in value]
        case str() if PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute():
            return PureWindowsPath(value).name
        case _:
            return value
