"""Measures what may be wrong with a recording while it is decoded, at the file's own rate."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

# Thresholds of the words. docs/output.md has them in a table, with what real recordings have.
SHORT_SECONDS = 0.5  # half of the shortest recording that the card's model was trained on, 0.96 s
SILENT_DB = -60.0  # RMS, dB of full scale; an idle telephone line is near -65 dB
QUIET_DB = -40.0  # RMS, dB of full scale; 14 dB below the nominal level of ITU-T P.830, -26 dB
CLIPPED_SHARE = 0.001  # of the samples of a channel
NO_SPEECH_RANGE_DB = 6.0  # of the level, dB; white noise has 2 dB at most, speech 12 dB or more

FRAME_SECONDS = 0.02  # of the level
LOW_PERCENTILE, HIGH_PERCENTILE = 10, 95  # of the level; between them is its range
FLOOR_DB = -120.0  # of every level: digital silence has no finite one
FLAT_SAMPLES = 3  # successive samples at an extreme that are taken for clipped
FLAT_PEAK = 0.1  # a lower extreme has too few steps of 8 or 16 bits to look for that

_FULL_SCALE = np.float32(32_767 / 32_768)  # the largest sample of 16 bits; MP3 goes beyond it
_SAMPLES_AT_ONCE = 1 << 18  # of all channels; they stay in a core's cache meanwhile
_MOST_ENERGY = np.finfo(np.float32).max  # the square of a finite sample may be infinite
_LOWEST_POWER = 10 ** (FLOOR_DB / 10)
_PERCENTILES = np.array([LOW_PERCENTILE, HIGH_PERCENTILE])
_STEPS_PER_BEL = 20  # of the histogram of levels, which takes the place of all levels
_NUM_LEVELS = round((2 - FLOOR_DB / 10) * _STEPS_PER_BEL)  # floats may be above full scale


class Quality(NamedTuple):
    """What was measured of a recording, as far as it was decoded: columns of the output.

    Attributes:
        quality: words for what is wrong, separated by a space, in the order of `words`.
        rms_db: root mean square over all samples of all channels, dB of full scale.
        peak: the largest absolute sample; above 1 where a format has no full scale.
        clipped_share: the share of samples in flat tops, of the channel that has most of them.
        level_range_db: between a low and a high percentile of the levels of frames of 20 ms.
    """

    quality: str
    rms_db: float
    peak: float
    clipped_share: float
    level_range_db: float


def words(
    seconds: float, rms_db: float, clipped_share: float, level_range_db: float, speech: float | None
) -> str:
    """The words for what is wrong.

    Args:
        seconds: how much was measured.
        rms_db: as in `Quality`.
        clipped_share: as in `Quality`.
        level_range_db: as in `Quality`; decides where no detector looked for speech.
        speech: the share of the recording that is speech; None if nobody looked.

    >>> words(0.3, -50.0, 0.0, 30.0, None)
    'short quiet'
    """
    no_speech = level_range_db < NO_SPEECH_RANGE_DB if speech is None else speech == 0
    found = {
        "short": seconds < SHORT_SECONDS,
        "silent": rms_db < SILENT_DB,
        "quiet": SILENT_DB <= rms_db < QUIET_DB,
        "clipped": clipped_share >= CLIPPED_SHARE,
        "no_speech": no_speech,
    }
    return " ".join(word for word, applies in found.items() if applies)


class QualityMeter:
    """Measures stretches of one file while it is decoded, in memory that does not grow with it."""

    def __init__(self, bounds: Sequence[tuple[float, float | None]]) -> None:
        """Begins a file.

        Args:
            bounds: where each stretch starts and ends, s; None for the file's end.
        """
        self._bounds = bounds
        self._stretches: dict[int, _Stretch] = {}
        self._complete: set[int] = set()
        self._num_samples = 0  # per channel, so far

    def add(self, samples: np.ndarray, rate: int) -> None:
        """Takes finite float32 samples of shape ``(num_samples, channels)``."""
        first, self._num_samples = self._num_samples, self._num_samples + len(samples)
        for number, (start, end) in enumerate(self._bounds):
            begin = max(round(start * rate) - first, 0)
            stop = len(samples) if end is None else round(end * rate) - first
            if number not in self._complete and begin < min(stop, len(samples)):
                if number not in self._stretches:
                    self._stretches[number] = _Stretch(rate, samples.shape[1])
                self._stretches[number].add(samples[begin:stop])
                if end is not None and stop <= len(samples):
                    self._complete.add(number)

    def restart(self) -> None:
        """The file begins again with the first sample; stretches that are complete stay so."""
        self._num_samples = 0
        self._stretches = {n: self._stretches[n] for n in self._complete}

    def quality(self, number: int, speech: float | None) -> Quality | None:
        """What was measured of a stretch; None if none of its samples came.

        Args:
            number: of the stretch.
            speech: the share of it that is speech; None if nobody looked.
        """
        stretch = self._stretches.get(number)
        return None if stretch is None else stretch.quality(speech)


class _Stretch:
    """Measures one stretch, frame by frame, whatever the blocks in which its samples come."""

    def __init__(self, rate: int, channels: int) -> None:
        self._rate = rate
        self._frame_samples = round(FRAME_SECONDS * rate)
        self._frames_at_once = max(1, _SAMPLES_AT_ONCE // (self._frame_samples * channels))
        self._rest = np.zeros((0, channels), np.float32)  # less than a frame
        self._num_samples = 0  # per channel
        self._energy = 0.0  # of all samples of all channels
        self._levels = np.zeros(_NUM_LEVELS, np.int64)  # how many frames have each level
        self._flat_tops = _FlatTops(channels)

    def add(self, samples: np.ndarray) -> None:
        if len(self._rest):
            missing = self._frame_samples - len(self._rest)
            self._rest = np.concatenate([self._rest, samples[:missing]])
            if len(self._rest) < self._frame_samples:
                return
            self._measure(self._rest[None])
            samples = samples[missing:]
        count = len(samples) // self._frame_samples
        end = count * self._frame_samples
        frames = samples[:end].reshape(count, self._frame_samples, samples.shape[1])
        for start in range(0, count, self._frames_at_once):
            self._measure(frames[start : start + self._frames_at_once])
        self._rest = samples[end:].copy()

    def quality(self, speech: float | None) -> Quality:
        if len(self._rest):
            self._measure(self._rest[None])
            self._rest = self._rest[:0]
        power = self._energy / (self._num_samples * self._rest.shape[1])
        rms_db = 10 * math.log10(max(power, _LOWEST_POWER))
        counts = self._levels.cumsum()
        low, high = counts.searchsorted(counts[-1] * _PERCENTILES / 100)
        level_range_db = float(high - low) * 10 / _STEPS_PER_BEL
        clipped_share = self._flat_tops.most / self._num_samples
        seconds = self._num_samples / self._rate
        found = words(seconds, rms_db, clipped_share, level_range_db, speech)
        return Quality(found, rms_db, self._flat_tops.peak, clipped_share, level_range_db)

    def _measure(self, frames: np.ndarray) -> None:
        """Takes frames of shape ``(num_frames, num_samples, channels)``."""
        rows = frames.reshape(len(frames), -1)
        with np.errstate(over="ignore"):
            energies = (rows[:, None] @ rows[:, :, None]).ravel()  # the fastest sum of squares
        energies = np.minimum(energies, _MOST_ENERGY).astype(np.float64)
        levels = np.log10(np.maximum(energies, _LOWEST_POWER * rows.shape[1])) * _STEPS_PER_BEL
        steps = (levels - math.log10(_LOWEST_POWER * rows.shape[1]) * _STEPS_PER_BEL).astype(
            np.int64
        )
        self._levels += np.bincount(np.minimum(steps, _NUM_LEVELS - 1), minlength=_NUM_LEVELS)
        self._energy += float(energies.sum())
        self._num_samples += frames.shape[0] * frames.shape[1]
        self._flat_tops.add(frames, rows)


class _FlatTops:
    """Counts samples at the highest and at the lowest value of each channel, in runs.

    What clips leaves such runs, also if the level is lowered afterwards. A sine at full scale has
    none, and speech next to none.
    """

    def __init__(self, channels: int) -> None:
        # Of each channel: its highest sample so far, then its lowest, negated.
        self._extremes = np.zeros((2, channels), np.float32)
        self._counts = np.zeros((2, channels), np.int64)

    @property
    def peak(self) -> float:
        """The largest absolute sample."""
        return float(self._extremes.max())

    @property
    def most(self) -> int:
        """Of the channel that has most of them."""
        return int(self._counts.sum(axis=0).max())

    def add(self, frames: np.ndarray, rows: np.ndarray) -> None:
        """Takes frames of shape ``(num_frames, num_samples, channels)``, also as rows."""
        # Of each position in a frame, over the frames: only several of them can be a run, which
        # spares nearly all recordings the comparison of each sample.
        maxima = np.empty((2, rows.shape[1]), np.float32)
        rows.max(axis=0, out=maxima[0])
        np.negative(rows.min(axis=0), out=maxima[1])
        maxima = maxima.reshape(2, *frames.shape[1:])
        maxima = np.ascontiguousarray(maxima.swapaxes(1, 2))  # faster for few channels
        extremes = np.maximum(self._extremes, maxima.max(axis=2))
        flat = np.minimum(extremes, _FULL_SCALE)
        self._counts[flat > np.minimum(self._extremes, _FULL_SCALE)] = 0
        self._extremes = extremes
        positions = (maxima >= flat[:, :, None]).sum(axis=2)
        runs = (positions >= FLAT_SAMPLES) & (flat >= FLAT_PEAK)
        for side, channel in zip(*np.nonzero(runs), strict=True):
            signed = -frames[:, :, channel] if side else frames[:, :, channel]
            self._counts[side, channel] += _num_in_runs(signed >= flat[side, channel])


def _num_in_runs(flat: np.ndarray) -> int:
    """How many samples are in runs of at least `FLAT_SAMPLES`, but for frames that are constant."""
    flat = flat[flat.any(axis=1) & ~flat.all(axis=1)]
    runs = sliding_window_view(flat, FLAT_SAMPLES, axis=1).all(axis=2)
    in_run = np.zeros_like(flat)
    for shift in range(FLAT_SAMPLES):
        in_run[:, shift : shift + runs.shape[1]] |= runs
    return int(np.count_nonzero(in_run))
