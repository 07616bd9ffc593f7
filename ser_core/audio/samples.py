"""What libsndfile and FFmpeg read from a file, and the rates and channels that are accepted."""

import math
from collections import deque
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ser_core.audio.constants import FULL_SCALE
from ser_core.audio.quality import QualityMeter
from ser_core.audio.resample import to_mono
from ser_core.errors import RecordingError, Status

RATES = range(1_000, 768_001)  # Hz
_CHANNELS = range(1, 257)
_MARGIN_SECONDS = 0.25  # the resampler's filter reaches a few hundredths of a second,
_MARGIN_SAMPLES = 1_000  # or half a thousand samples, whichever is longer
BLOCK_SAMPLES = 1 << 20  # of all channels; float32 of 4 MiB
PIECE_SAMPLES = 1 << 14  # per channel; frames have a thousand, and each piece takes Python's time
_HELD_BACK = 1 << 16  # samples per channel; the padding of a file's last frame is shorter


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
    """What was read of a file, or of its beginning; the samples went to a `Mixer`.

    Attributes:
        rate: Hz.
        duration: of the whole recording, s; None unless it was decoded to its end or verified.
        stated: what should have been read according to the file, s; None if it does not say.
    """

    rate: int
    duration: float | None
    stated: float | None


class Sink(Protocol):
    """Takes a file's samples as they are decoded."""

    def add(self, samples: np.ndarray, rate: int) -> None:
        """Takes float32 samples of shape ``(tracks, num_samples)`` at the file's rate."""

    def restart(self) -> None:
        """Another decoder begins again with the first sample."""


class Mixer:
    """Mixes channels block by block, or separates them, and passes the result on.

    Neither many channels nor a long recording are ever in memory at once. The last samples are
    held back, since a decoder may learn only at the end that some are padding.

    Attributes:
        num_samples: per channel, so far.
    """

    def __init__(
        self, sink: Sink, each_channel: bool = False, meter: QualityMeter | None = None
    ) -> None:
        """Begins a file.

        Args:
            sink: receives the mix, or the channels.
            each_channel: separates them.
            meter: measures the channels before they are mixed.
        """
        self.num_samples = 0
        self._sink = sink
        self._meter = meter
        self._each_channel = each_channel
        self._pending: deque[np.ndarray] = deque()
        self._num_pending = 0  # per channel

    def add(self, block: np.ndarray, rate: int) -> None:
        """Adds float32 or int16 samples of shape ``(num_samples, channels)``."""
        self.num_samples += len(block)
        self._pending.append(block)
        self._num_pending += len(block)
        if self._num_pending * block.shape[1] >= BLOCK_SAMPLES:
            self._pass_on(rate, _HELD_BACK)

    def finish(self, rate: int, padding: int = 0) -> None:
        """Passes on what is left, without so many samples at its end."""
        self._pass_on(rate, 0, padding)

    def restart(self) -> None:
        """Begins again with the first sample, for another decoder."""
        self.num_samples = self._num_pending = 0
        self._pending.clear()
        self._sink.restart()
        if self._meter is not None:
            self._meter.restart()

    def _pass_on(self, rate: int, kept: int, padding: int = 0) -> None:
        blocks = []
        while self._pending and self._num_pending - len(self._pending[0]) >= kept:
            blocks.append(self._pending.popleft())
            self._num_pending -= len(blocks[-1])
        if not blocks:
            return
        samples = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
        samples = samples[: len(samples) - padding]
        if samples.dtype == np.int16:
            samples = np.multiply(samples, np.float32(1 / FULL_SCALE), dtype=np.float32)
        tracks = samples.T if self._each_channel else to_mono(samples.T)[None]
        self._sink.add(tracks, rate)  # refuses samples that are not finite
        if self._meter is not None:
            self._meter.add(samples, rate)


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
    if rate not in RATES:
        reason = f"the sampling rate is {rate} Hz, not between 1 and 768 kHz"
        raise RecordingError(Status.DECODE_ERROR, reason)
    if channels not in _CHANNELS:
        reason = f"there are {channels} channels, not between 1 and 256"
        raise RecordingError(Status.DECODE_ERROR, reason)
