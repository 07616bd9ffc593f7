"""What libsndfile and FFmpeg read from a file, and the rates and channels that are accepted."""

import math
from dataclasses import dataclass

import numpy as np

from ser_core.audio.constants import FULL_SCALE
from ser_core.audio.resample import to_mono
from ser_core.errors import RecordingError, Status

_RATES = range(1_000, 768_001)  # Hz
_CHANNELS = range(1, 257)
_MARGIN_SECONDS = 0.25  # the resampler's filter reaches a few hundredths of a second,
_MARGIN_SAMPLES = 1_000  # or half a thousand samples, whichever is longer
BLOCK_SAMPLES = 1 << 22  # of all channels; float32 of 16 MiB


class UnreadableError(Exception):
    """A library cannot read a file.

    Attributes:
        recognised: whether it knows the format by the content.
    """

    def __init__(self, reason: str, recognised: bool = True) -> None:
        super().__init__(reason)
        self.recognised = recognised


@dataclass(frozen=True)
class Samples:
    """The samples of a file, or of its beginning.

    Attributes:
        mono: float32, shape ``(num_samples,)``, at the file's rate.
        rate: Hz.
        duration: of the whole recording, s; None unless it was decoded to its end or verified.
        stated: what should be in ``mono`` according to the file, s; None if it does not say.
    """

    mono: np.ndarray
    rate: int
    duration: float | None
    stated: float | None


class MonoMixer:
    """Mixes block by block, so that many channels never are in memory at once.

    Attributes:
        num_samples: per channel, so far.
    """

    def __init__(self) -> None:
        self.num_samples = 0
        self._mixed: list[np.ndarray] = []
        self._pending: list[np.ndarray] = []
        self._num_pending = 0

    def add(self, block: np.ndarray) -> None:
        """Adds float32 or int16 samples of shape ``(num_samples, channels)``."""
        self.num_samples += len(block)
        self._pending.append(block)
        self._num_pending += block.size
        if self._num_pending >= BLOCK_SAMPLES:
            self._mix()

    def mono(self) -> np.ndarray:
        """All samples: float32, shape ``(num_samples,)``."""
        self._mix()
        return _joined(self._mixed) if self._mixed else np.zeros(0, np.float32)

    def _mix(self) -> None:
        if self._pending:
            samples = _joined(self._pending)
            if samples.dtype == np.int16:
                samples = samples.astype(np.float32) / FULL_SCALE
            self._mixed.append(to_mono(samples.T))
            self._pending, self._num_pending = [], 0


def _joined(blocks: list[np.ndarray]) -> np.ndarray:
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def num_to_read(seconds: float | None, rate: int) -> float:
    """How many samples per channel to read of a file, at most.

    Resampled to 16 kHz, their first seconds are bit-identical to those of the whole file.

    Args:
        seconds: of the beginning; None for the whole file.
        rate: Hz.
    """
    if seconds is None:
        return math.inf
    return math.ceil(seconds * rate) + max(math.ceil(_MARGIN_SECONDS * rate), _MARGIN_SAMPLES)


def refuse_format(rate: int, channels: int) -> None:
    """Refuses what no recording of speech has, before memory is spent on it.

    Raises:
        RecordingError: ``decode_error``.
    """
    if rate not in _RATES:
        reason = f"the sampling rate is {rate} Hz, not between 1 and 768 kHz"
        raise RecordingError(Status.DECODE_ERROR, reason)
    if channels not in _CHANNELS:
        reason = f"there are {channels} channels, not between 1 and 256"
        raise RecordingError(Status.DECODE_ERROR, reason)
