"""Samples of any rate and number of channels → mono at 16 kHz, as ``librosa.load`` has them."""

import math

import numpy as np
import soxr

from ser_core.audio.constants import SAMPLING_RATE


def to_mono(samples: np.ndarray) -> np.ndarray:
    """The mean over channels, equal to NumPy's to the last bit and several times as fast.

    Args:
        samples: float32, shape ``(channels, num_samples)``.

    Returns:
        float32, shape ``(num_samples,)``.
    """
    channels = len(samples)
    if channels >= 8:  # from here on `np.mean`, and so librosa, adds in another order
        mean: np.ndarray = np.mean(samples, axis=0)
        return mean
    total: np.ndarray = samples[0]
    for channel in samples[1:]:  # of interleaved samples, several times as fast as `np.mean`
        total = total + channel
    return total if channels == 1 else np.divide(total, np.float32(channels), out=total)


class Resampler:
    """``librosa.resample`` as ``librosa.load`` calls it, block by block: soxr HQ.

    The samples are bit-identical to those of the whole recording resampled at once.

    Attributes:
        num_samples: at 16 kHz, that were returned so far.
    """

    def __init__(self, rate: int, tracks: int) -> None:
        """Begins a recording.

        Args:
            rate: of the samples, Hz.
            tracks: how many are resampled side by side.
        """
        self.num_samples = 0
        self._rate = rate
        self._tracks = tracks
        self._num_added = 0
        self._stream: soxr.ResampleStream | None = None
        if rate != SAMPLING_RATE:
            self._stream = soxr.ResampleStream(rate, SAMPLING_RATE, tracks, np.float32, "HQ")

    def add(self, samples: np.ndarray) -> np.ndarray:
        """Takes float32 of shape ``(tracks, num_samples)`` and returns what is ready of it."""
        self._num_added += samples.shape[1]
        return self._resampled(samples, last=False)

    def finish(self) -> np.ndarray:
        """Returns the rest; in all there are ``ceil(n × ratio)`` samples, as librosa has them."""
        rest = self._resampled(np.zeros((self._tracks, 0), np.float32), last=True)
        missing = math.ceil(self._num_added * (SAMPLING_RATE / self._rate)) - self.num_samples
        return np.pad(rest, ((0, 0), (0, missing))) if missing > 0 else rest

    def _resampled(self, samples: np.ndarray, last: bool) -> np.ndarray:
        resampled = samples
        if self._stream is not None:
            shape = (-1, self._tracks) if self._tracks > 1 else -1
            block = np.ascontiguousarray(samples.T).reshape(shape)
            resampled = self._stream.resample_chunk(block, last).reshape(-1, self._tracks).T
        self.num_samples += resampled.shape[1]
        return resampled
