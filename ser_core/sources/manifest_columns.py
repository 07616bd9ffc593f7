"""The columns of a manifest that say where a recording lies: its path, and a stretch of it."""

import math
import reprlib
from textwrap import shorten
from typing import Any, NamedTuple

import pyarrow as pa

from ser_core.errors import CorpusError

PATH_COLUMNS = ("path", "audio_filepath", "wav", "audio", "file")  # in order of preference
_START_COLUMNS = ("offset", "start")  # NeMo's name, and that of everybody else


class Layout(NamedTuple):
    """The names of these columns.

    Attributes:
        path: of the paths.
        start: where stretches begin, s; None if the recordings are whole.
        duration: how long they are, s.
        end: where they end, s, for those without a duration.
    """

    path: str
    start: str | None = None
    duration: str | None = None
    end: str | None = None

    def kept(self, schema: pa.Schema) -> pa.Schema:
        """The other columns, which the output keeps; it has its own column `duration`."""
        used = {*self, "duration"}
        return pa.schema([column for column in schema if column.name not in used])


def layout_of(where: str, schema: pa.Schema, path_column: str | None) -> Layout:
    """Finds them by their names.

    Args:
        where: the place, for messages, as in ``--input calls.csv``.
        schema: its columns.
        path_column: the one with the paths; None looks for the usual names.

    Raises:
        CorpusError: none has paths, or two of them say where a stretch begins.
    """
    found = shorten(", ".join(schema.names), 300, placeholder=" …")
    paths = (path_column,) if path_column else PATH_COLUMNS
    path = next((name for name in paths if name in schema.names), None)
    if path is None:
        wanted = " or ".join(f"`{name}`" for name in paths)
        remedy = "" if path_column else "; --path-column names another"
        raise CorpusError(f"{where}: the manifest has no column {wanted}; it has {found}{remedy}")
    if not _is_text(schema.field(path).type):
        kind = schema.field(path).type
        raise CorpusError(f"{where}: the column `{path}` is not text but {kind}")
    starts = [name for name in _START_COLUMNS if name in schema.names and name != path]
    if len(starts) > 1:
        raise CorpusError(f"{where}: `offset` and `start` both say where a stretch begins")
    if not starts:
        return Layout(path)
    return Layout(path, starts[0], *(n if n in schema.names else None for n in ("duration", "end")))


def text_column(table: pa.Table, name: str) -> pa.ChunkedArray:
    """A column as text.

    Raises:
        pa.ArrowException: it is of another type, or not UTF-8.
    """
    if not _is_text(table[name].type):
        raise pa.ArrowTypeError(f"the column `{name}` is not text but {table[name].type}")
    return table[name].cast(pa.string())


def paths_of(table: pa.Table, layout: Layout, where: str, first: int) -> list[str]:
    """The paths of some rows.

    Args:
        table: the rows.
        layout: of the manifest.
        where: the place, for messages, as in ``--input calls.csv``.
        first: number of the first row.

    Raises:
        CorpusError: a row has none, or one that cannot be.
    """
    names: list[str] = text_column(table, layout.path).to_pylist()
    for row, name in enumerate(names, start=first):
        if not name:
            raise CorpusError(f"{where}: row {row} has no path")
        if "\0" in name:
            reason = f"the path {name!r} contains a NUL character"
            raise CorpusError(f"{where}: row {row}: {reason}")
    return names


def stretches_of(
    table: pa.Table, layout: Layout, where: str, first: int
) -> tuple[list[float | None], list[float | None]]:
    """Where the stretches of some rows begin and how long they are, s; see `paths_of`.

    A row without a start is a whole recording, whatever its duration.

    Raises:
        CorpusError: one of them is no stretch.
    """
    starts, durations, ends = (_seconds(table, name, where, first) for name in layout[1:])
    for index, (start, end) in enumerate(zip(starts, ends, strict=True)):
        if start is None:
            durations[index] = None
        elif end is not None and durations[index] is None:
            if end < start:
                raise CorpusError(f"{where}: row {first + index} ends before it starts")
            durations[index] = end - start
    return starts, durations


def _seconds(table: pa.Table, name: str | None, where: str, first: int) -> list[float | None]:
    """A column of times, as numbers or as text; None where it has none."""
    if name is None:
        return [None] * len(table)
    return [
        None if value is None or value == "" else seconds(value, f"{where}: row {row}: `{name}`")
        for row, value in enumerate(table[name].to_pylist(), start=first)
    ]


def seconds(value: Any, where: str) -> float:
    """A time, given as a number or as text.

    Args:
        value: what a table has.
        where: the place, for messages.

    Raises:
        CorpusError: it is none, or negative.
    """
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number < math.inf:
        raise CorpusError(f"{where}: {reprlib.repr(value)} is not a time in seconds, or negative")
    return number


def _is_text(kind: pa.DataType) -> bool:
    """Whether values are text; some programs write it as bytes, or as a column of nulls."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return kind in (pa.string(), pa.large_string(), pa.binary(), pa.large_binary(), pa.null())
