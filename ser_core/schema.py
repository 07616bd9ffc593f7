"""The Arrow schema of every table that the project reads or writes; it does no I/O."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import pyarrow as pa

NO_LABEL = "no label"  # what reports call a row without one, beside the classes
_WORD = pa.dictionary(pa.int32(), pa.string())  # few distinct values: stored once per part

# What the pipeline carries beside the columns of its rows and never writes. The underscore keeps
# these names apart from a manifest's own columns.
INDEX = pa.field("_index", pa.int64())  # the hash of the recording's identity, as signed
HAS_FINAL = pa.field("_has_final", pa.bool_())  # whether the output has final rows of it
MEMBER = pa.field("_member", pa.string())  # within a packed file; null for a file by itself
SIZE = pa.field("_size", pa.int64())  # bytes; null if the file could not be seen
OFFSET = pa.field("_offset", pa.int64())  # where a member begins in its file, bytes, if known
START = pa.field("_start", pa.float64())  # of a stretch, s; null for a whole recording
DURATION = pa.field("_duration", pa.float64())  # of a stretch, s; null if it reaches to the end
WAVEFORM = pa.field("_waveform", pa.large_binary())  # samples: mono, 16 kHz, unpadded
NUM_ROWS = pa.field("_num_rows", pa.int64())  # of a recording, in its last row; null in others
SAMPLE_TYPE = pa.field("_sample_type", pa.string())  # NumPy's name: "<f4", or "<i2" where lossless
DECODE_STAGES = ("fetch", "decode")
CLASSIFY_STAGES = ("idle", "transfer", "compute")
DEVICE = pa.field("_device", pa.string())  # "NVIDIA H100 bf16"
STOP = pa.field("_stop", pa.string())  # why the driver has to stop the run, as after a bug


def stage_seconds(stage: str) -> pa.Field:
    """The column with the seconds that a stage spent on each recording.

    `fetch`: waiting for storage; `decode`: bytes to waveform; `idle`: a classifier waiting for its
    next block; `transfer`: padding and moving to the device; `compute`: the network. The time of a
    block is divided evenly among its recordings.
    """
    return pa.field(f"_{stage}_seconds", pa.float64())


_LISTED = (
    pa.field("path", pa.string()),
    pa.field("uri", pa.string()),
    pa.field("file_id", pa.string()),
)
SEGMENT = (  # of `Segment`; null for whole recordings
    pa.field("start", pa.float64()),
    pa.field("end", pa.float64()),
    pa.field("channel", pa.int16()),
)
DECODED = (  # of `AudioInfo`
    pa.field("duration", pa.float64()),
    pa.field("sampling_rate", pa.int32()),
    pa.field("speech", pa.float32()),
    pa.field("quality", _WORD),
    pa.field("rms_db", pa.float32()),
    pa.field("peak", pa.float32()),
    pa.field("clipped_share", pa.float32()),
    pa.field("level_range_db", pa.float32()),
)
_OUTCOME = (pa.field("status", _WORD), pa.field("error", pa.string()))
_PRECISION = pa.field("precision", _WORD)
_ORIGIN = (pa.field("model", _WORD), pa.field("model_digest", _WORD), _PRECISION)
_WRITTEN = (pa.field("labeled_at", pa.timestamp("us", tz="UTC")),)

EMBEDDING, EMBEDDING_SIZE = "embedding", "embedding_size"

REFERENCE = (MEMBER, SIZE, OFFSET, START, DURATION)  # what `Recording` has beside these


def score_columns(labels: Sequence[str]) -> list[str]:
    """The name of each class's score column, in the checkpoint's order.

    >>> score_columns(["angry", "fear"])
    ['score_angry', 'score_fear']
    """
    return [f"score_{label}" for label in labels]


def embedding_field(size: int) -> pa.Field:
    """The column of embeddings of so many numbers."""
    return pa.field(EMBEDDING, pa.list_(pa.float16(), size))


def output_schema(
    labels: Sequence[str], manifest: pa.Schema, embedding_size: int | None = None
) -> pa.Schema:
    """The output table: one row per recording or segment, then the manifest's own columns.

    Args:
        labels: the checkpoint's classes, in the order of its logits.
        manifest: the columns of the manifest; empty for a folder.
        embedding_size: how many numbers an embedding has; None if there are none.
    """
    scores = [pa.field(name, pa.float32()) for name in ["score", *score_columns(labels)]]
    ours = [
        *_LISTED,
        *SEGMENT,
        *DECODED,
        pa.field("label", _WORD),
        *scores,
        *_OUTCOME,
        *_ORIGIN,
        *_WRITTEN,
    ]
    if embedding_size is not None:
        # From the first one, it is known without reading them which rows have one.
        ours += [pa.field(EMBEDDING_SIZE, pa.int32()), embedding_field(embedding_size)]
    return pa.schema([*ours, *manifest])


def classes_of(schema: pa.Schema) -> tuple[str, ...]:
    """The classes of an output's rows, in the checkpoint's order.

    Their columns stand between `score` and `status`; a manifest's own columns come after all ours,
    so that `score_manual` is not a class.

    >>> classes_of(pa.schema([("score", pa.float32()), ("score_sad", pa.float32()),
    ...                       ("status", pa.string()), ("score_manual", pa.float32())]))
    ('sad',)
    """
    names = schema.names
    if "score" not in names or "status" not in names:
        return ()
    between = names[names.index("score") + 1 : names.index("status")]
    return tuple(name.removeprefix("score_") for name in between if name.startswith("score_"))


def reserved_columns(labels: Sequence[str], manifest: pa.Schema) -> list[str]:
    """The manifest's columns whose names the project uses itself."""
    none = pa.schema([])
    schemas = (f(none) for f in (plan_schema, decoded_schema, partial(labeled_schema, labels)))
    ours = {*output_schema(labels, none, 1).names, *(name for s in schemas for name in s.names)}
    return [name for name in manifest.names if name in ours]


def plan_schema(manifest: pa.Schema) -> pa.Schema:
    """What enters the pipeline: the references to what is left to do.

    `path` is null where it equals `uri`, which saves a folder's plan half of its memory.
    """
    return pa.schema([INDEX, HAS_FINAL, *_LISTED, *REFERENCE, *manifest])


def decoded_schema(manifest: pa.Schema) -> pa.Schema:
    """Between decoding and classifying: a row per segment.

    The last row of a recording has its status and how many rows it has in all; one whose status is
    not ok has no waveform.
    """
    internal = [START, DURATION, NUM_ROWS, WAVEFORM, SAMPLE_TYPE]
    decoded = [*SEGMENT, *DECODED, *_OUTCOME]
    decoded = [field.with_type(pa.string()) if field.type == _WORD else field for field in decoded]
    seconds = map(stage_seconds, DECODE_STAGES)
    ours = [INDEX, HAS_FINAL, *_LISTED]
    return pa.schema([*ours, *manifest, *decoded, *internal, *seconds, STOP])


def labeled_schema(
    labels: Sequence[str], manifest: pa.Schema, embedding_size: int | None = None
) -> pa.Schema:
    """Between classifying and writing: the decoded row, its waveform replaced by scores."""
    waveform = (WAVEFORM.name, SAMPLE_TYPE.name)
    decoded = [field for field in decoded_schema(manifest) if field.name not in waveform]
    scores = [pa.field(name, pa.float32()) for name in score_columns(labels)]
    if embedding_size is not None:
        scores.append(embedding_field(embedding_size))
    precision = pa.field(_PRECISION.name, pa.string())
    return pa.schema([*decoded, *scores, precision, *map(stage_seconds, CLASSIFY_STAGES), DEVICE])


def in_schema(columns: dict[str, Any], schema: pa.Schema) -> pa.Table:
    """The columns in the schema's order and types; those that lack are null."""
    num_rows = len(next(iter(columns.values())))
    ordered = [columns.get(f.name, pa.nulls(num_rows, f.type)) for f in schema]
    arrays = [a if isinstance(a, pa.Array | pa.ChunkedArray) else pa.array(a) for a in ordered]
    return pa.table([a.cast(f.type) for a, f in zip(arrays, schema, strict=True)], schema=schema)
