"""One file → the segments of its recordings; it runs in a child process that the file may crash."""

import io
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import BinaryIO, NamedTuple

import numpy as np

from ser_core.audio.constants import FULL_SCALE, SAMPLING_RATE, SEGMENT_SECONDS
from ser_core.audio.decode import AudioInfo, decode_into, tolerated_loss
from ser_core.audio.quality import QualityMeter
from ser_core.audio.segments import Segment, Segmentation, Segmenter, Stretch
from ser_core.errors import RecordingError, Status
from ser_core.isolation import Caller
from ser_core.sources.forms import open_recording
from ser_core.sources.recording import Recording
from ser_core.storage.reading import Stopwatch

_SEGMENTS_PER_MESSAGE = 16  # 6 MB at most
_PROBED_SAMPLES = 1_000  # hardly a recording of more than 16 bits begins with so many of 16 bits


class FileJob(NamedTuple):
    """One file to decode.

    Attributes:
        first: the position of its first recording among all that are decoded.
        recordings: the file itself, or stretches of it.
        content: if it is a member of a packed file, its bytes, or why they cannot be read.
        how: how recordings are cut into segments.
        fetch_seconds: that reading the content took.
    """

    first: int
    recordings: Sequence[Recording]
    content: bytes | RecordingError | None
    how: Segmentation
    fetch_seconds: float = 0.0


class Decoded(NamedTuple):
    """What became of a recording, or of a part of it.

    Attributes:
        recording: its position among those that are decoded.
        segments: their waveforms are int16 where that is lossless.
        result: what is known of its file, or why it has no label; None if more follows.
        fetch_seconds: waiting for storage.
        decode_seconds: the rest.
    """

    recording: int
    segments: list[Segment]
    result: AudioInfo | RecordingError | None
    fetch_seconds: float = 0.0
    decode_seconds: float = 0.0


def decode_file(job: FileJob, caller: Caller) -> Decoded:
    """Decodes a file once for all its recordings.

    Sends what is ready, and returns the last of it. A file that fails midway costs the recordings
    that are not complete then.
    """
    messages = _Messages(job, caller)
    stretches = [_stretch(each) for each in job.recordings]
    segmenter = Segmenter(stretches, job.how, messages.add)
    meter = QualityMeter([(each.start, _needed(each, job.how)) for each in stretches])
    started, stopwatch = time.perf_counter(), _PausingStopwatch(caller)
    outcome: AudioInfo | RecordingError
    try:
        with _opened(job, stopwatch) as handle:
            seconds, each = _seconds_needed(job), job.how.each_channel
            outcome = decode_into(handle, segmenter, seconds, each, meter)
        segmenter.finish()
    except RecordingError as error:
        outcome = error
    results = [_result(job, n, segmenter, meter, outcome) for n in range(len(stretches))]
    elapsed = time.perf_counter() - started - stopwatch.seconds
    return messages.finish(results, job.fetch_seconds + stopwatch.seconds, elapsed)


def _stretch(recording: Recording) -> Stretch:
    start = recording.start or 0.0
    return Stretch(start, None if recording.duration is None else start + recording.duration)


def _seconds_needed(job: FileJob) -> float | None:
    """How much of the file's beginning has to be decoded; None for all of it."""
    ends = [_needed(_stretch(recording), job.how) for recording in job.recordings]
    return None if None in ends else max(end for end in ends if end is not None)


def _needed(stretch: Stretch, how: Segmentation) -> float | None:
    start, end = stretch
    if how.whole:
        return end
    return start + SEGMENT_SECONDS if end is None else min(start + SEGMENT_SECONDS, end)


def _opened(job: FileJob, stopwatch: Stopwatch) -> AbstractContextManager[BinaryIO]:
    if isinstance(job.content, RecordingError):
        raise job.content
    if job.content is not None:
        return nullcontext(io.BytesIO(job.content))
    return open_recording(job.recordings[0], stopwatch)


def _result(
    job: FileJob,
    number: int,
    segmenter: Segmenter,
    meter: QualityMeter,
    outcome: AudioInfo | RecordingError,
) -> AudioInfo | RecordingError:
    """What is known of a recording, unless its file or its stretch is not what it should be."""
    info = AudioInfo(None, None) if isinstance(outcome, RecordingError) else outcome
    speech = segmenter.speech(number)
    quality = meter.quality(number, speech)
    known = info._replace(speech=speech, **(quality._asdict() if quality else {}))
    if number in segmenter.complete:
        return known
    if isinstance(outcome, RecordingError):
        return outcome
    if job.recordings[number].start is None:
        return known
    stretch = _stretch(job.recordings[number])
    return _problem(stretch, _needed(stretch, job.how), segmenter.seconds) or known


def _problem(stretch: Stretch, needed: float | None, decoded: float) -> RecordingError | None:
    """Why a stretch has not what it should have.

    Args:
        stretch: of the file.
        needed: up to where its file had to be decoded, s; None for the file's end.
        decoded: up to where it was, s.
    """
    start, end = stretch
    if decoded <= start:
        reason = f"the stretch begins at {start:g} s, and the recording ends at {decoded:g} s"
        return RecordingError(Status.EMPTY, reason)
    if end is None or needed is None:
        return None
    if round((end - start) * SAMPLING_RATE) == 0:
        return RecordingError(Status.EMPTY, f"the stretch at {start:g} s has no duration")
    if needed - decoded > tolerated_loss(end - start):  # manifests round
        reason = f"truncated: the stretch ends at {end:g} s, the recording at {decoded:g} s"
        return RecordingError(Status.TRUNCATED, reason)
    return None


class _Messages:
    """Collects segments into messages to the caller."""

    def __init__(self, job: FileJob, caller: Caller) -> None:
        self._first = job.first
        self._caller = caller
        self._waiting: list[list[Segment]] = [[] for _ in job.recordings]
        self._num_waiting = 0

    def add(self, number: int, segment: Segment) -> None:
        waveform = _as_int16_if_lossless(segment.waveform)
        self._waiting[number].append(segment._replace(waveform=waveform))
        self._num_waiting += 1
        if self._num_waiting >= _SEGMENTS_PER_MESSAGE:
            for other, segments in enumerate(self._waiting):
                if segments:
                    self._caller.send(Decoded(self._first + other, segments, None))
            self._waiting, self._num_waiting = [[] for _ in self._waiting], 0

    def finish(
        self, results: Sequence[AudioInfo | RecordingError], fetch: float, decode: float
    ) -> Decoded:
        """Sends all results but the last one, which it returns; they share the file's time."""
        shares = fetch / len(results), decode / len(results)
        decoded = [
            Decoded(self._first + number, segments, result, *shares)
            for number, (segments, result) in enumerate(zip(self._waiting, results, strict=True))
        ]
        for each in decoded[:-1]:
            self._caller.send(each)
        return decoded[-1]


class _PausingStopwatch(Stopwatch):
    """Stops the clock of the call while storage is waited for."""

    def __init__(self, caller: Caller) -> None:
        super().__init__()
        self._caller = caller

    @contextmanager
    def waiting(self) -> Iterator[None]:
        with self._caller.pause(), super().waiting():
            yield


def _as_int16_if_lossless(waveform: np.ndarray) -> np.ndarray:
    """Half the bytes for recordings of 16 bits at 16 kHz."""
    beginning = _as_int16(waveform[:_PROBED_SAMPLES])
    integers = None if beginning is None else _as_int16(waveform)
    return waveform.astype("<f4", copy=False) if integers is None else integers


def _as_int16(samples: np.ndarray) -> np.ndarray | None:
    """The same samples as integers; None if they are none."""
    scaled = samples * FULL_SCALE
    with np.errstate(invalid="ignore"):  # what does not fit compares as different
        integers = scaled.astype("<i2")
    return integers if np.array_equal(integers, scaled) else None
