"""Labels as jobs.label writes them, without running it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ser_core.schema import output_schema

LABELS = ("angry", "happy", "sad")
WHEN = pd.Timestamp("2026-01-01", tz="UTC")


def label_rows(paths, scores, labels=LABELS, manifest=None, **columns) -> pa.Table:
    """Rows of ``output_schema``: a recording with finite scores is labelled, another failed.

    Args:
        paths: of the recordings.
        scores: shape (len(paths), len(labels)); NaN where there is no label.
        labels: the classes.
        manifest: its columns, by name.
        columns: that replace the default ones; a single value counts for all rows.
    """
    rows, scores = len(paths), np.asarray(scores, np.float32)
    ok = np.isfinite(scores).all(axis=1)
    best = np.where(ok, scores.argmax(axis=1), 0)
    values = {
        "path": paths,
        "uri": paths,
        "file_id": paths,
        "duration": 1.0,
        "sampling_rate": 16_000,
        "label": [labels[i] if fine else None for i, fine in zip(best, ok, strict=True)],
        "score": np.where(ok, scores.max(axis=1), np.nan),
        **{f"score_{name}": scores[:, i] for i, name in enumerate(labels)},
        "status": ["ok" if fine else "decode_error" for fine in ok],
        "error": [None if fine else "no decoder can read it" for fine in ok],
        "model": "tiny",
        "model_digest": "0",
        "precision": "fp32",
        "labeled_at": WHEN,
        **columns,
        **(manifest or {}),
    }
    own = {name: _array(column, rows).type for name, column in (manifest or {}).items()}
    fields = [*output_schema(labels, pa.schema(list(own.items())))]
    known = {field.name for field in fields}
    fields += [pa.field(n, pa.array(list(c)).type) for n, c in columns.items() if n not in known]
    arrays = [_array(values.get(field.name), rows, field.type) for field in fields]
    return pa.table(arrays, schema=pa.schema(fields))


def _array(values, rows: int, kind: pa.DataType | None = None) -> pa.Array:
    if isinstance(values, pa.Array):
        return values
    if values is None or isinstance(values, str) or np.ndim(values) == 0:
        values = [values] * rows
    values = [None if isinstance(v, float | np.floating) and np.isnan(v) else v for v in values]
    return pa.array(values, kind)


def random_scores(count: int, seed: int = 0, labels=LABELS, sharpness: float = 2.0) -> np.ndarray:
    """Probabilities that differ from row to row, shape (count, len(labels))."""
    logits = sharpness * np.random.default_rng(seed).standard_normal((count, len(labels)))
    exponentials = np.exp(logits)
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def write_labels(folder: Path, *parts: pa.Table) -> Path:
    """Writes an output of so many parts."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, rows in enumerate(parts):
        pq.write_table(rows, folder / f"part-{number:024x}.parquet")
    return folder
