"""Samples at 16 kHz → the segments that are classified, as they are decoded."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from ser_core.audio.constants import SAMPLING_RATE, SEGMENT_SAMPLES, SEGMENT_SECONDS
from ser_core.audio.speech import SpeechDetector
from ser_core.settings import Segments


class Segment(NamedTuple):
    """A stretch of at most 6 s.

    Attributes:
        start: in the file, s.
        end: in the file, s.
        channel: counted from 0; None where the channels are mixed.
        waveform: float32 at 16 kHz, shape ``(num_samples,)``.
    """

    start: float
    end: float
    channel: int | None
    waveform: np.ndarray


class Stretch(NamedTuple):
    """The part of a file that one recording is.

    Attributes:
        start: in the file, s.
        end: in the file, s; None for the file's end.
    """

    start: float = 0.0
    end: float | None = None


@dataclass(frozen=True)
class Segmentation:
    """How a recording is cut into segments.

    Attributes:
        segments: its first 6 s, or all of it in windows of 6 s, or only its speech.
        hop: from the start of one window to that of the next, s.
        each_channel: cut each channel by itself rather than their mix.
    """

    segments: Segments = "first"
    hop: float = SEGMENT_SECONDS
    each_channel: bool = False

    @property
    def whole(self) -> bool:
        """Whether recordings are decoded to their end."""
        return self.segments != "first"


Emit = Callable[[int, Segment], None]


class Segmenter:
    """Cuts the stretches of one file into segments while the file is decoded.

    A window is emitted as soon as its samples are there; no more than a few seconds are kept.

    Attributes:
        num_samples: at 16 kHz, so far.
        complete: the stretches whose end was reached, whatever becomes of the rest of the file.
    """

    def __init__(self, stretches: Sequence[Stretch], how: Segmentation, emit: Emit) -> None:
        """Begins a file.

        Args:
            stretches: the recordings of the file.
            how: how they are cut.
            emit: receives the number of the stretch and each of its segments, in order.
        """
        self.num_samples = 0
        self.complete: set[int] = set()
        self._emit = emit
        self._each_channel = how.each_channel
        self._emitted = [0] * len(stretches)
        self._repeated = [0] * len(stretches)  # to be passed over after a restart
        speech = how.segments == "speech"
        self._cutters: list[_Cutter] = [
            _Speech(stretch) if speech else _Windows(stretch, how) for stretch in stretches
        ]

    def add(self, samples: np.ndarray) -> None:
        """Takes float32 samples at 16 kHz, shape ``(tracks, num_samples)``."""
        start = self.num_samples
        self.num_samples += samples.shape[1]
        for number, cutter in enumerate(self._cutters):
            begin, end = max(start, cutter.start), min(self.num_samples, cutter.end)
            if begin < end and number not in self.complete:
                self._pass_on(number, cutter.add(samples[:, begin - start : end - start]))
                if end == cutter.end:
                    self._pass_on(number, cutter.finish())
                    self.complete.add(number)

    def finish(self) -> None:
        """The file has ended: what is left of its stretches are their last segments."""
        for number, cutter in enumerate(self._cutters):
            if number not in self.complete:
                self._pass_on(number, cutter.finish())

    def speech(self, number: int) -> float | None:
        """The share of a stretch in which somebody speaks; None if nobody looked."""
        return self._cutters[number].speech

    @property
    def seconds(self) -> float:
        """How much of the file was added, s."""
        return self.num_samples / SAMPLING_RATE

    def restart(self) -> None:
        """The file begins again; segments that were emitted are not emitted twice."""
        self.num_samples = 0
        self._repeated = list(map(max, self._repeated, self._emitted))
        self._emitted = [0] * len(self._emitted)
        for number, cutter in enumerate(self._cutters):
            if number not in self.complete:
                cutter.restart()

    def _pass_on(self, number: int, cuts: Sequence["_Cut"]) -> None:
        for start, track, waveform in cuts:
            self._emitted[number] += 1
            if self._emitted[number] > self._repeated[number]:
                end = (start + len(waveform)) / SAMPLING_RATE
                channel = track if self._each_channel else None
                segment = Segment(start / SAMPLING_RATE, end, channel, waveform.copy())
                self._emit(number, segment)


_Cut = tuple[int, int, np.ndarray]  # its first sample's position in the file, its track, samples


class _Cutter(Protocol):
    """Cuts one stretch.

    Attributes:
        start: of the stretch in the file, samples.
        end: of the stretch in the file, samples.
    """

    start: int
    end: float

    @property
    def speech(self) -> float | None:
        """The share of it that is speech; None if nobody looked."""

    def add(self, samples: np.ndarray) -> Sequence[_Cut]:
        """Takes the stretch's next samples, and returns the segments that are complete."""

    def finish(self) -> Sequence[_Cut]:
        """Returns the rest."""

    def restart(self) -> None:
        """Begins again."""


def _bounds(stretch: Stretch) -> tuple[int, float]:
    end = np.inf if stretch.end is None else round(stretch.end * SAMPLING_RATE)
    return round(stretch.start * SAMPLING_RATE), end


class _Windows:
    """Windows of 6 s every so many samples; the last one is the first that reaches the end."""

    speech = None

    def __init__(self, stretch: Stretch, how: Segmentation) -> None:
        self.start, self.end = _bounds(stretch)
        self._hop = round(how.hop * SAMPLING_RATE)
        self._only_first = how.segments == "first"
        self.restart()

    def restart(self) -> None:
        self._next = self._covered = self._added = self.start  # positions in the file
        self._kept = np.zeros((0, 0), np.float32)  # the samples from `_next` on, or fewer

    def add(self, samples: np.ndarray) -> list[_Cut]:
        if self._only_first and self._covered > self.start:
            return []
        self._added += samples.shape[1]
        self._kept = np.concatenate([self._kept, samples], axis=1) if self._kept.size else samples
        self._drop_before_next()
        cuts: list[_Cut] = []
        while self._next + SEGMENT_SAMPLES <= self._added:
            cuts += _cuts(self._next, self._kept[:, :SEGMENT_SAMPLES])
            self._covered = self._next + SEGMENT_SAMPLES
            self._next += self._hop
            if self._only_first:
                self._kept = self._kept[:, :0]
                break
            self._drop_before_next()
        return cuts

    def finish(self) -> list[_Cut]:
        ended = self._only_first and self._covered > self.start
        if ended or self._added <= self._covered or self._next >= self._added:
            return []
        return _cuts(self._next, self._kept)

    def _drop_before_next(self) -> None:
        surplus = self._kept.shape[1] - (self._added - self._next)
        if surplus > 0:
            self._kept = self._kept[:, surplus:]


def _cuts(start: int, samples: np.ndarray) -> list[_Cut]:
    return [(start, track, waveform) for track, waveform in enumerate(samples)]


class _Speech:
    """Where somebody speaks, in each track by itself; see `SpeechDetector`."""

    def __init__(self, stretch: Stretch) -> None:
        self.start, self.end = _bounds(stretch)
        self.restart()

    def restart(self) -> None:
        self._detectors: list[SpeechDetector] = []  # of each track
        self._added = 0
        self._kept = np.zeros((0, 0), np.float32)  # the last samples

    @property
    def speech(self) -> float:
        speech = sum(detector.speech_samples for detector in self._detectors)
        return speech / max(1, self._added * len(self._detectors))

    def add(self, samples: np.ndarray) -> list[_Cut]:
        self._detectors = self._detectors or [SpeechDetector() for _ in samples]
        self._added += samples.shape[1]
        self._kept = np.concatenate([self._kept, samples], axis=1) if self._kept.size else samples
        cuts = self._cut(
            [detector.add(track) for detector, track in zip(self._detectors, samples, strict=True)]
        )
        undecided = min(detector.undecided_from for detector in self._detectors)
        self._kept = self._kept[:, self._kept.shape[1] - (self._added - undecided) :]
        return cuts

    def finish(self) -> list[_Cut]:
        return self._cut([detector.finish() for detector in self._detectors])

    def _cut(self, found: list[list[tuple[int, int]]]) -> list[_Cut]:
        first = self._added - self._kept.shape[1]
        return [
            (self.start + start, track, self._kept[track, start - first : end - first])
            for track, segments in enumerate(found)
            for start, end in segments
        ]
