"""The Arrow schema of every table the project reads or writes; it does no I/O."""

from collections.abc import Sequence

import pyarrow as pa

_WORD = pa.dictionary(pa.int32(), pa.string())  # few distinct values: stored once per part

# What the pipeline carries beside the columns of its rows, and never writes. The underscore keeps
# them clear of a manifest's own columns.
INDEX = pa.field("_index", pa.int64())  # position in the plan
SIZE = pa.field("_size", pa.int64())  # bytes; null if the file could not be seen
WAVEFORM = pa.field("_waveform", pa.large_list(pa.float32()))  # mono, 16 kHz, unpadded
DECODE_SECONDS = pa.field("_decode_seconds", pa.float64())  # fetch and decode, of one recording
COMPUTE_SECONDS = pa.field("_compute_seconds", pa.float64())  # of the batch, shared out evenly
DEVICE = pa.field("_device", pa.string())  # "NVIDIA H100 bf16"
FAULT = pa.field("_fault", pa.string())  # the traceback of a bug: the driver stops the run

_LISTED = (pa.field("path", pa.string()), pa.field("file_id", pa.string()))
_DECODED = (pa.field("duration", pa.float64()), pa.field("sampling_rate", pa.int32()))
_OUTCOME = (pa.field("status", _WORD), pa.field("error", pa.string()))
_ORIGIN = (pa.field("model", _WORD), pa.field("model_digest", _WORD))
_WRITTEN = (pa.field("labeled_at", pa.timestamp("us", tz="UTC")),)


def score_columns(labels: Sequence[str]) -> list[str]:
    """The name of each class's score column, in the checkpoint's order.

    >>> score_columns(["angry", "fear"])
    ['score_angry', 'score_fear']
    """
    return [f"score_{label}" for label in labels]


def output_schema(labels: Sequence[str], manifest: pa.Schema) -> pa.Schema:
    """The output table: one row per recording, then the manifest's own columns.

    Args:
        labels: the checkpoint's classes, in the order of its logits.
        manifest: the columns that ride along; empty for a folder.
    """
    scores = [pa.field(name, pa.float32()) for name in ["score", *score_columns(labels)]]
    ours = [*_LISTED, *_DECODED, pa.field("label", _WORD), *scores, *_OUTCOME, *_ORIGIN, *_WRITTEN]
    return pa.schema([*ours, *manifest])


def collisions(labels: Sequence[str], manifest: pa.Schema) -> list[str]:
    """The manifest's columns whose names the project uses itself."""
    inner = {
        f.name for f in (INDEX, SIZE, WAVEFORM, DECODE_SECONDS, COMPUTE_SECONDS, DEVICE, FAULT)
    }
    ours = inner | set(output_schema(labels, pa.schema([])).names)
    return [name for name in manifest.names if name in ours]


def listing_schema(manifest: pa.Schema) -> pa.Schema:
    """A corpus as listed: each recording's path, size and identity, and its manifest columns."""
    return pa.schema([*_LISTED, SIZE, *manifest])


def plan_schema(manifest: pa.Schema) -> pa.Schema:
    """What enters the pipeline: the listing of what is to do, numbered."""
    return pa.schema([INDEX, *listing_schema(manifest)])


def decoded_schema(manifest: pa.Schema) -> pa.Schema:
    """Between decoding and classifying: a recording has a waveform, or a status other than ok."""
    inner = [WAVEFORM, DECODE_SECONDS, FAULT]
    outcome = [pa.field(f.name, pa.string()) for f in _OUTCOME]
    return pa.schema([INDEX, *_LISTED, *manifest, *_DECODED, *outcome, *inner])


def labeled_schema(labels: Sequence[str], manifest: pa.Schema) -> pa.Schema:
    """Between classifying and writing: the decoded row, its waveform replaced by scores."""
    decoded = [field for field in decoded_schema(manifest) if field.name != WAVEFORM.name]
    scores = [pa.field(name, pa.float32()) for name in score_columns(labels)]
    return pa.schema([*decoded, *scores, COMPUTE_SECONDS, DEVICE])
