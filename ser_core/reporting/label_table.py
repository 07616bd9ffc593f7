"""Labels → tables of a temporary DuckDB database, in which reports are computed."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from ser_core.errors import UsageError
from ser_core.labeling.current_rows import Labels
from ser_core.schema import EMBEDDING, EMBEDDING_SIZE, score_columns

if TYPE_CHECKING:
    import duckdb

_MEMORY = "1GB"  # of DuckDB, which sorts and groups on disk beyond it
_NOT_REPORTED = ("file_id", EMBEDDING_SIZE, EMBEDDING)
_MOST_VALUES = 1000  # of a column by which a corpus is sliced
_LONGEST_VALUE = 200  # characters
FOLDER = "folder"  # a slice that every corpus has: where its recordings lie


@dataclass(frozen=True)
class LabelTable:
    """The current rows of one or two outputs.

    Beside the output's columns it has `seconds`, the audio that a row stands for, and `margin` and
    `entropy` (see `uncertainty`). A manifest's columns are there as far as they divide the corpus.

    Attributes:
        connection: to the database.
        name: of the table or view.
        classes: the model's classes.
        columns: that it has.
        divisors: what has few enough values to divide a corpus, as columns of the manifest or
            `FOLDER`, and the column that has its values as texts.
        slices: those that divide this one: they have several values, with a few rows each.
    """

    connection: "duckdb.DuckDBPyConnection"
    name: str
    classes: tuple[str, ...]
    columns: tuple[str, ...]
    divisors: dict[str, str]
    slices: tuple[str, ...] = ()

    def frame(self, query: str, *values: Any) -> pd.DataFrame:
        """The result of a query.

        Args:
            query: SQL, in which ``{rows}`` is this table.
            values: of its parameters, each a ``?``.
        """
        result = self.connection.execute(query.replace("{rows}", self.name), list(values))
        frame: pd.DataFrame = result.df()
        return frame

    def record(self, query: str, *values: Any) -> dict[str, Any]:
        """The only row of a query's result."""
        result = self.connection.execute(query.replace("{rows}", self.name), list(values))
        names = [column[0] for column in result.description]
        (row,) = result.fetchall()
        return dict(zip(names, row, strict=True))

    @property
    def num_rows(self) -> int:
        """How many rows it has."""
        return int(self.record("select count(*) as n from {rows}")["n"])

    def where(self, condition: str, name: str) -> "LabelTable":
        """The rows for which a condition holds, as a view."""
        query = f"create view {name} as select * from {self.name} where {condition}"
        self.connection.execute(query)
        return replace(self, name=name)

    def has(self, column: str) -> bool:
        """Whether it has this column, and a value in it."""
        query = f"select count({quoted(column)}) as n from {{rows}}"
        return column in self.columns and bool(self.record(query)["n"])


@contextmanager
def database() -> Iterator["duckdb.DuckDBPyConnection"]:
    """A database in a temporary folder, so that ten million rows need little memory."""
    import duckdb  # an optional library: see libraries.py

    with (
        tempfile.TemporaryDirectory(prefix="ser-batch-report-") as folder,
        duckdb.connect(str(Path(folder) / "labels.duckdb")) as connection,
    ):
        connection.execute(f"set memory_limit = '{_MEMORY}'")
        connection.execute(f"set temp_directory = '{folder}/spilled'")
        connection.execute("set enable_progress_bar = false")
        connection.execute("set TimeZone = 'UTC'")
        yield connection


def load(
    connection: "duckdb.DuckDBPyConnection",
    labels: Labels,
    name: str,
    slice_by: Sequence[str] = (),
) -> LabelTable:
    """Reads the current rows of an output into a table.

    Args:
        connection: to the database.
        labels: the output.
        name: of the table.
        slice_by: the columns that divide the corpus; by default those that can.

    Raises:
        UsageError: a column of ``slice_by`` has too many values, or lists.
    """
    ours = [n for n in labels.schema.names if n not in (*labels.manifest, *_NOT_REPORTED)]
    divisors = _divisors(labels, slice_by)
    columns = list(dict.fromkeys([*ours, *(n for n in divisors if n in labels.schema.names)]))

    def converted(rows: pa.Table) -> pa.Table:
        slices = {at: _as_text(_divisor(rows, n)) for n, at in divisors.items()}
        return _with_columns(rows.select(ours), _derived(rows, labels.classes) | slices)

    batches = (b for rows in labels.current_rows(columns) for b in converted(rows).to_batches())
    empty = converted(labels.schema.empty_table().select(columns))
    connection.register("reading", pa.RecordBatchReader.from_batches(empty.schema, batches))
    connection.execute(f"create table {name} as select * from reading")
    connection.unregister("reading")
    table = LabelTable(connection, name, labels.classes, tuple(empty.schema.names), divisors)
    return _divided(table, slice_by)


def _divisors(labels: Labels, slice_by: Sequence[str]) -> dict[str, str]:
    """The columns that may divide a corpus, and what they are called in the database.

    There they have names of ours: a manifest's may be any, and SQL ignores their case.
    """
    own = [n for n in labels.manifest if _can_slice(labels.schema.field(n).type)]
    names = slice_by or dict.fromkeys([FOLDER, *own, "sampling_rate", "channel"])
    known = [name for name in names if name in (FOLDER, *labels.schema.names)]
    for name in set(known) & set(labels.schema.names):
        if types.is_nested(kind := labels.schema.field(name).type) or types.is_binary(kind):
            raise UsageError(f"--slice-by {name}: its values ({kind}) do not divide a corpus")
    return {name: f"slice_{number}" for number, name in enumerate(known)}


def _can_slice(kind: pa.DataType) -> bool:
    tests = (types.is_string, types.is_large_string, types.is_boolean, types.is_integer)
    return any(test(kind) for test in (*tests, types.is_date, types.is_timestamp))


def _divisor(rows: pa.Table, name: str) -> pa.ChunkedArray:
    if name == FOLDER and FOLDER not in rows.column_names:
        return pc.replace_substring_regex(rows["path"], "(^|/)[^/]*(::.*)?$", "")
    return rows[name]


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The values of a column that divides the corpus; times count by their day."""
    if types.is_timestamp(column.type):
        return pc.strftime(column, "%Y-%m-%d")
    return pc.utf8_slice_codeunits(column.cast(pa.string()), 0, _LONGEST_VALUE)


def _divided(table: LabelTable, slice_by: Sequence[str]) -> LabelTable:
    """The table with those divisors that have not too many values, and its slices."""
    values = _numbers_of_values(table)
    for name in slice_by:
        if values.get(name, 0) > _MOST_VALUES:
            raise UsageError(f"--slice-by {name}: it has more than {_MOST_VALUES:,} values")
    few = {name: at for name, at in table.divisors.items() if values[name] <= _MOST_VALUES}
    most = max(2, table.num_rows // 2)
    useful = tuple(slice_by) or tuple(name for name in few if 1 < values[name] <= most)
    return replace(table, divisors=few, slices=tuple(name for name in useful if name in few))


def _numbers_of_values(table: LabelTable) -> dict[str, int]:
    """How many values each divisor has, exactly if they are about `_MOST_VALUES` or fewer."""
    if not table.divisors:
        return {}
    counts = ", ".join(f"approx_count_distinct({at}) as {at}" for at in table.divisors.values())
    about = table.record(f"select {counts} from {{rows}}")

    def number(at: str) -> int:  # a column at a time: exact counts hold all of its values
        if about[at] >= 1.5 * _MOST_VALUES:
            return int(about[at])
        return int(table.record(f"select count(distinct {at}) as n from {{rows}}")["n"])

    return {name: number(at) for name, at in table.divisors.items()}


def quoted(name: str) -> str:
    """A column's name in SQL.

    >>> quoted("speaker")
    '"speaker"'
    """
    return '"' + name.replace('"', '""') + '"'


def _derived(rows: pa.Table, classes: Sequence[str]) -> dict[str, Any]:
    # A stretch without an end reaches to that of its file.
    open_end = pc.and_(rows["start"].is_valid(), rows["end"].is_null())
    end = pc.if_else(open_end, rows["duration"], rows["end"])
    stretch = pc.subtract(end, rows["start"])
    seconds = pc.if_else(rows["start"].is_valid(), stretch, rows["duration"])
    scores = np.empty((len(rows), len(classes)), np.float32)
    for number, name in enumerate(score_columns(classes)):
        scores[:, number] = np.nan_to_num(rows[name].to_numpy())
    margin, entropy = uncertainty(scores)
    unlabeled = rows["label"].is_null().to_numpy()
    return {
        "end": end,
        "seconds": seconds,
        "margin": pa.array(margin, mask=unlabeled),
        "entropy": pa.array(entropy, mask=unlabeled),
    }


def _with_columns(rows: pa.Table, columns: dict[str, Any]) -> pa.Table:
    """The rows with these columns, instead of those that they have of the same name."""
    own = {name: rows[name] for name in rows.column_names}
    return pa.table(own | columns)


def uncertainty(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How sure a model is of each label.

    Args:
        scores: probabilities, shape ``(num_rows, num_classes)``.

    Returns:
        The margin, which is the highest score less the second highest, and the entropy of the
        scores divided by that of equal scores: 0 where one class has it all, 1 where the model
        does not know. Both of shape ``(num_rows,)``.

    >>> margin, entropy = uncertainty(np.array([[0.5, 0.5], [1.0, 0.0]]))
    >>> margin.tolist(), entropy.tolist()
    ([0.0, 1.0], [1.0, 0.0])
    """
    num_classes = scores.shape[1]
    if num_classes < 2:
        return np.ones(len(scores), np.float32), np.zeros(len(scores), np.float32)
    highest = np.partition(scores, num_classes - 2, axis=1)
    margin = highest[:, -1] - highest[:, -2]
    logs = np.log(np.where(scores > 0, scores, 1))
    entropy = (0.0 - (scores * logs).sum(axis=1)) / np.log(num_classes)
    return margin, np.clip(entropy, 0, 1)


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """A table's rows, with None for what is missing."""
    plain = frame.astype(object)
    rows = plain.where(plain.notna(), None).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


def since(moment: datetime) -> str:
    """SQL for the rows that were made at a time or later."""
    return f"labeled_at >= timestamptz '{moment.isoformat()}'"
