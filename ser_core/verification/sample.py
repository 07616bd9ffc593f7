"""A folder of labels → rows drawn from it, in memory that does not grow with the folder."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ser_core.errors import FINAL, Status
from ser_core.labeling.current_rows import Labels
from ser_core.labeling.rules import superseded
from ser_core.schema import score_columns

# Rows drawn for each that is wanted. Some may have been superseded, in the folder of a run that did
# not complete; in other folders none has.
_CANDIDATES = 4
_TEXTS = ("path", "uri", "file_id", "label", "model", "model_digest", "precision")
_COLUMNS = (*_TEXTS, "start", "end", "channel", "duration", "score")


def origins(labels: Labels) -> pd.DataFrame:
    """What made the labels: a row for each `model` and `model_digest`, the newest one first.

    Its columns are these two, ``rows`` and ``newest``.
    """
    keys = ["model", "model_digest"]
    counted = [
        table.filter(_is_ok(table))
        .group_by(keys)
        .aggregate([("labeled_at", "max"), ([], "count_all")])
        for table in labels.all_rows([*keys, "status", "labeled_at"])
    ]
    by_part = pa.concat_tables(counted).to_pandas()
    by_origin = by_part.groupby(keys).agg(
        rows=("count_all", "sum"), newest=("labeled_at_max", "max")
    )
    newest_first: pd.DataFrame = by_origin.reset_index().sort_values(
        "newest", ascending=False, ignore_index=True
    )
    return newest_first


def draw(labels: Labels, digests: Collection[str], size: int, seed: int) -> list[dict[str, Any]]:
    """Draws current rows with a label, each with the same probability.

    `uri` is the path in rows of release 0.1, which had none.

    Args:
        labels: the folder.
        digests: of the models whose rows are drawn.
        size: how many, at most.
        seed: the same one draws the same rows of the same folder.
    """
    wanted = pa.array(sorted(digests), pa.string())
    random, most = np.random.default_rng(seed), _CANDIDATES * size
    drawn = _Drawn.none()
    for number, table in enumerate(labels.all_rows(["status", "model_digest"])):
        mask = pc.and_(_is_ok(table), pc.is_in(table["model_digest"], wanted))
        found = np.flatnonzero(mask.to_numpy())
        drawn = drawn.with_part(number, found, random.random(len(found))).first(most)
    table = _read(labels, drawn)
    current = ~_superseded(labels, drawn, table["uri"])
    rows: list[dict[str, Any]] = table.filter(pa.array(current)).slice(0, size).to_pylist()
    return rows


def _read(labels: Labels, drawn: "_Drawn") -> pa.Table:
    """The drawn rows, in their order."""
    columns = [*_COLUMNS, *score_columns(labels.classes)]
    empty = labels.schema.empty_table().select(columns)
    tables, positions = [empty], [np.empty(0, np.int64)]
    for number in np.unique(drawn.part):
        (at,) = np.nonzero(drawn.part == number)
        tables.append(labels.parts[number].read(labels.schema, columns).take(drawn.row[at]))
        positions.append(at)
    table = pa.concat_tables(tables).take(np.argsort(np.concatenate(positions)))
    identity = pc.coalesce(table["uri"], table["path"])
    return table.set_column(table.column_names.index("uri"), "uri", identity)


def _superseded(labels: Labels, drawn: "_Drawn", identities: pa.ChunkedArray) -> np.ndarray:
    """Which of the drawn rows are not current, after a look at all rows of their recordings."""
    columns = ["uri", "path", "start", "channel", "status", "labeled_at"]
    found, wanted = [], pc.unique(identities)
    for number, table in enumerate(labels.all_rows(columns)):
        identity = pc.coalesce(table["uri"], table["path"])
        rows = np.flatnonzero(pc.is_in(identity, wanted).to_numpy())
        frame = table.take(rows).to_pandas()
        identity = identity.take(rows).to_pandas()
        found.append(frame.assign(identity=identity, part=number, row=rows))
    rows_of_these = pd.concat(found, ignore_index=True)
    segments = rows_of_these.groupby(["start", "channel"], dropna=False).ngroup()
    stale = superseded(
        pd.factorize(rows_of_these["identity"])[0],
        segments.to_numpy(),
        rows_of_these["status"].isin(FINAL).to_numpy(),
        rows_of_these["labeled_at"].to_numpy(),
    )
    places = pd.MultiIndex.from_frame(rows_of_these[["part", "row"]])
    at = places.get_indexer(pd.MultiIndex.from_arrays([drawn.part, drawn.row]))
    mask: np.ndarray = stale[at]
    return mask


@dataclass(frozen=True)
class _Drawn:
    """Rows with a random number each; those with the smallest ones are the sample."""

    part: np.ndarray
    row: np.ndarray
    number: np.ndarray

    @classmethod
    def none(cls) -> "_Drawn":
        return cls(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))

    def with_part(self, part: int, rows: np.ndarray, numbers: np.ndarray) -> "_Drawn":
        parts = np.full(len(rows), part)
        pairs = ((self.part, parts), (self.row, rows), (self.number, numbers))
        return _Drawn(*map(np.concatenate, pairs))

    def first(self, most: int) -> "_Drawn":
        kept: Any = np.argsort(self.number)[:most]
        return _Drawn(self.part[kept], self.row[kept], self.number[kept])


def _is_ok(table: pa.Table) -> pa.ChunkedArray:
    return pc.equal(table["status"], Status.OK).fill_null(False)
