"""A folder of labels → current rows drawn from it."""

from collections.abc import Collection
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ser_core.labeling.current_rows import Labels
from ser_core.labeling.row_sample import draw_rows
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

    Args:
        labels: the folder.
        digests: of the models whose rows are drawn.
        size: how many, at most.
        seed: the same one draws the same rows of the same folder.
    """
    wanted = pa.array(sorted(digests), pa.string())

    def eligible(rows: pa.Table) -> pa.ChunkedArray:
        return pc.and_(is_ok(rows["status"]), pc.is_in(rows["model_digest"], wanted))

    columns = [*_COLUMNS, *score_columns(labels.classes)]
    drawn = draw_rows(labels, eligible, ["status", "model_digest"], size, seed)
    rows: list[dict[str, Any]] = drawn.read(labels, columns).to_pylist()
    return rows
