"""A split corpus → waveforms and class indices in memory; it trains nothing.

The whole corpus is held in memory, 64 kB per second of audio: decoding once makes thirty epochs
cheap, and corpora with truth are small.
"""

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ser_core.audio.decode import decode
from ser_core.corpora.splits import SPLITS
from ser_core.errors import CorpusError, RecordingError
from ser_core.sources.forms import open_recording
from ser_core.sources.recording import Recording
from ser_core.storage.reading import Stopwatch

_READERS_PER_CORE = 4  # readers of an object store wait more than they decode
_MAX_UNREADABLE = 0.1  # of the corpus; beyond that, truth and audio hardly belong together
_MAX_NAMED = 5

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Dataset:
    """Recordings with their truth.

    Attributes:
        waveforms: mono float32 at 16 kHz, each of shape ``(num_samples,)``, 6 s at most.
        truth: int64 class indices, shape ``(len(waveforms),)``.
    """

    waveforms: Sequence[np.ndarray]
    truth: np.ndarray


def load_waveforms(recordings: pd.DataFrame) -> pd.DataFrame:
    """Decodes the recordings into a column ``waveform``.

    Recordings that cannot be decoded are named in a warning and left out.

    Raises:
        CorpusError: more than a tenth of them cannot be decoded.
    """
    with ThreadPoolExecutor(_READERS_PER_CORE * (os.cpu_count() or 1)) as pool:
        waveforms: list[Any] = list(pool.map(_load, recordings["path"].tolist()))
    loaded = recordings.assign(waveform=waveforms)
    failed = loaded[[isinstance(waveform, str) for waveform in waveforms]]
    if len(failed):
        named = [f"{row.path}: {row.waveform}" for row in failed.head(_MAX_NAMED).itertuples()]
        counts = f"{len(failed):,} of {len(loaded):,} recordings ({'; '.join(named)})"
        if len(failed) > max(_MAX_NAMED, _MAX_UNREADABLE * len(loaded)):
            raise CorpusError(f"--data: cannot read {counts}")
        logger.warning("skipped what cannot be read: %s", counts)
    return loaded.drop(failed.index).reset_index(drop=True)


def _load(path: str) -> np.ndarray | str:
    """The waveform, or the reason why there is none."""
    try:
        with open_recording(Recording(path), Stopwatch()) as handle:
            return decode(handle).waveform
    except RecordingError as error:
        return str(error)


def split_datasets(loaded: pd.DataFrame, labels: Sequence[str]) -> dict[str, Dataset]:
    """One dataset per split.

    Args:
        loaded: columns ``waveform``, ``truth`` and ``split``.
        labels: the classes, in the order of their indices.

    Raises:
        CorpusError: train or validation is empty, or a class does not occur in train.
    """
    datasets = {}
    for name in SPLITS:
        rows = loaded[loaded["split"] == name]
        if rows.empty and name != "test":
            raise CorpusError(f"--data: no readable recording has the split `{name}`")
        unknown = sorted(set(rows["truth"]) - set(labels))
        if unknown:
            problem = f"{', '.join(unknown)} is in `{name}` but not in `train`"
            raise CorpusError(f"--data: {problem}; choose another --split or --seed")
        truth = rows["truth"].map(labels.index).to_numpy(np.int64)
        datasets[name] = Dataset(rows["waveform"].tolist(), truth)
    return datasets
