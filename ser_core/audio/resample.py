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
    return total if channels == 1 else np.divide(total, np.float32(channels))


def resample(samples: np.ndarray, rate: int) -> np.ndarray:
    """``librosa.resample`` as ``librosa.load`` calls it: soxr HQ, ``ceil(n × ratio)`` samples.

    Args:
        samples: mono float32, shape ``(num_samples,)``.
        rate: their sampling rate, Hz.

    Returns:
        float32 at 16 kHz.
    """
    if rate == SAMPLING_RATE:
        return np.ascontiguousarray(samples)
    length = math.ceil(len(samples) * (SAMPLING_RATE / rate))
    resampled: np.ndarray = soxr.resample(samples, rate, SAMPLING_RATE, quality="HQ")[:length]
    return np.pad(resampled, (0, length - len(resampled)))
