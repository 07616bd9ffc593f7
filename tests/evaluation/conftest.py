"""Labels as jobs.label writes them, without running it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ser_core.evaluation import metrics
from ser_core.schema import output_schema

LABELS = ("angry", "happy", "sad")
WHEN = pd.Timestamp("2026-01-01", tz="UTC")


def _rows(paths, scores, labeled_at=WHEN, uris=None, model="tiny", **manifest) -> pa.Table:
    """Rows of ``output_schema``: a recording with finite scores is labelled, another failed."""
    rows, scores = len(paths), np.asarray(scores, np.float32)
    ok = np.isfinite(scores).all(axis=1)
    best = np.where(ok, scores.argmax(axis=1), 0)
    columns = {
        "path": paths,
        "uri": paths if uris is None else uris,
        "file_id": paths,
        "duration": [1.0] * rows,
        "sampling_rate": [16_000] * rows,
        "label": [LABELS[i] if fine else None for i, fine in zip(best, ok, strict=True)],
        "score": np.where(ok, scores.max(axis=1), np.nan),
        **{f"score_{name}": scores[:, i] for i, name in enumerate(LABELS)},
        "status": np.where(ok, "ok", "decode_error"),
        "error": [None if fine else "no decoder can read it" for fine in ok],
        "model": [model] * rows,
        "model_digest": ["0"] * rows,
        "precision": ["fp32"] * rows,
        "labeled_at": [labeled_at] * rows,
        **manifest,
    }
    schema = output_schema(LABELS, pa.schema([(name, pa.string()) for name in manifest]))
    return pa.table(
        {f.name: pa.array(list(columns.get(f.name, [None] * rows)), f.type) for f in schema}, schema
    )


@pytest.fixture
def label_rows() -> Callable[..., pa.Table]:
    """Makes rows from paths, scores and columns of a manifest."""
    return _rows


@pytest.fixture
def labels(tmp_path) -> Path:
    """200 recordings of 4 speakers in two parts, 10 without a label; the model is overconfident."""
    random = np.random.default_rng(0)
    logits = random.normal(size=(200, len(LABELS)))
    truth = [LABELS[random.choice(3, p=row)] for row in metrics.at_temperature(logits, 1)]
    scores = metrics.at_temperature(3 * logits, 1)
    scores[:10] = np.nan
    table = _rows(
        [f"/c/{n:03}.wav" for n in range(200)],
        scores,
        truth=truth,
        speaker=[f"s{n % 4}" for n in range(200)],
        split=["validation" if n % 2 else "test" for n in range(200)],
    )
    folder = tmp_path / "labels"
    folder.mkdir()
    pq.write_table(table.slice(0, 90), folder / "part-a.parquet")
    pq.write_table(table.slice(90), folder / "part-b.parquet")
    for reports in ("_runs", "__runs"):
        (folder / reports).mkdir()
        (folder / reports / "x.json").write_text("{}")
    for leftover in (".part-c.parquet.0.tmp", "._part-a.parquet"):  # a killed writer's, macOS's
        (folder / leftover).write_bytes(b"not a part")
    return folder
