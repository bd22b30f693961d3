"""Contests that never were, of made differences: for tests of what is said of them."""

from benchmarks.methods import METHODS
from benchmarks.table_contests import Against, Contest
from benchmarks.table_results import Runs
from priorlens.bootstrap import Estimate


def made_runs(name: str, every: int = 1, settled: bool = True) -> Runs:
    return Runs(METHODS[name], "head_ct", ({"score": {"every": every}, "fit": {"converged": settled}},), ())


def made_against(name: str, low: float, value: float, high: float, *, patients=100, figure=0.5, **more) -> Against:
    """more: as of `made_runs`."""
    return Against(made_runs(name, **more), figure, Estimate(value, low, high), patients)


def made_contest(*against: Against, best="anodode", figure="image_auroc", value=0.6, default=None, **more) -> Contest:
    ordered = tuple(sorted(against, key=lambda one: one.difference.value))
    patients = ordered[0].patients
    return Contest("head_ct", figure, made_runs(best), value, ordered, patients, default, **more)


AHEAD_BUT_UNSURE = made_against("patchcore", -0.12, -0.05, 0.02)
AHEAD_IN_PART = made_against("ddpm_ood", -0.26, -0.07, 0.07, every=8)
BEHIND = made_against("stfpm", 0.02, 0.1, 0.2)
"""Others, seen from ours."""


class Titles:
    """Stands for what was gathered, where only names of studies are asked for."""

    @staticmethod
    def title(study: str) -> str:
        return study
