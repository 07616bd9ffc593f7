"""Labelled segments → the rows of their recordings; a recording's rows are written together."""

from collections import defaultdict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ser_core.errors import Status
from ser_core.labeling.embeddings import embedding_column, embedding_matrix
from ser_core.models.outputs import as_float16
from ser_core.schema import (
    DECODED,
    DURATION,
    EMBEDDING,
    INDEX,
    NUM_ROWS,
    SEGMENT,
    START,
    score_columns,
)
from ser_core.settings import Rows

_START, _END, _CHANNEL = (field.name for field in SEGMENT)


class Assembly:
    """Collects the rows of recordings, whose blocks come in any order, until all are there."""

    def __init__(self) -> None:
        self._rows: defaultdict[int, list[pa.Table]] = defaultdict(list)
        self._missing: defaultdict[int, int] = defaultdict(int)

    def add(self, labeled: pa.Table) -> pa.Table:
        """Takes rows of ``labeled_schema`` and returns those of recordings that are complete."""
        alone = pc.equal(labeled[NUM_ROWS.name], 1).fill_null(False)
        complete = [labeled.filter(alone)]
        rest = labeled.filter(pc.invert(alone))
        indices = rest[INDEX.name].to_numpy()
        for index in np.unique(indices):
            rows = rest.filter(pa.array(indices == index))
            self._rows[index].append(rows)
            # Negative until the last row says how many there are.
            self._missing[index] += (pc.sum(rows[NUM_ROWS.name]).as_py() or 0) - len(rows)
            if not self._missing[index]:
                complete += self._rows.pop(index)
                del self._missing[index]
        return pa.concat_tables(complete)


def assembled_rows(labeled: pa.Table, labels: tuple[str, ...], rows: Rows) -> pa.Table:
    """The rows that the output gets for recordings that are complete.

    Args:
        labeled: of ``labeled_schema``.
        labels: the classes.
        rows: one for each recording, or for each channel of it, with the mean of the segments'
            scores and embeddings weighted by their length; or one for each segment. A recording
            without a label has one row.

    Returns:
        Of ``labeled_schema``, ordered by recording, channel and start.
    """
    keys = (labeled[name].to_numpy() for name in (_START, _CHANNEL, INDEX.name))
    labeled = labeled.take(np.lexsort([np.nan_to_num(key, nan=-1.0) for key in keys]))
    last = labeled.filter(labeled[NUM_ROWS.name].is_valid())
    last = last.take(pc.sort_indices(last[INDEX.name]))
    index, ok = last[INDEX.name].to_numpy(), pc.equal(last["status"], Status.OK).to_numpy()
    scored = labeled.filter(
        pc.and_(pc.is_in(labeled[INDEX.name], pa.array(index[ok])), labeled["precision"].is_valid())
    )
    if rows == "recording":
        scored = _means(scored, labels)
    of_recording = last.take(np.searchsorted(index, scored[INDEX.name].to_numpy()))
    for name in (*(field.name for field in DECODED), "status", "error"):
        scored = _replaced(scored, name, of_recording[name])
    unscored = last.filter(pa.array(~np.isin(index, scored[INDEX.name].to_numpy())))
    return pa.concat_tables([scored, _without_segment(unscored)])


def _means(scored: pa.Table, labels: tuple[str, ...]) -> pa.Table:
    """One row for each recording and channel."""
    if not len(scored):
        return scored
    channel = np.nan_to_num(scored[_CHANNEL].to_numpy(), nan=-1.0)
    group = np.stack([scored[INDEX.name].to_numpy(), channel])
    firsts = np.flatnonzero(np.any(np.diff(group, axis=1, prepend=np.nan), axis=0))
    weights = scored[_END].to_numpy() - scored[_START].to_numpy()
    means = _without_segment(scored.take(firsts), keep_channel=True)

    def mean(values: np.ndarray) -> np.ndarray:
        """Over each group, shape ``(num_groups, …)``, of values of shape ``(…, num_rows)``."""
        sums = np.add.reduceat(weights * values, firsts, axis=-1)
        return np.asarray(sums / np.add.reduceat(weights, firsts)).T

    for name in score_columns(labels):
        column = pa.array(mean(scored[name].to_numpy()).astype(np.float32))
        means = _replaced(means, name, column)
    if EMBEDDING in means.column_names:
        embeddings = as_float16(mean(embedding_matrix(scored[EMBEDDING]).T))
        column = embedding_column(embeddings, np.ones(len(means), bool))
        means = _replaced(means, EMBEDDING, column)
    return means


def _without_segment(rows: pa.Table, keep_channel: bool = False) -> pa.Table:
    """Rows of whole recordings, or of the stretches that a manifest gave."""
    end = pc.add(rows[START.name], rows[DURATION.name])
    rows = _replaced(_replaced(rows, _START, rows[START.name]), _END, end)
    if keep_channel:
        return rows
    return _replaced(rows, _CHANNEL, pa.nulls(len(rows), rows[_CHANNEL].type))


def _replaced(rows: pa.Table, name: str, column: pa.Array | pa.ChunkedArray) -> pa.Table:
    return rows.set_column(rows.column_names.index(name), rows.schema.field(name), column)
