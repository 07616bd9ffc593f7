"""Finds speech in a stream of samples by silero-vad, as segments that the model can take."""

import importlib.util
import math
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ser_core.audio.constants import SAMPLING_RATE, SEGMENT_SAMPLES
from ser_core.errors import UsageError

Segment = tuple[int, int]  # start and end, samples at 16 kHz

# Thresholds and padding are the defaults of `get_speech_timestamps` of silero-vad.
_START_PROBABILITY = 0.5  # speech begins at this,
_PAUSE_PROBABILITY = 0.35  # and a pause below this
_PADDING = SAMPLING_RATE * 30 // 1000  # added at each end
# The network needs a moment to recognise speech. So silero's default of 250 ms misses three in ten
# words of 300 ms, this one in ten; neither lets a click, a tone or a burst of noise pass.
_MIN_SPEECH = SAMPLING_RATE * 100 // 1000
# Silero's default of 100 ms is shorter than pauses within a sentence: it cuts 20 of the 535
# sentences of EMO-DB, 300 ms cuts 11. Longer would join the turns of a conversation, between which
# there are about 200 ms (Stivers et al. 2009, doi:10.1073/pnas.0903616106).
_MIN_PAUSE = SAMPLING_RATE * 300 // 1000
_MAX_PAUSE = 2 * SAMPLING_RATE  # where the probability stays between the two thresholds
_MIN_PIECE = 2 * SAMPLING_RATE  # of speech that has to be cut; a short sentence is as long

# Input of the network: 32 ms and the 4 ms before them. (`OnnxWrapper` of silero-vad)
_FRAME, _CONTEXT = 512, 64
_FRAMES_PER_CALL = 32  # with more, a call is not faster per frame
_STATE_SHAPE = (1, 1, 128)
_MODEL = Path("data", "silero_vad_16k_sequence.onnx")  # many frames per call; since 6.2.2


def check_installed() -> None:
    """Checks that silero-vad and onnxruntime are installed, and imports neither.

    Raises:
        UsageError: one is missing, or silero-vad is too old.
    """
    _model_path()


class SpeechDetector:
    """Finds the speech in one channel of a recording, in constant memory.

    - Speech begins where its probability reaches 0.5, and ends in a pause of 300 ms, which begins
      where it falls below 0.35. 30 ms are added at each end. Shorter pauses are part of the speech.
    - Speech of up to 100 ms is ignored. A short word such as "nein" is longer.
    - Speech longer than 6 s is cut where it is least probable, on average over 128 ms, into
      segments of 2 to 6 s that follow each other without a gap. So it is cut in a pause or between
      words, and no remainder is too short to be classified.

    Up to the cutting, this is ``get_speech_timestamps`` of silero-vad with
    ``min_speech_duration_ms=100`` and ``min_silence_duration_ms=300``, with one exception that
    keeps memory constant: a pause also ends speech when it has lasted 2 s, whatever the probability
    is then.

    Attributes:
        speech_samples: in all segments so far.
    """

    def __init__(self) -> None:
        self.speech_samples = 0
        self._probabilities = _Probabilities()
        self._num_samples = 0
        self._num_frames = 0  # whose probability is known
        self._speech: _Speech | None = None

    @property
    def undecided_from(self) -> int:
        """No segment to come contains a sample before this one.

        It lies less than 12 s before the last sample.
        """
        if self._speech:
            return self._speech.start
        return max(0, self._num_frames * _FRAME - _PADDING)

    def add(self, samples: np.ndarray) -> list[Segment]:
        """Takes the next samples of the recording.

        Args:
            samples: mono float32 at 16 kHz, finite, shape ``(num_samples,)``; of any length.

        Returns:
            The segments that are decided now, in order, each of at most 6 s.
        """
        self._num_samples += len(samples)
        return self._segments(self._probabilities.add(samples))

    def finish(self) -> list[Segment]:
        """The segments that were undecided at the end of the recording."""
        segments = self._segments(self._probabilities.finish())
        return segments + (self._end_speech(self._num_samples) if self._speech else [])

    def _segments(self, probabilities: list[float]) -> list[Segment]:
        return [segment for value in probabilities for segment in self._add_frame(value)]

    def _add_frame(self, probability: float) -> list[Segment]:
        start = self._num_frames * _FRAME
        self._num_frames += 1
        speech = self._speech
        if not speech:
            if probability >= _START_PROBABILITY:
                padded = max(0, start - _PADDING)
                self._speech = _Speech(padded, self._num_frames - 1, [probability])
            return []
        speech.probabilities.append(probability)
        if probability >= _START_PROBABILITY:
            speech.pause = None
        elif speech.pause is None and probability < _PAUSE_PROBABILITY:
            speech.pause = start
        if speech.pause is not None:
            pause = start - speech.pause
            if pause >= (_MIN_PAUSE if probability < _PAUSE_PROBABILITY else _MAX_PAUSE):
                return self._end_speech(speech.pause)
            return []
        return self._cut(speech, start + _FRAME, _MIN_PIECE)

    def _end_speech(self, end: int) -> list[Segment]:
        """Decides what is left of the speech, now that its end is known."""
        speech, self._speech = self._speech, None
        if not speech or end - speech.first_frame * _FRAME <= _MIN_SPEECH:
            return []
        end = min(end + _PADDING, self._num_samples)
        segments = self._cut(speech, end, 0)
        self.speech_samples += end - speech.start
        return [*segments, (speech.start, end)]

    def _cut(self, speech: "_Speech", end: int, reserve: int) -> list[Segment]:
        """Cuts segments off speech of more than 6 s and a reserve, until less is left."""
        segments = []
        while end - speech.start > SEGMENT_SAMPLES + reserve:
            segments.append(speech.cut(end))
            self.speech_samples += segments[-1][1] - segments[-1][0]
        return segments


@dataclass
class _Speech:
    """Speech whose end is not known yet.

    Attributes:
        start: its first sample, with padding.
        first_frame: of the probabilities.
        probabilities: of its frames, pauses and what follows included.
        pause: the first sample of the pause at its end.
    """

    start: int
    first_frame: int
    probabilities: list[float]
    pause: int | None = None

    def cut(self, end: int) -> Segment:
        """Cuts off a segment where speech is least probable; both parts have at least 2 s."""
        lowest = math.ceil((self.start + _MIN_PIECE) / _FRAME)
        highest = min(self.start + SEGMENT_SAMPLES, end - _MIN_PIECE) // _FRAME
        frame = min(range(lowest, highest + 1), key=self._probability_around)
        segment = (self.start, frame * _FRAME)
        del self.probabilities[: frame - self.first_frame]
        self.start, self.first_frame = frame * _FRAME, frame
        return segment

    def _probability_around(self, frame: int) -> float:
        """Of the two frames before the beginning of a frame and the two after it, added up."""
        index = frame - self.first_frame
        return sum(self.probabilities[index - 2 : index + 2])


class _Probabilities:
    """The probability of speech in each frame of 32 ms."""

    def __init__(self) -> None:
        self._pending = np.zeros(_CONTEXT, np.float32)  # with the context of the first frame
        self._state = [np.zeros(_STATE_SHAPE, np.float32)] * 2  # of the LSTM

    def add(self, samples: np.ndarray) -> list[float]:
        """Those of the frames that are complete.

        The network is called with the same frames wherever the samples were cut, so that its
        results do not depend on it.
        """
        pending = np.concatenate([self._pending, samples])
        step = _FRAMES_PER_CALL * _FRAME
        num_calls = (len(pending) - _CONTEXT) // step
        self._pending = pending[num_calls * step :].copy()
        calls = (pending[i * step : (i + 1) * step + _CONTEXT] for i in range(num_calls))
        return [probability for call in calls for probability in self._call(call)]

    def finish(self) -> list[float]:
        """Those of the rest, whose last frame is padded with zeros."""
        rest = self._pending
        missing = (_CONTEXT - len(rest)) % _FRAME
        return self._call(np.pad(rest, (0, missing))) if len(rest) > _CONTEXT else []

    def _call(self, samples: np.ndarray) -> list[float]:
        windows = np.lib.stride_tricks.sliding_window_view(samples, _CONTEXT + _FRAME)[::_FRAME]
        h, c = self._state
        inputs = {"input": np.ascontiguousarray(windows), "h": h, "c": c}
        values, *self._state = _session().run(["speech_probs", "hn", "cn"], inputs)
        return [float(value) for value in values]


def _model_path() -> Path:
    """The network that silero-vad ships, without importing the package, which imports torch."""
    package = importlib.util.find_spec("silero_vad")
    for folder in (package and package.submodule_search_locations) or []:
        if (Path(folder) / _MODEL).is_file() and importlib.util.find_spec("onnxruntime"):
            return Path(folder) / _MODEL
    raise UsageError(
        "silero-vad and onnxruntime are required to find speech: pip install 'ser-batch[speech]'"
    )


@cache
def _session() -> Any:
    """The network, loaded once per process."""
    path = _model_path()
    # Otherwise, from 1.29 on, onnxruntime reports its use to its maker; read when it is imported.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # a process per core decodes
    return onnxruntime.InferenceSession(
        str(path), sess_options=options, providers=["CPUExecutionProvider"]
    )
