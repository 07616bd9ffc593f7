"""A split's recordings → waveforms and classes in memory; it learns nothing from them.

All of a corpus is held, 64 kB for each second that is heard: decoding once makes thirty epochs
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
from ser_core.storage.reading import open_recording

_READERS_PER_CORE = 4  # they wait for object stores more than they decode
_TOLERATED_LOSS = 0.1  # of the corpus; beyond, its truth and its audio hardly belong together
_NAMED = 5

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Utterances:
    """Recordings with their truth.

    Attributes:
        waveforms: mono float32 at 16 kHz, each of shape ``(num_samples,)``, 6 s at most.
        truth: int64 class indices, shape ``(len(waveforms),)``.
    """

    waveforms: Sequence[np.ndarray]
    truth: np.ndarray


def readable(recordings: pd.DataFrame) -> pd.DataFrame:
    """The recordings that can be decoded, with a column ``waveform``.

    What cannot is named in a warning and left out.

    Raises:
        CorpusError: that is more than a tenth of them.
    """
    with ThreadPoolExecutor(_READERS_PER_CORE * (os.cpu_count() or 1)) as pool:
        waveforms: list[Any] = list(pool.map(_waveform, recordings["path"].tolist()))
    heard = recordings.assign(waveform=waveforms)
    failed = heard[[isinstance(waveform, str) for waveform in heard["waveform"]]]
    if len(failed):
        named = [f"{row.path}: {row.waveform}" for row in failed.head(_NAMED).itertuples()]
        words = f"cannot be read: {len(failed):,} of {len(heard):,} ({'; '.join(named)})"
        if len(failed) > max(_NAMED, _TOLERATED_LOSS * len(heard)):
            raise CorpusError(f"--data: too many recordings {words}")
        logger.warning("left out, as recordings that %s", words)
    return heard.drop(failed.index).reset_index(drop=True)


def _waveform(path: str) -> np.ndarray | str:
    """The waveform, or why there is none."""
    try:
        with open_recording(path, size=None) as handle:
            return decode(handle).waveform
    except RecordingError as error:
        return str(error)


def utterances_of(heard: pd.DataFrame, labels: Sequence[str]) -> dict[str, Utterances]:
    """The recordings of each split, as of ``readable``.

    Raises:
        CorpusError: nothing to train on or to validate with, or a class that is not trained on.
    """
    parts = {}
    for name in SPLITS:
        part = heard[heard["split"] == name]
        if part.empty and name != "test":
            raise CorpusError(f"--data: no readable recording has the split `{name}`")
        unknown = sorted(set(part["truth"]) - set(labels))
        if unknown:
            words = f"{', '.join(unknown)} is in `{name}` and not in `train`"
            raise CorpusError(f"--data: {words}; choose another --split or --seed")
        truth = part["truth"].map(labels.index).to_numpy(np.int64)
        parts[name] = Utterances(part["waveform"].tolist(), truth)
    return parts
