"""A folder of labels → current rows drawn from it."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ser_core.labeling.current_rows import Labels
from ser_core.labeling.rules import is_ok
from ser_core.schema import score_columns

_TEXTS = ("path", "uri", "file_id", "label", "model", "model_digest", "precision")
_COLUMNS = (*_TEXTS, "start", "end", "channel", "duration", "score")


def origins(labels: Labels) -> pd.DataFrame:
    """What made the current labels: a row for each `model` and `model_digest`, newest first.

    Its columns are these two, ``rows`` and ``newest``.
    """
    keys = ["model", "model_digest"]
    counted = [
        table.filter(is_ok(table["status"]))
        .group_by(keys)
        .aggregate([("labeled_at", "max"), ([], "count_all")])
        for table in labels.current_rows([*keys, "status", "labeled_at"])
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
    random, drawn = np.random.default_rng(seed), _Drawn.none()
    for number, table in enumerate(labels.current_rows(["status", "model_digest"])):
        mask = pc.and_(is_ok(table["status"]), pc.is_in(table["model_digest"], wanted))
        found = np.flatnonzero(mask.to_numpy())
        drawn = drawn.with_part(number, found, random.random(len(found))).first(size)
    rows: list[dict[str, Any]] = _read(labels, drawn).to_pylist()
    return rows


def _read(labels: Labels, drawn: "_Drawn") -> pa.Table:
    """The drawn rows, in their order."""
    columns = [*_COLUMNS, *score_columns(labels.classes)]
    tables, positions = [labels.schema.empty_table().select(columns)], [np.empty(0, np.int64)]
    parts = np.unique(drawn.part).tolist()
    for number, table in zip(parts, labels.current_rows(columns, parts), strict=True):
        (at,) = np.nonzero(drawn.part == number)
        tables.append(table.take(drawn.row[at]))
        positions.append(at)
    return pa.concat_tables(tables).take(np.argsort(np.concatenate(positions)))


@dataclass(frozen=True)
class _Drawn:
    """Current rows with a random number each; those with the smallest ones are the sample."""

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
