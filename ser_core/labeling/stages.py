"""A table in, a table out: decode a block, classify it, finish its rows; it knows no Ray."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ser_core.audio.constants import FULL_SCALE
from ser_core.audio.decode import decode
from ser_core.errors import RecordingError, Status
from ser_core.schema import (
    CLASSIFY_STAGES,
    DECODE_STAGES,
    DEVICE,
    FAULT,
    SAMPLE_TYPE,
    SIZE,
    WAVEFORM,
    decoded_schema,
    labeled_schema,
    score_columns,
    seconds_spent,
)
from ser_core.storage.filesystem import join
from ser_core.storage.reading import Stopwatch, open_recording

_READS_AT_ONCE = 4  # per block: one recording's bytes arrive while another is decoded


class Scorer(Protocol):
    """What classifies: `ser_core.models.classifier.Classifier`, without importing torch."""

    transfer_seconds: float

    @property
    def description(self) -> str:
        """Its device and precision."""

    def scores(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Shape ``(len(waveforms), num_labels)``."""


@dataclass(frozen=True)
class Blocks:
    """What every block of a run has in common.

    Attributes:
        base: what relative paths are relative to.
        whole: hear all of each recording rather than its first 6 s.
        labels: the checkpoint's classes.
        manifest: the columns that ride along.
    """

    base: str
    whole: bool
    labels: tuple[str, ...]
    manifest: pa.Schema

    def decode(self, planned: pa.Table) -> pa.Table:
        """A block of the plan → waveforms, or why there is none (``decoded_schema``)."""
        locations = [join(self.base, path) for path in planned["path"].to_pylist()]
        sizes = planned[SIZE.name].to_pylist()
        with ThreadPoolExecutor(_READS_AT_ONCE) as pool:
            rows = list(pool.map(partial(decode_one, whole=self.whole), locations, sizes))
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        kept = {name: planned[name] for name in planned.column_names if name != SIZE.name}
        return self._filled(kept | columns, decoded_schema(self.manifest))

    def classify(self, decoded: pa.Table, scorer: Scorer, idle_seconds: float) -> pa.Table:
        """Waveforms → scores; rows without a waveform keep theirs null (``labeled_schema``).

        Args:
            decoded: a block of ``decoded_schema``.
            scorer: the network.
            idle_seconds: how long it has waited for the block.
        """
        started, moved = time.perf_counter(), scorer.transfer_seconds
        heard = decoded[WAVEFORM.name].is_valid().to_numpy()
        table = np.full((len(decoded), len(self.labels)), np.nan, np.float32)
        if heard.any():
            table[heard] = scorer.scores(_waveforms(decoded.filter(pa.array(heard))))
        beside = (WAVEFORM.name, SAMPLE_TYPE.name)
        columns = {name: decoded[name] for name in decoded.column_names if name not in beside}
        for name, column in zip(score_columns(self.labels), table.T, strict=True):
            columns[name] = pa.array(column, mask=~heard)
        transfer = scorer.transfer_seconds - moved
        compute = time.perf_counter() - started - transfer
        for stage, seconds in zip(CLASSIFY_STAGES, (idle_seconds, transfer, compute), strict=True):
            columns[seconds_spent(stage).name] = np.full(len(decoded), seconds / len(decoded))
        columns[DEVICE.name] = pa.array([scorer.description] * len(decoded))
        return self._filled(columns, labeled_schema(self.labels, self.manifest))

    def with_fault(self, block: pa.Table, fault: str) -> pa.Table:
        """A block that met a bug, as the pipeline's end expects it: the driver stops the run."""
        kept = {name: block[name] for name in block.column_names if name != FAULT.name}
        faults = pa.array([fault] * len(block))
        schema = decoded_schema(self.manifest)
        if WAVEFORM.name in block.column_names:  # it was decoded: it failed later on
            schema = labeled_schema(self.labels, self.manifest)
        return self._filled(kept | {FAULT.name: faults}, schema)

    def failed(self, planned: pa.Table, status: Status, error: str) -> pa.Table:
        """Rows for recordings that never came out of the pipeline (``labeled_schema``)."""
        columns = {name: planned[name] for name in planned.column_names if name != SIZE.name}
        columns["status"] = pa.array([status.value] * len(planned))
        columns["error"] = pa.array([error] * len(planned))
        return self._filled(columns, labeled_schema(self.labels, self.manifest))

    def finish(self, labeled: pa.Table, schema: pa.Schema, name: str, digest: str) -> pa.Table:
        """Labelled rows → rows of the output: label and score chosen, origin and time added."""
        columns = {field: labeled[field] for field in labeled.column_names if field in schema.names}
        scores = np.stack([labeled[n].to_numpy() for n in score_columns(self.labels)], axis=1)
        ok = pc.equal(labeled["status"], Status.OK).to_numpy()
        best = np.where(ok, np.nan_to_num(scores).argmax(axis=1), 0)
        columns["label"] = pa.array(np.asarray(self.labels)[best], mask=~ok)
        columns["score"] = pa.array(scores[np.arange(len(scores)), best], mask=~ok)
        columns["model"] = pa.array([name] * len(labeled))
        columns["model_digest"] = pa.array([digest] * len(labeled))
        columns["labeled_at"] = pa.array([datetime.now(UTC)] * len(labeled))
        return self._filled(columns, schema)

    @staticmethod
    def _filled(columns: dict[str, Any], schema: pa.Schema) -> pa.Table:
        rows = len(next(iter(columns.values())))
        ordered = [columns.get(f.name, pa.nulls(rows, f.type)) for f in schema]
        arrays = [a if isinstance(a, pa.Array | pa.ChunkedArray) else pa.array(a) for a in ordered]
        return pa.table(
            [a.cast(f.type) for a, f in zip(arrays, schema, strict=True)], schema=schema
        )


def decode_one(location: str, size: int | None, whole: bool) -> dict[str, Any]:
    """One recording's decoded columns, whatever becomes of it."""
    started, fetching = time.perf_counter(), Stopwatch()
    row: dict[str, Any] = {
        "duration": None,
        "sampling_rate": None,
        "status": Status.OK.value,
        "error": None,
        WAVEFORM.name: None,
        SAMPLE_TYPE.name: None,
    }
    try:
        with open_recording(location, size, fetching) as handle:
            recording = decode(handle, whole)
    except RecordingError as error:
        row |= {"status": error.status.value, "error": str(error)}
    else:
        row |= {"duration": recording.duration, "sampling_rate": recording.sampling_rate}
        samples = _fewest_bytes(recording.waveform)
        row |= {WAVEFORM.name: samples.data, SAMPLE_TYPE.name: samples.dtype.str}
    decoding = time.perf_counter() - started - fetching.seconds
    for stage, seconds in zip(DECODE_STAGES, (fetching.seconds, decoding), strict=True):
        row[seconds_spent(stage).name] = seconds
    return row


def _fewest_bytes(waveform: np.ndarray) -> np.ndarray:
    """The samples as 16-bit integers if that is what they are: recordings of 16 bits at 16 kHz."""
    scaled = waveform * FULL_SCALE
    with np.errstate(invalid="ignore"):  # what does not fit compares as different
        integers = scaled.astype("<i2")
    return integers if np.array_equal(integers, scaled) else waveform.astype("<f4", copy=False)


def _waveforms(decoded: pa.Table) -> list[np.ndarray]:
    """Each row's samples, views into the block's memory."""
    types = decoded[SAMPLE_TYPE.name].to_pylist()
    columns = zip(decoded[WAVEFORM.name], types, strict=True)
    return [np.frombuffer(samples.as_buffer(), sample_type) for samples, sample_type in columns]
