"""What happens to a block of recordings, a table in and a table out at each stage; it knows no Ray.

::

    planned ── decode_block ──▶ decoded ── classify_block ──▶ labeled ── output_rows ──▶ a part
"""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ser_core.audio.constants import FULL_SCALE
from ser_core.audio.decode import decode
from ser_core.errors import RecordingError, RunError, Status
from ser_core.schema import (
    BUG,
    CLASSIFY_STAGES,
    DECODE_STAGES,
    DEVICE,
    MEMBER,
    SAMPLE_TYPE,
    SIZE,
    WAVEFORM,
    decoded_schema,
    labeled_schema,
    score_columns,
    stage_seconds,
)
from ser_core.settings import Segments
from ser_core.sources.forms import open_recording
from ser_core.sources.recording import Recording, recordings_of
from ser_core.storage.reading import Stopwatch

_CONCURRENT_READS = 4  # per block: one recording's bytes arrive while another is decoded


class Scorer(Protocol):
    """What classifies: `ser_core.models.classifier.Classifier`, without importing torch."""

    transfer_seconds: float
    precision: str

    @property
    def description(self) -> str:
        """The device and the precision."""

    def scores(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Shape ``(len(waveforms), num_labels)``."""


@dataclass(frozen=True)
class StageSettings:
    """What all blocks of a run have in common.

    Attributes:
        segments: what the model gets of a recording, its first 6 s or all of it.
        labels: the checkpoint's classes.
        manifest: the manifest's own columns.
    """

    segments: Segments
    labels: tuple[str, ...]
    manifest: pa.Schema


# ---- decode --------------------------------------------------------------------------------------


def decode_block(planned: pa.Table, settings: StageSettings) -> pa.Table:
    """Decodes a block of the plan.

    Args:
        planned: of ``plan_schema``.
        settings: of the run.

    Returns:
        Of ``decoded_schema``: a waveform for each recording, or the reason why there is none.
    """
    whole = settings.segments == "all"
    with ThreadPoolExecutor(_CONCURRENT_READS) as pool:
        rows = list(pool.map(partial(decode_recording, whole=whole), recordings_of(planned)))
    decoded = {name: [row[name] for row in rows] for name in rows[0]}
    return _in_schema(_listed_columns(planned) | decoded, decoded_schema(settings.manifest))


def decode_recording(recording: Recording, whole: bool) -> dict[str, Any]:
    """The decoded columns of one recording, whatever its bytes are.

    Args:
        recording: what to decode.
        whole: decode all of it rather than its first 6 s.
    """
    started, stopwatch = time.perf_counter(), Stopwatch()
    row: dict[str, Any] = {
        "duration": None,
        "sampling_rate": None,
        "status": Status.OK.value,
        "error": None,
        WAVEFORM.name: None,
        SAMPLE_TYPE.name: None,
    }
    try:
        with open_recording(recording, stopwatch) as handle:
            audio = decode(handle, whole)
    except RecordingError as error:
        row |= {"status": error.status.value, "error": str(error)}
    else:
        samples = _as_int16_if_lossless(audio.waveform)
        row |= {
            "duration": audio.duration,
            "sampling_rate": audio.sampling_rate,
            WAVEFORM.name: samples.data,
            SAMPLE_TYPE.name: samples.dtype.str,
        }
    decoding = time.perf_counter() - started - stopwatch.seconds
    for stage, seconds in zip(DECODE_STAGES, (stopwatch.seconds, decoding), strict=True):
        row[stage_seconds(stage).name] = seconds
    return row


def _listed_columns(planned: pa.Table) -> dict[str, Any]:
    """What a row keeps of the plan: what identifies it, and the manifest's columns."""
    kept = {n: planned[n] for n in planned.column_names if n not in (MEMBER.name, SIZE.name)}
    recordings = recordings_of(planned)
    identity = [recording.identity for recording in recordings]
    return kept | {"uri": identity, "path": [recording.path for recording in recordings]}


def _as_int16_if_lossless(waveform: np.ndarray) -> np.ndarray:
    """Half the bytes for recordings of 16 bits at 16 kHz."""
    scaled = waveform * FULL_SCALE
    with np.errstate(invalid="ignore"):  # what does not fit compares as different
        integers = scaled.astype("<i2")
    return integers if np.array_equal(integers, scaled) else waveform.astype("<f4", copy=False)


# ---- classify ------------------------------------------------------------------------------------


def classify_block(
    decoded: pa.Table, settings: StageSettings, scorer: Scorer, idle_seconds: float
) -> pa.Table:
    """Classifies a decoded block.

    Args:
        decoded: of ``decoded_schema``.
        settings: of the run.
        scorer: the network.
        idle_seconds: how long it waited for the block.

    Returns:
        Of ``labeled_schema``; the scores of recordings without a waveform are null.
    """
    started, transferred = time.perf_counter(), scorer.transfer_seconds
    has_waveform = decoded[WAVEFORM.name].is_valid().to_numpy()
    scores = np.full((len(decoded), len(settings.labels)), np.nan, np.float32)
    if has_waveform.any():
        scores[has_waveform] = scorer.scores(_waveforms(decoded.filter(pa.array(has_waveform))))
    audio = (WAVEFORM.name, SAMPLE_TYPE.name)
    columns = {name: decoded[name] for name in decoded.column_names if name not in audio}
    for name, column in zip(score_columns(settings.labels), scores.T, strict=True):
        columns[name] = pa.array(column, mask=~has_waveform)
    precision = np.full(len(decoded), scorer.precision, object)
    columns["precision"] = pa.array(precision, pa.string(), mask=~has_waveform)
    transfer = scorer.transfer_seconds - transferred
    compute = time.perf_counter() - started - transfer
    for stage, seconds in zip(CLASSIFY_STAGES, (idle_seconds, transfer, compute), strict=True):
        columns[stage_seconds(stage).name] = np.full(len(decoded), seconds / len(decoded))
    columns[DEVICE.name] = pa.array([scorer.description] * len(decoded))
    return _in_schema(columns, labeled_schema(settings.labels, settings.manifest))


def _waveforms(decoded: pa.Table) -> list[np.ndarray]:
    """Each row's samples, views into the block's memory."""
    types = decoded[SAMPLE_TYPE.name].to_pylist()
    columns = zip(decoded[WAVEFORM.name], types, strict=True)
    return [np.frombuffer(samples.as_buffer(), sample_type) for samples, sample_type in columns]


# ---- rows ----------------------------------------------------------------------------------------


def block_with_bug(block: pa.Table, settings: StageSettings, traceback: str) -> pa.Table:
    """A block at which our code failed, in the columns that the next stage expects."""
    decoded = WAVEFORM.name in block.column_names
    schema = decoded_schema(settings.manifest)
    if decoded:
        schema = labeled_schema(settings.labels, settings.manifest)
    columns = {name: block[name] for name in block.column_names if name != BUG.name}
    return _in_schema(columns | {BUG.name: pa.array([traceback] * len(block))}, schema)


def failed_rows(planned: pa.Table, settings: StageSettings, status: Status, error: str) -> pa.Table:
    """Rows (``labeled_schema``) for recordings of the plan that never came out of the pipeline."""
    outcome = {"status": [status.value] * len(planned), "error": [error] * len(planned)}
    schema = labeled_schema(settings.labels, settings.manifest)
    return _in_schema(_listed_columns(planned) | outcome, schema)


def output_rows(
    labeled: pa.Table,
    settings: StageSettings,
    schema: pa.Schema,
    origin: dict[str, str],
    labeled_at: datetime,
) -> pa.Table:
    """Labelled rows as the output has them: label, score, origin and time are added.

    Args:
        labeled: of ``labeled_schema``.
        settings: of the run.
        schema: of the output.
        origin: its columns `model` and `model_digest`.
        labeled_at: the time of these rows.

    Raises:
        RunError: scores are not finite, which no bad recording causes.
    """
    columns = {name: labeled[name] for name in labeled.column_names if name in schema.names}
    scores = np.stack([labeled[n].to_numpy() for n in score_columns(settings.labels)], axis=1)
    ok = pc.equal(labeled["status"], Status.OK).to_numpy()
    if not np.isfinite(scores[ok]).all():
        made_by = labeled[DEVICE.name].drop_null()[0]
        remedy = "try --precision fp32; if that fails too, the checkpoint is broken"
        raise RunError(f"the model's scores are not finite numbers ({made_by}); {remedy}")
    best = np.where(ok, scores.argmax(axis=1), 0)
    columns["label"] = pa.array(np.asarray(settings.labels)[best], mask=~ok)
    columns["score"] = pa.array(scores[np.arange(len(scores)), best], mask=~ok)
    columns["labeled_at"] = pa.array([labeled_at] * len(labeled))
    for name, value in origin.items():
        columns[name] = pa.array([value] * len(labeled))
    return _in_schema(columns, schema)


def _in_schema(columns: dict[str, Any], schema: pa.Schema) -> pa.Table:
    """The columns in the schema's order and types; those that lack are null."""
    num_rows = len(next(iter(columns.values())))
    ordered = [columns.get(f.name, pa.nulls(num_rows, f.type)) for f in schema]
    arrays = [a if isinstance(a, pa.Array | pa.ChunkedArray) else pa.array(a) for a in ordered]
    return pa.table([a.cast(f.type) for a, f in zip(arrays, schema, strict=True)], schema=schema)
