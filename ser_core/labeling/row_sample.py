"""A random sample of the current rows of an output."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ser_core.labeling.current_rows import Labels


@dataclass(frozen=True)
class RowSample:
    """Current rows with a random number each; those with the smallest ones are the sample.

    Attributes:
        part: number of the part that has the row, shape ``(num_rows,)``.
        row: its place among the current rows of the part.
        number: by which they are ordered.
    """

    part: np.ndarray
    row: np.ndarray
    number: np.ndarray

    def read(self, labels: Labels, columns: Sequence[str]) -> pa.Table:
        """Columns of these rows, in random order; only their parts are read.

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

    def _first(self, most: int) -> "RowSample":
        kept: Any = np.argsort(self.number)[:most]
        return RowSample(self.part[kept], self.row[kept], self.number[kept])


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
    random, drawn = np.random.default_rng(seed), [np.empty(0, np.int64)] * 2 + [np.empty(0)]
    sample = RowSample(*drawn)
    for part, table in enumerate(labels.current_rows(by)):
        rows = np.flatnonzero(eligible(table).to_numpy())
        more = (np.full(len(rows), part), rows, random.random(len(rows)))
        pairs = zip((sample.part, sample.row, sample.number), more, strict=True)
        sample = RowSample(*map(np.concatenate, pairs))._first(size)
    return sample
