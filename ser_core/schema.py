"""The Arrow schema of every table the project reads or writes; it does no I/O."""

from collections.abc import Sequence
from functools import partial

import pyarrow as pa

_WORD = pa.dictionary(pa.int32(), pa.string())  # few distinct values: stored once per part

# What the pipeline carries beside the columns of its rows, and never writes. The underscore keeps
# them clear of a manifest's own columns.
INDEX = pa.field("_index", pa.int64())  # position in the plan
SIZE = pa.field("_size", pa.int64())  # bytes; null if the file could not be seen
WAVEFORM = pa.field("_waveform", pa.large_binary())  # samples: mono, 16 kHz, unpadded
SAMPLE_TYPE = pa.field("_sample_type", pa.string())  # of numpy: "<f4", or "<i2" if that loses none
DECODE_STAGES = ("fetch", "decode")
CLASSIFY_STAGES = ("idle", "transfer", "compute")
DEVICE = pa.field("_device", pa.string())  # "NVIDIA H100 bf16"
FAULT = pa.field("_fault", pa.string())  # the traceback of a bug: the driver stops the run


def seconds_spent(stage: str) -> pa.Field:
    """The column that says how long a stage took for each recording.

    `fetch`: waiting for the store; `decode`: from bytes to the waveform; `idle`: a classifier
    waiting for its next block; `transfer`: padding and moving to the device; `compute`: the
    network. What a block took is shared out evenly among its recordings.
    """
    return pa.field(f"_{stage}_seconds", pa.float64())


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
    none = pa.schema([])
    schemas = (f(none) for f in (plan_schema, decoded_schema, partial(labeled_schema, labels)))
    ours = {*output_schema(labels, none).names, *(name for s in schemas for name in s.names)}
    return [name for name in manifest.names if name in ours]


def listing_schema(manifest: pa.Schema) -> pa.Schema:
    """A corpus as listed: each recording's path, size and identity, and its manifest columns."""
    return pa.schema([*_LISTED, SIZE, *manifest])


def plan_schema(manifest: pa.Schema) -> pa.Schema:
    """What enters the pipeline: the listing of what is to do, numbered."""
    return pa.schema([INDEX, *listing_schema(manifest)])


def decoded_schema(manifest: pa.Schema) -> pa.Schema:
    """Between decoding and classifying: a recording has a waveform, or a status other than ok."""
    inner = [WAVEFORM, SAMPLE_TYPE, *map(seconds_spent, DECODE_STAGES), FAULT]
    outcome = [pa.field(f.name, pa.string()) for f in _OUTCOME]
    return pa.schema([INDEX, *_LISTED, *manifest, *_DECODED, *outcome, *inner])


def labeled_schema(labels: Sequence[str], manifest: pa.Schema) -> pa.Schema:
    """Between classifying and writing: the decoded row, its waveform replaced by scores."""
    waveform = (WAVEFORM.name, SAMPLE_TYPE.name)
    decoded = [field for field in decoded_schema(manifest) if field.name not in waveform]
    scores = [pa.field(name, pa.float32()) for name in score_columns(labels)]
    return pa.schema([*decoded, *scores, *map(seconds_spent, CLASSIFY_STAGES), DEVICE])
