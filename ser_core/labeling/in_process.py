"""`ser_core.label`: labels recordings in this process, by the stages of the job and without Ray."""

import os
import sys
from contextlib import AbstractContextManager, closing, nullcontext
from datetime import UTC, datetime
from typing import Any, get_args

import numpy as np
import pandas as pd
import pyarrow as pa
from rich.console import Console
from tqdm.auto import tqdm

from ser_core.audio.constants import SEGMENT_SAMPLES, SEGMENT_SECONDS
from ser_core.audio.segments import Segmentation
from ser_core.audio.speech import check_installed
from ser_core.errors import UsageError
from ser_core.labeling.assembly import Assembly, assembled_rows
from ser_core.labeling.config import DEFAULT_MODEL
from ser_core.labeling.output_rows import output_rows
from ser_core.labeling.plan import plan_table
from ser_core.labeling.rules import labeling_digest
from ser_core.labeling.stages import (
    StageSettings,
    classify_block,
    decode_block,
)
from ser_core.models.checkpoint import Checkpoint, for_segments, load_checkpoint
from ser_core.models.classifier import Classifier
from ser_core.schema import INDEX, output_schema
from ser_core.settings import Precision, Segments
from ser_core.sources.in_memory import Paths, Recordings, Waveforms, open_recordings
from ser_core.sources.interface import Page
from ser_core.sources.recording import Recording

_ROWS_PER_BLOCK = 512  # whose sizes are asked for at a time
_BATCHES_PER_TABLE = 4  # that are decoded and then classified
_BYTES_PER_SEGMENT = 2 * SEGMENT_SAMPLES  # 16 bits
_NONE = pa.schema([])
_NAMES = ("path", "uri", "file_id")  # columns that a waveform has no values for


def label(  # noqa: PLR0913 (options of their own)
    recordings: Recordings,
    model: str | os.PathLike[str] | Checkpoint | Classifier = DEFAULT_MODEL,
    *,
    revision: str | None = None,
    precision: Precision = "auto",
    segments: Segments = "first",
    batch_size: int | None = None,
    sampling_rate: int | None = None,
    progress: bool | None = None,
) -> pd.DataFrame:
    """Labels recordings with emotion: the rows of ``ser-batch label``, in the order of the input.

    It computes in this process, holding a few recordings at a time. For a large corpus use
    ``ser-batch label``: it takes all GPUs and cores, keeps what is done, and continues it.

    Args:
        recordings: paths or URIs, or waveforms: mono, float or int16, shape ``(num_samples,)``;
            one or a list. Or a DataFrame with a column `path` or `waveform`, whose index and other
            columns are kept; `start` with `duration` or `end`, s, is a stretch of a file.
        model: a hub id, folder or URI, a loaded checkpoint, or a `Classifier`.
        revision: a branch, tag or commit of a hub id.
        precision: ``auto`` is bf16 where supported; ``fp32`` gives the model card's numbers.
        segments: label the ``first`` 6 s, ``all`` in windows of 6 s, or only ``speech``.
        batch_size: segments per forward pass; None chooses for the hardware.
        sampling_rate: of waveforms, Hz; None is 16 kHz. Others are resampled.
        progress: show a bar; None shows one for several, in a notebook or a terminal.

    Returns:
        The columns of docs/output.md, such as `label`, `score` and `score_<label>`. `status` and
        `error` say why a recording has none. Waveforms have no `path`, `uri` and `file_id`.

    Raises:
        UsageError: an argument cannot be used; CheckpointError if it is the model.
        RunError: the hub or the storage cannot be reached, or the scores are not finite.
        DeviceError: the GPU failed; nothing runs on it any more in this process.
    """
    source = open_recordings(recordings, sampling_rate)
    classifier = _classifier(model, revision, precision, segments, batch_size)
    return _label(source, classifier, segments, progress)


def _label(
    source: Paths | Waveforms, classifier: Classifier, segments: Segments, progress: bool | None
) -> pd.DataFrame:
    checkpoint = for_segments(classifier.checkpoint, segments)
    schema = output_schema(checkpoint.labels, _NONE)
    if taken := [str(name) for name in source.own if name in schema.names]:
        reason = f"the result has its own columns {', '.join(taken)}; rename the DataFrame's"
        raise UsageError(f"recordings: {reason}")
    settings = StageSettings(checkpoint.labels, _NONE)
    num_bytes = _BATCHES_PER_TABLE * classifier.batch_size * _BYTES_PER_SEGMENT
    tables = [schema.empty_table()]
    with (
        source.decoder(Segmentation(segments)) as decoder,
        _bar(len(source.index), progress) as bar,
    ):
        for block in source.blocks(_ROWS_PER_BLOCK):
            assembly = Assembly()
            # Unless it is closed, what decodes ahead waits for ever for its results to be taken.
            with closing(decode_block(_plan(block), settings, decoder, num_bytes)) as decoded:
                for table in decoded:
                    labeled = classify_block(table, settings, classifier, _at_once)
                    complete = assembly.add(labeled)
                    tables.append(_rows(complete, settings, schema, checkpoint, source.named))
                    bar.update(len(tables[-1]))
    rows = pa.concat_tables(tables).unify_dictionaries().to_pandas()
    rows.index = source.index
    result: pd.DataFrame = pd.concat([rows, source.own], axis=1)
    return result


def _classifier(
    model: str | os.PathLike[str] | Checkpoint | Classifier,
    revision: str | None,
    precision: Precision,
    segments: Segments,
    batch_size: int | None,
) -> Classifier:
    """Checks what goes with the model, and loads it unless it is loaded already."""
    if segments not in get_args(Segments):
        raise UsageError(f"segments {segments!r} is not one of {', '.join(get_args(Segments))}")
    if segments == "speech":
        check_installed()
    if revision is not None and isinstance(model, Checkpoint | Classifier):
        raise UsageError("revision: the model is loaded already")
    if isinstance(model, Classifier):
        if precision not in ("auto", model.precision) or batch_size is not None:
            raise UsageError("precision and batch_size are those of the Classifier that was given")
        return model
    if not isinstance(model, Checkpoint):
        model = load_checkpoint(model, revision, segments)
    return Classifier(model, precision, batch_size)


def _plan(recordings: list[Recording]) -> pa.Table:
    """Recordings as the stages take them; the same one may be there twice."""
    rows = np.arange(len(recordings))
    has_final = np.zeros(len(recordings), bool)
    return plan_table(Page(recordings), rows, rows, has_final, _NONE)


def _at_once() -> AbstractContextManager[float]:
    """The turn of a block that need not wait for others."""
    return nullcontext(0.0)


def _rows(
    labeled: pa.Table,
    settings: StageSettings,
    schema: pa.Schema,
    checkpoint: Checkpoint,
    named: bool,
) -> pa.Table:
    """A row of the output for each recording, in their order."""
    digest = labeling_digest(checkpoint.digest, "recording", SEGMENT_SECONDS, "mix")
    origin = {"model": checkpoint.name, "model_digest": digest}
    assembled = assembled_rows(labeled, settings.labels, "recording").sort_by(INDEX.name)
    if not named:
        assembled = assembled.drop_columns(list(_NAMES))
    return output_rows(assembled, settings, schema, origin, datetime.now(UTC))


def _bar(total: int, wanted: bool | None) -> Any:
    """A progress bar of tqdm: rich shows nothing in a notebook without ipywidgets."""
    if wanted is None:
        watched = sys.stderr.isatty() or Console().is_jupyter
        wanted = watched and total > 1
    return tqdm(total=total, unit=" recordings", disable=not wanted)
