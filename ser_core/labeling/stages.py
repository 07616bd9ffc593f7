"""What happens to a block of recordings, a table in and a table out at each stage; it knows no Ray.

::

    planned ── decode_block ──▶ decoded ── classify_block ──▶ labeled ── output_rows ──▶ a part
               (segments)                  (segments)         (recordings or segments)
"""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from ser_core.audio.segments import Segment
from ser_core.errors import DeviceError, RecordingError, RunError, Status, UsageError
from ser_core.labeling.embeddings import embedding_column
from ser_core.labeling.packing import views
from ser_core.labeling.stopping import bug, reason_of
from ser_core.models.outputs import Outputs
from ser_core.schema import (
    CLASSIFY_STAGES,
    DECODE_STAGES,
    DECODED,
    DEVICE,
    EMBEDDING,
    MEMBER,
    NUM_ROWS,
    OFFSET,
    SAMPLE_TYPE,
    SEGMENT,
    SIZE,
    STOP,
    WAVEFORM,
    decoded_schema,
    in_schema,
    labeled_schema,
    score_columns,
    stage_seconds,
)
from ser_core.sources.decoder import Decoder
from ser_core.sources.file_decoder import Decoded
from ser_core.sources.recording import Recording, recordings_of
from ser_core.sources.waveform_decoder import WaveformDecoder

# What a broken machine makes of every recording, as well as a bad recording of itself.
_SUSPICIOUS = frozenset({Status.DECODE_ERROR, Status.CRASHED, Status.TIMEOUT, Status.TOO_LARGE})
_NEARLY_ALL = 0.9  # of a block


class Scorer(Protocol):
    """What classifies: `ser_core.models.classifier.Classifier`, without importing torch."""

    precision: str

    @property
    def description(self) -> str:
        """The device and the precision."""

    def prepare(self, waveforms: Sequence[np.ndarray]) -> Any:
        """Brings waveforms into the form that `compute` takes, on any thread."""

    def compute(self, prepared: Any) -> Outputs:
        """Computes scores and, if the run wants them, embeddings."""


@dataclass(frozen=True)
class StageSettings:
    """What all blocks of a run have in common.

    Attributes:
        labels: the checkpoint's classes.
        manifest: the manifest's own columns.
        embedding_size: of the rows' embeddings; None if they have none.
        min_score: rows with a lower score are marked; None marks none.
    """

    labels: tuple[str, ...]
    manifest: pa.Schema
    embedding_size: int | None = None
    min_score: float | None = None

    @property
    def labeled_schema(self) -> pa.Schema:
        """Of the rows between classifying and writing."""
        return labeled_schema(self.labels, self.manifest, self.embedding_size)


# ---- decode --------------------------------------------------------------------------------------


def decode_block(
    planned: pa.Table,
    settings: StageSettings,
    decoder: Decoder | WaveformDecoder,
    bytes_per_table: int,
) -> Generator[pa.Table, None, None]:
    """Decodes a block of the plan; long recordings come in several tables.

    Args:
        planned: of ``plan_schema``.
        settings: of the run.
        decoder: decodes each recording where it can do no harm.
        bytes_per_table: of waveforms, about.

    Yields:
        Of ``decoded_schema``: the segments of each recording, or the reason why there are none.

    Raises:
        RunError: nearly none could be decoded, and neither can a good recording.
    """
    recordings = recordings_of(planned)
    listed = pa.table(_listed_columns(planned, recordings))
    waiting = _WaitingRows(listed, decoded_schema(settings.manifest))
    suspicious = 0
    for decoded in decoder.decode(recordings):
        waiting.add(decoded)
        suspicious += getattr(decoded.result, "status", None) in _SUSPICIOUS
        if waiting.num_bytes >= bytes_per_table:
            yield waiting.take()
    if suspicious >= _NEARLY_ALL * len(planned):
        decoder.check()
    if len(waiting):
        yield waiting.take()


class _WaitingRows:
    """Decoded rows of a block that have not been passed on yet.

    Attributes:
        num_bytes: of their waveforms.
    """

    def __init__(self, listed: pa.Table, schema: pa.Schema) -> None:
        self.num_bytes = 0
        self._listed = listed
        self._schema = schema
        self._num_rows = [0] * len(listed)  # of each recording so far
        self._rows: list[dict[str, Any]] = []
        self._recordings: list[int] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, decoded: Decoded) -> None:
        failed = isinstance(decoded.result, RecordingError)
        rows = [] if failed else [_segment_columns(segment) for segment in decoded.segments]
        self._num_rows[decoded.recording] += len(rows)
        if decoded.result is not None:
            spoken = self._num_rows[decoded.recording] > 0
            if not rows:
                rows = [{}]
                self._num_rows[decoded.recording] += 1
            rows[-1] |= _result_columns(decoded, Status.OK if spoken else Status.NO_SPEECH)
            rows[-1][NUM_ROWS.name] = self._num_rows[decoded.recording]
        self._rows += rows
        self._recordings += [decoded.recording] * len(rows)
        self.num_bytes += sum(len(row.get(WAVEFORM.name, b"")) for row in rows)

    def take(self) -> pa.Table:
        names = {name for row in self._rows for name in row}
        decoded = {name: [row.get(name) for row in self._rows] for name in names}
        listed = self._listed.take(pa.array(self._recordings, pa.int64()))
        columns = {name: listed[name] for name in listed.column_names} | decoded
        self._rows, self._recordings, self.num_bytes = [], [], 0
        return in_schema(columns, self._schema)


def _segment_columns(segment: Segment) -> dict[str, Any]:
    return {
        **{field.name: getattr(segment, field.name) for field in SEGMENT},
        WAVEFORM.name: segment.waveform.tobytes(),  # pyarrow 26 never frees a memoryview
        SAMPLE_TYPE.name: segment.waveform.dtype.str,
    }


def _result_columns(decoded: Decoded, status: Status) -> dict[str, Any]:
    """The columns of a recording's last row; those that are left out are null.

    Args:
        decoded: has a result.
        status: unless the result is an error.
    """
    seconds = (decoded.fetch_seconds, decoded.decode_seconds)
    row: dict[str, Any] = {
        stage_seconds(stage).name: value
        for stage, value in zip(DECODE_STAGES, seconds, strict=True)
    }
    if isinstance(decoded.result, RecordingError):
        return row | {"status": decoded.result.status.value, "error": str(decoded.result)}
    known = {field.name: getattr(decoded.result, field.name) for field in DECODED}
    return row | known | {"status": status.value}


def _listed_columns(planned: pa.Table, recordings: Sequence[Recording]) -> dict[str, Any]:
    """What a row keeps of the plan: what identifies it, its stretch, the manifest's columns."""
    only_for_decoding = (MEMBER.name, SIZE.name, OFFSET.name)
    kept = {n: planned[n] for n in planned.column_names if n not in only_for_decoding}
    identity = [recording.identity for recording in recordings]
    return kept | {"uri": identity, "path": [recording.path for recording in recordings]}


# ---- classify ------------------------------------------------------------------------------------


def classify_block(
    decoded: pa.Table,
    settings: StageSettings,
    scorer: Scorer,
    turn: Callable[[], AbstractContextManager[float]],
) -> pa.Table:
    """Classifies the segments of a decoded block.

    Args:
        decoded: of ``decoded_schema``.
        settings: of the run.
        scorer: the network.
        turn: waits until this block may be computed; yields the seconds that the device waited.

    Returns:
        Of ``labeled_schema``; the scores of rows without a waveform are null.
    """
    has_waveform = decoded[WAVEFORM.name].is_valid().to_numpy()
    scores = np.full((len(decoded), len(settings.labels)), np.nan, np.float32)
    started = time.perf_counter()
    prepared = scorer.prepare(_waveforms(decoded))
    transfer = time.perf_counter() - started
    with turn() as waited:
        idle = max(0.0, waited - transfer)
        started = time.perf_counter()
        outputs = scorer.compute(prepared)
        compute = time.perf_counter() - started
    audio = (WAVEFORM.name, SAMPLE_TYPE.name)
    columns = {name: decoded[name] for name in decoded.column_names if name not in audio}
    scores[has_waveform] = outputs.scores
    for name, column in zip(score_columns(settings.labels), scores.T, strict=True):
        columns[name] = pa.array(column, mask=~has_waveform)
    if outputs.embeddings is not None:
        columns[EMBEDDING] = embedding_column(outputs.embeddings, has_waveform)
    precision = np.full(len(decoded), scorer.precision, object)
    columns["precision"] = pa.array(precision, pa.string(), mask=~has_waveform)
    for stage, seconds in zip(CLASSIFY_STAGES, (idle, transfer, compute), strict=True):
        columns[stage_seconds(stage).name] = np.full(len(decoded), seconds / len(decoded))
    columns[DEVICE.name] = pa.array([scorer.description] * len(decoded))
    return in_schema(columns, settings.labeled_schema)


def _waveforms(decoded: pa.Table) -> list[np.ndarray]:
    """The samples of each row that has some, views into the block's memory."""
    types = decoded[SAMPLE_TYPE.name].drop_null().to_pylist()
    contents = zip(views(decoded[WAVEFORM.name]), types, strict=True)
    return [np.frombuffer(samples, sample_type) for samples, sample_type in contents]


# ---- rows ----------------------------------------------------------------------------------------


def run_stage(
    stage: Callable[[pa.Table], Iterator[pa.Table]], block: pa.Table, settings: StageSettings
) -> Iterator[pa.Table]:
    """The stage's results, or rows with the traceback: Ray would drop an exception with its block.

    Raises:
        DeviceError: the device failed, which is no bug.
    """
    try:
        yield from stage(block)
    except DeviceError:
        raise
    except (RunError, UsageError) as error:
        yield rows_with_reason(block, settings, reason_of(error))
    except Exception as error:
        yield rows_with_reason(block, settings, bug(error))


def rows_with_reason(block: pa.Table, settings: StageSettings, reason: str) -> pa.Table:
    """A block after which the run must stop, in the columns that the next stage expects."""
    decoded = WAVEFORM.name in block.column_names
    schema = settings.labeled_schema if decoded else decoded_schema(settings.manifest)
    columns = {name: block[name] for name in block.column_names if name != STOP.name}
    return in_schema(columns | {STOP.name: pa.array([reason] * len(block))}, schema)


def failed_rows(planned: pa.Table, settings: StageSettings, status: Status, error: str) -> pa.Table:
    """Rows (``labeled_schema``) for recordings of the plan that never came out of the pipeline."""
    outcome: dict[str, Any] = {"status": [status.value] * len(planned)}
    outcome |= {"error": [error] * len(planned), NUM_ROWS.name: [1] * len(planned)}
    columns = _listed_columns(planned, recordings_of(planned)) | outcome
    return in_schema(columns, settings.labeled_schema)
