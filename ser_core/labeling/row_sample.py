"""A random sample of the current rows of an output."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ser_core.labeling.current_rows import Labels


@dataclass(frozen=True)
class RowSample:
    """Current rows that were drawn, in random order.

    Attributes:
        part: number of the part that has the row, shape ``(num_rows,)``.
        row: its place among the current rows of the part, same shape.
    """

    part: np.ndarray
    row: np.ndarray

    def read(self, labels: Labels, columns: Sequence[str]) -> pa.Table:
        """Columns of these rows, in their order; only their parts are read.

        Raises:
            OutputError: a part is damaged.
            RunError: the storage failed.
        """
        tables, positions = [labels.schema.empty_table().select(columns)], [np.empty(0, np.int64)]
        parts = np.unique(self.part).tolist()
        for number, table in zip(parts, labels.current_rows(columns, parts), strict=True):
            (at,) = np.nonzero(self.part == number)
            tables.append(table.take(self.row[at]))
            positions.append(at)
        return pa.concat_tables(tables).take(np.argsort(np.concatenate(positions)))


def draw_rows(
    labels: Labels,
    eligible: Callable[[pa.Table], pa.ChunkedArray],
    by: Sequence[str],
    size: int,
    seed: int,
) -> RowSample:
    """Draws current rows, each eligible one with the same probability.

    Args:
        labels: the output.
        eligible: which rows of a table are meant, as booleans.
        by: the columns of that table.
        size: how many, at most.
        seed: the same one draws the same rows of the same output.

    Raises:
        OutputError: a part is damaged.
        RunError: the storage failed.
    """
    random = np.random.default_rng(seed)
    part, row, number = np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
    for index, table in enumerate(labels.current_rows(by)):
        found = np.flatnonzero(eligible(table).to_numpy())
        part = np.append(part, np.full(len(found), index))
        row = np.append(row, found)
        number = np.append(number, random.random(len(found)))
        smallest = np.argsort(number)[:size]  # the rows with the smallest numbers are the sample
        part, row, number = part[smallest], row[smallest], number[smallest]
    return RowSample(part, row)
