"""A split corpus → waveforms and class indices in memory; it trains nothing.

The whole corpus is held in memory, 32 or 64 kB per second of audio: decoding once makes thirty
epochs cheap, and corpora with truth are small.
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ser_core.console import counted, phase
from ser_core.corpora.splits import SPLITS
from ser_core.errors import CorpusError, RecordingError, RunError
from ser_core.sources.decoder import Decoder, DecoderSettings
from ser_core.sources.recording import Recording

_DECODERS_PER_CORE = 4  # reads from object stores are mostly waiting
_MOST_DECODERS = 64  # of some 60 MB each
_MAX_UNDECODABLE = 0.1  # of the corpus; beyond that, truth and audio hardly belong together
_MAX_NAMED = 5

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Dataset:
    """Recordings with their truth.

    Attributes:
        waveforms: mono at 16 kHz, float32 or int16, each of shape ``(num_samples,)``, 6 s at most.
        truth: int64 class indices, shape ``(len(waveforms),)``.
    """

    waveforms: Sequence[np.ndarray]
    truth: np.ndarray


def load_waveforms(recordings: pd.DataFrame) -> pd.DataFrame:
    """Decodes the recordings into a column ``waveform``.

    Recordings whose content cannot be decoded are named in a warning and left out.

    Raises:
        CorpusError: more than a tenth of them cannot be decoded.
        RunError: a recording is missing, forbidden or out of reach. Training without it would give
            another result than the next run of the same command.
    """
    phase("decoding the corpus")
    references = [Recording(path) for path in recordings["path"]]
    with Decoder(DecoderSettings(), _concurrent()) as decoder:
        decoded = list(decoder.decode(references))  # one segment of each
    errors = [each.result if isinstance(each.result, RecordingError) else None for each in decoded]
    waveforms = [
        None if e else d.segments[0].waveform for e, d in zip(errors, decoded, strict=True)
    ]
    columns: dict[str, Any] = {"waveform": waveforms, "error": np.array(errors, object)}
    loaded = recordings.assign(**columns)
    failed = loaded[loaded["error"].notna()]
    final = [error.status.final for error in failed["error"]]
    unread = failed[~np.array(final, bool)]
    if len(unread):
        counts = _counts(unread, len(loaded))
        raise RunError(f"--data: cannot read {counts}; rerun the same command to try again")
    if len(failed):
        counts = _counts(failed, len(loaded))
        if len(failed) > max(_MAX_NAMED, _MAX_UNDECODABLE * len(loaded)):
            raise CorpusError(f"--data: cannot decode {counts}")
        logger.warning("skipped recordings that cannot be decoded: %s", counts)
    return loaded.drop(failed.index).drop(columns="error").reset_index(drop=True)


def _concurrent() -> int:
    """How many recordings are decoded at once, each in a process."""
    return min(_MOST_DECODERS, _DECODERS_PER_CORE * (os.cpu_count() or 1))


def _counts(failed: pd.DataFrame, total: int) -> str:
    named = [f"{row.path}: {row.error}" for row in failed.head(_MAX_NAMED).itertuples()]
    return f"{len(failed):,} of {counted(total, 'recording')} ({'; '.join(named)})"


def labels_of_train(split: pd.DataFrame) -> list[str]:
    """The classes in train, in the order of their indices.

    Args:
        split: columns ``truth`` and ``split``.

    Raises:
        CorpusError: train or validation is empty, or another split has a class that train lacks.
    """
    _refuse_empty(split)
    labels = set(split["truth"][split["split"] == "train"])
    for name in SPLITS:
        unknown = sorted(set(split["truth"][split["split"] == name]) - labels)
        if unknown:
            problem = f"{', '.join(unknown)} is in `{name}` but not in `train`"
            raise CorpusError(f"--data: {problem}; choose another --split or --seed")
    return sorted(labels)


def split_datasets(loaded: pd.DataFrame, labels: Sequence[str]) -> dict[str, Dataset]:
    """One dataset per split.

    Args:
        loaded: columns ``waveform``, ``truth`` and ``split``.
        labels: from ``labels_of_train``, before undecodable recordings were left out.

    Raises:
        CorpusError: train or validation is empty, or a class does not occur in train.
    """
    _refuse_empty(loaded)
    missing = sorted(set(labels) - set(loaded["truth"][loaded["split"] == "train"]))
    if missing:
        problem = f"no recording of {', '.join(missing)} in `train` can be decoded"
        raise CorpusError(f"--data: {problem}")
    datasets = {}
    for name in SPLITS:
        rows = loaded[loaded["split"] == name]
        truth = rows["truth"].map(list(labels).index).to_numpy(np.int64)
        datasets[name] = Dataset(rows["waveform"].tolist(), truth)
    return datasets


def _refuse_empty(recordings: pd.DataFrame) -> None:
    for name in ("train", "validation"):
        if not (recordings["split"] == name).any():
            raise CorpusError(f"--data: no readable recording has the split `{name}`")
