"""priorlens: what does not look like the healthy images a diffusion prior was trained on, where, and how surely.

    from priorlens import AnoDODE, find_cases, read_image

    detector = AnoDODE().fit([read_image(case.path) for case in find_cases([Path("healthy")])])
    scores = detector.score([read_image(Path("new.png"))])
    scores.anomaly, scores.anomaly_map

Each name is imported when it is first asked for: `import priorlens` itself loads neither PyTorch nor NumPy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from priorlens.anodode import AnoDODE
    from priorlens.calibrating import calibrate
    from priorlens.datasets import find_cases, healthy_cases, labelled_cases
    from priorlens.errors import PriorlensError
    from priorlens.evaluation import evaluate
    from priorlens.images import read_image
    from priorlens.klip import KLIP
    from priorlens.klip_model import KLIPModel
    from priorlens.scores import Scores
    from priorlens.verdicts import Judge

__version__ = "0.1.0"

__all__ = [
    "KLIP",
    "AnoDODE",
    "Judge",
    "KLIPModel",
    "PriorlensError",
    "Scores",
    "__version__",
    "calibrate",
    "evaluate",
    "find_cases",
    "healthy_cases",
    "labelled_cases",
    "read_image",
]

_HOMES = {
    "AnoDODE": "anodode",
    "Judge": "verdicts",
    "KLIP": "klip",
    "KLIPModel": "klip_model",
    "PriorlensError": "errors",
    "Scores": "scores",
    "calibrate": "calibrating",
    "evaluate": "evaluation",
    "find_cases": "datasets",
    "healthy_cases": "datasets",
    "labelled_cases": "datasets",
    "read_image": "images",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
