"""Tables of a run as Parquet data sets, for programs that read many lines: `tables/<name>/part-00000.parquet`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

from priorlens.errors import OutputError
from priorlens.outputs import atomic_write, prepare_folder

TABLES = "tables"
WRITTEN = ("scores", "regions", "spectrum", "slices")
LINES = 50_000
"""In one part, at most."""

_TEXT = ("file", "name", "patient", "verdict", "unit", "error")
_WHOLE = ("region", "regions", "slice", "slices", "highest_slice", "nfe")


def discard_parquet(out: Path) -> None:
    """What an earlier run wrote, lest it be taken for a result of this one."""
    for name in WRITTEN:
        shutil.rmtree(out / TABLES / name, ignore_errors=True)


def write_parquet(folder: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """One data set, whole or not at all, in parts of `LINES` lines: numbers as float32 or int64, an empty cell as null.

    Names that are not valid UTF-8, which Parquet does not take, are written with a mark in place of what is not.

    Raises OutputError.
    """
    import pyarrow
    from pyarrow import parquet

    kinds = [_kind(name) for name in header]
    types = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float32()}
    schema = pyarrow.schema([(name, types[kind]) for name, kind in zip(header, kinds, strict=True)])
    unfinished = prepare_folder(folder.with_name(f".{folder.name}.{os.getpid()}.partial"), overwrite=True)
    try:
        for number, lines in enumerate(_parts(iter(rows))):
            columns = zip(*lines, strict=True) if lines else ([] for _ in header)
            cells = [[_cell(kind, cell) for cell in column] for kind, column in zip(kinds, columns, strict=True)]
            table = pyarrow.Table.from_arrays(
                [pyarrow.array(column, one.type) for column, one in zip(cells, schema, strict=True)], schema=schema
            )
            with atomic_write(unfinished / f"part-{number:05d}.parquet") as file:
                parquet.write_table(table, file)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(unfinished, folder)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror}); choose another output folder") from error
    finally:
        with suppress(OSError):
            shutil.rmtree(unfinished)


def write_data_sets(
    out: Path, tables: Mapping[str, Sequence[str]], lines: Callable[[str], Iterable[Sequence[str]]]
) -> None:
    """Those of the tables that programs read. lines: of a table, by the name of its file. Raises OutputError."""
    for name in WRITTEN:
        if (file := f"{name}.csv") in tables:
            prepare_folder(out / TABLES, overwrite=True)
            write_parquet(out / TABLES / name, tables[file], lines(file))


def _parts(rows: Iterator[Sequence[str]]) -> Iterator[Sequence[Sequence[str]]]:
    """At least one, which may be empty."""
    lines = list(islice(rows, LINES))
    while True:
        yield lines
        if not (lines := list(islice(rows, LINES))):
            return


def _kind(name: str) -> type:
    return str if name in _TEXT else int if name in _WHOLE else float


def _cell(kind: type, text: str) -> object:
    if kind is str:
        return text.encode(errors="surrogateescape").decode(errors="replace")
    return kind(text) if text else None
