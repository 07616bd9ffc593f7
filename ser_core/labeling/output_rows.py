"""Labelled rows → the rows of the output: label, score, origin, time; it knows no Ray, no audio."""

from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ser_core.errors import CheckpointError, Status
from ser_core.labeling.stages import StageSettings
from ser_core.schema import DEVICE, EMBEDDING, EMBEDDING_SIZE, in_schema, score_columns

LOW_SCORE = "low_score"  # a word of the column `quality`
_FEW_NOT_FINITE = 8  # of a block: more of them, and more than half, are the model's fault


def output_rows(
    labeled: pa.Table,
    settings: StageSettings,
    schema: pa.Schema,
    origin: dict[str, str],
    labeled_at: datetime,
) -> pa.Table:
    """Labelled rows as the output has them: label, score, origin and time are added.

    Args:
        labeled: of ``labeled_schema``, a row per row of the output: see ``assembly.py``.
        settings: of the run.
        schema: of the output.
        origin: its columns `model` and `model_digest`.
        labeled_at: the time of these rows.

    Raises:
        CheckpointError: most scores are not finite, which no bad recording causes.
    """
    columns = {name: labeled[name] for name in labeled.column_names if name in schema.names}
    scores = np.stack([labeled[n].to_numpy() for n in score_columns(settings.labels)], axis=1)
    scored = pc.equal(labeled["status"], Status.OK).to_numpy()
    ok = scored & np.isfinite(scores).all(axis=1)
    failed = scored & ~ok
    if failed.any():
        if failed.sum() > max(_FEW_NOT_FINITE, scored.sum() / 2):
            raise not_finite(labeled[DEVICE.name].drop_null()[0].as_py())
        columns |= _not_finite_columns(columns, settings, failed)
    best = np.where(ok, scores.argmax(axis=1), 0)
    score = scores[np.arange(len(scores)), best]
    if settings.min_score is not None:
        low = pa.array(ok & (score < settings.min_score))
        columns["quality"] = _with_low_score(columns["quality"], low)
    if settings.embedding_size is not None:
        size = np.full(len(labeled), settings.embedding_size, np.int32)
        columns[EMBEDDING_SIZE] = pa.array(size, mask=~ok)
    columns["label"] = pa.array(np.asarray(settings.labels)[best], mask=~ok)
    columns["score"] = pa.array(score, mask=~ok)
    columns["labeled_at"] = pa.array([labeled_at] * len(labeled))
    for name, value in origin.items():
        columns[name] = pa.array([value] * len(labeled))
    return in_schema(columns, schema)


def _with_low_score(quality: pa.ChunkedArray, low: pa.Array) -> pa.ChunkedArray:
    """The words of each row, with one more at their end where the score is low."""
    more = pc.utf8_ltrim_whitespace(pc.binary_join_element_wise(quality, LOW_SCORE, " "))
    return pc.if_else(low, more, quality)


def not_finite(description: str) -> CheckpointError:
    """What to raise when a model's scores are not finite on a device, in a precision."""
    remedy = "try precision fp32; if that fails too, the checkpoint is broken"
    return CheckpointError(f"the model's scores are not finite numbers ({description}); {remedy}")


def _not_finite_columns(
    columns: dict[str, Any], settings: StageSettings, failed: np.ndarray
) -> dict[str, Any]:
    """Status, error and outputs, changed where one recording's scores are not finite."""
    mask = pa.array(failed)
    changed = {
        "status": Status.NOT_FINITE.value,
        "error": "the scores are not finite numbers",
        **dict.fromkeys(score_columns(settings.labels)),
        **({} if settings.embedding_size is None else {EMBEDDING: None}),
    }
    return {name: pc.if_else(mask, value, columns[name]) for name, value in changed.items()}
