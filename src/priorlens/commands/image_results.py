"""A scored image as files below a results folder, and as lines of its tables: the same for whoever scores it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from priorlens.acquisition import ACQUISITION, acquisition
from priorlens.commands.doubts import DOUBTS, Doubts
from priorlens.commands.publishing import RemoteFolder
from priorlens.commands.verdict_files import REGIONS, region_columns, region_rows
from priorlens.conformal import verdict_of
from priorlens.datasets import Case
from priorlens.layers import IMAGES, SEGMENTATIONS, TRUTH, write_image, write_labels, write_truth
from priorlens.ledger import Entry
from priorlens.outputs import prepare_folder, write_array
from priorlens.pictures import Called, overlay
from priorlens.result_folder import SCORES
from priorlens.scoring import Described, Failed, Scored
from priorlens.verdicts import Judge, Judgement

MAPS, OVERLAYS = "maps", "overlays"


class ImageResults:
    """Below `out`, of one detector as it is set up.

    judge: gives p-values, and verdicts where it has an alpha. patients: whether the cases' groups are patients' names.
    overlays: whether pictures are written. Every further array of an image goes into a folder of the array's name;
    those that are tables into one, with the file in front of each line. remote: of what address `out` is the copy.
    """

    def __init__(
        self,
        out: Path,
        detector: Described,
        judge: Judge | None,
        *,
        patients: bool,
        overlays: bool,
        doubts: Doubts | None = None,
        remote: RemoteFolder | None = None,
    ) -> None:
        self.out, self.detector, self.judge = out, detector, judge
        self.patients, self.overlays, self.doubts, self.remote = patients, overlays, doubts, remote

    def into(self, out: Path) -> ImageResults:
        """The same below another folder."""
        return ImageResults(
            out, self.detector, self.judge, patients=self.patients, overlays=self.overlays, doubts=self.doubts
        )

    @property
    def tables(self) -> dict[str, Sequence[str]]:
        """The columns of each table, by the name of its file."""
        header = ["file", *self._columns, *self._figures, "nfe", "seconds", "error"]
        tables: dict[str, Sequence[str]] = {SCORES: header}
        tables |= {f"{name}.csv": ["file", *columns] for name, columns in self.detector.tables_.items()}
        if self.judge and self.judge.alpha is not None:
            tables[REGIONS] = region_columns(self.judge)
        return tables

    def judgement(self, result: Scored | Failed) -> Judgement | None:
        if isinstance(result, Failed) or self.judge is None:
            return None
        return self.judge.judge(result.anomaly, result.anomaly_map)

    def entry(self, result: Scored | Failed, judgement: Judgement | None) -> Entry:
        """Write the files of an image; its lines. Raises OutputError."""
        name, stamp = result.case.name, result.stamp
        if isinstance(result, Failed):
            rows = {SCORES: [self._row(result, None)]}
            return Entry(name, rows, stamp, result.reason, result.passing)
        written = self._write(result, judgement)
        if self.remote:
            self.remote.send(written)
        file = result.case.file
        lines: dict[str, Sequence[Sequence[object]]] = {SCORES: [self._row(result, judgement)]}
        for table in self.detector.tables_:
            lines[f"{table}.csv"] = [(file, *map(np.float32, line)) for line in result.arrays[table]]
        if judgement and REGIONS in self.tables:
            lines[REGIONS] = region_rows(file, judgement.regions)
        if judgement and self.doubts:
            lines[DOUBTS] = self.doubts.of(result)
        rows = {table: [[str(cell) for cell in line] for line in found] for table, found in lines.items()}
        return Entry(name, rows, stamp, content=result.content)

    def _write(self, scored: Scored, judgement: Judgement | None) -> list[Path]:
        """Maps and further arrays; regions, where some stand out; with `overlays` pictures."""
        name = scored.case.name
        further = {table: array for table, array in scored.arrays.items() if table not in self.detector.tables_}
        written = []
        for folder, array in {MAPS: scored.anomaly_map, **further}.items():
            path = self.out / folder / f"{name}.npy"
            prepare_folder(path.parent, overwrite=True)
            write_array(path, array)
            written.append(path)
        if judgement and judgement.regions:
            written.append(self.out / SEGMENTATIONS / f"{name}.png")
            write_labels(written[-1], judgement.labels)
        if self.overlays:
            written.append(self.out / OVERLAYS / f"{name}.png")
            self._write_overlay(written[-1], scored, judgement)
            written.append(self.out / IMAGES / f"{name}.png")
            write_image(written[-1], scored.image.pixels)
            if scored.mask is not None:
                written.append(self.out / TRUTH / f"{name}.png")
                write_truth(written[-1], scored.mask)
        return written

    def _write_overlay(self, path: Path, scored: Scored, judgement: Judgement | None) -> None:
        prepare_folder(path.parent, overwrite=True)
        healthy = self.detector.healthy_  # where nothing is known of it, the picture shows what stands out in itself
        called = None
        if self.judge and judgement:
            regions = None if self.judge.alpha is None else judgement.labels > 0
            called = Called(judgement.p_value, regions, self.judge.alpha)
        overlay(
            scored.image.pixels,
            scored.anomaly_map,
            path,
            name=scored.case.name,
            anomaly=scored.anomaly,
            low=healthy.map_low if healthy else None,
            high=healthy.map_high if healthy else None,
            threshold=healthy.threshold if healthy else None,
            truth=scored.mask,
            called=called,
        )

    @property
    def _columns(self) -> list[str]:
        """Of the table, between file and figures."""
        verdict = ["p_value", *(["verdict", "regions"] if self.judge.alpha is not None else [])] if self.judge else []
        return [*(["patient"] if self.patients else []), "anomaly", *verdict]

    @property
    def _figures(self) -> tuple[str, ...]:
        return (*self.detector.figure_names_, *ACQUISITION)

    def _said(self, case: Case, judgement: Judgement | None) -> dict[str, str]:
        """What these columns say, but for the anomaly."""
        found = {"patient": case.group}
        if self.judge and judgement:
            alpha = self.judge.alpha
            verdict = "" if alpha is None else verdict_of(judgement.p_value, alpha)
            found |= {"p_value": f"{judgement.p_value:.6g}", "verdict": verdict, "regions": str(len(judgement.regions))}
        return {name: found.get(name, "") for name in self._columns}

    def _row(self, result: Scored | Failed, judgement: Judgement | None) -> list[str]:
        """A line, its figures with as many digits as float32 has; a figure that is not defined is left out."""
        file, said = result.case.file, self._said(result.case, judgement)
        if isinstance(result, Failed):
            return [file, *said.values(), *[""] * (len(self._figures) + 2), result.reason]
        known: Mapping[str, float] = {**result.figures, **acquisition(result.image)}
        anomaly, *figures = (_shown(value) for value in (result.anomaly, *(known[name] for name in self._figures)))
        return [file, *{**said, "anomaly": anomaly}.values(), *figures, str(result.nfe), f"{result.seconds:.4f}", ""]


def _shown(value: float) -> str:
    return "" if math.isnan(value) else str(np.float32(value))
